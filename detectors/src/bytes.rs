//! Bytes that are packed or shown: LEB128 numbers, hexadecimal.

use std::fmt::Write as _;

/// Bytes in hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut hex, byte| {
        write!(hex, "{byte:02x}").expect("writing to a string cannot fail");
        hex
    })
}

/// Appends a number as LEB128: seven bits a byte, lowest first.
pub fn put_number(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Takes a LEB128 number off the front. `None` if the bytes end within it, or it is longer than 64 bits may be.
pub fn take_number(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u64::from(byte & 0x7F) << shift;
        if *byte < 0x80 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn bytes_are_two_digits_each() {
        assert_eq!(hex(&[0, 9, 0xAB, 255]), "0009abff");
    }

    proptest! {
        #[test]
        fn numbers_come_back(number: u64, shift in 0_u32..64, rest: Vec<u8>) {
            let number = number >> shift;
            let mut packed = Vec::new();
            put_number(&mut packed, number);
            prop_assert_eq!(take_number(&mut &packed[..packed.len() - 1]), None);
            packed.extend_from_slice(&rest);
            let mut left = packed.as_slice();
            prop_assert_eq!(take_number(&mut left), Some(number));
            prop_assert_eq!(left, rest);
        }
    }
}

//! The kernel: 64 bytes at a time into bitmaps of unescaped quotes, opens and closes.
//!
//! This is the only file of the project with `unsafe` in it. What may go wrong is small and named at each block: a
//! load from a reference to 64 bytes, and a call to a function whose instruction set was detected before.
//!
//! All kernels give the same blocks and the same health for the same bytes; the portable one is the yardstick that
//! the others are tested against.
#![allow(unsafe_code)]
// What the kernels share has to be compiled into each of them, for each one's instruction set.
#![allow(clippy::inline_always)]

use super::Health;

/// Bytes a block of marks stands for.
pub(super) const BLOCK: usize = 64;

/// The marks of 64 bytes; bit `n` of a bitmap is byte `n`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Block {
    /// Quotes that no backslash escapes: every one begins or ends a string.
    pub(super) quotes: u64,
    /// `{` and `[` outside strings.
    pub(super) opens: u64,
    /// `}` and `]` outside strings.
    pub(super) closes: u64,
    /// Opens less closes in all blocks before this one.
    pub(super) depth: i32,
    /// A depth that this block cannot fall below: `depth` less all of its closes.
    pub(super) floor: i32,
}

/// What one block leaves for the next, and what was noticed on the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct State {
    /// 1 when the next block's first byte is escaped.
    escaped: u64,
    /// All ones when the next block begins inside a string.
    inside: u64,
    depth: i32,
    pub(super) health: Health,
    /// Where in the last block the raw newline stands that ended the line.
    pub(super) newline: Option<u32>,
}

impl State {
    pub(super) fn new() -> Self {
        Self { escaped: 0, inside: 0, depth: 0, health: Health::default(), newline: None }
    }

    /// A block after the last, without any marks.
    pub(super) fn empty_block(&self) -> Block {
        Block { depth: self.depth, floor: self.depth, ..Block::default() }
    }

    /// Health of a document that ends here.
    pub(super) fn finish(self) -> Health {
        Health { open_string: self.inside != 0, ..self.health }
    }
}

/// One bit a byte for each class of bytes, before strings and escapes are known.
struct Classes {
    quote: u64,
    backslash: u64,
    open: u64,
    close: u64,
    /// Bytes that are not printable ASCII: below 0x20, or 0x80 and above.
    odd: u64,
}

/// Which kernel runs. A value of this type proves that the processor has what its kernel needs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kernel(Level);

#[derive(Clone, Copy, Debug)]
enum Level {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    Avx2,
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    Sse2,
    #[cfg_attr(all(target_arch = "x86_64", not(miri), not(test)), allow(dead_code))]
    Portable,
}

impl Kernel {
    /// The fastest kernel that this processor runs.
    pub(super) fn detect() -> Self {
        #[cfg(all(target_arch = "x86_64", not(miri)))]
        {
            if has_avx2() { Self(Level::Avx2) } else { Self(Level::Sse2) }
        }
        #[cfg(not(all(target_arch = "x86_64", not(miri))))]
        {
            Self(Level::Portable)
        }
    }

    /// Every kernel that this processor runs, the portable one first.
    #[cfg(test)]
    pub(super) fn all() -> Vec<Self> {
        let mut all = vec![Self(Level::Portable)];
        #[cfg(all(target_arch = "x86_64", not(miri)))]
        {
            all.push(Self(Level::Sse2));
            if has_avx2() {
                all.push(Self(Level::Avx2));
            }
        }
        all
    }

    /// Marks `chunks` into `out` until either runs out or, with `LINE`, a raw newline is met; returns the number of
    /// blocks written. The block with the newline is written too, with nothing marked from the newline on.
    #[inline]
    pub(super) fn run<const LINE: bool>(
        self,
        chunks: &[[u8; BLOCK]],
        out: &mut [Block],
        state: &mut State,
    ) -> usize {
        match self.0 {
            // SAFETY: the only places that make this level checked `has_avx2` first.
            #[cfg(all(target_arch = "x86_64", not(miri)))]
            Level::Avx2 => unsafe { x86::avx2::<LINE>(chunks, out, state) },
            // SAFETY: SSE2 is part of x86_64.
            #[cfg(all(target_arch = "x86_64", not(miri)))]
            Level::Sse2 => unsafe { x86::sse2::<LINE>(chunks, out, state) },
            Level::Portable => portable::<LINE>(chunks, out, state),
        }
    }
}

#[cfg(all(target_arch = "x86_64", not(miri)))]
fn has_avx2() -> bool {
    is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("pclmulqdq")
        && is_x86_feature_detected!("popcnt")
        && is_x86_feature_detected!("bmi1")
        && is_x86_feature_detected!("bmi2")
}

/// Bytes that a backslash escapes. A run of backslashes escapes what follows when its length is odd, which adding the
/// bits of the runs that begin on odd places shows by where the carry comes out; `carry` takes it across blocks.
#[inline(always)]
fn escaped(backslash: u64, carry: &mut u64) -> u64 {
    const EVEN: u64 = 0x5555_5555_5555_5555;
    if backslash == 0 {
        return std::mem::take(carry);
    }
    let backslash = backslash & !*carry;
    let follows = backslash << 1 | *carry;
    let odd_starts = backslash & !EVEN & !follows;
    let (even_runs, overflow) = odd_starts.overflowing_add(backslash);
    *carry = u64::from(overflow);
    (EVEN ^ (even_runs << 1)) & follows
}

/// The marks of one block. `inside_of` is the prefix xor of the unescaped quotes (a byte is inside a string when an
/// odd number of quotes stands at or before it), `rare` the two bitmaps `(newline, 0x80 and above)`, asked for only
/// when an odd byte is there. Returns true when the block holds the newline that ends the line.
#[inline(always)]
fn settle<const LINE: bool>(
    classes: &Classes,
    state: &mut State,
    block: &mut Block,
    inside_of: impl Fn(u64) -> u64,
    rare: impl Fn() -> (u64, u64),
) -> bool {
    let mut quotes = classes.quote & !escaped(classes.backslash, &mut state.escaped);
    let mut brackets = u64::MAX;
    if classes.odd != 0 {
        let (newline, high) = rare();
        let mut odd = classes.odd;
        if LINE && newline != 0 {
            let before = (newline & newline.wrapping_neg()) - 1;
            quotes &= before;
            brackets = before;
            odd &= before;
            state.newline = Some(newline.trailing_zeros());
        }
        let inside = inside_of(quotes) ^ state.inside;
        state.health.non_ascii |= odd & high != 0;
        state.health.control |= odd & !high & inside != 0;
    }
    let inside = inside_of(quotes) ^ state.inside;
    state.inside = ((inside as i64) >> 63) as u64;
    brackets &= !inside;
    let opens = classes.open & brackets;
    let closes = classes.close & brackets;
    let (up, down) = (opens.count_ones() as i32, closes.count_ones() as i32);
    *block = Block { quotes, opens, closes, depth: state.depth, floor: state.depth - down };
    state.depth += up - down;
    LINE && state.newline.is_some()
}

/// Prefix xor without a carry-less multiplication.
#[inline(always)]
fn prefix_xor(mut bits: u64) -> u64 {
    bits ^= bits << 1;
    bits ^= bits << 2;
    bits ^= bits << 4;
    bits ^= bits << 8;
    bits ^= bits << 16;
    bits ^ bits << 32
}

fn portable<const LINE: bool>(chunks: &[[u8; BLOCK]], out: &mut [Block], state: &mut State) -> usize {
    let bitmap = |chunk: &[u8; BLOCK], class: fn(u8) -> bool| {
        chunk.iter().enumerate().fold(0, |bits, (n, &byte)| bits | u64::from(class(byte)) << n)
    };
    let mut done = 0;
    for (chunk, block) in chunks.iter().zip(out) {
        let classes = Classes {
            quote: bitmap(chunk, |byte| byte == b'"'),
            backslash: bitmap(chunk, |byte| byte == b'\\'),
            open: bitmap(chunk, |byte| matches!(byte, b'{' | b'[')),
            close: bitmap(chunk, |byte| matches!(byte, b'}' | b']')),
            odd: bitmap(chunk, |byte| !(0x20..0x80).contains(&byte)),
        };
        let rare = || (bitmap(chunk, |byte| byte == b'\n'), bitmap(chunk, |byte| byte >= 0x80));
        done += 1;
        if settle::<LINE>(&classes, state, block, prefix_xor, rare) {
            break;
        }
    }
    done
}

#[cfg(all(target_arch = "x86_64", not(miri)))]
mod x86 {
    use super::{BLOCK, Block, Classes, State, prefix_xor, settle};
    use std::arch::x86_64::{
        __m128i, __m256i, _mm_clmulepi64_si128, _mm_cmpeq_epi8, _mm_cmpgt_epi8, _mm_cvtsi128_si64,
        _mm_loadu_si128, _mm_movemask_epi8, _mm_or_si128, _mm_set_epi64x, _mm_set1_epi8, _mm256_cmpeq_epi8,
        _mm256_cmpgt_epi8, _mm256_loadu_si256, _mm256_movemask_epi8, _mm256_or_si256, _mm256_set1_epi8,
    };

    /// Setting this bit makes `[` equal to `{` and `]` to `}`, and no other byte equal to either.
    const FOLD: i8 = 0x20;

    #[target_feature(enable = "avx2,bmi1,bmi2,pclmulqdq,popcnt")]
    pub(super) fn avx2<const LINE: bool>(
        chunks: &[[u8; BLOCK]],
        out: &mut [Block],
        state: &mut State,
    ) -> usize {
        let mut local = *state;
        let mut done = 0;
        for (chunk, block) in chunks.iter().zip(out) {
            // SAFETY: the pointer comes from a reference to 64 bytes, and each load reads 32 of them; the load has
            // no need of alignment.
            let (low, high) = unsafe {
                let at = chunk.as_ptr();
                (_mm256_loadu_si256(at.cast()), _mm256_loadu_si256(at.add(32).cast()))
            };
            let fold = _mm256_set1_epi8(FOLD);
            let (low_folded, high_folded) = (_mm256_or_si256(low, fold), _mm256_or_si256(high, fold));
            let classes = Classes {
                quote: equal_32(low, high, b'"'),
                backslash: equal_32(low, high, b'\\'),
                open: equal_32(low_folded, high_folded, b'{'),
                close: equal_32(low_folded, high_folded, b'}'),
                odd: join_32(_mm256_cmpgt_epi8(fold, low), _mm256_cmpgt_epi8(fold, high)),
            };
            let rare = || (equal_32(low, high, b'\n'), join_32(low, high));
            done += 1;
            if settle::<LINE>(&classes, &mut local, block, |quotes| prefix_xor_clmul(quotes), rare) {
                break;
            }
        }
        *state = local;
        done
    }

    #[target_feature(enable = "avx2")]
    #[inline]
    fn equal_32(low: __m256i, high: __m256i, byte: u8) -> u64 {
        let byte = _mm256_set1_epi8(byte as i8);
        join_32(_mm256_cmpeq_epi8(low, byte), _mm256_cmpeq_epi8(high, byte))
    }

    /// The top bit of each of 64 bytes.
    #[target_feature(enable = "avx2")]
    #[inline]
    fn join_32(low: __m256i, high: __m256i) -> u64 {
        let (low, high) = (_mm256_movemask_epi8(low) as u32, _mm256_movemask_epi8(high) as u32);
        u64::from(low) | u64::from(high) << 32
    }

    /// Carry-less multiplication by all ones is the prefix xor.
    #[target_feature(enable = "pclmulqdq")]
    #[inline]
    fn prefix_xor_clmul(bits: u64) -> u64 {
        let product = _mm_clmulepi64_si128(_mm_set_epi64x(0, bits as i64), _mm_set1_epi8(-1), 0);
        _mm_cvtsi128_si64(product) as u64
    }

    #[target_feature(enable = "sse2")]
    pub(super) fn sse2<const LINE: bool>(
        chunks: &[[u8; BLOCK]],
        out: &mut [Block],
        state: &mut State,
    ) -> usize {
        let mut local = *state;
        let mut done = 0;
        for (chunk, block) in chunks.iter().zip(out) {
            // SAFETY: the pointer comes from a reference to 64 bytes, and each load reads 16 of them; the load has
            // no need of alignment.
            let quarters = unsafe {
                let at = chunk.as_ptr();
                [
                    _mm_loadu_si128(at.cast()),
                    _mm_loadu_si128(at.add(16).cast()),
                    _mm_loadu_si128(at.add(32).cast()),
                    _mm_loadu_si128(at.add(48).cast()),
                ]
            };
            let fold = _mm_set1_epi8(FOLD);
            let folded = quarters.map(|quarter| _mm_or_si128(quarter, fold));
            let classes = Classes {
                quote: equal_16(quarters, b'"'),
                backslash: equal_16(quarters, b'\\'),
                open: equal_16(folded, b'{'),
                close: equal_16(folded, b'}'),
                odd: join_16(quarters.map(|quarter| _mm_cmpgt_epi8(fold, quarter))),
            };
            let rare = || (equal_16(quarters, b'\n'), join_16(quarters));
            done += 1;
            if settle::<LINE>(&classes, &mut local, block, prefix_xor, rare) {
                break;
            }
        }
        *state = local;
        done
    }

    #[target_feature(enable = "sse2")]
    #[inline]
    fn equal_16(quarters: [__m128i; 4], byte: u8) -> u64 {
        let byte = _mm_set1_epi8(byte as i8);
        join_16(quarters.map(|quarter| _mm_cmpeq_epi8(quarter, byte)))
    }

    /// The top bit of each of 64 bytes.
    #[target_feature(enable = "sse2")]
    #[inline]
    fn join_16(quarters: [__m128i; 4]) -> u64 {
        let [a, b, c, d] = quarters.map(|quarter| u64::from(_mm_movemask_epi8(quarter) as u32));
        a | b << 16 | c << 32 | d << 48
    }
}

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

/// What every block needs of its bytes, before strings and escapes are known.
struct Common {
    quote: u64,
    open: u64,
    close: u64,
    /// Some byte is in one of the classes of [`Rare`].
    rare: bool,
}

/// What few blocks need.
struct Rare {
    backslash: u64,
    newline: u64,
    /// Below 0x20, newlines included.
    control: u64,
    /// 0x80 and above.
    high: u64,
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
    let backslash = backslash & !*carry;
    let follows = backslash << 1 | *carry;
    let odd_starts = backslash & !EVEN & !follows;
    let (even_runs, overflow) = odd_starts.overflowing_add(backslash);
    *carry = u64::from(overflow);
    (EVEN ^ (even_runs << 1)) & follows
}

/// The marks of one block. `prefix_xor` of the unescaped quotes tells what is inside a string: where an odd number of
/// quotes stands at or before. Returns true when the block holds the newline that ends the line.
#[inline(always)]
fn settle<const LINE: bool>(
    common: &Common,
    rare: impl Fn() -> Rare,
    prefix_xor: impl Fn(u64) -> u64,
    state: &mut State,
    block: &mut Block,
) -> bool {
    let mut quotes = common.quote;
    let mut before = u64::MAX;
    if common.rare || state.escaped != 0 {
        let rare = rare();
        quotes &= !escaped(rare.backslash, &mut state.escaped);
        if LINE && rare.newline != 0 {
            before = (rare.newline & rare.newline.wrapping_neg()) - 1;
            quotes &= before;
            state.newline = Some(rare.newline.trailing_zeros());
        }
        state.health.non_ascii |= rare.high & before != 0;
        let control = rare.control & before;
        state.health.control |= control != 0 && control & (prefix_xor(quotes) ^ state.inside) != 0;
    }
    let inside = prefix_xor(quotes) ^ state.inside;
    state.inside = ((inside as i64) >> 63) as u64;
    let opens = common.open & !inside & before;
    let closes = common.close & !inside & before;
    let (up, down) = (opens.count_ones() as i32, closes.count_ones() as i32);
    *block = Block { quotes, opens, closes, depth: state.depth, floor: state.depth - down };
    state.depth += up - down;
    LINE && before != u64::MAX
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
        let common = Common {
            quote: bitmap(chunk, |byte| byte == b'"'),
            open: bitmap(chunk, |byte| matches!(byte, b'{' | b'[')),
            close: bitmap(chunk, |byte| matches!(byte, b'}' | b']')),
            rare: chunk.iter().any(|&byte| byte < 0x20 || byte >= 0x80 || byte == b'\\'),
        };
        let rare = || Rare {
            backslash: bitmap(chunk, |byte| byte == b'\\'),
            newline: bitmap(chunk, |byte| byte == b'\n'),
            control: bitmap(chunk, |byte| byte < 0x20),
            high: bitmap(chunk, |byte| byte >= 0x80),
        };
        done += 1;
        if settle::<LINE>(&common, rare, prefix_xor, state, block) {
            break;
        }
    }
    done
}

#[cfg(all(target_arch = "x86_64", not(miri)))]
mod x86 {
    use super::{BLOCK, Block, Common, Rare, State, prefix_xor, settle};
    use std::arch::x86_64::{
        __m128i, __m256i, _mm_clmulepi64_si128, _mm_cmpeq_epi8, _mm_cmpgt_epi8, _mm_cvtsi128_si64,
        _mm_loadu_si128, _mm_movemask_epi8, _mm_or_si128, _mm_set_epi64x, _mm_set1_epi8, _mm256_cmpeq_epi8,
        _mm256_cmpgt_epi8, _mm256_loadu_si256, _mm256_min_epi8, _mm256_movemask_epi8, _mm256_or_si256,
        _mm256_set1_epi8,
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
            let backslash = _mm256_set1_epi8(b'\\' as i8);
            // Signed, so that bytes from 0x80 on are below 0x20 too.
            let odd = _mm256_cmpgt_epi8(fold, _mm256_min_epi8(low, high));
            let escapes =
                _mm256_or_si256(_mm256_cmpeq_epi8(low, backslash), _mm256_cmpeq_epi8(high, backslash));
            let common = Common {
                quote: equal_32(low, high, b'"'),
                open: equal_32(low_folded, high_folded, b'{'),
                close: equal_32(low_folded, high_folded, b'}'),
                rare: _mm256_movemask_epi8(_mm256_or_si256(odd, escapes)) != 0,
            };
            let rare = || {
                let high_bits = join_32(low, high);
                let odd = join_32(_mm256_cmpgt_epi8(fold, low), _mm256_cmpgt_epi8(fold, high));
                Rare {
                    backslash: equal_32(low, high, b'\\'),
                    newline: equal_32(low, high, b'\n'),
                    control: odd & !high_bits,
                    high: high_bits,
                }
            };
            done += 1;
            if settle::<LINE>(&common, rare, |quotes| prefix_xor_clmul(quotes), &mut local, block) {
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
            let odd = join_16(quarters.map(|quarter| _mm_cmpgt_epi8(fold, quarter)));
            let backslash = equal_16(quarters, b'\\');
            let common = Common {
                quote: equal_16(quarters, b'"'),
                open: equal_16(folded, b'{'),
                close: equal_16(folded, b'}'),
                rare: (odd | backslash) != 0,
            };
            let rare = || {
                let high = join_16(quarters);
                Rare { backslash, newline: equal_16(quarters, b'\n'), control: odd & !high, high }
            };
            done += 1;
            if settle::<LINE>(&common, rare, prefix_xor, &mut local, block) {
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

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
    Avx512,
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
            match (has_avx512(), has_avx2()) {
                (true, _) => Self(Level::Avx512),
                (false, true) => Self(Level::Avx2),
                (false, false) => Self(Level::Sse2),
            }
        }
        #[cfg(not(all(target_arch = "x86_64", not(miri))))]
        {
            Self(Level::Portable)
        }
    }

    /// Every kernel that this processor runs, the portable one first.
    #[cfg(test)]
    pub(super) fn all() -> Vec<Self> {
        #[cfg(all(target_arch = "x86_64", not(miri)))]
        {
            let wide = [(has_avx2(), Level::Avx2), (has_avx512(), Level::Avx512)];
            let wide = wide.into_iter().filter_map(|(has, level)| has.then_some(level));
            [Level::Portable, Level::Sse2].into_iter().chain(wide).map(Self).collect()
        }
        #[cfg(not(all(target_arch = "x86_64", not(miri))))]
        {
            vec![Self(Level::Portable)]
        }
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
            // SAFETY: the only places that make this level checked `has_avx512` first.
            #[cfg(all(target_arch = "x86_64", not(miri)))]
            Level::Avx512 => unsafe { x86::avx512::<LINE>(chunks, out, state) },
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

#[cfg(all(target_arch = "x86_64", not(miri)))]
fn has_avx512() -> bool {
    // VBMI2 isn't needed: it tells the processors that don't slow down for 512 bits from the early ones that do.
    has_avx2() && is_x86_feature_detected!("avx512bw") && is_x86_feature_detected!("avx512vbmi2")
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

/// Marks block after block; `classify` and `prefix_xor` are what the kernels differ in.
#[inline(always)]
fn drive<const LINE: bool, R: Fn() -> Rare>(
    chunks: &[[u8; BLOCK]],
    out: &mut [Block],
    state: &mut State,
    classify: impl Fn(&[u8; BLOCK]) -> (Common, R),
    prefix_xor: impl Fn(u64) -> u64,
) -> usize {
    // A copy lives in registers.
    let mut local = *state;
    let mut done = 0;
    for (chunk, block) in chunks.iter().zip(out) {
        let (common, rare) = classify(chunk);
        done += 1;
        if settle::<LINE>(&common, rare, &prefix_xor, &mut local, block) {
            break;
        }
    }
    *state = local;
    done
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

/// Setting this bit makes `[` equal to `{` and `]` to `}`, and no other byte equal to either.
const FOLD: u8 = 0x20;

/// Eight bytes at a time in plain integers.
fn portable<const LINE: bool>(chunks: &[[u8; BLOCK]], out: &mut [Block], state: &mut State) -> usize {
    /// One bit a byte, from a function that sets the top bit of the bytes it means in eight of them.
    #[inline(always)]
    fn bitmap(chunk: &[u8; BLOCK], class: impl Fn(u64) -> u64) -> u64 {
        let words = chunk.as_chunks::<8>().0.iter().enumerate();
        words.fold(0, |bits, (n, word)| {
            let tops = class(u64::from_le_bytes(*word)) & TOPS;
            // Brings the eight bits together in the top byte.
            bits | (tops >> 7).wrapping_mul(0x0102_0408_1020_4080) >> 56 << (8 * n)
        })
    }
    const TOPS: u64 = every(0x80);
    const fn every(byte: u8) -> u64 {
        u64::from_le_bytes([byte; 8])
    }
    // Nothing carries from byte to byte: the top bits are set apart before the addition.
    let not_zero = |word: u64| ((word & !TOPS) + !TOPS) | word;
    let equal = |word: u64, byte: u8| !not_zero(word ^ every(byte));
    let control = |word: u64| !(((word & !TOPS) + every(0x80 - 0x20)) | word);
    let classify = |chunk: &[u8; BLOCK]| {
        let chunk = *chunk;
        let common = Common {
            quote: bitmap(&chunk, |word| equal(word, b'"')),
            open: bitmap(&chunk, |word| equal(word | every(FOLD), b'{')),
            close: bitmap(&chunk, |word| equal(word | every(FOLD), b'}')),
            rare: chunk.iter().any(|&byte| !(0x20..0x80).contains(&byte) || byte == b'\\'),
        };
        let rare = move || Rare {
            backslash: bitmap(&chunk, |word| equal(word, b'\\')),
            newline: bitmap(&chunk, |word| equal(word, b'\n')),
            control: bitmap(&chunk, control),
            high: bitmap(&chunk, |word| word),
        };
        (common, rare)
    };
    drive::<LINE, _>(chunks, out, state, classify, prefix_xor)
}

#[cfg(all(target_arch = "x86_64", not(miri)))]
mod x86 {
    use super::{BLOCK, Block, Common, FOLD, Rare, State, drive, prefix_xor};
    #[allow(clippy::wildcard_imports)] // Intrinsics carry their prefix.
    use std::arch::x86_64::*;

    #[target_feature(enable = "avx2,avx512f,avx512bw,bmi1,bmi2,pclmulqdq,popcnt")]
    pub(super) fn avx512<const LINE: bool>(
        chunks: &[[u8; BLOCK]],
        out: &mut [Block],
        state: &mut State,
    ) -> usize {
        let classify = |chunk: &[u8; BLOCK]| {
            // SAFETY: the pointer comes from a reference to 64 bytes, and the load needs no alignment.
            let bytes = unsafe { _mm512_loadu_si512(chunk.as_ptr().cast()) };
            let every = |byte: u8| _mm512_set1_epi8(byte as i8);
            let folded = _mm512_or_si512(bytes, every(FOLD));
            let backslash = _mm512_cmpeq_epi8_mask(bytes, every(b'\\'));
            // Signed, so that bytes from 0x80 on are below 0x20 too.
            let odd = _mm512_cmplt_epi8_mask(bytes, every(0x20));
            let common = Common {
                quote: _mm512_cmpeq_epi8_mask(bytes, every(b'"')),
                open: _mm512_cmpeq_epi8_mask(folded, every(b'{')),
                close: _mm512_cmpeq_epi8_mask(folded, every(b'}')),
                rare: backslash | odd != 0,
            };
            let rare = move || {
                let high = _mm512_movepi8_mask(bytes);
                let newline = _mm512_cmpeq_epi8_mask(bytes, _mm512_set1_epi8(b'\n' as i8));
                Rare { backslash, newline, control: odd & !high, high }
            };
            (common, rare)
        };
        drive::<LINE, _>(chunks, out, state, classify, |quotes| prefix_xor_clmul(quotes))
    }

    #[target_feature(enable = "avx2,bmi1,bmi2,pclmulqdq,popcnt")]
    pub(super) fn avx2<const LINE: bool>(
        chunks: &[[u8; BLOCK]],
        out: &mut [Block],
        state: &mut State,
    ) -> usize {
        let classify = |chunk: &[u8; BLOCK]| {
            // SAFETY: the pointer comes from a reference to 64 bytes, each load reads 32 of them and needs no
            // alignment.
            let halves = unsafe {
                let at = chunk.as_ptr();
                [_mm256_loadu_si256(at.cast()), _mm256_loadu_si256(at.add(32).cast())]
            };
            let [low, high] = halves;
            let every = |byte: u8| _mm256_set1_epi8(byte as i8);
            let folded = [_mm256_or_si256(low, every(FOLD)), _mm256_or_si256(high, every(FOLD))];
            // Signed, so that bytes from 0x80 on are below 0x20 too.
            let odd = _mm256_cmpgt_epi8(every(0x20), _mm256_min_epi8(low, high));
            let backslash = every(b'\\');
            let escapes =
                _mm256_or_si256(_mm256_cmpeq_epi8(low, backslash), _mm256_cmpeq_epi8(high, backslash));
            let common = Common {
                quote: equal_32(halves, b'"'),
                open: equal_32(folded, b'{'),
                close: equal_32(folded, b'}'),
                rare: _mm256_movemask_epi8(_mm256_or_si256(odd, escapes)) != 0,
            };
            let rare = move || {
                let below = _mm256_set1_epi8(0x20);
                let odd = join_32([_mm256_cmpgt_epi8(below, low), _mm256_cmpgt_epi8(below, high)]);
                let high = join_32(halves);
                Rare {
                    backslash: equal_32(halves, b'\\'),
                    newline: equal_32(halves, b'\n'),
                    control: odd & !high,
                    high,
                }
            };
            (common, rare)
        };
        drive::<LINE, _>(chunks, out, state, classify, |quotes| prefix_xor_clmul(quotes))
    }

    #[target_feature(enable = "avx2")]
    #[inline]
    fn equal_32([low, high]: [__m256i; 2], byte: u8) -> u64 {
        let byte = _mm256_set1_epi8(byte as i8);
        join_32([_mm256_cmpeq_epi8(low, byte), _mm256_cmpeq_epi8(high, byte)])
    }

    /// The top bit of each of 64 bytes.
    #[target_feature(enable = "avx2")]
    #[inline]
    fn join_32([low, high]: [__m256i; 2]) -> u64 {
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
        let classify = |chunk: &[u8; BLOCK]| {
            // SAFETY: the pointer comes from a reference to 64 bytes, each load reads 16 of them and needs no
            // alignment.
            let quarters = unsafe {
                let at = chunk.as_ptr();
                [
                    _mm_loadu_si128(at.cast()),
                    _mm_loadu_si128(at.add(16).cast()),
                    _mm_loadu_si128(at.add(32).cast()),
                    _mm_loadu_si128(at.add(48).cast()),
                ]
            };
            let fold = _mm_set1_epi8(FOLD as i8);
            let folded = quarters.map(|quarter| _mm_or_si128(quarter, fold));
            // Signed, so that bytes from 0x80 on are below 0x20 too.
            let below = _mm_set1_epi8(0x20);
            let odd = join_16(quarters.map(|quarter| _mm_cmpgt_epi8(below, quarter)));
            let backslash = equal_16(quarters, b'\\');
            let common = Common {
                quote: equal_16(quarters, b'"'),
                open: equal_16(folded, b'{'),
                close: equal_16(folded, b'}'),
                rare: odd | backslash != 0,
            };
            let rare = move || {
                let high = join_16(quarters);
                Rare { backslash, newline: equal_16(quarters, b'\n'), control: odd & !high, high }
            };
            (common, rare)
        };
        drive::<LINE, _>(chunks, out, state, classify, prefix_xor)
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

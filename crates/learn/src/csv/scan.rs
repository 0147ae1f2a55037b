//! Finds commas, line feeds and quotes, 64 bytes at a time.

/// Bytes looked at at once.
pub(super) const BLOCK: usize = 64;

/// What a block holds; one bit per byte, the first in the lowest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Marks {
    /// Commas and line feeds.
    pub(super) delimiters: u64,
    /// Line feeds.
    pub(super) feeds: u64,
    /// Whether there is a quote anywhere.
    pub(super) has_quote: bool,
}

/// Looks at a block, eight bytes at a time in words that the compiler joins to vectors.
#[inline]
pub(super) fn marks(block: &[u8; BLOCK]) -> Marks {
    let (mut commas, mut feeds, mut quotes) = (0, 0, 0);
    for (index, word) in block.as_chunks::<8>().0.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        commas |= gathered(zero_bytes(word ^ repeat(b','))) << (8 * index);
        feeds |= gathered(zero_bytes(word ^ repeat(b'\n'))) << (8 * index);
        quotes |= zero_bytes(word ^ repeat(b'"'));
    }
    Marks {
        delimiters: commas | feeds,
        feeds,
        has_quote: quotes != 0,
    }
}

/// The high bits of eight bytes in one byte; by shifts, because there is no vector code for a multiplication.
const fn gathered(high_bits: u64) -> u64 {
    let pairs = high_bits >> 7 | high_bits >> 14;
    let fours = pairs | pairs >> 14;
    (fours | fours >> 28) & 0xFF
}

pub(super) const fn repeat(byte: u8) -> u64 {
    byte as u64 * 0x0101_0101_0101_0101
}

/// The high bit of each byte that is zero, and no other bit ("Bit Twiddling Hacks", the exact form).
pub(super) const fn zero_bytes(word: u64) -> u64 {
    const LOW: u64 = repeat(0x7F);
    !(((word & LOW) + LOW) | word | LOW)
}

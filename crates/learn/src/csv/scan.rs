//! Finds commas, line feeds and quotes, 64 bytes at a time, in words that the compiler joins to vectors.

/// Bytes looked at at once.
pub(super) const BLOCK: usize = 64;

/// What a block holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Marks {
    /// Commas and line feeds; one bit per byte, the first in the lowest.
    pub(super) delimiters: u64,
    /// Whether there is a quote anywhere.
    pub(super) has_quote: bool,
}

/// Looks at a block.
#[inline]
pub(super) fn marks(block: &[u8; BLOCK]) -> Marks {
    let (mut columns, mut quotes) = (0, 0);
    for (index, word) in block.as_chunks::<8>().0.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        let hits = zero_bytes(word ^ repeat(b',')) | zero_bytes(word ^ repeat(b'\n'));
        // Word `index` becomes bit `index` of all eight bytes.
        columns |= hits >> (7 - index);
        quotes |= zero_bytes(word ^ repeat(b'"'));
    }
    Marks {
        delimiters: transposed(columns),
        has_quote: quotes != 0,
    }
}

/// The 8 by 8 bits mirrored at the diagonal (Warren, "Hacker's Delight", 7-3).
const fn transposed(bits: u64) -> u64 {
    let swap = (bits ^ (bits >> 7)) & 0x00AA_00AA_00AA_00AA;
    let bits = bits ^ swap ^ (swap << 7);
    let swap = (bits ^ (bits >> 14)) & 0x0000_CCCC_0000_CCCC;
    let bits = bits ^ swap ^ (swap << 14);
    let swap = (bits ^ (bits >> 28)) & 0x0000_0000_F0F0_F0F0;
    bits ^ swap ^ (swap << 28)
}

pub(super) const fn repeat(byte: u8) -> u64 {
    byte as u64 * 0x0101_0101_0101_0101
}

/// The high bit of each byte that is zero, and no other bit ("Bit Twiddling Hacks", the exact form).
pub(super) const fn zero_bytes(word: u64) -> u64 {
    const LOW: u64 = repeat(0x7F);
    !(((word & LOW) + LOW) | word | LOW)
}

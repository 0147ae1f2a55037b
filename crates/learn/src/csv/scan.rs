//! Finds commas and line feeds, 64 bytes at a time.

/// Bytes looked at at once.
pub(super) const BLOCK: usize = 64;

/// One bit per byte of the block, the first in the lowest: whether it is a comma or a line feed.
#[inline]
pub(super) fn delimiters(block: &[u8; BLOCK]) -> u64 {
    let mut mask = 0;
    for (index, word) in block.as_chunks::<8>().0.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        let hits = zero_bytes(word ^ repeat(b',')) | zero_bytes(word ^ repeat(b'\n'));
        // Gathers the high bits in the lowest byte, by shifts: the compiler makes vector code of them, but none of a
        // multiplication.
        let pairs = hits >> 7 | hits >> 14;
        let fours = pairs | pairs >> 14;
        let eight = (fours | fours >> 28) & 0xFF;
        mask |= eight << (8 * index);
    }
    mask
}

pub(super) const fn repeat(byte: u8) -> u64 {
    byte as u64 * 0x0101_0101_0101_0101
}

/// The high bit of each byte that is zero, and no other bit ("Bit Twiddling Hacks", the exact form).
pub(super) const fn zero_bytes(word: u64) -> u64 {
    const LOW: u64 = repeat(0x7F);
    !(((word & LOW) + LOW) | word | LOW)
}

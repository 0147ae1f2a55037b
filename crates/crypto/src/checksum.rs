//! CRC32C (Castagnoli), against accidents on the way; never against adversaries.

/// The CRC32C of `bytes`, as Cloud KMS and iSCSI (RFC 3720) define it.
pub fn crc32c(bytes: &[u8]) -> u32 {
    ::crc32c::crc32c(bytes)
}

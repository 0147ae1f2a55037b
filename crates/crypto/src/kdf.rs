//! Key derivation with HKDF-SHA256 (RFC 5869).

use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::SecretKey;

/// Derives a key for the purpose `label` from `ikm`. Label and context are length-prefixed, so that no two purposes meet.
pub fn derive(ikm: &SecretKey, salt: &[u8], label: &str, context: &[u8]) -> SecretKey {
    let mut key = Zeroizing::new([0; 32]);
    expand(ikm, salt, label, context, key.as_mut_slice());
    SecretKey::from_bytes(*key)
}

/// Fills `out` (at most 8160 bytes) as [`derive`] does.
pub(crate) fn expand(ikm: &SecretKey, salt: &[u8], label: &str, context: &[u8], out: &mut [u8]) {
    let label_length = (label.len() as u64).to_be_bytes();
    let context_length = (context.len() as u64).to_be_bytes();
    Hkdf::<Sha256>::new(Some(salt), ikm.expose())
        .expand_multi_info(&[&label_length, label.as_bytes(), &context_length, context], out)
        .expect("at most 255 blocks are asked for");
}

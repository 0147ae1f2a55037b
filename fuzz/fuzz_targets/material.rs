//! Nothing but what was made opens: messages to a public key, deterministic ciphertexts, wrapped keys, public keys.
#![no_main]

use asterism_crypto::{
    DecryptionKey, DeterministicKey, EncryptionKey, KeyRef, SecretKey, Signature, WrappingKey, deterministic,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let secret = SecretKey::from_bytes([7; 32]);
    let key = DecryptionKey::from_bytes(&[7; 32]).expect("a scalar");
    assert!(key.open(b"info", b"aad", bytes).is_err());
    let key_ref = KeyRef {
        key: "a-key".into(),
        version: 1,
    };
    let _ = deterministic::parse_header(bytes);
    let convergent = DeterministicKey::new(&secret, &key_ref).expect("a key");
    assert!(convergent.open(bytes, b"").is_err());
    if let Ok(unwrapped) = WrappingKey::new(&secret).unwrap(bytes) {
        // Its check is of 64 bits: whatever passes wraps to the same bytes again.
        assert_eq!(
            WrappingKey::new(&secret)
                .wrap(unwrapped.expose())
                .expect("wrapped"),
            bytes
        );
    }
    if let Ok(text) = str::from_utf8(bytes) {
        let _ = EncryptionKey::from_pem(text);
    }
    if let Ok(signature) = Signature::from_fixed(bytes) {
        assert_eq!(
            Signature::from_der(&signature.to_der()).expect("its own DER"),
            signature
        );
    }
});

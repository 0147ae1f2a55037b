//! No text is an access token unless the key signed it, and what parses has one spelling.
#![no_main]

use std::sync::LazyLock;

use asterism_crypto::{SigningKey, jws};
use libfuzzer_sys::fuzz_target;

static KEY: LazyLock<SigningKey> = LazyLock::new(|| SigningKey::from_bytes(&[7; 32]).expect("a scalar"));

fuzz_target!(|text: &str| {
    if let Ok(token) = jws::Unverified::parse(text) {
        assert!(text.len() <= jws::MAX_TOKEN_BYTES && !token.kid().is_empty());
        assert!(token.verify(&KEY.verifying_key()).is_err());
    }
    let own = jws::sign(&KEY, "k1", text.as_bytes());
    match jws::Unverified::parse(&own) {
        Ok(token) => assert_eq!(token.verify(&KEY.verifying_key()).expect("signed"), text.as_bytes()),
        Err(_) => assert!(own.len() > jws::MAX_TOKEN_BYTES),
    }
});

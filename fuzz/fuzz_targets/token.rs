//! No text is a token unless it was made under the key.
#![no_main]

use asterism_crypto::{SecretKey, TokenKey};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let key = TokenKey::new(&SecretKey::from_bytes([7; 32]));
    assert!(key.verify(text).is_err());
});

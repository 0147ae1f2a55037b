//! Nothing but what was sealed opens.
#![no_main]

use asterism_crypto::{SecretKey, envelope};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = envelope::parse_header(bytes);
    let key = SecretKey::from_bytes([7; 32]);
    assert!(envelope::open(&key, bytes, b"").is_err());
});

//! What is read as a receipt is written the same, and its proof is checked without an accident.
#![no_main]

use asterism_tlog::{Receipt, leaf_hash};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(receipt) = Receipt::parse(bytes) {
        assert_eq!(receipt.to_string().as_bytes(), bytes);
        let leaf = leaf_hash(b"entry");
        let _ = receipt.proof().root(&leaf);
        assert!(receipt.verify(&leaf, &[]).is_err());
    }
});

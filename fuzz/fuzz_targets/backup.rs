//! No bytes are a backup unless a kms signed them, with or without the beginning of one, and none make the reader panic.
#![no_main]

use asterism_kms::backup::verify;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|parts: (&str, &[u8])| {
    let (header, rest) = parts;
    assert!(verify(rest).is_err());
    let length = u32::try_from(header.len())
        .expect("inputs are short")
        .to_be_bytes();
    let begun = [b"ASTRBKUP", &[0, 1][..], &length, header.as_bytes(), rest].concat();
    assert!(verify(begun.as_slice()).is_err());
});

//! What is read as a note is written byte for byte the same, and nothing but the one published text is signed.
#![no_main]

use asterism_tlog::{Note, NoteError, VerifierKey, parse_keys};
use libfuzzer_sys::fuzz_target;

const KEY: &str = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";

/// What its holder has signed, in the documentation of golang.org/x/mod/sumdb/note.
const SIGNED: &str = "If you think cryptography is the answer to your problem,\n\
                      then you don't know what your problem is.\n";

fuzz_target!(|bytes: &[u8]| {
    if let Ok(note) = Note::parse(bytes) {
        assert_eq!(note.to_string().as_bytes(), bytes);
        let key: VerifierKey = KEY.parse().expect("it is a key");
        match note.verify(&[key]) {
            Ok(_) => assert_eq!(note.text(), SIGNED),
            Err(error) => assert!(matches!(
                error,
                NoteError::NoKnownSigner | NoteError::BadSignature(..)
            )),
        }
    }
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Ok(keys) = parse_keys(text)
    {
        for key in keys {
            assert_eq!(key.to_string().parse(), Ok(key));
        }
    }
});

//! Nothing but what was sealed opens, whatever header stands before it.
#![no_main]

use asterism_crypto::{SecretKey, StreamOpener, stream};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u64, bool, &[u8])| {
    let (index, last, bytes) = input;
    let key = SecretKey::from_bytes([7; 32]);
    let (header, chunk) = bytes.split_at(bytes.len().min(stream::HEADER_BYTES));
    let _ = stream::StreamHeader::parse(header);
    if let Ok(opener) = StreamOpener::new(&key, header, b"context") {
        assert!(opener.open_chunk(index, last, chunk).is_err());
    }
});

//! No bytes of a stranger make a channel, and none of a peer's wire are taken for what was said on it.
#![no_main]

use std::time::Duration;

use asterism_channel::{StaticKey, accept, initiate};
use libfuzzer_sys::fuzz_target;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

const HELLO: usize = 102;
const REPLY: usize = 48;
const WITHIN: Duration = Duration::from_secs(5);

fuzz_target!(|bytes: &[u8]| {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let (own, caller) = (
            StaticKey::generate().expect("a key"),
            StaticKey::generate().expect("a key"),
        );
        let stranger = tokio::io::join(bytes, tokio::io::sink());
        assert!(accept(stranger, &own, "kms", WITHIN, |_| true).await.is_err());

        let (near, mut from_caller) = tokio::io::duplex(1024);
        let (mut to_service, far) = tokio::io::duplex(bytes.len() + 1024);
        let public = own.public();
        let between = async {
            let mut hello = [0; HELLO];
            from_caller.read_exact(&mut hello).await.expect("a hello");
            to_service.write_all(&hello).await.expect("passed on");
            let mut reply = [0; REPLY];
            to_service.read_exact(&mut reply).await.expect("a reply");
            from_caller.write_all(&reply).await.expect("passed on");
            to_service.write_all(bytes).await.expect("played");
            drop(to_service);
        };
        let (called, answered, ()) = tokio::join!(
            initiate(near, &caller, &public, "kms", WITHIN),
            accept(far, &own, "kms", WITHIN, |_| true),
            between
        );
        called.expect("called");
        let mut said = Vec::new();
        assert!(answered.expect("answered").read_to_end(&mut said).await.is_err());
        assert!(said.is_empty());
    });
});

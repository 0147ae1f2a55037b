//! No message makes OPAQUE's server panic, and none that was not computed proves a password.
#![no_main]

use std::sync::LazyLock;

use asterism_crypto::opaque::Server;
use libfuzzer_sys::fuzz_target;

static SERVER: LazyLock<Server> = LazyLock::new(|| Server::generate().expect("keys"));

fuzz_target!(|message: &[u8]| {
    let _ = SERVER.register("user/alice", message);
    let _ = Server::from_bytes(message);
    let record = Server::accept(message).or_else(|_| SERVER.decoy()).expect("a record");
    if let Ok((challenged, _)) = SERVER.challenge("user/alice", &record, message) {
        assert!(challenged.finish(message).is_err());
    }
});

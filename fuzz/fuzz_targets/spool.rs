//! Any bytes in a segment file: the spool refuses them, or reads them and goes on.
#![no_main]

use asterism_store::{FileSpool, Spool as _, SpoolOptions};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("00000000000000000001.spool"), bytes).unwrap();
    let options = SpoolOptions {
        segment_bytes: 16 << 10,
        min_free_bytes: 0,
        ..SpoolOptions::default()
    };
    let Ok(spool) = FileSpool::open(dir.path(), options) else {
        return;
    };
    let kept = spool.read(0, 1000).unwrap();
    let next = spool.next();
    assert!(kept.iter().all(|(sequence, _)| *sequence < next));
    spool.append(next, b"more".to_vec()).wait().unwrap();
    drop(spool);
    let spool = FileSpool::open(dir.path(), options).unwrap();
    assert_eq!(spool.next(), next + 1);
});

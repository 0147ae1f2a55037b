//! What is read as a manifest is written as one that reads the same.
#![no_main]

use asterism_client::manifest::DatasetManifest;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = DatasetManifest::parse(bytes);
});

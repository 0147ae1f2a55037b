//! Whatever is imported is consistent: it predicts without a panic, and compiles or says why not.
#![no_main]

use asterism_fhe::{
    compile::{Options, compile},
    xgboost::import,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(imported) = import(bytes) {
        let row = vec![0.5; imported.model.features.len()];
        if imported.model.scores(&row).is_ok() && imported.model.features.len() < 16 {
            let _ = compile(&imported.model, Options::default());
        }
    }
});

//! Whatever is imported is consistent: it predicts without a panic, and compiles or says why not.
#![no_main]

use asterism_fhe::{
    compile::{Options, compile},
    xgboost::import,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(model) = import(bytes) {
        let row = vec![0.5; model.features.len()];
        if model.scores(&row).is_ok() && model.features.len() < 16 {
            let _ = compile(&model, Options::default());
        }
    }
});

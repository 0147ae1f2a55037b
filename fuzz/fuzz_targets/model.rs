//! Whatever reads as a model predicts, and reads again from what it writes.
#![no_main]

use asterism_learn::model::Model;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (f64, &[u8])| {
    let (value, bytes) = input;
    let Ok(model) = Model::from_bytes(bytes) else {
        return;
    };
    let row = vec![value; model.feature_names().len()];
    let _ = model.predict_proba(&row);
    let _ = model.view();
    assert!(Model::from_bytes(&model.to_bytes()).is_ok());
});

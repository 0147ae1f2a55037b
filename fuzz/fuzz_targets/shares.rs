//! No text is a share but one that was made: whatever is changed in it is noticed, and what is left gives no other key.
#![no_main]

use asterism_crypto::shares::{Share, combine};
use libfuzzer_sys::fuzz_target;

/// Of which two give a key.
const MADE: [&str; 3] = [
    "asxs1G0doGlU4aJICAc2eaMmQMIKMQD7tAhH67-5OfNMN-bknw7TxfBXVcxXaGVO6Gg",
    "asxs1G0doGlU4aJICAoEk1ow3bxUKmGffGTb419asy4sv1VZ0pFvS1geVwQiOiXJF-w",
    "asxs1G0doGlU4aJICA0y7vEajWpGB0FA4ECsPNjfypkoxOPpFcPc6sAlcrwNLhQy2Ng",
];

fuzz_target!(|edit: (u8, u8, u8, &str)| {
    let (which, at, length, text) = edit;
    let made = MADE[usize::from(which) % MADE.len()];
    let from = usize::from(at) % made.len();
    let until = (from + usize::from(length)).min(made.len());
    let edited = [&made[..from], text, &made[until..]].concat();
    let mut shares = vec![MADE[0].parse::<Share>().expect("a share")];
    for text in [text, &edited] {
        if let Ok(share) = text.parse::<Share>() {
            assert!(MADE.contains(&text));
            assert_eq!(share.to_text().as_str(), text);
            shares.push(share);
        }
    }
    let key: Vec<u8> = (0..32).collect();
    if let Ok(combined) = combine(&shares) {
        assert_eq!(combined.expose().as_slice(), key);
    }
});

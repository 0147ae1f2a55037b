//! What is read as a bundle or tile is written the same, whatever its name.
#![no_main]

use asterism_tlog::{
    Frontier, TileId,
    tile::{decode_bundle, decode_hashes, encode_hashes, push_entry},
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (&str, u16, &[u8])| {
    let (path, width, bytes) = input;
    if let Ok(tile) = path.parse::<TileId>() {
        assert_eq!(tile.to_string(), path);
        assert_eq!(tile.nodes().count() as u64, tile.width());
    }
    let width = u64::from(width % 257);
    if let Ok(entries) = decode_bundle(bytes, width) {
        let mut written = Vec::new();
        for entry in &entries {
            push_entry(&mut written, entry).expect("it came from a bundle");
        }
        assert_eq!((written.as_slice(), entries.len() as u64), (bytes, width));
    }
    if let Ok(hashes) = decode_hashes(bytes, width) {
        assert_eq!(encode_hashes(&hashes), bytes);
    }
    if let Ok(frontier) = Frontier::decode(bytes) {
        assert_eq!(frontier.encode(), bytes);
        let _ = frontier.root();
    }
});

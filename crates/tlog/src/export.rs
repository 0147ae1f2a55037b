//! Writes a log as plain files, from its entries.
//!
//! Beside the tiles and bundles of [`crate::tile`]:
//!
//! ```text
//! checkpoint               the newest signed checkpoint
//! checkpoints/<size>       every one that is kept, by its size, written as an index of a tile (x001/x234/067)
//! ```

use asterism_crypto::Digest;

use crate::{
    frontier::Frontier,
    hash::leaf_hash,
    tile::{EntryTooLarge, LEVELS, TILE, TileId, TileKind, encode_hashes, index_path, push_entry, subtree},
};

/// The path of the newest checkpoint.
pub const CHECKPOINT: &str = "checkpoint";

/// The path of a kept checkpoint of that size.
pub fn checkpoint_path(size: u64) -> String {
    format!("checkpoints/{}", index_path(size))
}

/// Takes the entries of a log in their order and gives its tiles and bundles, each as soon as it is full. Keeps at most one
/// bundle and 256 hashes for each level.
pub struct Exporter<P> {
    put: P,
    size: u64,
    bundle: Vec<u8>,
    levels: Vec<Vec<Digest>>,
    frontier: Frontier,
}

/// Why exporting stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExportError<E> {
    /// The entry does not fit a bundle.
    #[error(transparent)]
    Entry(EntryTooLarge),
    /// A file could not be written.
    #[error("a file of the log could not be written: {0}")]
    Put(E),
}

impl<E, P: FnMut(&str, &[u8]) -> Result<(), E>> Exporter<P> {
    /// Gives every file to `put`: its path and its bytes.
    pub fn new(put: P) -> Self {
        Self {
            put,
            size: 0,
            bundle: Vec::new(),
            levels: vec![Vec::new(); usize::from(LEVELS)],
            frontier: Frontier::new(),
        }
    }

    /// Takes the next entry.
    ///
    /// # Errors
    /// [`ExportError`]
    pub fn push(&mut self, entry: &[u8]) -> Result<(), ExportError<E>> {
        push_entry(&mut self.bundle, entry).map_err(ExportError::Entry)?;
        let leaf = leaf_hash(entry);
        self.frontier.append(leaf);
        self.levels[0].push(leaf);
        self.size += 1;
        if self.size.is_multiple_of(TILE) {
            self.put_bundle()?;
            self.put_full_tiles()?;
        }
        Ok(())
    }

    /// Writes what is partial, and gives the frontier of the log.
    ///
    /// # Errors
    /// [`ExportError::Put`]
    pub fn finish(mut self) -> Result<Frontier, ExportError<E>> {
        if !self.bundle.is_empty() {
            self.put_bundle()?;
        }
        for level in 0..LEVELS {
            if !self.levels[usize::from(level)].is_empty() {
                self.put_tile(level)?;
            }
        }
        Ok(self.frontier)
    }

    fn put_bundle(&mut self) -> Result<(), ExportError<E>> {
        let path = self.last(TileKind::Entries);
        (self.put)(&path, &self.bundle).map_err(ExportError::Put)?;
        self.bundle.clear();
        Ok(())
    }

    fn put_full_tiles(&mut self) -> Result<(), ExportError<E>> {
        for level in 0..LEVELS {
            if self.levels[usize::from(level)].len() as u64 != TILE {
                break;
            }
            self.put_tile(level)?;
            let hashes = std::mem::take(&mut self.levels[usize::from(level)]);
            if let Some(above) = self.levels.get_mut(usize::from(level) + 1) {
                above.push(subtree(&hashes));
            }
        }
        Ok(())
    }

    fn put_tile(&mut self, level: u8) -> Result<(), ExportError<E>> {
        let path = self.last(TileKind::Hashes(level));
        let bytes = encode_hashes(&self.levels[usize::from(level)]);
        (self.put)(&path, &bytes).map_err(ExportError::Put)
    }

    /// The path of the last tile of a kind.
    fn last(&self, kind: TileKind) -> String {
        let count = match kind {
            TileKind::Entries => self.size,
            TileKind::Hashes(level) => self.size >> (8 * level),
        };
        TileId::at(kind, count.saturating_sub(1) / TILE, self.size)
            .expect("there is a hash or entry to write")
            .to_string()
    }
}

//! Which files are there, and which should be.

use std::{collections::BTreeMap, io};

use super::{Log, MAX_PROBLEMS, Problem, ProblemKind};
use crate::{
    export::CHECKPOINT,
    source::Source,
    tile::{TILE, TileId, TileKind, parse_index_path, tiles_of},
};

/// The files of a log, by what their names say.
pub(super) struct Files {
    /// Paths of checkpoints, with the size that the name says.
    pub(super) checkpoints: Vec<(String, Option<u64>)>,
    /// Widths of the tiles and bundles at a place, narrowest first.
    tiles: BTreeMap<(TileKind, u64), Vec<TileId>>,
    /// What is none of these.
    pub(super) problems: Vec<Problem>,
}

impl Files {
    pub(super) fn list(source: &dyn Source) -> io::Result<Self> {
        let mut files = Self {
            checkpoints: Vec::new(),
            tiles: BTreeMap::new(),
            problems: Vec::new(),
        };
        for listed in source.list()? {
            if !listed.is_file {
                files.stray(listed.path, "it is no plain file; remove it");
            } else if listed.path == CHECKPOINT {
                files.checkpoints.push((listed.path, None));
            } else if let Ok(tile) = listed.path.parse::<TileId>() {
                files
                    .tiles
                    .entry((tile.kind(), tile.index()))
                    .or_default()
                    .push(tile);
            } else if let Some(size) = listed
                .path
                .strip_prefix("checkpoints/")
                .and_then(parse_index_path)
            {
                files.checkpoints.push((listed.path, Some(size)));
            } else {
                files.stray(listed.path, "no file of a log has such a name; remove it");
            }
        }
        files.checkpoints.sort();
        files.tiles.values_mut().for_each(|widths| widths.sort());
        Ok(files)
    }

    /// Every width of the tile or bundle at a place, narrowest first.
    pub(super) fn at(&self, kind: TileKind, index: u64) -> &[TileId] {
        self.tiles.get(&(kind, index)).map_or(&[], Vec::as_slice)
    }

    pub(super) fn has(&self, tile: TileId) -> bool {
        self.at(tile.kind(), tile.index()).contains(&tile)
    }

    fn stray(&mut self, path: String, why: &str) {
        self.problems.push(Problem::of_file(
            ProblemKind::Stray,
            &path,
            format!("{path} is none of the log's files: {why}"),
        ));
    }
}

impl Log<'_> {
    /// Tells which tiles and bundles are missing and which are beyond the newest checkpoint; gives the number of those that
    /// are before the first entry. `None` when more is missing than is there: a checkpoint may say any size.
    pub(super) fn check_names(&self, problems: &mut Vec<Problem>) -> Option<usize> {
        let mut may_miss = self.files.tiles.len() + MAX_PROBLEMS;
        for tile in tiles_of(self.size).filter(|tile| !self.is_before_first(tile)) {
            if !self.files.has(tile) {
                may_miss = may_miss.checked_sub(1)?;
                let detail =
                    format!("{tile} is not there; export the log anew or fetch it from another copy");
                problems.push(Problem {
                    index: Some(entries_from(&tile)),
                    ..Problem::of_file(ProblemKind::Missing, tile, detail)
                });
            }
        }
        let mut before = 0;
        for tile in self.files.tiles.values().flatten() {
            let most = TileId::at(tile.kind(), tile.index(), self.size).map_or(0, |most| most.width());
            if tile.width() > most {
                let detail = format!(
                    "{tile} goes beyond the {} entries of the newest checkpoint",
                    self.size
                );
                problems.push(Problem::of_file(ProblemKind::Stray, tile, detail));
            } else if self.is_before_first(tile) {
                before += 1;
            }
        }
        Some(before)
    }

    /// Whether it holds nothing that is needed from the first entry on.
    pub(super) fn is_before_first(&self, tile: &TileId) -> bool {
        let end = u128::from(tile.index() + 1) * (u128::from(TILE) << (8 * height(tile)));
        end <= u128::from(self.first)
    }
}

/// The first entry below a tile.
pub(super) fn entries_from(tile: &TileId) -> u64 {
    tile.start().saturating_mul(1 << (8 * height(tile)))
}

fn height(tile: &TileId) -> u32 {
    match tile.kind() {
        TileKind::Entries => 0,
        TileKind::Hashes(level) => u32::from(level),
    }
}

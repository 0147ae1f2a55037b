//! Recomputes everything.

use std::sync::PoisonError;

use asterism_crypto::Digest;
use asterism_store::records::Record;

use super::{
    Log,
    event::{EventId, Facts, Source, Timestamp},
    head::{Head, Noted, Sequences, Standing},
    ids::{self, Place},
    index::{self, Posting, RUN},
    keys, pack,
    tree::{FullTile, Tree},
};
use crate::error::AuditError;

/// Records that are looked at in one go.
const STRIDE: usize = 64;
/// How often the event ids are looked at while appends go on.
const BUSY_TRIES: usize = 3;
/// Problems of sequence numbers that are told one by one.
const MAX_PROBLEMS: usize = 100;

/// What a verification found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Entries that were recomputed, and the root of the tree over them.
    pub head: Head,
    /// First entry that does not fit, and why.
    pub bad: Option<(u64, String)>,
    /// Holes and repeats in the numbers of a source. Not the log's fault, and so no reason to call it bad.
    pub sequence_problems: Vec<String>,
}

/// How far a verification got.
struct Walk {
    known: Head,
    /// When the entries so far were appended.
    appended_at: Timestamp,
    noted: Option<Noted>,
    tree: Tree,
    /// Full tiles so far.
    tiles: u64,
    /// Where the stored runs of the index end, what they should have of the entries so far, and records that they had.
    runs_end: u64,
    run: Vec<Posting>,
    index_records: u64,
    /// The block of ids that was looked at last.
    block: Option<(EventId, Option<EventId>, Vec<Place>)>,
    sequences: Sequences,
    problems: Vec<String>,
}

/// Why a verification ended early.
enum Stop {
    Bad(u64, String),
    Error(AuditError),
}

impl<E: Into<AuditError>> From<E> for Stop {
    fn from(error: E) -> Self {
        Self::Error(error.into())
    }
}

impl Log {
    /// Recomputes the tree over all entries that are durable now, and holds the stored nodes, event ids, index and head, and
    /// the numbers of each source against them. Bounded memory; appends go on meanwhile.
    ///
    /// # Errors
    /// The store's own; what does not fit is in the report.
    pub fn verify(&self) -> Result<Report, AuditError> {
        self.open_size()?;
        // Runs that are written from now on are another verification's.
        let runs_end = self.index.start();
        let mut walk = Walk {
            known: self.head(),
            appended_at: Standing::empty().appended_at,
            noted: self.note.last(),
            tree: Tree::default(),
            tiles: 0,
            runs_end,
            run: vec![],
            index_records: 0,
            block: None,
            sequences: Sequences::default(),
            problems: vec![],
        };
        let bad = match self.verify_all(&mut walk) {
            Ok(()) => None,
            Err(Stop::Bad(index, problem)) => Some((index, problem)),
            Err(Stop::Error(error)) => return Err(error),
        };
        Ok(Report {
            head: Head {
                size: walk.tree.size(),
                root: walk.tree.root(),
            },
            bad,
            sequence_problems: walk.problems,
        })
    }

    fn verify_all(&self, walk: &mut Walk) -> Result<(), Stop> {
        while walk.tree.size() < walk.known.size {
            let from = keys::entries(walk.tree.size());
            let stored = self.records.scan(&from, &[keys::ENTRIES], STRIDE)?;
            if stored.is_empty() {
                return Err(bad(walk.tree.size(), "the entry is missing"));
            }
            for (key, record) in stored {
                if walk.tree.size() >= walk.known.size {
                    break;
                }
                if key != keys::entries(walk.tree.size()) {
                    return Err(bad(walk.tree.size(), "the entry is missing"));
                }
                self.verify_record(walk, &record)?;
            }
        }
        self.verify_head(walk)?;
        self.verify_tiles(walk)?;
        self.verify_ids(walk)?;
        self.verify_runs(walk)?;
        self.verify_sequences(walk)
    }

    fn verify_record(&self, walk: &mut Walk, record: &[u8]) -> Result<(), Stop> {
        let first = walk.tree.size();
        let (packed, unreadable) = pack::unpack_some(first, record);
        let mut entries = Vec::with_capacity(packed.len());
        for packed in packed {
            let index = packed.index;
            let Some((entry, _)) = packed.entry() else {
                return Err(bad(index, "the entry was altered"));
            };
            self.verify_entry(walk, index, entry.event.facts(), entry.leaf)?;
            entries.push(entry);
        }
        if let Some(index) = unreadable {
            return Err(bad(index, "the entry cannot be read"));
        }
        walk.appended_at = entries[0].appended_at;
        if !pack::is_packed(first, walk.appended_at, &entries, record) {
            return Err(bad(
                first,
                "the record of the entry is not written as it should be",
            ));
        }
        Ok(())
    }

    fn verify_entry(&self, walk: &mut Walk, index: u64, facts: &Facts, leaf: Digest) -> Result<(), Stop> {
        if index >= walk.known.size {
            return Err(bad(
                walk.known.size,
                "there are entries beyond the head of the log",
            ));
        }
        if self.index_of(walk, &facts.id)? != Some(index) {
            return Err(bad(index, "the event id does not lead to this entry"));
        }
        let mut full = Vec::new();
        walk.tree.append(leaf, |tile| full.push(tile));
        for tile in full {
            self.verify_tile(&tile)?;
            walk.tiles += 1;
        }
        if index < walk.runs_end {
            let offset = (index % RUN) as u32;
            walk.run.extend(keys::terms(facts).map(|term| (term, offset)));
            if offset as u64 == RUN - 1 {
                self.verify_run(walk, index + 1 - RUN)?;
            }
        }
        walk.count(facts);
        if let Some(noted) = walk.noted
            && noted.size == index + 1
            && noted.root.is_some_and(|root| root != walk.tree.root())
        {
            return Err(bad(
                index,
                "the tree up to this entry is not the one that head.json notes",
            ));
        }
        Ok(())
    }

    /// The index that an event id leads to.
    fn index_of(&self, walk: &mut Walk, id: &EventId) -> Result<Option<u64>, Stop> {
        let held = walk
            .block
            .as_ref()
            .is_some_and(|(first, next, _)| first <= id && next.is_none_or(|next| *id < next));
        if !held {
            let before = keys::after(&keys::ids(id));
            let Some((key, block)) = self.records.scan_back(Some(&before), &[keys::IDS], 1)?.pop() else {
                return Ok(None);
            };
            let after = self.records.scan(&keys::after(&key), &[keys::IDS], 1)?.pop();
            let next = after.map(|(key, _)| ids::first_id(&key)).transpose()?;
            // One that cannot be read leads nowhere.
            let places = ids::decode(&block).unwrap_or_default();
            walk.block = Some((ids::first_id(&key)?, next, places));
        }
        let places = walk.block.as_ref().map_or(&[][..], |(_, _, places)| places);
        let found = places.binary_search_by_key(id, |(id, _)| *id).ok();
        if found.is_none() && held {
            // Appends may have changed it meanwhile.
            walk.block = None;
            return self.index_of(walk, id);
        }
        Ok(found.map(|at| places[at].1))
    }

    fn verify_tile(&self, tile: &FullTile) -> Result<(), Stop> {
        let stored = self.records.get(&tile.key())?.unwrap_or_default();
        if stored == tile.value() {
            return Ok(());
        }
        let (stored, _) = stored.as_chunks::<32>();
        let good = stored
            .iter()
            .zip(&tile.nodes)
            .take_while(|(stored, node)| *stored == node.as_bytes());
        let at = (good.count() as u64).min(tile.nodes.len() as u64 - 1);
        let height = 7 * u32::from(tile.level);
        let index = (tile.number * tile.nodes.len() as u64 + at) << height;
        let text = format!(
            "a stored node of the tree does not fit the {} entries from this one on",
            1_u64 << height
        );
        Err(Stop::Bad(index, text))
    }

    fn verify_run(&self, walk: &mut Walk, start: u64) -> Result<(), Stop> {
        let postings = std::mem::take(&mut walk.run);
        let expected = index::encode(start, postings);
        let prefix = keys::run(start);
        let mut stored = Vec::with_capacity(expected.len());
        let mut from = prefix.to_vec();
        loop {
            let some = self.records.scan(&from, &prefix, STRIDE)?;
            let Some((last, _)) = some.last() else { break };
            from = keys::after(last);
            stored.extend(some);
        }
        walk.index_records += stored.len() as u64;
        if stored == expected {
            return Ok(());
        }
        let first = first_difference(&expected, &stored).map_or(start, |offset| start + u64::from(offset));
        Err(bad(first, "the index does not fit this entry"))
    }

    fn verify_head(&self, walk: &Walk) -> Result<(), Stop> {
        let known = walk.known;
        let last = known.size.saturating_sub(1);
        if (walk.tree.size(), walk.tree.root()) != (known.size, known.root) {
            return Err(bad(last, "the entries do not amount to the head of the log"));
        }
        let furthest = self.records.scan_back(None, &[keys::ENTRIES], 1)?;
        let stored = Standing::stored(&*self.records).map(|stored| (stored.head, stored.appended_at));
        // Looked at after what it bounds.
        let (durable, submitted) = {
            let state = self.state();
            let durable = state.durable.standing;
            ((durable.head, durable.appended_at), state.submitted())
        };
        let furthest = furthest.first().and_then(|(key, _)| keys::number(key));
        if furthest.is_some_and(|index| index >= submitted) {
            return Err(bad(submitted, "there are entries beyond the head of the log"));
        }
        match stored {
            Ok(stored) if stored == (known, walk.appended_at) || stored == durable => Ok(()),
            // Appends went on meanwhile.
            Ok((stored, _)) if known.size < stored.size && stored.size <= submitted => Ok(()),
            _ => Err(bad(last, "the record of the head is not the head of the log")),
        }
    }

    /// Every full tile is there and right: so with as many records, there is none besides.
    fn verify_tiles(&self, walk: &Walk) -> Result<(), Stop> {
        let mut beyond = 0;
        let mut count = 0;
        self.each(keys::TILE, |key, _| {
            let number = key
                .get(2..)
                .and_then(|number| number.try_into().ok())
                .map(u64::from_be_bytes);
            let height = 7 * (u32::from(key.get(1).copied().unwrap_or_default()) + 1);
            let end = number.and_then(|number| u128::from(number + 1).checked_shl(height.min(64)));
            match end {
                Some(end) if end <= u128::from(walk.known.size) => count += 1,
                end => beyond = beyond.max(end.unwrap_or(u128::MAX)),
            }
            Ok(())
        })?;
        if count != walk.tiles || beyond > u128::from(self.state().submitted()) {
            return Err(bad(
                walk.known.size,
                "there are nodes of the tree that are none of it",
            ));
        }
        Ok(())
    }

    /// Appends move ids from block to block: what was found while there were any is looked at again, at last without them.
    fn verify_ids(&self, walk: &Walk) -> Result<(), Stop> {
        for _ in 0..BUSY_TRIES {
            let quiet = self.state().is_quiet();
            let found = self.check_ids(walk.known.size, || self.state().submitted());
            if found.is_ok() || quiet.is_some_and(|size| self.state().submitted() == size) {
                return found;
            }
        }
        let mut state = self.state();
        loop {
            if let Some(size) = state.is_quiet() {
                return self.check_ids(walk.known.size, || size);
            }
            state = self.ended.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Every entry's event id leads to it: so with as many ids as entries, none leads astray.
    fn check_ids(&self, known: u64, submitted: impl FnOnce() -> u64) -> Result<(), Stop> {
        let (mut count, mut beyond, mut last) = (0, None, None);
        let mut astray = known;
        self.each(keys::IDS, |key, block| {
            let first = ids::first_id(key)?;
            let places = ids::decode(block).unwrap_or_default();
            if places.is_empty() || places[0].0 < first || last.is_some_and(|last| places[0].0 <= last) {
                astray = 0;
            }
            last = places.last().map(|(id, _)| *id);
            for (_, index) in &places {
                if *index < known {
                    count += 1;
                } else {
                    beyond = beyond.max(Some(*index));
                }
            }
            Ok(())
        })?;
        if beyond.is_some_and(|index| index >= submitted()) {
            return Err(bad(known, "an event id leads beyond the log"));
        }
        if count == known && astray == known {
            return Ok(());
        }
        self.each(keys::IDS, |_, block| {
            for (id, index) in ids::decode(block).unwrap_or_default() {
                if index < known && self.entry(index)?.event.facts().id != id {
                    astray = if astray == 0 { index } else { astray.min(index) };
                }
            }
            Ok(())
        })?;
        Err(bad(astray, "another event id leads to this entry"))
    }

    /// Every run is there and right: so with as many records, there is none besides.
    fn verify_runs(&self, walk: &Walk) -> Result<(), Stop> {
        let mut count = 0;
        self.each(keys::INDEX, |key, _| {
            count +=
                u64::from(keys::number(key).is_none_or(|start| start < walk.runs_end || start % RUN > 0));
            Ok(())
        })?;
        if count == walk.index_records {
            Ok(())
        } else {
            Err(bad(
                walk.known.size,
                "there are records of the index that are none of it",
            ))
        }
    }

    fn verify_sequences(&self, walk: &mut Walk) -> Result<(), Stop> {
        let stored = Standing::stored(&*self.records)
            .map(|standing| standing.sequences)
            .unwrap_or_default();
        let moved_on = self.state().submitted() > walk.known.size;
        for source in Source::ALL {
            let (told, seen) = (stored[source as usize], walk.sequences[source as usize]);
            if told < seen || told > seen && !moved_on {
                walk.problem(format!(
                    "{source}: {told} is recorded as the last number, and the log has {seen}"
                ));
            }
        }
        Ok(())
    }

    /// Every record of a kind.
    fn each(
        &self,
        kind: u8,
        mut look: impl FnMut(&[u8], &[u8]) -> Result<(), AuditError>,
    ) -> Result<(), AuditError> {
        let mut from = vec![kind];
        loop {
            let records = self.records.scan(&from, &[kind], STRIDE)?;
            for (key, value) in &records {
                look(key, value)?;
            }
            match records.last() {
                Some((last, _)) => from = keys::after(last),
                None => return Ok(()),
            }
        }
    }
}

impl Walk {
    /// Each source counts without holes, and its events come in order.
    fn count(&mut self, facts: &Facts) {
        let (source, sequence) = (facts.source, facts.source_sequence);
        let last = self.sequences[source as usize];
        if sequence <= last {
            self.problem(format!("{source}: {sequence} comes after {last}"));
        } else if sequence > last + 1 {
            let missing = match sequence - last - 1 {
                1 => (last + 1).to_string(),
                _ => format!("{} to {}", last + 1, sequence - 1),
            };
            self.problem(format!("{source}: {missing} missing after {last}"));
        }
        self.sequences[source as usize] = sequence.max(last);
    }

    fn problem(&mut self, problem: String) {
        if self.problems.len() < MAX_PROBLEMS {
            self.problems.push(problem);
        }
    }
}

/// The least offset that one has and the other has not.
fn first_difference(expected: &[Record], stored: &[Record]) -> Option<u32> {
    let all = |records: &[Record]| {
        let postings = records
            .iter()
            .flat_map(|(_, value)| index::decode(value).unwrap_or_default());
        postings.collect::<std::collections::HashSet<Posting>>()
    };
    let (expected, stored) = (all(expected), all(stored));
    expected
        .symmetric_difference(&stored)
        .map(|(_, offset)| *offset)
        .min()
}

fn bad(index: u64, problem: &str) -> Stop {
    Stop::Bad(index, problem.to_owned())
}

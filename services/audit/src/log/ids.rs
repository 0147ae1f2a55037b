//! Event ids, and which entries they lead to.
//!
//! Ids lie in order, in blocks of up to 2 KiB, each under the id that it begins with; the first block is under the least id
//! there can be. Ids of UUIDv7 begin with the time, so that an append reaches few blocks, and those are at the end.
//!
//! ```text
//! block: ids in ascending order, each: bytes it shares with the one before 1 | the other bytes | index: varint of the
//!        difference to the one before (to 0 at the start)
//! ```

use std::{
    collections::BTreeMap,
    ops::Bound::{Excluded, Unbounded},
};

use asterism_store::Records;

use super::{
    event::EventId,
    keys,
    varint::{self, Reader},
};
use crate::error::AuditError;

/// Most bytes of a block. Short ones are rewritten sooner, when a few ids come.
const BLOCK_BYTES: usize = 2048;

/// An id, and the index of its entry.
pub(super) type Place = (EventId, u64);

/// Blocks that are on their way to the disk, each with the size of the log that it belongs to.
#[derive(Default)]
pub(super) struct UnderWay(BTreeMap<EventId, (u64, Vec<u8>)>);

impl UnderWay {
    /// A block that was submitted.
    pub(super) fn put(&mut self, first: EventId, block: Vec<u8>, size: u64) {
        self.0.insert(first, (size, block));
    }

    /// What belongs to a log of `size` entries is durable.
    pub(super) fn settled(&mut self, size: u64) {
        self.0.retain(|_, (of, _)| *of > size);
    }

    /// Nothing is under way any more, whatever came of it.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// The block in which an id is, if it is anywhere.
    fn block_of(&self, records: &dyn Records, id: &EventId) -> Result<(EventId, Vec<Place>), AuditError> {
        let stored = records
            .scan_back(Some(&keys::after(&keys::ids(id))), &[keys::IDS], 1)?
            .pop();
        let stored = stored.map(|(key, block)| Ok::<_, AuditError>((first_id(&key)?, block)));
        let stored = stored.transpose()?;
        let coming = self.0.range(..=*id).next_back();
        let (first, block) = match (stored, coming) {
            (Some((first, block)), None) => (first, block),
            (Some((first, block)), Some((coming, _))) if first > *coming => (first, block),
            (_, Some((first, (_, block)))) => (*first, block.clone()),
            (None, None) => (EventId::LEAST, vec![]),
        };
        let ids = decode(&block).ok_or_else(unreadable)?;
        Ok((first, ids))
    }

    /// Where the next block after that one begins.
    fn next_after(&self, records: &dyn Records, first: &EventId) -> Result<Option<EventId>, AuditError> {
        let stored = records
            .scan(&keys::after(&keys::ids(first)), &[keys::IDS], 1)?
            .pop();
        let stored = stored.map(|(key, _)| first_id(&key)).transpose()?;
        let coming = self.0.range((Excluded(*first), Unbounded)).next();
        let coming = coming.map(|(first, _)| *first);
        Ok(match (stored, coming) {
            (Some(stored), Some(coming)) => Some(stored.min(coming)),
            (stored, coming) => stored.or(coming),
        })
    }

    /// Blocks for `ids`, which are sorted.
    pub(super) fn lookup(&self, records: &dyn Records, ids: &[EventId]) -> Result<Lookup, AuditError> {
        let mut lookup = Lookup { blocks: vec![] };
        let mut next = None;
        for id in ids {
            if lookup.blocks.is_empty() || next.is_some_and(|next| *id >= next) {
                let (first, ids) = self.block_of(records, id)?;
                next = self.next_after(records, &first)?;
                lookup.blocks.push(Block {
                    first,
                    ids,
                    new: vec![],
                });
            }
        }
        Ok(lookup)
    }
}

/// The blocks that an append reaches.
pub(super) struct Lookup {
    blocks: Vec<Block>,
}

struct Block {
    first: EventId,
    ids: Vec<Place>,
    new: Vec<Place>,
}

impl Lookup {
    /// The index of an id that is there already; of one that was looked up.
    pub(super) fn index_of(&self, id: &EventId) -> Option<u64> {
        let ids = &self.blocks.get(self.position(id)?)?.ids;
        let at = ids.binary_search_by_key(id, |(id, _)| *id).ok()?;
        Some(ids[at].1)
    }

    /// An id that is new; one that was looked up.
    pub(super) fn insert(&mut self, id: EventId, index: u64) {
        if let Some(at) = self.position(&id) {
            self.blocks[at].new.push((id, index));
        }
    }

    fn position(&self, id: &EventId) -> Option<usize> {
        self.blocks
            .partition_point(|block| block.first <= *id)
            .checked_sub(1)
    }

    /// The blocks as they are with the new ids.
    pub(super) fn finish(self) -> Vec<(EventId, Vec<u8>)> {
        let changed = self.blocks.into_iter().filter(|block| !block.new.is_empty());
        changed.flat_map(Block::finish).collect()
    }
}

impl Block {
    fn finish(mut self) -> Vec<(EventId, Vec<u8>)> {
        let at_the_end = self
            .ids
            .last()
            .is_none_or(|(last, _)| self.new.iter().all(|(id, _)| id > last));
        self.ids.append(&mut self.new);
        self.ids.sort_unstable();
        let mut blocks = split(&self.ids, BLOCK_BYTES);
        if blocks.len() > 1 && !at_the_end {
            // Room in each for others that come between.
            blocks = split(&self.ids, BLOCK_BYTES * 2 / 3);
        }
        if let Some((first, _)) = blocks.first_mut() {
            *first = self.first;
        }
        blocks
    }
}

/// `ids`, which are sorted, in blocks of up to `limit` bytes.
pub(super) fn split(ids: &[Place], limit: usize) -> Vec<(EventId, Vec<u8>)> {
    let mut blocks: Vec<(EventId, Vec<u8>)> = Vec::new();
    let mut last: Option<Place> = None;
    for (id, index) in ids {
        let mut bytes = put(last.as_ref(), id, *index);
        match blocks.last_mut() {
            Some((_, block)) if block.len() + bytes.len() <= limit => block.append(&mut bytes),
            _ => blocks.push((*id, put(None, id, *index))),
        }
        last = Some((*id, *index));
    }
    blocks
}

fn put(last: Option<&Place>, id: &EventId, index: u64) -> Vec<u8> {
    let (shared, before) = last.map_or((0, 0), |(last, before)| (common(last, id), *before));
    let mut bytes = Vec::with_capacity(20);
    bytes.push(shared as u8);
    bytes.extend_from_slice(&id.as_bytes()[shared..]);
    varint::put_signed(&mut bytes, index.wrapping_sub(before) as i64);
    bytes
}

/// Leading bytes that two ids have in common.
fn common(one: &EventId, other: &EventId) -> usize {
    one.as_bytes()
        .iter()
        .zip(other.as_bytes())
        .take_while(|(a, b)| a == b)
        .count()
}

/// The ids of a block; `None` when it is none.
pub(super) fn decode(block: &[u8]) -> Option<Vec<Place>> {
    let mut reader = Reader(block);
    let mut ids: Vec<Place> = Vec::with_capacity(block.len() / 10);
    while !reader.is_empty() {
        let shared = usize::from(reader.byte()?);
        let last = ids.last();
        let mut id = last.map_or([0; 16], |(last, _)| *last.as_bytes());
        id.get_mut(shared..).filter(|rest| !rest.is_empty())?;
        id[shared..].copy_from_slice(reader.take(16 - shared)?);
        let id = EventId::from_bytes(id);
        let index = last
            .map_or(0, |(_, index)| *index)
            .wrapping_add(reader.signed()? as u64);
        match last {
            Some((last, _)) if *last >= id || common(last, &id) != shared => return None,
            None if shared != 0 => return None,
            _ => ids.push((id, index)),
        }
    }
    Some(ids)
}

/// The id that a block begins with, from its key.
pub(super) fn first_id(key: &[u8]) -> Result<EventId, AuditError> {
    let id = key.get(1..).and_then(|id| id.try_into().ok());
    id.map(EventId::from_bytes).ok_or_else(unreadable)
}

fn unreadable() -> AuditError {
    AuditError::damaged("a record of event ids cannot be read")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use asterism_store::{Batch, MemoryRecords};
    use proptest::prelude::*;

    use super::*;

    /// Ids that are near each other, far from each other, and the least of all.
    fn ids() -> impl Strategy<Value = EventId> {
        prop_oneof![
            any::<[u8; 16]>(),
            (0..3000_u16).prop_map(|n| {
                let mut id = [7; 16];
                id[5..7].copy_from_slice(&n.to_be_bytes());
                id
            }),
            Just([0; 16]),
            Just([0xff; 16]),
        ]
        .prop_map(EventId::from_bytes)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        /// Whatever comes in whatever order, durable or under way: each id leads where it was said to, and no other anywhere.
        #[test]
        fn every_id_is_found_and_no_other(batches in prop::collection::vec(prop::collection::btree_set(ids(), 1..300), 1..12)) {
            let records = MemoryRecords::new();
            let mut under_way = UnderWay::default();
            let mut expected = BTreeMap::new();
            for (round, batch) in batches.iter().enumerate() {
                let sorted: Vec<_> = batch.iter().copied().collect();
                let mut lookup = under_way.lookup(&records, &sorted).unwrap();
                for id in &sorted {
                    prop_assert_eq!(lookup.index_of(id), expected.get(id).copied());
                }
                for id in sorted.iter().rev() {
                    if !expected.contains_key(id) {
                        let index = expected.len() as u64;
                        expected.insert(*id, index);
                        lookup.insert(*id, index);
                    }
                }
                let size = expected.len() as u64;
                let mut stored = Batch::new();
                for (first, block) in lookup.finish() {
                    prop_assert!(block.len() <= BLOCK_BYTES);
                    stored = stored.put(keys::ids(&first), block.clone());
                    under_way.put(first, block, size);
                }
                // Every other batch is seen before it has arrived.
                records.commit(stored).unwrap();
                if round % 2 == 0 {
                    under_way.settled(size);
                }
            }
            let all: Vec<_> = expected.keys().copied().collect();
            let lookup = under_way.lookup(&records, &all).unwrap();
            for (id, index) in &expected {
                prop_assert_eq!(lookup.index_of(id), Some(*index));
            }
            let stored = records.scan(&[], &[keys::IDS], usize::MAX).unwrap();
            let places: Vec<_> = stored.iter().flat_map(|(_, block)| decode(block).unwrap()).collect();
            prop_assert_eq!(places, expected.into_iter().collect::<Vec<_>>());
        }

        #[test]
        fn what_reads_as_a_block_is_its_one_form(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            if let Some(ids) = decode(&bytes) {
                let again: Vec<u8> = split(&ids, usize::MAX).into_iter().flat_map(|(_, block)| block).collect();
                prop_assert_eq!(again, bytes);
            }
        }
    }
}

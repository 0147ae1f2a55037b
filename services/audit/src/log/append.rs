//! Appending.
//!
//! An append takes its places in the log and goes to the store under one short lock, and waits for the disk without it: appends
//! that come meanwhile follow in the same order and share the next fsync. Each batch expects the head that the one before it
//! writes, so that after a batch that failed none that follows can be written. The log then lets those that are under way
//! fail, looks at what the store holds, and goes on from there if that is what is known to be durable; otherwise it is closed
//! until a restart.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, PoisonError},
};

use asterism_store::{Batch, Records, StoreError};
use asterism_tlog::leaf_hash;

use super::{
    Log,
    entry::{encode, encode_event},
    event::{Event, EventId, Timestamp},
    head::{Head, Sequences, Standing},
    ids::{Lookup, UnderWay},
    keys,
    pack::Packer,
    tree::Tree,
};
use crate::error::AuditError;

/// Most events of one append.
pub const MAX_APPEND: usize = 1000;

/// Where the log ends.
#[derive(Clone)]
pub(super) struct End {
    pub(super) standing: Standing,
    pub(super) tree: Arc<Tree>,
}

impl End {
    pub(super) fn size(&self) -> u64 {
        self.standing.head.size
    }
}

pub(super) struct State {
    /// What the next append builds on.
    submitted: End,
    pub(super) durable: End,
    /// Event ids on their way to the disk, and the blocks that they are in.
    under_way: HashSet<EventId>,
    blocks: UnderWay,
    /// Appends on their way to the disk.
    appends: usize,
    condition: Condition,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Condition {
    Open,
    /// An append failed, and others that built on it are under way.
    Stalled,
    /// What the store holds is not known.
    Closed,
}

impl State {
    pub(super) fn new(end: End) -> Self {
        Self {
            submitted: end.clone(),
            durable: end,
            under_way: HashSet::new(),
            blocks: UnderWay::default(),
            appends: 0,
            condition: Condition::Open,
        }
    }

    /// How far the log will reach when all that is under way has arrived.
    pub(super) fn submitted(&self) -> u64 {
        self.submitted.size()
    }

    /// The size of the log, when nothing is on its way to the disk.
    pub(super) fn is_quiet(&self) -> Option<u64> {
        (self.appends == 0).then_some(self.submitted.size())
    }

    pub(super) fn check_reads(&self) -> Result<(), AuditError> {
        if self.condition == Condition::Closed {
            Err(StoreError::Closed.into())
        } else {
            Ok(())
        }
    }

    fn check(&self) -> Result<(), AuditError> {
        self.check_reads()?;
        if self.condition == Condition::Stalled {
            Err(AuditError::Interrupted)
        } else {
            Ok(())
        }
    }
}

/// The events of an append, each once.
struct Distinct<'a> {
    events: Vec<(&'a Event, Vec<u8>)>,
    /// Which of them each event of the append is.
    positions: Vec<usize>,
    /// Sorted.
    ids: Vec<EventId>,
}

impl<'a> Distinct<'a> {
    /// # Errors
    /// [`AuditError::EventIdReused`] when an id comes twice with another content.
    fn of(events: &'a [Event]) -> Result<Self, AuditError> {
        let mut known: HashMap<EventId, usize> = HashMap::with_capacity(events.len());
        let mut distinct: Vec<(&Event, Vec<u8>)> = Vec::with_capacity(events.len());
        let mut positions = Vec::with_capacity(events.len());
        for event in events {
            let next = distinct.len();
            let position = *known.entry(event.facts().id).or_insert(next);
            match distinct.get(position) {
                Some((first, _)) => same(first, event)?,
                None => distinct.push((event, encode_event(event))),
            }
            positions.push(position);
        }
        let mut ids: Vec<EventId> = known.into_keys().collect();
        ids.sort_unstable();
        Ok(Self {
            events: distinct,
            positions,
            ids,
        })
    }
}

/// What an append writes.
struct Group {
    batch: Batch,
    end: End,
    blocks: Vec<(EventId, Vec<u8>)>,
    ids: Vec<EventId>,
}

impl Log {
    /// Appends events; all are durable when this returns, or none is new. Gives their indexes: an event that is there already
    /// keeps the one that it has.
    ///
    /// # Errors
    /// [`AuditError::EventIdReused`], [`AuditError::Field`] for too many; [`AuditError::Interrupted`] and the store's own.
    pub fn append(&self, events: &[Event], now: Timestamp) -> Result<Vec<u64>, AuditError> {
        if events.len() > MAX_APPEND {
            return Err(AuditError::field(
                "events",
                format!("at most {MAX_APPEND} in one call"),
            ));
        }
        let distinct = Distinct::of(events)?;
        let (ticket, end, ids, indexes) = {
            let mut state = self.state();
            // A repeat of what is under way waits until it is known how that ends.
            while state.check().is_ok() && distinct.ids.iter().any(|id| state.under_way.contains(id)) {
                state = self.ended.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            state.check()?;
            let (indexes, group) = self.arrange(&state, &distinct, now)?;
            let indexes: Vec<u64> = distinct.positions.iter().map(|at| indexes[*at]).collect();
            let Some(Group {
                batch,
                end,
                blocks,
                ids,
            }) = group
            else {
                return Ok(indexes);
            };
            let ticket = self.records.submit(batch);
            for (first, block) in blocks {
                state.blocks.put(first, block, end.size());
            }
            state.submitted = end.clone();
            state.under_way.extend(&ids);
            state.appends += 1;
            (ticket, end, ids, indexes)
        };
        self.settle(ticket.wait(), end, &ids)?;
        if let Err(error) = self.index.write_runs(&*self.records, self.size()) {
            // The entries are durable; what finds them is still in memory, and made again at a start.
            tracing::warn!(%error, "the index could not be written; it is tried again with the next append");
        }
        Ok(indexes)
    }

    /// Gives the events their places, and an index to each; no group when all are there already.
    fn arrange(
        &self,
        state: &State,
        distinct: &Distinct<'_>,
        now: Timestamp,
    ) -> Result<(Vec<u64>, Option<Group>), AuditError> {
        let mut lookup = state.blocks.lookup(&*self.records, &distinct.ids)?;
        let before = &state.submitted;
        let mut new = Vec::with_capacity(distinct.events.len());
        let mut indexes = Vec::with_capacity(distinct.events.len());
        for (event, bytes) in &distinct.events {
            if let Some(index) = lookup.index_of(&event.facts().id) {
                same(&self.entry(index)?.event, event)?;
                indexes.push(index);
            } else {
                let index = before.size() + new.len() as u64;
                new.push((index, *event, bytes.as_slice()));
                indexes.push(index);
            }
        }
        let group = if new.is_empty() {
            None
        } else {
            for (index, event, _) in &new {
                lookup.insert(event.facts().id, *index);
            }
            self.index
                .push(new.iter().map(|(index, event, _)| (*index, event.facts())));
            Some(group(before, &new, lookup, now))
        };
        Ok((indexes, group))
    }

    /// Takes note of how an append ended.
    fn settle(&self, result: Result<(), StoreError>, end: End, ids: &[EventId]) -> Result<(), AuditError> {
        let mut state = self.state();
        state.appends -= 1;
        for id in ids {
            state.under_way.remove(id);
        }
        match &result {
            // Those who wait wake in any order; who is durable, those before it are.
            Ok(()) if end.size() > state.durable.size() => {
                state.blocks.settled(end.size());
                state.durable = end;
            }
            Ok(()) => {}
            Err(_) if state.condition == Condition::Open => state.condition = Condition::Stalled,
            Err(_) => {}
        }
        if state.condition == Condition::Stalled && state.appends == 0 {
            state.condition = match self.resume(&mut state) {
                Ok(()) => Condition::Open,
                Err(error) => {
                    tracing::error!(%error, "the log is closed after a failed write; restart the service");
                    Condition::Closed
                }
            };
        }
        drop(state);
        self.ended.notify_all();
        result.map_err(|error| match error {
            // The batch expected the head that one before it should have written.
            StoreError::Conflict => AuditError::Interrupted,
            error => AuditError::Store(error),
        })
    }

    /// Goes on from what is durable, if that is what the store holds.
    fn resume(&self, state: &mut State) -> Result<(), AuditError> {
        let stored = Standing::stored(&*self.records)?;
        if stored != state.durable.standing {
            let text = format!(
                "the store holds {} entries, and {} are known",
                stored.head.size,
                state.durable.size()
            );
            return Err(AuditError::Damaged(text));
        }
        state.submitted = state.durable.clone();
        state.blocks.clear();
        self.index.truncate(state.durable.size());
        Ok(())
    }
}

/// What is written for new events, each with its index and its bytes.
fn group(before: &End, new: &[(u64, &Event, &[u8])], lookup: Lookup, now: Timestamp) -> Group {
    // Clocks go back; the log does not.
    let appended_at = now.max(before.standing.appended_at);
    let mut tree = Tree::clone(&before.tree);
    let mut sequences = before.standing.sequences;
    let mut packer = Packer::new(before.size(), appended_at);
    let mut tiles = Vec::new();
    for (_, event, bytes) in new {
        let leaf = leaf_hash(&encode(appended_at, bytes));
        tree.append(leaf, |tile| tiles.push(tile));
        packer.push(event, &leaf);
        count(&mut sequences, event);
    }
    let standing = Standing {
        head: Head {
            size: tree.size(),
            root: tree.root(),
        },
        appended_at,
        sequences,
    };
    let mut batch = match before.size() {
        0 => Batch::new().expect_absent([keys::HEAD]),
        _ => Batch::new().expect_value([keys::HEAD], before.standing.to_bytes()),
    };
    for (first, record) in packer.finish() {
        batch = batch.put(keys::entries(first), record);
    }
    for tile in tiles {
        batch = batch.put(tile.key(), tile.value());
    }
    let blocks = lookup.finish();
    for (first, block) in &blocks {
        batch = batch.put(keys::ids(first), block.clone());
    }
    Group {
        batch: batch.put([keys::HEAD], standing.to_bytes()),
        end: End {
            standing,
            tree: Arc::new(tree),
        },
        blocks,
        ids: new.iter().map(|(_, event, _)| event.facts().id).collect(),
    }
}

fn same(first: &Event, again: &Event) -> Result<(), AuditError> {
    if first == again {
        Ok(())
    } else {
        Err(AuditError::EventIdReused(again.facts().id))
    }
}

/// Counts an event of a source. What does not follow is kept all the same, and told: to lose it would be worse.
fn count(sequences: &mut Sequences, event: &Event) {
    let facts = event.facts();
    let last = &mut sequences[facts.source as usize];
    if last.checked_add(1) != Some(facts.source_sequence) {
        tracing::warn!(source = %facts.source, sequence = facts.source_sequence, last = *last, "a source does not count on");
    }
    *last = facts.source_sequence.max(*last);
}

/// Where a log ends whose entries are stored.
///
/// # Errors
/// [`AuditError::Damaged`] when something of its end is missing, was altered, or does not amount to its head.
pub(super) fn stored_end(records: &dyn Records) -> Result<End, AuditError> {
    let standing = Standing::stored(records)?;
    let tree = Tree::load(records, standing.head.size)?;
    if tree.root() != standing.head.root {
        return Err(AuditError::damaged("its head is not what its entries amount to"));
    }
    let beyond = records.scan(&keys::entries(standing.head.size), &[keys::ENTRIES], 1)?;
    if !beyond.is_empty() {
        return Err(AuditError::Damaged(format!(
            "there are entries beyond its head of {}",
            standing.head.size
        )));
    }
    Ok(End {
        standing,
        tree: Arc::new(tree),
    })
}

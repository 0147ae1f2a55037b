//! Records in sled 0.34.
//!
//! One tree, one commit at a time: it takes every batch that queued while the last flush ran, checks preconditions in
//! order, applies them as one sled batch, flushes, and fsyncs. sled's `flush` alone calls `sync_file_range`, which a power
//! cut undoes (sled #1452): the fsync on our own handle of its file is what makes records durable.

use std::{
    collections::BTreeMap,
    fs::File,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use crate::{
    StoreError,
    files::{DirLock, create_private_dir, free_bytes, lock_dir_patiently},
    group::{GroupCommit, Queued},
    records::{Batch, MAX_VALUE, Record, Records, Ticket},
};

/// Deleted when a full disk would keep sled from opening.
const RESERVE_BYTES: usize = 4 << 20;

/// How long sled's threads may take to let go of a database that was closed.
const LETS_GO: Duration = Duration::from_secs(10);

/// How a store is opened.
#[derive(Debug, Clone, Copy)]
pub struct SledOptions {
    /// Bytes of page cache; sled's own default is 1 GiB.
    pub cache_bytes: u64,
    /// Free bytes on the disk below which writes are refused.
    pub min_free_bytes: u64,
    /// How long to wait for another process (or an earlier part of this one) that still has the store open: one that is
    /// shutting down lets go soon.
    pub lock_patience: Duration,
}

impl Default for SledOptions {
    fn default() -> Self {
        Self {
            cache_bytes: 64 << 20,
            min_free_bytes: 16 << 20,
            lock_patience: Duration::ZERO,
        }
    }
}

/// Durable records in a directory.
pub struct SledRecords {
    db: sled::Db,
    closed: Arc<AtomicBool>,
    /// Held while a batch is applied, and while a snapshot is taken.
    applying: Arc<Mutex<()>>,
    // Dropped in this order: the queue commits what it holds, then the directory's lock goes.
    group: GroupCommit<Batch>,
    _lock: DirLock,
}

impl SledRecords {
    /// Opens or creates the store in `path`, a directory that only its owner may enter.
    ///
    /// # Errors
    /// [`StoreError::Locked`] when another process has it, [`StoreError::Damaged`] when sled cannot read its file,
    /// [`StoreError::NoSpace`].
    pub fn open(path: &Path, options: SledOptions) -> Result<Self, StoreError> {
        create_private_dir(path)?;
        let lock = lock_dir_patiently(path, options.lock_patience)?;
        let reserve = path.join("reserve");
        if free_bytes(path)? < options.min_free_bytes {
            // sled cannot even open on a full disk.
            let _ = std::fs::remove_file(&reserve);
        }
        let sled_dir = path.join("sled");
        let config = sled::Config::new()
            .path(&sled_dir)
            .cache_capacity(options.cache_bytes)
            .flush_every_ms(None)
            .mode(sled::Mode::HighThroughput);
        let db = open_db(&config, &sled_dir)?;
        let file = File::options().read(true).write(true).open(sled_dir.join("db"))?;
        file.sync_all()?;
        if !reserve.exists() && free_bytes(path)? > options.min_free_bytes.saturating_mul(4) {
            std::fs::write(&reserve, vec![0; RESERVE_BYTES])?;
        }
        let closed = Arc::new(AtomicBool::new(false));
        let applying = Arc::default();
        let committer = Committer {
            db: db.clone(),
            file,
            path: path.to_owned(),
            min_free_bytes: options.min_free_bytes,
            closed: closed.clone(),
            applying: Arc::clone(&applying),
        };
        let group = GroupCommit::start(Box::new(move |group| committer.commit(group)))?;
        Ok(Self {
            db,
            closed,
            applying,
            group,
            _lock: lock,
        })
    }
}

/// Opens sled's file, which no other process can have: the directory is locked.
///
/// sled locks it too, and its threads let go of a database some time after its last handle is dropped: a store that was
/// closed a moment ago in this process is waited for.
fn open_db(config: &sled::Config, dir: &Path) -> Result<sled::Db, StoreError> {
    let begun = Instant::now();
    loop {
        // On a damaged file sled panics rather than answers.
        let opened = catch_unwind(AssertUnwindSafe(|| config.open()))
            .map_err(|_| StoreError::Damaged(format!("sled cannot read {}", dir.display())))?;
        match opened {
            Err(sled::Error::Io(error)) if is_locked(&error) && begun.elapsed() < LETS_GO => {
                std::thread::sleep(Duration::from_millis(10));
            }
            other => return other.map_err(from_sled),
        }
    }
}

/// sled says it in words only.
fn is_locked(error: &std::io::Error) -> bool {
    error.to_string().starts_with("could not acquire lock")
}

impl Records for SledRecords {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        guarded(|| Ok(self.db.get(key).map_err(from_sled)?.map(|value| value.to_vec())))
    }

    fn scan(&self, from: &[u8], prefix: &[u8], limit: usize) -> Result<Vec<Record>, StoreError> {
        guarded(|| {
            let mut records = Vec::new();
            for found in self.db.range(from.max(prefix)..) {
                let (key, value) = found.map_err(from_sled)?;
                if records.len() == limit || !key.starts_with(prefix) {
                    break;
                }
                records.push((key.to_vec(), value.to_vec()));
            }
            Ok(records)
        })
    }

    fn scan_back(
        &self,
        before: Option<&[u8]>,
        prefix: &[u8],
        limit: usize,
    ) -> Result<Vec<Record>, StoreError> {
        guarded(|| {
            let end = match before {
                Some(before) if before <= prefix => return Ok(vec![]),
                Some(before) => Some(before.to_vec()),
                None => after_prefix(prefix),
            };
            let range = match end {
                Some(end) => self.db.range(prefix.to_vec()..end),
                None => self.db.range(prefix.to_vec()..),
            };
            let mut records = Vec::new();
            for found in range.rev() {
                let (key, value) = found.map_err(from_sled)?;
                if records.len() == limit {
                    break;
                }
                if key.starts_with(prefix) {
                    records.push((key.to_vec(), value.to_vec()));
                } else if key.as_ref() < prefix {
                    break;
                }
            }
            Ok(records)
        })
    }

    fn snapshot(&self, see: &mut crate::SeeRecord<'_>) -> Result<(), StoreError> {
        let _still = self.applying.lock().unwrap_or_else(PoisonError::into_inner);
        guarded(|| {
            self.db.iter().try_for_each(|found| {
                let (key, value) = found.map_err(from_sled)?;
                see(&key, &value)
            })
        })
    }

    fn submit(&self, batch: Batch) -> Ticket {
        if self.closed.load(Ordering::Acquire) {
            return Ticket::done(Err(StoreError::Closed));
        }
        if let Err(error) = batch.check() {
            return Ticket::done(Err(error));
        }
        Ticket::pending(self.group.submit(batch))
    }

    fn bytes_on_disk(&self) -> Result<u64, StoreError> {
        self.db.size_on_disk().map_err(from_sled)
    }
}

struct Committer {
    db: sled::Db,
    file: File,
    path: PathBuf,
    min_free_bytes: u64,
    closed: Arc<AtomicBool>,
    applying: Arc<Mutex<()>>,
}

impl Committer {
    fn commit(&self, group: Vec<Queued<Batch>>) {
        if self.closed.load(Ordering::Acquire) {
            for queued in group {
                let _ = queued.answer.send(Err(StoreError::Closed));
            }
            return;
        }
        if free_bytes(&self.path).is_ok_and(|free| free < self.min_free_bytes) {
            for queued in group {
                // Deletions make room, sooner or later.
                let frees = queued.payload.writes.iter().all(|(_, value)| value.is_none());
                let result = if frees {
                    self.write(std::slice::from_ref(&queued.payload)).pop()
                } else {
                    None
                };
                let _ = queued.answer.send(result.unwrap_or(Err(StoreError::NoSpace)));
            }
            return;
        }
        let (batches, answers): (Vec<_>, Vec<_>) = group.into_iter().map(|q| (q.payload, q.answer)).unzip();
        for (result, answer) in self.write(&batches).into_iter().zip(answers) {
            // A submitter that no longer waits is fine.
            let _ = answer.send(result);
        }
    }

    /// Applies what can be applied, durably; one result for each batch.
    fn write(&self, batches: &[Batch]) -> Vec<Result<(), StoreError>> {
        let attempt = catch_unwind(AssertUnwindSafe(|| self.try_write(batches)));
        let failure = match attempt {
            Ok(Ok(results)) => return results,
            Ok(Err(error)) => error,
            Err(_) => StoreError::Damaged("sled failed while writing".into()),
        };
        // What reached the disk is unknown, and fsync must not be tried again: nothing more is promised.
        self.closed.store(true, Ordering::Release);
        tracing::error!(error = %failure, "the store is closed after a failed write; restart the service");
        let mut failure = Some(failure);
        batches
            .iter()
            .map(|_| Err(failure.take().unwrap_or(StoreError::Closed)))
            .collect()
    }

    fn try_write(&self, batches: &[Batch]) -> Result<Vec<Result<(), StoreError>>, StoreError> {
        // What earlier batches of this group set, and later ones must see.
        // In the order of their keys: neighbours lie on the same pages.
        let mut pending: BTreeMap<&[u8], Option<&[u8]>> = BTreeMap::new();
        let mut results = Vec::with_capacity(batches.len());
        for batch in batches {
            let mut holds = true;
            for (key, expected) in &batch.expectations {
                let same = match pending.get(key.as_slice()) {
                    Some(value) => *value == expected.as_deref(),
                    None => self.db.get(key).map_err(from_sled)?.as_deref() == expected.as_deref(),
                };
                holds &= same;
            }
            if holds {
                pending.extend(
                    batch
                        .writes
                        .iter()
                        .map(|(key, value)| (key.as_slice(), value.as_deref())),
                );
            }
            results.push(if holds { Ok(()) } else { Err(StoreError::Conflict) });
        }
        if !pending.is_empty() {
            let mut all = sled::Batch::default();
            for (key, value) in pending {
                match value {
                    Some(value) => all.insert(key, value),
                    None => all.remove(key),
                }
            }
            {
                let _applying = self.applying.lock().unwrap_or_else(PoisonError::into_inner);
                self.db.apply_batch(all).map_err(from_sled)?;
            }
            self.db.flush().map_err(from_sled)?;
            self.file.sync_data()?;
        }
        Ok(results)
    }
}

fn after_prefix(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|byte| *byte != u8::MAX)?;
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    Some(end)
}

/// Runs a read; a panic inside sled becomes an error.
fn guarded<T>(read: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
    catch_unwind(AssertUnwindSafe(read))
        .unwrap_or_else(|_| Err(StoreError::Damaged("sled failed while reading".into())))
}

fn from_sled(error: sled::Error) -> StoreError {
    match error {
        sled::Error::Io(error) => error.into(),
        sled::Error::Corruption { .. } => StoreError::Damaged("sled reports corruption".into()),
        other => StoreError::Damaged(other.to_string()),
    }
}

const _: () = assert!(
    MAX_VALUE < 16 << 10,
    "larger values make sled write blob files that it never fsyncs"
);

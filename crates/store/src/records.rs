//! Small ordered records.

use crate::{StoreError, group::Pending};

/// Largest value. From 16 KiB on, sled writes files of its own that it never fsyncs: larger things are blobs.
pub const MAX_VALUE: usize = 4096;
/// Largest key.
pub const MAX_KEY: usize = 512;

/// A key and its value.
pub type Record = (Vec<u8>, Vec<u8>);

/// Sees a record of a snapshot: its key and its value.
pub type SeeRecord<'a> = dyn FnMut(&[u8], &[u8]) -> Result<(), StoreError> + 'a;

/// Ordered byte keys with small values. What [`Records::commit`] acknowledged survives a power cut.
pub trait Records: Send + Sync {
    /// The value of `key`.
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError>;

    /// Records under `prefix` from the key `from` on (inclusive), ascending, at most `limit`.
    fn scan(&self, from: &[u8], prefix: &[u8], limit: usize) -> Result<Vec<Record>, StoreError>;

    /// Records under `prefix` before the key `before` (exclusive; `None` from the end), descending, at most `limit`.
    fn scan_back(
        &self,
        before: Option<&[u8]>,
        prefix: &[u8],
        limit: usize,
    ) -> Result<Vec<Record>, StoreError>;

    /// Shows every record, ascending, as all are at one moment: no batch is seen in part, nor one without those before it. Writes wait
    /// meanwhile, reads do not: `see` should only copy.
    ///
    /// # Errors
    /// What `see` answers, which ends it, and the store's own.
    fn snapshot(&self, see: &mut SeeRecord<'_>) -> Result<(), StoreError>;

    /// Queues a batch without waiting. Batches are applied in the order of their submission, at the latest when somebody
    /// waits for the ticket or drops it.
    fn submit(&self, batch: Batch) -> Ticket;

    /// Bytes that the records take on the disk.
    fn bytes_on_disk(&self) -> Result<u64, StoreError>;

    /// Applies a batch; blocks until it is durable.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when a precondition does not hold, [`StoreError::TooLarge`], [`StoreError::NoSpace`], and
    /// after a failed write [`StoreError::Closed`] for ever.
    fn commit(&self, batch: Batch) -> Result<(), StoreError> {
        self.submit(batch).wait()
    }
}

/// What is written together, if all its preconditions hold.
#[derive(Debug, Default, Clone)]
#[must_use]
pub struct Batch {
    pub(crate) expectations: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    pub(crate) writes: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

impl Batch {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets a record.
    pub fn put(mut self, key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) -> Self {
        self.writes.push((key.into(), Some(value.into())));
        self
    }

    /// Deletes a record, if it is there.
    pub fn delete(mut self, key: impl Into<Vec<u8>>) -> Self {
        self.writes.push((key.into(), None));
        self
    }

    /// Nothing is written unless there is no such record.
    pub fn expect_absent(mut self, key: impl Into<Vec<u8>>) -> Self {
        self.expectations.push((key.into(), None));
        self
    }

    /// Nothing is written unless the record has this value.
    pub fn expect_value(mut self, key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) -> Self {
        self.expectations.push((key.into(), Some(value.into())));
        self
    }

    /// Whether nothing would be written.
    pub fn is_empty(&self) -> bool {
        self.writes.is_empty()
    }

    /// Refuses what the store could not keep.
    pub(crate) fn check(&self) -> Result<(), StoreError> {
        for (key, value) in &self.writes {
            if key.len() > MAX_KEY {
                return Err(StoreError::TooLarge {
                    limit: MAX_KEY,
                    actual: key.len(),
                });
            }
            let actual = value.as_ref().map_or(0, Vec::len);
            if actual > MAX_VALUE {
                return Err(StoreError::TooLarge {
                    limit: MAX_VALUE,
                    actual,
                });
            }
        }
        Ok(())
    }
}

/// The answer to a submitted write, to be waited for.
#[must_use]
pub struct Ticket(State);

enum State {
    Done(Result<(), StoreError>),
    Pending(Pending),
}

impl Ticket {
    pub(crate) fn done(result: Result<(), StoreError>) -> Self {
        Self(State::Done(result))
    }

    /// A write that failed at once.
    pub fn failed(error: StoreError) -> Self {
        Self(State::Done(Err(error)))
    }

    pub(crate) fn pending(pending: Pending) -> Self {
        Self(State::Pending(pending))
    }

    /// Has the write made without being waited for; else it may be made no sooner than somebody waits.
    pub fn start(&self) {
        if let State::Pending(pending) = &self.0 {
            pending.start();
        }
    }

    /// Blocks until it is durable, or is not going to be.
    ///
    /// # Errors
    /// As [`Records::commit`].
    pub fn wait(self) -> Result<(), StoreError> {
        match self.0 {
            State::Done(result) => result,
            State::Pending(pending) => pending.wait(),
        }
    }

    /// As [`Ticket::wait`], without keeping a thread.
    ///
    /// # Errors
    /// As [`Records::commit`].
    pub async fn settled(self) -> Result<(), StoreError> {
        match self.0 {
            State::Done(result) => result,
            State::Pending(pending) => pending.settled().await,
        }
    }
}

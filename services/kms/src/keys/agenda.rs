//! Which keys have something due, by time: a sweep reads what is due, however many keys there are.
//!
//! Whoever gives a key a due time notes it in the same batch. A note may be stale (the destruction was undone, the rotation moved), so
//! the key's own records decide; a note goes once its key has nothing due. Stores from before are read whole, once.

use asterism_store::Batch;

use crate::{
    error::KmsError,
    keys::{
        KeyId, Keyring,
        record::{KEY, KeyRecord, STATE, StateRecord, decode, encode, version_at},
    },
};

use super::keyring::{PAGE, key_at};

/// Records: this byte, milliseconds since 1970 (8 bytes, big-endian) and the key id -> nothing.
const AGENDA: u8 = b'd';
/// Record: this byte -> the layout of the store.
const LAYOUT: &[u8] = b"m";
/// Wrapping keys for every version, files that no record names in `pending/` only, and a note for everything due.
const CURRENT_LAYOUT: u32 = 1;

/// A note that was read.
pub(crate) struct Note {
    pub(crate) key: KeyId,
    /// Its record.
    at: Vec<u8>,
}

/// A batch that also notes that `id` has something due at `at_ms`.
pub(crate) fn note(batch: Batch, id: &KeyId, at_ms: u64) -> Batch {
    batch.put(note_at(id, at_ms), [])
}

fn note_at(id: &KeyId, at_ms: u64) -> Vec<u8> {
    [&[AGENDA], at_ms.to_be_bytes().as_slice(), id.as_str().as_bytes()].concat()
}

fn read_note(at: &[u8]) -> Result<(u64, KeyId), KmsError> {
    let damaged = KmsError::Damaged("a note of what is due");
    let Some((at_ms, id)) = at.get(1..).and_then(|rest| rest.split_first_chunk::<8>()) else {
        return Err(damaged);
    };
    let id = str::from_utf8(id).ok().and_then(|id| id.parse().ok());
    Ok((u64::from_be_bytes(*at_ms), id.ok_or(damaged)?))
}

impl Keyring {
    /// Whether the store was laid out by this release, so that a start need not read all of it.
    ///
    /// # Errors
    /// [`KmsError::Damaged`] for a layout of a later release.
    pub fn is_current(&self) -> Result<bool, KmsError> {
        match self.records.get(LAYOUT)? {
            None => Ok(false),
            Some(stored) if decode::<u32>(&stored)? == CURRENT_LAYOUT => Ok(true),
            Some(_) => Err(KmsError::Damaged(
                "layout of the store, which a later release made",
            )),
        }
    }

    /// Notes everything that is or will be due, from the records of all keys, and then that the store is current.
    ///
    /// # Errors
    /// The store's own, and [`KmsError::Damaged`].
    pub fn make_current(&self) -> Result<(), KmsError> {
        let mut notes = Vec::new();
        self.each(&[STATE], |at, stored| {
            if let Some(due) = decode::<StateRecord>(stored)?.destroy_at_ms {
                notes.push((version_at(at)?.0, due));
            }
            Ok(())
        })?;
        self.each(&[KEY], |at, stored| {
            let record = KeyRecord::read(stored)?;
            let unreported = record.unreported.map(|_| 0);
            for due in [record.next_rotation_ms, unreported].into_iter().flatten() {
                notes.push((key_at(at)?, due));
            }
            Ok(())
        })?;
        for page in notes.chunks(PAGE) {
            let batch = page
                .iter()
                .fold(Batch::new(), |batch, (id, due)| note(batch, id, *due));
            self.records.commit(batch)?;
        }
        let mark = Batch::new().put(LAYOUT, encode(&CURRENT_LAYOUT));
        Ok(self.records.commit(mark)?)
    }

    /// Takes notes back.
    pub(crate) fn forget(&self, notes: &[&Note]) -> Result<(), KmsError> {
        for page in notes.chunks(PAGE) {
            let batch = page
                .iter()
                .fold(Batch::new(), |batch, note| batch.delete(note.at.clone()));
            self.records.commit(batch)?;
        }
        Ok(())
    }

    /// Notes for times that have come, by key.
    pub(crate) fn notes(&self, now_ms: u64) -> Result<Vec<Note>, KmsError> {
        let mut notes = Vec::new();
        let mut from = vec![AGENDA];
        loop {
            let page = self.records.scan(&from, &[AGENDA], PAGE)?;
            for (at, _) in &page {
                let (at_ms, key) = read_note(at)?;
                if at_ms > now_ms {
                    return Ok(by_key(notes));
                }
                notes.push(Note { key, at: at.clone() });
            }
            match page.into_iter().next_back() {
                Some((at, _)) => from = [at.as_slice(), &[0]].concat(),
                None => return Ok(by_key(notes)),
            }
        }
    }
}

fn by_key(mut notes: Vec<Note>) -> Vec<Note> {
    notes.sort_unstable_by(|one, other| one.key.cmp(&other.key));
    notes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_sort_by_time_and_read_back() {
        let id: KeyId = "a-key".parse().expect("id");
        let later = note_at(&id, 256);
        assert!(note_at(&"z".parse().expect("id"), 255) < later);
        assert_eq!(read_note(&later).expect("read"), (256, id));
        for bad in [b"d".as_slice(), b"d1234567", b"d12345678", b"d12345678NO"] {
            assert!(read_note(bad).is_err(), "{bad:?}");
        }
    }
}

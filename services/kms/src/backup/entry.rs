//! What a backup holds, one thing after the other.
//!
//! ```text
//! entry = kind 1 | name length 2 BE | value length 4 BE | name | value
//! ```
//!
//! Kinds ascend, and names within a kind: nothing comes twice. The last entry counts the others.

use asterism_store::MAX_VALUE;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::BackupError;

const HEAD_BYTES: usize = 1 + 2 + 4;
const MAX_NAME_BYTES: usize = 512;
const MAX_FILE_BYTES: usize = 64 << 10;
/// Most bytes that are given to a decoder at once.
pub(crate) const MAX_PUSH_BYTES: usize = 1 << 20;

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Record = 1,
    WrappingKey = 2,
    File = 3,
    End = 4,
}

/// How much there is of each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Contents {
    /// Records.
    pub records: u64,
    /// Wrapping keys of versions.
    pub wrapping_keys: u64,
    /// Files that say how the root key is sealed.
    pub files: u64,
}

impl Contents {
    pub(crate) fn count(&mut self, kind: Kind) {
        match kind {
            Kind::Record => self.records += 1,
            Kind::WrappingKey => self.wrapping_keys += 1,
            Kind::File => self.files += 1,
            Kind::End => {}
        }
    }

    pub(crate) fn encode(&self) -> [u8; 24] {
        let mut bytes = [0; 24];
        let counts = [self.records, self.wrapping_keys, self.files];
        for (to, count) in bytes.chunks_exact_mut(8).zip(counts) {
            to.copy_from_slice(&count.to_be_bytes());
        }
        bytes
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry<'a> {
    pub(crate) kind: Kind,
    pub(crate) name: &'a [u8],
    pub(crate) value: &'a [u8],
}

impl<'a> Entry<'a> {
    /// The first entry of `bytes`, and how many bytes it takes; `None` when there are more to come.
    fn decode(bytes: &'a [u8]) -> Result<Option<(Self, usize)>, BackupError> {
        const MALFORMED: BackupError = BackupError::Malformed("entry");
        let Some((head, rest)) = bytes.split_first_chunk::<HEAD_BYTES>() else {
            return Ok(None);
        };
        let [kind, n0, n1, v0, v1, v2, v3] = *head;
        let (kind, max) = match kind {
            1 => (Kind::Record, MAX_VALUE),
            2 => (Kind::WrappingKey, 32),
            3 => (Kind::File, MAX_FILE_BYTES),
            4 => (Kind::End, 24),
            _ => return Err(MALFORMED),
        };
        let name = usize::from(u16::from_be_bytes([n0, n1]));
        let value = u32::from_be_bytes([v0, v1, v2, v3]) as usize;
        if name > MAX_NAME_BYTES || value > max {
            return Err(MALFORMED);
        }
        Ok(rest.get(..name + value).map(|body| {
            let (name, value) = body.split_at(name);
            (Self { kind, name, value }, HEAD_BYTES + body.len())
        }))
    }

    /// Its head, which name and value follow.
    pub(crate) fn head(&self) -> Result<[u8; HEAD_BYTES], BackupError> {
        const TOO_LONG: BackupError = BackupError::Malformed("entry to be written");
        let name = u16::try_from(self.name.len()).map_err(|_| TOO_LONG)?;
        let value = u32::try_from(self.value.len()).map_err(|_| TOO_LONG)?;
        let mut head = [0; HEAD_BYTES];
        head[0] = self.kind as u8;
        head[1..3].copy_from_slice(&name.to_be_bytes());
        head[3..].copy_from_slice(&value.to_be_bytes());
        Ok(head)
    }
}

/// Reads entries from bytes that come in pieces.
pub(crate) struct Decoder {
    /// Of full capacity from the start: growing would leave copies of secrets behind.
    pending: Zeroizing<Vec<u8>>,
    last: Option<(Kind, Vec<u8>)>,
    contents: Contents,
}

impl Decoder {
    pub(crate) fn new() -> Self {
        let most = HEAD_BYTES + MAX_NAME_BYTES + MAX_FILE_BYTES;
        Self {
            pending: Zeroizing::new(Vec::with_capacity(MAX_PUSH_BYTES + most)),
            last: None,
            contents: Contents::default(),
        }
    }

    /// Reads on; `see` gets every entry but the last.
    pub(crate) fn push(
        &mut self,
        bytes: &[u8],
        see: &mut dyn FnMut(&Entry<'_>) -> Result<(), BackupError>,
    ) -> Result<(), BackupError> {
        if bytes.len() > MAX_PUSH_BYTES {
            return Err(BackupError::Malformed("chunk"));
        }
        self.pending.extend_from_slice(bytes);
        let mut done = 0;
        while let Some((entry, length)) = Entry::decode(&self.pending[done..])? {
            let ascends = self
                .last
                .as_ref()
                .is_none_or(|(kind, name)| (*kind, name.as_slice()) < (entry.kind, entry.name));
            let ended = matches!(self.last, Some((Kind::End, _)));
            if ended || !ascends {
                return Err(BackupError::Malformed("order of entries"));
            }
            if entry.kind == Kind::End {
                if !entry.name.is_empty() || entry.value != self.contents.encode() {
                    return Err(BackupError::Incomplete(
                        "its last entry counts other things than are in it".to_owned(),
                    ));
                }
            } else {
                self.contents.count(entry.kind);
                see(&entry)?;
            }
            self.last = Some((entry.kind, entry.name.to_vec()));
            done += length;
        }
        self.pending.drain(..done);
        Ok(())
    }

    /// What there was, when that was all.
    pub(crate) fn finish(self) -> Result<Contents, BackupError> {
        match self.last {
            Some((Kind::End, _)) if self.pending.is_empty() => Ok(self.contents),
            _ => Err(BackupError::Incomplete("its last entry is missing".to_owned())),
        }
    }

    /// What there was in a file that ends after any whole entry.
    pub(crate) fn so_far(&self) -> Contents {
        self.contents
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn encoded(entries: &[(Kind, Vec<u8>, Vec<u8>)]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (kind, name, value) in entries {
            let entry = Entry {
                kind: *kind,
                name,
                value,
            };
            bytes.extend(entry.head().expect("head"));
            bytes.extend([name.as_slice(), value].concat());
        }
        bytes
    }

    type Entries = Vec<(Kind, Vec<u8>, Vec<u8>)>;

    fn decoded(bytes: &[u8], piece: usize) -> Result<(Entries, Contents), BackupError> {
        let (mut decoder, mut seen) = (Decoder::new(), Vec::new());
        for piece in bytes.chunks(piece) {
            decoder.push(piece, &mut |entry| {
                seen.push((entry.kind, entry.name.to_vec(), entry.value.to_vec()));
                Ok(())
            })?;
        }
        Ok((seen, decoder.finish()?))
    }

    fn entries() -> impl Strategy<Value = Vec<(Kind, Vec<u8>, Vec<u8>)>> {
        let bytes = |most| prop::collection::vec(any::<u8>(), 0..most);
        let some = |kind, most| {
            prop::collection::btree_map(bytes(20), bytes(most), 0..6).prop_map(move |map| {
                map.into_iter()
                    .map(move |(name, value)| (kind, name, value))
                    .collect::<Vec<_>>()
            })
        };
        (
            some(Kind::Record, 300),
            some(Kind::WrappingKey, 33),
            some(Kind::File, 500),
        )
            .prop_map(|(a, b, c)| [a, b, c].concat())
    }

    fn ended(mut entries: Vec<(Kind, Vec<u8>, Vec<u8>)>) -> Vec<(Kind, Vec<u8>, Vec<u8>)> {
        let mut contents = Contents::default();
        entries.iter().for_each(|entry| contents.count(entry.0));
        entries.push((Kind::End, vec![], contents.encode().to_vec()));
        entries
    }

    proptest! {
        #[test]
        fn entries_read_back_however_they_are_cut(entries in entries(), piece in 1..400usize) {
            let bytes = encoded(&ended(entries.clone()));
            let (seen, contents) = decoded(&bytes, piece).expect("read");
            prop_assert_eq!(contents.records as usize, entries.iter().filter(|e| e.0 == Kind::Record).count());
            prop_assert_eq!(seen, entries);
        }

        #[test]
        fn nothing_is_left_out_added_or_moved_unseen(entries in entries(), at in any::<prop::sample::Index>()) {
            let whole = ended(entries);
            let bytes = encoded(&whole);
            for cut in [at.index(bytes.len()), bytes.len() - 1] {
                prop_assert!(decoded(&bytes[..cut], 64).is_err());
            }
            prop_assert!(decoded(&[bytes.as_slice(), &[4]].concat(), 64).is_err());
            let (mut without, mut twice, mut turned) = (whole.clone(), whole.clone(), whole.clone());
            let at = at.index(whole.len());
            without.remove(at);
            prop_assert!(decoded(&encoded(&without), 64).is_err());
            twice.insert(at, whole[at].clone());
            prop_assert!(decoded(&encoded(&twice), 64).is_err());
            if at > 0 {
                turned.swap(at - 1, at);
                prop_assert!(decoded(&encoded(&turned), 64).is_err());
            }
        }

        #[test]
        fn any_bytes_are_refused_or_read(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = decoded(&bytes, 7);
        }
    }
}

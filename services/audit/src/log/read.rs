//! Reading entries back.

use asterism_store::Records;

use super::{Entry, keys, missing, pack};
use crate::error::AuditError;

/// Records that are read in one go.
const STRIDE: usize = 16;

/// The record that has the entry `index`, and the index of its first.
pub(super) fn record(records: &dyn Records, index: u64) -> Result<(u64, Vec<u8>), AuditError> {
    let before = keys::after(&keys::entries(index));
    let found = records.scan_back(Some(&before), &[keys::ENTRIES], 1)?.pop();
    let found = found.and_then(|(key, record)| Some((keys::number(&key)?, record)));
    found.ok_or_else(|| missing(index))
}

/// Entries from `from` on and below `until`, at most `limit`; fewer only at `until`.
///
/// # Errors
/// [`AuditError::Damaged`] naming the first entry that is missing or was altered.
pub(super) fn entries(
    records: &dyn Records,
    from: u64,
    until: u64,
    limit: usize,
) -> Result<Vec<Entry>, AuditError> {
    let mut entries = Vec::new();
    let limit = usize::try_from(until.saturating_sub(from))
        .unwrap_or(usize::MAX)
        .min(limit);
    each(
        records,
        from,
        |entry| {
            entries.push(entry);
            Ok(entries.len() < limit)
        },
        limit,
    )?;
    Ok(entries)
}

/// Shows entries from `from` on, all of which up to `from + count` are there, until it is told that these were enough.
///
/// # Errors
/// As [`entries`].
pub(super) fn each(
    records: &dyn Records,
    from: u64,
    mut show: impl FnMut(Entry) -> Result<bool, AuditError>,
    count: usize,
) -> Result<(), AuditError> {
    if count == 0 {
        return Ok(());
    }
    let (first, bytes) = record(records, from)?;
    let mut expected = first;
    let mut waiting = vec![(keys::entries(first).to_vec(), bytes)];
    loop {
        for (key, bytes) in waiting {
            if keys::number(&key) != Some(expected) {
                return Err(missing(expected.max(from)));
            }
            for packed in pack::unpack(expected, &bytes).map_err(altered)? {
                expected = packed.index + 1;
                if packed.index >= from {
                    let (entry, _) = packed.entry().ok_or_else(|| altered(packed.index))?;
                    if !show(entry)? {
                        return Ok(());
                    }
                }
            }
        }
        waiting = records.scan(&keys::entries(expected), &[keys::ENTRIES], STRIDE)?;
        if waiting.is_empty() {
            return Err(missing(expected.max(from)));
        }
    }
}

/// That entry, out of a record that is known.
pub(super) fn one(first: u64, record: &[u8], index: u64) -> Result<Entry, AuditError> {
    let entries = pack::unpack(first, record).map_err(altered)?;
    let at = usize::try_from(index - first).unwrap_or(usize::MAX);
    let packed = entries.get(at).ok_or_else(|| missing(index))?;
    let (entry, _) = packed.entry().ok_or_else(|| altered(index))?;
    Ok(entry)
}

/// An entry that does not fit its check.
pub(super) fn altered(index: u64) -> AuditError {
    AuditError::Damaged(format!("entry {index} was altered or cannot be read"))
}

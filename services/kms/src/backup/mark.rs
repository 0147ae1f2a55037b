//! What a restore leaves for the first start of the service: the event that it happened.

use std::path::Path;

use asterism_chassis::{
    identity::PrincipalId,
    outbox::{AuditEvent, Outbox},
};
use asterism_crypto::Digest;
use asterism_store::{StoreError, files};
use serde::{Deserialize, Serialize};

use super::{BackupError, Verified};
use crate::{error::KmsError, sweeper::unrecorded};

const FILE: &str = "restored.json";
const FORMAT: u32 = 1;

/// Of which backup the store is, and since when.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Mark {
    format: u32,
    /// Of the backup's file.
    sha256: Digest,
    created_at_ms: u64,
    restored_at_ms: u64,
}

pub(crate) fn leave(data_dir: &Path, backup: &Verified, restored_at_ms: u64) -> Result<(), BackupError> {
    let mark = Mark {
        format: FORMAT,
        sha256: backup.sha256,
        created_at_ms: backup.header.created_at_ms,
        restored_at_ms,
    };
    let json = serde_json::to_vec_pretty(&mark).expect("marks serialise");
    Ok(files::write_new(&data_dir.join(FILE), &json)?)
}

/// Records that the store was restored, if it was and that is not recorded yet.
///
/// # Errors
/// [`KmsError::RestoreMark`] when the mark cannot be read, [`KmsError::Unrecorded`]: the store is not opened without it.
pub(crate) fn report(data_dir: &Path, outbox: &Outbox) -> Result<(), KmsError> {
    let path = data_dir.join(FILE);
    let json = match files::read_private(&path) {
        Err(StoreError::Io(error)) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        read => read?,
    };
    let mark = serde_json::from_slice::<Mark>(&json).ok();
    let mark = mark
        .filter(|mark| mark.format == FORMAT)
        .ok_or_else(|| KmsError::RestoreMark(path.display().to_string()))?;
    let event = AuditEvent {
        principal: PrincipalId::service("kms").to_string(),
        reason: format!("RESTORED at_ms={}", mark.restored_at_ms).into(),
        input: Some(mark.sha256),
        ..AuditEvent::unasked("kms.Restored", format!("backups/{}", mark.created_at_ms))
    };
    outbox.record(event).map_err(unrecorded)?;
    tracing::info!(backup = %mark.sha256, "this store was restored from a backup");
    // After the event: a crash in between records it twice rather than never.
    Ok(files::shred(&path)?)
}

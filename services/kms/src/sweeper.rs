//! Does what is due by itself, at the start and from time to time; each act with an event of its own.

use std::{sync::Weak, time::Duration};

use asterism_chassis::{
    identity::PrincipalId,
    outbox::{AuditEvent, Outbox},
};
use tokio::time::MissedTickBehavior;

use crate::{
    Clock, KmsError,
    directory::Directory,
    keys::{Due, KeyId, Keyring},
};

/// Sweeps every so often, as long as the keyring is there.
pub(crate) async fn run(keyring: Weak<Keyring>, outbox: Outbox, clock: Clock, every: Duration) {
    let mut ticks = tokio::time::interval(every.max(Duration::from_secs(1)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        ticks.tick().await;
        let Some(keyring) = keyring.upgrade() else { return };
        let (outbox, now_ms) = (outbox.clone(), clock());
        let swept = tokio::task::spawn_blocking(move || sweep(&keyring, &outbox, now_ms)).await;
        if swept.is_err() {
            tracing::error!("a sweep of due keys was lost");
        }
    }
}

/// Has the directory forget what is over, as long as it is there.
pub(crate) async fn run_directory(directory: Weak<Directory>, clock: Clock, every: Duration) {
    let mut ticks = tokio::time::interval(every.max(Duration::from_secs(1)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        ticks.tick().await;
        let Some(directory) = directory.upgrade() else {
            return;
        };
        let now_ms = clock();
        match tokio::task::spawn_blocking(move || directory.sweep(now_ms)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(%error, "the directory could not be swept; it is tried again"),
            Err(_) => tracing::error!("a sweep of the directory was lost"),
        }
    }
}

/// Does everything that is due; what fails is logged, and due again at the next sweep.
pub(crate) fn sweep(keyring: &Keyring, outbox: &Outbox, now_ms: u64) {
    let due = match keyring.due(now_ms) {
        Ok(due) => due,
        Err(error) => {
            tracing::error!(%error, "due keys could not be looked for");
            return;
        }
    };
    for due in due {
        if let Err(error) = act(keyring, outbox, now_ms, &due) {
            tracing::warn!(%error, ?due, "what is due could not be done; it is tried again");
        }
    }
}

fn act(keyring: &Keyring, outbox: &Outbox, now_ms: u64, due: &Due) -> Result<(), KmsError> {
    // Nothing is done for whose event there is no room.
    let room = outbox.reserve().map_err(unrecorded)?;
    match due {
        Due::Destroy { key, version } => {
            let report = || {
                room.record(event("kms.DestroyKeyVersion", key, *version))
                    .map_err(unrecorded)
            };
            if keyring.destroy_due(key, *version, now_ms, report)? {
                tracing::info!(key = %key, version, "destroyed a key version");
            }
        }
        Due::Rotate { key } => {
            let report = |version| {
                room.record(event("kms.RotateKey", key, version))
                    .map_err(unrecorded)
            };
            if let Some(version) = keyring.rotate_due(key, now_ms, report)? {
                tracing::info!(key = %key, version, "rotated a key on schedule");
            }
        }
    }
    Ok(())
}

pub(crate) fn event(operation: &'static str, key: &KeyId, version: u32) -> AuditEvent {
    AuditEvent {
        principal: PrincipalId::service("kms").to_string(),
        key_version: version,
        ..AuditEvent::unasked(operation, key.name())
    }
}

fn unrecorded(failure: asterism_chassis::error::Failure) -> KmsError {
    KmsError::Unrecorded(failure.message().to_owned())
}

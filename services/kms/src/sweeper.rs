//! Does what is due by itself, when the vault is opened and from time to time after; each act with an event of its own.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use asterism_chassis::{
    identity::PrincipalId,
    outbox::{AuditEvent, Outbox},
};
use tokio::time::{Interval, MissedTickBehavior};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    Clock, KmsError,
    keys::{Due, KeyId, Keyring},
    vault::{Unsealed, Vault, wrap_anew},
};

/// Sweeps whenever the vault is open, as long as it is there.
pub(crate) async fn run(
    vault: Weak<Vault>,
    tracker: TaskTracker,
    draining: CancellationToken,
    outbox: Outbox,
    clock: Clock,
    every: Duration,
) {
    let Some(mut watch) = vault.upgrade().map(|vault| vault.watch()) else {
        return;
    };
    loop {
        // Seen before it is looked for, so that no change in between is missed.
        watch.mark_unchanged();
        let unsealed = weakly(&vault);
        let anew = wrap_anew(vault.clone(), unsealed.clone(), tracker.clone(), draining.clone());
        tokio::select! {
            () = draining.cancelled() => return,
            changed = watch.changed() => if changed.is_err() { return },
            () = sweep_keys(unsealed.clone(), outbox.clone(), clock.clone(), every) => {}
            () = sweep_directory(unsealed, clock.clone(), every) => {}
            () = anew => {}
        }
    }
}

/// What is open now, without keeping it open.
fn weakly(vault: &Weak<Vault>) -> Weak<Unsealed> {
    let unsealed = vault.upgrade().and_then(|vault| vault.get().ok());
    unsealed.as_ref().map_or_else(Weak::new, Arc::downgrade)
}

async fn sweep_keys(unsealed: Weak<Unsealed>, outbox: Outbox, clock: Clock, every: Duration) {
    let mut ticks = ticks(every);
    loop {
        ticks.tick().await;
        let Some(unsealed) = unsealed.upgrade() else {
            return std::future::pending().await;
        };
        let (outbox, now_ms) = (outbox.clone(), clock());
        let work = move || sweep(&unsealed.keyring, &outbox, now_ms);
        if tokio::task::spawn_blocking(work).await.is_err() {
            tracing::error!("a sweep of due keys was lost");
        }
    }
}

/// Has the directory forget what is over.
async fn sweep_directory(unsealed: Weak<Unsealed>, clock: Clock, every: Duration) {
    let mut ticks = ticks(every);
    loop {
        ticks.tick().await;
        let Some(unsealed) = unsealed.upgrade() else {
            return std::future::pending().await;
        };
        let now_ms = clock();
        match tokio::task::spawn_blocking(move || unsealed.directory.sweep(now_ms)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(%error, "the directory could not be swept; it is tried again"),
            Err(_) => tracing::error!("a sweep of the directory was lost"),
        }
    }
}

fn ticks(every: Duration) -> Interval {
    let mut ticks = tokio::time::interval(every.max(Duration::from_secs(1)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    ticks
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

pub(crate) fn unrecorded(failure: asterism_chassis::error::Failure) -> KmsError {
    KmsError::Unrecorded(failure.message().to_owned())
}

//! Wraps all material anew after the root key was rotated, beside everything else.

use std::{
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use asterism_chassis::{
    identity::PrincipalId,
    outbox::{AuditEvent, Outcome},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{Unsealed, Vault};
use crate::{KmsError, keys::Rewrapped, sweeper::unrecorded};

/// What could not be done is tried again after that.
const AGAIN: Duration = Duration::from_secs(5);

/// How far it has come, in this process and period.
#[derive(Default)]
pub(super) struct Progress {
    done: AtomicU64,
    begun: Mutex<Option<Instant>>,
}

impl Progress {
    /// Counts from the start again.
    pub(super) fn begin(&self) {
        self.done.store(0, Ordering::Release);
        *self.begun.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    /// Versions, and since when.
    pub(super) fn so_far(&self) -> (u64, Duration) {
        let begun = *self.begun.lock().unwrap_or_else(PoisonError::into_inner);
        let elapsed = begun.map_or(Duration::ZERO, |begun| begun.elapsed());
        (self.done.load(Ordering::Acquire), elapsed)
    }

    fn is_begun(&self) -> bool {
        self.begun
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .is_some()
    }
}

/// Wraps everything anew whenever there is more than one root key, as long as `unsealed` is there. Ends, between two pages, with the
/// vault's being sealed or with the service, and goes on after the next unsealing.
pub(crate) async fn wrap_anew(
    vault: Weak<Vault>,
    unsealed: Weak<Unsealed>,
    tracker: TaskTracker,
    draining: CancellationToken,
) {
    let Some(begun) = vault.upgrade().map(|vault| vault.rotating.clone()) else {
        return;
    };
    loop {
        let (vault, unsealed, draining) = (vault.clone(), unsealed.clone(), draining.clone());
        let work = move || match (vault.upgrade(), unsealed.upgrade()) {
            (Some(vault), Some(unsealed)) => go_on(&vault, &unsealed, &draining),
            _ => Ok(()),
        };
        // A shutdown waits for it, as for every other work.
        match tracker.spawn_blocking(work).await {
            Ok(Ok(())) => begun.notified().await,
            Ok(Err(error)) => {
                tracing::error!(%error, "material could not be wrapped anew under the new root key; it is tried again");
                tokio::time::sleep(AGAIN).await;
            }
            Err(_) => {
                tracing::error!("a rotation of the root key was lost; it is tried again");
                tokio::time::sleep(AGAIN).await;
            }
        }
    }
}

fn go_on(vault: &Arc<Vault>, unsealed: &Unsealed, draining: &CancellationToken) -> Result<(), KmsError> {
    if !unsealed.keyring.roots().is_rotating() {
        return Ok(());
    }
    let progress = &unsealed.progress;
    if !progress.is_begun() {
        progress.begin();
    }
    let watch = vault.watch();
    let stop = || draining.is_cancelled() || !*watch.borrow();
    match unsealed.keyring.rewrap(&progress.done, &stop)? {
        Rewrapped::Stopped => Ok(()),
        Rewrapped::All(all) => {
            let room = vault.outbox.reserve().map_err(unrecorded)?;
            let version = unsealed.keyring.roots().newest_version();
            // First: a crash in between records it twice rather than never.
            room.record(event(version)).map_err(unrecorded)?;
            unsealed.keyring.adopt(vault.seal.finish_rotation(all)?);
            let (versions, elapsed) = progress.so_far();
            tracing::info!(root = version, versions, ?elapsed, "rotated the root key");
            Ok(())
        }
        Rewrapped::Damaged(count) => {
            let version = unsealed.keyring.roots().newest_version();
            tracing::error!(
                count,
                root = version,
                "versions that cannot be unwrapped; the older root key is kept for them"
            );
            let failed = AuditEvent {
                outcome: Outcome::Failed,
                reason: format!("KEY_DAMAGED versions={count}").into(),
                ..event(version)
            };
            vault.outbox.record(failed).map_err(unrecorded)
        }
    }
}

fn event(version: u32) -> AuditEvent {
    AuditEvent {
        principal: PrincipalId::service("kms").to_string(),
        key_version: version,
        ..AuditEvent::unasked("kms.RootRotated", format!("roots/{version}"))
    }
}

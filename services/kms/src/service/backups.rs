//! Backups over gRPC.

use std::{path::PathBuf, sync::Arc};

use asterism_chassis::{
    call::{Emitter, Gate, ReplyStream},
    error::Failure,
};
use asterism_proto::kms::{self as pb, backup_service_server::BackupService};
use tokio::{runtime::Handle, sync::Semaphore};
use tonic::{Request, Response, Status};

use crate::{
    Clock,
    backup::{self, BackupError, Capture, Recipient, Signer},
    error::KmsError,
    keys::Key,
    sweeper::{self, unrecorded},
    vault::{Unsealed, Vault},
    wire,
};

type Part = pb::create_backup_response::Part;

/// Adapter of `BackupService`.
pub(crate) struct Backups {
    gate: Gate,
    maker: Arc<Maker>,
    /// One at a time: each takes memory, and holds up writes for a moment.
    place: Arc<Semaphore>,
}

/// What makes backups.
struct Maker {
    vault: Arc<Vault>,
    data_dir: PathBuf,
    clock: Clock,
    gate: Gate,
}

impl Backups {
    pub(crate) fn new(gate: Gate, vault: Arc<Vault>, data_dir: PathBuf, clock: Clock) -> Self {
        Self {
            maker: Arc::new(Maker {
                vault,
                data_dir,
                clock,
                gate: gate.clone(),
            }),
            gate,
            place: Arc::new(Semaphore::new(1)),
        }
    }
}

#[tonic::async_trait]
impl BackupService for Backups {
    type CreateBackupStream = ReplyStream<pb::CreateBackupResponse>;

    async fn create_backup(
        &self,
        request: Request<pb::CreateBackupRequest>,
    ) -> Result<Response<Self::CreateBackupStream>, Status> {
        let (gate, maker, place) = (self.gate.clone(), self.maker.clone(), self.place.clone());
        self.gate
            .stream(
                "kms.CreateBackup",
                request,
                move |_, message, emitter| async move {
                    let recipient = wire::backup_recipient(message)?;
                    let place = place.try_acquire_owned().map_err(|_| BackupError::Running)?;
                    let preparing = maker.clone();
                    let capture = move || {
                        let open = preparing.vault.get()?;
                        let (key, captured) = preparing.capture(&open)?;
                        Ok((open, key, captured))
                    };
                    let (open, key, captured) = gate.runtime_blocking(capture).await?;
                    emitter.trail(|trail| {
                        trail.resource(format!("backups/{}", captured.created_at_ms));
                    });
                    emitter.release().await?;
                    let sending = move || {
                        // Held as long as this thread works, whether the caller waits or not.
                        let _place = place;
                        maker.send(&open, &key, captured, &recipient, &emitter)
                    };
                    gate.runtime_blocking(sending).await
                },
            )
            .await
    }
}

impl Maker {
    fn capture(&self, open: &Unsealed) -> Result<(Arc<Key>, Capture), Failure> {
        let now_ms = (self.clock)();
        // Before the records are taken, so that it is among them.
        let room = self.gate.outbox().reserve()?;
        let key = backup::ensure_signer(&open.keyring, now_ms, || {
            let id = backup::SIGNER.parse()?;
            room.record(sweeper::event("kms.CreateKey", &id, 1))
                .map_err(unrecorded)
        })?;
        Ok((key, backup::capture(&open.keyring, &self.data_dir, now_ms)?))
    }

    fn send(
        &self,
        open: &Unsealed,
        key: &Key,
        mut captured: Capture,
        recipient: &Recipient,
        emitter: &Emitter<pb::CreateBackupResponse>,
    ) -> Result<(), Failure> {
        let signer = Signer::new(&open.keyring, key, (self.clock)())?;
        let (runtime, mut watch) = (Handle::current(), self.vault.watch());
        let mut send = |part| {
            let message = pb::CreateBackupResponse { part: Some(part) };
            runtime.block_on(async {
                tokio::select! {
                    biased;
                    // A slow caller may take very long, and keeps the root key in memory.
                    _ = watch.wait_for(|open| !open) => Err(BackupError::from(KmsError::Sealed)),
                    sent = emitter.send(message) => sent.map_err(|_| BackupError::Cancelled),
                }
            })
        };
        send(Part::Facts(pb::BackupFacts {
            create_time: Some(wire::timestamp(captured.created_at_ms)),
            records: captured.contents.records,
            wrapping_keys: captured.contents.wrapping_keys,
            signer_fingerprint_sha256: signer.fingerprint().as_bytes().to_vec(),
        }))?;
        let (sha256, size_bytes) = backup::write(&mut captured, recipient, &signer, &mut |bytes| {
            send(Part::Chunk(bytes.to_vec()))
        })?;
        emitter.trail(|trail| {
            trail.output_digest(sha256);
        });
        Ok(send(Part::End(pb::BackupEnd {
            sha256: sha256.as_bytes().to_vec(),
            size_bytes,
        }))?)
    }
}

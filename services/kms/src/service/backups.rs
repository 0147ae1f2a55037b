//! Backups over gRPC.

use std::{path::PathBuf, sync::Arc};

use asterism_chassis::{
    call::{Emitter, Gate, ReplyStream},
    error::Failure,
};
use asterism_proto::kms::{self as pb, backup_service_server::BackupService};
use tokio::sync::Semaphore;
use tonic::{Request, Response, Status};

use crate::{
    Clock,
    backup::{self, BackupError, Capture, Recipient, Signer},
    error::KmsError,
    keys::{Key, Keyring},
    sweeper, wire,
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
    keyring: Arc<Keyring>,
    data_dir: PathBuf,
    clock: Clock,
    gate: Gate,
}

impl Backups {
    pub(crate) fn new(gate: Gate, keyring: Arc<Keyring>, data_dir: PathBuf, clock: Clock) -> Self {
        Self {
            maker: Arc::new(Maker {
                keyring,
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
                    let (key, captured) = gate.runtime_blocking(move || preparing.capture()).await?;
                    emitter.trail(|trail| {
                        trail.resource(format!("backups/{}", captured.created_at_ms));
                    });
                    emitter.release().await?;
                    let sending = move || {
                        // Held as long as this thread works, whether the caller waits or not.
                        let _place = place;
                        maker.send(&key, captured, &recipient, &emitter)
                    };
                    gate.runtime_blocking(sending).await
                },
            )
            .await
    }
}

impl Maker {
    fn capture(&self) -> Result<(Arc<Key>, Capture), Failure> {
        let now_ms = (self.clock)();
        // Before the records are taken, so that it is among them.
        let room = self.gate.outbox().reserve()?;
        let key = backup::ensure_signer(&self.keyring, now_ms, || {
            let id = backup::SIGNER.parse()?;
            room.record(sweeper::event("kms.CreateKey", &id, 1))
                .map_err(|failure| KmsError::Unrecorded(failure.message().to_owned()))
        })?;
        Ok((key, backup::capture(&self.keyring, &self.data_dir, now_ms)?))
    }

    fn send(
        &self,
        key: &Key,
        mut captured: Capture,
        recipient: &Recipient,
        emitter: &Emitter<pb::CreateBackupResponse>,
    ) -> Result<(), Failure> {
        let signer = Signer::new(&self.keyring, key, (self.clock)())?;
        let send = |part| {
            let message = pb::CreateBackupResponse { part: Some(part) };
            emitter.blocking_send(message)
        };
        send(Part::Facts(pb::BackupFacts {
            create_time: Some(wire::timestamp(captured.created_at_ms)),
            records: captured.contents.records,
            wrapping_keys: captured.contents.wrapping_keys,
            signer_fingerprint_sha256: signer.fingerprint().as_bytes().to_vec(),
        }))?;
        let (sha256, size_bytes) = backup::write(&mut captured, recipient, &signer, &mut |bytes| {
            send(Part::Chunk(bytes.to_vec())).map_err(|_| BackupError::Cancelled)
        })?;
        emitter.trail(|trail| {
            trail.output_digest(sha256);
        });
        send(Part::End(pb::BackupEnd {
            sha256: sha256.as_bytes().to_vec(),
            size_bytes,
        }))
    }
}

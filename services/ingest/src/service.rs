//! The gRPC adapter: who asks, parse, one call into the domain, translate.

mod receive;

use std::{io::Read as _, sync::Arc, time::Instant};

use asterism_chassis::{
    call::{Caller, Emitter, Gate, ReplyStream, Trail},
    error::Failure,
    identity::Role,
};
use asterism_learn::csv::CsvLimits;
use asterism_policy::Verb;
use asterism_proto::ingest::{self as pb, ingest_service_server::IngestService};
use asterism_store::{BlobReader, StoreError};
use bytes::Bytes;
use tokio::runtime::Handle;
use tonic::{Request, Response, Status, Streaming};

use crate::{
    access::Access,
    datasets::{DatasetId, Datasets, Granted, Opened, read_rows, verify},
    error::IngestError,
    flow::{KeySource, KmsKeys},
    uploads::{Begun, MAX_PUT_BYTES, NewUpload, UploadId, Uploads},
    wire,
};

/// Most bytes of one message of a stored blob.
const MESSAGE_BYTES: usize = 1 << 20;

/// The service; cheap to clone.
#[derive(Clone)]
pub(crate) struct Adapter {
    gate: Gate,
    domain: Arc<Domain>,
}

/// What every request works on.
pub(crate) struct Domain {
    pub(crate) datasets: Arc<Datasets>,
    pub(crate) uploads: Arc<Uploads>,
    pub(crate) keys: KeySource,
    pub(crate) access: Access,
    /// Drives what blocking work asks of kms.
    pub(crate) runtime: Handle,
    /// Of rows that are read back.
    pub(crate) csv: CsvLimits,
}

impl Adapter {
    pub(crate) fn new(gate: Gate, domain: Arc<Domain>) -> Self {
        Self { gate, domain }
    }

    /// A unary call into the synchronous domain.
    async fn call<Req, Res>(
        &self,
        operation: &'static str,
        request: Request<Req>,
        work: impl FnOnce(&Domain, &Caller, Req, &mut Trail) -> Result<Res, Failure> + Send + 'static,
    ) -> Result<Response<Res>, Status>
    where
        Req: Send + 'static,
        Res: Send + 'static,
    {
        let domain = self.domain.clone();
        self.gate
            .blocking(operation, request, move |caller, message, trail| {
                work(&domain, caller, message, trail)
            })
            .await
    }
}

impl Domain {
    /// The dataset of that name, if the caller may do that to it.
    fn grant(
        &self,
        caller: &Caller,
        verb: Verb,
        name: &str,
        trail: &mut Trail,
    ) -> Result<Granted, IngestError> {
        let id = DatasetId::from_name(name)?;
        trail.resource(id.name());
        self.granted(caller, verb, id)
    }

    /// Asks kms and blocks: not for async threads.
    fn granted(&self, caller: &Caller, verb: Verb, id: DatasetId) -> Result<Granted, IngestError> {
        self.datasets.grant(id, &|owner| {
            self.runtime
                .block_on(self.access.may(caller, verb, id.name(), owner))
        })
    }

    fn keys(&self, caller: &Caller) -> KmsKeys {
        self.keys.for_caller(caller)
    }

    fn begin(
        &self,
        caller: &Caller,
        message: &pb::BeginUploadRequest,
        trail: &mut Trail,
    ) -> Result<Begun, IngestError> {
        let upload = NewUpload {
            owner: caller.owner().as_str(),
            display_name: wire::display_name(&message.display_name)?,
            request_id: wire::request_id(&message.request_id)?,
            with_sha256: message.with_sha256,
        };
        let begun = self.uploads.begin(upload, &self.keys(caller), Instant::now())?;
        trail.resource(match begun {
            Begun::Upload { id, .. } => format!("uploads/{id}"),
            Begun::Dataset(id) => id.name(),
        });
        Ok(begun)
    }

    fn put(
        &self,
        caller: &Caller,
        id: UploadId,
        offset: u64,
        data: Bytes,
        crc32c: Option<u32>,
    ) -> Result<u64, IngestError> {
        self.uploads
            .put(id, caller.owner().as_str(), offset, data, crc32c, Instant::now())
    }

    fn commit(
        &self,
        caller: &Caller,
        id: UploadId,
        message: &pb::CommitUploadRequest,
        trail: &mut Trail,
    ) -> Result<pb::Dataset, IngestError> {
        trail.resource(format!("uploads/{id}"));
        let sha256 = wire::sha256(&message.sha256)?;
        let (owner, keys) = (caller.owner().as_str(), self.keys(caller));
        let made = self
            .uploads
            .commit(id, owner, message.size, sha256, &keys, Instant::now())?;
        trail
            .resource(made.id.name())
            .output_digest(made.record.manifest_sha256);
        Ok(wire::described(made))
    }

    /// The stored bytes of a dataset: table, then data.
    fn ciphertext(
        &self,
        granted: &Granted,
        send: &dyn Fn(pb::ReadCiphertextResponse) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        in_pieces(self.datasets.table(granted)?, &|chunk_table| {
            send(pb::ReadCiphertextResponse {
                chunk_table,
                data: Bytes::new(),
            })
        })?;
        in_pieces(self.datasets.data(granted)?, &|data| {
            send(pb::ReadCiphertextResponse {
                chunk_table: Bytes::new(),
                data,
            })
        })
    }
}

#[tonic::async_trait]
impl IngestService for Adapter {
    async fn begin_upload(
        &self,
        request: Request<pb::BeginUploadRequest>,
    ) -> Result<Response<pb::BeginUploadResponse>, Status> {
        self.call("ingest.BeginUpload", request, |domain, caller, message, trail| {
            Ok(wire::begun(domain.begin(caller, &message, trail)?))
        })
        .await
    }

    async fn put_chunk(
        &self,
        request: Request<pb::PutChunkRequest>,
    ) -> Result<Response<pb::PutChunkResponse>, Status> {
        self.call("ingest.PutChunk", request, |domain, caller, message, trail| {
            // Part of the operation whose ends are recorded: no event and no fsync per chunk.
            trail.silent();
            let id = UploadId::parse(&message.upload_id)?;
            trail.resource(format!("uploads/{id}"));
            let offset = domain.put(caller, id, message.offset, message.data, message.crc32c)?;
            Ok(pb::PutChunkResponse { offset })
        })
        .await
    }

    async fn get_upload(
        &self,
        request: Request<pb::GetUploadRequest>,
    ) -> Result<Response<pb::GetUploadResponse>, Status> {
        self.call("ingest.GetUpload", request, |domain, caller, message, trail| {
            trail.silent();
            let id = UploadId::parse(&message.upload_id)?;
            let progress = domain
                .uploads
                .progress(id, caller.owner().as_str(), Instant::now())?;
            Ok(wire::progress(progress))
        })
        .await
    }

    async fn commit_upload(
        &self,
        request: Request<pb::CommitUploadRequest>,
    ) -> Result<Response<pb::Dataset>, Status> {
        self.call(
            "ingest.CommitUpload",
            request,
            |domain, caller, message, trail| {
                let id = UploadId::parse(&message.upload_id)?;
                Ok(domain.commit(caller, id, &message, trail)?)
            },
        )
        .await
    }

    async fn abort_upload(
        &self,
        request: Request<pb::AbortUploadRequest>,
    ) -> Result<Response<pb::AbortUploadResponse>, Status> {
        self.call("ingest.AbortUpload", request, |domain, caller, message, trail| {
            let id = UploadId::parse(&message.upload_id)?;
            trail.resource(format!("uploads/{id}"));
            domain.uploads.abort(id, caller.owner().as_str())?;
            Ok(pb::AbortUploadResponse {})
        })
        .await
    }

    async fn upload(
        &self,
        request: Request<Streaming<pb::UploadRequest>>,
    ) -> Result<Response<pb::Dataset>, Status> {
        let domain = self.domain.clone();
        self.gate
            .flow(
                "ingest.Upload",
                request,
                move |caller, mut parts, mut trail| async move {
                    let result = receive::upload(&domain, &caller, &mut parts, &mut trail).await;
                    (trail, result)
                },
            )
            .await
    }

    async fn list_datasets(
        &self,
        request: Request<pb::ListDatasetsRequest>,
    ) -> Result<Response<pb::ListDatasetsResponse>, Status> {
        self.call(
            "ingest.ListDatasets",
            request,
            |domain, caller, message, trail| {
                trail.silent();
                let limit = wire::page_size(message.page_size)?;
                let after = wire::page_token(&message.page_token)?;
                let owner = (!caller.principal.is(Role::Admin)).then(|| caller.owner().as_str());
                let mut page = domain.datasets.page(owner, after, limit + 1)?;
                let more = page.len() > limit;
                page.truncate(limit);
                let last = page.last().filter(|_| more).map(|(id, _)| id.to_string());
                let datasets = page
                    .into_iter()
                    .map(|(id, record)| wire::dataset(id, record))
                    .collect();
                Ok(pb::ListDatasetsResponse {
                    datasets,
                    next_page_token: last.unwrap_or_default(),
                })
            },
        )
        .await
    }

    async fn get_dataset(
        &self,
        request: Request<pb::GetDatasetRequest>,
    ) -> Result<Response<pb::Dataset>, Status> {
        self.call("ingest.GetDataset", request, |domain, caller, message, trail| {
            trail.silent();
            let granted = domain.grant(caller, Verb::Get, &message.name, trail)?;
            Ok(wire::described(domain.datasets.describe(&granted)?))
        })
        .await
    }

    async fn get_manifest(
        &self,
        request: Request<pb::GetManifestRequest>,
    ) -> Result<Response<pb::SignedManifest>, Status> {
        self.call("ingest.GetManifest", request, |domain, caller, message, trail| {
            trail.silent();
            let granted = domain.grant(caller, Verb::Get, &message.name, trail)?;
            Ok(wire::signed(domain.datasets.signed_manifest(&granted)?))
        })
        .await
    }

    async fn verify_dataset(
        &self,
        request: Request<pb::VerifyDatasetRequest>,
    ) -> Result<Response<pb::VerifyDatasetResponse>, Status> {
        self.call(
            "ingest.VerifyDataset",
            request,
            |domain, caller, message, trail| {
                let granted = domain.grant(caller, Verb::Verify, &message.name, trail)?;
                trail.input_digest(granted.record().manifest_sha256);
                let report = verify(&domain.datasets, &granted, &domain.keys(caller))?;
                Ok(wire::report(report))
            },
        )
        .await
    }

    type ReadCiphertextStream = ReplyStream<pb::ReadCiphertextResponse>;

    async fn read_ciphertext(
        &self,
        request: Request<pb::ReadCiphertextRequest>,
    ) -> Result<Response<Self::ReadCiphertextStream>, Status> {
        let domain = self.domain.clone();
        self.gate
            .stream(
                "ingest.ReadCiphertext",
                request,
                move |caller, message, emitter: Emitter<_>| async move {
                    let granted = readable(&domain, caller, message.name, &emitter).await?;
                    emitter.release().await?;
                    off_thread(move || domain.ciphertext(&granted, &|piece| emitter.blocking_send(piece)))
                        .await
                },
            )
            .await
    }

    type ReadRowsStream = ReplyStream<pb::ReadRowsResponse>;

    async fn read_rows(
        &self,
        request: Request<pb::ReadRowsRequest>,
    ) -> Result<Response<Self::ReadRowsStream>, Status> {
        let domain = self.domain.clone();
        self.gate
            .stream(
                "ingest.ReadRows",
                request,
                move |caller, message, emitter: Emitter<_>| async move {
                    let keys = domain.keys(&caller);
                    let granted = readable(&domain, caller, message.name, &emitter).await?;
                    let opening = domain.clone();
                    let opened =
                        off_thread(move || Ok(Opened::open(&opening.datasets, &granted, &keys)?)).await?;
                    let manifest_sha256 = opened.manifest_sha256();
                    emitter.trail(|trail| {
                        trail.input_digest(manifest_sha256);
                    });
                    // Nothing is decrypted for anybody before that is on record.
                    emitter.release().await?;
                    let limit = Some(message.limit).filter(|limit| *limit > 0);
                    off_thread(move || {
                        let mut send = |batch| {
                            emitter
                                .blocking_send(wire::rows(batch))
                                .map_err(|_| IngestError::Cancelled)
                        };
                        Ok(read_rows(opened, domain.csv, message.offset, limit, &mut send)?)
                    })
                    .await
                },
            )
            .await
    }

    async fn delete_dataset(
        &self,
        request: Request<pb::DeleteDatasetRequest>,
    ) -> Result<Response<pb::DeleteDatasetResponse>, Status> {
        self.call(
            "ingest.DeleteDataset",
            request,
            |domain, caller, message, trail| {
                let granted = domain.grant(caller, Verb::Delete, &message.name, trail)?;
                domain.datasets.delete(granted)?;
                Ok(pb::DeleteDatasetResponse {})
            },
        )
        .await
    }
}

/// The dataset, if the caller may read it.
async fn readable<T: Send + 'static>(
    domain: &Arc<Domain>,
    caller: Caller,
    name: String,
    emitter: &Emitter<T>,
) -> Result<Granted, Failure> {
    let id = DatasetId::from_name(&name)?;
    emitter.trail(|trail| {
        trail.resource(id.name());
    });
    let domain = domain.clone();
    off_thread(move || Ok(domain.granted(&caller, Verb::Read, id)?)).await
}

/// Runs domain work on a blocking thread; it finishes even if the caller goes away.
async fn off_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    let span = tracing::Span::current();
    let task = tokio::task::spawn_blocking(move || span.in_scope(work));
    task.await
        .unwrap_or_else(|_| Err(Failure::internal("the work of a request ended early")))
}

fn in_pieces(
    mut blob: Box<dyn BlobReader>,
    send: &dyn Fn(Bytes) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut left = blob.len();
    while left > 0 {
        let size = left.min(MESSAGE_BYTES as u64) as usize;
        let mut piece = vec![0; size];
        blob.read_exact(&mut piece).map_err(StoreError::from)?;
        send(piece.into())?;
        left -= size as u64;
    }
    Ok(())
}

const _: () = assert!(
    MAX_PUT_BYTES <= MESSAGE_BYTES,
    "one limit for messages either way"
);

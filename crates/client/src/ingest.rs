//! The ingest service.

use std::time::Duration;

use asterism_crypto::{Digest, DigestWriter, SecretBytes, Signed, crc32c};
use asterism_proto::ingest::{self as pb, ingest_service_client::IngestServiceClient};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tonic::{Code, Streaming, service::interceptor::InterceptedService, transport::Channel};

use crate::{
    connection::{Carried, Connection, MAX_MESSAGE_BYTES},
    dataset::DatasetReader,
    error::ClientError,
    kms::Kms,
    manifest::{DATASET_MANIFEST_DOMAIN, DatasetManifest, VerifiedManifest},
};

type Client = IngestServiceClient<InterceptedService<Channel, Carried>>;

/// Deadline of calls whose work grows with the dataset.
const LONG: Duration = Duration::from_secs(600);

/// What is uploaded.
pub struct UploadSource<'a> {
    /// For people.
    pub display_name: &'a str,
    /// Repeating an upload with the same id never makes a second dataset.
    pub request_id: &'a str,
    /// Compare the SHA-256 of everything at the end. Each chunk carries a CRC32C in any case.
    pub with_sha256: bool,
    /// The bytes, read once.
    pub reader: &'a mut (dyn AsyncRead + Send + Unpin),
}

/// Told after every chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UploadProgress {
    /// Bytes that ingest holds.
    pub sent: u64,
}

/// Client of `asterism.ingest.v1.IngestService`. Datasets are named `datasets/{id}`, as the service names them.
#[derive(Clone)]
pub struct Ingest {
    connection: Connection,
}

impl Ingest {
    /// A client over `connection`.
    pub fn new(connection: Connection) -> Self {
        Self { connection }
    }

    fn client(&self) -> Client {
        self.client_over(&self.connection)
    }

    fn client_over(&self, connection: &Connection) -> Client {
        Client::new(connection.service())
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES)
    }

    fn streaming(&self) -> Client {
        Client::new(self.connection.streaming()).max_decoding_message_size(MAX_MESSAGE_BYTES)
    }

    /// A client whose calls may take as long as a large dataset needs.
    fn patient(&self) -> Self {
        Self {
            connection: self.connection.clone().with_deadline(Some(LONG)),
        }
    }

    /// Uploads everything that `source` gives, in chunks, going on where a broken connection stopped.
    ///
    /// # Errors
    /// What the service found wrong with the data, as [`ClientError::Refused`]; the upload is then dropped.
    pub async fn upload(
        &self,
        source: UploadSource<'_>,
        mut progress: impl FnMut(UploadProgress),
    ) -> Result<pb::Dataset, ClientError> {
        let begun = self
            .begin_upload(source.display_name, source.request_id, source.with_sha256)
            .await?;
        if !begun.dataset.is_empty() {
            return self.get(&begun.dataset).await;
        }
        let chunk_bytes = usize::try_from(begun.max_chunk_bytes)
            .ok()
            .filter(|bytes| (1..=MAX_MESSAGE_BYTES).contains(bytes))
            .ok_or(ClientError::Protocol("the service names no usable chunk size"))?;
        let mut digest = source.with_sha256.then(DigestWriter::new);
        let mut offset = 0;
        loop {
            let chunk = read_chunk(source.reader, chunk_bytes).await?;
            if chunk.is_empty() {
                break;
            }
            if let Some(digest) = &mut digest {
                digest.update(&chunk);
            }
            let end = offset + chunk.len() as u64;
            // What an earlier try already brought over is read and digested, but not sent again.
            if end > begun.offset {
                self.put_chunk(&begun.upload_id, offset, chunk).await?;
            }
            offset = end;
            progress(UploadProgress { sent: offset });
        }
        let sha256 = digest.map(DigestWriter::finish);
        self.commit_upload(&begun.upload_id, offset, sha256.as_ref())
            .await
    }

    /// Starts or resumes an upload; `with_sha256` promises a digest to [`Ingest::commit_upload`].
    pub async fn begin_upload(
        &self,
        display_name: &str,
        request_id: &str,
        with_sha256: bool,
    ) -> Result<pb::BeginUploadResponse, ClientError> {
        let request = pb::BeginUploadRequest {
            display_name: display_name.to_owned(),
            request_id: request_id.to_owned(),
            with_sha256,
        };
        self.connection
            .retrying(|| client_call!(self, begin_upload, request))
            .await
    }

    /// Adds bytes at an offset; a repeated chunk is harmless. Gives the offset that is due next.
    pub async fn put_chunk(&self, upload_id: &str, offset: u64, data: Vec<u8>) -> Result<u64, ClientError> {
        let crc = crc32c(&data);
        let request = pb::PutChunkRequest {
            upload_id: upload_id.to_owned(),
            offset,
            data: data.into(),
            crc32c: Some(crc),
        };
        Ok(self
            .connection
            .retrying(|| client_call!(self, put_chunk, request))
            .await?
            .offset)
    }

    /// Where an upload stands.
    pub async fn upload_state(&self, upload_id: &str) -> Result<pb::GetUploadResponse, ClientError> {
        let request = pb::GetUploadRequest {
            upload_id: upload_id.to_owned(),
        };
        self.connection
            .retrying(|| client_call!(self, get_upload, request))
            .await
    }

    /// Ends an upload: ingest checks, signs and stores.
    pub async fn commit_upload(
        &self,
        upload_id: &str,
        size: u64,
        sha256: Option<&Digest>,
    ) -> Result<pb::Dataset, ClientError> {
        let request = pb::CommitUploadRequest {
            upload_id: upload_id.to_owned(),
            size,
            sha256: sha256.map_or_else(Vec::new, |d| d.as_bytes().to_vec()).into(),
        };
        let patient = self.patient();
        patient
            .connection
            .retrying(|| client_call!(patient, commit_upload, request))
            .await
    }

    /// Drops an upload.
    pub async fn abort_upload(&self, upload_id: &str) -> Result<(), ClientError> {
        let request = pb::AbortUploadRequest {
            upload_id: upload_id.to_owned(),
        };
        self.connection
            .retrying(|| client_call!(self, abort_upload, request))
            .await
            .map(drop)
    }

    /// A page of datasets, and the token of the next page (empty at the end).
    pub async fn list(
        &self,
        page_size: i32,
        page_token: &str,
    ) -> Result<(Vec<pb::Dataset>, String), ClientError> {
        let request = pb::ListDatasetsRequest {
            page_size,
            page_token: page_token.to_owned(),
        };
        let page = self
            .connection
            .retrying(|| client_call!(self, list_datasets, request))
            .await?;
        Ok((page.datasets, page.next_page_token))
    }

    /// Metadata and profile of a dataset.
    pub async fn get(&self, name: &str) -> Result<pb::Dataset, ClientError> {
        let request = pb::GetDatasetRequest {
            name: name.to_owned(),
        };
        self.connection
            .retrying(|| client_call!(self, get_dataset, request))
            .await
    }

    /// The manifest with its signature, not yet verified.
    pub async fn manifest(&self, name: &str) -> Result<Signed, ClientError> {
        let request = pb::GetManifestRequest {
            name: name.to_owned(),
        };
        let signed = self
            .connection
            .retrying(|| client_call!(self, get_manifest, request))
            .await?;
        let key = signed
            .key
            .strip_prefix("keys/")
            .ok_or(ClientError::Protocol("the signing key has no name"))?;
        Ok(Signed {
            domain: signed.domain,
            payload: signed.payload.into(),
            key: key.to_owned(),
            key_version: signed.key_version,
            signature: signed.signature.into(),
        })
    }

    /// Has ingest re-read and check everything it stores of a dataset.
    pub async fn verify(&self, name: &str) -> Result<pb::VerifyDatasetResponse, ClientError> {
        let request = pb::VerifyDatasetRequest {
            name: name.to_owned(),
        };
        let patient = self.patient();
        patient
            .connection
            .retrying(|| client_call!(patient, verify_dataset, request))
            .await
    }

    /// Streams decrypted rows from `offset` on; `limit` 0 means all.
    pub async fn read_rows(
        &self,
        name: &str,
        offset: u64,
        limit: u64,
    ) -> Result<Streaming<pb::ReadRowsResponse>, ClientError> {
        let request = pb::ReadRowsRequest {
            name: name.to_owned(),
            offset,
            limit,
        };
        self.connection.once(self.streaming().read_rows(request)).await
    }

    /// Deletes a dataset.
    pub async fn delete(&self, name: &str) -> Result<(), ClientError> {
        let request = pb::DeleteDatasetRequest {
            name: name.to_owned(),
        };
        self.connection
            .once(self.client().delete_dataset(request))
            .await
            .map(drop)
    }

    /// Verifies a dataset on this side and decrypts it into `sink`, chunk by chunk; gives the verified manifest.
    ///
    /// `signer` is the id of the kms key that must have signed the manifest. Act on what `sink` received only after
    /// this returned `Ok`: completeness is known at the end.
    ///
    /// # Errors
    /// [`ClientError::Verification`] naming what does not fit: signature, chunk table, a chunk, digest or HMAC.
    pub async fn open_dataset(
        &self,
        kms: &Kms,
        name: &str,
        signer: &str,
        mut sink: impl FnMut(&SecretBytes) -> Result<(), ClientError> + Send,
    ) -> Result<VerifiedManifest, ClientError> {
        let verified = self.verified_manifest(kms, name, signer).await?;
        let manifest = &verified.manifest;
        let data_key = &manifest.data_key;
        let key = kms
            .unwrap_data_key(&data_key.key, &data_key.wrapped, &manifest.context())
            .await
            .map_err(|error| match error.code() {
                Code::InvalidArgument => {
                    ClientError::Verification("the data key is not this dataset's".into())
                }
                _ => error,
            })?;
        let (table, mut message, mut stream) = self.ciphertext_stream(name, manifest.chunks).await?;
        let mut reader = DatasetReader::new(manifest, &table, key)?;
        while let Some(part) = message {
            reader.push(&part.data, &mut sink)?;
            message = self.next(&mut stream).await?;
        }
        reader.finish()?;
        Ok(verified)
    }

    /// The chunk table and the stored blob, as they are: nothing is verified. For small datasets, and for tests.
    pub async fn ciphertext(&self, name: &str) -> Result<(Vec<u8>, Vec<u8>), ClientError> {
        let (table, mut message, mut stream) = self.ciphertext_stream(name, 0).await?;
        let mut blob = Vec::new();
        while let Some(part) = message {
            blob.extend_from_slice(&part.data);
            message = self.next(&mut stream).await?;
        }
        Ok((table, blob))
    }

    /// The chunk table, the first message that holds data (maybe none), and the stream of what follows.
    async fn ciphertext_stream(
        &self,
        name: &str,
        chunks: u64,
    ) -> Result<
        (
            Vec<u8>,
            Option<pb::ReadCiphertextResponse>,
            Streaming<pb::ReadCiphertextResponse>,
        ),
        ClientError,
    > {
        let request = pb::ReadCiphertextRequest {
            name: name.to_owned(),
        };
        let mut stream = self
            .connection
            .once(self.streaming().read_ciphertext(request))
            .await?;
        let mut table = Vec::new();
        while let Some(message) = self.next(&mut stream).await? {
            table.extend_from_slice(&message.chunk_table);
            // More than the manifest has chunks is refused before it is held in memory.
            if chunks > 0 && table.len() as u64 > chunks.saturating_mul(32) {
                return Err(ClientError::Verification(
                    "the chunk table is longer than its manifest says".into(),
                ));
            }
            if !message.data.is_empty() {
                return Ok((table, Some(message), stream));
            }
        }
        Ok((table, None, stream))
    }

    /// The manifest of `name`, after its signature by `signer` and its name were checked.
    pub async fn verified_manifest(
        &self,
        kms: &Kms,
        name: &str,
        signer: &str,
    ) -> Result<VerifiedManifest, ClientError> {
        let signed = self.manifest(name).await?;
        let payload = kms
            .verify_statement(signer, DATASET_MANIFEST_DOMAIN, &signed)
            .await?;
        let manifest = DatasetManifest::parse(payload)?;
        if name.strip_prefix("datasets/") != Some(manifest.dataset.as_str()) {
            return Err(ClientError::Verification(
                "the manifest belongs to another dataset".into(),
            ));
        }
        Ok(VerifiedManifest {
            manifest,
            sha256: Digest::of(payload),
        })
    }

    async fn next<T>(&self, stream: &mut Streaming<T>) -> Result<Option<T>, ClientError> {
        stream
            .message()
            .await
            .map_err(|status| self.connection.error(&status))
    }
}

async fn read_chunk(
    reader: &mut (dyn AsyncRead + Send + Unpin),
    bytes: usize,
) -> Result<Vec<u8>, ClientError> {
    let mut chunk = Vec::with_capacity(bytes);
    reader
        .take(bytes as u64)
        .read_to_end(&mut chunk)
        .await
        .map_err(|source| ClientError::Io {
            path: "upload source".into(),
            source,
        })?;
    Ok(chunk)
}

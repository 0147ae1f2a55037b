//! Backups of a kms.

use asterism_crypto::{Digest, DigestWriter};
use asterism_proto::kms::{
    self as pb, backup_service_client::BackupServiceClient, create_backup_response::Part,
};

use super::Kms;
use crate::error::ClientError;

/// Largest message of the stream: a part and what is around it.
const MAX_PART_BYTES: usize = (1 << 20) + 1024;

/// A backup that came whole.
#[derive(Clone, Debug)]
pub struct Backup {
    /// What is in it.
    pub facts: pb::BackupFacts,
    /// Of the whole file.
    pub sha256: Digest,
    /// Of the whole file.
    pub bytes: u64,
}

impl Kms {
    /// Has kms make a backup, and gives its bytes to `sink` in order. They are a backup only when this returns `Ok`: keep them under
    /// another name until then.
    ///
    /// # Errors
    /// [`ClientError::Verification`] when something else came than was sent; what `sink` answers.
    pub async fn create_backup(
        &self,
        request: pb::CreateBackupRequest,
        mut sink: impl FnMut(&[u8]) -> Result<(), ClientError> + Send,
    ) -> Result<Backup, ClientError> {
        let mut client =
            BackupServiceClient::new(self.connection.streaming()).max_decoding_message_size(MAX_PART_BYTES);
        let mut stream = self.connection.once(client.create_backup(request)).await?;
        let (mut facts, mut digest, mut bytes) = (None, DigestWriter::new(), 0);
        let mut end = None;
        while let Some(message) = stream
            .message()
            .await
            .map_err(|status| self.connection.error(&status))?
        {
            if end.is_some() {
                return Err(ClientError::Protocol("something follows the end of a backup"));
            }
            match message.part {
                Some(Part::Facts(first)) if facts.is_none() => facts = Some(first),
                Some(Part::Chunk(chunk)) if facts.is_some() => {
                    digest.update(&chunk);
                    bytes += chunk.len() as u64;
                    sink(&chunk)?;
                }
                Some(Part::End(last)) => end = Some(last),
                _ => return Err(ClientError::Protocol("a part of a backup out of place")),
            }
        }
        let (Some(facts), Some(end)) = (facts, end) else {
            return Err(ClientError::Protocol("the backup has no end"));
        };
        let sha256 = digest.finish();
        if end.sha256 != sha256.as_bytes() || end.size_bytes != bytes {
            return Err(ClientError::Verification(
                "the backup that came is not the one that was sent".to_owned(),
            ));
        }
        Ok(Backup { facts, sha256, bytes })
    }
}

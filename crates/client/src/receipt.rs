//! The receipt of an encrypted prediction: what inference signs and everybody can verify.

use asterism_crypto::Digest;
use serde::{Deserialize, Serialize};

use crate::error::ClientError;

/// What a receipt's signature is made for: a signature for another purpose never fits.
pub const ENCRYPTED_REPLY_DOMAIN: &str = "asterism/encrypted-reply/v1";
/// Id of the key that signs receipts.
pub const REPLY_SIGNER: &str = "reply-signer";
/// The format that this code writes; every other is refused.
const FORMAT: u32 = 1;

/// Says which model answered which query by which reply. Signed as the exact bytes of [`ReplyReceipt::to_bytes`].
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct ReplyReceipt {
    /// Always 1.
    pub format: u32,
    /// `models/{id}`.
    pub model: String,
    /// SHA-256 of the model's signed manifest.
    pub model_manifest_sha256: Digest,
    /// SHA-256 of the compiled model.
    pub compiled_sha256: Digest,
    /// SHA-256 of the query.
    pub query_sha256: Digest,
    /// SHA-256 of the reply.
    pub reply_sha256: Digest,
    /// Principal that asked.
    pub owner: String,
    /// RFC 3339, UTC.
    pub answered_at: String,
}

impl ReplyReceipt {
    /// A receipt of this format.
    pub fn new(
        model: String,
        model_manifest_sha256: Digest,
        compiled_sha256: Digest,
        query_sha256: Digest,
        reply_sha256: Digest,
        owner: String,
        answered_at: String,
    ) -> Self {
        Self {
            format: FORMAT,
            model,
            model_manifest_sha256,
            compiled_sha256,
            query_sha256,
            reply_sha256,
            owner,
            answered_at,
        }
    }

    /// The bytes that are signed.
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a receipt has string keys only and serialises")
    }

    /// Reads a receipt. Check its signature first.
    ///
    /// # Errors
    /// [`ClientError::Verification`] for another format or unknown fields.
    pub fn parse(bytes: &[u8]) -> Result<Self, ClientError> {
        let receipt: Self = serde_json::from_slice(bytes)
            .map_err(|error| ClientError::Verification(format!("the receipt cannot be read: {error}")))?;
        if receipt.format == FORMAT {
            Ok(receipt)
        } else {
            Err(ClientError::Verification(
                "the receipt's format is not 1; use a newer asterism".into(),
            ))
        }
    }

    /// Checks that this receipt is for a query of ours to `model`, and for this reply.
    ///
    /// # Errors
    /// [`ClientError::Verification`] naming what does not fit.
    pub fn check(&self, model: &str, query: &Digest, reply: &[u8]) -> Result<(), ClientError> {
        let problem = if self.model != model {
            "it is for another model"
        } else if self.query_sha256 != *query {
            "it is for another query"
        } else if self.reply_sha256 != Digest::of(reply) {
            "it is for another reply"
        } else {
            return Ok(());
        };
        Err(ClientError::Verification(format!(
            "the receipt does not fit: {problem}"
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> ReplyReceipt {
        ReplyReceipt::new(
            "models/m".into(),
            Digest::of(b"manifest"),
            Digest::of(b"compiled"),
            Digest::of(b"query"),
            Digest::of(b"reply"),
            "user/alice".into(),
            "2026-01-01T00:00:00Z".into(),
        )
    }

    #[test]
    fn a_receipt_survives_its_bytes_and_other_formats_are_refused() {
        let receipt = sample();
        assert_eq!(ReplyReceipt::parse(&receipt.to_bytes()).expect("parses"), receipt);
        let other = ReplyReceipt {
            format: 2,
            ..sample()
        };
        assert!(ReplyReceipt::parse(&other.to_bytes()).is_err());
        assert!(ReplyReceipt::parse(b"{}").is_err());
        let text = String::from_utf8(receipt.to_bytes()).expect("JSON");
        let extended = text.replacen('{', r#"{"extra":1,"#, 1);
        assert!(ReplyReceipt::parse(extended.as_bytes()).is_err());
    }

    #[test]
    fn a_receipt_fits_its_own_model_query_and_reply_only() {
        let (receipt, query) = (sample(), Digest::of(b"query"));
        receipt.check("models/m", &query, b"reply").expect("fits");
        assert!(receipt.check("models/n", &query, b"reply").is_err());
        assert!(receipt.check("models/m", &Digest::of(b"q"), b"reply").is_err());
        assert!(receipt.check("models/m", &query, b"replies").is_err());
    }
}

//! Receipts: proof that an entry is in a log, to be checked offline (C2SP `tlog-proof`).
//!
//! ```text
//! "c2sp.org/tlog-proof@v1\n"
//! [ "extra " base64 "\n" ]
//! "index " decimal "\n"
//! *( base64(hash) "\n" )        from the leaf's sibling up to the root's child
//! "\n"
//! signed checkpoint
//! ```

use std::fmt;

use asterism_crypto::Digest;
use base64::{Engine as _, engine::general_purpose::STANDARD};

use crate::{
    checkpoint::{CheckpointError, Endorsement, SignedCheckpoint, decode_hash, encode_hash, parse_decimal},
    key::VerifierKey,
    note::MAX_NOTE,
    proof::{InclusionProof, MAX_HASHES, ProofError},
};

/// The most bytes of extra data.
pub const MAX_EXTRA: usize = 1 << 16;

/// The most bytes of a receipt.
pub const MAX_RECEIPT: usize = MAX_NOTE + 2 * MAX_EXTRA;

const HEADER: &str = "c2sp.org/tlog-proof@v1";

/// Proof that an entry is in a log, as it was read or made; not verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// Whatever the log adds; nothing vouches for it.
    pub extra: Option<Vec<u8>>,
    /// Where the entry stands.
    pub index: u64,
    /// The path to the root.
    pub hashes: Vec<Digest>,
    /// The tree that it is in.
    pub checkpoint: SignedCheckpoint,
}

/// Why a receipt was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReceiptError {
    /// Beyond [`MAX_RECEIPT`] or [`MAX_EXTRA`].
    #[error("the receipt is too large; the most is {MAX_RECEIPT} bytes, {MAX_EXTRA} of extra data")]
    TooLarge,
    /// Not of the form.
    #[error("the receipt is malformed: {0}")]
    Form(&'static str),
    /// The checkpoint was refused.
    #[error("the checkpoint of the receipt was refused: {0}")]
    Checkpoint(#[from] CheckpointError),
    /// The proof was refused.
    #[error("the proof of the receipt was refused: {0}")]
    Proof(#[from] ProofError),
}

impl Receipt {
    /// A receipt for the entry that `proof` proves in the tree of `checkpoint`.
    ///
    /// # Errors
    /// [`ReceiptError::Form`] when the checkpoint is of another size than the proof.
    pub fn new(proof: InclusionProof, checkpoint: SignedCheckpoint) -> Result<Self, ReceiptError> {
        if proof.size != checkpoint.checkpoint().size {
            return Err(ReceiptError::Form(
                "its proof is for another size than its checkpoint",
            ));
        }
        Ok(Self {
            extra: None,
            index: proof.index,
            hashes: proof.hashes,
            checkpoint,
        })
    }

    /// Reads a receipt; verifies nothing.
    ///
    /// # Errors
    /// [`ReceiptError`]
    pub fn parse(bytes: &[u8]) -> Result<Self, ReceiptError> {
        if bytes.len() > MAX_RECEIPT {
            return Err(ReceiptError::TooLarge);
        }
        let text = std::str::from_utf8(bytes).map_err(|_| ReceiptError::Form("it is not UTF-8"))?;
        let (head, checkpoint) = text
            .split_once("\n\n")
            .ok_or(ReceiptError::Form("no empty line stands before the checkpoint"))?;
        let mut lines = head.split('\n').peekable();
        if lines.next() != Some(HEADER) {
            return Err(ReceiptError::Form(
                "it does not begin with c2sp.org/tlog-proof@v1",
            ));
        }
        let extra = lines
            .next_if(|line| line.starts_with("extra "))
            .map(parse_extra)
            .transpose()?;
        let index = lines
            .next()
            .and_then(|line| line.strip_prefix("index "))
            .and_then(parse_decimal)
            .ok_or(ReceiptError::Form("it has no index"))?;
        let mut hashes = Vec::new();
        for line in lines {
            if hashes.len() == MAX_HASHES {
                return Err(ReceiptError::Form("it has more hashes than any proof"));
            }
            hashes.push(decode_hash(line).ok_or(ReceiptError::Form("a hash is not 32 bytes in base64"))?);
        }
        Ok(Self {
            extra,
            index,
            hashes,
            checkpoint: SignedCheckpoint::parse(checkpoint.as_bytes())?,
        })
    }

    /// The proof in it.
    pub fn proof(&self) -> InclusionProof {
        InclusionProof {
            index: self.index,
            size: self.checkpoint.checkpoint().size,
            hashes: self.hashes.clone(),
        }
    }

    /// Checks that the entry whose leaf hash this is stands at the index of a log that one of `keys` is of, and says who
    /// stands behind its checkpoint.
    ///
    /// # Errors
    /// [`ReceiptError::Checkpoint`], [`ReceiptError::Proof`]
    pub fn verify(&self, leaf: &Digest, keys: &[VerifierKey]) -> Result<Endorsement, ReceiptError> {
        let endorsement = self.checkpoint.verify(keys)?;
        self.proof().verify(leaf, &self.checkpoint.checkpoint().root)?;
        Ok(endorsement)
    }
}

impl fmt::Display for Receipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{HEADER}")?;
        if let Some(extra) = &self.extra {
            writeln!(f, "extra {}", STANDARD.encode(extra))?;
        }
        writeln!(f, "index {}", self.index)?;
        for hash in &self.hashes {
            writeln!(f, "{}", encode_hash(hash))?;
        }
        write!(f, "\n{}", self.checkpoint)
    }
}

fn parse_extra(line: &str) -> Result<Vec<u8>, ReceiptError> {
    let text = line.strip_prefix("extra ").unwrap_or_default();
    if text.len() > MAX_EXTRA.div_ceil(3) * 4 {
        return Err(ReceiptError::TooLarge);
    }
    STANDARD
        .decode(text)
        .map_err(|_| ReceiptError::Form("its extra data is not base64"))
}

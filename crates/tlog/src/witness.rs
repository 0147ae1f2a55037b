//! What a log asks of a witness, and what it answers (C2SP `tlog-witness`, the bodies of `add-checkpoint`).
//!
//! ```text
//! request  = "old " size in decimal "\n" *( base64(hash) "\n" ) "\n" signed checkpoint
//! response = 1*( signature line "\n" )
//! ```

use std::fmt;

use asterism_crypto::Digest;

use crate::{
    checkpoint::{CheckpointError, SignedCheckpoint, decode_hash, encode_hash, parse_decimal},
    key::{Cosigner, VerifierKey},
    node::MAX_SIZE,
    note::{MAX_NOTE, MAX_SIGNATURES, NoteSignature},
    proof::{ConsistencyProof, MAX_HASHES, ProofError},
};

/// The most bytes of a request.
pub const MAX_REQUEST: usize = MAX_NOTE + (1 << 13);

/// Asks a witness for a cosignature; not verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddCheckpoint {
    /// The size of the checkpoint that the witness cosigned last; 0 for none.
    pub old_size: u64,
    /// That the log only grew since.
    pub hashes: Vec<Digest>,
    /// What to cosign.
    pub checkpoint: SignedCheckpoint,
}

/// Why a request or response was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WitnessError {
    /// Not of the form.
    #[error("the exchange with a witness is malformed: {0}")]
    Form(&'static str),
    /// The checkpoint was refused.
    #[error("the checkpoint to cosign was refused: {0}")]
    Checkpoint(#[from] CheckpointError),
    /// The proof was refused.
    #[error("the log did not only grow since the witness last looked: {0}")]
    Proof(#[from] ProofError),
    /// The time is none that a cosignature can have.
    #[error(transparent)]
    Time(#[from] crate::cosignature::TimeTooLarge),
}

impl AddCheckpoint {
    /// Reads a request; verifies nothing.
    ///
    /// # Errors
    /// [`WitnessError`]
    pub fn parse(bytes: &[u8]) -> Result<Self, WitnessError> {
        if bytes.len() > MAX_REQUEST {
            return Err(WitnessError::Form("it is too large"));
        }
        let text = std::str::from_utf8(bytes).map_err(|_| WitnessError::Form("it is not UTF-8"))?;
        let (head, checkpoint) = text
            .split_once("\n\n")
            .ok_or(WitnessError::Form("no empty line stands before the checkpoint"))?;
        let mut lines = head.split('\n');
        let old_size = lines
            .next()
            .and_then(|line| line.strip_prefix("old "))
            .and_then(parse_decimal)
            .filter(|size| *size <= MAX_SIZE)
            .ok_or(WitnessError::Form("it has no old size"))?;
        let mut hashes = Vec::new();
        for line in lines {
            if hashes.len() == MAX_HASHES {
                return Err(WitnessError::Form("it has more hashes than any proof"));
            }
            hashes.push(decode_hash(line).ok_or(WitnessError::Form("a hash is not 32 bytes in base64"))?);
        }
        Ok(Self {
            old_size,
            hashes,
            checkpoint: SignedCheckpoint::parse(checkpoint.as_bytes())?,
        })
    }

    /// As a witness that knows `keys` of the log and cosigned `old_root` at the old size (the empty root for 0): checks the
    /// log's signature and that it only grew, and cosigns at `time`, in seconds since 1970. The witness makes sure that the
    /// old size is that of its record, and keeps the new checkpoint before it answers, both as one step.
    ///
    /// # Errors
    /// [`WitnessError::Checkpoint`], [`WitnessError::Proof`], [`WitnessError::Time`]
    pub fn cosign(
        &self,
        keys: &[VerifierKey],
        old_root: &Digest,
        witness: &Cosigner,
        time: u64,
    ) -> Result<NoteSignature, WitnessError> {
        self.checkpoint.verify(keys)?;
        let checkpoint = self.checkpoint.checkpoint();
        let proof = ConsistencyProof {
            old_size: self.old_size,
            new_size: checkpoint.size,
            hashes: self.hashes.clone(),
        };
        proof.verify(old_root, &checkpoint.root)?;
        Ok(witness.cosign(self.checkpoint.note().text(), time)?)
    }
}

impl fmt::Display for AddCheckpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "old {}", self.old_size)?;
        for hash in &self.hashes {
            writeln!(f, "{}", encode_hash(hash))?;
        }
        write!(f, "\n{}", self.checkpoint)
    }
}

/// Reads the signature lines of a response; verifies nothing. Add those of known witnesses to the checkpoint and verify it.
///
/// # Errors
/// [`WitnessError::Form`]
pub fn parse_response(bytes: &[u8]) -> Result<Vec<NoteSignature>, WitnessError> {
    if bytes.len() > MAX_NOTE {
        return Err(WitnessError::Form("it is too large"));
    }
    let lines = std::str::from_utf8(bytes)
        .ok()
        .and_then(|text| text.strip_suffix('\n'))
        .ok_or(WitnessError::Form("it does not end with a newline"))?;
    if lines.split('\n').count() > MAX_SIGNATURES {
        return Err(WitnessError::Form("it has too many signatures"));
    }
    lines
        .split('\n')
        .map(|line| {
            line.parse()
                .map_err(|_| WitnessError::Form("a line is no signature"))
        })
        .collect()
}

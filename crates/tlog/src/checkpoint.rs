//! Checkpoints: what a log signs of itself (C2SP `tlog-checkpoint`).
//!
//! ```text
//! origin "\n"
//! size in decimal, without leading zeroes "\n"
//! base64(root) "\n"
//! *( extension line, not empty "\n" )
//! ```

use std::fmt;

use asterism_crypto::Digest;
use base64::{Engine as _, engine::general_purpose::STANDARD};

use crate::{
    cosignature,
    key::{KeyName, VerifierKey},
    node::MAX_SIZE,
    note::{Note, NoteError, NoteSignature, Signers},
};

/// The root of a log at a size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// Which log: its name, without newlines, not empty.
    pub origin: String,
    /// The number of entries.
    pub size: u64,
    /// The root of the tree over them.
    pub root: Digest,
    /// Further lines, none of them empty. C2SP advises against any.
    pub extensions: Vec<String>,
}

/// A checkpoint with its signatures, as it was read or made; not verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedCheckpoint {
    checkpoint: Checkpoint,
    note: Note,
}

/// Who stands behind a checkpoint that was verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endorsement {
    /// Witnesses, each with the time of its cosignature in seconds since 1970.
    pub witnesses: Vec<(KeyName, u64)>,
    /// The signers, those of the log and the witnesses, and the lines by unknown keys.
    pub signers: Signers,
}

/// Why a checkpoint was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    /// The note was refused.
    #[error(transparent)]
    Note(#[from] NoteError),
    /// Fewer than three lines, an empty one, or no newline at the end.
    #[error("a checkpoint has at least three lines, none of them empty: origin, size and root")]
    Lines,
    /// Not a number in plain decimal, or beyond [`MAX_SIZE`].
    #[error("the size of a checkpoint is a decimal number without leading zeroes, at most {MAX_SIZE}")]
    Size,
    /// Not 32 bytes in base64.
    #[error("the root of a checkpoint is 32 bytes in base64")]
    Root,
    /// Only others have signed.
    #[error("no known key of the log {0} has signed its checkpoint")]
    NotByTheLog(String),
}

impl Checkpoint {
    /// A checkpoint without extensions.
    pub fn new(origin: &KeyName, size: u64, root: Digest) -> Self {
        Self {
            origin: origin.to_string(),
            size,
            root,
            extensions: Vec::new(),
        }
    }

    /// Reads the text of a note.
    ///
    /// # Errors
    /// [`CheckpointError`]
    pub fn parse(text: &str) -> Result<Self, CheckpointError> {
        let mut lines = text.strip_suffix('\n').ok_or(CheckpointError::Lines)?.split('\n');
        let mut line = || match lines.next() {
            Some("") | None => Err(CheckpointError::Lines),
            Some(line) => Ok(line),
        };
        let origin = line()?.to_owned();
        let size = parse_decimal(line()?)
            .filter(|size| *size <= MAX_SIZE)
            .ok_or(CheckpointError::Size)?;
        let root = decode_hash(line()?).ok_or(CheckpointError::Root)?;
        let extensions: Vec<_> = lines.map(str::to_owned).collect();
        if extensions.iter().any(String::is_empty) {
            return Err(CheckpointError::Lines);
        }
        Ok(Self {
            origin,
            size,
            root,
            extensions,
        })
    }
}

/// The text of the note.
impl fmt::Display for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n{}\n{}", self.origin, self.size, encode_hash(&self.root))?;
        self.extensions.iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}

impl SignedCheckpoint {
    /// A checkpoint with these signatures over its text.
    ///
    /// # Errors
    /// [`CheckpointError`] when what would be written could not be read back.
    pub fn new(checkpoint: &Checkpoint, signatures: Vec<NoteSignature>) -> Result<Self, CheckpointError> {
        Self::from_note(Note::new(checkpoint.to_string(), signatures)?)
    }

    /// Reads a signed checkpoint; verifies nothing.
    ///
    /// # Errors
    /// [`CheckpointError`]
    pub fn parse(bytes: &[u8]) -> Result<Self, CheckpointError> {
        Self::from_note(Note::parse(bytes)?)
    }

    fn from_note(note: Note) -> Result<Self, CheckpointError> {
        let checkpoint = Checkpoint::parse(note.text())?;
        Ok(Self { checkpoint, note })
    }

    /// What it says. Verify it first.
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// The note that carries it.
    pub fn note(&self) -> &Note {
        &self.note
    }

    /// Adds a signature, such as a witness's.
    ///
    /// # Errors
    /// [`NoteError::TooManySignatures`], [`NoteError::TooLarge`]
    pub fn push(&mut self, signature: NoteSignature) -> Result<(), NoteError> {
        self.note.push(signature)
    }

    /// Checks that a key of the log has signed: one of `keys` that is no witness's and whose name is the origin, so that no
    /// log vouches for another. Signatures by other keys among `keys` are checked as well, and a wrong one refuses the
    /// whole.
    ///
    /// # Errors
    /// [`CheckpointError::Note`], [`CheckpointError::NotByTheLog`]
    pub fn verify(&self, keys: &[VerifierKey]) -> Result<Endorsement, CheckpointError> {
        let signers = self.note.verify(keys)?;
        let by_the_log =
            |key: &VerifierKey| !key.is_witness() && key.name().as_str() == self.checkpoint.origin;
        if !signers.keys.iter().any(|at| by_the_log(&keys[*at])) {
            return Err(CheckpointError::NotByTheLog(self.checkpoint.origin.clone()));
        }
        let witnesses = signers
            .keys
            .iter()
            .map(|at| &keys[*at])
            .filter(|key| key.is_witness())
            .filter_map(|key| Some((key.name().clone(), self.time_of(key)?)))
            .collect();
        Ok(Endorsement { witnesses, signers })
    }

    fn time_of(&self, witness: &VerifierKey) -> Option<u64> {
        self.note
            .signatures()
            .iter()
            .find(|signature| signature.name == *witness.name() && signature.id == witness.id())
            .and_then(|signature| cosignature::time(&signature.bytes))
    }
}

impl fmt::Display for SignedCheckpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.note.fmt(f)
    }
}

/// A decimal number as C2SP writes it: digits only, no leading zeroes.
pub(crate) fn parse_decimal(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|c| c.is_ascii_digit());
    let plain = digits && (text == "0" || !text.starts_with('0'));
    plain.then(|| text.parse().ok()).flatten()
}

pub(crate) fn encode_hash(hash: &Digest) -> String {
    STANDARD.encode(hash.as_bytes())
}

pub(crate) fn decode_hash(text: &str) -> Option<Digest> {
    let bytes: [u8; 32] = STANDARD.decode(text).ok()?.try_into().ok()?;
    Some(Digest::from_bytes(bytes))
}

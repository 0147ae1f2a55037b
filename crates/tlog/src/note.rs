//! Signed notes (C2SP `signed-note`): text, a blank line, and one line for each signature.
//!
//! ```text
//! note      = text "\n" 1*line
//! text      = lines, each ended by a newline; UTF-8 without control characters
//! line      = "— " name " " base64(key-id || signature) "\n"
//! key-id    = 4 bytes
//! ```
//!
//! The signatures cover the text with its last newline, not the blank line. The last blank line of the note ends the text.
//! Nothing may be believed of a note before [`Note::verify`].

use std::{fmt, str::FromStr};

use base64::{Engine as _, engine::general_purpose::STANDARD};

use crate::key::{KeyId, KeyName, VerifierKey};

/// The most bytes of a note: enough for every signature that [`MAX_SIGNATURES`] allows, post-quantum ones among them.
pub const MAX_NOTE: usize = 1 << 20;

/// The most signatures of a note (C2SP asks for at least 16).
pub const MAX_SIGNATURES: usize = 100;

/// Begins a signature line: em dash and space.
const DASH: &str = "\u{2014} ";

/// A signed note as it was read or made; not verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    text: String,
    signatures: Vec<NoteSignature>,
}

/// One signature line of a note.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoteSignature {
    /// Who says to have signed.
    pub name: KeyName,
    /// Tells the keys of one name apart.
    pub id: KeyId,
    /// As the key's algorithm has it; not empty.
    pub bytes: Vec<u8>,
}

/// Who has signed a note, of the keys it was verified with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Signers {
    /// Positions in the keys that were given, each once, in the order of the lines.
    pub keys: Vec<usize>,
    /// Lines by keys that were not given. They say nothing.
    pub unknown: Vec<(KeyName, KeyId)>,
}

/// Why a note was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoteError {
    /// Beyond [`MAX_NOTE`].
    #[error("a note of {0} bytes is too large; the most is {MAX_NOTE}")]
    TooLarge(usize),
    /// Not UTF-8, or with control characters.
    #[error("a note is UTF-8 text without control characters other than newlines")]
    NotText,
    /// The text does not end with a newline.
    #[error("the text of a note ends with a newline")]
    UnfinishedText,
    /// No blank line followed by signatures.
    #[error("the note has no signature: a blank line and signature lines end it")]
    Unsigned,
    /// Beyond [`MAX_SIGNATURES`].
    #[error("the note has more than {MAX_SIGNATURES} signatures")]
    TooManySignatures,
    /// A signature line is not of the form.
    #[error("signature line {0} of the note is malformed")]
    MalformedSignature(usize),
    /// A signature by a known key does not verify.
    #[error("the signature by {0} ({1}) does not fit the text")]
    BadSignature(KeyName, KeyId),
    /// No known key has signed.
    #[error("none of the known keys has signed the note")]
    NoKnownSigner,
}

impl Note {
    /// A note over `text` with these signatures.
    ///
    /// # Errors
    /// [`NoteError`] when what would be written could not be read back.
    pub fn new(text: impl Into<String>, signatures: Vec<NoteSignature>) -> Result<Self, NoteError> {
        let text = text.into();
        check_text(&text)?;
        if signatures.is_empty() {
            return Err(NoteError::Unsigned);
        }
        let note = Self { text, signatures };
        Self::parse(note.to_string().as_bytes())
    }

    /// Reads a note; verifies nothing.
    ///
    /// # Errors
    /// [`NoteError`]
    pub fn parse(bytes: &[u8]) -> Result<Self, NoteError> {
        if bytes.len() > MAX_NOTE {
            return Err(NoteError::TooLarge(bytes.len()));
        }
        let note = std::str::from_utf8(bytes).map_err(|_| NoteError::NotText)?;
        if note.chars().any(|c| c < ' ' && c != '\n') {
            return Err(NoteError::NotText);
        }
        let blank = note.rfind("\n\n").ok_or(NoteError::Unsigned)?;
        let (text, lines) = (&note[..=blank], &note[blank + 2..]);
        let lines = lines.strip_suffix('\n').ok_or(NoteError::Unsigned)?;
        if lines.split('\n').count() > MAX_SIGNATURES {
            return Err(NoteError::TooManySignatures);
        }
        let signatures = (1..)
            .zip(lines.split('\n'))
            .map(|(number, line)| line.parse().map_err(|_| NoteError::MalformedSignature(number)))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            text: text.to_owned(),
            signatures,
        })
    }

    /// What was signed, with its last newline.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The signature lines.
    pub fn signatures(&self) -> &[NoteSignature] {
        &self.signatures
    }

    /// Adds a signature line.
    ///
    /// # Errors
    /// [`NoteError::TooManySignatures`], [`NoteError::TooLarge`]
    pub fn push(&mut self, signature: NoteSignature) -> Result<(), NoteError> {
        let mut signatures = self.signatures.clone();
        signatures.push(signature);
        *self = Self::new(self.text.clone(), signatures)?;
        Ok(())
    }

    /// Checks every signature by one of `keys`; those by others are ignored, as C2SP demands.
    ///
    /// # Errors
    /// [`NoteError::BadSignature`] when one by a known key does not verify, whatever the others say, and
    /// [`NoteError::NoKnownSigner`] when no known key has signed.
    pub fn verify(&self, keys: &[VerifierKey]) -> Result<Signers, NoteError> {
        let mut signers = Signers::default();
        for signature in &self.signatures {
            let known = |key: &VerifierKey| *key.name() == signature.name && key.id() == signature.id;
            let Some(at) = keys.iter().position(known) else {
                signers.unknown.push((signature.name.clone(), signature.id));
                continue;
            };
            if !keys[at].has_signed(&self.text, &signature.bytes) {
                return Err(NoteError::BadSignature(signature.name.clone(), signature.id));
            }
            if !signers.keys.contains(&at) {
                signers.keys.push(at);
            }
        }
        if signers.keys.is_empty() {
            return Err(NoteError::NoKnownSigner);
        }
        Ok(signers)
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.text)?;
        self.signatures
            .iter()
            .try_for_each(|signature| writeln!(f, "{signature}"))
    }
}

/// One line, without its newline.
impl fmt::Display for NoteSignature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = [self.id.as_bytes().as_slice(), &self.bytes].concat();
        write!(f, "{DASH}{} {}", self.name, STANDARD.encode(bytes))
    }
}

impl FromStr for NoteSignature {
    type Err = MalformedSignature;

    /// Reads one line, without its newline.
    fn from_str(line: &str) -> Result<Self, MalformedSignature> {
        let (name, bytes) = line
            .strip_prefix(DASH)
            .and_then(|line| line.split_once(' '))
            .ok_or(MalformedSignature)?;
        let bytes = STANDARD.decode(bytes).map_err(|_| MalformedSignature)?;
        let (id, bytes) = bytes.split_first_chunk::<4>().ok_or(MalformedSignature)?;
        if bytes.is_empty() {
            return Err(MalformedSignature);
        }
        Ok(Self {
            name: name.parse().map_err(|_| MalformedSignature)?,
            id: KeyId::from_bytes(*id),
            bytes: bytes.to_vec(),
        })
    }
}

/// The line is no signature line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a signature line is an em dash, a key name, and a key id and signature in base64, with spaces between them"
)]
pub struct MalformedSignature;

fn check_text(text: &str) -> Result<(), NoteError> {
    if text.chars().any(|c| c < ' ' && c != '\n') {
        Err(NoteError::NotText)
    } else if text.ends_with('\n') {
        Ok(())
    } else {
        Err(NoteError::UnfinishedText)
    }
}

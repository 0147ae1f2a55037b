//! `seal.json`: how the root keys are sealed, and with what. Nothing of it is secret, but a passphrase can be guessed with it.

use std::path::{Path, PathBuf};

use asterism_crypto::{
    Argon2Params, Context, Digest, SecretKey, envelope, kdf, random_array,
    shares::{MAX_SHARES, MIN_THRESHOLD, SetId},
    signed::base64_bytes,
};
use asterism_store::{StoreError, files};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{RootError, Roots, SealKind, roots::reference};

/// The file in the data directory.
pub(crate) const SEAL_FILE: &str = "seal.json";
/// What is written now.
const FORMAT: u32 = 1;
const MAX_FILE_BYTES: u64 = 64 << 10;
/// The newest, and while it is rotated the one before.
const MAX_ROOTS: usize = 2;
const ID_BYTES: usize = 8;
const LABEL: &str = "asterism/seal/v1";
const ROOT_CONTEXT: &str = "asterism/sealed-root/v1";

/// Names a seal; sixteen lower-case hex digits as text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct SealId([u8; ID_BYTES]);

impl SealId {
    pub(crate) fn random() -> Result<Self, RootError> {
        Ok(Self(random_array()?))
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl From<SetId> for SealId {
    fn from(set: SetId) -> Self {
        Self(*set.as_bytes())
    }
}

impl TryFrom<String> for SealId {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let id = hex_array(&text).map(Self);
        id.ok_or("a seal id is 16 lower-case hex digits")
    }
}

impl From<SealId> for String {
    fn from(id: SealId) -> Self {
        id.to_string()
    }
}

impl std::fmt::Display for SealId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

/// Bytes from exactly so many lower-case hex digits.
pub(crate) fn hex_array<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    let plain = !text.bytes().any(|byte| byte.is_ascii_uppercase());
    (plain && hex::decode_to_slice(text, &mut bytes).is_ok()).then_some(bytes)
}

/// The file.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SealFile {
    format: u32,
    pub(crate) seal_id: SealId,
    pub(crate) created_at_ms: u64,
    pub(crate) kind: Kind,
    /// Ascending.
    roots: Vec<SealedRoot>,
    /// A key file of the seal before, which is still to be shredded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) replaces: Option<KeyFileName>,
}

/// What opens it, with what may be known of that.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Kind {
    KeyFile {
        file: KeyFileName,
    },
    Passphrase {
        argon2id: Argon2Params,
        salt: Salt,
    },
    Shares {
        threshold: u8,
        /// Of the text of each share.
        sha256: Vec<Digest>,
    },
    Token {
        /// Which key of the token.
        key_label: String,
        #[serde(with = "base64_bytes")]
        iv: Vec<u8>,
        /// AES-GCM by the token: 32 bytes and the tag.
        #[serde(with = "base64_bytes")]
        wrapped: Vec<u8>,
    },
}

impl Kind {
    pub(crate) fn kind(&self) -> SealKind {
        match self {
            Self::KeyFile { .. } => SealKind::KeyFile,
            Self::Passphrase { .. } => SealKind::Passphrase,
            Self::Shares { .. } => SealKind::Shares,
            Self::Token { .. } => SealKind::Token,
        }
    }

    fn is_sound(&self) -> bool {
        match self {
            Self::KeyFile { .. } | Self::Passphrase { .. } => true,
            Self::Shares { threshold, sha256 } => are_shares_sound(*threshold, sha256),
            Self::Token {
                key_label,
                iv,
                wrapped,
            } => !key_label.is_empty() && (1..=256).contains(&iv.len()) && wrapped.len() <= 256,
        }
    }
}

/// Whether there are as many shares, all different, as the threshold needs.
pub(crate) fn are_shares_sound(threshold: u8, digests: &[Digest]) -> bool {
    let shares = digests.len();
    let distinct = std::collections::HashSet::<_>::from_iter(digests).len() == shares;
    (MIN_THRESHOLD..=MAX_SHARES).contains(&threshold)
        && (usize::from(threshold)..=usize::from(MAX_SHARES)).contains(&shares)
        && distinct
}

/// Salt of a passphrase; 32 lower-case hex digits as text.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct Salt(pub(crate) [u8; 16]);

impl TryFrom<String> for Salt {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        hex_array(&text)
            .map(Self)
            .ok_or("a salt is 32 lower-case hex digits")
    }
}

impl From<Salt> for String {
    fn from(salt: Salt) -> Self {
        hex::encode(salt.0)
    }
}

/// The name of a key file in the data directory: `root.key`, or `root-` and a seal id. No other file is ever read, or shredded, in the name of the seal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct KeyFileName(String);

impl KeyFileName {
    /// Of the first key file of a store.
    pub(crate) fn first() -> Self {
        Self("root.key".to_owned())
    }

    /// Of the key file of a later seal.
    pub(crate) fn of(seal: &SealId) -> Self {
        Self(format!("root-{seal}.key"))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is there.
    pub(crate) fn is_in(&self, data_dir: &Path) -> bool {
        data_dir.join(&self.0).exists()
    }
}

impl TryFrom<String> for KeyFileName {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let of_seal = text
            .strip_prefix("root-")
            .and_then(|rest| rest.strip_suffix(".key"))
            .and_then(hex_array::<ID_BYTES>);
        if text == "root.key" || of_seal.is_some() {
            Ok(Self(text))
        } else {
            Err("a key file is root.key, or root-, a seal id and .key")
        }
    }
}

impl From<KeyFileName> for String {
    fn from(name: KeyFileName) -> Self {
        name.0
    }
}

/// A root key, sealed.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SealedRoot {
    version: u32,
    created_at_ms: u64,
    /// An envelope.
    #[serde(with = "base64_bytes")]
    wrapped: Vec<u8>,
}

impl SealFile {
    /// A seal without roots.
    pub(crate) fn new(seal_id: SealId, kind: Kind, created_at_ms: u64) -> Self {
        Self {
            format: FORMAT,
            seal_id,
            created_at_ms,
            kind,
            roots: vec![],
            replaces: None,
        }
    }

    /// Seals a root key with the others.
    pub(crate) fn add(
        &mut self,
        unseal_key: &SecretKey,
        version: u32,
        root: &SecretKey,
        created_at_ms: u64,
    ) -> Result<(), RootError> {
        let wrapped = envelope::seal(
            &self.wrapping_key(unseal_key),
            &reference(version),
            root.expose(),
            &self.bound_to(version),
        )?;
        self.roots.push(SealedRoot {
            version,
            created_at_ms,
            wrapped,
        });
        self.roots.sort_by_key(|root| root.version);
        Ok(())
    }

    /// Seals what `other` holds.
    pub(crate) fn add_all(
        &mut self,
        unseal_key: &SecretKey,
        other: &Self,
        roots: &Roots,
    ) -> Result<(), RootError> {
        for sealed in &other.roots {
            let root = roots
                .get(sealed.version)
                .ok_or_else(|| RootError::Damaged(SEAL_FILE.to_owned()))?;
            self.add(unseal_key, sealed.version, root, sealed.created_at_ms)?;
        }
        Ok(())
    }

    /// The root keys; `None` when this is not what they were sealed with.
    pub(crate) fn roots(&self, unseal_key: &SecretKey) -> Option<Roots> {
        let wrapping_key = self.wrapping_key(unseal_key);
        let mut roots: Option<Roots> = None;
        for sealed in &self.roots {
            let bytes =
                envelope::open(&wrapping_key, &sealed.wrapped, &self.bound_to(sealed.version)).ok()?;
            let root = SecretKey::try_from_slice(bytes.expose()).ok()?;
            roots = Some(match roots {
                None => Roots::single(sealed.version, root),
                Some(roots) => roots.with(sealed.version, root),
            });
        }
        roots
    }

    pub(crate) fn newest_version(&self) -> u32 {
        self.roots.last().map_or(0, |root| root.version)
    }

    /// Whether there is room for another root.
    pub(crate) fn is_rotating(&self) -> bool {
        self.roots.len() >= MAX_ROOTS
    }

    /// Forgets the roots before this version.
    pub(crate) fn forget_before(&mut self, version: u32) {
        self.roots.retain(|root| root.version >= version);
    }

    /// Reads the file; `None` when there is none.
    pub(crate) fn read(path: &Path) -> Result<Option<Self>, RootError> {
        match read_capped(path)? {
            Some(bytes) => Self::parse(&bytes, &path.display().to_string()).map(Some),
            None => Ok(None),
        }
    }

    /// Reads what the file `path` holds.
    pub(super) fn parse(bytes: &[u8], path: &str) -> Result<Self, RootError> {
        let Ok(file) = serde_json::from_slice::<Self>(bytes) else {
            return Err(newer(bytes, path).unwrap_or(RootError::Damaged(path.to_owned())));
        };
        if file.format > FORMAT {
            return Err(RootError::Newer {
                path: path.to_owned(),
                format: file.format.into(),
            });
        }
        if file.format == FORMAT && file.is_sound() {
            Ok(file)
        } else {
            Err(RootError::Damaged(path.to_owned()))
        }
    }

    /// Writes the file; what was there before is shredded.
    pub(crate) fn write(&self, path: &Path) -> Result<(), RootError> {
        let text = serde_json::to_vec_pretty(self).expect("the file has string keys only and serialises");
        Ok(files::replace_shredding(path, &text, 0o600)?)
    }

    fn is_sound(&self) -> bool {
        let versions: Vec<u32> = self.roots.iter().map(|root| root.version).collect();
        let ascending = versions.is_sorted_by(|one, other| one < other);
        let from_one = versions.first().is_some_and(|first| *first > 0);
        from_one && ascending && versions.len() <= MAX_ROOTS && self.kind.is_sound()
    }

    fn wrapping_key(&self, unseal_key: &SecretKey) -> SecretKey {
        kdf::derive(unseal_key, b"", LABEL, self.seal_id.as_bytes())
    }

    fn bound_to(&self, version: u32) -> Vec<u8> {
        Context::new(ROOT_CONTEXT)
            .field("seal", &self.seal_id.to_string())
            .field("version", &version.to_string())
            .encode()
    }
}

/// What the file is, if a later release wrote it in another form.
fn newer(bytes: &[u8], path: &str) -> Option<RootError> {
    #[derive(Deserialize)]
    struct Format {
        format: u64,
    }
    let Format { format } = serde_json::from_slice(bytes).ok()?;
    (format > FORMAT.into()).then(|| RootError::Newer {
        path: path.to_owned(),
        format,
    })
}

/// Reads a private file of at most 64 KiB; `None` when there is none.
pub(crate) fn read_capped(path: &Path) -> Result<Option<Zeroizing<Vec<u8>>>, RootError> {
    match std::fs::metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(StoreError::from(error).into()),
        Ok(metadata) if metadata.len() > MAX_FILE_BYTES => {
            return Err(RootError::Damaged(path.display().to_string()));
        }
        Ok(_) => {}
    }
    Ok(Some(Zeroizing::new(files::read_private(path)?)))
}

/// Where the seal of a data directory lies.
pub(crate) fn seal_path(data_dir: &Path) -> PathBuf {
    data_dir.join(SEAL_FILE)
}

//! Takes what a backup holds, while the service serves.

use std::{
    fs::File,
    io::{BufReader, BufWriter, Read as _, Seek as _, Write as _},
    path::Path,
    sync::Arc,
};

use asterism_crypto::{Digest, Signed, VerifyingKey, signed::signing_input};
use asterism_store::{StoreError, files};
use zeroize::Zeroizing;

use super::{
    BackupError, Contents,
    entry::{Decoder, Entry, Kind},
    inventory::Inventory,
};
use crate::{
    error::KmsError,
    keys::{Key, KeyId, KeyType, Keyring, NewKey, Protector, PublicKey, Purpose, RequestId},
};

/// The key that signs backups.
pub(crate) const SIGNER: &str = "backup-signer";
const SIGNER_OWNER: &str = "service/kms";
/// Domain of the signatures.
pub(crate) const DOMAIN: &str = "asterism/backup/v1";
/// Files that say how the root key is sealed, ascending. Never a key file, which opens the seal.
pub(crate) const ROOT_FILES: [&str; 2] = ["root.json", "seal.json"];
const NAME_BYTES: usize = 32;
const KEY_BYTES: usize = 32;
/// How often a capture is tried whose wrapping keys went meanwhile: when all are wrapped anew, and once more.
const TRIES: usize = 3;
const PIECE_BYTES: usize = 64 << 10;

/// What a backup will hold.
pub(crate) struct Capture {
    pub(crate) created_at_ms: u64,
    pub(crate) contents: Contents,
    /// The records as entries, in a file without a name. They hold wrapped material only.
    records: File,
    /// Names and bytes of wrapping keys, ascending.
    wrapping_keys: Zeroizing<Vec<u8>>,
    files: RootFiles,
}

type RootFiles = Vec<(&'static str, Zeroizing<Vec<u8>>)>;

/// Takes everything: all records at one moment, then the wrapping keys that they name.
///
/// # Errors
/// [`BackupError::Changing`], [`KmsError::Damaged`], and the store's own.
pub(crate) fn capture(keyring: &Keyring, data_dir: &Path, now_ms: u64) -> Result<Capture, BackupError> {
    for _ in 0..TRIES {
        if let Some(capture) = attempt(keyring, data_dir, now_ms)? {
            return Ok(capture);
        }
    }
    Err(BackupError::Changing)
}

/// `None` when wrapping keys or the root's files changed meanwhile.
fn attempt(keyring: &Keyring, data_dir: &Path, now_ms: u64) -> Result<Option<Capture>, BackupError> {
    let files = root_files(data_dir)?;
    // Destructions wait until the wrapping keys are read; nothing else does.
    let _destroying = keyring.destroying();
    let records = spool(keyring, data_dir)?;
    let mut capture = Capture {
        created_at_ms: now_ms,
        contents: Contents::default(),
        records,
        wrapping_keys: Zeroizing::default(),
        files,
    };
    let mut inventory = Inventory::default();
    capture.contents = capture.each_record(&mut |entry| Ok(inventory.record(entry.name, entry.value)?))?;
    let names: Vec<String> = inventory.expected().map(str::to_owned).collect();
    let room = names.len() * (NAME_BYTES + KEY_BYTES);
    capture.wrapping_keys = Zeroizing::new(Vec::with_capacity(room));
    for name in &names {
        // None: a crash kept the record of a version whose destruction had begun.
        let Some(key) = keyring.version_keys.get(name)? else {
            continue;
        };
        if key.len() != KEY_BYTES {
            return Err(KmsError::Damaged("a wrapping key").into());
        }
        inventory.wrapping_key(name);
        capture.wrapping_keys.extend_from_slice(name.as_bytes());
        capture.wrapping_keys.extend_from_slice(&key);
        capture.contents.wrapping_keys += 1;
    }
    capture.contents.files = capture.files.len() as u64;
    let settled = inventory.check().is_ok() && root_files(data_dir)? == capture.files;
    Ok(settled.then_some(capture))
}

fn root_files(data_dir: &Path) -> Result<RootFiles, BackupError> {
    let mut found = Vec::new();
    for name in ROOT_FILES {
        match files::read_private(&data_dir.join(name)) {
            Ok(bytes) => found.push((name, Zeroizing::new(bytes))),
            Err(StoreError::Io(error)) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(found)
}

/// Copies all records of one moment to a file that goes by itself, also when the process is killed.
fn spool(keyring: &Keyring, data_dir: &Path) -> Result<File, BackupError> {
    let mut writer = BufWriter::new(tempfile::tempfile_in(data_dir)?);
    keyring.records.snapshot(&mut |name, value| {
        let entry = Entry {
            kind: Kind::Record,
            name,
            value,
        };
        let head = entry
            .head()
            .map_err(|_| StoreError::Damaged("a record is too long".to_owned()))?;
        writer.write_all(&head)?;
        writer.write_all(name)?;
        Ok(writer.write_all(value)?)
    })?;
    Ok(writer.into_inner().map_err(std::io::IntoInnerError::into_error)?)
}

impl Capture {
    /// Shows all of it in the order of a backup.
    pub(crate) fn each(
        &mut self,
        see: &mut dyn FnMut(&Entry<'_>) -> Result<(), BackupError>,
    ) -> Result<(), BackupError> {
        self.each_record(see)?;
        for pair in self.wrapping_keys.chunks_exact(NAME_BYTES + KEY_BYTES) {
            let (name, value) = pair.split_at(NAME_BYTES);
            see(&Entry {
                kind: Kind::WrappingKey,
                name,
                value,
            })?;
        }
        self.files.iter().try_for_each(|(name, value)| {
            see(&Entry {
                kind: Kind::File,
                name: name.as_bytes(),
                value,
            })
        })
    }

    fn each_record(
        &mut self,
        see: &mut dyn FnMut(&Entry<'_>) -> Result<(), BackupError>,
    ) -> Result<Contents, BackupError> {
        self.records.rewind()?;
        let mut reader = BufReader::with_capacity(PIECE_BYTES, &self.records);
        let (mut decoder, mut piece) = (Decoder::new(), vec![0; PIECE_BYTES]);
        loop {
            match reader.read(&mut piece)? {
                0 => return Ok(decoder.so_far()),
                read => decoder.push(&piece[..read], see)?,
            }
        }
    }
}

/// Gives the key that signs backups, made now if there is none; `report` records that.
///
/// # Errors
/// [`BackupError::SignerTaken`]; what `report` answers; the store's own.
pub(crate) fn ensure_signer(
    keyring: &Keyring,
    now_ms: u64,
    report: impl FnOnce() -> Result<(), KmsError>,
) -> Result<Arc<Key>, BackupError> {
    let id: KeyId = SIGNER.parse()?;
    let key = match keyring.get(&id) {
        Err(KmsError::KeyNotFound(_)) => {
            let new = NewKey {
                id: Some(id),
                key_type: KeyType::EcSignP256Sha256,
                labels: [].into(),
                active_from_ms: None,
                exportable: false,
                required_approvals: 0,
            };
            let request = RequestId {
                principal: SIGNER_OWNER,
                id: "",
                etag: "",
            };
            let key = keyring.create(new, &request, now_ms)?;
            report()?;
            key
        }
        found => found?,
    };
    if key.owner == SIGNER_OWNER && key.key_type == KeyType::EcSignP256Sha256 {
        Ok(key)
    } else {
        Err(BackupError::SignerTaken(SIGNER))
    }
}

/// Signs a backup by the version that was primary when it began.
pub(crate) struct Signer<'a> {
    protector: Protector<'a>,
    public_key: VerifyingKey,
}

impl<'a> Signer<'a> {
    /// # Errors
    /// As [`Keyring::protector`].
    pub(crate) fn new(keyring: &Keyring, key: &'a Key, now_ms: u64) -> Result<Self, KmsError> {
        let protector = keyring.protector(key, Purpose::Sign, now_ms)?;
        let (public_key, _) = keyring.public_key(key, protector.version(), now_ms)?;
        match public_key {
            PublicKey::Verify(public_key) => Ok(Self {
                protector,
                public_key,
            }),
            PublicKey::Encrypt(_) => Err(KmsError::Damaged("the key that signs backups")),
        }
    }

    pub(crate) fn public_key(&self) -> &VerifyingKey {
        &self.public_key
    }

    pub(crate) fn fingerprint(&self) -> Digest {
        self.public_key.fingerprint()
    }

    pub(crate) fn key_version(&self) -> u32 {
        self.protector.version()
    }

    pub(crate) fn sign(&self, payload: Vec<u8>) -> Result<Signed, KmsError> {
        let digest = Digest::of(&signing_input(DOMAIN, &payload));
        Ok(Signed {
            domain: DOMAIN.to_owned(),
            signature: self.protector.sign(&digest)?.to_der(),
            payload,
            key: SIGNER.to_owned(),
            key_version: self.protector.version(),
        })
    }
}

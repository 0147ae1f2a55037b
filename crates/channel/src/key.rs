//! Static keys: who a party is.

use std::{fmt, fs, io::Read as _, os::unix::fs::PermissionsExt as _, path::Path, str::FromStr};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use sha2::{Digest as _, Sha256};
use snow::{
    params::DHChoice,
    resolvers::{CryptoResolver as _, DefaultResolver},
    types::Dh,
};
use zeroize::Zeroizing;

/// Bytes of either half of a key.
pub(crate) const KEY_BYTES: usize = 32;
/// Starts every public key as text; the digit is the format's version.
const PREFIX: &str = "asx1";
const CHECKSUM_BYTES: usize = 4;
const FILE_HEADER: &str = "asterism-static-key 1";
/// A key file is shorter.
const MAX_FILE_BYTES: u64 = 1024;

/// Why something is no key.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The text is no public key, or one that was mistyped.
    #[error("not a public key like asx1…, or mistyped")]
    Public,
    /// The file is no static key of a known version.
    #[error("not a static key file of version 1")]
    File,
    /// Others may read the file.
    #[error("group or others may read it; run chmod 600 on it")]
    Exposed,
    /// The file cannot be read.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// The system gives no random bytes.
    #[error("the system gives no random bytes")]
    Random,
}

/// The public half of a static key: a party's name on the wire.
///
/// As text `asx1` and base64url of the key and four bytes of a checksum.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct PublicKey([u8; KEY_BYTES]);

impl PublicKey {
    /// A public key from its bytes.
    ///
    /// # Errors
    /// [`KeyError::Public`] for what is no canonical point, and for points of small order: those everybody can use.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, KeyError> {
        let bytes: [u8; KEY_BYTES] = bytes.try_into().map_err(|_| KeyError::Public)?;
        let mut shared = [0; KEY_BYTES];
        // X25519 ignores this bit: one key would have two names.
        let canonical = bytes.last().is_some_and(|last| last & 0x80 == 0);
        // A secret is a multiple of the cofactor, so that any of them takes points of small order to zero.
        let computed = curve(&[1; KEY_BYTES]).is_ok_and(|dh| dh.dh(&bytes, &mut shared).is_ok());
        if canonical && computed && shared != [0; KEY_BYTES] {
            Ok(Self(bytes))
        } else {
            Err(KeyError::Public)
        }
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8; KEY_BYTES] {
        &self.0
    }

    fn checksum(&self) -> [u8; CHECKSUM_BYTES] {
        let mut hash = Sha256::new();
        hash.update(b"asterism/static-key/1");
        hash.update(self.0);
        let [a, b, c, d, ..]: [u8; 32] = hash.finalize().into();
        [a, b, c, d]
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = self.0.to_vec();
        bytes.extend(self.checksum());
        write!(f, "{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for PublicKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let coded = text.strip_prefix(PREFIX).ok_or(KeyError::Public)?;
        let mut bytes = [0; KEY_BYTES + CHECKSUM_BYTES];
        let length = URL_SAFE_NO_PAD
            .decode_slice(coded, &mut bytes)
            .map_err(|_| KeyError::Public)?;
        if length != bytes.len() {
            return Err(KeyError::Public);
        }
        let (key, checksum) = bytes.split_at(KEY_BYTES);
        let key = Self::from_bytes(key)?;
        if checksum == key.checksum() {
            Ok(key)
        } else {
            Err(KeyError::Public)
        }
    }
}

/// Both halves of a static key. Wiped when dropped; neither shown nor copied.
pub struct StaticKey {
    secret: Box<Zeroizing<[u8; KEY_BYTES]>>,
    public: PublicKey,
}

impl StaticKey {
    /// A fresh key.
    ///
    /// # Errors
    /// [`KeyError::Random`]
    pub fn generate() -> Result<Self, KeyError> {
        let mut secret = Box::new(Zeroizing::new([0; KEY_BYTES]));
        getrandom::fill(&mut secret[..]).map_err(|_| KeyError::Random)?;
        Self::from_secret(secret)
    }

    /// Reads a key file.
    ///
    /// # Errors
    /// [`KeyError::Exposed`] when group or others may read it, [`KeyError::File`] when it is no key.
    pub fn read(path: &Path) -> Result<Self, KeyError> {
        let file = fs::File::open(path)?;
        if file.metadata()?.permissions().mode() & 0o077 != 0 {
            return Err(KeyError::Exposed);
        }
        // Room from the start: growing would leave copies behind.
        let mut text = Zeroizing::new(String::with_capacity(MAX_FILE_BYTES as usize + 1));
        file.take(MAX_FILE_BYTES)
            .read_to_string(&mut text)
            .map_err(|_| KeyError::File)?;
        Self::from_text(&text)
    }

    /// A key from the text of its file.
    ///
    /// # Errors
    /// [`KeyError::File`], also when the public key in it is not that of the secret.
    pub fn from_text(text: &str) -> Result<Self, KeyError> {
        let mut lines = text.lines();
        if lines.next() != Some(FILE_HEADER) {
            return Err(KeyError::File);
        }
        let mut field = |name: &str| {
            let line = lines.next().ok_or(KeyError::File)?;
            line.strip_prefix(name).ok_or(KeyError::File)
        };
        let mut secret = Box::new(Zeroizing::new([0; KEY_BYTES]));
        let length = URL_SAFE_NO_PAD
            .decode_slice(field("secret ")?, &mut secret[..])
            .map_err(|_| KeyError::File)?;
        let public: PublicKey = field("public ")?.parse().map_err(|_| KeyError::File)?;
        if length != KEY_BYTES || lines.next().is_some() {
            return Err(KeyError::File);
        }
        let key = Self::from_secret(secret)?;
        if key.public == public {
            Ok(key)
        } else {
            Err(KeyError::File)
        }
    }

    /// The text of its file, which nobody but its owner may read.
    pub fn to_text(&self) -> Zeroizing<String> {
        let secret = Zeroizing::new(URL_SAFE_NO_PAD.encode(&self.secret[..]));
        Zeroizing::new(format!(
            "{FILE_HEADER}\nsecret {}\npublic {}\n",
            *secret, self.public
        ))
    }

    /// The public half.
    pub fn public(&self) -> PublicKey {
        self.public
    }

    pub(crate) fn secret(&self) -> &[u8; KEY_BYTES] {
        &self.secret
    }

    fn from_secret(secret: Box<Zeroizing<[u8; KEY_BYTES]>>) -> Result<Self, KeyError> {
        let public = PublicKey::from_bytes(curve(&secret)?.pubkey())?;
        Ok(Self { secret, public })
    }
}

/// X25519 with a secret.
fn curve(secret: &[u8; KEY_BYTES]) -> Result<Box<dyn Dh>, KeyError> {
    let mut dh = DefaultResolver
        .resolve_dh(&DHChoice::Curve25519)
        .ok_or(KeyError::Public)?;
    dh.set(secret);
    Ok(dh)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_key_reads_back_from_its_file_which_nobody_else_may_read() {
        let dir = tempfile::tempdir().expect("directory");
        let path = dir.path().join("key");
        let key = StaticKey::generate().expect("a key");
        fs::write(&path, key.to_text().as_bytes()).expect("written");
        let mode = |mode| fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("mode");
        mode(0o600);
        let read = StaticKey::read(&path).expect("read");
        assert_eq!(read.public(), key.public());
        assert_eq!(read.secret(), key.secret());
        for exposed in [0o640, 0o604, 0o660] {
            mode(exposed);
            assert!(matches!(StaticKey::read(&path), Err(KeyError::Exposed)));
        }
    }

    #[test]
    fn another_version_a_foreign_public_key_and_more_text_are_refused() {
        let key = StaticKey::generate().expect("a key");
        let other = StaticKey::generate().expect("a key").public().to_string();
        let text = key.to_text();
        for wrong in [
            text.replace("key 1", "key 2"),
            text.replace(&key.public().to_string(), &other),
            format!("{}more\n", *text),
            text.replace("secret ", "secret A"),
            String::new(),
        ] {
            assert!(
                matches!(StaticKey::from_text(&wrong), Err(KeyError::File)),
                "{wrong}"
            );
        }
    }

    /// RFC 7748, 6.1.
    #[test]
    fn the_public_half_is_that_of_x25519() {
        let mut secret = Box::new(Zeroizing::new([0; KEY_BYTES]));
        secret.copy_from_slice(&[
            0x77, 0x07, 0x6d, 0x0a, 0x73, 0x18, 0xa5, 0x7d, 0x3c, 0x16, 0xc1, 0x72, 0x51, 0xb2, 0x66, 0x45,
            0xdf, 0x4c, 0x2f, 0x87, 0xeb, 0xc0, 0x99, 0x2a, 0xb1, 0x77, 0xfb, 0xa5, 0x1d, 0xb9, 0x2c, 0x2a,
        ]);
        let public = [
            0x85, 0x20, 0xf0, 0x09, 0x89, 0x30, 0xa7, 0x54, 0x74, 0x8b, 0x7d, 0xdc, 0xb4, 0x3e, 0xf7, 0x5a,
            0x0d, 0xbf, 0x3a, 0x0d, 0x26, 0x38, 0x1a, 0xf4, 0xeb, 0xa4, 0xa9, 0x8e, 0xaa, 0x9b, 0x4e, 0x6a,
        ];
        let key = StaticKey::from_secret(secret).expect("a key");
        assert_eq!(key.public().as_bytes(), &public);
    }

    #[test]
    fn points_that_everybody_can_use_are_no_keys() {
        let mut one = [0; KEY_BYTES];
        one[0] = 1;
        assert!(PublicKey::from_bytes(&[0; KEY_BYTES]).is_err());
        assert!(PublicKey::from_bytes(&one).is_err());
        assert!(PublicKey::from_bytes(&[9; 31]).is_err());
        let mut second_name = *StaticKey::generate().expect("a key").public().as_bytes();
        second_name[31] |= 0x80;
        assert!(PublicKey::from_bytes(&second_name).is_err());
    }

    proptest! {
        #[test]
        fn a_mistyped_public_key_is_refused(secret: [u8; 32], at in any::<prop::sample::Index>(), to in "[A-Za-z0-9_-]") {
            let key = StaticKey::from_secret(Box::new(Zeroizing::new(secret))).expect("a key").public();
            let text = key.to_string();
            prop_assert_eq!(text.parse::<PublicKey>().expect("parses"), key);
            let at = at.index(text.len());
            let mut typed = text.clone();
            typed.replace_range(at..=at, &to);
            prop_assume!(typed != text);
            prop_assert!(typed.parse::<PublicKey>().is_err());
        }

        #[test]
        fn no_text_makes_the_parsers_panic(text in "\\PC{0,200}") {
            let _ = text.parse::<PublicKey>();
            let _ = StaticKey::from_text(&text);
        }
    }
}

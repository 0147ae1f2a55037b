//! Data of any size, encrypted in chunks under a data key.
//!
//! The STREAM construction (Hoang, Reyhanitabar, Rogaway, Vizár, "Online Authenticated-Encryption and its Nonce-Reuse
//! Misuse-Resistance", CRYPTO 2015) over AES-256-GCM: the nonce of a chunk is `prefix 7 | index 4 BE | last 1`, so that
//! chunks can be neither reordered, dropped, repeated nor cut off at the end, and each can be opened alone.
//!
//! ```text
//! header: magic "ASs" | version 1 | suite 1 | chunk bytes 4 BE | salt 32 | commitment 32
//! then for every chunk: ciphertext | tag 16
//! ```
//!
//! Suite 1: HKDF-SHA256 derives the AES key, the nonce prefix and the key commitment from data key, salt and the caller's
//! context. All chunks but the last hold exactly `chunk bytes` of plaintext.

use aes_gcm::{Aes256Gcm, KeyInit as _, Nonce, aead::AeadInOut as _};
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use crate::{CryptoError, MacKey, SecretBytes, SecretKey, kdf, random_array};

const MAGIC: &[u8; 3] = b"ASs";
const VERSION: u8 = 1;
const SUITE: u8 = 1;
const LABEL: &str = "asterism/stream/v1";
/// Length of the header.
pub const HEADER_BYTES: usize = 3 + 1 + 1 + 4 + 32 + 32;
/// Length of the tag after every chunk.
pub const TAG_BYTES: usize = 16;
/// Smallest chunk.
pub const MIN_CHUNK_BYTES: u32 = 4 << 10;
/// Largest chunk.
pub const MAX_CHUNK_BYTES: u32 = 16 << 20;

type Cipher = Aes256Gcm;

/// What a stream says of itself in the clear. Trust it only after a chunk was opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamHeader {
    /// Plaintext bytes of every chunk but the last.
    pub chunk_bytes: u32,
    salt: [u8; 32],
    commitment: [u8; 32],
}

impl StreamHeader {
    /// Reads a header of exactly [`HEADER_BYTES`].
    ///
    /// # Errors
    /// [`CryptoError::Malformed`], [`CryptoError::UnsupportedVersion`], [`CryptoError::UnsupportedSuite`].
    pub fn parse(header: &[u8]) -> Result<Self, CryptoError> {
        const MALFORMED: CryptoError = CryptoError::Malformed("stream header");
        let header: &[u8; HEADER_BYTES] = header.try_into().map_err(|_| MALFORMED)?;
        let (magic, rest) = header.split_first_chunk::<3>().ok_or(MALFORMED)?;
        let ([version, suite], rest) = rest.split_first_chunk::<2>().ok_or(MALFORMED)?;
        let (chunk_bytes, rest) = rest.split_first_chunk::<4>().ok_or(MALFORMED)?;
        let (salt, commitment) = rest.split_first_chunk::<32>().ok_or(MALFORMED)?;
        if magic != MAGIC {
            return Err(MALFORMED);
        }
        if *version != VERSION {
            return Err(CryptoError::UnsupportedVersion(*version));
        }
        if *suite != SUITE {
            return Err(CryptoError::UnsupportedSuite(*suite));
        }
        let chunk_bytes = u32::from_be_bytes(*chunk_bytes);
        check_chunk_bytes(chunk_bytes)?;
        let commitment = commitment.try_into().map_err(|_| MALFORMED)?;
        Ok(Self {
            chunk_bytes,
            salt: *salt,
            commitment,
        })
    }

    fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..3].copy_from_slice(MAGIC);
        bytes[3] = VERSION;
        bytes[4] = SUITE;
        bytes[5..9].copy_from_slice(&self.chunk_bytes.to_be_bytes());
        bytes[9..41].copy_from_slice(&self.salt);
        bytes[41..].copy_from_slice(&self.commitment);
        bytes
    }
}

/// Encrypts the chunks of one stream, in order.
pub struct StreamSealer {
    cipher: Cipher,
    prefix: [u8; 7],
    chunk_bytes: u32,
    next: u64,
    finished: bool,
}

impl StreamSealer {
    /// Starts a stream under `data_key`, bound to `context`; also gives the header to store in front.
    ///
    /// # Errors
    /// [`CryptoError::InvalidParameters`] for a chunk size outside 4 KiB..=16 MiB, [`CryptoError::Randomness`].
    pub fn new(
        data_key: &SecretKey,
        chunk_bytes: u32,
        context: &[u8],
    ) -> Result<(Self, [u8; HEADER_BYTES]), CryptoError> {
        Self::with_salt(data_key, chunk_bytes, context, random_array()?)
    }

    pub(crate) fn with_salt(
        data_key: &SecretKey,
        chunk_bytes: u32,
        context: &[u8],
        salt: [u8; 32],
    ) -> Result<(Self, [u8; HEADER_BYTES]), CryptoError> {
        check_chunk_bytes(chunk_bytes)?;
        let derived = Derived::new(data_key, &salt, chunk_bytes, context);
        let header = StreamHeader {
            chunk_bytes,
            salt,
            commitment: derived.commitment(),
        };
        let sealer = Self {
            cipher: derived.cipher(),
            prefix: derived.prefix(),
            chunk_bytes,
            next: 0,
            finished: false,
        };
        Ok((sealer, header.encode()))
    }

    /// Encrypts the next chunk.
    ///
    /// # Errors
    /// As [`StreamSealer::seal_chunk_in_place`].
    pub fn seal_chunk(&mut self, plaintext: &[u8], last: bool) -> Result<Vec<u8>, CryptoError> {
        let mut buffer = Vec::with_capacity(plaintext.len() + TAG_BYTES);
        buffer.extend_from_slice(plaintext);
        self.seal_chunk_in_place(&mut buffer, last)?;
        Ok(buffer)
    }

    /// Encrypts the next chunk where it lies and appends its tag; allocates nothing when 16 bytes of capacity are left.
    ///
    /// # Errors
    /// [`CryptoError::InvalidParameters`] when a chunk before the last is not exactly full, the last is too long, an empty
    /// last chunk follows others, or the stream has ended (also after 2^32 chunks).
    pub fn seal_chunk_in_place(&mut self, buffer: &mut Vec<u8>, last: bool) -> Result<(), CryptoError> {
        if self.finished {
            return Err(CryptoError::InvalidParameters("the stream has ended"));
        }
        let full = self.chunk_bytes as usize;
        if buffer.len() > full || (!last && buffer.len() != full) {
            return Err(CryptoError::InvalidParameters(
                "every chunk but the last must be full",
            ));
        }
        if last && buffer.is_empty() && self.next > 0 {
            return Err(CryptoError::InvalidParameters(
                "an empty last chunk must be the only one",
            ));
        }
        let nonce = nonce(&self.prefix, self.next, last)
            .ok_or(CryptoError::InvalidParameters("a stream has at most 2^32 chunks"))?;
        self.cipher
            .encrypt_in_place(&nonce, b"", buffer)
            .map_err(|_| CryptoError::InvalidParameters("the chunk is too long for AES-GCM"))?;
        self.next += 1;
        self.finished = last;
        Ok(())
    }
}

/// Decrypts chunks of one stream, in any order.
pub struct StreamOpener {
    cipher: Cipher,
    prefix: [u8; 7],
    chunk_bytes: u32,
}

impl StreamOpener {
    /// Opens the stream with this header.
    ///
    /// # Errors
    /// [`CryptoError::Authentication`] when the data key or the context is not the stream's; format errors as
    /// [`StreamHeader::parse`].
    pub fn new(data_key: &SecretKey, header: &[u8], context: &[u8]) -> Result<Self, CryptoError> {
        let header = StreamHeader::parse(header)?;
        let derived = Derived::new(data_key, &header.salt, header.chunk_bytes, context);
        if !bool::from(derived.commitment().ct_eq(&header.commitment)) {
            return Err(CryptoError::Authentication);
        }
        Ok(Self {
            cipher: derived.cipher(),
            prefix: derived.prefix(),
            chunk_bytes: header.chunk_bytes,
        })
    }

    /// Plaintext bytes of every chunk but the last.
    pub fn chunk_bytes(&self) -> u32 {
        self.chunk_bytes
    }

    /// Decrypts chunk `index`, which must be the last exactly when `last` says so.
    ///
    /// # Errors
    /// [`CryptoError::ChunkDamaged`]
    pub fn open_chunk(&self, index: u64, last: bool, ciphertext: &[u8]) -> Result<SecretBytes, CryptoError> {
        let mut buffer = ciphertext.to_vec();
        self.open_chunk_in_place(index, last, &mut buffer)?;
        Ok(SecretBytes::new(buffer))
    }

    /// Decrypts a chunk where it lies and drops its tag.
    ///
    /// # Errors
    /// [`CryptoError::ChunkDamaged`]; the buffer then holds ciphertext still.
    pub fn open_chunk_in_place(
        &self,
        index: u64,
        last: bool,
        buffer: &mut Vec<u8>,
    ) -> Result<(), CryptoError> {
        let damaged = CryptoError::ChunkDamaged { index };
        let full = self.chunk_bytes as usize + TAG_BYTES;
        if buffer.len() > full || (!last && buffer.len() != full) {
            return Err(damaged);
        }
        let Some(nonce) = nonce(&self.prefix, index, last) else {
            return Err(damaged);
        };
        self.cipher
            .decrypt_in_place(&nonce, b"", buffer)
            .map_err(|_| damaged)
    }
}

/// The key for a MAC over the header and the chunk digests of a stream encrypted under `data_key`: only who holds the
/// data key can make one, and so say which ciphertext it is for.
pub fn mac_key(data_key: &SecretKey) -> MacKey {
    MacKey::new(kdf::derive(data_key, b"", "asterism/stream-mac/v1", b""))
}

fn check_chunk_bytes(chunk_bytes: u32) -> Result<(), CryptoError> {
    if (MIN_CHUNK_BYTES..=MAX_CHUNK_BYTES).contains(&chunk_bytes) {
        Ok(())
    } else {
        Err(CryptoError::InvalidParameters("a chunk has 4 KiB to 16 MiB"))
    }
}

fn nonce(prefix: &[u8; 7], index: u64, last: bool) -> Option<Nonce<aes_gcm::aead::consts::U12>> {
    let index = u32::try_from(index).ok()?;
    let mut nonce = [0; 12];
    nonce[..7].copy_from_slice(prefix);
    nonce[7..11].copy_from_slice(&index.to_be_bytes());
    nonce[11] = last.into();
    Some(nonce.into())
}

/// Key (32), nonce prefix (7) and commitment (32) of one stream.
struct Derived(Zeroizing<[u8; 71]>);

impl Derived {
    fn new(data_key: &SecretKey, salt: &[u8; 32], chunk_bytes: u32, context: &[u8]) -> Self {
        let mut bytes = Zeroizing::new([0; 71]);
        let context = [&[VERSION, SUITE], chunk_bytes.to_be_bytes().as_slice(), context].concat();
        kdf::expand(data_key, salt, LABEL, &context, bytes.as_mut_slice());
        Self(bytes)
    }

    fn cipher(&self) -> Cipher {
        Cipher::new_from_slice(&self.0[..32]).expect("32 bytes are an AES-256 key")
    }

    fn prefix(&self) -> [u8; 7] {
        let mut prefix = [0; 7];
        prefix.copy_from_slice(&self.0[32..39]);
        prefix
    }

    fn commitment(&self) -> [u8; 32] {
        let mut commitment = [0; 32];
        commitment.copy_from_slice(&self.0[39..]);
        commitment
    }
}

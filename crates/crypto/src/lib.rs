//! Envelopes, streaming AEAD, digests, MACs, signatures and password hashing: pure, no I/O.
//!
//! Every primitive comes from RustCrypto, and HPKE from the crate of that name, which stands on them; what is made here are
//! the formats around them: [`envelope`] and [`deterministic`] for single messages, [`stream`] for data of any size,
//! [`signed`] for statements, [`token`] for bearer tokens. All are versioned, bind their context, commit to their key, and
//! refuse what they do not know. [`mod@hpke`] and [`key_wrap`] are as their RFCs have them. `docs/formats.md` has all of
//! them byte by byte.

pub mod checksum;
pub mod context;
pub mod deterministic;
pub mod digest;
pub mod envelope;
mod error;
pub mod hpke;
pub mod jws;
pub mod kdf;
pub mod key_wrap;
pub mod keyed_hash;
pub mod login_key;
pub mod mac;
pub mod opaque;
pub mod password;
pub mod secret;
pub mod shares;
pub mod sign;
pub mod signed;
pub mod stream;
pub mod token;
pub mod totp;
pub mod transfer;

pub use checksum::crc32c;
pub use context::Context;
pub use deterministic::DeterministicKey;
pub use digest::{Digest, DigestWriter};
pub use envelope::{EnvelopeHeader, KeyRef};
pub use error::CryptoError;
pub use hpke::{DecryptionKey, EncryptionKey};
pub use key_wrap::WrappingKey;
pub use keyed_hash::{HmacKey, MacHash};
pub use mac::{MacKey, MacTag, MacWriter};
pub use password::Argon2Params;
pub use secret::{SecretBytes, SecretKey, random_array};
pub use sign::{Signature, SigningKey, VerifyingKey};
pub use signed::Signed;
pub use stream::{StreamOpener, StreamSealer};
pub use token::TokenKey;

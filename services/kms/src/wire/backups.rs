//! Whom a backup is sealed to.

use asterism_crypto::{Argon2Params, EncryptionKey};
use asterism_proto::kms as pb;

use crate::backup::{BackupError, Derivation, Recipient};

const MAX_PEM_BYTES: usize = 4096;
/// RFC 9106 has no less: guessing would be too cheap.
const MIN_MEMORY_KIB: u32 = 16 << 10;
const MAX_MEMORY_KIB: u32 = 2 << 20;

pub(crate) fn backup_recipient(request: pb::CreateBackupRequest) -> Result<Recipient, BackupError> {
    let pem = &request.recipient_pem;
    let key = (pem.len() <= MAX_PEM_BYTES)
        .then(|| EncryptionKey::from_pem(pem).ok())
        .flatten()
        .ok_or(BackupError::Field {
            field: "recipient_pem",
            description: "must be a P-256 public key, SubjectPublicKeyInfo in PEM",
        })?;
    let derivation = request.passphrase.map(derivation).transpose()?;
    Ok(Recipient::new(key, derivation))
}

fn derivation(passphrase: pb::BackupPassphrase) -> Result<Derivation, BackupError> {
    let field = |field, description| Err(BackupError::Field { field, description });
    if passphrase.salt.len() != 16 {
        return field("passphrase.salt", "must be 16 bytes");
    }
    if !(MIN_MEMORY_KIB..=MAX_MEMORY_KIB).contains(&passphrase.memory_kib) {
        return field("passphrase.memory_kib", "must be 16 MiB to 2 GiB");
    }
    if !(1..=64).contains(&passphrase.iterations) {
        return field("passphrase.iterations", "must be 1 to 64");
    }
    if !(1..=64).contains(&passphrase.parallelism) {
        return field("passphrase.parallelism", "must be 1 to 64");
    }
    Ok(Derivation {
        argon2id: Argon2Params {
            memory_kib: passphrase.memory_kib,
            iterations: passphrase.iterations,
            parallelism: passphrase.parallelism,
        },
        salt: passphrase.salt,
    })
}

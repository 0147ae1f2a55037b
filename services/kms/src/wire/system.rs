//! The seal, and what opens it.

use asterism_crypto::{Digest, SecretBytes, SecretKey, shares::Share};
use asterism_proto::kms::{self as pb, rekey_request::NewSeal as Wish, unseal_secret::Secret as Given};
use zeroize::Zeroizing;

use super::timestamp;
use crate::{
    error::KmsError,
    root::{NewSeal, RootError, SealKind, Secret},
    vault::Status,
};

/// Of a passphrase or the text of a share.
const MAX_SECRET_BYTES: usize = 1024;
/// As many as there may be shares.
const MAX_SECRETS: usize = 16;
const NO_SECRET: &str = "must be a share or a passphrase of at most 1024 bytes";

pub(crate) fn secret(given: pb::UnsealSecret) -> Result<Secret, KmsError> {
    match given.secret {
        Some(Given::Share(text)) if text.len() <= MAX_SECRET_BYTES => {
            let text = Zeroizing::new(text);
            let share: Share = text.trim().parse().map_err(RootError::from)?;
            Ok(Secret::Share(share))
        }
        Some(Given::Passphrase(text)) => Ok(Secret::Passphrase(passphrase("secret", text)?)),
        _ => Err(KmsError::field("secret", NO_SECRET)),
    }
}

pub(crate) fn secrets(given: Vec<pb::UnsealSecret>) -> Result<Vec<Secret>, KmsError> {
    if given.len() > MAX_SECRETS {
        return Err(KmsError::field("secrets", "must be at most 16"));
    }
    given.into_iter().map(secret).collect()
}

pub(crate) fn new_seal(wish: Option<Wish>) -> Result<NewSeal, KmsError> {
    match wish {
        Some(Wish::KeyFile(pb::KeyFileSeal {})) => Ok(NewSeal::KeyFile),
        Some(Wish::Passphrase(seal)) => {
            let passphrase = passphrase("passphrase.passphrase", seal.passphrase)?;
            Ok(NewSeal::Passphrase(passphrase))
        }
        Some(Wish::Shares(seal)) => shares(seal),
        Some(Wish::Token(pb::TokenSeal {})) => Ok(NewSeal::Token),
        None => Err(KmsError::field(
            "new_seal",
            "must be one of key_file, passphrase, shares and token",
        )),
    }
}

fn shares(seal: pb::SharesSeal) -> Result<NewSeal, KmsError> {
    let bytes = Zeroizing::new(seal.unseal_key);
    let unseal_key = SecretKey::try_from_slice(&bytes)
        .map_err(|_| KmsError::field("shares.unseal_key", "must be 32 random bytes"))?;
    let field = "shares.share_sha256";
    if seal.share_sha256.len() > MAX_SECRETS {
        return Err(KmsError::field(field, "must be of 2 to 16 shares"));
    }
    let digest = |bytes: Vec<u8>| {
        let bytes: Result<[u8; 32], _> = bytes.try_into();
        bytes
            .map(Digest::from_bytes)
            .map_err(|_| KmsError::field(field, "must be 32 bytes each"))
    };
    Ok(NewSeal::Shares {
        unseal_key,
        threshold: u8::try_from(seal.threshold)
            .map_err(|_| KmsError::field("shares.threshold", "must be 2 to 16"))?,
        digests: seal
            .share_sha256
            .into_iter()
            .map(digest)
            .collect::<Result<_, _>>()?,
    })
}

fn passphrase(field: &'static str, text: String) -> Result<SecretBytes, KmsError> {
    let bytes = SecretBytes::new(text.into_bytes());
    if bytes.is_empty() || bytes.len() > MAX_SECRET_BYTES {
        return Err(KmsError::field(field, "must be 1 to 1024 bytes"));
    }
    Ok(bytes)
}

pub(crate) fn status(status: Status) -> pb::SealStatus {
    let Status {
        facts,
        given,
        root_version,
        rotation,
    } = status;
    let kind = match facts.kind {
        SealKind::KeyFile => pb::SealKind::KeyFile,
        SealKind::Passphrase => pb::SealKind::Passphrase,
        SealKind::Shares => pb::SealKind::Shares,
        SealKind::Token => pb::SealKind::Token,
    };
    pb::SealStatus {
        sealed: root_version.is_none(),
        kind: kind.into(),
        seal_id: facts.id,
        threshold: facts.threshold.into(),
        shares: facts.shares.into(),
        progress: u32::try_from(given).unwrap_or(u32::MAX),
        automatic: facts.automatic,
        create_time: (facts.created_at_ms > 0).then(|| timestamp(facts.created_at_ms)),
        root_version: root_version.unwrap_or(0),
        rotation: rotation.map(|(done, elapsed)| pb::RootRotation {
            done,
            elapsed: elapsed.try_into().ok(),
        }),
    }
}

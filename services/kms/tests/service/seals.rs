//! What opens seals, for tests; and a client of the seal.

use std::{fs, path::Path};

use asterism_crypto::{Context, SecretBytes, SecretKey, envelope, kdf, shares};
use asterism_kms::{
    RootKeyConfig,
    root::{NewSeal, init},
};
use asterism_proto::kms::{
    self as pb, UnsealRequest, UnsealSecret, system_service_client::SystemServiceClient,
    unseal_secret::Secret,
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use tempfile::TempDir;
use tonic::{
    Code, Status,
    transport::{Channel, Endpoint},
};
use tonic_types::StatusExt as _;

use crate::support::World;

pub const PASSPHRASE: &str = "correct horse battery staple";

pub fn passphrase(text: &str) -> UnsealSecret {
    UnsealSecret {
        secret: Some(Secret::Passphrase(text.to_owned())),
    }
}

/// A key in three shares, of which two give it.
pub struct Split {
    pub key: SecretKey,
    pub shares: Vec<shares::Share>,
}

impl Split {
    pub fn new() -> Self {
        let key = SecretKey::generate().unwrap();
        Self {
            shares: shares::split(&key, 2, 3).unwrap(),
            key,
        }
    }

    pub fn share(&self, at: usize) -> UnsealSecret {
        UnsealSecret {
            secret: Some(Secret::Share(self.shares[at].to_text().to_string())),
        }
    }

    /// As the seal of a new store.
    pub fn seal(&self) -> NewSeal {
        NewSeal::Shares {
            unseal_key: SecretKey::try_from_slice(self.key.expose()).unwrap(),
            threshold: 2,
            digests: self.shares.iter().map(shares::Share::digest).collect(),
        }
    }

    /// As it is wished for in a rekey.
    pub fn wish(&self) -> pb::rekey_request::NewSeal {
        pb::rekey_request::NewSeal::Shares(pb::SharesSeal {
            unseal_key: self.key.expose().to_vec(),
            threshold: 2,
            share_sha256: self
                .shares
                .iter()
                .map(|share| share.digest().as_bytes().to_vec())
                .collect(),
        })
    }
}

/// A fresh store with this seal, and a service on it.
pub async fn sealed_with(new: NewSeal) -> World {
    let dir: TempDir = tempfile::tempdir().unwrap();
    init(&dir.path().join("kms"), &RootKeyConfig::default(), new, 1).unwrap();
    World::start_with(dir, RootKeyConfig::default()).await.unwrap()
}

pub async fn sealed_with_passphrase() -> World {
    let passphrase = SecretBytes::new(PASSPHRASE.into());
    sealed_with(NewSeal::Passphrase(passphrase)).await
}

pub async fn channel(world: &World) -> Channel {
    let endpoint = Endpoint::from_shared(world.endpoint().to_owned()).unwrap();
    endpoint.connect().await.unwrap()
}

pub async fn system(world: &World) -> SystemServiceClient<Channel> {
    SystemServiceClient::new(channel(world).await)
}

/// Has kms unsealed with a secret, or by itself.
pub async fn unseal(world: &World, secret: Option<UnsealSecret>) -> Result<pb::SealStatus, Status> {
    let answer = system(world).await.unseal(UnsealRequest { secret }).await?;
    Ok(answer.into_inner())
}

pub async fn status(world: &World) -> pb::SealStatus {
    let mut system = system(world).await;
    let answer = system.get_seal_status(pb::GetSealStatusRequest {}).await;
    answer.unwrap().into_inner()
}

pub async fn seal(world: &World) -> pb::SealStatus {
    let request = world.request(pb::SealRequest {});
    system(world).await.seal(request).await.unwrap().into_inner()
}

pub async fn rotate_root(world: &World, secrets: Vec<UnsealSecret>) -> Result<pb::SealStatus, Status> {
    let request = world.request(pb::RotateRootRequest { secrets });
    Ok(system(world).await.rotate_root(request).await?.into_inner())
}

pub async fn rekey(
    world: &World,
    secrets: Vec<UnsealSecret>,
    new_seal: pb::rekey_request::NewSeal,
) -> Result<pb::SealStatus, Status> {
    let request = world.request(pb::RekeyRequest {
        secrets,
        new_seal: Some(new_seal),
    });
    Ok(system(world).await.rekey(request).await?.into_inner())
}

/// The code and the reason of a refusal.
#[track_caller]
pub fn reason<T>(result: Result<T, Status>) -> (Code, String) {
    match result {
        Ok(_) => panic!("not refused"),
        Err(status) => {
            let info = status.get_details_error_info();
            (status.code(), info.map(|info| info.reason).unwrap_or_default())
        }
    }
}

/// What is left of a directory when somebody takes a copy of it.
pub fn copy(from: &Path) -> TempDir {
    let copy = tempfile::tempdir().unwrap();
    let status = std::process::Command::new("cp")
        .arg("-a")
        .arg(from)
        .arg(copy.path())
        .status()
        .unwrap();
    assert!(status.success());
    copy
}

/// The root keys in a data directory whose seal is a key file, read as docs/formats.md says.
pub fn roots(data_dir: &Path) -> Vec<SecretKey> {
    let seal: serde_json::Value =
        serde_json::from_slice(&fs::read(data_dir.join("seal.json")).unwrap()).unwrap();
    let file = seal["kind"]["key_file"]["file"].as_str().unwrap();
    let unseal_key = SecretKey::try_from_slice(&fs::read(data_dir.join(file)).unwrap()).unwrap();
    let id = seal["seal_id"].as_str().unwrap();
    let wrapping_key = kdf::derive(&unseal_key, b"", "asterism/seal/v1", &hex::decode(id).unwrap());
    let open = |root: &serde_json::Value| {
        let bound_to = Context::new("asterism/sealed-root/v1")
            .field("seal", id)
            .field("version", &root["version"].to_string())
            .encode();
        let wrapped = STANDARD.decode(root["wrapped"].as_str().unwrap()).unwrap();
        let root = envelope::open(&wrapping_key, &wrapped, &bound_to).unwrap();
        SecretKey::try_from_slice(root.expose()).unwrap()
    };
    seal["roots"].as_array().unwrap().iter().map(open).collect()
}

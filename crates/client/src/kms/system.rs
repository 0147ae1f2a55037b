//! The seal of a kms: whether its root key is in memory, and how it is kept.

use asterism_crypto::{Digest, SecretKey};
use asterism_proto::kms::{
    self as pb, rekey_request, system_service_client::SystemServiceClient, unseal_secret::Secret,
};
use tonic::{service::interceptor::InterceptedService, transport::Channel};
use zeroize::Zeroizing;

use super::Kms;
use crate::{
    connection::{Carried, Connection, Credentials},
    error::ClientError,
};

type Client = SystemServiceClient<InterceptedService<Channel, Carried>>;

/// What opens a seal. Wiped when dropped; neither shown nor copied.
pub enum UnsealSecret {
    /// One of several that open it together: `asxs1…`.
    Share(Zeroizing<String>),
    /// What a person knows.
    Passphrase(Zeroizing<String>),
}

impl UnsealSecret {
    fn message(&self) -> pb::UnsealSecret {
        let secret = match self {
            Self::Share(text) => Secret::Share(text.to_string()),
            Self::Passphrase(text) => Secret::Passphrase(text.to_string()),
        };
        pb::UnsealSecret { secret: Some(secret) }
    }
}

/// Another seal for the root key.
pub enum NewSeal {
    /// A file that kms makes in its data directory.
    KeyFile,
    /// A passphrase of 12 bytes or more.
    Passphrase(Zeroizing<String>),
    /// Shares of a key that was made and split here.
    Shares {
        /// What was split. The shares stay with the caller.
        unseal_key: SecretKey,
        /// How many of them open the seal.
        threshold: u32,
        /// Of the text of each.
        share_sha256: Vec<Digest>,
    },
    /// A key in the PKCS #11 token that the settings of kms name.
    Token,
}

impl NewSeal {
    fn message(&self) -> rekey_request::NewSeal {
        match self {
            Self::KeyFile => rekey_request::NewSeal::KeyFile(pb::KeyFileSeal {}),
            Self::Passphrase(text) => rekey_request::NewSeal::Passphrase(pb::PassphraseSeal {
                passphrase: text.to_string(),
            }),
            Self::Shares {
                unseal_key,
                threshold,
                share_sha256,
            } => rekey_request::NewSeal::Shares(pb::SharesSeal {
                unseal_key: unseal_key.expose().to_vec(),
                threshold: *threshold,
                share_sha256: share_sha256
                    .iter()
                    .map(|digest| digest.as_bytes().to_vec())
                    .collect(),
            }),
            Self::Token => rekey_request::NewSeal::Token(pb::TokenSeal {}),
        }
    }
}

/// The seal. While kms is sealed all other calls are refused with the reason `SEALED`.
impl Kms {
    /// How kms is sealed, and whether it is. Needs no token.
    pub async fn seal_status(&self) -> Result<pb::SealStatus, ClientError> {
        let request = pb::GetSealStatusRequest {};
        self.connection
            .retrying(|| {
                let mut client = self.open();
                async move { client.get_seal_status(request).await }
            })
            .await
    }

    /// Gives a secret that opens the seal, or, without one, has kms take it from where its settings say. Needs no token. Shares go one by one until
    /// the status says that kms is not sealed any more.
    pub async fn unseal(&self, secret: Option<&UnsealSecret>) -> Result<pb::SealStatus, ClientError> {
        let request = pb::UnsealRequest {
            secret: secret.map(UnsealSecret::message),
        };
        self.connection.once(self.open().unseal(request)).await
    }

    /// Has kms forget the shares that were given so far. Needs no token.
    pub async fn reset_unseal(&self) -> Result<pb::SealStatus, ClientError> {
        let request = pb::ResetUnsealRequest {};
        self.connection.once(self.open().reset_unseal(request)).await
    }

    /// Has kms forget the root key.
    pub async fn seal(&self) -> Result<pb::SealStatus, ClientError> {
        self.connection.once(self.system().seal(pb::SealRequest {})).await
    }

    /// Puts the root key under another seal. `secrets` open the one that there is: none where the settings of kms name what does.
    pub async fn rekey(
        &self,
        secrets: &[UnsealSecret],
        new: &NewSeal,
    ) -> Result<pb::SealStatus, ClientError> {
        let request = pb::RekeyRequest {
            secrets: secrets.iter().map(UnsealSecret::message).collect(),
            new_seal: Some(new.message()),
        };
        self.connection.once(self.system().rekey(request)).await
    }

    /// Has kms make a new root key and wrap everything anew under it; [`Kms::seal_status`] tells how far it is. `secrets` as in [`Kms::rekey`].
    pub async fn rotate_root(&self, secrets: &[UnsealSecret]) -> Result<pb::SealStatus, ClientError> {
        let request = pb::RotateRootRequest {
            secrets: secrets.iter().map(UnsealSecret::message).collect(),
        };
        self.connection.once(self.system().rotate_root(request)).await
    }

    fn system(&self) -> Client {
        client(&self.connection)
    }

    /// Without the caller's token, which is refused while kms cannot check it.
    fn open(&self) -> Client {
        client(&self.connection.clone().with_credentials(Credentials::anonymous()))
    }
}

fn client(connection: &Connection) -> Client {
    Client::new(connection.service())
}

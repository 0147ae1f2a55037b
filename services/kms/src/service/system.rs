//! The seal over gRPC: what is answered while everything else waits for it.

use std::sync::Arc;

use asterism_chassis::{
    call::{Caller, Gate, Trail},
    error::{Classify as _, ErrorClass, Failure},
};
use asterism_proto::kms::{self as pb, system_service_server::SystemService};
use tonic::{Request, Response, Status};

use crate::{
    directory::Sender,
    error::KmsError,
    root::{NewSeal, RootError},
    vault::{Turn, Vault},
    wire,
};

/// What is answered while sealed.
pub(crate) const EXEMPT: &[&str] = &[
    "asterism.kms.v1.SystemService/GetSealStatus",
    "asterism.kms.v1.SystemService/ResetUnseal",
    "asterism.kms.v1.SystemService/Unseal",
];

/// Adapter of `SystemService`.
pub(crate) struct SystemAdapter {
    gate: Gate,
    vault: Arc<Vault>,
}

impl SystemAdapter {
    pub(crate) fn new(gate: Gate, vault: Arc<Vault>) -> Self {
        Self { gate, vault }
    }

    /// Does something to the vault, and answers how things stand after it.
    async fn on_vault<Req>(
        &self,
        operation: &'static str,
        request: Request<Req>,
        work: impl FnOnce(&On<'_>, Req, &mut Trail) -> Result<(), Failure> + Send + 'static,
    ) -> Result<Response<pb::SealStatus>, Status>
    where
        Req: Send + 'static,
    {
        let vault = self.vault.clone();
        self.gate
            .blocking(operation, request, move |caller, message, trail| {
                work(
                    &On {
                        caller,
                        vault: &vault,
                    },
                    message,
                    trail,
                )?;
                let status = vault.status();
                trail.resource(seal_name(&status.facts.id));
                Ok(wire::seal_status(status))
            })
            .await
    }
}

/// The vault at the moment of a request.
struct On<'a> {
    caller: &'a Caller,
    vault: &'a Vault,
}

impl<'a> On<'a> {
    /// Waits for a turn, as long as the caller waits.
    fn turn(&self, trail: &mut Trail) -> Result<Turn<'a>, Failure> {
        let turn = self.vault.turn();
        trail.resource(seal_name(&self.vault.status().facts.id));
        if self.caller.expired() {
            let text = "the deadline passed before the seal was free";
            return Err(Failure::new(
                ErrorClass::DeadlineExceeded,
                "DEADLINE_EXCEEDED",
                text,
            ));
        }
        Ok(turn)
    }

    /// Refuses a secret that others may have read on its way.
    fn in_confidence(&self) -> Result<(), Failure> {
        Sender::of(self.caller.channel_key, self.caller.network)?;
        Ok(())
    }
}

#[tonic::async_trait]
impl SystemService for SystemAdapter {
    async fn get_seal_status(
        &self,
        request: Request<pb::GetSealStatusRequest>,
    ) -> Result<Response<pb::SealStatus>, Status> {
        self.on_vault("kms.GetSealStatus", request, |_, _, trail| {
            trail.silent();
            Ok(())
        })
        .await
    }

    async fn unseal(&self, request: Request<pb::UnsealRequest>) -> Result<Response<pb::SealStatus>, Status> {
        self.on_vault("kms.Unseal", request, |on, message, trail| {
            if message.secret.is_some() {
                on.in_confidence()?;
            }
            let secret = message.secret.map(wire::unseal_secret).transpose()?;
            let mut turn = on.turn(trail)?;
            if on.vault.get().is_ok() {
                // Nothing was tried: whether the secret is right, nobody learns.
                trail.silent();
                return Ok(());
            }
            let opened = turn.unseal(secret).map_err(opens)?;
            trail.remark(if opened { "UNSEALED" } else { "SHARE_TAKEN" });
            Ok(())
        })
        .await
    }

    async fn reset_unseal(
        &self,
        request: Request<pb::ResetUnsealRequest>,
    ) -> Result<Response<pb::SealStatus>, Status> {
        self.on_vault("kms.ResetUnseal", request, |on, _, trail| {
            if on.turn(trail)?.reset() == 0 {
                trail.silent();
            }
            Ok(())
        })
        .await
    }

    async fn seal(&self, request: Request<pb::SealRequest>) -> Result<Response<pb::SealStatus>, Status> {
        self.on_vault("kms.Seal", request, |on, _, trail| {
            if !on.turn(trail)?.seal() {
                tracing::warn!("sealed while calls are under way: the root key is in memory until they end");
                trail.remark("CALLS_UNDER_WAY");
            }
            Ok(())
        })
        .await
    }

    async fn rekey(&self, request: Request<pb::RekeyRequest>) -> Result<Response<pb::SealStatus>, Status> {
        self.on_vault("kms.Rekey", request, |on, message, trail| {
            let new = wire::new_seal(message.new_seal)?;
            let tells = matches!(new, NewSeal::Passphrase(_) | NewSeal::Shares { .. });
            if tells || !message.secrets.is_empty() {
                on.in_confidence()?;
            }
            let secrets = wire::unseal_secrets(message.secrets)?;
            on.turn(trail)?.rekey(&secrets, new).map_err(opens)
        })
        .await
    }

    async fn rotate_root(
        &self,
        request: Request<pb::RotateRootRequest>,
    ) -> Result<Response<pb::SealStatus>, Status> {
        self.on_vault("kms.RotateRoot", request, |on, message, trail| {
            if !message.secrets.is_empty() {
                on.in_confidence()?;
            }
            let secrets = wire::unseal_secrets(message.secrets)?;
            let version = on.turn(trail)?.rotate_root(&secrets).map_err(opens)?;
            trail.key_version(version);
            Ok(())
        })
        .await
    }
}

/// A wrong secret is a failed login, as far as the firewall and whoever reads events are concerned.
fn opens(error: KmsError) -> Failure {
    match error {
        KmsError::Root(
            wrong @ (RootError::WrongPassphrase
            | RootError::WrongShare
            | RootError::ShareOfAnotherSeal { .. }),
        ) => Failure::new(ErrorClass::Unauthenticated, wrong.reason(), wrong.to_string()),
        other => other.into(),
    }
}

fn seal_name(id: &str) -> String {
    format!("seals/{id}")
}

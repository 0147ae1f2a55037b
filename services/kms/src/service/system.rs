//! The seal over gRPC: what is answered while everything else waits for it.

use std::sync::Arc;

use asterism_chassis::{
    call::{Caller, Gate, Trail},
    error::{Classify as _, ErrorClass, Failure, status_of},
};
use asterism_proto::kms::{self as pb, system_service_server::SystemService};
use tonic::{Request, Response, Status};
use tracing::Instrument as _;

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
#[derive(Clone)]
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
        let adapter = self.clone();
        let begin = async move {
            let begun = adapter.on_vault("kms.RotateRoot", request, |on, message, trail| {
                if !message.secrets.is_empty() {
                    on.in_confidence()?;
                }
                let secrets = wire::unseal_secrets(message.secrets)?;
                let version = on.turn(trail)?.rotate_root(&secrets).map_err(opens)?;
                trail.key_version(version);
                Ok(())
            });
            let begun = begun.await;
            // Once the beginning is on record, so that the end comes after it.
            adapter.vault.wrap_anew();
            begun
        };
        // A caller who goes away does not stop what was begun.
        let task = self.gate.tracker().spawn(begin.in_current_span());
        task.await
            .unwrap_or_else(|_| Err(status_of(&Failure::internal("a request's task was lost"), "")))
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

#[cfg(test)]
mod tests {
    use std::{net::SocketAddr, sync::Arc, time::Instant};

    use asterism_chassis::{
        Foundation,
        config::Common,
        server::{Deadline, MethodPath},
    };
    use tonic::{Code, transport::server::TcpConnectInfo};
    use tonic_types::StatusExt as _;

    use super::*;
    use crate::Config;

    const METHOD: &str = "asterism.kms.v1.SystemService/Unseal";

    fn adapter(dir: &tempfile::TempDir) -> SystemAdapter {
        let config = Config {
            common: Common::embedded("kms", dir.path()),
            ..Config::default()
        };
        let foundation = Foundation::open("kms", &config.common).expect("opened");
        let vault = Vault::new(&config, &foundation, Arc::new(|| 1)).expect("a vault");
        let gate = foundation.gate.sealed_unless(vault.watch(), EXEMPT);
        SystemAdapter::new(gate, Arc::new(vault))
    }

    fn request(from: &str, secret: Option<&str>) -> Request<pb::UnsealRequest> {
        let secret = secret.map(|text| pb::UnsealSecret {
            secret: Some(pb::unseal_secret::Secret::Passphrase(text.to_owned())),
        });
        let mut request = Request::new(pb::UnsealRequest { secret });
        let address: SocketAddr = from.parse().expect("an address");
        request.extensions_mut().insert(MethodPath(METHOD.into()));
        request.extensions_mut().insert(TcpConnectInfo {
            local_addr: None,
            remote_addr: Some(address),
        });
        request
    }

    fn reason(answer: Result<Response<pb::SealStatus>, Status>) -> (Code, String) {
        let status = answer.expect_err("refused");
        let info = status.get_details_error_info().expect("info");
        (status.code(), info.reason)
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_secret_in_the_clear_from_elsewhere_is_refused_whatever_it_is() {
        let dir = tempfile::tempdir().expect("directory");
        let adapter = adapter(&dir);
        let (_, elsewhere) = reason(adapter.unseal(request("192.0.2.7:1", Some("a passphrase"))).await);
        assert_eq!(elsewhere, "CHANNEL_REQUIRED");
        let (_, here) = reason(adapter.unseal(request("127.0.0.1:1", Some("a passphrase"))).await);
        assert_eq!(here, "WRONG_SECRET_KIND");
        // Without one there is nothing to hear on the way.
        let opened = adapter
            .unseal(request("192.0.2.7:1", None))
            .await
            .expect("opened");
        assert!(!opened.into_inner().sealed);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn who_waits_for_a_turn_longer_than_the_deadline_has_done_nothing() {
        let dir = tempfile::tempdir().expect("directory");
        let adapter = adapter(&dir);
        let mut late = request("127.0.0.1:1", None);
        let soon = Instant::now() + std::time::Duration::from_millis(200);
        late.extensions_mut().insert(Deadline(soon));
        let vault = adapter.vault.clone();
        let (taken, is_taken) = std::sync::mpsc::channel();
        let busy = tokio::task::spawn_blocking(move || {
            let turn = vault.turn();
            taken.send(()).expect("the test listens");
            std::thread::sleep(std::time::Duration::from_millis(400));
            drop(turn);
        });
        tokio::task::spawn_blocking(move || is_taken.recv())
            .await
            .expect("joined")
            .expect("taken");
        let (code, _) = reason(adapter.unseal(late).await);
        assert_eq!(code, Code::DeadlineExceeded);
        busy.await.expect("joined");
        assert!(adapter.vault.get().is_err(), "it is sealed still");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn nothing_is_opened_anew_while_a_call_of_before_holds_on() {
        let dir = tempfile::tempdir().expect("directory");
        let vault = adapter(&dir).vault;
        let turn = |vault: &Arc<Vault>, work: fn(&mut Turn<'_>) -> bool| {
            let vault = vault.clone();
            tokio::task::spawn_blocking(move || work(&mut vault.turn()))
        };
        let opens = |turn: &mut Turn<'_>| turn.unseal(None).is_ok();
        let seals = |turn: &mut Turn<'_>| turn.seal();
        assert!(turn(&vault, opens).await.expect("joined"));
        let held = vault.get().expect("open");
        let weak = Arc::downgrade(&held);
        let sealing = turn(&vault, seals);
        let mut watch = vault.watch();
        watch.wait_for(|open| !open).await.expect("sealed");
        assert!(vault.get().is_err(), "who comes later finds nothing");
        assert!(weak.upgrade().is_some(), "who was there works on");
        drop(held);
        assert!(sealing.await.expect("joined"), "and is waited for");
        assert!(weak.upgrade().is_none());
        assert!(turn(&vault, opens).await.expect("joined"));
    }
}

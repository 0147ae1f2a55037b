//! The gRPC adapter of the directory: who asks, parse, one call into the domain, translate.

mod wire;

use std::{sync::Arc, time::Duration};

use asterism_chassis::{
    call::{Caller, Emitter, Gate, ReplyStream, Trail},
    error::{ErrorClass, Failure},
    identity::{PrincipalId, Role, Trust},
    paging::page_size,
};
use asterism_proto::identity::{self as pb, identity_service_server::IdentityService};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use crate::{
    Clock, KmsError,
    directory::{Directory, DirectoryError, LoginStep, Sender},
    vault::Vault,
};

/// Watchers hear so often that kms is there.
const SIGN_OF_LIFE: Duration = Duration::from_secs(1);

pub(crate) struct IdentityAdapter {
    gate: Gate,
    vault: Arc<Vault>,
    trust: Arc<Trust>,
    clock: Clock,
    draining: CancellationToken,
}

impl IdentityAdapter {
    pub(crate) fn new(
        gate: Gate,
        vault: Arc<Vault>,
        trust: Arc<Trust>,
        clock: Clock,
        draining: CancellationToken,
    ) -> Self {
        Self {
            gate,
            vault,
            trust,
            clock,
            draining,
        }
    }

    /// Runs an operation on the directory.
    async fn on_directory<Req, Res>(
        &self,
        operation: &'static str,
        request: Request<Req>,
        work: impl FnOnce(&On<'_>, Req, &mut Trail) -> Result<Res, DirectoryError> + Send + 'static,
    ) -> Result<Response<Res>, Status>
    where
        Req: Send + 'static,
        Res: Send + 'static,
    {
        let (vault, clock) = (self.vault.clone(), self.clock.clone());
        self.gate
            .blocking(operation, request, move |caller, message, trail| {
                let open = vault.get()?;
                let on = On {
                    caller,
                    directory: &open.directory,
                    now_ms: clock(),
                };
                Ok(work(&on, message, trail)?)
            })
            .await
    }
}

/// The directory at the moment of a request.
struct On<'a> {
    caller: &'a Caller,
    directory: &'a Directory,
    now_ms: u64,
}

impl On<'_> {
    fn sender(&self) -> Result<Sender, DirectoryError> {
        Sender::of(self.caller.channel_key, self.caller.network)
    }

    fn own(&self) -> &PrincipalId {
        &self.caller.principal.id
    }

    /// Refuses what is about somebody else, unless the caller has one of these roles.
    fn about(&self, id: &PrincipalId, or: &[Role]) -> Result<(), DirectoryError> {
        if self.own() == id || or.iter().any(|role| self.caller.principal.is(*role)) {
            Ok(())
        } else {
            Err(DirectoryError::NotOneself)
        }
    }
}

#[tonic::async_trait]
impl IdentityService for IdentityAdapter {
    type WatchTrustStream = ReplyStream<pb::TrustUpdate>;

    async fn create_invitation(
        &self,
        request: Request<pb::CreateInvitationRequest>,
    ) -> Result<Response<pb::CreateInvitationResponse>, Status> {
        self.on_directory("kms.CreateInvitation", request, |on, message, trail| {
            let id = wire::principal_id("principal", &message.principal)?;
            trail.resource(wire::name(&id));
            let roles = wire::roles("roles", &message.roles)?;
            let lifetime_ms = wire::invitation_lifetime(message.lifetime)?;
            let invited = on
                .directory
                .invite(&id, &roles, lifetime_ms, on.own().as_str(), on.now_ms)?;
            Ok(pb::CreateInvitationResponse {
                invitation: invited.text,
                expire_time: Some(wire::timestamp(invited.expires_ms)),
            })
        })
        .await
    }

    async fn start_enrolment(
        &self,
        request: Request<pb::StartEnrolmentRequest>,
    ) -> Result<Response<pb::StartEnrolmentResponse>, Status> {
        self.on_directory("kms.StartEnrolment", request, |on, message, trail| {
            let request = wire::present(&message.registration_request);
            let (id, answer) =
                on.directory
                    .start_enrolment(&message.invitation, request, on.caller.network, on.now_ms)?;
            trail.resource(wire::name(&id));
            Ok(pb::StartEnrolmentResponse {
                principal: wire::name(&id),
                registration_response: answer.unwrap_or_default(),
            })
        })
        .await
    }

    async fn finish_enrolment(
        &self,
        request: Request<pb::FinishEnrolmentRequest>,
    ) -> Result<Response<pb::Principal>, Status> {
        self.on_directory("kms.FinishEnrolment", request, |on, message, trail| {
            let credential = wire::credential(message.credential)?;
            let bind = message.bind_channel_key.then(|| on.sender()).transpose()?;
            let enrolled = on.directory.finish_enrolment(
                &message.invitation,
                &credential,
                bind.as_ref(),
                on.caller.network,
                on.now_ms,
            )?;
            trail.resource(wire::name(&enrolled.id));
            Ok(wire::principal(enrolled))
        })
        .await
    }

    async fn start_login(
        &self,
        request: Request<pb::StartLoginRequest>,
    ) -> Result<Response<pb::StartLoginResponse>, Status> {
        self.on_directory("kms.StartLogin", request, |on, message, trail| {
            let id = wire::principal_id("principal", &message.principal)?;
            trail.resource(wire::name(&id));
            let (login, challenge) = on.directory.start_login(
                &id,
                wire::present(&message.credential_request),
                &message.audience,
                on.sender()?,
                on.caller.network,
                on.now_ms,
            )?;
            Ok(wire::challenge(login, challenge))
        })
        .await
    }

    async fn finish_login(
        &self,
        request: Request<pb::FinishLoginRequest>,
    ) -> Result<Response<pb::LoginResponse>, Status> {
        self.on_directory("kms.FinishLogin", request, |on, message, trail| {
            if let Some(id) = on.directory.who_logs_in(&message.login) {
                trail.resource(wire::name(&id));
            }
            let proof = wire::proof(&message)?;
            let (sender, network) = (on.sender()?, on.caller.network);
            let step = on
                .directory
                .finish_login(&message.login, &proof, &sender, network, on.now_ms)?;
            Ok(wire::step(step))
        })
        .await
    }

    async fn answer_second_factor(
        &self,
        request: Request<pb::AnswerSecondFactorRequest>,
    ) -> Result<Response<pb::LoginResponse>, Status> {
        self.on_directory("kms.AnswerSecondFactor", request, |on, message, trail| {
            if let Some(id) = on.directory.who_logs_in(&message.login) {
                trail.resource(wire::name(&id));
            }
            let kind = wire::factor_kind(message.kind)?;
            let tokens = on.directory.answer_second_factor(
                &message.login,
                kind,
                &message.answer,
                &on.sender()?,
                on.caller.network,
                on.now_ms,
            )?;
            Ok(wire::step(LoginStep::Done(tokens)))
        })
        .await
    }

    async fn refresh_token(
        &self,
        request: Request<pb::RefreshTokenRequest>,
    ) -> Result<Response<pb::Tokens>, Status> {
        self.on_directory("kms.RefreshToken", request, |on, message, trail| {
            let tokens = on
                .directory
                .refresh(&message.refresh_token, &on.sender()?, on.now_ms)?;
            trail.resource(wire::name(&tokens.principal));
            Ok(wire::tokens(tokens))
        })
        .await
    }

    async fn logout(
        &self,
        request: Request<pb::LogoutRequest>,
    ) -> Result<Response<pb::LogoutResponse>, Status> {
        self.on_directory("kms.Logout", request, |on, message, trail| {
            let refresh = message.refresh_token.as_str();
            match (&on.caller.access, refresh) {
                (Some(access), "") => {
                    trail.resource(wire::name(on.own()));
                    on.directory
                        .end_session(&access.claims.sid, on.own(), on.now_ms)?;
                }
                (None, "") => return Err(DirectoryError::SessionEnded),
                (_, refresh) => {
                    let ended = on.directory.log_out(refresh, &on.sender()?, on.now_ms)?;
                    trail.resource(wire::name(&ended));
                }
            }
            Ok(pb::LogoutResponse {})
        })
        .await
    }

    async fn who_am_i(
        &self,
        request: Request<pb::WhoAmIRequest>,
    ) -> Result<Response<pb::WhoAmIResponse>, Status> {
        self.on_directory("kms.WhoAmI", request, |on, _, trail| {
            trail.silent();
            Ok(wire::who(on.caller))
        })
        .await
    }

    async fn list_principals(
        &self,
        request: Request<pb::ListPrincipalsRequest>,
    ) -> Result<Response<pb::ListPrincipalsResponse>, Status> {
        let vault = self.vault.clone();
        self.gate
            .blocking("kms.ListPrincipals", request, move |_, message, trail| {
                trail.silent();
                let open = vault.get()?;
                let limit = page_size(message.page_size)?;
                let after = wire::page_token(&message.page_token)?;
                let page = open.directory.principals(after.as_ref(), limit)?;
                let next = page.last().filter(|_| page.len() == limit);
                let next_page_token = next.map(|last| last.id.to_string()).unwrap_or_default();
                Ok(pb::ListPrincipalsResponse {
                    principals: page.into_iter().map(wire::principal).collect(),
                    next_page_token,
                })
            })
            .await
    }

    async fn get_principal(
        &self,
        request: Request<pb::GetPrincipalRequest>,
    ) -> Result<Response<pb::Principal>, Status> {
        self.on_directory("kms.GetPrincipal", request, |on, message, trail| {
            let id = wire::principal_id("name", &message.name)?;
            trail.resource(wire::name(&id)).silent();
            on.about(&id, &[Role::Admin, Role::Auditor])?;
            Ok(wire::principal(on.directory.principal(&id)?))
        })
        .await
    }

    async fn update_principal(
        &self,
        request: Request<pb::UpdatePrincipalRequest>,
    ) -> Result<Response<pb::Principal>, Status> {
        self.on_directory("kms.UpdatePrincipal", request, |on, message, trail| {
            let principal = message.principal.unwrap_or_default();
            let id = wire::principal_id("principal.name", &principal.name)?;
            trail.resource(wire::name(&id));
            let update = wire::update(&principal, message.update_mask)?;
            Ok(wire::principal(on.directory.update(&id, &update, on.now_ms)?))
        })
        .await
    }

    async fn delete_principal(
        &self,
        request: Request<pb::DeletePrincipalRequest>,
    ) -> Result<Response<pb::DeletePrincipalResponse>, Status> {
        self.on_directory("kms.DeletePrincipal", request, |on, message, trail| {
            let id = wire::principal_id("name", &message.name)?;
            trail.resource(wire::name(&id));
            on.directory.delete(&id, on.now_ms)?;
            Ok(pb::DeletePrincipalResponse {})
        })
        .await
    }

    async fn revoke_principal_tokens(
        &self,
        request: Request<pb::RevokePrincipalTokensRequest>,
    ) -> Result<Response<pb::Principal>, Status> {
        self.on_directory("kms.RevokePrincipalTokens", request, |on, message, trail| {
            let id = wire::principal_id("name", &message.name)?;
            trail.resource(wire::name(&id));
            on.about(&id, &[Role::Admin])?;
            Ok(wire::principal(on.directory.revoke_all(&id, on.now_ms)?))
        })
        .await
    }

    async fn revoke_token(
        &self,
        request: Request<pb::RevokeTokenRequest>,
    ) -> Result<Response<pb::RevokeTokenResponse>, Status> {
        self.on_directory("kms.RevokeToken", request, |on, message, trail| {
            on.directory.revoke_token(&message.token_id, on.now_ms)?;
            trail.resource(format!("tokens/{}", message.token_id));
            Ok(pb::RevokeTokenResponse {})
        })
        .await
    }

    async fn add_second_factor(
        &self,
        request: Request<pb::AddSecondFactorRequest>,
    ) -> Result<Response<pb::AddSecondFactorResponse>, Status> {
        self.on_directory("kms.AddSecondFactor", request, |on, message, trail| {
            trail.resource(wire::name(on.own()));
            let kind = wire::factor_kind(message.kind)?;
            let (factor, uri) = on.directory.add_factor(on.own(), kind, on.now_ms)?;
            Ok(pb::AddSecondFactorResponse {
                factor: Some(wire::factor(factor)),
                uri,
            })
        })
        .await
    }

    async fn confirm_second_factor(
        &self,
        request: Request<pb::ConfirmSecondFactorRequest>,
    ) -> Result<Response<pb::Principal>, Status> {
        self.on_directory("kms.ConfirmSecondFactor", request, |on, message, trail| {
            trail.resource(wire::name(on.own()));
            let (factor, answer) = (&message.factor_id, &message.answer);
            let confirmed = on.directory.confirm_factor(on.own(), factor, answer, on.now_ms)?;
            Ok(wire::principal(confirmed))
        })
        .await
    }

    async fn remove_second_factor(
        &self,
        request: Request<pb::RemoveSecondFactorRequest>,
    ) -> Result<Response<pb::Principal>, Status> {
        self.on_directory("kms.RemoveSecondFactor", request, |on, message, trail| {
            let id = match message.name.as_str() {
                "" => on.own().clone(),
                name => wire::principal_id("name", name)?,
            };
            trail.resource(wire::name(&id));
            on.about(&id, &[Role::Admin])?;
            // Whoever has got hold of a session must not be rid of the factor by it.
            let answer = (on.own() == &id).then_some(message.answer.as_str());
            let left = on
                .directory
                .remove_factor(&id, &message.factor_id, answer, on.now_ms)?;
            Ok(wire::principal(left))
        })
        .await
    }

    async fn get_token_keys(
        &self,
        request: Request<pb::GetTokenKeysRequest>,
    ) -> Result<Response<pb::TokenKeys>, Status> {
        let trust = self.trust.clone();
        self.on_directory("kms.GetTokenKeys", request, move |_, _, trail| {
            trail.silent();
            Ok(pb::TokenKeys {
                keys: wire::token_keys(&trust.view()),
            })
        })
        .await
    }

    async fn watch_trust(
        &self,
        request: Request<pb::WatchTrustRequest>,
    ) -> Result<Response<Self::WatchTrustStream>, Status> {
        let (trust, clock, draining) = (self.trust.clone(), self.clock.clone(), self.draining.clone());
        let mut unsealed = self.vault.watch();
        self.gate
            .watch("kms.WatchTrust", request, move |_, _, emitter| async move {
                emitter.trail(|trail| {
                    trail.silent();
                });
                if !*unsealed.borrow_and_update() {
                    return Err(KmsError::Sealed.into());
                }
                tokio::select! {
                    // First: what holds is not told any more.
                    biased;
                    // Any change is the end: what was open then is not what may be open by now.
                    _ = unsealed.changed() => Err(KmsError::Sealed.into()),
                    result = tell(&trust, &clock, &emitter) => result,
                    () = draining.cancelled() => Err(shutting_down()),
                }
            })
            .await
    }
}

/// Tells what holds, again after every change, and between changes that this service is there.
async fn tell(trust: &Trust, clock: &Clock, emitter: &Emitter<pb::TrustUpdate>) -> Result<(), Failure> {
    let mut changes = trust.changes();
    let mut told = None;
    loop {
        changes.borrow_and_update();
        let view = trust.view();
        let changed = told != Some(view.revision);
        told = Some(view.revision);
        let update = wire::trust_update(&view, changed, clock());
        emitter.send(update).await?;
        tokio::select! {
            // The sender lives as long as `trust`.
            _ = changes.changed() => {}
            () = tokio::time::sleep(SIGN_OF_LIFE) => {}
            () = emitter.closed() => return Err(Failure::cancelled()),
        }
    }
}

fn shutting_down() -> Failure {
    let text = "the service is shutting down; watch again";
    Failure::new(ErrorClass::Unavailable, "SHUTTING_DOWN", text)
}

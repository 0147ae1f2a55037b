//! Identities: enrolling, logging in, and the directory.

use asterism_crypto::{CryptoError, SigningKey, login_key, opaque};
use asterism_proto::identity::{self as pb, identity_service_client::IdentityServiceClient};
use tonic::{service::interceptor::InterceptedService, transport::Channel};
use zeroize::Zeroizing;

use crate::{
    connection::{Carried, Connection, Credentials, MAX_MESSAGE_BYTES},
    error::ClientError,
};

type Client = IdentityServiceClient<InterceptedService<Channel, Carried>>;

/// A shorter password is refused here, since the service never sees it.
pub const MIN_PASSWORD_CHARACTERS: usize = 12;
const MAX_PASSWORD_BYTES: usize = 1024;
const NAME_PREFIX: &str = "principals/";
/// Bytes of a proof, for one that is none.
const NO_PROOF: [u8; 64] = [0; 64];

/// What somebody enrols.
pub enum NewCredential {
    /// A password; it does not leave this process.
    Password(Zeroizing<Vec<u8>>),
    /// A key; its private half does not leave this process.
    Key(SigningKey),
}

/// What comes of a step of a login.
pub enum LoginOutcome {
    /// Logged in.
    Done(pb::Tokens),
    /// A second factor is due: [`Identity::answer_second_factor`] with this login.
    SecondFactor(pb::SecondFactorDue),
}

/// Client of `asterism.identity.v1.IdentityService`, which kms serves. Principals are named as `user/alice`, without `principals/`.
#[derive(Clone)]
pub struct Identity {
    connection: Connection,
    /// For methods that come before there is a token.
    anonymous: Connection,
}

impl Identity {
    /// A client over `connection`, to kms.
    pub fn new(connection: Connection) -> Self {
        Self {
            anonymous: connection.clone().with_credentials(Credentials::anonymous()),
            connection,
        }
    }

    fn client(&self) -> Client {
        client(&self.connection)
    }

    fn open(&self) -> Client {
        client(&self.anonymous)
    }

    /// Invites somebody new with these roles, or, without roles, somebody known to set another password or key.
    pub async fn invite(
        &self,
        principal: &str,
        roles: &[String],
        lifetime: Option<std::time::Duration>,
    ) -> Result<pb::CreateInvitationResponse, ClientError> {
        let lifetime = lifetime
            .map(|lifetime| {
                prost_types::Duration::try_from(lifetime)
                    .map_err(|_| ClientError::Argument("the lifetime is too long".to_owned()))
            })
            .transpose()?;
        let request = pb::CreateInvitationRequest {
            principal: name(principal),
            roles: roles.to_vec(),
            lifetime,
        };
        self.connection
            .once(self.client().create_invitation(request))
            .await
    }

    /// Uses an invitation up; with `bind`, logins are possible only over the channel of this connection's static key from then on.
    ///
    /// # Errors
    /// [`ClientError::Argument`] for a password that is too short or too long.
    pub async fn enrol(
        &self,
        invitation: &str,
        credential: NewCredential,
        bind: bool,
    ) -> Result<pb::Principal, ClientError> {
        use pb::finish_enrolment_request::Credential;
        let start = |registration_request: Vec<u8>| {
            let request = pb::StartEnrolmentRequest {
                invitation: invitation.to_owned(),
                registration_request,
            };
            async move { self.anonymous.once(self.open().start_enrolment(request)).await }
        };
        let credential = match credential {
            NewCredential::Password(password) => {
                check_new_password(&password)?;
                let (registration, request) = opaque::Registration::start(&password)?;
                let answer = start(request).await?;
                let principal = bare(&answer.principal)?.to_owned();
                let response = answer.registration_response;
                let upload = stretch(move || registration.finish(&principal, &password, &response)).await?;
                Credential::RegistrationUpload(upload?)
            }
            NewCredential::Key(key) => {
                let answer = start(vec![]).await?;
                let public = key.verifying_key();
                let statement = login_key::enrolment_statement(invitation, bare(&answer.principal)?, &public);
                Credential::Key(pb::EnrolledKey {
                    public_key: public.to_spki_der(),
                    signature: key.sign(&statement).to_der(),
                })
            }
        };
        let request = pb::FinishEnrolmentRequest {
            invitation: invitation.to_owned(),
            credential: Some(credential),
            bind_channel_key: bind,
        };
        self.anonymous.once(self.open().finish_enrolment(request)).await
    }

    /// Logs in by a password, which does not leave this process. `audience` names the services that the tokens are for; none means all.
    ///
    /// # Errors
    /// Refused with the reason `LOGIN_FAILED` for a wrong password and for somebody unknown alike.
    pub async fn login_with_password(
        &self,
        principal: &str,
        password: Zeroizing<Vec<u8>>,
        audience: &[String],
    ) -> Result<LoginOutcome, ClientError> {
        use pb::{finish_login_request::Proof, start_login_response::Challenge};
        let (login, request) = opaque::Login::start(&password)?;
        let started = self.start(principal, request, audience).await?;
        let Some(Challenge::CredentialResponse(response)) = started.challenge else {
            return Err(ClientError::Protocol(
                "a login by password was not answered as one",
            ));
        };
        let principal = principal.to_owned();
        let finalization = match stretch(move || login.finish(&principal, &password, &response)).await? {
            Ok(finalization) => finalization,
            // The service is told, so that its log has the failure; what it answers is the answer.
            Err(CryptoError::Authentication) => NO_PROOF.to_vec(),
            Err(error) => return Err(error.into()),
        };
        self.finish(started.login, Proof::CredentialFinalization(finalization))
            .await
    }

    /// Logs in by a key that was enrolled.
    pub async fn login_with_key(
        &self,
        principal: &str,
        key: &SigningKey,
        audience: &[String],
    ) -> Result<LoginOutcome, ClientError> {
        use pb::{finish_login_request::Proof, start_login_response::Challenge};
        let started = self.start(principal, vec![], audience).await?;
        let Some(Challenge::KeyChallenge(challenge)) = started.challenge else {
            return Err(ClientError::Protocol("a login by key was not answered as one"));
        };
        let statement = login_key::login_statement(&challenge, principal, audience, &self.anonymous.sender());
        let signature = key.sign(&statement).to_der();
        self.finish(started.login, Proof::Signature(signature)).await
    }

    /// Answers a second factor.
    pub async fn answer_second_factor(
        &self,
        login: &str,
        kind: pb::SecondFactorKind,
        answer: &str,
    ) -> Result<LoginOutcome, ClientError> {
        let request = pb::AnswerSecondFactorRequest {
            login: login.to_owned(),
            kind: kind.into(),
            answer: answer.to_owned(),
        };
        outcome(
            self.anonymous
                .once(self.open().answer_second_factor(request))
                .await?,
        )
    }

    /// A fresh access token of a session.
    pub async fn refresh(&self, refresh_token: &str) -> Result<pb::Tokens, ClientError> {
        let request = pb::RefreshTokenRequest {
            refresh_token: refresh_token.to_owned(),
        };
        self.anonymous
            .retrying(|| {
                let (mut client, request) = (self.open(), request.clone());
                async move { client.refresh_token(request).await }
            })
            .await
    }

    /// Ends the session of this connection's token.
    pub async fn logout(&self) -> Result<(), ClientError> {
        let request = pb::LogoutRequest::default();
        self.connection
            .once(self.client().logout(request))
            .await
            .map(|_| ())
    }

    /// Ends the session of a refresh token, whatever its access tokens are for.
    pub async fn end_session(&self, refresh_token: &str) -> Result<(), ClientError> {
        let request = pb::LogoutRequest {
            refresh_token: refresh_token.to_owned(),
        };
        self.anonymous.once(self.open().logout(request)).await.map(|_| ())
    }

    /// Who this connection's token says that it is.
    pub async fn who_am_i(&self) -> Result<pb::WhoAmIResponse, ClientError> {
        let request = pb::WhoAmIRequest {};
        self.connection
            .retrying(|| client_call!(self, who_am_i, request))
            .await
    }

    /// A page of principals, and the token of the next one.
    pub async fn principals(
        &self,
        page_size: i32,
        page_token: &str,
    ) -> Result<(Vec<pb::Principal>, String), ClientError> {
        let request = pb::ListPrincipalsRequest {
            page_size,
            page_token: page_token.to_owned(),
        };
        let page = self
            .connection
            .retrying(|| client_call!(self, list_principals, request))
            .await?;
        Ok((page.principals, page.next_page_token))
    }

    /// One principal.
    pub async fn principal(&self, principal: &str) -> Result<pb::Principal, ClientError> {
        let request = pb::GetPrincipalRequest {
            name: name(principal),
        };
        self.connection
            .retrying(|| client_call!(self, get_principal, request))
            .await
    }

    /// Sets those fields of a principal that `fields` names: roles, state, channel_keys.
    pub async fn update(
        &self,
        principal: &str,
        mut to: pb::Principal,
        fields: &[&str],
    ) -> Result<pb::Principal, ClientError> {
        to.name = name(principal);
        let request = pb::UpdatePrincipalRequest {
            principal: Some(to),
            update_mask: Some(prost_types::FieldMask {
                paths: fields.iter().map(|field| (*field).to_owned()).collect(),
            }),
        };
        self.connection
            .retrying(|| client_call!(self, update_principal, request))
            .await
    }

    /// Deletes a principal.
    pub async fn delete(&self, principal: &str) -> Result<(), ClientError> {
        let request = pb::DeletePrincipalRequest {
            name: name(principal),
        };
        self.connection
            .once(self.client().delete_principal(request))
            .await
            .map(|_| ())
    }

    /// Ends all sessions of a principal and refuses all its tokens.
    pub async fn revoke_all(&self, principal: &str) -> Result<pb::Principal, ClientError> {
        let request = pb::RevokePrincipalTokensRequest {
            name: name(principal),
        };
        self.connection
            .retrying(|| client_call!(self, revoke_principal_tokens, request))
            .await
    }

    /// Refuses one access token, by its id.
    pub async fn revoke_token(&self, token_id: &str) -> Result<(), ClientError> {
        let request = pb::RevokeTokenRequest {
            token_id: token_id.to_owned(),
        };
        self.connection
            .retrying(|| client_call!(self, revoke_token, request))
            .await
            .map(|_| ())
    }

    /// Makes a second factor for the caller; [`Identity::confirm_second_factor`] has it count.
    pub async fn add_second_factor(
        &self,
        kind: pb::SecondFactorKind,
    ) -> Result<pb::AddSecondFactorResponse, ClientError> {
        let request = pb::AddSecondFactorRequest { kind: kind.into() };
        self.connection
            .once(self.client().add_second_factor(request))
            .await
    }

    /// Confirms it by a first answer.
    pub async fn confirm_second_factor(&self, id: &str, answer: &str) -> Result<pb::Principal, ClientError> {
        let request = pb::ConfirmSecondFactorRequest {
            factor_id: id.to_owned(),
            answer: answer.to_owned(),
        };
        self.connection
            .once(self.client().confirm_second_factor(request))
            .await
    }

    /// Takes a second factor away: one's own (`principal` empty) with an answer, somebody else's as an administrator.
    pub async fn remove_second_factor(
        &self,
        principal: &str,
        id: &str,
        answer: &str,
    ) -> Result<pb::Principal, ClientError> {
        let request = pb::RemoveSecondFactorRequest {
            name: if principal.is_empty() {
                String::new()
            } else {
                name(principal)
            },
            factor_id: id.to_owned(),
            answer: answer.to_owned(),
        };
        self.connection
            .once(self.client().remove_second_factor(request))
            .await
    }

    async fn start(
        &self,
        principal: &str,
        credential_request: Vec<u8>,
        audience: &[String],
    ) -> Result<pb::StartLoginResponse, ClientError> {
        let request = pb::StartLoginRequest {
            principal: name(principal),
            credential_request,
            audience: audience.to_vec(),
        };
        self.anonymous.once(self.open().start_login(request)).await
    }

    async fn finish(
        &self,
        login: String,
        proof: pb::finish_login_request::Proof,
    ) -> Result<LoginOutcome, ClientError> {
        let request = pb::FinishLoginRequest {
            login,
            proof: Some(proof),
        };
        outcome(self.anonymous.once(self.open().finish_login(request)).await?)
    }
}

fn client(connection: &Connection) -> Client {
    Client::new(connection.service())
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES)
}

fn outcome(response: pb::LoginResponse) -> Result<LoginOutcome, ClientError> {
    use pb::login_response::Outcome;
    match response.outcome {
        Some(Outcome::Tokens(tokens)) => Ok(LoginOutcome::Done(tokens)),
        Some(Outcome::SecondFactorDue(due)) => Ok(LoginOutcome::SecondFactor(due)),
        None => Err(ClientError::Protocol("a login ended in nothing")),
    }
}

/// Argon2id takes a good part of a second and 64 MiB: not on a thread of the runtime.
async fn stretch<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, ClientError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|_| ClientError::Protocol("the password could not be stretched"))
}

fn check_new_password(password: &[u8]) -> Result<(), ClientError> {
    let characters = String::from_utf8_lossy(password).chars().count();
    if characters < MIN_PASSWORD_CHARACTERS {
        return Err(ClientError::Argument(format!(
            "the password has {characters} characters and needs at least {MIN_PASSWORD_CHARACTERS}"
        )));
    }
    if password.len() > MAX_PASSWORD_BYTES {
        return Err(ClientError::Argument(format!(
            "the password has {} bytes and may have {MAX_PASSWORD_BYTES}",
            password.len()
        )));
    }
    Ok(())
}

fn name(principal: &str) -> String {
    format!("{NAME_PREFIX}{principal}")
}

fn bare(name: &str) -> Result<&str, ClientError> {
    name.strip_prefix(NAME_PREFIX)
        .ok_or(ClientError::Protocol("a principal is not named as one"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_password_is_refused_with_its_length() {
        let refused = check_new_password("pässwört".as_bytes())
            .expect_err("refused")
            .to_string();
        assert!(
            refused.contains("has 8 characters") && refused.contains("at least 12"),
            "{refused}"
        );
        check_new_password("zwölf Zeich.".as_bytes()).expect("twelve characters");
        assert!(check_new_password(&[b'x'; 1025]).is_err());
    }
}

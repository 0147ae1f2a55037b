//! Between messages and the directory.

use std::time::Duration;

use asterism_chassis::{
    call::Caller,
    identity::{PrincipalId, Role, TrustView},
};
use asterism_proto::identity as pb;

use crate::directory::{
    Challenge, Credential, DirectoryError, Factor, FactorKind, LoginStep, Principal, PrincipalState,
    PrincipalUpdate, Proof, Tokens,
};

const NAME_PREFIX: &str = "principals/";
const DEFAULT_INVITATION_MS: u64 = 2 * 24 * 3600 * 1000;
/// As many as there are roles, with room for repeats.
const MAX_ROLES: usize = 16;

/// `principals/user/alice`
pub(super) fn name(id: &PrincipalId) -> String {
    format!("{NAME_PREFIX}{id}")
}

pub(super) fn principal_id(field: &'static str, name: &str) -> Result<PrincipalId, DirectoryError> {
    name.strip_prefix(NAME_PREFIX)
        .and_then(|id| id.parse().ok())
        .ok_or_else(|| {
            DirectoryError::field(field, "must be like principals/user/alice, of a-z, 0-9 and ._@-")
        })
}

pub(super) fn roles(field: &'static str, names: &[String]) -> Result<Vec<Role>, DirectoryError> {
    if names.len() > MAX_ROLES {
        return Err(DirectoryError::field(field, "at most 16"));
    }
    let known = |name: &String| {
        let wanted = "must be admin, key-admin, data-owner, analyst, auditor, viewer or service";
        name.parse().map_err(|_| DirectoryError::field(field, wanted))
    };
    names.iter().map(known).collect()
}

pub(super) fn invitation_lifetime(lifetime: Option<prost_types::Duration>) -> Result<u64, DirectoryError> {
    let Some(lifetime) = lifetime else {
        return Ok(DEFAULT_INVITATION_MS);
    };
    u64::try_from(lifetime.seconds)
        .ok()
        .and_then(|seconds| seconds.checked_mul(1000))
        .ok_or_else(|| DirectoryError::field("lifetime", "must be above zero"))
}

/// Bytes that are there.
pub(super) fn present(bytes: &[u8]) -> Option<&[u8]> {
    Some(bytes).filter(|bytes| !bytes.is_empty())
}

pub(super) fn credential(
    credential: Option<pb::finish_enrolment_request::Credential>,
) -> Result<Credential, DirectoryError> {
    use pb::finish_enrolment_request::Credential as Wire;
    match credential {
        Some(Wire::RegistrationUpload(upload)) => Ok(Credential::Password(upload)),
        Some(Wire::Key(key)) => Ok(Credential::Key {
            public: key.public_key,
            signature: key.signature,
        }),
        None => Err(DirectoryError::field(
            "credential",
            "must be a password's upload or a key",
        )),
    }
}

pub(super) fn challenge(login: String, challenge: Challenge) -> pb::StartLoginResponse {
    use pb::start_login_response::Challenge as Wire;
    pb::StartLoginResponse {
        login,
        challenge: Some(match challenge {
            Challenge::Password(answer) => Wire::CredentialResponse(answer),
            Challenge::Key(challenge) => Wire::KeyChallenge(challenge.to_vec()),
        }),
    }
}

pub(super) fn proof(message: &pb::FinishLoginRequest) -> Result<Proof<'_>, DirectoryError> {
    use pb::finish_login_request::Proof as Wire;
    match &message.proof {
        Some(Wire::CredentialFinalization(finalization)) => Ok(Proof::Password(finalization)),
        Some(Wire::Signature(signature)) => Ok(Proof::Key(signature)),
        None => Err(DirectoryError::field(
            "proof",
            "must be a password's finalization or a signature",
        )),
    }
}

pub(super) fn factor_kind(kind: i32) -> Result<FactorKind, DirectoryError> {
    match pb::SecondFactorKind::try_from(kind) {
        Ok(pb::SecondFactorKind::Totp) => Ok(FactorKind::Totp),
        _ => Err(DirectoryError::field("kind", "must be TOTP")),
    }
}

fn kind(kind: FactorKind) -> i32 {
    match kind {
        FactorKind::Totp => pb::SecondFactorKind::Totp.into(),
    }
}

pub(super) fn step(step: LoginStep) -> pb::LoginResponse {
    use pb::login_response::Outcome;
    pb::LoginResponse {
        outcome: Some(match step {
            LoginStep::Done(tokens) => Outcome::Tokens(self::tokens(tokens)),
            LoginStep::SecondFactor(login, kinds) => Outcome::SecondFactorDue(pb::SecondFactorDue {
                login,
                kinds: kinds.into_iter().map(kind).collect(),
            }),
        }),
    }
}

pub(super) fn tokens(tokens: Tokens) -> pb::Tokens {
    pb::Tokens {
        principal: name(&tokens.principal),
        roles: role_names(&tokens.roles),
        access_token: tokens.access,
        expires_in: Some(duration(tokens.expires_in)),
        refresh_token: tokens.refresh,
        refresh_expires_in: Some(duration(tokens.refresh_expires_in)),
        token_id: tokens.token_id,
    }
}

pub(super) fn who(caller: &Caller) -> pb::WhoAmIResponse {
    let claims = caller.access.as_ref().map(|access| &access.claims);
    pb::WhoAmIResponse {
        principal: name(&caller.principal.id),
        roles: role_names(&caller.principal.roles),
        token_id: claims.map(|claims| claims.jti.clone()).unwrap_or_default(),
        expire_time: claims.map(|claims| timestamp(claims.exp.saturating_mul(1000))),
        channel_key: claims
            .and_then(|claims| claims.cnf.as_ref())
            .and(caller.channel_key)
            .map(|key| key.to_string())
            .unwrap_or_default(),
        methods: claims.map(|claims| claims.amr.clone()).unwrap_or_default(),
    }
}

pub(super) fn page_token(token: &str) -> Result<Option<PrincipalId>, DirectoryError> {
    match token {
        "" => Ok(None),
        token => token
            .parse()
            .map(Some)
            .map_err(|_| DirectoryError::field("page_token", "must be one that ListPrincipals gave")),
    }
}

pub(super) fn update(
    principal: &pb::Principal,
    mask: Option<prost_types::FieldMask>,
) -> Result<PrincipalUpdate, DirectoryError> {
    let paths = mask.unwrap_or_default().paths;
    if paths.is_empty() {
        return Err(DirectoryError::field(
            "update_mask",
            "must name at least one field",
        ));
    }
    let mut update = PrincipalUpdate {
        etag: principal.etag.clone(),
        ..PrincipalUpdate::default()
    };
    for path in &paths {
        match path.as_str() {
            "roles" => update.roles = Some(roles("principal.roles", &principal.roles)?),
            "state" => update.state = Some(state(principal.state())?),
            "channel_keys" => {
                let keys = principal.channel_keys.iter().map(|key| key.parse());
                let keys: Result<Vec<_>, _> = keys.collect();
                let wrong = |_| DirectoryError::field("principal.channel_keys", "must be keys like asx1…");
                update.channel_keys = Some(keys.map_err(wrong)?);
            }
            _ => {
                let known = "may name roles, state and channel_keys";
                return Err(DirectoryError::field("update_mask", known));
            }
        }
    }
    Ok(update)
}

fn state(state: pb::PrincipalState) -> Result<PrincipalState, DirectoryError> {
    match state {
        pb::PrincipalState::Enabled => Ok(PrincipalState::Enabled),
        pb::PrincipalState::Disabled => Ok(PrincipalState::Disabled),
        pb::PrincipalState::Unspecified => Err(DirectoryError::field(
            "principal.state",
            "must be ENABLED or DISABLED",
        )),
    }
}

pub(super) fn principal(principal: Principal) -> pb::Principal {
    pb::Principal {
        name: name(&principal.id),
        roles: role_names(&principal.roles),
        state: match principal.state {
            PrincipalState::Enabled => pb::PrincipalState::Enabled,
            PrincipalState::Disabled => pb::PrincipalState::Disabled,
        }
        .into(),
        has_password: principal.has_password,
        login_keys: principal.login_keys,
        channel_keys: principal.channel_keys,
        second_factors: principal.factors.into_iter().map(factor).collect(),
        create_time: Some(timestamp(principal.created_ms)),
        last_login_time: principal.last_login_ms.map(timestamp),
        etag: principal.etag,
    }
}

pub(super) fn factor(factor: Factor) -> pb::SecondFactor {
    pb::SecondFactor {
        id: factor.id,
        kind: kind(factor.kind),
        confirmed: factor.confirmed,
        create_time: Some(timestamp(factor.created_ms)),
    }
}

pub(super) fn token_keys(view: &TrustView) -> Vec<pb::TokenKey> {
    let keys = view.keys.iter().map(|(kid, key)| pb::TokenKey {
        kid: kid.clone(),
        public_key: key.to_spki_der(),
    });
    keys.collect()
}

pub(super) fn trust_update(view: &TrustView, changed: bool, now_ms: u64) -> pb::TrustUpdate {
    let trust = changed.then(|| pb::Trust {
        keys: token_keys(view),
        revoked: view.revoked.iter().cloned().collect(),
        cuts: view
            .cuts
            .iter()
            .map(|(principal, min_generation)| pb::Cut {
                principal: principal.clone(),
                min_generation: *min_generation,
            })
            .collect(),
    });
    pb::TrustUpdate {
        revision: view.revision,
        now: Some(timestamp(now_ms)),
        trust,
    }
}

fn role_names(roles: &[Role]) -> Vec<String> {
    roles.iter().map(|role| role.name().to_owned()).collect()
}

pub(super) fn timestamp(ms: u64) -> prost_types::Timestamp {
    prost_types::Timestamp {
        seconds: (ms / 1000) as i64,
        nanos: (ms % 1000 * 1_000_000) as i32,
    }
}

fn duration(duration: Duration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: duration.as_secs() as i64,
        nanos: duration.subsec_nanos() as i32,
    }
}

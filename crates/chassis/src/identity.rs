//! Who asks: principals, roles, and the tokens that prove them.
//!
//! [`Authority`] makes tokens under an HMAC of the constellation's authority key, which every service reads from its
//! credentials directory: for services' own calls, and for who holds that directory. They are bearer tokens: the channel must be loopback, or protected otherwise.
//! People log in at kms and get [`access`] tokens, which [`Trust`] judges.

pub mod access;
pub mod follow;
mod trust;

use std::{
    fmt, fs,
    path::Path,
    str::FromStr,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use asterism_crypto::{SecretKey, TokenKey};
use asterism_store::{StoreError, files};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::error::{ErrorClass, Failure};

pub use trust::{Trust, TrustView};

/// The authority key within the credentials directory.
const KEY_FILE: &str = "authority.key";
/// Tokens from a clock that is ahead by less are accepted.
const CLOCK_SKEW: u64 = 60;

/// Names a person, a service or a device: `user/alice`, `service/ingest`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PrincipalId(String);

impl PrincipalId {
    /// The principal of a service.
    pub fn service(name: &str) -> Self {
        Self(format!("service/{name}"))
    }

    /// Who calls a method that is open to everybody, without a token.
    pub fn anonymous() -> Self {
        Self("anonymous/caller".to_owned())
    }

    /// Whether it is a service.
    pub fn is_service(&self) -> bool {
        self.0.starts_with("service/")
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for PrincipalId {
    type Err = Failure;

    fn from_str(text: &str) -> Result<Self, Failure> {
        let valid = text.split_once('/').is_some_and(|(kind, name)| {
            let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._@-".contains(&b);
            (1..=16).contains(&kind.len())
                && kind.bytes().all(|b| b.is_ascii_lowercase())
                && (1..=120).contains(&name.len())
                && name.bytes().all(allowed)
        });
        if valid {
            Ok(Self(text.to_owned()))
        } else {
            Err(Failure::invalid(
                "principal",
                "must be like user/alice, of a-z, 0-9 and ._@-",
            ))
        }
    }
}

impl fmt::Display for PrincipalId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a principal may do in general; what it may do to one thing is decided where that thing lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Everything that people may.
    Admin,
    /// Makes, changes, rotates and destroys keys of everybody, and uses none but its own.
    KeyAdmin,
    /// Uploads and uses data and keys.
    DataOwner,
    /// Trains, evaluates and predicts.
    Analyst,
    /// Reads and verifies the log.
    Auditor,
    /// Reads metadata.
    Viewer,
    /// A service of the constellation.
    Service,
}

impl Role {
    /// As text, which [`FromStr`] reads.
    pub fn name(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::KeyAdmin => "key-admin",
            Self::DataOwner => "data-owner",
            Self::Analyst => "analyst",
            Self::Auditor => "auditor",
            Self::Viewer => "viewer",
            Self::Service => "service",
        }
    }
}

impl FromStr for Role {
    type Err = Failure;

    fn from_str(text: &str) -> Result<Self, Failure> {
        Ok(match text {
            "admin" => Self::Admin,
            "key-admin" => Self::KeyAdmin,
            "data-owner" => Self::DataOwner,
            "analyst" => Self::Analyst,
            "auditor" => Self::Auditor,
            "viewer" => Self::Viewer,
            "service" => Self::Service,
            _ => {
                let roles = "must be admin, key-admin, data-owner, analyst, auditor, viewer or service";
                return Err(Failure::invalid("role", roles));
            }
        })
    }
}

/// An authenticated principal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    /// Who it is.
    pub id: PrincipalId,
    /// What it may do in general.
    pub roles: Vec<Role>,
}

impl Principal {
    /// Whether it has the role.
    pub fn is(&self, role: Role) -> bool {
        self.roles.contains(&role)
    }
}

/// Seconds since 1970.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Claims {
    sub: String,
    roles: Vec<Role>,
    iat: u64,
    exp: u64,
}

/// Makes and checks tokens.
pub struct Authority {
    key: TokenKey,
}

impl Authority {
    /// Reads the authority key in `dir`, which is made when there is none.
    ///
    /// # Errors
    /// [`StoreError::Exposed`] when others may read it, [`StoreError::Damaged`] when it is not a key.
    pub fn load_or_create(dir: &Path) -> Result<Self, StoreError> {
        files::create_private_dir(dir)?;
        let path = dir.join(KEY_FILE);
        if !path.exists() {
            create(dir, &path)?;
        }
        let bytes = Zeroizing::new(files::read_private(&path)?);
        let secret = SecretKey::try_from_slice(&bytes)
            .map_err(|_| StoreError::Damaged(format!("{} is not a key of 32 bytes", path.display())))?;
        Ok(Self {
            key: TokenKey::new(&secret),
        })
    }

    /// A token for `id`, good for `lifetime` from `now`.
    pub fn mint(&self, id: &PrincipalId, roles: &[Role], lifetime: Duration, now: SystemTime) -> String {
        let iat = seconds(now);
        let exp = iat.saturating_add(lifetime.as_secs());
        let claims = Claims {
            sub: id.to_string(),
            roles: roles.to_vec(),
            iat,
            exp,
        };
        self.key
            .mint(&serde_json::to_vec(&claims).expect("claims are plain data and serialise"))
    }

    /// Whether a token has the form of those that are made here.
    pub(crate) fn made(token: &str) -> bool {
        token.starts_with("v1.")
    }

    /// The principal of a token.
    ///
    /// # Errors
    /// `TOKEN_INVALID`, `TOKEN_EXPIRED`.
    pub fn verify(&self, token: &str, now: SystemTime) -> Result<Principal, Failure> {
        self.verify_with_expiry(token, now)
            .map(|(principal, _)| principal)
    }

    /// As [`Authority::verify`], with the second since 1970 from which the token is good no more.
    pub(crate) fn verify_with_expiry(
        &self,
        token: &str,
        now: SystemTime,
    ) -> Result<(Principal, u64), Failure> {
        let invalid = || unauthenticated("TOKEN_INVALID", "the token is not one of this constellation");
        let claims = self.key.verify(token).map_err(|_| invalid())?;
        let claims: Claims = serde_json::from_slice(&claims).map_err(|_| invalid())?;
        let now = seconds(now);
        if claims.exp <= now || claims.iat > now.saturating_add(CLOCK_SKEW) {
            return Err(unauthenticated(
                "TOKEN_EXPIRED",
                "the token has expired; get a fresh one",
            ));
        }
        let id = claims.sub.parse().map_err(|_| invalid())?;
        Ok((
            Principal {
                id,
                roles: claims.roles,
            },
            claims.exp,
        ))
    }
}

pub(crate) fn unauthenticated(reason: &'static str, message: &str) -> Failure {
    Failure::new(ErrorClass::Unauthenticated, reason, message)
}

pub(crate) fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Makes the key so that of several processes that start at once, one's key is everybody's.
fn create(dir: &Path, path: &Path) -> Result<(), StoreError> {
    let secret = SecretKey::generate().map_err(|error| StoreError::Damaged(error.to_string()))?;
    let staged = dir.join(format!("{KEY_FILE}.{}", uuid::Uuid::new_v4()));
    files::write_atomic(&staged, secret.expose(), 0o600)?;
    // A link, unlike a rename, never replaces what is there.
    let linked = fs::hard_link(&staged, path);
    fs::remove_file(&staged)?;
    match linked {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => Err(error.into()),
        // A power cut must not take back the key of tokens that are in use.
        _ => Ok(fs::File::open(dir)?.sync_all()?),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn authority() -> (Authority, tempfile::TempDir) {
        let dir = tempfile::tempdir().expect("directory");
        (Authority::load_or_create(dir.path()).expect("authority"), dir)
    }

    #[test]
    fn a_token_proves_its_principal_until_it_expires() {
        let (authority, dir) = authority();
        let now = SystemTime::now();
        let id: PrincipalId = "user/alice".parse().expect("principal");
        let token = authority.mint(&id, &[Role::Analyst], Duration::from_secs(60), now);
        let again = Authority::load_or_create(dir.path()).expect("the same key");
        let principal = again.verify(&token, now).expect("valid");
        assert_eq!(
            principal,
            Principal {
                id,
                roles: vec![Role::Analyst]
            }
        );
        let expired = again
            .verify(&token, now + Duration::from_secs(60))
            .expect_err("expired");
        assert_eq!(expired.reason(), "TOKEN_EXPIRED");
        let (other, _dir) = self::authority();
        assert_eq!(
            other.verify(&token, now).expect_err("another key").reason(),
            "TOKEN_INVALID"
        );
    }

    #[test]
    fn a_key_that_others_may_read_is_refused() {
        use std::os::unix::fs::PermissionsExt as _;
        let (_, dir) = authority();
        let path = dir.path().join(KEY_FILE);
        assert_eq!(
            fs::metadata(&path).expect("file").permissions().mode() & 0o777,
            0o600
        );
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).expect("set");
        assert!(matches!(
            Authority::load_or_create(dir.path()),
            Err(StoreError::Exposed { .. })
        ));
    }

    #[test]
    fn what_is_no_principal_is_refused() {
        let long = format!("user/{}", "a".repeat(121));
        for text in [
            "",
            "/",
            "user",
            "user/",
            "/alice",
            "User/alice",
            "user/Alice",
            "user/a/b",
            "us3r/a",
            &long,
        ] {
            assert!(text.parse::<PrincipalId>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_token_from_far_in_the_future_is_refused() {
        let (authority, _dir) = authority();
        let now = SystemTime::now();
        let id = PrincipalId::service("kms");
        let mint = |ahead| {
            authority.mint(
                &id,
                &[Role::Service],
                Duration::from_secs(600),
                now + Duration::from_secs(ahead),
            )
        };
        assert!(authority.verify(&mint(30), now).is_ok());
        assert!(authority.verify(&mint(120), now).is_err());
    }

    #[test]
    fn of_many_who_start_at_once_one_makes_the_key() {
        let dir = tempfile::tempdir().expect("directory");
        let now = SystemTime::now();
        let id = PrincipalId::service("kms");
        let starters: Vec<_> = (0..8)
            .map(|_| {
                let path = dir.path().join("credentials");
                std::thread::spawn(move || Authority::load_or_create(&path).expect("authority"))
            })
            .collect();
        let all: Vec<Authority> = starters
            .into_iter()
            .map(|starter| starter.join().expect("joined"))
            .collect();
        let token = all[0].mint(&id, &[Role::Service], Duration::from_secs(60), now);
        assert!(all.iter().all(|authority| authority.verify(&token, now).is_ok()));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn no_altered_token_is_accepted(at in any::<prop::sample::Index>(), to in "[A-Za-z0-9_.-]") {
            let (authority, _dir) = authority();
            let now = SystemTime::now();
            let id = PrincipalId::service("kms");
            let token = authority.mint(&id, &[Role::Service], Duration::from_secs(60), now);
            let at = at.index(token.len());
            let mut altered = token.clone();
            altered.replace_range(at..=at, &to);
            prop_assume!(altered != token);
            prop_assert!(authority.verify(&altered, now).is_err());
        }

        #[test]
        fn a_decent_principal_reads_back_as_it_was_written(text in "[a-z]{1,16}/[a-z0-9._@-]{1,120}") {
            let id: PrincipalId = text.parse().map_err(|_| TestCaseError::fail("refused"))?;
            prop_assert_eq!(id.as_str(), text.as_str());
            prop_assert_eq!(id.to_string(), text);
        }

        #[test]
        fn one_foreign_character_makes_it_no_principal(
            text in "[a-z]{1,16}/[a-z0-9._@-]{1,119}",
            at in any::<prop::sample::Index>(),
            foreign in "[^a-z0-9._@/-]",
        ) {
            let mut text = text;
            text.insert_str(at.index(text.len() + 1), &foreign);
            prop_assert!(text.parse::<PrincipalId>().is_err());
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in "\\PC{0,200}") {
            let _ = text.parse::<PrincipalId>();
        }
    }
}

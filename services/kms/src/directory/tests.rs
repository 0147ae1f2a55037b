//! The directory over records in memory, by a clock of the test's own.

mod logins;
mod people;
mod sessions;

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use asterism_channel::StaticKey;
use asterism_chassis::{
    error::Classify as _,
    identity::{PrincipalId, Role, Trust, access::Access},
};
use asterism_crypto::{SecretKey, SigningKey, login_key, opaque};
use asterism_store::{MemoryRecords, Records};

use super::*;

const BEGIN_MS: u64 = 1_800_000_000_000;
const SECOND: u64 = 1000;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;
const HOME: Option<IpAddr> = Some(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST));
const PASSWORD: &str = "correct horse battery";

struct World {
    directory: Directory,
    records: Arc<MemoryRecords>,
    trust: Arc<Trust>,
    now_ms: Arc<AtomicU64>,
}

fn root() -> SecretKey {
    SecretKey::from_bytes([9; 32])
}

fn id(text: &str) -> PrincipalId {
    text.parse().expect("a principal")
}

fn reason<T>(result: Result<T, DirectoryError>) -> &'static str {
    result.map_or_else(|error| error.reason(), |_| "none")
}

impl World {
    fn new() -> Self {
        Self::over(Arc::new(MemoryRecords::new()), Arc::new(AtomicU64::new(BEGIN_MS)))
    }

    fn over(records: Arc<MemoryRecords>, now_ms: Arc<AtomicU64>) -> Self {
        let trust = Arc::new(Trust::new("kms", std::time::Duration::from_secs(30)));
        let shown = now_ms.clone();
        trust.govern(Arc::new(move || shown.load(Ordering::Acquire)));
        let now = now_ms.load(Ordering::Acquire);
        let directory = Directory::open(records.clone(), &root(), trust.clone(), now).expect("opens");
        Self {
            directory,
            records,
            trust,
            now_ms,
        }
    }

    fn restarted(self) -> Self {
        Self::over(self.records, self.now_ms)
    }

    fn now(&self) -> u64 {
        self.now_ms.load(Ordering::Acquire)
    }

    fn advance(&self, by_ms: u64) {
        self.now_ms.fetch_add(by_ms, Ordering::AcqRel);
    }

    fn invite(&self, principal: &str, roles: &[Role]) -> String {
        let invited = self
            .directory
            .invite(&id(principal), roles, HOUR, "user/admin", self.now());
        invited.expect("invited").text
    }

    fn enrol_password(&self, invitation: &str, password: &str) -> Result<Principal, DirectoryError> {
        let (registration, request) = opaque::Registration::start(password.as_bytes()).expect("started");
        let (who, answer) = self
            .directory
            .start_enrolment(invitation, Some(&request), HOME, self.now())?;
        let upload = registration
            .finish(who.as_str(), password.as_bytes(), &answer.expect("an answer"))
            .expect("finished");
        let credential = Credential::Password(upload);
        self.directory
            .finish_enrolment(invitation, &credential, None, HOME, self.now())
    }

    fn enrol_key(&self, invitation: &str, key: &SigningKey) -> Result<Principal, DirectoryError> {
        let (who, _) = self
            .directory
            .start_enrolment(invitation, None, HOME, self.now())?;
        let public = key.verifying_key();
        let statement = login_key::enrolment_statement(invitation, who.as_str(), &public);
        let credential = Credential::Key {
            public: public.to_spki_der(),
            signature: key.sign(&statement).to_der(),
        };
        self.directory
            .finish_enrolment(invitation, &credential, None, HOME, self.now())
    }

    /// Somebody with a password.
    fn enrolled(&self, principal: &str, role: Role) -> Principal {
        let invitation = self.invite(principal, &[role]);
        self.enrol_password(&invitation, PASSWORD).expect("enrolled")
    }

    /// The first message of a login by password, and what is answered.
    fn attempt(&self, principal: &str, request: &[u8]) -> Result<(String, Vec<u8>), DirectoryError> {
        let (login, challenge) = self.directory.start_login(
            &id(principal),
            Some(request),
            &[],
            Sender::Loopback,
            HOME,
            self.now(),
        )?;
        match challenge {
            Challenge::Password(answer) => Ok((login, answer)),
            Challenge::Key(_) => panic!("not a challenge of OPAQUE"),
        }
    }

    /// An attempt with a wrong password that goes no further.
    fn guess(&self, principal: &str) -> Result<(), DirectoryError> {
        let (_, request) = opaque::Login::start(b"a guess of mine").expect("started");
        self.attempt(principal, &request).map(|_| ())
    }

    /// Begins a login by password; gives its name and the proof.
    fn begin(&self, principal: &str, password: &str) -> Result<(String, Vec<u8>), DirectoryError> {
        let (login, request) = opaque::Login::start(password.as_bytes()).expect("started");
        let (name, answer) = self.attempt(principal, &request)?;
        let proof = login.finish(principal, password.as_bytes(), &answer);
        Ok((name, proof.unwrap_or_else(|_| vec![0; 64])))
    }

    fn finish(&self, login: &str, proof: &[u8]) -> Result<LoginStep, DirectoryError> {
        let proof = Proof::Password(proof);
        self.directory
            .finish_login(login, &proof, &Sender::Loopback, HOME, self.now())
    }

    fn login(&self, principal: &str, password: &str) -> Result<LoginStep, DirectoryError> {
        let (login, proof) = self.begin(principal, password)?;
        self.finish(&login, &proof)
    }

    fn tokens(&self, principal: &str) -> Tokens {
        done(self.login(principal, PASSWORD)).expect("logged in")
    }

    /// What kms' own gate makes of a token from this machine.
    fn judge(&self, token: &str) -> Result<Access, &'static str> {
        let access = self.trust.verify(token).map_err(|failure| failure.reason())?;
        self.trust
            .admit(&access, None, HOME)
            .map_err(|failure| failure.reason())?;
        Ok(access)
    }
}

fn done(step: Result<LoginStep, DirectoryError>) -> Result<Tokens, DirectoryError> {
    match step? {
        LoginStep::Done(tokens) => Ok(tokens),
        LoginStep::SecondFactor(..) => panic!("a second factor is due"),
    }
}

fn due(step: Result<LoginStep, DirectoryError>) -> String {
    match step {
        Ok(LoginStep::SecondFactor(login, kinds)) => {
            assert_eq!(kinds, [FactorKind::Totp]);
            login
        }
        Ok(LoginStep::Done(_)) => panic!("no second factor is due"),
        Err(error) => panic!("{error}"),
    }
}

fn channel_key() -> asterism_channel::PublicKey {
    StaticKey::generate().expect("a key").public()
}

/// Everything that lies in the store.
fn everything(records: &MemoryRecords) -> Vec<u8> {
    let all = records.scan(&[], &[], usize::MAX).expect("read");
    all.into_iter()
        .flat_map(|(at, value)| [at, value].concat())
        .collect()
}

fn holds(bytes: &[u8], secret: &[u8]) -> bool {
    bytes.windows(secret.len()).any(|window| window == secret)
}

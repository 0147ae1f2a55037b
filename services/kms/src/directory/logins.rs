//! Logins: a proof by password or key, then a second factor where there is one, then a session.
//!
//! What waits between the steps is in memory only: a restart has people begin again. Each step takes what waits away before it looks at the
//! proof, so that a proof is looked at once.

use std::{collections::HashMap, net::IpAddr, sync::PoisonError};

use asterism_chassis::identity::PrincipalId;
use asterism_crypto::{Signature, login_key, opaque::Challenged, random_array};
use asterism_store::Batch;
use uuid::Uuid;

use super::{
    Directory, DirectoryError, FactorKind, PrincipalState, Sender, Tokens,
    attempts::Subject,
    records::{PrincipalRecord, password_at},
};

/// How long a login may take.
const LOGIN_MS: u64 = 2 * 60 * 1000;
/// Logins that may wait at once.
const MAX_PENDING: usize = 10_000;
const ANSWERS: u32 = 3;
/// Whose the record is that stands for those of unknown ones: nobody's name.
pub(super) const NOBODY: &str = "";
/// Services that tokens may be for.
const SERVICES: [&str; 4] = ["kms", "ingest", "inference", "audit"];

/// What the client has to answer to.
pub enum Challenge {
    /// The second message of an OPAQUE login.
    Password(Vec<u8>),
    /// To be signed, as [`login_key::login_statement`] has it.
    Key([u8; 32]),
}

/// The answer to a [`Challenge`].
pub enum Proof<'a> {
    /// The last message of an OPAQUE login.
    Password(&'a [u8]),
    /// A signature in DER.
    Key(&'a [u8]),
}

/// What comes of a step.
pub enum LoginStep {
    /// Logged in.
    Done(Tokens),
    /// A second factor of one of these kinds is due, for the login of this name.
    SecondFactor(String, Vec<FactorKind>),
}

/// A login between its steps.
pub(super) struct Pending {
    id: PrincipalId,
    stage: Stage,
    sender: Sender,
    audience: Vec<String>,
    begun_ms: u64,
}

enum Stage {
    Password(Box<Challenged>),
    Key([u8; 32]),
    SecondFactor { methods: Vec<String>, left: u32 },
}

impl Directory {
    /// Begins a login with the first message of OPAQUE, or without one a login by key. Somebody unknown is answered alike.
    ///
    /// # Errors
    /// [`DirectoryError::Backoff`], [`DirectoryError::Locked`], [`DirectoryError::Busy`], [`DirectoryError::Field`].
    pub fn start_login(
        &self,
        id: &PrincipalId,
        request: Option<&[u8]>,
        audience: &[String],
        sender: Sender,
        network: Option<IpAddr>,
        now_ms: u64,
    ) -> Result<(String, Challenge), DirectoryError> {
        if !audience
            .iter()
            .all(|service| SERVICES.contains(&service.as_str()))
            || audience.len() > SERVICES.len()
        {
            return Err(DirectoryError::field(
                "audience",
                "may name kms, ingest, inference and audit",
            ));
        }
        let (principal, network) = (Subject::principal(id), Subject::network(network));
        let (stage, challenge) = match request {
            None => {
                self.may_try(&network, now_ms)?;
                let challenge = random_array()?;
                (Stage::Key(challenge), Challenge::Key(challenge))
            }
            Some(request) => {
                {
                    // The answer lets the client see whether the password is right: it is an attempt from here on.
                    let _turn = self.turn();
                    self.may_try(&network, now_ms)?;
                    self.may_try(&principal, now_ms)?;
                    self.count(&[&principal, &network], now_ms)?;
                }
                // Known or not, the same is done, and takes as long.
                let stored = self.records.get(&password_at(id))?;
                let (whose, sealed) = match &stored {
                    Some(sealed) => (id.as_str(), sealed),
                    None => (NOBODY, &self.decoy),
                };
                let record = self.vault.open_sealed("password", whose, sealed)?;
                let (challenged, answer) =
                    self.opaque
                        .challenge(id.as_str(), &record, request)
                        .map_err(|_| {
                            DirectoryError::field("credential_request", "must be a message of OPAQUE")
                        })?;
                (Stage::Password(Box::new(challenged)), Challenge::Password(answer))
            }
        };
        let login = Uuid::new_v4().simple().to_string();
        let pending = Pending {
            id: id.clone(),
            stage,
            sender,
            audience: audience.to_vec(),
            begun_ms: now_ms,
        };
        self.wait(login.clone(), pending, now_ms)?;
        Ok((login, challenge))
    }

    /// Looks at the proof.
    ///
    /// # Errors
    /// [`DirectoryError::LoginFailed`] whatever is wrong; [`DirectoryError::LoginUnknown`]; to who proved who it is
    /// [`DirectoryError::Disabled`] and [`DirectoryError::ChannelMismatch`].
    pub fn finish_login(
        &self,
        login: &str,
        proof: &Proof<'_>,
        sender: &Sender,
        network: Option<IpAddr>,
        now_ms: u64,
    ) -> Result<LoginStep, DirectoryError> {
        let pending = self.take(login, sender, now_ms)?;
        let network = Subject::network(network);
        let method = match (&pending.stage, proof) {
            (Stage::Password(_), Proof::Password(_)) => "pwd",
            (Stage::Key(_), Proof::Key(_)) => "pop",
            _ => return Err(DirectoryError::LoginFailed),
        };
        let (id, audience) = (pending.id, pending.audience);
        let proved = match (pending.stage, proof) {
            (Stage::Password(challenged), Proof::Password(finalization)) => {
                challenged.finish(finalization).is_ok()
            }
            (Stage::Key(challenge), Proof::Key(signature)) => {
                let statement =
                    login_key::login_statement(&challenge, id.as_str(), &audience, &sender.name());
                self.has_signed(&id, &statement, signature)?
            }
            _ => false,
        };
        let _turn = self.turn();
        if !proved {
            if method == "pop" {
                // A password's attempt was counted when it began.
                self.count(&[&network], now_ms)?;
            }
            return Err(DirectoryError::LoginFailed);
        }
        // Who is gone by now was unknown before.
        let record = self.find(&id)?.ok_or(DirectoryError::LoginFailed)?;
        may_log_in(&record, sender)?;
        let kinds = record.due_kinds();
        let methods = vec![method.to_owned()];
        if kinds.is_empty() {
            return self
                .logged_in(&id, record, sender, &audience, methods, &network, now_ms)
                .map(LoginStep::Done);
        }
        if method == "pop" {
            // A login by key is no attempt, but what follows is one.
            self.may_try(&Subject::principal(&id), now_ms)?;
        }
        let next = Uuid::new_v4().simple().to_string();
        let pending = Pending {
            id,
            stage: Stage::SecondFactor {
                methods,
                left: ANSWERS,
            },
            sender: *sender,
            audience,
            begun_ms: now_ms,
        };
        self.wait(next.clone(), pending, now_ms)?;
        Ok(LoginStep::SecondFactor(next, kinds))
    }

    /// Looks at the answer of a second factor; a wrong one may be followed by others, three in all.
    ///
    /// # Errors
    /// [`DirectoryError::SecondFactorFailed`], and as [`Directory::finish_login`].
    pub fn answer_second_factor(
        &self,
        login: &str,
        kind: FactorKind,
        answer: &str,
        sender: &Sender,
        network: Option<IpAddr>,
        now_ms: u64,
    ) -> Result<Tokens, DirectoryError> {
        let pending = self.take(login, sender, now_ms)?;
        let Stage::SecondFactor { methods, left } = &pending.stage else {
            return Err(DirectoryError::LoginUnknown);
        };
        let (mut methods, left) = (methods.clone(), *left);
        let _turn = self.turn();
        let mut record = self.find(&pending.id)?.ok_or(DirectoryError::LoginFailed)?;
        may_log_in(&record, sender)?;
        let which = |factor: &super::records::FactorRecord| factor.confirmed && factor.kind == kind;
        if let Err(error) = self.answered(&pending.id, &mut record, which, answer, now_ms) {
            if let Some(left) = left.checked_sub(1).filter(|left| *left > 0) {
                let stage = Stage::SecondFactor { methods, left };
                self.wait(login.to_owned(), Pending { stage, ..pending }, now_ms)?;
            }
            return Err(error);
        }
        // Durable before the tokens are: the answer serves once.
        let batch = self.changed(Batch::new(), &mut record)?;
        self.records.commit(batch)?;
        methods.push("otp".to_owned());
        let network = Subject::network(network);
        self.logged_in(
            &pending.id,
            record,
            sender,
            &pending.audience,
            methods,
            &network,
            now_ms,
        )
    }

    #[expect(clippy::too_many_arguments, reason = "what a session is made of")]
    fn logged_in(
        &self,
        id: &PrincipalId,
        record: PrincipalRecord,
        sender: &Sender,
        audience: &[String],
        methods: Vec<String>,
        network: &Subject,
        now_ms: u64,
    ) -> Result<Tokens, DirectoryError> {
        if methods.iter().any(|method| method == "pwd" || method == "otp") {
            self.succeeded(&Subject::principal(id), network, now_ms)?;
        }
        self.begin_session(record, sender, audience, methods, now_ms)
    }

    fn has_signed(
        &self,
        id: &PrincipalId,
        statement: &[u8],
        signature: &[u8],
    ) -> Result<bool, DirectoryError> {
        let Ok(signature) = Signature::from_der(signature) else {
            return Ok(false);
        };
        let record = self.find(id)?;
        let mut keys = record
            .iter()
            .flat_map(PrincipalRecord::keys)
            .collect::<Result<Vec<_>, _>>()?;
        if keys.is_empty() {
            // Somebody unknown takes as long as somebody with a key.
            keys.push(self.decoy_key.clone());
        }
        Ok(keys.iter().any(|key| key.verify(statement, &signature).is_ok()))
    }

    /// Whose login that is, as far as it came.
    pub fn who_logs_in(&self, login: &str) -> Option<PrincipalId> {
        self.with_pending(|pending| pending.get(login).map(|login| login.id.clone()))
    }

    /// Forgets logins that took too long.
    pub(super) fn forget_logins(&self, now_ms: u64) {
        self.with_pending(|pending| pending.retain(|_, login| !login.is_over(now_ms)));
    }

    fn wait(&self, login: String, waits: Pending, now_ms: u64) -> Result<(), DirectoryError> {
        self.with_pending(|pending| {
            if pending.len() >= MAX_PENDING {
                pending.retain(|_, login| !login.is_over(now_ms));
            }
            if pending.len() >= MAX_PENDING {
                return Err(DirectoryError::Busy);
            }
            pending.insert(login, waits);
            Ok(())
        })
    }

    /// Takes a login out; it is over when it is not put back.
    fn take(&self, login: &str, sender: &Sender, now_ms: u64) -> Result<Pending, DirectoryError> {
        let pending = self
            .with_pending(|pending| pending.remove(login))
            .filter(|pending| !pending.is_over(now_ms))
            .ok_or(DirectoryError::LoginUnknown)?;
        if pending.sender == *sender {
            Ok(pending)
        } else {
            Err(DirectoryError::ChannelMismatch)
        }
    }

    fn with_pending<T>(&self, work: impl FnOnce(&mut HashMap<String, Pending>) -> T) -> T {
        work(&mut self.pending.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Pending {
    fn is_over(&self, now_ms: u64) -> bool {
        self.begun_ms.saturating_add(LOGIN_MS) <= now_ms
    }
}

fn may_log_in(record: &PrincipalRecord, sender: &Sender) -> Result<(), DirectoryError> {
    if record.state == PrincipalState::Disabled {
        return Err(DirectoryError::Disabled);
    }
    let bound = &record.channel_keys;
    let from_there = matches!(sender, Sender::Channel(key) if bound.contains(&key.to_string()));
    if bound.is_empty() || from_there {
        Ok(())
    } else {
        Err(DirectoryError::ChannelMismatch)
    }
}

//! The keyring against a small model of what it promises: no ciphertext, MAC, signature, wrapped key or secret ever becomes useless except
//! by the rules.

mod uses;

use asterism_crypto::{DecryptionKey, SecretBytes, transfer};

use super::*;
use crate::keys::material::Material;
use uses::Made;

#[derive(Clone, Debug)]
enum Step {
    Rotate { ahead_days: u64 },
    Import { ahead_days: u64 },
    Export { version: u32 },
    Use { times: usize },
    ReEncrypt { which: usize },
    Set { version: u32, to: State },
    Destroy { version: u32, days: u64 },
    Restore { version: u32 },
    Minimum { version: u32 },
    Period { days: u64 },
    Advance { days: u64 },
    Sweep,
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    let version = 1..6_u32;
    prop_oneof![
        3 => (0..9_u64).prop_map(|ahead_days| Step::Rotate { ahead_days: ahead_days.saturating_sub(5) }),
        2 => (0..9_u64).prop_map(|ahead_days| Step::Import { ahead_days: ahead_days.saturating_sub(5) }),
        1 => version.clone().prop_map(|version| Step::Export { version }),
        5 => (1..4_usize).prop_map(|times| Step::Use { times }),
        3 => (0..64_usize).prop_map(|which| Step::ReEncrypt { which }),
        5 => (version.clone(), 0..7_usize).prop_map(|(version, to)| Step::Set { version, to: State::all()[to] }),
        3 => (version.clone(), 6..32_u64).prop_map(|(version, days)| Step::Destroy { version, days }),
        2 => version.clone().prop_map(|version| Step::Restore { version }),
        1 => version.prop_map(|version| Step::Minimum { version }),
        1 => (0..3_u64).prop_map(|days| Step::Period { days }),
        3 => (0..12_u64).prop_map(|days| Step::Advance { days }),
        2 => Just(Step::Sweep),
        1 => Just(Step::Restart),
    ]
}

/// A version in the model: the state, written as the rules say it and not as the keyring does.
#[derive(Clone, Debug)]
struct ModelVersion {
    state: State,
    /// When it turns active by itself.
    activates: Option<u64>,
    ever_active: bool,
    before: State,
    due: u64,
}

#[derive(Default)]
struct Model {
    versions: Vec<ModelVersion>,
    minimum: u32,
    period_ms: Option<u64>,
    next_ms: u64,
}

impl Model {
    fn add(&mut self, activates: Option<u64>) {
        self.versions.push(ModelVersion {
            state: if activates.is_some() {
                State::PreActive
            } else {
                State::Active
            },
            activates,
            ever_active: activates.is_none(),
            before: State::Active,
            due: 0,
        });
    }

    fn rotate(&mut self, now: u64, activates: Option<u64>) {
        self.add(activates);
        if let Some(period) = self.period_ms {
            self.next_ms = now + period;
        }
    }

    /// Time passes.
    fn at(&mut self, now: u64) {
        for version in &mut self.versions {
            if version.state == State::PreActive && version.activates.is_some_and(|at| at <= now) {
                version.state = State::Active;
                version.ever_active = true;
            }
        }
    }

    fn primary(&self) -> Option<usize> {
        self.versions.iter().rposition(|version| version.ever_active)
    }

    fn encrypts(&self) -> Option<u32> {
        let primary = self.primary()?;
        (self.versions[primary].state == State::Active).then_some(primary as u32 + 1)
    }

    /// The version whose public half is given away.
    fn publishes(&self) -> Option<u32> {
        use State::{Active, Compromised, Deactivated, PreActive};
        let primary = self.primary()?;
        let state = self.versions[primary].state;
        matches!(state, PreActive | Active | Deactivated | Compromised).then_some(primary as u32 + 1)
    }

    fn decrypts(&self, version: u32) -> bool {
        let state = self.versions[version as usize - 1].state;
        version >= self.minimum && matches!(state, State::Active | State::Deactivated | State::Compromised)
    }

    /// Whether somebody may set the state so.
    fn set(&mut self, version: u32, to: State) -> bool {
        use State::{Active, Compromised, Deactivated, PreActive, Suspended};
        let Some(version) = self.versions.get_mut(version as usize - 1) else {
            return false;
        };
        let allowed = match to {
            Active => matches!(version.state, PreActive | Suspended),
            Suspended => version.state == Active,
            Deactivated => matches!(version.state, Active | Suspended),
            Compromised => matches!(version.state, PreActive | Active | Suspended | Deactivated),
            _ => false,
        };
        if allowed {
            version.state = to;
            version.ever_active |= to == Active;
        }
        allowed
    }
}

struct Run {
    disk: Disk,
    keyring: Keyring,
    id: KeyId,
    model: Model,
    now: u64,
    made: Vec<Made>,
    /// The material that each version was seen to have, in and out.
    materials: BTreeMap<u32, Vec<u8>>,
}

impl Run {
    fn start(key_type: KeyType) -> Self {
        let (keyring, disk) = keyring();
        let id: KeyId = "key".parse().expect("id");
        let new = NewKey {
            id: Some(id.clone()),
            key_type,
            labels: BTreeMap::new(),
            active_from_ms: None,
            exportable: true,
            required_approvals: 0,
        };
        keyring.create(new, &NO_ID, 1).expect("created");
        let mut model = Model {
            minimum: 1,
            ..Model::default()
        };
        model.add(None);
        Self {
            disk,
            keyring,
            id,
            model,
            now: 1,
            made: vec![],
            materials: BTreeMap::new(),
        }
    }

    fn take(&mut self, step: &Step) -> Result<(), TestCaseError> {
        let (keyring, id, now) = (&self.keyring, &self.id, self.now);
        match *step {
            Step::Rotate { ahead_days } => {
                let activates = Some(now + ahead_days * DAY_MS).filter(|at| *at > now);
                keyring.rotate(id, activates, &NO_ID, now).expect("rotated");
                self.model.rotate(now, activates);
            }
            Step::Import { ahead_days } => self.import(ahead_days)?,
            Step::Export { version } => self.export(version)?,
            Step::Use { times } => {
                let key = keyring.get(id).expect("there");
                let begun = self.made.len();
                let texts = (begun..begun + times).map(|number| format!("text {number}").into_bytes());
                let done = uses::make(keyring, &key, texts.collect(), now);
                let expected = if uses::is_made_with_the_public_half(key.key_type) {
                    self.model.publishes()
                } else {
                    self.model.encrypts()
                };
                let versions = done.iter().flatten().map(|made| Some(made.version));
                let as_many = if expected.is_some() { times } else { 0 };
                let as_expected = versions.eq(vec![expected; as_many]);
                prop_assert!(as_expected);
                self.made.extend(done.into_iter().flatten());
            }
            Step::ReEncrypt { which } if !self.made.is_empty() => {
                let key = keyring.get(id).expect("there");
                let old = &self.made[which % self.made.len()];
                let (version, text) = (old.version, old.text.clone());
                let done = keyring.re_encrypt((&key, old.bytes(), b"aad"), (&key, b"aad"), now);
                let expected = self.model.encrypts().filter(|_| self.model.decrypts(version));
                let expected = expected.filter(|_| uses::re_encrypts(key.key_type));
                prop_assert_eq!(done.as_ref().ok().map(|done| done.version), expected);
                let made = |done: ReEncrypted| Made::ciphertext(done.version, text, done.ciphertext);
                self.made.extend(done.ok().map(made));
            }
            Step::ReEncrypt { .. } => {}
            Step::Set { version, to } => {
                let done = keyring.set_state(id, version, to, &NO_ID, now).is_ok();
                prop_assert_eq!(done, self.model.set(version, to));
            }
            Step::Destroy { version, days } => {
                let window = days * DAY_MS;
                let done = keyring
                    .schedule_destruction(id, version, window, &NO_ID, now)
                    .is_ok();
                let found = self.model.versions.get_mut(version as usize - 1);
                let expected = (7..=30).contains(&days)
                    && found.is_some_and(|version| {
                        let may = !matches!(version.state, State::DestroyScheduled | State::Destroyed);
                        if may {
                            version.before = version.state;
                            version.state = State::DestroyScheduled;
                            version.due = now + window;
                            version.activates = None;
                        }
                        may
                    });
                prop_assert_eq!(done, expected);
            }
            Step::Restore { version } => {
                let done = keyring.restore(id, version, &NO_ID, now).is_ok();
                let found = self.model.versions.get_mut(version as usize - 1);
                let expected = found.is_some_and(|version| {
                    let may = version.state == State::DestroyScheduled && now < version.due;
                    if may {
                        version.state = version.before;
                    }
                    may
                });
                prop_assert_eq!(done, expected);
            }
            Step::Minimum { version } => {
                let update = KeyUpdate {
                    min_version: Some(version),
                    ..KeyUpdate::default()
                };
                let done = keyring.update(id, &update, &NO_ID, now).is_ok();
                let may = version as usize <= self.model.primary().map_or(1, |index| index + 1);
                prop_assert_eq!(done, may);
                if may {
                    self.model.minimum = version;
                }
            }
            Step::Period { days } => {
                let period = Some(days * DAY_MS).filter(|period| *period > 0);
                let update = KeyUpdate {
                    rotation_period_ms: Some(period),
                    ..KeyUpdate::default()
                };
                keyring.update(id, &update, &NO_ID, now).expect("updated");
                self.model.period_ms = period;
                self.model.next_ms = period.map_or(0, |period| now + period);
            }
            Step::Advance { days } => {
                self.now += days * DAY_MS;
                self.model.at(self.now);
            }
            Step::Sweep => self.sweep()?,
            Step::Restart => {
                self.keyring = self.disk.start();
                prop_assert_eq!(self.keyring.sweep_orphans().expect("swept"), 0);
            }
        }
        self.check()
    }

    /// A version whose material comes from outside.
    fn import(&mut self, ahead_days: u64) -> Result<(), TestCaseError> {
        let (keyring, now) = (&self.keyring, self.now);
        let key = keyring.get(&self.id).expect("there");
        let job = keyring
            .create_import_job(self.id.clone(), key.key_type, "user/alice", now)
            .expect("a job");
        let material = Material::generate(key.key_type).expect("material");
        let info = transfer::import_info(&job.id, self.id.as_str(), &key.key_type.to_string());
        let activates = Some(now + ahead_days * DAY_MS).filter(|at| *at > now);
        let import = Import {
            job: job.id,
            sealed: job
                .public_key
                .seal(&info, b"", material.expose())
                .expect("sealed"),
            labels: BTreeMap::new(),
            exportable: false,
            active_from_ms: activates,
        };
        keyring
            .import(&import, &NO_ID, now, |id| keyring.get(id))
            .expect("imported");
        self.model.add(activates);
        let version = u32::try_from(self.model.versions.len()).expect("few");
        self.materials.insert(version, material.expose().to_vec());
        Ok(())
    }

    /// What goes out is what came in, or went out before.
    fn export(&mut self, version: u32) -> Result<(), TestCaseError> {
        let key = self.keyring.get(&self.id).expect("there");
        let recipient = DecryptionKey::generate().expect("a key");
        let sealed = self
            .keyring
            .export(&key, version, &recipient.encryption_key(), self.now);
        let there = version as usize <= self.model.versions.len();
        prop_assert_eq!(sealed.is_ok(), there && self.model.decrypts(version));
        if let Ok(sealed) = sealed {
            let info = transfer::export_info(self.id.as_str(), version, &key.key_type.to_string());
            let material: SecretBytes = recipient.open(&info, b"", &sealed).expect("opened");
            let known = self.materials.entry(version);
            let known = known.or_insert_with(|| material.expose().to_vec());
            prop_assert_eq!(known.as_slice(), material.expose());
        }
        Ok(())
    }

    fn sweep(&mut self) -> Result<(), TestCaseError> {
        let (keyring, now) = (&self.keyring, self.now);
        let (mut destroyed, mut rotated) = (Vec::new(), 0);
        for due in keyring.due(now).expect("looked") {
            match due {
                Due::Destroy { key, version } => {
                    prop_assert!(
                        keyring
                            .destroy_due(&key, version, now, || Ok(()))
                            .expect("destroyed")
                    );
                    destroyed.push(version);
                }
                Due::Rotate { key } => {
                    prop_assert!(
                        keyring
                            .rotate_due(&key, now, |_| Ok(()))
                            .expect("rotated")
                            .is_some()
                    );
                    rotated += 1;
                }
            }
        }
        let mut expected = Vec::new();
        for (version, number) in self.model.versions.iter_mut().zip(1..) {
            if version.state == State::DestroyScheduled && version.due <= now {
                version.state = State::Destroyed;
                expected.push(number);
            }
        }
        prop_assert_eq!(destroyed, expected);
        let due = self.model.period_ms.is_some() && self.model.next_ms <= now;
        prop_assert_eq!(rotated, u32::from(due));
        if due {
            self.model.rotate(now, None);
        }
        let kept = self
            .model
            .versions
            .iter()
            .filter(|version| version.state != State::Destroyed);
        prop_assert_eq!(self.disk.version_keys.0.lock().expect("lock").len(), kept.count());
        Ok(())
    }

    /// What was made is good if and only if the rules say so, and every state is the model's.
    fn check(&self) -> Result<(), TestCaseError> {
        let key = self.keyring.get(&self.id).expect("there");
        let states: Vec<State> = key
            .versions
            .iter()
            .map(|version| version.state(self.now))
            .collect();
        let expected: Vec<State> = self.model.versions.iter().map(|version| version.state).collect();
        prop_assert_eq!(states, expected);
        for made in &self.made {
            let good = uses::is_good(&self.keyring, &key, made, self.now)?;
            prop_assert_eq!(good, self.model.decrypts(made.version));
        }
        Ok(())
    }
}

fn nothing_is_lost(key_type: KeyType, cases: u32) {
    proptest!(ProptestConfig::with_cases(cases), |(steps in proptest::collection::vec(step(), 1..40))| {
        let mut run = Run::start(key_type);
        for step in &steps {
            run.take(step)?;
        }
    });
}

#[test]
fn no_ciphertext_is_lost_but_by_the_rules() {
    nothing_is_lost(KeyType::Aes256Gcm, 192);
}

#[test]
fn no_deterministic_ciphertext_is_lost_but_by_the_rules() {
    nothing_is_lost(KeyType::Aes256Siv, 96);
}

#[test]
fn no_mac_is_lost_but_by_the_rules() {
    nothing_is_lost(KeyType::HmacSha256, 64);
    nothing_is_lost(KeyType::HmacSha512, 64);
}

#[test]
fn no_signature_is_lost_but_by_the_rules() {
    nothing_is_lost(KeyType::EcSignP256Sha256, 48);
}

#[test]
fn no_wrapped_key_is_lost_but_by_the_rules() {
    nothing_is_lost(KeyType::Aes256Kwp, 96);
}

#[test]
fn no_message_to_a_public_key_is_lost_but_by_the_rules() {
    nothing_is_lost(KeyType::EcP256Hpke, 48);
}

#[test]
fn no_secret_that_was_agreed_on_is_lost_but_by_the_rules() {
    nothing_is_lost(KeyType::EcP256Ecdh, 48);
}

//! Everything that may happen while the root is rotated, in any order.

use super::*;

/// What is done, one after the other.
#[derive(Clone, Debug)]
enum Act {
    Create,
    Rotate(prop::sample::Index),
    Encrypt(prop::sample::Index),
    /// Schedules the destruction of a version that is not the newest, and lets it become due.
    Destroy(prop::sample::Index),
    BeginRootRotation,
    /// One page, from where the last ended.
    Page,
    /// To its end, and the older roots are forgotten.
    Finish,
    Restart,
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let index = any::<prop::sample::Index>;
    let act = prop_oneof![
        2 => Just(Act::Create),
        4 => index().prop_map(Act::Rotate),
        4 => index().prop_map(Act::Encrypt),
        2 => index().prop_map(Act::Destroy),
        2 => Just(Act::BeginRootRotation),
        3 => Just(Act::Page),
        2 => Just(Act::Finish),
        2 => Just(Act::Restart),
    ];
    prop::collection::vec(act, 1..40)
}

/// A store and what ought to come of it.
struct Life {
    disk: Disk,
    keyring: Keyring,
    keys: Vec<KeyId>,
    /// Ciphertexts by key and version.
    texts: Vec<(KeyId, u32, Vec<u8>)>,
    destroyed: Vec<(KeyId, u32)>,
    next: Vec<u8>,
    now: u64,
}

impl Life {
    fn act(&mut self, act: &Act) {
        let keyring = &self.keyring;
        match act {
            Act::Create => {
                let id = format!("key{}", self.keys.len());
                self.keys
                    .push(create(keyring, &id, KeyType::Aes256Gcm).id.clone());
            }
            Act::Rotate(at) if !self.keys.is_empty() => {
                keyring
                    .rotate(at.get(&self.keys), None, &NO_ID, self.now)
                    .expect("rotated");
            }
            Act::Encrypt(at) if !self.keys.is_empty() => {
                let key = keyring.get(at.get(&self.keys)).expect("there");
                let (text, version) = keyring.encrypt(&key, b"text", b"", self.now).expect("encrypted");
                self.texts.push((key.id.clone(), version, text));
            }
            Act::Destroy(at) => {
                let ends = |(id, version, _): &&(KeyId, u32, Vec<u8>)| {
                    let newest = keyring.get(id).expect("there").versions.len() as u32;
                    *version < newest && !self.destroyed.contains(&(id.clone(), *version))
                };
                let candidates: Vec<_> = self.texts.iter().filter(ends).collect();
                if candidates.is_empty() {
                    return;
                }
                let (id, version, _) = (*at.get(&candidates)).clone();
                keyring
                    .schedule_destruction(&id, version, MIN_WINDOW_MS, &NO_ID, self.now)
                    .expect("scheduled");
                self.now += MIN_WINDOW_MS;
                assert!(
                    keyring
                        .destroy_due(&id, version, self.now, || Ok(()))
                        .expect("destroyed")
                );
                self.destroyed.push((id, version));
            }
            Act::BeginRootRotation if !keyring.roots().is_rotating() => {
                keyring.adopt(begin(&keyring.roots()));
                self.next = vec![VERSION];
            }
            Act::Page => {
                let next = keyring.rewrap_page(&keyring.roots(), (&self.next, 2), &AtomicU64::new(0));
                self.next = next.expect("wrapped").unwrap_or(vec![VERSION]);
            }
            Act::Finish => match rewrap(keyring) {
                Rewrapped::All(all) => keyring.adopt(all.roots),
                _ => panic!("something was left"),
            },
            Act::Restart => {
                let roots = keyring.roots();
                self.keyring = self.disk.start_with(roots);
            }
            _ => {}
        }
    }

    fn check(&self, keyring: &Keyring) {
        for (id, version, text) in &self.texts {
            let key = keyring.get(id).expect("there");
            let decrypted = keyring.decrypt(&key, text, b"", self.now);
            if self.destroyed.contains(&(id.clone(), *version)) {
                assert!(decrypted.is_err(), "{id} {version} is destroyed");
            } else {
                assert_eq!(
                    decrypted.expect("decrypted").0.expose(),
                    b"text",
                    "{id} {version}"
                );
            }
        }
        let halves = self.disk.version_keys.0.lock().expect("lock").len();
        assert_eq!(halves, self.disk.versions().len(), "a wrapping key a version");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn whatever_happens_while_the_root_is_rotated_everything_opens_that_was_not_destroyed(acts in acts()) {
        let disk = Disk::default();
        let keyring = disk.start_with(root(1));
        let mut life = Life {
            disk,
            keyring,
            keys: vec![],
            texts: vec![],
            destroyed: vec![],
            next: vec![VERSION],
            now: NOW,
        };
        for act in &acts {
            life.act(act);
            life.check(&life.keyring);
        }
        life.act(&Act::Finish);
        // With the newest root alone.
        let newest = life.keyring.roots();
        prop_assert!(!newest.is_rotating());
        life.check(&life.disk.start_with(newest));
    }
}

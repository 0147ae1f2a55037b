//! A kms that is killed while it is unsealed, sealed, rekeyed and given other root keys: what it acknowledged is never lost, and it opens again.

use std::{
    collections::{BTreeMap, HashMap},
    future::Future,
    path::Path,
    process::{Command, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use asterism_client::{
    ClientError, Kms, NewSeal, UnsealSecret,
    proto::kms::{KeyType, SealKind, SealStatus},
};
use asterism_crypto::{SecretKey, random_array, shares};
use serde_json::Value;
use tokio::{sync::watch, task::JoinHandle};
use tonic::Code;
use zeroize::Zeroizing;

use crate::{processes::Alone, support::files};

const ROUNDS: u32 = 50;
const PASSPHRASE: &str = "correct horse battery";
/// What there is to wrap anew from the start: a rotation takes a while, so that kills fall into it.
const KEYS: usize = 40;
const VERSIONS: usize = 4;
/// Longer than any rotation takes.
const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn killed_fifty_times_under_rotation_and_unsealing_it_opens_again_and_nothing_acknowledged_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    found(dir.path());
    let known = Arc::new(Known::default());
    let process = Alone::start(dir.path());
    unseal(&process.kms, &known).await.unwrap();
    fill(&process.kms, &known).await;
    process.kill();

    let mut resumed = 0;
    for round in 0..ROUNDS {
        let process = Alone::start(dir.path());
        let status = process.kms.seal_status().await.unwrap();
        assert_eq!(
            status.sealed, !status.automatic,
            "round {round}: opened by nobody"
        );
        let kms = process.kms.clone();
        if round % 4 == 3 {
            // Killed while it is unsealed.
            let known = known.clone();
            let unsealing = tokio::spawn(async move { unseal(&kms, &known).await.map(|_| ()) });
            tokio::time::sleep(random(0, 300)).await;
            process.kill();
            unsealing.abort();
            continue;
        }
        let status = unseal(&kms, &known).await;
        let status = status.unwrap_or_else(|error| panic!("round {round}: does not open: {error}"));
        assert!(!status.sealed, "round {round}");
        resumed += u32::from(status.rotation.is_some());
        known.check(&kms, &format!("round {round}")).await;
        let begun = known.begun();
        let load = Load::start(&kms, &known, round);
        if round.is_multiple_of(2) {
            // Killed soon after a rotation was acknowledged, however busy this machine is.
            known.has_begun_another(begun).await;
            tokio::time::sleep(random(0, 60)).await;
        } else {
            tokio::time::sleep(random(10, 400)).await;
        }
        process.kill();
        load.stop();
        assert_eq!(
            *known.failures.lock().unwrap(),
            Vec::<String>::new(),
            "round {round}"
        );
    }
    assert!(resumed > 0, "no kill fell into a rotation");
    the_end(dir.path(), &known).await;
}

/// The last rotation ends by itself; then there is one root key, and one wrapping key for each version.
async fn the_end(data: &Path, known: &Arc<Known>) {
    let process = Alone::start(data);
    let kms = process.kms.clone();
    let mut status = unseal(&kms, known).await.unwrap();
    known.check(&kms, "at the end").await;
    let begun = Instant::now();
    while status.rotation.is_some() {
        assert!(
            begun.elapsed() < PATIENCE,
            "the rotation does not end: {status:?}"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
        status = kms.seal_status().await.unwrap();
    }
    known.check(&kms, "after the last rotation").await;
    // One whose acknowledgement was killed counts too.
    assert!(
        status.root_version > known.begun(),
        "a root key was lost: {status:?}"
    );
    let seal = std::fs::read(data.join("kms/seal.json")).unwrap();
    let seal: Value = serde_json::from_slice(&seal).unwrap();
    let roots = seal["roots"].as_array().unwrap();
    assert_eq!(roots.len(), 1, "{seal}");
    assert_eq!(roots[0]["version"], status.root_version, "{seal}");

    let key_files = files(&data.join("kms")).into_iter().filter(|path| {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        name.starts_with("root") && name.ends_with(".key")
    });
    let named = usize::from(status.kind() == SealKind::KeyFile);
    assert_eq!(
        key_files.count(),
        named,
        "key files of other seals were left: {seal}"
    );

    let (mut versions, mut token) = (0, String::new());
    loop {
        let (page, next) = kms.list_keys(1000, &token).await.unwrap();
        versions += page.iter().map(|key| key.versions.len()).sum::<usize>();
        if next.is_empty() {
            break;
        }
        token = next;
    }
    let halves = files(&data.join("kms/version-keys"));
    assert_eq!(
        halves.len(),
        versions,
        "wrapping keys that nothing needs were left"
    );
    process.kill();
}

/// Makes the kms of `data`, as `asterism kms init` does.
fn found(data: &Path) {
    let file = data.join("passphrase");
    asterism_store::files::write_atomic(&file, PASSPHRASE.as_bytes(), 0o600).unwrap();
    let made = Command::new(env!("CARGO_BIN_EXE_asterism-under-test"))
        .args([
            "kms",
            "init",
            "--json",
            "--seal",
            "passphrase",
            "--passphrase-file",
        ])
        .arg(&file)
        .arg("--data-dir")
        .arg(data.join("kms"))
        .stdout(Stdio::null())
        .status()
        .unwrap();
    assert!(made.success());
}

/// A ciphertext and its text.
type Kept = (Vec<u8>, String);

/// What was acknowledged, and what opens the seal.
#[derive(Default)]
struct Known {
    /// By the id of their key.
    ciphertexts: Mutex<BTreeMap<String, Vec<Kept>>>,
    /// Of every seal that there may be, by its id.
    shares: Mutex<HashMap<String, Vec<Zeroizing<String>>>>,
    /// How many rotations of the root key were acknowledged.
    rotations: watch::Sender<u32>,
    /// Answers that a kms gives in no circumstances.
    failures: Mutex<Vec<String>>,
}

impl Known {
    fn keep(&self, id: &str, ciphertext: Vec<u8>, text: String) {
        let mut kept = self.ciphertexts.lock().unwrap();
        kept.entry(id.to_owned()).or_default().push((ciphertext, text));
    }

    fn begun(&self) -> u32 {
        *self.rotations.borrow()
    }

    async fn has_begun_another(&self, before: u32) {
        let mut rotations = self.rotations.subscribe();
        let another = rotations.wait_for(|now| *now > before);
        let another = tokio::time::timeout(PATIENCE, another).await;
        another.expect("no rotation begins").unwrap();
    }

    fn any_key(&self) -> String {
        let kept = self.ciphertexts.lock().unwrap();
        let at = below(kept.len() as u64) as usize;
        kept.keys().nth(at).unwrap().clone()
    }

    /// Every ciphertext decrypts to its text.
    async fn check(&self, kms: &Kms, when: &str) {
        let all = self.ciphertexts.lock().unwrap().clone();
        for (id, kept) in &all {
            let items: Vec<(&[u8], &[u8])> = kept
                .iter()
                .map(|(ciphertext, _)| (ciphertext.as_slice(), b"".as_slice()))
                .collect();
            let opened = kms.decrypt_batch(id, &items).await;
            let opened = opened.unwrap_or_else(|error| panic!("{when}: {id}: {error}"));
            for (opened, (_, text)) in opened.into_iter().zip(kept) {
                let opened = opened.unwrap_or_else(|failure| panic!("{when}: {id}: {failure:?}"));
                assert_eq!(opened.expose(), text.as_bytes(), "{when}: {id}");
            }
        }
    }

    /// What opens the seal of which that is the status.
    fn secrets(&self, status: &SealStatus) -> Vec<UnsealSecret> {
        match status.kind() {
            SealKind::KeyFile => return vec![],
            SealKind::Passphrase => {
                return vec![UnsealSecret::Passphrase(Zeroizing::new(PASSPHRASE.to_owned()))];
            }
            _ => {}
        }
        let shares = self.shares.lock().unwrap();
        let of_seal = shares
            .get(&status.seal_id)
            .unwrap_or_else(|| panic!("no shares: {status:?}"));
        let enough = of_seal.iter().take(status.threshold as usize);
        enough.map(|share| UnsealSecret::Share(share.clone())).collect()
    }

    /// A fresh set of shares, kept before there can be a seal of them.
    fn new_shares(&self) -> NewSeal {
        let key = SecretKey::generate().unwrap();
        let split = shares::split(&key, 2, 3).unwrap();
        let id = shares::SetId::of(&key).to_string();
        let texts = split.iter().map(shares::Share::to_text).collect();
        self.shares.lock().unwrap().insert(id, texts);
        NewSeal::Shares {
            unseal_key: key,
            threshold: 2,
            share_sha256: split.iter().map(shares::Share::digest).collect(),
        }
    }
}

async fn unseal(kms: &Kms, known: &Known) -> Result<SealStatus, ClientError> {
    let mut status = kms.seal_status().await?;
    if status.sealed && status.automatic {
        return kms.unseal(None).await;
    }
    for secret in known.secrets(&status) {
        if status.sealed {
            status = kms.unseal(Some(&secret)).await?;
        }
    }
    Ok(status)
}

async fn fill(kms: &Kms, known: &Known) {
    for key in 0..KEYS {
        let id = format!("first-{key}");
        kms.create_key(&id, KeyType::Aes256Gcm, [], "").await.unwrap();
        for version in 0..VERSIONS {
            if version > 0 {
                kms.rotate_key(&id, "").await.unwrap();
            }
            encrypt(kms, known, &id).await.unwrap();
        }
    }
}

async fn encrypt(kms: &Kms, known: &Known, id: &str) -> Result<(), ClientError> {
    let text = format!("{id} {}", below(u64::MAX));
    let (ciphertext, _) = kms.encrypt(id, text.as_bytes(), b"").await?;
    known.keep(id, ciphertext, text);
    Ok(())
}

/// Callers that go on until they are stopped, whatever they are answered.
struct Load(Vec<JoinHandle<()>>);

impl Load {
    fn start(kms: &Kms, known: &Arc<Known>, round: u32) -> Self {
        let mut workers = vec![
            over_and_over(kms, known, 120, |kms, known| async move {
                let id = format!("k{}", uuid::Uuid::new_v4().simple());
                kms.create_key(&id, KeyType::Aes256Gcm, [], "").await?;
                encrypt(&kms, &known, &id).await
            }),
            over_and_over(kms, known, 20, |kms, known| async move {
                let id = known.any_key();
                kms.rotate_key(&id, "").await?;
                encrypt(&kms, &known, &id).await
            }),
            over_and_over(kms, known, 5, |kms, known| async move {
                let secrets = known.secrets(&kms.seal_status().await?);
                kms.rotate_root(&secrets).await?;
                known.rotations.send_modify(|rotations| *rotations += 1);
                Ok(())
            }),
        ];
        if round.is_multiple_of(3) {
            workers.push(over_and_over(kms, known, 150, |kms, known| async move {
                kms.seal().await?;
                unseal(&kms, &known).await.map(|_| ())
            }));
        }
        if round % 3 == 1 {
            workers.push(over_and_over(kms, known, 20, |kms, known| async move {
                let status = kms.seal_status().await?;
                let new = match below(3) {
                    0 => NewSeal::Passphrase(Zeroizing::new(PASSPHRASE.to_owned())),
                    1 => NewSeal::KeyFile,
                    _ => known.new_shares(),
                };
                kms.rekey(&known.secrets(&status), &new).await.map(|_| ())
            }));
        }
        Self(workers)
    }

    /// What is not acknowledged yet never will be.
    fn stop(self) {
        for worker in self.0 {
            worker.abort();
        }
    }
}

fn over_and_over<F>(
    kms: &Kms,
    known: &Arc<Known>,
    pause_ms: u64,
    work: impl Fn(Kms, Arc<Known>) -> F + Send + 'static,
) -> JoinHandle<()>
where
    F: Future<Output = Result<(), ClientError>> + Send,
{
    let (kms, known) = (kms.clone(), known.clone());
    tokio::spawn(async move {
        loop {
            if let Err(error) = work(kms.clone(), known.clone()).await
                && matches!(error.code(), Code::Internal | Code::DataLoss | Code::NotFound)
            {
                known.failures.lock().unwrap().push(error.to_string());
            }
            tokio::time::sleep(Duration::from_millis(pause_ms)).await;
        }
    })
}

fn random(from_ms: u64, to_ms: u64) -> Duration {
    Duration::from_millis(from_ms + below(to_ms - from_ms))
}

fn below(bound: u64) -> u64 {
    u64::from_be_bytes(random_array().unwrap()) % bound
}

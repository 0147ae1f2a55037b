//! Another seal for the same root key; and backups of sealed stores.

use std::{fs, path::Path};

use asterism_crypto::DecryptionKey;
use asterism_kms::RootKeyConfig;
use asterism_proto::kms::{self as pb, SealKind, UnsealSecret, rekey_request::NewSeal as Wish};
use tonic::Code;

use crate::{
    backups::{backup, restored_dir},
    seals::{
        PASSPHRASE, Split, copy, passphrase, reason, rekey, sealed_with, sealed_with_passphrase, status,
        unseal,
    },
    support::{World, make_keys, refused},
};

const ANOTHER: &str = "another passphrase altogether";

/// A seal, and what opens it.
enum Seal {
    KeyFile,
    Passphrase(&'static str),
    Shares(Split),
}

impl Seal {
    fn kind(&self) -> SealKind {
        match self {
            Self::KeyFile => SealKind::KeyFile,
            Self::Passphrase(_) => SealKind::Passphrase,
            Self::Shares(_) => SealKind::Shares,
        }
    }

    fn wish(&self) -> Wish {
        match self {
            Self::KeyFile => Wish::KeyFile(pb::KeyFileSeal {}),
            Self::Passphrase(text) => Wish::Passphrase(pb::PassphraseSeal {
                passphrase: (*text).to_owned(),
            }),
            Self::Shares(split) => split.wish(),
        }
    }

    /// As many as are needed.
    fn secrets(&self) -> Vec<UnsealSecret> {
        match self {
            Self::KeyFile => vec![],
            Self::Passphrase(text) => vec![passphrase(text)],
            Self::Shares(split) => vec![split.share(2), split.share(0)],
        }
    }

    /// Whether all that opens it opens this world, which it leaves open.
    async fn opens(&self, world: &World) -> bool {
        let secrets = self.secrets();
        let mut answer = match secrets.is_empty() {
            true => unseal(world, None).await,
            false => Ok(status(world).await),
        };
        for secret in secrets {
            answer = unseal(world, Some(secret)).await;
        }
        answer.is_ok_and(|told| !told.sealed)
    }
}

/// Starts on what is left after a stop; a start may be refused for its key file.
async fn start(dir: tempfile::TempDir) -> Option<World> {
    World::start_with(dir, RootKeyConfig::default()).await.ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn from_each_seal_to_each_other_and_what_opened_the_old_one_opens_nothing_more() {
    let world = World::start().await;
    make_keys(&world.admin()).await;
    let (ciphertext, _) = world.admin().encrypt("aes", b"text", b"").await.unwrap();
    let way = [
        Seal::Passphrase(PASSPHRASE),
        Seal::Passphrase(ANOTHER),
        Seal::Shares(Split::new()),
        Seal::Shares(Split::new()),
        Seal::KeyFile,
        Seal::KeyFile,
        Seal::Shares(Split::new()),
        Seal::Passphrase(PASSPHRASE),
        Seal::KeyFile,
    ];
    let (mut world, mut before) = (world, Seal::KeyFile);
    for next in way {
        let was = status(&world).await;
        let key_files = key_files(&world.dir.path().join("kms"));
        assert_eq!(key_files.len(), usize::from(before.kind() == SealKind::KeyFile));
        let old_keys: Vec<_> = key_files.iter().map(|path| fs::read(path).unwrap()).collect();

        // Nothing changes without what opens the seal now.
        if !before.secrets().is_empty() {
            let (_, reason) = reason(rekey(&world, vec![], next.wish()).await);
            assert_eq!(reason, "UNSEAL_SECRET_REQUIRED");
        }
        let wrong = rekey(&world, vec![passphrase("no passphrase of ours")], next.wish()).await;
        assert!(wrong.is_err());
        assert_eq!(status(&world).await, was);

        let told = rekey(&world, before.secrets(), next.wish()).await.unwrap();
        assert_eq!((told.kind(), told.sealed), (next.kind(), false));
        assert_ne!(told.seal_id, was.seal_id);
        assert_eq!(told.root_version, 1, "the root key is the same");
        world.admin().decrypt("aes", &ciphertext, b"").await.unwrap();

        let dir = world.stop().await;
        let kms = dir.path().join("kms");
        for key in &old_keys {
            let left = crate::disk::all_files(&kms);
            assert!(!left.iter().any(|path| fs::read(path).unwrap() == *key));
        }
        let copied = start(copy_whole(dir.path())).await.unwrap();
        world = start(dir).await.unwrap();
        for world in [&copied, &world] {
            let sealed = status(world).await.sealed;
            assert_eq!(sealed, next.kind() != SealKind::KeyFile);
            if sealed {
                assert!(!before.opens(world).await, "the old secret still opens it");
                assert!(next.opens(world).await);
            }
            world.admin().decrypt("aes", &ciphertext, b"").await.unwrap();
        }
        copied.stop().await;
        before = next;
    }
    world.stop().await;
}

fn copy_whole(dir: &Path) -> tempfile::TempDir {
    let whole = tempfile::tempdir().unwrap();
    for part in ["kms", "credentials"] {
        let part = copy(&dir.join(part));
        let name = fs::read_dir(part.path())
            .unwrap()
            .next()
            .unwrap()
            .unwrap()
            .file_name();
        fs::rename(part.path().join(&name), whole.path().join(&name)).unwrap();
    }
    whole
}

fn key_files(data_dir: &Path) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(data_dir).unwrap().map(|entry| entry.unwrap().path());
    let named = |path: &std::path::PathBuf| path.extension().is_some_and(|kind| kind == "key");
    entries.filter(named).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn unsound_wishes_are_refused_and_named() {
    let world = World::start().await;
    let was = status(&world).await;
    let shares = |change: fn(&mut pb::SharesSeal)| {
        let Wish::Shares(mut seal) = Split::new().wish() else {
            panic!("shares")
        };
        change(&mut seal);
        Wish::Shares(seal)
    };
    let invalid = refused(Code::InvalidArgument, "INVALID_FIELD");
    for wish in [
        Wish::Passphrase(pb::PassphraseSeal::default()),
        Wish::Passphrase(pb::PassphraseSeal {
            passphrase: "elevenbytes".into(),
        }),
        Wish::Passphrase(pb::PassphraseSeal {
            passphrase: "x".repeat(1025),
        }),
        shares(|seal| seal.unseal_key.truncate(31)),
        shares(|seal| seal.threshold = 1),
        shares(|seal| seal.threshold = 4),
        shares(|seal| seal.threshold = u32::MAX),
        shares(|seal| seal.share_sha256[0].truncate(31)),
        shares(|seal| seal.share_sha256[0] = seal.share_sha256[1].clone()),
        shares(|seal| seal.share_sha256.truncate(1)),
        shares(|seal| seal.share_sha256 = (0..17).map(|byte| vec![byte; 32]).collect()),
    ] {
        let shown = format!("{wish:?}");
        assert_eq!(reason(rekey(&world, vec![], wish).await), invalid, "{shown}");
    }
    let token = rekey(&world, vec![], Wish::Token(pb::TokenSeal {})).await;
    assert_eq!(reason(token), refused(Code::FailedPrecondition, "TOKEN_NOT_SET"));
    let many = vec![passphrase(PASSPHRASE); 17];
    let answer = rekey(&world, many, Wish::KeyFile(pb::KeyFileSeal {})).await;
    assert_eq!(reason(answer), invalid);
    assert_eq!(status(&world).await, was);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_of_a_sealed_store_opens_by_the_same_secret() {
    let split = Split::new();
    let worlds = [
        (sealed_with_passphrase().await, Seal::Passphrase(PASSPHRASE)),
        (sealed_with(split.seal()).await, Seal::Shares(split)),
    ];
    for (world, seal) in worlds {
        assert!(seal.opens(&world).await);
        make_keys(&world.admin()).await;
        let (ciphertext, _) = world.admin().encrypt("aes", b"text", b"").await.unwrap();
        let key = DecryptionKey::generate().unwrap();
        let (bytes, signer) = backup(&world.admin(), &key.encryption_key()).await.unwrap();
        world.stop().await;

        let dir = restored_dir(&bytes, key, signer);
        let mark = dir.path().join("kms/restored.json");
        let world = start(dir).await.unwrap();
        assert!(status(&world).await.sealed);
        assert!(!Seal::Passphrase(ANOTHER).opens(&world).await);
        assert!(mark.exists(), "it is reported once it is open");
        assert!(seal.opens(&world).await);
        assert!(!mark.exists());
        let opened = world.admin().decrypt("aes", &ciphertext, b"").await.unwrap();
        assert_eq!(opened.expose(), b"text");
        world.stop().await;
    }
}

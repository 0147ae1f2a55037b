//! Rows 2 and 7: who has every file of every service, to read them or to change them.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use asterism::constellation::{Constellation, Options};
use asterism_chassis::{config::Common, identity::Role};
use asterism_client::{
    Connection, Credentials,
    proto::{
        audit::EventFilter,
        inference::{Algorithm, TrainRequest},
        kms::{KeyType, UnsealRequest, system_service_client::SystemServiceClient},
    },
};

use tokio::net::TcpListener;

use crate::{
    people::{PASSWORD, enrolled},
    support::{World, files, files_of, fresh_id, order, reason, small_csv, train, upload},
};

const CELL: &str = "porcupine-on-a-disk";

fn planted_csv() -> String {
    small_csv(60).replace("even", CELL)
}

fn with_label(dataset: &str) -> TrainRequest {
    TrainRequest {
        label: "label".into(),
        ..order(dataset, Algorithm::LogisticRegression)
    }
}

/// The files that hold `needle`.
fn holding(dir: &Path, needle: &[u8]) -> Vec<PathBuf> {
    let mut found = files(dir);
    found.retain(|path| {
        let bytes = fs::read(path).unwrap();
        bytes.windows(needle.len()).any(|window| window == needle)
    });
    found
}

/// Whether kms opens its store so; what it answers, if it does not.
async fn opened(data: &Path, passphrase: Option<PathBuf>) -> Result<(), String> {
    let mut config = asterism_kms::Config {
        common: Common::embedded("kms", data),
        ..Default::default()
    };
    config.root_key.passphrase_file = passphrase;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    match asterism_kms::start(config, listener).await {
        Ok(running) => {
            let anybody = Connection::lazy(&running.url(), Credentials::anonymous()).unwrap();
            let mut seal = SystemServiceClient::new(anybody.service());
            // Whoever is not told the secret by the settings asks for it.
            let opened = seal.unseal(UnsealRequest { secret: None }).await;
            running.shutdown().await;
            opened.map(drop).map_err(|refused| refused.message().to_owned())
        }
        Err(error) => Err(error.to_string()),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_takes_the_disks_finds_no_data_key_password_or_token_and_opens_nothing_with_another_root() {
    let dir = tempfile::tempdir().unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    let passphrase = |text: &str| {
        let file = elsewhere.path().join(text);
        fs::write(&file, text).unwrap();
        fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
        file
    };
    let sealed = |text: &str| Options {
        root_key: asterism_kms::RootKeyConfig {
            passphrase_file: Some(passphrase(text)),
            ..Default::default()
        },
        ..Options::default()
    };
    let right = "a passphrase that is kept elsewhere";
    let constellation = Constellation::start(dir.path(), &sealed(right)).await.unwrap();
    let world = World { constellation, dir };
    let kms = Connection::lazy(&world.constellation.endpoints().kms, Credentials::anonymous()).unwrap();
    let person = enrolled(&world, &kms, &["data-owner", "analyst"]).await;
    let services = world.admin();
    let dataset = upload(&services, planted_csv()).await.unwrap();
    let model = train(&services, with_label(&dataset.name)).await.unwrap();
    let value = 7.123_456_789_012_345_f64;
    services
        .inference
        .predict(&model.name, vec![vec![value, value]])
        .await
        .unwrap();
    services
        .kms
        .create_key("disk", KeyType::Aes256Gcm, [], &fresh_id())
        .await
        .unwrap();
    let data_key = services.kms.generate_data_key("disk", b"aad").await.unwrap();
    world.constellation.shutdown().await;

    let data = world.dir.path();
    let secrets: [(&str, &[u8]); 8] = [
        ("a cell", CELL.as_bytes()),
        ("a row to predict", &value.to_le_bytes()),
        ("a data key", data_key.key.expose()),
        ("a password", PASSWORD.as_bytes()),
        ("an access token", person.tokens.access_token.as_bytes()),
        ("a refresh token", person.tokens.refresh_token.as_bytes()),
        ("an invitation", person.invitation.as_bytes()),
        ("the passphrase", right.as_bytes()),
    ];
    for (secret, bytes) in secrets {
        assert_eq!(holding(data, bytes), [] as [PathBuf; 0], "{secret}");
    }
    assert!(
        !holding(data, b"user/admin").is_empty(),
        "the search finds nothing"
    );
    // Nobody else on the machine reads any of it.
    for private in ["kms", "ingest", "inference", "audit", "credentials"] {
        let mode = fs::metadata(data.join(private)).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{private}: {mode:o}");
    }

    for wrong in [
        Some("another passphrase altogether"),
        Some("and one more that is wrong"),
        None,
    ] {
        let text = opened(data, wrong.map(passphrase))
            .await
            .expect_err("another root key");
        let why = match wrong {
            Some(_) => "not the one",
            None => "name no secret",
        };
        assert!(text.contains(why), "{text}");
    }
    opened(data, Some(passphrase(right))).await.unwrap();
    let constellation = Constellation::start(data, &sealed(right)).await.unwrap();
    let again = constellation.connect("user/admin", &[Role::Admin], None).unwrap();
    assert!(again.ingest.verify(&dataset.name).await.unwrap().verified);
    constellation.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn any_changed_file_of_a_dataset_or_model_is_found_before_its_use() {
    let world = World::start().await;
    let services = world.admin();
    let dataset = upload(&services, small_csv(200)).await.unwrap();
    let model = train(&services, with_label(&dataset.name)).await.unwrap();
    let other = train(&services, with_label(&dataset.name)).await.unwrap();
    let row = || vec![vec![1.0, 2.0]];
    let ingest = files_of(&world.dir.path().join("ingest"), &dataset.name);
    let inference = world.dir.path().join("inference");
    let (ones, others) = (
        files_of(&inference, &model.name),
        files_of(&inference, &other.name),
    );
    assert!(ingest.len() >= 2 && ones.len() >= 2, "{ingest:?} {ones:?}");
    for path in ingest.iter().chain(&ones) {
        let original = fs::read(path).unwrap();
        let (end, middle) = (original.len() - 1, original.len() / 2);
        let flipped = |at: usize| {
            let mut bytes = original.clone();
            bytes[at] ^= 1;
            bytes
        };
        for (what, bytes) in [
            ("flipped first", flipped(0)),
            ("flipped middle", flipped(middle)),
            ("flipped last", flipped(end)),
            ("cut off", original[..end].to_vec()),
            ("longer", [original.as_slice(), &[0]].concat()),
            ("empty", vec![]),
        ] {
            fs::write(path, bytes).unwrap();
            let shown = format!("{what}: {}", path.display());
            if ingest.contains(path) {
                match services.ingest.verify(&dataset.name).await {
                    Ok(report) => {
                        let mut failed = report.checks.iter().filter(|check| !check.ok);
                        assert!(!report.verified, "{shown}");
                        assert!(failed.any(|check| !check.detail.is_empty()), "{shown}");
                    }
                    Err(error) => assert!(error.reason().is_some(), "{shown}: {error}"),
                }
                assert!(
                    train(&services, with_label(&dataset.name)).await.is_err(),
                    "{shown}"
                );
            } else {
                let refused = services.inference.predict(&model.name, row()).await;
                assert_eq!(reason(refused), "MODEL_REFUSED", "{shown}");
            }
            fs::write(path, &original).unwrap();
        }
    }
    // One whole model in the place of another, signature and all.
    let originals: Vec<_> = ones.iter().map(|path| fs::read(path).unwrap()).collect();
    let ending = |path: &Path| path.extension().map(ToOwned::to_owned);
    for one in &ones {
        let other = others.iter().find(|other| ending(other) == ending(one)).unwrap();
        fs::copy(other, one).unwrap();
    }
    let refused = services.inference.predict(&model.name, row()).await;
    assert_eq!(reason(refused), "MODEL_REFUSED");
    for (path, bytes) in ones.iter().zip(originals) {
        fs::write(path, bytes).unwrap();
    }
    services.inference.predict(&model.name, row()).await.unwrap();
    world.constellation.shutdown().await;
}

/// Copies a folder with all that lies in it, over what is there.
fn put_back(from: &Path, to: &Path) {
    let _ = fs::remove_dir_all(to);
    for path in files(from) {
        let copy = to.join(path.strip_prefix(from).unwrap());
        fs::create_dir_all(copy.parent().unwrap()).unwrap();
        fs::copy(&path, &copy).unwrap();
    }
    for path in files(to).iter().filter_map(|path| path.parent()) {
        fs::set_permissions(path, Permissions::from_mode(0o700)).unwrap();
    }
    fs::set_permissions(to, Permissions::from_mode(0o700)).unwrap();
}

/// Makes a key and waits until the log has it.
async fn make_key(world: &World, name: &str) {
    let services = world.admin();
    services
        .kms
        .create_key(name, KeyType::Aes256Gcm, [], &fresh_id())
        .await
        .unwrap();
    for _ in 0..500 {
        let filter = EventFilter {
            operation: "kms.CreateKey".into(),
            resource: format!("keys/{name}"),
            ..EventFilter::default()
        };
        if !services.audit.list_all(filter).await.unwrap().is_empty() {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("no event of {name}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_was_put_back_to_an_older_state_is_found_at_the_next_event() {
    let kept = tempfile::tempdir().unwrap();
    let world = World::start().await;
    make_key(&world, "one").await;
    let world = world
        .restart_after(|data| put_back(&data.join("audit"), kept.path()))
        .await;
    make_key(&world, "two").await;
    let world = world
        .restart_after(|data| put_back(kept.path(), &data.join("audit")))
        .await;
    make_key(&world, "three").await;
    let report = world.admin().audit.verify().await.unwrap();
    assert!(
        report
            .sequence_problems
            .iter()
            .any(|problem| problem.contains("kms")),
        "{report:?}"
    );
    world.constellation.shutdown().await;
}

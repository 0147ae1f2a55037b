//! Stored things that were changed behind the services' backs.

use std::{fs, path::Path};

use asterism_client::proto::{inference::Algorithm, kms::KeyType};
use asterism_crypto::Signed;

use crate::support::{BREAST_CANCER, World, files_of, order, reason, small_csv, train, upload};

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 1;
    fs::write(path, bytes).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn any_flipped_byte_of_a_dataset_is_found() {
    let world = World::start().await;
    let services = world.admin();
    let dataset = upload(&services, small_csv(200)).await.unwrap();
    let files = files_of(&world.dir.path().join("ingest"), &dataset.name);
    assert!(files.len() >= 2, "blob and manifest: {files:?}");
    for path in files {
        let size = fs::metadata(&path).unwrap().len() as usize;
        let original = fs::read(&path).unwrap();
        for at in [0, size / 3, size / 2, size - 1] {
            flip(&path, at);
            match services.ingest.verify(&dataset.name).await {
                Ok(report) => {
                    assert!(!report.verified, "byte {at} of {}", path.display());
                    assert!(
                        report
                            .checks
                            .iter()
                            .any(|check| !check.ok && !check.detail.is_empty())
                    );
                }
                Err(error) => assert!(error.reason().is_some(), "{error}"),
            }
            let mut request = order(&dataset.name, Algorithm::LogisticRegression);
            request.label = "label".into();
            assert!(
                train(&services, request).await.is_err(),
                "trained on damaged data"
            );
            fs::write(&path, &original).unwrap();
        }
    }
    assert!(services.ingest.verify(&dataset.name).await.unwrap().verified);
    world.constellation.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_damaged_chunk_of_a_large_dataset_is_named() {
    let world = World::start().await;
    let services = world.admin();
    let dataset = upload(&services, small_csv(400_000)).await.unwrap();
    let report = services.ingest.verify(&dataset.name).await.unwrap();
    assert!(report.verified && report.chunks >= 4, "{report:?}");
    let files = files_of(&world.dir.path().join("ingest"), &dataset.name);
    let blob = files
        .iter()
        .max_by_key(|path| fs::metadata(path).unwrap().len())
        .unwrap();
    let size = fs::metadata(blob).unwrap().len() as usize;
    flip(blob, size - 100);
    let report = services.ingest.verify(&dataset.name).await.unwrap();
    assert!(!report.verified);
    assert_eq!(report.first_damaged_chunk, Some(report.chunks - 1));
    world.constellation.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_signed_by_another_key_is_refused() {
    let world = World::start().await;
    let services = world.admin();
    let dataset = upload(&services, small_csv(50)).await.unwrap();
    let manifest = files_of(&world.dir.path().join("ingest"), &dataset.name)
        .into_iter()
        .find(|path| serde_json::from_slice::<Signed>(&fs::read(path).unwrap()).is_ok())
        .expect("a stored manifest");
    let signed: Signed = serde_json::from_slice(&fs::read(&manifest).unwrap()).unwrap();

    services
        .kms
        .create_key("rogue", KeyType::EcSignP256Sha256, [], "rogue")
        .await
        .unwrap();
    let forged = services
        .kms
        .sign_statement("rogue", &signed.domain, signed.payload.clone())
        .await
        .unwrap();
    let renamed = Signed {
        key: signed.key.clone(),
        key_version: signed.key_version,
        ..forged.clone()
    };
    for forgery in [forged, renamed] {
        fs::write(&manifest, serde_json::to_vec(&forgery).unwrap()).unwrap();
        let report = services.ingest.verify(&dataset.name).await.unwrap();
        assert!(!report.verified);
        let here = services
            .ingest
            .open_dataset(&services.kms, &dataset.name, "manifest-signer", |_| Ok(()))
            .await;
        assert!(here.is_err());
    }
    world.constellation.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_swapped_for_another_is_refused_even_when_it_was_in_use() {
    let world = World::start().await;
    let services = world.admin();
    let dataset = upload(&services, BREAST_CANCER).await.unwrap();
    let one = train(&services, order(&dataset.name, Algorithm::LogisticRegression))
        .await
        .unwrap();
    let two = train(&services, order(&dataset.name, Algorithm::GradientBoostedTrees))
        .await
        .unwrap();
    let row = || vec![vec![0.0; 30]];
    services.inference.predict(&one.name, row()).await.unwrap();

    let dir = world.dir.path().join("inference");
    let (mut ones, mut twos) = (files_of(&dir, &one.name), files_of(&dir, &two.name));
    ones.sort();
    twos.sort();
    // The model alone, the manifest alone, then both.
    for parts in [vec![0], vec![1], vec![0, 1]] {
        let originals: Vec<_> = ones.iter().map(|path| fs::read(path).unwrap()).collect();
        for part in &parts {
            fs::copy(&twos[*part], &ones[*part]).unwrap();
        }
        assert_eq!(
            reason(services.inference.predict(&one.name, row()).await),
            "MODEL_REFUSED"
        );
        assert_eq!(
            reason(services.inference.evaluate(&one.name, "").await),
            "MODEL_REFUSED"
        );
        for (path, bytes) in ones.iter().zip(originals) {
            fs::write(path, bytes).unwrap();
        }
    }
    services.inference.predict(&one.name, row()).await.unwrap();
    world.constellation.shutdown().await;
}

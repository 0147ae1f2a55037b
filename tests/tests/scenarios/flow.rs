//! The main job, and what must hold along the way.

use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};

use asterism_chassis::identity::Role;
use asterism_client::proto::{
    audit::{EventFilter, Outcome},
    inference::{Algorithm, BatchPredictRequest, FeatureRow},
    ingest::ColumnKind,
    kms::KeyType,
};

use crate::support::{
    BREAST_CANCER, LABEL, World, feature_rows, files, fresh_id, order, reason, small_csv, train, upload,
    upload_as,
};

#[tokio::test(flavor = "multi_thread")]
async fn real_data_goes_through_upload_training_prediction_and_audit() {
    let world = World::start().await;
    let trace_id = uuid::Uuid::new_v4().simple().to_string();
    let services = world.in_trace(&trace_id);

    let dataset = upload(&services, BREAST_CANCER).await.unwrap();
    assert_eq!(dataset.rows, 569);
    assert_eq!(dataset.columns.len(), 31);
    assert_eq!(dataset.owner, "user/admin");
    let label = dataset
        .columns
        .iter()
        .find(|column| column.name == LABEL)
        .unwrap();
    assert_eq!(
        (label.kind(), label.distinct, label.missing),
        (ColumnKind::Text, 2, 0)
    );
    assert!(services.ingest.verify(&dataset.name).await.unwrap().verified);

    for algorithm in [
        Algorithm::GradientBoostedTrees,
        Algorithm::LogisticRegression,
        Algorithm::NeuralNetwork,
        Algorithm::RandomForest,
    ] {
        let model = train(&services, order(&dataset.name, algorithm)).await.unwrap();
        let held_out = model.evaluation.clone().unwrap();
        assert_eq!(
            services.inference.evaluate(&model.name, "").await.unwrap(),
            held_out
        );
        assert!(held_out.accuracy >= 0.93, "{algorithm:?}: {}", held_out.accuracy);
        if algorithm == Algorithm::GradientBoostedTrees {
            assert!(held_out.accuracy >= 0.95, "accuracy {}", held_out.accuracy);
            assert!(held_out.roc_auc >= 0.98, "ROC AUC {}", held_out.roc_auc);
        }
        let counted: u64 = held_out.confusion.iter().flat_map(|row| &row.counts).sum();
        assert_eq!(counted, held_out.rows);

        let from_dataset = services
            .inference
            .predict_dataset(&model.name, &dataset.name)
            .await
            .unwrap();
        assert_eq!(from_dataset.len(), 569);
        let rows = feature_rows(&model.features);
        let answer = services
            .inference
            .predict(&model.name, rows[..50].to_vec())
            .await
            .unwrap();
        assert_eq!(answer.predictions[..], from_dataset[..50]);
    }

    // Each stream is recorded before its first answer and when it ends; then the log has everything of this trace.
    let filter = EventFilter {
        trace_id,
        ..EventFilter::default()
    };
    let entries = loop {
        let entries = services.audit.list_all(filter.clone()).await.unwrap();
        let predictions = entries
            .iter()
            .filter(|e| operation(e) == "inference.BatchPredict")
            .count();
        if predictions >= 6 {
            break entries;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    let seen: BTreeSet<String> = entries.iter().map(operation).collect();
    for wanted in [
        "ingest.BeginUpload",
        "ingest.CommitUpload",
        "ingest.VerifyDataset",
        "kms.GenerateDataKey",
        "kms.Decrypt",
        "kms.AsymmetricSign",
        "inference.Train",
        "inference.Predict",
    ] {
        assert!(seen.contains(wanted), "{wanted} is missing from {seen:?}");
    }
    for entry in &entries {
        let event = entry.event.as_ref().unwrap();
        if event.source == "kms" {
            assert_eq!(event.on_behalf_of, "user/admin", "{event:?}");
        }
    }
    let report = services.audit.verify().await.unwrap();
    assert!(report.verified, "{}", report.problem);
    assert_eq!(report.sequence_problems, Vec::<String>::new());
    world.constellation.shutdown().await;
}

fn operation(entry: &asterism_client::proto::audit::LogEntry) -> String {
    entry.event.as_ref().unwrap().operation.clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_acknowledged_is_there_after_a_restart() {
    let world = World::start().await;
    let services = world.admin();
    services
        .kms
        .create_key("mine", KeyType::Aes256Gcm, [], &fresh_id())
        .await
        .unwrap();
    let (ciphertext, _) = services.kms.encrypt("mine", b"before", b"aad").await.unwrap();
    services.kms.rotate_key("mine", &fresh_id()).await.unwrap();
    let dataset = upload(&services, BREAST_CANCER).await.unwrap();
    let model = train(&services, order(&dataset.name, Algorithm::GradientBoostedTrees))
        .await
        .unwrap();

    let world = world.restart().await;
    let services = world.admin();
    assert_eq!(
        services
            .kms
            .decrypt("mine", &ciphertext, b"aad")
            .await
            .unwrap()
            .expose(),
        b"before"
    );
    assert_eq!(services.kms.key("mine").await.unwrap().primary_version, 2);
    assert_eq!(services.ingest.get(&dataset.name).await.unwrap(), dataset);
    assert!(services.ingest.verify(&dataset.name).await.unwrap().verified);
    assert_eq!(services.inference.get(&model.name).await.unwrap(), model);
    assert_eq!(
        services
            .inference
            .predict(&model.name, vec![vec![0.0; 30]])
            .await
            .unwrap()
            .predictions
            .len(),
        1
    );
    assert!(services.audit.verify().await.unwrap().verified);
    world.constellation.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_secret_lies_on_the_disk_in_the_clear() {
    let world = World::start().await;
    let services = world.admin();
    let marker = "31415926.5358979";
    let csv = format!("{}{marker},1,even\n", small_csv(40));
    let dataset = upload(&services, &csv).await.unwrap();
    let mut request = order(&dataset.name, Algorithm::LogisticRegression);
    request.label = "label".into();
    train(&services, request).await.unwrap();
    let key = services
        .kms
        .generate_data_key("dataset-kek", b"canary")
        .await
        .unwrap();
    for path in files(world.dir.path()) {
        let bytes = std::fs::read(&path).unwrap();
        for secret in [marker.as_bytes(), key.key.expose().as_slice(), b"odd\n"] {
            let found = bytes.windows(secret.len()).any(|window| window == secret);
            assert!(!found, "{} holds plaintext", path.display());
        }
    }
    world.constellation.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_request_id_makes_one_dataset_and_one_model() {
    let world = World::start().await;
    let services = world.admin();
    let first = upload_as(&services, BREAST_CANCER, "same").await.unwrap();
    let second = upload_as(&services, BREAST_CANCER, "same").await.unwrap();
    assert_eq!(first, second);
    assert_eq!(services.ingest.list(100, "").await.unwrap().0.len(), 1);

    let request = order(&first.name, Algorithm::LogisticRegression);
    let model = train(&services, request.clone()).await.unwrap();
    assert_eq!(train(&services, request.clone()).await.unwrap(), model);
    assert_eq!(services.inference.list(100, "").await.unwrap().0.len(), 1);
    let other = asterism_client::proto::inference::TrainRequest { seed: 8, ..request };
    assert_eq!(reason(train(&services, other).await), "REQUEST_ID_REUSED");
    world.constellation.shutdown().await;
}

/// The settings that encrypted prediction is made for are taken, kept with the model, and refused by name where they are wrong.
#[tokio::test(flavor = "multi_thread")]
async fn models_are_trained_as_asked() {
    let world = World::start().await;
    let services = world.admin();
    let dataset = upload(&services, BREAST_CANCER).await.unwrap();
    let wishes = |pairs: &[(&str, &str)]| -> HashMap<String, String> {
        pairs
            .iter()
            .map(|(name, text)| ((*name).to_owned(), (*text).to_owned()))
            .collect()
    };
    for (algorithm, pairs) in [
        (
            Algorithm::GradientBoostedTrees,
            [("bins", "45"), ("depth", "2"), ("trees", "100")].as_slice(),
        ),
        (
            Algorithm::GradientBoostedTrees,
            &[("bins", "256"), ("depth", "6")],
        ),
        (
            Algorithm::RandomForest,
            &[("bins", "45"), ("depth", "2"), ("trees", "100")],
        ),
        (
            Algorithm::DecisionTree,
            &[("depth", "4"), ("min_samples_leaf", "3")],
        ),
        (Algorithm::NeuralNetwork, &[("hidden", "16")]),
    ] {
        let mut request = order(&dataset.name, algorithm);
        request.hyperparameters = wishes(pairs);
        let model = train(&services, request).await.unwrap();
        assert_eq!(model.algorithm(), algorithm);
        assert_eq!(model.hyperparameters, wishes(pairs));
        let accuracy = model.evaluation.unwrap().accuracy;
        assert!(accuracy >= 0.9, "{algorithm:?}: {accuracy}");
    }
    let mut request = order(&dataset.name, Algorithm::RandomForest);
    request.hyperparameters = wishes(&[("depth", "13"), ("bins", "257")]);
    let refusal = train(&services, request).await.unwrap_err().to_string();
    assert!(
        refusal.contains("depth") && refusal.contains("from 2 to 256"),
        "{refusal}"
    );
    world.constellation.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn owners_keep_to_themselves_and_roles_to_their_verbs() {
    let world = World::start().await;
    let alice = world.as_principal("user/alice", &[Role::DataOwner, Role::Analyst]);
    let bob = world.as_principal("user/bob", &[Role::DataOwner, Role::Analyst]);
    let auditor = world.as_principal("user/auditor", &[Role::Auditor]);

    let dataset = upload(&alice, BREAST_CANCER).await.unwrap();
    let model = train(&alice, order(&dataset.name, Algorithm::LogisticRegression))
        .await
        .unwrap();
    assert_eq!(model.owner, "user/alice");

    assert_eq!(reason(bob.ingest.get(&dataset.name).await), "DATASET_NOT_FOUND");
    assert_eq!(
        reason(bob.ingest.delete(&dataset.name).await),
        "DATASET_NOT_FOUND"
    );
    assert_eq!(reason(bob.inference.get(&model.name).await), "MODEL_NOT_FOUND");
    assert_eq!(
        reason(bob.inference.predict(&model.name, vec![vec![0.0; 30]]).await),
        "MODEL_NOT_FOUND"
    );
    let order = order(&dataset.name, Algorithm::LogisticRegression);
    assert_eq!(reason(train(&bob, order).await), "DATASET_NOT_FOUND");
    assert!(bob.ingest.list(100, "").await.unwrap().0.is_empty());
    assert!(bob.inference.list(100, "").await.unwrap().0.is_empty());

    assert_eq!(reason(alice.audit.verify().await), "POLICY_DENIED");
    assert!(auditor.audit.verify().await.unwrap().verified);
    // The denial is on its way to the log; it arrives soon.
    let denied = EventFilter {
        outcome: Outcome::Denied.into(),
        principal: "user/alice".into(),
        operation: "audit.VerifyLog".into(),
        ..EventFilter::default()
    };
    let arrived = async {
        while auditor.audit.list_all(denied.clone()).await.unwrap().is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), arrived)
        .await
        .expect("a denial is an event");
    world.constellation.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_streams_in_order_with_more_rows_than_any_buffer_holds() {
    let world = World::start().await;
    let services = world.admin();
    let dataset = upload(&services, small_csv(60)).await.unwrap();
    let mut request = order(&dataset.name, Algorithm::LogisticRegression);
    request.label = "label".into();
    let model = train(&services, request).await.unwrap();
    let name = model.name.clone();
    let messages = (0..100).map(move |message| BatchPredictRequest {
        name: name.clone(),
        rows: (0..1000)
            .map(|row| FeatureRow {
                values: vec![if (message + row) % 2 == 0 { 0.5 } else { 10.5 }, 1.0],
            })
            .collect(),
        dataset: String::new(),
    });
    let mut stream = services
        .inference
        .batch_predict(futures::stream::iter(messages))
        .await
        .unwrap();
    let mut expected = 0;
    while let Some(message) = stream.message().await.unwrap() {
        assert_eq!(message.offset, expected);
        for prediction in message.predictions {
            let (message, row) = (expected / 1000, expected % 1000);
            let class = if (message + row) % 2 == 0 { "even" } else { "odd" };
            assert_eq!(prediction.class, class, "row {expected}");
            expected += 1;
        }
    }
    assert_eq!(expected, 100_000);
    world.constellation.shutdown().await;
}

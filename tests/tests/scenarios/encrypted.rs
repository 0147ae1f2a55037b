//! Encrypted prediction over real services: the answers are those in the clear, and survive restarts and company.

use std::{sync::Arc, time::Duration};

use asterism::connect::Services;
use asterism_chassis::identity::Role;
use asterism_client::{
    EncryptedModel, EncryptedPrediction,
    proto::{
        audit::{EventFilter, Outcome},
        inference::{Algorithm, CompiledModel, Plan, Prediction},
    },
};
use asterism_crypto::Digest;
use asterism_learn::{
    csv::{CsvLimits, CsvReader},
    dataset::{Problem, stratified_split},
    table::TableBuilder,
};

use crate::support::{BREAST_CANCER, LABEL, World, feature_rows, order, reason, train, upload};

/// Trees as asked for.
pub async fn trees(services: &Services, dataset: &str, seed: u64, parameters: &[(&str, &str)]) -> String {
    let mut request = order(dataset, Algorithm::GradientBoostedTrees);
    request.seed = seed;
    request.hyperparameters = parameters
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    train(services, request).await.unwrap().name
}

/// Indices of the rows that training with seed 7 held out.
fn held_out() -> Vec<usize> {
    let mut builder = TableBuilder::new(1 << 30);
    let mut reader = CsvReader::new(CsvLimits::default());
    reader.feed(BREAST_CANCER.as_bytes(), &mut builder).unwrap();
    reader.finish(&mut builder).unwrap();
    let table = builder.finish().unwrap();
    let problem = Problem::from_table(&table, LABEL, None).unwrap();
    stratified_split(&problem.labels, 0.3, 7).unwrap().test
}

/// The encrypted answer to a row is the one in the clear, within what the compiled model announces.
fn assert_agrees(
    compiled: &CompiledModel,
    classes: &[String],
    secret: &EncryptedPrediction,
    clear: &Prediction,
) {
    let coding = &compiled.scores[0];
    // A clamped value lies outside of the range for which the error is announced.
    if !secret.clamped.is_empty() {
        return;
    }
    let score = secret.prediction.scores[0];
    let expected = (clear.probabilities[1] / clear.probabilities[0]).ln();
    let bound = coding.quantisation_error + coding.unit / 2.0 + 1e-6;
    if expected.abs() < 20.0 {
        assert!(
            (score - expected).abs() <= bound,
            "{score} and {expected}: more than {bound}"
        );
    }
    if expected.abs() > bound {
        assert_eq!(classes[secret.prediction.class.unwrap()], clear.class);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn held_out_rows_are_predicted_in_secret_as_in_the_clear_also_after_a_restart() {
    let world = World::start().await;
    let services = world.admin();
    let dataset = upload(&services, BREAST_CANCER).await.unwrap();
    let logistic = train(&services, order(&dataset.name, Algorithm::LogisticRegression))
        .await
        .unwrap();
    let shallow = trees(
        &services,
        &dataset.name,
        7,
        &[("trees", "40"), ("depth", "2"), ("bins", "32")],
    )
    .await;
    let deep = trees(&services, &dataset.name, 7, &[("trees", "20"), ("depth", "3")]).await;
    let held_out = held_out();
    let (rows, labels): (Vec<_>, Vec<_>) = {
        let rows = feature_rows(&logistic.features);
        let label = BREAST_CANCER
            .lines()
            .next()
            .unwrap()
            .split(',')
            .position(|name| name == LABEL);
        let labels: Vec<&str> = BREAST_CANCER
            .lines()
            .skip(1)
            .map(|line| line.split(',').nth(label.unwrap()).unwrap())
            .collect();
        held_out
            .iter()
            .map(|row| (rows[*row].clone(), labels[*row]))
            .unzip()
    };
    assert_eq!(rows.len() as u64, logistic.evaluation.as_ref().unwrap().rows);

    let mut opened = vec![];
    for (name, plan, key) in [
        (&logistic.name, Plan::Linear, false),
        (&shallow, Plan::Pairs, false),
        (&deep, Plan::Paths, true),
    ] {
        let compiled = services
            .encrypted
            .compile(name, Plan::Unspecified, false)
            .await
            .unwrap();
        assert_eq!(compiled.plan(), plan, "{:?}", compiled.candidates);
        assert_eq!(compiled.evaluation_key_bytes > 0, key);
        assert!(compiled.candidates.len() >= 3 && compiled.product_us > 0.0);
        assert_eq!(compiled.measured_us, None);
        assert!(compiled.failure_log2 < -30.0, "{}", compiled.failure_log2);
        let again = services
            .encrypted
            .compile(name, Plan::Unspecified, false)
            .await
            .unwrap();
        assert_eq!(again, compiled);

        let model = EncryptedModel::open(&services.encrypted, name).await.unwrap();
        assert_eq!(model.key().is_some(), key);
        let secret = model.predict(rows.clone()).await.unwrap();
        let clear = services.inference.predict(name, rows.clone()).await.unwrap();
        assert_eq!(secret.len(), rows.len());
        let mut right = 0;
        for ((secret, clear), label) in secret.iter().zip(&clear.predictions).zip(&labels) {
            assert_agrees(&compiled, &clear_classes(&model), secret, clear);
            assert_eq!(secret.receipt.model, **name);
            assert_eq!(secret.receipt.owner, "user/admin");
            assert!(!secret.stages.is_empty());
            right += usize::from(model.bundle().classes()[secret.prediction.class.unwrap()] == **label);
        }
        let accuracy = right as f64 / rows.len() as f64;
        assert!(accuracy >= 0.93, "{plan:?}: {accuracy}");
        let explained = services.encrypted.explain(name).await.unwrap();
        assert!(explained.measured_us.unwrap() > 0.0);
        let single = model.predict_row(rows[0].clone()).await.unwrap();
        assert_eq!(single.prediction, secret[0].prediction);
        opened.push((model, secret, compiled));
    }

    let world = world.restart().await;
    let services = world.admin();
    for (before, secret, compiled) in opened {
        let name = before.name();
        let mut explained = services.encrypted.explain(name).await.unwrap();
        explained.product_us = compiled.product_us;
        assert_eq!(explained, compiled, "compiled again, it is the same");
        // Bundle, secret key and registered key from before serve on.
        let after = EncryptedModel::with(
            &services.encrypted,
            name,
            before.bundle().clone(),
            before.key().cloned(),
        )
        .unwrap();
        let again = after.predict(rows[..5].to_vec()).await.unwrap();
        for (again, secret) in again.iter().zip(&secret) {
            assert_eq!(again.prediction, secret.prediction);
        }
    }
    // A deleted model takes its compilation along.
    services.inference.delete(&deep).await.unwrap();
    assert_eq!(reason(services.encrypted.explain(&deep).await), "MODEL_NOT_FOUND");
    world.constellation.shutdown().await;
}

fn clear_classes(model: &EncryptedModel) -> Vec<String> {
    model.bundle().classes().to_vec()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_is_in_the_log_by_the_digests_of_query_and_reply() {
    let world = World::start().await;
    let services = world.admin();
    let dataset = upload(&services, BREAST_CANCER).await.unwrap();
    let model = train(&services, order(&dataset.name, Algorithm::LogisticRegression))
        .await
        .unwrap();
    let compiled = services
        .encrypted
        .compile(&model.name, Plan::Unspecified, false)
        .await
        .unwrap();
    let secret = EncryptedModel::open(&services.encrypted, &model.name)
        .await
        .unwrap();
    let rows = feature_rows(&model.features);
    let mut answers = vec![secret.predict_row(rows[0].clone()).await.unwrap()];
    answers.extend(secret.predict(rows[1..6].to_vec()).await.unwrap());

    let events = |operation: &str| {
        let filter = EventFilter {
            operation: operation.to_owned(),
            resource: model.name.clone(),
            outcome: Outcome::Succeeded.into(),
            ..EventFilter::default()
        };
        let audit = services.audit.clone();
        async move {
            let entries = audit.list_all(filter).await.unwrap();
            entries
                .into_iter()
                .map(|entry| entry.event.unwrap())
                .collect::<Vec<_>>()
        }
    };
    let arrived = async {
        while events("inference.PredictEncrypted").await.len() < 6
            || events("inference.PredictEncryptedStream").await.len() < 2
        {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), arrived)
        .await
        .unwrap();
    let logged = events("inference.PredictEncrypted").await;
    assert_eq!(logged.len(), 6);
    for answer in &answers {
        let found = logged.iter().any(|event| {
            event.input_sha256 == answer.receipt.query_sha256.as_bytes()
                && event.output_sha256 == answer.receipt.reply_sha256.as_bytes()
                && event.principal == "user/admin"
        });
        assert!(found, "{:?}", answer.receipt);
    }
    let compilations = events("inference.CompileModel").await;
    assert_eq!(compilations[0].output_sha256, compiled.compiled_sha256);
    assert_eq!(events("inference.GetClientBundle").await.len(), 1);
    // The whole stream, too: digests over those of its queries, in order.
    let queries: Vec<u8> = answers[1..]
        .iter()
        .flat_map(|answer| *answer.receipt.query_sha256.as_bytes())
        .collect();
    let ends = events("inference.PredictEncryptedStream").await;
    assert!(
        ends.iter()
            .any(|event| event.input_sha256 == Digest::of(&queries).as_bytes())
    );
    assert!(services.audit.verify().await.unwrap().verified);
    world.constellation.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn eight_clients_of_eight_models_never_get_each_others_answers() {
    const CLIENTS: usize = 8;
    const QUERIES: usize = 1000;
    let world = World::start().await;
    let services = world.admin();
    let dataset = upload(&services, BREAST_CANCER).await.unwrap();
    let rows = Arc::new(feature_rows(
        &dataset
            .columns
            .iter()
            .map(|column| column.name.clone())
            .filter(|name| name != LABEL)
            .collect::<Vec<_>>(),
    ));
    let mut clients = vec![];
    for client in 0..CLIENTS {
        let seed = 100 + client as u64;
        let (own, rows) = (client_of(&world, client), rows.clone());
        let dataset = upload(&own, BREAST_CANCER).await.unwrap().name;
        // Mostly cheap plans; two with keys.
        let name = match client {
            0..4 => {
                let mut request = order(&dataset, Algorithm::LogisticRegression);
                request.seed = seed;
                train(&own, request).await.unwrap().name
            }
            4..6 => {
                trees(
                    &own,
                    &dataset,
                    seed,
                    &[("trees", "10"), ("depth", "2"), ("bins", "16")],
                )
                .await
            }
            _ => {
                trees(
                    &own,
                    &dataset,
                    seed,
                    &[("trees", "6"), ("depth", "3"), ("bins", "16")],
                )
                .await
            }
        };
        let share = match client {
            0..4 => 200,
            _ => 50,
        };
        clients.push(async move {
            let compiled = own
                .encrypted
                .compile(&name, Plan::Unspecified, false)
                .await
                .unwrap();
            let model = EncryptedModel::open(&own.encrypted, &name).await.unwrap();
            let clear = own.inference.predict(&name, rows.to_vec()).await.unwrap();
            let mut done = 0;
            while done < share {
                let from = (done * 7 + client * 50) % (rows.len() - 10);
                let batch = &rows[from..from + 10];
                let answers = if done % 20 == 0 {
                    model.predict(batch.to_vec()).await.unwrap()
                } else {
                    let mut answers = vec![];
                    for row in batch {
                        answers.push(model.predict_row(row.clone()).await.unwrap());
                    }
                    answers
                };
                for (answer, clear) in answers.iter().zip(&clear.predictions[from..]) {
                    assert_eq!(answer.receipt.owner, format!("user/client-{client}"));
                    assert_agrees(&compiled, &clear_classes(&model), answer, clear);
                }
                done += answers.len();
            }
            done
        });
    }
    let before = resident_bytes();
    let done = futures::future::join_all(clients.into_iter().map(tokio::spawn)).await;
    let total: usize = done.into_iter().map(Result::unwrap).sum();
    assert_eq!(total, QUERIES);
    // The queries alone are some 300 MB: none of them stays. Other scenarios of this process have their part in this.
    let grown = resident_bytes().saturating_sub(before);
    assert!(grown < 1 << 30, "{grown} bytes more after {QUERIES} queries");
    assert!(services.audit.verify().await.unwrap().verified);
    world.constellation.shutdown().await;
}

/// Memory of this process; 0 where the system does not say.
fn resident_bytes() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm")
        .ok()
        .and_then(|fields| fields.split(' ').nth(1)?.parse::<u64>().ok());
    pages.unwrap_or(0) * 4096
}

fn client_of(world: &World, client: usize) -> Services {
    world.as_principal(
        &format!("user/client-{client}"),
        &[Role::DataOwner, Role::Analyst],
    )
}

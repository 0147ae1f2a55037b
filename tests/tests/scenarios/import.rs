//! Models that XGBoost trained: imported, they predict as XGBoost does, in the clear and in secret.

use asterism_chassis::identity::Role;
use asterism_client::{
    EncryptedModel,
    proto::inference::{Algorithm, BatchPredictRequest, FeatureRow, Plan},
};

use crate::support::{BREAST_CANCER, World, order, reason, train, upload};

const MODEL: &str = include_str!("../../../crates/fhe/tests/data/breast_cancer.json");
const OTHER: &str = include_str!("../../../crates/fhe/tests/data/wine.json");
/// Rows and the margins that XGBoost gives for them.
const EXPECTED: &str = include_str!("../../../crates/fhe/tests/data/breast_cancer.expected.json");

fn expected() -> (Vec<Vec<f64>>, Vec<f64>) {
    let expected: serde_json::Value = serde_json::from_str(EXPECTED).unwrap();
    let numbers = |row: &serde_json::Value| -> Vec<f64> {
        let values = row.as_array().unwrap().iter();
        values.map(|value| value.as_f64().unwrap_or(f64::NAN)).collect()
    };
    let rows = expected["rows"].as_array().unwrap().iter().map(numbers).collect();
    let margins = expected["margins"].as_array().unwrap().iter();
    (rows, margins.map(|row| numbers(row)[0]).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_imported_model_predicts_as_xgboost_does_in_the_clear_and_in_secret() {
    let world = World::start().await;
    let alice = world.as_principal("user/alice", &[Role::DataOwner, Role::Analyst]);
    let model = alice
        .inference
        .import("xgb", "import-1", MODEL.into())
        .await
        .unwrap();
    assert_eq!(model.algorithm(), Algorithm::ImportedXgboost);
    assert_eq!(
        (model.owner.as_str(), model.display_name.as_str()),
        ("user/alice", "xgb")
    );
    assert!(model.dataset.is_empty() && model.evaluation.is_none());
    let again = alice
        .inference
        .import("xgb", "import-1", MODEL.into())
        .await
        .unwrap();
    assert_eq!(again, model);
    assert_eq!(
        reason(alice.inference.import("xgb", "import-1", OTHER.into()).await),
        "REQUEST_ID_REUSED"
    );

    let compiled = alice
        .encrypted
        .compile(&model.name, Plan::Unspecified, false)
        .await
        .unwrap();
    assert!(compiled.edges_are_thresholds);

    let world = world.restart().await;
    let alice = world.as_principal("user/alice", &[Role::DataOwner, Role::Analyst]);
    assert_eq!(alice.inference.get(&model.name).await.unwrap(), model);
    let (rows, margins) = expected();
    let clear = alice.inference.predict(&model.name, rows.clone()).await.unwrap();
    let messages = rows.iter().map(|row| BatchPredictRequest {
        name: model.name.clone(),
        rows: vec![FeatureRow { values: row.clone() }],
        dataset: String::new(),
    });
    let messages: Vec<_> = messages.collect();
    let mut batch = alice
        .inference
        .batch_predict(futures::stream::iter(messages))
        .await
        .unwrap();
    let encrypted = EncryptedModel::open(&alice.encrypted, &model.name).await.unwrap();
    let secret = encrypted.predict(rows.clone()).await.unwrap();
    let bound = compiled.scores[0].quantisation_error + compiled.scores[0].unit;
    for ((margin, clear), secret) in margins.iter().zip(&clear.predictions).zip(&secret) {
        assert!(
            (clear.scores[0] - margin).abs() < 1e-4,
            "{} and {margin}",
            clear.scores[0]
        );
        let probability = 1.0 / (1.0 + (-margin).exp());
        assert!((clear.probabilities[1] - probability).abs() < 1e-4);
        let batched = batch.message().await.unwrap().unwrap();
        assert_eq!(&batched.predictions[0], clear);
        let score = secret.prediction.scores[0];
        assert!((score - clear.scores[0]).abs() <= bound, "{score} and {margin}");
        if margin.abs() > bound {
            let class = &encrypted.bundle().classes()[secret.prediction.class.unwrap()];
            assert_eq!(*class, clear.class);
        }
    }
    world.constellation.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_model_is_refused_and_an_imported_one_is_not_evaluated() {
    let world = World::start().await;
    let alice = world.as_principal("user/alice", &[Role::DataOwner, Role::Analyst]);
    let bob = world.as_principal("user/bob", &[Role::DataOwner, Role::Analyst]);
    let import = async |file: &[u8]| alice.inference.import("", "", file.to_vec()).await;
    for file in [
        b"".as_slice(),
        b"{}",
        &MODEL.as_bytes()[..MODEL.len() / 2],
        MODEL.replace("gbtree", "gblinear").as_bytes(),
    ] {
        let refused = import(file).await;
        assert_eq!(reason(refused), "MODEL_NOT_IMPORTABLE");
    }
    assert_eq!(reason(import(&vec![b' '; (64 << 20) + 1]).await), "INVALID_FIELD");
    assert_eq!(
        reason(alice.inference.import("a\nb", "", MODEL.into()).await),
        "INVALID_FIELD"
    );
    assert!(alice.inference.list(10, "").await.unwrap().0.is_empty());

    let model = import(MODEL.as_bytes()).await.unwrap();
    assert_eq!(reason(bob.inference.get(&model.name).await), "MODEL_NOT_FOUND");
    assert_eq!(
        reason(bob.encrypted.compile(&model.name, Plan::Unspecified, false).await),
        "MODEL_NOT_FOUND"
    );
    assert_eq!(
        reason(alice.inference.evaluate(&model.name, "").await),
        "MODEL_IMPORTED"
    );
    assert_eq!(
        reason(alice.inference.predict(&model.name, vec![vec![0.0; 2]]).await),
        "INVALID_FIELD"
    );
    let dataset = upload(&alice, BREAST_CANCER).await.unwrap();
    let trained = train(&alice, order(&dataset.name, Algorithm::ImportedXgboost)).await;
    assert_eq!(reason(trained), "INVALID_FIELD");
    world.constellation.shutdown().await;
}

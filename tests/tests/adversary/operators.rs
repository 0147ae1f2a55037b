//! Rows 3 and 4: who runs a service and looks at all that it is sent and stores.

use std::fs;

use asterism_chassis::identity::Role;
use asterism_client::{
    Connection, EncryptedInference, EncryptedModel, Inference, Kms,
    proto::inference::{Algorithm, Plan},
};

use crate::{
    raw::Contracts,
    recorder::Recorder,
    support::{BREAST_CANCER, World, files, order, reason, small_csv, train, upload},
};

const CELL: &str = "porcupine-at-ingest";

#[tokio::test(flavor = "multi_thread")]
async fn inference_is_sent_and_stores_nothing_of_an_encrypted_row_or_its_score() {
    let world = World::start().await;
    let services = world.admin();
    let dataset = upload(&services, BREAST_CANCER).await.unwrap();
    let model = train(&services, order(&dataset.name, Algorithm::LogisticRegression))
        .await
        .unwrap();
    services
        .encrypted
        .compile(&model.name, Plan::Unspecified, false)
        .await
        .unwrap();
    // What arrives at inference, before any encryption of the way: the plain door.
    let to = world.constellation.endpoints().inference["http://".len()..]
        .parse()
        .unwrap();
    let recorder = Recorder::before(to).await;
    let credentials = world
        .constellation
        .credentials("user/admin", &[Role::Admin])
        .unwrap();
    let connect = |to: &str| Connection::lazy(to, credentials.clone()).unwrap();
    let inference = connect(&format!("http://{}", recorder.at));
    let kms = Kms::new(connect(&world.constellation.endpoints().kms));
    let encrypted = EncryptedInference::new(inference.clone(), kms);

    let value = 7.123_456_789_012_345_f64;
    let row = vec![value; model.features.len()];
    let opened = EncryptedModel::open(&encrypted, &model.name).await.unwrap();
    let answer = opened.predict_row(row.clone()).await.unwrap();
    let score = answer.prediction.scores[0];
    assert!(recorder.bytes() > 1000, "nothing was recorded");
    let secrets = [
        value.to_le_bytes().to_vec(),
        (value as f32).to_le_bytes().to_vec(),
        value.to_string().into_bytes(),
        score.to_le_bytes().to_vec(),
        score.to_string().into_bytes(),
    ];
    for secret in &secrets {
        assert!(!recorder.saw(secret), "{secret:?} was sent");
    }
    // The same row in the clear is found: the search works.
    let clear = Inference::new(inference);
    clear.predict(&model.name, vec![row]).await.unwrap();
    assert!(recorder.saw(&secrets[0]));

    // The request has no place for anything else.
    let contracts = Contracts::load();
    let request = contracts
        .message(".asterism.inference.v1.PredictEncryptedRequest")
        .unwrap();
    let fields: Vec<&str> = request
        .field
        .iter()
        .map(prost_types::FieldDescriptorProto::name)
        .collect();
    assert_eq!(fields, ["name", "evaluation_key", "query"]);
    world.constellation.shutdown().await;
    for path in files(&world.dir.path().join("inference")) {
        let bytes = fs::read(&path).unwrap();
        for secret in &secrets {
            let holds = bytes.windows(secret.len()).any(|window| window == secret);
            assert!(!holds, "{} holds {secret:?}", path.display());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_ingest_keeps_tells_sizes_and_the_schema_only_and_opens_with_a_grant_of_kms_alone() {
    let world = World::start().await;
    let owner = world.as_principal("user/owner", &[Role::DataOwner]);
    let csv = small_csv(60).replace("even", CELL);
    let dataset = upload(&owner, &csv).await.unwrap();
    let manifest = owner
        .ingest
        .open_dataset(&owner.kms, &dataset.name, "manifest-signer", |_| Ok(()))
        .await
        .unwrap()
        .manifest;
    let wrapped = &manifest.data_key;
    let data_key = owner
        .kms
        .unwrap_data_key(&wrapped.key, &wrapped.wrapped, &manifest.context())
        .await
        .unwrap();
    // All that the host of ingest has of the key does not open it.
    let operator = world.as_principal("user/operator", &[Role::DataOwner]);
    let refused = operator
        .kms
        .unwrap_data_key(&wrapped.key, &wrapped.wrapped, &manifest.context())
        .await;
    assert_eq!(reason(refused.map(drop)), "KEY_NOT_FOUND");
    world.constellation.shutdown().await;
    let (mut found, kept) = (false, files(&world.dir.path().join("ingest")));
    for path in kept {
        let bytes = fs::read(&path).unwrap();
        let holds = |needle: &[u8]| bytes.windows(needle.len()).any(|window| window == needle);
        assert!(!holds(CELL.as_bytes()), "{} holds a cell", path.display());
        assert!(!holds(data_key.expose()), "{} holds a data key", path.display());
        found |= holds(b"manifest-signer");
    }
    assert!(found, "the search finds nothing");
}

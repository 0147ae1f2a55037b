//! Encrypted prediction: what is wrong is refused with its name, and what is forged is not believed.

use std::{fs, path::Path, time::Duration};

use asterism_chassis::identity::Role;
use asterism_client::{
    ClientError, Connection, EncryptedInference, EncryptedModel, KeptKey,
    fhe::{self, bundle::Bundle, keys::SecretKey, params::ParamsId},
    proto::{
        audit::EventFilter,
        inference::{
            Algorithm, EvaluationKeyHeader, Plan, PredictEncryptedResponse, Receipt,
            RegisterEvaluationKeyRequest,
            encrypted_inference_service_client::EncryptedInferenceServiceClient,
            register_evaluation_key_request::Part,
        },
        kms::KeyType,
    },
    receipt::ENCRYPTED_REPLY_DOMAIN,
};
use asterism_crypto::Digest;
use asterism_store::{Batch, Records as _, SledOptions, SledRecords};
use futures::StreamExt as _;
use tonic::Code;

use crate::{
    encrypted::trees,
    support::{BREAST_CANCER, World, files, files_of, order, reason, train, upload},
};

const DEEP: [(&str, &str); 3] = [("trees", "10"), ("depth", "3"), ("bins", "16")];

fn query(bundle: &Bundle, secret: &SecretKey) -> Vec<u8> {
    let row = vec![0.5; bundle.features().len()];
    fhe::client::encrypt(bundle, secret, &row).unwrap().bytes
}

/// A connection to inference as `principal`, that sends what it is told.
fn connection(world: &World, principal: &str) -> Connection {
    let credentials = world
        .constellation
        .credentials(principal, &[Role::DataOwner, Role::Analyst])
        .unwrap();
    Connection::lazy(&world.constellation.endpoints().inference, credentials).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn queries_that_are_not_for_the_model_are_refused_by_name() {
    let world = World::start().await;
    let alice = world.as_principal("user/alice", &[Role::DataOwner, Role::Analyst]);
    let bob = world.as_principal("user/bob", &[Role::DataOwner, Role::Analyst]);
    let dataset = upload(&alice, BREAST_CANCER).await.unwrap().name;
    let linear = train(&alice, order(&dataset, Algorithm::LogisticRegression))
        .await
        .unwrap()
        .name;
    let other = {
        let mut request = order(&dataset, Algorithm::LogisticRegression);
        request.features = vec!["mean_radius".into(), "mean_texture".into()];
        request.seed = 8;
        train(&alice, request).await.unwrap().name
    };
    let deep = trees(&alice, &dataset, 7, &DEEP).await;

    let encrypted = &alice.encrypted;
    assert_eq!(reason(encrypted.bundle(&linear).await), "MODEL_NOT_COMPILED");
    assert_eq!(reason(encrypted.explain(&linear).await), "MODEL_NOT_COMPILED");
    assert_eq!(
        reason(encrypted.predict(&linear, "", vec![0; 100]).await),
        "MODEL_NOT_COMPILED"
    );
    // No plan, and a plan that does not serve.
    let refused = encrypted.compile(&deep, Plan::Linear, false).await.unwrap_err();
    assert_eq!(
        (refused.code(), refused.reason()),
        (Code::FailedPrecondition, Some("NO_PLAN"))
    );
    let text = refused.to_string();
    assert!(
        text.contains("not linear") && text.contains("the plan `paths` does"),
        "{text}"
    );
    let mut request = order(&dataset, Algorithm::NeuralNetwork);
    request.hyperparameters.insert("hidden".into(), "4,4".into());
    request.hyperparameters.insert("epochs".into(), "5".into());
    let network = train(&alice, request).await.unwrap().name;
    assert_eq!(
        reason(encrypted.compile(&network, Plan::Unspecified, false).await),
        "MODEL_NOT_SERVED"
    );
    assert_eq!(
        reason(bob.encrypted.compile(&linear, Plan::Unspecified, false).await),
        "MODEL_NOT_FOUND"
    );

    for name in [&linear, &other, &deep] {
        encrypted.compile(name, Plan::Unspecified, false).await.unwrap();
    }
    let bundle = encrypted.bundle(&linear).await.unwrap();
    let secret = SecretKey::generate(bundle.params_id()).unwrap();
    let good = query(&bundle, &secret);
    encrypted.predict(&linear, "", good.clone()).await.unwrap();
    assert_eq!(
        reason(bob.encrypted.predict(&linear, "", good.clone()).await),
        "MODEL_NOT_FOUND"
    );
    let deep_bundle = encrypted.bundle(&deep).await.unwrap();
    let deep_secret = SecretKey::generate(deep_bundle.params_id()).unwrap();
    let longer = [good.as_slice(), &[0]].concat();
    let mut altered = good.clone();
    altered[0] ^= 1;
    let mut unknown = good.clone();
    unknown[6] = 0xff;
    for (bytes, wanted) in [
        (
            query(&encrypted.bundle(&other).await.unwrap(), &secret),
            "QUERY_OTHER_MODEL",
        ),
        (query(&deep_bundle, &deep_secret), "QUERY_OTHER_PARAMS"),
        (unknown, "QUERY_OTHER_PARAMS"),
        (good[..good.len() - 1].to_vec(), "QUERY_WRONG_LENGTH"),
        (longer, "QUERY_WRONG_LENGTH"),
        (good[..7].to_vec(), "QUERY_MALFORMED"),
        (vec![], "QUERY_MALFORMED"),
        (altered, "QUERY_MALFORMED"),
    ] {
        let Err(ClientError::Refused {
            code,
            reason,
            violations,
            ..
        }) = encrypted.predict(&linear, "", bytes).await
        else {
            panic!("not refused: {wanted}");
        };
        assert_eq!((code, reason.as_str()), (Code::InvalidArgument, wanted));
        assert_eq!(violations[0].0, "query", "{violations:?}");
    }
    // A wrong query ends a stream, after the answers to those before it.
    let stream = futures::stream::iter([good.clone(), good.clone(), good[1..].to_vec(), good.clone()]);
    let mut answers = encrypted.predict_stream(&linear, "", stream).await.unwrap();
    answers.next().await.unwrap().unwrap();
    answers.next().await.unwrap().unwrap();
    assert_eq!(reason(answers.next().await.map(|_| ())), "QUERY_MALFORMED");
    world.constellation.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn evaluation_keys_serve_their_owner_only_and_only_as_they_were_registered() {
    let world = World::start().await;
    let alice = world.as_principal("user/alice", &[Role::DataOwner, Role::Analyst]);
    let bob = world.as_principal("user/bob", &[Role::DataOwner, Role::Analyst]);
    let dataset = upload(&alice, BREAST_CANCER).await.unwrap().name;
    let deep = trees(&alice, &dataset, 7, &DEEP).await;
    let linear = train(&alice, order(&dataset, Algorithm::LogisticRegression))
        .await
        .unwrap()
        .name;
    for name in [&deep, &linear] {
        alice
            .encrypted
            .compile(name, Plan::Unspecified, false)
            .await
            .unwrap();
    }
    let model = EncryptedModel::open(&alice.encrypted, &deep).await.unwrap();
    let row = vec![0.5; model.bundle().features().len()];
    let answer = model.predict_row(row.clone()).await.unwrap().prediction;
    let mine = model.key().unwrap().clone();
    let query = query(model.bundle(), &mine.secret);

    let predict = async |key: &str| alice.encrypted.predict(&deep, key, query.clone()).await;
    assert_eq!(reason(predict("").await), "EVALUATION_KEY_NEEDED");
    assert_eq!(reason(predict("evaluationKeys/x").await), "INVALID_FIELD");
    let absent = format!("evaluationKeys/{}", Digest::of(b"nothing"));
    assert_eq!(reason(predict(&absent).await), "EVALUATION_KEY_NOT_FOUND");
    let bobs = KeptKey::register(&bob.encrypted, ParamsId::Paths, |_, _| {})
        .await
        .unwrap();
    assert_eq!(
        reason(predict(&bobs.evaluation_key).await),
        "EVALUATION_KEY_NOT_FOUND"
    );
    assert_eq!(
        reason(bob.encrypted.delete_evaluation_key(&mine.evaluation_key).await),
        "EVALUATION_KEY_NOT_FOUND"
    );
    assert_eq!(
        reason(
            alice
                .encrypted
                .predict(&linear, &mine.evaluation_key, query.clone())
                .await
        ),
        "INVALID_FIELD"
    );
    let (listed, next) = alice.encrypted.evaluation_keys(100, "").await.unwrap();
    assert_eq!((listed.len(), next.as_str()), (1, ""));
    assert_eq!(
        (listed[0].owner.as_str(), &listed[0].name),
        ("user/alice", &mine.evaluation_key)
    );

    // Another key's file in the place of mine: refused once it is read again.
    let second = KeptKey::register(&alice.encrypted, ParamsId::Paths, |_, _| {})
        .await
        .unwrap();
    let world = world.restart().await;
    let alice = world.as_principal("user/alice", &[Role::DataOwner, Role::Analyst]);
    let dir = world.dir.path().join("inference");
    let file = |key: &KeptKey| files_of(&dir, &key.evaluation_key).remove(0);
    let original = fs::read(file(&mine)).unwrap();
    fs::copy(file(&second), file(&mine)).unwrap();
    let predict = async |key: &str| alice.encrypted.predict(&deep, key, query.clone()).await;
    assert_eq!(
        reason(predict(&mine.evaluation_key).await),
        "EVALUATION_KEY_REFUSED"
    );
    fs::write(file(&mine), &original[1..]).unwrap();
    assert_eq!(
        reason(predict(&mine.evaluation_key).await),
        "EVALUATION_KEY_REFUSED"
    );
    fs::write(file(&mine), &original).unwrap();
    // Without kms' record it is nobody's.
    let as_admin = world.as_principal("user/alice", &[Role::Admin]);
    let sha256 = Digest::of(&original);
    let record = as_admin.kms.evaluation_key_record(&sha256).await.unwrap();
    assert_eq!(record.owner, "user/alice");
    as_admin.kms.delete_evaluation_key_record(&sha256).await.unwrap();
    assert_eq!(
        reason(predict(&mine.evaluation_key).await),
        "EVALUATION_KEY_REFUSED"
    );
    let analyst = alice
        .kms
        .record_evaluation_key(&sha256, "paths-n1024-k2", 1)
        .await;
    assert_eq!(reason(analyst), "POLICY_DENIED");
    // Registered again, it serves again.
    let again = alice
        .encrypted
        .register_evaluation_key(ParamsId::Paths, original, |_| {})
        .await
        .unwrap();
    assert_eq!(again.name, mine.evaluation_key);
    let model = EncryptedModel::with(
        &alice.encrypted,
        &deep,
        model.bundle().clone(),
        Some(mine.clone()),
    )
    .unwrap();
    assert_eq!(model.predict_row(row).await.unwrap().prediction, answer);
    // Deleted, it is gone at once, from kms too.
    alice
        .encrypted
        .delete_evaluation_key(&mine.evaluation_key)
        .await
        .unwrap();
    let predict = async |key: &str| alice.encrypted.predict(&deep, key, query.clone()).await;
    assert_eq!(
        reason(predict(&mine.evaluation_key).await),
        "EVALUATION_KEY_NOT_FOUND"
    );
    assert_eq!(
        reason(as_admin.kms.evaluation_key_record(&sha256).await),
        "EVALUATION_KEY_NOT_FOUND"
    );
    world.constellation.shutdown().await;
}

/// Changes the records of inference under a one-byte prefix, as JSON.
fn edit_records(data: &Path, prefix: u8, edit: &dyn Fn(&mut Vec<u8>, &mut serde_json::Value)) {
    let records = SledRecords::open(&data.join("inference").join("records"), SledOptions::default()).unwrap();
    let mut batch = Batch::new();
    for (mut key, value) in records.scan(&[prefix], &[prefix], 1000).unwrap() {
        let mut value: serde_json::Value = serde_json::from_slice(&value).unwrap();
        edit(&mut key, &mut value);
        batch = batch.put(key, serde_json::to_vec(&value).unwrap());
    }
    records.commit(batch).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn records_changed_behind_the_services_back_are_not_believed() {
    let world = World::start().await;
    let alice = world.as_principal("user/alice", &[Role::DataOwner, Role::Analyst]);
    let bob = world.as_principal("user/bob", &[Role::DataOwner, Role::Analyst]);
    let dataset = upload(&alice, BREAST_CANCER).await.unwrap().name;
    let deep = trees(&alice, &dataset, 7, &DEEP).await;
    alice
        .encrypted
        .compile(&deep, Plan::Unspecified, false)
        .await
        .unwrap();
    let bundle = alice.encrypted.bundle(&deep).await.unwrap();
    let bobs = KeptKey::register(&bob.encrypted, ParamsId::Paths, |_, _| {})
        .await
        .unwrap();
    let query = query(&bundle, &bobs.secret);

    // Bob's key, passed off as alice's: record, file and all.
    let world = world
        .restart_after(|data| {
            let owner = |name: &str| Digest::of(name.as_bytes());
            edit_records(data, b'e', &|key, record| {
                key[1..33].copy_from_slice(owner("user/alice").as_bytes());
                record["owner"] = "user/alice".into();
            });
            let file = files_of(&data.join("inference"), &bobs.evaluation_key).remove(0);
            let name = file.file_name().unwrap().to_str().unwrap().to_owned();
            let half = |name| owner(name).to_string()[..32].to_owned();
            let renamed = name.replace(&half("user/bob"), &half("user/alice"));
            assert_ne!(renamed, name);
            fs::copy(&file, file.with_file_name(renamed)).unwrap();
        })
        .await;
    let alice = world.as_principal("user/alice", &[Role::DataOwner, Role::Analyst]);
    assert_eq!(alice.encrypted.evaluation_keys(10, "").await.unwrap().0.len(), 1);
    let answer = alice
        .encrypted
        .predict(&deep, &bobs.evaluation_key, query.clone())
        .await;
    assert_eq!(reason(answer), "EVALUATION_KEY_REFUSED");

    // A compilation that this version does not come to.
    let world = world
        .restart_after(|data| {
            edit_records(data, b'c', &|_, record| {
                record["compiled_sha256"] = Digest::of(b"another version").to_string().into();
            });
        })
        .await;
    let alice = world.as_principal("user/alice", &[Role::DataOwner, Role::Analyst]);
    let refused = alice.encrypted.bundle(&deep).await.unwrap_err();
    assert_eq!(
        (refused.code(), refused.reason()),
        (Code::FailedPrecondition, Some("COMPILATION_CHANGED"))
    );
    assert!(refused.to_string().contains("compile it again"), "{refused}");
    alice
        .encrypted
        .compile(&deep, Plan::Unspecified, false)
        .await
        .unwrap();
    assert_eq!(alice.encrypted.bundle(&deep).await.unwrap(), bundle);
    world.constellation.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn uploads_of_keys_that_are_wrong_or_cut_off_leave_nothing() {
    let world = World::start().await;
    let alice = world.as_principal("user/alice", &[Role::DataOwner, Role::Analyst]);
    let params = ParamsId::Paths;
    let make = || {
        let secret = SecretKey::generate(params).unwrap();
        fhe::client::evaluation_key(&secret).unwrap().unwrap()
    };
    let key = make();
    let header = EvaluationKeyHeader {
        params: params.name().into(),
        sha256: Digest::of(&key).as_bytes().to_vec(),
        total_bytes: key.len() as u64,
    };
    let good = || Part::Header(header.clone());
    let with = |change: fn(&mut EvaluationKeyHeader)| {
        let mut changed = header.clone();
        change(&mut changed);
        Part::Header(changed)
    };
    let chunk = |bytes: &[u8]| Part::Chunk(bytes.to_vec());
    let half = key.len() / 2;
    let connection = connection(&world, "user/alice");
    for (parts, wanted) in [
        (vec![], "INVALID_FIELD"),
        (vec![chunk(&key)], "INVALID_FIELD"),
        (
            vec![with(|header| header.params = "paths".into())],
            "INVALID_FIELD",
        ),
        (vec![with(|header| header.sha256.truncate(31))], "INVALID_FIELD"),
        (vec![with(|header| header.total_bytes -= 1)], "INVALID_FIELD"),
        (vec![with(|header| header.total_bytes = 1 << 60)], "INVALID_FIELD"),
        (vec![good(), good()], "INVALID_FIELD"),
        (vec![good(), chunk(&[])], "INVALID_FIELD"),
        (vec![good()], "EVALUATION_KEY_WRONG_LENGTH"),
        (vec![good(), chunk(&key[..half])], "EVALUATION_KEY_WRONG_LENGTH"),
        (
            vec![good(), chunk(&key), chunk(&[0])],
            "EVALUATION_KEY_WRONG_LENGTH",
        ),
        (
            vec![with(|header| header.sha256[0] ^= 1), chunk(&key)],
            "EVALUATION_KEY_DIGEST_MISMATCH",
        ),
    ] {
        let requests = parts
            .into_iter()
            .map(|part| RegisterEvaluationKeyRequest { part: Some(part) });
        let mut client = EncryptedInferenceServiceClient::new(connection.service());
        let status = client
            .register_evaluation_key(futures::stream::iter(requests.collect::<Vec<_>>()))
            .await
            .unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
        let details = tonic_types::StatusExt::get_details_error_info(&status).unwrap();
        assert_eq!(details.reason, wanted, "{status:?}");
    }
    // A caller that goes away in the middle.
    let parts = [good(), chunk(&key[..half])].map(|part| RegisterEvaluationKeyRequest { part: Some(part) });
    let endless = futures::stream::iter(parts).chain(futures::stream::pending());
    let mut client = EncryptedInferenceServiceClient::new(connection.service());
    let cut = tokio::time::timeout(
        Duration::from_millis(300),
        client.register_evaluation_key(endless),
    )
    .await;
    assert!(cut.is_err(), "an upload ended before its end");

    let blobs = world.dir.path().join("inference").join("blobs");
    let emptied = async {
        while !files(&blobs).is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), emptied)
        .await
        .expect("a cut-off upload stays");
    assert!(
        alice
            .encrypted
            .evaluation_keys(100, "")
            .await
            .unwrap()
            .0
            .is_empty()
    );

    for _ in 0..16 {
        alice
            .encrypted
            .register_evaluation_key(params, make(), |_| {})
            .await
            .unwrap();
    }
    let one_more = alice
        .encrypted
        .register_evaluation_key(params, key, |_| {})
        .await
        .unwrap_err();
    assert_eq!(
        (one_more.code(), one_more.reason()),
        (Code::ResourceExhausted, Some("TOO_MANY_EVALUATION_KEYS"))
    );
    assert!(one_more.to_string().contains("delete one"), "{one_more}");
    let (page, next) = alice.encrypted.evaluation_keys(10, "").await.unwrap();
    let (rest, end) = alice.encrypted.evaluation_keys(10, &next).await.unwrap();
    assert_eq!((page.len(), rest.len(), end.as_str()), (10, 6, ""));
    world.constellation.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn forged_receipts_are_not_believed() {
    let world = World::start().await;
    let services = world.admin();
    let dataset = upload(&services, BREAST_CANCER).await.unwrap().name;
    let model = train(&services, order(&dataset, Algorithm::LogisticRegression))
        .await
        .unwrap()
        .name;
    services
        .encrypted
        .compile(&model, Plan::Unspecified, false)
        .await
        .unwrap();
    let bundle = services.encrypted.bundle(&model).await.unwrap();
    let secret = SecretKey::generate(bundle.params_id()).unwrap();
    let (one, two) = (query(&bundle, &secret), query(&bundle, &secret));
    let digest = Digest::of(&one);
    let answer = services.encrypted.predict(&model, "", one).await.unwrap();
    let other = services.encrypted.predict(&model, "", two).await.unwrap();
    let response = |answer: &asterism_client::EncryptedAnswer| PredictEncryptedResponse {
        reply: answer.reply.clone(),
        receipt: Some(Receipt {
            payload: answer.signed.payload.clone(),
            signature: answer.signed.signature.clone(),
            key: format!("keys/{}", answer.signed.key),
            key_version: answer.signed.key_version,
        }),
        stages: vec![],
        index: 0,
    };
    let genuine = response(&answer);
    // The signature is anybody's to check.
    let public = services
        .kms
        .public_key("reply-signer", answer.signed.key_version)
        .await
        .unwrap();
    answer.signed.verify(ENCRYPTED_REPLY_DOMAIN, &public).unwrap();

    services
        .kms
        .create_key("rogue", KeyType::EcSignP256Sha256, [], "rogue")
        .await
        .unwrap();
    let rogue = services
        .kms
        .sign_statement("rogue", ENCRYPTED_REPLY_DOMAIN, answer.signed.payload.clone())
        .await
        .unwrap();
    let elsewhere = services
        .kms
        .sign_statement("reply-signer", "asterism/other/v1", answer.signed.payload.clone())
        .await
        .unwrap();
    let change = |change: &dyn Fn(&mut PredictEncryptedResponse, &mut Receipt)| {
        let mut forged = genuine.clone();
        let mut receipt = forged.receipt.take().unwrap();
        change(&mut forged, &mut receipt);
        forged.receipt = Some(receipt);
        forged
    };
    let forgeries = [
        response(&other),
        change(&|_, receipt| receipt.payload[20] ^= 1),
        change(&|_, receipt| *receipt.signature.last_mut().unwrap() ^= 1),
        change(&|_, receipt| receipt.signature.clear()),
        change(&|response, _| response.reply[100] ^= 1),
        change(&|response, _| response.reply = other.reply.clone()),
        change(&|_, receipt| {
            receipt.signature.clone_from(&rogue.signature);
            receipt.key = "keys/rogue".into();
        }),
        change(&|_, receipt| receipt.signature.clone_from(&rogue.signature)),
        change(&|_, receipt| receipt.signature.clone_from(&elsewhere.signature)),
    ];
    // Also for a client that has not seen the signer's key yet.
    let fresh = world.admin();
    for encrypted in [&services.encrypted, &fresh.encrypted] {
        for (index, forged) in forgeries.iter().enumerate() {
            let checked = encrypted.checked(&model, &digest, forged.clone()).await;
            assert!(
                matches!(checked, Err(ClientError::Verification(_))),
                "forgery {index}: {checked:?}"
            );
        }
        let without = PredictEncryptedResponse {
            receipt: None,
            ..genuine.clone()
        };
        assert!(encrypted.checked(&model, &digest, without).await.is_err());
        let elsewhere = encrypted.checked("models/other", &digest, genuine.clone()).await;
        assert!(matches!(elsewhere, Err(ClientError::Verification(_))));
        encrypted.checked(&model, &digest, genuine.clone()).await.unwrap();
    }
    world.constellation.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_in_the_middle_of_an_evaluation_ends_it_and_nothing_else() {
    let world = World::start().await;
    let alice = world.as_principal("user/alice", &[Role::DataOwner, Role::Analyst]);
    let dataset = upload(&alice, BREAST_CANCER).await.unwrap().name;
    let heavy = trees(
        &alice,
        &dataset,
        7,
        &[("trees", "200"), ("depth", "6"), ("min_child_weight", "0")],
    )
    .await;
    alice.encrypted.compile(&heavy, Plan::Paths, false).await.unwrap();
    let model = EncryptedModel::open(&alice.encrypted, &heavy).await.unwrap();
    let row = vec![0.5; model.bundle().features().len()];
    let answer = model.predict_row(row.clone()).await.unwrap();
    let whole = Duration::from_secs_f64(
        alice
            .encrypted
            .explain(&heavy)
            .await
            .unwrap()
            .measured_us
            .unwrap()
            / 1e6,
    );

    let hurried = connection(&world, "user/alice").with_deadline(Some(whole / 2));
    let hurried = EncryptedInference::new(hurried, alice.kms.clone());
    let key = model.key().unwrap();
    let query = query(model.bundle(), &key.secret);
    let late = hurried
        .predict(&heavy, &key.evaluation_key, query)
        .await
        .unwrap_err();
    assert_eq!(late.code(), Code::DeadlineExceeded, "{late}");
    let filter = EventFilter {
        operation: "inference.PredictEncrypted".into(),
        resource: heavy.clone(),
        ..EventFilter::default()
    };
    let admin = world.admin();
    let failed = async {
        loop {
            let entries = admin.audit.list_all(filter.clone()).await.unwrap();
            let reasons: Vec<String> = entries.into_iter().map(|e| e.event.unwrap().reason).collect();
            if let Some(reason) = reasons.into_iter().find(|reason| !reason.is_empty()) {
                return reason;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let reason = tokio::time::timeout(Duration::from_secs(20), failed)
        .await
        .unwrap();
    assert!(
        ["DEADLINE_EXCEEDED", "CANCELLED"].contains(&reason.as_str()),
        "{reason}"
    );
    let again = model.predict_row(row).await.unwrap();
    assert_eq!(again.prediction, answer.prediction);
    world.constellation.shutdown().await;
}

//! Ingest and inference go by the grants that kms keeps.

use std::time::Duration;

use asterism_chassis::identity::Role;
use asterism_client::{
    ANSWERS_HOLD_FOR,
    proto::{
        inference::{Algorithm, Plan},
        policy::{Effect, Grant},
    },
};
use tonic::Code;

use crate::{
    processes::Separate,
    support::{BREAST_CANCER, World, feature_rows, fresh_id, order, reason, small_csv, train, upload},
};

fn grant(effect: Effect, subject: &str, verbs: &[&str], resource: &str) -> Grant {
    Grant {
        effect: effect.into(),
        subject: subject.to_owned(),
        verbs: verbs.iter().map(|verb| (*verb).to_owned()).collect(),
        resource: resource.to_owned(),
        ..Grant::default()
    }
}

/// Until every answer from before is too old.
async fn settle() {
    tokio::time::sleep(ANSWERS_HOLD_FOR + Duration::from_millis(100)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_analyst_predicts_with_a_granted_model_and_does_not_delete_it() {
    let world = World::start().await;
    let (admin, bob) = (world.admin(), world.as_principal("user/bob", &[Role::Analyst]));
    let dataset = upload(&admin, BREAST_CANCER).await.unwrap();
    let wish = || order(&dataset.name, Algorithm::LogisticRegression);
    let model = train(&admin, wish()).await.unwrap();
    let other = train(&admin, wish()).await.unwrap();
    let rows = &feature_rows(&model.features)[..2];
    let predict = |name: &str| {
        let (bob, name) = (bob.clone(), name.to_owned());
        async move { bob.inference.predict(&name, rows.to_vec()).await.map(drop) }
    };
    let given = grant(Effect::Allow, "user/bob", &["get", "predict"], &model.name);
    let given = admin.policy.create_grant(given, &fresh_id()).await.unwrap();
    predict(&model.name).await.unwrap();
    bob.inference.get(&model.name).await.unwrap();
    assert_eq!(reason(bob.inference.delete(&model.name).await), "POLICY_DENIED");
    assert_eq!(
        reason(
            bob.encrypted
                .compile(&model.name, Plan::Unspecified, false)
                .await
                .map(drop)
        ),
        "POLICY_DENIED"
    );
    // Neither another model nor the data behind this one.
    assert_eq!(reason(predict(&other.name).await), "MODEL_NOT_FOUND");
    assert_eq!(reason(bob.inference.delete(&other.name).await), "MODEL_NOT_FOUND");
    assert_eq!(reason(train(&bob, wish()).await.map(drop)), "DATASET_NOT_FOUND");

    admin.policy.delete_grant(&given.name, "").await.unwrap();
    settle().await;
    assert_eq!(reason(predict(&model.name).await), "MODEL_NOT_FOUND");

    // Learning from a dataset does not take reading it, and what is learnt is the learner's.
    let learn = grant(Effect::Allow, "role:analyst", &["train"], "datasets/*");
    admin.policy.create_grant(learn, &fresh_id()).await.unwrap();
    settle().await;
    let learnt = train(&bob, wish()).await.unwrap();
    assert_eq!(learnt.owner, "user/bob");
    assert_eq!(reason(bob.ingest.get(&dataset.name).await), "DATASET_NOT_FOUND");

    // Administrators are bound too.
    let denial = grant(Effect::Deny, "everyone", &["delete"], "models/*");
    admin.policy.create_grant(denial, &fresh_id()).await.unwrap();
    for services in [&admin, &bob] {
        assert_eq!(
            reason(services.inference.delete(&learnt.name).await),
            "POLICY_DENIED"
        );
    }
    world.constellation.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dataset_is_read_by_whom_it_was_granted_and_not_by_an_owner_who_is_denied() {
    let world = World::start().await;
    let admin = world.admin();
    let alice = world.as_principal("user/alice", &[Role::DataOwner]);
    let bob = world.as_principal("user/bob", &[Role::DataOwner]);
    let dataset = upload(&alice, BREAST_CANCER).await.unwrap();
    let name = dataset.name.as_str();
    let first = async |services: &asterism::connect::Services| -> Result<usize, tonic::Status> {
        let rows = services.ingest.read_rows(name, 0, 3).await;
        let mut rows = rows.map_err(|error| tonic::Status::new(error.code(), error.to_string()))?;
        let mut read = 0;
        while let Some(message) = rows.message().await? {
            read += message.rows.len();
        }
        Ok(read)
    };
    assert_eq!(first(&bob).await.unwrap_err().code(), Code::NotFound);
    let read = grant(Effect::Allow, "user/bob", &["get", "read"], name);
    let read = admin.policy.create_grant(read, &fresh_id()).await.unwrap();
    settle().await;
    assert_eq!(first(&bob).await.unwrap(), 3);
    assert_eq!(bob.ingest.get(name).await.unwrap(), dataset);
    assert_eq!(reason(bob.ingest.verify(name).await), "POLICY_DENIED");
    assert_eq!(reason(bob.ingest.delete(name).await), "POLICY_DENIED");

    let denial = grant(Effect::Deny, "user/alice", &["read"], name);
    let denial = admin.policy.create_grant(denial, &fresh_id()).await.unwrap();
    assert_eq!(first(&alice).await.unwrap_err().code(), Code::PermissionDenied);
    assert!(alice.ingest.verify(name).await.unwrap().verified);
    admin.policy.delete_grant(&read.name, "").await.unwrap();
    admin.policy.delete_grant(&denial.name, "").await.unwrap();
    settle().await;
    assert_eq!(first(&alice).await.unwrap(), 3);
    assert_eq!(first(&bob).await.unwrap_err().code(), Code::NotFound);
    alice.ingest.delete(name).await.unwrap();
    world.constellation.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_kms_nobody_is_let_in() {
    let dir = tempfile::tempdir().unwrap();
    let mut processes = Separate::start(dir.path());
    let services = processes.services.clone();
    let dataset = upload(&services, small_csv(50)).await.unwrap();
    services.ingest.get(&dataset.name).await.unwrap();
    processes.kill(0);
    settle().await;
    let refused = services.ingest.get(&dataset.name).await.unwrap_err();
    assert_eq!(
        (refused.code(), refused.reason()),
        (Code::Unavailable, Some("POLICY_UNAVAILABLE"))
    );
    // Names of one's own are listed without asking.
    assert_eq!(services.ingest.list(10, "").await.unwrap().0.len(), 1);
    processes.restart(0);
    services.ingest.get(&dataset.name).await.unwrap();
}

//! Who may do what to a key: owners, roles, grants, denials, conditions, and approvals by others.

use std::time::Duration;

use asterism_chassis::identity::Role;
use asterism_client::{ClientError, Kms, Policy, manifest::dataset_context};
use asterism_proto::audit::{Event, Outcome};
use asterism_proto::policy::{
    Conditions, Effect, ExplainAccessRequest, Grant, approval::State, conditions::Aad, step::Weight,
};
use asterism_store::{FileSpool, Spool as _, SpoolOptions};
use prost::Message as _;
use tonic::Code;

use crate::support::{World, make_keys, refusal, refused};

const PEOPLE: [(&str, Role); 5] = [
    ("user/admin", Role::Admin),
    ("user/keeper", Role::KeyAdmin),
    ("user/alice", Role::DataOwner),
    ("user/bob", Role::Analyst),
    ("user/eve", Role::DataOwner),
];

fn grant(effect: Effect, subject: &str, verbs: &[&str], resource: &str) -> Grant {
    Grant {
        effect: effect.into(),
        subject: subject.to_owned(),
        resource: resource.to_owned(),
        verbs: verbs.iter().map(|verb| (*verb).to_owned()).collect(),
        ..Grant::default()
    }
}

async fn allow(policy: &Policy, subject: &str, verbs: &[&str], resource: &str) -> Grant {
    let grant = grant(Effect::Allow, subject, verbs, resource);
    policy.create_grant(grant, "").await.unwrap()
}

async fn deny(policy: &Policy, subject: &str, verbs: &[&str], resource: &str) -> Grant {
    let grant = grant(Effect::Deny, subject, verbs, resource);
    policy.create_grant(grant, "").await.unwrap()
}

/// What became of a call: `None` for done, else the reason.
fn became<T>(result: Result<T, ClientError>) -> Option<String> {
    result
        .err()
        .map(|error| error.reason().unwrap_or("none").to_owned())
}

/// Tries a verb on alice's keys.
async fn attempt(kms: &Kms, verb: &str, ciphertext: &[u8], mac: &[u8]) -> Option<String> {
    match verb {
        "get" => became(kms.key("aes").await),
        "encrypt" => became(kms.encrypt("aes", b"x", b"").await),
        "decrypt" => became(kms.decrypt("aes", ciphertext, b"").await),
        "generate-data-key" => became(kms.generate_data_key("aes", b"").await),
        "mac" => became(kms.generate_mac("mac", b"x").await),
        "verify" => became(kms.verify_mac("mac", b"x", mac).await),
        "sign" => became(kms.sign("sign", b"x").await),
        "rotate" => became(kms.rotate_key("mac", "").await),
        "update" => {
            let key = asterism_proto::kms::Key {
                name: "keys/aes".to_owned(),
                ..Default::default()
            };
            became(kms.update_key(key, &["labels"], "").await)
        }
        _ => panic!("{verb}"),
    }
}

const VERBS: [&str; 9] = [
    "get",
    "encrypt",
    "decrypt",
    "generate-data-key",
    "mac",
    "verify",
    "sign",
    "rotate",
    "update",
];

#[tokio::test(flavor = "multi_thread")]
async fn each_verb_is_for_owners_roles_and_who_was_granted_it() {
    let world = World::start().await;
    let alice = world.as_principal("user/alice", &[Role::DataOwner]);
    make_keys(&alice).await;
    let (ciphertext, _) = alice.encrypt("aes", b"hers", b"").await.unwrap();
    let (mac, _) = alice.generate_mac("mac", b"x").await.unwrap();
    let admin = world.policy_of("user/admin", &[Role::Admin]);
    for verb in VERBS {
        for (who, role) in PEOPLE {
            let kms = world.as_principal(who, &[role]);
            let found = attempt(&kms, verb, &ciphertext, &mac).await;
            let keeps = ["get", "rotate", "update"].contains(&verb);
            let expected = match (who, role) {
                ("user/alice", _) | (_, Role::Admin) => None,
                (_, Role::KeyAdmin) if keeps => None,
                (_, Role::KeyAdmin) => Some("POLICY_DENIED"),
                // The roles of an analyst do not change keys; the methods say so before there is any key.
                (_, Role::Analyst) if ["rotate", "update"].contains(&verb) => Some("POLICY_DENIED"),
                _ => Some("KEY_NOT_FOUND"),
            };
            assert_eq!(found.as_deref(), expected, "{who} {verb}");
        }
        let everywhere = "keys/*";
        let eve = world.as_principal("user/eve", &[Role::DataOwner]);
        let given = allow(&admin, "user/eve", &[verb], everywhere).await;
        assert_eq!(
            attempt(&eve, verb, &ciphertext, &mac).await,
            None,
            "granted {verb}"
        );
        for other in VERBS.into_iter().filter(|other| *other != verb) {
            let reason = if verb == "get" {
                "POLICY_DENIED"
            } else {
                "KEY_NOT_FOUND"
            };
            let found = attempt(&eve, other, &ciphertext, &mac).await;
            assert_eq!(found.as_deref(), Some(reason), "granted {verb}, tried {other}");
        }
        // A denial wins over the grant, over the owner and over administrators.
        let taken = deny(&admin, "everyone", &[verb], everywhere).await;
        for (who, role) in PEOPLE {
            let kms = world.as_principal(who, &[role]);
            let found = attempt(&kms, verb, &ciphertext, &mac).await;
            assert!(found.is_some(), "{who} {verb} is denied");
        }
        for made in [given, taken] {
            admin.delete_grant(&made.name, "").await.unwrap();
        }
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_one_may_not_see_answers_like_one_that_is_not_there() {
    let world = World::start().await;
    make_keys(&world.as_principal("user/alice", &[Role::DataOwner])).await;
    let eve = world.as_principal("user/eve", &[Role::DataOwner]);
    let said = |error: ClientError| {
        let text = error.to_string().replace("keys/nothing", "keys/aes");
        (
            error.code(),
            error.reason().unwrap_or("none").to_owned(),
            text.replace("`nothing`", "`aes`"),
        )
    };
    let hidden = said(eve.key("aes").await.unwrap_err());
    assert_eq!(hidden.0, Code::NotFound);
    assert_eq!(hidden, said(eve.key("nothing").await.unwrap_err()));
    assert_eq!(
        said(eve.decrypt("aes", b"x", b"").await.err().unwrap()),
        said(eve.decrypt("nothing", b"x", b"").await.err().unwrap())
    );
    assert_eq!(
        said(eve.destroy_key_version("aes", 1, None, "").await.unwrap_err()),
        said(eve.destroy_key_version("nothing", 1, None, "").await.unwrap_err())
    );
    assert_eq!(
        refusal(eve.public_key("aes", 0).await),
        refusal(eve.public_key("nothing", 0).await)
    );
    let policy = world.policy_of("user/eve", &[Role::DataOwner]);
    let try_grant = |resource| policy.create_grant(grant(Effect::Allow, "user/eve", &["get"], resource), "");
    assert_eq!(
        said(try_grant("keys/aes").await.unwrap_err()),
        said(try_grant("keys/nothing").await.unwrap_err())
    );
    let explain = |resource: &str| {
        policy.explain(ExplainAccessRequest {
            verb: "decrypt".to_owned(),
            resource: resource.to_owned(),
            ..ExplainAccessRequest::default()
        })
    };
    let (there, not) = (
        explain("keys/aes").await.unwrap(),
        explain("keys/nothing").await.unwrap(),
    );
    assert!(!there.allowed);
    assert_eq!(there.steps.len(), not.steps.len());
    assert_eq!(
        there.steps[0].text,
        not.steps[0].text.replace("keys/nothing", "keys/aes")
    );
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn auditors_see_the_denial_where_the_caller_is_told_that_there_is_no_such_key() {
    let world = World::start().await;
    make_keys(&world.as_principal("user/alice", &[Role::DataOwner])).await;
    let eve = world.as_principal("user/eve", &[Role::DataOwner]);
    let missing = refused(Code::NotFound, "KEY_NOT_FOUND");
    for id in ["aes", "nothing"] {
        assert_eq!(refusal(eve.key(id).await), missing);
        assert_eq!(refusal(eve.decrypt(id, b"x", b"").await), missing);
        assert_eq!(refusal(eve.encrypt_batch(id, &[(b"x", b"")]).await), missing);
        assert_eq!(refusal(eve.rotate_key(id, "").await), missing);
    }
    // A symmetric key has no public half that anybody might have; of a signing key everybody may, until that is denied.
    for id in ["mac", "nothing"] {
        assert_eq!(refusal(eve.public_key(id, 0).await), missing);
    }
    let alices = world.policy_of("user/alice", &[Role::DataOwner]);
    deny(&alices, "user/eve", &["get"], "keys/sign").await;
    assert_eq!(refusal(eve.public_key("sign", 0).await), missing);
    let dir = world.stop().await;

    let spool = FileSpool::open(&dir.path().join("kms/outbox"), SpoolOptions::default()).unwrap();
    let events = spool.read(0, 1000).unwrap();
    let events = events
        .iter()
        .map(|(_, event)| Event::decode(event.as_slice()).unwrap());
    let told = |resource: &str| -> Vec<(String, Outcome, String)> {
        let of = |event: &Event| event.principal == "user/eve" && event.resource == resource;
        let told = |event: Event| (event.operation.clone(), event.outcome(), event.reason);
        events.clone().filter(of).map(told).collect()
    };
    let operations = ["kms.GetKey", "kms.Decrypt", "kms.BatchEncrypt", "kms.RotateKey"];
    let all = |operations: &[&str], outcome: Outcome, reason: &str| -> Vec<(String, Outcome, String)> {
        let event = |operation: &&str| ((*operation).to_owned(), outcome, reason.to_owned());
        operations.iter().map(event).collect()
    };
    assert_eq!(told("keys/aes"), all(&operations, Outcome::Denied, "KEY_HIDDEN"));
    let public = all(&["kms.GetPublicKey"], Outcome::Denied, "KEY_HIDDEN");
    assert_eq!(told("keys/mac"), public);
    assert_eq!(told("keys/sign"), public);
    let operations = [&operations[..], &["kms.GetPublicKey"]].concat();
    assert_eq!(
        told("keys/nothing"),
        all(&operations, Outcome::Failed, "KEY_NOT_FOUND")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn conditions_bind_a_grant_to_times_networks_and_authenticated_data() {
    let world = World::start().await;
    let alice = world.as_principal("user/alice", &[Role::DataOwner]);
    make_keys(&alice).await;
    let hers = world.policy_of("user/alice", &[Role::DataOwner]);
    let bob = world.as_principal("user/bob", &[Role::Analyst]);
    let (ciphertext, _) = alice.encrypt("aes", b"hers", b"case-7").await.unwrap();
    let hidden = refused(Code::NotFound, "KEY_NOT_FOUND");

    let mut bound = grant(Effect::Allow, "role:analyst", &["decrypt"], "keys/aes");
    bound.conditions = Some(Conditions {
        not_after: Some(prost_types::Timestamp {
            seconds: 1_800_000_060,
            nanos: 0,
        }),
        networks: vec!["127.0.0.0/8".to_owned()],
        aad: Some(Aad::AadPrefix(b"case-".to_vec())),
        ..Conditions::default()
    });
    let made = hers.create_grant(bound, "once").await.unwrap();
    assert_eq!(
        bob.decrypt("aes", &ciphertext, b"case-7").await.unwrap().expose(),
        b"hers"
    );
    assert_eq!(refusal(bob.decrypt("aes", &ciphertext, b"other").await), hidden);
    world.advance(Duration::from_secs(61));
    assert_eq!(refusal(bob.decrypt("aes", &ciphertext, b"case-7").await), hidden);

    let mut elsewhere = made;
    elsewhere.conditions = Some(Conditions {
        networks: vec!["10.0.0.0/8".to_owned()],
        ..Conditions::default()
    });
    hers.update_grant(elsewhere.clone()).await.unwrap();
    assert_eq!(refusal(bob.decrypt("aes", &ciphertext, b"case-7").await), hidden);
    assert_eq!(
        refusal(hers.update_grant(elsewhere).await),
        refused(Code::FailedPrecondition, "ETAG_MISMATCH")
    );
    let explained = |network: &str| {
        hers_explains(
            &world,
            ExplainAccessRequest {
                principal: "user/bob".to_owned(),
                roles: vec!["analyst".to_owned()],
                verb: "decrypt".to_owned(),
                resource: "keys/aes".to_owned(),
                network: Some(network.to_owned()),
                aad: Some(b"case-7".to_vec()),
                ..ExplainAccessRequest::default()
            },
        )
    };
    assert!(explained("10.1.2.3").await);
    assert!(!explained("192.168.0.1").await);
    world.stop().await;
}

async fn hers_explains(world: &World, request: ExplainAccessRequest) -> bool {
    let auditor = world.policy_of("user/judge", &[Role::Auditor]);
    let answer = auditor.explain(request).await.unwrap();
    let allows = |weight| answer.steps.iter().any(|step| step.weight() == weight);
    assert_eq!(answer.allowed, allows(Weight::Allows) && !allows(Weight::Denies));
    answer.allowed
}

#[tokio::test(flavor = "multi_thread")]
async fn only_who_administers_a_key_changes_its_grants() {
    let world = World::start().await;
    make_keys(&world.as_principal("user/alice", &[Role::DataOwner])).await;
    let alice = world.policy_of("user/alice", &[Role::DataOwner]);
    let keeper = world.policy_of("user/keeper", &[Role::KeyAdmin]);
    let eve = world.policy_of("user/eve", &[Role::DataOwner]);
    let made = allow(&alice, "user/bob", &["decrypt"], "keys/aes").await;
    allow(&keeper, "user/carol", &["decrypt"], "keys/aes").await;
    let own = refused(Code::PermissionDenied, "OWN_GRANT");
    for subject in ["user/keeper", "role:key-admin", "everyone"] {
        let wanted = grant(Effect::Allow, subject, &["decrypt"], "keys/aes");
        assert_eq!(refusal(keeper.create_grant(wanted, "").await), own, "{subject}");
    }
    let against = deny(&alice, "role:key-admin", &["destroy"], "keys/aes").await;
    assert_eq!(refusal(keeper.delete_grant(&against.name, "").await), own);
    let missing = refused(Code::NotFound, "GRANT_NOT_FOUND");
    assert_eq!(refusal(eve.grant(&made.name).await), missing);
    assert_eq!(refusal(eve.delete_grant(&made.name, "").await), missing);
    let wide = grant(Effect::Allow, "user/eve", &["decrypt"], "keys/*");
    assert_eq!(
        refusal(alice.create_grant(wide, "").await),
        refused(Code::PermissionDenied, "POLICY_DENIED")
    );
    assert_eq!(alice.grants("", "").await.unwrap().len(), 3);
    assert!(eve.grants("", "").await.unwrap().is_empty());
    let about = ExplainAccessRequest {
        principal: "user/bob".to_owned(),
        verb: "decrypt".to_owned(),
        resource: "keys/aes".to_owned(),
        ..ExplainAccessRequest::default()
    };
    assert_eq!(
        refusal(eve.explain(about).await),
        refused(Code::PermissionDenied, "POLICY_DENIED")
    );
    // Nobody locks administrators out of the policy.
    let admin = world.policy_of("user/admin", &[Role::Admin]);
    let lock = deny(&admin, "everyone", &["administer", "get"], "keys/*").await;
    admin.delete_grant(&lock.name, "").await.unwrap();
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_owner_bound_into_a_data_key_unwraps_it_and_nobody_else() {
    let world = World::start().await;
    let ingest = world.as_principal("service/ingest", &[Role::Service]);
    make_keys(&ingest).await;
    let context = dataset_context("datasets/x", "user/alice");
    let wrapped = ingest.generate_data_key("aes", &context).await.unwrap().wrapped;
    let alice = world.as_principal("user/alice", &[Role::DataOwner]);
    let eve = world.as_principal("user/eve", &[Role::DataOwner]);
    alice.unwrap_data_key("aes", &wrapped, &context).await.unwrap();
    assert_eq!(
        became(eve.unwrap_data_key("aes", &wrapped, &context).await).as_deref(),
        Some("KEY_NOT_FOUND")
    );
    let claimed = dataset_context("datasets/x", "user/eve");
    assert!(eve.unwrap_data_key("aes", &wrapped, &claimed).await.is_err());
    assert_eq!(
        became(alice.encrypt("aes", b"x", &context).await).as_deref(),
        Some("KEY_NOT_FOUND")
    );
    let admin = world.policy_of("user/admin", &[Role::Admin]);
    deny(&admin, "user/alice", &["decrypt"], "keys/aes").await;
    assert!(alice.unwrap_data_key("aes", &wrapped, &context).await.is_err());
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_destruction_waits_for_other_people_and_is_done_once() {
    let world = World::start().await;
    let alice = world.as_principal("user/alice", &[Role::DataOwner]);
    make_keys(&alice).await;
    let set = |number| asterism_proto::kms::Key {
        name: "keys/aes".to_owned(),
        required_approvals: number,
        ..Default::default()
    };
    let fields = ["required_approvals"];
    let key = alice.update_key(set(1), &fields, "up").await.unwrap();
    assert_eq!(key.required_approvals, 1);
    let needed = refused(Code::FailedPrecondition, "APPROVAL_REQUIRED");
    assert_eq!(
        refusal(alice.destroy_key_version("aes", 1, None, "d").await),
        needed
    );
    assert_eq!(refusal(alice.update_key(set(0), &fields, "down").await), needed);

    let hers = world.policy_of("user/alice", &[Role::DataOwner]);
    let keeper = world.policy_of("user/keeper", &[Role::KeyAdmin]);
    let eve = world.policy_of("user/eve", &[Role::DataOwner]);
    let approvals = keeper.approvals().await.unwrap();
    let of = |operation: &str| {
        let found = approvals.iter().find(|approval| approval.operation == operation);
        found.unwrap().name.clone()
    };
    let name = of("destroy");
    assert_eq!(
        refusal(hers.approve(&name).await),
        refused(Code::PermissionDenied, "SELF_APPROVAL")
    );
    assert_eq!(
        refusal(eve.approve(&name).await),
        refused(Code::NotFound, "APPROVAL_NOT_FOUND")
    );
    // Survives a restart, before and after the yes.
    let world = world.restart().await;
    let keeper = world.policy_of("user/keeper", &[Role::KeyAdmin]);
    assert_eq!(keeper.approve(&name).await.unwrap().state(), State::Approved);
    let world = world.restart().await;
    let alice = world.as_principal("user/alice", &[Role::DataOwner]);
    let other = alice
        .destroy_key_version("aes", 1, Some(Duration::from_secs(8 * 24 * 3600)), "x")
        .await;
    assert_eq!(refusal(other), needed, "other parameters");
    let done = alice.destroy_key_version("aes", 1, None, "d").await.unwrap();
    assert_eq!(
        alice.destroy_key_version("aes", 1, None, "d").await.unwrap(),
        done
    );
    alice.restore_key_version("aes", 1, "r").await.unwrap();
    assert_eq!(
        refusal(alice.destroy_key_version("aes", 1, None, "d2").await),
        needed,
        "once"
    );
    let keeper = world.policy_of("user/keeper", &[Role::KeyAdmin]);
    keeper.approve(&of("lower-required-approvals")).await.unwrap();
    let key = alice.update_key(set(0), &fields, "down").await.unwrap();
    assert_eq!(key.required_approvals, 0);
    assert_eq!(alice.update_key(set(0), &fields, "down").await.unwrap(), key);
    alice.destroy_key_version("aes", 1, None, "d3").await.unwrap();
    world.stop().await;
}

//! A kms that is sealed, and one that becomes so.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use asterism_chassis::identity::Role;
use asterism_client::{ClientError, Identity, Kms, LoginOutcome, NewCredential, Policy};
use asterism_crypto::{SecretBytes, SigningKey};
use asterism_kms::{RootKeyConfig, root::NewSeal};
use asterism_proto::{
    audit::Event,
    firewall::{
        GetRulesRequest, GetRulesResponse, UpdateRulesRequest, firewall_service_client::FirewallServiceClient,
    },
    identity::{WatchTrustRequest, identity_service_client::IdentityServiceClient},
    kms::{self as pb, KeyType, SealKind},
    policy::ExplainAccessRequest,
};
use asterism_store::{FileSpool, Spool as _, SpoolOptions};
use prost::Message as _;
use prost_types::FileDescriptorSet;
use tonic::{Code, Request, Status};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};
use tonic_prost::ProstCodec;

use crate::{
    seals::{
        PASSPHRASE, Split, channel, passphrase, reason, rekey, rotate_root, seal, sealed_with,
        sealed_with_passphrase, status, system, unseal,
    },
    support::{World, make_keys, refused},
};

/// What needs no token, and is answered while sealed.
const EXEMPT: [&str; 3] = [
    "/asterism.kms.v1.SystemService/GetSealStatus",
    "/asterism.kms.v1.SystemService/ResetUnseal",
    "/asterism.kms.v1.SystemService/Unseal",
];

fn sealed() -> (Code, String) {
    refused(Code::FailedPrecondition, "SEALED")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_passphrase_opens_what_it_sealed_and_another_does_not() {
    let world = sealed_with_passphrase().await;
    let told = status(&world).await;
    assert!(told.sealed && !told.automatic, "{told:?}");
    assert_eq!((told.kind(), told.root_version), (SealKind::Passphrase, 0));
    assert_eq!(told.seal_id.len(), 16);
    assert!(told.create_time.is_some());

    let wrong = unseal(&world, Some(passphrase("correct horse battery stable"))).await;
    assert_eq!(reason(wrong), refused(Code::Unauthenticated, "WRONG_PASSPHRASE"));
    assert_eq!(
        reason(unseal(&world, None).await),
        refused(Code::FailedPrecondition, "UNSEAL_SECRET_REQUIRED")
    );
    let share = Split::new().share(0);
    assert_eq!(
        reason(unseal(&world, Some(share)).await),
        refused(Code::FailedPrecondition, "WRONG_SECRET_KIND")
    );
    for bad in ["", "x".repeat(2000).as_str()] {
        let answer = unseal(&world, Some(passphrase(bad))).await;
        assert_eq!(reason(answer), refused(Code::InvalidArgument, "INVALID_FIELD"));
    }
    assert!(status(&world).await.sealed);

    let opened = unseal(&world, Some(passphrase(PASSPHRASE))).await.unwrap();
    assert!(!opened.sealed);
    assert_eq!((opened.root_version, opened.seal_id), (1, told.seal_id));
    let kms = world.admin();
    make_keys(&kms).await;
    let (ciphertext, _) = kms.encrypt("aes", b"text", b"").await.unwrap();
    // Once open, nobody learns here whether a passphrase is right.
    assert!(!unseal(&world, Some(passphrase("wrong"))).await.unwrap().sealed);

    let world = world.restart().await;
    assert!(status(&world).await.sealed, "a restart forgets");
    unseal(&world, Some(passphrase(PASSPHRASE))).await.unwrap();
    let opened = world.admin().decrypt("aes", &ciphertext, b"").await.unwrap();
    assert_eq!(opened.expose(), b"text");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn shares_are_given_one_a_call_until_there_are_enough() {
    let split = Split::new();
    let world = sealed_with(split.seal()).await;
    let told = status(&world).await;
    assert_eq!((told.kind(), told.sealed), (SealKind::Shares, true));
    assert_eq!((told.threshold, told.shares, told.progress), (2, 3, 0));
    assert_eq!(told.seal_id, split.shares[0].set().to_string());

    assert_eq!(
        reason(unseal(&world, Some(Split::new().share(0))).await),
        refused(Code::Unauthenticated, "SHARE_OF_ANOTHER_SEAL")
    );
    // Well formed, of the same key, and yet none of those that were given out.
    let again = asterism_crypto::shares::split(&split.key, 2, 3).unwrap();
    let forged = Split {
        key: asterism_crypto::SecretKey::generate().unwrap(),
        shares: again,
    };
    assert_eq!(
        reason(unseal(&world, Some(forged.share(0))).await),
        refused(Code::Unauthenticated, "WRONG_SHARE")
    );
    let mut mistyped = split.share(0);
    if let Some(pb::unseal_secret::Secret::Share(text)) = &mut mistyped.secret {
        let last = text.pop().unwrap();
        text.push(if last == 'A' { 'B' } else { 'A' });
    }
    assert_eq!(
        reason(unseal(&world, Some(mistyped)).await),
        refused(Code::InvalidArgument, "INVALID_SHARE")
    );
    assert_eq!(
        reason(unseal(&world, Some(passphrase(PASSPHRASE))).await),
        refused(Code::FailedPrecondition, "WRONG_SECRET_KIND")
    );
    assert_eq!(status(&world).await.progress, 0, "none of these counts");

    for _ in 0..3 {
        let told = unseal(&world, Some(split.share(2))).await.unwrap();
        assert!(told.sealed, "one share opened it");
        assert_eq!(told.progress, 1, "the same share again changes nothing");
    }
    let told = system(&world)
        .await
        .reset_unseal(pb::ResetUnsealRequest {})
        .await
        .unwrap()
        .into_inner();
    assert_eq!((told.sealed, told.progress), (true, 0));
    let told = unseal(&world, Some(split.share(0))).await.unwrap();
    assert_eq!(
        (told.sealed, told.progress),
        (true, 1),
        "what was forgotten counts"
    );
    let told = unseal(&world, Some(split.share(1))).await.unwrap();
    assert_eq!((told.sealed, told.progress), (false, 0));
    make_keys(&world.admin()).await;

    // Any two, and anew after each sealing.
    for pair in [[1, 2], [2, 0]] {
        assert!(seal(&world).await.sealed);
        for at in pair {
            unseal(&world, Some(split.share(at))).await.unwrap();
        }
        assert_eq!(world.admin().list_keys(10, "").await.unwrap().0.len(), 3);
    }
    world.stop().await;
}

async fn health(world: &World) -> ServingStatus {
    let mut health = HealthClient::new(channel(world).await);
    let mut told = vec![];
    for service in [
        "",
        "asterism.kms.v1.KeyManagementService",
        "asterism.kms.v1.SystemService",
    ] {
        let service = service.to_owned();
        let answer = health.check(HealthCheckRequest { service }).await.unwrap();
        told.push(answer.into_inner().status());
    }
    assert!(told.iter().all(|status| *status == told[0]), "{told:?}");
    told[0]
}

async fn becomes(world: &World, expected: ServingStatus) {
    crate::support::eventually(|| async { health(world).await == expected }).await;
}

/// Every method that kms serves.
fn methods() -> Vec<String> {
    let contracts = FileDescriptorSet::decode(asterism_proto::FILE_DESCRIPTOR_SET).unwrap();
    let mut methods = vec![];
    for file in &contracts.file {
        let ours = ["kms", "identity", "policy", "firewall"];
        if ours
            .iter()
            .any(|of| file.package() == format!("asterism.{of}.v1"))
        {
            for service in &file.service {
                let name = |method: &str| format!("/{}.{}/{method}", file.package(), service.name());
                methods.extend(service.method.iter().map(|method| name(method.name())));
            }
        }
    }
    methods
}

async fn call(world: &World, method: &str, admin: bool) -> Result<(), Status> {
    let mut client = tonic::client::Grpc::new(channel(world).await);
    client.ready().await.unwrap();
    let request = if admin {
        world.request(())
    } else {
        Request::new(())
    };
    let path = method.parse().unwrap();
    let codec = ProstCodec::<(), ()>::default();
    let mut answers = client.server_streaming(request, path, codec).await?.into_inner();
    if method.contains("/Watch") {
        return answers.message().await.map(|_| ());
    }
    while answers.message().await?.is_some() {}
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn while_sealed_every_other_method_is_refused_and_health_says_not_serving() {
    let world = sealed_with_passphrase().await;
    becomes(&world, ServingStatus::NotServing).await;
    let methods = methods();
    assert!(methods.len() > 70, "the walk finds {} methods", methods.len());
    let sealed_at = async |world: &World| {
        for method in &methods {
            for admin in [false, true] {
                let answer = call(world, method, admin).await;
                if !EXEMPT.contains(&method.as_str()) {
                    assert_eq!(reason(answer), sealed(), "{method}");
                } else if method.ends_with("/Unseal") {
                    let (_, reason) = reason(answer);
                    assert_eq!(reason, "UNSEAL_SECRET_REQUIRED");
                } else {
                    answer.unwrap();
                }
            }
        }
    };
    sealed_at(&world).await;
    unseal(&world, Some(passphrase(PASSPHRASE))).await.unwrap();
    becomes(&world, ServingStatus::Serving).await;
    for method in &methods {
        if !method.contains(".SystemService/") {
            let answer = call(&world, method, true).await;
            let sealed = answer.is_err() && reason(answer) == sealed();
            assert!(!sealed, "{method}");
        }
    }
    seal(&world).await;
    becomes(&world, ServingStatus::NotServing).await;
    sealed_at(&world).await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_administrators_seal_and_change_the_seal() {
    let world = World::start().await;
    for method in ["Seal", "Rekey", "RotateRoot"] {
        let method = format!("/asterism.kms.v1.SystemService/{method}");
        let (code, _) = reason(call(&world, &method, false).await);
        assert_eq!(code, Code::Unauthenticated, "{method}");
    }
    assert!(!status(&world).await.sealed);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_refused_while_sealed_and_people_log_in_again_afterwards() {
    let world = World::start().await;
    let admin = world.identity("user/admin", &[Role::Admin]);
    let key = SigningKey::generate().unwrap();
    let invitation = admin.invite("user/bob", &["viewer".into()], None).await.unwrap();
    let copy = SigningKey::from_bytes(key.to_secret_bytes().expose()).unwrap();
    admin
        .enrol(&invitation.invitation, NewCredential::Key(copy), false)
        .await
        .unwrap();
    let login = async || match admin.login_with_key("user/bob", &key, &[]).await {
        Ok(LoginOutcome::Done(tokens)) => Ok(tokens),
        Ok(_) => panic!("a second factor is due"),
        Err(error) => Err(error),
    };
    let bob = world.identity_with(&login().await.unwrap().access_token);
    bob.who_am_i().await.unwrap();
    let mut watching = IdentityServiceClient::new(channel(&world).await)
        .watch_trust(world.request(WatchTrustRequest {}))
        .await
        .unwrap()
        .into_inner();
    let first = watching.message().await.unwrap().unwrap();
    assert!(first.trust.is_some_and(|trust| trust.keys.len() == 1));

    assert!(seal(&world).await.sealed);
    let end = async {
        loop {
            match watching.message().await {
                Ok(Some(_)) => {}
                other => return other.map(|_| ()),
            }
        }
    };
    let end = tokio::time::timeout(Duration::from_secs(20), end).await.unwrap();
    assert_eq!(reason(end), sealed());
    let refusal = |error: ClientError| (error.code(), error.reason().unwrap_or_default().to_owned());
    assert_eq!(refusal(bob.who_am_i().await.unwrap_err()), sealed());
    assert_eq!(refusal(login().await.unwrap_err()), sealed());

    // A key file needs no secret.
    assert!(!unseal(&world, None).await.unwrap().sealed);
    bob.who_am_i().await.unwrap();
    let again = world.identity_with(&login().await.unwrap().access_token);
    again.who_am_i().await.unwrap();
    world.stop().await;
}

/// Calls until told to stop; counts how many were answered rightly, and how many refused for the seal.
async fn keep_calling(
    (kms, people, grants): (Kms, Identity, Policy),
    stop: Arc<AtomicBool>,
    counts: Arc<[AtomicUsize; 2]>,
) {
    let [right, refused] = &*counts;
    let encrypting = ExplainAccessRequest {
        resource: "keys/aes".into(),
        verb: "encrypt".into(),
        ..ExplainAccessRequest::default()
    };
    let mut turn = 0;
    while !stop.load(Ordering::Acquire) {
        turn += 1;
        let answer = match turn % 4 {
            0 => people.principals(10, "").await.map(drop),
            1 => kms.rotate_key("turning", "").await.map(drop),
            2 => grants.explain(encrypting.clone()).await.map(drop),
            _ => match kms.encrypt("aes", b"text", b"aad").await {
                Ok((ciphertext, _)) => kms.decrypt("aes", &ciphertext, b"aad").await.map(|opened| {
                    assert_eq!(opened.expose(), b"text");
                }),
                Err(error) => Err(error),
            },
        };
        match answer {
            Ok(()) => right.fetch_add(1, Ordering::AcqRel),
            Err(error) if error.reason() == Some("SEALED") => refused.fetch_add(1, Ordering::AcqRel),
            Err(error) if error.reason() == Some("TOO_MANY_VERSIONS") => 0,
            Err(error) => panic!("{error}"),
        };
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sealing_and_unsealing_while_calls_run_gives_right_answers_or_none() {
    let world = World::start().await;
    make_keys(&world.admin()).await;
    world
        .admin()
        .create_key("turning", KeyType::HmacSha256, [], "t")
        .await
        .unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let counts = Arc::new([AtomicUsize::new(0), AtomicUsize::new(0)]);
    let callers: Vec<_> = (0..6)
        .map(|_| {
            let people = world.identity("user/admin", &[Role::Admin]);
            let grants = world.policy_of("user/admin", &[Role::Admin]);
            let clients = (world.admin(), people, grants);
            tokio::spawn(keep_calling(clients, stop.clone(), counts.clone()))
        })
        .collect();
    let rises = async |at: usize| {
        let before = counts[at].load(Ordering::Acquire);
        crate::support::eventually(async || counts[at].load(Ordering::Acquire) > before + 10).await;
    };
    for _ in 0..10 {
        rises(0).await;
        assert!(seal(&world).await.sealed);
        rises(1).await;
        assert!(!unseal(&world, None).await.unwrap().sealed);
    }
    rises(0).await;
    stop.store(true, Ordering::Release);
    for caller in callers {
        caller.await.unwrap();
    }
    // No rotation was lost on the way.
    let key = world.admin().key("turning").await.unwrap();
    assert_eq!(key.primary_version as usize, key.versions.len());
    world.stop().await;
}

/// Operations of the seal with how they ended, as they stand in the outbox.
fn told(dir: &Path) -> Vec<String> {
    let spool = FileSpool::open(&dir.join("kms/outbox"), SpoolOptions::default()).unwrap();
    let events = spool.read(0, 1000).unwrap().into_iter();
    let events = events.map(|(_, bytes)| Event::decode(bytes.as_slice()).unwrap());
    let about_the_seal = |event: &Event| {
        let resource = &event.resource;
        resource.starts_with("seals/") || resource.starts_with("roots/")
    };
    let lines = events.filter(about_the_seal).map(|event| {
        let operation = event.operation.trim_start_matches("kms.");
        let outcome = format!("{:?}", event.outcome());
        format!("{operation} {} {outcome} {}", event.principal, event.reason)
            .trim_end()
            .to_owned()
    });
    lines.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_try_and_each_change_of_the_seal_is_an_event() {
    let world = sealed_with_passphrase().await;
    let split = Split::new();
    unseal(&world, Some(passphrase("not the right one")))
        .await
        .unwrap_err();
    unseal(&world, Some(passphrase(PASSPHRASE))).await.unwrap();
    unseal(&world, Some(passphrase(PASSPHRASE))).await.unwrap();
    let secrets = || vec![passphrase(PASSPHRASE)];
    rotate_root(&world, secrets()).await.unwrap();
    crate::support::eventually(|| async { status(&world).await.rotation.is_none() }).await;
    rekey(&world, vec![], split.wish()).await.unwrap_err();
    rekey(&world, secrets(), split.wish()).await.unwrap();
    seal(&world).await;
    unseal(&world, Some(split.share(0))).await.unwrap();
    system(&world)
        .await
        .reset_unseal(pb::ResetUnsealRequest {})
        .await
        .unwrap();
    for at in [1, 2] {
        unseal(&world, Some(split.share(at))).await.unwrap();
    }
    let dir = world.stop().await;
    let expected = [
        "Unseal anonymous/caller Denied WRONG_PASSPHRASE",
        "Unseal anonymous/caller Succeeded UNSEALED",
        "RotateRoot user/admin Succeeded",
        "RootRotated service/kms Succeeded",
        "Rekey user/admin Failed UNSEAL_SECRET_REQUIRED",
        "Rekey user/admin Succeeded",
        "Seal user/admin Succeeded",
        "Unseal anonymous/caller Succeeded SHARE_TAKEN",
        "ResetUnseal anonymous/caller Succeeded",
        "Unseal anonymous/caller Succeeded SHARE_TAKEN",
        "Unseal anonymous/caller Succeeded UNSEALED",
    ];
    assert_eq!(told(dir.path()), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_tries_secrets_again_and_again_is_banned() {
    let world = sealed_with_passphrase().await;
    unseal(&world, Some(passphrase(PASSPHRASE))).await.unwrap();
    let mut firewall = FirewallServiceClient::new(channel(&world).await);
    let now = firewall
        .get_rules(world.request(GetRulesRequest {}))
        .await
        .unwrap();
    let GetRulesResponse { rules, etag } = now.into_inner();
    let mut rules = rules.unwrap();
    rules.exempt_loopback = false;
    rules.bans.as_mut().unwrap().failures = 3;
    let request = UpdateRulesRequest {
        rules: Some(rules),
        etag,
        force: true,
        ..UpdateRulesRequest::default()
    };
    firewall.update_rules(world.request(request)).await.unwrap();
    seal(&world).await;
    let mut system = system(&world).await;
    for _ in 0..3 {
        let secret = Some(passphrase("one guess after the other"));
        let answer = system.unseal(pb::UnsealRequest { secret }).await;
        assert_eq!(reason(answer), refused(Code::Unauthenticated, "WRONG_PASSPHRASE"));
    }
    // Not even the right one, now.
    let secret = Some(passphrase(PASSPHRASE));
    let (code, why) = reason(system.unseal(pb::UnsealRequest { secret }).await);
    assert_eq!((code, why.as_str()), (Code::PermissionDenied, "FIREWALL_BLOCKED"));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_opens_what_the_settings_name_the_secret_of() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("passphrase");
    asterism_store::files::write_atomic(&file, PASSPHRASE.as_bytes(), 0o600).unwrap();
    let named = RootKeyConfig {
        passphrase_file: Some(file),
        ..RootKeyConfig::default()
    };
    let world = World::start_with(dir, named).await.unwrap();
    let told = status(&world).await;
    assert!(!told.sealed && told.automatic);
    make_keys(&world.admin()).await;
    seal(&world).await;
    unseal(&world, None).await.unwrap();
    // Without the settings the same store waits for somebody.
    let dir = world.stop().await;
    let world = World::start_with(dir, RootKeyConfig::default()).await.unwrap();
    let told = status(&world).await;
    assert!(told.sealed && !told.automatic);
    unseal(&world, Some(passphrase(PASSPHRASE))).await.unwrap();
    world.admin().key("aes").await.unwrap();
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_short_passphrase_and_unsound_shares_make_no_seal() {
    let dir = tempfile::tempdir().unwrap();
    let bad = [
        NewSeal::Passphrase(SecretBytes::new(b"elevenbytes".to_vec())),
        NewSeal::Shares {
            unseal_key: asterism_crypto::SecretKey::generate().unwrap(),
            threshold: 1,
            digests: vec![asterism_crypto::Digest::of(b"one")],
        },
    ];
    for new in bad {
        let config = RootKeyConfig::default();
        assert!(asterism_kms::root::init(&dir.path().join("kms"), &config, new, 1).is_err());
    }
    let world = World::start_with(dir, RootKeyConfig::default()).await.unwrap();
    assert_eq!(status(&world).await.kind(), SealKind::KeyFile);
    world.stop().await;
}

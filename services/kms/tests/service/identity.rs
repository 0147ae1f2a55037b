//! What the directory's methods refuse on the wire, and to whom.

use asterism_chassis::identity::Role;
use asterism_client::{Identity, LoginOutcome, NewCredential};
use asterism_crypto::SigningKey;
use asterism_proto::identity::{self as pb, identity_service_client::IdentityServiceClient};
use tonic::{Code, Request, transport::Channel};
use tonic_types::StatusExt as _;

use crate::support::{World, refusal, refused};

const BOB: &str = "principals/user/bob";

#[track_caller]
fn reason<T>(result: Result<T, tonic::Status>) -> String {
    match result {
        Ok(_) => panic!("not refused"),
        Err(status) => status.get_details_error_info().expect("info").reason,
    }
}

/// The field that is named.
#[track_caller]
fn field<T>(result: Result<T, tonic::Status>) -> String {
    let Err(status) = result else {
        panic!("not refused")
    };
    assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
    let bad = status.get_details_bad_request().expect("details");
    bad.field_violations[0].field.clone()
}

async fn raw(world: &World) -> IdentityServiceClient<Channel> {
    let endpoint = tonic::transport::Endpoint::from_shared(world.endpoint().to_owned()).unwrap();
    IdentityServiceClient::new(endpoint.connect().await.unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_fields_are_named() {
    let world = World::start().await;
    let mut client = raw(&world).await;
    let invite = |principal: &str, roles: &[&str], seconds: Option<i64>| pb::CreateInvitationRequest {
        principal: principal.into(),
        roles: roles.iter().map(|role| (*role).to_owned()).collect(),
        lifetime: seconds.map(|seconds| prost_types::Duration { seconds, nanos: 0 }),
    };
    for (message, expected) in [
        (invite("user/bob", &["viewer"], None), "principal"),
        (invite("principals/Bob", &["viewer"], None), "principal"),
        (invite(BOB, &["emperor"], None), "roles"),
        (invite(BOB, &[], None), "roles"),
        (invite(BOB, &["viewer"; 17], None), "roles"),
        (invite(BOB, &["viewer"], Some(-1)), "lifetime"),
        (invite(BOB, &["viewer"], Some(i64::MAX)), "lifetime"),
        (invite(BOB, &["viewer"], Some(1)), "lifetime"),
    ] {
        let shown = format!("{message:?}");
        let answer = client.create_invitation(world.request(message)).await;
        assert_eq!(field(answer), expected, "{shown}");
    }
    let start = |principal: &str, bytes: usize| {
        Request::new(pb::StartLoginRequest {
            principal: principal.into(),
            credential_request: vec![1; bytes],
            audience: vec![],
        })
    };
    assert_eq!(field(client.start_login(start("bob", 96)).await), "principal");
    assert_eq!(
        field(client.start_login(start(BOB, 95)).await),
        "credential_request"
    );
    assert_eq!(
        field(client.start_login(start(BOB, 1 << 20)).await),
        "credential_request"
    );
    let finish = Request::new(pb::FinishLoginRequest::default());
    assert_eq!(field(client.finish_login(finish).await), "proof");
    let enrol = Request::new(pb::FinishEnrolmentRequest::default());
    assert_eq!(field(client.finish_enrolment(enrol).await), "credential");
    let answer = Request::new(pb::AnswerSecondFactorRequest::default());
    assert_eq!(field(client.answer_second_factor(answer).await), "kind");
    let update = |paths: &[&str], principal: pb::Principal| {
        world.request(pb::UpdatePrincipalRequest {
            principal: Some(pb::Principal {
                name: BOB.into(),
                ..principal
            }),
            update_mask: Some(prost_types::FieldMask {
                paths: paths.iter().map(|path| (*path).to_owned()).collect(),
            }),
        })
    };
    let none = pb::Principal::default;
    let wrong_key = pb::Principal {
        channel_keys: vec!["asx1nonsense".into()],
        ..none()
    };
    assert_eq!(
        field(client.update_principal(update(&[], none())).await),
        "update_mask"
    );
    assert_eq!(
        field(client.update_principal(update(&["name"], none())).await),
        "update_mask"
    );
    assert_eq!(
        field(client.update_principal(update(&["state"], none())).await),
        "principal.state"
    );
    assert_eq!(
        field(
            client
                .update_principal(update(&["channel_keys"], wrong_key))
                .await
        ),
        "principal.channel_keys"
    );
    let viewer = pb::Principal {
        roles: vec!["viewer".into()],
        ..none()
    };
    assert_eq!(
        reason(client.update_principal(update(&["roles"], viewer)).await),
        "PRINCIPAL_NOT_FOUND"
    );
    let list = world.request(pb::ListPrincipalsRequest {
        page_size: 0,
        page_token: "no principal".into(),
    });
    assert_eq!(field(client.list_principals(list).await), "page_token");
    let revoke = world.request(pb::RevokeTokenRequest {
        token_id: "a b".into(),
    });
    assert_eq!(field(client.revoke_token(revoke).await), "token_id");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_needs_no_token_takes_none_and_all_else_does() {
    let world = World::start().await;
    let mut client = raw(&world).await;
    let keys = client.get_token_keys(pb::GetTokenKeysRequest {}).await.unwrap();
    assert_eq!(keys.into_inner().keys.len(), 1);
    assert_eq!(
        reason(client.who_am_i(pb::WhoAmIRequest {}).await),
        "TOKEN_MISSING"
    );
    assert_eq!(
        reason(client.watch_trust(pb::WatchTrustRequest {}).await),
        "TOKEN_MISSING"
    );
    let nothing = pb::LogoutRequest::default();
    assert_eq!(reason(client.logout(nothing).await), "SESSION_ENDED");
    // A token that is none is not overlooked because none was needed.
    let mut request = Request::new(pb::GetTokenKeysRequest {});
    let wrong = "Bearer nonsense".parse().unwrap();
    request.metadata_mut().insert("authorization", wrong);
    assert_eq!(reason(client.get_token_keys(request).await), "TOKEN_INVALID");
}

#[tokio::test(flavor = "multi_thread")]
async fn everybody_sees_to_themselves_and_administrators_to_all() {
    let world = World::start().await;
    let admin = world.identity("user/admin", &[Role::Admin]);
    let key = SigningKey::generate().unwrap();
    let invitation = admin.invite("user/bob", &["viewer".into()], None).await.unwrap();
    let enrolled = NewCredential::Key(SigningKey::from_bytes(key.to_secret_bytes().expose()).unwrap());
    admin
        .enrol(&invitation.invitation, enrolled, false)
        .await
        .unwrap();
    let LoginOutcome::Done(tokens) = admin.login_with_key("user/bob", &key, &[]).await.unwrap() else {
        panic!("a second factor is due")
    };
    let bob: Identity = world.identity_with(&tokens.access_token);
    assert_eq!(bob.who_am_i().await.unwrap().principal, BOB);
    assert_eq!(bob.principal("user/bob").await.unwrap().login_keys.len(), 1);
    let denied = |reason| refused(Code::PermissionDenied, reason);
    assert_eq!(refusal(bob.principal("user/admin").await), denied("NOT_ONESELF"));
    assert_eq!(refusal(bob.principals(10, "").await), denied("POLICY_DENIED"));
    assert_eq!(
        refusal(bob.invite("user/eve", &["admin".into()], None).await),
        denied("POLICY_DENIED")
    );
    assert_eq!(refusal(bob.revoke_all("user/admin").await), denied("NOT_ONESELF"));
    assert_eq!(
        refusal(bob.remove_second_factor("user/admin", "x", "").await),
        denied("NOT_ONESELF")
    );
    let roles = pb::Principal {
        roles: vec!["admin".into()],
        ..pb::Principal::default()
    };
    assert_eq!(
        refusal(bob.update("user/bob", roles, &["roles"]).await),
        denied("POLICY_DENIED")
    );
    assert_eq!(refusal(bob.delete("user/bob").await), denied("POLICY_DENIED"));
    bob.revoke_all("user/bob").await.unwrap();
    assert_eq!(
        refusal(bob.who_am_i().await),
        refused(Code::Unauthenticated, "TOKEN_REVOKED")
    );
    // Nobody who is not in the directory has a second factor.
    let outsider = world.identity("user/minted", &[Role::Viewer]);
    let kind = pb::SecondFactorKind::Totp;
    assert_eq!(
        refusal(outsider.add_second_factor(kind).await),
        refused(Code::NotFound, "PRINCIPAL_NOT_FOUND")
    );
    assert_eq!(outsider.who_am_i().await.unwrap().token_id, "");
}

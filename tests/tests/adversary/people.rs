//! Somebody who enrols and logs in, wherever they connect from.

use asterism_chassis::identity::Role;
use asterism_client::{
    Connection, Credentials, Identity, LoginOutcome, NewCredential, proto::identity::Tokens,
};

use crate::support::World;

/// Searched for everywhere where it must not be.
pub const PASSWORD: &str = "marzipan-albatross-7Qx2";
pub const PERSON: &str = "user/alice";

/// What a person has after a login.
pub struct Person {
    pub invitation: String,
    pub tokens: Tokens,
}

/// Invited by the administrator; everything else goes over `connection`, a connection to kms without a token.
pub async fn enrolled(world: &World, connection: &Connection, roles: &[&str]) -> Person {
    let credentials = world
        .constellation
        .credentials("user/admin", &[Role::Admin])
        .unwrap();
    let kms = &world.constellation.endpoints().kms;
    let admin = Identity::new(Connection::lazy(kms, credentials).unwrap());
    enrolled_by(&admin, connection, roles).await
}

pub async fn enrolled_by(admin: &Identity, connection: &Connection, roles: &[&str]) -> Person {
    let roles: Vec<String> = roles.iter().map(|role| (*role).to_owned()).collect();
    let invitation = admin.invite(PERSON, &roles, None).await.unwrap().invitation;
    let client = Identity::new(connection.clone().with_credentials(Credentials::anonymous()));
    let password = || PASSWORD.as_bytes().to_vec().into();
    client
        .enrol(&invitation, NewCredential::Password(password()), false)
        .await
        .unwrap();
    let outcome = client.login_with_password(PERSON, password(), &[]).await.unwrap();
    match outcome {
        LoginOutcome::Done(tokens) => Person { invitation, tokens },
        LoginOutcome::SecondFactor(_) => panic!("a second factor is due"),
    }
}

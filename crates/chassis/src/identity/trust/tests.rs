use asterism_channel::StaticKey;
use asterism_crypto::{SecretKey, SigningKey, TokenKey, jws};

use super::*;
use crate::identity::{
    Role,
    access::{Claims, Confirmation, EVERYWHERE, ISSUER, thumbprint},
};

const NOW: u64 = 1_800_000_000;
const HOME: Option<IpAddr> = Some(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST));

struct Fixture {
    trust: Trust,
    key: SigningKey,
}

fn claims() -> Claims {
    Claims {
        iss: ISSUER.into(),
        sub: "user/alice".into(),
        aud: vec![EVERYWHERE.into()],
        iat: NOW,
        nbf: NOW,
        exp: NOW + 600,
        jti: "token-1".into(),
        sid: "session-1".into(),
        generation: 7,
        roles: vec![Role::Analyst],
        amr: vec!["pwd".into()],
        cnf: None,
    }
}

fn view(key: &SigningKey) -> TrustView {
    TrustView {
        revision: 1,
        keys: HashMap::from([("k1".to_owned(), key.verifying_key())]),
        ..TrustView::default()
    }
}

fn fixture() -> Fixture {
    let trust = Trust::new("ingest", Duration::from_secs(30));
    let key = SigningKey::generate().expect("a key");
    trust.hear(Some(view(&key)), NOW * 1000, Instant::now());
    Fixture { trust, key }
}

impl Fixture {
    fn judge(&self, token: &str) -> Result<Access, &'static str> {
        self.from(token, None, HOME)
    }

    fn from(
        &self,
        token: &str,
        key: Option<&PublicKey>,
        network: Option<IpAddr>,
    ) -> Result<Access, &'static str> {
        let access = self.trust.verify(token).map_err(|failure| failure.reason())?;
        self.trust
            .admit(&access, key, network)
            .map_err(|failure| failure.reason())?;
        Ok(access)
    }

    fn with(&self, change: impl FnOnce(&mut Claims)) -> Result<Access, &'static str> {
        let mut claims = claims();
        change(&mut claims);
        self.judge(&claims.sign(&self.key, "k1"))
    }
}

fn reason(result: Result<Access, &'static str>) -> &'static str {
    result.map_or_else(|reason| reason, |_| "admitted")
}

#[test]
fn a_good_token_is_its_principals() {
    let fixture = fixture();
    let access = fixture.with(|_| ()).expect("admitted");
    assert_eq!(access.principal.id.as_str(), "user/alice");
    assert_eq!(access.principal.roles, [Role::Analyst]);
    fixture
        .with(|claims| claims.aud = vec!["kms".into(), "ingest".into()])
        .expect("named");
}

#[test]
fn foreign_forged_and_wrong_tokens_are_refused() {
    let fixture = fixture();
    let other = SigningKey::generate().expect("a key");
    assert_eq!(
        reason(fixture.judge(&claims().sign(&other, "k1"))),
        "TOKEN_INVALID"
    );
    assert_eq!(
        reason(fixture.judge(&claims().sign(&fixture.key, "k2"))),
        "TOKEN_INVALID"
    );
    let hmac = TokenKey::new(&SecretKey::from_bytes([1; 32])).mint(b"{}");
    for token in ["", "x", "a.b.c", hmac.as_str()] {
        assert_eq!(reason(fixture.judge(token)), "TOKEN_INVALID", "{token}");
    }
    type Change = fn(&mut Claims);
    let changes: [(&str, Change, &str); 8] = [
        ("issuer", |c| c.iss = "elsewhere".into(), "TOKEN_INVALID"),
        ("principal", |c| c.sub = "Alice".into(), "TOKEN_INVALID"),
        ("audience", |c| c.aud = vec!["kms".into()], "TOKEN_AUDIENCE"),
        ("no audience", |c| c.aud.clear(), "TOKEN_AUDIENCE"),
        ("expired", |c| c.exp = NOW, "TOKEN_INVALID"),
        ("no id", |c| c.jti.clear(), "TOKEN_INVALID"),
        ("no session", |c| c.sid.clear(), "TOKEN_INVALID"),
        ("past", |c| (c.nbf, c.exp) = (NOW - 600, NOW), "TOKEN_EXPIRED"),
    ];
    for (what, change, expected) in changes {
        assert_eq!(reason(fixture.with(change)), expected, "{what}");
    }
    let json = serde_json::to_string(&claims()).expect("json");
    let extended = json.replacen('{', r#"{"admin":true,"#, 1);
    let twice = json.replacen('{', r#"{"sub":"user/root","#, 1);
    for payload in [extended.as_str(), twice.as_str(), "{}", "[]", ""] {
        let token = jws::sign(&fixture.key, "k1", payload.as_bytes());
        assert_eq!(reason(fixture.judge(&token)), "TOKEN_INVALID", "{payload}");
    }
}

#[test]
fn time_is_that_of_kms_whatever_this_machines_clock_says() {
    // The fixture's kms lives in 2027 while this machine does not.
    let fixture = fixture();
    fixture
        .with(|claims| (claims.nbf, claims.exp) = (NOW + 4, NOW + 604))
        .expect("a little early");
    let early = |claims: &mut Claims| (claims.nbf, claims.exp) = (NOW + 300, NOW + 900);
    let mut ahead = claims();
    early(&mut ahead);
    let access = fixture
        .trust
        .verify(&ahead.sign(&fixture.key, "k1"))
        .expect("form");
    let refused = fixture
        .trust
        .admit(&access, None, HOME)
        .expect_err("five minutes ahead");
    assert_eq!(refused.reason(), "TOKEN_NOT_YET_VALID");
    assert!(refused.message().contains("300 s") && refused.message().contains("clocks"));
    // kms' clock is set: from its next word on it is the measure.
    fixture.trust.hear(None, (NOW + 300) * 1000, Instant::now());
    fixture.with(early).expect("good now");
    fixture.trust.hear(None, (NOW + 601) * 1000, Instant::now());
    assert_eq!(reason(fixture.with(|_| ())), "TOKEN_EXPIRED");
}

#[test]
fn a_token_is_good_from_its_own_key_only() {
    let fixture = fixture();
    let [own, other] = [(); 2].map(|()| StaticKey::generate().expect("a key").public());
    let mut bound = claims();
    bound.cnf = Some(Confirmation {
        channel_key: thumbprint(&own),
    });
    let bound = bound.sign(&fixture.key, "k1");
    let free = claims().sign(&fixture.key, "k1");
    let elsewhere: Option<IpAddr> = "192.0.2.7".parse().ok();
    fixture
        .from(&bound, Some(&own), elsewhere)
        .expect("its own channel");
    fixture.from(&free, None, HOME).expect("loopback");
    let mismatch = |token: &str, key, network, what: &str| {
        assert_eq!(
            reason(fixture.from(token, key, network)),
            "CHANNEL_MISMATCH",
            "{what}"
        );
    };
    mismatch(&bound, Some(&other), HOME, "another channel");
    mismatch(&bound, None, HOME, "in the clear");
    mismatch(&free, Some(&own), HOME, "a loopback token over a channel");
    mismatch(&free, None, elsewhere, "a loopback token from elsewhere");
    mismatch(&free, None, None, "from nobody knows where");
}

#[test]
fn what_was_revoked_is_refused_at_once() {
    let fixture = fixture();
    let access = fixture.with(|_| ()).expect("good");
    let revoked = |change: &dyn Fn(&mut TrustView)| {
        let mut view = view(&fixture.key);
        view.revision = 2;
        change(&mut view);
        fixture.trust.replace(view);
        fixture
            .trust
            .still_holds(&access)
            .map_err(|failure| failure.reason())
    };
    let refused = Err("TOKEN_REVOKED");
    assert_eq!(
        revoked(&|view| _ = view.revoked.insert("token-1".into())),
        refused
    );
    assert_eq!(
        revoked(&|view| _ = view.revoked.insert("session-1".into())),
        refused
    );
    assert_eq!(
        revoked(&|view| _ = view.cuts.insert("user/alice".into(), 8)),
        refused
    );
    assert_eq!(
        revoked(&|view| _ = view.cuts.insert("user/alice".into(), 7)),
        Ok(())
    );
    assert_eq!(
        revoked(&|view| _ = view.cuts.insert("user/bob".into(), 9)),
        Ok(())
    );
    assert_eq!(revoked(&|view| view.keys.clear()), Err("TOKEN_INVALID"));
}

#[test]
fn who_has_heard_nothing_for_too_long_refuses() {
    let key = SigningKey::generate().expect("a key");
    let trust = Trust::new("ingest", Duration::from_secs(30));
    let token = claims().sign(&key, "k1");
    let stale = |trust: &Trust| trust.verify(&token).err().map(|failure| failure.reason());
    assert_eq!(stale(&trust), Some("TRUST_STALE"), "never heard");
    let now = Instant::now();
    let then = now
        .checked_sub(Duration::from_secs(31))
        .expect("this machine is up for longer");
    trust.hear(Some(view(&key)), NOW * 1000, then);
    assert_eq!(stale(&trust), Some("TRUST_STALE"), "31 s ago");
    trust.hear(None, NOW * 1000, now);
    let access = trust.verify(&token).expect("heard again");
    trust.still_holds(&access).expect("holds");
    trust.hear(None, NOW * 1000, then);
    assert_eq!(
        trust
            .admit(&access, None, HOME)
            .map_err(|failure| failure.reason()),
        Err("TRUST_STALE")
    );
    trust.govern(Arc::new(|| NOW * 1000));
    trust
        .admit(&access, None, HOME)
        .expect("kms needs no word of others");
    let changes = trust.changes();
    trust.withdraw();
    assert!(changes.has_changed().expect("there"), "who watches looks again");
    let refused = trust.still_holds(&access).map_err(|failure| failure.reason());
    assert_eq!(refused, Err("TRUST_STALE"));
    trust.govern(Arc::new(|| NOW * 1000));
    trust.still_holds(&access).expect("governs again");
}

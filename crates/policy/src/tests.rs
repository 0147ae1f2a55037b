//! Laws of the decision, each against any grants and any call.

use asterism_chassis::identity::Role;
use proptest::prelude::*;

use super::*;

const PEOPLE: [&str; 3] = ["user/alice", "user/bob", "service/ingest"];
const THINGS: [&str; 3] = ["keys/a", "keys/b", "datasets/a"];
const ROLES: [Role; 7] = [
    Role::Admin,
    Role::KeyAdmin,
    Role::DataOwner,
    Role::Analyst,
    Role::Auditor,
    Role::Viewer,
    Role::Service,
];

fn subject() -> impl Strategy<Value = Subject> {
    prop::sample::select(vec![
        "user/alice",
        "user/bob",
        "service/ingest",
        "role:analyst",
        "role:admin",
        "everyone",
    ])
    .prop_map(|name| name.parse().unwrap())
}

fn conditions() -> impl Strategy<Value = Conditions> {
    let network = prop::option::of(prop::sample::select(vec![
        "10.0.0.0/8",
        "192.168.1.0/24",
        "::1/128",
    ]));
    let aad = prop_oneof![
        3 => Just(None),
        1 => Just(Some(AadRule::Exact(b"ab".to_vec()))),
        1 => Just(Some(AadRule::Prefix(b"a".to_vec()))),
        1 => Just(Some(AadRule::Sha256(asterism_crypto::Digest::of(b"")))),
    ];
    (prop::option::of(0..4u64), prop::option::of(0..4u64), network, aad).prop_map(
        |(not_before_ms, not_after_ms, network, aad)| Conditions {
            not_before_ms,
            not_after_ms,
            networks: network.map(|text| text.parse().unwrap()).into_iter().collect(),
            aad,
        },
    )
}

prop_compose! {
    fn grant()(
        id in "[a-z]{4}",
        deny in any::<bool>(),
        subject in subject(),
        resource in prop::sample::select(vec!["keys/a", "keys/b", "keys/*", "datasets/*"]),
        verbs in prop::collection::btree_set(prop::sample::select(Verb::ALL), 1..12),
        conditions in conditions(),
    ) -> Grant {
        Grant {
            id,
            effect: if deny { Effect::Deny } else { Effect::Allow },
            subject,
            resource: resource.parse().unwrap(),
            verbs,
            conditions,
            comment: String::new(),
        }
    }
}

#[derive(Clone, Debug)]
struct Call {
    principal: &'static str,
    on_behalf_of: Option<&'static str>,
    roles: Vec<Role>,
    verb: Verb,
    resource: &'static str,
    owner: Option<&'static str>,
    network: Option<std::net::IpAddr>,
    aad: Option<&'static [u8]>,
    now_ms: u64,
}

impl Call {
    fn request(&self) -> Request<'_> {
        Request {
            principal: self.principal,
            on_behalf_of: self.on_behalf_of,
            roles: &self.roles,
            verb: self.verb,
            resource: self.resource,
            owner: self.owner,
            network: self.network,
            aad: self.aad,
            now_ms: self.now_ms,
        }
    }
}

prop_compose! {
    fn call()(
        principal in prop::sample::select(&PEOPLE[..]),
        on_behalf_of in prop::option::of(prop::sample::select(&PEOPLE[..])),
        roles in prop::collection::vec(prop::sample::select(&ROLES[..]), 0..3),
        verb in prop::sample::select(Verb::ALL),
        resource in prop::sample::select(&THINGS[..]),
        owner in prop::option::of(prop::sample::select(&PEOPLE[..])),
        network in prop::option::of(prop::sample::select(vec!["10.1.2.3", "192.168.1.9", "::1", "8.8.8.8"])),
        aad in prop::option::of(prop::sample::select(vec![b"".as_slice(), b"ab", b"ac", b"b"])),
        now_ms in 0..5u64,
    ) -> Call {
        let network = network.map(|text| text.parse().unwrap());
        Call { principal, on_behalf_of, roles, verb, resource, owner, network, aad, now_ms }
    }
}

fn allowed(call: &Call, grants: &[Grant]) -> bool {
    allows(&call.request(), grants.iter())
}

/// The rule again, in another way: three-valued conditions written out, no order, no early ends.
fn model(call: &Call, grants: &[Grant]) -> bool {
    let admin = call.roles.contains(&Role::Admin);
    if admin && call.verb == Verb::Administer {
        return true;
    }
    let states = |grant: &Grant| -> Vec<Option<bool>> {
        let c = &grant.conditions;
        vec![
            Some(c.not_before_ms.is_none_or(|from| from <= call.now_ms)),
            Some(c.not_after_ms.is_none_or(|until| until > call.now_ms)),
            match c.networks.first() {
                None => Some(true),
                Some(network) => call.network.map(|address| network.contains(&address)),
            },
            match &c.aad {
                None => Some(true),
                Some(AadRule::Exact(bytes)) => call.aad.map(|aad| aad == bytes),
                Some(AadRule::Prefix(bytes)) => call.aad.map(|aad| aad.starts_with(bytes)),
                Some(AadRule::Sha256(_)) => call.aad.map(<[u8]>::is_empty),
            },
        ]
    };
    let about = |grant: &Grant| {
        let subject = grant.subject.to_string();
        let is = |who: &str| subject == who;
        let named = is("everyone")
            || is(call.principal)
            || call.on_behalf_of.is_some_and(is)
            || (is("role:analyst") && call.roles.contains(&Role::Analyst))
            || (is("role:admin") && admin);
        let resource = grant.resource.to_string();
        let covers = resource == call.resource
            || (resource.ends_with("/*") && call.resource.starts_with(resource.trim_end_matches('*')));
        named && covers && grant.verbs.contains(&call.verb)
    };
    let count = |effect, needed: &dyn Fn(&Option<bool>) -> bool| {
        grants
            .iter()
            .any(|grant| grant.effect == effect && about(grant) && states(grant).iter().all(needed))
    };
    if count(Effect::Deny, &|state| *state != Some(false)) {
        return false;
    }
    let owner = call
        .owner
        .is_some_and(|owner| owner == call.principal || Some(owner) == call.on_behalf_of);
    let service = call.roles.contains(&Role::Service) && call.verb != Verb::Administer;
    let keeper =
        call.roles.contains(&Role::KeyAdmin) && call.resource.starts_with("keys/") && !call.verb.uses_keys();
    owner || admin || service || keeper || count(Effect::Allow, &|state| *state == Some(true))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn the_decision_is_that_of_the_model(call in call(), grants in prop::collection::vec(grant(), 0..8)) {
        prop_assert_eq!(allowed(&call, &grants), model(&call, &grants));
    }

    #[test]
    fn the_explained_decision_is_the_quick_one_and_its_steps_bear_it_out(
        call in call(), grants in prop::collection::vec(grant(), 0..8),
    ) {
        let decision = decide(&call.request(), grants.iter());
        prop_assert_eq!(decision.allowed, allowed(&call, &grants));
        let has = |weight| decision.because.iter().any(|step| step.weight == weight);
        prop_assert_eq!(decision.allowed, has(Weight::Allows) && !has(Weight::Denies));
        prop_assert!(!decision.because.is_empty());
    }

    #[test]
    fn order_does_not_matter(call in call(), grants in prop::collection::vec(grant(), 0..8), by in 0..8usize) {
        let before = allowed(&call, &grants);
        let mut turned = grants;
        let by = by % turned.len().max(1);
        turned.rotate_left(by);
        turned.reverse();
        prop_assert_eq!(before, allowed(&call, &turned));
    }

    #[test]
    fn one_more_denial_never_allows_more_and_one_more_allowance_never_less(
        call in call(), mut grants in prop::collection::vec(grant(), 0..8), mut more in grant(), at in 0..8usize,
    ) {
        let before = allowed(&call, &grants);
        let at = at.min(grants.len());
        more.effect = Effect::Deny;
        grants.insert(at, more);
        prop_assert!(before || !allowed(&call, &grants));
        let mut more = grants.remove(at);
        more.effect = Effect::Allow;
        grants.insert(at, more);
        prop_assert!(!before || allowed(&call, &grants));
    }

    #[test]
    fn an_unconditional_denial_wins_over_everything(
        call in call(), mut grants in prop::collection::vec(grant(), 0..8), mut denial in grant(), at in 0..8usize,
    ) {
        denial.effect = Effect::Deny;
        denial.subject = Subject::Principal(call.principal.to_owned());
        denial.resource = Pattern::One(call.resource.to_owned());
        denial.verbs = [call.verb].into();
        denial.conditions = Conditions::default();
        grants.insert(at.min(grants.len()), denial);
        let administers = call.verb == Verb::Administer && call.roles.contains(&Role::Admin);
        prop_assert_eq!(allowed(&call, &grants), administers);
    }

    #[test]
    fn grants_read_back_as_they_were_written(grant in grant()) {
        let text = serde_json::to_string(&grant).unwrap();
        prop_assert!(text.len() < 4096);
        prop_assert_eq!(serde_json::from_str::<Grant>(&text).unwrap(), grant);
    }

    #[test]
    fn no_text_makes_the_parsers_panic(text in "\\PC{0,120}") {
        let _ = (text.parse::<Subject>(), text.parse::<Pattern>(), text.parse::<Verb>());
    }
}

#[test]
fn what_is_no_subject_resource_or_verb_is_refused() {
    for text in ["", "bob", "role:", "role:king", "Everyone", "role/analyst/x", "*"] {
        assert!(text.parse::<Subject>().is_err(), "{text}");
    }
    let long = format!("keys/{}", "a".repeat(101));
    for text in [
        "", "*", "keys", "keys/", "keys/A", "keys/a/b", "keys/**", "log/*", "keys/a*", &long,
    ] {
        assert!(text.parse::<Pattern>().is_err(), "{text}");
    }
    for text in ["", "Decrypt", "all", "*"] {
        assert!(text.parse::<Verb>().is_err(), "{text}");
    }
}

#[test]
fn grants_that_make_no_sense_name_the_field() {
    let good = Grant {
        id: "g".into(),
        effect: Effect::Allow,
        subject: Subject::Everyone,
        resource: "keys/a".parse().unwrap(),
        verbs: [Verb::Decrypt].into(),
        conditions: Conditions::default(),
        comment: "why".into(),
    };
    assert_eq!(good.check(), Ok(()));
    let with = |change: fn(&mut Grant)| {
        let mut grant = good.clone();
        change(&mut grant);
        grant.check().unwrap_err().field
    };
    assert_eq!(with(|g| g.verbs.clear()), "verbs");
    assert_eq!(with(|g| g.verbs = [Verb::Train].into()), "verbs");
    assert_eq!(with(|g| g.comment = "x".repeat(257)), "comment");
    assert_eq!(with(|g| g.comment = "a\nb".into()), "comment");
    let window = |g: &mut Grant| {
        g.conditions.not_before_ms = Some(2);
        g.conditions.not_after_ms = Some(2);
    };
    assert_eq!(with(window), "conditions.not_after");
    let networks = |g: &mut Grant| g.conditions.networks = vec!["10.0.0.0/8".parse().unwrap(); 17];
    assert_eq!(with(networks), "conditions.networks");
    assert_eq!(
        with(|g| g.conditions.aad = Some(AadRule::Prefix(vec![]))),
        "conditions.aad"
    );
    assert_eq!(
        with(|g| g.conditions.aad = Some(AadRule::Exact(vec![0; 513]))),
        "conditions.aad"
    );
}

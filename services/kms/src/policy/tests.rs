//! Grants and approvals as they are kept.

use std::sync::Arc;

use asterism_crypto::Digest;
use asterism_policy::{Conditions, Effect, Grant, Subject, Verb};
use asterism_store::{MemoryRecords, Records};

use super::{
    ApprovalState, Approvals, Asked, Grants, PolicyError,
    approvals::{LIFETIME_MS, MAX_OPEN},
    grants::MAX_ON_RESOURCE,
};

fn records() -> Arc<dyn Records> {
    Arc::new(MemoryRecords::default())
}

fn grant(effect: Effect) -> Grant {
    Grant {
        id: String::new(),
        effect,
        subject: Subject::Everyone,
        resource: "keys/a".parse().expect("resource"),
        verbs: [Verb::Decrypt].into(),
        conditions: Conditions::default(),
        comment: String::new(),
    }
}

#[test]
fn grants_outlive_the_process_and_are_made_once_by_request_id() {
    let records = records();
    let grants = Grants::open(records.clone()).expect("open");
    let first = grants
        .create(grant(Effect::Allow), "user/alice", "r1", 7)
        .expect("made");
    let again = grants
        .create(grant(Effect::Allow), "user/alice", "r1", 8)
        .expect("repeated");
    assert_eq!(first, again);
    assert!(matches!(
        grants.create(grant(Effect::Deny), "user/alice", "r1", 8),
        Err(PolicyError::RequestIdReused)
    ));
    // The same id of somebody else is another request.
    let other = grants
        .create(grant(Effect::Deny), "user/bob", "r1", 8)
        .expect("made");
    let grants = Grants::open(records).expect("open again");
    assert_eq!(grants.get(&first.grant.id).expect("there"), first);
    assert_eq!(grants.now().about("keys/a").count(), 2);
    assert_eq!(grants.now().about("keys/b").count(), 0);
    let (page, next) = grants.list(None, 1, |_| true);
    let (rest, end) = grants.list(next.as_deref(), 1, |_| true);
    assert_ne!(page, rest);
    assert_eq!((rest.len(), end), (1, None));
    grants.delete(&other.grant.id, "").expect("deleted");
    assert!(matches!(
        grants.delete(&other.grant.id, ""),
        Err(PolicyError::GrantNotFound(_))
    ));
}

#[test]
fn a_change_needs_the_etag_of_what_it_changes() {
    let grants = Grants::open(records()).expect("open");
    let made = grants
        .create(grant(Effect::Allow), "user/alice", "", 1)
        .expect("made");
    let mut wanted = made.grant.clone();
    wanted.effect = Effect::Deny;
    let changed = grants.update(wanted.clone(), &made.etag).expect("changed");
    assert_eq!((changed.revision, changed.grant.effect), (2, Effect::Deny));
    assert!(matches!(
        grants.update(wanted.clone(), &made.etag),
        Err(PolicyError::EtagMismatch(_))
    ));
    assert!(matches!(
        grants.delete(&made.grant.id, &made.etag),
        Err(PolicyError::EtagMismatch(_))
    ));
    wanted.resource = "keys/b".parse().expect("resource");
    assert!(matches!(
        grants.update(wanted, ""),
        Err(PolicyError::Field("grant.resource", _))
    ));
}

#[test]
fn a_resource_has_a_bounded_number_of_grants() {
    let grants = Grants::open(records()).expect("open");
    for _ in 0..MAX_ON_RESOURCE {
        grants
            .create(grant(Effect::Allow), "user/alice", "", 1)
            .expect("made");
    }
    assert!(matches!(
        grants.create(grant(Effect::Allow), "user/alice", "", 1),
        Err(PolicyError::TooMany(_))
    ));
}

fn asked<'a>(parameters: &[u8], request_id: &'a str) -> Asked<'a> {
    Asked {
        operation: "destroy",
        key: "keys/a",
        version: 1,
        parameters: Digest::of(parameters),
        required: 2,
        principal: "user/alice",
        request_id,
    }
}

/// The id of the approval that the call waits for.
fn waits(approvals: &Approvals, asked: &Asked<'_>, now_ms: u64) -> String {
    match approvals.consume(asked, now_ms) {
        Err(PolicyError::ApprovalRequired(name)) => name["approvals/".len()..].to_owned(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_call_passes_once_after_enough_others_said_yes() {
    let records = records();
    let approvals = Approvals::open(records.clone()).expect("open");
    let id = waits(&approvals, &asked(b"x", "1"), 5);
    assert_eq!(
        waits(&approvals, &asked(b"x", "2"), 5),
        id,
        "asked twice, one approval"
    );
    assert_ne!(waits(&approvals, &asked(b"y", "3"), 5), id, "other parameters");
    assert!(matches!(
        approvals.approve(&id, "user/alice", 5),
        Err(PolicyError::SelfApproval)
    ));
    approvals.approve(&id, "user/bob", 5).expect("yes");
    let twice = approvals.approve(&id, "user/bob", 5).expect("yes again");
    assert_eq!(twice.state(5), ApprovalState::Pending);
    waits(&approvals, &asked(b"x", "2"), 5);
    // All of it is on the disk.
    let approvals = Approvals::open(records.clone()).expect("open again");
    let done = approvals.approve(&id, "user/carol", 5).expect("yes");
    assert_eq!(done.state(5), ApprovalState::Approved);
    approvals.consume(&asked(b"x", "9"), 6).expect("passes");
    // The answer was lost, the process died: the same request passes, another one does not.
    let approvals = Approvals::open(records).expect("open again");
    approvals.consume(&asked(b"x", "9"), 7).expect("the same request");
    assert_ne!(waits(&approvals, &asked(b"x", "10"), 7), id);
    assert!(matches!(
        approvals.approve(&id, "user/dora", 7),
        Err(PolicyError::ApprovalClosed(_, ApprovalState::Used))
    ));
}

#[test]
fn without_a_request_id_nothing_passes_twice() {
    let approvals = Approvals::open(records()).expect("open");
    let id = waits(&approvals, &asked(b"x", ""), 5);
    for who in ["user/bob", "user/carol"] {
        approvals.approve(&id, who, 5).expect("yes");
    }
    approvals.consume(&asked(b"x", ""), 6).expect("passes");
    assert_ne!(waits(&approvals, &asked(b"x", ""), 6), id);
}

#[test]
fn a_no_and_the_end_of_its_time_close_an_approval() {
    let approvals = Approvals::open(records()).expect("open");
    let id = waits(&approvals, &asked(b"x", "1"), 5);
    approvals.reject(&id, "user/bob", 5).expect("no");
    assert!(matches!(
        approvals.approve(&id, "user/carol", 5),
        Err(PolicyError::ApprovalClosed(_, ApprovalState::Rejected))
    ));
    let id = waits(&approvals, &asked(b"x", "1"), 5);
    for who in ["user/bob", "user/carol"] {
        approvals.approve(&id, who, 5).expect("yes");
    }
    let late = 5 + LIFETIME_MS;
    assert_eq!(
        approvals.get(&id).expect("there").state(late),
        ApprovalState::Expired
    );
    assert_ne!(
        waits(&approvals, &asked(b"x", "1"), late),
        id,
        "an old yes is worth nothing"
    );
}

#[test]
fn a_key_that_demands_more_by_now_needs_more() {
    let approvals = Approvals::open(records()).expect("open");
    let id = waits(&approvals, &asked(b"x", "1"), 5);
    for who in ["user/bob", "user/carol"] {
        approvals.approve(&id, who, 5).expect("yes");
    }
    let more = Asked {
        required: 3,
        ..asked(b"x", "1")
    };
    assert_eq!(waits(&approvals, &more, 5), id);
    approvals.approve(&id, "user/dora", 5).expect("yes");
    approvals.consume(&more, 5).expect("passes");
    let free = Asked {
        required: 0,
        ..asked(b"z", "2")
    };
    approvals.consume(&free, 5).expect("nobody is needed");
}

#[test]
fn of_many_calls_at_once_one_passes() {
    let approvals = Approvals::open(records()).expect("open");
    let id = waits(&approvals, &asked(b"x", "1"), 5);
    std::thread::scope(|scope| {
        for who in ["user/bob", "user/carol", "user/dora", "user/bob"] {
            let (approvals, id) = (&approvals, &id);
            scope.spawn(move || approvals.approve(id, who, 5).expect("yes"));
        }
    });
    let passed = std::thread::scope(|scope| {
        let calls: Vec<_> = (0..16)
            .map(|number| {
                let approvals = &approvals;
                scope.spawn(move || {
                    approvals
                        .consume(&asked(b"x", &format!("call-{number}")), 5)
                        .is_ok()
                })
            })
            .collect();
        calls
            .into_iter()
            .map(|call| call.join().expect("joined"))
            .filter(|passed| *passed)
            .count()
    });
    assert_eq!(passed, 1);
}

#[test]
fn nobody_asks_for_too_much_at_once() {
    let approvals = Approvals::open(records()).expect("open");
    for number in 0..MAX_OPEN {
        waits(&approvals, &asked(number.to_string().as_bytes(), ""), 5);
    }
    assert!(matches!(
        approvals.consume(&asked(b"more", ""), 5),
        Err(PolicyError::TooMany(_))
    ));
}

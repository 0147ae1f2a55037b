//! Messages that are not what they should be.

use proptest::prelude::*;

use super::*;
use crate::{FheError, bundle::Bundle, params::PlanKind, wire};

fn paths_program() -> Program {
    let shape = Shape {
        features: 3,
        bins: 8,
        trees: 2,
        depth: 3,
        outputs: 1,
        width: 1,
    };
    let options = Options {
        plan: Some(PlanKind::Paths),
        used_edges_only: false,
    };
    compile(&ensemble(shape, 1), options).unwrap()
}

fn pairs_program(seed: u64) -> Program {
    program(&ensemble(
        Shape {
            features: 3,
            bins: 8,
            trees: 2,
            depth: 2,
            outputs: 1,
            width: 1,
        },
        seed,
    ))
}

#[test]
fn queries_of_the_wrong_length_model_or_set_are_refused() {
    let (program, other, paths, pool) = (pairs_program(1), pairs_program(2), paths_program(), pool());
    let party = Party::of(&program);
    let query = party.query(&program, &[1.0, 2.0, 3.0]);
    let ask = |program: &Program, bytes: &[u8]| program.evaluate(bytes, None, &pool, &|| false).unwrap_err();
    assert_eq!(ask(&other, &query.bytes), FheError::OtherModel);
    assert!(matches!(ask(&paths, &query.bytes), FheError::OtherParams { .. }));
    let mut long = query.bytes.clone();
    long.push(0);
    assert!(matches!(ask(&program, &long), FheError::WrongLength { .. }));
    for cut in [0, 7, 8, 39, 40, 55, 56, query.bytes.len() - 1] {
        assert!(matches!(
            ask(&program, &query.bytes[..cut]),
            FheError::NotA(_) | FheError::WrongLength { .. }
        ));
    }
    let mut unknown = query.bytes.clone();
    unknown[6] = 99;
    assert_eq!(ask(&program, &unknown), FheError::UnknownParams(99));
    let mut future = query.bytes.clone();
    future[4] = 2;
    assert_eq!(ask(&program, &future), FheError::NotA("a query"));
}

#[test]
fn paths_ask_for_a_key_and_a_stopped_evaluation_ends() {
    let (program, pool) = (paths_program(), pool());
    let party = Party::of(&program);
    let query = party.query(&program, &[1.0, 2.0, 3.0]);
    let missing = program.evaluate(&query.bytes, None, &pool, &|| false);
    assert_eq!(missing.unwrap_err(), FheError::KeyMissing);
    let stopped = program.evaluate(&query.bytes, party.evaluation_key.as_ref(), &pool, &|| true);
    assert_eq!(stopped.unwrap_err(), FheError::Cancelled);
}

#[test]
fn a_key_of_somebody_else_gives_noise_and_not_the_score() {
    let (program, pool) = (paths_program(), pool());
    let (own, foreign) = (Party::of(&program), Party::of(&program));
    let mut wrong = 0;
    for at in 0..8 {
        let row = [f64::from(at), 2.0, 3.0];
        let query = own.query(&program, &row);
        let answer = program.evaluate(&query.bytes, foreign.evaluation_key.as_ref(), &pool, &|| false);
        let reply = answer.unwrap().reply;
        let integers = client::decrypt_integers(program.bundle(), &own.key, &query.digest, &reply).unwrap();
        wrong += usize::from(integers != program.clear_integers(&program.bundle().quantise(&row).unwrap()));
    }
    assert!(wrong >= 6, "{wrong} of 8");
}

#[test]
fn replies_are_tied_to_their_query_and_model() {
    let (program, other, pool) = (pairs_program(1), pairs_program(2), pool());
    let party = Party::of(&program);
    let (one, two) = (
        party.query(&program, &[1.0, 2.0, 3.0]),
        party.query(&program, &[1.0, 2.0, 3.0]),
    );
    assert_ne!(one.digest, two.digest, "encryption is randomised");
    let reply = party.answer(&program, &one, &pool);
    let read = |bundle: &Bundle, query: &Query, reply: &[u8]| {
        client::decrypt(bundle, &party.key, &query.digest, reply)
    };
    assert!(read(program.bundle(), &one, &reply).is_ok());
    assert_eq!(
        read(program.bundle(), &two, &reply).unwrap_err(),
        FheError::OtherQuery
    );
    assert_eq!(
        read(other.bundle(), &one, &reply).unwrap_err(),
        FheError::OtherModel
    );
    assert!(read(program.bundle(), &one, &reply[..reply.len() - 1]).is_err());
    // The same query answered twice is re-randomised each time.
    assert_ne!(party.answer(&program, &one, &pool)[72..], reply[72..]);
}

#[test]
fn keys_cut_off_or_of_plans_without_are_refused() {
    let program = paths_program();
    let key = SecretKey::generate(program.bundle().params_id()).unwrap();
    let bytes = client::evaluation_key(&key).unwrap().unwrap();
    assert_eq!(bytes.len(), wire::evaluation_key_len(key.params_id()));
    for cut in [0, 5, 8, 24, bytes.len() - 1] {
        assert!(EvaluationKey::from_bytes(&bytes[..cut]).is_err());
    }
    let pairs = pairs_program(1);
    let pairs_key = SecretKey::generate(pairs.bundle().params_id()).unwrap();
    assert_eq!(client::evaluation_key(&pairs_key).unwrap(), None);
    let mut disguised = bytes.clone();
    disguised[6] = pairs.bundle().params_id() as u8;
    assert!(EvaluationKey::from_bytes(&disguised).is_err());
    assert!(matches!(
        client::encrypt(pairs.bundle(), &key, &[1.0, 2.0, 3.0]),
        Err(FheError::OtherParams { .. })
    ));
}

#[test]
fn rows_that_cannot_be_coded_are_refused() {
    let program = pairs_program(1);
    let key = SecretKey::generate(program.bundle().params_id()).unwrap();
    let ask = |row: &[f64]| client::encrypt(program.bundle(), &key, row).unwrap_err();
    assert_eq!(
        ask(&[1.0]),
        FheError::WrongWidth {
            expected: 3,
            found: 1
        }
    );
    assert_eq!(ask(&[1.0, f64::INFINITY, 1.0]), FheError::NotFinite { index: 1 });
}

#[test]
fn bundles_round_trip_and_hold_no_leaf() {
    for program in [pairs_program(1), paths_program(), program(&linear(5, 3, 2))] {
        let bytes = program.bundle().to_bytes();
        assert_eq!(&Bundle::from_bytes(&bytes).unwrap(), program.bundle());
        let text = String::from_utf8(bytes).unwrap();
        assert!(!text.contains("weights") && !text.contains("nodes") && !text.contains("leaf"));
    }
    let good = String::from_utf8(pairs_program(1).bundle().to_bytes()).unwrap();
    for (from, to) in [
        ("\"format\":1", "\"format\":2"),
        ("\"params\":2", "\"params\":77"),
        ("\"logistic\"", "\"identity\""),
        ("\"levels\":", "\"levels\":1,\"was\":"),
        ("[1.0,", "[9.0,"),
    ] {
        assert!(good.contains(from), "{good}");
        assert!(
            Bundle::from_bytes(good.replacen(from, to, 1).as_bytes()).is_err(),
            "{from}"
        );
    }
}

proptest! {
    #[test]
    fn garbage_is_refused_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), magic in 0usize..4) {
        let mut bytes = bytes;
        let start: &[u8] = [&b"ASTQ\x01\x00\x02\x00"[..], b"ASTK\x01\x00\x06\x00", b"ASTR\x01\x00\x02\x00", b""][magic];
        bytes.splice(0..0, start.iter().copied());
        prop_assert!(EvaluationKey::from_bytes(&bytes).is_err());
        prop_assert!(Bundle::from_bytes(&bytes).is_err());
    }
}

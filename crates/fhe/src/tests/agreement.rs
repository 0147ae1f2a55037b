//! What is decrypted is what the same integers give in the clear.

use proptest::prelude::*;

use super::*;
use crate::params::{ParamsId, PlanKind};

/// Rows of a model, encrypted, evaluated and decrypted.
fn agree(model: &Model, options: Options, rows: usize, seed: u64) -> Program {
    let program = compile(model, options).unwrap();
    let (party, pool) = (Party::of(&program), pool());
    let mut rng = rng(seed);
    for _ in 0..rows {
        let row = row(model, &mut rng);
        let query = party.query(&program, &row);
        assert_eq!(query.bytes.len(), program.explanation().query_bytes);
        let reply = party.answer(&program, &query, &pool);
        assert_eq!(reply.len(), program.explanation().reply_bytes);
        let quantised = program.bundle().quantise(&row).unwrap();
        assert_eq!(quantised.clamped, query.clamped);
        let integers = client::decrypt_integers(program.bundle(), &party.key, &query.digest, &reply).unwrap();
        assert_eq!(integers, program.clear_integers(&quantised));
        let prediction = client::decrypt(program.bundle(), &party.key, &query.digest, &reply).unwrap();
        assert_eq!(prediction, program.clear(&row).unwrap());
        // And the integers are near to the trained model's scores.
        let trained = model.scores(&row).unwrap();
        let bounds = &program.explanation().quantisation_error;
        if query.clamped.is_empty() {
            for ((score, trained), bound) in prediction.scores.iter().zip(trained).zip(bounds) {
                assert!(
                    (score - trained).abs() <= bound + 1e-9,
                    "{score} {trained} {bound}"
                );
            }
        }
    }
    program
}

#[test]
fn linear_scores_agree() {
    for (features, outputs) in [(1, 1), (30, 1), (64, 10), (500, 3)] {
        let program = agree(&linear(features, outputs, 3), Options::default(), 20, 4);
        assert_eq!(program.explanation().plan, "linear");
        assert_eq!(program.explanation().key_bytes, 0);
    }
}

/// Regressions have one score, which is the answer, and no class.
#[test]
fn regressions_agree() {
    let shape = Shape {
        features: 5,
        bins: 16,
        trees: 20,
        depth: 3,
        outputs: 1,
        width: 1,
    };
    for model in [linear(13, 1, 23), ensemble(shape, 24), network(7, 4, 1, 25)] {
        let model = Model {
            link: Link::Identity,
            classes: vec![],
            ..model
        };
        let program = agree(&model, Options::default(), 3, 26);
        let made = program.clear(&vec![0.5; model.features.len()]).unwrap();
        assert!(made.class.is_none() && made.probabilities.is_empty() && made.scores.len() == 1);
    }
}

#[test]
fn every_set_of_pairs_agrees() {
    for (bins, id) in [
        (16, ParamsId::Pairs16),
        (22, ParamsId::Pairs22),
        (32, ParamsId::Pairs32),
        (45, ParamsId::Pairs45),
    ] {
        for (depth, outputs, width) in [(1, 1, 1), (2, 1, 1), (2, 3, 1), (2, 3, 3)] {
            let shape = Shape {
                features: 12,
                bins,
                trees: 30,
                depth,
                outputs,
                width,
            };
            let program = agree(&ensemble(shape, 5), Options::default(), 4, 6);
            assert_eq!(program.bundle().params_id(), id);
        }
    }
}

#[test]
fn paths_agree() {
    for (features, bins, trees, depth, outputs, width) in [
        (10, 256, 20, 3, 1, 1),
        (4, 2, 5, 4, 1, 1),
        (6, 1024, 3, 3, 1, 1),
        (20, 64, 12, 5, 3, 1),
        (9, 128, 6, 4, 3, 3),
        // More classes than places in a polynomial.
        (9, 256, 4, 3, 10, 10),
        (3, 256, 2, 8, 2, 2),
    ] {
        let shape = Shape {
            features,
            bins,
            trees,
            depth,
            outputs,
            width,
        };
        let options = Options {
            plan: Some(PlanKind::Paths),
            ..Options::default()
        };
        let program = agree(&ensemble(shape, 7), options, 3, 8);
        assert_eq!(program.explanation().plan, "paths");
        assert_eq!(
            program.explanation().key_bytes,
            crate::wire::evaluation_key_len(ParamsId::Paths)
        );
    }
}

/// Many trees with leaves that are small beside the sum of all: one ciphertext cannot tell such scores apart.
#[test]
fn scores_in_two_ciphertexts_agree() {
    for (bins, outputs, width) in [(16, 1, 1), (1024, 1, 1), (16, 3, 3)] {
        let shape = Shape {
            features: 6,
            bins,
            trees: 60,
            depth: 3,
            outputs,
            width,
        };
        let program = agree(&ensemble(shape, 21), Options::default(), 4, 22);
        let coding = program.bundle().scores()[0];
        assert!(coding.levels > 4 * coding.digit, "{coding:?}");
        let single = crate::wire::reply_len(program.bundle().params_id().params(), outputs);
        assert!(program.explanation().reply_bytes > single);
    }
}

proptest! {
    #[test]
    fn two_phases_with_noise_decode_to_their_integer(digit in 16u32..2000, share in 0.0f64..1.0, noise in prop::array::uniform2(-0.49f64..0.49)) {
        let levels = digit + (f64::from(digit) * f64::from(digit / 2 - 1) * share) as u32;
        prop_assume!(levels > digit);
        let coding = crate::bundle::ScoreCoding { offset: 0.0, unit: 1.0, levels, digit };
        let within = 2f64.powi(64) / f64::from(digit);
        for integer in [0, 1, -1, coding.limit(), -coding.limit(), coding.limit() / 3] {
            let deltas = coding.deltas();
            let phases: Vec<u64> = deltas
                .iter()
                .zip(noise)
                .map(|(delta, noise)| delta.wrapping_mul(integer as u64).wrapping_add((noise * within) as i64 as u64))
                .collect();
            prop_assert_eq!(coding.decode(&phases), integer);
        }
    }
}

#[test]
fn networks_agree() {
    for (features, units, outputs) in [(1, 1, 1), (30, 16, 1), (8, 5, 3), (20, 6, 10)] {
        let model = network(features, units, outputs, 12);
        let program = agree(&model, Options::default(), 4, 13);
        assert_eq!(program.explanation().plan, "neurons");
        assert_eq!(
            program.explanation().key_bytes,
            crate::wire::evaluation_key_len(ParamsId::Neurons)
        );
    }
}

/// Units that cannot be inactive within the ranges need no table, and those that cannot be active nothing at all.
#[test]
fn units_that_never_change_cost_no_gate() {
    let mut model = network(4, 3, 1, 14);
    let Body::Network(body) = &mut model.body else {
        panic!("a network")
    };
    body.hidden_bias = vec![1000.0, -1000.0, 0.0];
    let program = agree(&model, Options::default(), 4, 15);
    let reason = &program.explanation().candidates[3].reason;
    assert!(reason.contains("1 of 3 hidden units"), "{reason}");
}

#[test]
fn edges_that_no_tree_uses_can_be_dropped() {
    let shape = Shape {
        features: 12,
        bins: 300,
        trees: 20,
        depth: 2,
        outputs: 1,
        width: 1,
    };
    let model = ensemble(shape, 9);
    let all = agree(&model, Options::default(), 2, 10);
    assert_eq!(all.explanation().plan, "paths");
    let options = Options {
        used_edges_only: true,
        plan: None,
    };
    let used = agree(&model, options, 2, 10);
    assert_eq!(used.explanation().plan, "pairs");
    assert!(used.bundle().edges_are_thresholds() && !all.bundle().edges_are_thresholds());
}

#[test]
fn a_model_that_no_plan_serves_says_why_for_each() {
    let model = ensemble(
        Shape {
            features: 4,
            bins: 100,
            trees: 3,
            depth: 3,
            outputs: 1,
            width: 1,
        },
        1,
    );
    let options = Options {
        plan: Some(PlanKind::Pairs),
        ..Options::default()
    };
    let Err(error) = compile(&model, options) else {
        panic!("depth 3 is no pair")
    };
    let text = error.to_string();
    assert!(text.contains("depth 3") && text.contains("linear"), "{text}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn random_ensembles_agree_in_every_plan(
        features in 1usize..8, bins in 2usize..20, trees in 1usize..8, depth in 0usize..5,
        outputs in 1usize..4, wide in any::<bool>(), seed in any::<u64>(),
    ) {
        let width = if wide { outputs } else { 1 };
        let model = ensemble(Shape { features, bins, trees, depth, outputs, width }, seed);
        let plans: &[PlanKind] = if depth <= 2 { &[PlanKind::Pairs, PlanKind::Paths] } else { &[PlanKind::Paths] };
        for plan in plans {
            agree(&model, Options { plan: Some(*plan), used_edges_only: false }, 1, seed);
        }
    }

    #[test]
    fn random_networks_agree(features in 1usize..6, units in 1usize..6, outputs in 1usize..6, seed in any::<u64>()) {
        agree(&network(features, units, outputs, seed), Options::default(), 1, seed);
    }
}

//! The noise of each plan, measured over 200 evaluations and more, against its formula.

use super::*;
use crate::{
    compile::Options,
    noise,
    params::{ParamsId, PlanKind},
};

/// Standard deviation of the noise of scores, and the largest error, both in units of the torus.
fn measure(program: &Program, model: &Model, rows: usize) -> (f64, f64) {
    let (party, pool) = (Party::of(program), pool());
    let mut rng = rng(11);
    let mut errors = vec![];
    for _ in 0..rows {
        let row = row(model, &mut rng);
        let query = party.query(program, &row);
        let reply = party.answer(program, &query, &pool);
        let phases = client::phases(program.bundle(), &party.key, &query.digest, &reply).unwrap();
        let exact = program.clear_integers(&program.bundle().quantise(&row).unwrap());
        for ((phase, exact), coding) in phases.iter().zip(exact).zip(program.bundle().scores()) {
            let expected = coding.delta().wrapping_mul(exact as u64);
            errors.push(phase.wrapping_sub(expected) as i64 as f64 * (-64.0f64).exp2());
        }
    }
    let mean_square = errors.iter().map(|error| error * error).sum::<f64>() / errors.len() as f64;
    (
        mean_square.sqrt(),
        errors.iter().fold(0.0, |most, error| most.max(error.abs())),
    )
}

/// Measured against predicted, flooding included: not above by more than chance allows, and not so far below that the
/// formula would waste precision.
fn compare(program: &Program, model: &Model, rows: usize) {
    let explanation = program.explanation();
    let (measured, largest) = measure(program, model, rows);
    let distance = 1.0 / f64::from(explanation.levels);
    let flooding = (2.0 * noise::FLOOD * distance).powi(2) / 12.0;
    let predicted = (explanation.noise_log2.exp2().powi(2) + flooding).sqrt();
    let ratio = measured / predicted;
    assert!(ratio < 1.2, "measured {measured:e}, predicted {predicted:e}");
    assert!(ratio > 0.3, "measured {measured:e}, predicted {predicted:e}");
    assert!(largest < distance / 2.0, "{largest:e} of {distance:e}");
}

#[test]
fn linear() {
    let model = super::linear(30, 1, 1);
    compare(&program(&model), &model, 300);
}

#[test]
fn pairs() {
    for (bins, id) in [(16, ParamsId::Pairs16), (45, ParamsId::Pairs45)] {
        let shape = Shape {
            features: 20,
            bins,
            trees: 100,
            depth: 2,
            outputs: 1,
            width: 1,
        };
        let model = ensemble(shape, 2);
        let program = program(&model);
        assert_eq!(program.bundle().params_id(), id);
        compare(&program, &model, 300);
    }
}

#[test]
fn paths() {
    let shape = Shape {
        features: 8,
        bins: 256,
        trees: 10,
        depth: 3,
        outputs: 1,
        width: 1,
    };
    let model = ensemble(shape, 3);
    let options = Options {
        plan: Some(PlanKind::Paths),
        used_edges_only: false,
    };
    let program = compile(&model, options).unwrap();
    compare(&program, &model, 200);
}

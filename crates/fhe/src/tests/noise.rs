//! The noise of each plan, measured over 200 evaluations and more, against its formula.

use super::*;
use crate::{
    compile::Options,
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
        let expected = exact
            .iter()
            .zip(program.bundle().scores())
            .flat_map(|(exact, coding)| {
                let deltas = coding.deltas().into_iter();
                deltas.map(|delta| delta.wrapping_mul(*exact as u64))
            });
        for (phase, expected) in phases.iter().zip(expected) {
            errors.push(phase.wrapping_sub(expected) as i64 as f64 * (-64.0f64).exp2());
        }
    }
    let mean_square = errors.iter().map(|error| error * error).sum::<f64>() / errors.len() as f64;
    (
        mean_square.sqrt(),
        errors.iter().fold(0.0, |most, error| most.max(error.abs())),
    )
}

/// Measured against predicted, without flooding: not above by more than chance allows, and not so far below that the
/// formula would waste precision. And with flooding, which takes what is left, every score stays where it is.
fn compare(mut program: Program, model: &Model, rows: usize) {
    let (levels, predicted) = (
        program.bundle().scores()[0].digit,
        program.explanation().noise_log2.exp2(),
    );
    let flood = std::mem::take(&mut program.flood) as f64 * (-64.0f64).exp2();
    let (measured, _) = measure(&program, model, rows);
    let ratio = measured / predicted;
    assert!(
        (0.4..1.2).contains(&ratio),
        "measured {measured:e}, predicted {predicted:e}"
    );
    program.flood = (flood * 64f64.exp2()) as u64;
    let (flooded, largest) = measure(&program, model, 40);
    // Of few rows and another key: noise differs from key to key, flooding does not.
    let expected = (measured * measured + flood * flood / 3.0).sqrt();
    assert!(
        (0.5..1.6).contains(&(flooded / expected)),
        "{flooded:e}, {expected:e}"
    );
    let distance = 1.0 / f64::from(levels);
    assert!(largest < distance / 2.0, "{largest:e} of {distance:e}");
}

#[test]
fn linear() {
    let model = super::linear(30, 1, 1);
    compare(program(&model), &model, 300);
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
        compare(program, &model, 300);
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
    compare(program, &model, 200);
}

#[test]
fn neurons() {
    let model = network(10, 8, 1, 4);
    compare(program(&model), &model, 200);
}

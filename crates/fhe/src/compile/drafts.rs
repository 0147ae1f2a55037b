//! What each plan makes of a model, and what that costs.

use super::Explanation;
use crate::{
    FheError,
    bundle::{Bundle, Feature, FeatureCoding, ScoreCoding},
    model::{Body, Ensemble, Linear, Model, Network},
    noise,
    params::{ALL, Params, ParamsId, PlanKind},
    quantised::{self, NetworkDraft, Quantised},
    server::{LinearProgram, NeuronsProgram, PairsProgram, PathsProgram, Program, ProgramBody},
};

/// A plan that can serve a model.
pub(super) struct Draft {
    pub(super) params: &'static Params,
    pub(super) cost_us: f64,
    pub(super) reason: String,
    pub(super) products: usize,
    /// Of a score's noise, without what a reply adds.
    pub(super) variance: f64,
    /// By output: largest difference to the trained model's score, for rows within its ranges.
    pub(super) error: Vec<f64>,
    pub(super) program: Program,
}

/// The model under a plan.
///
/// # Errors
/// [`FheError::NoPlan`] and [`FheError::BadModel`], with the reason.
pub(super) fn draft(model: &Model, plan: PlanKind) -> Result<Draft, FheError> {
    match (plan, &model.body) {
        (PlanKind::Linear, Body::Linear(_)) => linear(model),
        (PlanKind::Linear, Body::Ensemble(_)) => {
            Err(FheError::NoPlan("trees are not linear in the features".into()))
        }
        (PlanKind::Neurons, Body::Network(network)) => neurons(model, network),
        (PlanKind::Neurons, _) => Err(FheError::NoPlan("the model has no hidden units".into())),
        (_, Body::Network(_)) => Err(FheError::NoPlan(
            "the model has hidden units; `neurons` serves them".into(),
        )),
        (_, Body::Linear(_)) => Err(FheError::NoPlan(
            "the model has no trees; `linear` serves it".into(),
        )),
        (PlanKind::Pairs, Body::Ensemble(ensemble)) => pairs(model, ensemble),
        (PlanKind::Paths, Body::Ensemble(ensemble)) => paths(model, ensemble),
    }
}

/// Scores of trees and networks need no more levels: finer ones would change fewer than one class in thousands.
const ENOUGH: u32 = 1 << 12;
/// The most that rounding leaves may add to scores, in deviations of these, for one ciphertext to hold a score.
const MOST_ROUNDING: f64 = 0.1;
/// The weights of a linear model share the levels, and each multiplies [`quantised::STEPS`] of them.
const ENOUGH_FOR_WEIGHT: u32 = 1 << 17;

/// Levels for a score in noise of this variance, along with what a reply adds.
fn levels(params: &Params, variance: f64, enough: u32) -> Result<u32, FheError> {
    let levels = noise::levels(variance + noise::reply(params), enough);
    if levels < 15 {
        return Err(FheError::NoPlan(format!(
            "the noise of so much work leaves {levels} scores that can be told apart; fewer or shallower trees would do"
        )));
    }
    Ok(levels)
}

fn bundle(model: &Model, params: &Params, codings: Vec<FeatureCoding>, scores: Vec<ScoreCoding>) -> Bundle {
    let mut features: Vec<Feature> = model
        .features
        .iter()
        .map(|name| Feature {
            name: name.clone(),
            codings: vec![],
        })
        .collect();
    for (code, coding) in codings.into_iter().enumerate() {
        let feature = match &model.body {
            Body::Ensemble(ensemble) => ensemble.codes[code],
            Body::Linear(_) | Body::Network(_) => code,
        };
        features[feature].codings.push(coding);
    }
    Bundle::new(
        params.id,
        features,
        model.classes.clone(),
        model.link,
        scores,
        false,
    )
}

fn linear(model: &Model) -> Result<Draft, FheError> {
    let Body::Linear(body) = &model.body else {
        return Err(FheError::NoPlan("the model is not linear".into()));
    };
    let params = ParamsId::Linear.params();
    // Noise depends on the weights, and these on the levels: once more with fewer levels when the first guess was too fine.
    let enough = ENOUGH_FOR_WEIGHT * body.ranges.len().clamp(8, 512) as u32;
    let mut wanted = enough;
    let (weights, scores, variance) = loop {
        let (weights, scores) = quantised::quantise_weights(body, wanted)?;
        let norm = weights
            .iter()
            .map(|weights| weights.iter().map(|w| (*w as f64).powi(2)).sum::<f64>())
            .fold(0.0, f64::max);
        let variance = noise::linear(params, norm);
        let possible = levels(params, variance, enough)?;
        if possible >= wanted {
            break (weights, scores, variance);
        }
        wanted = possible.min(wanted - wanted / 8);
    };
    let codings = steps_coding(&body.ranges, &body.missing, quantised::STEPS);
    let bundle = bundle(model, params, codings, scores);
    let program = LinearProgram::new(params, &weights);
    let products = weights.len();
    Ok(Draft {
        params,
        cost_us: products as f64 * product_us(params, 0, 0),
        reason: format!("{products} plaintext products"),
        products,
        variance,
        error: error_of_weights(body, &bundle.scores),
        program: unfinished(bundle, Quantised::Linear(weights), ProgramBody::Linear(program)),
    })
}

fn steps_coding(ranges: &[(f64, f64)], missing: &[f64], limit: i32) -> Vec<FeatureCoding> {
    let steps = quantised::steps(ranges, limit);
    let features = steps.into_iter().zip(missing);
    features
        .map(|((middle, step), missing)| FeatureCoding::Steps {
            middle,
            step,
            limit,
            missing: *missing,
        })
        .collect()
}

fn bins_coding(ensemble: &Ensemble) -> Vec<FeatureCoding> {
    let features = ensemble.edges.iter().zip(&ensemble.missing);
    features
        .map(|(edges, missing)| FeatureCoding::Bins {
            edges: edges.clone(),
            single_precision: ensemble.single_precision,
            missing: *missing,
        })
        .collect()
}

fn pairs(model: &Model, ensemble: &Ensemble) -> Result<Draft, FheError> {
    let depth = ensemble
        .trees
        .iter()
        .map(crate::model::Tree::depth)
        .max()
        .unwrap_or(0);
    if depth > 2 {
        return Err(FheError::NoPlan(format!(
            "a tree has depth {depth}, and tables over pairs serve 2"
        )));
    }
    let bins = ensemble
        .edges
        .iter()
        .map(|edges| edges.len() + 1)
        .max()
        .unwrap_or(1);
    let sets = ALL.iter().filter(|params| params.kind == PlanKind::Pairs);
    let Some(params) = sets
        .filter(|params| params.pair_bins() >= bins)
        .min_by_key(|params| params.shape.n)
    else {
        return Err(FheError::NoPlan(format!(
            "a feature has {bins} bins, and tables over pairs serve 45: train with fewer, or keep used edges only"
        )));
    };
    let outputs = ensemble.base.len();
    // At first as if every feature of every output had its product; the tables' norm is known once they are made.
    let mut variance = noise::pairs(params, ensemble.edges.len(), 0.0);
    let mut wanted = levels(params, variance, ENOUGH)?;
    let (trees, scores, tables) = loop {
        let (trees, scores) = quantised::quantise_trees(ensemble, wanted, wanted)?;
        let tables = crate::server::tables(&trees, outputs, params.pair_bins());
        let of_output =
            |tables: &crate::server::Tables| noise::pairs(params, tables.products(), tables.norm());
        variance = tables.iter().map(of_output).fold(0.0, f64::max);
        let possible = levels(params, variance, ENOUGH)?;
        if possible >= wanted {
            break (trees, scores, tables);
        }
        wanted = possible.min(wanted - wanted / 8);
    };
    let products: usize = tables.iter().map(crate::server::Tables::products).sum();
    let table_count: usize = tables.iter().map(|tables| tables.pairs.len()).sum();
    let bundle = bundle(model, params, bins_coding(ensemble), scores);
    let program = PairsProgram::new(params, ensemble.codes.len(), &tables, bundle.scores[0].delta());
    let (k, half) = (params.shape.k as f64, params.shape.half() as f64);
    let ingest = ensemble.codes.len() as f64 * (k + 1.0) * (k + 2.0) * transform_us(params);
    let tables_us = table_count as f64 * (k + 1.0) * half * POINT_US;
    Ok(Draft {
        params,
        cost_us: ingest
            + tables_us
            + products as f64
                * (product_us(params, params.shape.k + 1, 1) + (k + 1.0) * transform_us(params)),
        reason: format!("{products} external products of {table_count} tables over pairs of features"),
        products,
        variance,
        error: error_of_leaves(ensemble, &bundle.scores),
        program: unfinished(bundle, Quantised::Trees(trees), ProgramBody::Pairs(program)),
    })
}

fn paths(model: &Model, ensemble: &Ensemble) -> Result<Draft, FheError> {
    let params = ParamsId::Paths.params();
    let outputs = ensemble.base.len();
    let bins: Vec<usize> = ensemble.edges.iter().map(|edges| edges.len() + 1).collect();
    // The longest way does not depend on how scores are coded.
    let (trees, _) = quantised::quantise_trees(ensemble, ENOUGH, ENOUGH)?;
    let once = PathsProgram::new(params, &bins, &trees, outputs, &[1]).work;
    let chain = once.chain.iter().copied().max().unwrap_or(0);
    let variance = chain as f64 * noise::cmux(params);
    let digit = levels(params, variance, ENOUGH)?;
    let (mut trees, mut scores) = quantised::quantise_trees(ensemble, digit, digit)?;
    let rounding = quantised::rounding_of_leaves(ensemble, &scores);
    if rounding > MOST_ROUNDING {
        // Below the square of the digit the first ciphertext says which of the integers it is; half of it leaves a margin.
        // A digit no larger than that takes leaves the rest to flooding.
        let digit = digit.min((2 * ENOUGH).isqrt() + 1);
        let total = ENOUGH.min(digit * digit / 2).max(digit);
        (trees, scores) = quantised::quantise_trees(ensemble, total, digit)?;
    }
    let bundle = bundle(model, params, bins_coding(ensemble), scores);
    let program = PathsProgram::new(params, &bins, &trees, outputs, &bundle.scores[0].deltas());
    let work = program.work.clone();
    Ok(Draft {
        params,
        cost_us: bits_us(params, work.expansions, work.conversions) + work.gates as f64 * gate_us(params),
        reason: format!(
            "{} key switches to unpack bits, {} to make selectors of them, {} CMUX gates",
            work.expansions, work.conversions, work.gates
        ),
        products: work.expansions + work.conversions + work.gates,
        variance,
        error: error_of_leaves(ensemble, &bundle.scores),
        program: unfinished(bundle, Quantised::Trees(trees), ProgramBody::Paths(program)),
    })
}

fn neurons(model: &Model, network: &Network) -> Result<Draft, FheError> {
    let params = ParamsId::Neurons.params();
    let draft = NetworkDraft::new(network, params.shape.n);
    let (gates, linear) = draft.gates();
    let variance = noise::neurons(params, gates, linear);
    let (quantised, scores) = draft.quantise(levels(params, variance, ENOUGH)?)?;
    let codings = steps_coding(&network.ranges, &network.missing, quantised::STEPS_OF_NETWORKS);
    let error = draft.error(&scores);
    let bundle = bundle(model, params, codings, scores);
    let program = NeuronsProgram::new(params, &quantised, bundle.scores[0].delta());
    let work = program.work.clone();
    let one_polynomial = product_us(params, 1, params.ggsw.levels);
    Ok(Draft {
        params,
        cost_us: bits_us(params, work.expansions, work.conversions)
            + work.gates as f64 * gate_us(params)
            + work.linear as f64 * one_polynomial,
        reason: format!(
            "{} key switches to unpack bits, {} to make selectors of them, {} CMUX gates for {} of {} hidden units, {} \
             products for what is linear",
            work.expansions,
            work.conversions,
            work.gates,
            quantised.units.len(),
            network.hidden.len(),
            work.linear
        ),
        products: work.expansions + work.conversions + work.gates,
        variance,
        error,
        program: unfinished(
            bundle,
            Quantised::Network(quantised),
            ProgramBody::Neurons(program),
        ),
    })
}

/// Microseconds of a transform of one coefficient per doubling, and of one product in the Fourier domain: as measured on a
/// server of 2025 with AVX-512. They only weigh plans against each other.
const BUTTERFLY_US: f64 = 1.1e-4;
const POINT_US: f64 = 4e-4;

fn transform_us(params: &Params) -> f64 {
    let n = params.shape.n as f64;
    n * n.log2() * BUTTERFLY_US
}

/// Estimated microseconds of a gadget product.
fn product_us(params: &Params, inputs: usize, levels: u32) -> f64 {
    let (k, half) = (params.shape.k as f64, params.shape.half() as f64);
    let terms = inputs as f64 * f64::from(levels.max(1));
    (terms + k + 1.0) * transform_us(params) + terms * (k + 1.0) * half * POINT_US
}

fn gate_us(params: &Params) -> f64 {
    product_us(params, params.shape.k + 1, params.ggsw.levels)
}

/// Of making selectors.
fn bits_us(params: &Params, expansions: usize, conversions: usize) -> f64 {
    let switch = product_us(params, params.shape.k, params.switch.levels);
    expansions as f64 * switch + conversions as f64 * 1.5 * switch
}

/// Rounding of leaves: the most that it can amount to, by output.
fn error_of_leaves(ensemble: &Ensemble, scores: &[ScoreCoding]) -> Vec<f64> {
    scores
        .iter()
        .enumerate()
        .map(|(output, score)| {
            let trees = ensemble.trees.iter();
            let touching = trees.filter(|tree| (tree.output..tree.output + tree.width()).contains(&output));
            touching.count() as f64 * score.unit / 2.0
        })
        .collect()
}

/// Rounding of weights and values: the most that it can amount to for rows within the ranges, by output.
fn error_of_weights(linear: &Linear, scores: &[ScoreCoding]) -> Vec<f64> {
    let steps = quantised::steps(&linear.ranges, quantised::STEPS);
    scores
        .iter()
        .zip(&linear.weights)
        .map(|(score, weights)| {
            let values: f64 = weights
                .iter()
                .zip(&steps)
                .map(|(w, (_, step))| (w * step).abs() / 2.0)
                .sum();
            values + weights.len() as f64 * score.unit / 2.0 * f64::from(quantised::STEPS)
        })
        .collect()
}

fn unfinished(bundle: Bundle, quantised: Quantised, body: ProgramBody) -> Program {
    let explanation = Explanation {
        plan: String::new(),
        params: String::new(),
        candidates: vec![],
        query_bytes: 0,
        reply_bytes: 0,
        key_bytes: 0,
        products: 0,
        noise_log2: 0.0,
        levels: 0,
        failure_log2: 0.0,
        units: vec![],
        quantisation_error: vec![],
        residual_leak: 0.0,
        edges_are_thresholds: false,
    };
    Program {
        bundle,
        quantised,
        body,
        explanation,
        flood: 0,
    }
}

//! From a trained model to a program: which plan serves it, at what cost, and why.

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::{
    FheError,
    bundle::{Bundle, Feature, FeatureCoding, ScoreCoding},
    model::{Body, Ensemble, Model, Node},
    noise,
    params::{ALL, Params, ParamsId, PlanKind},
    quantised::{self, Quantised},
    server::{LinearProgram, PairsProgram, PathsProgram, Program, ProgramBody},
    wire,
};

/// What may be chosen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Options {
    /// This plan and no other.
    pub plan: Option<PlanKind>,
    /// Keep only the bin edges that some tree splits on: faster, and clients learn which values the model splits on.
    pub used_edges_only: bool,
}

/// Why a program is as it is, and what it costs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Explanation {
    /// The plan that was chosen.
    pub plan: String,
    /// Its parameter set.
    pub params: String,
    /// Every plan, and what spoke for or against it.
    pub candidates: Vec<Candidate>,
    /// Bytes of a query, a reply, and an evaluation key (0: none needed).
    pub query_bytes: usize,
    /// Bytes of a reply.
    pub reply_bytes: usize,
    /// Bytes of an evaluation key; 0 when none is needed.
    pub key_bytes: usize,
    /// Products of an evaluation: external products, key switches and CMUX gates together, or plaintext products.
    pub products: usize,
    /// log2 of the predicted standard deviation of a score's noise, the whole torus being 1.
    pub noise_log2: f64,
    /// Integers by which scores are told apart.
    pub levels: u32,
    /// Largest difference between an encrypted and a clear score of the quantised model: 0, since scores are decoded exactly but
    /// with this probability of a wrong one.
    pub failure_log2: f64,
    /// By output: score between neighbouring integers.
    pub units: Vec<f64>,
    /// By output: largest difference between the quantised model's score and the trained one's, for rows within its ranges.
    pub quantisation_error: Vec<f64>,
    /// Statistical distance that re-randomising and flooding leave between replies whose noise differs: how much a reply may
    /// tell about the model beyond its score.
    pub residual_leak: f64,
    /// Whether clients learn the values that the model splits on.
    pub edges_are_thresholds: bool,
}

/// A plan, and what spoke for or against it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Candidate {
    /// Its name.
    pub plan: String,
    /// Estimated microseconds of one thread, when it can serve the model.
    pub cost_us: Option<f64>,
    /// Why it cannot, or what its cost consists of.
    pub reason: String,
}

/// A plan that can serve a model.
struct Draft {
    params: &'static Params,
    cost_us: f64,
    reason: String,
    products: usize,
    variance: f64,
    program: Program,
}

/// Compiles a model.
///
/// # Errors
/// [`FheError::BadModel`]; [`FheError::NoPlan`] with a reason for each plan.
pub fn compile(model: &Model, options: Options) -> Result<Program, FheError> {
    model.check()?;
    let mut model = model.clone();
    if let Body::Ensemble(ensemble) = &mut model.body
        && options.used_edges_only
    {
        keep_used_edges(ensemble);
    }
    let mut candidates = vec![];
    let mut best: Option<Draft> = None;
    for plan in [PlanKind::Linear, PlanKind::Pairs, PlanKind::Paths] {
        let drafted = match options.plan {
            Some(only) if only != plan => Err(FheError::NoPlan("another plan was asked for".into())),
            _ => draft(&model, plan),
        };
        match drafted {
            Ok(draft) => {
                candidates.push(Candidate {
                    plan: plan.name().into(),
                    cost_us: Some(draft.cost_us),
                    reason: draft.reason.clone(),
                });
                if best.as_ref().is_none_or(|best| draft.cost_us < best.cost_us) {
                    best = Some(draft);
                }
            }
            Err(error) => candidates.push(Candidate {
                plan: plan.name().into(),
                cost_us: None,
                reason: match error {
                    FheError::NoPlan(reason) | FheError::BadModel(reason) => reason,
                    other => other.to_string(),
                },
            }),
        }
    }
    let Some(draft) = best else {
        let reasons: Vec<String> = candidates
            .iter()
            .map(|candidate| format!("{}: {}", candidate.plan, candidate.reason))
            .collect();
        return Err(FheError::NoPlan(reasons.join("; ")));
    };
    Ok(finish(draft, candidates, &model, options))
}

fn draft(model: &Model, plan: PlanKind) -> Result<Draft, FheError> {
    match (plan, &model.body) {
        (PlanKind::Linear, Body::Linear(_)) => linear(model),
        (PlanKind::Linear, Body::Ensemble(_)) => {
            Err(FheError::NoPlan("trees are not linear in the features".into()))
        }
        (_, Body::Network(_)) => Err(FheError::NoPlan("networks are not served yet".into())),
        (_, Body::Linear(_)) => Err(FheError::NoPlan(
            "the model has no trees; `linear` serves it".into(),
        )),
        (PlanKind::Pairs, Body::Ensemble(ensemble)) => pairs(model, ensemble),
        (PlanKind::Paths, Body::Ensemble(ensemble)) => paths(model, ensemble),
    }
}

/// Levels for a score in noise of this variance, along with what a reply adds.
fn levels(params: &Params, variance: f64) -> Result<u32, FheError> {
    let levels = noise::levels(variance + noise::reply(params));
    if levels < 15 {
        return Err(FheError::NoPlan(format!(
            "the noise of so much work leaves {levels} scores that can be told apart; fewer or shallower trees would do"
        )));
    }
    Ok(levels)
}

fn bundle(model: &Model, params: &Params, codings: Vec<FeatureCoding>, scores: Vec<ScoreCoding>) -> Bundle {
    let features = model.features.iter().zip(codings);
    let features = features.map(|(name, coding)| Feature {
        name: name.clone(),
        coding,
    });
    Bundle::new(
        params.id,
        features.collect(),
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
    let mut wanted = noise::levels(0.0);
    let (weights, scores, variance) = loop {
        let (weights, scores) = quantised::quantise_weights(body, wanted)?;
        let norm = weights
            .iter()
            .map(|weights| weights.iter().map(|w| (*w as f64).powi(2)).sum::<f64>())
            .fold(0.0, f64::max);
        let variance = noise::linear(params, norm);
        let possible = levels(params, variance)?;
        if possible >= wanted {
            break (weights, scores, variance);
        }
        wanted = possible.min(wanted - wanted / 8);
    };
    let steps = quantised::steps(body);
    let codings = steps
        .iter()
        .zip(&body.missing)
        .map(|((middle, step), missing)| FeatureCoding::Steps {
            middle: *middle,
            step: *step,
            limit: quantised::STEPS,
            missing: *missing,
        });
    let bundle = bundle(model, params, codings.collect(), scores);
    let program = LinearProgram::new(params, &weights);
    let products = weights.len();
    Ok(Draft {
        params,
        cost_us: products as f64 * product_us(params, 0, 0),
        reason: format!("{products} plaintext products"),
        products,
        variance,
        program: unfinished(bundle, Quantised::Linear(weights), ProgramBody::Linear(program)),
    })
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
    let mut wanted = levels(params, variance)?;
    let (trees, scores, tables) = loop {
        let (trees, scores) = quantised::quantise_trees(ensemble, wanted)?;
        let tables = crate::server::tables(&trees, outputs, params.pair_bins());
        let of_output =
            |tables: &crate::server::Tables| noise::pairs(params, tables.products(), tables.norm());
        variance = tables.iter().map(of_output).fold(0.0, f64::max);
        let possible = levels(params, variance)?;
        if possible >= wanted {
            break (trees, scores, tables);
        }
        wanted = possible.min(wanted - wanted / 8);
    };
    let products: usize = tables.iter().map(crate::server::Tables::products).sum();
    let table_count: usize = tables.iter().map(|tables| tables.pairs.len()).sum();
    let bundle = bundle(model, params, bins_coding(ensemble), scores);
    let program = PairsProgram::new(params, model.features.len(), &tables, bundle.scores[0].delta());
    let (k, half) = (params.shape.k as f64, params.shape.half() as f64);
    let ingest = model.features.len() as f64 * (k + 1.0) * (k + 2.0) * transform_us(params);
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
        program: unfinished(bundle, Quantised::Trees(trees), ProgramBody::Pairs(program)),
    })
}

fn paths(model: &Model, ensemble: &Ensemble) -> Result<Draft, FheError> {
    let params = ParamsId::Paths.params();
    let outputs = ensemble.base.len();
    let bins: Vec<usize> = ensemble.edges.iter().map(|edges| edges.len() + 1).collect();
    // The work does not depend on how scores are coded.
    let (trees, _) = quantised::quantise_trees(ensemble, noise::levels(0.0))?;
    let work = PathsProgram::new(params, &bins, &trees, outputs, 1).work;
    let chain = work.chain.iter().copied().max().unwrap_or(0);
    let variance = chain as f64 * noise::cmux(params);
    let (trees, scores) = quantised::quantise_trees(ensemble, levels(params, variance)?)?;
    let bundle = bundle(model, params, bins_coding(ensemble), scores);
    let program = PathsProgram::new(params, &bins, &trees, outputs, bundle.scores[0].delta());
    let switches = work.expansions as f64 * product_us(params, params.shape.k, params.switch.levels)
        + work.conversions as f64 * 1.5 * product_us(params, params.shape.k, params.switch.levels);
    let gates = work.gates as f64 * product_us(params, params.shape.k + 1, params.ggsw.levels);
    Ok(Draft {
        params,
        cost_us: switches + gates,
        reason: format!(
            "{} key switches to unpack bits, {} to make selectors of them, {} CMUX gates",
            work.expansions, work.conversions, work.gates
        ),
        products: work.expansions + work.conversions + work.gates,
        variance,
        program: unfinished(bundle, Quantised::Trees(trees), ProgramBody::Paths(program)),
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
    }
}

fn finish(draft: Draft, candidates: Vec<Candidate>, model: &Model, options: Options) -> Program {
    let Draft {
        params,
        products,
        variance,
        mut program,
        ..
    } = draft;
    let bins = |bundle: &Bundle| {
        bundle
            .features
            .iter()
            .map(|feature| feature.coding.bins())
            .collect::<Vec<_>>()
    };
    let edges_are_thresholds = matches!(&model.body, Body::Ensemble(ensemble)
        if options.used_edges_only || every_edge_is_used(ensemble));
    program.bundle = Bundle::new(
        params.id,
        program.bundle.features,
        program.bundle.classes,
        program.bundle.link,
        program.bundle.scores,
        edges_are_thresholds,
    );
    program.bundle.model = digest(&program.bundle, &program.quantised);
    let variance = variance + noise::reply(params);
    let levels = program.bundle.scores[0].levels;
    program.explanation = Explanation {
        plan: params.kind.name().into(),
        params: params.id.name().into(),
        candidates,
        query_bytes: wire::query_len(params, bins(&program.bundle).into_iter()),
        reply_bytes: wire::reply_len(params, program.bundle.scores.len()),
        key_bytes: wire::evaluation_key_len(params.id),
        products,
        noise_log2: variance.sqrt().log2(),
        levels,
        failure_log2: failure_log2(variance, levels),
        units: program.bundle.scores.iter().map(|score| score.unit).collect(),
        quantisation_error: quantisation_error(model, &program),
        residual_leak: noise::residual_leak(variance, levels),
        edges_are_thresholds,
    };
    program
}

/// log2 of the probability that noise carries a score over half of the distance to the next: the tail of a normal
/// distribution, by its usual bound.
fn failure_log2(variance: f64, levels: u32) -> f64 {
    let x = (0.5 - noise::FLOOD) / f64::from(levels) / variance.sqrt();
    (-x * x / 2.0) * std::f64::consts::LOG2_E - (x * (std::f64::consts::PI / 2.0).sqrt()).log2()
}

/// Rounding of leaves, or of weights and values: the most that it can amount to.
fn quantisation_error(model: &Model, program: &Program) -> Vec<f64> {
    let units = program.bundle.scores.iter().map(|score| score.unit);
    match &model.body {
        Body::Ensemble(ensemble) => units
            .enumerate()
            .map(|(output, unit)| {
                let trees = ensemble.trees.iter();
                let touching =
                    trees.filter(|tree| (tree.output..tree.output + tree.width()).contains(&output));
                touching.count() as f64 * unit / 2.0
            })
            .collect(),
        Body::Network(_) => vec![],
        Body::Linear(linear) => {
            let steps = quantised::steps(linear);
            units
                .zip(&linear.weights)
                .map(|(unit, weights)| {
                    let values: f64 = weights
                        .iter()
                        .zip(&steps)
                        .map(|(w, (_, step))| (w * step).abs() / 2.0)
                        .sum();
                    values + weights.len() as f64 * unit / 2.0 * f64::from(quantised::STEPS)
                })
                .collect()
        }
    }
}

fn digest(bundle: &Bundle, quantised: &Quantised) -> [u8; 32] {
    let mut hash = Sha256::new();
    let bundle = bundle.to_bytes();
    hash.update(b"asterism compiled model v1");
    hash.update((bundle.len() as u64).to_le_bytes());
    hash.update(&bundle);
    hash.update(serde_json::to_vec(quantised).expect("integers in vectors serialise"));
    hash.finalize().into()
}

fn used_edges(ensemble: &Ensemble) -> Vec<Vec<bool>> {
    let mut used: Vec<Vec<bool>> = ensemble
        .edges
        .iter()
        .map(|edges| vec![false; edges.len()])
        .collect();
    for node in ensemble.trees.iter().flat_map(|tree| &tree.nodes) {
        if let Node::Split { feature, edge, .. } = node {
            used[*feature][*edge] = true;
        }
    }
    used
}

fn every_edge_is_used(ensemble: &Ensemble) -> bool {
    used_edges(ensemble).iter().flatten().all(|used| *used)
}

fn keep_used_edges(ensemble: &mut Ensemble) {
    let used = used_edges(ensemble);
    for (edges, used) in ensemble.edges.iter_mut().zip(&used) {
        let mut kept = used.iter();
        edges.retain(|_| kept.next().copied().unwrap_or(true));
    }
    for tree in &mut ensemble.trees {
        for node in &mut tree.nodes {
            if let Node::Split { feature, edge, .. } = node {
                *edge = used[*feature][..*edge].iter().filter(|used| **used).count();
            }
        }
    }
}

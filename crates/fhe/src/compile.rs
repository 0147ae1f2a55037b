//! From a trained model to a program: which plan serves it, at what cost, and why.

mod drafts;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use self::drafts::{Draft, draft};
use crate::{
    FheError,
    bundle::{Bundle, ScoreCoding},
    model::{Body, Ensemble, Model, Node},
    noise,
    params::PlanKind,
    quantised::Quantised,
    server::Program,
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
    for plan in PlanKind::ALL {
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

fn finish(draft: Draft, candidates: Vec<Candidate>, model: &Model, options: Options) -> Program {
    let Draft {
        params,
        products,
        variance,
        error,
        mut program,
        ..
    } = draft;
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
    let ScoreCoding { levels, digit, .. } = program.bundle.scores[0];
    program.flood = (noise::flood(variance, digit) * 64f64.exp2()) as u64;
    program.explanation = Explanation {
        plan: params.kind.name().into(),
        params: params.id.name().into(),
        candidates,
        query_bytes: program.query_bytes(),
        reply_bytes: program.reply_bytes(),
        key_bytes: wire::evaluation_key_len(params.id),
        products,
        noise_log2: variance.sqrt().log2(),
        levels,
        failure_log2: noise::failure_log2(),
        units: program.bundle.scores.iter().map(|score| score.unit).collect(),
        quantisation_error: error,
        residual_leak: noise::residual_leak(variance, digit),
        edges_are_thresholds,
    };
    program
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

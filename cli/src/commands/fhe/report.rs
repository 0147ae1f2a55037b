//! How a compiled model is served, at what cost, and why: for people and for machines.

use asterism_client::proto::inference::CompiledModel;
use asterism_fhe::compile::Explanation;
use serde_json::{Value, json};

use crate::output::{self, Output};

/// Of a program of this process, with more to say.
pub(super) fn explanation(explanation: &Explanation, more: &[(&str, String)], value: Value, output: Output) {
    let mut facts = vec![
        ("plan", format!("{} ({})", explanation.plan, explanation.params)),
        ("query", output::bytes(explanation.query_bytes as u64)),
        ("reply", output::bytes(explanation.reply_bytes as u64)),
        ("evaluation key", key(explanation.key_bytes as u64)),
        ("products", explanation.products.to_string()),
        ("wrong score", wrong_score(explanation.failure_log2)),
        ("precision", precision(explanation.units.iter().copied())),
        ("replies leak", leak(explanation.residual_leak)),
        ("clients learn", learnt(explanation.edges_are_thresholds)),
    ];
    facts.extend(explanation.candidates.iter().map(|plan| {
        let text = candidate(&plan.plan, plan.cost_us, &plan.reason);
        ("candidate", text)
    }));
    facts.extend_from_slice(more);
    output.facts(&facts, &both(json!(explanation), value));
}

/// Of a model that the service compiled, with more to say.
pub(super) fn compiled(model: &CompiledModel, more: &[(&str, String)], said: Value, output: Output) {
    let plan = plan_name(model.plan);
    let floor_ms = model.products as f64 * model.product_us / 1e3;
    let mut facts = vec![
        ("model", model.name.clone()),
        ("plan", format!("{plan} ({})", model.params)),
        ("query", output::bytes(model.query_bytes)),
        ("reply", output::bytes(model.reply_bytes)),
        ("evaluation key", key(model.evaluation_key_bytes)),
        (
            "products",
            format!("{}: {floor_ms:.2} ms of a thread", model.products),
        ),
        ("wrong score", wrong_score(model.failure_log2)),
        (
            "precision",
            precision(model.scores.iter().map(|score| score.unit)),
        ),
        ("replies leak", leak(model.residual_leak)),
        ("clients learn", learnt(model.edges_are_thresholds)),
    ];
    if let Some(us) = model.measured_us {
        facts.push(("measured", format!("{:.2} ms a row", us / 1e3)));
    }
    facts.extend(model.candidates.iter().map(|plan| {
        let text = candidate(plan_name(plan.plan), plan.estimated_us, &plan.reason);
        ("candidate", text)
    }));
    facts.extend_from_slice(more);
    output.facts(&facts, &both(value(model), said));
}

/// The members of two objects.
fn both(mut all: Value, more: Value) -> Value {
    if let (Some(all), Value::Object(more)) = (all.as_object_mut(), more) {
        all.extend(more);
    }
    all
}

fn value(model: &CompiledModel) -> Value {
    let candidates: Vec<_> = model
        .candidates
        .iter()
        .map(|plan| json!({ "plan": plan_name(plan.plan), "cost_us": plan.estimated_us, "reason": plan.reason }))
        .collect();
    let scores: Vec<_> = model
        .scores
        .iter()
        .map(|score| {
            json!({
                "offset": score.offset, "unit": score.unit, "levels": score.levels,
                "quantisation_error": score.quantisation_error,
            })
        })
        .collect();
    json!({
        "model": model.name, "compiled_sha256": hex::encode(&model.compiled_sha256), "plan": plan_name(model.plan),
        "params": model.params, "candidates": candidates, "query_bytes": model.query_bytes,
        "reply_bytes": model.reply_bytes, "key_bytes": model.evaluation_key_bytes, "products": model.products,
        "product_us": model.product_us, "measured_us": model.measured_us, "noise_log2": model.noise_log2,
        "failure_log2": model.failure_log2, "residual_leak": model.residual_leak,
        "edges_are_thresholds": model.edges_are_thresholds, "scores": scores,
    })
}

/// `linear` for `PLAN_LINEAR`.
fn plan_name(plan: i32) -> &'static str {
    use asterism_client::proto::inference::Plan;
    match Plan::try_from(plan) {
        Ok(Plan::Linear) => "linear",
        Ok(Plan::Pairs) => "pairs",
        Ok(Plan::Paths) => "paths",
        Ok(Plan::Neurons) => "neurons",
        Ok(Plan::Unspecified) | Err(_) => "unknown",
    }
}

fn key(bytes: u64) -> String {
    match bytes {
        0 => "none".into(),
        bytes => output::bytes(bytes),
    }
}

fn wrong_score(failure_log2: f64) -> String {
    format!("with a probability of 2^{failure_log2:.0}")
}

/// Half of the distance between scores that are told apart.
fn precision(units: impl Iterator<Item = f64>) -> String {
    format!("scores to {:.2e}", units.fold(0.0, f64::max) / 2.0)
}

fn leak(distance: f64) -> String {
    format!("at most {distance:.1e} (statistical distance) by their noise, beyond the scores")
}

fn learnt(thresholds: bool) -> String {
    if thresholds {
        "the values that the model splits on".into()
    } else {
        "bin edges or ranges of the training rows".into()
    }
}

fn candidate(plan: &str, cost_us: Option<f64>, reason: &str) -> String {
    let cost = cost_us.map_or_else(
        || "no".into(),
        |us| format!("about {:.1} ms of a thread", us / 1e3),
    );
    format!("{plan}: {cost}; {reason}")
}

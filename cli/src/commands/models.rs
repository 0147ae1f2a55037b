//! `asterism models`

use std::{collections::HashMap, path::Path};

use asterism_client::proto::inference::{Algorithm, Evaluation, Model, TrainRequest};
use serde_json::{Value, json};

use crate::{
    args::{AlgorithmKind, ModelsCommand, TrainArgs},
    connect::Services,
    error::CliError,
    output::{Output, time},
    plot,
};

/// Runs a `models` command.
pub async fn run(command: ModelsCommand, services: &Services, output: Output) -> Result<(), CliError> {
    let inference = &services.inference;
    match command {
        ModelsCommand::Train(args) => show(&train(args, services, output).await?, output),
        ModelsCommand::List => {
            let (mut rows, mut token) = (Vec::new(), String::new());
            loop {
                let (page, next) = inference.list(1000, &token).await?;
                rows.extend(page.iter().map(row));
                if next.is_empty() {
                    break;
                }
                token = next;
            }
            output.rows(
                ["model", "name", "algorithm", "label", "accuracy", "created"],
                &rows,
            );
        }
        ModelsCommand::Show { name } => show(&inference.get(&name).await?, output),
        ModelsCommand::Evaluate { name, dataset, svg } => {
            let evaluation = inference
                .evaluate(&name, dataset.as_deref().unwrap_or_default())
                .await?;
            show_evaluation(&evaluation, output);
            if let Some(path) = svg {
                draw(&path, &name, &evaluation)?;
                output.say(&format!("drawn in {}", path.display()));
            }
        }
        ModelsCommand::Delete { name } => {
            inference.delete(&name).await?;
            output.facts(&[("deleted", name.clone())], &json!({ "deleted": name }));
        }
    }
    Ok(())
}

/// Draws an evaluation as a bar chart.
pub fn draw(path: &Path, title: &str, evaluation: &Evaluation) -> Result<(), CliError> {
    let svg = plot::evaluation(title, evaluation)?;
    std::fs::write(path, svg).map_err(|error| CliError::file(path, error))
}

async fn train(args: TrainArgs, services: &Services, output: Output) -> Result<Model, CliError> {
    let algorithm = match args.algorithm {
        AlgorithmKind::Logistic => Algorithm::LogisticRegression,
        AlgorithmKind::Trees => Algorithm::GradientBoostedTrees,
        AlgorithmKind::Neural => Algorithm::NeuralNetwork,
        AlgorithmKind::Tree => Algorithm::DecisionTree,
        AlgorithmKind::Forest => Algorithm::RandomForest,
    };
    let request = TrainRequest {
        dataset: args.dataset,
        label: args.label,
        features: args.features,
        algorithm: algorithm.into(),
        test_fraction: args.test_fraction,
        seed: args.seed,
        hyperparameters: args.params.into_iter().collect::<HashMap<_, _>>(),
        display_name: args.name,
        request_id: uuid::Uuid::new_v4().to_string(),
    };
    let bar = output.progress(1, "train", false);
    let model = services
        .inference
        .train(request, |progress| {
            bar.set_message(if progress.stage == "train" {
                "train"
            } else {
                "prepare"
            });
            bar.set_length(progress.total.into());
            bar.set_position(progress.step.into());
        })
        .await;
    bar.finish_and_clear();
    Ok(model?)
}

fn algorithm(model: &Model) -> String {
    model
        .algorithm()
        .as_str_name()
        .trim_start_matches("ALGORITHM_")
        .to_lowercase()
        .replace('_', " ")
}

fn row(model: &Model) -> ([String; 6], Value) {
    let accuracy = model
        .evaluation
        .as_ref()
        .map_or_else(String::new, |e| format!("{:.4}", e.accuracy));
    let cells = [
        model.name.clone(),
        model.display_name.clone(),
        algorithm(model),
        model.label.clone(),
        accuracy,
        time(model.create_time.as_ref()),
    ];
    (cells, to_json(model))
}

fn to_json(model: &Model) -> Value {
    json!({
        "name": model.name, "display_name": model.display_name, "owner": model.owner,
        "algorithm": algorithm(model), "dataset": model.dataset,
        "dataset_manifest_sha256": hex::encode(&model.dataset_manifest_sha256), "label": model.label,
        "features": model.features, "classes": model.classes, "test_fraction": model.test_fraction,
        "seed": model.seed, "hyperparameters": model.hyperparameters,
        "evaluation": model.evaluation.as_ref().map(evaluation_json),
        "created": time(model.create_time.as_ref()), "manifest_sha256": hex::encode(&model.manifest_sha256),
    })
}

fn show(model: &Model, output: Output) {
    let facts = [
        ("model", model.name.clone()),
        ("name", model.display_name.clone()),
        ("owner", model.owner.clone()),
        ("algorithm", algorithm(model)),
        ("dataset", model.dataset.clone()),
        ("label", format!("{} ({})", model.label, model.classes.join(", "))),
        ("features", model.features.len().to_string()),
        ("created", time(model.create_time.as_ref())),
        (
            "manifest",
            format!("sha256:{}", hex::encode(&model.manifest_sha256)),
        ),
    ];
    output.facts(&facts, &to_json(model));
    if let Some(evaluation) = model.evaluation.as_ref().filter(|_| !output.is_json()) {
        show_evaluation(evaluation, output);
    }
}

/// An evaluation as JSON.
pub fn evaluation_json(evaluation: &Evaluation) -> Value {
    json!({
        "rows": evaluation.rows, "accuracy": evaluation.accuracy, "roc_auc": evaluation.roc_auc,
        "log_loss": evaluation.log_loss,
        "per_class": evaluation.per_class.iter().map(|c| json!({
            "class": c.class, "precision": c.precision, "recall": c.recall, "f1": c.f1, "support": c.support,
        })).collect::<Vec<_>>(),
        "macro": {
            "precision": evaluation.macro_precision, "recall": evaluation.macro_recall, "f1": evaluation.macro_f1,
        },
        "classes": evaluation.classes,
        "confusion": evaluation.confusion.iter().map(|row| row.counts.clone()).collect::<Vec<_>>(),
    })
}

/// Shows an evaluation: overall figures, per class, and the confusion matrix.
pub fn show_evaluation(evaluation: &Evaluation, output: Output) {
    let facts = [
        ("rows", evaluation.rows.to_string()),
        ("accuracy", format!("{:.4}", evaluation.accuracy)),
        ("roc auc", format!("{:.4}", evaluation.roc_auc)),
        ("log loss", format!("{:.4}", evaluation.log_loss)),
    ];
    output.facts(&facts, &evaluation_json(evaluation));
    if output.is_json() {
        return;
    }
    let line = |name: &str, p: f64, r: f64, f1: f64, support: String| {
        (
            [
                name.to_owned(),
                format!("{p:.4}"),
                format!("{r:.4}"),
                format!("{f1:.4}"),
                support,
            ],
            Value::Null,
        )
    };
    let mut rows: Vec<_> = evaluation
        .per_class
        .iter()
        .map(|c| line(&c.class, c.precision, c.recall, c.f1, c.support.to_string()))
        .collect();
    let (p, r, f1) = (
        evaluation.macro_precision,
        evaluation.macro_recall,
        evaluation.macro_f1,
    );
    rows.push(line("macro average", p, r, f1, evaluation.rows.to_string()));
    output.rows(["class", "precision", "recall", "f1", "rows"], &rows);
    let confusion: Vec<_> = evaluation
        .classes
        .iter()
        .zip(&evaluation.confusion)
        .map(|(class, row)| {
            let counts: Vec<String> = evaluation
                .classes
                .iter()
                .zip(&row.counts)
                .map(|(p, n)| format!("{p}: {n}"))
                .collect();
            ([class.clone(), counts.join("   ")], Value::Null)
        })
        .collect();
    output.rows(["true class", "predicted as"], &confusion);
}

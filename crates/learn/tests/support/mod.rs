use std::ops::ControlFlow;

use asterism_learn::{
    csv::{CsvLimits, CsvReader},
    dataset::{Problem, stratified_split},
    metrics::{Evaluation, evaluate},
    model::{Hyperparameters, Model},
    table::TableBuilder,
    train::train,
};

pub fn problem(csv: &[u8], label: &str) -> Problem {
    let mut builder = TableBuilder::new(16 << 20);
    let mut reader = CsvReader::new(CsvLimits::default());
    for piece in csv.chunks(4096) {
        reader.feed(piece, &mut builder).unwrap();
    }
    reader.finish(&mut builder).unwrap();
    Problem::from_table(&builder.finish().unwrap(), label, None).unwrap()
}

/// Trained on 70 % of the rows, evaluated on the rest.
pub fn fit(problem: &Problem, hyperparameters: &Hyperparameters, seed: u64) -> (Model, Evaluation) {
    let split = stratified_split(&problem.labels, 0.3, seed).unwrap();
    let model = train(problem, &split.train, hyperparameters, seed, &mut |_| {
        ControlFlow::Continue(())
    })
    .unwrap();
    let evaluation = evaluate(&model, problem, &split.test).unwrap();
    (model, evaluation)
}

use super::*;
use crate::{
    dataset::Matrix,
    metrics::evaluate,
    model::{
        Algorithm, DecisionTreeParameters, ForestParameters, LogisticParameters, NetworkParameters,
        TreeParameters,
    },
    table::tests::table,
};

fn go_on(_: Progress) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

fn all() -> [Hyperparameters; 5] {
    [
        Hyperparameters::Logistic(LogisticParameters {
            l2: 0.1,
            max_iterations: 100,
        }),
        Hyperparameters::Trees(TreeParameters {
            trees: 30,
            min_child_weight: 0.1,
            ..TreeParameters::default()
        }),
        Hyperparameters::Network(NetworkParameters {
            hidden: vec![8],
            epochs: 60,
            learning_rate: 0.02,
            batch_size: 8,
            l2: 0.0,
        }),
        Hyperparameters::DecisionTree(DecisionTreeParameters {
            min_samples_leaf: 1,
            ..DecisionTreeParameters::default()
        }),
        Hyperparameters::Forest(ForestParameters::default()),
    ]
}

/// Three classes in three corners of a square.
fn corners() -> Problem {
    let rows: Vec<[f64; 2]> = (0..90)
        .map(|row| {
            let noise = [f64::from(row * 7 % 10) / 10.0, f64::from(row * 3 % 10) / 10.0];
            let corner = [[0.0, 0.0], [3.0, 0.0], [0.0, 3.0]][row as usize % 3];
            [corner[0] + noise[0], corner[1] + noise[1]]
        })
        .collect();
    Problem {
        features: Matrix::from_rows(vec!["a".into(), "b".into()], &rows).unwrap(),
        labels: (0..90).map(|row| row % 3).collect(),
        classes: vec!["x".into(), "y".into(), "z".into()],
    }
}

fn rows(problem: &Problem) -> Vec<usize> {
    (0..problem.rows()).collect()
}

#[test]
fn every_algorithm_separates_three_classes() {
    let problem = corners();
    for hyperparameters in all() {
        let model = train(&problem, &rows(&problem), &hyperparameters, 3, &mut go_on).unwrap();
        let evaluation = evaluate(&model, &problem, &rows(&problem)).unwrap();
        assert_eq!(evaluation.accuracy, 1.0, "{hyperparameters:?}");
        assert!(
            evaluation.log_loss < 0.3 && evaluation.roc_auc == 1.0,
            "{evaluation:?}"
        );
    }
}

#[test]
fn the_same_seed_makes_the_same_model() {
    let problem = corners();
    for hyperparameters in all() {
        let with = |seed| {
            train(&problem, &rows(&problem), &hyperparameters, seed, &mut go_on)
                .unwrap()
                .to_bytes()
        };
        assert_eq!(with(5), with(5));
        let draws_nothing = matches!(
            hyperparameters.algorithm(),
            Algorithm::LogisticRegression | Algorithm::DecisionTree
        );
        assert_eq!(with(5) == with(6), draws_nothing, "{hyperparameters:?}");
    }
}

#[test]
fn progress_counts_up_and_losses_fall() {
    let problem = corners();
    for hyperparameters in all() {
        let mut seen = Vec::new();
        let mut keep = |progress| {
            seen.push(progress);
            ControlFlow::Continue(())
        };
        let model = train(&problem, &rows(&problem), &hyperparameters, 1, &mut keep).unwrap();
        let steps: Vec<usize> = seen.iter().map(|progress| progress.step).collect();
        assert!(steps[0] == 1 && steps.is_sorted_by(|a, b| a < b), "{steps:?}");
        let last = seen[seen.len() - 1];
        assert_eq!(last.step, last.total);
        assert!(last.loss.is_finite());
        match hyperparameters {
            // Trees that are averaged correct each other's mistakes, but not each other's doubts.
            Hyperparameters::Forest(_) => {}
            _ => assert!(last.loss < seen[0].loss, "{seen:?}"),
        }
        // What is reported is the loss of the model that comes out; the penalty or the moment differ for the others.
        if let Hyperparameters::Trees(_) | Hyperparameters::DecisionTree(_) | Hyperparameters::Forest(_) =
            hyperparameters
        {
            let evaluation = evaluate(&model, &problem, &rows(&problem)).unwrap();
            assert!(
                (last.loss - evaluation.log_loss).abs() < 1e-9,
                "{last:?} {evaluation:?}"
            );
        }
    }
}

#[test]
fn a_break_cancels() {
    let problem = corners();
    for hyperparameters in all() {
        let mut calls = 0;
        let mut third = |_| {
            calls += 1;
            if calls == 3 {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        };
        let result = train(&problem, &rows(&problem), &hyperparameters, 1, &mut third);
        assert_eq!((result, calls), (Err(LearnError::Cancelled), 3));
    }
}

#[test]
fn wrong_orders_are_refused() {
    let problem = corners();
    let [logistic, ..] = all();
    let order = |rows: &[usize], hyperparameters: &Hyperparameters| {
        train(&problem, rows, hyperparameters, 1, &mut go_on).unwrap_err()
    };
    assert_eq!(
        order(&[], &logistic),
        LearnError::NotEnoughRows { rows: 0, needed: 1 }
    );
    assert_eq!(
        order(&[0, 90], &logistic),
        LearnError::RowOutOfRange { index: 90, rows: 90 }
    );
    let bad = Hyperparameters::Trees(TreeParameters {
        depth: 99,
        ..TreeParameters::default()
    });
    assert!(matches!(order(&[0, 1], &bad), LearnError::Hyperparameters { .. }));
    let infinite = Problem {
        features: Matrix::from_rows(vec!["a".into()], &[[0.0], [f64::INFINITY]]).unwrap(),
        labels: vec![0, 1],
        classes: vec!["x".into(), "y".into()],
    };
    let error = train(&infinite, &[0, 1], &logistic, 1, &mut go_on);
    assert_eq!(error, Err(LearnError::NotFinite { index: 0 }));
}

#[test]
fn missing_values_become_medians() {
    let text = "a,e,y\n1,,p\nNA,,q\n4,NA,q\n2,,p\n10,,q\n";
    let problem = Problem::from_table(&table(text), "y", None).unwrap();
    let (samples, medians) = samples(&problem, &[0, 1, 2, 3, 4]).unwrap();
    assert_eq!(medians, [3.0, 0.0]);
    assert_eq!(
        samples.values,
        [1.0, 0.0, 3.0, 0.0, 4.0, 0.0, 2.0, 0.0, 10.0, 0.0]
    );
    assert_eq!(median([5.0, f64::NAN, 1.0, 2.0].iter()), 2.0);
    for hyperparameters in all() {
        let model = train(&problem, &[0, 1, 2, 3, 4], &hyperparameters, 1, &mut go_on).unwrap();
        assert_eq!(
            model.predict_proba(&[f64::NAN, f64::NAN]),
            model.predict_proba(&[3.0, 0.0])
        );
    }
}

#[test]
fn extreme_and_constant_features() {
    let rows_of = |scale: f64| {
        let values: Vec<[f64; 2]> = (0..40)
            .map(|row| [f64::from(row % 2) * scale + f64::from(row), 7.0])
            .collect();
        Problem {
            features: Matrix::from_rows(vec!["a".into(), "b".into()], &values).unwrap(),
            labels: (0..40).map(|row| row % 2).collect(),
            classes: vec!["x".into(), "y".into()],
        }
    };
    for scale in [1e-300, 1e-9, 1e9, 1e150, 1e300] {
        let problem = rows_of(scale);
        for hyperparameters in all() {
            let model = train(&problem, &rows(&problem), &hyperparameters, 1, &mut go_on).unwrap();
            let evaluation = evaluate(&model, &problem, &rows(&problem)).unwrap();
            assert!(evaluation.log_loss.is_finite());
            // Beyond 1e150 the square of a deviation overflows: only trees need none.
            let separable = (1e9..1e151).contains(&scale)
                || (scale > 1.0
                    && matches!(
                        hyperparameters,
                        Hyperparameters::Trees(_)
                            | Hyperparameters::DecisionTree(_)
                            | Hyperparameters::Forest(_)
                    ));
            assert!(
                !separable || evaluation.accuracy == 1.0,
                "{scale} {hyperparameters:?} {evaluation:?}"
            );
        }
    }
}

/// Against the optimum that scikit-learn 1.x finds: `LogisticRegression(C=1)` on the standardised column.
#[test]
fn logistic_weights_are_at_the_optimum() {
    let problem = Problem {
        features: Matrix::from_rows(vec!["a".into()], &[[0.0], [1.0], [2.0], [3.0]]).unwrap(),
        labels: vec![0, 0, 1, 1],
        classes: vec!["x".into(), "y".into()],
    };
    let hyperparameters = Hyperparameters::Logistic(LogisticParameters::default());
    let model = train(&problem, &[0, 1, 2, 3], &hyperparameters, 0, &mut go_on).unwrap();
    // At the optimum the penalty balances the errors: w = sum x (y - p), and by symmetry the intercept is 0.
    let standard = |value: f64| (value - 1.5) / 1.25_f64.sqrt();
    let p = |value: f64| model.predict_proba(&[value]).unwrap()[1];
    let weight = (p(3.0) / (1.0 - p(3.0))).ln() / standard(3.0);
    let pull: f64 = [(0.0, 0.0), (1.0, 0.0), (2.0, 1.0), (3.0, 1.0)]
        .iter()
        .map(|(x, y)| standard(*x) * (y - p(*x)))
        .sum();
    assert!((weight - pull).abs() < 1e-4, "{weight} {pull}");
    assert!((p(1.5) - 0.5).abs() < 1e-6);
}

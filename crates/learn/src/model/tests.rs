use std::{collections::BTreeMap, ops::ControlFlow};

use proptest::prelude::*;

use super::*;
use crate::{dataset::Problem, table::tests::table, train::train};

pub(super) fn wishes(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs
        .iter()
        .map(|(name, text)| ((*name).to_owned(), (*text).to_owned()))
        .collect()
}

/// Three classes on two features, one with missing values.
fn problem() -> Problem {
    let mut text = "a,b,y\n".to_owned();
    for row in 0..60 {
        let class = row % 3;
        let a = f64::from(class) + f64::from(row % 7) / 10.0;
        let b = if row % 11 == 0 {
            "NA".to_owned()
        } else {
            (f64::from(row % 5) - f64::from(class)).to_string()
        };
        text += &format!("{a},{b},k{class}\n");
    }
    Problem::from_table(&table(&text), "y", None).unwrap()
}

fn models() -> Vec<Model> {
    let problem = problem();
    let two = Problem::from_table(&table("a,y\n1,p\n2,q\n3,p\n4,q\n5,q\n"), "y", None).unwrap();
    let mut models = Vec::new();
    for (algorithm, pairs) in [
        (Algorithm::LogisticRegression, vec![]),
        (
            Algorithm::GradientBoostedTrees,
            vec![("trees", "5"), ("bins", "8"), ("min_child_weight", "0")],
        ),
        (Algorithm::NeuralNetwork, vec![("epochs", "5"), ("hidden", "4,3")]),
        (
            Algorithm::DecisionTree,
            vec![("bins", "8"), ("min_samples_leaf", "1")],
        ),
        (
            Algorithm::RandomForest,
            vec![("trees", "3"), ("bins", "8"), ("depth", "3")],
        ),
    ] {
        let hyperparameters = Hyperparameters::parse(algorithm, &wishes(&pairs)).unwrap();
        for problem in [&problem, &two] {
            let rows: Vec<usize> = (0..problem.rows()).collect();
            let model = train(problem, &rows, &hyperparameters, 1, &mut |_| {
                ControlFlow::Continue(())
            })
            .unwrap();
            assert_eq!(model.algorithm(), algorithm);
            models.push(model);
        }
    }
    models
}

#[test]
fn stored_models_predict_the_same() {
    let problem = problem();
    for model in models() {
        let read = Model::from_bytes(&model.to_bytes()).unwrap();
        assert_eq!(read, model);
        if model.feature_names().len() == 2 {
            let (before, after) = (
                model.predict_batch(&problem.features),
                read.predict_batch(&problem.features),
            );
            let bits = |all: Vec<Vec<f64>>| all.concat().into_iter().map(f64::to_bits).collect::<Vec<_>>();
            assert_eq!(bits(before.unwrap()), bits(after.unwrap()));
        }
    }
}

/// Samples of format 1, written before ranges were kept, go on being read: their ranges, and their answers to one row.
#[test]
fn format_1_is_read() {
    let medians = [1.3, 1.0];
    for (bytes, ranges, expected) in [
        (
            include_bytes!("vectors/format1_logistic.json").as_slice(),
            [(-2.06, 4.64), (-5.20, 7.27)],
            [0.545727901772, 0.444323259853, 0.009948838375],
        ),
        (
            include_bytes!("vectors/format1_trees.json"),
            [(0.15, 2.35), (-1.5, 3.5)],
            [0.472651678675, 0.286048334900, 0.241299986425],
        ),
        (
            include_bytes!("vectors/format1_network.json"),
            [(-2.06, 4.64), (-5.20, 7.27)],
            [0.444726327990, 0.280526315914, 0.274747356096],
        ),
    ] {
        let model = Model::from_bytes(bytes).unwrap();
        assert_eq!(model.medians(), medians);
        for (found, expected) in model.ranges().iter().zip(ranges) {
            let close = |a: f64, b: f64| (a - b).abs() < 0.01;
            assert!(
                close(found.0, expected.0) && close(found.1, expected.1),
                "{found:?}"
            );
        }
        let found = model.predict_proba(&[0.7, f64::NAN]).unwrap();
        for (p, expected) in found.iter().zip(expected) {
            assert!((p - expected).abs() < 1e-11, "{found:?}");
        }
        // What is written again is of the present format.
        assert_eq!(Model::from_bytes(&model.to_bytes()).unwrap(), model);
    }
}

/// Ranges are those of the training rows, missing values left out; a feature without values has its median.
#[test]
fn ranges_are_learnt() {
    let text = "a,e,y\n1,,p\nNA,,q\n-4,NA,q\n2,,p\n99,,q\n";
    let problem = Problem::from_table(&table(text), "y", None).unwrap();
    for algorithm in [
        Algorithm::LogisticRegression,
        Algorithm::GradientBoostedTrees,
        Algorithm::NeuralNetwork,
        Algorithm::DecisionTree,
        Algorithm::RandomForest,
    ] {
        let hyperparameters = Hyperparameters::defaults(algorithm);
        let model = train(&problem, &[0, 1, 2, 3], &hyperparameters, 1, &mut |_| {
            ControlFlow::Continue(())
        })
        .unwrap();
        assert_eq!(model.ranges(), [(-4.0, 2.0), (0.0, 0.0)]);
        assert_eq!(
            Model::from_bytes(&model.to_bytes()).unwrap().ranges(),
            model.ranges()
        );
    }
}

#[test]
fn rows_that_do_not_fit() {
    for model in models() {
        let width = model.feature_names().len();
        let wrong = LearnError::WrongWidth {
            expected: width,
            found: width + 1,
        };
        assert_eq!(model.predict_proba(&vec![0.0; width + 1]), Err(wrong));
        let mut row = vec![0.0; width];
        row[width - 1] = f64::NEG_INFINITY;
        assert_eq!(
            model.predict_proba(&row),
            Err(LearnError::NotFinite { index: width - 1 })
        );
        for value in [f64::NAN, f64::MAX, f64::MIN, f64::MIN_POSITIVE, -0.0] {
            let p = model.predict_proba(&vec![value; width]).unwrap();
            assert_eq!(p.len(), model.classes().len());
            assert!(
                (p.iter().sum::<f64>() - 1.0).abs() < 1e-9 && p.iter().all(|p| *p >= 0.0),
                "{value}: {p:?}"
            );
        }
    }
    let swapped = Matrix::from_rows(vec!["b".into(), "a".into()], &[[0.0, 0.0]]).unwrap();
    let wrong = LearnError::WrongFeatures {
        index: 0,
        expected: "a".into(),
    };
    assert_eq!(models()[0].predict_batch(&swapped), Err(wrong));
}

/// Every bound that prediction relies on is checked when a model is read.
#[test]
fn inconsistent_models_are_refused() {
    let refused = |model: &Model, change: &dyn Fn(&mut serde_json::Value)| {
        let mut json: serde_json::Value = serde_json::from_slice(&model.to_bytes()).unwrap();
        change(&mut json);
        match Model::from_bytes(&serde_json::to_vec(&json).unwrap()) {
            Err(LearnError::NotAModel(problem)) => problem,
            other => panic!("{other:?}"),
        }
    };
    let models = models();
    let [logistic, _, trees, _, network, _, tree, _, forest, _] = models.as_slice() else {
        panic!("ten models")
    };
    let misfit = "its parts do not fit each other";
    assert_eq!(
        refused(logistic, &|m| m["format"] = 3.into()),
        "its format is unknown to this version"
    );
    let without_ranges = |m: &mut serde_json::Value| {
        m.as_object_mut().unwrap().remove("ranges");
    };
    let misfit_ranges = "its ranges do not fit its features";
    assert_eq!(refused(logistic, &without_ranges), misfit_ranges);
    assert_eq!(
        refused(logistic, &|m| m["ranges"][1] = vec![1.0, 0.0].into()),
        misfit_ranges
    );
    assert_eq!(
        refused(logistic, &|m| m["format"] = 1.into()),
        "its format is unknown to this version"
    );
    let newer = br#"{"format":7,"a_new_field":[]}"#;
    assert_eq!(
        Model::from_bytes(newer),
        Err(LearnError::NotAModel("its format is unknown to this version"))
    );
    assert_eq!(
        Model::from_bytes(b"{}"),
        Err(LearnError::NotAModel("it cannot be read"))
    );
    assert_eq!(refused(logistic, &|m| m["extra"] = 1.into()), "it cannot be read");
    assert_eq!(
        refused(logistic, &|m| m["medians"] = vec![0.0].into()),
        "its medians do not fit its features"
    );
    assert_eq!(
        refused(logistic, &|m| m["classes"] = vec!["one"].into()),
        "it has no features, or too few or too many classes"
    );
    assert_eq!(
        refused(logistic, &|m| m["body"]["logistic"]["weights"][1] =
            vec![0.0].into()),
        misfit
    );
    assert_eq!(
        refused(logistic, &|m| m["body"]["logistic"]["scaling"]["deviation"][0] =
            0.0.into()),
        misfit
    );
    type Change = fn(&mut serde_json::Value);
    let changes: [Change; 7] = [
        |body| body["trees"]["edges"][0][0] = 1e9.into(),
        |body| body["trees"]["trees"][0]["nodes"][0]["split"]["feature"] = 2.into(),
        |body| body["trees"]["trees"][0]["nodes"][0]["split"]["edge"] = 200.into(),
        |body| body["trees"]["trees"][0]["nodes"][0]["split"]["left"] = 0.into(),
        |body| body["trees"]["trees"][0]["nodes"][0]["split"]["right"] = 99.into(),
        |body| body["trees"]["trees"][0]["nodes"] = serde_json::json!([]),
        |body| body["trees"]["base"] = vec![0.0].into(),
    ];
    for (index, change) in changes.iter().enumerate() {
        assert_eq!(
            refused(trees, &|m| change(&mut m["body"])),
            misfit,
            "change {index}"
        );
    }
    let set = |body: &mut serde_json::Value, path: &str, value: serde_json::Value| {
        *body.pointer_mut(path).unwrap_or_else(|| panic!("{path}")) = value;
    };
    for (model, name) in [(tree, "decision_tree"), (forest, "forest")] {
        // The deepest way ends in a leaf: the last node is one.
        let json: serde_json::Value = serde_json::from_slice(&model.to_bytes()).unwrap();
        let last = json["body"][name]["trees"][0]["nodes"].as_array().unwrap().len() - 1;
        let leaf = format!("/trees/0/nodes/{last}/leaf/weight");
        for (path, value) in [
            ("/edges/0/0", 1e9.into()),
            ("/trees", serde_json::json!([])),
            ("/trees/0/nodes", serde_json::json!([])),
            ("/trees/0/nodes/0/split/feature", 2.into()),
            ("/trees/0/nodes/0/split/edge", 200.into()),
            ("/trees/0/nodes/0/split/left", 0.into()),
            ("/trees/0/nodes/0/split/right", 9999.into()),
            (&leaf, serde_json::json!([0.5, 0.5])),
            (&leaf, serde_json::json!([0.5, 0.5, 0.0, 0.0])),
            (&leaf, serde_json::json!([0.5, 0.4, 0.0])),
            (&leaf, serde_json::json!([1.5, -0.5, 0.0])),
        ] {
            let found = refused(model, &|m| set(&mut m["body"][name], path, value.clone()));
            assert_eq!(found, misfit, "{name} {path} {value}");
        }
        // The change alone is what is refused.
        let mut unchanged = json.clone();
        set(
            &mut unchanged["body"][name],
            &leaf,
            serde_json::json!([0.25, 0.25, 0.5]),
        );
        assert!(Model::from_bytes(&serde_json::to_vec(&unchanged).unwrap()).is_ok());
    }
    let two_trees = |m: &mut serde_json::Value| {
        let trees = m["body"]["decision_tree"]["trees"].as_array_mut().unwrap();
        trees.push(trees[0].clone());
    };
    assert_eq!(refused(tree, &two_trees), misfit);
    assert_eq!(
        refused(network, &|m| m["body"]["network"]["layers"][1]["inputs"] =
            5.into()),
        misfit
    );
    assert_eq!(
        refused(network, &|m| m["body"]["network"]["layers"] =
            serde_json::json!([])),
        misfit
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn arbitrary_bytes_are_no_model(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(Model::from_bytes(&bytes).is_err());
    }

    /// Whatever is read from damaged bytes predicts without a panic.
    #[test]
    fn damaged_models_do_not_panic(
        which in 0_usize..10,
        damage in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..4),
        digits in any::<bool>(),
        row in proptest::collection::vec(any::<f64>(), 2),
    ) {
        thread_local! {
            static STORED: Vec<Vec<u8>> = models().iter().map(Model::to_bytes).collect();
        }
        let mut bytes = STORED.with(|stored| stored[which].clone());
        for (index, value) in damage {
            let at = index.index(bytes.len());
            // Digits for digits: much of this is well-formed and gets as far as predicting.
            if !digits {
                bytes[at] = value;
            } else if let Some(at) = (at..bytes.len()).find(|at| bytes[*at].is_ascii_digit()) {
                bytes[at] = b'0' + value % 10;
            }
        }
        if let Ok(model) = Model::from_bytes(&bytes) {
            let width = model.feature_names().len().min(2);
            let _ = (model.view(), model.ranges());
            if let Ok(p) = model.predict_proba(&row[..width]) {
                prop_assert!(p.iter().all(|p| (0.0..=1.0).contains(p)));
            }
        }
    }
}

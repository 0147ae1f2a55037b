use super::*;
use crate::model::tests::wishes;

fn violations(algorithm: Algorithm, pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    match Hyperparameters::parse(algorithm, &wishes(pairs)) {
        Err(LearnError::Hyperparameters { violations }) => violations
            .into_iter()
            .map(|violation| (violation.name, violation.problem))
            .collect(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn wishes_override_defaults() {
    for algorithm in [
        Algorithm::LogisticRegression,
        Algorithm::GradientBoostedTrees,
        Algorithm::NeuralNetwork,
        Algorithm::DecisionTree,
        Algorithm::RandomForest,
    ] {
        let defaults = Hyperparameters::defaults(algorithm);
        assert_eq!(
            Hyperparameters::parse(algorithm, &BTreeMap::new()).unwrap(),
            defaults
        );
        assert_eq!((defaults.algorithm(), defaults.validate()), (algorithm, Ok(())));
    }
    let logistic = [("l2", "0.5"), ("max_iterations", "7")];
    assert_eq!(
        Hyperparameters::parse(Algorithm::LogisticRegression, &wishes(&logistic)).unwrap(),
        Hyperparameters::Logistic(LogisticParameters {
            l2: 0.5,
            max_iterations: 7
        })
    );
    let trees = [
        ("trees", " 9 "),
        ("depth", "8"),
        ("learning_rate", "1"),
        ("bins", "2"),
        ("min_child_weight", "0"),
        ("lambda", "2e1"),
        ("subsample", "0.5"),
    ];
    let expected = TreeParameters {
        trees: 9,
        depth: 8,
        learning_rate: 1.0,
        bins: 2,
        min_child_weight: 0.0,
        lambda: 20.0,
        subsample: 0.5,
    };
    assert_eq!(
        Hyperparameters::parse(Algorithm::GradientBoostedTrees, &wishes(&trees)).unwrap(),
        Hyperparameters::Trees(expected)
    );
    let network = [
        ("hidden", "32, 8"),
        ("epochs", "3"),
        ("learning_rate", "0.1"),
        ("batch_size", "1"),
        ("l2", "0"),
    ];
    let expected = NetworkParameters {
        hidden: vec![32, 8],
        epochs: 3,
        learning_rate: 0.1,
        batch_size: 1,
        l2: 0.0,
    };
    assert_eq!(
        Hyperparameters::parse(Algorithm::NeuralNetwork, &wishes(&network)).unwrap(),
        Hyperparameters::Network(expected)
    );
    let tree = [("depth", "12"), ("bins", "45"), ("min_samples_leaf", "3")];
    let expected = DecisionTreeParameters {
        depth: 12,
        bins: 45,
        min_samples_leaf: 3,
    };
    assert_eq!(
        Hyperparameters::parse(Algorithm::DecisionTree, &wishes(&tree)).unwrap(),
        Hyperparameters::DecisionTree(expected)
    );
    let forest = [&tree[..], &[("trees", "1000")]].concat();
    let expected = ForestParameters {
        trees: 1000,
        depth: 12,
        bins: 45,
        min_samples_leaf: 3,
    };
    assert_eq!(
        Hyperparameters::parse(Algorithm::RandomForest, &wishes(&forest)).unwrap(),
        Hyperparameters::Forest(expected)
    );
}

#[test]
fn every_violation_is_named() {
    let pair = |name: &str, problem: &str| (name.to_owned(), problem.to_owned());
    let bad = [
        ("depth", "9"),
        ("trees", "many"),
        ("colour", "red"),
        ("learning_rate", "NaN"),
        ("bins", "-1"),
    ];
    assert_eq!(
        violations(Algorithm::GradientBoostedTrees, &bad),
        [
            pair("bins", "must be a whole number"),
            pair(
                "colour",
                "is unknown; this algorithm has trees, depth, learning_rate, bins, min_child_weight, lambda, subsample"
            ),
            pair("trees", "must be a whole number"),
            pair("depth", "must lie from 1 to 8"),
            pair("learning_rate", "must lie from 0.0001 to 1"),
        ]
    );
    assert_eq!(
        violations(Algorithm::DecisionTree, &[("trees", "3"), ("depth", "13")]),
        [
            pair(
                "trees",
                "is unknown; this algorithm has depth, bins, min_samples_leaf"
            ),
            pair("depth", "must lie from 1 to 12"),
        ]
    );
    assert_eq!(
        violations(
            Algorithm::RandomForest,
            &[
                ("bins", "257"),
                ("min_samples_leaf", "0"),
                ("trees", "1001"),
                ("seed", "1")
            ]
        ),
        [
            pair(
                "seed",
                "is unknown; this algorithm has trees, depth, bins, min_samples_leaf"
            ),
            pair("trees", "must lie from 1 to 1000"),
            pair("bins", "must lie from 2 to 256"),
            pair("min_samples_leaf", "must lie from 1 to 1000000"),
        ]
    );
    for layers in ["0", "513", "8,8,8,8,8"] {
        let problem = "must be 1 to 4 layers of 1 to 512 units, such as 16,8";
        assert_eq!(
            violations(Algorithm::NeuralNetwork, &[("hidden", layers)]),
            [pair("hidden", problem)]
        );
    }
    assert_eq!(
        violations(Algorithm::NeuralNetwork, &[("hidden", "8,,8")]).len(),
        1
    );
    assert_eq!(
        violations(Algorithm::LogisticRegression, &[("l2", "inf")]).len(),
        1
    );
}

use std::ops::ControlFlow;

use super::*;

fn samples(rows: &[[f64; 2]], labels: &[u32], classes: usize) -> Samples {
    Samples {
        width: 2,
        values: rows.concat(),
        labels: labels.to_vec(),
        classes,
    }
}

fn tree(samples: &Samples, parameters: DecisionTreeParameters) -> Forest {
    Forest::train_tree(samples, &parameters, &mut |_| ControlFlow::Continue(())).unwrap()
}

fn depth(tree: &Tree<Vec<f64>>, at: usize) -> usize {
    match tree.nodes[at] {
        Node::Leaf { .. } => 0,
        Node::Split { left, right, .. } => 1 + depth(tree, left as usize).max(depth(tree, right as usize)),
    }
}

/// Neither feature alone says anything, so no first cut lowers the impurity.
#[test]
fn exclusive_or_is_learnt() {
    let rows = [[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]].repeat(3);
    let samples = samples(&rows, &[0, 1, 1, 0].repeat(3), 2);
    let parameters = DecisionTreeParameters {
        min_samples_leaf: 1,
        ..DecisionTreeParameters::default()
    };
    let forest = tree(&samples, parameters);
    for (row, label) in rows.iter().zip(&samples.labels) {
        assert_eq!(forest.probabilities(row)[*label as usize], 1.0);
    }
    assert_eq!((forest.trees[0].nodes.len(), depth(&forest.trees[0], 0)), (7, 2));
}

/// Worked by hand: the cut at 2.5 leaves 2 rows of class 0 beside 1 of class 0 and 3 of class 1, with an impurity of 1/4 in
/// the mean; every other cut leaves more.
#[test]
fn the_best_cut_and_its_shares() {
    let rows = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0].map(|value| [value, 7.0]);
    let samples = samples(&rows, &[0, 0, 1, 1, 0, 1], 2);
    let stump = DecisionTreeParameters {
        depth: 1,
        min_samples_leaf: 1,
        ..DecisionTreeParameters::default()
    };
    let mut steps = Vec::new();
    let forest = Forest::train_tree(&samples, &stump, &mut |progress| {
        steps.push((progress.step, progress.total, progress.loss));
        ControlFlow::Continue(())
    })
    .unwrap();
    let expected = [
        Node::Split {
            feature: 0,
            edge: 1,
            left: 1,
            right: 2,
        },
        Node::Leaf {
            weight: vec![1.0, 0.0],
        },
        Node::Leaf {
            weight: vec![0.25, 0.75],
        },
    ];
    assert_eq!(forest.trees[0].nodes, expected);
    assert_eq!(forest.probabilities(&[2.5, 0.0]), [0.25, 0.75]);
    assert_eq!(forest.probabilities(&[2.5_f64.next_down(), 0.0]), [1.0, 0.0]);
    let loss = -(0.25_f64.ln() + 3.0 * 0.75_f64.ln()) / 6.0;
    assert_eq!(steps.len(), 1);
    assert_eq!((steps[0].0, steps[0].1), (1, 1));
    assert!((steps[0].2 - loss).abs() < 1e-12, "{steps:?}");
}

#[test]
fn depth_and_leaves_are_bounded() {
    let rows: Vec<[f64; 2]> = (0..200)
        .map(|row| [f64::from(row), f64::from(row * 37 % 200)])
        .collect();
    let labels: Vec<u32> = (0..200).map(|row| row * 7 % 11 % 3).collect();
    let samples = samples(&rows, &labels, 3);
    for most in [1, 3, 12] {
        for least in [1, 10, 101] {
            let parameters = DecisionTreeParameters {
                depth: most,
                min_samples_leaf: least,
                ..DecisionTreeParameters::default()
            };
            let mut told = f64::NAN;
            let forest = Forest::train_tree(&samples, &parameters, &mut |progress| {
                told = progress.loss;
                ControlFlow::Continue(())
            })
            .unwrap();
            let mut loss = 0.0;
            for (row, label) in rows.iter().zip(&labels) {
                loss -= forest.probabilities(row)[*label as usize].ln() / 200.0;
            }
            assert!((told - loss).abs() < 1e-9, "{told} {loss}");
            let tree = &forest.trees[0];
            let mut reached = std::collections::HashMap::new();
            for row in &rows {
                let bins = bins::of_row(row, &forest.edges);
                let leaf: *const Vec<f64> = tree.leaf(|feature| bins[feature as usize]);
                *reached.entry(leaf).or_insert(0) += 1;
            }
            assert!(reached.values().all(|count| *count >= least));
            assert!(depth(tree, 0) <= most);
            // Two leaves of 101 rows do not fit in 200 rows.
            assert_eq!(reached.len() == 1, least == 101);
        }
    }
}

/// Trees of a forest differ, and see few features at a split.
#[test]
fn forests_draw() {
    let rows: Vec<[f64; 2]> = (0..60).map(|row| [f64::from(row), f64::from(59 - row)]).collect();
    let labels: Vec<u32> = (0..60).map(|row| row / 30).collect();
    let samples = samples(&rows, &labels, 2);
    let parameters = ForestParameters {
        trees: 20,
        depth: 1,
        ..ForestParameters::default()
    };
    let forest = Forest::train(&samples, &parameters, 3, &mut |_| ControlFlow::Continue(())).unwrap();
    let roots: Vec<u32> = forest
        .trees
        .iter()
        .map(|tree| match tree.nodes[0] {
            Node::Split { feature, .. } => feature,
            Node::Leaf { .. } => panic!("not split"),
        })
        .collect();
    // Either feature says all, so which one splits is the draw's doing.
    assert!(roots.contains(&0) && roots.contains(&1), "{roots:?}");
    let edges: std::collections::HashSet<String> = forest
        .trees
        .iter()
        .map(|tree| format!("{:?}", tree.nodes[0]))
        .collect();
    assert!(edges.len() > 2, "{edges:?}");
}

/// Where the features drawn first part nothing, more are drawn.
#[test]
fn every_tree_finds_the_one_feature_that_says_something() {
    let width = 25;
    let values = (0..40).flat_map(|row| (0..width).map(move |f| if f == 20 { f64::from(row) } else { 1.0 }));
    let samples = Samples {
        width,
        values: values.collect(),
        labels: (0..40).map(|row| row / 20).collect(),
        classes: 2,
    };
    let forest = Forest::train(&samples, &ForestParameters::default(), 3, &mut |_| {
        ControlFlow::Continue(())
    })
    .unwrap();
    let splits = |tree: &&Tree<Vec<f64>>| matches!(tree.nodes[0], Node::Split { feature: 20, .. });
    assert_eq!(forest.trees.iter().filter(splits).count(), 50);
}

/// A forest that could not be read back is refused while it grows.
#[test]
fn forests_too_large_to_store_are_refused() {
    let rows: Vec<[f64; 2]> = (0..4096_i32)
        .map(|row| [f64::from(row % 64), f64::from(row / 64)])
        .collect();
    let labels: Vec<u32> = (0..4096).map(|row| row * 97 % 251).collect();
    let samples = samples(&rows, &labels, 256);
    let parameters = ForestParameters {
        trees: 1000,
        depth: 12,
        ..ForestParameters::default()
    };
    let mut grown = 0;
    let error = Forest::train(&samples, &parameters, 3, &mut |_| {
        grown += 1;
        ControlFlow::Continue(())
    });
    let Err(LearnError::Hyperparameters { violations }) = error else {
        panic!("{error:?}")
    };
    assert_eq!(violations[0].name, "trees");
    assert!((1..1000).contains(&grown), "{grown}");
}

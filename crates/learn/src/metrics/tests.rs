use proptest::prelude::*;

use super::*;

fn evaluation(labels: &[usize], probabilities: &[&[f64]]) -> Evaluation {
    let classes: Vec<String> = (0..probabilities[0].len())
        .map(|class| format!("c{class}"))
        .collect();
    let probabilities: Vec<Vec<f64>> = probabilities.iter().map(|p| p.to_vec()).collect();
    Evaluation::of(&classes, labels, &probabilities)
}

fn near(a: f64, b: f64) {
    assert!((a - b).abs() < 1e-12, "{a} is not {b}");
}

/// Computed by hand, and the same as scikit-learn's for `y_true = [0, 0, 1, 1, 1]`.
#[test]
fn two_classes() {
    let p = [[0.9, 0.1], [0.4, 0.6], [0.2, 0.8], [0.7, 0.3], [0.1, 0.9]];
    let result = evaluation(&[0, 0, 1, 1, 1], &p.each_ref().map(<[f64; 2]>::as_slice));
    assert_eq!(result.confusion, [[1, 1], [1, 2]]);
    assert_eq!(result.rows, 5);
    near(result.accuracy, 0.6);
    // Pairs of (positive, negative) in order: 0.8 > both, 0.3 > one, 0.9 > both.
    near(result.roc_auc, 5.0 / 6.0);
    near(result.log_loss, -(0.9_f64 * 0.4 * 0.8 * 0.3 * 0.9).ln() / 5.0);
    let [first, second] = result.per_class.as_slice() else {
        panic!("{result:?}")
    };
    near(first.precision, 0.5);
    near(first.recall, 0.5);
    near(first.f1, 0.5);
    near(second.precision, 2.0 / 3.0);
    near(second.recall, 2.0 / 3.0);
    near(second.f1, 2.0 / 3.0);
    assert_eq!((first.support, second.support), (2, 3));
    near(result.macro_avg.f1, 7.0 / 12.0);
}

/// As scikit-learn's `classification_report(zero_division=0)` and `roc_auc_score(multi_class="ovr", average="macro")`.
#[test]
fn three_classes() {
    let p = [[0.6, 0.3, 0.1], [0.5, 0.4, 0.1], [0.2, 0.7, 0.1], [0.6, 0.1, 0.3]];
    let result = evaluation(&[0, 1, 1, 2], &p.each_ref().map(<[f64; 3]>::as_slice));
    assert_eq!(result.confusion, [[1, 0, 0], [1, 1, 0], [1, 0, 0]]);
    near(result.accuracy, 0.5);
    let figures: Vec<(f64, f64)> = result.per_class.iter().map(|c| (c.precision, c.recall)).collect();
    near(figures[0].0, 1.0 / 3.0);
    near(figures[0].1, 1.0);
    near(figures[1].0, 1.0);
    near(figures[1].1, 0.5);
    // Never predicted: precision, recall and F1 are 0.
    assert_eq!((figures[2], result.per_class[2].f1), ((0.0, 0.0), 0.0));
    near(result.macro_avg.precision, 4.0 / 9.0);
    near(result.macro_avg.recall, 0.5);
    near(result.macro_avg.f1, (0.5 + 2.0 / 3.0) / 3.0);
    // One against the rest: c0 2.5 of 3 pairs (one tie), c1 4 of 4, c2 3 of 3.
    near(result.roc_auc, (2.5 / 3.0 + 1.0 + 1.0) / 3.0);
}

#[test]
fn one_class_alone_has_no_area() {
    let result = evaluation(&[0, 0], &[&[1.0, 0.0], &[0.3, 0.7]]);
    assert_eq!(result.roc_auc, 0.0);
    assert_eq!(roc_auc(&[0.1, 0.2], &[true, true]), None);
    assert_eq!(roc_auc(&[], &[]), None);
    // The probability of a certain error counts as 1e-15.
    near(evaluation(&[1], &[&[1.0, 0.0]]).log_loss, -(1e-15_f64).ln());
}

#[test]
fn an_evaluation_survives_json() {
    let before = evaluation(&[0, 1, 1], &[&[0.1, 0.9], &[1.0 / 3.0, 2.0 / 3.0], &[0.4, 0.6]]);
    let json = serde_json::to_vec(&before).unwrap();
    assert_eq!(serde_json::from_slice::<Evaluation>(&json).unwrap(), before);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// The area is the share of pairs in the right order, ties counted half.
    #[test]
    fn area_is_the_share_of_ordered_pairs(rows in proptest::collection::vec((0_u8..12, any::<bool>()), 0..60)) {
        let scores: Vec<f64> = rows.iter().map(|(score, _)| f64::from(*score) / 8.0).collect();
        let positive: Vec<bool> = rows.iter().map(|(_, positive)| *positive).collect();
        let (mut pairs, mut ordered) = (0.0, 0.0);
        for (a, _) in rows.iter().filter(|(_, positive)| *positive) {
            for (b, _) in rows.iter().filter(|(_, positive)| !*positive) {
                pairs += 1.0;
                ordered += if a > b { 1.0 } else if a == b { 0.5 } else { 0.0 };
            }
        }
        match roc_auc(&scores, &positive) {
            None => prop_assert_eq!(pairs, 0.0),
            Some(area) => prop_assert!((area - ordered / pairs).abs() < 1e-12),
        }
    }
}

use proptest::prelude::*;

use super::*;
use crate::table::tests::table;

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(ToString::to_string).collect()
}

#[test]
fn classes_are_in_order() {
    let problem = Problem::from_table(&table("x,y\n1,dog\n2,cat\nNA,dog\n"), "y", None).unwrap();
    assert_eq!(problem.classes, ["cat", "dog"]);
    assert_eq!(problem.labels, [1, 0, 1]);
    assert_eq!(problem.feature_names(), ["x"]);
    assert_eq!(
        (
            problem.rows(),
            problem.features.rows(),
            problem.features.columns()
        ),
        (3, 3, 1)
    );
    assert!(problem.features.row(2).unwrap()[0].is_nan());
    assert_eq!(problem.features.row(3), None);
    assert_eq!(problem.features.row(usize::MAX), None);
    // Numbers by value, not by spelling.
    let problem = Problem::from_table(&table("y,x\n10,1\n9,2\n10.0,3\n-0,4\n0,5\n"), "y", None).unwrap();
    assert_eq!(problem.classes, ["0", "9", "10"]);
    assert_eq!(problem.labels, [2, 1, 2, 0, 0]);
}

#[test]
fn chosen_features_keep_their_order() {
    let table = table("a,b,c,y\n1,2,3,p\n4,5,6,q\n");
    let problem = Problem::from_table(&table, "y", Some(&names(&["c", "a"]))).unwrap();
    assert_eq!(problem.features.row(1), Some([6.0, 4.0].as_slice()));
    assert_eq!(problem.features.iter().count(), 2);
}

#[test]
fn what_cannot_be_learnt_from() {
    let data = table("x,t,y,one,m\n1,a,p,k,p\n2,b,q,k,\n");
    let from = |label: &str, features: Option<&[&str]>| {
        let features = features.map(names);
        Problem::from_table(&data, label, features.as_deref()).unwrap_err()
    };
    let available = || Names(names(&["x", "t", "y", "one", "m"]));
    assert_eq!(
        from("z", None),
        LearnError::UnknownLabel {
            label: "z".into(),
            available: available()
        }
    );
    let unknown = LearnError::UnknownFeature {
        feature: "z".into(),
        available: available(),
    };
    assert_eq!(from("y", Some(&["z"])), unknown);
    assert_eq!(from("m", None), LearnError::MissingLabel { row: 2 });
    assert_eq!(from("one", None), LearnError::OneClass { label: "one".into() });
    assert_eq!(
        from("y", Some(&["x", "t"])),
        LearnError::NonNumericFeature { column: "t".into() }
    );
    assert_eq!(
        from("y", Some(&["x", "y"])),
        LearnError::LabelIsFeature { label: "y".into() }
    );
    assert_eq!(
        from("y", Some(&["x", "x"])),
        LearnError::DuplicateFeature { feature: "x".into() }
    );
    assert_eq!(from("y", Some(&[])), LearnError::NoFeatures);
    let numeric = table("x,y\n1,NaN\n2,1\n");
    assert_eq!(
        Problem::from_table(&numeric, "y", None).unwrap_err(),
        LearnError::MissingLabel { row: 1 }
    );
    for prefix in ["", "c"] {
        let many: String = (0..300).map(|row| format!("{row},{prefix}{row}\n")).collect();
        let error = Problem::from_table(&table(&format!("x,y\n{many}")), "y", None).unwrap_err();
        assert_eq!(
            error,
            LearnError::TooManyClasses {
                label: "y".into(),
                limit: 256
            }
        );
    }
    let message = from("z", None).to_string();
    assert_eq!(
        message,
        "there is no column `z` to use as the label; the columns are x, t, y, one, m"
    );
}

#[test]
fn another_table_is_seen_as_the_model_sees_it() {
    let other = table("y,b,a\nq,1,2\nq,3,4\n");
    let classes = names(&["p", "q"]);
    let problem = Problem::like(&other, "y", &names(&["a", "b"]), &classes).unwrap();
    assert_eq!(
        (problem.labels.as_slice(), problem.classes),
        ([1, 1].as_slice(), classes.clone())
    );
    assert_eq!(problem.features.row(0), Some([2.0, 1.0].as_slice()));
    let strange = table("y,a\np,1\nr,2\n");
    let error = Problem::like(&strange, "y", &names(&["a"]), &classes).unwrap_err();
    assert_eq!(error, LearnError::UnknownClass { row: 2 });
}

#[test]
fn rows_of_a_matrix_have_its_width() {
    let matrix = Matrix::from_rows(names(&["a", "b"]), &[[1.0, 2.0], [3.0, 4.0]]).unwrap();
    assert_eq!((matrix.rows(), matrix.row(1)), (2, Some([3.0, 4.0].as_slice())));
    let ragged = Matrix::from_rows(names(&["a", "b"]), &[vec![1.0, 2.0], vec![3.0]]);
    assert_eq!(
        ragged,
        Err(LearnError::WrongWidth {
            expected: 2,
            found: 1
        })
    );
    assert_eq!(Matrix::from_rows(vec![], &[vec![]]), Err(LearnError::NoFeatures));
}

/// The same on every platform and for ever: models are evaluated again on the rows that were held out.
#[test]
fn a_split_is_fixed_by_its_seed() {
    let labels = [0, 0, 0, 0, 0, 0, 1, 1, 1, 1];
    let split = stratified_split(&labels, 0.3, 7).unwrap();
    assert_eq!(split, stratified_split(&labels, 0.3, 7).unwrap());
    assert_eq!(split.test, [0, 3, 7]);
    let others = (0..20).map(|seed| stratified_split(&labels, 0.3, seed).unwrap().test);
    assert!(others.collect::<HashSet<_>>().len() > 5);
}

#[test]
fn what_cannot_be_split() {
    for fraction in [0.0, 1.0, -0.5, f64::NAN] {
        assert_eq!(
            stratified_split(&[0, 0, 1, 1], fraction, 0),
            Err(LearnError::TestFraction)
        );
    }
    let rare = Err(LearnError::NotEnoughRows { rows: 1, needed: 2 });
    assert_eq!(stratified_split(&[0, 0, 1], 0.5, 0), rare);
    assert_eq!(
        stratified_split(&[], 0.5, 0),
        Err(LearnError::NotEnoughRows { rows: 0, needed: 2 })
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_split_is_stratified(
        counts in proptest::collection::vec(2_usize..40, 1..6),
        fraction in 0.01_f64..0.99,
        seed in any::<u64>(),
    ) {
        let labels: Vec<u32> =
            (0..).zip(&counts).flat_map(|(class, count)| std::iter::repeat_n(class, *count)).collect();
        let Split { train, test } = stratified_split(&labels, fraction, seed).unwrap();
        let mut all = [train.clone(), test.clone()].concat();
        all.sort_unstable();
        prop_assert_eq!(all, (0..labels.len()).collect::<Vec<_>>());
        prop_assert!(train.is_sorted() && test.is_sorted());
        for (class, count) in (0..).zip(&counts) {
            let held_out = test.iter().filter(|row| labels[**row] == class).count();
            prop_assert!(held_out >= 1 && held_out < *count);
            prop_assert!((held_out as f64 - *count as f64 * fraction).abs() <= 1.0);
        }
    }
}

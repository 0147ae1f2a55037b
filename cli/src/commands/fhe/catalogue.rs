//! The models that the bench trains itself: names, data and sizes.

use asterism_learn::{dataset::Problem, model::Algorithm};

use super::{
    data::{self, Recipe, Subject},
    rows,
};
use crate::error::CliError;

const BREAST_CANCER: Shipped = Shipped {
    csv: include_bytes!("../../../../examples/breast_cancer.csv"),
    label: "diagnosis",
};

const WINE: Shipped = Shipped {
    csv: include_bytes!("../../../../examples/wine.csv"),
    label: "class",
};
const DIGITS: Shipped = Shipped {
    csv: include_bytes!("../../../../examples/digits.csv"),
    label: "digit",
};

/// An example data set.
#[derive(Clone, Copy)]
struct Shipped {
    csv: &'static [u8],
    label: &'static str,
}

/// What a model is trained on.
#[derive(Clone, Copy)]
enum Data {
    Shipped(Shipped),
    Synthetic { features: usize },
}

/// A model of the bench.
pub(super) struct Entry {
    pub(super) name: String,
    data: Data,
    algorithm: Algorithm,
    hyper: Vec<(&'static str, String)>,
}

impl Entry {
    fn shipped(
        name: &str,
        data: Shipped,
        algorithm: Algorithm,
        hyper: &[(&'static str, &'static str)],
    ) -> Self {
        Self {
            name: name.to_owned(),
            data: Data::Shipped(data),
            algorithm,
            hyper: hyper
                .iter()
                .map(|(name, value)| (*name, (*value).to_owned()))
                .collect(),
        }
    }

    fn synthetic(features: usize, trees: usize, depth: usize) -> Self {
        Self {
            name: format!("synthetic-{features}-{trees}x{depth}"),
            data: Data::Synthetic { features },
            algorithm: Algorithm::GradientBoostedTrees,
            hyper: vec![
                ("trees", trees.to_string()),
                ("depth", depth.to_string()),
                ("bins", "64".into()),
            ],
        }
    }

    /// Trains it.
    pub(super) fn train(&self, seed: u64) -> Result<Subject, CliError> {
        let problem = match self.data {
            Data::Shipped(Shipped { csv, label }) => {
                let table = rows::parse(csv).map_err(CliError::Other)?;
                Problem::from_table(&table, label, None)
                    .map_err(|error| CliError::Other(error.to_string()))?
            }
            Data::Synthetic { features } => data::synthetic(features),
        };
        let hyper = self.hyper.iter();
        let recipe = Recipe {
            algorithm: self.algorithm,
            hyper: hyper
                .map(|(name, value)| ((*name).to_owned(), value.clone()))
                .collect(),
            seed,
        };
        data::split_and_train(&problem, &recipe)
    }
}

/// Every model of the table.
pub(super) fn all() -> Vec<Entry> {
    use Algorithm::{GradientBoostedTrees, LogisticRegression, NeuralNetwork, RandomForest};
    let mut all = vec![
        Entry::shipped("logistic-30", BREAST_CANCER, LogisticRegression, &[]),
        Entry::shipped(
            "trees-100x2",
            BREAST_CANCER,
            GradientBoostedTrees,
            // Few enough bins for tables over pairs of features.
            &[("trees", "100"), ("depth", "2"), ("bins", "32")],
        ),
        Entry::shipped(
            "trees-50x3",
            BREAST_CANCER,
            GradientBoostedTrees,
            &[("trees", "50"), ("depth", "3"), ("bins", "64")],
        ),
        Entry::shipped(
            "trees-100x6",
            BREAST_CANCER,
            GradientBoostedTrees,
            &[("trees", "100"), ("depth", "6"), ("bins", "64")],
        ),
        Entry::shipped(
            "forest-50x4",
            WINE,
            RandomForest,
            &[("trees", "50"), ("depth", "4"), ("bins", "64")],
        ),
        Entry::shipped("mlp-30-16-2", BREAST_CANCER, NeuralNetwork, &[("hidden", "16")]),
        Entry::shipped(
            "digits-trees",
            DIGITS,
            GradientBoostedTrees,
            &[("trees", "20"), ("depth", "3"), ("bins", "17")],
        ),
        Entry::shipped("digits-mlp", DIGITS, NeuralNetwork, &[("hidden", "32")]),
    ];
    // From a base, one size after the other grows: trees, features, depth.
    let sizes = [
        (10, 50, 3),
        (30, 50, 3),
        (100, 50, 3),
        (30, 200, 3),
        (30, 50, 5),
        (100, 300, 6),
    ];
    all.extend(sizes.map(|(features, trees, depth)| Entry::synthetic(features, trees, depth)));
    all
}

/// The model of that name: one of the table, or `synthetic-FEATURES-TREESxDEPTH`.
pub(super) fn named(name: &str) -> Result<Entry, CliError> {
    let known = all();
    let names: Vec<String> = known.iter().map(|entry| entry.name.clone()).collect();
    known
        .into_iter()
        .find(|entry| entry.name == name)
        .or_else(|| {
            synthetic_sizes(name).map(|(features, trees, depth)| Entry::synthetic(features, trees, depth))
        })
        .ok_or_else(|| {
            CliError::Usage(format!(
                "`{name}` is none of {}, nor synthetic-FEATURES-TREESxDEPTH",
                names.join(", ")
            ))
        })
}

fn synthetic_sizes(name: &str) -> Option<(usize, usize, usize)> {
    let (features, rest) = name.strip_prefix("synthetic-")?.split_once('-')?;
    let (trees, depth) = rest.split_once('x')?;
    let sizes = (features.parse().ok()?, trees.parse().ok()?, depth.parse().ok()?);
    let (features, trees, depth) = sizes;
    let fit = (1..=1000).contains(&features) && (1..=2000).contains(&trees) && (1..=8).contains(&depth);
    fit.then_some(sizes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_are_found_by_name() {
        for entry in all() {
            assert_eq!(named(&entry.name).map(|found| found.name).ok(), Some(entry.name));
        }
        assert!(named("synthetic-7-11x2").is_ok());
        for unknown in [
            "trees",
            "synthetic-7",
            "synthetic-0-1x1",
            "synthetic-7-11x9",
            "synthetic-a-1x1",
        ] {
            assert!(named(unknown).is_err(), "{unknown}");
        }
    }
}

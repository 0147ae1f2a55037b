//! The supervised view of a table: features, labels, and how rows are split.

#[cfg(test)]
mod tests;

use std::collections::HashSet;

use rand::{SeedableRng as _, seq::SliceRandom as _};
use rand_chacha::ChaCha8Rng;

use crate::{
    LearnError, Names,
    table::{Column, MISSING_CODE, Table},
};

/// Most classes of a label.
pub const MAX_CLASSES: usize = 256;

/// Named columns of numbers, stored row by row; NaN is a missing value.
#[derive(Debug, Clone, PartialEq)]
pub struct Matrix {
    names: Vec<String>,
    values: Vec<f64>,
}

impl Matrix {
    /// From rows, each with one value per name.
    ///
    /// # Errors
    /// [`LearnError::NoFeatures`] without a name, [`LearnError::WrongWidth`] for a row of another width.
    pub fn from_rows<R: AsRef<[f64]>>(names: Vec<String>, rows: &[R]) -> Result<Self, LearnError> {
        if names.is_empty() {
            return Err(LearnError::NoFeatures);
        }
        let mut values = Vec::with_capacity(rows.len() * names.len());
        for row in rows.iter().map(AsRef::as_ref) {
            if row.len() != names.len() {
                return Err(LearnError::WrongWidth {
                    expected: names.len(),
                    found: row.len(),
                });
            }
            values.extend_from_slice(row);
        }
        Ok(Self { names, values })
    }

    /// The columns of `table` with these names, in this order.
    ///
    /// # Errors
    /// [`LearnError::NoFeatures`], [`LearnError::UnknownFeature`], [`LearnError::NonNumericFeature`].
    pub fn from_table(table: &Table, names: &[String]) -> Result<Self, LearnError> {
        if names.is_empty() {
            return Err(LearnError::NoFeatures);
        }
        let mut values = vec![f64::NAN; table.rows() * names.len()];
        for (index, name) in names.iter().enumerate() {
            let column = table.column(name).ok_or_else(|| LearnError::UnknownFeature {
                feature: name.clone(),
                available: Names(table.names().to_vec()),
            })?;
            let Column::Numeric(numbers) = column else {
                return Err(LearnError::NonNumericFeature { column: name.clone() });
            };
            for (slot, number) in values.iter_mut().skip(index).step_by(names.len()).zip(numbers) {
                *slot = *number;
            }
        }
        Ok(Self {
            names: names.to_vec(),
            values,
        })
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.values.len() / self.names.len().max(1)
    }

    /// Number of columns.
    pub fn columns(&self) -> usize {
        self.names.len()
    }

    /// Names of the columns, in order.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Row `index`, from 0, if there is one.
    pub fn row(&self, index: usize) -> Option<&[f64]> {
        let start = index.checked_mul(self.columns())?;
        self.values.get(start..start.checked_add(self.columns())?)
    }

    /// All rows, in order.
    pub fn iter(&self) -> impl Iterator<Item = &[f64]> {
        self.values.chunks_exact(self.columns().max(1))
    }
}

/// Features and labels.
#[derive(Debug, Clone, PartialEq)]
pub struct Problem {
    /// The features, with their names.
    pub features: Matrix,
    /// Index into `classes`, by row.
    pub labels: Vec<u32>,
    /// The classes, in ascending order of their text (or number), or in a model's order.
    pub classes: Vec<String>,
}

impl Problem {
    /// To predict `label` from `feature_names` (by default every other column).
    ///
    /// # Errors
    /// What keeps the table from being learnt from: [`LearnError::UnknownLabel`], [`LearnError::MissingLabel`],
    /// [`LearnError::OneClass`], [`LearnError::TooManyClasses`], and what is wrong with the features.
    pub fn from_table(
        table: &Table,
        label: &str,
        feature_names: Option<&[String]>,
    ) -> Result<Self, LearnError> {
        let (labels, classes) = labels(table, label)?;
        if classes.len() < 2 {
            return Err(LearnError::OneClass {
                label: label.to_owned(),
            });
        }
        let names: Vec<String> = match feature_names {
            Some(names) => names.to_vec(),
            None => table
                .names()
                .iter()
                .filter(|name| *name != label)
                .cloned()
                .collect(),
        };
        let mut seen = HashSet::new();
        for name in &names {
            if name == label {
                return Err(LearnError::LabelIsFeature {
                    label: label.to_owned(),
                });
            }
            if !seen.insert(name) {
                return Err(LearnError::DuplicateFeature {
                    feature: name.clone(),
                });
            }
        }
        Ok(Self {
            features: Matrix::from_table(table, &names)?,
            labels,
            classes,
        })
    }

    /// The view that a model was trained on: its features, and its classes in its order. One class alone is enough here.
    ///
    /// # Errors
    /// As [`Problem::from_table`], and [`LearnError::UnknownClass`].
    pub fn like(
        table: &Table,
        label: &str,
        feature_names: &[String],
        classes: &[String],
    ) -> Result<Self, LearnError> {
        let (labels, own) = labels(table, label)?;
        let mapping: Vec<Option<u32>> = own
            .iter()
            .map(|class| {
                classes
                    .iter()
                    .position(|known| known == class)
                    .map(|index| index as u32)
            })
            .collect();
        let labels = labels
            .iter()
            .zip(1..)
            .map(|(label, row)| mapping[*label as usize].ok_or(LearnError::UnknownClass { row }))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            features: Matrix::from_table(table, feature_names)?,
            labels,
            classes: classes.to_vec(),
        })
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.labels.len()
    }

    /// Names of the features, in order.
    pub fn feature_names(&self) -> &[String] {
        self.features.names()
    }
}

/// Labels by row, and the classes in order.
fn labels(table: &Table, label: &str) -> Result<(Vec<u32>, Vec<String>), LearnError> {
    let column = table.column(label).ok_or_else(|| LearnError::UnknownLabel {
        label: label.to_owned(),
        available: Names(table.names().to_vec()),
    })?;
    let too_many = || LearnError::TooManyClasses {
        label: label.to_owned(),
        limit: MAX_CLASSES,
    };
    let missing = |row: usize| LearnError::MissingLabel { row: row as u64 + 1 };
    match column {
        Column::Text { codes, dictionary } => {
            if let Some(row) = codes.iter().position(|code| *code == MISSING_CODE) {
                return Err(missing(row));
            }
            if dictionary.len() > MAX_CLASSES {
                return Err(too_many());
            }
            let mut order: Vec<usize> = (0..dictionary.len()).collect();
            order.sort_by(|a, b| dictionary[*a].cmp(&dictionary[*b]));
            let mut rank = vec![0; order.len()];
            for (position, code) in (0..).zip(&order) {
                rank[*code] = position;
            }
            let labels = codes.iter().map(|code| rank[*code as usize]).collect();
            Ok((
                labels,
                order.into_iter().map(|code| dictionary[code].clone()).collect(),
            ))
        }
        Column::Numeric(numbers) => {
            if let Some(row) = numbers.iter().position(|number| number.is_nan()) {
                return Err(missing(row));
            }
            let mut values: Vec<f64> = Vec::new();
            for number in numbers {
                // Adding 0 makes -0 into 0: one class, not two of one name.
                let number = number + 0.0;
                if let Err(at) = values.binary_search_by(|value| value.total_cmp(&number)) {
                    if values.len() == MAX_CLASSES {
                        return Err(too_many());
                    }
                    values.insert(at, number);
                }
            }
            let labels = numbers
                .iter()
                .map(|number| values.partition_point(|value| value < number) as u32);
            Ok((labels.collect(), values.iter().map(f64::to_string).collect()))
        }
    }
}

/// Rows to train on and rows held out, by index from 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Split {
    /// Ascending.
    pub train: Vec<usize>,
    /// Ascending.
    pub test: Vec<usize>,
}

/// Holds out `test_fraction` of the rows of each class, rounded, at least one and never all of a class. The same labels,
/// fraction and seed give the same split on every machine (`ChaCha8`).
///
/// # Errors
/// [`LearnError::TestFraction`] outside (0, 1); [`LearnError::NotEnoughRows`] when a class has a single row, or there is
/// no row.
pub fn stratified_split(labels: &[u32], test_fraction: f64, seed: u64) -> Result<Split, LearnError> {
    const NEEDED: usize = 2;
    if !(test_fraction > 0.0 && test_fraction < 1.0) {
        return Err(LearnError::TestFraction);
    }
    // Stable: rows of a class stay in order before they are shuffled.
    let mut rows: Vec<usize> = (0..labels.len()).collect();
    rows.sort_by_key(|row| labels[*row]);
    if rows.is_empty() {
        return Err(LearnError::NotEnoughRows {
            rows: 0,
            needed: NEEDED,
        });
    }
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut split = Split {
        train: Vec::new(),
        test: Vec::new(),
    };
    for class in rows.chunk_by_mut(|a, b| labels[*a] == labels[*b]) {
        if class.len() < NEEDED {
            return Err(LearnError::NotEnoughRows {
                rows: class.len(),
                needed: NEEDED,
            });
        }
        class.shuffle(&mut rng);
        let held_out = ((class.len() as f64 * test_fraction).round() as usize).clamp(1, class.len() - 1);
        split.test.extend_from_slice(&class[..held_out]);
        split.train.extend_from_slice(&class[held_out..]);
    }
    split.train.sort_unstable();
    split.test.sort_unstable();
    Ok(split)
}

//! The supervised view of a table: features, labels, and how rows are split.

use rand::{SeedableRng as _, seq::SliceRandom as _};
use rand_chacha::ChaCha8Rng;

use crate::{
    LearnError,
    table::{Column, Table},
};

/// Most classes of a label.
pub const MAX_CLASSES: usize = 256;

/// Rows of numbers, one row after the other.
#[derive(Debug, Clone, PartialEq)]
pub struct Matrix {
    columns: usize,
    values: Vec<f64>,
}

impl Matrix {
    /// The columns of `table` with these names, as rows; NaN where a value is missing.
    ///
    /// # Errors
    /// [`LearnError::UnknownColumn`], [`LearnError::NonNumericFeature`].
    pub fn from_table(table: &Table, names: &[String]) -> Result<Self, LearnError> {
        let mut values = vec![f64::NAN; table.rows() * names.len()];
        for (index, name) in names.iter().enumerate() {
            let column = table.column(name).ok_or_else(|| unknown(table, name, false))?;
            let Column::Numeric(numbers) = column else {
                return Err(LearnError::NonNumericFeature { column: name.clone() });
            };
            for (slot, number) in values.iter_mut().skip(index).step_by(names.len()).zip(numbers) {
                *slot = *number;
            }
        }
        Ok(Self { columns: names.len(), values })
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.values.len().checked_div(self.columns).unwrap_or(0)
    }

    /// Number of columns.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// Row `index`, which must be one.
    pub fn row(&self, index: usize) -> &[f64] {
        &self.values[index * self.columns..(index + 1) * self.columns]
    }

    /// All rows, in order.
    pub fn iter(&self) -> impl Iterator<Item = &[f64]> {
        self.values.chunks_exact(self.columns.max(1))
    }
}

/// Features and labels.
#[derive(Debug, Clone, PartialEq)]
pub struct Problem {
    /// Names of the features, in the order of the matrix's columns.
    pub feature_names: Vec<String>,
    /// The features.
    pub features: Matrix,
    /// Index into `classes`, by row.
    pub labels: Vec<u32>,
    /// The classes; in ascending order of their text (or number) unless given.
    pub classes: Vec<String>,
}

impl Problem {
    /// To predict `label` from `features` (by default every other column).
    ///
    /// # Errors
    /// What keeps the table from being learnt from.
    pub fn from_table(table: &Table, label: &str, features: Option<&[String]>) -> Result<Self, LearnError> {
        let (labels, classes) = labels(table, label)?;
        if let [class] = classes.as_slice() {
            return Err(LearnError::OneClass { class: class.clone() });
        }
        let feature_names: Vec<String> = match features {
            Some(names) => names.iter().filter(|name| *name != label).cloned().collect(),
            None => table.names().iter().filter(|name| *name != label).cloned().collect(),
        };
        if feature_names.is_empty() {
            return Err(LearnError::NoFeatures);
        }
        let features = Matrix::from_table(table, &feature_names)?;
        Ok(Self { feature_names, features, labels, classes })
    }

    /// The same view as a model was trained with: its features, and its classes in its order.
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
        let mapping: Vec<u32> = own
            .iter()
            .map(|class| {
                let known = classes.iter().position(|known| known == class);
                known.map(|index| index as u32).ok_or_else(|| LearnError::UnknownClass { class: class.clone() })
            })
            .collect::<Result<_, _>>()?;
        Ok(Self {
            feature_names: feature_names.to_vec(),
            features: Matrix::from_table(table, feature_names)?,
            labels: labels.iter().map(|label| mapping[*label as usize]).collect(),
            classes: classes.to_vec(),
        })
    }
}

/// Labels by row, and the classes in order.
fn labels(table: &Table, label: &str) -> Result<(Vec<u32>, Vec<String>), LearnError> {
    let column = table.column(label).ok_or_else(|| unknown(table, label, true))?;
    let codes: Vec<Option<u32>>;
    let (codes, mut order): (&[Option<u32>], Vec<(u32, String)>) = match column {
        Column::Text { codes, dictionary } => (codes, (0..).zip(dictionary.iter().cloned()).collect()),
        Column::Numeric(numbers) => {
            let mut values: Vec<f64> = numbers.iter().copied().filter(|number| !number.is_nan()).collect();
            values.sort_by(f64::total_cmp);
            values.dedup();
            let code = |number: &f64| values.binary_search_by(|v| v.total_cmp(number)).ok().map(|at| at as u32);
            codes = numbers.iter().map(code).collect();
            (&codes, (0..).zip(values.iter().map(f64::to_string)).collect())
        }
    };
    if order.len() > MAX_CLASSES {
        return Err(LearnError::TooManyClasses { limit: MAX_CLASSES });
    }
    if matches!(column, Column::Text { .. }) {
        order.sort_by(|a, b| a.1.cmp(&b.1));
    }
    let mut rank = vec![0; order.len()];
    for (position, (code, _)) in order.iter().enumerate() {
        rank[*code as usize] = position as u32;
    }
    let labels = codes
        .iter()
        .enumerate()
        .map(|(row, code)| code.map(|code| rank[code as usize]).ok_or(LearnError::MissingLabel { row: row + 1 }))
        .collect::<Result<_, _>>()?;
    Ok((labels, order.into_iter().map(|(_, class)| class).collect()))
}

fn unknown(table: &Table, column: &str, is_label: bool) -> LearnError {
    let shown: Vec<&str> = table.names().iter().take(8).map(String::as_str).collect();
    let more = if table.names().len() > shown.len() { ", …" } else { "" };
    LearnError::UnknownColumn {
        column: column.to_owned(),
        available: format!("{}{more}", shown.join(", ")),
        is_label,
    }
}

/// Rows to train on and rows held out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Split {
    /// Ascending.
    pub train: Vec<usize>,
    /// Ascending.
    pub test: Vec<usize>,
}

/// Holds out `test_fraction` of the rows of each class, at least one and never all; the same for the same seed on every
/// machine.
///
/// # Errors
/// [`LearnError::TestFraction`], [`LearnError::NotEnoughRows`].
pub fn stratified_split(problem: &Problem, test_fraction: f64, seed: u64) -> Result<Split, LearnError> {
    if !(test_fraction > 0.0 && test_fraction < 1.0) {
        return Err(LearnError::TestFraction);
    }
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut split = Split { train: Vec::new(), test: Vec::new() };
    for (class, name) in (0..).zip(&problem.classes) {
        let mut rows: Vec<usize> =
            problem.labels.iter().enumerate().filter(|(_, label)| **label == class).map(|(row, _)| row).collect();
        if rows.len() < 2 {
            return Err(LearnError::NotEnoughRows { class: name.clone(), rows: rows.len() });
        }
        rows.shuffle(&mut rng);
        let held_out = ((rows.len() as f64 * test_fraction).round() as usize).clamp(1, rows.len() - 1);
        split.test.extend_from_slice(&rows[..held_out]);
        split.train.extend_from_slice(&rows[held_out..]);
    }
    split.train.sort_unstable();
    split.test.sort_unstable();
    Ok(split)
}

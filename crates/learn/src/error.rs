//! What keeps a table from becoming a model, or a model from predicting.

use std::fmt;

/// A failure of learning or predicting, each a thing that a caller can act on. No message holds a value of a cell.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum LearnError {
    /// There is no column of the label's name.
    #[error("there is no column `{label}` to use as the label; the columns are {available}")]
    UnknownLabel {
        /// What was asked for.
        label: String,
        /// What exists.
        available: Names,
    },
    /// There is no column of a feature's name.
    #[error("there is no column `{feature}` to use as a feature; the columns are {available}")]
    UnknownFeature {
        /// What was asked for.
        feature: String,
        /// What exists.
        available: Names,
    },
    /// The label was named as a feature too.
    #[error("the label `{label}` is also named as a feature; leave it out of the features")]
    LabelIsFeature {
        /// The column.
        label: String,
    },
    /// A feature was named twice.
    #[error("the feature `{feature}` is named twice; name it once")]
    DuplicateFeature {
        /// The column.
        feature: String,
    },
    /// A label is missing (empty, NaN, NA, …).
    #[error("row {row} has no label; drop or fill such rows")]
    MissingLabel {
        /// Data row, from 1.
        row: u64,
    },
    /// All rows are of one class.
    #[error("every row has the same value of `{label}`; learning needs at least two classes")]
    OneClass {
        /// The column.
        label: String,
    },
    /// The label has too many values to be a class.
    #[error("`{label}` has more than {limit} distinct values; choose a column of classes")]
    TooManyClasses {
        /// The column.
        label: String,
        /// Most classes.
        limit: usize,
    },
    /// A feature is text.
    #[error("the column `{column}` is not numeric; leave it out of the features or encode it as numbers")]
    NonNumericFeature {
        /// The column.
        column: String,
    },
    /// Nothing to learn from.
    #[error("there are no feature columns; name at least one besides the label")]
    NoFeatures,
    /// Too few rows, in all or of one class.
    #[error(
        "a class of the label has {rows} rows where {needed} are needed; add rows, or merge rare classes"
    )]
    NotEnoughRows {
        /// Rows of the rarest class, or in all.
        rows: usize,
        /// Least number of them.
        needed: usize,
    },
    /// A row index is outside the problem.
    #[error("row index {index} is outside the {rows} rows of the data")]
    RowOutOfRange {
        /// The index, from 0.
        index: usize,
        /// Rows there are.
        rows: usize,
    },
    /// The test share is outside (0, 1).
    #[error("the test share must lie between 0 and 1, both excluded")]
    TestFraction,
    /// Hyperparameters cannot be used.
    #[error("{}", join(.violations))]
    Hyperparameters {
        /// Every one that is wrong.
        violations: Vec<HyperparameterViolation>,
    },
    /// A row has another number of values than the model has features.
    #[error("a row has {found} values, the model reads {expected} features")]
    WrongWidth {
        /// Features of the model.
        expected: usize,
        /// Values of the row.
        found: usize,
    },
    /// A table has other features than the model, or the same in another order.
    #[error("feature {index} of the model is `{expected}`; give the model's features in its order")]
    WrongFeatures {
        /// First place that differs, from 0.
        index: usize,
        /// The model's feature there.
        expected: String,
    },
    /// A value is infinite.
    #[error("value {index} of a row is infinite; give a finite number, or NaN for a missing one")]
    NotFinite {
        /// From 0.
        index: usize,
    },
    /// The arithmetic of a prediction overflowed.
    #[error("the values of a row are too extreme for this model; check their units")]
    TooExtreme,
    /// A row to evaluate has a class that the model does not know.
    #[error("row {row} is of a class that the model does not know")]
    UnknownClass {
        /// Data row, from 1.
        row: u64,
    },
    /// The bytes are not a model of a known format.
    #[error("not a model: {0}")]
    NotAModel(&'static str),
    /// The solver did not come to finite weights.
    #[error("the training diverged; {advice}")]
    Diverged {
        /// What to change.
        advice: &'static str,
    },
    /// Progress was answered with a break.
    #[error("the training was cancelled")]
    Cancelled,
}

/// A hyperparameter that cannot be used, and what would be right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HyperparameterViolation {
    /// Its name.
    pub name: String,
    /// What would be right.
    pub problem: String,
}

impl fmt::Display for HyperparameterViolation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "hyperparameter `{}` {}", self.name, self.problem)
    }
}

/// Names of columns; displays the first few.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names(pub Vec<String>);

impl fmt::Display for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 8;
        let shown = &self.0[..self.0.len().min(SHOWN)];
        f.write_str(&shown.join(", "))?;
        if self.0.len() > SHOWN {
            write!(f, " and {} more", self.0.len() - SHOWN)?;
        }
        Ok(())
    }
}

fn join(violations: &[HyperparameterViolation]) -> String {
    violations
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join("; ")
}

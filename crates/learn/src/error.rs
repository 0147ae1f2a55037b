//! What keeps a table from becoming a model.

/// A failure of learning or predicting, each a thing that a caller can act on.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum LearnError {
    /// There is no column of that name.
    #[error("there is no column `{column}`; the columns are {available}")]
    UnknownColumn {
        /// What was asked for.
        column: String,
        /// The first few that exist.
        available: String,
        /// Whether it was asked for as the label.
        is_label: bool,
    },
    /// A label is missing.
    #[error("row {row} has no label; drop or fill such rows")]
    MissingLabel {
        /// Data row, from 1.
        row: usize,
    },
    /// All rows are of one class.
    #[error("every row is of the class `{class}`; learning needs at least two classes")]
    OneClass {
        /// The class.
        class: String,
    },
    /// The label has too many values to be a class.
    #[error("the label has more than {limit} distinct values; choose a column of classes")]
    TooManyClasses {
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
    /// A class is too rare to be in training and test alike.
    #[error("the class `{class}` has {rows} rows; each class needs at least 2")]
    NotEnoughRows {
        /// The class.
        class: String,
        /// Its rows.
        rows: usize,
    },
    /// The test share is outside (0, 1).
    #[error("the test share must lie between 0 and 1")]
    TestFraction,
    /// A hyperparameter cannot be used.
    #[error("hyperparameter `{name}` {problem}")]
    Hyperparameter {
        /// Which.
        name: String,
        /// What would be right.
        problem: String,
    },
    /// A row has another number of values than the model has features.
    #[error("a row has {found} values, the model reads {expected} features")]
    WrongWidth {
        /// Features of the model.
        expected: usize,
        /// Values of the row.
        found: usize,
    },
    /// A value is infinite.
    #[error("value {index} of a row is infinite; give a finite number, or NaN for a missing one")]
    NotFinite {
        /// From 0.
        index: usize,
    },
    /// A row to evaluate has a class that the model does not know.
    #[error("the data has the class `{class}`, which the model does not know")]
    UnknownClass {
        /// The class.
        class: String,
    },
    /// The bytes are not a model of a known format.
    #[error("not a model: {0}")]
    NotAModel(&'static str),
    /// The solver failed.
    #[error("training failed: {0}")]
    Training(String),
    /// Progress was answered with a break.
    #[error("the training was cancelled")]
    Cancelled,
}

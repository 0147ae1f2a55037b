//! What a stored model is once it is decrypted: trained here, or imported.

use asterism_fhe::{FheError, model as fhe, xgboost};
use asterism_learn::model::{Algorithm, Model};
use serde::{Deserialize, Serialize};

use crate::{encrypted::to_fhe, error::InferenceError, training};

/// How a model came to be.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(untagged)]
pub enum Method {
    /// By training here.
    Trained(Algorithm),
    /// By import.
    Imported(ImportedFrom),
}

/// What an imported model was read from.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum ImportedFrom {
    /// XGBoost's JSON format.
    ImportedXgboost,
}

/// A model in memory.
pub enum Content {
    /// Trained here.
    Trained(Box<Model>),
    /// Imported.
    Imported(Box<fhe::Model>),
}

/// The prediction of a row.
#[derive(Clone, Debug, PartialEq)]
pub struct Predicted {
    /// By class; empty for a regression.
    pub probabilities: Vec<f64>,
    /// Of an imported model, by output.
    pub scores: Vec<f64>,
}

impl Content {
    /// Reads what is stored of a model.
    ///
    /// # Errors
    /// Which of the ways it cannot be read.
    pub fn read(method: Method, bytes: &[u8]) -> Result<Self, String> {
        match method {
            Method::Trained(_) => Model::from_bytes(bytes)
                .map(|model| Self::Trained(Box::new(model)))
                .map_err(|error| error.to_string()),
            Method::Imported(ImportedFrom::ImportedXgboost) => xgboost::import(bytes)
                .map(|model| Self::Imported(Box::new(model)))
                .map_err(|error| error.to_string()),
        }
    }

    /// Columns that it reads, in order.
    pub fn features(&self) -> &[String] {
        match self {
            Self::Trained(model) => model.feature_names(),
            Self::Imported(model) => &model.features,
        }
    }

    /// Classes that it tells apart, in order; none for a regression.
    pub fn classes(&self) -> &[String] {
        match self {
            Self::Trained(model) => model.classes(),
            Self::Imported(model) => &model.classes,
        }
    }

    /// The model, if it was trained here.
    ///
    /// # Errors
    /// [`InferenceError::Imported`]
    pub fn trained(&self) -> Result<&Model, InferenceError> {
        match self {
            Self::Trained(model) => Ok(model),
            Self::Imported(_) => Err(InferenceError::Imported),
        }
    }

    /// The model as encrypted prediction compiles it.
    ///
    /// # Errors
    /// As [`to_fhe`].
    pub fn to_fhe(&self) -> Result<fhe::Model, InferenceError> {
        match self {
            Self::Trained(model) => to_fhe(model),
            Self::Imported(model) => Ok((**model).clone()),
        }
    }

    /// Predicts rows in the order of the features; NaN is a missing value.
    ///
    /// # Errors
    /// [`InferenceError::Field`] naming the row that does not fit the model.
    pub fn predict(&self, rows: &[Vec<f64>]) -> Result<Vec<Predicted>, InferenceError> {
        match self {
            Self::Trained(model) => Ok(training::predict(model, rows)?
                .into_iter()
                .map(|probabilities| Predicted {
                    probabilities,
                    scores: vec![],
                })
                .collect()),
            Self::Imported(model) => rows
                .iter()
                .enumerate()
                .map(|(index, row)| {
                    predicted(model, row).map_err(|error| {
                        InferenceError::field(format!("rows[{index}].values"), error.to_string())
                    })
                })
                .collect(),
        }
    }
}

fn predicted(model: &fhe::Model, row: &[f64]) -> Result<Predicted, FheError> {
    if let Some(index) = row.iter().position(|value| value.is_infinite()) {
        return Err(FheError::NotFinite { index });
    }
    let scores = model.scores(row)?;
    Ok(Predicted {
        probabilities: model.link.probabilities(&scores),
        scores,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_method_reads_back_and_those_of_older_manifests_do() {
        for (method, text) in [
            (
                Method::Trained(Algorithm::LogisticRegression),
                r#""logistic_regression""#,
            ),
            (
                Method::Imported(ImportedFrom::ImportedXgboost),
                r#""imported_xgboost""#,
            ),
        ] {
            assert_eq!(serde_json::to_string(&method).unwrap(), text);
            assert_eq!(serde_json::from_str::<Method>(text).unwrap(), method);
        }
        assert!(serde_json::from_str::<Method>(r#""imported_onnx""#).is_err());
    }
}

//! What scores mean.

/// How scores become what people ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Link {
    /// One score, itself the answer: regression.
    Identity,
    /// One score, the log-odds of the second of two classes.
    Logistic,
    /// A score for each class; softmax makes probabilities of them.
    Softmax,
    /// A score for each class that is its probability: the mean over a forest.
    Average,
}

impl Link {
    /// Probabilities by class, of scores by output; none for a regression.
    pub fn probabilities(self, scores: &[f64]) -> Vec<f64> {
        match self {
            Self::Identity => vec![],
            Self::Logistic => scores
                .first()
                .map(|score| 1.0 / (1.0 + (-score).exp()))
                .map_or_else(Vec::new, |second| vec![1.0 - second, second]),
            Self::Softmax => {
                let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let powers: Vec<f64> = scores.iter().map(|score| (score - largest).exp()).collect();
                let sum: f64 = powers.iter().sum();
                powers.into_iter().map(|power| power / sum).collect()
            }
            Self::Average => {
                let kept: Vec<f64> = scores.iter().map(|score| score.max(0.0)).collect();
                let sum: f64 = kept.iter().sum();
                let equal = 1.0 / kept.len() as f64;
                kept.into_iter()
                    .map(|score| if sum > 0.0 { score / sum } else { equal })
                    .collect()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_give_probabilities() {
        assert_eq!(Link::Logistic.probabilities(&[0.0]), [0.5, 0.5]);
        assert_eq!(Link::Softmax.probabilities(&[1.0, 1.0]), [0.5, 0.5]);
        assert_eq!(Link::Average.probabilities(&[1.0, 3.0]), [0.25, 0.75]);
        assert!(Link::Identity.probabilities(&[3.0]).is_empty());
    }
}

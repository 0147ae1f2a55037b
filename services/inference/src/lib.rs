//! Inference service: trains, evaluates and predicts with encrypted, signed models

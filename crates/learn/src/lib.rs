//! Tables to models: CSV, profiling, training, metrics and the model format: pure, no I/O

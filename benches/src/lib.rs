//! Criterion benches and compare reports

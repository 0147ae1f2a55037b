//! Ingest service: encrypts, signs, stores and verifies datasets

//! One file per verb group.

pub mod audit;
pub mod backup;
pub mod bench;
pub mod channel;
pub mod datasets;
pub mod demo;
pub mod fhe;
pub mod firewall;
pub mod identity;
pub mod keys;
pub mod kms;
pub mod login;
pub mod models;
pub mod policy;
pub mod predict;
pub mod proxy;
pub mod token;
pub mod up;

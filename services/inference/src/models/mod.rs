//! Models at rest: encrypted under a data key of their own, described by a signed manifest.

mod cache;
mod content;
mod id;
mod manifest;
mod registry;

pub use cache::{ModelCache, Origin, Verified};
pub use content::{Content, ImportedFrom, Method, Predicted};
pub use id::ModelId;
pub use manifest::{FORMAT, MODEL_MANIFEST_DOMAIN, ModelManifest, model_context};
pub use registry::{Compilation, Registry, RequestKey, StoredModel};

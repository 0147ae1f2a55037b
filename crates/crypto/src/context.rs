//! Canonical additional authenticated data.

/// Builds additional authenticated data from named fields.
///
/// Injective: a purpose and a list of fields encode to bytes that no other purpose or list does, because every part
/// carries its length.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Context {
    encoded: Vec<u8>,
}

impl Context {
    /// A context for one purpose, such as `asterism/dataset/v1`.
    pub fn new(purpose: &str) -> Self {
        let mut context = Self { encoded: Vec::new() };
        context.part(purpose.as_bytes());
        context
    }

    /// Adds a field. Order matters.
    #[must_use]
    pub fn field(mut self, name: &str, value: &str) -> Self {
        self.part(name.as_bytes());
        self.part(value.as_bytes());
        self
    }

    /// The bytes to authenticate.
    pub fn encode(self) -> Vec<u8> {
        self.encoded
    }

    fn part(&mut self, bytes: &[u8]) {
        self.encoded
            .extend_from_slice(&(bytes.len() as u64).to_be_bytes());
        self.encoded.extend_from_slice(bytes);
    }
}

//! Compact bearer tokens: `v1.` base64url(claims) `.` base64url(HMAC-SHA256).

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

use crate::{CryptoError, MacKey, SecretKey, kdf};

/// Longest token that is looked at.
const MAX_TOKEN_BYTES: usize = 4096;
const PREFIX: &str = "v1";

/// Makes and checks tokens.
pub struct TokenKey(MacKey);

impl TokenKey {
    /// A token key from a long-lived secret.
    pub fn new(secret: &SecretKey) -> Self {
        Self(MacKey::new(kdf::derive(secret, b"", "asterism/token/v1", b"")))
    }

    /// A token that carries `claims`.
    pub fn mint(&self, claims: &[u8]) -> String {
        let body = format!("{PREFIX}.{}", URL_SAFE_NO_PAD.encode(claims));
        let tag = self.0.compute(body.as_bytes());
        format!("{body}.{}", URL_SAFE_NO_PAD.encode(tag.as_bytes()))
    }

    /// The claims of a token that this key made.
    ///
    /// # Errors
    /// [`CryptoError::Malformed`], [`CryptoError::Authentication`].
    pub fn verify(&self, token: &str) -> Result<Vec<u8>, CryptoError> {
        const MALFORMED: CryptoError = CryptoError::Malformed("token");
        if token.len() > MAX_TOKEN_BYTES {
            return Err(MALFORMED);
        }
        let (body, tag) = token.rsplit_once('.').ok_or(MALFORMED)?;
        let tag = URL_SAFE_NO_PAD.decode(tag).map_err(|_| MALFORMED)?;
        self.0.verify(body.as_bytes(), &tag)?;
        let claims = body
            .strip_prefix(PREFIX)
            .and_then(|rest| rest.strip_prefix('.'))
            .ok_or(MALFORMED)?;
        URL_SAFE_NO_PAD.decode(claims).map_err(|_| MALFORMED)
    }
}

//! Signed tokens: compact JWS (RFC 7515) with ES256 (RFC 7518, 3.4), and no other form of it.
//!
//! `base64url(header) . base64url(payload) . base64url(r || s)`, without padding. The header is
//! `{"alg":"ES256","typ":"at+jwt","kid":"…"}`: other algorithms (`none`, `HS256`), other members (`jwk`, `jku`, `crit`, `b64`) and members that come
//! twice are refused before a key is looked up. A token names its key; it never brings one.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};

use crate::{CryptoError, Signature, SigningKey, VerifyingKey};

/// Longest token that is looked at.
pub const MAX_TOKEN_BYTES: usize = 4096;
const MAX_KID_BYTES: usize = 64;
const ALGORITHM: &str = "ES256";
const TYPE: &str = "at+jwt";
const MALFORMED: CryptoError = CryptoError::Malformed("signed token");

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    alg: String,
    typ: String,
    kid: String,
}

/// A token whose form is right, and of which nothing is believed yet.
pub struct Unverified<'a> {
    kid: String,
    signed: &'a str,
    payload: Vec<u8>,
    signature: Signature,
}

impl<'a> Unverified<'a> {
    /// Reads a token.
    ///
    /// # Errors
    /// [`CryptoError::Malformed`] for anything but the one form above.
    pub fn parse(token: &'a str) -> Result<Self, CryptoError> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(MALFORMED);
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(MALFORMED)?;
        let (header, payload) = signed.split_once('.').ok_or(MALFORMED)?;
        let header: Header = serde_json::from_slice(&decode(header)?).map_err(|_| MALFORMED)?;
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        let kid_is_decent = (1..=MAX_KID_BYTES).contains(&header.kid.len()) && header.kid.bytes().all(plain);
        if header.alg != ALGORITHM || header.typ != TYPE || !kid_is_decent {
            return Err(MALFORMED);
        }
        Ok(Self {
            kid: header.kid,
            signed,
            payload: decode(payload)?,
            signature: Signature::from_fixed(&decode(signature)?).map_err(|_| MALFORMED)?,
        })
    }

    /// Which key it claims to be signed with.
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// The payload, if `key` signed it.
    ///
    /// # Errors
    /// [`CryptoError::InvalidSignature`]
    pub fn verify(self, key: &VerifyingKey) -> Result<Vec<u8>, CryptoError> {
        key.verify(self.signed.as_bytes(), &self.signature)?;
        Ok(self.payload)
    }
}

/// Signs `payload` with the key that verifiers know as `kid`.
pub fn sign(key: &SigningKey, kid: &str, payload: &[u8]) -> String {
    let header = Header {
        alg: ALGORITHM.to_owned(),
        typ: TYPE.to_owned(),
        kid: kid.to_owned(),
    };
    let header = serde_json::to_vec(&header).expect("three texts serialise");
    let signed = format!(
        "{}.{}",
        URL_SAFE_NO_PAD.encode(header),
        URL_SAFE_NO_PAD.encode(payload)
    );
    let signature = key.sign(signed.as_bytes()).to_fixed();
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
}

/// The engine refuses padding and bits that say nothing: one token has one spelling.
fn decode(text: &str) -> Result<Vec<u8>, CryptoError> {
    URL_SAFE_NO_PAD.decode(text).map_err(|_| MALFORMED)
}

#[cfg(test)]
mod tests {
    use hmac::{Hmac, KeyInit as _, Mac as _};
    use proptest::prelude::*;

    use super::*;

    fn opened(token: &str, key: &SigningKey) -> Result<Vec<u8>, CryptoError> {
        Unverified::parse(token)?.verify(&key.verifying_key())
    }

    fn joined(header: &str, payload: &[u8], signature: &[u8]) -> String {
        [header.as_bytes(), payload, signature]
            .map(|part| URL_SAFE_NO_PAD.encode(part))
            .join(".")
    }

    /// RFC 7515, A.3: key, header, payload and signature of its example for ES256. Its header has no kid, so that it must be
    /// refused here; its signature is checked below the header's rules.
    #[test]
    fn the_signature_of_rfc_7515_verifies() {
        let d = URL_SAFE_NO_PAD
            .decode("jpsQnnGQmL-YBIffH1136cspYG6-0iY7X1fCE9-E9LI")
            .expect("key");
        let key = SigningKey::from_bytes(&d).expect("key");
        let signed = "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
        let signature =
            "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q";
        let signature =
            Signature::from_fixed(&URL_SAFE_NO_PAD.decode(signature).expect("text")).expect("form");
        key.verifying_key()
            .verify(signed.as_bytes(), &signature)
            .expect("verifies");
        let token = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature.to_fixed()));
        assert!(Unverified::parse(&token).is_err(), "a header without kid and typ");
    }

    #[test]
    fn a_token_opens_with_its_key_only() {
        let (key, other) = (
            SigningKey::generate().expect("key"),
            SigningKey::generate().expect("key"),
        );
        let token = sign(&key, "k1", b"payload");
        assert_eq!(Unverified::parse(&token).expect("form").kid(), "k1");
        assert_eq!(opened(&token, &key).expect("opens"), b"payload");
        assert_eq!(opened(&token, &other).err(), Some(CryptoError::InvalidSignature));
    }

    #[test]
    fn other_algorithms_and_headers_are_refused_before_any_key() {
        let key = SigningKey::generate().expect("key");
        let sign_raw = |header: &str| {
            let signed = format!(
                "{}.{}",
                URL_SAFE_NO_PAD.encode(header),
                URL_SAFE_NO_PAD.encode(b"{}")
            );
            let signature = key.sign(signed.as_bytes()).to_fixed();
            format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
        };
        assert!(opened(&sign_raw(r#"{"alg":"ES256","typ":"at+jwt","kid":"k1"}"#), &key).is_ok());
        for header in [
            r#"{"alg":"none","typ":"at+jwt","kid":"k1"}"#,
            r#"{"alg":"es256","typ":"at+jwt","kid":"k1"}"#,
            r#"{"alg":"HS256","typ":"at+jwt","kid":"k1"}"#,
            r#"{"alg":"ES384","typ":"at+jwt","kid":"k1"}"#,
            r#"{"alg":"ES256","typ":"JWT","kid":"k1"}"#,
            r#"{"alg":"ES256","typ":"at+jwt"}"#,
            r#"{"alg":"ES256","typ":"at+jwt","kid":""}"#,
            r#"{"alg":"ES256","typ":"at+jwt","kid":"../k1"}"#,
            r#"{"alg":"none","alg":"ES256","typ":"at+jwt","kid":"k1"}"#,
            r#"{"alg":"ES256","typ":"at+jwt","kid":"k1","jku":"https://example.com"}"#,
            r#"{"alg":"ES256","typ":"at+jwt","kid":"k1","jwk":{}}"#,
            r#"{"alg":"ES256","typ":"at+jwt","kid":"k1","crit":["b64"],"b64":false}"#,
            "",
            "[]",
        ] {
            assert!(Unverified::parse(&sign_raw(header)).is_err(), "{header}");
        }
        // The public key as the secret of an HMAC: the confusion of RFC 8725, 2.1.
        let signed = format!(
            "{}.{}",
            URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256","typ":"at+jwt","kid":"k1"}"#),
            URL_SAFE_NO_PAD.encode(b"{}")
        );
        let secret = key.verifying_key().to_pem();
        let mut mac = Hmac::<sha2::Sha256>::new_from_slice(secret.as_bytes()).expect("any length");
        mac.update(signed.as_bytes());
        let confused = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes()));
        assert!(opened(&confused, &key).is_err());
        assert!(
            opened(
                &joined(r#"{"alg":"none","typ":"at+jwt","kid":"k1"}"#, b"{}", b""),
                &key
            )
            .is_err()
        );
    }

    #[test]
    fn truncated_extended_and_oversized_tokens_are_refused() {
        let key = SigningKey::generate().expect("key");
        let token = sign(&key, "k1", br#"{"sub":"user/alice"}"#);
        for end in 0..token.len() {
            assert!(opened(&token[..end], &key).is_err(), "{end}");
        }
        for more in [".", "=", "A", ".AAAA", " "] {
            assert!(opened(&format!("{token}{more}"), &key).is_err(), "{more}");
        }
        assert!(opened(&sign(&key, "k1", &[b'x'; 3 * MAX_TOKEN_BYTES / 4]), &key).is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn no_altered_token_opens(at in any::<prop::sample::Index>(), to in "[A-Za-z0-9_.-]") {
            let key = SigningKey::from_bytes(&[7; 32]).expect("key");
            let token = sign(&key, "k1", b"payload");
            let at = at.index(token.len());
            let mut altered = token.clone();
            altered.replace_range(at..=at, &to);
            prop_assume!(altered != token);
            prop_assert!(opened(&altered, &key).is_err());
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in "\\PC{0,200}") {
            let _ = Unverified::parse(&text);
        }
    }
}

//! Codes by time (RFC 6238): six digits every 30 seconds under HMAC-SHA-1, which is what authenticator apps know.

use totp_rs::{Builder, Totp};
use zeroize::Zeroizing;

use crate::CryptoError;

/// Seconds for which one code stands.
pub const STEP_SECONDS: u64 = 30;
/// Digits of a code.
pub const DIGITS: u8 = 6;
/// Bytes of a secret: as many as HMAC-SHA-1 puts out (RFC 4226, 4).
pub const SECRET_BYTES: usize = 20;
/// Steps by which the other clock may be ahead or behind.
const SKEW: u64 = 1;

/// A shared secret.
pub struct TotpSecret(Zeroizing<Vec<u8>>);

impl TotpSecret {
    /// A secret from its bytes.
    ///
    /// # Errors
    /// [`CryptoError::InvalidKey`] for less than 16 bytes or more than 64.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, CryptoError> {
        if !(16..=64).contains(&bytes.len()) {
            return Err(CryptoError::InvalidKey);
        }
        Ok(Self(Zeroizing::new(bytes.to_vec())))
    }

    /// The bytes: handle with care.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// The code of the step with this number (seconds since 1970 by 30).
    pub fn code(&self, step: u64) -> String {
        self.generator()
            .generate(step.saturating_mul(STEP_SECONDS))
            .to_string()
    }

    /// The step to which `code` belongs, if that is the present one or a neighbour, and later than `after`: who keeps the
    /// answer as the next `after` takes each code once. Takes the same time whichever step it is.
    pub fn check(&self, code: &str, now_seconds: u64, after: Option<u64>) -> Option<u64> {
        use subtle::ConstantTimeEq as _;
        let present = now_seconds / STEP_SECONDS;
        let mut found = None;
        for step in present.saturating_sub(SKEW)..=present + SKEW {
            let fits: bool = self.code(step).as_bytes().ct_eq(code.as_bytes()).into();
            if fits && after.is_none_or(|after| step > after) {
                found = Some(step);
            }
        }
        found
    }

    fn generator(&self) -> Totp {
        Builder::new()
            .with_secret(self.0.to_vec())
            .with_digits(DIGITS)
            .with_step_duration(STEP_SECONDS)
            .build_noncompliant()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret() -> TotpSecret {
        TotpSecret::from_bytes(b"12345678901234567890").expect("20 bytes")
    }

    /// RFC 6238, appendix B, SHA-1; of its eight digits the last six.
    #[test]
    fn the_vectors_of_rfc_6238() {
        for (seconds, code) in [
            (59, "287082"),
            (1_111_111_109, "081804"),
            (1_111_111_111, "050471"),
            (1_234_567_890, "005924"),
            (2_000_000_000, "279037"),
            (20_000_000_000, "353130"),
        ] {
            assert_eq!(secret().code(seconds / STEP_SECONDS), code, "{seconds}");
            assert_eq!(secret().check(code, seconds, None), Some(seconds / STEP_SECONDS));
        }
    }

    #[test]
    fn a_code_counts_in_its_step_and_beside_it_and_once() {
        let code = secret().code(1000);
        for (step, good) in [
            (998, false),
            (999, true),
            (1000, true),
            (1001, true),
            (1002, false),
        ] {
            assert_eq!(
                secret().check(&code, step * STEP_SECONDS, None).is_some(),
                good,
                "{step}"
            );
        }
        let now = 1000 * STEP_SECONDS;
        let used = secret().check(&code, now, None);
        assert_eq!(used, Some(1000));
        assert_eq!(secret().check(&code, now, used), None, "a second time");
        assert_eq!(
            secret().check(&secret().code(999), now, used),
            None,
            "an earlier one after it"
        );
        assert_eq!(secret().check(&secret().code(1001), now, used), Some(1001));
    }

    #[test]
    fn what_is_no_code_is_refused() {
        for code in ["", "0", "00000", "0000000", "12345a", " 05471", "０５０４７１"] {
            assert_eq!(secret().check(code, 1_111_111_111, None), None, "{code}");
        }
        assert!(TotpSecret::from_bytes(&[1; 15]).is_err());
        assert!(TotpSecret::from_bytes(&[1; 65]).is_err());
    }
}

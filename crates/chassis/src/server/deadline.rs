//! How long a call may take.
//!
//! tonic answers CANCELLED when the caller's `grpc-timeout` passes, with a timer outside of every layer. Ours is
//! set a little shorter, so that it fires first and the answer DEADLINE_EXCEEDED still reaches the caller.

use std::time::{Duration, Instant};

use http::HeaderMap;

use super::method_path::Method;
use crate::config::Limits;

/// When the answer of a call is worthless to its caller. In a request's extensions: always for calls that answer
/// once, for server streams only when the caller set a deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadline(pub Instant);

/// The time that a call has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Budget {
    /// Until the answer, or the first headers of a streamed one. Zero: the call is over before it begins.
    pub(super) headers: Duration,
    /// Until the end of the call.
    pub(super) whole: Option<Duration>,
}

impl Budget {
    pub(super) fn of(headers: &HeaderMap, method: Option<Method>, limits: &Limits) -> Self {
        let asked = headers
            .get("grpc-timeout")
            .and_then(|value| parse(value.to_str().ok()?))
            .map(ahead_of_tonic);
        let longest = limits.max_deadline();
        let client_streaming = method.is_some_and(|method| method.client_streaming);
        let server_streaming = method.is_some_and(|method| method.server_streaming);
        let headers = match asked {
            Some(asked) => asked.min(longest),
            // An upload answers after its last byte: the longest time is its default.
            None if client_streaming => longest,
            None => limits.default_deadline(),
        };
        // A watch may stay open for as long as its caller likes.
        let whole = if server_streaming { asked } else { Some(headers) };
        Self { headers, whole }
    }
}

/// Takes a quarter off, at least 1 ms (the grain of tokio's timers, so that ours is due in an earlier tick) and at
/// most 5 ms. Of less than 2 ms nothing remains.
fn ahead_of_tonic(asked: Duration) -> Duration {
    if asked < Duration::from_millis(2) {
        return Duration::ZERO;
    }
    asked - (asked / 4).clamp(Duration::from_millis(1), Duration::from_millis(5))
}

/// `1*8DIGIT` and a unit (gRPC over HTTP/2, `Timeout`). Anything else counts as absent, as in tonic.
fn parse(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(count * 3600)),
        "M" => Some(Duration::from_secs(count * 60)),
        "S" => Some(Duration::from_secs(count)),
        "m" => Some(Duration::from_millis(count)),
        "u" => Some(Duration::from_micros(count)),
        "n" => Some(Duration::from_nanos(count)),
        _ => None,
    }
}

//! How long calls get, by what their callers asked and what their methods are.

use std::time::Duration;

use http::{HeaderMap, HeaderValue};
use proptest::prelude::*;

use crate::{
    config::Limits,
    server::{
        deadline::Budget,
        method_path::{Method, MethodPath},
    },
};

const UNARY: &str = "asterism.audit.v1.AuditService/ListEvents";
const SERVER_STREAM: &str = "asterism.audit.v1.AuditService/WatchEvents";
const BIDI: &str = "grpc.reflection.v1.ServerReflection/ServerReflectionInfo";

fn budget(method: &str, timeout: Option<&str>) -> Budget {
    let mut headers = HeaderMap::new();
    if let Some(timeout) = timeout {
        headers.insert("grpc-timeout", HeaderValue::from_str(timeout).unwrap());
    }
    Budget::of(
        &headers,
        Method::find(&MethodPath(method.to_owned())),
        &Limits::default(),
    )
}

#[test]
fn the_contracts_say_which_methods_stream() {
    let find = |path: &str| Method::find(&MethodPath(path.to_owned()));
    let watch = find(SERVER_STREAM).unwrap();
    assert!(watch.server_streaming && !watch.client_streaming && watch.is_endless());
    let list = find(UNARY).unwrap();
    assert!(!list.server_streaming && !list.client_streaming && !list.is_endless());
    assert!(find("grpc.health.v1.Health/Watch").unwrap().is_endless());
    assert!(find(BIDI).unwrap().is_endless());
    assert_eq!(find("asterism.audit.v1.AuditService/Nonsense"), None);
}

#[test]
fn without_a_timeout_the_defaults_hold() {
    let limits = Limits::default();
    for path in [UNARY, "unknown.Service/Method"] {
        let got = budget(path, None);
        assert_eq!(
            (got.headers, got.whole),
            (limits.default_deadline(), Some(limits.default_deadline()))
        );
    }
    let got = budget(SERVER_STREAM, None);
    assert_eq!((got.headers, got.whole), (limits.default_deadline(), None));
    assert_eq!(budget(BIDI, None).headers, limits.max_deadline());
}

#[test]
fn a_timeout_is_kept_a_little_early() {
    for (text, milliseconds) in [
        ("1S", 995),
        ("2M", 119_995),
        ("100m", 95),
        ("20000u", 15),
        ("8m", 6),
        ("2m", 1),
    ] {
        let got = budget(UNARY, Some(text)).headers;
        assert_eq!(got.as_millis(), milliseconds, "{text}");
    }
    assert_eq!(budget(UNARY, Some("1m")).headers, Duration::ZERO);
    assert_eq!(
        budget(UNARY, Some("99999999H")).headers,
        Limits::default().max_deadline()
    );
    assert_eq!(
        budget(SERVER_STREAM, Some("1H")).whole,
        Some(Duration::from_millis(3_599_995)),
        "a stream may last longer than a call"
    );
}

#[test]
fn a_malformed_timeout_counts_as_absent() {
    for text in ["", "m", "5", "-1m", "+1m", "1 m", "123456789m", "1x", "1mm", "é"] {
        let mut headers = HeaderMap::new();
        headers.insert("grpc-timeout", HeaderValue::from_bytes(text.as_bytes()).unwrap());
        assert_eq!(
            Budget::of(&headers, None, &Limits::default()).headers,
            Limits::default().default_deadline()
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn no_header_makes_it_panic_or_exceed_the_bound(bytes in prop::collection::vec(any::<u8>(), 0..12)) {
        let mut headers = HeaderMap::new();
        if let Ok(value) = HeaderValue::from_bytes(&bytes) {
            headers.insert("grpc-timeout", value);
        }
        prop_assert!(Budget::of(&headers, None, &Limits::default()).headers <= Limits::default().max_deadline());
    }
}

#![allow(clippy::unwrap_used, clippy::panic)]

use http::{HeaderMap, HeaderValue};
use tonic::metadata::MetadataMap;
use tracing::Span;

use super::*;

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";

fn adopted(traceparent: Option<&str>) -> String {
    let mut headers = HeaderMap::new();
    if let Some(text) = traceparent {
        headers.insert("traceparent", HeaderValue::from_str(text).unwrap());
    }
    RequestTrace::of(&headers).adopt(&Span::none()).0
}

#[test]
fn a_caller_s_trace_goes_on() {
    assert_eq!(adopted(Some(&format!("00-{TRACE}-b7ad6b7169203331-01"))), TRACE);
    assert_eq!(
        adopted(Some(&format!("00-{TRACE}-b7ad6b7169203331-00"))),
        TRACE,
        "also when it is not sampled"
    );
}

#[test]
fn without_a_sound_traceparent_there_is_a_fresh_trace() {
    let zeros = "0".repeat(32);
    for text in [
        None,
        Some("nonsense"),
        Some("00-short-b7ad6b7169203331-01"),
        Some(&*format!("00-{zeros}-b7ad6b7169203331-01")),
        Some(&*format!("ff-{TRACE}-b7ad6b7169203331-01")),
    ] {
        let (one, two) = (adopted(text), adopted(text));
        assert!(
            one.len() == 32
                && one
                    .bytes()
                    .all(|c| c.is_ascii_hexdigit() && !c.is_ascii_uppercase())
        );
        assert_ne!(one, zeros);
        assert_ne!(one, two, "{text:?}");
    }
}

#[test]
fn a_known_trace_is_carried_without_a_span() {
    let mut metadata = MetadataMap::new();
    inject(&mut metadata);
    assert!(metadata.is_empty(), "no span, nothing to say");
    for wrong in ["", "zz", "0af7", &"0".repeat(32)] {
        inject_with(&mut metadata, wrong);
        assert!(metadata.is_empty(), "{wrong}");
    }
    inject_with(&mut metadata, TRACE);
    let sent = metadata.get("traceparent").unwrap().to_str().unwrap();
    assert_eq!(adopted(Some(sent)), TRACE, "the other side reads it back");
}

#[test]
fn a_bad_filter_is_refused_before_anything_is_installed() {
    let log = LogConfig {
        filter: "info,=[".to_owned(),
        ..LogConfig::default()
    };
    let config = TelemetryConfig {
        log,
        otlp_endpoint: None,
    };
    assert!(matches!(init("kms", &config), Err(TelemetryError::Filter)));
}

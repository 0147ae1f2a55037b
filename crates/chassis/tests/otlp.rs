//! Spans and measurements arrive at an OTLP receiver. Alone in its process: telemetry is global.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

use std::sync::{Arc, Mutex};

use asterism_chassis::{
    config::{Common, LogConfig},
    server::Server,
    telemetry::{self, TelemetryConfig, names},
};
use opentelemetry_proto::tonic::{
    collector::{
        metrics::v1::{
            ExportMetricsServiceRequest, ExportMetricsServiceResponse,
            metrics_service_server::{MetricsService, MetricsServiceServer},
        },
        trace::v1::{
            ExportTraceServiceRequest, ExportTraceServiceResponse,
            trace_service_server::{TraceService, TraceServiceServer},
        },
    },
    common::v1::{KeyValue, any_value::Value},
    metrics::v1::{Histogram, metric::Data},
    trace::v1::{Span, span::SpanKind},
};
use tokio::net::TcpListener;
use tonic::{Request, Response, Status};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

#[derive(Clone, Default)]
struct Collector {
    spans: Arc<Mutex<Vec<ExportTraceServiceRequest>>>,
    metrics: Arc<Mutex<Vec<ExportMetricsServiceRequest>>>,
}

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        self.spans.lock().unwrap().push(request.into_inner());
        Ok(Response::new(Default::default()))
    }
}

#[tonic::async_trait]
impl MetricsService for Collector {
    async fn export(
        &self,
        request: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        self.metrics.lock().unwrap().push(request.into_inner());
        Ok(Response::new(Default::default()))
    }
}

impl Collector {
    fn spans(&self) -> Vec<Span> {
        let exports = self.spans.lock().unwrap();
        let scopes = exports
            .iter()
            .flat_map(|export| &export.resource_spans)
            .flat_map(|r| &r.scope_spans);
        scopes.flat_map(|scope| scope.spans.clone()).collect()
    }

    fn durations(&self) -> Vec<Histogram> {
        let exports = self.metrics.lock().unwrap();
        let scopes = exports
            .iter()
            .flat_map(|export| &export.resource_metrics)
            .flat_map(|r| &r.scope_metrics);
        scopes
            .flat_map(|scope| scope.metrics.clone())
            .filter(|metric| metric.name == names::RPC_SERVER_CALL_DURATION)
            .filter_map(|metric| match metric.data {
                Some(Data::Histogram(histogram)) => Some(histogram),
                _ => None,
            })
            .collect()
    }

    fn resource(&self, key: &str) -> Option<String> {
        let exports = self.spans.lock().unwrap();
        text(
            &exports
                .first()?
                .resource_spans
                .first()?
                .resource
                .as_ref()?
                .attributes,
            key,
        )
    }
}

fn text(attributes: &[KeyValue], key: &str) -> Option<String> {
    match attributes
        .iter()
        .find(|attribute| attribute.key == key)?
        .value
        .as_ref()?
        .value
        .as_ref()?
    {
        Value::StringValue(text) => Some(text.clone()),
        _ => None,
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test]
async fn a_call_is_exported_as_a_span_and_a_measurement() {
    let collector = Collector::default();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let router = tonic::transport::Server::builder()
        .add_service(TraceServiceServer::new(collector.clone()))
        .add_service(MetricsServiceServer::new(collector.clone()));
    tokio::spawn(router.serve_with_incoming(tokio_stream::wrappers::TcpListenerStream::new(listener)));

    // Every line is logged, also the exporter's own: still only our spans may be exported.
    let log = LogConfig {
        filter: "off".to_owned(),
        ..LogConfig::default()
    };
    let config = TelemetryConfig {
        log,
        otlp_endpoint: Some(endpoint),
    };
    let telemetry = telemetry::init("kms", &config).unwrap();
    let second = telemetry::init("audit", &config).unwrap();
    drop(second); // does nothing: the first keeps exporting

    let common = Common::embedded("kms", std::path::Path::new("unused"));
    let listener = TcpListener::bind(common.listen).await.unwrap();
    let running = Server::builder("kms", &common).spawn(listener).unwrap();
    let channel = tonic::transport::Channel::from_shared(running.url())
        .unwrap()
        .connect_lazy();
    let mut health = HealthClient::new(channel);
    let trace = "0af7651916cd43dd8448eb211c80319c";
    let mut request = Request::new(HealthCheckRequest::default());
    telemetry::inject_with(request.metadata_mut(), trace);
    health.check(request).await.unwrap();
    let unknown = HealthCheckRequest {
        service: "nonsense".to_owned(),
    };
    health.check(unknown).await.unwrap_err();
    running.shutdown().await;
    telemetry.shutdown().await;

    let spans = collector.spans();
    assert_eq!(spans.len(), 2, "{spans:#?}");
    let continued = spans
        .iter()
        .find(|span| hex(&span.trace_id) == trace)
        .expect("the caller's trace goes on");
    assert_eq!(continued.name, "grpc.health.v1.Health/Check");
    assert_eq!(continued.kind, SpanKind::Server as i32);
    assert_eq!(continued.parent_span_id.len(), 8);
    assert_eq!(
        text(&continued.attributes, names::RPC_SYSTEM_NAME).as_deref(),
        Some("grpc")
    );
    assert_eq!(
        text(&continued.attributes, names::RPC_METHOD).as_deref(),
        Some("grpc.health.v1.Health/Check")
    );
    assert_eq!(
        text(&continued.attributes, names::RPC_STATUS_CODE).as_deref(),
        Some("OK")
    );
    assert_eq!(
        collector.resource("service.name").as_deref(),
        Some("asterism-kms")
    );
    assert_eq!(
        collector.resource("service.version").as_deref(),
        Some(env!("CARGO_PKG_VERSION"))
    );
    assert!(collector.resource("service.instance.id").is_some());

    let points: Vec<_> = collector
        .durations()
        .into_iter()
        .flat_map(|histogram| histogram.data_points)
        .collect();
    for status in ["OK", "NOT_FOUND"] {
        let point = points
            .iter()
            .find(|point| text(&point.attributes, names::RPC_STATUS_CODE).as_deref() == Some(status))
            .unwrap_or_else(|| panic!("no measurement of {status}"));
        assert_eq!(point.explicit_bounds, names::DURATION_BUCKETS);
        assert_eq!(point.count, 1);
        assert!(point.sum.unwrap() < 10.0, "seconds, not milliseconds");
    }
}

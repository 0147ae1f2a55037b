//! Logs to standard error; traces and metrics to an OTLP receiver when one is configured.
//!
//! Log lines hold facts in fields and nothing that a user typed: no row values, no tokens, no paths that are not
//! ours. Every request has a trace id (`traceparent` of the caller, or a fresh one) whether or not it is exported.

pub mod names;
mod propagation;
#[cfg(test)]
mod tests;

use std::{
    io::{IsTerminal as _, Write as _},
    sync::{
        Once,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    time::Duration,
};

use opentelemetry::{KeyValue, global, trace::TracerProvider as _};
use opentelemetry_otlp::{MetricExporter, SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::{
    Resource,
    metrics::{PeriodicReader, SdkMeterProvider},
    propagation::TraceContextPropagator,
    trace::{Sampler, SdkTracerProvider},
};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::{
    EnvFilter, Registry,
    filter::Targets,
    fmt,
    layer::{Layer, SubscriberExt as _},
};

use crate::config::{Common, LogConfig, LogFormat};

pub(crate) use propagation::RequestTrace;
pub use propagation::{TraceId, inject, inject_with};

/// How long an exporter may take, and how long a shutdown waits for the last export.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(5);
/// How often metrics are sent.
const METRIC_INTERVAL: Duration = Duration::from_secs(10);

/// What [`init`] needs.
#[derive(Clone, Debug, Default)]
pub struct TelemetryConfig {
    /// Form and filter of log lines.
    pub log: LogConfig,
    /// `http://host:port` of an OTLP/gRPC receiver.
    pub otlp_endpoint: Option<String>,
}

impl From<&Common> for TelemetryConfig {
    fn from(common: &Common) -> Self {
        Self {
            log: common.log.clone(),
            otlp_endpoint: common.otlp_endpoint.clone(),
        }
    }
}

/// Why telemetry cannot start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TelemetryError {
    /// The log filter is not valid.
    #[error("log.filter must be tracing directives such as `info,h2=warn`")]
    Filter,
    /// The exporter cannot be built for this endpoint.
    #[error("cannot export telemetry to the configured otlp_endpoint")]
    Exporter(#[source] opentelemetry_otlp::ExporterBuildError),
}

/// Flushes what is still to be exported when shut down or dropped.
#[must_use = "dropping the guard stops the export"]
#[derive(Default)]
pub struct TelemetryGuard {
    providers: Option<Providers>,
}

struct Providers {
    tracer: SdkTracerProvider,
    meter: Option<SdkMeterProvider>,
}

/// Installs logging and, with an endpoint, the export of traces and metrics for the whole process.
///
/// Call it inside a tokio runtime: the exporters' connections live on it. Only the first call of a process takes
/// effect; later ones (four services embedded in one process) answer a guard that does nothing. A subscriber that
/// somebody else installed is left in place.
///
/// # Errors
/// [`TelemetryError`] for a filter or an endpoint that cannot be used.
pub fn init(service: &'static str, config: &TelemetryConfig) -> Result<TelemetryGuard, TelemetryError> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    let filter = EnvFilter::try_new(&config.log.filter).map_err(|_| TelemetryError::Filter)?;
    if TAKEN.swap(true, Ordering::SeqCst) {
        return Ok(TelemetryGuard::default());
    }
    let resource = resource(service);
    let endpoint = config.otlp_endpoint.as_deref();
    let tracer = tracer_provider(resource.clone(), endpoint)?;
    let meter = endpoint
        .map(|endpoint| meter_provider(resource, endpoint))
        .transpose()?;

    global::set_text_map_propagator(TraceContextPropagator::new());
    global::set_tracer_provider(tracer.clone());
    if let Some(meter) = &meter {
        global::set_meter_provider(meter.clone());
    }
    let spans = tracing_opentelemetry::layer()
        .with_tracer(tracer.tracer(names::SCOPE))
        .with_location(false)
        .with_threads(false)
        .with_tracked_inactivity(false)
        .with_filter(exported_spans());
    // Fails only when a subscriber is installed already, which is then the one to keep.
    let subscriber = Registry::default()
        .with(spans)
        .with(log_layer(config.log.format).with_filter(filter));
    let _ = tracing::subscriber::set_global_default(subscriber);
    Ok(TelemetryGuard {
        providers: Some(Providers { tracer, meter }),
    })
}

fn log_layer<S>(format: LogFormat) -> Box<dyn Layer<S> + Send + Sync>
where
    S: tracing::Subscriber + for<'a> tracing_subscriber::registry::LookupSpan<'a>,
{
    match format {
        LogFormat::Text => {
            let colours = std::io::stderr().is_terminal();
            fmt::layer()
                .with_ansi(colours)
                .with_writer(std::io::stderr)
                .boxed()
        }
        LogFormat::Json => fmt::layer().json().with_writer(std::io::stderr).boxed(),
    }
}

/// The exporter itself speaks gRPC: without this its own spans would be exported, which makes new ones.
fn exported_spans() -> Targets {
    Targets::new()
        .with_default(LevelFilter::INFO)
        .with_target("h2", LevelFilter::OFF)
        .with_target("hyper", LevelFilter::OFF)
        .with_target("hyper_util", LevelFilter::OFF)
        .with_target("tonic", LevelFilter::OFF)
        .with_target("tower", LevelFilter::OFF)
        .with_target("opentelemetry", LevelFilter::OFF)
        .with_target("opentelemetry_sdk", LevelFilter::OFF)
        .with_target("opentelemetry-otlp", LevelFilter::OFF)
}

fn resource(service: &'static str) -> Resource {
    // `asterism` itself when all services share a process.
    let name = if service == "asterism" {
        service.to_owned()
    } else {
        format!("asterism-{service}")
    };
    Resource::builder()
        .with_service_name(name)
        .with_attribute(KeyValue::new("service.namespace", "asterism"))
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .with_attribute(KeyValue::new(
            "service.instance.id",
            uuid::Uuid::new_v4().to_string(),
        ))
        .build()
}

/// Without an endpoint the provider still gives every span its ids, so that trace ids go from service to service
/// and into audit events.
fn tracer_provider(resource: Resource, endpoint: Option<&str>) -> Result<SdkTracerProvider, TelemetryError> {
    let builder = SdkTracerProvider::builder()
        .with_resource(resource)
        .with_sampler(Sampler::ParentBased(Box::new(Sampler::AlwaysOn)));
    let Some(endpoint) = endpoint else {
        return Ok(builder.build());
    };
    let exporter = SpanExporter::builder()
        .with_tonic()
        .with_endpoint(endpoint)
        .with_timeout(EXPORT_TIMEOUT)
        .build()
        .map_err(TelemetryError::Exporter)?;
    Ok(builder.with_batch_exporter(exporter).build())
}

fn meter_provider(resource: Resource, endpoint: &str) -> Result<SdkMeterProvider, TelemetryError> {
    let exporter = MetricExporter::builder()
        .with_tonic()
        .with_endpoint(endpoint)
        .with_timeout(EXPORT_TIMEOUT)
        .build()
        .map_err(TelemetryError::Exporter)?;
    let reader = PeriodicReader::builder(exporter)
        .with_interval(METRIC_INTERVAL)
        .build();
    Ok(SdkMeterProvider::builder()
        .with_resource(resource)
        .with_reader(reader)
        .build())
}

impl TelemetryGuard {
    /// Sends what is left and stops exporting; waits 5 s at most.
    pub async fn shutdown(mut self) {
        if let Some(done) = self.begin_shutdown() {
            let wait = tokio::task::spawn_blocking(move || done.recv_timeout(EXPORT_TIMEOUT));
            let _ = wait.await;
        }
    }

    /// Shuts the providers down on a thread of their own: they block on exports that need the runtime, so a
    /// runtime thread that waited for them would lose the last spans.
    fn begin_shutdown(&mut self) -> Option<mpsc::Receiver<()>> {
        let providers = self.providers.take()?;
        let (finished, done) = mpsc::channel();
        std::thread::Builder::new()
            .name("telemetry-shutdown".to_owned())
            .spawn(move || {
                let _ = providers.tracer.shutdown_with_timeout(EXPORT_TIMEOUT);
                if let Some(meter) = providers.meter {
                    let _ = meter.shutdown();
                }
                let _ = finished.send(());
            })
            .ok()?;
        Some(done)
    }
}

impl Drop for TelemetryGuard {
    fn drop(&mut self) {
        let exports = self
            .providers
            .as_ref()
            .is_some_and(|providers| providers.meter.is_some());
        if let Some(done) = self.begin_shutdown().filter(|_| exports) {
            let _ = done.recv_timeout(Duration::from_secs(1));
        }
    }
}

/// Sends panics to the log instead of bare standard error, without their payload: a panic's text may quote data.
pub fn log_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        std::panic::set_hook(Box::new(|panic| {
            let location = panic.location().map(ToString::to_string).unwrap_or_default();
            if tracing::dispatcher::has_been_set() {
                tracing::error!(location, "panic");
            } else {
                let _ = writeln!(std::io::stderr(), "error: panic at {location}");
            }
        }));
    });
}

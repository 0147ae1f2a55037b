//! The names of what is measured: OpenTelemetry's RPC conventions (release candidate) and our own, in one place.

/// Name of the instrumentation scope.
pub const SCOPE: &str = "asterism";

/// Histogram, seconds: from the first byte of a call's headers to the end of its answer.
pub const RPC_SERVER_CALL_DURATION: &str = "rpc.server.call.duration";
/// Histogram, seconds: the same as a caller sees it.
pub const RPC_CLIENT_CALL_DURATION: &str = "rpc.client.call.duration";
/// Bounds of both histograms, in seconds: the SDK's own are meant for milliseconds.
pub const DURATION_BUCKETS: [f64; 14] = [
    0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
];

/// Attribute: always `grpc`.
pub const RPC_SYSTEM_NAME: &str = "rpc.system.name";
/// Value of [`RPC_SYSTEM_NAME`].
pub const GRPC: &str = "grpc";
/// Attribute: `pkg.Service/Method`, or [`OTHER_METHOD`].
pub const RPC_METHOD: &str = "rpc.method";
/// Stands for every method that we do not serve, so that callers cannot make up new series.
pub const OTHER_METHOD: &str = "_OTHER";
/// Attribute: the gRPC status by name, e.g. `NOT_FOUND`.
pub const RPC_STATUS_CODE: &str = "rpc.response.status_code";

/// Counter: connections that were turned away; attribute `reason` = `total`, `per_ip`.
pub const CONNECTIONS_REFUSED: &str = "asterism.connections.refused";
/// Up-down counter: open connections.
pub const CONNECTIONS_OPEN: &str = "asterism.connections.open";
/// Gauge: requests waiting for a place.
pub const ADMISSION_QUEUE_DEPTH: &str = "asterism.admission.queue.depth";
/// Counter: requests refused because the queue was full.
pub const ADMISSION_QUEUE_REJECTED: &str = "asterism.admission.queue.rejected";
/// Counter: tokens checked.
pub const AUTH_ATTEMPTS: &str = "asterism.auth.attempts";
/// Counter: calls refused by policy.
pub const AUTHZ_DENIED: &str = "asterism.authz.denied";
/// Counter: operations with keys.
pub const KMS_OPERATIONS: &str = "asterism.kms.operations";
/// Gauge, seconds: age of a key's newest version.
pub const KMS_KEY_AGE: &str = "asterism.kms.key.age";
/// Counter: events in the log.
pub const AUDIT_APPENDED: &str = "asterism.audit.appended";
/// Gauge: events that wait in an outbox.
pub const AUDIT_LAG: &str = "asterism.audit.lag";

/// Histogram, seconds: a stage of an encrypted evaluation; attributes [`FHE_STAGE`] and [`FHE_PLAN`].
pub const FHE_STAGE_DURATION: &str = "asterism.fhe.stage.duration";
/// Bounds of [`FHE_STAGE_DURATION`], in seconds: stages take from microseconds to seconds.
pub const FHE_STAGE_BUCKETS: [f64; 12] = [
    1e-4, 2.5e-4, 1e-3, 2.5e-3, 1e-2, 2.5e-2, 5e-2, 0.1, 0.25, 0.5, 1.0, 5.0,
];
/// Attribute: `ingest`, `expand`, `product`, `extract`.
pub const FHE_STAGE: &str = "stage";
/// Attribute: `linear`, `pairs`, `paths`, `neurons`.
pub const FHE_PLAN: &str = "plan";
/// Histogram, bytes: an encrypted query; attribute [`FHE_PLAN`].
pub const FHE_QUERY_SIZE: &str = "asterism.fhe.query.size";
/// Bounds of [`FHE_QUERY_SIZE`], in bytes.
pub const FHE_QUERY_BUCKETS: [f64; 8] = [16e3, 32e3, 64e3, 128e3, 256e3, 512e3, 1e6, 4e6];

//! What every service shares: configuration, telemetry, identity, admission, audit outbox, health and shutdown

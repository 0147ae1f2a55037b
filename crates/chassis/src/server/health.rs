//! Keeps `grpc.health.v1` true while the server runs and drains.

use std::future::Future;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic_health::{ServingStatus, server::HealthReporter};

use super::ServerError;

/// What health depends on.
pub(super) struct Health {
    pub(super) reporter: HealthReporter,
    /// Full names of the services; the empty name stands for the whole server.
    pub(super) services: Vec<&'static str>,
    /// Whether the service can do its work.
    pub(super) serving: watch::Receiver<bool>,
    /// Cancelled by whoever shuts the server down.
    pub(super) draining: CancellationToken,
    /// Cancelled here once health says NOT_SERVING: the transport stops accepting and endless streams end.
    pub(super) stopping: CancellationToken,
}

impl Health {
    /// Runs `server` with its health beside it.
    pub(super) async fn supervise<S>(mut self, server: S) -> Result<(), ServerError>
    where
        S: Future<Output = Result<(), tonic::transport::Error>>,
    {
        self.report().await; // before the first call can ask
        tokio::pin!(server);
        tokio::select! {
            ended = &mut server => return ended.map_err(ServerError::Transport),
            () = self.follow() => {}
        }
        server.await.map_err(ServerError::Transport)
    }

    /// Returns when the drain has begun and health says so.
    async fn follow(&mut self) {
        let draining = self.draining.clone();
        let mut watched = true;
        while !draining.is_cancelled() {
            tokio::select! {
                () = draining.cancelled() => {}
                changed = self.serving.changed(), if watched => watched = changed.is_ok(),
            }
            self.report().await;
        }
        self.stopping.cancel();
    }

    async fn report(&mut self) {
        let up = *self.serving.borrow_and_update() && !self.draining.is_cancelled();
        let status = if up {
            ServingStatus::Serving
        } else {
            ServingStatus::NotServing
        };
        for service in self.services.iter().copied().chain([""]) {
            self.reporter.set_service_status(service, status).await;
        }
    }
}

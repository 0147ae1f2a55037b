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
    /// Whether the service can do its work: when all of them say so.
    pub(super) serving: Vec<watch::Receiver<bool>>,
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
        while !draining.is_cancelled() {
            tokio::select! {
                () = draining.cancelled() => {}
                () = changed(&mut self.serving) => {}
            }
            self.report().await;
        }
        self.stopping.cancel();
    }

    async fn report(&mut self) {
        let mut up = !self.draining.is_cancelled();
        for serving in &mut self.serving {
            up &= *serving.borrow_and_update();
        }
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

/// Resolves when any of them has changed. One that nobody changes any more keeps its value.
async fn changed(serving: &mut [watch::Receiver<bool>]) {
    let changes = serving.iter_mut().map(|serving| {
        Box::pin(async {
            if serving.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        })
    });
    let changes: Vec<_> = changes.collect();
    if changes.is_empty() {
        std::future::pending::<()>().await;
    }
    futures::future::select_all(changes).await;
}

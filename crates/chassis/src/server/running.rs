//! A server in the background, and its orderly end.

use std::{future::Future, net::SocketAddr, time::Duration};

use futures::future::BoxFuture;
use tokio::{task::JoinHandle, time::Instant};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::ServerError;

/// How long connections may take to close after they were told to, and the least that detached work gets.
const CLOSE: Duration = Duration::from_secs(1);
/// How long one shutdown hook may take.
const HOOK: Duration = Duration::from_secs(5);

/// What a service does when the last call has ended.
pub(super) type Hook = Box<dyn FnOnce() -> BoxFuture<'static, ()> + Send>;

pub(super) fn hook<F, Fut>(hook: F) -> Hook
where
    F: FnOnce() -> Fut + Send + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    Box::new(move || Box::pin(hook()))
}

/// A server that runs in the background. [`shutdown`](Self::shutdown) drains it; dropping it closes every
/// connection at once and runs no hook.
#[must_use = "dropping it stops the server"]
pub struct Running {
    /// Where it listens.
    pub addr: SocketAddr,
    encrypted: bool,
    service: &'static str,
    draining: CancellationToken,
    force: CancellationToken,
    /// One token for every call that is open.
    calls: TaskTracker,
    tracker: TaskTracker,
    hooks: Vec<Hook>,
    drain: Duration,
    server: Option<JoinHandle<Result<(), ServerError>>>,
}

pub(super) struct Parts {
    pub(super) service: &'static str,
    pub(super) addr: SocketAddr,
    pub(super) encrypted: bool,
    pub(super) draining: CancellationToken,
    pub(super) force: CancellationToken,
    pub(super) calls: TaskTracker,
    pub(super) tracker: TaskTracker,
    pub(super) hooks: Vec<Hook>,
    pub(super) drain: Duration,
    pub(super) server: JoinHandle<Result<(), ServerError>>,
}

impl Running {
    pub(super) fn new(parts: Parts) -> Self {
        let Parts {
            service,
            addr,
            encrypted,
            draining,
            force,
            calls,
            tracker,
            hooks,
            drain,
            server,
        } = parts;
        Self {
            addr,
            encrypted,
            service,
            draining,
            force,
            calls,
            tracker,
            hooks,
            drain,
            server: Some(server),
        }
    }

    /// The address as a client wants it: `http://127.0.0.1:7001`, or `noise://…` where only the channel is spoken.
    pub fn url(&self) -> String {
        let scheme = if self.encrypted { "noise" } else { "http" };
        format!("{scheme}://{}", self.addr)
    }

    /// Cancelled when the drain begins: for background tasks of the service.
    pub fn draining(&self) -> CancellationToken {
        self.draining.clone()
    }

    /// Runs after the last call has ended, in the order of registration; at most 5 s each.
    pub fn on_shutdown<F, Fut>(&mut self, hook: F)
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        self.hooks.push(self::hook(hook));
    }

    /// Resolves when the server ends without having been told to.
    ///
    /// # Errors
    /// [`ServerError::Transport`].
    pub async fn wait(&mut self) -> Result<(), ServerError> {
        let Some(server) = &mut self.server else {
            return Ok(());
        };
        let ended = server.await;
        self.server = None;
        ended.unwrap_or_else(|stopped| Err(ServerError::Listener(std::io::Error::other(stopped))))
    }

    /// Health says NOT_SERVING, the port closes, open calls get the drain's bound to end, detached work is waited
    /// for, then the hooks run.
    pub async fn shutdown(mut self) {
        let began = Instant::now();
        self.draining.cancel();
        if let Some(server) = self.server.take() {
            self.close(server).await;
        }
        self.tracker.close();
        let rest = self.drain.saturating_sub(began.elapsed()).max(CLOSE);
        if tokio::time::timeout(rest, self.tracker.wait()).await.is_err() {
            tracing::warn!(
                service = self.service,
                tasks = self.tracker.len(),
                "work unfinished at shutdown"
            );
        }
        for hook in std::mem::take(&mut self.hooks) {
            if tokio::time::timeout(HOOK, hook()).await.is_err() {
                tracing::warn!(service = self.service, "a shutdown hook took too long");
            }
        }
        tracing::info!(service = self.service, "stopped");
    }
}

impl Running {
    /// Lets calls and connections end within the drain's bound, then closes what is left.
    async fn close(&mut self, mut server: JoinHandle<Result<(), ServerError>>) {
        self.calls.close();
        let idle = async {
            self.calls.wait().await;
            // Time for the last answers to leave and for peers to hang up. A peer that is frozen would never do so,
            // and a connection without a call need not be waited for.
            tokio::time::sleep(CLOSE).await;
        };
        tokio::select! {
            _ = &mut server => return,
            () = idle => {}
            () = tokio::time::sleep(self.drain) => {
                tracing::warn!(service = self.service, calls = self.calls.len(), "calls cut off at shutdown");
            }
        }
        self.force.cancel();
        let _ = tokio::time::timeout(CLOSE, &mut server).await;
        server.abort();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.draining.cancel();
        self.force.cancel();
        if let Some(server) = self.server.take() {
            server.abort();
        }
    }
}

//! Where encrypted queries are evaluated: on threads of their own, as many at once as there are threads.

use std::{num::NonZeroUsize, sync::Arc, time::Instant};

use asterism_chassis::{call::Caller, telemetry::names};
use asterism_fhe::{
    FheError,
    server::{Evaluation, EvaluationKey},
};
use opentelemetry::{KeyValue, global, metrics::Histogram};
use rayon::{ThreadPool, ThreadPoolBuilder};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::{
    encrypted::{Compiled, EncryptedError},
    error::InferenceError,
    flow::blocking,
};

/// Who waits for an evaluation, and whether they still do.
#[derive(Clone)]
pub struct Waiter {
    deadline: Option<Instant>,
    gone: CancellationToken,
}

impl Waiter {
    /// `gone` is cancelled when the caller goes away.
    pub fn new(caller: &Caller, gone: CancellationToken) -> Self {
        Self {
            deadline: caller.deadline,
            gone,
        }
    }

    fn expired(&self) -> bool {
        self.deadline.is_some_and(|deadline| deadline <= Instant::now())
    }

    /// Why nobody waits any more.
    fn over(&self) -> InferenceError {
        if self.expired() {
            InferenceError::DeadlineExceeded
        } else {
            InferenceError::Cancelled
        }
    }

    fn is_over(&self) -> bool {
        self.gone.is_cancelled() || self.expired()
    }

    /// Resolves when nobody waits any more.
    async fn ended(&self) {
        let deadline = async {
            match self.deadline {
                Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.gone.cancelled() => {}
            () = deadline => {}
        }
    }
}

/// What evaluations are measured by.
struct Meters {
    stages: Histogram<f64>,
    sizes: Histogram<f64>,
}

impl Meters {
    fn new() -> Self {
        let meter = global::meter(names::SCOPE);
        Self {
            stages: meter
                .f64_histogram(names::FHE_STAGE_DURATION)
                .with_unit("s")
                .with_boundaries(names::FHE_STAGE_BUCKETS.to_vec())
                .build(),
            sizes: meter
                .f64_histogram(names::FHE_QUERY_SIZE)
                .with_unit("By")
                .with_boundaries(names::FHE_QUERY_BUCKETS.to_vec())
                .build(),
        }
    }

    fn record(&self, plan: &'static str, query: &[u8], evaluation: &Evaluation) {
        let plan = KeyValue::new(names::FHE_PLAN, plan);
        self.sizes.record(query.len() as f64, std::slice::from_ref(&plan));
        for (stage, took) in &evaluation.stages {
            let stage = KeyValue::new(names::FHE_STAGE, stage.name());
            self.stages.record(took.as_secs_f64(), &[stage, plan.clone()]);
        }
    }
}

/// The threads, and the way to them.
pub struct Engine {
    pool: Arc<ThreadPool>,
    /// Evaluations at once.
    places: Arc<Semaphore>,
    /// Evaluations at once and those that wait.
    queue: Arc<Semaphore>,
    meters: Arc<Meters>,
}

impl Engine {
    /// `threads` threads (0: as many as the machine has), and room for `queue` queries that wait.
    ///
    /// # Errors
    /// When the threads cannot be made; the text is for the operator.
    pub fn new(threads: usize, queue: usize) -> Result<Self, String> {
        let machine = || std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let threads = if threads == 0 { machine() } else { threads };
        let pool = ThreadPoolBuilder::new()
            .num_threads(threads)
            .thread_name(|index| format!("fhe-{index}"))
            .build()
            .map_err(|error| format!("fhe_threads: {error}"))?;
        Ok(Self {
            pool: Arc::new(pool),
            places: Arc::new(Semaphore::new(threads)),
            queue: Arc::new(Semaphore::new(
                threads.saturating_add(queue).min(Semaphore::MAX_PERMITS),
            )),
            meters: Arc::new(Meters::new()),
        })
    }

    /// Evaluates a query that was checked, once there is a place.
    ///
    /// # Errors
    /// [`EncryptedError::Overloaded`]; [`InferenceError::DeadlineExceeded`] and [`InferenceError::Cancelled`], also in the
    /// middle of the work; what the evaluation answers.
    pub async fn evaluate(
        &self,
        compiled: Arc<Compiled>,
        key: Option<Arc<EvaluationKey>>,
        query: Vec<u8>,
        waiter: &Waiter,
    ) -> Result<Evaluation, InferenceError> {
        let _queued = self.queue.try_acquire().map_err(|_| EncryptedError::Overloaded)?;
        let place = tokio::select! {
            place = self.places.clone().acquire_owned() => place.map_err(|_| InferenceError::Cancelled)?,
            () = waiter.ended() => return Err(waiter.over()),
        };
        let (pool, waiter, meters) = (self.pool.clone(), waiter.clone(), self.meters.clone());
        // A panic in the evaluation comes out of here, and the gate fails this one request.
        blocking(move || {
            let _place = place;
            let begun = Instant::now();
            let evaluation = compiled
                .program()
                .evaluate(&query, key.as_deref(), &pool, &|| waiter.is_over())
                .map_err(|error| match error {
                    FheError::Cancelled => waiter.over(),
                    other => EncryptedError::of_query(other).into(),
                })?;
            compiled.took(begun.elapsed());
            let plan = compiled.program().bundle().params_id().params().kind.name();
            meters.record(plan, &query, &evaluation);
            Ok(evaluation)
        })
        .await
    }
}

#[cfg(test)]
mod tests;

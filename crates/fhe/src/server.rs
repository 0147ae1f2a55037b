//! The server's half: compiled models, and their evaluation on encrypted rows.

mod key;
mod linear;
mod neurons;
mod pairs;
mod paths;
mod reply;
mod selectors;

use std::time::{Duration, Instant};

use rayon::ThreadPool;

pub use self::key::EvaluationKey;
pub(crate) use self::{
    linear::LinearProgram,
    neurons::NeuronsProgram,
    pairs::{PairsProgram, Tables, tables},
    paths::PathsProgram,
};
use crate::{
    FheError,
    bundle::{Bundle, FeatureCoding, Prediction, QuantisedRow},
    compile::Explanation,
    params::Params,
    quantised::Quantised,
    ring::fourier_zeros,
    seeded::Reader,
    wire,
};

/// A stage of an evaluation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stage {
    /// Reading the query, and transforming what is used of it.
    Ingest,
    /// Unpacking bits, and making GGSW ciphertexts of them.
    Expand,
    /// The products that make the scores.
    Product,
    /// Extraction, re-randomisation and flooding.
    Extract,
}

impl Stage {
    /// Its name in telemetry.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ingest => "ingest",
            Self::Expand => "expand",
            Self::Product => "product",
            Self::Extract => "extract",
        }
    }
}

/// An answered query.
#[derive(Debug, Clone)]
pub struct Evaluation {
    /// SHA-256 of the query, which the reply is tied to.
    pub query_digest: wire::QueryDigest,
    /// For the client.
    pub reply: Vec<u8>,
    /// How long each stage took.
    pub stages: Vec<(Stage, Duration)>,
}

/// A compiled model, ready to evaluate. Immutable: any number of threads may evaluate at once.
pub struct Program {
    pub(crate) bundle: Bundle,
    pub(crate) quantised: Quantised,
    pub(crate) body: ProgramBody,
    pub(crate) explanation: Explanation,
    /// Added to each score, either way, in units of 2^-64 of the torus.
    pub(crate) flood: u64,
}

pub(crate) enum ProgramBody {
    Linear(LinearProgram),
    Pairs(PairsProgram),
    Paths(PathsProgram),
    Neurons(NeuronsProgram),
}

/// What an evaluation works with.
pub(crate) struct Context<'a> {
    pub(crate) params: &'static Params,
    pub(crate) key: Option<&'a EvaluationKey>,
    pub(crate) cancelled: &'a (dyn Fn() -> bool + Sync),
    pub(crate) clock: Clock,
}

impl Context<'_> {
    pub(crate) fn check(&self) -> Result<(), FheError> {
        if (self.cancelled)() {
            Err(FheError::Cancelled)
        } else {
            Ok(())
        }
    }
}

/// Takes the time of stages.
pub(crate) struct Clock {
    last: Instant,
    stages: Vec<(Stage, Duration)>,
}

impl Clock {
    fn start() -> Self {
        Self {
            last: Instant::now(),
            stages: vec![],
        }
    }

    /// A stage has ended.
    pub(crate) fn lap(&mut self, stage: Stage) {
        let now = Instant::now();
        self.stages.push((stage, now - self.last));
        self.last = now;
    }
}

/// An LWE ciphertext under the coefficients of the secret key.
#[derive(Clone)]
pub(crate) struct Lwe {
    pub(crate) mask: Vec<u64>,
    pub(crate) body: u64,
}

impl Lwe {
    pub(crate) fn zero(dimension: usize) -> Self {
        Self {
            mask: vec![0; dimension],
            body: 0,
        }
    }
}

/// The ciphertexts of all scores, and the public key to re-randomise them with.
pub(crate) struct Scores {
    pub(crate) scores: Vec<Lwe>,
    /// An encryption of zero.
    pub(crate) public_key: Vec<u64>,
}

impl Scores {
    /// For plans whose public key is part of the evaluation key.
    fn with_key(scores: Vec<Lwe>, context: &Context<'_>) -> Result<Self, FheError> {
        let key = context.key.ok_or(FheError::KeyMissing)?;
        Ok(Self {
            scores,
            public_key: key.public_key.clone(),
        })
    }
}

impl Program {
    /// What clients need.
    pub fn bundle(&self) -> &Bundle {
        &self.bundle
    }

    /// Plan, sizes and costs, and why.
    pub fn explanation(&self) -> &Explanation {
        &self.explanation
    }

    /// The scores of a row in the clear, by the same integers: what decryption gives.
    pub fn clear_integers(&self, row: &QuantisedRow) -> Vec<i64> {
        self.quantised.scores(&row.values, self.bundle.scores.len())
    }

    /// The prediction of a row in the clear, by the same integers.
    ///
    /// # Errors
    /// As [`Bundle::quantise`].
    pub fn clear(&self, row: &[f64]) -> Result<Prediction, FheError> {
        let row = self.bundle.quantise(row)?;
        Ok(self.bundle.prediction(&self.clear_integers(&row)))
    }

    /// Bytes that a query has.
    pub fn query_bytes(&self) -> usize {
        let params = self.bundle.params_id().params();
        wire::query_len(params, self.bins())
    }

    /// Bytes that a reply has.
    pub fn reply_bytes(&self) -> usize {
        wire::reply_len(self.bundle.params_id().params(), self.bundle.ciphertexts())
    }

    fn bins(&self) -> impl Iterator<Item = usize> {
        self.bundle.codings().map(FeatureCoding::bins)
    }

    /// Checks what a query says of itself before any work is done for it.
    ///
    /// # Errors
    /// [`FheError`] for a query of another model or parameter set or of the wrong length.
    pub fn check(&self, query: &[u8]) -> Result<(), FheError> {
        let id = self.bundle.params_id();
        wire::read_query(query, id, &self.bundle.model, self.query_bytes()).map(drop)
    }

    /// Evaluates an encrypted row on the threads of `pool`. `cancelled` is asked now and then; once it says so, the work
    /// stops.
    ///
    /// # Errors
    /// [`FheError`] for a query of another model or parameter set or of the wrong length, a missing evaluation key, or
    /// [`FheError::Cancelled`]. A query that is well-formed and wrong (another key's, say) gives a reply that means nothing.
    pub fn evaluate(
        &self,
        query: &[u8],
        key: Option<&EvaluationKey>,
        pool: &ThreadPool,
        cancelled: &(dyn Fn() -> bool + Sync),
    ) -> Result<Evaluation, FheError> {
        let params = self.bundle.params_id().params();
        let (seed, bodies) = wire::read_query(query, params.id, &self.bundle.model, self.query_bytes())?;
        let mut context = Context {
            params,
            key: key.filter(|key| key.params_id() == params.id),
            cancelled,
            clock: Clock::start(),
        };
        let reader = Reader::new(seed, bodies, params.shape.k, params.shape.n);
        let scores = pool.install(|| match &self.body {
            ProgramBody::Linear(program) => program.evaluate(reader, &mut context),
            ProgramBody::Pairs(program) => program.evaluate(reader, &mut context),
            ProgramBody::Paths(program) => program.evaluate(reader, &mut context),
            ProgramBody::Neurons(program) => program.evaluate(reader, &mut context),
        })?;
        let query_digest = wire::query_digest(query);
        let start = wire::reply_start(params.id, &self.bundle.model, &query_digest, scores.scores.len());
        let reply = reply::finish(params, self.flood, scores, start)?;
        context.clock.lap(Stage::Extract);
        Ok(Evaluation {
            query_digest,
            reply,
            stages: context.clock.stages,
        })
    }

    /// The time of one product of this plan on this machine, on one thread: what an evaluation is made of. The count is in
    /// the explanation; count times this is the floor under an evaluation.
    pub fn product_time(&self) -> Duration {
        let params = self.bundle.params_id().params();
        let shape = params.shape;
        let ring = crate::ring::Ring::new(shape.n);
        let mut worker = crate::gadget::Worker::new(&ring, shape.n);
        let input: Vec<u64> = (0..shape.len() as u64)
            .map(|i| i.wrapping_mul(0x9e37_79b9_7f4a_7c15))
            .collect();
        let mut out = vec![0u64; shape.len()];
        let mut sum = fourier_zeros((shape.k + 1) * shape.half());
        let matrix = crate::gadget::Matrix::zeros(params.ggsw, shape.k + 1, shape.k + 1, shape.half());
        let mut once = || {
            if params.ggsw.levels == 0 {
                // Plaintext times ciphertext: a transform there, a product, and back.
                ring.forward_torus_all(&input, &mut sum, &mut worker.scratch);
            } else {
                matrix.multiply_add(&input, &mut sum, &mut worker);
            }
            ring.add_backward_all(&sum, &mut out, &mut worker.scratch);
        };
        const TIMES: u32 = 200;
        (0..20).for_each(|_| once());
        let began = Instant::now();
        (0..TIMES).for_each(|_| once());
        began.elapsed() / TIMES
    }
}

//! Compiled models: how they are made, and kept between requests.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use asterism_crypto::Digest;
use asterism_fhe::{
    FheError,
    compile::{self, Options},
    model::Model,
    params::PlanKind,
    server::Program,
};
use tokio::sync::OnceCell;

use crate::{
    encrypted::EncryptedError,
    error::InferenceError,
    models::{Compilation, ModelId},
};

/// A compiled model, ready to evaluate.
pub struct Compiled {
    program: Program,
    product: Duration,
    timing: Mutex<Timing>,
}

#[derive(Default)]
struct Timing {
    evaluations: u32,
    total: Duration,
}

impl Compiled {
    /// The program.
    pub fn program(&self) -> &Program {
        &self.program
    }

    /// SHA-256 of the compiled model.
    pub fn digest(&self) -> Digest {
        Digest::from_bytes(*self.program.bundle().model_digest())
    }

    /// Time of one product on this machine, one thread.
    pub fn product(&self) -> Duration {
        self.product
    }

    /// Remembers how long an evaluation took.
    pub(crate) fn took(&self, time: Duration) {
        let mut timing = self.timing();
        timing.evaluations = timing.evaluations.saturating_add(1);
        timing.total += time;
    }

    /// Mean time of an evaluation so far.
    pub fn measured(&self) -> Option<Duration> {
        let timing = self.timing();
        (timing.evaluations > 0).then(|| timing.total / timing.evaluations)
    }

    fn timing(&self) -> MutexGuard<'_, Timing> {
        self.timing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Compiles a model: seconds of work for a large one.
///
/// # Errors
/// [`EncryptedError::NoPlan`] with the reasons of every plan and what would do; [`InferenceError::NotServed`].
pub fn compile(model: &Model, options: Options) -> Result<Compiled, InferenceError> {
    let program = compile::compile(model, options).map_err(|error| match error {
        FheError::NoPlan(reasons) => EncryptedError::NoPlan {
            reasons,
            next_step: next_step(model, options),
        }
        .into(),
        FheError::BadModel(problem) => InferenceError::NotServed(problem),
        other => EncryptedError::Evaluation(other).into(),
    })?;
    let product = program.product_time();
    Ok(Compiled {
        program,
        product,
        timing: Mutex::default(),
    })
}

/// The options nearest to those asked for with which some plan serves the model.
fn next_step(model: &Model, asked: Options) -> String {
    let nearest = [(false, true), (true, false), (true, true)];
    for (any_plan, used_edges_only) in nearest {
        let options = Options {
            plan: asked.plan.filter(|_| !any_plan),
            used_edges_only: asked.used_edges_only || used_edges_only,
        };
        if options == asked {
            continue;
        }
        if let Ok(program) = compile::compile(model, options) {
            let plan = &program.explanation().plan;
            return match (any_plan, options.used_edges_only && !asked.used_edges_only) {
                (_, false) => format!("the plan `{plan}` does"),
                (_, true) => format!("the plan `{plan}` does with `used_edges_only`"),
            };
        }
    }
    "train fewer or shallower trees, or with fewer bins".to_owned()
}

/// What a model was compiled with.
///
/// # Errors
/// [`InferenceError::Damaged`] for a plan that this version does not have.
pub fn options(compilation: &Compilation) -> Result<Options, InferenceError> {
    let plan = compilation
        .plan
        .as_deref()
        .map(|name| {
            PlanKind::from_name(name).ok_or(InferenceError::Damaged("a compilation's plan is unknown"))
        })
        .transpose()?;
    Ok(Options {
        plan,
        used_edges_only: compilation.used_edges_only,
    })
}

/// Room for one compiled model: whoever comes first compiles, others wait for the same.
pub struct Slot {
    options: Options,
    pub(super) cell: OnceCell<Arc<Compiled>>,
}

/// Compiled models between requests. The least recently used goes first.
pub struct Programs {
    capacity: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    clock: u64,
    entries: HashMap<ModelId, (Arc<Slot>, u64)>,
}

impl Programs {
    /// Keeps at most `capacity`; 0 keeps none.
    pub fn new(capacity: usize) -> Self {
        Self {
            capacity,
            state: Mutex::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The slot of a model compiled with these options.
    pub fn slot(&self, id: ModelId, options: Options) -> Arc<Slot> {
        let mut state = self.state();
        state.clock += 1;
        let now = state.clock;
        if let Some((slot, last_use)) = state.entries.get_mut(&id)
            && slot.options == options
        {
            *last_use = now;
            return slot.clone();
        }
        let slot = Arc::new(Slot {
            options,
            cell: OnceCell::new(),
        });
        state.entries.insert(id, (slot.clone(), now));
        if state.entries.len() > self.capacity {
            let oldest = state.entries.iter().min_by_key(|(_, (_, last_use))| *last_use);
            if let Some(oldest) = oldest.map(|(id, _)| *id) {
                state.entries.remove(&oldest);
            }
        }
        slot
    }

    /// Forgets a model.
    pub fn remove(&self, id: ModelId) {
        self.state().entries.remove(&id);
    }
}

#[cfg(test)]
mod tests {
    use asterism_fhe::model::{Body, Ensemble, Link, Missing, Node, Tree};

    use super::*;

    /// A chain of `depth` splits over one feature with `bins` bins.
    fn chain(depth: usize, bins: usize) -> Model {
        let mut nodes = vec![];
        for level in 0..depth {
            nodes.push(Node::Split {
                feature: 0,
                edge: level,
                left: 2 * level + 1,
                right: 2 * level + 2,
            });
            nodes.push(Node::Leaf(vec![level as f64]));
        }
        nodes.push(Node::Leaf(vec![-1.0]));
        Model {
            features: vec!["a".into()],
            classes: vec!["x".into(), "y".into()],
            link: Link::Logistic,
            body: Body::Ensemble(Ensemble {
                codes: vec![0],
                edges: vec![(0..bins - 1).map(|edge| edge as f64).collect()],
                single_precision: false,
                missing: vec![Missing::Left],
                base: vec![0.0],
                trees: vec![Tree { output: 0, nodes }],
            }),
        }
    }

    fn refusal(model: &Model, options: Options) -> (String, String) {
        match compile(model, options) {
            Err(InferenceError::Encrypted(EncryptedError::NoPlan { reasons, next_step })) => {
                (reasons, next_step)
            }
            Err(other) => panic!("{other}"),
            Ok(_) => panic!("compiled"),
        }
    }

    #[test]
    fn a_refusal_tells_each_plans_reason_and_what_would_do() {
        let pairs = Options {
            plan: Some(PlanKind::Pairs),
            used_edges_only: false,
        };
        let (reasons, next_step) = refusal(&chain(3, 4), pairs);
        assert!(reasons.contains("depth 3"), "{reasons}");
        assert!(reasons.contains("another plan was asked for"), "{reasons}");
        assert_eq!(next_step, "the plan `paths` does");
        let (reasons, next_step) = refusal(&chain(2, 100), pairs);
        assert!(reasons.contains("100 bins"), "{reasons}");
        assert_eq!(next_step, "the plan `pairs` does with `used_edges_only`");
    }

    #[test]
    fn one_slot_for_one_set_of_options_and_the_oldest_goes() {
        let programs = Programs::new(2);
        let [one, two, three] = [(); 3].map(|()| ModelId::generate());
        let slot = programs.slot(one, Options::default());
        assert!(Arc::ptr_eq(&slot, &programs.slot(one, Options::default())));
        let other = Options {
            used_edges_only: true,
            ..Options::default()
        };
        let replaced = programs.slot(one, other);
        assert!(!Arc::ptr_eq(&slot, &replaced));
        programs.slot(two, other);
        programs.slot(one, other);
        programs.slot(three, other);
        assert!(Arc::ptr_eq(&replaced, &programs.slot(one, other)));
        assert_eq!(programs.state().entries.len(), 2);
    }

    #[test]
    fn the_mean_of_evaluations_is_kept() {
        let compiled = compile(&chain(2, 4), Options::default()).unwrap();
        assert_eq!(compiled.measured(), None);
        compiled.took(Duration::from_millis(2));
        compiled.took(Duration::from_millis(4));
        assert_eq!(compiled.measured(), Some(Duration::from_millis(3)));
        assert!(compiled.product() > Duration::ZERO);
    }
}

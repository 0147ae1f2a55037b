//! Plans against the clear arithmetic, their noise against its formulas, and messages that are not what they should be.

mod agreement;
mod messages;
mod noise;

use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::{
    client::{self, Query},
    compile::{Options, compile},
    keys::SecretKey,
    model::{Body, Ensemble, Linear, Link, Missing, Model, Network, Node, Tree},
    server::{EvaluationKey, Program},
};

fn pool() -> ThreadPool {
    ThreadPoolBuilder::new().num_threads(2).build().unwrap()
}

fn rng(seed: u64) -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(seed)
}

/// A client with a key, and what its server needs of it.
struct Party {
    key: SecretKey,
    evaluation_key: Option<EvaluationKey>,
}

impl Party {
    fn of(program: &Program) -> Self {
        let key = SecretKey::generate(program.bundle().params_id()).unwrap();
        let bytes = client::evaluation_key(&key).unwrap();
        let evaluation_key = bytes.map(|bytes| EvaluationKey::from_bytes(&bytes).unwrap());
        Self { key, evaluation_key }
    }

    fn query(&self, program: &Program, row: &[f64]) -> Query {
        client::encrypt(program.bundle(), &self.key, row).unwrap()
    }

    fn answer(&self, program: &Program, query: &Query, pool: &ThreadPool) -> Vec<u8> {
        let answer = program.evaluate(&query.bytes, self.evaluation_key.as_ref(), pool, &|| false);
        answer.unwrap().reply
    }
}

/// What a random ensemble looks like.
#[derive(Debug, Clone, Copy)]
struct Shape {
    features: usize,
    bins: usize,
    trees: usize,
    depth: usize,
    outputs: usize,
    /// Values in each leaf: 1, or `outputs`.
    width: usize,
}

/// Trees with random splits; some branches end early.
fn ensemble(shape: Shape, seed: u64) -> Model {
    let mut rng = rng(seed);
    let edges: Vec<Vec<f64>> = (0..shape.features)
        .map(|_| (1..shape.bins).map(|edge| edge as f64).collect())
        .collect();
    let trees = (0..shape.trees).map(|index| {
        let mut nodes = vec![];
        grow(&mut nodes, shape, shape.depth, &mut rng);
        Tree {
            output: if shape.width == 1 {
                index % shape.outputs
            } else {
                0
            },
            nodes,
        }
    });
    let trees = trees.collect();
    let classes = if shape.outputs == 1 { 2 } else { shape.outputs };
    Model {
        features: (0..shape.features).map(|index| format!("f{index}")).collect(),
        classes: (0..classes).map(|index| format!("c{index}")).collect(),
        link: if shape.outputs == 1 {
            Link::Logistic
        } else {
            Link::Softmax
        },
        body: Body::Ensemble(Ensemble {
            codes: (0..shape.features).collect(),
            missing: vec![Missing::Left; shape.features],
            single_precision: false,
            base: (0..shape.outputs).map(|_| rng.random_range(-1.0..1.0)).collect(),
            edges,
            trees,
        }),
    }
}

fn grow(nodes: &mut Vec<Node>, shape: Shape, depth: usize, rng: &mut ChaCha8Rng) {
    let at = nodes.len();
    nodes.push(Node::Leaf(
        (0..shape.width).map(|_| rng.random_range(-1.0..1.0)).collect(),
    ));
    if depth == 0 || shape.bins < 2 || (depth < shape.depth && rng.random::<f64>() < 0.1) {
        return;
    }
    let left = nodes.len();
    grow(nodes, shape, depth - 1, rng);
    let right = nodes.len();
    grow(nodes, shape, depth - 1, rng);
    nodes[at] = Node::Split {
        feature: rng.random_range(0..shape.features),
        edge: rng.random_range(0..shape.bins - 1),
        left,
        right,
    };
}

fn linear(features: usize, outputs: usize, seed: u64) -> Model {
    let mut rng = rng(seed);
    let mut draw = |count: usize| {
        (0..count)
            .map(|_| rng.random_range(-2.0..2.0))
            .collect::<Vec<f64>>()
    };
    let body = Body::Linear(Linear {
        weights: (0..outputs).map(|_| draw(features)).collect(),
        bias: draw(outputs),
        ranges: vec![(-3.0, 5.0); features],
        missing: draw(features),
    });
    Model {
        features: (0..features).map(|index| format!("f{index}")).collect(),
        classes: (0..outputs.max(2)).map(|index| format!("c{index}")).collect(),
        link: if outputs == 1 {
            Link::Logistic
        } else {
            Link::Softmax
        },
        body,
    }
}

fn network(features: usize, units: usize, outputs: usize, seed: u64) -> Model {
    let mut rng = rng(seed);
    let mut draw = |count: usize| {
        (0..count)
            .map(|_| rng.random_range(-1.0..1.0))
            .collect::<Vec<f64>>()
    };
    let mut layer = |inputs: usize, outputs: usize| (0..outputs).map(|_| draw(inputs)).collect::<Vec<_>>();
    let body = Body::Network(Network {
        hidden: layer(features, units),
        hidden_bias: layer(units, 1).remove(0),
        output: layer(units, outputs),
        output_bias: layer(outputs, 1).remove(0),
        ranges: vec![(-3.0, 5.0); features],
        missing: layer(features, 1).remove(0),
    });
    Model {
        body,
        ..linear(features, outputs, seed)
    }
}

/// A row for a model: now and then a value is missing.
fn row(model: &Model, rng: &mut ChaCha8Rng) -> Vec<f64> {
    let value = |feature: usize, rng: &mut ChaCha8Rng| {
        if rng.random::<f64>() < 0.03 {
            return f64::NAN;
        }
        match &model.body {
            Body::Linear(_) | Body::Network(_) => rng.random_range(-3.5..5.5),
            Body::Ensemble(ensemble) => rng.random_range(-0.5..ensemble.edges[feature].len() as f64 + 1.5),
        }
    };
    (0..model.features.len())
        .map(|feature| value(feature, rng))
        .collect()
}

fn program(model: &Model) -> Program {
    compile(model, Options::default()).unwrap()
}

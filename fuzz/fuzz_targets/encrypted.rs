//! Queries, evaluation keys, bundles and replies of strangers: each is refused, or evaluates to something, and nothing panics.
#![no_main]

use std::sync::LazyLock;

use asterism_fhe::{
    bundle::Bundle,
    client,
    compile::{Options, compile},
    keys::SecretKey,
    model::{Body, Ensemble, Linear, Link, Missing, Model, Node, Tree},
    server::{EvaluationKey, Program},
};
use libfuzzer_sys::fuzz_target;
use rayon::{ThreadPool, ThreadPoolBuilder};

struct Fixture {
    programs: Vec<Program>,
    pool: ThreadPool,
}

fn model(body: Body) -> Model {
    Model {
        features: vec!["a".into(), "b".into()],
        classes: vec!["no".into(), "yes".into()],
        link: Link::Logistic,
        body,
    }
}

static FIXTURE: LazyLock<Fixture> = LazyLock::new(|| {
    let split = |feature, left, right| Node::Split {
        feature,
        edge: 0,
        left,
        right,
    };
    let leaf = |value| Node::Leaf(vec![value]);
    let trees = Body::Ensemble(Ensemble {
        codes: vec![0, 1],
        edges: vec![vec![1.0], vec![2.0]],
        single_precision: false,
        missing: vec![Missing::Left; 2],
        base: vec![0.0],
        trees: vec![Tree {
            output: 0,
            nodes: vec![split(0, 1, 2), split(1, 3, 4), leaf(0.5), leaf(-0.5), leaf(1.0)],
        }],
    });
    let linear = Body::Linear(Linear {
        weights: vec![vec![1.0, -2.0]],
        bias: vec![0.5],
        ranges: vec![(-1.0, 1.0); 2],
        missing: vec![0.0; 2],
    });
    let compiled = |body| compile(&model(body), Options::default()).expect("a plan serves it");
    Fixture {
        programs: vec![compiled(trees), compiled(linear)],
        pool: ThreadPoolBuilder::new().num_threads(1).build().expect("a thread"),
    }
});

fuzz_target!(|input: (u8, &[u8])| {
    let (which, bytes) = input;
    let program = &FIXTURE.programs[usize::from(which & 1)];
    let bundle = program.bundle();
    // With the right beginning, so that what lies behind it is reached.
    let mut query = b"ASTQ\x01\x00".to_vec();
    query.extend_from_slice(&(bundle.params_id() as u16).to_le_bytes());
    query.extend_from_slice(bundle.model_digest());
    query.extend_from_slice(bytes);
    if which & 2 != 0 {
        query.resize(program.query_bytes(), which);
    }
    let answered = program.evaluate(&query, None, &FIXTURE.pool, &|| false);
    assert_eq!(answered.is_ok(), query.len() == program.query_bytes());
    assert!(program.evaluate(bytes, None, &FIXTURE.pool, &|| false).is_err() || bytes.len() == program.query_bytes());
    let _ = EvaluationKey::from_bytes(bytes);
    if let Ok(read) = Bundle::from_bytes(bytes) {
        assert_eq!(Bundle::from_bytes(&read.to_bytes()), Ok(read));
    }
    let key = SecretKey::from_seed(bundle.params_id(), [7; 16]);
    assert!(client::decrypt(bundle, &key, &[0; 32], bytes).is_err());
});

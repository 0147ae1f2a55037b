use std::time::Duration;

use asterism_fhe::{
    client,
    compile::Options,
    keys::SecretKey,
    model::{Body, Ensemble, Link, Missing, Model, Node, Tree},
    params::PlanKind,
};

use super::*;
use crate::encrypted::programs;

/// Trees of depth 8 over 8 features: a long time of work for the plan `paths`, if nobody stops it.
fn heavy() -> Model {
    let tree = |salt: usize| {
        let mut nodes = vec![];
        for index in 0..511 {
            nodes.push(if index < 255 {
                Node::Split {
                    feature: (index * 7 + salt) % 8,
                    edge: (index * 37 + salt * 11) % 255,
                    left: 2 * index + 1,
                    right: 2 * index + 2,
                }
            } else {
                Node::Leaf(vec![((index * 31 + salt) % 17) as f64 / 17.0])
            });
        }
        Tree { output: 0, nodes }
    };
    Model {
        features: (0..8).map(|index| format!("f{index}")).collect(),
        classes: vec!["x".into(), "y".into()],
        link: Link::Logistic,
        body: Body::Ensemble(Ensemble {
            codes: (0..8).collect(),
            edges: vec![(0..255).map(f64::from).collect(); 8],
            single_precision: false,
            missing: vec![Missing::Left; 8],
            base: vec![0.0],
            trees: (0..8).map(tree).collect(),
        }),
    }
}

struct Case {
    compiled: Arc<Compiled>,
    key: Option<Arc<EvaluationKey>>,
    query: Vec<u8>,
}

fn case() -> Case {
    let options = Options {
        plan: Some(PlanKind::Paths),
        used_edges_only: false,
    };
    let compiled = Arc::new(programs::compile(&heavy(), options).unwrap());
    let bundle = compiled.program().bundle();
    let secret = SecretKey::generate(bundle.params_id()).unwrap();
    let key = client::evaluation_key(&secret).unwrap().unwrap();
    let query = client::encrypt(bundle, &secret, &[100.0; 8]).unwrap().bytes;
    Case {
        key: Some(Arc::new(EvaluationKey::from_bytes(&key).unwrap())),
        compiled,
        query,
    }
}

impl Case {
    async fn run(&self, engine: &Engine, waiter: &Waiter) -> Result<Evaluation, InferenceError> {
        let (compiled, key) = (self.compiled.clone(), self.key.clone());
        engine.evaluate(compiled, key, self.query.clone(), waiter).await
    }
}

fn patient() -> Waiter {
    Waiter {
        deadline: None,
        gone: CancellationToken::new(),
    }
}

fn within(time: Duration) -> Waiter {
    Waiter {
        deadline: Some(Instant::now() + time),
        gone: CancellationToken::new(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_evaluation_that_nobody_waits_for_stops_in_the_middle() {
    let (case, engine) = (case(), Engine::new(1, 4).unwrap());
    let begun = Instant::now();
    case.run(&engine, &patient()).await.unwrap();
    let whole = begun.elapsed();
    assert!(case.compiled.measured().is_some());

    let begun = Instant::now();
    let late = case.run(&engine, &within(whole / 5)).await;
    assert!(matches!(late, Err(InferenceError::DeadlineExceeded)));
    assert!(begun.elapsed() < whole, "{:?} of {whole:?}", begun.elapsed());

    let gone = patient();
    let token = gone.gone.clone();
    let leaves = async {
        tokio::time::sleep(whole / 5).await;
        token.cancel();
    };
    let begun = Instant::now();
    let (left, ()) = tokio::join!(case.run(&engine, &gone), leaves);
    assert!(matches!(left, Err(InferenceError::Cancelled)));
    assert!(begun.elapsed() < whole, "{:?} of {whole:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn more_than_may_wait_are_refused_and_those_who_wait_have_deadlines() {
    let (case, engine) = (case(), Engine::new(1, 1).unwrap());
    let waiter = patient();
    let working = case.run(&engine, &waiter);
    let others = async {
        while engine.places.available_permits() > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let brief = within(Duration::from_millis(20));
        let waits = case.run(&engine, &brief);
        let refused = async {
            while engine.queue.available_permits() > 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            case.run(&engine, &patient()).await
        };
        let (waited, refused) = tokio::join!(waits, refused);
        assert!(matches!(waited, Err(InferenceError::DeadlineExceeded)));
        assert!(matches!(
            refused,
            Err(InferenceError::Encrypted(EncryptedError::Overloaded))
        ));
        waiter.gone.cancel();
    };
    let (worked, ()) = tokio::join!(working, others);
    assert!(matches!(worked, Err(InferenceError::Cancelled)));
    // And then there is room again.
    case.run(&engine, &patient()).await.unwrap();
}

//! How long the stages of an evaluation take:
//! `cargo run --release -p asterism-fhe --example stages [TREES DEPTH BINS FEATURES THREADS]`; with depth 0 a network of so many
//! hidden units.
#![allow(clippy::print_stdout)]

use std::time::Instant;

use asterism_fhe::{
    client,
    compile::{Options, compile},
    keys::SecretKey,
    model::{Body, Ensemble, Link, Missing, Model, Network, Node, Tree},
    server::EvaluationKey,
};
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let wish = |at: usize, otherwise: usize| {
        std::env::args()
            .nth(at)
            .and_then(|text| text.parse().ok())
            .unwrap_or(otherwise)
    };
    let (trees, depth, bins) = (wish(1, 50), wish(2, 3), wish(3, 256));
    let (features, threads) = (wish(4, 30), wish(5, 2));
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let body = if depth == 0 {
        network(trees, features, &mut rng)
    } else {
        ensemble(trees, depth, bins, features, &mut rng)
    };
    let model = Model {
        features: (0..features).map(|feature| format!("f{feature}")).collect(),
        classes: vec!["no".into(), "yes".into()],
        link: Link::Logistic,
        body,
    };
    let program = compile(&model, Options::default())?;
    let explanation = program.explanation();
    println!("{explanation:#?}");
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build()?;
    let began = Instant::now();
    let key = SecretKey::generate(program.bundle().params_id())?;
    let bytes = client::evaluation_key(&key)?;
    println!("keygen {:?}", began.elapsed());
    let began = Instant::now();
    let evaluation_key = bytes.as_deref().map(EvaluationKey::from_bytes).transpose()?;
    println!("key read {:?}", began.elapsed());
    let row: Vec<f64> = (0..features).map(|feature| (feature * 7 % bins) as f64).collect();
    for _ in 0..5 {
        let began = Instant::now();
        let query = client::encrypt(program.bundle(), &key, &row)?;
        let encrypted = began.elapsed();
        let began = Instant::now();
        let answer = program.evaluate(&query.bytes, evaluation_key.as_ref(), &pool, &|| false)?;
        let evaluated = began.elapsed();
        let began = Instant::now();
        let prediction = client::decrypt(program.bundle(), &key, &query.digest, &answer.reply)?;
        println!(
            "encrypt {encrypted:?}, evaluate {evaluated:?} {:?}, decrypt {:?}, agrees {}",
            answer.stages,
            began.elapsed(),
            prediction == program.clear(&row)?
        );
    }
    let product = program.product_time();
    println!(
        "product {product:?}, floor on one thread {:?}",
        product * explanation.products as u32
    );
    Ok(())
}

fn ensemble(trees: usize, depth: usize, bins: usize, features: usize, rng: &mut ChaCha8Rng) -> Body {
    let inner = (1usize << depth) - 1;
    let mut node = |at: usize| {
        if at < inner {
            Node::Split {
                feature: rng.random_range(0..features),
                edge: rng.random_range(0..bins - 1),
                left: 2 * at + 1,
                right: 2 * at + 2,
            }
        } else {
            Node::Leaf(vec![rng.random_range(-1.0..1.0)])
        }
    };
    let trees = (0..trees).map(|_| Tree {
        output: 0,
        nodes: (0..2 * inner + 1).map(&mut node).collect(),
    });
    Body::Ensemble(Ensemble {
        trees: trees.collect(),
        edges: vec![(1..bins).map(|edge| edge as f64).collect(); features],
        codes: (0..features).collect(),
        single_precision: false,
        missing: vec![Missing::Left; features],
        base: vec![0.0],
    })
}

fn network(units: usize, features: usize, rng: &mut ChaCha8Rng) -> Body {
    let mut draw = |count: usize| -> Vec<f64> { (0..count).map(|_| rng.random_range(-1.0..1.0)).collect() };
    Body::Network(Network {
        hidden: (0..units).map(|_| draw(features)).collect(),
        hidden_bias: draw(units),
        output: vec![draw(units)],
        output_bias: draw(1),
        ranges: vec![(-3.0, 3.0); features],
        missing: vec![0.0; features],
    })
}

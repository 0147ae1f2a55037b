//! What the parts cost: `cargo bench -p asterism-benches`.
#![allow(missing_docs, clippy::unwrap_used)]

use std::{
    hint::black_box,
    net::{IpAddr, Ipv6Addr},
};

use asterism_chassis::firewall::{
    Decisions,
    rules::{Entry, RateLimit, Rules},
};
use asterism_crypto::{Digest, KeyRef, SecretKey, SigningKey, StreamSealer, envelope};
use asterism_learn::{
    csv::{CsvLimits, CsvReader},
    profile::Profiler,
};
use asterism_store::{Batch, Records as _, SledOptions, SledRecords};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ipnet::IpNet;

fn crypto(c: &mut Criterion) {
    let key = SecretKey::generate().unwrap();
    let key_ref = KeyRef {
        key: "bench".into(),
        version: 1,
    };
    let mut group = c.benchmark_group("crypto");
    group.throughput(Throughput::Bytes(1024));
    let kib = vec![7; 1024];
    group.bench_function("envelope seal 1 KiB", |b| {
        b.iter(|| envelope::seal(&key, &key_ref, &kib, b"aad").unwrap());
    });
    let sealed = envelope::seal(&key, &key_ref, &kib, b"aad").unwrap();
    group.bench_function("envelope open 1 KiB", |b| {
        b.iter(|| envelope::open(&key, &sealed, b"aad").unwrap());
    });
    group.throughput(Throughput::Bytes(1 << 20));
    let mut buffer = Vec::with_capacity((1 << 20) + 16);
    let (mut sealer, _) = StreamSealer::new(&key, 1 << 20, b"context").unwrap();
    group.bench_function("stream seal 1 MiB", |b| {
        b.iter(|| {
            buffer.clear();
            buffer.resize(1 << 20, 7);
            sealer.seal_chunk_in_place(&mut buffer, false).unwrap();
        });
    });
    let mib = vec![7; 1 << 20];
    group.bench_function("sha-256 1 MiB", |b| b.iter(|| Digest::of(black_box(&mib))));
    group.finish();
    let signing = SigningKey::generate().unwrap();
    let digest = Digest::of(b"message");
    let signature = signing.sign_digest(&digest);
    c.bench_function("ecdsa sign", |b| {
        b.iter(|| signing.sign_digest(black_box(&digest)));
    });
    let public = signing.verifying_key();
    c.bench_function("ecdsa verify", |b| {
        b.iter(|| public.verify_digest(black_box(&digest), &signature).unwrap());
    });
}

fn learn(c: &mut Criterion) {
    let mut csv = String::from("a,b,c,d\n");
    for row in 0..50_000 {
        csv += &format!(
            "{}.{:05},{},{}.5,{}\n",
            row % 10,
            row * 7 % 100_000,
            row,
            row % 97,
            row % 3
        );
    }
    let mut group = c.benchmark_group("learn");
    group.throughput(Throughput::Bytes(csv.len() as u64));
    group.bench_function("parse and profile", |b| {
        b.iter(|| {
            let (mut reader, mut profiler) = (CsvReader::new(CsvLimits::default()), Profiler::new());
            reader.feed(csv.as_bytes(), &mut profiler).unwrap();
            reader.finish(&mut profiler).unwrap();
            profiler.finish()
        });
    });
    group.finish();
}

fn store(c: &mut Criterion) {
    let dir = tempfile::tempdir().unwrap();
    let records = SledRecords::open(dir.path(), SledOptions::default()).unwrap();
    let mut next = 0u64;
    c.bench_function("store commit, one writer", |b| {
        b.iter(|| {
            next += 1;
            records
                .commit(Batch::new().put(next.to_be_bytes(), vec![7; 300]))
                .unwrap();
        });
    });
}

/// What a call is held against before anybody looks at what it wants.
fn firewall(c: &mut Criterion) {
    let entry = |subject: String| Entry {
        subject: subject.parse().unwrap(),
        expires: None,
        comment: String::new(),
    };
    let limit = |subject: &str| RateLimit {
        subject: subject.parse().unwrap(),
        requests_per_second: 1000.0,
        burst: 1000,
    };
    let mut rules = Rules {
        block: (0..=255)
            .map(|number| entry(format!("10.{number}.0.0/16")))
            .chain((0..1000).map(|number| entry(format!("user/u{number}"))))
            .collect(),
        limits: vec![limit("*"), limit("0.0.0.0/0"), limit("::/0")],
        ..Rules::default()
    };
    let mut group = c.benchmark_group("firewall");
    let mut measure = |what: &str, rules: &Rules, address: &str| {
        let decisions = Decisions::by(rules.clone()).unwrap();
        let address: IpAddr = address.parse().unwrap();
        // Each call comes a second after the one before, so that all pass.
        let mut now = 1_800_000_000_000_000_000;
        group.bench_function(what, |b| {
            b.iter(|| {
                now += 1_000_000_000;
                assert!(decisions.admits(black_box(address), black_box("user/alice"), now));
            });
        });
    };
    measure("decision, no rules", &Rules::default(), "192.0.2.1");
    measure("decision, 1259 rules", &rules, "192.0.2.1");
    // Networks of every length that lie in each other, beside the one that calls.
    let last = Ipv6Addr::from(u128::MAX);
    let nested = (1..=128).map(|length| IpNet::new(last.into(), length).unwrap().trunc());
    rules.block.extend(nested.map(|net| entry(net.to_string())));
    measure("decision, 1387 rules, every prefix length", &rules, "2001:db8::1");
    group.finish();
}

criterion_group!(parts, crypto, learn, store, firewall);
criterion_main!(parts);

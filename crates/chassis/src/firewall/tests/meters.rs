//! Properties of rates, and what a decision costs.

use proptest::prelude::*;

use super::{
    super::meter::{Limit, Meters},
    *,
};

proptest! {
    /// In every stretch of time of length t at most burst + rate * t requests pass, whatever the pattern of arrival.
    #[test]
    fn never_more_than_the_burst_and_the_rate_pass(
        rate in 0.01_f64..5_000.0,
        burst in 1_u32..50,
        gaps in proptest::collection::vec(prop_oneof![Just(0_u64), 0..2_000_000_u64, 0..3_000_000_000_u64], 1..200),
    ) {
        let meters: Meters<String> = Meters::new(8);
        let limit = Limit::new(rate, burst);
        let mut now = START;
        let mut passed = vec![];
        for gap in gaps {
            now += gap;
            match meters.take("user/alice", &limit, now) {
                Ok(()) => passed.push(now),
                // Honouring the wait, and not a nanosecond less, is enough.
                Err(wait) => {
                    let wait = u64::try_from(wait.as_nanos()).expect("short");
                    prop_assert!(wait > 0);
                    prop_assert!(meters.take("user/alice", &limit, now + wait - 1).is_err());
                    now += wait;
                    prop_assert!(meters.take("user/alice", &limit, now).is_ok());
                    passed.push(now);
                }
            }
        }
        for (first, from) in passed.iter().enumerate() {
            for (last, until) in passed.iter().enumerate().skip(first) {
                let seconds = (until - from) as f64 / SECOND as f64;
                prop_assert!((last - first + 1) as f64 <= f64::from(burst) + rate * seconds + 1e-6);
            }
        }
    }

    /// A clock that jumps back costs nobody more than the limit itself takes.
    #[test]
    fn a_clock_that_jumps_back_locks_nobody_out(back in 0_u64..1_000_000 * SECOND) {
        let meters: Meters<String> = Meters::new(8);
        let limit = Limit::new(10.0, 5);
        for _ in 0..5 {
            prop_assert!(meters.take("user/alice", &limit, START).is_ok());
        }
        let now = START - back;
        if let Err(wait) = meters.take("user/alice", &limit, now) {
            prop_assert!(wait <= Duration::from_millis(100));
        }
    }
}

/// Printed, and bounded far above what was measured: unoptimised, on a machine that does other things too.
#[test]
fn a_decision_is_cheap() {
    let measure = |what: &str, engine: &Engine| {
        let calls = 100_000_u64;
        let address = Some(ip("192.0.2.1"));
        let begun = std::time::Instant::now();
        for number in 0..calls {
            let now = START + number * SECOND;
            let passage = engine.network(address, now).expect("passes");
            engine.principal("user/alice", passage, now).expect("passes");
        }
        let each = begun.elapsed().as_nanos() as u64 / calls;
        println!("{what}: {each} ns a call");
        each
    };
    let idle = measure("without rules", &Engine::new(Rules::default(), vec![]));
    let mut rules = Rules {
        limits: vec![limit("*", 100.0, 100), limit("0.0.0.0/0", 100.0, 100)],
        ..Rules::default()
    };
    rules.block = (0..=255)
        .map(|number| entry(&format!("10.{number}.0.0/16")))
        .collect();
    rules
        .block
        .extend((0..1000).map(|number| entry(&format!("user/u{number}"))));
    let strict = measure("with 1258 rules", &Engine::new(rules, vec![]));
    assert!(idle < 2_000, "{idle} ns");
    assert!(strict < 50_000, "{strict} ns");
}

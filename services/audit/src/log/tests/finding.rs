use proptest::prelude::*;

use super::{Filled, at, event, facts, memory};
use crate::{
    error::AuditError,
    log::{Event, Facts, Filter, Log, Outcome, PageToken, Source},
};

/// Indexes of what matches, page by page.
fn pages(log: &Log, filter: &Filter, limit: usize) -> Vec<u64> {
    let mut found = Vec::new();
    let mut next = Some(0);
    while let Some(from) = next {
        let page = log.find(filter, from, limit).unwrap();
        assert!(page.entries.len() <= limit);
        assert!(page.next.is_none_or(|next| next > from), "no progress");
        found.extend(page.entries.iter().map(|entry| entry.index));
        next = page.next;
    }
    found
}

fn filters() -> impl Strategy<Value = Filter> {
    let texts = (
        prop::option::of(0_u64..4),
        prop::option::of(any::<bool>()),
        prop::option::of(0_u64..6),
        prop::option::of(0_u64..12),
    );
    let rest = (
        prop::option::of(prop::sample::select(Outcome::ALL.to_vec())),
        prop::option::of(prop::sample::select(vec![Source::Kms, Source::Audit])),
        prop::option::of(0_i64..400),
        prop::option::of(0_i64..400),
    );
    (texts, rest).prop_map(
        |((principal, operation, resource, trace), (outcome, source, from, until))| Filter {
            principal: principal.map(|p| format!("user/{p}")).unwrap_or_default(),
            operation: operation
                .map(|e| if e { "kms.Encrypt" } else { "kms.Decrypt" }.into())
                .unwrap_or_default(),
            resource: resource.map(|r| format!("keys/{r}")).unwrap_or_default(),
            trace_id: trace.map(|t| format!("{t:032x}")).unwrap_or_default(),
            outcome,
            source,
            from: from.map(at),
            until: until.map(at),
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Paging through any filter gives what a plain look at every entry gives.
    #[test]
    fn indexes_find_what_a_look_at_everything_finds(filter in filters(), limit in 1_usize..20) {
        let Filled { log, .. } = Filled::new(memory, 40);
        let expected: Vec<u64> = (0..40).filter(|number| filter.matches(&facts(*number))).collect();
        prop_assert_eq!(pages(&log, &filter, limit), expected);
    }

    #[test]
    fn a_page_token_reads_back_and_fits_its_own_filter_alone(
        next: u64, filter in filters(), other in filters(),
    ) {
        let token: PageToken = PageToken::new(next, &filter).to_string().parse().unwrap();
        prop_assert_eq!(token.resume(&filter).unwrap(), next);
        prop_assert_eq!(token.resume(&other).is_ok(), filter == other);
    }

    #[test]
    fn what_is_no_page_token_is_refused(text in "\\PC{0,40}") {
        if let Ok(token) = text.parse::<PageToken>() {
            prop_assert_eq!(token.to_string(), text);
        }
    }
}

#[test]
fn the_same_text_in_another_field_is_another_filter() {
    let by = |change: fn(&mut Filter)| {
        let mut filter = Filter::default();
        change(&mut filter);
        PageToken::new(1, &filter).to_string()
    };
    let tokens = [
        by(|_| {}),
        by(|f| f.principal = "a".into()),
        by(|f| f.operation = "a".into()),
        by(|f| f.resource = "a".into()),
        by(|f| f.trace_id = "a".into()),
        by(|f| f.from = Some(at(0))),
        by(|f| f.until = Some(at(0))),
        by(|f| f.source = Some(Source::Kms)),
        by(|f| f.outcome = Some(Outcome::Succeeded)),
    ];
    let distinct: std::collections::BTreeSet<_> = tokens.iter().collect();
    assert_eq!(distinct.len(), tokens.len());
    assert!(matches!(
        "abc".parse::<PageToken>(),
        Err(AuditError::Field { .. })
    ));
}

/// Longer than what is looked at in one go, with a facet that all share and one that is rare.
#[test]
fn a_long_log_is_found_through_its_rarest_facet_and_in_bounded_steps() {
    let Filled { log, .. } = Filled::new(memory, 0);
    const SIZE: u64 = 21_000;
    for start in (0..SIZE).step_by(1000) {
        let events: Vec<_> = (start..start + 1000)
            .map(|number| {
                let resource = if number % 10_000 == 777 {
                    "keys/rare"
                } else {
                    "keys/common"
                }
                .to_owned();
                Event::new(Facts {
                    resource,
                    ..facts(number)
                })
                .unwrap()
            })
            .collect();
        log.append(&events, at(1)).unwrap();
    }
    let rare = Filter {
        resource: "keys/rare".into(),
        source: Some(Source::Kms),
        ..Filter::default()
    };
    let page = log.find(&rare, 0, 100).unwrap();
    assert_eq!(
        page.entries.iter().map(|e| e.index).collect::<Vec<_>>(),
        [777, 10_777, 20_777]
    );
    assert_eq!(page.next, None);
    let common = Filter {
        resource: "keys/common".into(),
        ..Filter::default()
    };
    assert_eq!(pages(&log, &common, 1000).len() as u64, SIZE - 3);
    // By time alone: a page that looked at much in vain says where to go on.
    let late = Filter {
        from: Some(at(209_990)),
        ..Filter::default()
    };
    let page = log.find(&late, 0, 100).unwrap();
    assert!(page.entries.is_empty());
    assert!(page.next.is_some_and(|next| (20_000..SIZE).contains(&next)));
    assert_eq!(pages(&log, &late, 100), [SIZE - 1]);
}

#[test]
fn a_page_beyond_the_end_is_empty() {
    let Filled { log, .. } = Filled::new(memory, 3);
    for from in [3, 4, u64::MAX] {
        let page = log.find(&Filter::default(), from, 10).unwrap();
        assert!(page.entries.is_empty() && page.next.is_none() && page.size == 3);
        let kms = Filter {
            source: Some(Source::Kms),
            ..Filter::default()
        };
        assert!(log.find(&kms, from, 10).unwrap().entries.is_empty());
    }
    assert_eq!(log.append(&[event(3)], at(1)).unwrap(), [3]);
    assert_eq!(log.find(&Filter::default(), 3, 10).unwrap().entries.len(), 1);
}

use asterism_proto::audit::{Event, EventFilter, ListEventsRequest, Outcome};
use prost_types::Timestamp;

use crate::support::{World, event, wrong_field};

const SIZE: u64 = 60;

/// Whether an event, with its number, is to be found.
type Wanted = fn(&Event, u64) -> bool;

#[tokio::test]
async fn filters_combine_and_pages_join() {
    let world = World::start().await;
    world.kms().append((0..SIZE).map(event).collect()).await.unwrap();
    let auditor = world.auditor();
    let at = |seconds| Some(Timestamp { seconds, nanos: 0 });
    let all = EventFilter {
        source: "kms".into(),
        ..Default::default()
    };
    let cases: [(EventFilter, Wanted); 8] = [
        (all.clone(), |_, _| true),
        (
            EventFilter {
                principal: "user/1".into(),
                ..all.clone()
            },
            |e, _| e.principal == "user/1",
        ),
        (
            EventFilter {
                operation: "kms.Even".into(),
                resource: "keys/3".into(),
                ..all.clone()
            },
            |_, n| n % 2 == 0 && n % 5 == 3,
        ),
        (
            EventFilter {
                outcome: Outcome::Denied.into(),
                ..all.clone()
            },
            |_, n| n % 7 == 5,
        ),
        (
            EventFilter {
                outcome: Outcome::Succeeded.into(),
                ..all.clone()
            },
            |_, n| n % 7 != 5,
        ),
        (
            EventFilter {
                trace_id: event(9).trace_id,
                ..all.clone()
            },
            |_, n| n / 4 == 2,
        ),
        (
            EventFilter {
                from: at(1010),
                until: at(1020),
                ..all.clone()
            },
            |_, n| (10..20).contains(&n),
        ),
        (
            EventFilter {
                principal: "user/9".into(),
                ..all
            },
            |_, _| false,
        ),
    ];
    for (filter, wanted) in cases {
        let expected: Vec<u64> = (0..SIZE)
            .filter(|number| wanted(&event(*number), *number))
            .collect();
        for page_size in [1, 7, 1000, 0] {
            let found: Vec<u64> = auditor
                .list_all(filter.clone(), page_size)
                .await
                .iter()
                .map(|entry| entry.index)
                .collect();
            assert_eq!(found, expected, "{filter:?} by {page_size}");
        }
    }
}

#[tokio::test]
async fn the_default_page_has_100_and_the_log_tells_its_size() {
    let world = World::start().await;
    world.kms().append((0..150).map(event).collect()).await.unwrap();
    let page = world.auditor().list(ListEventsRequest::default()).await.unwrap();
    assert_eq!((page.entries.len(), page.log_size), (100, 150));
    assert!(!page.next_page_token.is_empty());
}

#[tokio::test]
async fn a_page_of_the_largest_events_fits_into_a_message() {
    let world = World::start().await;
    let text = "x".repeat(512);
    let large = |number| Event {
        principal: text.clone(),
        on_behalf_of: text.clone(),
        resource: text.clone(),
        reason: text.clone(),
        request_id: text.clone(),
        trace_id: text.clone(),
        ..event(number)
    };
    for start in (0..1000).step_by(250) {
        world
            .kms()
            .append((start..start + 250).map(large).collect())
            .await
            .unwrap();
    }
    let page = world
        .auditor()
        .list(ListEventsRequest {
            page_size: 1000,
            ..Default::default()
        })
        .await
        .unwrap();
    assert_eq!(page.entries.len(), 1000);
}

#[tokio::test]
async fn what_cannot_be_asked_is_refused_by_name() {
    let world = World::start().await;
    let auditor = world.auditor();
    world.kms().append((0..10).map(event).collect()).await.unwrap();
    let list = async |request: ListEventsRequest| wrong_field(auditor.list(request).await);
    for page_size in [-1, 1001, i32::MAX] {
        assert_eq!(
            list(ListEventsRequest {
                page_size,
                ..Default::default()
            })
            .await,
            "page_size"
        );
    }
    let filtered = |filter| ListEventsRequest {
        filter: Some(filter),
        ..Default::default()
    };
    let by = EventFilter {
        outcome: 9,
        ..Default::default()
    };
    assert_eq!(list(filtered(by)).await, "filter.outcome");
    let by = EventFilter {
        source: "ledger".into(),
        ..Default::default()
    };
    assert_eq!(list(filtered(by)).await, "filter.source");
    let moment = |seconds| Some(Timestamp { seconds, nanos: 0 });
    let by = EventFilter {
        from: moment(10),
        until: moment(10),
        ..Default::default()
    };
    assert_eq!(list(filtered(by)).await, "filter.until");
    let by = EventFilter {
        from: moment(i64::MAX),
        ..Default::default()
    };
    assert_eq!(list(filtered(by)).await, "filter.from");

    let first = ListEventsRequest {
        page_size: 3,
        ..Default::default()
    };
    let token = auditor.list(first.clone()).await.unwrap().next_page_token;
    let kms = Some(EventFilter {
        source: "kms".into(),
        ..Default::default()
    });
    let other = ListEventsRequest {
        page_token: token.clone(),
        filter: kms,
        ..first.clone()
    };
    assert_eq!(list(other).await, "page_token");
    for page_token in [
        "x".to_owned(),
        token.to_uppercase() + "A",
        token.replace('0', "g"),
        token.repeat(1000),
    ] {
        assert_eq!(
            list(ListEventsRequest {
                page_token,
                ..first.clone()
            })
            .await,
            "page_token"
        );
    }
    // The size of a page may change from one to the next.
    let next = ListEventsRequest {
        page_token: token,
        page_size: 1000,
        ..first
    };
    assert_eq!(auditor.list(next).await.unwrap().entries[0].index, 3);
}

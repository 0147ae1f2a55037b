use asterism_crypto::Digest;
use proptest::prelude::*;

use asterism_tlog::leaf_hash;

use super::super::{
    Entry, Event, EventId, Facts, MAX_EVENT_BYTES, MAX_TEXT_BYTES, Outcome, Source, Timestamp,
    entry::{decode, encode, encode_event},
    layout1::Chained,
    pack::{Packer, is_packed, unpack},
};
use super::{at, facts};

fn moments() -> impl Strategy<Value = Timestamp> {
    (-62_135_596_800..=253_402_300_799_i64, 0..1_000_000_000_u32)
        .prop_map(|(seconds, nanos)| Timestamp::new(seconds, nanos).unwrap())
}

fn digests() -> impl Strategy<Value = Option<Digest>> {
    prop::option::of(any::<[u8; 32]>().prop_map(Digest::from_bytes))
}

prop_compose! {
    fn all_facts()(
        id: [u8; 16],
        source in prop::sample::select(Source::ALL.to_vec()),
        source_sequence in 1..=u64::MAX,
        occurred_at in moments(),
        outcome in prop::sample::select(Outcome::ALL.to_vec()),
        key_version: u32,
        (input, output) in (digests(), digests()),
        operation in "\\PC{1,40}",
        texts in prop::array::uniform6("\\PC{0,40}"),
        (token_id, network) in ("(\\PC{1,40})?", "(\\PC{1,40})?"),
    ) -> Facts {
        let [principal, on_behalf_of, resource, reason, request_id, trace_id] = texts;
        Facts {
            id: EventId::from_bytes(id), source, source_sequence, occurred_at, outcome, key_version, input, output,
            principal, on_behalf_of, operation, resource, reason, request_id, trace_id,
            token_id, network,
        }
    }
}

fn stored(appended_at: Timestamp, event: &Event) -> Vec<u8> {
    encode(appended_at, &encode_event(event))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn an_entry_reads_back_as_it_was_written(appended_at in moments(), facts in all_facts()) {
        let event = Event::new(facts).unwrap();
        let entry = decode(5, &stored(appended_at, &event)).unwrap();
        prop_assert_eq!(entry.index, 5);
        prop_assert_eq!(entry.appended_at, appended_at);
        prop_assert_eq!(entry.leaf, leaf_hash(&stored(appended_at, &event)));
        prop_assert_eq!(entry.event, event);
    }

    /// Whatever can be read is the one encoding of what was read: no two strings of bytes mean the same entry.
    #[test]
    fn an_altered_entry_is_another_entry_or_none(
        facts in all_facts(), place in any::<prop::sample::Index>(), flip in 1..=255_u8,
    ) {
        let mut bytes = stored(at(3), &Event::new(facts).unwrap());
        let place = place.index(bytes.len());
        bytes[place] ^= flip;
        if let Ok(entry) = decode(0, &bytes) {
            prop_assert_eq!(stored(entry.appended_at, &entry.event), bytes);
        }
    }

    #[test]
    fn a_cut_or_lengthened_entry_is_refused(facts in all_facts(), keep in any::<prop::sample::Index>()) {
        let mut bytes = stored(at(3), &Event::new(facts).unwrap());
        prop_assert!(decode(0, &bytes[..keep.index(bytes.len())]).is_err());
        bytes.push(0);
        prop_assert!(decode(0, &bytes).is_err());
    }

    #[test]
    fn garbage_does_not_panic(garbage: Vec<u8>) {
        let _ = decode(0, &garbage);
    }

    #[test]
    fn an_event_id_reads_back_as_it_was_written(bytes: [u8; 16]) {
        let id = EventId::from_bytes(bytes);
        prop_assert_eq!(id.to_string().parse::<EventId>().unwrap(), id);
    }
}

/// What packing and unpacking makes of events.
fn packed(appended_at: Timestamp, events: &[Event]) -> Vec<(u64, Vec<u8>)> {
    let mut packer = Packer::new(7, appended_at);
    for event in events {
        packer.push(event, &leaf_hash(&stored(appended_at, event)));
    }
    packer.finish()
}

/// Texts of all kinds: those that are kept as numbers, those that nearly are, and repeated ones.
fn texts() -> impl Strategy<Value = String> {
    prop_oneof![
        "[0-9a-f]{32}",
        "[0-9A-F]{32}",
        "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}",
        "[0-9A-F]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}",
        "[0-9a-f-]{32}",
        "[0-9a-f-]{36}",
        "\\PC{0,300}",
        "(user/[ab])?",
    ]
}

prop_compose! {
    fn all_events()(
        facts in all_facts(),
        texts in prop::array::uniform9(texts()),
    ) -> Option<Event> {
        let [principal, on_behalf_of, operation, resource, reason, request_id, trace_id, token_id, network] = texts;
        let operation = if operation.is_empty() { "o".to_owned() } else { operation };
        Event::new(Facts {
            principal, on_behalf_of, operation, resource, reason, request_id, trace_id, token_id, network, ..facts
        }).ok()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn packed_entries_read_back_as_they_were_written(
        appended_at in moments(), events in prop::collection::vec(all_events(), 1..80),
    ) {
        let events: Vec<Event> = events.into_iter().flatten().collect();
        let mut read: Vec<Event> = vec![];
        for (first, record) in packed(appended_at, &events) {
            prop_assert!(record.len() <= asterism_store::MAX_VALUE);
            prop_assert_eq!(first, 7 + read.len() as u64);
            let entries: Vec<Entry> = unpack(first, &record).unwrap().iter().map(|packed| {
                let (entry, bytes) = packed.entry().unwrap();
                assert_eq!(bytes, stored(appended_at, &entry.event));
                entry
            }).collect();
            prop_assert!(is_packed(first, appended_at, &entries, &record));
            read.extend(entries.into_iter().map(|entry| entry.event));
        }
        prop_assert_eq!(read, events);
    }

    /// Whatever is changed in a record, it is no longer what packing the entries in it makes.
    #[test]
    fn an_altered_record_is_noticed(
        events in prop::collection::vec(all_events(), 1..12), place in any::<prop::sample::Index>(), flip in 1..=255_u8,
    ) {
        let events: Vec<Event> = events.into_iter().flatten().collect();
        for (first, mut record) in packed(at(1), &events) {
            let original = record.clone();
            let place = place.index(record.len());
            record[place] ^= flip;
            let Ok(entries) = unpack(first, &record) else { continue };
            let entries: Option<Vec<Entry>> = entries.iter().map(|packed| Some(packed.entry()?.0)).collect();
            let noticed = entries.is_none_or(|entries| !is_packed(first, entries[0].appended_at, &entries, &record));
            prop_assert!(noticed || record == original);
        }
    }

    #[test]
    fn no_record_makes_unpacking_panic(garbage: Vec<u8>) {
        for entry in unpack(3, &[&[1; 13][..], &garbage].concat()).into_iter().flatten() {
            let _ = entry.entry();
        }
        let _ = unpack(3, &garbage);
    }
}

/// Logs that are out there must stay readable, and their chains the same: this test may only be added to.
#[test]
fn version_1_is_what_it_was() {
    let event = Event::new(facts(1)).unwrap();
    let bytes = encode(at(1000), &encode_event(&event));
    let expected: Vec<u8> = [
        &[1][..],                  // version
        &1000_i64.to_be_bytes(),   // appended at
        &5_u32.to_be_bytes(),      //
        &[7, 7, 7, 7, 7, 7, 7, 7], // event id
        &1_u64.to_be_bytes(),      //
        &[1],                      // kms
        &2_u64.to_be_bytes(),      // sequence
        &10_i64.to_be_bytes(),     // occurred at
        &5_u32.to_be_bytes(),      //
        &[1],                      // succeeded
        &1_u32.to_be_bytes(),      // key version
        &[1],                      // an input digest, no output digest
        Digest::of(&1_u64.to_be_bytes()).as_bytes(),
        b"\x00\x06user/1",
        b"\x00\x00",
        b"\x00\x0bkms.Decrypt",
        b"\x00\x06keys/1",
        b"\x00\x00",
        b"\x00\x02r1",
        b"\x00\x2000000000000000000000000000000000",
    ]
    .concat();
    assert_eq!(bytes, expected);
    assert_eq!(leaf_hash(&bytes), Digest::of(&[&[0][..], &expected].concat()));
    let by_hand = Digest::of(&[&[1][..], &[0; 32], &expected].concat());
    assert_eq!(Chained::empty().after(&bytes).chain, by_hand);
}

/// Later texts stand at the end, and only where there are any: entries from before have no other encoding.
#[test]
fn token_and_network_follow_what_was() {
    let before = encode_event(&Event::new(facts(1)).unwrap());
    let with = |token_id: &str, network: &str| {
        let event = Event::new(Facts {
            token_id: token_id.into(),
            network: network.into(),
            ..facts(1)
        });
        encode_event(&event.unwrap())
    };
    let place = 16 + 1 + 8 + 12 + 1 + 4;
    let expected = |flags: u8, end: &[u8]| {
        let mut bytes = [before.as_slice(), end].concat();
        bytes[place] |= flags;
        bytes
    };
    assert_eq!(with("", ""), before);
    assert_eq!(with("t1", ""), expected(4, b"\x00\x02t1"));
    assert_eq!(with("", "::1"), expected(8, b"\x00\x03::1"));
    assert_eq!(with("t1", "::1"), expected(12, b"\x00\x02t1\x00\x03::1"));
    let empty = encode(at(1), &expected(4, b"\x00\x00"));
    assert!(decode(0, &empty).is_err(), "an empty text has no bit");
}

#[test]
fn events_that_cannot_be_kept_are_refused() {
    let text = |length| "x".repeat(length);
    let refused = |change: fn(&mut Facts)| {
        let mut facts = facts(1);
        change(&mut facts);
        Event::new(facts).unwrap_err().to_string()
    };
    assert!(refused(|f| f.source_sequence = 0).starts_with("source_sequence"));
    assert!(refused(|f| f.operation.clear()).starts_with("operation"));
    assert!(refused(|f| f.resource = "x".repeat(MAX_TEXT_BYTES + 1)).starts_with("resource"));
    let crowded = |last: usize| {
        let [a, b, c, d, e, f] = std::array::from_fn(|_| text(MAX_TEXT_BYTES));
        Event::new(Facts {
            principal: a,
            on_behalf_of: b,
            operation: c,
            resource: d,
            reason: e,
            request_id: f,
            trace_id: text(last),
            ..facts(0)
        })
    };
    // 43 fixed, two digests, seven lengths, six full texts.
    let room = MAX_EVENT_BYTES - 43 - 64 - 14 - 6 * MAX_TEXT_BYTES;
    let largest = crowded(room).unwrap();
    assert_eq!(encode_event(&largest).len(), MAX_EVENT_BYTES);
    assert!(stored(at(1), &largest).len() < asterism_store::MAX_VALUE);
    assert!(crowded(room + 1).is_err());
    for no_id in [
        "",
        "7",
        "{07070707-0707-0707-0707-070707070707}",
        "07070707070707070707070707070707",
    ] {
        assert!(no_id.parse::<EventId>().is_err(), "{no_id}");
    }
    assert!("ledger".parse::<Source>().is_err());
    assert!(Timestamp::new(253_402_300_800, 0).is_none());
    assert!(Timestamp::new(0, 1_000_000_000).is_none());
}

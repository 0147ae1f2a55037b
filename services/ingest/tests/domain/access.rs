//! Who sees what, and how rows are read.

use asterism_ingest::{
    IngestError,
    datasets::{DatasetId, RowBatch, read_rows},
    uploads::Begun,
};

use crate::support::{ALICE, World, csv, limits, new_upload, reason};

#[test]
fn what_others_own_does_not_exist() {
    let world = World::new();
    let made = world.upload(csv(10)).unwrap();
    let missing = world
        .datasets
        .grant(DatasetId::generate(), &|_| Ok(true))
        .unwrap_err();
    let denied = world
        .datasets
        .grant(made.id, &|owner| Ok(owner == "user/bob"))
        .unwrap_err();
    assert_eq!(reason(Err::<(), _>(missing)), reason(Err::<(), _>(denied)));
    assert!(
        world
            .datasets
            .page(Some("user/bob"), None, 10)
            .unwrap()
            .is_empty()
    );

    let id = world.begin("");
    assert_eq!(
        reason(
            world
                .uploads
                .put(id, "user/bob", 0, "a,b\n".into(), None, world.now)
        ),
        "UPLOAD_UNKNOWN"
    );
    assert_eq!(
        reason(world.uploads.progress(id, "user/bob", world.now)),
        "UPLOAD_UNKNOWN"
    );
    assert_eq!(reason(world.uploads.abort(id, "user/bob")), "UPLOAD_UNKNOWN");
    let commit = world
        .uploads
        .commit(id, "user/bob", 0, None, &world.keys, world.now);
    assert_eq!(reason(commit), "UPLOAD_UNKNOWN");
    world.put(id, 0, b"a,b\n").unwrap();
}

#[test]
fn pages_go_through_everything_once_in_order() {
    let world = World::new();
    let mut made = Vec::new();
    for owner in [ALICE, "user/bob", ALICE, ALICE, "user/bob"] {
        let begun = world
            .uploads
            .begin(new_upload(owner, "t", ""), &world.keys, world.now)
            .unwrap();
        let Begun::Upload { id, .. } = begun else {
            panic!("an upload")
        };
        let bytes = csv(3);
        world
            .uploads
            .put(id, owner, 0, bytes.clone().into(), None, world.now)
            .unwrap();
        let dataset = world
            .uploads
            .commit(id, owner, bytes.len() as u64, None, &world.keys, world.now)
            .unwrap();
        made.push((owner, dataset.id));
    }
    for owner in [None, Some(ALICE), Some("user/bob")] {
        let wanted: Vec<DatasetId> = made
            .iter()
            .filter(|(of, _)| owner.is_none_or(|owner| owner == *of))
            .map(|(_, id)| *id)
            .collect();
        for limit in [1, 2, 10] {
            let (mut seen, mut after) = (Vec::new(), None);
            loop {
                let page = world.datasets.page(owner, after, limit).unwrap();
                let Some((last, _)) = page.last() else { break };
                after = Some(*last);
                seen.extend(page.iter().map(|(id, _)| *id));
            }
            assert_eq!(seen, wanted, "{owner:?} by {limit}");
        }
    }
}

fn ids(batches: &[RowBatch]) -> Vec<String> {
    batches
        .iter()
        .flat_map(|batch| &batch.rows)
        .map(|row| row[0].clone())
        .collect()
}

#[test]
fn rows_come_in_order_from_any_offset_and_as_many_as_asked() {
    let world = World::new();
    let made = world.upload(csv(10_000)).unwrap();
    let all = world.rows(made.id, 0, None).unwrap();
    assert_eq!(
        all[0],
        RowBatch {
            columns: vec!["id".into(), "value".into(), "label".into()],
            rows: vec![]
        }
    );
    assert!(
        all[1..]
            .iter()
            .all(|batch| batch.columns.is_empty() && !batch.rows.is_empty())
    );
    assert!(all.len() > 2, "rows of one dataset come in more than one message");
    let expected: Vec<String> = (0..10_000).map(|row| row.to_string()).collect();
    assert_eq!(ids(&all), expected);
    for (offset, limit) in [
        (0, 1),
        (9_999, 5),
        (4_095, 2),
        (17, 5_000),
        (10_000, 1),
        (20_000, 1),
    ] {
        let some = world.rows(made.id, offset, Some(limit)).unwrap();
        let from = (offset as usize).min(10_000);
        let to = (from + limit as usize).min(10_000);
        assert_eq!(ids(&some), expected[from..to], "{offset} {limit}");
        assert_eq!(some[0].columns.len(), 3);
    }
}

#[test]
fn quoted_cells_and_long_rows_come_back_as_they_were_meant() {
    let world = World::new();
    let long = "y".repeat(900_000);
    let text = format!("a,b\n\"x, \"\"y\"\"\n\",1\n{long},2\n{long},3\n");
    let made = world.upload(text).unwrap();
    let batches = world.rows(made.id, 0, None).unwrap();
    let rows: Vec<_> = batches.iter().flat_map(|batch| &batch.rows).collect();
    assert_eq!(rows[0], &["x, \"y\"\n", "1"]);
    assert_eq!((rows[1][0].len(), rows[2][1].as_str()), (900_000, "3"));
    // No message holds two of the long ones.
    assert!(
        batches
            .iter()
            .all(|batch| batch.rows.iter().filter(|row| row[0].len() > 1000).count() <= 1)
    );
}

#[test]
fn reading_ends_when_nobody_listens() {
    let world = World::new();
    let made = world.upload(csv(50_000)).unwrap();
    let mut batches = 0;
    let ended = read_rows(world.open(made.id).unwrap(), limits().csv, 0, None, &mut |_| {
        batches += 1;
        if batches == 3 {
            Err(IngestError::Cancelled)
        } else {
            Ok(())
        }
    });
    assert_eq!((reason(ended), batches), ("CANCELLED", 3));
}

#[test]
fn rows_before_the_damage_come_and_none_after_it() {
    let world = World::new();
    let made = world.upload(csv(50_000)).unwrap();
    let path = world.blob(made.id, "data");
    let mut blob = std::fs::read(&path).unwrap();
    let middle = blob.len() / 2;
    blob[middle] ^= 1;
    std::fs::write(&path, blob).unwrap();
    let mut rows = 0;
    let ended = read_rows(
        world.open(made.id).unwrap(),
        limits().csv,
        0,
        None,
        &mut |batch| {
            rows += batch.rows.len();
            Ok(())
        },
    );
    assert_eq!(reason(ended), "DATASET_DAMAGED");
    assert!(rows > 0 && rows < 25_000, "{rows}");
}

//! What a crash, a full disk or a broken store leaves behind.

use std::{
    fs,
    io::{self, Write},
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
};

use asterism_chassis::error::{Classify as _, ErrorClass};
use asterism_ingest::{datasets::Datasets, uploads::Uploads};
use asterism_store::{BlobName, BlobReader, BlobWriter, Blobs, FsBlobs, StoreError};

use crate::support::{ALICE, World, csv, limits, new_upload, reason};

#[test]
fn a_crash_during_an_upload_leaves_nothing_and_the_caller_begins_again() {
    let world = World::new();
    let bytes = csv(2000);
    let id = world.begin("r1");
    world.put(id, 0, &bytes[..20_000]).unwrap();
    // What a killed process leaves: the staged file, and nobody to remove it.
    fs::write(world.blob_dir().join(".staged-left"), b"ciphertext").unwrap();
    let world = world.reopen();
    world.wait_for_files(0);
    assert_eq!(reason(world.put(id, 20_000, &bytes[20_000..])), "UPLOAD_UNKNOWN");
    let id = world.begin("r1");
    world.put(id, 0, &bytes).unwrap();
    assert_eq!(world.commit(id, bytes.len()).unwrap().record.rows, 2000);
}

#[test]
fn blobs_without_a_record_are_swept_at_the_next_start_and_others_stay() {
    let world = World::new();
    let kept = world.upload(csv(100)).unwrap().id;
    let lost = world.upload(csv(100)).unwrap().id;
    let copies: Vec<_> = ["data", "table", "manifest"]
        .map(|kind| (world.blob(lost, kind), fs::read(world.blob(lost, kind)).unwrap()))
        .into();
    world.datasets.delete(world.granted(lost)).unwrap();
    // As if the process had died before the record was written: after one blob, after two, after all.
    for count in 1..=3 {
        for (path, bytes) in &copies[..count] {
            fs::write(path, bytes).unwrap();
        }
        let blobs = Arc::new(FsBlobs::open(&world.blob_dir()).unwrap());
        let datasets = Datasets::open(world.records.clone(), blobs).unwrap();
        assert_eq!(world.files().len(), 3, "{:?}", world.files());
        assert_eq!(datasets.page(None, None, 10).unwrap().len(), 1);
    }
    fs::write(world.blob_dir().join(format!("{kept}.other")), b"garbage").unwrap();
    let world = world.reopen();
    assert_eq!(world.files().len(), 3);
    assert!(world.verify(kept).verified());
}

/// A disk that is full after some bytes.
struct FullDisk {
    inner: FsBlobs,
    room: Arc<AtomicI64>,
}

struct FullDiskWriter {
    inner: Box<dyn BlobWriter>,
    room: Arc<AtomicI64>,
}

impl Write for FullDiskWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.room.fetch_sub(bytes.len() as i64, Ordering::SeqCst) < bytes.len() as i64 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.inner.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl BlobWriter for FullDiskWriter {
    fn commit(self: Box<Self>, name: &BlobName) -> Result<(), StoreError> {
        self.inner.commit(name)
    }

    fn bytes_written(&self) -> u64 {
        self.inner.bytes_written()
    }
}

impl Blobs for FullDisk {
    fn create(&self) -> Result<Box<dyn BlobWriter>, StoreError> {
        Ok(Box::new(FullDiskWriter {
            inner: self.inner.create()?,
            room: self.room.clone(),
        }))
    }

    fn open(&self, name: &BlobName) -> Result<Box<dyn BlobReader>, StoreError> {
        self.inner.open(name)
    }

    fn delete(&self, name: &BlobName) -> Result<(), StoreError> {
        self.inner.delete(name)
    }

    fn list(&self) -> Result<Vec<BlobName>, StoreError> {
        self.inner.list()
    }

    fn contains(&self, name: &BlobName) -> Result<bool, StoreError> {
        self.inner.contains(name)
    }

    fn path_hint(&self, name: &BlobName) -> Option<std::path::PathBuf> {
        self.inner.path_hint(name)
    }
}

#[test]
fn a_full_disk_is_said_so_wherever_it_fills_up_and_nothing_is_half_stored() {
    let bytes = csv(3000);
    let needed = {
        let world = World::new();
        world.upload(&bytes).unwrap();
        world
            .files()
            .iter()
            .map(|file| fs::metadata(world.blob_dir().join(file)).unwrap().len() as i64)
            .sum::<i64>()
    };
    // In the header, in the chunks, in the last one, in the table, in the manifest.
    for room in [0, 10_000, bytes.len() as i64, needed - 3000, needed - 1] {
        let mut world = World::new();
        let disk = FullDisk {
            inner: FsBlobs::open(&world.blob_dir()).unwrap(),
            room: Arc::new(AtomicI64::new(room)),
        };
        let disk = Arc::new(disk);
        world.datasets = Arc::new(Datasets::open(world.records.clone(), disk.clone()).unwrap());
        world.uploads = Uploads::new(world.datasets.clone(), limits());
        let upload = |request: &str| {
            let begun = world
                .uploads
                .begin(new_upload(ALICE, "test", request), &world.keys, world.now)?;
            let asterism_ingest::uploads::Begun::Upload { id, .. } = begun else {
                panic!("not new")
            };
            world.put(id, 0, &bytes)?;
            world.commit(id, bytes.len())
        };
        let error = upload("r1").unwrap_err();
        assert_eq!(
            (error.reason(), error.class()),
            ("STORAGE_FULL", ErrorClass::Exhausted),
            "room {room}"
        );
        assert!(error.retry_after().is_some());
        assert!(world.no_dataset());
        world.wait_for_files(0);
        // Once there is room, the same request goes through.
        disk.room.store(i64::MAX, Ordering::SeqCst);
        let made = upload("r1").unwrap();
        assert!(world.verify(made.id).verified());
    }
}

#[test]
fn deleting_leaves_no_file_and_no_second_deletion() {
    let world = World::new();
    let made = world.upload(csv(10)).unwrap();
    let (one, two) = (world.granted(made.id), world.granted(made.id));
    world.datasets.delete(one).unwrap();
    assert_eq!(reason(world.datasets.delete(two)), "DATASET_NOT_FOUND");
    assert!(world.files().is_empty());
    assert_eq!(
        reason(world.datasets.grant(made.id, &|_| Ok(true))),
        "DATASET_NOT_FOUND"
    );
    let owned = world.datasets.page(Some(ALICE), None, 10).unwrap();
    assert!(owned.is_empty());
}

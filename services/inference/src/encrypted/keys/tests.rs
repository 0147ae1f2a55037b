use asterism_fhe::{client, keys::SecretKey};
use asterism_store::{FsBlobs, MemoryRecords};

use super::*;

struct Shelf {
    keys: EvaluationKeys,
    dir: tempfile::TempDir,
}

fn shelf(per_owner: usize) -> Shelf {
    let dir = tempfile::tempdir().unwrap();
    let blobs = Arc::new(FsBlobs::open(dir.path()).unwrap());
    let limits = KeyLimits {
        per_owner,
        bytes: 64 << 20,
    };
    Shelf {
        keys: EvaluationKeys::new(Arc::new(MemoryRecords::default()), blobs, limits),
        dir,
    }
}

impl Shelf {
    fn files(&self) -> usize {
        std::fs::read_dir(self.dir.path()).unwrap().count()
    }
}

fn fresh() -> Vec<u8> {
    let secret = SecretKey::generate(ParamsId::Paths).unwrap();
    client::evaluation_key(&secret).unwrap().unwrap()
}

fn header(bytes: &[u8]) -> KeyHeader {
    KeyHeader {
        params: ParamsId::Paths.name().into(),
        sha256: Digest::of(bytes),
        total_bytes: bytes.len() as u64,
    }
}

fn upload(keys: &EvaluationKeys, owner: &str, bytes: &[u8]) -> Result<StoredKey, InferenceError> {
    let mut upload = keys.begin(owner, header(bytes))?;
    for chunk in bytes.chunks(100_000) {
        upload.push(chunk)?;
    }
    keys.keep(upload)
}

fn encrypted(result: Result<impl Sized, InferenceError>) -> EncryptedError {
    match result {
        Err(InferenceError::Encrypted(error)) => error,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("not refused"),
    }
}

fn field(result: Result<impl Sized, InferenceError>) -> String {
    match result {
        Err(InferenceError::Field { field, .. }) => field,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("not refused"),
    }
}

#[test]
fn a_key_is_its_owners_and_the_same_again_is_the_same() {
    let shelf = shelf(16);
    let (keys, bytes) = (&shelf.keys, fresh());
    let key = upload(keys, "user/alice", &bytes).unwrap();
    assert_eq!(upload(keys, "user/alice", &bytes).unwrap(), key);
    assert_eq!(keys.read(&key).unwrap(), bytes);
    assert_eq!(shelf.files(), 1);
    assert!(matches!(
        encrypted(keys.get("user/bob", key.id())),
        EncryptedError::KeyNotFound(_)
    ));
    assert!(keys.page("user/bob", None, 10).unwrap().is_empty());
    // The same bytes of two owners are two keys.
    let bobs = upload(keys, "user/bob", &bytes).unwrap();
    keys.delete("user/alice", key.id()).unwrap();
    assert_eq!(keys.read(&bobs).unwrap(), bytes);
    assert!(keys.get("user/alice", key.id()).is_err());
    assert_eq!(
        keys.blob_names().unwrap(),
        HashSet::from([bobs.blob()]),
        "what the sweep must leave"
    );
}

#[test]
fn an_owner_has_only_so_many_keys_and_pages_through_them() {
    let shelf = shelf(3);
    let keys = &shelf.keys;
    let all: Vec<StoredKey> = (0..3)
        .map(|_| upload(keys, "user/alice", &fresh()).unwrap())
        .collect();
    let error = encrypted(keys.begin("user/alice", header(&fresh())));
    assert!(matches!(error, EncryptedError::TooManyKeys(3)));
    assert!(error.to_string().contains("DeleteEvaluationKey"));
    upload(keys, "user/bob", &fresh()).unwrap();
    let first = keys.page("user/alice", None, 2).unwrap();
    let rest = keys.page("user/alice", Some(first[1].id()), 2).unwrap();
    let mut paged: Vec<Digest> = first.iter().chain(&rest).map(|key| key.sha256).collect();
    let mut uploaded: Vec<Digest> = all.iter().map(|key| key.sha256).collect();
    paged.sort();
    uploaded.sort();
    assert_eq!(paged, uploaded);
    keys.delete("user/alice", all[0].id()).unwrap();
    upload(keys, "user/alice", &fresh()).unwrap();
}

#[test]
fn headers_are_checked_before_anything_is_taken() {
    let shelf = shelf(16);
    let (keys, bytes) = (&shelf.keys, fresh());
    let good = header(&bytes);
    let with = |params: &str, total_bytes: u64| {
        let header = KeyHeader {
            params: params.into(),
            total_bytes,
            ..good.clone()
        };
        field(keys.begin("user/alice", header))
    };
    assert_eq!(with("no-such-set", good.total_bytes), "header.params");
    assert_eq!(with(ParamsId::Pairs45.name(), good.total_bytes), "header.params");
    for size in [0, good.total_bytes - 1, good.total_bytes + 1, u64::MAX] {
        assert_eq!(with(&good.params, size), "header.total_bytes", "{size}");
    }
    assert_eq!(shelf.files(), 0);
}

#[test]
fn what_is_cut_off_too_long_or_damaged_leaves_nothing() {
    let shelf = shelf(16);
    let (keys, bytes) = (&shelf.keys, fresh());
    let begin = || keys.begin("user/alice", header(&bytes)).unwrap();

    let mut cut = begin();
    cut.push(&bytes[..1000]).unwrap();
    assert!(matches!(
        encrypted(keys.keep(cut)),
        EncryptedError::KeyLengthMismatch { found: 1000, .. }
    ));
    let mut long = begin();
    for chunk in bytes.chunks(100_000) {
        long.push(chunk).unwrap();
    }
    assert!(matches!(
        encrypted(long.push(&[0])),
        EncryptedError::KeyLengthMismatch { .. }
    ));
    drop(long);
    let mut damaged = bytes.clone();
    damaged[5000] ^= 1;
    let mut other = begin();
    for chunk in damaged.chunks(100_000) {
        other.push(chunk).unwrap();
    }
    assert!(matches!(
        encrypted(keys.keep(other)),
        EncryptedError::KeyDigestMismatch
    ));
    let mut sizes = begin();
    assert_eq!(field(sizes.push(&[])), "chunk");
    assert_eq!(field(sizes.push(&vec![0; MAX_CHUNK_BYTES + 1])), "chunk");
    drop(sizes);
    // Bytes that are no key at all, rightly announced.
    let noise = vec![7; bytes.len()];
    assert_eq!(field(upload(keys, "user/alice", &noise)), "chunk");

    assert_eq!(shelf.files(), 0);
    assert!(keys.page("user/alice", None, 10).unwrap().is_empty());
}

#[test]
fn a_file_of_another_size_is_refused() {
    let shelf = shelf(16);
    let key = upload(&shelf.keys, "user/alice", &fresh()).unwrap();
    let path = shelf.dir.path().join(key.blob().to_string());
    std::fs::write(&path, b"short").unwrap();
    assert!(matches!(
        encrypted(shelf.keys.read(&key)),
        EncryptedError::KeyRefused { .. }
    ));
    std::fs::remove_file(&path).unwrap();
    assert!(matches!(
        encrypted(shelf.keys.read(&key)),
        EncryptedError::KeyRefused { .. }
    ));
}

#[test]
fn a_name_survives_and_others_are_refused() {
    let id = EvaluationKeyId(Digest::of(b"key"));
    assert_eq!(EvaluationKeyId::from_name("name", &id.name()).unwrap(), id);
    let upper = id.name().to_uppercase();
    for bad in [
        "",
        "evaluationKeys/",
        "evaluationKeys/00",
        upper.as_str(),
        "models/x",
    ] {
        assert_eq!(field(EvaluationKeyId::from_name("name", bad)), "name", "{bad}");
    }
}

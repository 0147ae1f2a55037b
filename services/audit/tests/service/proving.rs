use asterism_crypto::{Digest, DigestWriter};
use asterism_proto::audit::{
    GetCheckpointResponse, GetConsistencyProofRequest, GetInclusionProofRequest, LogEntry,
    get_inclusion_proof_request::Entry,
};
use asterism_store::{Batch, Records as _};
use asterism_tlog::{
    ConsistencyProof, Frontier, InclusionProof, Receipt, SignedCheckpoint, VerifierKey, leaf_hash, parse_keys,
};
use tonic::Code;

use crate::support::{Client, World, assert_refused, data, event, records, wrong_field};

fn digest(bytes: &[u8]) -> Digest {
    Digest::from_bytes(bytes.try_into().unwrap())
}

fn digests(hashes: &[Vec<u8>]) -> Vec<Digest> {
    hashes.iter().map(|hash| digest(hash)).collect()
}

/// What a checkpoint says, once its signature was checked.
fn checked(answer: &GetCheckpointResponse) -> (u64, Digest, Vec<VerifierKey>) {
    let keys = parse_keys(&answer.verifier_keys.join("\n")).unwrap();
    let signed = SignedCheckpoint::parse(answer.checkpoint.as_bytes()).unwrap();
    signed.verify(&keys).unwrap();
    let said = signed.checkpoint();
    assert_eq!((said.size, said.root), (answer.size, digest(&answer.root_sha256)));
    (said.size, said.root, keys)
}

async fn prove(
    auditor: &Client,
    entry: Entry,
    tree_size: u64,
) -> asterism_proto::audit::GetInclusionProofResponse {
    let request = GetInclusionProofRequest {
        entry: Some(entry),
        tree_size,
    };
    auditor.prove(request).await.unwrap()
}

#[tokio::test]
async fn receipts_and_proofs_are_checked_with_nothing_but_the_key() {
    let world = World::start().await;
    let (kms, auditor) = (world.kms(), world.auditor());
    let (empty, ..) = checked(&auditor.checkpoint().await.unwrap());
    assert_eq!(empty, 0);
    kms.append((0..40).map(event).collect()).await.unwrap();
    let (old_size, old_root, keys) = checked(&auditor.checkpoint().await.unwrap());
    assert_eq!(old_size, 40);
    kms.append((40..300).map(event).collect()).await.unwrap();
    let (size, root, _) = checked(&auditor.checkpoint().await.unwrap());
    assert_eq!(size, 300);

    for entry in [Entry::Index(17), Entry::EventId(event(17).event_id)] {
        let proved = prove(&auditor, entry, 0).await;
        let leaf = leaf_hash(&proved.entry);
        assert_eq!((proved.index, digest(&proved.leaf_sha256)), (17, leaf));
        let receipt = Receipt::parse(proved.receipt.as_bytes()).unwrap();
        assert_eq!(receipt.index, 17);
        receipt.verify(&leaf, &keys).unwrap();
        assert!(receipt.verify(&leaf_hash(b"another"), &keys).is_err());
    }
    let proved = prove(&auditor, Entry::Index(17), 40).await;
    let proof = InclusionProof {
        index: 17,
        size: 40,
        hashes: digests(&proved.hashes),
    };
    proof.verify(&leaf_hash(&proved.entry), &old_root).unwrap();
    assert!(proved.receipt.is_empty());

    let grown = auditor
        .prove_growth(GetConsistencyProofRequest {
            from_size: 40,
            to_size: 0,
        })
        .await
        .unwrap();
    let proof = ConsistencyProof {
        old_size: grown.from_size,
        new_size: grown.to_size,
        hashes: digests(&grown.hashes),
    };
    proof.verify(&old_root, &root).unwrap();

    // The bytes of all entries make the tree.
    let mut tree = Frontier::new();
    for entry in auditor.read_entries(0, 0).await.unwrap() {
        tree.append(leaf_hash(&entry));
    }
    assert_eq!((tree.size(), tree.root()), (size, root));
    let some = auditor.read_entries(280, 290).await.unwrap();
    assert_eq!(some.len(), 10);
}

#[tokio::test]
async fn an_append_carries_receipts_when_asked() {
    let world = World::start().await;
    let kms = world.kms();
    let keys = checked(&world.auditor().checkpoint().await.unwrap()).2;
    let answer = kms
        .append_for_receipts((0..100).map(event).collect())
        .await
        .unwrap();
    assert_eq!(answer.receipts.len(), 100);
    for (index, receipt) in (0..).zip(&answer.receipts) {
        let entry = &world.auditor().read_entries(index, index + 1).await.unwrap()[0];
        let receipt = Receipt::parse(receipt.as_bytes()).unwrap();
        assert_eq!(receipt.index, index);
        receipt.verify(&leaf_hash(entry), &keys).unwrap();
    }
    let again = kms.append_for_receipts(vec![event(3)]).await.unwrap();
    assert_eq!((again.indexes, again.receipts.len()), (vec![3], 1));
    assert!(kms.append_for_receipts(vec![]).await.unwrap().receipts.is_empty());
    let many = kms.append_for_receipts((0..101).map(event).collect()).await;
    assert_eq!(wrong_field(many), "events");
}

#[tokio::test]
async fn what_cannot_be_proved_is_refused_by_name() {
    let world = World::start().await;
    world.kms().append((0..10).map(event).collect()).await.unwrap();
    let auditor = world.auditor();
    let field = async |entry, tree_size| {
        wrong_field(auditor.prove(GetInclusionProofRequest { entry, tree_size }).await)
    };
    assert_eq!(field(None, 0).await, "entry");
    // The log tells of every refusal, and so grows.
    assert_eq!(field(Some(Entry::Index(1000)), 0).await, "index");
    assert_eq!(field(Some(Entry::Index(u64::MAX)), 10).await, "index");
    assert_eq!(field(Some(Entry::Index(0)), u64::MAX).await, "tree_size");
    assert_eq!(field(Some(Entry::EventId("7".into())), 0).await, "event_id");
    let unknown = GetInclusionProofRequest {
        entry: Some(Entry::EventId(event(11).event_id)),
        tree_size: 0,
    };
    assert_refused(auditor.prove(unknown).await, Code::NotFound, "EVENT_NOT_FOUND");
    let growth = async |from_size, to_size| {
        wrong_field(
            auditor
                .prove_growth(GetConsistencyProofRequest { from_size, to_size })
                .await,
        )
    };
    assert_eq!(growth(5, 4).await, "from_size");
    assert_eq!(growth(u64::MAX, 0).await, "from_size");
    assert_eq!(growth(0, 1000).await, "to_size");
    assert_eq!(wrong_field(auditor.read_entries(0, 1000).await), "until");
    assert_eq!(wrong_field(auditor.read_entries(1000, 0).await), "from");
    let outsider = world.client("user/mallory", &[asterism_chassis::identity::Role::Viewer]);
    for refused in [
        outsider.checkpoint().await.map(drop),
        outsider
            .prove(GetInclusionProofRequest::default())
            .await
            .map(drop),
        outsider
            .prove_growth(GetConsistencyProofRequest::default())
            .await
            .map(drop),
        outsider.read_entries(0, 0).await.map(drop),
    ] {
        assert_refused(refused, Code::PermissionDenied, "POLICY_DENIED");
    }
}

/// A checkpoint that was handed out is on the disk, and comes a second after an append at the latest without being asked for.
#[tokio::test]
async fn a_checkpoint_is_kept_before_it_is_told_and_follows_appends() {
    let world = World::start().await;
    world.kms().append((0..10).map(event).collect()).await.unwrap();
    let told = world.auditor().checkpoint().await.unwrap().checkpoint;
    let path = data(&world.dir).join("checkpoint");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), told);
    world.kms().append(vec![event(10)]).await.unwrap();
    let follows = async {
        while std::fs::read_to_string(&path).unwrap() == told {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(crate::support::PATIENCE, follows)
        .await
        .unwrap();
    let world = world.restart().await;
    let keys = checked(&world.auditor().checkpoint().await.unwrap()).2;
    SignedCheckpoint::parse(told.as_bytes())
        .unwrap()
        .verify(&keys)
        .unwrap();
}

/// A store with a hash chain, as the code before the tree wrote it: the same entries, each under its index with its chain value.
#[tokio::test]
async fn a_store_with_a_chain_is_converted_at_the_first_start() {
    let world = World::start().await;
    world.kms().append((0..60).map(event).collect()).await.unwrap();
    let before: Vec<LogEntry> = world.auditor().list_all(Default::default(), 0).await;
    let entries = world.auditor().read_entries(0, 0).await.unwrap();
    let (_, root, _) = checked(&world.auditor().checkpoint().await.unwrap());
    let chained = move |dir: &tempfile::TempDir| {
        std::fs::remove_dir_all(data(dir).join("records")).unwrap();
        std::fs::remove_file(data(dir).join("checkpoint")).unwrap();
        let store = records(dir);
        let mut chain = Digest::from_bytes([0; 32]);
        let mut batch = Batch::new();
        for (index, entry) in (0_u64..).zip(&entries) {
            let mut writer = DigestWriter::new();
            writer.update(&[1]);
            writer.update(chain.as_bytes());
            writer.update(entry);
            chain = writer.finish();
            let key = [&b"e"[..], &index.to_be_bytes()].concat();
            batch = batch.put(key, [chain.as_bytes(), &entry[..]].concat());
        }
        let head = [&60_u64.to_be_bytes()[..], chain.as_bytes()].concat();
        store
            .commit(batch.put(*b"h", head).put(*b"skms", 60_u64.to_be_bytes()))
            .unwrap();
        let noted = format!("{{\"size\":60,\"chain\":\"{chain}\"}}");
        std::fs::write(data(dir).join("head.json"), noted).unwrap();
    };
    let world = world.restart_after(chained).await;
    assert_eq!(world.auditor().list_all(Default::default(), 0).await, before);
    assert_eq!(checked(&world.auditor().checkpoint().await.unwrap()).1, root);
    let report = world.auditor().verify().await.unwrap();
    assert!(
        report.verified && report.sequence_problems.is_empty(),
        "{report:?}"
    );
    assert!(!data(&world.dir).join("records.old").exists());
    assert!(!data(&world.dir).join("records.new").exists());
    assert_eq!(
        world.kms().append(vec![event(5), event(60)]).await.unwrap(),
        [5, 60]
    );
    world.restart().await;
}

//! Backups that are not what was made.

use super::*;

/// Where the parts of a backup begin: chunks by their length fields, the end of the chunks, and the trailer.
struct Parts {
    header: std::ops::Range<usize>,
    chunks: Vec<std::ops::Range<usize>>,
    trailer: usize,
}

fn length(bytes: &[u8], at: usize) -> usize {
    u32::from_be_bytes(bytes[at..at + 4].try_into().expect("4 bytes")) as usize
}

fn parts(bytes: &[u8]) -> Parts {
    let header = 14..14 + length(bytes, 10);
    let mut at = header.end + 73;
    let mut chunks = Vec::new();
    while length(bytes, at) > 0 {
        let end = at + 4 + length(bytes, at);
        chunks.push(at..end);
        at = end;
    }
    Parts {
        header,
        chunks,
        trailer: at + 4,
    }
}

/// Signs what is before the trailer, as somebody could who has no key of the kms.
fn signed_anew(before: &[u8], key: &SigningKey) -> Vec<u8> {
    let statement = Statement {
        bytes: before.len() as u64,
        sha256: Digest::of(before),
        key_version: 1,
    };
    let payload = serde_json::to_vec(&statement).expect("statement");
    let trailer = Trailer {
        signed: asterism_crypto::Signed {
            domain: DOMAIN.to_owned(),
            signature: key.sign(&signing_input(DOMAIN, &payload)).to_der(),
            payload,
            key: SIGNER.to_owned(),
            key_version: 1,
        },
        public_key: key.verifying_key().to_pem(),
    };
    [before, &trailer.encode()].concat()
}

/// The same with other text in the header, and with a signature that fits.
fn with_header(bytes: &[u8], change: impl Fn(String) -> String) -> Vec<u8> {
    let key = SigningKey::generate().expect("key");
    let parts = parts(bytes);
    let old: Header = serde_json::from_slice(&bytes[parts.header.clone()]).expect("header");
    let text = String::from_utf8(bytes[parts.header.clone()].to_vec()).expect("text");
    let text = text.replace(
        &old.signer.to_string(),
        &key.verifying_key().fingerprint().to_string(),
    );
    let text = change(text);
    let before = [
        &bytes[..10],
        &(text.len() as u32).to_be_bytes(),
        text.as_bytes(),
        &bytes[parts.header.end..parts.trailer],
    ];
    signed_anew(&before.concat(), &key)
}

/// A backup of more than two chunks.
fn large() -> (Vec<u8>, Place) {
    let kms = kms();
    let mut batch = Batch::new();
    for index in 0..180_u32 {
        batch = batch.put([b"z".as_slice(), &index.to_be_bytes()].concat(), vec![7; 4000]);
    }
    kms.keyring.records.commit(batch).expect("put");
    kms.create("one");
    let (recipient, opener) = key_pair();
    (kms.backup(&recipient), Place::new(opener))
}

#[test]
fn every_byte_counts() {
    let kms = kms();
    kms.create("one");
    let (recipient, opener) = key_pair();
    let (backup, place) = (kms.backup(&recipient), Place::new(opener));
    verify(backup.as_slice()).expect("verifies");
    for at in 0..backup.len() {
        for bit in [0x01, 0x80] {
            let mut altered = backup.clone();
            altered[at] ^= bit;
            let refusal = verify(altered.as_slice()).expect_err("an altered byte was not seen");
            let known = refusal.is_of_the_backup()
                || matches!(refusal, BackupError::Newer { .. } | BackupError::UnknownSuite(_));
            assert!(known, "byte {at}: {refusal}");
        }
    }
    for at in (0..backup.len()).step_by(97) {
        let mut altered = backup.clone();
        altered[at] ^= 0x10;
        place.refused(&altered);
    }
    for end in (0..backup.len()).step_by(41).chain([backup.len() - 1]) {
        let refusal = verify(&backup[..end]).expect_err("a cut was not seen");
        let expected = matches!(refusal, BackupError::Truncated | BackupError::NotABackup);
        assert!(expected, "{end}: {refusal}");
    }
    let longer = [backup.as_slice(), b"\0"].concat();
    assert!(matches!(place.refused(&longer), BackupError::Trailing));
    for other in [b"".as_slice(), b"PK\x03\x04", &[0; 1000]] {
        assert!(matches!(place.refused(other), BackupError::NotABackup));
    }
}

#[test]
fn who_signs_anew_still_changes_nothing() {
    let (backup, place) = large();
    let parts = parts(&backup);
    assert!(parts.chunks.len() >= 3, "{}", parts.chunks.len());
    let key = SigningKey::generate().expect("key");
    // Another signer in the header alone: the chunks are bound to the header.
    let foreign = with_header(&backup, |text| text);
    verify(foreign.as_slice()).expect("its signature fits");
    assert!(matches!(
        place.refused(&foreign),
        BackupError::Altered("the header")
    ));
    // A signature by a key that the header does not name.
    let other = signed_anew(&backup[..parts.trailer], &key);
    assert!(matches!(place.refused(&other), BackupError::Signature));
}

#[test]
fn chunks_keep_their_place() {
    let (backup, place) = large();
    let parts = parts(&backup);
    // Opened without the signature's word for it, as who holds the kms' own key could make it.
    let opened = |chunks: &[std::ops::Range<usize>]| {
        let mut bytes = backup[..parts.chunks[0].start].to_vec();
        for chunk in chunks {
            bytes.extend_from_slice(&backup[chunk.clone()]);
        }
        bytes.extend_from_slice(&backup[parts.trailer - 4..]);
        let verified = verify(backup.as_slice()).expect("verifies");
        read::open(
            bytes.as_slice(),
            &verified,
            &place.opener,
            &mut |_| Ok(()),
            &mut |_| {},
        )
    };
    opened(&parts.chunks).expect("opens");
    let (mut turned, mut twice) = (parts.chunks.clone(), parts.chunks.clone());
    turned.swap(0, 1);
    twice.insert(1, parts.chunks[0].clone());
    let without_last = &parts.chunks[..parts.chunks.len() - 1];
    for chunks in [&turned, &twice, without_last, &parts.chunks[1..]] {
        assert!(matches!(opened(chunks), Err(BackupError::ChunkAltered(_))));
    }
    assert!(matches!(opened(&[]), Err(BackupError::Incomplete(_))));
}

#[test]
fn newer_backups_are_refused_and_say_what_to_do() {
    let kms = kms();
    kms.create("one");
    let (recipient, opener) = key_pair();
    let (mut backup, place) = (kms.backup(&recipient), Place::new(opener));
    let newer = with_header(&backup, |text| {
        text.replace("\"store_format\":2", "\"store_format\":3")
            .replace("\"software\":\"0.1.0\"", "\"software\":\"9.1.0\",\"more\":true")
    });
    let refusal = place.refused(&newer);
    assert!(
        matches!(
            refusal,
            BackupError::Newer {
                found: 3,
                known: 2,
                ..
            }
        ),
        "{refusal}"
    );
    assert!(
        refusal.to_string().contains("(9.1.0), or a newer one"),
        "{refusal}"
    );
    let suite = with_header(&backup, |text| text.replace("\"suite\":1", "\"suite\":2"));
    assert!(matches!(place.refused(&suite), BackupError::UnknownSuite(2)));
    let unknown = with_header(&backup, |text| text.replacen('{', "{\"more\":1,", 1));
    assert!(matches!(
        place.refused(&unknown),
        BackupError::Malformed("header")
    ));
    backup[9] = 2;
    let refusal = place.refused(&backup);
    assert!(
        matches!(
            refusal,
            BackupError::Newer {
                found: 2,
                known: 1,
                ..
            }
        ),
        "{refusal}"
    );
    assert!(refusal.to_string().contains("restore it with"), "{refusal}");
}

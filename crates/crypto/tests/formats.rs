//! Laws of the formats: whatever the length and the chunks, what was sealed opens, and what was touched does not.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use asterism_crypto::{
    Context, CryptoError, Digest, KeyRef, SecretKey, Signed, SigningKey, StreamOpener, StreamSealer,
    TokenKey, envelope, password, signed, stream,
};
use proptest::prelude::*;

const CHUNK: u32 = stream::MIN_CHUNK_BYTES;

fn key() -> SecretKey {
    SecretKey::from_bytes([7; 32])
}

fn key_ref() -> KeyRef {
    KeyRef {
        key: "a-key".into(),
        version: 3,
    }
}

/// Header and chunks of a stream.
fn seal(plaintext: &[u8], context: &[u8]) -> (Vec<u8>, Vec<Vec<u8>>) {
    let (mut sealer, header) = StreamSealer::new(&key(), CHUNK, context).unwrap();
    let mut pieces: Vec<&[u8]> = plaintext.chunks(CHUNK as usize).collect();
    if pieces.is_empty() {
        pieces.push(&[]);
    }
    let last = pieces.len() - 1;
    let chunks = pieces
        .iter()
        .enumerate()
        .map(|(index, piece)| sealer.seal_chunk(piece, index == last).unwrap());
    (header.to_vec(), chunks.collect())
}

fn open(header: &[u8], chunks: &[Vec<u8>], context: &[u8]) -> Result<Vec<u8>, CryptoError> {
    let opener = StreamOpener::new(&key(), header, context)?;
    let mut plaintext = Vec::new();
    for (index, chunk) in chunks.iter().enumerate() {
        let last = index + 1 == chunks.len();
        plaintext.extend_from_slice(opener.open_chunk(index as u64, last, chunk)?.expose());
    }
    Ok(plaintext)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn an_envelope_opens_with_its_key_and_context_only(plaintext: Vec<u8>, aad: Vec<u8>, other: Vec<u8>) {
        let sealed = envelope::seal(&key(), &key_ref(), &plaintext, &aad).unwrap();
        let opened = envelope::open(&key(), &sealed, &aad).unwrap();
        prop_assert_eq!(opened.expose(), plaintext.as_slice());
        let header = envelope::parse_header(&sealed).unwrap();
        prop_assert_eq!((header.key_ref, header.plaintext_bytes), (key_ref(), plaintext.len()));
        prop_assert!(envelope::open(&SecretKey::from_bytes([8; 32]), &sealed, &aad).is_err());
        if other != aad {
            prop_assert!(envelope::open(&key(), &sealed, &other).is_err());
        }
    }

    #[test]
    fn any_damaged_bit_of_an_envelope_is_found(plaintext in prop::collection::vec(any::<u8>(), 0..100), at: prop::sample::Index, bit in 0..8u8) {
        let mut sealed = envelope::seal(&key(), &key_ref(), &plaintext, b"aad").unwrap();
        let at = at.index(sealed.len());
        sealed[at] ^= 1 << bit;
        prop_assert!(envelope::open(&key(), &sealed, b"aad").is_err());
        sealed[at] ^= 1 << bit;
        sealed.truncate(at);
        prop_assert!(envelope::open(&key(), &sealed, b"aad").is_err());
    }

    #[test]
    fn garbage_is_refused_without_a_panic(bytes: Vec<u8>, text in "\\PC*") {
        prop_assert!(envelope::open(&key(), &bytes, b"").is_err());
        prop_assert!(StreamOpener::new(&key(), &bytes, b"").is_err());
        prop_assert!(stream::StreamHeader::parse(&bytes).is_err());
        prop_assert!(TokenKey::new(&key()).verify(&text).is_err());
        let _ = asterism_crypto::Signature::from_der(&bytes);
        let _ = asterism_crypto::VerifyingKey::from_spki_der(&bytes);
        let _ = serde_json::from_str::<Signed>(&text);
    }

    #[test]
    fn a_stream_of_any_length_opens(length in 0usize..(3 * CHUNK as usize + 2), context: Vec<u8>) {
        let plaintext: Vec<u8> = (0..length).map(|i| i as u8).collect();
        let (header, chunks) = seal(&plaintext, &context);
        prop_assert_eq!(open(&header, &chunks, &context).unwrap(), plaintext);
        let mut other = context;
        other.push(0);
        prop_assert!(open(&header, &chunks, &other).is_err());
    }

    #[test]
    fn any_damaged_bit_of_a_stream_is_found_and_its_chunk_named(
        length in 1usize..(3 * CHUNK as usize), at: prop::sample::Index, bit in 0..8u8,
    ) {
        let (mut header, mut chunks) = seal(&vec![1; length], b"c");
        let total: usize = header.len() + chunks.iter().map(Vec::len).sum::<usize>();
        let mut at = at.index(total);
        if at < header.len() {
            header[at] ^= 1 << bit;
            prop_assert!(open(&header, &chunks, b"c").is_err());
        } else {
            at -= header.len();
            let full = CHUNK as usize + stream::TAG_BYTES;
            let index = at / full;
            chunks[index][at % full] ^= 1 << bit;
            prop_assert_eq!(open(&header, &chunks, b"c"), Err(CryptoError::ChunkDamaged { index: index as u64 }));
        }
    }

    #[test]
    fn contexts_of_different_fields_differ(a in prop::collection::vec((".*", ".*"), 0..4), b in prop::collection::vec((".*", ".*"), 0..4)) {
        let encode = |fields: &[(String, String)]| {
            fields.iter().fold(Context::new("p"), |context, (name, value)| context.field(name, value)).encode()
        };
        prop_assert_eq!(encode(&a) == encode(&b), a == b);
    }
}

#[test]
fn chunks_cannot_be_moved_dropped_repeated_or_cut_off() {
    let plaintext = vec![5; 3 * CHUNK as usize + 10];
    let (header, chunks) = seal(&plaintext, b"c");
    let variants: [Vec<Vec<u8>>; 5] = [
        vec![
            chunks[1].clone(),
            chunks[0].clone(),
            chunks[2].clone(),
            chunks[3].clone(),
        ],
        vec![chunks[0].clone(), chunks[2].clone(), chunks[3].clone()],
        vec![
            chunks[0].clone(),
            chunks[0].clone(),
            chunks[2].clone(),
            chunks[3].clone(),
        ],
        chunks[..3].to_vec(),
        [chunks.clone(), vec![chunks[3].clone()]].concat(),
    ];
    for variant in variants {
        open(&header, &variant, b"c").unwrap_err();
    }
    let (other, _) = seal(&plaintext, b"c");
    open(&other, &chunks, b"c").unwrap_err();
}

#[test]
fn a_sealer_refuses_chunks_that_no_opener_could_place() {
    let (mut sealer, _) = StreamSealer::new(&key(), CHUNK, b"").unwrap();
    sealer.seal_chunk(&[1; 10], false).unwrap_err();
    sealer.seal_chunk(&vec![1; CHUNK as usize + 1], true).unwrap_err();
    sealer.seal_chunk(&vec![1; CHUNK as usize], false).unwrap();
    sealer.seal_chunk(&[], true).unwrap_err();
    sealer.seal_chunk(&[1], true).unwrap();
    sealer.seal_chunk(&[1], true).unwrap_err();
    for bad in [0, CHUNK - 1, stream::MAX_CHUNK_BYTES + 1] {
        assert!(StreamSealer::new(&key(), bad, b"").is_err());
    }
}

/// Samples of version 1, kept for ever: what was written once must open always.
#[test]
fn samples_of_version_1_open() {
    let sealed = hex::decode(include_str!("vectors/envelope-v1.hex").trim()).unwrap();
    assert_eq!(
        envelope::open(&key(), &sealed, b"context").unwrap().expose(),
        b"a message"
    );
    let stored = hex::decode(include_str!("vectors/stream-v1.hex").trim()).unwrap();
    let (header, chunk) = stored.split_at(stream::HEADER_BYTES);
    assert_eq!(open(header, &[chunk.to_vec()], b"context").unwrap(), b"a stream");
}

#[test]
fn a_statement_fits_its_domain_and_key_only() {
    let signing = SigningKey::generate().unwrap();
    let payload = b"{}".to_vec();
    let signature = signing
        .sign_digest(&Digest::of(&signed::signing_input("d/v1", &payload)))
        .to_der();
    let statement = Signed {
        domain: "d/v1".into(),
        payload,
        key: "k".into(),
        key_version: 1,
        signature,
    };
    let public = signing.verifying_key();
    assert_eq!(statement.verify("d/v1", &public).unwrap(), b"{}");
    statement.verify("d/v2", &public).unwrap_err();
    statement
        .verify("d/v1", &SigningKey::generate().unwrap().verifying_key())
        .unwrap_err();
    Signed {
        payload: b"[]".to_vec(),
        ..statement.clone()
    }
    .verify("d/v1", &public)
    .unwrap_err();
    let renamed = Signed {
        domain: "d/v2".into(),
        ..statement.clone()
    };
    renamed.verify("d/v2", &public).unwrap_err();
    let json = serde_json::to_string(&statement).unwrap();
    assert_eq!(serde_json::from_str::<Signed>(&json).unwrap(), statement);
}

#[test]
fn passphrases_give_the_same_key_and_hostile_parameters_are_refused() {
    let params = asterism_crypto::Argon2Params {
        memory_kib: 64,
        iterations: 3,
        parallelism: 4,
    };
    let one = password::derive_key(b"passphrase", &[1; 16], &params).unwrap();
    let two = password::derive_key(b"passphrase", &[1; 16], &params).unwrap();
    assert_eq!(one.expose(), two.expose());
    let salted = password::derive_key(b"passphrase", &[2; 16], &params).unwrap();
    assert_ne!(one.expose(), salted.expose());
    for memory_kib in [0, u32::MAX] {
        let params = asterism_crypto::Argon2Params { memory_kib, ..params };
        assert!(password::derive_key(b"p", &[0; 16], &params).is_err());
    }
}

//! Many items in one call: each with a fate of its own, all in order, and one event.

use asterism_client::ItemFailure;
use asterism_crypto::crc32c;
use asterism_proto::kms::{
    BatchAsymmetricSignRequest, BatchDecryptRequest, BatchEncryptRequest, BatchGenerateDataKeyRequest,
    BatchGenerateMacRequest, DataKeyItem, DecryptItem, EncryptItem, KeyType, KeyVersionState, MacItem,
    SignItem, SignatureEncoding, sign_item,
};
use prost::Message as _;
use tonic::Code;

use crate::{
    disk::{all_files, holds},
    support::{World, make_keys, refusal, refused},
};

fn reasons<T>(results: &[Result<T, ItemFailure>]) -> Vec<&str> {
    results
        .iter()
        .map(|result| match result {
            Ok(_) => "",
            Err(failure) => failure.reason.as_str(),
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_does_what_single_calls_do_in_order() {
    let world = World::start().await;
    let kms = world.admin();
    make_keys(&kms).await;
    kms.create_key("siv", KeyType::Aes256Siv, [], "").await.unwrap();
    let texts: Vec<Vec<u8>> = (0..1000)
        .map(|index| format!("text {index}").into_bytes())
        .collect();
    let pairs: Vec<(&[u8], &[u8])> = texts
        .iter()
        .map(|text| (text.as_slice(), b"aad".as_slice()))
        .collect();
    for key in ["aes", "siv"] {
        let sealed = kms.encrypt_batch(key, &pairs).await.unwrap();
        let sealed: Vec<Vec<u8>> = sealed.into_iter().map(Result::unwrap).collect();
        let sealed_pairs: Vec<(&[u8], &[u8])> = sealed
            .iter()
            .map(|sealed| (sealed.as_slice(), b"aad".as_slice()))
            .collect();
        let opened = kms.decrypt_batch(key, &sealed_pairs).await.unwrap();
        for (text, opened) in texts.iter().zip(opened) {
            assert_eq!(opened.unwrap().expose(), text);
        }
        let single = kms.decrypt(key, &sealed[999], b"aad").await.unwrap();
        assert_eq!(single.expose(), b"text 999");
        let moved = kms
            .re_encrypt_batch(key, &sealed_pairs[..3], "aes")
            .await
            .unwrap();
        for (index, moved) in moved.into_iter().enumerate() {
            let opened = kms.decrypt("aes", &moved.unwrap(), b"aad").await.unwrap();
            assert_eq!(opened.expose(), texts[index]);
        }
    }
    let data: Vec<&[u8]> = texts.iter().map(Vec::as_slice).collect();
    let macs = kms.generate_macs("mac", &data).await.unwrap();
    let macs: Vec<Vec<u8>> = macs.into_iter().map(Result::unwrap).collect();
    assert_eq!(kms.generate_mac("mac", data[7]).await.unwrap().0, macs[7]);
    let mut claims: Vec<(&[u8], &[u8])> = data.iter().copied().zip(macs.iter().map(Vec::as_slice)).collect();
    claims.swap(0, 1);
    claims[2].1 = &macs[3];
    let verdicts = kms.verify_macs("mac", &claims).await.unwrap();
    let wrong: Vec<usize> = (0..1000).filter(|index| verdicts[*index] != Ok(true)).collect();
    assert_eq!((wrong, verdicts[2].clone()), (vec![2], Ok(false)));

    let signatures = kms.sign_batch("sign", &data[..20]).await.unwrap();
    let signatures: Vec<Vec<u8>> = signatures.into_iter().map(Result::unwrap).collect();
    assert_eq!(kms.sign("sign", data[7]).await.unwrap().0, signatures[7]);
    let mut claims: Vec<(&[u8], &[u8])> = data
        .iter()
        .copied()
        .zip(signatures.iter().map(Vec::as_slice))
        .collect();
    claims[4].1 = &signatures[5];
    claims[6].1 = b"no signature";
    let verdicts = kms.verify_batch("sign", &claims).await.unwrap();
    assert_eq!(verdicts[4], Ok(false));
    assert_eq!(verdicts[6].as_ref().unwrap_err().reason, "INVALID_FIELD");
    let right = verdicts.iter().filter(|verdict| **verdict == Ok(true)).count();
    assert_eq!(right, 18);

    let keys = kms.generate_data_keys("aes", &[b"a", b"b"]).await.unwrap();
    for (key, aad) in keys.into_iter().zip([b"a", b"b"]) {
        let key = key.unwrap();
        let again = kms.unwrap_data_key("aes", &key.wrapped, aad).await.unwrap();
        assert_eq!(again.expose(), key.key.expose());
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_item_s_failure_is_its_own_and_the_event_counts_it() {
    let world = World::start().await;
    let kms = world.admin();
    make_keys(&kms).await;
    kms.create_key("other", KeyType::Aes256Gcm, [], "").await.unwrap();
    let mut sealed = Vec::new();
    for round in 1..=4 {
        sealed.push(kms.encrypt("aes", b"text", b"").await.unwrap().0);
        kms.rotate_key("aes", &format!("r{round}")).await.unwrap();
    }
    kms.set_key_version_state("aes", 1, KeyVersionState::Suspended, "")
        .await
        .unwrap();
    kms.destroy_key_version("aes", 2, None, "").await.unwrap();
    kms.set_key_version_state("aes", 3, KeyVersionState::Compromised, "")
        .await
        .unwrap();
    let (foreign, _) = kms.encrypt("other", b"text", b"").await.unwrap();
    let mut altered = sealed[3].clone();
    *altered.last_mut().unwrap() ^= 1;
    let big = vec![0; 70_000];
    let items: [(&[u8], &[u8]); 8] = [
        (&sealed[0], b""),
        (&sealed[1], b""),
        (&sealed[2], b""),
        (&sealed[3], b""),
        (&altered, b""),
        (&sealed[3], b"wrong"),
        (&foreign, b""),
        (&big, b""),
    ];
    let results = kms.decrypt_batch("aes", &items).await.unwrap();
    assert_eq!(
        reasons(&results),
        [
            "KEY_VERSION_STATE",
            "KEY_VERSION_STATE",
            "",
            "",
            "DECRYPTION_FAILED",
            "DECRYPTION_FAILED",
            "INVALID_FIELD",
            "INVALID_FIELD",
        ]
    );
    assert_eq!(
        results[0].as_ref().err().unwrap().code,
        i32::from(Code::FailedPrecondition)
    );
    assert_eq!(
        results[4].as_ref().err().unwrap().code,
        i32::from(Code::InvalidArgument)
    );

    let oversize = vec![0; (64 << 10) + 1];
    let results = kms
        .encrypt_batch("aes", &[(b"fine", b""), (&oversize, b"")])
        .await
        .unwrap();
    assert_eq!(reasons(&results), ["", "INVALID_FIELD"]);
    let mut raw = world.raw().await;
    let damaged = BatchEncryptRequest {
        name: "keys/aes".into(),
        items: vec![
            EncryptItem {
                plaintext: b"text".to_vec(),
                plaintext_crc32c: Some(crc32c(b"tex")),
                ..EncryptItem::default()
            },
            EncryptItem::default(),
        ],
    };
    let answer = raw
        .batch_encrypt(world.request(damaged))
        .await
        .unwrap()
        .into_inner();
    let error = answer.results[0].error.as_ref().unwrap();
    assert_eq!(error.reason, "CHECKSUM_MISMATCH");
    assert!(error.message.starts_with("plaintext_crc32c"), "{}", error.message);
    assert!(answer.results[0].ciphertext.is_empty() && answer.results[1].error.is_none());
    assert!(!answer.results[1].verified_plaintext_crc32c);

    let dir = world.stop().await;
    let spooled = |text: &str| {
        all_files(dir.path())
            .into_iter()
            .any(|path| holds(&std::fs::read(path).unwrap(), text.as_bytes()))
    };
    assert!(spooled("KEY_COMPROMISED BATCH succeeded=2 failed=6"));
    assert!(spooled("BATCH succeeded=1 failed=1"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_the_key_or_the_call_fails_the_call() {
    let world = World::start().await;
    let kms = world.admin();
    make_keys(&kms).await;
    let wrong_type = refused(Code::FailedPrecondition, "WRONG_KEY_TYPE");
    let pair: [(&[u8], &[u8]); 1] = [(b"a", b"b")];
    assert_eq!(refusal(kms.encrypt_batch("mac", &pair).await), wrong_type);
    assert_eq!(refusal(kms.decrypt_batch("sign", &pair).await), wrong_type);
    assert_eq!(
        refusal(kms.re_encrypt_batch("aes", &pair, "mac").await),
        wrong_type
    );
    assert_eq!(refusal(kms.generate_data_keys("mac", &[b"a"]).await), wrong_type);
    assert_eq!(refusal(kms.generate_macs("aes", &[b"a"]).await), wrong_type);
    assert_eq!(refusal(kms.verify_macs("aes", &pair).await), wrong_type);
    assert_eq!(refusal(kms.sign_batch("aes", &[b"a"]).await), wrong_type);
    assert_eq!(refusal(kms.verify_batch("aes", &pair).await), wrong_type);
    assert_eq!(
        refusal(kms.encrypt_batch("nobody", &pair).await),
        refused(Code::NotFound, "KEY_NOT_FOUND")
    );
    kms.set_key_version_state("aes", 1, KeyVersionState::Suspended, "")
        .await
        .unwrap();
    assert_eq!(
        refusal(kms.encrypt_batch("aes", &pair).await),
        refused(Code::FailedPrecondition, "KEY_VERSION_STATE")
    );
    let invalid = refused(Code::InvalidArgument, "INVALID_FIELD");
    let many = vec![pair[0]; 1001];
    let bytes = vec![b"a".as_slice(); 1001];
    for count in [0, 1001] {
        let (pairs, bytes) = (&many[..count], &bytes[..count]);
        assert_eq!(refusal(kms.encrypt_batch("aes", pairs).await), invalid);
        assert_eq!(refusal(kms.decrypt_batch("aes", pairs).await), invalid);
        assert_eq!(refusal(kms.re_encrypt_batch("aes", pairs, "").await), invalid);
        assert_eq!(refusal(kms.generate_data_keys("aes", bytes).await), invalid);
        assert_eq!(refusal(kms.generate_macs("mac", bytes).await), invalid);
        assert_eq!(refusal(kms.verify_macs("mac", pairs).await), invalid);
        assert_eq!(refusal(kms.sign_batch("sign", bytes).await), invalid);
        assert_eq!(refusal(kms.verify_batch("sign", pairs).await), invalid);
    }
    world.stop().await;
}

/// The largest request there may be has an answer that fits.
#[tokio::test(flavor = "multi_thread")]
async fn the_largest_batches_are_answered() {
    let world = World::start().await;
    let kms = world.admin();
    make_keys(&kms).await;
    let long_id = "a".repeat(63);
    kms.create_key(&long_id, KeyType::Aes256Gcm, [], "")
        .await
        .unwrap();
    let mut raw = world
        .raw()
        .await
        .max_decoding_message_size(16 << 20)
        .max_encoding_message_size(16 << 20);
    let item = EncryptItem {
        plaintext: vec![7; 4170],
        ..EncryptItem::default()
    };
    let request = BatchEncryptRequest {
        name: format!("keys/{long_id}"),
        items: vec![item; 1000],
    };
    let bytes = request.encoded_len();
    assert!(((4 << 20) - 25_000..=4 << 20).contains(&bytes), "{bytes}");
    let answer = raw
        .batch_encrypt(world.request(request))
        .await
        .unwrap()
        .into_inner();
    assert!(answer.results.iter().all(|result| result.error.is_none()));
    assert!(answer.encoded_len() > 4 << 20, "longer than the request may be");

    let request = BatchGenerateDataKeyRequest {
        name: format!("keys/{long_id}"),
        items: vec![DataKeyItem::default(); 1000],
        wrapped_only: true,
    };
    let answer = raw
        .batch_generate_data_key(world.request(request))
        .await
        .unwrap()
        .into_inner();
    assert!(
        answer
            .results
            .iter()
            .all(|result| result.plaintext.is_empty() && !result.wrapped.is_empty())
    );
    let request = BatchGenerateMacRequest {
        name: "keys/mac".into(),
        items: vec![MacItem::default(); 1000],
    };
    let answer = raw
        .batch_generate_mac(world.request(request))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(answer.results.len(), 1000);
    let request = BatchDecryptRequest {
        name: "keys/aes".into(),
        items: vec![DecryptItem::default(); 1000],
    };
    let answer = raw
        .batch_decrypt(world.request(request))
        .await
        .unwrap()
        .into_inner();
    assert!(answer.results.iter().all(|result| result.error.is_some()));
    let request = BatchAsymmetricSignRequest {
        name: "keys/sign".into(),
        items: vec![
            SignItem {
                input: Some(sign_item::Input::Digest(vec![1; 32])),
                input_crc32c: None,
            },
            SignItem {
                input: Some(sign_item::Input::Digest(vec![1; 31])),
                input_crc32c: None,
            },
            SignItem::default(),
        ],
        signature_encoding: SignatureEncoding::Fixed.into(),
    };
    let answer = raw
        .batch_asymmetric_sign(world.request(request))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(answer.results[0].signature.len(), 64);
    assert!(answer.results[1].error.is_some() && answer.results[2].error.is_some());
    world.stop().await;
}

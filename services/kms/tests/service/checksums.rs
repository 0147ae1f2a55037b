//! Checksums: checked where they are given, said to be, and given with what comes back.

use asterism_crypto::{DecryptionKey, crc32c};
use asterism_proto::kms::{
    AsymmetricDecryptRequest, AsymmetricSignRequest, AsymmetricVerifyRequest, CreateImportJobRequest,
    DecryptRequest, DeriveSharedSecretRequest, EncryptRequest, ExportKeyVersionRequest,
    GenerateDataKeyRequest, GenerateDataKeyWithoutPlaintextRequest, GenerateMacRequest,
    GenerateRandomBytesRequest, GetPublicKeyRequest, ImportKeyVersionRequest, KeyType, ReEncryptRequest,
    UnwrapKeyRequest, VerifyMacRequest, WrapKeyRequest, asymmetric_sign_request, asymmetric_verify_request,
};
use tonic::{Code, Status};

use crate::support::{World, make_keys};

#[track_caller]
fn mismatch<T>(result: Result<T, Status>, field: &str) {
    let Err(status) = result else {
        panic!("{field}: a wrong checksum was taken")
    };
    assert_eq!(status.code(), Code::InvalidArgument, "{field}");
    let bad = tonic_types::StatusExt::get_details_bad_request(&status).unwrap();
    assert_eq!(bad.field_violations[0].field, field);
    let info = tonic_types::StatusExt::get_details_error_info(&status).unwrap();
    assert_eq!(info.reason, "CHECKSUM_MISMATCH", "{field}");
}

/// Calls with every checksum right, then with each one wrong.
macro_rules! checked {
    ($world:ident, $raw:ident, $method:ident, $request:expr, [$($field:ident),*], [$($verified:ident),*]) => {{
        let request = $request;
        let answer = $raw.$method($world.request(request.clone())).await.unwrap().into_inner();
        $(assert!(answer.$verified, stringify!($verified));)*
        $({
            let mut wrong = request.clone();
            wrong.$field = wrong.$field.map(|crc| crc ^ 1);
            assert!(wrong.$field.is_some());
            mismatch($raw.$method($world.request(wrong)).await, stringify!($field));
        })*
        let mut none = request;
        $(none.$field = None;)*
        let silent = $raw.$method($world.request(none)).await.unwrap().into_inner();
        $(assert!(!silent.$verified, stringify!($verified));)*
        answer
    }};
}

#[tokio::test(flavor = "multi_thread")]
async fn ciphers_check_and_give_checksums() {
    let world = World::start().await;
    let kms = world.admin();
    make_keys(&kms).await;
    let mut raw = world.raw().await;
    let crc = |bytes: &[u8]| Some(crc32c(bytes));
    let encrypt = EncryptRequest {
        name: "keys/aes".into(),
        plaintext: b"text".to_vec(),
        additional_authenticated_data: b"aad".to_vec(),
        plaintext_crc32c: crc(b"text"),
        additional_authenticated_data_crc32c: crc(b"aad"),
    };
    let sealed = checked!(
        world,
        raw,
        encrypt,
        encrypt,
        [plaintext_crc32c, additional_authenticated_data_crc32c],
        [
            verified_plaintext_crc32c,
            verified_additional_authenticated_data_crc32c
        ]
    );
    assert_eq!(sealed.ciphertext_crc32c, crc32c(&sealed.ciphertext));
    let decrypt = DecryptRequest {
        name: "keys/aes".into(),
        ciphertext_crc32c: crc(&sealed.ciphertext),
        ciphertext: sealed.ciphertext.clone(),
        additional_authenticated_data: b"aad".to_vec(),
        additional_authenticated_data_crc32c: crc(b"aad"),
    };
    let opened = checked!(
        world,
        raw,
        decrypt,
        decrypt,
        [ciphertext_crc32c, additional_authenticated_data_crc32c],
        [
            verified_ciphertext_crc32c,
            verified_additional_authenticated_data_crc32c
        ]
    );
    assert_eq!(opened.plaintext_crc32c, crc32c(b"text"));
    let moved = ReEncryptRequest {
        name: "keys/aes".into(),
        ciphertext_crc32c: crc(&sealed.ciphertext),
        ciphertext: sealed.ciphertext,
        additional_authenticated_data: b"aad".to_vec(),
        additional_authenticated_data_crc32c: crc(b"aad"),
        destination_additional_authenticated_data: Some(b"new".to_vec()),
        destination_additional_authenticated_data_crc32c: crc(b"new"),
        destination_name: String::new(),
    };
    let moved = checked!(
        world,
        raw,
        re_encrypt,
        moved,
        [
            ciphertext_crc32c,
            additional_authenticated_data_crc32c,
            destination_additional_authenticated_data_crc32c
        ],
        [
            verified_ciphertext_crc32c,
            verified_additional_authenticated_data_crc32c,
            verified_destination_additional_authenticated_data_crc32c
        ]
    );
    assert_eq!(moved.ciphertext_crc32c, crc32c(&moved.ciphertext));
    let generate = GenerateDataKeyRequest {
        name: "keys/aes".into(),
        additional_authenticated_data: b"aad".to_vec(),
        additional_authenticated_data_crc32c: crc(b"aad"),
    };
    let data_key = checked!(
        world,
        raw,
        generate_data_key,
        generate,
        [additional_authenticated_data_crc32c],
        [verified_additional_authenticated_data_crc32c]
    );
    assert_eq!(data_key.plaintext_crc32c, crc32c(&data_key.plaintext));
    assert_eq!(data_key.wrapped_crc32c, crc32c(&data_key.wrapped));
    let generate = GenerateDataKeyWithoutPlaintextRequest {
        name: "keys/aes".into(),
        additional_authenticated_data: b"aad".to_vec(),
        additional_authenticated_data_crc32c: crc(b"aad"),
    };
    let wrapped = checked!(
        world,
        raw,
        generate_data_key_without_plaintext,
        generate,
        [additional_authenticated_data_crc32c],
        [verified_additional_authenticated_data_crc32c]
    );
    assert_eq!(wrapped.wrapped_crc32c, crc32c(&wrapped.wrapped));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn macs_and_signatures_check_and_give_checksums() {
    let world = World::start().await;
    let kms = world.admin();
    make_keys(&kms).await;
    let mut raw = world.raw().await;
    let crc = |bytes: &[u8]| Some(crc32c(bytes));
    let generate = GenerateMacRequest {
        name: "keys/mac".into(),
        data: b"data".to_vec(),
        data_crc32c: crc(b"data"),
    };
    let made = checked!(
        world,
        raw,
        generate_mac,
        generate,
        [data_crc32c],
        [verified_data_crc32c]
    );
    assert_eq!(made.mac_crc32c, crc32c(&made.mac));
    let verify = VerifyMacRequest {
        name: "keys/mac".into(),
        data: b"data".to_vec(),
        data_crc32c: crc(b"data"),
        mac_crc32c: crc(&made.mac),
        mac: made.mac,
        key_version: 0,
    };
    let verdict = checked!(
        world,
        raw,
        verify_mac,
        verify,
        [data_crc32c, mac_crc32c],
        [verified_data_crc32c, verified_mac_crc32c]
    );
    assert!(verdict.valid);
    let sign = AsymmetricSignRequest {
        name: "keys/sign".into(),
        input: Some(asymmetric_sign_request::Input::Message(b"message".to_vec())),
        input_crc32c: crc(b"message"),
        signature_encoding: 0,
    };
    let signed = checked!(
        world,
        raw,
        asymmetric_sign,
        sign,
        [input_crc32c],
        [verified_input_crc32c]
    );
    assert_eq!(signed.signature_crc32c, crc32c(&signed.signature));
    let digest = asterism_crypto::Digest::of(b"message");
    let verify = AsymmetricVerifyRequest {
        name: "keys/sign".into(),
        input: Some(asymmetric_verify_request::Input::Digest(
            digest.as_bytes().to_vec(),
        )),
        input_crc32c: crc(digest.as_bytes()),
        signature_crc32c: crc(&signed.signature),
        signature: signed.signature,
        ..AsymmetricVerifyRequest::default()
    };
    let verdict = checked!(
        world,
        raw,
        asymmetric_verify,
        verify,
        [input_crc32c, signature_crc32c],
        [verified_input_crc32c, verified_signature_crc32c]
    );
    assert!(verdict.valid);
    let public = GetPublicKeyRequest {
        name: "keys/sign".into(),
        key_version: 0,
    };
    let public = raw
        .get_public_key(world.request(public))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(public.pem_crc32c, crc32c(public.pem.as_bytes()));
    assert_eq!(public.r#type(), KeyType::EcSignP256Sha256);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_deals_with_material_checks_and_gives_checksums() {
    let world = World::start().await;
    let kms = world.admin();
    let mut raw = world.raw().await;
    let crc = |bytes: &[u8]| Some(crc32c(bytes));
    for (id, key_type) in [
        ("hpke", KeyType::EcP256Hpke),
        ("ecdh", KeyType::EcP256Ecdh),
        ("kwp", KeyType::Aes256Kwp),
    ] {
        kms.create_key(id, key_type, [], "").await.unwrap();
    }
    let sealed = kms
        .encryption_key("hpke", 0)
        .await
        .unwrap()
        .seal(b"info", b"aad", b"text")
        .unwrap();
    let decrypt = AsymmetricDecryptRequest {
        name: "keys/hpke".into(),
        ciphertext_crc32c: crc(&sealed),
        ciphertext: sealed,
        info: b"info".to_vec(),
        info_crc32c: crc(b"info"),
        additional_authenticated_data: b"aad".to_vec(),
        additional_authenticated_data_crc32c: crc(b"aad"),
        key_version: 1,
    };
    let opened = checked!(
        world,
        raw,
        asymmetric_decrypt,
        decrypt,
        [
            ciphertext_crc32c,
            info_crc32c,
            additional_authenticated_data_crc32c
        ],
        [
            verified_ciphertext_crc32c,
            verified_info_crc32c,
            verified_additional_authenticated_data_crc32c
        ]
    );
    assert_eq!(opened.plaintext_crc32c, crc32c(b"text"));
    let peer = DecryptionKey::generate().unwrap().encryption_key().to_pem();
    let derive = DeriveSharedSecretRequest {
        name: "keys/ecdh".into(),
        peer_public_key_pem_crc32c: crc(peer.as_bytes()),
        peer_public_key_pem: peer.clone(),
        key_version: 0,
    };
    let shared = checked!(
        world,
        raw,
        derive_shared_secret,
        derive,
        [peer_public_key_pem_crc32c],
        [verified_peer_public_key_pem_crc32c]
    );
    assert_eq!(shared.shared_secret_crc32c, crc32c(&shared.shared_secret));
    let wrap = WrapKeyRequest {
        name: "keys/kwp".into(),
        key_material: b"secret".to_vec(),
        key_material_crc32c: crc(b"secret"),
    };
    let wrapped = checked!(
        world,
        raw,
        wrap_key,
        wrap,
        [key_material_crc32c],
        [verified_key_material_crc32c]
    );
    assert_eq!(wrapped.wrapped_crc32c, crc32c(&wrapped.wrapped));
    let unwrap = UnwrapKeyRequest {
        name: "keys/kwp".into(),
        wrapped_crc32c: crc(&wrapped.wrapped),
        wrapped: wrapped.wrapped,
        key_version: 0,
    };
    let unwrapped = checked!(
        world,
        raw,
        unwrap_key,
        unwrap,
        [wrapped_crc32c],
        [verified_wrapped_crc32c]
    );
    assert_eq!(unwrapped.key_material_crc32c, crc32c(b"secret"));
    let random = GenerateRandomBytesRequest { length: 33 };
    let random = raw
        .generate_random_bytes(world.request(random))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(
        (random.data.len(), random.data_crc32c),
        (33, crc32c(&random.data))
    );
    for length in [0, 65_537, u32::MAX] {
        let request = GenerateRandomBytesRequest { length };
        let status = raw
            .generate_random_bytes(world.request(request))
            .await
            .unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{length}");
    }

    let job = CreateImportJobRequest {
        key_id: "in".into(),
        r#type: KeyType::Aes256Kwp.into(),
    };
    let job = raw
        .create_import_job(world.request(job))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(job.public_key_pem_crc32c, crc32c(job.public_key_pem.as_bytes()));
    let sealed = asterism_client::seal_for(&job, &[1; 32]).unwrap();
    let import = ImportKeyVersionRequest {
        import_job: job.name,
        sealed_material_crc32c: Some(crc32c(&sealed) ^ 1),
        sealed_material: sealed,
        exportable: true,
        ..ImportKeyVersionRequest::default()
    };
    mismatch(
        raw.import_key_version(world.request(import.clone())).await,
        "sealed_material_crc32c",
    );
    let right = ImportKeyVersionRequest {
        sealed_material_crc32c: crc(&import.sealed_material),
        ..import
    };
    raw.import_key_version(world.request(right)).await.unwrap();
    let export = ExportKeyVersionRequest {
        request_id: String::new(),
        name: "keys/in/versions/1".into(),
        recipient_public_key_pem_crc32c: crc(peer.as_bytes()),
        recipient_public_key_pem: peer,
    };
    let exported = checked!(
        world,
        raw,
        export_key_version,
        export,
        [recipient_public_key_pem_crc32c],
        [verified_recipient_public_key_pem_crc32c]
    );
    assert_eq!(exported.sealed_material_crc32c, crc32c(&exported.sealed_material));
    world.stop().await;
}

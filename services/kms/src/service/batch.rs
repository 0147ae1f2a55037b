//! The same operation on many items under one key.
//!
//! The key is looked up, permitted and unwrapped once; what is wrong with it fails the call. Whatever is wrong with an item fails that
//! item alone. One event says how many succeeded and how many failed, with digests over all items.

mod ciphers;
mod proofs;

use asterism_chassis::{
    call::Trail,
    error::{ErrorClass, Failure, item_status},
};
use asterism_crypto::{Digest, DigestWriter};
use asterism_proto::kms as pb;

use super::Use;
use crate::error::KmsError;

pub(super) use ciphers::{decrypt, encrypt, generate_data_key, re_encrypt};
pub(super) use proofs::{asymmetric_sign, asymmetric_verify, generate_mac, verify_mac};

/// Items of one call.
const MAX_ITEMS: usize = 1000;
/// By how much the answer to a batch may be longer than the request: no item's result is longer than its input by more than 256 bytes.
pub(crate) const HEADROOM_BYTES: usize = 256 * MAX_ITEMS;

/// The result of an item, which may be that it failed.
trait Outcome {
    fn failed(error: pb::ItemError) -> Self;
    /// Which version was used; 0 for none.
    fn version(&self) -> u32;
}

macro_rules! outcomes {
    ($($result:ident: $version:expr),* $(,)?) => {$(
        impl Outcome for pb::$result {
            fn failed(error: pb::ItemError) -> Self {
                Self { error: Some(error), ..Self::default() }
            }

            fn version(&self) -> u32 {
                let version: fn(&Self) -> u32 = $version;
                version(self)
            }
        }
    )*};
}

outcomes!(
    EncryptResult: |_| 0,
    DataKeyResult: |_| 0,
    MacResult: |_| 0,
    SignResult: |_| 0,
    DecryptResult: |result| result.key_version,
    ReEncryptResult: |result| result.source_key_version,
    VerifyResult: |result| result.key_version,
);

fn check_count<T>(items: &[T]) -> Result<(), KmsError> {
    if (1..=MAX_ITEMS).contains(&items.len()) {
        Ok(())
    } else {
        Err(KmsError::field("items", "must be 1 to 1000"))
    }
}

/// Does the work for each item, in order, and notes in the trail how they ended. When nobody waits any more, the rest is not done.
fn each<I, R: Outcome>(
    on: &Use<'_>,
    trail: &mut Trail,
    items: Vec<I>,
    work: impl Fn(I) -> Result<R, KmsError>,
) -> Vec<R> {
    let (mut succeeded, mut failed) = (0, 0);
    let mut results = Vec::with_capacity(items.len());
    for item in items {
        let done = if on.caller.expired() {
            let text = "the deadline passed before this item's turn";
            Err(Failure::new(
                ErrorClass::DeadlineExceeded,
                "DEADLINE_EXCEEDED",
                text,
            ))
        } else {
            work(item).map_err(Failure::from)
        };
        results.push(match done {
            Ok(result) => {
                succeeded += 1;
                result
            }
            Err(failure) => {
                failed += 1;
                let (code, reason, message) = item_status(&failure, &on.caller.request_id);
                R::failed(pb::ItemError {
                    code: code.into(),
                    reason: reason.to_owned(),
                    message,
                })
            }
        });
    }
    trail.items(succeeded, failed);
    note_versions(on, trail, &results);
    results
}

/// Notes the version that items were made by, if it was one for all; and if any was compromised.
fn note_versions<R: Outcome>(on: &Use<'_>, trail: &mut Trail, results: &[R]) {
    let mut versions: Vec<u32> = results
        .iter()
        .map(Outcome::version)
        .filter(|version| *version != 0)
        .collect();
    versions.sort_unstable();
    versions.dedup();
    if let [version] = versions.as_slice() {
        trail.key_version(*version);
    }
    if versions
        .iter()
        .any(|version| on.key.is_compromised(*version, on.now_ms))
    {
        trail.remark("KEY_COMPROMISED");
    }
}

/// One digest over many byte strings: of the length (8 bytes) and the bytes of each, in order.
fn over<'a>(parts: impl Iterator<Item = &'a [u8]>) -> Digest {
    let mut writer = DigestWriter::new();
    for part in parts {
        writer.update(&(part.len() as u64).to_be_bytes());
        writer.update(part);
    }
    writer.finish()
}

#[cfg(test)]
mod tests {
    use std::{
        cell::Cell,
        collections::BTreeMap,
        sync::Arc,
        time::{Duration, Instant},
    };

    use asterism_chassis::{
        call::Caller,
        identity::{Principal, PrincipalId, Role},
    };
    use asterism_crypto::SecretKey;
    use asterism_store::{MemoryRecords, Records};

    use super::*;
    use crate::{
        keys::{KeyType, Keyring, MIN_WINDOW_MS, MemoryVersionKeys, NewKey, RequestId},
        policy::Policy,
    };

    fn keyring() -> Keyring {
        let (records, version_keys) = (MemoryRecords::default(), MemoryVersionKeys::default());
        let root = SecretKey::from_bytes([9; 32]);
        Keyring::new(Arc::new(records), Arc::new(version_keys), root, MIN_WINDOW_MS)
    }

    fn caller(deadline: Option<Instant>) -> Caller {
        Caller {
            principal: Principal {
                id: PrincipalId::service("test"),
                roles: vec![Role::Service],
            },
            on_behalf_of: None,
            request_id: "r1".into(),
            trace_id: String::new(),
            deadline,
            network: None,
            channel_key: None,
            access: None,
        }
    }

    #[test]
    fn items_whose_turn_comes_after_the_deadline_are_not_done() {
        let keyring = Arc::new(keyring());
        let records: Arc<dyn Records> = Arc::new(MemoryRecords::default());
        let policy = Policy::open(&records, keyring.clone()).expect("policy");
        let new = NewKey {
            id: None,
            key_type: KeyType::HmacSha256,
            labels: BTreeMap::new(),
            active_from_ms: None,
            exportable: false,
            required_approvals: 0,
        };
        let request = RequestId {
            principal: "service/test",
            id: "",
            etag: "",
        };
        let key = keyring.create(new, &request, 1).expect("created");
        for (deadline, expected) in [
            (None, 3),
            (Some(Instant::now() + Duration::from_secs(600)), 3),
            (Some(Instant::now()), 0),
        ] {
            let caller = caller(deadline);
            let on = Use {
                caller: &caller,
                keyring: &keyring,
                policy: &policy,
                key: key.clone(),
                now_ms: 1,
            };
            let worked = Cell::new(0);
            let results: Vec<pb::MacResult> = each(&on, &mut Trail::default(), vec![(); 3], |()| {
                worked.set(worked.get() + 1);
                Ok(pb::MacResult::default())
            });
            assert_eq!((results.len(), worked.get()), (3, expected));
            for result in results {
                let reason = result.error.map(|error| error.reason);
                assert_eq!(reason.as_deref(), (expected == 0).then_some("DEADLINE_EXCEEDED"));
            }
        }
    }

    #[test]
    fn the_digest_over_items_tells_them_apart() {
        let digest = |parts: &[&[u8]]| over(parts.iter().copied());
        assert_ne!(digest(&[b"ab", b"c"]), digest(&[b"a", b"bc"]));
        assert_ne!(digest(&[b"ab"]), digest(&[b"ab", b""]));
        assert_eq!(
            digest(&[b"ab"]),
            Digest::of(b"\0\0\0\0\0\0\0\x02ab"),
            "as docs/formats.md has it"
        );
    }
}

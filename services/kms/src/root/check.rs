//! The check record: tells the right root key from a wrong one, and under which version the store's own keys are.
//!
//! It and the key of the directory of identities change in one batch, so the header of the one tells the root version of both.

use asterism_crypto::{SecretKey, envelope};
use asterism_store::{Batch, Records};

use super::{RootError, Roots};
use crate::directory::vault;

/// Record: this byte -> the check value.
const CHECK: &[u8] = b"c";
const CHECK_TEXT: &[u8] = b"asterism root key check";
const CHECK_AAD: &[u8] = b"asterism/root-check/v1";

/// Whether there is a check record: the store was opened once.
pub(crate) fn is_there(records: &dyn Records) -> Result<bool, RootError> {
    Ok(records.get(CHECK)?.is_some())
}

/// Whether the check record is under this root key.
pub(crate) fn fits(records: &dyn Records, root: &SecretKey) -> Result<bool, RootError> {
    Ok(records.get(CHECK)?.is_none_or(|check| opens(&check, root)))
}

fn opens(check: &[u8], root: &SecretKey) -> bool {
    envelope::open(root, check, CHECK_AAD).is_ok_and(|text| text.expose() == CHECK_TEXT)
}

/// Makes sure that the check record and the directory's key are under the newest of these roots: makes the former at the first start, and wraps both anew
/// where a rotation of the root was begun; tells whether that was so.
///
/// # Errors
/// [`RootError::WrongRoot`] when they are under another root key than these.
pub(crate) fn settle(records: &dyn Records, roots: &Roots) -> Result<bool, RootError> {
    let fresh = envelope::seal(roots.newest(), &roots.reference(), CHECK_TEXT, CHECK_AAD)?;
    let Some(check) = records.get(CHECK)? else {
        records.commit(Batch::new().expect_absent(CHECK).put(CHECK, fresh))?;
        return Ok(false);
    };
    let header = envelope::parse_header(&check).map_err(|_| RootError::WrongRoot)?;
    let version = header.key_ref.version;
    let root = roots.get(version).filter(|root| opens(&check, root));
    let root = root.ok_or(RootError::WrongRoot)?;
    if version == roots.newest_version() {
        return Ok(false);
    }
    let batch = Batch::new().expect_value(CHECK, check).put(CHECK, fresh);
    let batch = match records.get(vault::RECORD)? {
        Some(record) => {
            let wrapped = vault::rewrap(&record, root, roots.newest())?;
            batch
                .expect_value(vault::RECORD, record)
                .put(vault::RECORD, wrapped)
        }
        None => batch.expect_absent(vault::RECORD),
    };
    records.commit(batch)?;
    Ok(true)
}

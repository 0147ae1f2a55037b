//! A kms from nothing, before any service runs: its seal, and the invitation of its first administrator.

use std::{path::Path, sync::Arc, time::Duration};

use asterism_chassis::{
    error::Failure,
    identity::{PrincipalId, Role, Trust},
    outbox::{AuditEvent, Outbox, OutboxLimits, Sink},
};
use asterism_store::{FileSpool, Records, SledOptions, SledRecords, SpoolOptions, StoreError};

use crate::{
    RECORDS_DIR, RootKeyConfig,
    directory::{Directory, DirectoryError, Invitation},
    root::{self, NewSeal, RootError, Roots, Seal, SealFacts, Secret},
};

/// The spool of events, within the data directory.
const OUTBOX_DIR: &str = "outbox";
/// Events of a founding wait there for the first start.
const MAX_EVENTS: u64 = 1000;
const INVITATION_MS: u64 = 7 * 24 * 3600 * 1000;
/// Longer than this takes, as nobody asks about tokens meanwhile.
const TRUST: Duration = Duration::from_secs(60);

/// What is to be made, and where.
pub struct Founding<'a> {
    /// The data directory of kms, empty or absent.
    pub data_dir: &'a Path,
    /// The token, if the seal is to be one. Nothing else of it counts.
    pub root_key: &'a RootKeyConfig,
    /// How the root key is to be kept.
    pub seal: NewSeal,
    /// What opens that seal: nothing for a key file and a token.
    pub opens: Vec<Secret>,
    /// Who will be the first administrator.
    pub admin: &'a PrincipalId,
    /// Milliseconds since 1970.
    pub now_ms: u64,
}

/// What was made.
pub struct Founded {
    /// The seal.
    pub seal: SealFacts,
    /// For the first administrator; good for seven days.
    pub invitation: Invitation,
}

/// Why nothing was made, or not all of it.
#[derive(Debug, thiserror::Error)]
pub enum FoundingError {
    /// The seal.
    #[error(transparent)]
    Root(#[from] RootError),
    /// What comes after the seal.
    #[error("the seal was made, but it does not serve yet: {0}; start with another directory")]
    Unusable(RootError),
    /// The invitation.
    #[error("the seal was made, but no invitation: {0}; start kms and use `asterism identity invite`")]
    Invitation(DirectoryError),
    /// The events.
    #[error("the seal was made, but its event was not recorded: {0}")]
    Unrecorded(String),
}

/// Makes the root key, its seal and the first administrator's invitation. The seal is opened again for that, so that it is known to open.
///
/// Must be called within a tokio runtime, off its threads.
///
/// # Errors
/// [`FoundingError`]; with [`FoundingError::Root`] nothing was made.
pub fn found(order: Founding<'_>) -> Result<Founded, FoundingError> {
    let Founding {
        data_dir,
        root_key,
        seal,
        opens,
        admin,
        now_ms,
    } = order;
    let facts = root::init(data_dir, root_key, seal, now_ms)?;
    let (records, roots) = opened(data_dir, root_key, &opens, now_ms).map_err(FoundingError::Unusable)?;
    let outbox = outbox(data_dir).map_err(|error| FoundingError::Unrecorded(error.to_string()))?;
    let record = |operation, resource| {
        let event = AuditEvent {
            principal: PrincipalId::service("kms").to_string(),
            ..AuditEvent::unasked(operation, resource)
        };
        outbox.record(event).map_err(|failure| unrecorded(&failure))
    };
    record("kms.Init", format!("seals/{}", facts.id))?;
    let directory = Directory::open(
        records,
        roots.newest(),
        Arc::new(Trust::new("kms", TRUST)),
        now_ms,
    )
    .map_err(FoundingError::Invitation)?;
    let by = PrincipalId::service("kms");
    let invitation = directory
        .invite(admin, &[Role::Admin], INVITATION_MS, by.as_str(), now_ms)
        .map_err(FoundingError::Invitation)?;
    record("kms.CreateInvitation", format!("principals/{admin}"))?;
    Ok(Founded {
        seal: facts,
        invitation,
    })
}

/// The store, and the root keys, by the seal that was made.
fn opened(
    data_dir: &Path,
    root_key: &RootKeyConfig,
    opens: &[Secret],
    now_ms: u64,
) -> Result<(Arc<dyn Records>, Roots), RootError> {
    let records: Arc<dyn Records> = Arc::new(SledRecords::open(
        &data_dir.join(RECORDS_DIR),
        SledOptions::default(),
    )?);
    let roots = Seal::open(data_dir, root_key, &*records, now_ms)?.unseal(opens, &*records, now_ms)?;
    Ok((records, roots))
}

/// Holds events until the service starts and sends them to audit.
fn outbox(data_dir: &Path) -> Result<Outbox, StoreError> {
    let spool = FileSpool::open(&data_dir.join(OUTBOX_DIR), SpoolOptions::default())?;
    let limits = OutboxLimits {
        max_events: MAX_EVENTS,
    };
    Ok(Outbox::new(Arc::new(spool), "kms", limits, Sink::Hold))
}

fn unrecorded(failure: &Failure) -> FoundingError {
    FoundingError::Unrecorded(failure.message().to_owned())
}

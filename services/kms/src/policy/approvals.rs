//! What other people have to say yes to before it is done.
//!
//! The first call of who asks records an approval and is refused; others say yes; the call, repeated with the same parameters, is done
//! once. Every step is durable before it counts. A call that was lost after its approval was used is let through again only with
//! its own request id, under which the operation itself has an effect but once.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use asterism_crypto::Digest;
use asterism_store::{Batch, Records};
use serde::{Deserialize, Serialize};

use crate::policy::{
    PolicyError, each,
    grants::{decode, encode},
};

/// This and the approval's id -> [`Approval`].
const APPROVAL: &[u8] = b"pa";
/// How long others have to answer, and the requester to repeat the call.
pub(super) const LIFETIME_MS: u64 = 24 * 3600 * 1000;
/// How long an approval can be looked at after it ended.
const KEPT_MS: u64 = 30 * LIFETIME_MS;
/// Of one requester, open at once.
pub(super) const MAX_OPEN: usize = 100;
const MAX_APPROVALS: usize = 10_000;
/// How many others a key may demand.
pub(crate) const MAX_REQUIRED: u8 = 3;

/// Where an approval is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ApprovalState {
    /// Others have to answer.
    Pending,
    /// Enough others said yes.
    Approved,
    /// One said no.
    Rejected,
    /// The call was let through.
    Used,
    /// Its time is over.
    Expired,
}

impl fmt::Display for ApprovalState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pending => "pending",
            Self::Approved => "approved",
            Self::Rejected => "rejected",
            Self::Used => "used",
            Self::Expired => "expired",
        })
    }
}

/// What somebody asks for, and who said what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Approval {
    format: u32,
    /// Its id.
    pub id: String,
    /// `destroy`, `export` or `lower-required-approvals`.
    pub operation: String,
    /// `keys/{id}`.
    pub key: String,
    /// 0 where none is meant.
    pub version: u32,
    /// Over all parameters of the call.
    pub parameters: Digest,
    /// Who asks.
    pub requester: String,
    /// How many others have to say yes.
    pub required: u8,
    /// Who did.
    pub approvers: Vec<String>,
    /// Who said no.
    pub rejected_by: Option<String>,
    /// Request id of the call that was let through.
    used_by: Option<String>,
    /// Milliseconds since 1970.
    pub created_at_ms: u64,
    /// From then on it is worth nothing.
    pub expires_at_ms: u64,
}

/// What is written now.
const FORMAT: u32 = 1;

impl Approval {
    /// `approvals/{id}`.
    pub fn name(&self) -> String {
        format!("approvals/{}", self.id)
    }

    /// Where it is at `now_ms`.
    pub fn state(&self, now_ms: u64) -> ApprovalState {
        if self.used_by.is_some() {
            ApprovalState::Used
        } else if self.rejected_by.is_some() {
            ApprovalState::Rejected
        } else if self.expires_at_ms <= now_ms {
            ApprovalState::Expired
        } else if self.approvers.len() >= usize::from(self.required) {
            ApprovalState::Approved
        } else {
            ApprovalState::Pending
        }
    }

    fn is_open(&self, now_ms: u64) -> bool {
        matches!(
            self.state(now_ms),
            ApprovalState::Pending | ApprovalState::Approved
        )
    }

    fn is_for(&self, asked: &Asked<'_>) -> bool {
        self.requester == asked.principal
            && self.operation == asked.operation
            && self.key == asked.key
            && self.version == asked.version
            && self.parameters == asked.parameters
    }
}

/// A call that others have to approve.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// `destroy`, `export` or `lower-required-approvals`.
    pub operation: &'static str,
    /// `keys/{id}`.
    pub key: &'a str,
    /// 0 where none is meant.
    pub version: u32,
    /// Over all parameters of the call, without its request id.
    pub parameters: Digest,
    /// How many others the key demands, now.
    pub required: u8,
    /// Who asks.
    pub principal: &'a str,
    /// Of the call; empty for a call that is not repeated.
    pub request_id: &'a str,
}

/// All approvals.
pub struct Approvals {
    records: Arc<dyn Records>,
    all: Mutex<BTreeMap<String, Approval>>,
}

impl Approvals {
    /// Reads all approvals.
    ///
    /// # Errors
    /// [`PolicyError::Damaged`], the store's own.
    pub fn open(records: Arc<dyn Records>) -> Result<Self, PolicyError> {
        let mut all = BTreeMap::new();
        each(&*records, APPROVAL, |_, stored| {
            let approval: Approval = decode(stored)?;
            if approval.format != FORMAT {
                return Err(PolicyError::Damaged("format of an approval"));
            }
            all.insert(approval.id.clone(), approval);
            Ok(())
        })?;
        Ok(Self {
            records,
            all: Mutex::new(all),
        })
    }

    /// Lets a call through that enough others have approved, once; records what is asked for when nobody has asked yet. A key that
    /// demands nobody lets every call through.
    ///
    /// # Errors
    /// [`PolicyError::ApprovalRequired`]; [`PolicyError::TooMany`].
    pub fn consume(&self, asked: &Asked<'_>, now_ms: u64) -> Result<(), PolicyError> {
        if asked.required == 0 {
            return Ok(());
        }
        let mut all = self.all();
        let used = |approval: &Approval| {
            !asked.request_id.is_empty() && approval.used_by.as_deref() == Some(asked.request_id)
        };
        if all
            .values()
            .any(|approval| approval.is_for(asked) && used(approval))
        {
            return Ok(());
        }
        let open = all
            .values()
            .find(|approval| approval.is_for(asked) && approval.is_open(now_ms));
        let Some(open) = open else {
            let approval = self.ask(&mut all, asked, now_ms)?;
            return Err(PolicyError::ApprovalRequired(approval));
        };
        let mut approval = open.clone();
        // The key may demand more, or fewer, than when it was asked.
        approval.required = asked.required;
        if approval.state(now_ms) != ApprovalState::Approved {
            let name = approval.name();
            self.write(&mut all, approval)?;
            return Err(PolicyError::ApprovalRequired(name));
        }
        approval.used_by = Some(asked.request_id.to_owned());
        self.write(&mut all, approval)
    }

    fn ask(
        &self,
        all: &mut BTreeMap<String, Approval>,
        asked: &Asked<'_>,
        now_ms: u64,
    ) -> Result<String, PolicyError> {
        let over: Vec<String> = all
            .values()
            .filter(|approval| approval.expires_at_ms.saturating_add(KEPT_MS) <= now_ms)
            .map(|approval| approval.id.clone())
            .collect();
        for id in over {
            self.records.commit(Batch::new().delete(record(&id)))?;
            all.remove(&id);
        }
        let open = |approval: &&Approval| approval.requester == asked.principal && approval.is_open(now_ms);
        if all.len() >= MAX_APPROVALS || all.values().filter(open).count() >= MAX_OPEN {
            return Err(PolicyError::TooMany("approvals"));
        }
        let approval = Approval {
            format: FORMAT,
            id: uuid::Uuid::new_v4().simple().to_string(),
            operation: asked.operation.to_owned(),
            key: asked.key.to_owned(),
            version: asked.version,
            parameters: asked.parameters,
            requester: asked.principal.to_owned(),
            required: asked.required,
            approvers: vec![],
            rejected_by: None,
            used_by: None,
            created_at_ms: now_ms,
            expires_at_ms: now_ms.saturating_add(LIFETIME_MS),
        };
        let name = approval.name();
        self.write(all, approval)?;
        Ok(name)
    }

    /// An approval.
    ///
    /// # Errors
    /// [`PolicyError::ApprovalNotFound`]
    pub fn get(&self, id: &str) -> Result<Approval, PolicyError> {
        find(&self.all(), id)
    }

    /// Approvals in order of their ids, after `after`, that `wanted` says yes to; and where the next page begins.
    pub fn list(
        &self,
        after: Option<&str>,
        limit: usize,
        wanted: impl Fn(&Approval) -> bool,
    ) -> (Vec<Approval>, Option<String>) {
        use std::ops::Bound;
        let all = self.all().clone();
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut found: Vec<Approval> = all
            .range::<str, _>((from, Bound::Unbounded))
            .map(|(_, approval)| approval)
            .filter(|approval| wanted(approval))
            .take(limit.saturating_add(1))
            .cloned()
            .collect();
        let more = found.len() > limit;
        found.truncate(limit);
        let next = found.last().filter(|_| more).map(|approval| approval.id.clone());
        (found, next)
    }

    /// `who` says yes; twice counts once.
    ///
    /// # Errors
    /// [`PolicyError::SelfApproval`], [`PolicyError::ApprovalClosed`], [`PolicyError::ApprovalNotFound`].
    pub fn approve(&self, id: &str, who: &str, now_ms: u64) -> Result<Approval, PolicyError> {
        self.answer(id, who, now_ms, |approval| {
            if !approval.approvers.iter().any(|approver| approver == who) {
                approval.approvers.push(who.to_owned());
            }
        })
    }

    /// `who` says no, for good.
    ///
    /// # Errors
    /// As [`Approvals::approve`].
    pub fn reject(&self, id: &str, who: &str, now_ms: u64) -> Result<Approval, PolicyError> {
        self.answer(id, who, now_ms, |approval| {
            approval.rejected_by = Some(who.to_owned());
        })
    }

    fn answer(
        &self,
        id: &str,
        who: &str,
        now_ms: u64,
        change: impl FnOnce(&mut Approval),
    ) -> Result<Approval, PolicyError> {
        let mut all = self.all();
        let mut approval = find(&all, id)?;
        if approval.requester == who {
            return Err(PolicyError::SelfApproval);
        }
        if !approval.is_open(now_ms) {
            return Err(PolicyError::ApprovalClosed(
                approval.name(),
                approval.state(now_ms),
            ));
        }
        change(&mut approval);
        self.write(&mut all, approval.clone())?;
        Ok(approval)
    }

    /// Durable first, then it counts.
    fn write(&self, all: &mut BTreeMap<String, Approval>, approval: Approval) -> Result<(), PolicyError> {
        if all.get(&approval.id) == Some(&approval) {
            return Ok(());
        }
        let batch = Batch::new().put(record(&approval.id), encode(&approval));
        self.records.commit(batch)?;
        all.insert(approval.id.clone(), approval);
        Ok(())
    }

    fn all(&self) -> MutexGuard<'_, BTreeMap<String, Approval>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn find(all: &BTreeMap<String, Approval>, id: &str) -> Result<Approval, PolicyError> {
    let found = all.get(id).cloned();
    found.ok_or_else(|| PolicyError::ApprovalNotFound(format!("approvals/{id}")))
}

fn record(id: &str) -> Vec<u8> {
    [APPROVAL, id.as_bytes()].concat()
}

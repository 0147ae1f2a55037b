//! Grants: kept in records, read from memory.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
};

use asterism_crypto::{Context, Digest};
use asterism_policy::Grant;
use asterism_store::{Batch, Records};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::policy::{PolicyError, each};

/// This and the grant's id -> [`GrantRecord`].
const GRANT: &[u8] = b"pg";
/// This and a digest of principal and request id -> [`RequestRecord`].
const REQUEST: &[u8] = b"pr";
/// All there may be.
pub(super) const MAX_GRANTS: usize = 10_000;
/// On one resource, or one collection.
pub(super) const MAX_ON_RESOURCE: usize = 1000;

/// A grant and what is known of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// The grant.
    pub grant: Grant,
    /// Who made it.
    pub creator: String,
    /// Milliseconds since 1970.
    pub created_at_ms: u64,
    /// From 1.
    pub revision: u64,
    /// Names this state of the grant.
    pub etag: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct GrantRecord {
    format: u32,
    grant: Grant,
    creator: String,
    created_at_ms: u64,
    revision: u64,
}

/// What is written now.
const FORMAT: u32 = 1;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RequestRecord {
    parameters: Digest,
    grant: String,
}

/// All grants at one moment.
#[derive(Clone, Default)]
pub(crate) struct Index {
    by_id: BTreeMap<String, Arc<Held>>,
    /// By the resource as the grant writes it.
    by_resource: HashMap<String, Vec<Arc<Held>>>,
}

impl Index {
    /// Grants about a resource, and about all of its collection.
    pub(crate) fn about<'i>(&'i self, resource: &str) -> impl Iterator<Item = &'i Grant> + Clone {
        let all = match resource.split_once('/') {
            Some(("keys", _)) => "keys/*",
            Some(("datasets", _)) => "datasets/*",
            Some(("models", _)) => "models/*",
            _ => "",
        };
        let of = |name: &str| self.by_resource.get(name).into_iter().flatten();
        of(resource).chain(of(all)).map(|held| &held.grant)
    }

    fn insert(&mut self, held: Arc<Held>) {
        self.remove(&held.grant.id);
        let resource = held.grant.resource.to_string();
        self.by_resource.entry(resource).or_default().push(held.clone());
        self.by_id.insert(held.grant.id.clone(), held);
    }

    fn remove(&mut self, id: &str) {
        let Some(old) = self.by_id.remove(id) else { return };
        let resource = old.grant.resource.to_string();
        if let Some(held) = self.by_resource.get_mut(&resource) {
            held.retain(|held| held.grant.id != id);
            if held.is_empty() {
                self.by_resource.remove(&resource);
            }
        }
    }
}

/// All grants.
pub struct Grants {
    records: Arc<dyn Records>,
    index: RwLock<Arc<Index>>,
    /// Held by whoever changes grants.
    changes: Mutex<()>,
}

impl Grants {
    /// Reads all grants.
    ///
    /// # Errors
    /// [`PolicyError::Damaged`], the store's own.
    pub fn open(records: Arc<dyn Records>) -> Result<Self, PolicyError> {
        let mut index = Index::default();
        each(&*records, GRANT, |_, stored| {
            index.insert(Arc::new(read(stored)?));
            Ok(())
        })?;
        Ok(Self {
            records,
            index: RwLock::new(Arc::new(index)),
            changes: Mutex::default(),
        })
    }

    /// All grants as they are now; later changes leave it alone.
    pub(crate) fn now(&self) -> Arc<Index> {
        self.index.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Makes a grant: durable, and counting, when this returns. Repeating it with the same request id answers the same grant.
    ///
    /// # Errors
    /// [`PolicyError::Grant`], [`PolicyError::TooMany`], [`PolicyError::RequestIdReused`].
    pub fn create(
        &self,
        mut grant: Grant,
        creator: &str,
        request_id: &str,
        now_ms: u64,
    ) -> Result<Arc<Held>, PolicyError> {
        grant.check()?;
        grant.id = String::new();
        let parameters = Digest::of(&encode(&grant));
        let _changing = self.changing();
        let request_at = request_record(creator, request_id);
        if !request_id.is_empty()
            && let Some(stored) = self.records.get(&request_at)?
        {
            let done: RequestRecord = decode(&stored)?;
            if done.parameters != parameters {
                return Err(PolicyError::RequestIdReused);
            }
            return self.get(&done.grant);
        }
        let index = self.now();
        if index.by_id.len() >= MAX_GRANTS {
            return Err(PolicyError::TooMany("grants"));
        }
        let resource = grant.resource.to_string();
        if index.by_resource.get(&resource).map_or(0, Vec::len) >= MAX_ON_RESOURCE {
            return Err(PolicyError::TooMany("grants on this resource"));
        }
        grant.id = uuid::Uuid::new_v4().simple().to_string();
        let record = GrantRecord {
            format: FORMAT,
            grant,
            creator: creator.to_owned(),
            created_at_ms: now_ms,
            revision: 1,
        };
        let mut batch = Batch::new();
        if !request_id.is_empty() {
            let grant = record.grant.id.clone();
            batch = batch.put(request_at, encode(&RequestRecord { parameters, grant }));
        }
        self.write(batch, &record)
    }

    /// A grant.
    ///
    /// # Errors
    /// [`PolicyError::GrantNotFound`]
    pub fn get(&self, id: &str) -> Result<Arc<Held>, PolicyError> {
        let found = self.now().by_id.get(id).cloned();
        found.ok_or_else(|| PolicyError::GrantNotFound(name(id)))
    }

    /// Grants in order of their ids, after `after`, that `wanted` says yes to; and where the next page begins.
    pub fn list(
        &self,
        after: Option<&str>,
        limit: usize,
        wanted: impl Fn(&Held) -> bool,
    ) -> (Vec<Arc<Held>>, Option<String>) {
        use std::ops::Bound;
        let index = self.now();
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut found: Vec<_> = index
            .by_id
            .range::<str, _>((from, Bound::Unbounded))
            .map(|(_, held)| held)
            .filter(|held| wanted(held))
            .take(limit.saturating_add(1))
            .cloned()
            .collect();
        let more = found.len() > limit;
        found.truncate(limit);
        let next = found.last().filter(|_| more).map(|held| held.grant.id.clone());
        (found, next)
    }

    /// Replaces a grant, if it is still the one of that etag (empty for any). Its resource stays.
    ///
    /// # Errors
    /// [`PolicyError::GrantNotFound`], [`PolicyError::EtagMismatch`], [`PolicyError::Grant`].
    pub fn update(&self, grant: Grant, etag: &str) -> Result<Arc<Held>, PolicyError> {
        grant.check()?;
        let _changing = self.changing();
        let old = self.unchanged(&grant.id, etag)?;
        if old.grant.resource != grant.resource {
            return Err(PolicyError::Field(
                "grant.resource",
                "cannot be changed; make another grant",
            ));
        }
        let record = GrantRecord {
            format: FORMAT,
            grant,
            creator: old.creator.clone(),
            created_at_ms: old.created_at_ms,
            revision: old.revision + 1,
        };
        self.write(Batch::new(), &record)
    }

    /// Removes a grant, if it is still the one of that etag (empty for any): it counts no more when this returns.
    ///
    /// # Errors
    /// [`PolicyError::GrantNotFound`], [`PolicyError::EtagMismatch`].
    pub fn delete(&self, id: &str, etag: &str) -> Result<(), PolicyError> {
        let _changing = self.changing();
        self.unchanged(id, etag)?;
        self.records.commit(Batch::new().delete(grant_record(id)))?;
        self.exchange(|index| index.remove(id));
        Ok(())
    }

    fn unchanged(&self, id: &str, etag: &str) -> Result<Arc<Held>, PolicyError> {
        let old = self.get(id)?;
        if etag.is_empty() || etag == old.etag {
            Ok(old)
        } else {
            Err(PolicyError::EtagMismatch(name(id)))
        }
    }

    fn write(&self, batch: Batch, record: &GrantRecord) -> Result<Arc<Held>, PolicyError> {
        let stored = encode(record);
        let held = Arc::new(read(&stored)?);
        self.records
            .commit(batch.put(grant_record(&record.grant.id), stored))?;
        self.exchange(|index| index.insert(held.clone()));
        Ok(held)
    }

    fn exchange(&self, change: impl FnOnce(&mut Index)) {
        let mut index = Index::clone(&self.now());
        change(&mut index);
        *self.index.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(index);
    }

    fn changing(&self) -> MutexGuard<'_, ()> {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// `grants/{id}`.
pub(super) fn name(id: &str) -> String {
    format!("grants/{id}")
}

fn read(stored: &[u8]) -> Result<Held, PolicyError> {
    let record: GrantRecord = decode(stored)?;
    if record.format != FORMAT {
        return Err(PolicyError::Damaged("format of a grant"));
    }
    let mut etag = Digest::of(stored).to_string();
    etag.truncate(16);
    Ok(Held {
        grant: record.grant,
        creator: record.creator,
        created_at_ms: record.created_at_ms,
        revision: record.revision,
        etag,
    })
}

fn grant_record(id: &str) -> Vec<u8> {
    [GRANT, id.as_bytes()].concat()
}

fn request_record(principal: &str, request_id: &str) -> Vec<u8> {
    let context = Context::new("asterism/policy-request/v1")
        .field("principal", principal)
        .field("id", request_id);
    [REQUEST, Digest::of(&context.encode()).as_bytes().as_slice()].concat()
}

pub(super) fn encode<T: Serialize>(record: &T) -> Vec<u8> {
    serde_json::to_vec(record).expect("records have string keys only and serialise")
}

pub(super) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, PolicyError> {
    serde_json::from_slice(bytes).map_err(|_| PolicyError::Damaged("record"))
}

//! What a service knows of the encrypted channel: its own key, and whose the keys of others are.

use std::{
    collections::HashMap,
    fs,
    io::{self, Read as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use asterism_channel::{KeyError, Pin, PublicKey, SCHEME, StaticKey};
use asterism_store::{StoreError, files};

use crate::{
    config::ChannelConfig,
    error::Failure,
    identity::{Principal, PrincipalId, Role, unauthenticated},
};

/// The ending of a file with a public key.
const SUFFIX: &str = ".pub";
/// Keys that a directory may hold.
const MAX_PEERS: usize = 10_000;
const MAX_FILE_BYTES: u64 = 256;

/// Why the channel cannot be used. The text tells the next step.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChannelSetupError {
    /// The service's own key cannot be read.
    #[error("the static key {path} cannot be used: {source}; `asterism channel init` makes one")]
    Key {
        /// The file.
        path: String,
        /// Why not.
        source: KeyError,
    },
    /// The directory of public keys is wrong.
    #[error("the public key {path} cannot be used: {problem}")]
    Peer {
        /// The file or directory.
        path: String,
        /// What is wrong.
        problem: String,
    },
    /// A service is called whose key is not in the directory.
    #[error("the key of {0} is not in channel.authorized_peers_dir")]
    Unpinned(PrincipalId),
    /// A file cannot be written.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Who is at the other end of the channel that a request came through; in the request's extensions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelPeer {
    /// Its static key.
    pub key: PublicKey,
    /// Whose key that is, if it is in the directory.
    pub principal: Option<PrincipalId>,
}

/// The service's side of the channel. Cheap to clone.
#[derive(Clone)]
pub struct Channel {
    own: Arc<StaticKey>,
    peers: Arc<HashMap<PublicKey, PrincipalId>>,
    allow_unknown: bool,
}

impl Channel {
    /// Reads the key and the directory; `None` when the channel is off.
    ///
    /// # Errors
    /// [`ChannelSetupError`]
    pub fn open(config: &ChannelConfig) -> Result<Option<Self>, ChannelSetupError> {
        let (Some(key_file), Some(dir)) = (&config.static_key_file, &config.authorized_peers_dir) else {
            return Ok(None);
        };
        Ok(Some(Self {
            own: Arc::new(read_key(key_file)?),
            peers: Arc::new(read_peers(dir)?),
            allow_unknown: config.allow_unknown_peers,
        }))
    }

    /// For calls of `service`, which has to have the key that the directory says.
    ///
    /// # Errors
    /// [`ChannelSetupError::Unpinned`]
    pub fn pin(&self, service: &str) -> Result<Pin, ChannelSetupError> {
        let id = PrincipalId::service(service);
        let key = self.peers.iter().find(|(_, principal)| **principal == id);
        let (key, _) = key.ok_or(ChannelSetupError::Unpinned(id.clone()))?;
        Ok(Pin {
            own: self.own.clone(),
            service_key: *key,
            service: service.into(),
        })
    }

    pub(crate) fn own(&self) -> &StaticKey {
        &self.own
    }

    /// Whether who has this key may speak at all.
    pub(crate) fn admits(&self, key: &PublicKey) -> bool {
        self.allow_unknown || self.peers.contains_key(key)
    }

    pub(crate) fn peer(&self, key: PublicKey) -> ChannelPeer {
        ChannelPeer {
            key,
            principal: self.peers.get(&key).cloned(),
        }
    }
}

/// Whether calls of `endpoint` need a [`Pin`].
pub fn is_channel(endpoint: &str) -> bool {
    endpoint.starts_with(SCHEME)
}

/// Refuses a token that came the wrong way: one of a service from elsewhere than that service's key, or another's token
/// from a key whose principal is known. Stolen alone, neither is of use.
pub(crate) fn constrain(principal: &Principal, peer: Option<&ChannelPeer>) -> Result<(), Failure> {
    let known = peer.and_then(|peer| peer.principal.as_ref());
    let bound = principal.id.is_service() || principal.is(Role::Service) || known.is_some();
    if !bound || known == Some(&principal.id) {
        return Ok(());
    }
    Err(unauthenticated(
        "CHANNEL_MISMATCH",
        "the token is not one of the party at the other end of the channel",
    ))
}

/// Makes a static key unless there is one, and puts its public half into the directory under the name of `principal`.
///
/// # Errors
/// [`ChannelSetupError`], also when the directory has another key of that name already.
pub fn provision(
    key_file: &Path,
    peers_dir: &Path,
    principal: &PrincipalId,
) -> Result<PublicKey, ChannelSetupError> {
    let public_file = peers_dir.join(format!("{principal}{SUFFIX}"));
    for dir in [key_file.parent(), public_file.parent()].into_iter().flatten() {
        files::create_private_dir(dir)?;
    }
    if !key_file.exists() {
        let key = StaticKey::generate().map_err(|source| unusable(key_file, source))?;
        files::write_atomic(key_file, key.to_text().as_bytes(), 0o600)?;
    }
    let public = read_key(key_file)?.public();
    if !public_file.exists() {
        files::write_atomic(&public_file, format!("{public}\n").as_bytes(), 0o600)?;
    }
    if read_peer(&public_file)? == public {
        Ok(public)
    } else {
        let problem = format!("{} is another; delete one of the two", key_file.display());
        Err(wrong(&public_file, problem))
    }
}

fn read_key(path: &Path) -> Result<StaticKey, ChannelSetupError> {
    StaticKey::read(path).map_err(|source| unusable(path, source))
}

fn unusable(path: &Path, source: KeyError) -> ChannelSetupError {
    ChannelSetupError::Key {
        path: path.display().to_string(),
        source,
    }
}

fn wrong(path: &Path, problem: impl ToString) -> ChannelSetupError {
    ChannelSetupError::Peer {
        path: path.display().to_string(),
        problem: problem.to_string(),
    }
}

/// Reads `KIND/NAME.pub` below `dir`; other files are left alone.
fn read_peers(dir: &Path) -> Result<HashMap<PublicKey, PrincipalId>, ChannelSetupError> {
    let mut peers = HashMap::new();
    for kind in entries(dir)? {
        if !kind.is_dir() {
            continue;
        }
        for path in entries(&kind)? {
            let Some(name) = name_of(&path).and_then(|name| name.strip_suffix(SUFFIX)) else {
                continue;
            };
            let principal = format!("{}/{name}", name_of(&kind).unwrap_or_default());
            let principal: PrincipalId = principal
                .parse()
                .map_err(|_| wrong(&path, "its name is not that of a principal, like service/kms.pub"))?;
            if peers.insert(read_peer(&path)?, principal).is_some() {
                return Err(wrong(&path, "another principal has the same key"));
            }
            if peers.len() > MAX_PEERS {
                return Err(wrong(dir, "there are more than 10000 keys"));
            }
        }
    }
    Ok(peers)
}

fn entries(dir: &Path) -> Result<Vec<PathBuf>, ChannelSetupError> {
    let read = || -> io::Result<Vec<PathBuf>> { fs::read_dir(dir)?.map(|entry| Ok(entry?.path())).collect() };
    read().map_err(|error| wrong(dir, error))
}

fn name_of(path: &Path) -> Option<&str> {
    path.file_name().and_then(|name| name.to_str())
}

fn read_peer(path: &Path) -> Result<PublicKey, ChannelSetupError> {
    let mut text = String::new();
    fs::File::open(path)
        .and_then(|file| file.take(MAX_FILE_BYTES).read_to_string(&mut text))
        .map_err(|error| wrong(path, error))?;
    text.trim().parse().map_err(|error| wrong(path, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn on(dir: &Path, allow_unknown_peers: bool) -> ChannelConfig {
        ChannelConfig {
            static_key_file: Some(dir.join("kms.key")),
            authorized_peers_dir: Some(dir.join("peers")),
            allow_unknown_peers,
            listen: None,
        }
    }

    fn provisioned(dir: &Path, service: &str) -> PublicKey {
        let key_file = dir.join(format!("{service}.key"));
        provision(&key_file, &dir.join("peers"), &PrincipalId::service(service)).expect("provisioned")
    }

    #[test]
    fn keys_are_made_once_and_found_by_their_principal() {
        let dir = tempfile::tempdir().expect("directory");
        let kms = provisioned(dir.path(), "kms");
        assert_eq!(provisioned(dir.path(), "kms"), kms);
        let audit = provisioned(dir.path(), "audit");
        let stranger = StaticKey::generate().expect("a key").public();
        for allow_unknown in [false, true] {
            let channel = Channel::open(&on(dir.path(), allow_unknown))
                .expect("opens")
                .expect("on");
            assert_eq!(channel.own().public(), kms);
            assert_eq!(channel.pin("audit").expect("pinned").service_key, audit);
            assert!(matches!(
                channel.pin("ingest"),
                Err(ChannelSetupError::Unpinned(_))
            ));
            assert_eq!(channel.peer(audit).principal, Some(PrincipalId::service("audit")));
            assert_eq!(channel.peer(stranger).principal, None);
            assert!(channel.admits(&audit));
            assert_eq!(channel.admits(&stranger), allow_unknown);
        }
        assert!(Channel::open(&ChannelConfig::default()).expect("opens").is_none());
    }

    #[test]
    fn a_directory_that_contradicts_itself_is_refused() {
        let dir = tempfile::tempdir().expect("directory");
        provisioned(dir.path(), "kms");
        let service = dir.path().join("peers/service");
        let refused = |what: &str| {
            let error = Channel::open(&on(dir.path(), false)).err();
            assert!(matches!(error, Some(ChannelSetupError::Peer { .. })), "{what}");
        };
        fs::write(service.join("ingest.pub"), "asx1nonsense").expect("written");
        refused("no key");
        fs::copy(service.join("kms.pub"), service.join("ingest.pub")).expect("copied");
        refused("one key of two");
        fs::rename(service.join("ingest.pub"), service.join("In gest.pub")).expect("renamed");
        refused("no principal");
        fs::remove_file(service.join("In gest.pub")).expect("removed");
        fs::write(service.join("notes.txt"), "no key").expect("written");
        Channel::open(&on(dir.path(), false)).expect("other files are left alone");
        fs::remove_file(dir.path().join("kms.key")).expect("removed");
        let again = provision(
            &dir.path().join("kms.key"),
            &dir.path().join("peers"),
            &PrincipalId::service("kms"),
        );
        assert!(
            matches!(again, Err(ChannelSetupError::Peer { .. })),
            "a fresh key of a known name"
        );
    }

    #[test]
    fn tokens_of_services_and_keys_of_principals_belong_together() {
        let key = StaticKey::generate().expect("a key").public();
        let peer = |principal: Option<&str>| ChannelPeer {
            key,
            principal: principal.map(|id| id.parse().expect("principal")),
        };
        let may = |token: &str, role: Role, from: Option<ChannelPeer>| {
            let principal = Principal {
                id: token.parse().expect("principal"),
                roles: vec![role],
            };
            constrain(&principal, from.as_ref()).map_err(|failure| failure.reason())
        };
        let mismatch = Err("CHANNEL_MISMATCH");
        let known = |id| Some(peer(Some(id)));
        assert_eq!(may("service/kms", Role::Service, known("service/kms")), Ok(()));
        assert_eq!(
            may("service/kms", Role::Service, known("service/audit")),
            mismatch
        );
        assert_eq!(may("service/kms", Role::Service, Some(peer(None))), mismatch);
        assert_eq!(may("service/kms", Role::Service, None), mismatch);
        assert_eq!(may("service/kms", Role::Admin, None), mismatch);
        assert_eq!(may("user/alice", Role::Service, None), mismatch);
        assert_eq!(may("user/alice", Role::Admin, None), Ok(()));
        assert_eq!(may("user/alice", Role::Admin, Some(peer(None))), Ok(()));
        assert_eq!(may("user/alice", Role::Admin, known("user/alice")), Ok(()));
        assert_eq!(may("user/alice", Role::Admin, known("service/kms")), mismatch);
    }
}

//! What a service knows of the encrypted channel: its own key, and whose the keys of others are.

mod directory;
pub(crate) mod line;
mod rotation;

use std::{
    path::PathBuf,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use asterism_channel::{KeyError, Pin, Pins, PublicKey, SCHEME, StaticKey};
use asterism_store::StoreError;
use tokio::sync::watch;

pub use rotation::{Step, provision, rotate};

use directory::{Peers, fingerprint, own_keys};

use crate::{
    config::ChannelConfig,
    error::Failure,
    identity::{Principal, PrincipalId, Role, unauthenticated},
};

/// How often the files are looked at.
const POLL: Duration = Duration::from_secs(1);

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
    /// A step of a rotation comes at the wrong time.
    #[error("{0}")]
    Rotation(&'static str),
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

/// The service's side of the channel, as the files are at the moment. Cheap to clone.
#[derive(Clone)]
pub struct Channel {
    shared: Arc<Shared>,
}

struct Shared {
    key_file: PathBuf,
    peers_dir: PathBuf,
    allow_unknown: bool,
    state: watch::Sender<Arc<State>>,
    /// Somebody looks after the files already.
    watched: AtomicBool,
}

/// What the files say.
struct State {
    /// The one to call with first, then those that are also answered to while one replaces another.
    own: Vec<Arc<StaticKey>>,
    peers: Peers,
}

impl Channel {
    /// Reads the keys and the directory; `None` when the channel is off.
    ///
    /// # Errors
    /// [`ChannelSetupError`]
    pub fn open(config: &ChannelConfig) -> Result<Option<Self>, ChannelSetupError> {
        let (Some(key_file), Some(dir)) = (&config.static_key_file, &config.authorized_peers_dir) else {
            return Ok(None);
        };
        let state = State {
            own: own_keys(key_file)?,
            peers: Peers::read(dir)?.strict()?,
        };
        Ok(Some(Self {
            shared: Arc::new(Shared {
                key_file: key_file.clone(),
                peers_dir: dir.clone(),
                allow_unknown: config.allow_unknown_peers,
                state: watch::Sender::new(Arc::new(state)),
                watched: AtomicBool::new(false),
            }),
        }))
    }

    /// For calls of `service`, which has to have one of the keys that the directory says; the newest is tried first.
    ///
    /// # Errors
    /// [`ChannelSetupError::Unpinned`]
    pub fn pin(&self, service: &str) -> Result<Pins, ChannelSetupError> {
        let id = PrincipalId::service(service);
        if self.state().peers.keys_of(&id).is_empty() {
            return Err(ChannelSetupError::Unpinned(id));
        }
        let (channel, service): (_, Arc<str>) = (self.clone(), service.into());
        Ok(Pins::source(move || {
            let state = channel.state();
            let Some(own) = state.own.first() else {
                return vec![];
            };
            let keys = state.peers.keys_of(&id);
            let pin = |service_key| Pin {
                own: own.clone(),
                service_key,
                service: service.clone(),
            };
            keys.into_iter().map(pin).collect()
        }))
    }

    fn state(&self) -> Arc<State> {
        self.shared.state.borrow().clone()
    }

    /// The keys that callers may expect here.
    pub(crate) fn own(&self) -> Vec<Arc<StaticKey>> {
        self.state().own.clone()
    }

    /// Whether who has this key may speak at all.
    pub(crate) fn admits(&self, key: &PublicKey) -> bool {
        self.shared.allow_unknown || self.state().peers.contains(key)
    }

    pub(crate) fn peer(&self, key: PublicKey) -> ChannelPeer {
        ChannelPeer {
            key,
            principal: self.state().peers.principal(&key).cloned(),
        }
    }

    /// Resolves once a peer's key is no longer what it was when its connection began: withdrawn, or another principal's.
    pub(crate) async fn withdrawn(self, peer: ChannelPeer) {
        let mut state = self.shared.state.subscribe();
        let allow_unknown = self.shared.allow_unknown;
        let gone = |state: &Arc<State>| match (&peer.principal, state.peers.principal(&peer.key)) {
            (Some(then), now) => now != Some(then),
            (None, now) => now.is_none() && !allow_unknown,
        };
        if state.wait_for(gone).await.is_err() {
            // The service is gone, and with it whatever this would close.
            std::future::pending::<()>().await;
        }
    }

    /// Follows the files from now on, until the last clone is gone; a server does that by itself. Must be called within a tokio
    /// runtime.
    pub fn watch(&self) {
        if !self.shared.watched.swap(true, Ordering::AcqRel) {
            tokio::spawn(follow(Arc::downgrade(&self.shared)));
        }
    }
}

/// Looks at the files every so often. What is withdrawn closes connections within seconds.
async fn follow(shared: Weak<Shared>) {
    let mut every = tokio::time::interval(POLL);
    let mut seen = None;
    loop {
        every.tick().await;
        let Some(shared) = shared.upgrade() else { return };
        let before = seen.take();
        let looked = tokio::task::spawn_blocking(move || {
            let now = fingerprint(&shared.key_file, &shared.peers_dir);
            if before.as_ref() != Some(&now) {
                shared.reload();
            }
            now
        });
        seen = looked.await.ok();
    }
}

impl Shared {
    /// Takes what the files say. A public key that cannot be read counts as withdrawn; a service without a key of its own, or
    /// without a directory, goes on with what it had.
    fn reload(&self) {
        let before = self.state.borrow().clone();
        let read = own_keys(&self.key_file).and_then(|own| Ok((own, Peers::read(&self.peers_dir)?)));
        let (own, peers) = match read {
            Ok(read) => read,
            Err(error) => {
                tracing::error!(%error, "the keys of the channel cannot be read again; the old ones stay");
                return;
            }
        };
        for problem in peers.problems() {
            tracing::error!(error = %problem, "a public key cannot be used, and is refused");
        }
        // The same key stays the same object, by which connections know that nothing changed.
        let keep = |key: Arc<StaticKey>| {
            let known = before.own.iter().find(|known| known.public() == key.public());
            known.cloned().unwrap_or(key)
        };
        let own: Vec<_> = own.into_iter().map(keep).collect();
        let same = own
            .iter()
            .map(|key| key.public())
            .eq(before.own.iter().map(|key| key.public()));
        if !same || peers != before.peers {
            tracing::info!(
                own = own.len(),
                peers = peers.len(),
                "the keys of the channel changed"
            );
            self.state.send_replace(Arc::new(State { own, peers }));
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

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

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
            assert_eq!(channel.own()[0].public(), kms);
            assert_eq!(channel.pin("audit").expect("pinned").now()[0].service_key, audit);
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

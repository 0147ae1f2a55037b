//! Somebody on the wire: passes everything on, remembers it, and alters it when told to.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

/// A TCP proxy in front of one address.
pub struct Recorder {
    pub at: SocketAddr,
    shared: Arc<Shared>,
    /// Stops with it.
    _serving: JoinSet<()>,
}

#[derive(Default)]
struct Shared {
    /// Each direction of each connection by itself, so that nothing lies between bytes that follow each other.
    said: Mutex<Vec<Arc<Mutex<Vec<u8>>>>>,
    flip: AtomicBool,
    connections: AtomicUsize,
}

impl Recorder {
    pub async fn before(to: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let shared = Arc::new(Shared::default());
        let mut serving = JoinSet::new();
        serving.spawn(serve(listener, to, shared.clone()));
        Self {
            at,
            shared,
            _serving: serving,
        }
    }

    /// Whether these bytes went over the wire in one piece.
    pub fn saw(&self, needle: &[u8]) -> bool {
        let said = self.shared.said.lock().unwrap();
        said.iter().any(|said| {
            said.lock()
                .unwrap()
                .windows(needle.len())
                .any(|bytes| bytes == needle)
        })
    }

    pub fn bytes(&self) -> usize {
        let said = self.shared.said.lock().unwrap();
        said.iter().map(|said| said.lock().unwrap().len()).sum()
    }

    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// Alters one bit of whatever is said next.
    pub fn flip_a_bit(&self) {
        self.shared.flip.store(true, Ordering::SeqCst);
    }

    /// Whether that happened.
    pub fn has_flipped(&self) -> bool {
        !self.shared.flip.load(Ordering::SeqCst)
    }
}

async fn serve(listener: TcpListener, to: SocketAddr, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    while let Ok((near, _)) = listener.accept().await {
        let Ok(far) = TcpStream::connect(to).await else {
            continue;
        };
        near.set_nodelay(true).unwrap();
        far.set_nodelay(true).unwrap();
        shared.connections.fetch_add(1, Ordering::SeqCst);
        let (near_reads, near_writes) = near.into_split();
        let (far_reads, far_writes) = far.into_split();
        let (there, back) = (shared.clone(), shared.clone());
        connections.spawn(async move {
            tokio::join!(
                pass(near_reads, far_writes, &there),
                pass(far_reads, near_writes, &back)
            );
        });
    }
}

async fn pass(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, shared: &Shared) {
    let said = Arc::new(Mutex::new(Vec::new()));
    shared.said.lock().unwrap().push(said.clone());
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        let bytes = &mut buffer[..length];
        said.lock().unwrap().extend_from_slice(bytes);
        if shared.flip.swap(false, Ordering::SeqCst) {
            bytes[length / 2] ^= 4;
        }
        if to.write_all(bytes).await.is_err() {
            break;
        }
    }
    let _ = to.shutdown().await;
}

//! The handshake: two messages of fixed sizes, nothing else in them, no early data.

use std::{io, time::Duration};

use snow::{Builder, HandshakeState, params::NoiseParams};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use crate::{
    ChannelError, NoiseStream,
    key::{KEY_BYTES, PublicKey, StaticKey},
    session::{Rekey, Session},
};

/// How long a handshake may take.
pub const HANDSHAKE: Duration = Duration::from_secs(5);

const NOISE: &str = "Noise_IK_25519_AESGCM_SHA256";
/// Magic, version of the protocol, number of the suite. Bound by the handshake, so that nobody can change them.
const PREAMBLE: [u8; 6] = *b"ASNC\x01\x01";
const TAG: usize = 16;
/// e, s encrypted, an empty payload encrypted.
const FIRST_MESSAGE: usize = KEY_BYTES + KEY_BYTES + TAG + TAG;
/// e, an empty payload encrypted.
const SECOND_MESSAGE: usize = KEY_BYTES + TAG;
const HELLO: usize = PREAMBLE.len() + FIRST_MESSAGE;

/// Calls `service`, which has to have the key `pinned`, and says who calls.
///
/// # Errors
/// [`ChannelError`]
pub async fn initiate<T: AsyncRead + AsyncWrite + Unpin>(
    io: T,
    own: &StaticKey,
    pinned: &PublicKey,
    service: &str,
    within: Duration,
) -> Result<NoiseStream<T>, ChannelError> {
    in_time(within, call(io, own, pinned, service, Rekey::default())).await
}

/// Answers a caller of `service`, unless `admit` refuses its key; it learns no more than that, by being hung up on.
///
/// # Errors
/// [`ChannelError`]
pub async fn accept<T: AsyncRead + AsyncWrite + Unpin>(
    io: T,
    own: &StaticKey,
    service: &str,
    within: Duration,
    admit: impl FnOnce(&PublicKey) -> bool,
) -> Result<NoiseStream<T>, ChannelError> {
    accept_any(io, &[own], service, within, admit).await
}

/// As [`accept`], with any of several keys: while one replaces another.
///
/// # Errors
/// [`ChannelError`]
pub async fn accept_any<T: AsyncRead + AsyncWrite + Unpin>(
    io: T,
    own: &[&StaticKey],
    service: &str,
    within: Duration,
    admit: impl FnOnce(&PublicKey) -> bool,
) -> Result<NoiseStream<T>, ChannelError> {
    in_time(within, answer_any(io, own, service, admit, Rekey::default())).await
}

async fn in_time<T>(
    within: Duration,
    handshake: impl Future<Output = Result<T, ChannelError>>,
) -> Result<T, ChannelError> {
    tokio::time::timeout(within, handshake)
        .await
        .unwrap_or(Err(ChannelError::TimedOut))
}

pub(crate) async fn call<T: AsyncRead + AsyncWrite + Unpin>(
    mut io: T,
    own: &StaticKey,
    pinned: &PublicKey,
    service: &str,
    rekey: Rekey,
) -> Result<NoiseStream<T>, ChannelError> {
    let prologue = prologue(service);
    let mut noise = noise(own, &prologue)?
        .remote_public_key(pinned.as_bytes())
        .and_then(Builder::build_initiator)
        .map_err(|_| ChannelError::Handshake)?;
    let mut hello = [0; HELLO];
    let (preamble, message) = hello.split_at_mut(PREAMBLE.len());
    preamble.copy_from_slice(&PREAMBLE);
    write(&mut noise, message)?;
    io.write_all(&hello).await.map_err(ChannelError::Io)?;
    io.flush().await.map_err(ChannelError::Io)?;
    let mut reply = [0; SECOND_MESSAGE];
    receive(&mut io, &mut reply).await?;
    read(&mut noise, &reply)?;
    finish(io, noise, *pinned, rekey)
}

#[cfg(test)]
pub(crate) async fn answer<T: AsyncRead + AsyncWrite + Unpin>(
    io: T,
    own: &StaticKey,
    service: &str,
    admit: impl FnOnce(&PublicKey) -> bool,
    rekey: Rekey,
) -> Result<NoiseStream<T>, ChannelError> {
    answer_any(io, &[own], service, admit, rekey).await
}

async fn answer_any<T: AsyncRead + AsyncWrite + Unpin>(
    mut io: T,
    own: &[&StaticKey],
    service: &str,
    admit: impl FnOnce(&PublicKey) -> bool,
    rekey: Rekey,
) -> Result<NoiseStream<T>, ChannelError> {
    let mut preamble = [0; PREAMBLE.len()];
    receive(&mut io, &mut preamble).await?;
    if preamble != PREAMBLE {
        return Err(ChannelError::Protocol);
    }
    let mut message = [0; FIRST_MESSAGE];
    receive(&mut io, &mut message).await?;
    let prologue = prologue(service);
    // Each try reads the whole message, so which key fits is known before anything is said.
    let respond = |own: &&StaticKey| {
        let mut state = noise(own, &prologue)
            .and_then(|builder| builder.build_responder().map_err(|_| ChannelError::Handshake))?;
        read(&mut state, &message)?;
        Ok::<_, ChannelError>(state)
    };
    let mut noise = own
        .iter()
        .find_map(|own| respond(own).ok())
        .ok_or(ChannelError::Handshake)?;
    let peer = noise.get_remote_static().ok_or(ChannelError::Handshake)?;
    let peer = PublicKey::from_bytes(peer).map_err(|_| ChannelError::Handshake)?;
    if !admit(&peer) {
        return Err(ChannelError::Refused(peer));
    }
    let mut reply = [0; SECOND_MESSAGE];
    write(&mut noise, &mut reply)?;
    io.write_all(&reply).await.map_err(ChannelError::Io)?;
    io.flush().await.map_err(ChannelError::Io)?;
    finish(io, noise, peer, rekey)
}

fn noise<'a>(own: &'a StaticKey, prologue: &'a [u8]) -> Result<Builder<'a>, ChannelError> {
    let params: NoiseParams = NOISE.parse().map_err(|_| ChannelError::Protocol)?;
    Builder::new(params)
        .local_private_key(own.secret())
        .and_then(|builder| builder.prologue(prologue))
        .map_err(|_| ChannelError::Handshake)
}

/// What both sides have to agree on without saying all of it.
fn prologue(service: &str) -> Vec<u8> {
    [&PREAMBLE[..], b"asterism/channel\0", service.as_bytes()].concat()
}

/// Fills `message` with the next message, which has exactly its length.
fn write(noise: &mut HandshakeState, message: &mut [u8]) -> Result<(), ChannelError> {
    match noise.write_message(&[], message) {
        Ok(length) if length == message.len() => Ok(()),
        _ => Err(ChannelError::Handshake),
    }
}

fn read(noise: &mut HandshakeState, message: &[u8]) -> Result<(), ChannelError> {
    let mut payload = [0; FIRST_MESSAGE];
    match noise.read_message(message, &mut payload) {
        Ok(0) => Ok(()),
        _ => Err(ChannelError::Handshake),
    }
}

async fn receive(io: &mut (impl AsyncRead + Unpin), bytes: &mut [u8]) -> Result<(), ChannelError> {
    match io.read_exact(bytes).await {
        Ok(_) => Ok(()),
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset
            ) =>
        {
            Err(ChannelError::HungUp)
        }
        Err(error) => Err(ChannelError::Io(error)),
    }
}

fn finish<T>(
    io: T,
    noise: HandshakeState,
    peer: PublicKey,
    rekey: Rekey,
) -> Result<NoiseStream<T>, ChannelError> {
    let state = noise.into_transport_mode().map_err(|_| ChannelError::Handshake)?;
    Ok(NoiseStream::new(io, Session::new(state, rekey), peer))
}

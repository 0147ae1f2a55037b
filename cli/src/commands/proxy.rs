//! `asterism proxy`: a local door in the clear to a service that is reached over the encrypted channel.

use std::{sync::Arc, time::Duration};

use asterism_chassis::entry::shutdown_signal;
use asterism_client::channel::{ChannelError, HANDSHAKE, Pin, SCHEME, StaticKey, initiate};
use serde_json::json;
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};

use crate::{
    args::ProxyArgs,
    error::CliError,
    output::{Output, complain},
};

/// Connections at once; more wait.
const MAX_CONNECTIONS: usize = 128;
/// After a failed accept the next try waits this long.
const BACKOFF: Duration = Duration::from_millis(100);

/// Runs until interrupted.
pub async fn run(args: ProxyArgs, output: Output) -> Result<(), CliError> {
    let usage = |problem: String| Err(CliError::Usage(problem));
    if !args.listen.ip().is_loopback() {
        return usage(format!("{} is not on the loopback interface", args.listen));
    }
    let Some(to) = args.to.strip_prefix(SCHEME).filter(|to| to.contains(':')) else {
        return usage(format!("`{}` is not {SCHEME}HOST:PORT", args.to));
    };
    let own = match &args.key_file {
        Some(path) => StaticKey::read(path).map_err(|error| format!("{}: {error}", path.display())),
        None => StaticKey::generate().map_err(|error| error.to_string()),
    };
    let pin = Pin {
        own: Arc::new(own.map_err(CliError::Other)?),
        service_key: args.pin,
        service: args.service.as_str().into(),
    };
    let listener = TcpListener::bind(args.listen).await;
    let listener = listener.map_err(|error| CliError::Other(format!("{}: {error}", args.listen)))?;
    let at = listener
        .local_addr()
        .map_err(|error| CliError::Other(error.to_string()))?;
    let key = pin.own.public().to_string();
    output.facts(
        &[
            ("listen", at.to_string()),
            ("to", args.to.clone()),
            ("own key", key.clone()),
        ],
        &json!({ "listen": at.to_string(), "to": args.to, "own_key": key }),
    );
    tokio::select! {
        () = serve(listener, to.to_owned(), pin) => {}
        () = shutdown_signal() => {}
    }
    Ok(())
}

/// Passes on what comes to `listener`, for ever.
pub async fn serve(listener: TcpListener, to: String, pin: Pin) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    // The semaphore is never closed.
    while let Ok(place) = places.clone().acquire_owned().await {
        let Ok((local, _)) = listener.accept().await else {
            tokio::time::sleep(BACKOFF).await;
            continue;
        };
        let (to, pin) = (to.clone(), pin.clone());
        tokio::spawn(async move {
            let _place = place;
            if let Err(error) = pass(local, &to, &pin).await {
                complain(&format!("a connection to {to} ended early: {error}"));
            }
        });
    }
}

async fn pass(mut local: TcpStream, to: &str, pin: &Pin) -> Result<(), ChannelError> {
    let remote = tokio::time::timeout(HANDSHAKE, TcpStream::connect(to))
        .await
        .map_err(|_| ChannelError::TimedOut)?
        .map_err(ChannelError::Io)?;
    for stream in [&local, &remote] {
        // Small messages should not wait for the acknowledgement of earlier ones; without it all still works.
        let _ = stream.set_nodelay(true);
    }
    let mut channel = initiate(remote, &pin.own, &pin.service_key, &pin.service, HANDSHAKE).await?;
    copy_bidirectional(&mut local, &mut channel)
        .await
        .map(|_| ())
        .map_err(ChannelError::Io)
}

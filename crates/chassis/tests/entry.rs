//! A service from its flags to its end by a signal. Alone in its process: the signal goes to all of it.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

use std::{ffi::OsString, process::ExitCode, sync::mpsc, time::Duration};

use asterism_chassis::{
    config::{Common, Settings},
    entry::run_with,
    server::{Running, Server, ServerError},
};
use rustix::process::{Resource, Signal, getpid, getrlimit, kill_process};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

#[derive(Serialize, Deserialize)]
struct Config {
    common: Common,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            common: Common::for_service("audit"),
        }
    }
}

impl Settings for Config {
    fn common(&self) -> &Common {
        &self.common
    }
}

async fn start(config: Config, listener: TcpListener) -> Result<Running, ServerError> {
    Server::builder("audit", &config.common).spawn(listener)
}

#[test]
fn it_serves_until_it_is_told_to_stop() {
    let dir = tempfile::tempdir().unwrap();
    let ready = dir.path().join("ready");
    let args: Vec<OsString> = vec![
        "audit".into(),
        "--listen=127.0.0.1:0".into(),
        "--ready-file".into(),
        ready.clone().into(),
        "--set".into(),
        "log.format=json".into(),
    ];
    let (ended, wait) = mpsc::channel();
    std::thread::spawn(move || ended.send(format!("{:?}", run_with("audit", args, Vec::new(), start))));

    let mut address = None;
    while address.is_none() {
        assert!(
            matches!(wait.try_recv(), Err(mpsc::TryRecvError::Empty)),
            "it ended early"
        );
        std::thread::yield_now();
        address = std::fs::read_to_string(&ready).ok();
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let url = format!("http://{}", address.unwrap());
        let channel = tonic::transport::Channel::from_shared(url)
            .unwrap()
            .connect_lazy();
        HealthClient::new(channel)
            .check(HealthCheckRequest::default())
            .await
            .unwrap();
    });
    assert_eq!(getrlimit(Resource::Core).current, Some(0), "no core dumps");

    kill_process(getpid(), Signal::TERM).unwrap();
    let code = wait.recv_timeout(Duration::from_secs(20)).unwrap();
    assert_eq!(code, format!("{:?}", ExitCode::SUCCESS));
}

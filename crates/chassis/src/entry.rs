//! What a service's `main` does: flags, settings, telemetry, port, run, drain.
//!
//! ```no_run
//! # use asterism_chassis::{config::{Common, Settings}, server::{Running, ServerError}};
//! # #[derive(serde::Serialize, serde::Deserialize)] struct Config { common: Common }
//! # impl Default for Config { fn default() -> Self { Self { common: Common::for_service("kms") } } }
//! # impl Settings for Config { fn common(&self) -> &Common { &self.common } }
//! # async fn start(_: Config, _: tokio::net::TcpListener) -> Result<Running, ServerError> { unimplemented!() }
//! pub fn main() -> std::process::ExitCode {
//!     asterism_chassis::entry::run_service("kms", start)
//! }
//! ```
//! Exit codes: 0 after a drain, 1 for a failure while starting or running, 2 for a bad flag or setting (before a
//! port opens).

mod flags;
#[cfg(test)]
mod tests;

use std::{error::Error, ffi::OsString, future::Future, io::Write as _, path::Path, process::ExitCode};

use tokio::{
    net::TcpListener,
    signal::unix::{Signal, SignalKind, signal},
};

use crate::{
    config::{self, ConfigError, Settings},
    server::Running,
    telemetry::{self, TelemetryConfig, TelemetryError},
};

use flags::Flags;

const RUNTIME_FAILURE: u8 = 1;
const BAD_SETTING: u8 = 2;

/// Runs the service `name` (`kms`, `ingest`, …) with the flags and the environment of this process until SIGTERM
/// or SIGINT; a second signal ends it at once.
pub fn run_service<C, F, Fut, E>(name: &'static str, start: F) -> ExitCode
where
    C: Settings,
    F: FnOnce(C, TcpListener) -> Fut,
    Fut: Future<Output = Result<Running, E>>,
    E: Error + 'static,
{
    telemetry::log_panics();
    run_with(name, std::env::args_os(), environment(), start)
}

/// As [`run_service`], with the arguments (the program's name first) and the environment given, and with panics
/// left to the hook that is there.
pub fn run_with<C, F, Fut, E>(
    name: &'static str,
    args: impl IntoIterator<Item = OsString>,
    env: Vec<(String, String)>,
    start: F,
) -> ExitCode
where
    C: Settings,
    F: FnOnce(C, TcpListener) -> Fut,
    Fut: Future<Output = Result<Running, E>>,
    E: Error + 'static,
{
    let flags = match Flags::parse(name, args, &env) {
        Ok(flags) => flags,
        Err(usage) => {
            // Help and version come this way too, with exit code 0.
            let _ = usage.print();
            return ExitCode::from(u8::try_from(usage.exit_code()).unwrap_or(BAD_SETTING));
        }
    };
    let config: C = match settings(name, &flags, env) {
        Ok(config) => config,
        Err(error) => return complain(BAD_SETTING, &error),
    };
    if flags.print_config {
        return print_config(&config);
    }
    forbid_core_dumps();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return complain(RUNTIME_FAILURE, &error),
    };
    match runtime.block_on(serve(name, config, flags.ready_file.as_deref(), start)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Telemetry(error)) => complain(BAD_SETTING, &error),
        Err(Failure::Run(error)) => complain(RUNTIME_FAILURE, error.as_ref()),
    }
}

/// Loads and checks settings as a service does, from `file`, `env` and `flags`.
///
/// # Errors
/// [`ConfigError`] of [`config::load`] or of [`Settings::check`].
pub fn checked<C: Settings>(
    name: &str,
    file: Option<&Path>,
    env: Vec<(String, String)>,
    flags: &[(String, String)],
) -> Result<C, ConfigError> {
    let config: C = config::load(name, file, env.into_iter(), flags)?;
    config.common().check()?;
    config.check()?;
    Ok(config)
}

/// The environment as text; variables that are not UTF-8 are none of ours.
pub fn environment() -> Vec<(String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

/// Keeps key material out of core files, also where the kernel pipes them to a program (which ignores the limit),
/// and away from debuggers of the same user.
pub fn forbid_core_dumps() {
    use rustix::process::{Resource, Rlimit, setrlimit};
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    let limited = setrlimit(Resource::Core, none).is_ok();
    #[cfg(target_os = "linux")]
    let limited = limited
        && rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable).is_ok();
    if !limited {
        tracing::warn!("core dumps could not be switched off");
    }
}

/// SIGTERM and SIGINT as something to wait for.
pub struct Termination {
    terminate: Signal,
    interrupt: Signal,
}

impl Termination {
    /// Takes the signals over, inside a tokio runtime. Do it before work begins: a signal that comes while a service
    /// still starts is then kept for [`requested`](Self::requested) instead of killing the process halfway.
    ///
    /// # Errors
    /// When the handlers cannot be installed.
    pub fn install() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Resolves at the first of the two signals. From then on a second one ends the process.
    pub async fn requested(mut self) {
        self.next().await;
        tokio::spawn(async move {
            self.next().await;
            std::process::exit(i32::from(RUNTIME_FAILURE));
        });
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Resolves at SIGTERM or SIGINT: [`Termination`] for callers who have started already. Where the handlers cannot be
/// installed the signals keep their default effect, which ends the process.
pub async fn shutdown_signal() {
    match Termination::install() {
        Ok(termination) => termination.requested().await,
        Err(error) => {
            tracing::warn!(%error, "signals end the process without a drain");
            std::future::pending::<()>().await;
        }
    }
}

enum Failure {
    Telemetry(TelemetryError),
    Run(Box<dyn Error>),
}

fn settings<C: Settings>(name: &str, flags: &Flags, env: Vec<(String, String)>) -> Result<C, ConfigError> {
    checked(name, flags.config.as_deref(), env, &flags.settings)
}

async fn serve<C, F, Fut, E>(
    name: &'static str,
    config: C,
    ready_file: Option<&Path>,
    start: F,
) -> Result<(), Failure>
where
    C: Settings,
    F: FnOnce(C, TcpListener) -> Fut,
    Fut: Future<Output = Result<Running, E>>,
    E: Error + 'static,
{
    let telemetry =
        telemetry::init(name, &TelemetryConfig::from(config.common())).map_err(Failure::Telemetry)?;
    let ended = until_terminated(config, ready_file, start)
        .await
        .map_err(Failure::Run);
    telemetry.shutdown().await;
    ended
}

async fn until_terminated<C, F, Fut, E>(
    config: C,
    ready_file: Option<&Path>,
    start: F,
) -> Result<(), Box<dyn Error>>
where
    C: Settings,
    F: FnOnce(C, TcpListener) -> Fut,
    Fut: Future<Output = Result<Running, E>>,
    E: Error + 'static,
{
    let termination = Termination::install()?;
    let listen = config.common().listen;
    let listener = TcpListener::bind(listen)
        .await
        .map_err(|error| format!("cannot listen on {listen}: {error}"))?;
    let mut running = start(config, listener).await?;
    if let Some(path) = ready_file {
        announce(path, &running.addr.to_string())
            .map_err(|error| format!("cannot write --ready-file: {error}"))?;
    }
    tokio::select! {
        () = termination.requested() => {}
        ended = running.wait() => return Ok(ended?),
    }
    running.shutdown().await;
    Ok(())
}

/// Writes the address whole or not at all: whoever waits for the file may read it the moment it is there.
fn announce(path: &Path, address: &str) -> std::io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    std::fs::write(&beside, address)?;
    std::fs::rename(&beside, path)
}

fn print_config<C: Settings>(config: &C) -> ExitCode {
    let table = toml::Table::try_from(config).map(|mut table| {
        // As users write it: the common settings at the top level.
        if let Some(toml::Value::Table(common)) = table.remove("common") {
            table.extend(common);
        }
        table.to_string()
    });
    let printed = match table {
        Ok(text) => std::io::stdout().write_all(text.as_bytes()),
        Err(error) => return complain(RUNTIME_FAILURE, &error),
    };
    if printed.is_ok() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(RUNTIME_FAILURE)
    }
}

/// One line with every cause: there may be no log yet.
fn complain(code: u8, error: &dyn Error) -> ExitCode {
    let mut line = format!("error: {error}");
    let mut cause = error.source();
    while let Some(error) = cause {
        line.push_str(&format!(": {error}"));
        cause = error.source();
    }
    let _ = writeln!(std::io::stderr(), "{line}");
    ExitCode::from(code)
}

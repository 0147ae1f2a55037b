//! The flags that every service takes.

use std::{ffi::OsString, path::PathBuf};

use clap::{Arg, ArgAction, Command, value_parser};

/// Flags that stand for one setting each.
const SHORTHANDS: [(&str, &str, &str, &str); 7] = [
    (
        "listen",
        "listen",
        "ADDR",
        "Address to listen on, e.g. 127.0.0.1:7001",
    ),
    ("data-dir", "data_dir", "DIR", "Where the service keeps its state"),
    (
        "credentials-dir",
        "credentials_dir",
        "DIR",
        "Where the authority key lies",
    ),
    (
        "kms-addr",
        "kms_addr",
        "URL",
        "Address of kms, e.g. http://127.0.0.1:7001",
    ),
    ("audit-addr", "audit_addr", "URL", "Address of audit"),
    ("ingest-addr", "ingest_addr", "URL", "Address of ingest"),
    (
        "otlp-endpoint",
        "otlp_endpoint",
        "URL",
        "OTLP/gRPC receiver of traces and metrics",
    ),
];

/// The flags as given.
pub(super) struct Flags {
    pub(super) config: Option<PathBuf>,
    /// Dotted names and texts; later ones win.
    pub(super) settings: Vec<(String, String)>,
    pub(super) print_config: bool,
    pub(super) ready_file: Option<PathBuf>,
}

impl Flags {
    /// Reads `args`; the file may come from the variable `ASTERISM_<SERVICE>_CONFIG` of `env` instead.
    pub(super) fn parse(
        service: &str,
        args: impl IntoIterator<Item = OsString>,
        env: &[(String, String)],
    ) -> Result<Self, clap::Error> {
        let matches = command(service).try_get_matches_from(args)?;
        let mut settings: Vec<(String, String)> =
            matches.get_many("set").into_iter().flatten().cloned().collect();
        for (flag, key, _, _) in SHORTHANDS {
            if let Some(text) = matches.get_one::<String>(flag) {
                settings.push((key.to_owned(), text.clone()));
            }
        }
        let variable = config_variable(service);
        let from_env = || {
            env.iter()
                .find(|(name, _)| *name == variable)
                .map(|(_, path)| PathBuf::from(path))
        };
        Ok(Self {
            config: matches.get_one("config").cloned().or_else(from_env),
            settings,
            print_config: matches.get_flag("print-config"),
            ready_file: matches.get_one("ready-file").cloned(),
        })
    }
}

fn config_variable(service: &str) -> String {
    format!("ASTERISM_{}_CONFIG", service.to_uppercase())
}

fn command(service: &str) -> Command {
    let shorthands =
        SHORTHANDS.map(|(flag, _, value, help)| Arg::new(flag).long(flag).value_name(value).help(help));
    let name = format!("asterism-{service}");
    Command::new("asterism-service")
        .bin_name(name.clone())
        .display_name(name)
        .version(env!("CARGO_PKG_VERSION"))
        .about(format!("The {service} service of Asterism"))
        .after_help(format!(
            "Settings come from defaults, the file, ASTERISM_{}_<KEY> (double underscore nests), then flags.",
            service.to_uppercase()
        ))
        .arg(
            Arg::new("config")
                .long("config")
                .value_name("FILE")
                .value_parser(value_parser!(PathBuf))
                .help(format!(
                    "TOML file with settings [env: {}]",
                    config_variable(service)
                )),
        )
        .arg(
            Arg::new("set")
                .long("set")
                .value_name("KEY=VALUE")
                .action(ArgAction::Append)
                .value_parser(assignment)
                .help("Any setting by its dotted name, e.g. limits.queue=64"),
        )
        .args(shorthands)
        .arg(
            Arg::new("ready-file")
                .long("ready-file")
                .value_name("FILE")
                .value_parser(value_parser!(PathBuf))
                .help("Write the bound address to this file once calls are served"),
        )
        .arg(
            Arg::new("print-config")
                .long("print-config")
                .action(ArgAction::SetTrue)
                .help("Print the settings in effect as TOML and exit"),
        )
}

fn assignment(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("must be KEY=VALUE".to_owned()),
    }
}

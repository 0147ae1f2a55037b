//! How commands reach running services.

use std::path::PathBuf;

use asterism_client::{
    Audit, Connection, Credentials, EncryptedInference, Firewall, Identity, Inference, Ingest, Kms, Policy,
};

use crate::{args::Global, error::CliError, session};

/// Where `asterism up` keeps everything unless told otherwise.
pub const DEFAULT_DATA: &str = "asterism-data";
/// Where services listen unless told otherwise: kms here, ingest, inference and audit on the next three ports.
pub const DEFAULT_ADDR: &str = "127.0.0.1:7001";
/// The administrator's token within the data directory.
pub const ADMIN_TOKEN: &str = "admin.token";

/// Clients of all four services.
#[derive(Clone)]
pub struct Services {
    /// Key management.
    pub kms: Kms,
    /// Grants and approvals.
    pub policy: Policy,
    /// Datasets.
    pub ingest: Ingest,
    /// Models.
    pub inference: Inference,
    /// Predictions on encrypted rows.
    pub encrypted: EncryptedInference,
    /// The log.
    pub audit: Audit,
}

/// Endpoints of all four services.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoints {
    /// http://host:port of kms.
    pub kms: String,
    /// http://host:port of ingest.
    pub ingest: String,
    /// http://host:port of inference.
    pub inference: String,
    /// http://host:port of audit.
    pub audit: String,
}

impl Endpoints {
    /// Four services on consecutive ports, the first given as `host:port` (or `http://host:port`).
    ///
    /// # Errors
    /// [`CliError::Usage`] when that is not a host and a port.
    pub fn consecutive(addr: &str) -> Result<Self, CliError> {
        let bare = addr.strip_prefix("http://").unwrap_or(addr).trim_end_matches('/');
        let (host, port) = bare
            .rsplit_once(':')
            .and_then(|(host, port)| Some((host, port.parse::<u16>().ok()?)))
            .filter(|(host, port)| !host.is_empty() && *port > 0 && *port <= u16::MAX - 3)
            .ok_or_else(|| {
                CliError::Usage(format!("`{addr}` is not HOST:PORT, for example {DEFAULT_ADDR}"))
            })?;
        let at = |offset: u16| format!("http://{host}:{}", port + offset);
        Ok(Self {
            kms: at(0),
            ingest: at(1),
            inference: at(2),
            audit: at(3),
        })
    }

    /// Clients of the four, all with the same credentials.
    pub fn connect(&self, credentials: &Credentials, trace_id: Option<&str>) -> Result<Services, CliError> {
        let to = |endpoint: &str| -> Result<Connection, CliError> {
            let connection = Connection::lazy(endpoint, credentials.clone())?;
            Ok(match trace_id {
                Some(trace_id) => connection.in_trace(trace_id),
                None => connection,
            })
        };
        let kms = Kms::new(to(&self.kms)?);
        Ok(Services {
            encrypted: EncryptedInference::new(to(&self.inference)?, kms.clone()),
            kms,
            policy: Policy::new(to(&self.kms)?),
            ingest: Ingest::new(to(&self.ingest)?),
            inference: Inference::new(to(&self.inference)?),
            audit: Audit::new(to(&self.audit)?),
        })
    }
}

/// Clients as the command line says.
pub fn services(global: &Global) -> Result<Services, CliError> {
    endpoints(global)?.connect(&credentials(global), None)
}

/// The directory of principals, as the command line says.
pub fn identity(global: &Global) -> Result<Identity, CliError> {
    let kms = endpoints(global)?.kms;
    Ok(Identity::new(Connection::lazy(&kms, credentials(global))?))
}

/// Where the command line says that the services are.
pub fn endpoints(global: &Global) -> Result<Endpoints, CliError> {
    Endpoints::consecutive(global.addr.as_deref().unwrap_or(DEFAULT_ADDR))
}

/// A token file that was named, else the session with these services, else the administrator's token of the data directory.
fn credentials(global: &Global) -> Credentials {
    match session::of(global) {
        Some((path, _)) => session::credentials(path),
        None => Credentials::file(token_file(global)),
    }
}

/// Clients of the firewalls of all four services, as the command line says.
pub fn firewalls(global: &Global) -> Result<Vec<(&'static str, Firewall)>, CliError> {
    let endpoints = Endpoints::consecutive(global.addr.as_deref().unwrap_or(DEFAULT_ADDR))?;
    let credentials = Credentials::file(token_file(global));
    let client = |service, endpoint: &str| {
        let connection = Connection::lazy(endpoint, credentials.clone())?;
        Ok::<_, CliError>((service, Firewall::new(connection)))
    };
    Ok(vec![
        client("kms", &endpoints.kms)?,
        client("ingest", &endpoints.ingest)?,
        client("inference", &endpoints.inference)?,
        client("audit", &endpoints.audit)?,
    ])
}

/// The data directory as the command line says.
pub fn data_dir(global: &Global) -> PathBuf {
    global.data.clone().unwrap_or_else(|| DEFAULT_DATA.into())
}

/// Whether the file is there from which [`services`] would read the token.
pub fn has_token(global: &Global) -> bool {
    session::of(global).is_some() || token_file(global).is_file()
}

fn token_file(global: &Global) -> PathBuf {
    global
        .token_file
        .clone()
        .unwrap_or_else(|| data_dir(global).join(ADMIN_TOKEN))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_follow_the_first() {
        let endpoints = Endpoints::consecutive("http://127.0.0.1:9000/").expect("an address");
        assert_eq!(endpoints.kms, "http://127.0.0.1:9000");
        assert_eq!(endpoints.audit, "http://127.0.0.1:9003");
        for bad in ["", "localhost", ":1", "h:0", "h:65533", "h:x"] {
            assert!(Endpoints::consecutive(bad).is_err(), "{bad}");
        }
    }
}

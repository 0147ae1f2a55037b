//! How kms bears many keys: the start, the memory, and a read of one among them, beside the same with few.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use asterism_chassis::identity::Role;
use asterism_kms::keys::{KeyType, Keyring, NewKey, RequestId};
use serde_json::json;

use super::{median_us, round, temporary};
use crate::{
    commands::up::ADMIN,
    constellation::{Constellation, Options},
    error::CliError,
    output::Output,
};

/// With how many keys the many are compared.
const FEW: u64 = 1000;
/// Threads that make keys: they share the store's commits.
const MAKERS: u64 = 64;
const READS: u64 = 2000;

/// Runs the bench.
pub(super) async fn run(keys: u64, output: Output) -> Result<(), CliError> {
    let few = measure(FEW.min(keys), output).await?;
    let many = measure(keys, output).await?;
    let ratio = many.get_us / few.get_us;
    let facts = [
        ("keys", format!("{keys}, made at {:.0} /s", many.made_per_s)),
        (
            "start of kms",
            format!("{:.0} ms, and {:.0} ms with {FEW}", many.start_ms, few.start_ms),
        ),
        (
            "memory after the start and the reads",
            format!("{:.0} MiB resident", many.rss_mib),
        ),
        (
            "GetKey",
            format!("{:.0} us at p50, {ratio:.2}x of that with {FEW}", many.get_us),
        ),
    ];
    let value = json!({
        "keys": keys, "start_ms": round(many.start_ms), "start_ms_few": round(few.start_ms), "rss_mib": round(many.rss_mib),
        "get_us_p50": round(many.get_us), "get_us_p50_few": round(few.get_us),
        "get_ratio": round(ratio), "made_per_s": round(many.made_per_s),
    });
    output.facts(&facts, &value);
    Ok(())
}

struct Measured {
    made_per_s: f64,
    start_ms: f64,
    rss_mib: f64,
    get_us: f64,
}

async fn measure(keys: u64, output: Output) -> Result<Measured, CliError> {
    let dir = temporary()?;
    // A start makes the store as a start makes it.
    Constellation::start(dir.path(), &Options::default())
        .await?
        .shutdown()
        .await;
    let begun = Instant::now();
    make_elsewhere(dir.path(), keys, output).await?;
    let made_per_s = keys as f64 / begun.elapsed().as_secs_f64();
    let begun = Instant::now();
    let constellation = Constellation::start(dir.path(), &Options::default()).await?;
    let start_ms = begun.elapsed().as_secs_f64() * 1e3;
    let services = constellation.connect(ADMIN, &[Role::Admin], None)?;
    let mut times = Vec::new();
    for read in 0..READS {
        // A step that is prime to any count of keys spreads the reads over all of them.
        let key = read * 7_919_999 % keys;
        let begun = Instant::now();
        services.kms.key(&name(key)).await?;
        times.push(begun.elapsed());
    }
    let rss_mib = resident_mib()?;
    constellation.shutdown().await;
    Ok(Measured {
        made_per_s,
        start_ms,
        rss_mib,
        get_us: median_us(&mut times),
    })
}

fn name(key: u64) -> String {
    format!("bench-{key:08}")
}

/// Has another process make the keys: what that takes of memory is not what serving them takes.
async fn make_elsewhere(data: &Path, keys: u64, output: Output) -> Result<(), CliError> {
    let this = std::env::current_exe().map_err(|error| CliError::file("/proc/self/exe".as_ref(), error))?;
    let mut making = std::process::Command::new(&this);
    making.args(["bench", "make-keys", &keys.to_string()]).arg(data);
    if output.is_json() {
        making.arg("--json");
    }
    let ended = tokio::task::spawn_blocking(move || making.status()).await;
    let ended = ended.map_err(|error| CliError::Other(error.to_string()))?;
    if ended.map_err(|error| CliError::file(&this, error))?.success() {
        return Ok(());
    }
    Err(CliError::Other(
        "the process that makes keys failed; its message is above".into(),
    ))
}

/// Makes keys in a store that no service has open, as CreateKey does but for the event.
pub(super) async fn make(data: &Path, keys: u64, output: Output) -> Result<(), CliError> {
    let bar = output.progress(keys, "keys", false);
    let data = data.join("kms");
    let made = tokio::task::spawn_blocking(move || {
        let keyring =
            asterism_kms::open_keyring(&data).map_err(|error| CliError::Other(error.to_string()))?;
        let next = Arc::new(AtomicU64::new(0));
        std::thread::scope(|scope| {
            let makers: Vec<_> = (0..MAKERS)
                .map(|_| scope.spawn(|| make_some(&keyring, &next, keys, &bar)))
                .collect();
            makers.into_iter().try_for_each(|maker| {
                maker
                    .join()
                    .unwrap_or_else(|_| Err(CliError::Other("a thread that makes keys was lost".into())))
            })
        })?;
        bar.finish_and_clear();
        Ok(())
    });
    made.await
        .unwrap_or_else(|error| Err(CliError::Other(error.to_string())))
}

fn make_some(
    keyring: &Keyring,
    next: &AtomicU64,
    keys: u64,
    bar: &indicatif::ProgressBar,
) -> Result<(), CliError> {
    loop {
        let key = next.fetch_add(1, Ordering::Relaxed);
        if key >= keys {
            return Ok(());
        }
        let new = NewKey {
            id: Some(name(key).parse().map_err(other)?),
            key_type: KeyType::Aes256Gcm,
            labels: BTreeMap::new(),
            active_from_ms: None,
            exportable: false,
            required_approvals: 0,
        };
        let request = RequestId {
            principal: ADMIN,
            id: "",
            etag: "",
        };
        keyring.create(new, &request, 1).map_err(other)?;
        bar.inc(1);
    }
}

fn other(error: asterism_kms::KmsError) -> CliError {
    CliError::Other(error.to_string())
}

/// Memory of this process now, from the kernel's accounts.
fn resident_mib() -> Result<f64, CliError> {
    super::from_status("VmRSS:")
}

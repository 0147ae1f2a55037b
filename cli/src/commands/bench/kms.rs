//! Calls a second of kms: over the encrypted channel, audited, beside empty calls in the same run.

use std::{
    hint::black_box,
    sync::Arc,
    time::{Duration, Instant},
};

use asterism_chassis::identity::Role;
use asterism_client::{
    ClientError, Connection, Kms,
    channel::{Connector, Pin, StaticKey},
    proto::kms::KeyType,
};
use asterism_crypto::{Digest, KeyRef, SecretKey, SigningKey, crc32c, envelope};
use serde_json::json;
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

use super::{fresh, median_us, round};
use crate::{
    commands::up::ADMIN,
    constellation::{ChannelEndpoint, Constellation},
    error::CliError,
    output::Output,
};

const KEY: &str = "bench";
const SIGNER: &str = "bench-signer";
const AAD: &[u8] = b"bench";
/// Callers share so many connections.
const CONNECTIONS: usize = 4;
/// Each kind of call is measured so many times, in turns, so that all see the same machine; the median counts.
const ROUNDS: u32 = 3;
/// Items of a batch, and bytes of one.
const BATCH: usize = 100;
const BATCH_ITEM_BYTES: usize = 64;
/// Batches that are under way at once.
const BATCH_CALLERS: usize = 8;

/// Until the first of the calls whose latency is measured.
const LINING_UP: Duration = Duration::from_millis(300);

/// An empty unary call to kms: its health check, which no policy, store or audit stands before.
type Health = HealthClient<tonic::transport::Channel>;

/// Runs the bench.
pub(super) async fn run(callers: u16, seconds: u64, output: Output) -> Result<(), CliError> {
    let (constellation, services, _dir) = fresh().await?;
    services
        .kms
        .create_key(KEY, KeyType::Aes256Gcm, [], "bench-1")
        .await?;
    let signer = KeyType::EcSignP256Sha256;
    services.kms.create_key(SIGNER, signer, [], "bench-2").await?;
    let callers = usize::from(callers);
    let clients = Clients::new(&constellation)?;
    let plaintext = [7; 1024];
    let (ciphertext, _) = clients.of(0).encrypt(KEY, &plaintext, AAD).await?;
    let item = [7; BATCH_ITEM_BYTES];
    let items = [(item.as_slice(), AAD); BATCH];
    let digest = Digest::of(b"bench");

    let latencies = one_by_one(&clients, &plaintext).await?;
    let round_time = Duration::from_secs(seconds) / ROUNDS;
    let bar = output.progress(u64::from(ROUNDS) * 6, "rounds", false);
    let mut rates: [Vec<Rate>; 6] = Default::default();
    for _ in 0..ROUNDS {
        let measured = [
            rate(callers, round_time, async |caller| clients.empty(caller).await).await?,
            rate(callers, round_time, async |caller| {
                clients.of(caller).encrypt(KEY, &plaintext, AAD).await.map(drop)
            })
            .await?,
            rate(callers, round_time, async |caller| {
                clients.of(caller).decrypt(KEY, &ciphertext, AAD).await.map(drop)
            })
            .await?,
            rate(callers, round_time, async |caller| {
                clients.of(caller).generate_data_key(KEY, AAD).await.map(drop)
            })
            .await?,
            rate(callers, round_time, async |caller| {
                clients.of(caller).sign_digest(SIGNER, &digest).await.map(drop)
            })
            .await?,
            rate(BATCH_CALLERS, round_time, async |caller| {
                clients.of(caller).encrypt_batch(KEY, &items).await.map(drop)
            })
            .await?
            .times(BATCH as f64),
        ];
        for (all, rate) in rates.iter_mut().zip(measured) {
            all.push(rate);
            bar.inc(1);
        }
    }
    let [empty, encrypt, decrypt, data_keys, sign, batch_items] = rates.map(median);
    let cpu_us = [empty, encrypt, decrypt, data_keys, sign, batch_items].map(|rate| rate.cpu_us);
    let [empty, encrypt, decrypt, data_keys, sign, batch_items] =
        [empty, encrypt, decrypt, data_keys, sign, batch_items].map(|rate| rate.per_s);
    let p99_ms = p99_at(&clients, encrypt / 2.0, Duration::from_secs(seconds), &plaintext).await?;
    bar.finish_and_clear();
    constellation.shutdown().await;

    let primitives = Primitives::measure(&plaintext)?;
    let ratio = empty / encrypt;
    let per_s = |rate: f64| format!("{rate:.0} /s");
    let facts = [
        ("empty call", per_s(empty)),
        (
            "encrypt 1 KiB",
            format!("{encrypt:.0} /s, 1 for every {ratio:.2} empty calls"),
        ),
        ("decrypt 1 KiB", per_s(decrypt)),
        ("data keys", per_s(data_keys)),
        ("sign", per_s(sign)),
        (
            "encrypt in batches",
            format!("{batch_items:.0} items/s: {BATCH} of {BATCH_ITEM_BYTES} bytes a call"),
        ),
        ("p99 at half load", format!("{p99_ms:.2} ms, encrypt")),
        (
            "one caller",
            format!(
                "encrypt {:.0} us, empty {:.0} us at p50",
                latencies.encrypt_us, latencies.empty_us
            ),
        ),
        (
            "of the processors",
            format!(
                "encrypt {:.0} us, empty {:.0} us; client, kms and audit together",
                cpu_us[1], cpu_us[0]
            ),
        ),
        (
            "primitives alone",
            format!(
                "encrypt {:.1} us, sign {:.1} us of one core",
                primitives.encrypt_us, primitives.sign_us
            ),
        ),
    ];
    let value = json!({
        "empty_per_s": round(empty), "encrypt_per_s": round(encrypt), "decrypt_per_s": round(decrypt),
        "data_keys_per_s": round(data_keys), "sign_per_s": round(sign), "batch_items_per_s": round(batch_items),
        "p99_ms": round(p99_ms), "audit": true, "channel": true, "ratio_to_empty": round(ratio), "callers": callers,
        "empty_us_p50": round(latencies.empty_us), "encrypt_us_p50": round(latencies.encrypt_us),
        "ratio_us_p50": round(latencies.encrypt_us / latencies.empty_us),
        "empty_cpu_us": round(cpu_us[0]), "encrypt_cpu_us": round(cpu_us[1]), "decrypt_cpu_us": round(cpu_us[2]),
        "data_keys_cpu_us": round(cpu_us[3]), "sign_cpu_us": round(cpu_us[4]), "batch_item_cpu_us": round(cpu_us[5]),
        "encrypt_primitives_us": round(primitives.encrypt_us), "sign_primitives_us": round(primitives.sign_us),
    });
    output.facts(&facts, &value);
    Ok(())
}

/// Clients over the channel, a few connections in turn.
struct Clients {
    kms: Vec<Kms>,
    health: Vec<Health>,
}

impl Clients {
    fn new(constellation: &Constellation) -> Result<Self, CliError> {
        let kms = constellation
            .channels()
            .iter()
            .find(|channel| channel.service == "kms")
            .ok_or_else(|| CliError::Other("kms has no channel".into()))?;
        let own = StaticKey::generate().map_err(|error| CliError::Other(error.to_string()))?;
        let pin = Pin {
            own: Arc::new(own),
            service_key: kms.key,
            service: "kms".into(),
        };
        let credentials = constellation.credentials(ADMIN, &[Role::Admin])?;
        let connect = |_| -> Result<Kms, CliError> {
            let connection = Connection::pinned(&kms.address, Some(pin.clone()), credentials.clone())?;
            Ok(Kms::new(connection))
        };
        Ok(Self {
            kms: (0..CONNECTIONS).map(connect).collect::<Result<_, _>>()?,
            health: (0..CONNECTIONS)
                .map(|_| health(kms, &pin))
                .collect::<Result<_, _>>()?,
        })
    }

    fn of(&self, caller: usize) -> &Kms {
        &self.kms[caller % CONNECTIONS]
    }

    async fn empty(&self, caller: usize) -> Result<(), CliError> {
        let request = HealthCheckRequest {
            service: String::new(),
        };
        let mut client = self.health[caller % CONNECTIONS].clone();
        let answer = client.check(request).await;
        answer
            .map(drop)
            .map_err(|status| CliError::Other(status.message().to_owned()))
    }
}

fn health(kms: &ChannelEndpoint, pin: &Pin) -> Result<Health, CliError> {
    let at = kms.address.trim_start_matches("noise://");
    let channel = tonic::transport::Endpoint::from_shared(format!("http://{at}"))
        .map_err(|error| CliError::Other(error.to_string()))?
        .connect_with_connector_lazy(Connector::new(pin.clone()));
    Ok(HealthClient::new(channel))
}

/// How fast calls go, and what one takes of the processors: of the client, kms, and audit, which runs behind it.
#[derive(Clone, Copy)]
struct Rate {
    per_s: f64,
    cpu_us: f64,
}

impl Rate {
    /// Of the parts of a call.
    fn times(self, parts: f64) -> Self {
        Self {
            per_s: self.per_s * parts,
            cpu_us: self.cpu_us / parts,
        }
    }
}

/// Of so many callers, each with one call under way.
async fn rate<E>(
    callers: usize,
    time: Duration,
    call: impl AsyncFn(usize) -> Result<(), E>,
) -> Result<Rate, CliError>
where
    CliError: From<E>,
{
    let cpu_before = super::cpu_us()?;
    let begun = Instant::now();
    let workers = (0..callers).map(async |caller| {
        let mut done = 0_u64;
        while begun.elapsed() < time {
            call(caller).await?;
            done += 1;
        }
        Ok::<_, E>(done)
    });
    let done: u64 = futures::future::try_join_all(workers).await?.into_iter().sum();
    Ok(Rate {
        per_s: done as f64 / begun.elapsed().as_secs_f64(),
        cpu_us: (super::cpu_us()? - cpu_before) / done.max(1) as f64,
    })
}

/// The 99th percentile of Encrypt, calls beginning at a steady rate whether or not those before have ended: a stall counts for all that
/// begin in it.
async fn p99_at(clients: &Clients, per_s: f64, time: Duration, plaintext: &[u8]) -> Result<f64, CliError> {
    let calls = (per_s * time.as_secs_f64()).max(100.0) as usize;
    // Once all calls are lined up, which takes some 30 ms: the first would be late before they began.
    let begun = Instant::now() + LINING_UP;
    let measured = (0..calls).map(async |call| {
        let due = begun + Duration::from_secs_f64(call as f64 / per_s);
        tokio::time::sleep_until(due.into()).await;
        clients.of(call).encrypt(KEY, plaintext, AAD).await?;
        Ok::<_, ClientError>(due.elapsed())
    });
    let mut times = futures::future::try_join_all(measured).await?;
    times.sort_unstable();
    Ok(times[(times.len() - 1) * 99 / 100].as_secs_f64() * 1e3)
}

struct Latencies {
    empty_us: f64,
    encrypt_us: f64,
}

/// One caller, empty calls and Encrypt in turn.
async fn one_by_one(clients: &Clients, plaintext: &[u8]) -> Result<Latencies, CliError> {
    const WARM_UP: usize = 200;
    const CALLS: usize = 1000;
    let (mut empty, mut encrypt) = (Vec::with_capacity(CALLS), Vec::with_capacity(CALLS));
    for call in 0..WARM_UP + CALLS {
        let begun = Instant::now();
        clients.empty(0).await?;
        let middle = Instant::now();
        clients.of(0).encrypt(KEY, plaintext, AAD).await?;
        if call >= WARM_UP {
            empty.push(middle - begun);
            encrypt.push(middle.elapsed());
        }
    }
    Ok(Latencies {
        empty_us: median_us(&mut empty),
        encrypt_us: median_us(&mut encrypt),
    })
}

/// What the cryptography of a call costs without the call.
struct Primitives {
    encrypt_us: f64,
    sign_us: f64,
}

impl Primitives {
    fn measure(plaintext: &[u8]) -> Result<Self, CliError> {
        let failed = |error: asterism_crypto::CryptoError| CliError::Other(error.to_string());
        let (key, signer) = (
            SecretKey::generate().map_err(failed)?,
            SigningKey::generate().map_err(failed)?,
        );
        let name = KeyRef {
            key: KEY.to_owned(),
            version: 1,
        };
        let digest = Digest::of(plaintext);
        // The envelope, checksums of what goes in and comes out, and the digest for the event.
        let encrypt_us = average_us(2000, || {
            let sealed = envelope::seal(&key, &name, plaintext, AAD).map_err(failed)?;
            black_box((crc32c(plaintext), crc32c(&sealed), Digest::of(&sealed)));
            Ok(())
        })?;
        let sign_us = average_us(500, || {
            black_box(signer.sign_digest(&digest));
            Ok(())
        })?;
        Ok(Self { encrypt_us, sign_us })
    }
}

fn average_us(times: u32, mut work: impl FnMut() -> Result<(), CliError>) -> Result<f64, CliError> {
    let begun = Instant::now();
    for _ in 0..times {
        work()?;
    }
    Ok(begun.elapsed().as_secs_f64() * 1e6 / f64::from(times))
}

fn median(mut rates: Vec<Rate>) -> Rate {
    rates.sort_unstable_by(|one, other| one.per_s.total_cmp(&other.per_s));
    rates[rates.len() / 2]
}

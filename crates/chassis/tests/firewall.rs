//! A service behind its firewall, over real connections. Addresses of 127.0.0.0/8 stand for machines: the rules do not exempt
//! the loopback interface here, except 127.0.0.1, from which the administrator calls.

#![allow(clippy::panic, clippy::print_stdout)]

use std::{
    net::{IpAddr, SocketAddr},
    path::Path,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use asterism_channel::{ChannelError, StaticKey, initiate};
use asterism_chassis::{
    Foundation,
    channel::provision,
    config::{ChannelConfig, Common},
    foundation::open_records,
    identity::{Authority, PrincipalId, Role},
    off_runtime,
    outbox::Sink,
    server::Running,
};
use asterism_proto::{
    audit::Event,
    firewall::{
        BanRules, DefaultAction, Entry, GetRulesRequest, GetStatisticsRequest, LiftBanRequest,
        ListBansRequest, RateLimit, Rules, UpdateRulesRequest,
        firewall_service_client::FirewallServiceClient,
    },
};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpSocket, TcpStream},
};
use tonic::{
    Code, Request, Status,
    transport::{Channel, Endpoint},
};
use tonic_types::StatusExt as _;

const HERE: &str = "127.0.0.1";
const THERE: &str = "127.0.0.2";

/// A service that has nothing but its firewall.
struct Service {
    running: Running,
    foundation: Foundation,
    authority: Arc<Authority>,
    events: Arc<Mutex<Vec<Event>>>,
}

async fn start(dir: &Path) -> Service {
    try_start(dir).await.expect("starts")
}

async fn try_start(dir: &Path) -> Result<Service, String> {
    start_with(dir, |_| {}).await
}

async fn start_with(dir: &Path, settings: impl FnOnce(&mut Common)) -> Result<Service, String> {
    let mut common = Common::for_service("kms");
    common.data_dir = dir.join("kms");
    common.credentials_dir = dir.join("credentials");
    settings(&mut common);
    let settings = common.clone();
    let events: Arc<Mutex<Vec<Event>>> = Arc::default();
    let log = events.clone();
    let opened = off_runtime(move || {
        let records = open_records(&settings)?;
        let authority = Arc::new(Authority::load_or_create(&settings.credentials_dir)?);
        let sink = Sink::Local(Arc::new(move |batch| {
            log.lock().expect("not poisoned").extend(batch);
            Ok(())
        }));
        let foundation = Foundation::with("kms", &settings, records, authority.clone(), sink)?;
        Ok((foundation, authority))
    });
    let (foundation, authority) = opened.await.map_err(|error| error.to_string())?;
    let listener = TcpListener::bind((HERE, 0)).await.expect("a port");
    let server = foundation
        .server(&common)
        .handshake_within(Duration::from_millis(300));
    Ok(Service {
        running: server.spawn(listener).expect("serves"),
        foundation,
        authority,
        events,
    })
}

impl Service {
    fn at(&self) -> SocketAddr {
        self.running.addr
    }

    fn token(&self, id: &str, role: Role) -> String {
        let id: PrincipalId = id.parse().expect("principal");
        self.authority
            .mint(&id, &[role], Duration::from_secs(600), SystemTime::now())
    }

    /// A connection of its own from `from`, with a token.
    async fn caller(&self, from: &str, token: String) -> Result<Caller, tonic::transport::Error> {
        Ok(Caller {
            client: FirewallServiceClient::new(connect(from, self.at()).await?),
            token,
        })
    }

    async fn admin(&self, from: &str) -> Caller {
        self.caller(from, self.token("user/root", Role::Admin))
            .await
            .expect("connects")
    }

    /// Everything that was recorded.
    async fn events(&self) -> Vec<Event> {
        assert!(self.foundation.gate.outbox().flush(Duration::from_secs(5)).await);
        self.events.lock().expect("not poisoned").clone()
    }

    async fn stop(self) {
        self.running.shutdown().await;
        drop(self.foundation);
    }
}

struct Caller {
    client: FirewallServiceClient<Channel>,
    token: String,
}

impl Caller {
    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        let header = format!("Bearer {}", self.token).parse().expect("a header");
        request.metadata_mut().insert("authorization", header);
        request
    }

    async fn rules(&mut self) -> Result<(Rules, String), Status> {
        let request = self.request(GetRulesRequest {});
        let answer = self.client.get_rules(request).await?.into_inner();
        Ok((answer.rules.expect("rules"), answer.etag))
    }

    async fn change(&mut self, change: impl FnOnce(&mut Rules)) -> Result<String, Status> {
        let (mut rules, etag) = self.rules().await?;
        change(&mut rules);
        self.update(rules, etag, "", false).await
    }

    async fn update(
        &mut self,
        rules: Rules,
        etag: String,
        request_id: &str,
        force: bool,
    ) -> Result<String, Status> {
        let request = self.request(UpdateRulesRequest {
            rules: Some(rules),
            etag,
            request_id: request_id.to_owned(),
            force,
        });
        Ok(self.client.update_rules(request).await?.into_inner().etag)
    }
}

async fn connect(from: &str, to: SocketAddr) -> Result<Channel, tonic::transport::Error> {
    let from: IpAddr = from.parse().expect("an address");
    let connector =
        tower::service_fn(move |_: http::Uri| async move { dial(from, to).await.map(TokioIo::new) });
    Endpoint::from_static("http://service")
        .connect_with_connector(connector)
        .await
}

async fn dial(from: IpAddr, to: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::new(from, 0))?;
    let stream = socket.connect(to).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

fn reason(status: &Status) -> String {
    status
        .get_details_error_info()
        .map(|info| info.reason)
        .unwrap_or_default()
}

fn entry(subject: &str) -> Entry {
    Entry {
        subject: subject.to_owned(),
        ..Entry::default()
    }
}

/// Quick bans, of everything but the administrator's address.
fn strict(rules: &mut Rules) {
    rules.exempt_loopback = false;
    rules.bans = Some(BanRules {
        failures: 3,
        window_seconds: 60,
        first_seconds: 600,
        longest_seconds: 3600,
        exempt_networks: vec!["127.0.0.1".to_owned()],
    });
}

/// Whether the service drops a connection from `from` without a word.
async fn is_dropped(service: &Service, from: &str) -> bool {
    let from = from.parse().expect("an address");
    let Ok(mut stream) = dial(from, service.at()).await else {
        return true;
    };
    // A server that takes the connection sends its settings once it has the preface.
    if stream
        .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0")
        .await
        .is_err()
    {
        return true;
    }
    let mut byte = [0];
    let read = tokio::time::timeout(Duration::from_secs(5), stream.read(&mut byte))
        .await
        .expect("an answer");
    !matches!(read, Ok(1))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blocked_network_is_dropped_and_its_open_connections_refused_from_the_next_call_on() {
    let dir = tempfile::tempdir().expect("directory");
    let service = start(dir.path()).await;
    let (mut here, mut there) = (service.admin(HERE).await, service.admin(THERE).await);
    there.rules().await.expect("nothing is blocked yet");
    here.change(|rules| {
        rules.exempt_loopback = false;
        rules.block.push(entry("127.0.0.2/31"));
    })
    .await
    .expect("changed");
    let refused = there.rules().await.expect_err("blocked");
    assert_eq!(
        (refused.code(), reason(&refused).as_str()),
        (Code::PermissionDenied, "FIREWALL_BLOCKED")
    );
    assert!(is_dropped(&service, THERE).await);
    assert!(!is_dropped(&service, "127.0.0.4").await);
    let statistics = here
        .client
        .get_statistics(here.request(GetStatisticsRequest {}))
        .await
        .expect("counted");
    let statistics = statistics.into_inner();
    assert_eq!((statistics.calls_blocked, statistics.connections_refused), (1, 1));
    here.change(|rules| rules.block.clear()).await.expect("changed");
    there.rules().await.expect("no longer blocked");
    let events = service.events().await;
    let updates = events
        .iter()
        .filter(|event| event.operation == "firewall.UpdateRules");
    assert_eq!(updates.filter(|event| event.principal == "user/root").count(), 2);
    let blocked = events
        .iter()
        .find(|event| event.operation == "firewall.Blocked")
        .expect("an alarm");
    assert_eq!(blocked.resource, "networks/127.0.0.2");
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blocked_principal_is_refused_wherever_it_calls_from() {
    let dir = tempfile::tempdir().expect("directory");
    let service = start(dir.path()).await;
    let mut root = service.admin(HERE).await;
    let mut mallory = service
        .caller(HERE, service.token("user/mallory", Role::Admin))
        .await
        .expect("connects");
    mallory.rules().await.expect("not blocked yet");
    root.change(|rules| rules.block.push(entry("user/mallory")))
        .await
        .expect("changed");
    let refused = mallory.rules().await.expect_err("blocked");
    assert_eq!(reason(&refused), "FIREWALL_BLOCKED");
    let events = service.events().await;
    let alarm = events
        .iter()
        .find(|event| event.operation == "firewall.Blocked")
        .expect("an alarm");
    assert_eq!(alarm.resource, "principals/user/mallory");
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_over_its_rate_is_told_how_long_to_wait_and_passes_then() {
    let dir = tempfile::tempdir().expect("directory");
    let service = start(dir.path()).await;
    let mut root = service.admin(HERE).await;
    root.change(|rules| {
        rules.limits.push(RateLimit {
            subject: "user/busy".to_owned(),
            requests_per_second: 2.0,
            burst: 3,
        });
    })
    .await
    .expect("changed");
    let mut busy = service
        .caller(THERE, service.token("user/busy", Role::Admin))
        .await
        .expect("connects");
    for _ in 0..3 {
        busy.rules().await.expect("within the burst");
    }
    let refused = busy.rules().await.expect_err("over the rate");
    assert_eq!(
        (refused.code(), reason(&refused).as_str()),
        (Code::ResourceExhausted, "RATE_LIMITED")
    );
    let wait = refused
        .get_details_retry_info()
        .and_then(|info| info.retry_delay)
        .expect("a time to wait");
    assert!(
        wait <= Duration::from_millis(500) && wait > Duration::from_millis(100),
        "{wait:?}"
    );
    tokio::time::sleep(wait).await;
    busy.rules().await.expect("after the wait");
    root.rules().await.expect("others are not concerned");
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_tokens_lead_to_a_ban_that_survives_a_restart_until_it_is_lifted() {
    let dir = tempfile::tempdir().expect("directory");
    let service = start(dir.path()).await;
    let mut root = service.admin(HERE).await;
    root.change(strict).await.expect("changed");
    let mut there = service.admin(THERE).await;
    there.rules().await.expect("welcome");
    let mut wrong = service
        .caller(THERE, "ast1.nonsense".to_owned())
        .await
        .expect("connects");
    for _ in 0..3 {
        assert_eq!(
            wrong.rules().await.expect_err("a stranger").code(),
            Code::Unauthenticated
        );
    }
    assert_eq!(
        reason(&wrong.rules().await.expect_err("banned")),
        "FIREWALL_BLOCKED"
    );
    assert_eq!(
        reason(&there.rules().await.expect_err("the same address")),
        "FIREWALL_BLOCKED"
    );
    assert!(is_dropped(&service, THERE).await);
    let bans = root
        .client
        .list_bans(root.request(ListBansRequest::default()))
        .await
        .expect("listed");
    let bans = bans.into_inner().bans;
    assert_eq!(
        (bans.len(), bans[0].network.as_str(), bans[0].strikes),
        (1, THERE, 1)
    );
    let events = service.events().await;
    let ban = events
        .iter()
        .find(|event| event.operation == "firewall.Ban")
        .expect("an alarm");
    assert_eq!(ban.resource, "networks/127.0.0.2");
    assert!(
        ban.reason.starts_with("AUTHENTICATION_FAILURES"),
        "{}",
        ban.reason
    );
    service.stop().await;

    let service = start(dir.path()).await;
    assert!(is_dropped(&service, THERE).await, "after a restart");
    let mut root = service.admin(HERE).await;
    let lift = LiftBanRequest {
        network: THERE.to_owned(),
    };
    root.client
        .lift_ban(root.request(lift.clone()))
        .await
        .expect("lifted");
    service.admin(THERE).await.rules().await.expect("welcome again");
    let again = root.client.lift_ban(root.request(lift)).await.expect_err("once");
    assert_eq!(
        (again.code(), reason(&again).as_str()),
        (Code::NotFound, "NOT_BANNED")
    );
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_and_silence_in_place_of_a_preface_lead_to_a_ban_and_probes_do_not() {
    let dir = tempfile::tempdir().expect("directory");
    let service = start(dir.path()).await;
    let mut root = service.admin(HERE).await;
    root.change(strict).await.expect("changed");
    let ban_of = |from: &'static str| {
        let mut root = Caller {
            client: root.client.clone(),
            token: root.token.clone(),
        };
        async move {
            let bans = root
                .client
                .list_bans(root.request(ListBansRequest::default()))
                .await
                .expect("listed");
            bans.into_inner().bans.into_iter().any(|ban| ban.network == from)
        }
    };
    let to_the_end = |from: &'static str, bytes: &'static [u8]| {
        let at = service.at();
        async move {
            let mut stream = dial(from.parse().expect("an address"), at)
                .await
                .expect("connects");
            stream.write_all(bytes).await.expect("written");
            let mut rest = vec![];
            // Reset or ended: the service hangs up either way.
            let _ = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut rest))
                .await
                .expect("hung up");
        }
    };
    for _ in 0..3 {
        to_the_end("127.0.0.3", b"GET / HTTP/1.1\r\n\r\n").await;
        to_the_end("127.0.0.4", b"PRI * HTTP/2.0").await;
        drop(
            dial("127.0.0.5".parse().expect("an address"), service.at())
                .await
                .expect("connects"),
        );
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(ban_of("127.0.0.3").await, "garbage");
    assert!(ban_of("127.0.0.4").await, "too slow");
    assert!(!ban_of("127.0.0.5").await, "a probe that connects and goes");
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_refusals_leaves_few_events() {
    let dir = tempfile::tempdir().expect("directory");
    let service = start(dir.path()).await;
    let mut root = service.admin(HERE).await;
    root.change(|rules| {
        rules.exempt_loopback = false;
        rules.block.push(entry("127.0.0.2"));
        rules.limits.push(RateLimit {
            subject: "user/busy".to_owned(),
            requests_per_second: 0.01,
            burst: 1,
        });
    })
    .await
    .expect("changed");
    let mut busy = service
        .caller("127.0.0.3", service.token("user/busy", Role::Admin))
        .await
        .expect("connects");
    let mut refused = 0;
    for _ in 0..2_000 {
        refused += u32::from(busy.rules().await.is_err());
    }
    assert_eq!(refused, 1_999);
    for _ in 0..200 {
        assert!(is_dropped(&service, THERE).await);
    }
    assert!(
        service.events().await.len() <= 4,
        "the change, and one of each refusal"
    );
    let events = service.events.clone();
    service.stop().await;
    let events = events.lock().expect("not poisoned");
    let told: Vec<&str> = (events.iter())
        .filter(|event| event.operation == "firewall.Blocked")
        .map(|event| event.reason.as_str())
        .collect();
    assert!(
        told.len() <= 8,
        "one of each at once, and counts once a minute: {told:?}"
    );
    let counted = |reason: &str| -> u64 {
        let counts = told
            .iter()
            .filter_map(|text| text.strip_prefix(reason)?.strip_prefix(" count="));
        counts.map(|count| count.parse::<u64>().expect("a count")).sum()
    };
    assert_eq!(counted("RATE_LIMITED"), 1_999, "none is lost");
    assert_eq!(counted("FIREWALL_BLOCKED"), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_locks_itself_out_by_mistake() {
    let dir = tempfile::tempdir().expect("directory");
    let service = start(dir.path()).await;
    let mut root = service.admin(HERE).await;
    for subject in ["127.0.0.0/8", "user/root", "user/*", "*"] {
        let refused = root
            .change(|rules| {
                rules.exempt_loopback = false;
                rules.block.push(entry(subject));
            })
            .await
            .expect_err(subject);
        assert_eq!(
            (refused.code(), reason(&refused).as_str()),
            (Code::FailedPrecondition, "FIREWALL_LOCKOUT")
        );
    }
    let refused = root
        .change(|rules| {
            rules.exempt_loopback = false;
            rules.set_default_action(DefaultAction::Block);
        })
        .await;
    assert_eq!(reason(&refused.expect_err("not on the list")), "FIREWALL_LOCKOUT");
    let (mut rules, etag) = root.rules().await.expect("read");
    rules.block.push(entry("user/root"));
    root.update(rules, etag, "", true).await.expect("forced");
    assert_eq!(
        reason(&root.rules().await.expect_err("as it was meant")),
        "FIREWALL_BLOCKED"
    );
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_know_what_they_change_can_be_repeated_and_are_kept() {
    let dir = tempfile::tempdir().expect("directory");
    let service = start(dir.path()).await;
    let mut root = service.admin(HERE).await;
    let (mut rules, etag) = root.rules().await.expect("read");
    rules.block.push(entry("192.0.2.0/24"));
    let after = root
        .update(rules.clone(), etag.clone(), "r1", false)
        .await
        .expect("changed");
    assert_ne!(after, etag);
    let again = root
        .update(rules.clone(), etag.clone(), "r1", false)
        .await
        .expect("repeated");
    assert_eq!(again, after);
    let refused = root
        .update(
            Rules {
                allow: vec![entry("*")],
                ..rules.clone()
            },
            etag.clone(),
            "r1",
            false,
        )
        .await;
    assert_eq!(
        reason(&refused.expect_err("another content")),
        "REQUEST_ID_REUSED"
    );
    let refused = root.update(rules.clone(), etag, "r2", false).await;
    assert_eq!(reason(&refused.expect_err("an old state")), "ETAG_MISMATCH");
    let bad: [fn(&mut Rules); 8] = [
        |rules| rules.block.push(entry("192.0.2.0/24")),
        |rules| rules.block.push(entry("10.0.0.1/8")),
        |rules| rules.block.push(entry("nobody")),
        |rules| rules.set_default_action(DefaultAction::Unspecified),
        |rules| rules.bans = None,
        |rules| rules.bans.as_mut().expect("bans").first_seconds = 0,
        |rules| {
            rules.limits.push(RateLimit {
                subject: "*".to_owned(),
                requests_per_second: f64::NAN,
                burst: 1,
            });
        },
        |rules| {
            rules.allow = (0..5000)
                .map(|number| entry(&format!("user/u{number}")))
                .collect();
        },
    ];
    for (number, spoil) in bad.into_iter().enumerate() {
        let refused = root.change(spoil).await.expect_err("nonsense");
        assert_eq!(
            (refused.code(), reason(&refused).as_str()),
            (Code::InvalidArgument, "INVALID_FIELD"),
            "{number}"
        );
    }
    let mut viewer = service
        .caller(HERE, service.token("user/vera", Role::Auditor))
        .await
        .expect("connects");
    assert_eq!(
        reason(&viewer.rules().await.expect_err("no administrator")),
        "POLICY_DENIED"
    );
    service.stop().await;

    let service = start(dir.path()).await;
    assert_eq!(
        service.admin(HERE).await.rules().await.expect("read"),
        (rules, after)
    );
    service.stop().await;
    let path = dir.path().join("kms/firewall.json");
    let text = std::fs::read_to_string(&path).expect("stored");
    std::fs::write(&path, &text[1..]).expect("damaged");
    let refused = try_start(dir.path())
        .await
        .err()
        .expect("no start without the rules");
    assert!(
        refused.contains("firewall.json") && refused.contains("restore it"),
        "{refused}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_handshake_of_the_channel_leads_to_a_ban() {
    let dir = tempfile::tempdir().expect("directory");
    let path = dir.path();
    let (key_file, peers) = (path.join("kms.key"), path.join("peers"));
    let public = provision(&key_file, &peers, &PrincipalId::service("kms")).expect("provisioned");
    let beside = TcpListener::bind((HERE, 0)).await.expect("a port");
    let at = beside.local_addr().expect("an address");
    drop(beside);
    let service = start_with(path, |common| {
        common.channel = ChannelConfig {
            static_key_file: Some(key_file),
            authorized_peers_dir: Some(peers),
            allow_unknown_peers: false,
            listen: Some(at),
        };
    });
    let service = service.await.expect("starts");
    let mut root = service.admin(HERE).await;
    root.change(strict).await.expect("changed");
    let stranger = StaticKey::generate().expect("a key");
    let other = StaticKey::generate().expect("a key").public();
    let from = |address: &'static str| dial(address.parse().expect("an address"), at);
    for _ in 0..3 {
        // Garbage, an older version of the protocol, half a handshake, a pinned key that is not the service's, a key that
        // nobody knows, and a probe.
        let written: [(&str, &[u8]); 3] = [
            ("127.0.0.11", b"GET / HTTP/1.1\r\n\r\n"),
            ("127.0.0.12", b"ASNC\x00\x01"),
            ("127.0.0.13", b"ASNC\x01\x01half"),
        ];
        for (address, bytes) in written {
            let mut stream = from(address).await.expect("connects");
            stream.write_all(bytes).await.expect("written");
            let read = tokio::time::timeout(Duration::from_secs(5), stream.read(&mut [0])).await;
            assert!(!matches!(read.expect("hung up"), Ok(1)), "{address}");
        }
        for (address, key) in [("127.0.0.14", &other), ("127.0.0.15", &public)] {
            let stream = from(address).await.expect("connects");
            let refused = initiate(stream, &stranger, key, "kms", Duration::from_secs(5)).await;
            assert!(matches!(refused.err(), Some(ChannelError::HungUp)), "{address}");
        }
        drop(from("127.0.0.16").await.expect("connects"));
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    let bans = root
        .client
        .list_bans(root.request(ListBansRequest::default()))
        .await
        .expect("listed");
    let mut banned: Vec<String> = bans
        .into_inner()
        .bans
        .into_iter()
        .map(|ban| ban.network)
        .collect();
    banned.sort();
    assert_eq!(
        banned,
        [
            "127.0.0.11",
            "127.0.0.12",
            "127.0.0.13",
            "127.0.0.14",
            "127.0.0.15"
        ]
    );
    service.stop().await;
}

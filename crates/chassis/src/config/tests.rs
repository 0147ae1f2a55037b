#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    common: Common,
    root_key: RootKey,
    origins: Vec<String>,
    labels: BTreeMap<String, String>,
    ratio: f64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RootKey {
    kind: String,
    passphrase_file: Option<PathBuf>,
    rounds: Option<u64>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            common: Common::for_service("kms"),
            root_key: RootKey {
                kind: "file".to_owned(),
                ..RootKey::default()
            },
            origins: Vec::new(),
            labels: BTreeMap::new(),
            ratio: 0.5,
        }
    }
}

fn load_all(file: &str, env: &[(&str, &str)], flags: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let own = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
        pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    };
    load_text("kms", Some(("kms.toml", file)), own(env).into_iter(), &own(flags))
}

fn refusal(file: &str, env: &[(&str, &str)], flags: &[(&str, &str)]) -> String {
    load_all(file, env, flags).unwrap_err().to_string()
}

#[test]
fn nothing_given_is_the_default() {
    let config = load_all("", &[], &[]).unwrap();
    assert_eq!(config, Config::default());
    assert_eq!(config.common.listen.to_string(), "127.0.0.1:7001");
}

#[test]
fn every_layer_wins_over_the_one_before() {
    let file = "listen = \"127.0.0.1:1\"\n[limits]\nqueue = 1\nmax_in_flight = 1\nmax_connections = 1\n";
    let env = [
        ("ASTERISM_KMS_LIMITS__QUEUE", "2"),
        ("ASTERISM_KMS_LIMITS__MAX_IN_FLIGHT", "2"),
    ];
    let config = load_all(file, &env, &[("limits.queue", "3")]).unwrap();
    assert_eq!(config.common.listen.port(), 1);
    let limits = config.common.limits;
    assert_eq!(
        (limits.max_connections, limits.max_in_flight, limits.queue),
        (1, 2, 3)
    );
    assert_eq!(
        limits.max_connections_per_ip,
        Limits::default().max_connections_per_ip
    );
}

#[test]
fn sections_of_the_service_lie_beside_the_common_settings() {
    let file = "data_dir = \"/var/a\"\norigins = [\"a\"]\nratio = 1\n[root_key]\nkind = \"passphrase\"\n[labels]\nzone = \"b\"";
    let env = [
        ("ASTERISM_KMS_ROOT_KEY__PASSPHRASE_FILE", "/run/p"),
        ("ASTERISM_KMS_ORIGINS", "x, y"),
    ];
    let config = load_all(file, &env, &[("root_key.rounds", "7")]).unwrap();
    assert_eq!(config.common.data_dir, PathBuf::from("/var/a"));
    assert_eq!(config.root_key.kind, "passphrase");
    assert_eq!(config.root_key.passphrase_file, Some(PathBuf::from("/run/p")));
    assert_eq!(
        config.root_key.rounds,
        Some(7),
        "text becomes what the option holds"
    );
    assert_eq!(config.origins, ["x", "y"]);
    assert_eq!(config.labels.get("zone").map(String::as_str), Some("b"));
    assert!(
        (config.ratio - 1.0).abs() < f64::EPSILON,
        "a whole number is a number"
    );
}

#[test]
fn an_empty_text_unsets_an_option() {
    let file = "audit_addr = \"http://127.0.0.1:7004\"";
    assert!(load_all(file, &[], &[]).unwrap().common.audit_addr.is_some());
    assert_eq!(
        load_all(file, &[("ASTERISM_KMS_AUDIT_ADDR", "")], &[])
            .unwrap()
            .common
            .audit_addr,
        None
    );
    assert_eq!(
        load_all("audit_addr = \"\"", &[], &[]).unwrap().common.audit_addr,
        None
    );
}

#[test]
fn unknown_names_are_refused_with_the_nearest_known_one() {
    for (file, key, nearest) in [
        ("lisen = 1", "lisen", "listen"),
        ("[limits]\nqueu = 1", "limits.queu", "limits.queue"),
        ("queue = 1", "queue", "limits.queue"),
        ("[limit]\nqueue = 1", "limit", "limits"),
        (
            "[root_key]\npasphrase_file = \"x\"",
            "root_key.pasphrase_file",
            "root_key.passphrase_file",
        ),
        ("data-dir = \"x\"", "data-dir", "data_dir"),
    ] {
        match load_all(file, &[], &[]) {
            Err(ConfigError::Unknown {
                key: given,
                nearest: Some(found),
                ..
            }) => {
                assert_eq!((given.as_str(), found.as_str()), (key, nearest));
            }
            other => panic!("{file}: {other:?}"),
        }
    }
    assert_eq!(
        refusal("wholly_different_thing = 1", &[], &[]),
        "unknown setting `wholly_different_thing` in kms.toml"
    );
    assert_eq!(
        refusal("", &[("ASTERISM_KMS_LIMITS__QEUE", "1")], &[]),
        "unknown setting `limits.qeue` from the environment variable ASTERISM_KMS_LIMITS__QEUE; \
         did you mean `limits.queue`?"
    );
    assert_eq!(
        refusal("", &[], &[("listn", "x")]),
        "unknown setting `listn` among the flags; did you mean `listen`?"
    );
    // The section that users never see.
    assert!(matches!(
        load_all("[common]\nlisten = \"127.0.0.1:1\"", &[], &[]),
        Err(ConfigError::Unknown { .. })
    ));
}

#[test]
fn wrong_values_name_the_setting_and_the_layer() {
    assert_eq!(
        refusal("[limits]\nqueue = \"many\"", &[], &[]),
        "setting `limits.queue` in kms.toml must be a whole number"
    );
    assert_eq!(
        refusal("", &[("ASTERISM_KMS_ALLOW_REMOTE_PLAINTEXT", "yes")], &[]),
        "setting `allow_remote_plaintext` from the environment variable ASTERISM_KMS_ALLOW_REMOTE_PLAINTEXT \
         must be true or false"
    );
    assert!(
        refusal("", &[], &[("listen", "here")]).starts_with("setting `listen` among the flags is refused:")
    );
    assert!(refusal("limits = 3", &[], &[]).contains("must be a section"));
    assert!(refusal("", &[], &[("limits", "3")]).contains("is a section"));
    assert!(refusal("[limits]\nqueue = -1", &[], &[]).contains("`limits.queue` in kms.toml"));
    assert!(refusal("[log]\nformat = \"xml\"", &[], &[]).contains("`log.format`"));
    assert!(refusal("", &[], &[("root_key.rounds", "many")]).contains("`root_key.rounds`"));
}

#[test]
fn broken_toml_names_the_line() {
    let message = refusal("listen = \"127.0.0.1:1\"\n\nlimits = [", &[], &[]);
    assert!(
        message.starts_with("kms.toml line 3 is not valid TOML"),
        "{message}"
    );
}

#[test]
fn other_services_and_kubernetes_service_links_are_not_ours() {
    let env = [
        ("ASTERISM_AUDIT_NONSENSE", "1"),
        ("PATH", "/bin"),
        ("ASTERISM_KMS_SERVICE_HOST", "10.0.0.1"),
        ("ASTERISM_KMS_SERVICE_PORT", "7001"),
        ("ASTERISM_KMS_PORT", "tcp://10.0.0.1:7001"),
        ("ASTERISM_KMS_PORT_7001_TCP_ADDR", "10.0.0.1"),
        ("ASTERISM_KMS_CONFIG", "/etc/kms.toml"),
    ];
    assert_eq!(load_all("", &env, &[]).unwrap(), Config::default());
}

#[test]
fn other_machines_need_consent() {
    for (key, value) in [
        ("listen", "0.0.0.0:7001"),
        ("listen", "[::]:7001"),
        ("audit_addr", "http://10.0.0.4:7004"),
        ("kms_addr", "http://kms:7001"),
    ] {
        let message = refusal("", &[], &[(key, value)]);
        assert!(
            message.contains(key) && message.contains("in the clear"),
            "{message}"
        );
        assert!(message.contains("allow_remote_plaintext = true"), "{message}");
        load_all("", &[], &[(key, value), ("allow_remote_plaintext", "true")]).unwrap();
    }
    for address in [
        "http://127.0.0.1:7004",
        "http://localhost:7004/",
        "http://[::1]:7004",
    ] {
        load_all("", &[], &[("audit_addr", address)]).unwrap();
    }
    for address in [
        "https://127.0.0.1:1",
        "127.0.0.1:7004",
        "http://u:p@localhost",
        "http://localhost/x",
        "?",
    ] {
        let message = refusal(
            "",
            &[],
            &[("audit_addr", address), ("allow_remote_plaintext", "true")],
        );
        assert!(message.contains("must be an address such as"), "{message}");
    }
}

#[test]
fn the_channel_may_leave_the_machine_and_needs_its_keys() {
    let on = [
        ("channel.static_key_file", "kms.key"),
        ("channel.authorized_peers_dir", "peers"),
    ];
    let with = |more: &[(&'static str, &'static str)]| {
        let flags = [&on[..], more].concat();
        load_all("", &[], &flags)
            .map(|_| ())
            .map_err(|error| error.to_string())
    };
    with(&[
        ("audit_addr", "noise://10.0.0.1:7004"),
        ("listen", "0.0.0.0:7001"),
    ])
    .unwrap();
    // With an address of its own for the channel, `listen` is in the clear.
    let beside = ("channel.listen", "0.0.0.0:7011");
    with(&[beside]).unwrap();
    let message = with(&[beside, ("listen", "0.0.0.0:7001")]).unwrap_err();
    assert!(message.contains("in the clear"), "{message}");
    let message = with(&[("audit_addr", "http://10.0.0.1:7004")]).unwrap_err();
    assert!(message.contains("in the clear"), "{message}");
    for wrong in ["noise://10.0.0.1", "noise://u@10.0.0.1:1", "noise://10.0.0.1:1/x"] {
        assert!(
            with(&[("audit_addr", wrong)])
                .unwrap_err()
                .contains("must be an address")
        );
    }
    assert!(with(&[("otlp_endpoint", "noise://10.0.0.1:4317")]).is_err());
    for incomplete in [
        &on[..1],
        &on[1..],
        &[beside],
        &[("channel.allow_unknown_peers", "true")],
        &[("audit_addr", "noise://127.0.0.1:7004")],
    ] {
        let message = refusal("", &[], incomplete);
        assert!(
            message.contains("must be set") || message.contains("set channel."),
            "{message}"
        );
    }
}

#[test]
fn unsound_limits_are_refused() {
    for (key, value) in [
        ("limits.max_in_flight", "0"),
        ("limits.max_in_flight", "1000001"),
        ("limits.max_message_bytes", "10"),
        ("limits.max_message_bytes", "1000000000"),
        ("limits.default_deadline_ms", "0"),
        ("limits.max_deadline_ms", "1"),
        ("limits.max_deadline_ms", "9000000000000000000"),
        ("limits.max_connections", "0"),
        ("limits.max_connections_per_ip", "0"),
        ("outbox_max_events", "0"),
        ("log.filter", "info,,=["),
        ("identity.trust_max_age_seconds", "1"),
    ] {
        assert!(load_all("", &[], &[(key, value)]).is_err(), "{key} = {value}");
    }
}

#[test]
fn tokens_of_the_authority_key_may_be_refused_only_where_services_have_keys() {
    let off = ("identity.accept_authority_tokens", "false");
    let error = load_all("", &[], &[off]).unwrap_err().to_string();
    assert!(error.contains("channel.static_key_file"), "{error}");
    let channel = [
        off,
        ("channel.static_key_file", "kms.key"),
        ("channel.authorized_peers_dir", "peers"),
    ];
    let config = load_all("", &[], &channel).unwrap();
    assert!(!config.common.identity.accept_authority_tokens);
}

#[test]
fn a_missing_or_huge_file_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let missing = load::<Config>(
        "kms",
        Some(&dir.path().join("none.toml")),
        std::iter::empty(),
        &[],
    );
    assert!(matches!(missing, Err(ConfigError::File { .. })));
    let huge = dir.path().join("huge.toml");
    std::fs::write(&huge, vec![b'#'; 1024 * 1024 + 1]).unwrap();
    assert!(matches!(
        load::<Config>("kms", Some(&huge), std::iter::empty(), &[]),
        Err(ConfigError::File { .. })
    ));
    let good = dir.path().join("good.toml");
    std::fs::write(&good, "outbox_max_events = 7").unwrap();
    let config: Config = load("kms", Some(&good), std::iter::empty(), &[]).unwrap();
    assert_eq!(config.common.outbox_max_events, 7);
}

#[test]
fn a_service_cannot_reuse_a_common_name() {
    #[derive(Serialize, Deserialize)]
    struct Clash {
        common: Common,
        listen: String,
    }
    impl Default for Clash {
        fn default() -> Self {
            Self {
                common: Common::for_service("x"),
                listen: String::new(),
            }
        }
    }
    let clash = load_text::<Clash>("x", None, std::iter::empty(), &[]);
    assert!(matches!(clash, Err(ConfigError::Type(_))));
}

/// Lines that look like settings, right and wrong.
fn line() -> impl Strategy<Value = String> {
    let key = prop_oneof![
        prop::sample::select(vec![
            "listen",
            "data_dir",
            "limits",
            "limits.queue",
            "log.format",
            "[limits]",
            "[[limits]]",
            "labels",
            "labels.a.b",
            "ratio",
            "origins",
            "root_key",
            "audit_addr",
            "common",
            "\"limits.queue\"",
        ])
        .prop_map(str::to_owned),
        "[a-z_.\"\\[\\]]{0,12}",
    ];
    let value = prop_oneof![
        prop::sample::select(vec![
            "= 1",
            "= -9223372036854775808",
            "= 1e400",
            "= nan",
            "= \"\"",
            "= \"127.0.0.1:0\"",
            "= [[1], {}]",
            "= {a = 1}",
            "= true",
            "= 1979-05-27",
            "",
            "=",
        ])
        .prop_map(str::to_owned),
        "\\PC{0,20}",
    ];
    (key, value).prop_map(|(key, value)| format!("{key} {value}"))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn no_text_makes_it_panic(text in "(?s).{0,200}") {
        let _ = load_all(&text, &[], &[]);
    }

    #[test]
    fn no_settings_make_it_panic(lines in prop::collection::vec(line(), 0..8)) {
        let _ = load_all(&lines.join("\n"), &[], &[]);
    }

    #[test]
    fn no_variable_or_flag_makes_it_panic(key in "[a-zA-Z_.]{0,24}", value in "\\PC{0,24}") {
        let variable = format!("ASTERISM_KMS_{key}");
        let _ = load_all("", &[(&variable, &value)], &[]);
        let _ = load_all("", &[], &[(&key, &value)]);
        for known in ["listen", "limits.queue", "labels", "origins", "ratio", "root_key.rounds", "audit_addr"] {
            let _ = load_all("", &[], &[(known, &value)]);
        }
    }

    #[test]
    fn all_layers_read_a_number_alike(queue in 0_usize..1_000_000) {
        let text = queue.to_string();
        let file = load_all(&format!("[limits]\nqueue = {text}"), &[], &[]).unwrap();
        let env = load_all("", &[("ASTERISM_KMS_LIMITS__QUEUE", &text)], &[]).unwrap();
        let flag = load_all("", &[], &[("limits.queue", &text)]).unwrap();
        prop_assert_eq!(file.common.limits.queue, queue);
        prop_assert_eq!(&file, &env);
        prop_assert_eq!(&file, &flag);
    }
}

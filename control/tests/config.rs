//! The configuration file: what is accepted, and what a user reads about what is not.

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use hitless::config::{Aead, Config, ConfigError, EXAMPLE};
use hitless::ike::proposal::Identification;
use hitless::ike::settings::{Cookies, Limits};
use hitless_dataplane::aead::Engine;
use hitless_sa::{DontFragment, Dscp, MssClamp, SaOptions, TfcPadding};

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse("gateway.toml", text, Path::new("/nonexistent"))
}

/// The example with one thing changed.
fn changed(from: &str, to: &str) -> String {
    assert_eq!(EXAMPLE.matches(from).count(), 1, "{from}");
    EXAMPLE.replacen(from, to, 1)
}

#[test]
fn defaults_fill_what_is_left_out() {
    let text = r#"
        [cluster]
        name = "hq"
        id = 1
        [ports.out]
        interface = "eth0"
        addresses = ["203.0.113.1/24"]
        protected = false
        [ports.in]
        interface = "eth1"
        addresses = ["10.1.0.1/16"]
        protected = true
        [connections.any]
        proposals = ["aes128gcm16-prfsha256-x25519"]
        [connections.any.children.net]
        esp_proposals = ["aes128gcm16"]
        local_ts = ["10.1.0.0/16"]
        remote_ts = ["10.2.0.0/16"]
        [secrets.any]
        secret = "0s aGk="
    "#;
    let error = parse(text).unwrap_err();
    assert!(error.titles().any(|t| t.contains("not base64")), "{error}");
    let config = parse(&text.replace("0s aGk=", "0saGk=")).unwrap();
    assert!(config.cluster.sync.is_none(), "alone");
    let connection = &config.connections[0];
    assert_eq!(connection.children[0].replay_window, 4096);
    assert_eq!(connection.children[0].options, SaOptions::default());
    assert_eq!(
        connection.local_addrs,
        ["203.0.113.1".parse::<IpAddr>().unwrap()]
    );
    assert_eq!(connection.remote_addrs, [] as [IpAddr; 0]);
    assert_eq!(connection.local_id.to_string(), "203.0.113.1");
    assert_eq!(connection.remote_id, Identification::Any);
    assert!(!connection.children[0].start);
    assert_eq!(config.ports[0].queues, [0]);
    assert_eq!(*config.secrets[0].secret, b"hi");
}

#[test]
fn how_packets_are_treated_is_said_in_swanctls_words() {
    let with = |lines: &str| {
        let text = format!("replay_window = 4096\n{lines}");
        parse(&changed("replay_window = 4096", &text))
    };
    let options = |lines: &str| with(lines).unwrap().connections[0].children[0].options;
    let plain = SaOptions::default();
    assert_eq!(options("copy_dscp = \"out\"\ncopy_ecn = true"), plain);
    let all = "copy_dscp = \"in\"\ncopy_ecn = false\ncopy_df = true\ntfc_padding = \"mtu\"\n\
               mss_clamp = 1360\nnat_keepalive = \"20s\"";
    let expected = SaOptions {
        dscp: Dscp::Fixed(0),
        copy_dscp_in: true,
        copy_ecn: false,
        dont_fragment: DontFragment::Copy,
        padding: TfcPadding::ToMtu,
        mss: MssClamp::To(1360),
        keepalive: Some(Duration::from_secs(20)),
        ..plain
    };
    assert_eq!(options(all), expected);
    let fixed = options("set_dscp = 46\nset_df = true\ntfc_padding = 1000\nmss_clamp = \"mtu\"");
    assert_eq!(fixed.dscp, Dscp::Fixed(46));
    assert_eq!(fixed.dont_fragment, DontFragment::Set);
    assert_eq!(
        (fixed.padding, fixed.mss),
        (TfcPadding::To(1000), MssClamp::ToMtu)
    );
    for wrong in [
        "copy_dscp = \"both\"",
        "set_dscp = 64",
        "tfc_padding = 70000",
        "mss_clamp = 100",
        "nat_keepalive = \"0s\"",
        "copy_df = true\nset_df = true",
    ] {
        assert!(with(wrong).is_err(), "{wrong}");
    }
}

/// What is changed in the example, and what the user reads: title and help.
const WRONG: &[(&str, &str, &str, &str)] = &[
    (
        "heartbeat = \"10ms\"",
        "heartbaet = \"10ms\"",
        "unknown key `cluster.heartbaet`",
        "did you mean `heartbeat`?",
    ),
    (
        "heartbeat = \"10ms\"",
        "heartbeat = 10",
        "cluster.heartbeat: `10` has no unit",
        "\"10ms\"",
    ),
    (
        "heartbeat = \"10ms\"",
        "heartbeat = \"1h\"",
        "cluster.heartbeat: 3600s is out of range",
        "between 1ms and 10s",
    ),
    ("name = \"hq\"", "name = \"\"", "cluster.name: empty", ""),
    (
        "name = \"hq\"",
        "",
        "missing key `cluster.name`",
        "add name = ",
    ),
    (
        "id = 1                                # this",
        "id = 3 # this",
        "no member has the id 3",
        "1, 2",
    ),
    (
        "id = 1                                # this",
        "id = 256 # this",
        "cluster.id: `256` is out of range",
        "between 1 and 255",
    ),
    (
        "id = 1                                # this",
        "id = \"1\" # this",
        "cluster.id: expected a number, found text",
        "without quotes",
    ),
    ("{ id = 2,", "{ id = 1,", "two members have the id 1", ""),
    (
        ", sync_addr = \"10.0.0.2:4510\"",
        "",
        "member 2 has no sync_addr",
        "add sync_addr",
    ),
    (
        "\"10.0.0.2:4510\"",
        "\"10.0.0.1:4510\"",
        "members 1 and 2 have the same sync_addr",
        "",
    ),
    (
        "\"10.0.0.2:4510\"",
        "\"10.0.0.2\"",
        "cluster.members[1].sync_addr: `10.0.0.2`",
        "10.0.0.2:4510",
    ),
    ("\"10.0.0.2:4510\"", "\"10.0.0.2:0\"", "port 0", ""),
    (
        "secret = \"0x5f2ab0c4e0d4a1b7c3f98e6d7a8b9c0d\"",
        "",
        "missing key `cluster.secret_file`",
        "openssl rand",
    ),
    (
        "secret = \"0x5f2ab0c4e0d4a1b7c3f98e6d7a8b9c0d\"",
        "secret = \"0x5f2a\"",
        "the secret is too short",
        "16 octets",
    ),
    (
        "degraded = \"rekey\"",
        "degraded = \"strickt\"",
        "`strickt` is not known",
        "did you mean \"strict\"?",
    ),
    (
        "state_dir = \"/var/lib/hitless\"",
        "state_dir = \"var\"",
        "does not start with /",
        "",
    ),
    (
        "driver = \"af_xdp\"",
        "driver = \"af-xdp\"",
        "`af-xdp` is not known",
        "\"af_xdp\"",
    ),
    (
        "interface = \"eth0\"",
        "interface = \"a/b\"",
        "cannot be an interface",
        "ip link",
    ),
    (
        "interface = \"eth1\"",
        "interface = \"eth0\"",
        "interface `eth0` already belongs to ports.outside",
        "",
    ),
    (
        "queue = 0 ",
        "queues = [0, 1] ",
        "2 for 1 worker(s)",
        "dataplane.workers",
    ),
    (
        "[\"203.0.113.1/24\"]",
        "\"203.0.113.1/24\"",
        "expected a list, found text",
        "square brackets",
    ),
    (
        "[\"203.0.113.1/24\"]",
        "[\"203.0.113.1\"]",
        "has no prefix length",
        "",
    ),
    (
        "[\"203.0.113.1/24\"]",
        "[\"2001:db8::1/129\"]",
        "has no length from 0 to 128",
        "",
    ),
    (
        "[\"203.0.113.1/24\"]",
        "[]",
        "ports.outside.addresses: empty",
        "",
    ),
    (
        "[\"10.1.0.1/16\"]",
        "[\"203.0.113.1/24\"]",
        "address 203.0.113.1 already belongs",
        "",
    ),
    (
        "default via 203.0.113.254",
        "default via 192.0.2.1",
        "on none of this port's networks",
        "",
    ),
    (
        "default via 203.0.113.254",
        "default via 203.0.113.1",
        "is our own address",
        "",
    ),
    (
        "default via 203.0.113.254",
        "10.9.0.1/8 via 203.0.113.254",
        "bits set after its length",
        "10.0.0.0/8",
    ),
    (
        "default via 203.0.113.254",
        "default gw 203.0.113.254",
        "is not a route",
        "via",
    ),
    (
        "protected = true ",
        "protected = false ",
        "no port towards the hosts",
        "protected = true",
    ),
    (
        "protected = true ",
        "",
        "missing key `ports.inside.protected`",
        "",
    ),
    (
        "mode = \"auto\"",
        "mode = \"drv\"",
        "ports.outside.mode: `drv` is not known",
        "native",
    ),
    (
        "workers = 1",
        "workers = 0",
        "`0` is out of range",
        "between 1 and 64",
    ),
    (
        "workers = 1\n# cores = [2]",
        "cores = [2, 2]\n#",
        "1 core(s) for 2 worker(s)",
        "",
    ),
    (
        "aead = \"auto\"",
        "aead = \"openssl\"",
        "`openssl` is not known",
        "burst-avx512",
    ),
    (
        "packets = 10000",
        "packet = 10000",
        "unknown key `dataplane.checkpoint.packet`",
        "did you mean `packets`?",
    ),
    (
        "version = 2",
        "version = 1",
        "version 1 is not spoken",
        "IKEv2",
    ),
    (
        "local_addrs = [\"203.0.113.1\"]",
        "local_addrs = [\"10.1.0.1\"]",
        "10.1.0.1 is not an address of a port that faces the peers",
        "take one of 203.0.113.1",
    ),
    (
        "remote_addrs = [\"198.51.100.7\"]",
        "remote_addrs = [\"%any\"]",
        "nobody to start with",
        "remote_addrs",
    ),
    (
        "\"aes128gcm16-prfsha256-x25519\", ",
        "\"aes128gmc16-prfsha256-x25519\", ",
        "`aes128gmc16`",
        "did you mean \"aes128gcm16-prfsha256-x25519\"?",
    ),
    (
        "\"aes128gcm16-prfsha256-x25519\", ",
        "\"aes128gcm-prfsha256-x25591\", ",
        "`x25591`",
        "did you mean \"aes128gcm-prfsha256-x25519\"?",
    ),
    (
        "proposals = [\"aes128gcm16-prfsha256-x25519\", \"aes256gcm16-prfsha384-ecp384\"]",
        "",
        "missing key `connections.office.proposals`",
        "add proposals",
    ),
    (
        "esp_proposals = [\"aes128gcm16-x25519-esn\"]",
        "esp_proposals = []",
        "esp_proposals: empty",
        "aes128gcm16-x25519-esn",
    ),
    (
        "local = { auth = \"psk\"",
        "local = { auth = \"pubkey\"",
        "missing key `connections.office.local.certs`",
        "gw.pem",
    ),
    (
        "id = \"hq.example.org\"",
        "id = \"%any\"",
        "%any matches many",
        "local.id",
    ),
    ("id = \"hq.example.org\"", "id = \"\"", "no identity", ""),
    (
        "dpd_delay = \"30s\"",
        "mobike = \"on\"",
        "connections.office.mobike",
        "true or false",
    ),
    (
        "rekey_time = \"4h\"",
        "ppk_required = true",
        "missing key `connections.office.ppk_id`",
        "ppk.example.org",
    ),
    (
        "takeover = \"auto\"",
        "takeover_inbound = \"lean\"",
        "is not known",
        "did you mean \"learn\"?",
    ),
    (
        "late = \"250ms\"",
        "late = \"11s\"",
        "is out of range",
        "it must lie between",
    ),
    (
        "routes = [\"default via 203.0.113.254\"]",
        "monitor = [\"198.51.100.9\"]",
        "next hop 198.51.100.9 is on none of this port's networks",
        "without another router",
    ),
    (
        "takeover = \"auto\"",
        "takeover = \"message_id_sync\"",
        "is not known",
        "did you mean \"message-id-sync\"?",
    ),
    (
        "mode = \"tunnel\"",
        "mode = \"transport\"",
        "transport mode protects what the two gateways themselves say",
        "dynamic",
    ),
    (
        "local_ts = [\"10.1.0.0/16\"]",
        "local_ts = [\"dynamic[tcp/99999]\"]",
        "is not a traffic selector",
        "",
    ),
    (
        "local_ts = [\"10.1.0.0/16\"]",
        "local_ts = [\"10.1.0.0/33\"]",
        "`10.1.0.0/33` is not a traffic selector",
        "",
    ),
    (
        "local_ts = [\"10.1.0.0/16\"]",
        "",
        "missing key `connections.office.children.net.local_ts`",
        "",
    ),
    (
        "replay_window = 4096",
        "replay_window = 1000",
        "a window of 1000 packets",
        "such as 1024",
    ),
    (
        "replay_window = 4096",
        "replay_window = 32",
        "a window of 32 packets",
        "such as 64",
    ),
    (
        "start_action = \"start\"",
        "start_action = \"begin\"",
        "`begin` is not known",
        "\"start\"",
    ),
    (
        "[connections.office.children.net]",
        "[connections.office.children.\"a b\"]",
        "`a b` cannot be a name",
        "",
    ),
    (
        "ids = [\"office.example.org\"]",
        "ids = [\"branch.example.org\"]",
        "no secret for peer office.example.org",
        "[secrets.office]",
    ),
    (
        "secret = \"change me\"",
        "sercet = \"change me\"",
        "unknown key `secrets.office.sercet`",
        "did you mean `secret`?",
    ),
    (
        "secret = \"change me\"",
        "secret = \"change me\"\nsecret_file = \"x\"",
        "both `secret` and `secret_file`",
        "",
    ),
    (
        "secret = \"change me\"",
        "secret_file = \"x\"",
        "cannot read `/nonexistent/x`",
        "umask 077",
    ),
    (
        "secret = \"change me\"",
        "secret = \"\"",
        "the secret is empty",
        "openssl",
    ),
    (
        "socket = \"/run/hitless/hitless.sock\"",
        "socket = \"hitless.sock\"",
        "does not start with /",
        "",
    ),
    ("log = \"info\"", "log = \"info=x=y\"", "control.log", ""),
    (
        "[control]",
        "[controll]",
        "unknown key `controll`",
        "did you mean `control`?",
    ),
    ("[cluster]", "[cluster", "unclosed table", "TOML"),
    (
        "name = \"hq\"",
        "name = \"hq\"\nname = \"hq\"",
        "duplicate key",
        "TOML",
    ),
];

#[test]
fn each_mistake_is_named_with_its_place_and_a_way_out() {
    for (from, to, title, help) in WRONG {
        let text = changed(from, to);
        let error = parse(&text).unwrap_err();
        let found = error
            .located()
            .find(|(_, _, t, h)| t.contains(title) && h.contains(help));
        let Some((line, column, _, _)) = found else {
            panic!("{to}: expected {title} / {help}, got\n{error}");
        };
        assert!(line >= 1 && column >= 1);
        assert!(
            error.count() <= 2,
            "{to}: mistakes that follow from others:\n{error}"
        );
        let report = error.to_string();
        assert!(report.contains("gateway.toml:"), "{report}");
        assert!(report.contains("help:"), "{report}");
        assert!(!report.contains("change me"), "{report}");
        assert!(!report.contains("5f2a"), "{report}");
    }
}

#[test]
fn limits_are_read_and_the_room_for_peers_with_cookies_is_there() {
    assert_eq!(parse(EXAMPLE).unwrap().ike, Limits::default());
    let busy = parse(&changed("init_rate = 2000", "init_rate = 0")).unwrap();
    assert_eq!(busy.ike.init_rate, 0);
    let never = changed("cookies = \"busy\"", "cookies = \"never\"");
    let never = parse(&never).unwrap();
    assert_eq!(never.ike.cookies, Cookies::Never);
    assert!(
        never
            .warnings
            .iter()
            .any(|w| w.contains("forges addresses"))
    );
    let mistakes = [
        (
            "cookie_threshold = 1024",
            "cookie_threshold = 4096",
            "init_limit_half_open is 4096",
        ),
        (
            "block_threshold = 256",
            "block_threshold = 64",
            "block_threshold is 64",
        ),
        (
            "half_open_timeout = \"30s\"",
            "half_open_timeout = \"1h\"",
            "out of range",
        ),
        (
            "cookies = \"busy\"",
            "dos_protection = true",
            "dos_protection",
        ),
    ];
    for (from, to, title) in mistakes {
        let error = parse(&changed(from, to)).unwrap_err();
        assert!(error.titles().any(|t| t.contains(title)), "{to}: {error}");
    }
}

#[test]
fn a_report_points_with_a_caret() {
    let text = changed("degraded = \"rekey\" ", "degraded = \"strickt\" ");
    let report = parse(&text).unwrap_err().to_string();
    let line = text.lines().position(|l| l.contains("strickt")).unwrap() + 1;
    assert!(
        report.contains(&format!("--> gateway.toml:{line}:12\n")),
        "{report}"
    );
    let (_, caret) = report.split_once("strickt\"").unwrap();
    let caret = caret.lines().nth(1).unwrap();
    assert!(
        caret.ends_with(&format!("|            {}", "^".repeat(9))),
        "{report}"
    );
}

#[test]
fn every_engine_and_tier_can_be_chosen_by_its_name() {
    let chosen = |word: &str| {
        let text = changed("aead = \"auto\"", &format!("aead = \"{word}\""));
        parse(&text).unwrap().dataplane.aead
    };
    for engine in Engine::all() {
        assert_eq!(chosen(engine.name()), Aead::Only(engine));
    }
    assert_eq!(chosen("burst"), Aead::Burst);
    assert_eq!(chosen("aws-lc-rs"), Aead::Only(Engine::AwsLc));
    assert_eq!(chosen("auto"), Aead::Auto);
}

#[test]
fn several_mistakes_are_reported_at_once_in_the_order_of_the_file() {
    let text = changed("missed = 3", "mised = 3")
        .replace("aead = \"auto\"", "aead = \"none\"")
        .replace("replay_window = 4096", "replay_window = 1");
    let error = parse(&text).unwrap_err();
    let titles: Vec<_> = error.titles().collect();
    let [first, second, third] = titles.as_slice() else {
        panic!("{error}")
    };
    assert!(
        first.contains("mised") && second.contains("aead") && third.contains("window"),
        "{error}"
    );
    assert!(error.to_string().ends_with("gateway.toml: 3 problems"));
}

#[test]
fn an_empty_file_names_every_missing_section() {
    let error = parse("").unwrap_err();
    let titles: Vec<_> = error.titles().collect();
    for section in ["[cluster]", "[ports]", "[connections]"] {
        assert!(titles.iter().any(|t| t.contains(section)), "{error}");
    }
}

#[test]
fn two_children_for_the_same_traffic_are_warned_of() {
    let text = format!(
        "{EXAMPLE}\n[connections.office.children.again]\nesp_proposals = [\"aes256gcm16\"]\nlocal_ts = [\"10.1.0.0/16\"]\nremote_ts = [\"10.2.0.0/16\"]\nstart_action = \"trap\""
    );
    let config = parse(&text).unwrap();
    let [warning] = config.warnings.as_slice() else {
        panic!("{:?}", config.warnings)
    };
    assert!(
        warning.contains("office.again has the same selectors as office.net"),
        "{warning}"
    );
    assert!(
        config
            .on_demand
            .contains(&("office".into(), "again".into()))
    );
}

#[test]
fn a_child_that_takes_anothers_traffic_is_warned_of() {
    let text = |local: &str, remote: &str| {
        format!(
            "{EXAMPLE}\n[connections.office.children.again]\nesp_proposals = [\"aes256gcm16\"]\nlocal_ts = [\"{local}\"]\nremote_ts = [\"{remote}\"]"
        )
    };
    let config = parse(&text("10.1.7.0/24", "10.2.0.0/16")).unwrap();
    let [warning] = config.warnings.as_slice() else {
        panic!("{:?}", config.warnings)
    };
    assert!(
        warning.contains("office.again: 10.1.7.0/24 === 10.2.0.0/16 is never used"),
        "{warning}"
    );
    let config = parse(&text("10.1.0.0/16", "0.0.0.0/0")).unwrap();
    assert_eq!(
        config.warnings, [""; 0],
        "the more specific one stands first"
    );
}

#[test]
fn a_key_log_is_warned_of_loudly() {
    let text = format!("{EXAMPLE}\nkey_log = \"/tmp/esp_sa\"");
    let config = parse(&text).unwrap();
    let [warning] = config.warnings.as_slice() else {
        panic!("{:?}", config.warnings)
    };
    assert!(
        warning.contains("THE KEYS OF EVERY TUNNEL ARE WRITTEN TO /tmp/esp_sa"),
        "{warning}"
    );
}

#[test]
fn members_agree_on_the_cluster_but_for_their_own_numbers() {
    let one = parse(EXAMPLE).unwrap();
    let two = parse(&changed(
        "id = 1                                # this",
        "id = 2 # this",
    ))
    .unwrap();
    assert_eq!(one.cluster_hash(), two.cluster_hash());
    assert_eq!(
        one.ports[0].mac, two.ports[0].mac,
        "the cluster's address moves between members"
    );
    for (from, to) in [
        ("degraded = \"rekey\"", "degraded = \"strict\""),
        ("missed = 3", "missed = 4"),
        ("{ id = 2,", "{ id = 3,"),
        ("name = \"hq\"", "name = \"branch\""),
    ] {
        let other = parse(&changed(from, to)).unwrap();
        assert_ne!(one.cluster_hash(), other.cluster_hash(), "{to}");
    }
}

#[test]
fn secrets_are_not_printed() {
    let config = parse(EXAMPLE).unwrap();
    let printed = format!("{config:?}");
    assert!(!printed.contains("change me"));
    assert!(!printed.contains("99, 104, 97"), "as octets");
    assert!(!printed.contains("95, 42"), "as octets");
}

#[test]
fn more_children_than_one_ike_sa_can_carry_are_refused_at_their_place() {
    let with = |count: usize| {
        let child = |number: usize| {
            let net = number % 250;
            format!(
                "[connections.any.children.net{number}]\nesp_proposals = [\"aes128gcm16\"]\n\
                 local_ts = [\"10.1.{net}.0/24\"]\nremote_ts = [\"10.2.{net}.0/24\"]\n"
            )
        };
        format!(
            "[cluster]\nname = \"hq\"\nid = 1\n\
             [ports.out]\ninterface = \"eth0\"\naddresses = [\"203.0.113.1/24\"]\nprotected = false\n\
             [ports.in]\ninterface = \"eth1\"\naddresses = [\"10.1.0.1/16\"]\nprotected = true\n\
             [connections.any]\nproposals = [\"aes128gcm16-prfsha256-x25519\"]\n{}\
             [secrets.any]\nsecret = \"0saGk=\"\n",
            (0..count).map(child).collect::<String>()
        )
    };
    assert!(parse(&with(80)).is_ok());
    let error = parse(&with(120)).unwrap_err().to_string();
    let says =
        "connections.any: 120 children with 240 traffic selectors are too many for one IKE SA";
    assert!(error.contains(says), "{error}");
    assert!(error.contains("gateway.toml:14"), "{error}");
    assert!(error.contains("a connection of their own"), "{error}");
}

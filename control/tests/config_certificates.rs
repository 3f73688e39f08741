//! Certificates in the configuration: what is accepted, and what a user reads about what is not.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hitless::config::{AsOf, Config, EXAMPLE};
use hitless::ike::auth::{EapUsers, LocalAuth, RemoteAuth, SendCertificate};
use hitless::ike::proposal::Identification;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, IsCa, Issuer,
    KeyIdMethod, KeyPair, KeyUsagePurpose, SerialNumber, date_time_ymd,
};

/// 2026-06-01.
const NOON: Duration = Duration::from_secs(1_780_315_200);

/// A directory with an authority, one below it, and the gateway's certificate, its key and a CRL.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn params(name: &str, authority: bool) -> CertificateParams {
    let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::OrganizationName, "lab");
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = date_time_ymd(2026, 1, 1);
    params.not_after = date_time_ymd(2027, 1, 1);
    if authority {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    }
    params
}

impl Scratch {
    fn new(name: &str) -> Scratch {
        let directory = format!("hitless-certificates-{name}-{}", std::process::id());
        let scratch = Scratch(std::env::temp_dir().join(directory));
        fs::create_dir_all(&scratch.0).unwrap();
        let (root, middle, gateway) = (params("root", true), params("middle", true), {
            let mut params = params("gw.test", false);
            params.use_authority_key_identifier_extension = true;
            params
        });
        let keys: [KeyPair; 4] = std::array::from_fn(|_| KeyPair::generate().unwrap());
        let [root_key, middle_key, gateway_key, other_key] = keys;
        scratch.write("root.pem", &root.self_signed(&root_key).unwrap().pem());
        let root = Issuer::new(root, root_key);
        let certificate = middle.signed_by(&middle_key, &root).unwrap();
        scratch.write("middle.pem", &certificate.pem());
        let middle = Issuer::new(middle, middle_key);
        let certificate = gateway.signed_by(&gateway_key, &middle).unwrap();
        scratch.write("gw.pem", &certificate.pem());
        fs::write(scratch.0.join("gw.der"), certificate.der()).unwrap();
        scratch.write(
            "other-ca.pem",
            &params("other", true).self_signed(&other_key).unwrap().pem(),
        );
        scratch.write("gw.key", &gateway_key.serialize_pem());
        scratch.write("other.key", &other_key.serialize_pem());
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2026, 1, 1),
            next_update: date_time_ymd(2026, 12, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: Vec::new(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        scratch.write(
            "middle.crl",
            &list.signed_by(&middle).unwrap().pem().unwrap(),
        );
        scratch
    }

    fn write(&self, name: &str, text: &str) {
        let file = self.0.join(name);
        fs::write(&file, text).unwrap();
        fs::set_permissions(file, fs::Permissions::from_mode(0o600)).unwrap();
    }

    fn parse(&self, text: &str, as_of: AsOf) -> Result<Config, String> {
        let parsed = Config::parse_as_of("gateway.toml", text, &self.0, as_of);
        parsed.map_err(|error| error.to_string())
    }
}

const LOCAL: &str = r#"{ auth = "pubkey", certs = ["gw.pem", "middle.pem"], id = "gw.test" }"#;
const REMOTE: &str = r#"{ auth = "pubkey", cacerts = ["root.pem"], crls = ["middle.crl"], revocation = "ifuri", id = "office.example.org" }"#;

/// The example with certificates in the place of the secret.
fn with(local: &str, remote: &str, more: &str) -> String {
    let one = |text: String, from: &str, to: &str| {
        assert_eq!(text.matches(from).count(), 1, "{from}");
        text.replacen(from, to, 1)
    };
    let text = one(
        EXAMPLE.to_owned(),
        r#"{ auth = "psk", id = "hq.example.org" }"#,
        local,
    );
    let text = one(
        text,
        r#"{ auth = "psk", id = "office.example.org" }"#,
        remote,
    );
    let text = one(
        text,
        "takeover = \"auto\"",
        &format!("takeover = \"auto\"\n{more}"),
    );
    let secret = text.find("[secrets.office]").unwrap();
    let end = text.find("[control]").unwrap();
    format!(
        "{}[secrets.private-gw]\nfile = \"gw.key\"\n\n[secrets.ppk-a]\nid = \"a.ppk\"\nsecret = \"0x00112233\"\n\n{}",
        &text[..secret],
        &text[end..]
    )
}

#[test]
fn certificates_keys_lists_and_ppks_are_read() {
    let scratch = Scratch::new("read");
    let more =
        "reauth_time = \"3h\"\nppk_id = \"*.ppk\"\nppk_required = true\nsend_cert = \"always\"";
    let config = scratch
        .parse(&with(LOCAL, REMOTE, more), AsOf::Refuse(NOON))
        .unwrap();
    assert!(config.warnings.is_empty(), "{:?}", config.warnings);
    let auth = &config.connections[0].auth;
    let LocalAuth::Pubkey(local) = &auth.local else {
        panic!()
    };
    assert_eq!(local.certificates[0].intermediates.len(), 1);
    assert!(
        local.certificates[0].anchor.is_some(),
        "the peer's authority is ours"
    );
    let RemoteAuth::Pubkey(remote) = &auth.remote else {
        panic!()
    };
    assert_eq!(remote.trust.anchors().count(), 1);
    assert_eq!(auth.reauth_time, Duration::from_secs(3 * 3600));
    let ppk = auth.ppk.as_ref().unwrap();
    assert!(ppk.required && ppk.keys.len() == 1);
    assert!(!format!("{config:?}").contains("PRIVATE"));

    // Who is revoked stays in without a new IKE_AUTH.
    let config = scratch
        .parse(&with(LOCAL, REMOTE, ""), AsOf::Refuse(NOON))
        .unwrap();
    assert_eq!(config.warnings.len(), 1, "{:?}", config.warnings);
    assert!(config.warnings[0].contains("crls without reauth_time"));

    // DER does as well; without an id it is the subject, without remote.id anybody certified.
    let local = r#"{ auth = "pubkey", certs = ["gw.der", "middle.pem"] }"#;
    let remote = r#"{ auth = "pubkey", cacerts = ["root.pem"] }"#;
    let config = scratch
        .parse(&with(local, remote, ""), AsOf::Never)
        .unwrap();
    let connection = &config.connections[0];
    assert_eq!(connection.local_id.to_string(), "O=lab, CN=gw.test");
    assert_eq!(connection.remote_id.to_string(), "%any");
}

/// `local`, `remote`, more keys of the connection; then what the title and the help say.
const MISTAKES: &[[&str; 5]] = &[
    [
        r#"{ auth = "pubkey", certs = ["none.pem"] }"#,
        REMOTE,
        "",
        "cannot read",
        "PEM or DER",
    ],
    [
        r#"{ certs = ["garbage.pem"] }"#,
        REMOTE,
        "",
        "no X.509 certificate",
        "openssl x509",
    ],
    [
        r#"{ certs = ["empty.pem"] }"#,
        REMOTE,
        "",
        "holds no certificate",
        "PEM or DER",
    ],
    [
        r#"{ certs = ["middle.pem"] }"#,
        REMOTE,
        "",
        "only certificates of authorities",
        "own certificate",
    ],
    [
        r#"{ certs = [] }"#,
        REMOTE,
        "",
        "missing key `connections.office.local.certs`",
        "gw.pem",
    ],
    [
        r#"{ certs = ["gw.pem"], id = "hq.test" }"#,
        REMOTE,
        "",
        "is not for hq.test",
        "it is for \"gw.test\", \"O=lab, CN=gw.test\"",
    ],
    [
        LOCAL,
        r#"{ cacerts = ["gw.pem"] }"#,
        "",
        "is not an authority's",
        "issued the peer's",
    ],
    [
        LOCAL,
        r#"{ cacerts = ["none.pem"] }"#,
        "",
        "cannot read",
        "PEM or DER",
    ],
    [
        LOCAL,
        r#"{ auth = "pubkey" }"#,
        "",
        "remote.cacerts",
        "ca.pem",
    ],
    [
        LOCAL,
        r#"{ cacerts = ["root.pem"], revocation = "strict" }"#,
        "",
        "strict, and no revocation lists",
        "crls",
    ],
    [
        LOCAL,
        r#"{ cacerts = ["root.pem"], crls = ["gw.pem"] }"#,
        "",
        "no revocation list",
        "PEM or DER",
    ],
    [
        LOCAL,
        r#"{ auth = "eap-tls" }"#,
        "",
        "of EAP only MSCHAPv2 is spoken",
        "eap-mschapv2",
    ],
    [
        r#"{ auth = "psk", certs = ["gw.pem"] }"#,
        REMOTE,
        "",
        "certificates with auth",
        "pubkey",
    ],
    [
        LOCAL,
        r#"{ auth = "psk", cacerts = ["root.pem"] }"#,
        "",
        "cacerts with auth",
        "pubkey",
    ],
    [
        r#"{ auth = "rsa", certs = ["gw.pem"] }"#,
        REMOTE,
        "",
        "no signature of the kind",
        "pubkey",
    ],
    [
        LOCAL,
        REMOTE,
        "ppk_id = \"b.test\"",
        "no PPK is called b.test",
        "[secrets.ppk-",
    ],
];

#[test]
fn what_is_wrong_with_certificates_is_told_with_place_and_fix() {
    let scratch = Scratch::new("wrong");
    let garbage = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    scratch.write("garbage.pem", garbage);
    scratch.write(
        "empty.pem",
        "-----BEGIN NOTHING-----\n-----END NOTHING-----\n",
    );
    for [local, remote, more, title, help] in MISTAKES {
        let parsed = scratch.parse(&with(local, remote, more), AsOf::Never);
        let report = parsed.expect_err(title);
        assert!(
            report.contains(title) && report.contains(help),
            "{title} / {help}:\n{report}"
        );
        assert!(report.contains("gateway.toml:"), "{report}");
    }
}

#[test]
fn a_private_key_must_be_ours_alone_and_fit_the_certificate() {
    let scratch = Scratch::new("key");
    let text = with(LOCAL, REMOTE, "");
    let key = scratch.0.join("gw.key");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o640)).unwrap();
    let report = scratch.parse(&text, AsOf::Never).unwrap_err();
    assert!(
        report.contains("mode 640") && report.contains("chmod 600"),
        "{report}"
    );
    let other = text.replace("gw.key", "other.key");
    let report = scratch.parse(&other, AsOf::Never).unwrap_err();
    assert!(report.contains("no private key for"), "{report}");
    for (content, title) in [
        (
            "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n",
            "encrypted with a passphrase",
        ),
        (
            "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
            "no private key that",
        ),
        ("nothing", "no private key that"),
    ] {
        scratch.write("gw.key", content);
        let report = scratch.parse(&text, AsOf::Never).unwrap_err();
        assert!(report.contains(title), "{report}");
        assert!(!report.contains("AAAA"), "{report}");
    }
}

#[test]
fn what_has_expired_is_an_error_to_the_check_and_a_warning_to_the_daemon() {
    let scratch = Scratch::new("time");
    let text = with(LOCAL, REMOTE, "reauth_time = \"3h\"");
    let year = Duration::from_secs(366 * 86400);
    let report = scratch.parse(&text, AsOf::Refuse(NOON + year)).unwrap_err();
    assert!(
        report.contains("gw.test) has expired") && report.contains("root) has expired"),
        "{report}"
    );
    let report = scratch.parse(&text, AsOf::Refuse(NOON - year)).unwrap_err();
    assert!(report.contains("not valid yet"), "{report}");
    let config = scratch.parse(&text, AsOf::Warn(NOON + year)).unwrap();
    assert!(config.warnings.iter().any(|w| w.contains("has expired")));
    assert!(
        scratch
            .parse(&text, AsOf::Never)
            .unwrap()
            .warnings
            .is_empty()
    );
}

#[test]
fn a_chain_that_the_peer_may_not_know_is_warned_of() {
    let scratch = Scratch::new("chain");
    let other = REMOTE.replace("root.pem", "other-ca.pem");
    let config = scratch
        .parse(&with(LOCAL, &other, ""), AsOf::Never)
        .unwrap();
    assert!(
        config
            .warnings
            .iter()
            .any(|w| w.contains("ends at O=lab, CN=root")),
        "{:?}",
        config.warnings
    );
    let missing = LOCAL.replace(", \"middle.pem\"", "");
    let config = scratch
        .parse(&with(&missing, REMOTE, ""), AsOf::Never)
        .unwrap();
    assert!(
        config
            .warnings
            .iter()
            .any(|w| w.contains("ends at O=lab, CN=middle"))
    );
}

#[test]
fn paths_start_at_the_configuration_s_own_directory() {
    let text = with(LOCAL, REMOTE, "");
    let elsewhere = Config::parse("gateway.toml", &text, Path::new("/nonexistent"));
    assert!(
        elsewhere
            .unwrap_err()
            .to_string()
            .contains("cannot read `/nonexistent/")
    );
}

const USERS: &str = r#"{ auth = "eap-mschapv2", id = "%any", eap_id = "*@corp" }"#;
const USER: &str = r#"{ auth = "eap-mschapv2", id = "laptop.corp", eap_id = "bob@corp" }"#;
const ANCHOR: &str = r#"{ auth = "pubkey", cacerts = ["root.pem"], id = "gw.test" }"#;

/// With a user of either kind of secret, and a child that nobody here starts.
fn with_users(local: &str, remote: &str, more: &str) -> String {
    let users = "[secrets.eap-a]\nid = \"alice@corp\"\nsecret_file = \"alice.password\"\n\n\
                 [secrets.eap-b]\nids = [\"bob@corp\", \"Bob\"]\nsecret = \"builder\"\n\n";
    let text = with(local, remote, more).replace("[control]", &format!("{users}[control]"));
    text.replacen("start_action = \"start\"", "start_action = \"none\"", 1)
}

#[test]
fn users_and_their_passwords_are_read_and_never_shown() {
    let scratch = Scratch::new("users");
    scratch.write("alice.password", "wonderland\n");
    let config = scratch
        .parse(&with_users(LOCAL, USERS, ""), AsOf::Never)
        .unwrap();
    let connection = &config.connections[0];
    let RemoteAuth::Eap(EapUsers::Asked(pattern)) = &connection.auth.remote else {
        panic!()
    };
    let user = |name: &str| Identification::user(name.as_bytes()).unwrap();
    assert!(user("carol@CORP").matches(pattern) && !user("carol").matches(pattern));
    assert_eq!(connection.remote_id, Identification::Any);
    let shown = format!("{config:?}");
    assert!(!shown.contains("wonderland") && !shown.contains("builder"));
    let passwords: Vec<&[u8]> = config.secrets.iter().map(|s| s.secret.as_slice()).collect();
    assert_eq!(passwords, [&b"wonderland"[..], b"builder"]);
    // Not every client asks for the gateway's certificate; other peers do.
    for (remote, more, send) in [
        (USERS, "", SendCertificate::Always),
        (USERS, "send_cert = \"ifasked\"", SendCertificate::IfAsked),
        (REMOTE, "", SendCertificate::IfAsked),
    ] {
        let config = scratch.parse(&with_users(LOCAL, remote, more), AsOf::Never);
        let LocalAuth::Pubkey(own) = &config.unwrap().connections[0].auth.local else {
            panic!()
        };
        assert_eq!(own.send, send, "{remote} {more}");
    }
    // Without eap_id the IKE identity is the name.
    let by_id = with_users(LOCAL, r#"{ auth = "eap-mschapv2" }"#, "");
    let config = scratch.parse(&by_id, AsOf::Never).unwrap();
    let auth = &config.connections[0].auth;
    assert!(matches!(
        auth.remote,
        RemoteAuth::Eap(EapUsers::ByIkeIdentity)
    ));
    // And as a client.
    let config = scratch
        .parse(&with_users(USER, ANCHOR, ""), AsOf::Never)
        .unwrap();
    let auth = &config.connections[0].auth;
    assert!(matches!(&auth.local, LocalAuth::Eap(name) if *name == user("bob@corp")));
}

const PSK: &str = r#"{ auth = "psk", id = "hq.example.org" }"#;

/// `local`, `remote`, more of the connection; what the report has to say.
const USER_MISTAKES: &[[&str; 5]] = &[
    [
        USER,
        r#"{ auth = "pubkey", cacerts = ["root.pem"], id = "%any" }"#,
        "",
        "could ask for the password",
        "name the gateway",
    ],
    [
        PSK,
        USERS,
        "",
        "want to see a certificate of ours",
        "certs = ",
    ],
    [
        USER,
        PSK,
        "",
        "is for a gateway with a certificate",
        "cacerts = ",
    ],
    [
        USER,
        USERS,
        "",
        "want to see a certificate of ours",
        "certs = ",
    ],
    [
        LOCAL,
        USERS,
        "ppk_id = \"a.ppk\"",
        "ppk_id beside EAP",
        "leave ppk_id out",
    ],
    [
        LOCAL,
        r#"{ auth = "eap-mschapv2", eap_id = "*@other" }"#,
        "",
        "no user has a password",
        "[secrets.eap-",
    ],
    [
        r#"{ auth = "eap-mschapv2", eap_id = "carol" }"#,
        ANCHOR,
        "",
        "no password of carol",
        "[secrets.eap-carol]",
    ],
    [
        r#"{ auth = "eap-mschapv2" }"#,
        ANCHOR,
        "",
        "local.eap_id",
        "alice",
    ],
    [
        r#"{ auth = "eap-mschapv2", eap_id = "a b" }"#,
        ANCHOR,
        "",
        "no user's name",
        "blanks",
    ],
    [
        r#"{ auth = "eap-mschapv2", eap_id = "%any" }"#,
        ANCHOR,
        "",
        "no user's name",
        "blanks",
    ],
    [
        r#"{ auth = "eap-mschapv2", certs = ["gw.pem"] }"#,
        ANCHOR,
        "",
        "certificates with auth",
        "pubkey",
    ],
    [
        LOCAL,
        r#"{ auth = "eap-mschapv2", eap_id = "%any", cacerts = ["root.pem"] }"#,
        "",
        "cacerts with auth",
        "leave it out",
    ],
    [
        LOCAL,
        r#"{ auth = "pubkey", cacerts = ["root.pem"], eap_id = "%any" }"#,
        "",
        "eap_id without EAP",
        "eap-mschapv2",
    ],
];

#[test]
fn what_is_wrong_with_users_is_told_with_place_and_fix() {
    let scratch = Scratch::new("wrong-users");
    scratch.write("alice.password", "wonderland");
    for [local, remote, more, title, help] in USER_MISTAKES {
        let parsed = scratch.parse(&with_users(local, remote, more), AsOf::Never);
        let report = parsed.expect_err(title);
        assert!(
            report.contains(title) && report.contains(help),
            "{title} / {help}:\n{report}"
        );
        assert!(report.contains("gateway.toml:"), "{report}");
    }
    let starts = with_users(LOCAL, USERS, "").replacen("\"none\"", "\"start\"", 1);
    for (text, title, help) in [
        (starts, "nobody asks users to log in", "start_action"),
        (
            with_users(LOCAL, USERS, "").replace("id = \"alice@corp\"\n", ""),
            "secrets.eap-a.id",
            "alice",
        ),
        (
            with_users(LOCAL, USERS, "").replace("secret = \"builder\"", "secret = \"0xff00\""),
            "no password that can be typed",
            "256",
        ),
        (
            with_users(LOCAL, USERS, "").replace("\"Bob\"", "\"*\""),
            "no user's name",
            "blanks",
        ),
    ] {
        let report = scratch
            .parse(&text, AsOf::Never)
            .expect_err(title)
            .to_string();
        assert!(
            report.contains(title) && report.contains(help),
            "{title}:\n{report}"
        );
    }
}

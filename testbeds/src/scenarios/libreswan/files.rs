//! What both ends are configured with: four connections, told apart by identities.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::error::LabError;
use crate::gateway;
use crate::process::Program;
use crate::topology::{CLUSTER_OUTSIDE, PEER_OUTSIDE};

/// For pluto.
pub const SECRETS: &str = "@in.psk.test @gateway.test : PSK \"0123456789abcdef\"\n\
    @out.psk.test @gateway.test : PSK \"fedcba9876543210\"\n";

const PSK: &str = "aes_gcm128-sha2_256-dh31";
const CERT: &str = "aes256-sha2_256-dh19";
/// Until it knows who initiates, pluto takes any connection between these addresses.
const EITHER: &str = "aes_gcm128-sha2_256-dh31,aes256-sha2_256-dh19";

/// The words of one `whack --name`, with what authenticates.
macro_rules! whack {
    ($name:literal, $ike:expr, $esp:literal, [$($own:literal),*], $id:literal, $gateway:literal,
     $client:literal, $protected:literal) => {
        &[
            "--name", $name, "--ikev2-allow", "--encrypt", "--tunnel", "--pfs", "--no-esn", "--ikefrag-allow",
            "--ike", $ike, "--esp", $esp, $($own,)* "--id", $id, "--host", PEER_OUTSIDE,
            "--client", $client, "--updown", "/bin/true", "--to", "--id", $gateway, "--host",
            CLUSTER_OUTSIDE, "--client", $protected, "--updown", "/bin/true",
        ]
    };
}

/// pluto's connections.
pub const PEER: &[&[&str]] = &[
    whack!(
        "in-psk",
        PSK,
        "aes_gcm128;dh31",
        ["--psk"],
        "@in.psk.test",
        "@gateway.test",
        "10.1.0.0/24",
        "10.2.0.0/24"
    ),
    whack!(
        "out-psk",
        EITHER,
        "aes_gcm128;dh31",
        ["--psk"],
        "@out.psk.test",
        "@gateway.test",
        "10.1.1.0/24",
        "10.2.0.0/24"
    ),
    whack!(
        "in-cert",
        CERT,
        "aes_gcm256;dh19",
        [
            "--rsasig",
            "--rsa-sha2_256",
            "--cert",
            "peer",
            "--sendcert",
            "always"
        ],
        "@in.cert.test",
        "@gateway.test",
        "10.1.2.0/24",
        "10.2.0.0/24"
    ),
    whack!(
        "out-cert",
        EITHER,
        "aes_gcm256;dh19",
        [
            "--rsasig",
            "--rsa-sha2_256",
            "--cert",
            "peer",
            "--sendcert",
            "always"
        ],
        "@out.cert.test",
        "@gateway.test",
        "10.1.3.0/24",
        "10.2.0.0/24"
    ),
];

/// One authority, a certificate for each end, and the peer's as PKCS#12.
pub fn certificates(directory: &Path) -> Result<(), LabError> {
    let script = r#"
set -e
cd "$1"
openssl req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.crt -subj /C=CH/O=lab/CN=ca -days 3650
issue() {
  openssl req -newkey rsa:3072 -nodes -keyout "$1.key" -out "$1.csr" -subj "/C=CH/O=lab/CN=$1"
  printf 'subjectAltName=%s\nkeyUsage=digitalSignature\nextendedKeyUsage=serverAuth,clientAuth\n' "$2" >"$1.ext"
  openssl x509 -req -in "$1.csr" -CA ca.crt -CAkey ca.key -CAcreateserial -out "$1.crt" -days 3650 -extfile "$1.ext"
}
issue gateway DNS:gateway.test
issue peer DNS:in.cert.test,DNS:out.cert.test
openssl pkcs12 -export -in peer.crt -inkey peer.key -certfile ca.crt -name peer -passout pass: -out peer.p12
"#;
    let shown = directory.display().to_string();
    // Two RSA keys: on a busy machine they take their time.
    Program::new(["sh", "-c", script, "issue", &shown]).run_for_long()?;
    let private = std::fs::Permissions::from_mode(0o600);
    std::fs::set_permissions(directory.join("gateway.key"), private)
        .map_err(LabError::io("the gateway's key"))
}

/// A member's configuration: cookies from everybody, as pluto is told to ask, and small fragments.
pub fn member(index: usize, own: &Path, files: &Path) -> String {
    let files = files.display();
    let psk = |name: &str| {
        let direction = name.trim_end_matches("-psk");
        format!(
            "local = {{ auth = \"psk\", id = \"gateway.test\" }}\n\
             remote = {{ auth = \"psk\", id = \"{direction}.psk.test\" }}\n\
             proposals = [\"aes128gcm16-prfsha256-x25519\"]\n"
        )
    };
    // pluto asks for no certificate once it has seen one, and refuses a signature without.
    let cert = |name: &str| {
        let direction = name.trim_end_matches("-cert");
        format!(
            "local = {{ auth = \"pubkey\", id = \"gateway.test\", certs = [\"{files}/gateway.crt\"] }}\n\
             remote = {{ auth = \"pubkey\", id = \"{direction}.cert.test\", cacerts = [\"{files}/ca.crt\"] }}\n\
             proposals = [\"aes256-sha256-ecp256\"]\nsend_cert = \"always\"\nfragment_size = 576\n"
        )
    };
    let child = |name: &str, esp: &str, net: u8, lifetime: &str, starts: &str| {
        format!(
            "[connections.{name}.children.net]\nesp_proposals = [\"{esp}\"]\n\
             local_ts = [\"10.2.0.0/24\"]\nremote_ts = [\"10.1.{net}.0/24\"]\n\
             start_action = \"{starts}\"\n{lifetime}"
        )
    };
    let mut text = String::new();
    for (name, net, starts, ike_lifetime, child_lifetime) in [
        ("in-psk", 0, "none", "", ""),
        ("out-psk", 1, "start", "", "rekey_time = \"8s\"\n"),
        ("in-cert", 2, "none", "", ""),
        ("out-cert", 3, "start", "rekey_time = \"8s\"\n", ""),
    ] {
        let (auth, esp) = match name.ends_with("-psk") {
            true => (psk(name), "aes128gcm16-x25519"),
            false => (cert(name), "aes256gcm16-ecp256"),
        };
        text.push_str(&format!(
            "[connections.{name}]\nlocal_addrs = [\"{CLUSTER_OUTSIDE}\"]\n\
             remote_addrs = [\"{PEER_OUTSIDE}\"]\ntakeover = \"auto\"\n{ike_lifetime}{auth}{}",
            child(name, esp, net, child_lifetime, starts)
        ));
    }
    text.push_str(&format!(
        "[ike]\ncookies = \"always\"\n\n[secrets.private-gateway]\nfile = \"{files}/gateway.key\"\n\
         [secrets.in]\nids = [\"in.psk.test\"]\nsecret = \"0123456789abcdef\"\n\
         [secrets.out]\nids = [\"out.psk.test\"]\nsecret = \"fedcba9876543210\"\n"
    ));
    let text = gateway::configuration(index, own, gateway::PATIENT, &text);
    gateway::with_key_log(own, &text)
}

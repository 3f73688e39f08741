//! `hitless run` as a process: what it checks, in which order, and what it says.
//!
//! Order: control socket, epoch file, sync socket, ports. Ports need an interface, which these
//! tests do not have; whoever gets that far is told which interface is missing.

use std::net::UdpSocket;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use hitless::api::Server;
use hitless::durable::{DurableFile, Identity};
use hitless_sa::MemberId;

/// A directory that is gone afterwards.
struct Place(PathBuf);

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl Place {
    fn new(name: &str) -> Place {
        let path = std::env::temp_dir().join(format!("hitless-run-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        Place(path)
    }

    fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// A member on loopback whose port has this interface.
    fn config(&self, sync: &str, interface: &str) -> PathBuf {
        let path = self.join("hitless.toml");
        let (state, socket) = (self.join("state"), self.join("run/control.sock"));
        let text = format!(
            r#"
[cluster]
name = "lab"
id = 1
members = [
  {{ id = 1, priority = 200, sync_addr = "{sync}" }},
  {{ id = 2, priority = 100, sync_addr = "127.0.0.2:4510" }},
]
secret = "between the members, long enough"
state_dir = "{}"
[control]
socket = "{}"
[ports.outside]
driver = "af_xdp"
interface = "{interface}"
mac = "02:00:5e:00:01:01"
addresses = ["192.0.2.1/24"]
protected = false
[ports.protected]
driver = "af_xdp"
interface = "{interface}2"
mac = "02:00:5e:00:01:02"
addresses = ["10.2.0.1/24"]
protected = true
[connections.tunnel]
local_addrs = ["192.0.2.1"]
remote_addrs = ["192.0.2.2"]
proposals = ["aes128gcm16-prfsha256-x25519"]
local = {{ auth = "psk", id = "cluster.lab" }}
remote = {{ auth = "psk", id = "peer.lab" }}
[connections.tunnel.children.net]
esp_proposals = ["aes128gcm16-x25519-esn"]
local_ts = ["10.2.0.0/24"]
remote_ts = ["10.1.0.0/24"]
[secrets.tunnel]
secret = "open sesame, long enough"
"#,
            state.display(),
            socket.display()
        );
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        path
    }
}

fn command(config: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hitless"));
    command.arg("run").arg("--config").arg(config);
    command.env_remove("HITLESS_LOG").env_remove("JOURNAL_STREAM");
    command
}

fn run(config: &Path) -> (Output, String) {
    let output = command(config).output().unwrap();
    let text = String::from_utf8(output.stderr.clone()).unwrap();
    (output, text)
}

/// An address with a port of loopback that was free a moment ago.
fn free_address() -> String {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.local_addr().unwrap().to_string()
}

#[test]
fn a_missing_interface_is_named_with_its_port() {
    let place = Place::new("interface");
    let (output, text) = run(&place.config(&free_address(), "nosuch0"));
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("ports.outside") && text.contains("nosuch0"), "{text}");
    assert!(text.contains("does not exist") && text.contains("ip link"), "{text}");
    // It left no socket behind; the incarnation was used up.
    assert!(!place.join("run/control.sock").exists());
    assert!(place.join("state/epoch").exists());
}

#[test]
fn a_second_daemon_on_the_control_socket_is_refused_before_all_else() {
    let place = Place::new("socket");
    let config = place.config(&free_address(), "nosuch0");
    let server = Server::bind(&place.join("run/control.sock")).unwrap();
    let (output, text) = run(&config);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("another hitless daemon") && text.contains("control.sock"), "{text}");
    // Nothing of the first one was touched: no incarnation, and its socket is still there.
    assert!(!place.join("state").exists());
    assert!(place.join("run/control.sock").exists());
    drop(server);
    let (_, text) = run(&config);
    assert!(text.contains("nosuch0"), "{text}");
}

#[test]
fn a_second_daemon_on_the_state_directory_is_refused() {
    let place = Place::new("state");
    let config = place.config(&free_address(), "nosuch0");
    let identity = Identity {
        cluster: "lab".to_owned(),
        member: MemberId(1),
    };
    let file = DurableFile::open(&place.join("state"), identity).unwrap();
    let (output, text) = run(&config);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("is locked") && text.contains("cluster.state_dir"), "{text}");
    drop(file);
    let (_, text) = run(&config);
    assert!(text.contains("nosuch0"), "{text}");
}

#[test]
fn another_members_state_directory_is_refused() {
    let place = Place::new("foreign");
    let identity = Identity {
        cluster: "lab".to_owned(),
        member: MemberId(2),
    };
    drop(DurableFile::open(&place.join("state"), identity).unwrap());
    let (output, text) = run(&place.config(&free_address(), "nosuch0"));
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("belongs to") && text.contains("cluster.id"), "{text}");
}

#[test]
fn a_damaged_epoch_file_is_refused_and_kept() {
    let place = Place::new("damaged");
    let config = place.config(&free_address(), "nosuch0");
    run(&config);
    let path = place.join("state/epoch");
    let mut octets = std::fs::read(&path).unwrap();
    let last = octets.len() - 2;
    octets[last] ^= 1;
    std::fs::write(&path, &octets).unwrap();
    let (output, text) = run(&config);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("damaged") && text.contains("never used"), "{text}");
    assert_eq!(std::fs::read(&path).unwrap(), octets);
}

#[test]
fn a_sync_address_in_use_is_named_with_a_remedy() {
    let place = Place::new("sync");
    let other = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = other.local_addr().unwrap().to_string();
    let (output, text) = run(&place.config(&address, "nosuch0"));
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains(&address) && text.contains("stop that one first"), "{text}");
}

#[test]
fn a_sync_address_that_the_host_lacks_is_named_with_a_remedy() {
    let place = Place::new("address");
    // RFC 5737: documentation only, so no host has it.
    let (output, text) = run(&place.config("203.0.113.77:4510", "nosuch0"));
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("203.0.113.77:4510") && text.contains("cluster.sync_listen"), "{text}");
}

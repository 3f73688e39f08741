//! `hitless run` as a process: what it checks, in which order, and what it says.
//!
//! Order: control socket, epoch file, sync socket, ports. Where a test is about what comes before
//! the ports, the interface does not exist, and whoever gets that far is told so. The tests of a
//! running daemon make a network namespace that ends with it; without the right to they do nothing.

use std::io::{BufRead, BufReader, Lines};
use std::net::UdpSocket;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Output, Stdio};

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
    command
        .env_remove("HITLESS_LOG")
        .env_remove("JOURNAL_STREAM");
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
    assert!(
        text.contains("ports.outside") && text.contains("nosuch0"),
        "{text}"
    );
    assert!(
        text.contains("does not exist") && text.contains("ip link"),
        "{text}"
    );
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
    assert!(
        text.contains("another hitless daemon") && text.contains("control.sock"),
        "{text}"
    );
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
    assert!(
        text.contains("is locked") && text.contains("cluster.state_dir"),
        "{text}"
    );
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
    assert!(
        text.contains("belongs to") && text.contains("cluster.id"),
        "{text}"
    );
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
    assert!(
        text.contains("damaged") && text.contains("never used"),
        "{text}"
    );
    assert_eq!(std::fs::read(&path).unwrap(), octets);
}

#[test]
fn a_sync_address_in_use_is_named_with_a_remedy() {
    let place = Place::new("sync");
    let other = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = other.local_addr().unwrap().to_string();
    let (output, text) = run(&place.config(&address, "nosuch0"));
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(
        text.contains(&address) && text.contains("stop that one first"),
        "{text}"
    );
}

#[test]
fn a_sync_address_that_the_host_lacks_is_named_with_a_remedy() {
    let place = Place::new("address");
    // RFC 5737: documentation only, so no host has it.
    let (output, text) = run(&place.config("203.0.113.77:4510", "nosuch0"));
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(
        text.contains("203.0.113.77:4510") && text.contains("cluster.sync_listen"),
        "{text}"
    );
}

/// In a network namespace of its own, with interfaces `v0` and `v02`; `None` without the right.
fn in_namespace(command: &str) -> Option<Command> {
    let allowed = Command::new("unshare").args(["--net", "true"]).output();
    if !allowed.is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: no right to make a network namespace");
        return None;
    }
    let script = format!(
        "set -e; ip link set lo up; for i in v0 v02; do \
         ip link add $i type veth peer name p$i; ip link set $i up; ip link set p$i up; done; \
         exec {command}"
    );
    let mut shell = Command::new("unshare");
    shell.args(["--net", "sh", "-c", &script]);
    shell.env_remove("HITLESS_LOG").env_remove("JOURNAL_STREAM");
    Some(shell)
}

/// A daemon that is killed if its test fails.
struct Daemon {
    process: Child,
    log: Option<Lines<BufReader<ChildStderr>>>,
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Daemon {
    fn start(config: &Path) -> Option<Daemon> {
        let hitless = env!("CARGO_BIN_EXE_hitless");
        let mut command = in_namespace(&format!("{hitless} run --config {}", config.display()))?;
        let mut process = command.stderr(Stdio::piped()).spawn().unwrap();
        let log = BufReader::new(process.stderr.take().unwrap()).lines();
        Some(Daemon {
            process,
            log: Some(log),
        })
    }

    /// Reads the log up to a line with these words, or to its end.
    fn says(&mut self, words: &str) -> bool {
        let mut log = self.log.iter_mut().flatten();
        log.any(|line| line.unwrap().contains(words))
    }

    fn signal(&self, name: &str) {
        let id = self.process.id().to_string();
        let status = Command::new("kill")
            .args(["-s", name, &id])
            .status()
            .unwrap();
        assert!(status.success());
    }

    /// The greatest core file that the kernel would write, now and at most.
    fn core_limit(&self) -> [String; 2] {
        let limits = format!("/proc/{}/limits", self.process.id());
        let limits = std::fs::read_to_string(limits).unwrap();
        let core = limits
            .lines()
            .find_map(|l| l.strip_prefix("Max core file size"));
        let mut words = core.unwrap().split_whitespace().map(str::to_owned);
        [words.next().unwrap(), words.next().unwrap()]
    }

    fn ends(mut self) -> Option<i32> {
        self.process.wait().unwrap().code()
    }
}

#[test]
fn sigterm_and_sigint_end_a_member_in_order() {
    for (signal, wait_for) in [("TERM", "this member is active"), ("INT", "started")] {
        let place = Place::new(&format!("signal-{signal}"));
        let Some(mut daemon) = Daemon::start(&place.config("127.0.0.1:4510", "v0")) else {
            return;
        };
        assert!(daemon.says(wait_for));
        assert!(place.join("run/control.sock").exists());
        assert_eq!(
            daemon.core_limit(),
            ["0", "0"],
            "S6: keys are in its memory"
        );
        daemon.signal(signal);
        assert!(daemon.says("asked to end"));
        assert!(daemon.says("stopped"));
        assert_eq!(daemon.ends(), Some(0));
        assert!(!place.join("run/control.sock").exists());
    }
}

#[test]
fn a_log_that_nobody_reads_ends_no_member() {
    let place = Place::new("deaf");
    let Some(mut daemon) = Daemon::start(&place.config("127.0.0.1:4510", "v0")) else {
        return;
    };
    assert!(daemon.says("this member is active"));
    daemon.log = None;
    daemon.signal("TERM");
    assert_eq!(daemon.ends(), Some(0));
    assert!(!place.join("run/control.sock").exists());
}

/// Runs `hitless` with these words; its exit code and what it said.
type Ask<'a> = dyn Fn(&[&str]) -> (Option<i32>, String) + 'a;

/// Every view, a trace, and a capture that no packet comes to.
fn operator_looks(place: &Place, ask: &Ask<'_>) {
    for (words, part) in [
        (
            &["show", "drops", "--all"] as &[&str],
            "XfrmInStateSeqError",
        ),
        (&["show", "sa"], "no Child SA is carried here"),
        (&["show", "workers"], "worker 0, AEAD "),
        (&["show", "workers", "--json"], "\"packets_per_burst\""),
        (&["show", "routes"], "192.0.2.0/24"),
        (&["show", "policies"], "PROTECT"),
        (&["show", "neighbours"], "no neighbour is known"),
        (&["trace", "show"], "nothing is traced"),
        (&["trace", "add", "3"], "tracing the next 3 packets"),
        (&["trace", "show"], "0 packets so far; 3 of each worker"),
        (&["trace", "clear"], "nothing is traced"),
    ] {
        let (code, text) = ask(words);
        assert_eq!(code, Some(0), "{words:?}: {text}");
        assert!(text.contains(part), "{words:?}: {text}");
    }
    let file = place.join("a.pcapng");
    let capture = ["capture", file.to_str().unwrap(), "--seconds", "0"];
    let (code, text) = ask(&capture);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains(" packets captured, 0 lost"), "{text}");
    let octets = std::fs::read(&file).unwrap();
    assert_eq!(octets.first_chunk(), Some(&[0x0a, 0x0d, 0x0d, 0x0a]));
    let mode = std::fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let (code, text) = ask(&capture);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("exists"), "{text}");
    assert_eq!(std::fs::read(&file).unwrap(), octets, "not touched");
    // The capture whose file could not be made has ended: another one may begin.
    let other = place.join("b.pcapng");
    let (code, text) = ask(&["capture", other.to_str().unwrap(), "--seconds", "0"]);
    assert_eq!(code, Some(0), "{text}");
}

/// What acts on IKE: with nobody to talk to, and after the file has changed.
fn operator_orders(config: &Path, ask: &Ask<'_>) {
    let orders = |cases: &[(&[&str], i32, &str)]| {
        for (words, expected, part) in cases {
            let (code, text) = ask(words);
            assert_eq!(code, Some(*expected), "{words:?}: {text}");
            assert!(text.contains(part), "{words:?}: {text}");
        }
    };
    orders(&[
        (
            &["initiate", "--child", "nothing"],
            1,
            "no connection has a child nothing",
        ),
        (
            &["initiate", "--child", "net", "--timeout", "1"],
            1,
            "still initiating tunnel.net: no answer yet",
        ),
        (
            &["initiate", "--child", "net", "--timeout", "0"],
            0,
            "initiating tunnel.net; `hitless list-sas` shows it",
        ),
        (
            &["redirect", "--ike", "nobody", "--to", "203.0.113.9"],
            1,
            "no such SA",
        ),
        (
            &["redirect", "--ike", "tunnel", "--to", "203.0.113.9"],
            1,
            "none was redirected to 203.0.113.9",
        ),
        (
            &["redirect", "--ike", "tunnel", "--to", "0.0.0.0"],
            1,
            "no address of a gateway",
        ),
        (&["redirect", "--ike", "tunnel"], 2, "--to"),
        (&["redirect", "--to", "203.0.113.9"], 2, "--ike"),
        (
            &["redirect", "--ike", "tunnel", "--to", "elsewhere"],
            2,
            "elsewhere",
        ),
        (&["terminate", "--ike", "tunnel"], 0, "closed 1 IKE_SA"),
        (&["rekey", "--child", "net"], 1, "no such SA"),
        (&["reload"], 0, "connections loaded: 1;"),
    ]);
    let text = std::fs::read_to_string(config).unwrap();
    std::fs::write(config, text.replace("10.1.0.0/24", "10.1.0.0/33")).unwrap();
    orders(&[(&["reload"], 1, "10.1.0.0/33")]);
    let more = text.replace("[secrets.tunnel]", "[connections.tunnel.children.more]\nesp_proposals = [\"aes128gcm16\"]\nlocal_ts = [\"10.2.0.0/24\"]\nremote_ts = [\"10.3.0.0/24\"]\n[secrets.tunnel]");
    std::fs::write(config, more).unwrap();
    orders(&[
        (&["reload"], 0, "connections loaded: 1;"),
        (&["show", "policies"], 0, "10.3.0.0"),
    ]);
    std::fs::write(config, text.replace("priority = 200", "priority = 210")).unwrap();
    orders(&[(&["reload"], 1, "restart")]);
    std::fs::write(config, text).unwrap();
}

#[test]
fn a_running_member_answers_and_a_second_one_of_its_kind_is_refused() {
    let place = Place::new("twice");
    let config = place.config("127.0.0.1:4510", "v0");
    let Some(mut daemon) = Daemon::start(&config) else {
        return;
    };
    assert!(daemon.says("this member is active"));
    let socket = place.join("run/control.sock").display().to_string();
    let ask = |words: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hitless"));
        let output = command
            .args(words)
            .args(["--socket", &socket])
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        (
            output.status.code(),
            text + &String::from_utf8(output.stderr).unwrap(),
        )
    };
    let (code, text) = ask(&["status"]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("active") && text.contains("lab"), "{text}");
    assert_eq!(ask(&["list-sas"]), (Some(0), "no IKE SA\n".to_owned()));
    let (code, text) = ask(&["list-sas", "--ike", "nobody"]);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("no connection \"nobody\""), "{text}");
    operator_looks(&place, &ask);
    operator_orders(&config, &ask);
    // Nobody to hand over to: refused with the reason, and nothing happens.
    let (code, text) = ask(&["switchover"]);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("no standby"), "{text}");
    let (output, text) = run(&config);
    assert_eq!(output.status.code(), Some(1));
    assert!(text.contains("another hitless daemon"), "{text}");
    assert_eq!(ask(&["status"]).0, Some(0));
    daemon.signal("TERM");
    assert!(daemon.says("stopped"));
    assert_eq!(daemon.ends(), Some(0));
}

/// Every driver that a daemon can have, opened from the configuration; the status says what it came
/// to.
#[test]
fn ports_of_every_driver_are_opened_and_the_status_says_what_they_came_to() {
    let capture = "driver = \"pcap\"\nwrite = \"CAPTURE\"\n";
    for (name, changes, expected) in [
        ("xdp", ["", ""], ["v0 af_xdp native", "v02 af_xdp native"]),
        (
            "wish",
            ["mode = \"skb\"\n", "zero_copy = true\n"],
            ["v0 af_xdp skb", "v02 af_xdp native"],
        ),
        (
            "packet",
            ["driver = \"af_packet\"\n", "driver = \"tap\"\n"],
            ["v0 af_packet,", "v02x tap,"],
        ),
        (
            "capture",
            [capture, "driver = \"tap\"\nmtu = 9000\n"],
            ["outside pcap,", "v02x tap,"],
        ),
    ] {
        let place = Place::new(&format!("drivers-{name}"));
        let config = place.config("127.0.0.1:4510", "v0");
        let mut text = std::fs::read_to_string(&config).unwrap();
        text.push_str("[dataplane]\nframes = 2048\njumbo_packets = 64\n");
        for (interface, change) in [("v0", changes[0]), ("v02", changes[1])] {
            let old = format!("driver = \"af_xdp\"\ninterface = \"{interface}\"\n");
            let new = if change.contains("tap") {
                // A name that no interface has yet.
                format!("{change}interface = \"{interface}x\"\n")
            } else if change.contains("pcap") {
                change.replace("CAPTURE", &place.join("out.pcapng").display().to_string())
            } else if change.contains("driver") {
                format!("{change}interface = \"{interface}\"\n")
            } else {
                format!("{old}{change}")
            };
            assert!(text.contains(&old));
            text = text.replace(&old, &new);
        }
        std::fs::write(&config, text).unwrap();
        let Some(mut daemon) = Daemon::start(&config) else {
            return;
        };
        assert!(daemon.says("this member is active"), "{name}");
        let output = Command::new(env!("CARGO_BIN_EXE_hitless"))
            .args(["status", "--socket"])
            .arg(place.join("run/control.sock"))
            .output()
            .unwrap();
        let status = String::from_utf8(output.stdout).unwrap();
        for words in expected {
            assert!(status.contains(words), "{name}: {status}");
        }
        daemon.signal("TERM");
        assert!(daemon.says("stopped"));
        assert_eq!(daemon.ends(), Some(0));
        if name == "capture" {
            // Gratuitous ARP of the active member, at least.
            let octets = std::fs::read(place.join("out.pcapng")).unwrap();
            let reader = hitless_dataplane::pcap::PcapReader::new(&octets).unwrap();
            assert!(reader.map(Result::unwrap).count() > 0);
        }
    }
}

/// What the daemon says as it refuses to run without a privilege, once `chown` has had these words.
fn run_as_nobody(place: &Place, config: &Path, owned: &str) -> Option<String> {
    // Where nobody can read it, whatever the way to the build is.
    let hitless = place.join("hitless");
    std::fs::copy(env!("CARGO_BIN_EXE_hitless"), &hitless).unwrap();
    let script = format!(
        "chown {owned}; exec setpriv --reuid 65534 --regid 65534 --clear-groups \
         --inh-caps=-all {} run --config {}",
        hitless.display(),
        config.display()
    );
    let output = in_namespace(&format!("sh -c '{script}'"))?
        .output()
        .unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    Some(text)
}

#[test]
fn without_privileges_it_says_which_capabilities_are_missing() {
    let place = Place::new("nobody");
    let config = place.config("127.0.0.1:4510", "v0");
    let Some(text) = run_as_nobody(
        &place,
        &config,
        &format!("-R 65534:65534 {}", place.0.display()),
    ) else {
        return;
    };
    assert!(
        text.contains("ports.outside") && text.contains("not permitted"),
        "{text}"
    );
    for capability in ["CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_BPF", "CAP_IPC_LOCK"] {
        assert!(text.contains(capability), "{capability}: {text}");
    }
}

#[test]
fn without_privileges_a_socket_in_a_closed_directory_is_refused_with_a_remedy() {
    let place = Place::new("closed");
    let config = place.config("127.0.0.1:4510", "v0");
    let owned = format!("65534:65534 {}", config.display());
    let Some(text) = run_as_nobody(&place, &config, &owned) else {
        return;
    };
    assert!(
        text.contains("Permission denied") && text.contains("run as root"),
        "{text}"
    );
    assert!(text.contains("control.socket"), "{text}");
}

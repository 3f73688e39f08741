//! The members of a hitless cluster in their namespaces: the real daemon, `hitless run`, over
//! AF_XDP ports on veth pairs.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::clock;
use crate::error::LabError;
use crate::netns::Namespace;
use crate::process::{Process, Program};
use crate::topology::{Addresses, INSIDE, OUTSIDE, SYNC, Topology, V4, WITNESS};
use crate::tshark::Listed;

const CONFIGURATION: &str = "hitless.toml";
const KEYS: &str = "keys";
/// The one connection of most scenarios.
pub const CONNECTION: &str = "peer";
const READY: Duration = Duration::from_secs(10);
/// How far before everything else on the machine.
const NICE: &str = "-15";
/// Both members share one or two cores with the peer.
pub const PATIENT: &str = "heartbeat = \"50ms\"\nmissed = 4";

/// What differs from scenario to scenario.
#[derive(Clone, Copy, Debug)]
pub struct Settings<'a> {
    pub at: &'a Addresses,
    pub proposals: &'a str,
    pub esp_proposals: &'a str,
    pub takeover: &'a str,
    pub local_id: &'a str,
    pub remote_id: &'a str,
    pub secret: &'a str,
    pub dpd_delay: Duration,
    /// `start` if it initiates.
    pub start_action: &'a str,
}

/// One running member.
#[derive(Debug)]
pub struct Member {
    daemon: Process,
    binary: PathBuf,
    socket: PathBuf,
    listed: RefCell<Listed>,
}

impl Member {
    /// Starts member `index` (0 or 1) and waits until it answers on its control socket, which is
    /// `<directory>/m<N>/hitless.sock`; with these variables in its environment.
    pub fn start_with(
        binary: &Path,
        lab: &Topology,
        index: usize,
        directory: &Path,
        text: &str,
        environment: &[(&str, PathBuf)],
    ) -> Result<Self, LabError> {
        let name = format!("m{}", index + 1);
        let directory = directory.join(&name);
        write_configuration(&directory, text)?;
        Self::run(binary, &lab.members[index], &name, &directory, environment)
    }

    /// The same where the configuration has been written, for a gateway of this name, whose control
    /// socket is `<directory>/hitless.sock`.
    pub fn run(
        binary: &Path,
        namespace: &Namespace,
        name: &str,
        directory: &Path,
        environment: &[(&str, PathBuf)],
    ) -> Result<Self, LabError> {
        Self::run_as("run", binary, namespace, name, directory, environment)
    }

    /// The same for a witness, whose configuration is written here.
    pub fn witness(
        binary: &Path,
        namespace: &Namespace,
        directory: &Path,
        heartbeats: &str,
    ) -> Result<Self, LabError> {
        let own = directory.join("witness");
        let text = format!("{}{}", cluster(3, &own, heartbeats, true), control(&own));
        write_configuration(&own, &text)?;
        Self::run_as("witness", binary, namespace, "witness", &own, &[])
    }

    fn run_as(
        word: &str,
        binary: &Path,
        namespace: &Namespace,
        name: &str,
        directory: &Path,
        environment: &[(&str, PathBuf)],
    ) -> Result<Self, LabError> {
        let shown = binary.display().to_string();
        let file = directory.join(CONFIGURATION).display().to_string();
        // A gateway does not share its cores with a thousand peers as it does here.
        let words = ["nice", "-n", NICE, &shown, word, "--config", &file];
        let mut daemon = Program::new(words).inside(namespace);
        for (variable, value) in environment {
            daemon = daemon.env(variable, value);
        }
        let mut member = Self {
            daemon: daemon.spawn(name, directory)?,
            binary: binary.to_owned(),
            socket: directory.join("hitless.sock"),
            listed: RefCell::default(),
        };
        clock::until(&format!("{name} answering `hitless status`"), READY, || {
            member.daemon.check_running()?;
            Ok(member.status().ok().map(drop))
        })?;
        Ok(member)
    }

    /// What `hitless status --json` prints.
    pub fn status(&self) -> Result<serde_json::Value, LabError> {
        self.ask(&["status"])
    }

    /// What `hitless cluster status --json` prints.
    pub fn cluster(&self) -> Result<serde_json::Value, LabError> {
        self.ask(&["cluster", "status"])
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.daemon.id()
    }

    /// The id of its thread of this name.
    pub fn thread(&self, name: &str) -> Result<u32, LabError> {
        let tasks = format!("/proc/{}/task", self.id());
        let threads = std::fs::read_dir(&tasks).map_err(LabError::io(&tasks))?;
        let named = threads.flatten().find(|thread| {
            let comm = std::fs::read_to_string(thread.path().join("comm"));
            comm.is_ok_and(|comm| comm.trim() == name)
        });
        let id = named.and_then(|thread| thread.file_name().to_str()?.parse().ok());
        id.ok_or_else(|| LabError::Usage(format!("{tasks}: no thread is called {name}")))
    }

    /// What `hitless list-sas --json` prints.
    pub fn list_sas(&self) -> Result<Vec<serde_json::Value>, LabError> {
        let value = self.ask(&["list-sas"])?;
        let list = value.as_array().or_else(|| value["ike_sas"].as_array());
        let list = list.cloned().ok_or_else(|| LabError::Unreadable {
            what: "hitless list-sas --json".to_owned(),
            detail: value.to_string(),
        })?;
        let mut listed = self.listed.borrow_mut();
        for sa in list.iter().filter(|sa| sa["state"] == "ESTABLISHED") {
            let word = |name: &str| sa[name].as_str().unwrap_or_default();
            let [initiator, responder] = ["initiator_spi", "responder_spi"].map(word);
            listed.note(initiator, responder, word("algorithms"));
        }
        Ok(list)
    }

    /// All IKE SAs that have been established when it was asked.
    pub fn listed(&self) -> Listed {
        self.listed.borrow().clone()
    }

    /// Its established IKE SAs of a connection.
    pub fn established(&self, connection: &str) -> Result<Vec<serde_json::Value>, LabError> {
        let mut sas = self.list_sas()?;
        sas.retain(|sa| sa["name"] == connection && sa["state"] == "ESTABLISHED");
        Ok(sas)
    }

    /// The SPIs of all its established IKE SAs, the initiator's first.
    pub fn established_spis(&self) -> Result<BTreeSet<[u64; 2]>, LabError> {
        let sas = self.list_sas()?.into_iter();
        let established = sas.filter(|sa| sa["state"] == "ESTABLISHED");
        let spi = |spi: &serde_json::Value| hex(spi.as_str().unwrap_or_default());
        let spis = established.map(|sa| [spi(&sa["initiator_spi"]), spi(&sa["responder_spi"])]);
        Ok(spis.collect())
    }

    /// Those that have a Child SA.
    pub fn tunnels(&self, connection: &str) -> Result<Vec<serde_json::Value>, LabError> {
        let mut sas = self.established(connection)?;
        sas.retain(|sa| sa["children"].as_array().is_some_and(|c| !c.is_empty()));
        Ok(sas)
    }

    fn ask(&self, words: &[&str]) -> Result<serde_json::Value, LabError> {
        let text = self.order(&[words, &["--json"]].concat())?;
        serde_json::from_str(&text).map_err(|error| LabError::Unreadable {
            what: format!("hitless {} --json", words.join(" ")),
            detail: format!("{error} in {text}"),
        })
    }

    /// `active`, `standby`, `learning` and so on.
    pub fn role(&self) -> Result<String, LabError> {
        let status = self.status()?;
        Ok(status["role"].as_str().unwrap_or_default().to_owned())
    }

    /// Waits until it leads.
    pub fn wait_until_active(&mut self, limit: Duration) -> Result<(), LabError> {
        clock::until("an active member", limit, || {
            self.check_running()?;
            Ok((self.role()? == "active").then_some(()))
        })
    }

    /// Leaves the status beside the log, for whoever has to find out what went wrong.
    pub fn keep_status(&self, moment: &str) -> Result<(), LabError> {
        let file = self.socket.with_file_name(format!("status-{moment}.json"));
        let text = format!("{:#}", self.status()?);
        std::fs::write(file, text).map_err(LabError::io("keeping the status"))
    }

    /// SIGKILL; gives the moment.
    pub fn kill(&mut self) -> Result<Duration, LabError> {
        self.daemon.kill()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: i32) -> Result<(), LabError> {
        self.daemon.signal(signal)
    }

    /// Asks it to end, and waits.
    pub fn shut_down(&mut self) -> Result<Duration, LabError> {
        let moment = clock::wall();
        self.daemon.end(libc::SIGTERM, READY)?;
        Ok(moment)
    }

    /// Lets the other member lead.
    pub fn switch_over(&self) -> Result<String, LabError> {
        self.order(&["switchover"])
    }

    /// Gives the order `hitless <words>`.
    pub fn order(&self, words: &[&str]) -> Result<String, LabError> {
        let binary = self.binary.display().to_string();
        let socket = self.socket.display().to_string();
        let first = std::iter::once(binary.as_str());
        let words = first.chain(words.iter().copied());
        Program::new(words.chain(["--socket", &socket])).run()
    }

    pub fn check_running(&mut self) -> Result<(), LabError> {
        self.daemon.check_running()
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        self.daemon.log()
    }

    /// Waits until its log has this text.
    pub fn wait_for_output(&mut self, text: &str, limit: Duration) -> Result<(), LabError> {
        self.daemon.wait_for_output(text, limit)
    }
}

/// An SPI as programs print it.
pub fn hex(spi: &str) -> u64 {
    u64::from_str_radix(spi.trim_start_matches("0x"), 16).unwrap_or_default()
}

/// The SPIs of an IKE SA as `hitless list-sas --json` prints it, in one word.
pub fn spis(sa: &serde_json::Value) -> String {
    format!("{}{}", sa["initiator_spi"], sa["responder_spi"])
}

/// The SPIs of the IKE SA, if it is one.
pub fn only_spis(sas: &[serde_json::Value]) -> Option<String> {
    match sas {
        [one] => Some(spis(one)),
        _ => None,
    }
}

/// A member's file with its key log switched on, in its directory.
pub fn with_key_log(directory: &Path, text: &str) -> String {
    let shown = directory.join(KEYS).display().to_string();
    text.replace(
        "\n[control]\n",
        &format!("\n[control]\nkey_log = \"{shown}/esp_sa\"\n"),
    )
}

/// Where the daemon of that directory puts a table of its key log.
pub fn key_table(directory: &Path, table: &str) -> PathBuf {
    directory.join(KEYS).join(table)
}

/// Writes a member's configuration where [`Member::run`] looks for it, and gives the file.
pub fn write_configuration(directory: &Path, text: &str) -> Result<PathBuf, LabError> {
    let file = directory.join(CONFIGURATION);
    std::fs::create_dir_all(directory.join("state"))
        .and_then(|()| std::fs::create_dir_all(directory.join(KEYS)))
        .and_then(|()| std::fs::write(&file, text))
        .map_err(LabError::io("writing the member's configuration"))?;
    Ok(file)
}

/// The daemon that was built with this program, in the same profile. Under cargo it is brought up
/// to date first: a stale daemon would be a puzzling thing to test.
pub fn binary() -> Result<PathBuf, LabError> {
    beside("hitless")
}

/// The same for another program of ours, of the package of its name.
pub fn beside(name: &str) -> Result<PathBuf, LabError> {
    let own = std::env::current_exe().map_err(LabError::io("finding this program"))?;
    let directory = own.parent().map(Path::to_owned).unwrap_or_default();
    let binary = directory.join(name);
    if let Some(cargo) = std::env::var_os("CARGO") {
        let mut words = vec![cargo.to_string_lossy().into_owned()];
        words.extend(["build", "--quiet", "--package", name].map(str::to_owned));
        if directory.ends_with("release") {
            words.push("--release".to_owned());
        }
        Program::new(words).run_for_long()?;
    }
    if binary.is_file() {
        return Ok(binary);
    }
    Err(LabError::Unreadable {
        what: binary.display().to_string(),
        detail: format!("it is not there: cargo build --package {name}, in the same profile"),
    })
}

/// Starts both members of a cluster. `text` gives a member's file; its directory is there for it.
pub fn start_pair(
    lab: &Topology,
    directory: &Path,
    text: impl Fn(usize, &Path) -> String,
) -> Result<[Member; 2], LabError> {
    let binary = binary()?;
    let start = |index: usize| {
        let text = text(index, &directory.join(format!("m{}", index + 1)));
        Member::start_with(&binary, lab, index, directory, &text, &[])
    };
    Ok([start(0)?, start(1)?])
}

/// A member's file with one connection and its key log, as most scenarios have it.
pub fn member(settings: &Settings<'_>, index: usize, directory: &Path) -> String {
    let connection = connection(settings);
    let text = configuration_at(settings.at, index, directory, PATIENT, &connection);
    with_key_log(directory, &text)
}

/// A member's file; `id`, state and socket, which are in its directory, are what differs between
/// members. `heartbeats` are more lines of the cluster's section.
pub fn configuration(
    index: usize,
    directory: &Path,
    heartbeats: &str,
    connections: &str,
) -> String {
    configuration_at(V4, index, directory, heartbeats, connections)
}

/// The same in another family.
fn configuration_at(
    at: &Addresses,
    index: usize,
    directory: &Path,
    heartbeats: &str,
    connections: &str,
) -> String {
    // Who asks a witness has one.
    let witness = heartbeats.contains("\"witness\"");
    let cluster = cluster(index + 1, directory, heartbeats, witness);
    let control = control(directory);
    let (outside, inside) = (at.cluster_outside, at.with_prefix(at.cluster_inside));
    let prefix = at.outside_prefix;
    format!(
        r#"{cluster}
[ports.{OUTSIDE}]
driver = "af_xdp"
interface = "{OUTSIDE}"
addresses = ["{outside}/{prefix}"]
protected = false

[ports.{INSIDE}]
driver = "af_xdp"
interface = "{INSIDE}"
addresses = ["{inside}"]
protected = true

{connections}
{control}grant_log = "{}"
"#,
        grants(directory).display()
    )
}

/// What a member with this directory was granted, for `hitless audit`.
pub fn grants(directory: &Path) -> PathBuf {
    directory.join("grants")
}

fn cluster(id: usize, directory: &Path, heartbeats: &str, witness: bool) -> String {
    let directory = directory.display();
    let [first, second] = SYNC;
    let third = match witness {
        true => format!("\n  {{ id = 3, sync_addr = \"{WITNESS}:4510\", witness = true }},"),
        false => String::new(),
    };
    format!(
        r#"[cluster]
name = "testbed"
id = {id}
members = [
  {{ id = 1, priority = 200, sync_addr = "{first}:4510" }},
  {{ id = 2, priority = 100, sync_addr = "{second}:4510" }},{third}
]
secret = "0x000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
{heartbeats}
state_dir = "{directory}/state"
"#
    )
}

fn control(directory: &Path) -> String {
    let directory = directory.display();
    format!(
        r#"
[control]
socket = "{directory}/hitless.sock"
log = "debug"
"#
    )
}

fn connection(settings: &Settings<'_>) -> String {
    let Settings {
        at,
        proposals,
        esp_proposals,
        takeover,
        local_id,
        remote_id,
        secret,
        dpd_delay,
        start_action,
    } = settings;
    let Addresses {
        cluster_outside,
        peer_outside,
        cluster_network,
        peer_network,
        ..
    } = at;
    let dpd_delay = dpd_delay.as_secs();
    format!(
        r#"[connections.{CONNECTION}]
local_addrs = ["{cluster_outside}"]
remote_addrs = ["{peer_outside}"]
proposals = ["{proposals}"]
local = {{ auth = "psk", id = "{local_id}" }}
remote = {{ auth = "psk", id = "{remote_id}" }}
dpd_delay = "{dpd_delay}s"
takeover = "{takeover}"

[connections.{CONNECTION}.children.net]
esp_proposals = ["{esp_proposals}"]
local_ts = ["{cluster_network}"]
remote_ts = ["{peer_network}"]
start_action = "{start_action}"

[secrets.peer]
ids = ["{remote_id}"]
secret = "{secret}"
"#
    )
}

/// Waits until one member is active and the other one could take over; gives the active's index.
pub fn wait_for_roles(members: &mut [Member; 2], limit: Duration) -> Result<usize, LabError> {
    clock::until("one active member and one standby", limit, || {
        for member in members.iter_mut() {
            member.check_running()?;
        }
        let roles = [members[0].role()?, members[1].role()?];
        Ok(match [roles[0].as_str(), roles[1].as_str()] {
            ["active", "standby"] => Some(0),
            ["standby", "active"] => Some(1),
            _ => None,
        })
    })
}

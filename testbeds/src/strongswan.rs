//! A real peer: strongSwan's charon in a namespace, with ESP in its own process (the plugin
//! kernel-libipsec), so that nothing is asked of the kernel but a TUN device.
//!
//! `threads` must stay at its default: with 8 the plugins pin them all and the control socket
//! never answers. A protected address must exist on the host, or charon closes the Child SA.

use std::cell::RefCell;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::clock;
use crate::error::LabError;
use crate::gateway::hex;
use crate::netns::Namespace;
use crate::process::{self, Process, Program};
use crate::tshark::Listed;

const CHARON: &str = "/usr/sbin/charon-systemd";
const KERNEL_LIBIPSEC: &str = "/usr/lib/ipsec/plugins/libstrongswan-kernel-libipsec.so";
const READY: Duration = Duration::from_secs(10);
/// What charon loads; `options` may set `load` again.
pub const PLUGINS: &str = "random nonce openssl x509 revocation constraints pubkey pkcs1 pkcs8 pem \
    aesni aes gcm chapoly sha1 sha2 hmac kdf curve25519 kernel-libipsec kernel-netlink socket-default vici \
    updown";
/// The names that all scenarios use.
pub const CONNECTION: &str = "gateway";
pub const CHILD: &str = "net";

/// One connection with one child, authenticated by a pre-shared key.
#[derive(Clone, Debug)]
pub struct Settings<'a> {
    pub local: &'a str,
    pub remote: &'a str,
    pub local_id: &'a str,
    pub remote_id: &'a str,
    pub local_ts: &'a str,
    pub remote_ts: &'a str,
    pub proposals: &'a str,
    pub esp_proposals: &'a str,
    pub secret: &'a str,
    pub dpd_delay: Duration,
}

/// A running charon.
#[derive(Debug)]
pub struct StrongSwan {
    charon: Process,
    directory: PathBuf,
    listed: RefCell<Listed>,
}

/// Names the package if something is missing.
pub fn require() -> Result<(), LabError> {
    process::require(CHARON, "charon-systemd")?;
    process::require("swanctl", "strongswan-swanctl")?;
    process::require(KERNEL_LIBIPSEC, "libcharon-extra-plugins")
}

/// Where another strongSwan lies unpacked, for whoever has one (`testbeds/strongswan6`).
fn root() -> Option<PathBuf> {
    std::env::var_os("HITLESS_STRONGSWAN").map(PathBuf::from)
}

/// Whether the charon that is used has these octets in its libraries: `what` is for the log.
pub fn knows(what: &str, octets: &[u8]) -> bool {
    let root = root().unwrap_or_else(|| PathBuf::from("/"));
    let libraries = [
        "usr/lib/ipsec/libcharon.so.0",
        "usr/lib/ipsec/plugins/libstrongswan-openssl.so",
    ];
    let found = libraries.iter().any(|library| {
        let content = std::fs::read(root.join(library)).unwrap_or_default();
        content.windows(octets.len()).any(|window| window == octets)
    });
    eprintln!("{what}: {}", if found { "yes" } else { "no" });
    found
}

/// charon itself, or that of [`root`] with its own loader and libraries.
fn command() -> Vec<String> {
    let Some(root) = root() else {
        return vec![CHARON.to_owned()];
    };
    let root = root.display();
    let start = format!(
        "mount --bind {root}/usr/lib/ipsec /usr/lib/ipsec && exec \
         {root}/usr/lib64/ld-linux-x86-64.so.2 --library-path \
         {root}/usr/lib/x86_64-linux-gnu:{root}/usr/lib/ipsec {root}{CHARON}"
    );
    ["unshare", "-m", "sh", "-c", &start]
        .map(str::to_owned)
        .to_vec()
}

impl StrongSwan {
    /// Starts charon in `namespace` and loads the connection. Its files and its log go to
    /// `<directory>/<name>/`.
    pub fn start(
        namespace: &Namespace,
        name: &str,
        directory: &Path,
        settings: &Settings<'_>,
    ) -> Result<Self, LabError> {
        let text = connection(settings).unwrap_or_default();
        Self::start_with(namespace, name, directory, &text, "")
    }

    /// The same with a whole `swanctl.conf` and more lines for charon's section of
    /// `strongswan.conf`. Credentials may be there already, in `<directory>/<name>/swanctl/`.
    pub fn start_with(
        namespace: &Namespace,
        name: &str,
        directory: &Path,
        connections: &str,
        options: &str,
    ) -> Result<Self, LabError> {
        let directory = directory.join(name);
        write_files(&directory, connections, options)
            .map_err(LabError::io("writing strongSwan's files"))?;
        let charon = Program::new(command())
            .inside(namespace)
            .env("STRONGSWAN_CONF", directory.join("strongswan.conf"))
            .spawn("charon-output", &directory)?;
        let mut peer = Self {
            charon,
            directory,
            listed: RefCell::default(),
        };
        let socket = peer.directory.join("charon.vici");
        clock::until("charon's control socket", READY, || {
            peer.charon.check_running()?;
            Ok(socket.exists().then_some(()))
        })?;
        peer.swanctl(&["--load-all"])?;
        Ok(peer)
    }

    /// Runs `swanctl <words>` against this charon.
    pub fn swanctl(&self, words: &[&str]) -> Result<String, LabError> {
        let uri = format!("unix://{}", self.directory.join("charon.vici").display());
        let words = ["swanctl"].iter().chain(words).copied();
        Program::new(words.chain(["--uri", &uri]))
            .env("STRONGSWAN_CONF", self.directory.join("strongswan.conf"))
            .env("SWANCTL_DIR", self.directory.join("swanctl"))
            .run()
    }

    /// Brings the child up.
    pub fn initiate(&self) -> Result<(), LabError> {
        self.swanctl(&["--initiate", "--child", CHILD, "--timeout", "10"])
            .map(drop)
    }

    /// Its IKE SAs.
    pub fn list_sas(&self) -> Result<Vec<IkeSa>, LabError> {
        let text = self.swanctl(&["--list-sas", "--pretty"])?;
        let sas = parse_sas(&text).ok_or_else(|| LabError::Unreadable {
            what: "swanctl --list-sas".to_owned(),
            detail: text,
        })?;
        let mut listed = self.listed.borrow_mut();
        for sa in sas.iter().filter(|sa| sa.state == "ESTABLISHED") {
            listed.note(&sa.initiator_spi, &sa.responder_spi, &sa.cipher);
        }
        Ok(sas)
    }

    /// All IKE SAs that have been established when it was asked.
    pub fn listed(&self) -> Listed {
        self.listed.borrow().clone()
    }

    /// The one IKE SA that is established.
    pub fn established(&self) -> Result<Option<IkeSa>, LabError> {
        let sas = self.list_sas()?;
        let mut established = sas.into_iter().filter(|sa| sa.state == "ESTABLISHED");
        Ok(match (established.next(), established.next()) {
            (Some(only), None) => Some(only),
            _ => None,
        })
    }

    /// SIGKILL; gives the moment.
    pub fn kill(&mut self) -> Result<Duration, LabError> {
        self.charon.kill()
    }

    /// charon's own log.
    pub fn log(&self) -> String {
        let bytes = std::fs::read(self.directory.join("charon.log")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// How often its log has this text, such as `IKE_AUTH`.
    pub fn said(&self, text: &str) -> usize {
        self.log().matches(text).count()
    }
}

/// An IKE SA as charon sees it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct IkeSa {
    /// Of its connection.
    pub name: String,
    pub unique_id: String,
    pub state: String,
    pub initiator_spi: String,
    pub responder_spi: String,
    pub cipher: String,
    /// Where the gateway is, as charon knows it.
    pub remote_host: String,
    pub remote_port: u64,
    /// Seconds since it was established.
    pub established: u64,
    pub children: Vec<ChildSa>,
}

impl IkeSa {
    /// The initiator's first.
    pub fn spis(&self) -> [u64; 2] {
        [&self.initiator_spi, &self.responder_spi].map(|spi| hex(spi))
    }

    /// The one child that is installed.
    pub fn installed(&self) -> Option<&ChildSa> {
        self.children
            .iter()
            .find(|child| child.state == "INSTALLED")
    }
}

/// A Child SA as charon sees it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ChildSa {
    pub state: String,
    pub spi_in: String,
    pub spi_out: String,
    pub packets_in: u64,
    pub packets_out: u64,
}

/// Reads `swanctl --list-sas --pretty`: one `name {`, `}`, `key = value` or list item a line.
fn parse_sas(text: &str) -> Option<Vec<IkeSa>> {
    let mut sas: Vec<IkeSa> = Vec::new();
    let mut sections: Vec<&str> = Vec::new();
    for line in text.lines().map(str::trim) {
        if let Some(name) = line.strip_suffix('{') {
            sections.push(name.trim());
            match sections.as_slice() {
                ["list-sa event", name] => sas.push(IkeSa {
                    name: (*name).to_owned(),
                    ..IkeSa::default()
                }),
                ["list-sa event", _, "child-sas", _] => {
                    sas.last_mut()?.children.push(ChildSa::default());
                }
                _ => {}
            }
        } else if line == "}" {
            sections.pop()?;
        } else if let Some((key, value)) = line.split_once(" = ") {
            match sections.as_slice() {
                ["list-sa event", _] => sas.last_mut()?.set(key, value)?,
                ["list-sa event", _, "child-sas", _] => {
                    sas.last_mut()?.children.last_mut()?.set(key, value)?;
                }
                _ => {}
            }
        }
    }
    sections.is_empty().then_some(sas)
}

impl IkeSa {
    fn set(&mut self, key: &str, value: &str) -> Option<()> {
        match key {
            "uniqueid" => value.clone_into(&mut self.unique_id),
            "state" => value.clone_into(&mut self.state),
            "initiator-spi" => value.clone_into(&mut self.initiator_spi),
            "responder-spi" => value.clone_into(&mut self.responder_spi),
            "encr-alg" => value.clone_into(&mut self.cipher),
            "remote-host" => value.clone_into(&mut self.remote_host),
            "remote-port" => self.remote_port = value.parse().unwrap_or_default(),
            "established" => self.established = value.parse().ok()?,
            _ => {}
        }
        Some(())
    }
}

impl ChildSa {
    fn set(&mut self, key: &str, value: &str) -> Option<()> {
        match key {
            "state" => value.clone_into(&mut self.state),
            "spi-in" => value.clone_into(&mut self.spi_in),
            "spi-out" => value.clone_into(&mut self.spi_out),
            "packets-in" => self.packets_in = value.parse().ok()?,
            "packets-out" => self.packets_out = value.parse().ok()?,
            _ => {}
        }
        Some(())
    }
}

fn write_files(directory: &Path, connections: &str, options: &str) -> std::io::Result<()> {
    // swanctl complains about every directory of credentials that does not exist.
    for kind in [
        "conf.d", "x509", "x509ca", "x509ocsp", "x509aa", "x509ac", "x509crl", "pubkey", "private",
        "rsa", "ecdsa", "bliss", "pkcs8", "pkcs12",
    ] {
        std::fs::create_dir_all(directory.join("swanctl").join(kind))?;
    }
    let shown = directory.display();
    let daemon = format!(
        "charon-systemd {{\n  load_modular = no\n  load = {PLUGINS}\n{options}  \
         plugins {{\n    vici {{\n      socket = unix://{shown}/charon.vici\n    }}\n  }}\n  \
         filelog {{\n    log {{\n      path = {shown}/charon.log\n      flush_line = yes\n      \
         time_format = %H:%M:%S\n      time_add_ms = yes\n      default = 1\n    }}\n  }}\n}}\n\
         swanctl {{\n  load = random openssl x509 pubkey pkcs1 pkcs8 pem\n}}\n"
    );
    std::fs::write(directory.join("strongswan.conf"), daemon)?;
    std::fs::write(directory.join("swanctl/swanctl.conf"), connections)
}

/// One setting a line: swanctl's grammar wants it so.
fn connection(s: &Settings<'_>) -> Result<String, std::fmt::Error> {
    let mut text = String::new();
    writeln!(text, "connections {{\n  {CONNECTION} {{\n    version = 2")?;
    writeln!(
        text,
        "    local_addrs = {}\n    remote_addrs = {}",
        s.local, s.remote
    )?;
    writeln!(
        text,
        "    proposals = {}\n    mobike = no\n    encap = yes",
        s.proposals
    )?;
    writeln!(
        text,
        "    dpd_delay = {}s\n    rekey_time = 0",
        s.dpd_delay.as_secs()
    )?;
    writeln!(
        text,
        "    local {{\n      auth = psk\n      id = {}\n    }}",
        s.local_id
    )?;
    writeln!(
        text,
        "    remote {{\n      auth = psk\n      id = {}\n    }}",
        s.remote_id
    )?;
    writeln!(text, "    children {{\n      {CHILD} {{")?;
    writeln!(
        text,
        "        local_ts = {}\n        remote_ts = {}",
        s.local_ts, s.remote_ts
    )?;
    writeln!(
        text,
        "        esp_proposals = {}\n        rekey_time = 0",
        s.esp_proposals
    )?;
    writeln!(text, "      }}\n    }}\n  }}\n}}")?;
    writeln!(
        text,
        "secrets {{\n  ike-1 {{\n    secret = \"{}\"\n  }}\n}}",
        s.secret
    )?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LISTED: &str = "list-sa event {
  gateway {
    uniqueid = 1
    state = ESTABLISHED
    local-id = C=CH, O=lab
    remote-host = 192.0.2.1
    remote-port = 4500
    initiator-spi = c032d0c7900674b3
    responder-spi = bf5bc91756b85eda
    encr-alg = AES_GCM_16
    established = 17
    tasks-active = [
      IKE_DPD
    ]
    child-sas {
      net-1 {
        name = net
        state = DELETED
        spi-in = 82a11b06
        spi-out = 68bfdda9
        packets-in = 5
        packets-out = 6
        local-ts = [
          10.1.0.0/24
        ]
      }
      net-2 {
        state = INSTALLED
        spi-in = b2dfcb0b
        spi-out = d8255d51
        packets-in = 0
        packets-out = 0
      }
    }
  }
}
list-sas reply {
}
";

    #[test]
    fn a_listing_is_read() {
        let sas = parse_sas(LISTED).expect("readable");
        assert_eq!(sas.len(), 1);
        assert_eq!(sas[0].initiator_spi, "c032d0c7900674b3");
        assert_eq!(sas[0].remote_host, "192.0.2.1");
        assert_eq!(sas[0].remote_port, 4500);
        assert_eq!(sas[0].cipher, "AES_GCM_16");
        assert_eq!(sas[0].established, 17);
        assert_eq!(sas[0].children.len(), 2);
        let installed = sas[0].installed().expect("one");
        assert_eq!(installed.spi_in, "b2dfcb0b");
        assert_eq!(sas[0].children[0].packets_out, 6);
    }

    #[test]
    fn no_sas_are_no_error_but_half_a_listing_is() {
        assert_eq!(parse_sas("list-sas reply {\n}\n"), Some(Vec::new()));
        for cut in 0..LISTED.len() - 2 {
            let whole = parse_sas(&LISTED[..cut]);
            let depth = LISTED[..cut].matches('{').count() - LISTED[..cut].matches('}').count();
            assert!(depth == 0 || whole.is_none(), "cut at {cut}");
        }
    }
}

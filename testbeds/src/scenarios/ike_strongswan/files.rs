//! The two configurations, side by side: each line of the table is one connection at each end.

use std::fmt::Write as _;
use std::path::Path;

use super::redirect::OURS;
use super::{redirect, unique};
use crate::gateway::with_key_log;
use crate::topology::{CLUSTER_OUTSIDE, INSIDE, OUTSIDE, PEER_NETWORK, PEER_OUTSIDE};

const ESP: &str = "aes128gcm16";
/// Children of connections whose IKE SA has AES-192, by the start of its proposal.
const ESP_192: [(&str, &str); 2] = [
    ("aes192gcm16-", "aes192gcm16"),
    ("aes192-", "aes192-sha256"),
];
const SECRET: &str = "not-so-secret-psk-0123456789";
/// Traffic selectors of the child that makes IKE_AUTH longer than [`FRAGMENT_SIZE`].
const MANY: usize = 24;
/// The smallest that the gateway takes.
const FRAGMENT_SIZE: u16 = 576;

/// One connection.
pub struct Line {
    pub name: &'static str,
    ours: &'static [&'static str],
    theirs: &'static str,
    /// IKE_AUTH must go in fragments.
    pub long: bool,
    /// The first group is refused by the responder.
    pub retries: bool,
    /// The gateway initiates.
    pub starts: bool,
    /// Its child has additional key exchanges too, and is rekeyed.
    pub rekeys: bool,
    /// It needs ML-KEM.
    pub mlkem: bool,
    /// No Child SA in IKE_AUTH: both ends insist.
    childless: bool,
    /// The responder allows less of our side than the initiator asks for.
    pub narrowed: bool,
}

const fn line(name: &'static str, ours: &'static [&'static str], theirs: &'static str) -> Line {
    Line {
        name,
        ours,
        theirs,
        long: false,
        retries: false,
        starts: false,
        rekeys: false,
        mlkem: false,
        childless: false,
        narrowed: false,
    }
}

const fn narrowed(line: Line) -> Line {
    Line {
        narrowed: true,
        ..line
    }
}

const fn rekeys(line: Line) -> Line {
    Line {
        rekeys: true,
        ..line
    }
}

const fn mlkem(line: Line) -> Line {
    Line {
        mlkem: true,
        ..line
    }
}

const fn childless(line: Line) -> Line {
    Line {
        childless: true,
        ..line
    }
}

const fn start(line: Line) -> Line {
    Line {
        starts: true,
        ..line
    }
}

const fn long(line: Line) -> Line {
    Line { long: true, ..line }
}

const fn retries(line: Line) -> Line {
    Line {
        retries: true,
        ..line
    }
}

macro_rules! both_ways {
    ($($name:literal $proposal:literal;)*) => {
        &[
            $(
                line(concat!("in-", $name), &[$proposal], $proposal),
                start(line(concat!("out-", $name), &[$proposal], $proposal)),
            )*
            retries(line(
                "in-other-group",
                &["aes256-sha256-x25519"],
                "aes256-sha256-ecp256-x25519",
            )),
            retries(start(line(
                "out-other-group",
                &["aes256-sha512-ecp256", "aes256-sha512-x25519"],
                "aes256-sha512-x25519",
            ))),
            long(line("in-fragments", &["aes128-sha256-ecp384"], "aes128-sha256-ecp384")),
            childless(line("in-childless", &["aes128-sha256-x25519"], "aes128-sha256-x25519")),
            childless(start(line(
                "out-childless",
                &["aes256-sha512-x25519"],
                "aes256-sha512-x25519",
            ))),
            narrowed(line("in-narrowed", &["aes128-sha256-x25519"], "aes128-sha256-x25519")),
            narrowed(start(line("out-narrowed", &["aes128-sha256-x25519"], "aes128-sha256-x25519"))),
            long(start(line("out-fragments", &["aes256-sha384-ecp521"], "aes256-sha384-ecp521"))),
        ]
    };
}

/// With a strongSwan that knows RFC 9370: from 6.0 on, and with OpenSSL 3.5 for ML-KEM.
pub const ADDITIONAL: &[Line] = &[
    rekeys(line(
        "in-two",
        &["aes256gcm16-prfsha256-x25519-ke1_ecp256"],
        "aes256gcm16-prfsha256-x25519-ke1_ecp256",
    )),
    rekeys(start(line(
        "out-two",
        &["aes128-sha256-ecp256-ke1_x25519"],
        "aes128-sha256-ecp256-ke1_x25519",
    ))),
    rekeys(line(
        "in-three",
        &["aes128-sha384-ecp384-ke1_x25519-ke3_ecp256"],
        "aes128-sha384-ecp384-ke1_x25519-ke3_ecp256",
    )),
    rekeys(start(line(
        "out-three",
        &["aes256gcm16-prfsha512-ecp256-ke2_ecp384-ke4_x25519"],
        "aes256gcm16-prfsha512-ecp256-ke2_ecp384-ke4_x25519",
    ))),
    mlkem(rekeys(line(
        "in-mlkem",
        &["aes256gcm16-prfsha384-x25519-ke1_mlkem768"],
        "aes256gcm16-prfsha384-x25519-ke1_mlkem768",
    ))),
    mlkem(rekeys(start(line(
        "out-mlkem",
        &["aes256-sha256-ecp384-ke1_mlkem768"],
        "aes256-sha256-ecp384-ke1_mlkem768",
    )))),
];

pub const LINES: &[Line] = both_ways! {
    "x25519" "chacha20poly1305-prfsha256-x25519";
    "ecp256" "aes128-sha512-prfsha256-ecp256";
    "ecp384" "chacha20poly1305-prfsha384-ecp384";
    "ecp521" "aes128gcm16-prfsha256-ecp521";
    "modp2048" "aes128-sha256-modp2048";
    "modp3072" "aes256-sha384-modp3072";
    "modp4096" "aes256gcm16-prfsha512-modp4096";
    "aes192gcm" "aes192gcm16-prfsha384-ecp384";
    "aes192cbc" "aes192-sha256-x25519";
};

/// What is left of a network that is narrowed.
pub const NARROW: &str = "/28";

impl Line {
    /// The protected networks of the gateway's side, as the gateway or the other end has them.
    fn networks(&self, index: usize, gateway: bool) -> Vec<String> {
        match (index, self.long) {
            (0, _) => vec!["10.2.0.0/24".to_owned()],
            // Whoever answers allows less.
            _ if self.narrowed && gateway != self.starts => vec![format!("10.3.{index}.0{NARROW}")],
            (_, false) => vec![format!("10.3.{index}.0/24")],
            (_, true) => {
                let networks = (0..MANY).map(|n| format!("10.{}.{n}.0/28", 100 + index));
                networks.collect()
            }
        }
    }
}

impl Line {
    fn esp(&self) -> &'static str {
        match (self.rekeys, self.mlkem) {
            (false, _) => {
                let mut strong = ESP_192.iter();
                let found = strong.find(|(ike, _)| self.theirs.starts_with(ike));
                found.map_or(ESP, |(_, esp)| esp)
            }
            (true, false) => "aes128gcm16-ecp256-ke1_x25519-ke2_ecp384",
            (true, true) => "aes256gcm16-x25519-ke1_mlkem768",
        }
    }
}

/// `swanctl.conf`. One setting a line: its grammar wants it so. The last connection takes anybody,
/// whose half-open IKE SA makes charon ask for cookies.
pub fn swanctl(lines: &[&Line]) -> String {
    let mut text = String::from("connections {\n");
    for (index, line) in lines.iter().enumerate() {
        let Line { name, theirs, .. } = line;
        let childless = if line.childless { "force" } else { "allow" };
        let networks = line.networks(index, false).join(",");
        let esp = line.esp();
        let _: std::fmt::Result = write!(
            text,
            "  {name} {{\n    version = 2\n    local_addrs = {PEER_OUTSIDE}\n    \
             remote_addrs = {CLUSTER_OUTSIDE}\n    proposals = {theirs}\n    mobike = no\n    \
             encap = yes\n    rekey_time = 0\n    fragmentation = yes\n    childless = {childless}\n    local {{\n      \
             auth = psk\n      id = {name}.test\n    }}\n    remote {{\n      auth = psk\n      \
             id = gw.test\n    }}\n    children {{\n      {name} {{\n        \
             local_ts = {PEER_NETWORK}\n        remote_ts = {networks}\n        \
             esp_proposals = {esp}\n        rekey_time = 0\n      }}\n    }}\n  }}\n"
        );
    }
    text.push_str(&unique::swanctl());
    text.push_str(&redirect::swanctl());
    let _: std::fmt::Result = write!(
        text,
        "  anybody {{\n    version = 2\n    local_addrs = {PEER_OUTSIDE}\n    \
         remote_addrs = %any\n    proposals = aes128gcm16-prfsha256-x25519\n    local {{\n      \
         auth = psk\n    }}\n    remote {{\n      auth = psk\n    }}\n  }}\n}}\n\
         secrets {{\n  ike-1 {{\n    secret = \"{SECRET}\"\n  }}\n}}\n"
    );
    text
}

/// Lines for charon's section of `strongswan.conf`: fragments as small as the gateway's, and a
/// cookie from everybody once there is one half-open IKE SA. Two connections to one peer have an IKE
/// SA each.
pub fn options() -> String {
    format!(
        "  fragment_size = {FRAGMENT_SIZE}\n  cookie_threshold = 1\n  block_threshold = 0\n  \
         reuse_ikesa = no\n"
    )
}

/// The gateway's file. It asks everybody for a cookie as well.
pub fn gateway(directory: &Path, lines: &[&Line]) -> String {
    let shown = directory.display();
    let mut text = format!(
        "[cluster]\nname = \"testbed\"\nid = 1\nstate_dir = \"{shown}/state\"\n\n\
         [ports.{OUTSIDE}]\ndriver = \"af_xdp\"\ninterface = \"{OUTSIDE}\"\n\
         addresses = [\"{CLUSTER_OUTSIDE}/24\", \"{OURS}/24\"]\nprotected = false\n\n\
         [ports.{INSIDE}]\ndriver = \"af_xdp\"\ninterface = \"{INSIDE}\"\n\
         addresses = [\"10.2.0.1/24\"]\nprotected = true\n\n\
         [control]\nsocket = \"{shown}/hitless.sock\"\nlog = \"debug\"\n\n\
         [ike]\ncookies = \"always\"\n\n[secrets.all]\nsecret = \"{SECRET}\"\n"
    );
    for (index, line) in lines.iter().enumerate() {
        let quoted = |words: Vec<String>| {
            let words: Vec<String> = words.iter().map(|word| format!("\"{word}\"")).collect();
            words.join(", ")
        };
        let proposals = quoted(line.ours.iter().map(|&p| p.to_owned()).collect());
        let networks = quoted(line.networks(index, true));
        // What strongSwan is not told to rekey, the gateway does by itself.
        let soon = match (line.rekeys, line.starts) {
            (true, true) => "rekey_time = \"4s\"\n",
            _ => "",
        };
        let esp = line.esp();
        let childless = if line.childless { "force" } else { "allow" };
        let (name, action) = (line.name, if line.starts { "start" } else { "none" });
        let _: std::fmt::Result = write!(
            text,
            "\n[connections.{name}]\nlocal_addrs = [\"{CLUSTER_OUTSIDE}\"]\n\
             remote_addrs = [\"{PEER_OUTSIDE}\"]\nproposals = [{proposals}]\n\
             fragment_size = {FRAGMENT_SIZE}\nchildless = \"{childless}\"\n\
             local = {{ auth = \"psk\", id = \"gw.test\" }}\n\
             remote = {{ auth = \"psk\", id = \"{name}.test\" }}\n\n\
             [connections.{name}.children.{name}]\nesp_proposals = [\"{esp}\"]\n{soon}\
             local_ts = [{networks}]\nremote_ts = [\"{PEER_NETWORK}\"]\nstart_action = \"{action}\"\n"
        );
    }
    text.push_str(&unique::gateway());
    text.push_str(&redirect::gateway());
    with_key_log(directory, &text)
}

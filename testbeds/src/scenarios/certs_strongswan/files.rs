//! The two configurations, side by side: each line of the table is one connection at each end.

use std::fmt::Write as _;
use std::path::Path;

use crate::topology::{CLUSTER_OUTSIDE, INSIDE, OUTSIDE, PEER_NETWORK, PEER_OUTSIDE};

const PROPOSAL: &str = "aes128gcm16-prfsha256-x25519";
const ESP: &str = "aes128gcm16";
const PPK: &str = "0x000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

/// One connection.
struct Line {
    name: &'static str,
    /// The peer's certificate.
    theirs: &'static str,
    /// The gateway's; each of several with a space between them.
    ours: &'static str,
    /// `auth` of the gateway's own signature.
    auth: &'static str,
    ppk: Ppk,
    /// The gateway initiates.
    starts: bool,
    /// Both ends leave fragments to IP.
    whole: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Ppk {
    None,
    Both,
    /// The gateway requires it, the peer has none.
    Missing,
}

const fn line(name: &'static str, theirs: &'static str, ours: &'static str) -> Line {
    Line {
        name,
        theirs,
        ours,
        auth: "pubkey",
        ppk: Ppk::None,
        starts: false,
        whole: false,
    }
}

const fn start(line: Line) -> Line {
    Line {
        starts: true,
        ..line
    }
}

const fn pkcs1(line: Line) -> Line {
    Line {
        auth: "rsa",
        ..line
    }
}

const fn whole(line: Line) -> Line {
    Line {
        whole: true,
        ..line
    }
}

const fn ppk(line: Line, ppk: Ppk) -> Line {
    Line { ppk, ..line }
}

const LINES: &[Line] = &[
    line("ecdsa", "ecdsa", "gw-ecdsa"),
    line("ecdsa384", "ecdsa384", "gw-ecdsa384"),
    line("rsa-pss", "rsa", "gw-rsa"),
    pkcs1(line("rsa-pkcs1", "rsa", "gw-rsa")),
    whole(line("rsa-whole", "long", "gw-long")),
    line("ed25519", "ed25519", "gw-ed25519"),
    line("both", "ecdsa", "gw-rsa gw-ecdsa"),
    line("subject", "subject", "gw-ecdsa"),
    ppk(line("ppk", "ecdsa", "gw-ecdsa"), Ppk::Both),
    ppk(line("no-ppk", "ecdsa", "gw-ecdsa"), Ppk::Missing),
    line("revoked", "revoked", "gw-ecdsa"),
    line("expired", "expired", "gw-ecdsa"),
    line("stranger", "stranger", "gw-ecdsa"),
    line("wrong-id", "ecdsa", "gw-ecdsa"),
    start(line("our-ecdsa", "ecdsa", "gw-ecdsa")),
    start(line("our-ecdsa384", "ecdsa384", "gw-ecdsa384")),
    start(line("our-rsa-pss", "rsa", "gw-rsa")),
    start(pkcs1(line("our-rsa-pkcs1", "rsa", "gw-rsa"))),
    start(whole(line("our-rsa-whole", "long", "gw-long"))),
    start(line("our-ed25519", "ed25519", "gw-ed25519")),
    start(line("our-both", "ecdsa", "gw-rsa gw-ecdsa")),
    start(ppk(line("our-ppk", "ecdsa", "gw-ecdsa"), Ppk::Both)),
    start(line("our-revoked", "revoked", "gw-ecdsa")),
    start(line("our-expired", "expired", "gw-ecdsa")),
    start(line("our-stranger", "stranger", "gw-ecdsa")),
];

impl Line {
    /// The protected network of the gateway's side: one for each, the hosts' for the first.
    fn network(&self) -> String {
        let index = LINES.iter().position(|line| line.name == self.name);
        match index.unwrap_or(0) {
            0 => "10.2.0.0/24".to_owned(),
            index => format!("10.3.{index}.0/24"),
        }
    }

    /// As both files say it.
    const fn fragmentation(&self) -> &'static str {
        if self.whole { "no" } else { "yes" }
    }

    /// The identity that the peer asserts, and that the gateway expects.
    fn identities(&self) -> [String; 2] {
        match self.name {
            "subject" => ["C=CH, O=lab, CN=subject", "C=CH, O=lab, CN=*"].map(str::to_owned),
            "wrong-id" => ["wrong.test", "right.test"].map(str::to_owned),
            name => [format!("{name}.test"), format!("{name}.test")],
        }
    }
}

/// `swanctl.conf`. One setting a line: its grammar wants it so.
pub fn swanctl() -> String {
    let mut text = String::from("connections {\n");
    for line in LINES {
        let [id, _] = line.identities();
        let Line { name, theirs, .. } = line;
        let network = line.network();
        let ppk = match line.ppk {
            Ppk::Both => "    ppk_id = ppk.lab\n    ppk_required = yes\n",
            Ppk::None | Ppk::Missing => "",
        };
        let fragmentation = line.fragmentation();
        // The RSA key signs as the gateway's does.
        let auth = match line.auth {
            "rsa" => "rsa-sha256",
            _ => "pubkey",
        };
        let _: std::fmt::Result = write!(
            text,
            "  {name} {{\n    version = 2\n    local_addrs = {PEER_OUTSIDE}\n    \
             remote_addrs = {CLUSTER_OUTSIDE}\n    proposals = {PROPOSAL}\n    mobike = no\n    \
             encap = yes\n    rekey_time = 0\n    fragmentation = {fragmentation}\n{ppk}    local {{\n      auth = {auth}\n      \
             certs = {theirs}.crt\n      id = \"{id}\"\n    }}\n    remote {{\n      \
             auth = pubkey\n      id = gw.test\n      cacerts = root.crt\n    }}\n    \
             children {{\n      {name} {{\n        local_ts = {PEER_NETWORK}\n        \
             remote_ts = {network}\n        esp_proposals = {ESP}\n        rekey_time = 0\n      \
             }}\n    }}\n  }}\n"
        );
    }
    let _: std::fmt::Result = write!(
        text,
        "}}\nsecrets {{\n  ppk-lab {{\n    id = ppk.lab\n    secret = {PPK}\n  }}\n}}\n"
    );
    text
}

/// The gateway's file.
pub fn gateway(directory: &Path) -> String {
    let shown = directory.display();
    let mut text = format!(
        "[cluster]\nname = \"testbed\"\nid = 1\nstate_dir = \"{shown}/state\"\n\n\
         [ports.{OUTSIDE}]\ndriver = \"af_xdp\"\ninterface = \"{OUTSIDE}\"\n\
         addresses = [\"{CLUSTER_OUTSIDE}/24\"]\nprotected = false\n\n\
         [ports.{INSIDE}]\ndriver = \"af_xdp\"\ninterface = \"{INSIDE}\"\n\
         addresses = [\"10.2.0.1/24\"]\nprotected = true\n\n\
         [control]\nsocket = \"{shown}/hitless.sock\"\nlog = \"debug\"\n"
    );
    for key in ["gw-ecdsa", "gw-ecdsa384", "gw-rsa", "gw-long", "gw-ed25519"] {
        text.push_str(&format!(
            "\n[secrets.private-{key}]\nfile = \"{key}.key\"\n"
        ));
    }
    text.push_str(&format!(
        "\n[secrets.ppk-lab]\nid = \"ppk.lab\"\nsecret = \"{PPK}\"\n"
    ));
    for line in LINES {
        let [_, id] = line.identities();
        let Line {
            name, ours, auth, ..
        } = line;
        let ours: String = ours
            .split(' ')
            .map(|name| format!("\"{name}.crt\", "))
            .collect();
        let network = line.network();
        let fragmentation = line.fragmentation();
        let ppk = match line.ppk {
            Ppk::None => "",
            Ppk::Both | Ppk::Missing => "ppk_id = \"ppk.lab\"\nppk_required = true\n",
        };
        let (action, reauth) = match (line.starts, *name) {
            (true, "our-ecdsa") => ("start", "reauth_time = \"8s\"\n"),
            (true, _) => ("start", ""),
            (false, _) => ("none", ""),
        };
        let _: std::fmt::Result = write!(
            text,
            "\n[connections.{name}]\nlocal_addrs = [\"{CLUSTER_OUTSIDE}\"]\n\
             remote_addrs = [\"{PEER_OUTSIDE}\"]\nproposals = [\"{PROPOSAL}\"]\nfragmentation = \"{fragmentation}\"\n{ppk}{reauth}\
             local = {{ auth = \"{auth}\", certs = [{ours}\"sub.crt\"], id = \"gw.test\" }}\n\
             remote = {{ auth = \"pubkey\", cacerts = [\"root.crt\"], crls = [\"sub.crl\"], id = \"{id}\" }}\n\n\
             [connections.{name}.children.{name}]\nesp_proposals = [\"{ESP}\"]\n\
             local_ts = [\"{network}\"]\nremote_ts = [\"{PEER_NETWORK}\"]\nstart_action = \"{action}\"\n"
        );
    }
    text
}

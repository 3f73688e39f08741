//! Each end sends the other one to another address of its own during an IKE SA (RFC 5685 section 5):
//! charon is our client and goes where we say, and we are charon's.

use crate::clock;
use crate::error::LabError;
use crate::topology::{CLUSTER_OUTSIDE, OUTSIDE, PEER_NETWORK, PEER_OUTSIDE};

use super::{ANSWER, Trial};

/// Where we send charon, and where charon sends us.
pub const OURS: &str = "192.0.2.9";
const THEIRS: &str = "192.0.2.4";
const IKE: &str = "aes128-sha256-x25519";
const ESP: &str = "aes128gcm16";
/// Connections of both ends, with the network behind the gateway.
const CLIENT: (&str, &str) = ("redirect-in", "10.61.0.0/24");
const GATEWAY: (&str, &str) = ("redirect-out", "10.61.1.0/24");

pub fn swanctl() -> String {
    let one = |(name, network): (&str, &str), local: &str| {
        format!(
            "  {name} {{\n    version = 2\n    local_addrs = {local}\n    \
             remote_addrs = {CLUSTER_OUTSIDE}\n    proposals = {IKE}\n    mobike = no\n    \
             encap = yes\n    rekey_time = 0\n    local {{\n      auth = psk\n      \
             id = {name}.test\n    }}\n    remote {{\n      auth = psk\n      id = gw.test\n    }}\n    \
             children {{\n      {name} {{\n        local_ts = {PEER_NETWORK}\n        \
             remote_ts = {network}\n        esp_proposals = {ESP}\n        rekey_time = 0\n      \
             }}\n    }}\n  }}\n"
        )
    };
    let either = format!("{PEER_OUTSIDE},{THEIRS}");
    one(CLIENT, PEER_OUTSIDE) + &one(GATEWAY, &either)
}

pub fn gateway() -> String {
    let one = |(name, network): (&str, &str), more: &str| {
        format!(
            "\n[connections.{name}]\nremote_addrs = [\"{PEER_OUTSIDE}\"]\nproposals = [\"{IKE}\"]\n{more}\
             local = {{ auth = \"psk\", id = \"gw.test\" }}\n\
             remote = {{ auth = \"psk\", id = \"{name}.test\" }}\n\n\
             [connections.{name}.children.{name}]\nesp_proposals = [\"{ESP}\"]\n\
             local_ts = [\"{network}\"]\nremote_ts = [\"{PEER_NETWORK}\"]\nstart_action = \"none\"\n"
        )
    };
    let follows = format!("local_addrs = [\"{CLUSTER_OUTSIDE}\"]\nfollow_redirects = true\n");
    one(CLIENT, "") + &one(GATEWAY, &follows)
}

impl Trial {
    pub fn redirected(&mut self) -> Result<(), LabError> {
        let (name, _) = CLIENT;
        self.peer
            .swanctl(&["--initiate", "--child", name, "--timeout", "5"])?;
        self.gateway
            .order(&["redirect", "--ike", name, "--to", OURS])?;
        self.at("charon-is-sent-elsewhere", name, "local_host", OURS)?;

        self.lab.peer.address(OUTSIDE, &format!("{THEIRS}/24"))?;
        let (name, _) = GATEWAY;
        self.gateway.order(&["initiate", "--child", name])?;
        clock::until(name, ANSWER, || Ok(self.gateway.tunnels(name)?.pop()))?;
        self.peer
            .swanctl(&["--redirect", "--ike", name, "--gateway", THEIRS])?;
        self.at("we-are-sent-elsewhere", name, "remote_host", THEIRS)
    }

    /// One IKE SA is left of a connection, with an end there.
    fn at(&mut self, check: &str, name: &str, end: &str, address: &str) -> Result<(), LabError> {
        let there = clock::until(check, ANSWER, || {
            let sas = self.gateway.tunnels(name)?;
            Ok((sas.len() == 1 && sas[0][end] == address).then_some(()))
        });
        let detail = there.as_ref().map_or_else(ToString::to_string, |()| {
            format!("the IKE SA is with {address}")
        });
        self.report.check(check, there.is_ok(), detail);
        Ok(())
    }
}

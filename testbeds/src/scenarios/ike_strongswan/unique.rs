//! How many IKE SAs a peer may have (`unique`, RFC 7296 section 2.4), with a charon that comes twice
//! under one name and says nothing of an initial contact; and a window of ours above one, which
//! charon has no use for.

use std::fmt::Write as _;

use crate::clock;
use crate::error::LabError;
use crate::topology::{CLUSTER_OUTSIDE, PEER_NETWORK, PEER_OUTSIDE};

use super::{ANSWER, Trial};

/// `unique`, and how many of the two IKE SAs are left.
const VALUES: [(&str, usize); 3] = [("never", 2), ("replace", 1), ("keep", 1)];
const IKE: &str = "aes128-sha256-x25519";
const ESP: &str = "aes128gcm16";

/// The network that both IKE SAs of a value lead to.
fn network(value: usize) -> String {
    format!("10.60.{value}.0/24")
}

/// Two connections of charon's for each value.
pub fn swanctl() -> String {
    let mut text = String::new();
    for (index, (value, _)) in VALUES.iter().enumerate() {
        for which in ["first", "second"] {
            let network = network(index);
            let _: std::fmt::Result = write!(
                text,
                "  {value}-{which} {{\n    version = 2\n    local_addrs = {PEER_OUTSIDE}\n    \
                 remote_addrs = {CLUSTER_OUTSIDE}\n    proposals = {IKE}\n    mobike = no\n    \
                 encap = yes\n    rekey_time = 0\n    unique = never\n    local {{\n      \
                 auth = psk\n      id = {value}.unique.test\n    }}\n    remote {{\n      auth = psk\n      \
                 id = gw.test\n    }}\n    children {{\n      {value}-{which} {{\n        \
                 local_ts = {PEER_NETWORK}\n        remote_ts = {network}\n        \
                 esp_proposals = {ESP}\n        rekey_time = 0\n      }}\n    }}\n  }}\n"
            );
        }
    }
    text
}

/// One connection of ours for each value.
pub fn gateway() -> String {
    let mut text = String::new();
    for (index, (value, _)) in VALUES.iter().enumerate() {
        let network = network(index);
        let _: std::fmt::Result = write!(
            text,
            "\n[connections.{value}]\nlocal_addrs = [\"{CLUSTER_OUTSIDE}\"]\n\
             remote_addrs = [\"{PEER_OUTSIDE}\"]\nproposals = [\"{IKE}\"]\n\
             unique = \"{value}\"\nwindow_size = 4\n\
             local = {{ auth = \"psk\", id = \"gw.test\" }}\n\
             remote = {{ auth = \"psk\", id = \"{value}.unique.test\" }}\n\n\
             [connections.{value}.children.net]\nesp_proposals = [\"{ESP}\"]\n\
             local_ts = [\"{network}\"]\nremote_ts = [\"{PEER_NETWORK}\"]\nstart_action = \"none\"\n"
        );
    }
    text
}

impl Trial {
    /// charon comes twice for each value, and both ends agree on what is left.
    pub fn twice(&mut self) -> Result<(), LabError> {
        for (value, left) in VALUES {
            let initiate = |which: &str| {
                let child = format!("{value}-{which}");
                let words = ["--initiate", "--child", &child, "--timeout", "3"];
                self.peer.swanctl(&words).is_ok()
            };
            let (first, second) = (initiate("first"), initiate("second"));
            let settled = clock::until("the IKE SAs of both ends", ANSWER, || {
                let (ours, theirs) = self.of(value)?;
                Ok((ours == left && theirs.len() == left).then_some(theirs))
            });
            let right = first && second == (value != "keep");
            let kept = |theirs: &Vec<String>| match value {
                "keep" => theirs.iter().all(|name| name == "keep-first"),
                "replace" => theirs.iter().all(|name| name == "replace-second"),
                _ => true,
            };
            let passed = right && settled.as_ref().is_ok_and(kept);
            let detail = match settled {
                Ok(theirs) => format!("{left} left, {}", theirs.join(" and ")),
                Err(error) => error.to_string(),
            };
            self.report
                .check(&format!("unique-{value}"), passed, detail);
        }
        Ok(())
    }

    /// Our IKE SAs of a connection, and the names of charon's for it.
    fn of(&self, value: &str) -> Result<(usize, Vec<String>), LabError> {
        let ours = self.gateway.established(value)?;
        let theirs = self.peer.list_sas()?.into_iter();
        let theirs = theirs
            .filter(|sa| sa.state == "ESTABLISHED" && sa.name.starts_with(&format!("{value}-")));
        Ok((ours.len(), theirs.map(|sa| sa.name).collect()))
    }

    /// We say that we take four requests at once (RFC 7296 section 2.3): charon, which asks one thing at
    /// a time, reads it and goes on; and our own requests to it wait for each other.
    pub fn windows(&mut self) -> Result<(), LabError> {
        let log = self.peer.log();
        let told = log
            .lines()
            .any(|line| line.contains("parsed IKE_AUTH response") && line.contains("WIN"));
        let name = "never";
        // Both at once: charon answers one request at a time.
        let before = self.peer.log().lines().count();
        let ordered = self.gateway.order(&["rekey", "--child", "net"]);
        let rekeyed = clock::until("rekeyed Child SAs", ANSWER, || {
            let log = self.peer.log();
            let since = log.lines().skip(before);
            let done = since.filter(|line| line.contains("inbound CHILD_SA never-"));
            Ok((done.count() >= 2).then_some(()))
        });
        let (ours, theirs) = self.of(name)?;
        let detail = format!(
            "told: {told}, ordered: {}, rekeyed: {}, {ours} and {} IKE SAs",
            ordered.is_ok(),
            rekeyed.is_ok(),
            theirs.len()
        );
        let passed = told && ordered.is_ok() && rekeyed.is_ok() && ours == 2 && theirs.len() == 2;
        self.report.check("window-of-four", passed, detail);
        Ok(())
    }
}

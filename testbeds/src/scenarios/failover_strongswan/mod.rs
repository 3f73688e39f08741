//! The active member dies under a tunnel to strongSwan, and strongSwan must not notice.
//!
//! strongSwan brings the tunnel up; the hosts behind both ends ping each other; the active member
//! is killed with SIGKILL; the pings go on through the standby. Then replays are tried on both
//! ends, liveness is checked in both directions, and strongSwan rekeys the IKE SA and the Child SA. The same with
//! nothing but IPv6, outside and inside, where in one variant the cluster initiates and rekeys.
//!
//! `trial.rs` carries it out and gathers evidence, `evidence.rs` judges it; `heard.rs` lets tshark
//! read the IKE messages with the members' key logs.

mod evidence;
mod heard;
#[cfg(test)]
mod tests;
mod trial;

use crate::error::LabError;
use crate::scenario::{Bench, Report, Scenario};
use crate::topology::{Addresses, V4, V6};

pub const SCENARIO: Scenario = Scenario {
    name: "failover-strongswan",
    about: "kill the active member under a tunnel to strongSwan; the standby carries it on",
    variants: &["exact", "message-id-sync", "v6", "v6-initiator"],
    run: failover,
};

/// The testbed tests itself: if this fails, a failure of the scenario above means nothing.
pub const CONTROL: Scenario = Scenario {
    name: "control-strongswan",
    about: "the same network and checks with strongSwan as the gateway, and nobody killed",
    variants: &["aead", "cbc"],
    run: control,
};

/// Who runs the gateway.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Gateway {
    Hitless,
    StrongSwan,
}

/// What a trial is to do.
#[derive(Clone, Copy, Debug)]
struct Plan {
    scenario: &'static str,
    gateway: Gateway,
    at: &'static Addresses,
    /// The gateway initiates, and rekeys; otherwise strongSwan does.
    starts: bool,
    /// The gateway's IKE proposal. With an AEAD strongSwan destroys the IKE SA on a Message ID
    /// sync; with CBC and HMAC it answers one.
    proposals: &'static str,
    takeover: &'static str,
    /// Whether a Message ID sync (RFC 6311) must be seen, or must not be.
    sync_expected: bool,
}

const AEAD: &str = "aes128gcm16-prfsha256-x25519";
const CBC: &str = "aes128-sha256-prfsha256-x25519";

fn failover(bench: &Bench, variant: &str) -> Result<Report, LabError> {
    let sync_expected = variant == "message-id-sync";
    let plan = Plan {
        scenario: SCENARIO.name,
        gateway: Gateway::Hitless,
        at: if variant.starts_with("v6") { V6 } else { V4 },
        starts: variant.ends_with("initiator"),
        proposals: if sync_expected { CBC } else { AEAD },
        takeover: if sync_expected {
            "message-id-sync"
        } else {
            "auto"
        },
        sync_expected,
    };
    trial::carry_out(bench, &plan, variant)
}

fn control(bench: &Bench, variant: &str) -> Result<Report, LabError> {
    let plan = Plan {
        scenario: CONTROL.name,
        gateway: Gateway::StrongSwan,
        at: V4,
        starts: false,
        proposals: if variant == "cbc" { CBC } else { AEAD },
        takeover: "",
        sync_expected: false,
    };
    trial::carry_out(bench, &plan, variant)
}

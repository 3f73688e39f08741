//! More features, each of which a seed may have behind all else in its stream: so those that were
//! drawn before there were these keep their faults. By its name one can be had in every seed.

use std::time::Duration;

use hitless::lab::{Begins, Redirect};
use hitless_sa::Entropy;

use super::extras::reconcile;
use super::plan::{Fault, Plan, QUIET, below, pick};

/// Something that a plan's tunnel may have.
#[derive(Debug)]
pub struct Feature {
    pub name: &'static str,
    /// So many of [`OUT_OF`] seeds have it.
    often: u32,
    /// Gives it to a plan, with what is to happen to it.
    add: fn(&mut Plan, &mut dyn Entropy),
}

const OUT_OF: u32 = 48;

const ALL: &[Feature] = &[
    Feature {
        name: "redirect",
        often: 3,
        add: |plan, entropy| {
            let when = pick(entropy, &[Redirect::Init, Redirect::Auth, Redirect::Later]);
            plan.extras.redirect = Some(when);
            let orders = match when {
                Redirect::Later => 1 + below(entropy, 2),
                _ => 0,
            };
            for _ in 0..orders {
                plan.add_faults([(moment(entropy), Fault::ClusterRedirects)]);
            }
        },
    },
    Feature {
        name: "childless",
        often: 2,
        add: |plan, entropy| {
            plan.extras.childless = true;
            if below(entropy, 2) == 0 {
                let at = moment(entropy);
                let closed = (at, Fault::PeerClosesChildren);
                plan.add_faults([closed, (at + span(entropy), Fault::PeerOpensChildren)]);
            }
        },
    },
    Feature {
        name: "unique",
        often: 3,
        add: |plan, entropy| {
            plan.extras.unique = Some(pick(entropy, &["no", "replace", "keep", "never"]));
            let at = moment(entropy);
            let anew = [
                (at, Fault::Crash(0)),
                (at + span(entropy), Fault::Restart(0)),
            ];
            plan.add_faults(anew);
        },
    },
    Feature {
        name: "octets",
        often: 2,
        add: |plan, entropy| {
            plan.extras.octets = Some(pick(entropy, &[20_000, 60_000, 200_000]));
        },
    },
    Feature {
        name: "narrowing",
        often: 2,
        add: |plan, _| plan.extras.narrow = true,
    },
    Feature {
        name: "moves",
        often: 3,
        add: |plan, entropy| {
            plan.extras.moves = true;
            for _ in 0..1 + below(entropy, 3) {
                plan.add_faults([(moment(entropy), Fault::PeerMoves)]);
            }
        },
    },
    Feature {
        name: "cookies",
        often: 1,
        add: |plan, _| plan.extras.cookies = true,
    },
    Feature {
        name: "other-group",
        often: 1,
        add: |plan, _| plan.extras.other_group = true,
    },
    Feature {
        name: "dns",
        often: 1,
        add: |plan, _| (plan.extras.virtual_ip, plan.extras.dns) = (true, true),
    },
    Feature {
        name: "ciphers",
        often: 2,
        add: |plan, entropy| {
            plan.ike_proposal = pick(entropy, IKE_CIPHERS);
            plan.esp_proposal = pick(entropy, ESP_CIPHERS);
        },
    },
    Feature {
        name: "begins",
        often: 4,
        add: |plan, entropy| {
            plan.extras.begins = Some(pick(entropy, &[Begins::Cluster, Begins::Both]));
            if below(entropy, 3) == 0 {
                let at = moment(entropy);
                let anew = (at + span(entropy), Fault::Restart(0));
                plan.add_faults([(at, Fault::Crash(0)), anew]);
            }
        },
    },
    Feature {
        name: "inbound-rekey",
        often: 2,
        add: |plan, _| plan.extras.rekeys_inbound = true,
    },
];

/// Others than a plan has by itself.
const IKE_CIPHERS: &[&str] = &[
    "chacha20poly1305-prfsha256-x25519",
    "aes256-sha512-prfsha512-x25519",
    "aes256gcm16-prfsha384-x25519",
];
const ESP_CIPHERS: &[&str] = &[
    "chacha20poly1305-x25519-esn",
    "aes128-sha256-x25519-esn",
    "aes256-sha256-x25519",
    "aes128gcm16iiv-x25519-esn",
];

/// What a seed has of them: behind all else.
pub fn draw(entropy: &mut dyn Entropy, plan: &mut Plan) {
    let mut left = below(entropy, OUT_OF);
    let drawn = ALL.iter().find(|feature| {
        let found = left < feature.often;
        left = left.saturating_sub(feature.often);
        found
    });
    if let Some(feature) = drawn {
        feature.give(entropy, plan);
    }
}

impl Feature {
    /// The one of that name; else the names that there are.
    pub fn named(name: &str) -> Result<&'static Feature, String> {
        let names = || ALL.iter().map(|feature| feature.name);
        let found = ALL.iter().find(|feature| feature.name == name);
        found.ok_or_else(|| format!("one of {}", names().collect::<Vec<_>>().join(", ")))
    }

    /// The plan has it from now on.
    pub fn give(&self, entropy: &mut dyn Entropy, plan: &mut Plan) {
        (self.add)(plan, entropy);
        reconcile(plan);
    }
}

/// Amid the other faults.
fn moment(entropy: &mut dyn Entropy) -> Duration {
    QUIET + Duration::from_millis(u64::from(below(entropy, 2500)))
}

fn span(entropy: &mut dyn Entropy) -> Duration {
    Duration::from_millis(u64::from(below(entropy, 800)))
}

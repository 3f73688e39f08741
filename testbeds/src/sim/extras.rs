//! Which features a plan's tunnel has beyond the plain one: a few at a time, the dear ones rarely.

use std::time::Duration;

use hitless::lab::{Family, Redirect};
use hitless_sa::Entropy;

use super::features;
use super::pki::Login;
use super::plan::{Fault, Plan, QUIET, below, pick};

/// How many at once.
const AT_ONCE: [u32; 8] = [0, 0, 1, 1, 1, 2, 2, 3];

/// What a seed has: from its stream behind all else, so that its faults stay what they were.
pub fn draw(entropy: &mut dyn Entropy, plan: &mut Plan) {
    for _ in 0..pick(entropy, &AT_ONCE) {
        add(plan, entropy);
    }
    reconcile(plan);
    if plan.extras.nat && below(entropy, 2) == 0 {
        let at = QUIET + Duration::from_millis(u64::from(below(entropy, 2500)));
        plan.add_faults([(at, Fault::NatForgets)]);
    }
    add_rare(plan, entropy);
    reconcile(plan);
    features::draw(entropy, plan);
}

/// What is dear, or changes who there is: behind all else again.
fn add_rare(plan: &mut Plan, entropy: &mut dyn Entropy) {
    let extras = &mut plan.extras;
    match below(entropy, 40) {
        0 => extras.more_connections = 9,
        1 if plan.peers == 1 => {
            // In the place of the third member, or beside two.
            plan.members = 3;
            extras.witness = true;
            plan.degraded = pick(entropy, &["rekey", "witness", "witness"]);
        }
        2 => plan.login = Login::Rsa,
        3 => (extras.nat, extras.mobike) = (true, true),
        _ => {}
    }
}

fn add(plan: &mut Plan, entropy: &mut dyn Entropy) {
    let extras = &mut plan.extras;
    match below(entropy, 36) {
        0..=4 => extras.more_children = 2,
        5..=6 => extras.transport = true,
        7..=8 => extras.ppk = true,
        9..=10 => extras.virtual_ip = true,
        11..=12 => extras.encap = true,
        13..=14 => extras.small_fragments = true,
        15 => extras.crash_detection = true,
        16..=17 => extras.resumption = true,
        18..=20 => extras.packets = Some(pick(entropy, &[200, 600, 2000])),
        21 => extras.ml_kem = true,
        22..=23 => extras.reauthentication = true,
        24..=25 => extras.mobike = true,
        26..=28 => extras.per_cpu_sas = true,
        29 => extras.lazy = true,
        30..=31 => extras.nat = true,
        32 => plan.login = Login::Certificates,
        33 => plan.login = Login::Password,
        _ => {
            let [v4, v6] = [Family::V4, Family::V6];
            plan.families = pick(entropy, &[[v6, v6], [v4, v6], [v6, v4]]);
        }
    }
}

/// Takes back what does not go together.
pub fn reconcile(plan: &mut Plan) {
    let extras = &mut plan.extras;
    // What the configuration refuses (a PPK goes with no EAP).
    extras.transport &= !extras.virtual_ip;
    extras.ppk &= plan.login != Login::Password;
    // The NAT is one of IPv4, of one peer.
    extras.nat &= plan.families[0] == Family::V4 && plan.peers == 1;
    // Who has moved may be nobody's peer for a NAT of one address.
    extras.moves &= !extras.nat;
    // A cluster is at one address, at two, or at one for each member. Five times in five minutes a
    // client follows, and no more (RFC 5685 section 7).
    let free = !extras.mobike && !extras.reauthentication;
    extras.redirect = extras.redirect.filter(|_| free);
    if extras.redirect == Some(Redirect::Auth) && plan.login != Login::Psk {
        // Who logs in otherwise is sent away before.
        extras.redirect = Some(Redirect::Init);
    }
    // Transport mode is between the addresses that both see.
    let fixed = !extras.mobike && !extras.moves && extras.redirect.is_none();
    extras.transport &= !extras.nat && fixed;
    // Of children that all ask for everything the cluster knows but one.
    extras.narrow &= extras.more_children + extras.more_connections == 0;
    extras.dns &= extras.virtual_ip;
    // Who never says that it comes in anew waits for the one address of the pool until it is dead.
    if extras.unique == Some("never") && plan.retransmit_tries.is_none() {
        extras.virtual_ip = false;
        extras.dns = false;
    }
    // A cluster that begins is no client: it has no address of the peer's, is sent nowhere, and the peer
    // has to be where it looks for it.
    let settled = !extras.virtual_ip && extras.redirect.is_none() && !extras.nat;
    let settled = settled && !extras.mobike && !extras.moves && plan.login != Login::Password;
    extras.begins = extras.begins.filter(|_| settled);
    // Nothing is ordered that cannot be.
    let (moves, later) = (extras.moves, extras.redirect == Some(Redirect::Later));
    plan.faults.retain(|(_, fault)| match fault {
        Fault::PeerMoves => moves,
        Fault::ClusterRedirects => later,
        _ => true,
    });
}

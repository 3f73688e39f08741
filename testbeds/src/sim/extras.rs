//! Which features a plan's tunnel has beyond the plain one: a few at a time, the dear ones rarely.

use std::time::Duration;

use hitless::lab::Family;
use hitless_sa::Entropy;

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
        plan.faults.push((at, Fault::NatForgets));
        plan.faults.sort_by_key(|(at, _)| *at);
        plan.calm = plan.calm.max(at + Duration::from_millis(200));
    }
    add_rare(plan, entropy);
    reconcile(plan);
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
fn reconcile(plan: &mut Plan) {
    let extras = &mut plan.extras;
    // What the configuration refuses (a PPK goes with no EAP).
    extras.transport &= !extras.virtual_ip;
    extras.ppk &= plan.login != Login::Password;
    // The NAT is one of IPv4, of one peer.
    extras.nat &= plan.families[0] == Family::V4 && plan.peers == 1;
    // Transport mode is between the addresses that both see.
    extras.transport &= !extras.nat && !extras.mobike;
}

#[cfg(test)]
mod tests {
    use hitless::entropy::SeededEntropy;
    use hitless::lab::Extras;

    use super::*;

    #[test]
    fn two_hundred_seeds_have_each_feature_and_some_have_none() {
        let plans: Vec<Plan> = (1..=200_u64)
            .map(|seed| Plan::draw(&mut SeededEntropy::new(!seed)))
            .collect();
        let some = |what: fn(&Plan) -> bool| plans.iter().filter(|plan| what(plan)).count();
        assert!(some(|plan| plan.extras == Extras::default()) > 50);
        for (feature, what) in FEATURES {
            let one = |plan: &Plan| what(&plan.extras);
            assert!(plans.iter().any(one), "{feature}");
        }
        assert!(some(|plan| plan.login == Login::Certificates) > 0);
        assert!(some(|plan| plan.login == Login::Rsa) > 0);
        assert!(some(|plan| plan.login == Login::Password) > 0);
        assert!(some(|plan| plan.families[0] == Family::V6) > 0);
        assert!(some(|plan| plan.families[1] == Family::V6) > 0);
        let forgets = |(_, fault): &(Duration, Fault)| *fault == Fault::NatForgets;
        assert!(plans.iter().any(|plan| plan.faults.iter().any(forgets)));
    }

    type Feature = (&'static str, fn(&Extras) -> bool);

    const FEATURES: &[Feature] = &[
        ("children", |extras| extras.more_children > 0),
        ("transport mode", |extras| extras.transport),
        ("PPK", |extras| extras.ppk),
        ("virtual IP", |extras| extras.virtual_ip),
        ("ESP in UDP", |extras| extras.encap),
        ("fragments", |extras| extras.small_fragments),
        ("crash detection", |extras| extras.crash_detection),
        ("resumption", |extras| extras.resumption),
        ("lifetimes by packets", |extras| extras.packets.is_some()),
        ("ML-KEM", |extras| extras.ml_kem),
        ("reauthentication", |extras| extras.reauthentication),
        ("MOBIKE", |extras| extras.mobike),
        ("SAs for each worker", |extras| extras.per_cpu_sas),
        ("lazy", |extras| extras.lazy),
        ("NAT", |extras| extras.nat),
        ("ten tunnels", |extras| extras.more_connections == 9),
        ("witness", |extras| extras.witness),
        ("MOBIKE through a NAT", |extras| extras.nat && extras.mobike),
        ("two at once", |extras| {
            extras.more_children > 0 && extras.packets.is_some()
        }),
    ];
}

//! Crashes in the midst of the exchanges that features bring, one after each single output: of
//! IKE_INTERMEDIATE and IKE_FOLLOWUP_KE, of the rounds of EAP, of certificates, addresses, children and
//! tunnels that are made one after another.

use std::time::Duration;

use hitless::lab::{Begins, Extras, Redirect};

use super::pki::Login;
use super::plan::{Fault, Plan, QUIET, SOON};

/// No exchange has as many outputs of one member, heartbeats included.
const OUTPUTS: u64 = 80;
/// The first words about the tunnel: the cluster leads, and its standby is being admitted.
pub const MAKING: Duration = Duration::from_millis(15);

/// What a member dies in the midst of, with this feature.
struct Point {
    name: &'static str,
    extras: Extras,
    login: Login,
    events: &'static [Fault],
}

/// The tunnel itself is made.
fn made(name: &'static str, extras: Extras) -> Point {
    Point {
        name,
        extras,
        login: Login::Psk,
        events: &[],
    }
}

fn logged_in(name: &'static str, login: Login, extras: Extras) -> Point {
    Point {
        login,
        ..made(name, extras)
    }
}

fn during(name: &'static str, events: &'static [Fault], extras: Extras) -> Point {
    Point {
        events,
        ..made(name, extras)
    }
}

fn with(give: impl FnOnce(&mut Extras)) -> Extras {
    let mut extras = Extras::default();
    give(&mut extras);
    extras
}

fn points() -> Vec<Point> {
    use Fault::{ClusterRekeysChild, ClusterRekeysIke, Crash, PeerRekeysChild, PeerRekeysIke};
    const REKEYS: [&[Fault]; 4] = [
        &[PeerRekeysChild],
        &[ClusterRekeysChild],
        &[PeerRekeysIke],
        &[ClusterRekeysIke],
    ];
    let plain = Extras::default();
    let ml_kem = with(|extras| extras.ml_kem = true);
    let children = with(|extras| extras.more_children = 2);
    let virtual_ip = with(|extras| extras.virtual_ip = true);
    let tunnels = with(|extras| extras.more_connections = 9);
    let fragments = Extras {
        small_fragments: true,
        ..ml_kem
    };
    let mut all = vec![
        made("ML-KEM", ml_kem),
        made("fragments", fragments),
        made("children", children),
        made("virtual IP", virtual_ip),
        made("PPK", with(|extras| extras.ppk = true)),
        made("ten tunnels", tunnels),
        made(
            "SAs for each worker",
            with(|extras| extras.per_cpu_sas = true),
        ),
        logged_in("certificates", Login::Certificates, plain),
        logged_in("RSA", Login::Rsa, plain),
        logged_in("EAP", Login::Password, virtual_ip),
        during("MOBIKE", &[Crash(1)], with(|extras| extras.mobike = true)),
        during("ten tunnels move", &[Crash(1)], tunnels),
    ];
    for events in REKEYS {
        all.extend([
            during("ML-KEM rekeyed", events, ml_kem),
            during("children rekeyed", events, children),
        ]);
    }
    all.extend(of_sessions());
    all.extend(of_ways(virtual_ip));
    all.extend(of_children(children));
    all.extend(of_beginnings());
    all
}

/// A peer that is sent away, comes in anew, comes again, or has lost what it had.
fn of_sessions() -> Vec<Point> {
    use Fault::{ClusterRedirects, Crash, Healed, Restart};
    let redirect = |when| with(|extras| extras.redirect = Some(when));
    let unique = |word| with(|extras| extras.unique = Some(word));
    let tokens = with(|extras| extras.crash_detection = true);
    let reauthentication = with(|extras| extras.reauthentication = true);
    let anew = &[Crash(0), Restart(0)];
    vec![
        made("redirect in IKE_SA_INIT", redirect(Redirect::Init)),
        made("redirect in IKE_AUTH", redirect(Redirect::Auth)),
        during(
            "redirect later",
            &[ClusterRedirects],
            redirect(Redirect::Later),
        ),
        during("comes in anew", anew, Extras::default()),
        during("replaces itself", anew, unique("replace")),
        during("keeps its place", anew, unique("keep")),
        during("is not unique", anew, unique("never")),
        during("crash detection", anew, tokens),
        made("resumption", with(|extras| extras.resumption = true)),
        during("reauthentication", &[Healed], reauthentication),
    ]
}

/// How a peer begins, and where it is.
fn of_ways(virtual_ip: Extras) -> Vec<Point> {
    use Fault::{Crash, PeerMoves, PeerRekeysChild};
    let group = with(|extras| extras.other_group = true);
    let moves = with(|extras| extras.moves = true);
    let renewed = with(|extras| extras.rekeys_inbound = true);
    let dns = Extras {
        dns: true,
        ..virtual_ip
    };
    vec![
        made("cookies", with(|extras| extras.cookies = true)),
        made("other group", group),
        during("other group rekeyed", &[PeerRekeysChild], group),
        made("name servers", dns),
        made("NAT", with(|extras| extras.nat = true)),
        during("lazy", &[Crash(1)], with(|extras| extras.lazy = true)),
        during("new keys after a takeover", &[Crash(1)], renewed),
        during("peer moves", &[PeerMoves], moves),
        during("peer moves to and fro", &[PeerMoves, PeerMoves], moves),
    ]
}

fn of_children(children: Extras) -> Vec<Point> {
    use Fault::{
        ClusterRekeysChild, ClusterRekeysIke, Healed, PeerClosesChildren, PeerOpensChildren,
        PeerRekeysChild, PeerRekeysIke,
    };
    let childless = with(|extras| extras.childless = true);
    let narrow = with(|extras| extras.narrow = true);
    let reopened = &[PeerClosesChildren, PeerOpensChildren];
    let both_of_child = &[PeerRekeysChild, ClusterRekeysChild];
    let both_of_ike = &[PeerRekeysIke, ClusterRekeysIke];
    let octets = with(|extras| extras.octets = Some(4_000));
    let packets = with(|extras| extras.packets = Some(40));
    vec![
        made("childless", childless),
        during("children close", &[PeerClosesChildren], children),
        during("children open", reopened, childless),
        made("narrowing", narrow),
        during("narrowed rekeyed", &[ClusterRekeysChild], narrow),
        during("octets", &[Healed], octets),
        during("packets", &[Healed], packets),
        during("children collide", both_of_child, children),
        during("IKE SAs collide", both_of_ike, children),
    ]
}

/// The cluster makes the tunnel, or both ends do.
fn of_beginnings() -> Vec<Point> {
    use Fault::{ClusterRekeysIke, Crash, Healed, Restart};
    let begins = |who| with(|extras| extras.begins = Some(who));
    let (ours, both) = (begins(Begins::Cluster), begins(Begins::Both));
    let anew = &[Crash(0), Restart(0)];
    let reauthentication = Extras {
        reauthentication: true,
        ..ours
    };
    let ml_kem = Extras {
        ml_kem: true,
        small_fragments: true,
        ..ours
    };
    let children = Extras {
        more_children: 2,
        childless: true,
        ..ours
    };
    vec![
        made("the cluster begins", ours),
        made("both begin", both),
        during("the cluster begins anew", anew, ours),
        during("both begin anew", anew, both),
        during("the cluster's IKE SA rekeyed", &[ClusterRekeysIke], ours),
        during(
            "the cluster's reauthentication",
            &[Healed],
            reauthentication,
        ),
        made("the cluster's ML-KEM", ml_kem),
        made("the cluster's children", children),
    ]
}

/// What the exchanges are called.
#[cfg(test)]
pub fn names() -> Vec<&'static str> {
    points().into_iter().map(|point| point.name).collect()
}

/// How many there are.
pub fn count() -> u64 {
    points().len() as u64 * 2 * OUTPUTS
}

/// One of them, of either member; `None` behind the last.
pub fn plan(index: u64) -> Option<Plan> {
    let points = points();
    let victim = 1 + (index % 2) as u8;
    let index = index / 2;
    let outputs = index / points.len() as u64;
    let number = usize::try_from(index % points.len() as u64).ok()?;
    let point = points.get(number).filter(|_| outputs < OUTPUTS)?;
    let at = match point.events {
        [] => MAKING,
        _ => QUIET,
    };
    let later = at + Duration::from_millis(500);
    let mut faults = vec![(at, Fault::CrashAfter(victim, outputs as u32))];
    faults.extend(point.events.iter().map(|event| (at, *event)));
    faults.extend((1..=2).map(|member| (later, Fault::Restart(member))));
    Some(Plan {
        extras: point.extras,
        login: point.login,
        point: point.name,
        retransmit_tries: Some(SOON),
        ..Plan::with(2, faults)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_points_come_to_an_end_and_each_feature_has_some() {
        let all: Vec<Plan> = (0..).map_while(plan).collect();
        assert_eq!(all.len() as u64, count());
        let some = |what: fn(&Plan) -> bool| all.iter().any(what);
        assert!(some(
            |plan| plan.extras.ml_kem && plan.extras.small_fragments
        ));
        assert!(some(|plan| plan.extras.more_connections > 0));
        assert!(some(|plan| plan.login == Login::Password));
        assert!(some(|plan| plan.login == Login::Rsa));
    }
}

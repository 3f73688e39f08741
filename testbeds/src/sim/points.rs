//! Crashes in the midst of the exchanges that features bring, one after each single output: of
//! IKE_INTERMEDIATE and IKE_FOLLOWUP_KE, of the rounds of EAP, of certificates, addresses, children and
//! tunnels that are made one after another.

use std::time::Duration;

use hitless::lab::Extras;

use super::pki::Login;
use super::plan::{Fault, Plan, QUIET, SOON};

/// No exchange has as many outputs of one member, heartbeats included.
const OUTPUTS: u64 = 80;
/// The first words about the tunnel: the cluster leads, and its standby is being admitted.
pub const MAKING: Duration = Duration::from_millis(15);

/// What a member dies in the midst of, with this feature.
struct Point {
    extras: Extras,
    login: Login,
    event: Option<Fault>,
}

/// The tunnel itself is made.
fn made(extras: Extras) -> Point {
    Point {
        extras,
        login: Login::Psk,
        event: None,
    }
}

fn logged_in(login: Login, extras: Extras) -> Point {
    Point {
        login,
        ..made(extras)
    }
}

fn during(event: Fault, extras: Extras) -> Point {
    Point {
        event: Some(event),
        ..made(extras)
    }
}

fn points() -> Vec<Point> {
    let plain = Extras::default;
    let ml_kem = || Extras {
        ml_kem: true,
        ..plain()
    };
    let children = || Extras {
        more_children: 2,
        ..plain()
    };
    let virtual_ip = || Extras {
        virtual_ip: true,
        ..plain()
    };
    let fragments = Extras {
        small_fragments: true,
        ..ml_kem()
    };
    let ppk = Extras {
        ppk: true,
        ..plain()
    };
    let mobike = Extras {
        mobike: true,
        ..plain()
    };
    let tunnels = Extras {
        more_connections: 9,
        ..plain()
    };
    let workers = Extras {
        per_cpu_sas: true,
        ..plain()
    };
    let mut all = vec![
        made(ml_kem()),
        made(fragments),
        made(children()),
        made(virtual_ip()),
        made(ppk),
        made(tunnels),
        made(workers),
        logged_in(Login::Certificates, plain()),
        logged_in(Login::Rsa, plain()),
        logged_in(Login::Password, virtual_ip()),
        during(Fault::Crash(1), mobike),
        during(Fault::Crash(1), tunnels),
    ];
    for event in [
        Fault::PeerRekeysChild,
        Fault::ClusterRekeysChild,
        Fault::PeerRekeysIke,
        Fault::ClusterRekeysIke,
    ] {
        all.extend([during(event, ml_kem()), during(event, children())]);
    }
    all
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
    let at = match point.event {
        Some(_) => QUIET,
        None => MAKING,
    };
    let later = at + Duration::from_millis(500);
    let mut faults = vec![(at, Fault::CrashAfter(victim, outputs as u32))];
    faults.extend(point.event.map(|event| (at, event)));
    faults.extend((1..=2).map(|member| (later, Fault::Restart(member))));
    Some(Plan {
        extras: point.extras,
        login: point.login,
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

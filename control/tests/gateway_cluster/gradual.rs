//! A takeover of very many SAs: prepared while standing by, and then a few at a time.

use std::time::Duration;

use hitless::api::{Show, Shown};
use hitless::gateway::Event;

use crate::share::{before_a_crowd, before_a_crowd_with, crowd_in};
use crate::switchover::lost_in_switchovers;
use crate::world::World;

const IKE_SA_INIT: u8 = 34;
const IKE_AUTH: u8 = 35;

/// Seeds of worlds whose members go on with nothing at once.
const GRADUAL: u64 = 401;

/// The SA that each policy of a member leads to.
fn led_to(world: &mut World, who: u8) -> Vec<Option<String>> {
    let now = world.now;
    let shown = world.gateway(who).show(now, &Show::Policies {});
    match shown.unwrap() {
        Shown::Policies { policies } => {
            // A leader says besides whose it is.
            let id = |sa: String| sa.rsplit('{').next().map(|id| id.replace('}', ""));
            let sas = policies.into_iter().map(|policy| policy.sa);
            sas.map(|sa| sa.and_then(id)).collect()
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn rfc6311_r25_r26_what_is_inherited_in_turns_goes_on_above_the_recorded_grant() {
    let mut world = World::with_traffic(GRADUAL);
    let active = world.leader().unwrap();
    let grant = world.status(active).leases[0].grant;
    let crash = world.now;
    world.kill(active);
    world.until("a takeover", |world| world.leader().is_some());
    let standby = world.leader().unwrap();
    // Led, and not gone on with yet.
    assert_eq!(world.gateway(standby).taking_over(), 1);
    world.until("all of it", |w| w.gateway(standby).taking_over() == 0);
    world.traffic_flows();
    world.run(Duration::from_millis(500));
    let exchanges = world.exchanges_since(crash);
    assert!(
        !exchanges.contains(&IKE_SA_INIT) && !exchanges.contains(&IKE_AUTH),
        "{exchanges:?}"
    );
    let leads = |event: &Event| {
        matches!(
            event,
            Event::Leads {
                base: Some(_),
                exact: true,
                sas: 1,
                ..
            }
        )
    };
    assert!(world.happened(standby, leads));
    // What it skips is said when all is known of it.
    let told = |event: &Event| matches!(event, Event::Inherited { skip } if *skip > 0);
    assert!(world.happened(standby, told));
    // S1: the active had used at most what it was granted.
    let esp = world.esp().into_iter();
    let after: Vec<u64> = esp
        .filter(|esp| esp.port == usize::from(standby))
        .map(|esp| esp.number)
        .collect();
    assert!(after[0] > grant, "{} after {grant}", after[0]);
    world.audit();
}

#[test]
fn a_standby_has_the_policies_that_it_would_lead_with() {
    let mut world = World::with_traffic(GRADUAL);
    let active = world.leader().unwrap();
    let standby = 3 - active;
    let ours = led_to(&mut world, standby);
    assert_eq!(ours, led_to(&mut world, active));
    assert!(ours[0].is_some(), "{ours:?}");
    world.kill(active);
    world.until("a takeover", |world| world.leader().is_some());
    assert_eq!(led_to(&mut world, standby), ours);
    world.traffic_flows();
    // They are the leader's: what is rekeyed there is seen here.
    world.start(active);
    world.until("a standby", World::standby_is_ready);
    let sa = world.status(standby).leases[0].sa.clone();
    world.ask(standby, |gateway, now, entropy| {
        let (_, children) = gateway.ike_sas().remove(0);
        gateway.ike(now, entropy, hitless::ike::Input::RekeyChild(children[0]));
    });
    world.until("a rekeying", |world| {
        let leases = world.status(standby).leases;
        leases.len() == 1 && leases[0].sa != sa
    });
    world.run(Duration::from_millis(200));
    let newer = led_to(&mut world, standby);
    assert_ne!(newer, ours);
    assert_eq!(led_to(&mut world, active), newer);
    world.audit();
}

#[test]
fn packets_wait_for_their_own_sa_and_not_for_the_last_one_of_a_takeover() {
    const IKE_SAS: usize = 1_200;
    let mut world = before_a_crowd(GRADUAL, IKE_SAS);
    crowd_in(&mut world, IKE_SAS);
    let active = world.leader().unwrap();
    world.until("all clients", |world| {
        world.gateway(active).ike_sas().len() == IKE_SAS && world.status(active).sync.held == 0
    });
    world.run(Duration::from_millis(500));
    let standby = 3 - active;
    world.kill(active);
    world.until("a takeover", |world| world.leader().is_some());
    let before = world.received();
    world.traffic = true;
    world.pace = Duration::from_micros(250);
    world.until("packets both ways", |world| {
        let now = world.received();
        now[0] > before[0] && now[1] > before[1]
    });
    let left = world.gateway(standby).taking_over();
    assert!(left > IKE_SAS / 2, "{left} are left");
    world.traffic_flows();
    let early = ["no-sa", "unknown-spi"].map(|reason| world.drops(standby, reason));
    assert_eq!(early, [0, 0]);
    world.audit();
}

/// The old active forwards for a moment only, and very many SAs take longer to be inherited.
#[test]
fn a_switchover_of_very_many_sas_loses_no_packet_although_they_take_longer_than_anybody_forwards() {
    const IKE_SAS: usize = 1_200;
    const LATE: Duration = Duration::from_millis(2);
    let mut world = before_a_crowd_with(GRADUAL, IKE_SAS, |config| config.cluster.late = LATE);
    crowd_in(&mut world, IKE_SAS);
    let active = world.leader().unwrap();
    world.until("all clients", |world| {
        world.gateway(active).ike_sas().len() == IKE_SAS && world.status(active).sync.held == 0
    });
    world.traffic = true;
    world.pace = Duration::from_micros(250);
    world.traffic_flows();
    assert_eq!(lost_in_switchovers(&mut world, 1), [0, 0]);
    let at = |which: fn(&Event) -> bool| {
        let found = world.events.iter().rev().find(|(_, _, event)| which(event));
        found.map(|(at, ..)| *at).unwrap()
    };
    let leads = at(|event| matches!(event, Event::Leads { base: Some(_), .. }));
    let took = at(|event| matches!(event, Event::Inherited { .. })).since(leads);
    assert!(took > LATE, "{took:?}: this proves nothing");
}

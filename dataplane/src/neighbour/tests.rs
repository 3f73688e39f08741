//! Neighbours: what is asked, believed, held and given up.

use super::*;
use crate::pool::Pool;
use std::net::Ipv4Addr;

const WHO: Neighbour = Neighbour {
    port: 1,
    address: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 9)),
};
const MAC: MacAddress = [2, 0, 0, 0, 0, 9];

fn at(seconds: f64) -> Instant {
    Instant::default() + Duration::from_secs_f64(seconds)
}

#[test]
fn a_few_packets_wait_and_leave_in_order() {
    let mut pool = Pool::new(64).unwrap();
    let mut table = Neighbours::new(2);
    assert_eq!(
        table.resolve(WHO, at(0.0)),
        Resolution::Unknown { ask: true }
    );
    for n in 0..HELD_EACH as u8 {
        let packet = pool.copy_in(&[n]).unwrap();
        table.hold(WHO, packet).unwrap();
    }
    assert_eq!(
        table.resolve(WHO, at(0.5)),
        Resolution::Unknown { ask: false }
    );
    let packet = pool.copy_in(&[9]).unwrap();
    let refused = table.hold(WHO, packet).unwrap_err();
    pool.free(refused);
    let learned = table
        .learn(WHO, MAC, Trust::Confirmed { create: false }, at(0.6))
        .unwrap();
    assert!(learned.changed);
    let order: Vec<u8> = learned.released.iter().map(|p| pool.bytes(p)[0]).collect();
    assert_eq!(order, (0..HELD_EACH as u8).collect::<Vec<_>>());
    assert_eq!(table.held(), 0);
    learned.released.into_iter().for_each(|p| pool.free(p));
    let known = Resolution::Known {
        mac: MAC,
        probe: None,
    };
    assert_eq!(table.resolve(WHO, at(0.7)), known);
    assert_eq!(pool.available(), 64);
}

#[test]
fn silence_is_asked_three_times_and_then_given_up_rfc_1122_section_2_3_2_1() {
    let mut pool = Pool::new(1).unwrap();
    let mut table = Neighbours::new(2);
    table.resolve(WHO, at(0.0));
    table.hold(WHO, pool.allocate().unwrap()).unwrap();
    let (mut asked, mut lost) = (0, 0);
    for tenth in 0..50 {
        table.tick(at(f64::from(tenth) / 10.0), |tick| match tick {
            Tick::Ask(who) => asked += usize::from(who == WHO),
            Tick::Gone(held) => held.into_iter().for_each(|packet| {
                lost += 1;
                pool.free(packet);
            }),
        });
    }
    assert_eq!((asked, lost, table.held()), (2, 1, 0));
    assert_eq!(
        table.resolve(WHO, at(6.0)),
        Resolution::Unknown { ask: true }
    );
}

#[test]
fn an_old_answer_is_probed_and_trusted_until_three_probes_fail() {
    let mut table = Neighbours::new(2);
    table.learn(WHO, MAC, Trust::Confirmed { create: true }, at(0.0));
    let known = |probe| Resolution::Known { mac: MAC, probe };
    assert_eq!(table.resolve(WHO, at(29.9)), known(None));
    assert_eq!(table.resolve(WHO, at(30.0)), known(Some(Probe::Unicast)));
    assert_eq!(table.resolve(WHO, at(30.1)), known(None));
    assert_eq!(table.resolve(WHO, at(31.0)), known(Some(Probe::Broadcast)));
    assert_eq!(table.resolve(WHO, at(32.0)), known(Some(Probe::Broadcast)));
    assert_eq!(table.given_up(), 0);
    assert_eq!(
        table.resolve(WHO, at(33.0)),
        Resolution::Unknown { ask: true }
    );
    assert_eq!(table.given_up(), 1, "copies of the address are void");
    table.learn(WHO, MAC, Trust::Confirmed { create: false }, at(33.1));
    assert_eq!(table.resolve(WHO, at(33.2)), known(None));
}

/// It says so unasked, which a port that gets nothing but what is for us does not hear.
#[test]
fn a_router_that_moves_unheard_is_found_within_seconds_and_one_that_is_silent_is_not_given_up_early()
 {
    const OTHER: MacAddress = [0x02, 9, 9, 9, 9, 9];
    let mut table = Neighbours::new(2);
    table.learn(WHO, MAC, Trust::Confirmed { create: true }, at(0.0));
    table.set_routers([WHO].into_iter());
    let known = |probe| Resolution::Known { mac: MAC, probe };
    assert_eq!(table.resolve(WHO, at(0.9)), known(None));
    assert!(table.fresh_until(WHO, at(0.9)).unwrap() <= at(1.0));
    assert_eq!(table.resolve(WHO, at(1.0)), known(Some(Probe::Unicast)));
    assert_eq!(table.resolve(WHO, at(2.0)), known(Some(Probe::Broadcast)));
    assert!(table.awaits(WHO));
    for second in 3..30 {
        let asked = table.resolve(WHO, at(f64::from(second)));
        assert_eq!(asked, known(Some(Probe::Broadcast)), "{second}");
    }
    let given_up = Resolution::Unknown { ask: true };
    assert_eq!(table.resolve(WHO, at(30.0)), given_up);
    // Another one answers; no router any more, it is asked as seldom as others.
    let answer = Trust::Confirmed { create: false };
    assert!(table.learn(WHO, OTHER, answer, at(30.1)).unwrap().changed);
    table.set_routers(std::iter::empty());
    let moved = Resolution::Known {
        mac: OTHER,
        probe: None,
    };
    assert_eq!(table.resolve(WHO, at(60.0)), moved);
}

/// A router that fails over says so once, and a standby is not to listen.
#[test]
fn in_another_term_what_is_known_is_used_and_everybody_is_asked_at_once() {
    const OTHER: MacAddress = [0x02, 9, 9, 9, 9, 9];
    let mut table = Neighbours::new(2);
    table.learn(WHO, MAC, Trust::Confirmed { create: true }, at(0.0));
    let known = |probe| Resolution::Known { mac: MAC, probe };
    assert_eq!(table.resolve(WHO, at(0.1)), known(None));
    let before = table.given_up();
    table.doubt();
    assert!(table.given_up() > before, "copies of the address are void");
    assert_eq!(table.resolve(WHO, at(0.2)), known(Some(Probe::Broadcast)));
    assert!(table.awaits(WHO));
    assert_eq!(table.resolve(WHO, at(0.3)), known(None), "once a second");
    let until = table.fresh_until(WHO, at(0.3)).unwrap();
    assert!(
        until <= at(0.3) + Duration::from_millis(1),
        "copies of it are not kept"
    );
    let answer = Trust::Confirmed { create: false };
    assert!(table.learn(WHO, OTHER, answer, at(0.4)).unwrap().changed);
    let moved = Resolution::Known {
        mac: OTHER,
        probe: None,
    };
    assert_eq!(table.resolve(WHO, at(1.5)), moved);
    assert!(table.fresh_until(WHO, at(1.5)).unwrap() > at(2.0));
}

/// A neighbour of the attacker's choice.
fn forged(port: usize, n: u32) -> Neighbour {
    let address = Ipv4Addr::from(0x0a01_0000 + n).into();
    Neighbour { port, address }
}

#[test]
fn strangers_are_not_added_and_the_table_is_bounded() {
    let mut table = Neighbours::new(2);
    let (asked, told) = (
        Trust::Confirmed { create: false },
        Trust::Confirmed { create: true },
    );
    assert!(table.learn(WHO, MAC, asked, at(0.0)).is_none());
    for n in 0..CAPACITY as u32 {
        assert!(table.learn(forged(1, n), MAC, told, at(0.0)).is_some());
        table.resolve(forged(1, n), at(0.0));
    }
    // All of them are in use: who is only heard of does not count against them.
    assert!(table.learn(WHO, MAC, told, at(0.0)).is_none());
    assert_eq!(table.tables[1].entries.len(), CAPACITY);
    table.tick(at(301.0), |_| ());
    assert_eq!(table.tables[1].entries.len(), 0);
    let nowhere = Neighbour { port: 2, ..WHO };
    assert_eq!(table.resolve(nowhere, at(301.0)), Resolution::Full);
    assert!(table.learn(nowhere, MAC, told, at(301.0)).is_none());
}

#[test]
fn addresses_that_nobody_sends_to_crowd_nobody_out_on_their_port_or_another() {
    let told = Trust::Confirmed { create: true };
    let mut table = Neighbours::new(2);
    // A host says that it is ten thousand others.
    for n in 0..10_000 {
        let now = at(f64::from(n) / 1000.0);
        table.learn(forged(0, n), MAC, told, now);
        table.learn(forged(1, n), MAC, told, now);
    }
    assert_eq!(
        table.resolve(WHO, at(10.0)),
        Resolution::Unknown { ask: true }
    );
    table.learn(WHO, MAC, told, at(10.0)).unwrap();
    for n in 10_000..20_000 {
        let now = at(f64::from(n) / 1000.0);
        table.learn(forged(1, n), MAC, told, now);
    }
    let known = Resolution::Known {
        mac: MAC,
        probe: None,
    };
    assert_eq!(
        table.resolve(WHO, at(20.0)),
        known,
        "used long ago, but used"
    );
    assert!(table.tables[1].entries.len() <= CAPACITY);
}

#[test]
fn a_search_for_all_addresses_of_a_link_forgets_none_in_use_and_no_packet_that_waits() {
    let told = Trust::Confirmed { create: true };
    let mut pool = Pool::new(HELD_TOTAL.into()).unwrap();
    let mut table = Neighbours::new(2);
    table.resolve(WHO, at(0.0));
    table.learn(WHO, MAC, told, at(0.0)).unwrap();
    for n in 0..10_000 {
        let now = at(f64::from(n) / 20_000.0);
        let who = forged(1, n);
        match table.resolve(who, now) {
            Resolution::Unknown { .. } => {
                if let Err(packet) = table.hold(who, pool.allocate().unwrap()) {
                    pool.free(packet);
                }
            }
            other => assert_eq!(other, Resolution::Full),
        }
    }
    // Its share of what may wait, and not the other port's.
    assert_eq!(table.held(), usize::from(HELD_TOTAL) / 2);
    let other = forged(0, 1);
    table.resolve(other, at(0.5));
    assert!(table.hold(other, pool.allocate().unwrap()).is_ok());
    let known = Resolution::Known {
        mac: MAC,
        probe: None,
    };
    assert_eq!(table.resolve(WHO, at(0.5)), known);
    table.release(|_, packet| {
        pool.free(packet);
        None
    });
    assert_eq!((table.held(), pool.available()), (0, HELD_TOTAL.into()));
}

#[test]
fn there_is_always_room_for_a_router_of_ours_and_it_stays() {
    let told = Trust::Confirmed { create: true };
    let mut table = Neighbours::new(2);
    table.set_routers([WHO].into_iter());
    for n in 0..CAPACITY as u32 {
        table.resolve(forged(1, n), at(0.0));
        table.learn(forged(1, n), MAC, told, at(0.0));
    }
    // The table was swept at this very moment, so that others wait.
    assert!(matches!(
        table.resolve(forged(1, 9_999), at(0.0)),
        Resolution::Unknown { .. }
    ));
    for n in 0..CAPACITY as u32 {
        table.resolve(forged(1, n), at(0.0));
    }
    assert_eq!(table.tables[1].entries.len(), CAPACITY);
    assert_eq!(table.resolve(forged(1, 5_000), at(0.0)), Resolution::Full);
    assert_eq!(
        table.resolve(WHO, at(0.0)),
        Resolution::Unknown { ask: true }
    );
    table.learn(WHO, MAC, told, at(0.0)).unwrap();
    // All others are younger, and want its place.
    for n in 0..10_000 {
        let now = at(1.0 + f64::from(n) / 1000.0);
        table.resolve(forged(1, n), now);
        table.learn(forged(1, n), MAC, told, now);
    }
    assert!(matches!(
        table.resolve(WHO, at(11.0)),
        Resolution::Known { .. }
    ));
}

#[test]
fn rfc4861_section_7_2_5_what_is_said_unasked_is_used_but_soon_asked_for() {
    const OTHER: MacAddress = [2, 0, 0, 0, 0, 7];
    let mut table = Neighbours::new(2);
    let heard = Trust::Heard { create: true };
    assert!(table.learn(WHO, MAC, heard, at(100.0)).unwrap().changed);
    let known = |mac, probed: bool| {
        let probe = probed.then_some(Probe::Unicast);
        Resolution::Known { mac, probe }
    };
    assert_eq!(table.resolve(WHO, at(100.5)), known(MAC, false));
    assert_eq!(table.resolve(WHO, at(101.0)), known(MAC, true));
    // Hearing the same again confirms nothing; an answer does.
    table.learn(WHO, MAC, heard, at(101.5));
    let again = Resolution::Known {
        mac: MAC,
        probe: Some(Probe::Broadcast),
    };
    assert_eq!(table.resolve(WHO, at(102.0)), again);
    table.learn(WHO, MAC, Trust::Confirmed { create: false }, at(102.1));
    assert_eq!(table.resolve(WHO, at(110.0)), known(MAC, false));
    // Without the override flag nothing that is known changes.
    assert!(
        table
            .learn(WHO, OTHER, Trust::IfUnknown { answers: true }, at(111.0))
            .is_none()
    );
    assert_eq!(table.resolve(WHO, at(112.0)), known(MAC, false));
    // An answer without it confirms the same; unasked it does not.
    table.learn(WHO, MAC, Trust::IfUnknown { answers: false }, at(112.1));
    assert_eq!(table.resolve(WHO, at(132.3)), known(MAC, true));
    table.learn(WHO, MAC, Trust::IfUnknown { answers: true }, at(132.4));
    assert_eq!(table.resolve(WHO, at(133.2)), known(MAC, false));
    assert!(table.learn(WHO, OTHER, heard, at(133.3)).unwrap().changed);
    assert_eq!(table.resolve(WHO, at(133.8)), known(OTHER, false));
    assert_eq!(table.resolve(WHO, at(134.3)), known(OTHER, true));
}

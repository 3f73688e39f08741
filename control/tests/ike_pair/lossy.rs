//! Everything at once over a network that loses, repeats and reorders, with failovers.

use std::time::Duration;

use hitless::ike::{Event, Input, Resume};
use proptest::prelude::*;

use crate::windows::with_window;
use crate::world::{A, B, Faults, SECOND, World, settings};

#[derive(Clone, Copy, Debug)]
enum Action {
    RekeyChild(usize),
    RekeyIke(usize),
    Liveness(usize),
    Traffic(usize),
    /// With so many of the held commits recorded.
    FailOver(usize, usize),
    Wait(u16),
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        (0..2usize).prop_map(Action::RekeyChild),
        (0..2usize).prop_map(Action::RekeyIke),
        (0..2usize).prop_map(Action::Liveness),
        (0..2usize).prop_map(Action::Traffic),
        (0..2usize, 0..4usize).prop_map(|(host, held)| Action::FailOver(host, held)),
        (0..5000u16).prop_map(Action::Wait),
        (0..50u16).prop_map(Action::Wait),
    ]
}

impl Action {
    fn apply(self, world: &mut World) {
        match self {
            Action::RekeyChild(host) => {
                let sas: Vec<_> = world.hosts[host].sad.keys().copied().collect();
                for sa in sas {
                    world.input(host, Input::RekeyChild(sa));
                }
            }
            Action::RekeyIke(host) => {
                for ike in world.ike_sas(host) {
                    world.input(host, Input::RekeyIke(ike));
                }
            }
            Action::Liveness(host) => {
                for ike in world.ike_sas(host) {
                    world.input(host, Input::Liveness(ike));
                }
            }
            Action::Traffic(host) => {
                // What the peer sends on, this host has seen.
                let peer = world.hosts[1 - host].sad.values();
                let spis: Vec<_> = peer
                    .filter(|(_, _, send)| *send)
                    .map(|(sa, _, _)| sa.outbound_spi)
                    .collect();
                let ours = world.hosts[host].sad.values();
                let seen: Vec<_> = ours
                    .filter(|(sa, _, _)| spis.contains(&sa.inbound_spi))
                    .map(|(sa, _, _)| sa.id)
                    .collect();
                for sa in seen {
                    world.input(host, Input::Traffic { sa });
                }
            }
            Action::FailOver(host, held) => world.fail_over_held(host, held, Resume::Exact),
            Action::Wait(milliseconds) => world.run(Duration::from_millis(milliseconds.into())),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn both_ends_agree_when_the_network_heals(
        seed: u64,
        loss in 0u64..300,
        duplication in 0u64..300,
        delay in 0u64..1500,
        lag in prop_oneof![Just(0u64), 0u64..50, 0u64..3000],
        actions in prop::collection::vec(action(), 0..25),
        (children, windows) in (1usize..4, (1u32..5, 1u32..5)),
    ) {
        let mut a = with_window(A, children, windows.0);
        let mut b = with_window(B, children, windows.1);
        for settings in [&mut a, &mut b] {
            // Nobody is given up while the network is bad.
            settings.retransmit_tries = 12;
            settings.connections[0].dpd_delay = Duration::from_secs(60);
        }
        let mut world = World::new(seed, a, b);
        world.run(SECOND);
        world.assert_agreement(children);
        world.hosts[A].events.clear();
        world.faults = Faults { loss, duplication, delay: Duration::from_millis(delay) };
        world.lag = Duration::from_millis(lag);
        for action in actions {
            action.apply(&mut world);
        }
        world.faults = Faults::default();
        world.run(Duration::from_secs(10));
        world.lag = Duration::ZERO;
        // Longer than the longest back-off and the grace of redundant SAs.
        world.run(Duration::from_secs(20_000));
        world.assert_agreement(children);
        let again = |e: &Event| matches!(e, Event::IkeEstablished { .. });
        prop_assert_eq!(world.hosts[A].count(again), 0, "no new IKE_AUTH");
        prop_assert!(world.hosts[B].count(again) <= 1, "no new IKE_AUTH");
    }

    #[test]
    fn the_first_exchange_succeeds_over_a_bad_network(
        seed: u64,
        loss in 0u64..300,
        duplication in 0u64..500,
        delay in 0u64..1500,
    ) {
        let mut world = World::new(seed, settings(A), settings(B));
        world.faults = Faults { loss, duplication, delay: Duration::from_millis(delay) };
        world.run(Duration::from_secs(200));
        world.faults = Faults::default();
        world.run(Duration::from_secs(300));
        world.assert_agreement(1);
    }
}

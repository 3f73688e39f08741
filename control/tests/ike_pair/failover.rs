//! A member dies at every step of every exchange, and another goes on with its records.

use std::collections::BTreeMap;

use std::time::Duration;

use hitless::ike::settings::Takeover;
use hitless::ike::{Event, Input, Resume};
use hitless_sa::{IkeSpi, SaId, Spi};

use crate::world::{A, B, Host, SECOND, World, address, is_response, settings};

/// What is going on when the member dies.
#[derive(Clone, Copy, Debug)]
pub enum Exchange {
    Initial,
    Liveness(usize),
    RekeyChild(usize),
    RekeyIke(usize),
    BothRekeyChild,
    BothRekeyIke,
    ChildAndIke,
}

const EXCHANGES: [Exchange; 10] = [
    Exchange::Initial,
    Exchange::Liveness(A),
    Exchange::Liveness(B),
    Exchange::RekeyChild(A),
    Exchange::RekeyChild(B),
    Exchange::RekeyIke(A),
    Exchange::RekeyIke(B),
    Exchange::BothRekeyChild,
    Exchange::BothRekeyIke,
    Exchange::ChildAndIke,
];

impl Exchange {
    pub fn start(self, seed: u64) -> World {
        let mut world = match self {
            Exchange::Initial => return World::pair(seed),
            _ => World::established(seed),
        };
        for host in [A, B] {
            let (ike, sa) = (world.ike(host), world.sa(host).id);
            match self {
                Exchange::Liveness(h) if h == host => world.input(host, Input::Liveness(ike)),
                Exchange::RekeyChild(h) if h == host => world.input(host, Input::RekeyChild(sa)),
                Exchange::RekeyIke(h) if h == host => world.input(host, Input::RekeyIke(ike)),
                Exchange::BothRekeyChild => world.input(host, Input::RekeyChild(sa)),
                Exchange::BothRekeyIke => world.input(host, Input::RekeyIke(ike)),
                Exchange::ChildAndIke if host == A => world.input(host, Input::RekeyChild(sa)),
                Exchange::ChildAndIke => world.input(host, Input::RekeyIke(ike)),
                _ => {}
            }
        }
        world
    }
}

/// The peer's last request, sent once more, gets the answer that it got before (S4).
fn assert_same_answer(world: &mut World, host: usize, records: &BTreeMap<IkeSpi, (u64, Vec<u8>)>) {
    let Some((request, answer)) = world.answered[host].clone() else {
        return;
    };
    let initial = request.payload[18] == 34;
    let spis = [&request.payload[0..8], &request.payload[8..16]];
    let known = |spi: &IkeSpi| spis.contains(&spi.0.to_be_bytes().as_slice());
    if initial || !records.keys().any(known) {
        return;
    }
    let before = world.hosts[host].sent.len();
    world.deliver(&request);
    let sent = &world.hosts[host].sent[before..];
    let again = sent.iter().find(|p| is_response(p)).expect("an answer");
    assert_eq!(*again, answer, "byte for byte");
}

#[test]
fn fails_over_at_every_step_of_every_exchange() {
    for exchange in EXCHANGES {
        for host in [A, B] {
            for steps in 0..14 {
                let mut world = exchange.start(7);
                let end = world.now + SECOND;
                let taken = (0..steps).take_while(|_| world.step(end)).count();
                let records = world.hosts[host].records.clone();
                world.fail_over(host, Resume::Exact);
                assert_same_answer(&mut world, host, &records);
                world.run(80 * SECOND);
                eprintln!("{exchange:?}, host {host}, after {steps} steps");
                let initial = matches!(exchange, Exchange::Initial) && records.is_empty();
                // A responder that died half-open is found again by its initiator; an initiator
                // that died half-open starts again.
                world.assert_agreement(1);
                if !initial {
                    let again = |e: &Event| matches!(e, Event::IkeEstablished { .. });
                    assert!(!world.hosts[host].saw(again), "no new IKE_AUTH");
                }
                if taken < steps {
                    break;
                }
            }
        }
    }
}

/// The last commit was neither recorded nor released: as if the last step had not been.
#[test]
fn fails_over_with_a_commit_that_was_still_held() {
    for exchange in EXCHANGES {
        for host in [A, B] {
            for steps in 1..14 {
                let mut world = exchange.start(8);
                let end = world.now + SECOND;
                let mut records = BTreeMap::new();
                let mut mark = 0;
                let mut taken = 0;
                for _ in 0..steps {
                    records = world.hosts[host].records.clone();
                    mark = world.mark();
                    taken += usize::from(world.step(end));
                }
                world.unsend(host, mark);
                eprintln!("{exchange:?}, host {host}, after {steps} steps");
                let first = records.is_empty();
                world.fail_over_with(host, records, Resume::Exact);
                world.run(160 * SECOND);
                world.assert_agreement(1);
                if !first {
                    let again = |e: &Event| matches!(e, Event::IkeEstablished { .. });
                    assert!(!world.hosts[host].saw(again), "no new IKE_AUTH");
                }
                if taken < steps {
                    break;
                }
            }
        }
    }
}

/// The standby has recorded some of the commits that are held, and their messages never left.
#[test]
fn fails_over_with_commits_recorded_but_not_released() {
    for exchange in EXCHANGES {
        for host in [A, B] {
            for (steps, recorded) in (0..20).flat_map(|s| (0..4).map(move |r| (s, r))) {
                let mut world = exchange.start(9);
                world.lag = SECOND / 200;
                let end = world.now + SECOND;
                for _ in 0..steps {
                    world.step(end);
                }
                eprintln!("{exchange:?}, host {host}, after {steps} steps, {recorded} recorded");
                world.fail_over_held(host, recorded, Resume::Exact);
                world.run(160 * SECOND);
                world.assert_agreement(1);
            }
        }
    }
}

#[test]
fn both_ends_fail_over_in_turn_and_again() {
    let mut world = World::established(9);
    for round in 0..6 {
        let host = round % 2;
        let (ike, sa) = (world.ike(host), world.sa(host).id);
        world.input(host, Input::RekeyChild(sa));
        world.fail_over(host, Resume::Exact);
        world.run(3 * SECOND);
        world.input(1 - host, Input::RekeyIke(world.ike(1 - host)));
        world.fail_over(host, Resume::Exact);
        world.run(3 * SECOND);
        world.assert_agreement(1);
        assert_ne!(world.ike(host), ike);
    }
    assert_eq!(
        world.hosts[A].count(|e| matches!(e, Event::IkeEstablished { .. })),
        0
    );
}

#[test]
fn rekey_replaces_every_child_and_keeps_the_ike_sa() {
    let mut world = World::established(10);
    let (ike, sa) = (world.ike(A), world.sa(A));
    world.fail_over(A, Resume::Rekey);
    world.run(SECOND);
    world.assert_agreement(1);
    assert_eq!(world.ike(A), ike);
    assert_ne!(world.sa(A).inbound_key, sa.inbound_key);
    assert_eq!(world.sa(A).id.creator.0, 11);
}

#[test]
fn a_record_survives_storing_and_a_newer_one_replaces_it() {
    let mut world = World::established(11);
    let old = world.hosts[A].records.clone();
    let sa = world.sa(A).id;
    world.input(A, Input::RekeyChild(sa));
    world.run(SECOND);
    let new = world.hosts[A].records.clone();
    let mut standby = hitless::ike::Engine::new(settings(A));
    for (ike, (version, body)) in old.iter().chain(&new) {
        standby.store(world.now, *ike, *version, body).unwrap();
    }
    let status = standby.status(world.now);
    assert_eq!(status.len(), 1);
    assert_eq!(status[0].state.name(), "PASSIVE");
    assert_eq!(status[0].children[0].sa, world.sa(A).id);
    standby.forget(status[0].local_spi);
    assert!(standby.status(world.now).is_empty());
}

#[test]
fn damaged_records_are_refused_and_never_panic() {
    let world = World::established(12);
    let (ike, (version, body)) = world.hosts[A].records.first_key_value().unwrap();
    let mut standby = hitless::ike::Engine::new(settings(A));
    for length in 0..body.len() {
        // A truncated record may by chance be a record; it must not be another IKE SA's.
        let _ = standby.store(world.now, *ike, *version, &body[..length]);
    }
    for bit in 0..body.len() * 8 {
        let mut damaged = body.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        let _ = standby.store(world.now, *ike, *version, &damaged);
    }
    let other = IkeSpi(ike.0 ^ 1);
    assert!(standby.store(world.now, other, *version, body).is_err());
    let mut renamed = settings(A);
    renamed.connections[0].name = "another".to_owned();
    let mut standby = hitless::ike::Engine::new(renamed);
    assert!(standby.store(world.now, *ike, *version, body).is_err());
}

/// Another member leads with the records of A, replaces the Child SA and is gone; A, which knows nothing
/// of it, hears the peer's ESP.
fn another_goes_on(world: &mut World, how: Resume) {
    let sa = world.sa(A).id;
    let records = world.hosts[A].records.clone();
    let other = Host::new(world.hosts[A].settings.clone());
    let first = std::mem::replace(&mut world.hosts[A], other);
    world.fail_over_with(A, records, how);
    world.run(SECOND);
    world.input(A, Input::RekeyChild(sa));
    world.run(SECOND);
    world.assert_agreement(1);
    world.hosts[A] = first;
    let (source, spi) = (address(B), world.sa(B).outbound_spi);
    world.input(A, Input::UnknownSpi { source, spi });
}

/// Behind a partition another member went on with the peer, and was deposed: the Message IDs of the
/// one that leads again are used, and its Child SA is gone. The peer sends on an SPI that nobody here
/// knows, and answers nothing.
#[test]
fn rfc7296_section_2_3_a_leader_that_leads_again_finds_out_which_message_ids_were_used() {
    for seed in 0..4 {
        let mut world = World::established(seed);
        let (ike, sa) = (world.ike(A), world.sa(A).id);
        another_goes_on(&mut world, Resume::Exact);
        world.run(SECOND * 30);
        assert_eq!(world.ike(A), ike, "no new IKE SA");
        assert!(!world.hosts[A].saw(|e| matches!(e, Event::IkeDeleted { .. })));
        // What only the other member knew is left at the peer: its SPI will tell.
        let ours = world.sa(A);
        let peers = world.hosts[B].sad.values();
        assert!(
            peers
                .clone()
                .any(|(p, _, _)| p.inbound_spi == ours.outbound_spi)
        );
        assert!(!world.hosts[A].sad.contains_key(&sa));
    }
}

/// The same, but the other member declared Message IDs far above those that are tried (RFC 6311
/// section 5.1), and nobody is left to tell.
#[test]
fn rfc6311_section_5_1_a_leader_finds_out_which_message_ids_were_declared_while_it_was_cut_off() {
    for seed in 0..4 {
        let [a, b] = [A, B].map(|host| {
            let mut settings = settings(host);
            settings.connections[0].takeover = Takeover::MessageIdSync;
            settings
        });
        let mut world = World::new(seed, a, b);
        world.run(SECOND);
        let (ike, sa) = (world.ike(A), world.sa(A).id);
        another_goes_on(&mut world, Resume::MessageIdSync { replay_delta: None });
        world.run(SECOND * 70);
        assert_eq!(world.ike(A), ike, "no new IKE SA");
        let ended = |e: &Event| matches!(e, Event::IkeDeleted { .. });
        assert!(!world.hosts[A].saw(ended) && !world.hosts[B].saw(ended));
        let (ours, mut peers) = (world.sa(A), world.hosts[B].sad.values());
        assert!(peers.any(|(peer, _, _)| peer.inbound_spi == ours.outbound_spi));
        assert!(!world.hosts[A].sad.contains_key(&sa));
    }
}

/// A new leader whose rekeying is lost for ten seconds, while somebody forges an SPI.
fn loses_a_request(seed: u64) -> (World, SaId) {
    let mut world = World::established(seed);
    world.fail_over(A, Resume::Exact);
    world.run(SECOND);
    let sa = world.sa(A).id;
    world.faults.loss = 1000;
    world.input(A, Input::RekeyChild(sa));
    let (source, spi) = (address(B), Spi(0x0b00_0001));
    world.input(A, Input::UnknownSpi { source, spi });
    world.run(SECOND * 10);
    world.faults.loss = 0;
    (world, sa)
}

/// A request that was merely lost while somebody forged an SPI: the peer still waits for it, and
/// takes nothing above it (RFC 7296 section 2.3).
#[test]
fn rfc7296_section_2_1_a_forged_spi_and_loss_cost_no_ike_sa() {
    for seed in 0..4 {
        let (mut world, sa) = loses_a_request(seed);
        let ike = world.ike(A);
        world.run(SECOND * 60);
        world.assert_agreement(1);
        assert_eq!(world.ike(A), ike);
        for host in [A, B] {
            let ended = |e: &Event| matches!(e, Event::IkeDeleted { .. });
            assert!(!world.hosts[host].saw(ended), "host {host}");
        }
        assert!(!world.hosts[A].sad.contains_key(&sa));
    }
}

/// The same, until the request comes through: the peer, which ignored what was above it, expects the
/// first probe then, and after that one each of the others in its turn. No wait for a repetition of
/// any of them.
#[test]
fn rfc7296_section_2_3_probes_above_a_lost_request_cost_no_time_once_it_is_answered() {
    for seed in 0..4 {
        let (mut world, sa) = loses_a_request(seed);
        let rekeyed = |world: &World| world.sa(A).id != sa;
        while !rekeyed(&world) {
            world.run(SECOND / 100);
        }
        // The Delete of the old one gets its turn when the last probe was answered.
        world.run(SECOND);
        assert!(!world.hosts[A].sad.contains_key(&sa), "seed {seed}");
    }
}

/// The peer has taken our request and made the Child SA; only its answers were lost, while somebody
/// forged an SPI. Were the request given up, what the peer made would stay there.
#[test]
fn rfc6311_r42_an_answer_that_was_lost_for_long_counts_whatever_a_forged_spi_makes_us_doubt() {
    for takeover in [Takeover::Auto, Takeover::MessageIdSync] {
        for seed in 0..4 {
            let ends = [A, B].map(|host| {
                let mut settings = settings(host);
                settings.connections[0].takeover = takeover;
                settings
            });
            let [a, b] = ends;
            let mut world = World::new(seed, a, b);
            world.run(SECOND);
            world.fail_over(A, Resume::Exact);
            world.run(SECOND);
            let (ike, sa) = (world.ike(A), world.sa(A).id);
            world.unreachable = vec![address(A)];
            world.input(A, Input::RekeyChild(sa));
            world.run(SECOND * 10);
            assert_eq!(world.hosts[B].sad.len(), 2, "the peer has its successor");
            world.unreachable.clear();
            let (source, spi) = (address(B), Spi(0x0b00_0001));
            world.input(A, Input::UnknownSpi { source, spi });
            world.run(SECOND * 60);
            world.assert_agreement(1);
            assert_eq!(world.ike(A), ike, "{takeover:?}");
            assert_ne!(world.sa(A).id, sa);
        }
    }
}

/// Anybody can forge ESP of a peer's address: its IKE SA goes on with its own affairs.
#[test]
fn rfc7296_section_1_4_1_forged_spis_cost_few_requests_and_small_records() {
    let mut world = World::established(17);
    world.faults.delay = Duration::from_millis(50);
    let (before, sa) = (world.hosts[A].sent.len(), world.sa(A).id);
    let mut longest = 0;
    for forged in 0..3_000 {
        let (source, spi) = (address(B), Spi(0x0a00_0000 | forged));
        world.input(A, Input::UnknownSpi { source, spi });
        if forged == 1_000 {
            world.input(A, Input::RekeyChild(sa));
        }
        world.run(Duration::from_millis(1));
        let records = world.hosts[A].records.values();
        longest = longest.max(records.map(|(_, body)| body.len()).max().unwrap_or(0));
    }
    assert_ne!(world.sa(A).id, sa, "rekeyed in between");
    assert!(longest < 16_384, "{longest} octets");
    let sent = world.hosts[A].sent.len() - before;
    assert!((10..300).contains(&sent), "{sent} messages in 3 s");
    world.run(SECOND * 5);
    world.assert_agreement(1);
}

/// The files of the member that died may be lost with it.
#[test]
fn who_takes_over_logs_the_keys_of_the_ike_sa_once_if_they_are_wanted() {
    for wanted in [true, false] {
        let [a, b] = [A, B].map(|host| {
            let mut settings = settings(host);
            settings.key_log = wanted;
            settings
        });
        let mut world = World::new(3, a, b);
        world.run(SECOND);
        let lines = world.hosts[A].engine.key_lines(world.ike(A));
        world.fail_over(A, Resume::Exact);
        world.run(SECOND);
        let logged = world.hosts[A]
            .events
            .iter()
            .filter_map(|event| match event {
                Event::Keys(lines) => Some(lines.clone()),
                _ => None,
            });
        let expected: Vec<_> = lines.into_iter().filter(|_| wanted).collect();
        assert_eq!(logged.collect::<Vec<_>>(), expected);
        assert_eq!(expected.len(), usize::from(wanted));
    }
}

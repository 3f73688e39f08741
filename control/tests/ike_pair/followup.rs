//! IKE_FOLLOWUP_KE (RFC 9370 section 2.2.4): additional key exchanges of CREATE_CHILD_SA, their
//! collisions, and a failover at each of their steps.

use hitless::ike::{Event, Input, Resume};

use crate::key_exchange::exchanges;
use crate::world::{A, B, SECOND, World, settings, several};

pub const IKE: &str = "aes256gcm16-prfsha256-x25519-ke1_mlkem768-ke2_ecp256";
pub const ESP: &str = "aes256gcm16-ecp384-ke1_mlkem768-ke4_x25519-esn";
const FOLLOWUP: u8 = 44;

fn pair(seed: u64) -> World {
    pair_that_starts(seed, true)
}

fn pair_that_starts(seed: u64, start: bool) -> World {
    let [a, b] = [A, B].map(|host| {
        let mut settings = settings(host);
        settings.connections[0].children[0].start &= start;
        settings.connections[0].proposals = vec![IKE.parse().unwrap()];
        settings.connections[0].children[0].esp_proposals = vec![ESP.parse().unwrap()];
        settings
    });
    World::new(seed, a, b)
}

pub fn established(seed: u64) -> World {
    let mut world = pair(seed);
    world.run(SECOND);
    world.assert_agreement(1);
    world
}

#[derive(Clone, Copy, Debug)]
pub enum Rekey {
    Child(usize),
    Ike(usize),
    BothChild,
    BothIke,
    ChildAndIke,
}

pub const REKEYS: [Rekey; 7] = [
    Rekey::Child(A),
    Rekey::Child(B),
    Rekey::Ike(A),
    Rekey::Ike(B),
    Rekey::BothChild,
    Rekey::BothIke,
    Rekey::ChildAndIke,
];

impl Rekey {
    pub fn start(self, world: &mut World) {
        for host in [A, B] {
            let (ike, sa) = (world.ike(host), world.sa(host).id);
            match self {
                Rekey::Child(h) if h == host => world.input(host, Input::RekeyChild(sa)),
                Rekey::Ike(h) if h == host => world.input(host, Input::RekeyIke(ike)),
                Rekey::BothChild => world.input(host, Input::RekeyChild(sa)),
                Rekey::BothIke => world.input(host, Input::RekeyIke(ike)),
                Rekey::ChildAndIke if host == A => world.input(host, Input::RekeyChild(sa)),
                Rekey::ChildAndIke => world.input(host, Input::RekeyIke(ike)),
                _ => {}
            }
        }
    }
}

#[test]
fn rfc9370_section_2_2_4_rekeyings_of_both_kinds_from_both_sides() {
    for rekey in REKEYS {
        let mut world = established(1);
        let (ike, sa) = (world.ike(A), world.sa(A).id);
        rekey.start(&mut world);
        world.run(60 * SECOND);
        world.assert_agreement(1);
        assert!(
            world.ike(A) != ike || world.sa(A).id != sa,
            "{rekey:?} replaced something"
        );
        let followups = [A, B].map(|host| exchanges(&world, host).contains(&FOLLOWUP));
        assert_eq!(followups, [true, true], "{rekey:?}");
    }
}

/// Nothing is installed before the last exchange, and then on both sides.
#[test]
fn rfc9370_section_2_2_4_nothing_is_made_before_the_last_key_exchange() {
    let mut world = established(2);
    let sa = world.sa(A).id;
    world.input(A, Input::RekeyChild(sa));
    let end = world.now + SECOND;
    while !world.hosts[B].saw(|e| matches!(e, Event::ChildRekeyed { .. })) {
        assert_eq!(world.hosts[A].sad.len(), 1);
        assert!(world.step(end));
    }
    // CREATE_CHILD_SA, and one exchange for each additional method.
    let followups = world.hosts[A].sent.iter().filter(|d| d[18] == FOLLOWUP);
    let mut ids: Vec<&[u8]> = followups.map(|d| &d[20..24]).collect();
    ids.dedup();
    assert_eq!(ids.len(), 2);
    world.run(SECOND);
    world.assert_agreement(1);
}

#[test]
fn lost_and_repeated_exchanges_still_end_with_the_same_keys() {
    for seed in 0..8 {
        let mut world = established(seed);
        world.faults.loss = 200;
        world.faults.duplication = 200;
        for rekey in [Rekey::Child(A), Rekey::Ike(B), Rekey::BothChild] {
            if world.ike_sas(A).len() == 1
                && world.ike_sas(B).len() == 1
                && world.hosts.iter().all(|h| h.sad.len() == 1)
            {
                rekey.start(&mut world);
            }
            world.run(100 * SECOND);
        }
        world.faults = Default::default();
        world.run(200 * SECOND);
        world.assert_agreement(1);
    }
}

/// All of it is in the record: a member dies at each step, and another goes on.
#[test]
fn fails_over_at_every_step_of_every_rekeying_with_several_key_exchanges() {
    for rekey in REKEYS {
        for host in [A, B] {
            for steps in 0..30 {
                let mut world = established(7);
                rekey.start(&mut world);
                let end = world.now + SECOND;
                let taken = (0..steps).take_while(|_| world.step(end)).count();
                world.fail_over(host, Resume::Exact);
                world.run(100 * SECOND);
                eprintln!("{rekey:?}, host {host}, after {steps} steps");
                world.assert_agreement(1);
                let again = |e: &Event| matches!(e, Event::IkeEstablished { .. });
                assert!(!world.hosts[host].saw(again), "no new IKE_AUTH");
                if taken < steps {
                    break;
                }
            }
        }
    }
}

/// A responder that has forgotten what it began says so, and the initiator begins again.
#[test]
fn rfc9370_section_2_2_4_an_unknown_link_gets_state_not_found() {
    let [a, b] = [A, B].map(|host| {
        let mut settings = settings(host);
        settings.connections[0].dpd_delay = std::time::Duration::ZERO;
        settings.connections[0].children[0].esp_proposals = vec![ESP.parse().unwrap()];
        settings
    });
    let mut world = World::new(9, a, b);
    world.run(SECOND);
    let sa = world.sa(A).id;
    world.input(A, Input::RekeyChild(sa));
    let end = world.now + SECOND;
    while !exchanges(&world, B).contains(&36) {
        assert!(world.step(end));
    }
    // The response arrives, and the next request waits longer than B does.
    let response = world.intercept();
    world.hosts[A].dead = true;
    world.run(250 * SECOND);
    world.hosts[A].dead = false;
    for packet in response {
        world.deliver(&packet);
    }
    world.run(10 * SECOND);
    let refused = |e: &Event| matches!(e, Event::NegotiationFailed { reason, .. } if reason.contains("STATE_NOT_FOUND"));
    assert!(world.hosts[A].saw(refused));
    world.run(200 * SECOND);
    world.assert_agreement(1);
}

/// What B's file has when the last key exchange is done, after the same in this order at the first.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Later {
    /// The same, in another order.
    Swapped,
    /// What was chosen is allowed no more.
    Without,
    /// Nor all that was to be protected.
    Narrower,
}

const STRONG: &str = "aes256gcm16-prfsha256-x25519-ke1_mlkem768";
const OTHER: &str = "aes128gcm16-prfsha256-x25519-ke1_mlkem768";
const STRONG_ESP: &str = "aes256gcm16-x25519-ke1_mlkem768-esn";
const OTHER_ESP: &str = "aes128gcm16-x25519-ke1_mlkem768-esn";

/// A and B with both proposals for an IKE SA and for the second of two children, which waits.
fn of_two_minds() -> World {
    let [a, b] = [A, B].map(|host| {
        let mut settings = settings(host);
        let connection = &mut settings.connections[0];
        connection.proposals = [STRONG, OTHER].map(|p| p.parse().unwrap()).to_vec();
        connection.children = several(host, 2);
        connection.children[1].start = false;
        let proposals = [STRONG_ESP, OTHER_ESP].map(|p| p.parse().unwrap());
        connection.children[1].esp_proposals = proposals.to_vec();
        settings
    });
    let mut world = World::new(10, a, b);
    world.run(SECOND);
    world.assert_agreement(1);
    world
}

/// Until B has answered CREATE_CHILD_SA, and waits for the key exchange that follows.
fn until_half_made(world: &mut World) {
    let end = world.now + SECOND;
    while !exchanges(world, B).contains(&36) {
        assert!(world.step(end));
    }
}

/// From then on another file holds for B; or for the member that takes B's place.
fn read_later(world: &mut World, later: Later, fails_over: bool) {
    let mut file = world.hosts[B].settings.clone();
    let connection = &mut file.connections[0];
    let child = &mut connection.children[1];
    if later == Later::Narrower {
        child.local_ts = vec!["20.1.128.0/17".parse().unwrap()];
    } else {
        connection.proposals.reverse();
        child.esp_proposals.reverse();
    }
    if later == Later::Without {
        connection.proposals.truncate(1);
        child.esp_proposals.truncate(1);
    }
    match fails_over {
        true => world.fail_over_reloaded(B, file, true),
        false => {
            world.hosts[B].settings = file.clone();
            let engine = &mut world.hosts[B].engine;
            engine.reload(world.now, &mut world.entropy, file);
            world.input(B, Input::Timeout);
        }
    }
}

/// A Child SA is what the answer of CREATE_CHILD_SA said, or it is none: by another file the responder
/// would choose otherwise at the end, and the two ends would never understand each other.
#[test]
fn rfc7296_section_2_7_a_child_sa_is_what_was_answered_before_its_key_exchanges() {
    for later in [Later::Swapped, Later::Without, Later::Narrower] {
        for fails_over in [false, true] {
            let mut world = of_two_minds();
            let (connection, child) = ("peer".to_owned(), Some("net1".to_owned()));
            world.input(A, Input::Initiate { connection, child });
            until_half_made(&mut world);
            read_later(&mut world, later, fails_over);
            world.run(60 * SECOND);
            eprintln!("{later:?}, takeover {fails_over}");
            // At once, or when A has asked again and was answered by what holds then.
            world.assert_agreement(2);
            let mut sad = world.hosts[B].sad.values();
            let (sa, _, _) = sad.find(|(_, name, _)| name == "net1").unwrap();
            let expected = match later {
                Later::Without => "aes128gcm16",
                _ => "aes256gcm16",
            };
            assert_eq!(sa.suite.keyword(), expected);
            let refused = |e: &Event| matches!(e, Event::NegotiationFailed { reason, .. } if reason.contains("IKE_FOLLOWUP_KE"));
            assert_eq!(world.hosts[B].saw(refused), later != Later::Swapped);
        }
    }
}

/// The same for an IKE SA.
#[test]
fn rfc7296_section_2_7_an_ike_sa_is_what_was_answered_before_its_key_exchanges() {
    for later in [Later::Swapped, Later::Without] {
        for fails_over in [false, true] {
            let mut world = of_two_minds();
            let ike = world.ike(A);
            world.hosts[B].sent.clear();
            world.input(A, Input::RekeyIke(ike));
            until_half_made(&mut world);
            read_later(&mut world, later, fails_over);
            world.run(2 * SECOND);
            eprintln!("{later:?}, takeover {fails_over}");
            let understand = |world: &World| {
                world.assert_agreement(1);
                let status = [A, B].map(|h| world.hosts[h].engine.status(world.now).remove(0));
                assert_eq!(status[A].proposal, status[B].proposal);
            };
            understand(&world);
            assert_eq!(world.ike(A) != ike, later == Later::Swapped);
            // At last there is another one, and none was lost on the way.
            world.run(200 * SECOND);
            understand(&world);
            assert_ne!(world.ike(A), ike);
            let begun = |e: &Event| matches!(e, Event::IkeEstablished { .. });
            assert_eq!(world.hosts[A].count(begun), 1);
        }
    }
}

/// What is asked for while the key exchanges of a rekeying are under way.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Close {
    Child(usize),
    Ike(usize),
}

const CLOSES: [Close; 4] = [
    Close::Child(A),
    Close::Child(B),
    Close::Ike(A),
    Close::Ike(B),
];

impl Close {
    fn begin(self, world: &mut World) {
        match self {
            Close::Child(host) => {
                let all: Vec<_> = world.hosts[host].sad.keys().copied().collect();
                for sa in all {
                    world.input(host, Input::TerminateChild(sa));
                }
            }
            Close::Ike(host) => {
                let all = world.hosts[host].engine.status(world.now);
                for ike in all.into_iter().map(|status| status.local_spi) {
                    world.input(host, Input::Terminate { ike });
                }
            }
        }
    }
}

/// Plays until nothing is left to do; whether the rekeying was still under way when it met the closing.
fn close_after(rekey: Rekey, close: Close, steps: usize, dies: Option<usize>) -> (World, bool) {
    let mut world = pair_that_starts(7, false);
    let connection = "peer".to_owned();
    let child = None;
    world.input(A, Input::Initiate { connection, child });
    world.run(SECOND);
    world.assert_agreement(1);
    rekey.start(&mut world);
    let end = world.now + SECOND;
    let taken = (0..steps).take_while(|_| world.step(end)).count();
    close.begin(&mut world);
    if let Some(host) = dies {
        world.fail_over(host, Resume::Exact);
    }
    world.run(150 * SECOND);
    (world, taken == steps)
}

/// RFC 7296 section 2.25 has the same answers for an exchange that is several. Whatever the rekeying
/// comes to, what was to be closed is closed, on both ends, and what takes its place as well.
#[test]
fn rfc9370_section_2_2_4_closing_meets_a_rekeying_at_every_step_of_its_key_exchanges() {
    for rekey in REKEYS {
        for close in CLOSES {
            for (steps, die) in (0..40).flat_map(|steps| [(steps, false), (steps, true)]) {
                // Both at once are many.
                if die && matches!(rekey, Rekey::BothChild | Rekey::BothIke) {
                    continue;
                }
                let dies = die.then_some(steps % 2);
                let (world, under_way) = close_after(rekey, close, steps, dies);
                let left = [A, B].map(|h| (world.ike_sas(h).len(), world.hosts[h].sad.len()));
                let ikes = usize::from(matches!(close, Close::Child(_)));
                assert_eq!(
                    left,
                    [(ikes, 0); 2],
                    "{rekey:?}, {close:?} after {steps} steps, {dies:?}"
                );
                if !under_way {
                    break;
                }
            }
        }
    }
}

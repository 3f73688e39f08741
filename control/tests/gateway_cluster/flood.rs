//! A flood of IKE from forged addresses, while IKE SAs that there are go on: traffic, signs of life,
//! rekeying, and the heartbeats of the members.

use std::collections::BTreeMap;
use std::time::Duration;

use hitless::config::Config;
use hitless::gateway::Event;
use hitless::ike::{self, Input};
use hitless::lab::Topology;
use hitless_sa::IkeSpi;

use crate::hostile::{checksums, ike_frames};
use crate::world::{PEER, World};

/// Where the IKE header begins in a frame: behind Ethernet, IPv4 and UDP.
const IKE: usize = 14 + 20 + 8;
/// Frames of the flood in each step of a quarter of a millisecond: 240,000 a second.
const A_STEP: usize = 60;

/// A cluster that serves anybody who knows the secret.
fn world(seed: u64) -> World {
    let topology = Topology::new(2, "open sesame".to_owned());
    let members = [1, 2].map(|id| {
        let mut config: Config = topology.member(id).unwrap();
        config.connections[0].remote_addrs.clear();
        config
    });
    let mut world = World::with(seed, members.into(), topology.peer().unwrap());
    world.come_up();
    world
}

/// What a flood is made of.
struct Flood {
    init: Vec<u8>,
    auth: Vec<u8>,
    /// SPIs of half-open IKE SAs of the cluster, as its answers told them: (initiator's, ours).
    half_open: Vec<(IkeSpi, IkeSpi)>,
    n: u32,
}

impl Flood {
    fn of(world: &World) -> Flood {
        let frames = ike_frames(world, usize::from(PEER));
        let of = |exchange: u8| {
            let mut frames = frames.iter().filter(|f| f[IKE + 18] == exchange);
            frames.next().expect("the peer's first messages").clone()
        };
        Flood {
            init: of(34),
            auth: of(35),
            half_open: Vec::new(),
            n: 0,
        }
    }

    /// The next frame; what it is goes round.
    fn next(&mut self) -> Vec<u8> {
        self.n += 1;
        let n = self.n;
        let mut frame = match n % 6 {
            // The peer's own address first: the answers tell SPIs of half-open IKE SAs.
            0 | 1 if n < 300 => from(&self.init, [192, 0, 2, 2]),
            // Forged sources, near and far.
            0 | 1 => from(&self.init, [10, (n >> 16) as u8, (n >> 8) as u8, n as u8]),
            2 => from(&self.init, [192, 0, 2, 3 + (n % 200) as u8]),
            // A cookie of somebody else.
            3 => with_cookie(&from(&self.init, [198, 51, 100, n as u8]), n),
            // A fragment of an IKE SA that there is not.
            4 => {
                let mut frame = from(&self.auth, [203, 0, 113, n as u8]);
                frame[IKE + 16] = 53;
                frame[IKE + 32..IKE + 36].copy_from_slice(&[0, 1, 0, 2]);
                frame[IKE + 8..IKE + 16].copy_from_slice(&u64::from(n).to_be_bytes());
                frame
            }
            // IKE_AUTH garbage, for IKE SAs that are half-open where there are any.
            _ => {
                let mut frame = self.auth.clone();
                if let Some((theirs, ours)) =
                    self.half_open.get(n as usize % self.half_open.len().max(1))
                {
                    frame[IKE..IKE + 8].copy_from_slice(&theirs.0.to_be_bytes());
                    frame[IKE + 8..IKE + 16].copy_from_slice(&ours.0.to_be_bytes());
                }
                let last = frame.len() - 1;
                frame[last] ^= n as u8 | 1;
                frame
            }
        };
        if n % 6 < 4 {
            frame[IKE..IKE + 8].copy_from_slice(&(u64::from(n) | 1 << 60).to_be_bytes());
        }
        checksums(&mut frame);
        frame
    }

    /// Reads the cluster's answers off the wire.
    fn learn(&mut self, world: &World) {
        let answers = ike_frames_of_cluster(world);
        self.half_open = answers.into_iter().collect();
    }
}

/// IKE_SA_INIT responses with an SPI of the cluster's.
fn ike_frames_of_cluster(world: &World) -> BTreeMap<IkeSpi, IkeSpi> {
    let spi = |frame: &[u8], at: usize| {
        let octets = frame[IKE + at..IKE + at + 8].try_into().unwrap();
        IkeSpi(u64::from_be_bytes(octets))
    };
    let frames = [1, 2].into_iter().flat_map(|port| ike_frames(world, port));
    let answers = frames.filter(|f| f[IKE + 18] == 34 && f[IKE + 8..IKE + 16] != [0; 8]);
    answers.map(|f| (spi(&f, 0), spi(&f, 8))).collect()
}

fn from(frame: &[u8], source: [u8; 4]) -> Vec<u8> {
    let mut frame = frame.to_vec();
    frame[14 + 12..14 + 16].copy_from_slice(&source);
    frame
}

/// The request with a cookie of 33 octets in front.
fn with_cookie(frame: &[u8], n: u32) -> Vec<u8> {
    let mut notify = vec![frame[IKE + 16], 0, 0, 41, 0, 0, 0x40, 0x06, (n % 3) as u8];
    notify.resize(41, n as u8);
    let mut frame = frame.to_vec();
    frame.splice(IKE + 28..IKE + 28, notify);
    frame[IKE + 16] = 41;
    for at in [14 + 2, 14 + 20 + 4, IKE + 26] {
        let length = u16::from_be_bytes([frame[at], frame[at + 1]]) + 41;
        frame[at..at + 2].copy_from_slice(&length.to_be_bytes());
    }
    frame
}

fn signs_of_life(world: &World, who: u8, since: usize) -> usize {
    let events = world.since(since).filter(|(w, _)| *w == who);
    let confirmed = |e: &Event| matches!(e, Event::Ike(ike::Event::LivenessConfirmed { .. }));
    events.filter(|(_, e)| confirmed(e)).count()
}

#[test]
fn a_flood_of_forged_ike_leaves_traffic_signs_of_life_rekeying_and_heartbeats_alone() {
    const STEPS: usize = 1200;
    let mut world = world(80);
    let active = world.leader().unwrap();
    let mut flood = Flood::of(&world);
    let (ike, child) = {
        let sas = world.gateway(PEER).ike_sas();
        (sas[0].0, sas[0].1[0])
    };
    let (before, since) = (world.received(), world.events.len());
    let mut sent = 0usize;
    for step in 0..STEPS {
        for _ in 0..A_STEP {
            sent += usize::from(world.outside.inject(&flood.next()));
        }
        if step % 100 == 50 {
            flood.learn(&world);
            world.ask(PEER, |gateway, now, entropy| {
                gateway.ike(now, entropy, Input::Liveness(ike));
            });
        }
        if step == 600 {
            world.ask(PEER, |gateway, now, entropy| {
                gateway.ike(now, entropy, Input::RekeyChild(child));
            });
        }
        world.step();
    }
    assert!(sent > 50_000, "{sent}");
    // Every sign of life was answered, the Child SA has a successor, and traffic went on.
    assert!(signs_of_life(&world, PEER, since) >= STEPS / 100);
    assert!(!world.gateway(PEER).ike_sas()[0].1.contains(&child));
    let (after, probes) = (world.received(), STEPS / 4);
    for host in 0..2 {
        assert!(
            after[host] - before[host] >= probes - 20,
            "{before:?} {after:?}"
        );
    }
    // Nobody took over, nobody was suspected, the standby is bound.
    assert_eq!(world.leader(), Some(active));
    assert!(world.standby_is_ready());
    assert!(
        !world
            .since(since)
            .any(|(_, e)| matches!(e, Event::Leads { .. }))
    );
    // Everything is counted, with a reason.
    let reasons = [
        "ike_cookie_demanded",
        "ike_not_a_cookie_of_ours",
        "ike_unknown_ike_sa",
    ];
    for reason in reasons {
        assert!(world.drops(active, reason) > 1000, "{reason}");
    }
    assert!(flood.half_open.len() > 10, "{}", flood.half_open.len());
    world.traffic_flows();
    world.audit();
}

#[test]
fn rfc7296_section_2_6_a_peer_comes_back_with_a_cookie_during_a_flood_and_after_a_takeover() {
    let mut world = world(81);
    let active = world.leader().unwrap();
    let mut flood = Flood::of(&world);
    let mut rounds = |world: &mut World, what: &str, so: &mut dyn FnMut(&mut World) -> bool| {
        for _ in 0..40_000 {
            for _ in 0..A_STEP / 3 {
                world.outside.inject(&flood.next());
            }
            world.step();
            if so(world) {
                return;
            }
        }
        panic!("{what}");
    };
    for _ in 0..400 {
        rounds(&mut world, "a step", &mut |_| true);
    }
    // The peer forgets everything and begins anew, in the middle of the flood.
    world.kill(PEER);
    world.start(PEER);
    let since = world.events.len();
    let up = |world: &World, since: usize| {
        let mut events = world.since(since);
        events.any(|(who, e)| {
            who == PEER && matches!(e, Event::Ike(ike::Event::ChildEstablished { .. }))
        })
    };
    rounds(&mut world, "the peer comes back", &mut |world| {
        up(world, since)
    });
    // Cookies are not shared, half-open IKE SAs are not replicated: begun at one member, done at
    // the other.
    world.kill(PEER);
    world.start(PEER);
    let since = world.events.len();
    for _ in 0..4 {
        rounds(&mut world, "a step", &mut |_| true);
    }
    world.kill(active);
    rounds(
        &mut world,
        "the peer comes back to the other member",
        &mut |world| up(world, since),
    );
    world.audit();
}

/// A turn of the control thread ends soon: heartbeats are due whatever peers ask for.
#[test]
fn a_turn_does_few_key_exchanges_and_the_others_wait_for_the_next_one() {
    const REQUESTS: u8 = 64;
    let mut world = world(82);
    world.traffic = false;
    world.run(Duration::from_millis(20));
    let flood = Flood::of(&world);
    let answers = |world: &World| {
        let frames = [1, 2].into_iter().flat_map(|port| ike_frames(world, port));
        // A cookie demanded costs nothing.
        let keyed = frames.filter(|f| f[IKE + 18] == 34 && f[IKE + 8..IKE + 16] != [0; 8]);
        keyed.count()
    };
    let before = answers(&world);
    for n in 0..REQUESTS {
        let mut frame = flood.init.clone();
        frame[IKE..IKE + 8].copy_from_slice(&(u64::from(n) | 1 << 60).to_be_bytes());
        checksums(&mut frame);
        assert!(world.outside.inject(&frame));
    }
    let mut steps = Vec::new();
    let mut last = before;
    for _ in 0..60 {
        world.step();
        let now = answers(&world);
        steps.push(now - last);
        last = now;
    }
    assert!(last - before > 24, "{steps:?}");
    assert!(steps.iter().all(|answers| *answers <= 24), "{steps:?}");
}

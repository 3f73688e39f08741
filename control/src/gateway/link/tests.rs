//! Two members and a perfect network between them: links made, rekeyed, lost, attacked.

use std::collections::BTreeSet;

use super::*;
use crate::entropy::SeededEntropy;

/// Two members on a perfect network.
struct Pair {
    now: Instant,
    entropy: SeededEntropy,
    links: [Link; 2],
    received: [Vec<Vec<u8>>; 2],
    /// Everything sent, with the sender.
    wire: Vec<(usize, Vec<u8>)>,
    events: Vec<(usize, Event)>,
    /// Nobody hears this one.
    mute: Option<usize>,
    /// The first answer to each rekeying is lost.
    lossy: bool,
    lost: BTreeSet<Vec<u8>>,
}

fn address(index: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, index as u8 + 1], 4510))
}

fn id(index: usize) -> MemberId {
    MemberId(index as u8 + 1)
}

fn settings(index: usize, incarnation: u32, cluster: &str, secret: &[u8]) -> LinkSettings {
    let other = 1 - index;
    LinkSettings {
        me: id(index),
        incarnation: Incarnation(incarnation),
        local: address(index),
        others: vec![LinkMember {
            id: id(other),
            address: address(other),
        }],
        cluster: cluster.to_owned(),
        secret: Zeroizing::new(secret.to_vec()),
        heartbeat: Duration::from_millis(10),
    }
}

impl Pair {
    fn new(seed: u64) -> Pair {
        Pair::of(seed, ["lab", "lab"])
    }

    fn of(seed: u64, clusters: [&str; 2]) -> Pair {
        let mut entropy = SeededEntropy::new(seed);
        let now = Instant(1_000_000_000);
        let links = [0, 1].map(|index| {
            let settings = settings(index, 1, clusters[index], b"secret");
            Link::new(settings, now, &mut entropy)
        });
        Pair {
            now,
            entropy,
            links,
            received: [Vec::new(), Vec::new()],
            wire: Vec::new(),
            events: Vec::new(),
            mute: None,
            lossy: false,
            lost: BTreeSet::new(),
        }
    }

    fn up(seed: u64) -> Pair {
        let mut pair = Pair::new(seed);
        pair.run(Duration::from_secs(1), Duration::from_millis(10));
        pair.deliver();
        assert!(pair.both_ways());
        pair
    }

    /// Both members say something at each step.
    fn run(&mut self, time: Duration, step: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.now += step;
            for index in [0, 1] {
                self.links[index].turn(self.now, &mut self.entropy);
                self.links[index].send(id(1 - index), b"beat");
            }
            self.deliver();
        }
    }

    fn deliver(&mut self) {
        let mut moved = true;
        while moved {
            moved = false;
            for index in [0, 1] {
                while let Some(output) = self.links[index].poll_output() {
                    moved = true;
                    match output {
                        LinkOutput::Transmit(_, datagram) => {
                            self.wire.push((index, datagram.clone()));
                            // Behind four octets for IKE (RFC 3948 section 2.2): the exchange, the R flag.
                            let answer = datagram.starts_with(&[0; 4])
                                && datagram.get(22) == Some(&36)
                                && datagram.get(23).is_some_and(|flags| flags & 0x20 != 0);
                            let lost = self.lossy && answer && self.lost.insert(datagram.clone());
                            if self.mute == Some(index) || lost {
                                continue;
                            }
                            let link = &mut self.links[1 - index];
                            link.receive(self.now, &mut self.entropy, address(index), &datagram);
                        }
                        LinkOutput::Received(from, payload) => {
                            assert_eq!(from, id(1 - index));
                            self.received[index].push(payload.to_vec());
                        }
                        LinkOutput::Event(event) => self.events.push((index, event)),
                    }
                }
            }
        }
    }

    /// Whether a datagram arrives in each direction now.
    fn both_ways(&mut self) -> bool {
        let before = [self.received[0].len(), self.received[1].len()];
        self.links[0].send(id(1), b"to the second");
        self.links[1].send(id(0), b"to the first");
        self.deliver();
        self.received[0].len() > before[0] && self.received[1].len() > before[1]
    }

    fn receive(&mut self, index: usize, datagram: &[u8]) {
        let from = address(1 - index);
        self.links[index].receive(self.now, &mut self.entropy, from, datagram);
    }
}

#[test]
fn datagrams_of_every_size_arrive_as_they_were_sent() {
    let mut pair = Pair::up(1);
    for size in [0, 1, 1400, LARGEST_PAYLOAD] {
        let payload: Vec<u8> = (0..size).map(|i| i as u8).collect();
        pair.links[0].send(id(1), &payload);
        pair.deliver();
        assert_eq!(pair.received[1].last(), Some(&payload));
    }
}

#[test]
fn nothing_readable_leaves() {
    // S6: no sync message leaves unprotected.
    let mut pair = Pair::up(2);
    pair.links[0].send(id(1), b"a very recognisable sync message");
    pair.deliver();
    let words = b"recognisable";
    let readable = |(_, datagram): &(usize, Vec<u8>)| {
        datagram.windows(words.len()).any(|octets| octets == words)
    };
    assert!(!pair.wire.iter().any(readable));
}

#[test]
fn a_link_lives_through_rekeying_by_either_side_and_piles_nothing_up() {
    for (seed, lossy) in [(3, false), (4, false), (5, true)] {
        let mut pair = Pair::up(seed);
        pair.lossy = lossy;
        let (before, step) = (pair.received[1].len(), Duration::from_millis(100));
        pair.run(Duration::from_secs(9 * 3600), step);
        let arrived = pair.received[1].len() - before;
        assert!(arrived + 3 >= 9 * 36_000, "{arrived}");
        assert_eq!(pair.lost.is_empty(), !lossy);
        assert!(pair.both_ways());
        let rekeyed = |(_, event): &&(usize, Event)| matches!(event, Event::IkeRekeyed { .. });
        assert!(pair.events.iter().filter(rekeyed).count() >= 2);
        for index in [0, 1] {
            let link = &pair.links[index];
            assert!(link.inbound.len() <= 2, "{}", link.inbound.len());
            assert!(link.peers.values().all(|peer| peer.outbound.len() <= 2));
            assert!(link.engine.status(pair.now).len() <= 2);
        }
    }
}

#[test]
fn a_member_that_restarts_has_a_link_within_a_second_and_leaves_no_old_one() {
    for restarted in [0, 1] {
        let mut pair = Pair::up(7);
        for incarnation in 2..12 {
            let settings = settings(restarted, incarnation, "lab", b"secret");
            pair.links[restarted] = Link::new(settings, pair.now, &mut pair.entropy);
            pair.run(Duration::from_secs(1), Duration::from_millis(10));
            assert!(
                pair.both_ways(),
                "member {restarted}, incarnation {incarnation}"
            );
        }
        pair.run(Duration::from_secs(5), Duration::from_millis(10));
        for link in &pair.links {
            assert_eq!(link.inbound.len(), 1);
            assert_eq!(link.engine.status(pair.now).len(), 1);
        }
    }
}

/// Who hears nothing makes a new link, and is heard on the old one until that stands: its silence
/// would be taken for its death.
#[test]
fn a_link_that_is_cut_one_way_works_the_other_way_until_another_stands() {
    for mute in [0, 1] {
        let mut pair = Pair::up(13);
        pair.mute = Some(mute);
        for _ in 0..500 {
            let before = pair.received[mute].len();
            pair.run(Duration::from_millis(20), Duration::from_millis(10));
            assert!(pair.received[mute].len() > before, "{mute} hears");
        }
        pair.mute = None;
        pair.run(Duration::from_secs(5), Duration::from_millis(10));
        assert!(pair.both_ways());
        for link in &pair.links {
            assert_eq!(link.inbound.len(), 1);
            assert_eq!(link.engine.status(pair.now).len(), 1);
        }
    }
}

#[test]
fn a_slow_heartbeat_is_no_silence() {
    let mut pair = Pair::new(8);
    let mut slow = settings(0, 1, "lab", b"secret");
    slow.heartbeat = Duration::from_secs(1);
    pair.links[0] = Link::new(slow, pair.now, &mut pair.entropy);
    let mut other = settings(1, 1, "lab", b"secret");
    other.heartbeat = Duration::from_secs(1);
    pair.links[1] = Link::new(other, pair.now, &mut pair.entropy);
    pair.run(Duration::from_secs(60), Duration::from_secs(1));
    assert!(pair.both_ways());
    let made = |(_, event): &&(usize, Event)| matches!(event, Event::IkeEstablished { .. });
    assert_eq!(pair.events.iter().filter(made).count(), 2);
}

#[test]
fn an_altered_truncated_or_repeated_datagram_is_refused_and_counted() {
    let mut pair = Pair::up(9);
    pair.links[0].send(id(1), b"one");
    pair.deliver();
    let (_, datagram) = pair.wire.last().unwrap().clone();
    let received = pair.received[1].len();
    let before = pair.links[1].counters();
    pair.receive(1, &datagram);
    for length in 0..datagram.len() {
        pair.receive(1, &datagram[..length]);
    }
    for bit in 0..datagram.len() * 8 {
        let mut altered = datagram.clone();
        altered[bit / 8] ^= 1 << (bit % 8);
        pair.receive(1, &altered);
    }
    pair.deliver();
    assert_eq!(pair.received[1].len(), received);
    let after = pair.links[1].counters();
    let refused = after.refused - before.refused + after.unknown_spi - before.unknown_spi;
    assert_eq!(refused as usize, 1 + datagram.len() * 9);
    assert!(pair.both_ways());
}

#[test]
fn a_datagram_is_not_accepted_by_its_sender() {
    let mut pair = Pair::up(10);
    pair.links[0].send(id(1), b"one");
    pair.deliver();
    let (_, datagram) = pair.wire.last().unwrap().clone();
    let received = pair.received[0].len();
    pair.receive(0, &datagram);
    pair.deliver();
    assert_eq!(pair.received[0].len(), received);
}

#[test]
fn members_of_clusters_with_different_names_do_not_meet() {
    let mut pair = Pair::of(11, ["lab", "hq"]);
    pair.run(Duration::from_secs(5), Duration::from_millis(10));
    assert!(!pair.both_ways());
    for link in &pair.links {
        assert!(link.counters().authentication_failed > 0);
        assert!(link.counters().no_link > 0);
    }
}

#[test]
fn strangers_and_garbage_cost_a_counter() {
    let mut pair = Pair::up(12);
    let stranger = SocketAddr::from(([192, 0, 2, 9], 4510));
    pair.links[0].receive(pair.now, &mut pair.entropy, stranger, &[0; 100]);
    assert_eq!(pair.links[0].counters().unknown_sender, 1);
    for length in 0..600usize {
        let mut octets: Vec<u8> = (0..length).map(|i| (i * 31 + length) as u8).collect();
        pair.receive(0, &octets);
        octets.splice(0..0, NON_ESP_MARKER);
        pair.receive(0, &octets);
    }
    pair.deliver();
    assert!(pair.both_ways());
}

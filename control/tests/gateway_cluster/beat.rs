//! Heartbeats in the middle of work, on a machine so slow that one turn outlasts a takeover.

use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hitless::gateway::{Event, Pacemaker};
use hitless::ike::work::Share;
use hitless::lab::{SyncNetwork, sync_address};
use hitless_sa::Instant;

use crate::share::{before_a_crowd, crowd_in};
use crate::world::World;

const CLIENTS: usize = 60;
/// So many times slower than a core of 2025: a turn's share of handshakes takes 80 ms.
const SLOW: u64 = 40;
const HEARTBEAT: Duration = Duration::from_millis(10);
/// The greatest piece of work here: a key exchange, both halves of it.
const A_PIECE: Duration = Duration::from_micros(300 * SLOW);

/// The clock of one turn: as long as its work takes, as IKE counts it.
struct Turn {
    began: Instant,
    share: Share,
    sent: VecDeque<(Instant, SocketAddr, Vec<u8>)>,
}

impl Turn {
    fn now(&self) -> Instant {
        self.began + Duration::from_micros(self.share.used() * SLOW)
    }
}

#[derive(Clone)]
struct Slow(Arc<Mutex<Turn>>);

impl Pacemaker for Slow {
    fn now(&mut self) -> Instant {
        self.0.lock().unwrap().now()
    }

    fn send(&mut self, to: SocketAddr, datagram: &[u8]) {
        let mut turn = self.0.lock().unwrap();
        let now = turn.now();
        turn.sent.push_back((now, to, datagram.to_vec()));
    }
}

/// Turns of one member that take as long as they work, in the time of all others.
struct Crawl {
    active: u8,
    turn: Arc<Mutex<Turn>>,
    longest: Duration,
    beats: usize,
}

impl Crawl {
    fn step(&mut self, world: &mut World) {
        {
            let mut turn = self.turn.lock().unwrap();
            turn.began = world.now + Duration::from_micros(250);
            turn.share = Share::new(0);
        }
        // Nobody else's work takes time, and what it sends leaves at the end of the turn.
        world.away = (0..=2).filter(|who| *who != self.active).collect();
        world.network.recorded = Some(Vec::new());
        world.network.fate = Some(Box::new(|_, _, _| false));
        world.step();
        let outputs = world.network.recorded.take().unwrap();
        world.network.fate = None;
        world.away = BTreeSet::from([self.active]);
        let began = world.now;
        let busy = Duration::from_micros(world.busiest.remove(&self.active).unwrap_or(0) * SLOW);
        world.gateway(self.active).rest();
        let sent = std::mem::take(&mut self.turn.lock().unwrap().sent);
        self.longest = self.longest.max(busy);
        self.beats += sent.len();
        // What it had to say at the end of the last turn, and every one of these.
        let mut last = began;
        for (at, ..) in &sent {
            assert!(at.since(last) <= HEARTBEAT + A_PIECE, "{at:?} {last:?}");
            last = *at;
        }
        let quiet = (began + busy).since(last);
        assert!(sent.is_empty() || quiet <= HEARTBEAT + A_PIECE, "{quiet:?}");
        let end = began + busy;
        let outputs = outputs.into_iter();
        let outputs = outputs.map(|(_, to, datagram)| (end, sync_address(to), datagram));
        let mut sent = sent.into_iter().chain(outputs).peekable();
        world.step();
        loop {
            while let Some((at, to, datagram)) = sent.next_if(|(at, ..)| *at <= world.now) {
                let from = sync_address(self.active);
                world.network.send(at, from, to, datagram);
            }
            if sent.peek().is_none() && world.now >= end {
                break;
            }
            world.step();
        }
        world.away.clear();
    }
}

/// Has a crowd come to a member whose control thread is so slow; gives what happened and how long
/// its longest turn was.
fn a_crowd(seed: u64, beats: bool) -> (World, u8, Crawl) {
    let mut world = before_a_crowd(seed, CLIENTS);
    let active = world.leader().unwrap();
    let turn = Arc::new(Mutex::new(Turn {
        began: world.now,
        share: Share::new(0),
        sent: VecDeque::new(),
    }));
    if beats {
        let pacemaker = Slow(Arc::clone(&turn));
        world.gateway(active).set_pacemaker(Box::new(pacemaker));
    }
    let mut crawl = Crawl {
        active,
        turn,
        longest: Duration::ZERO,
        beats: 0,
    };
    world.busiest.clear();
    crowd_in(&mut world, CLIENTS);
    let end = world.now + Duration::from_secs(2);
    while world.now < end {
        crawl.step(&mut world);
    }
    (world, active, crawl)
}

fn suspected(world: &World) -> bool {
    let leads = |event: &Event| matches!(event, Event::Leads { .. });
    let leads = world.events.iter().filter(|(_, _, event)| leads(event));
    // Each member and the peer have led once, but the standby.
    leads.count() > 2
}

#[test]
fn heartbeats_leave_when_they_are_due_while_a_turn_works_through_many_key_exchanges() {
    let (mut world, active, crawl) = a_crowd(120, true);
    assert!(
        crawl.longest > Duration::from_millis(60),
        "{:?}",
        crawl.longest
    );
    assert!(crawl.beats > 10, "{}", crawl.beats);
    assert!(!suspected(&world));
    assert_eq!(world.leader(), Some(active));
    assert!(world.gateway(active).ike_sas().len() > CLIENTS / 2);
    world.audit();
}

#[test]
fn without_them_the_same_turns_have_the_standby_take_over() {
    let (world, _, crawl) = a_crowd(120, false);
    assert!(
        crawl.longest > Duration::from_millis(60),
        "{:?}",
        crawl.longest
    );
    assert_eq!(crawl.beats, 0);
    assert!(suspected(&world));
    world.audit();
}

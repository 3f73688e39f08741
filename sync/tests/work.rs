//! What things cost, counted and not timed: a commit costs the same in a crowd, and a takeover
//! waits for nothing that grows with the number of SAs.

use std::collections::VecDeque;
use std::time::Duration;

use hitless_sa::{Entropy, Incarnation, Instant, Lease, MemberId, SaId, SequenceNumber};
use hitless_sync::{
    Checkpoint, DrainedSa, Durable, Input, Member, Node, ObjectId, Output, Role, Settings,
};

struct Counter(u64);

impl Entropy for Counter {
    fn fill(&mut self, out: &mut [u8]) {
        for octet in out {
            self.0 = self
                .0
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            *octet = (self.0 >> 56) as u8;
        }
    }
}

fn child(n: u32) -> SaId {
    SaId {
        creator: MemberId(1),
        incarnation: Incarnation(1),
        counter: n,
    }
}

fn node(id: u8, members: Vec<Member>, incarnation: Incarnation, now: Instant) -> Node {
    let settings = Settings::new(MemberId(id), members, [7; 32]);
    let durable = Durable {
        incarnation,
        ..Durable::default()
    };
    Node::new(settings, durable, now)
}

fn members() -> Vec<Member> {
    let member = |id| Member {
        id: MemberId(id),
        priority: 3 - id,
    };
    (1..=2).map(member).collect()
}

struct Pair {
    nodes: Vec<Node>,
    entropy: Counter,
    now: Instant,
    wire: VecDeque<(usize, Vec<u8>)>,
    committed: usize,
    /// What was committed, and is ended in a switchover.
    sas: Vec<SaId>,
    /// Datagrams take so long, if not no time.
    delay: Duration,
    late: VecDeque<(Instant, usize, Vec<u8>)>,
    /// Of those that the standby leads, how many it was told the exact end of.
    exact: usize,
    /// When the standby said `Lead`, and with how many SAs.
    led: Option<(Instant, usize)>,
    /// What commits named before it was asked for.
    inherited: Vec<ObjectId>,
}

impl Pair {
    fn admitted() -> Pair {
        let now = Instant(1_000_000_000);
        let node = |id| node(id, members(), Incarnation(1), now);
        let mut pair = Pair {
            nodes: vec![node(1), node(2)],
            entropy: Counter(1),
            now,
            wire: VecDeque::new(),
            committed: 0,
            sas: Vec::new(),
            delay: Duration::ZERO,
            late: VecDeque::new(),
            exact: 0,
            led: None,
            inherited: Vec::new(),
        };
        while [0, 1].map(|n| pair.nodes[n].status(pair.now).role) != [Role::Leading, Role::Admitted]
        {
            assert!(pair.now < Instant(5_000_000_000), "never admitted");
            pair.pass(Duration::from_millis(1), 2);
        }
        pair
    }

    /// Time passes for the first so many nodes.
    fn pass(&mut self, time: Duration, nodes: usize) {
        self.now += time;
        for node in 2 - nodes..2 {
            if self.nodes[node]
                .poll_timeout()
                .is_some_and(|at| at <= self.now)
            {
                self.handle(node, Input::Timeout);
            }
        }
        if nodes == 2 {
            self.settle();
        }
    }

    fn settle(&mut self) {
        if !self.delay.is_zero() {
            let due = self.now + self.delay;
            let sent = self
                .wire
                .drain(..)
                .map(|(from, payload)| (due, from, payload));
            self.late.extend(sent);
            while self
                .late
                .front()
                .is_some_and(|(due, _, _)| *due <= self.now)
            {
                let arrived = self.late.pop_front();
                self.wire
                    .extend(arrived.map(|(_, from, payload)| (from, payload)));
            }
            let arrived = std::mem::take(&mut self.wire);
            for (from, payload) in arrived {
                let datagram = Input::Datagram {
                    from: MemberId(from as u8 + 1),
                    payload: &payload,
                };
                self.handle(1 - from, datagram);
            }
            return;
        }
        while let Some((from, payload)) = self.wire.pop_front() {
            let datagram = Input::Datagram {
                from: MemberId(from as u8 + 1),
                payload: &payload,
            };
            self.handle(1 - from, datagram);
        }
    }

    fn commit(&mut self, n: u32) {
        let commit = Input::Commit {
            object: ObjectId(u64::from(n) + 1),
            version: 1,
            body: Some(vec![7; 300].into()),
            children: vec![child(n)],
        };
        self.sas.push(child(n));
        self.handle(0, commit);
    }

    /// The next version of an object.
    fn recommit(&mut self, node: usize, object: u64, children: Vec<SaId>) {
        let commit = Input::Commit {
            object: ObjectId(object),
            version: 2,
            body: Some(vec![8; 300].into()),
            children,
        };
        self.handle(node, commit);
    }

    /// The first member comes back without memory.
    fn restart(&mut self) {
        self.nodes[0] = node(1, members(), Incarnation(2), self.now);
        self.wire.clear();
    }

    fn handle(&mut self, node: usize, input: Input<'_>) {
        self.nodes[node].handle(self.now, &mut self.entropy, input);
        let (mut written, mut drain, mut freeze) = (false, false, false);
        while let Some(output) = self.nodes[node].poll_output() {
            match output {
                Output::Datagram { payload, .. } => self.wire.push_back((node, payload.to_vec())),
                Output::Persist(_) => written = true,
                Output::Committed { .. } => self.committed += 1,
                Output::Lead { objects, left, .. } if node == 1 => {
                    let sas: usize = objects.iter().map(|object| object.children.len()).sum();
                    self.led = Some((self.now, sas + left.sas));
                    let children = objects.iter().flat_map(|object| &object.children);
                    self.exact = children.filter(|sa| sa.window.is_some()).count();
                }
                Output::Drain => drain = true,
                Output::Freeze => freeze = true,
                Output::Inherited(object) => self.inherited.push(object.object),
                _ => {}
            }
        }
        if written {
            self.handle(node, Input::Persisted);
        }
        if drain {
            self.handle(node, Input::Drained);
        }
        if freeze {
            let end = |sa: &SaId| DrainedSa {
                sa: *sa,
                lease: Lease {
                    grant: SequenceNumber(9),
                    high_water: SequenceNumber(9),
                },
                window: vec![1],
            };
            self.handle(node, Input::Ends(self.sas.iter().map(end).collect()));
        }
    }
}

#[test]
fn a_commit_costs_the_same_alone_and_in_a_crowd() {
    for batch in [1, 32, 1024] {
        let mut pair = Pair::admitted();
        let before = pair.nodes[0].judged();
        for n in 0..batch {
            pair.commit(n);
        }
        pair.settle();
        assert_eq!(pair.committed, batch as usize);
        let judged = pair.nodes[0].judged() - before;
        // Once when it comes, once when it is acknowledged.
        assert_eq!(judged, 2 * u64::from(batch), "{batch} at a time");
    }
}

/// Links of several queues or cables reorder a burst. Were what comes too early thrown away, each round
/// of retransmissions would bring one record.
#[test]
fn a_burst_that_arrives_in_another_order_needs_no_second_round() {
    let mut pair = Pair::admitted();
    for n in 0..40 {
        pair.commit(n);
    }
    pair.wire.make_contiguous().reverse();
    assert!(pair.wire.len() > 10);
    pair.settle();
    assert_eq!(pair.committed, 40);
}

/// In virtual time: from the death of the active to `Lead`, whatever the number of SAs.
#[test]
fn a_takeover_comes_within_50_ms_of_the_death_however_many_sas_there_are() {
    let mut times = Vec::new();
    for sas in [1, 1_000, 50_000] {
        let mut pair = Pair::admitted();
        for n in 0..sas {
            pair.commit(n);
            pair.settle();
        }
        assert_eq!(pair.committed, sas as usize);
        pair.pass(Duration::from_millis(10), 2);
        let death = pair.now;
        pair.wire.clear();
        while pair.led.is_none() {
            assert!(pair.now.since(death) <= Duration::from_millis(50));
            pair.pass(Duration::from_millis(1), 1);
        }
        let (at, carried) = pair.led.expect("it leads");
        assert_eq!(carried, sas as usize);
        times.push(at.since(death));
    }
    assert!(times.iter().all(|time| *time == times[0]), "{times:?}");
}

/// A pair of which the active has died with so many objects, and the standby leads.
fn taken_over(sas: u32) -> Pair {
    let mut pair = Pair::admitted();
    for n in 0..sas {
        pair.commit(n);
        pair.settle();
    }
    pair.pass(Duration::from_millis(10), 2);
    pair.wire.clear();
    while pair.led.is_none() {
        pair.pass(Duration::from_millis(1), 1);
    }
    pair
}

/// R11: each is taken once, above its recorded grant, whoever names it first.
#[test]
fn very_many_objects_are_inherited_one_by_one_and_each_once() {
    const SAS: u32 = 400;
    let mut pair = taken_over(SAS);
    assert_eq!(pair.nodes[1].left(), SAS as usize);
    assert_eq!(pair.nodes[1].status(pair.now).sas, SAS as usize);
    let asked = ObjectId(7);
    let inherited = pair.nodes[1].inherit(asked).expect("it waits");
    assert_eq!(inherited.children[0].first, SequenceNumber(4096 + 1));
    assert!(inherited.exact && !inherited.children[0].rekey_only);
    assert!(pair.nodes[1].inherit(asked).is_none());
    // A commit that names an object, and one that names a Child SA of another one.
    pair.recommit(1, 30, vec![child(29), child(40)]);
    assert_eq!(pair.inherited, [ObjectId(30), ObjectId(41)]);
    assert_eq!(pair.nodes[1].left(), SAS as usize - 3);
    let mut taken = 3;
    while let Some(object) = pair.nodes[1].next_inherited() {
        taken += usize::from(pair.nodes[1].inherit(object).is_some());
    }
    assert_eq!(taken, SAS as usize);
    assert_eq!(pair.nodes[1].status(pair.now).sas, SAS as usize);
}

/// R9: who joins gets a copy of everything, so nobody joins before everything is in the book.
#[test]
fn nobody_is_admitted_while_a_leader_still_inherits() {
    const SAS: u32 = 300;
    let mut pair = taken_over(SAS);
    pair.restart();
    for _ in 0..200 {
        pair.pass(Duration::from_millis(10), 2);
    }
    assert!(!pair.nodes[1].status(pair.now).members[0].bound);
    assert_eq!(pair.nodes[0].status(pair.now).objects, 0);
    // And till then nobody could take over what it has not gone on with, either.
    assert_eq!(pair.nodes[1].risk().unserved, SAS as usize);
    while let Some(object) = pair.nodes[1].next_inherited() {
        pair.nodes[1].inherit(object);
    }
    for _ in 0..200 {
        pair.pass(Duration::from_millis(10), 2);
    }
    assert!(pair.nodes[1].status(pair.now).members[0].bound);
    assert_eq!(pair.nodes[0].status(pair.now).objects, SAS as usize);
}

/// Repair: a checkpoint is sent once; a standby that has none of an SA asks for it.
#[test]
fn a_standby_asks_for_a_checkpoint_that_it_lacks() {
    let mut pair = Pair::admitted();
    for n in 0..40 {
        pair.commit(n);
        pair.settle();
    }
    for n in 0..40 {
        let checkpoint = Checkpoint {
            outbound_next: SequenceNumber(100 + u64::from(n)),
            ..Checkpoint::default()
        };
        let sa = child(n);
        pair.handle(0, Input::Checkpoint { sa, checkpoint });
    }
    // All of them are lost.
    pair.wire.clear();
    for _ in 0..100 {
        pair.pass(Duration::from_millis(10), 2);
    }
    assert_eq!(pair.nodes[1].risk().short.greatest_skip, 4096 + 1 - 100);
}

/// A pair with so many SAs, about to switch over.
fn before_a_switchover(sas: u32) -> Pair {
    let mut pair = Pair::admitted();
    for n in 0..sas {
        pair.commit(n);
        pair.settle();
    }
    pair.pass(Duration::from_millis(10), 2);
    pair
}

/// Takes what waits, and says of how many SAs there is an exact end.
fn exact(pair: &mut Pair) -> usize {
    while let Some(object) = pair.nodes[1].next_inherited() {
        let object = pair.nodes[1].inherit(object).expect("it waits");
        let ended = object.children.iter().filter(|sa| sa.window.is_some());
        pair.exact += ended.count();
    }
    pair.exact
}

/// R15: what each end costs is the same, however many there are.
#[test]
fn a_switchover_looks_at_each_end_a_few_times_however_many_there_are() {
    for sas in [200, 20_000] {
        let mut pair = before_a_switchover(sas);
        let before = pair.nodes[0].looked();
        let mut looked = before;
        pair.handle(0, Input::Switchover);
        while let Some((from, payload)) = pair.wire.pop_front() {
            let datagram = Input::Datagram {
                from: MemberId(from as u8 + 1),
                payload: &payload,
            };
            pair.handle(1 - from, datagram);
            looked = looked.max(pair.nodes[0].looked());
        }
        assert_eq!(pair.led.map(|(_, sas)| sas), Some(sas as usize));
        assert_eq!(exact(&mut pair), sas as usize);
        let looked = looked - before;
        assert!(looked <= 4 * u64::from(sas), "{looked} of {sas}");
    }
}

/// R15: as long as the standby takes them there is time for more, and no end of it is lost.
#[test]
fn a_switchover_of_very_many_over_a_slow_link_hands_every_exact_end_over() {
    const SAS: u32 = 60_000;
    let mut pair = before_a_switchover(SAS);
    pair.delay = Duration::from_millis(16);
    let began = pair.now;
    pair.handle(0, Input::Switchover);
    while pair.led.is_none() {
        pair.pass(Duration::from_millis(1), 2);
        assert!(pair.now.since(began) < Duration::from_secs(2));
    }
    // Longer than it would have waited for one that takes nothing.
    let took = pair.now.since(began);
    assert!(took > Duration::from_millis(200), "{took:?}");
    assert_eq!(exact(&mut pair), SAS as usize);
}

/// Nobody carries anything while the ends are on their way: that is not to last.
#[test]
fn a_switchover_that_takes_for_ever_ends_with_what_has_arrived() {
    const SAS: u32 = 60_000;
    let mut pair = before_a_switchover(SAS);
    pair.delay = Duration::from_millis(12);
    let began = pair.now;
    pair.handle(0, Input::Switchover);
    let mut stopped = None;
    while pair.led.is_none() {
        pair.pass(Duration::from_millis(1), 2);
        // Of the active's datagrams only the first arrives.
        let mut first = true;
        pair.wire
            .retain(|(from, _)| *from == 1 || std::mem::take(&mut first));
        if stopped.is_none() && pair.nodes[0].status(pair.now).role == Role::Out {
            stopped = Some(pair.now);
        }
        assert!(pair.now.since(began) < Duration::from_secs(3));
    }
    let stopped = stopped.expect("it gives up").since(began);
    assert!(stopped < Duration::from_millis(1_300), "{stopped:?}");
    let exact = exact(&mut pair);
    assert!(exact < SAS as usize);
    assert_eq!(pair.led.map(|(_, sas)| sas), Some(SAS as usize));
}

//! Members of version N and N + 1 together (the upgrade path): whatever the newer one says beside
//! what the older one knows, in every message and in every step of the stream, the two hand the lead
//! to and fro; and nobody is sent what it has not said that it can take.

use std::collections::VecDeque;
use std::time::Duration;

use hitless_sa::{Entropy, Incarnation, Instant, Lease, MemberId, SaId, SequenceNumber};
use hitless_sync::{
    DrainedSa, Durable, Event, Input, Member, Node, ObjectId, Output, Role, Settings,
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

const CHILD: SaId = SaId {
    creator: MemberId(1),
    incarnation: Incarnation(1),
    counter: 1,
};
const END: Lease = Lease {
    grant: SequenceNumber(5),
    high_water: SequenceNumber(3),
};

/// What the next version may say more: a field with octets, a number, an unknown bit of what it can
/// do, and a version of its own. What follows overrides what was there, as protobuf has it.
fn of_the_next_version(payload: &[u8], late: bool) -> Vec<u8> {
    let mut body = payload[8..].to_vec();
    body.extend_from_slice(&[0xfa, 0x3f, 3, 1, 2, 3]);
    body.extend_from_slice(&[0xc0, 0x3e, 9]);
    body.extend_from_slice(&[0x08, 2]);
    body.extend_from_slice(&[0x90, 0x08, 0xfe | u8::from(late), 0x01]);
    let sum = body.iter().fold(0xcbf2_9ce4_8422_2325_u64, |sum, octet| {
        (sum ^ u64::from(*octet)).wrapping_mul(0x0100_0000_01b3)
    });
    let mut sealed = sum.to_be_bytes().to_vec();
    sealed.extend(body);
    sealed
}

struct Pair {
    nodes: Vec<Node>,
    /// Members of the next version.
    newer: Vec<usize>,
    entropy: Counter,
    now: Instant,
    wire: VecDeque<(usize, Vec<u8>)>,
    late: Vec<(usize, Vec<Vec<u8>>)>,
    events: Vec<(usize, Event)>,
    /// Skips of the takeovers.
    skips: Vec<u64>,
}

impl Pair {
    fn admitted(newer: &[usize], late: [bool; 2]) -> Pair {
        let members: Vec<Member> = (1..=2)
            .map(|id| Member {
                id: MemberId(id),
                priority: 3 - id,
            })
            .collect();
        let now = Instant(1_000_000_000);
        let node = |index: usize| {
            let id = MemberId(index as u8 + 1);
            let settings = Settings {
                late: late[index],
                ..Settings::new(id, members.clone(), [7; 32])
            };
            let durable = Durable {
                incarnation: Incarnation(1),
                ..Durable::default()
            };
            Node::new(settings, durable, now)
        };
        let mut pair = Pair {
            nodes: vec![node(0), node(1)],
            newer: newer.to_vec(),
            entropy: Counter(1),
            now,
            wire: VecDeque::new(),
            late: Vec::new(),
            events: Vec::new(),
            skips: Vec::new(),
        };
        pair.until([Role::Leading, Role::Admitted]);
        pair.handle(
            0,
            Input::Commit {
                object: ObjectId(1),
                version: 1,
                body: Some(vec![7; 300].into()),
                children: vec![CHILD],
            },
        );
        for _ in 0..100 {
            pair.pass();
        }
        pair
    }

    fn until(&mut self, roles: [Role; 2]) {
        let end = self.now + Duration::from_secs(5);
        while [0, 1].map(|n| self.nodes[n].status(self.now).role) != roles {
            assert!(self.now < end, "{roles:?}: {:?}", self.events);
            self.pass();
        }
    }

    fn pass(&mut self) {
        self.now += Duration::from_millis(1);
        for node in 0..2 {
            if self.nodes[node]
                .poll_timeout()
                .is_some_and(|at| at <= self.now)
            {
                self.handle(node, Input::Timeout);
            }
        }
        while let Some((from, payload)) = self.wire.pop_front() {
            let payload = match self.newer.contains(&from) {
                // Nobody may act on bits that it does not know.
                true => of_the_next_version(&payload, true),
                false => payload,
            };
            let datagram = Input::Datagram {
                from: MemberId(from as u8 + 1),
                payload: &payload,
            };
            self.handle(1 - from, datagram);
        }
    }

    fn handle(&mut self, node: usize, input: Input<'_>) {
        self.nodes[node].handle(self.now, &mut self.entropy, input);
        while let Some(output) = self.nodes[node].poll_output() {
            match output {
                Output::Datagram { payload, .. } => self.wire.push_back((node, payload.to_vec())),
                Output::Persist(_) => self.handle(node, Input::Persisted),
                Output::Drain => {
                    if let Some(to) = self.nodes[node].successor() {
                        let packets = vec![vec![node as u8; 40]];
                        self.handle(node, Input::Late { to, packets });
                    }
                    self.handle(node, Input::Drained);
                }
                Output::Freeze => {
                    let end = DrainedSa {
                        sa: CHILD,
                        lease: END,
                        window: vec![1, 2],
                    };
                    self.handle(node, Input::Ends(vec![end]));
                }
                Output::Lead { objects, base, .. } if base.is_some() => {
                    let sas = objects.iter().flat_map(|object| &object.children);
                    for sa in sas {
                        assert!(!sa.rekey_only);
                        assert_eq!(sa.window.as_deref(), Some(&[1, 2][..]));
                        self.skips.push(sa.skip);
                    }
                }
                Output::Late { packets, .. } => self.late.push((node, packets)),
                Output::Event(event) => self.events.push((node, event)),
                _ => {}
            }
        }
    }
}

#[test]
fn members_of_two_versions_hand_the_lead_to_and_fro() {
    for newer in [vec![], vec![0], vec![1], vec![0, 1]] {
        let mut pair = Pair::admitted(&newer, [true; 2]);
        pair.handle(0, Input::Switchover);
        pair.until([Role::Admitted, Role::Leading]);
        pair.handle(1, Input::Switchover);
        pair.until([Role::Leading, Role::Admitted]);
        assert_eq!(pair.skips, [0, 0], "newer: {newer:?}");
        let bad = |(_, event): &(usize, Event)| {
            matches!(
                event,
                Event::Malformed { .. } | Event::UnexpectedLate { .. } | Event::NoRight { .. }
            )
        };
        assert!(!pair.events.iter().any(bad), "{:?}", pair.events);
        let late = [(1, vec![vec![0; 40]]), (0, vec![vec![1; 40]])];
        assert_eq!(pair.late, late);
    }
}

#[test]
fn who_cannot_take_late_packets_is_sent_none_and_may_send_some() {
    // Member 2 is of the version before, or does not want them.
    let mut pair = Pair::admitted(&[], [true, false]);
    pair.handle(0, Input::Switchover);
    pair.until([Role::Admitted, Role::Leading]);
    assert_eq!(pair.late, []);
    pair.handle(1, Input::Switchover);
    pair.until([Role::Leading, Role::Admitted]);
    assert_eq!(pair.late, [(0, vec![vec![1; 40]])]);
}

#[test]
fn late_packets_of_a_member_that_has_not_handed_over_are_refused_and_counted() {
    let mut pair = Pair::admitted(&[], [true; 2]);
    // The standby says that it has some for the active.
    let packets = vec![vec![9; 40]];
    let to = MemberId(1);
    pair.handle(1, Input::Late { to, packets });
    pair.pass();
    assert_eq!(pair.late, []);
    let refused = Event::UnexpectedLate {
        member: MemberId(2),
    };
    assert!(pair.events.contains(&(0, refused)));
    assert_eq!(pair.nodes[0].status(pair.now).role, Role::Leading);
}

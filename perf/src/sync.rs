//! The sync protocol without a network: an active and a standby in one thread. How many commits and
//! lease extensions one core can have recorded a second; half of it is the standby's work.

use std::collections::VecDeque;
use std::error::Error;
use std::time::Duration;

use hitless::entropy::SeededEntropy;
use hitless_sa::{Incarnation, Instant, MemberId, SaId, SequenceNumber};
use hitless_sync::{Durable, Input, Member, Node, ObjectId, Output, Role, Settings, Usage};

use crate::clock::Moment;
use crate::progress::Progress;
use crate::rate::Rate;
use crate::results::RateLine;

/// Octets of an exported IKE SA with one Child SA, about.
const BODY: usize = 700;
const ROUNDS: usize = 400;
/// Commits, or SAs, of one round.
const BATCHES: [usize; 3] = [1, 32, 256];

/// Both rates for several batch sizes.
pub fn run() -> Result<Vec<RateLine>, Box<dyn Error>> {
    let mut progress = Progress::new("sync", 2 * BATCHES.len());
    let mut lines = Vec::new();
    for batch in BATCHES {
        progress.step("commits");
        lines.push(commits(batch)?);
        progress.step("leases");
        lines.push(leases(batch)?);
    }
    Ok(lines)
}

/// New IKE SAs with a Child SA each, until the standby has them.
fn commits(batch: usize) -> Result<RateLine, Box<dyn Error>> {
    let mut pair = Pair::admitted()?;
    let mut rate = Rate::new(&format!(
        "batches of {batch} commits recorded by the standby"
    ))?;
    for round in 0..ROUNDS {
        let begun = Moment::now();
        let before = pair.committed;
        for n in 0..batch {
            pair.commit((round * batch + n) as u32);
        }
        pair.settle();
        if pair.committed - before < batch {
            return Err("the standby did not record every commit".into());
        }
        rate.note(begun.elapsed());
    }
    Ok(each(rate, batch, "commits recorded by the standby"))
}

/// Leases of SAs in use that are extended, until the standby has recorded the grants.
fn leases(batch: usize) -> Result<RateLine, Box<dyn Error>> {
    let mut pair = Pair::admitted()?;
    for n in 0..batch {
        pair.commit(n as u32);
    }
    pair.settle();
    let mut rate = Rate::new("")?;
    let mut cursor = 1u64;
    for _ in 0..ROUNDS {
        // A lease holds this much at most: each round needs new ones.
        cursor += 1 << 29;
        let usage = (0..batch).map(|n| Usage {
            sa: sa(n as u32),
            cursor: SequenceNumber(cursor),
            inbound_top: SequenceNumber(cursor),
            esn: true,
        });
        let usage = usage.collect();
        let begun = Moment::now();
        let before = pair.leases;
        pair.handle(0, Input::Usage(usage));
        pair.settle();
        if pair.leases - before < batch {
            return Err("the standby did not record every grant".into());
        }
        rate.note(begun.elapsed());
    }
    Ok(each(rate, batch, "leases extended"))
}

/// A rate of batches as one of what is in them.
fn each(rate: Rate, batch: usize, what: &str) -> RateLine {
    let line = rate.line();
    RateLine {
        what: format!("{what}, {batch} at a time"),
        per_second: line.per_second * batch as f64,
        ..line
    }
}

fn sa(n: u32) -> SaId {
    SaId {
        creator: MemberId(1),
        incarnation: Incarnation(1),
        counter: n,
    }
}

/// An active and a standby.
struct Pair {
    nodes: [Node; 2],
    entropy: SeededEntropy,
    now: Instant,
    wire: VecDeque<(usize, Vec<u8>)>,
    committed: usize,
    leases: usize,
}

impl Pair {
    /// Which have met, and the standby may take over.
    fn admitted() -> Result<Pair, Box<dyn Error>> {
        let members: Vec<Member> = (1..=2)
            .map(|id| Member {
                id: MemberId(id),
                priority: 3 - id,
            })
            .collect();
        let now = Instant(1_000_000_000);
        let node = |id| {
            let settings = Settings::new(MemberId(id), members.clone(), [7; 32]);
            let durable = Durable {
                incarnation: Incarnation(1),
                ..Durable::default()
            };
            Node::new(settings, durable, now)
        };
        let mut pair = Pair {
            nodes: [node(1), node(2)],
            entropy: SeededEntropy::new(1),
            now,
            wire: VecDeque::new(),
            committed: 0,
            leases: 0,
        };
        for _ in 0..5_000 {
            let roles = [0, 1].map(|n| pair.nodes[n].status(pair.now).role);
            if roles == [Role::Leading, Role::Admitted] {
                return Ok(pair);
            }
            pair.now += Duration::from_millis(1);
            for node in 0..2 {
                if pair.nodes[node]
                    .poll_timeout()
                    .is_some_and(|at| at <= pair.now)
                {
                    pair.handle(node, Input::Timeout);
                }
            }
            pair.settle();
        }
        Err("the second member was never admitted".into())
    }

    fn commit(&mut self, n: u32) {
        let commit = Input::Commit {
            object: ObjectId(u64::from(n) + 1),
            version: 1,
            body: Some(vec![7; BODY].into()),
            children: vec![sa(n)],
        };
        self.handle(0, commit);
    }

    /// Hands messages over until there are none; timers rest but for those that are due.
    fn settle(&mut self) {
        loop {
            while let Some((from, payload)) = self.wire.pop_front() {
                let sender = MemberId(from as u8 + 1);
                let payload = Input::Datagram {
                    from: sender,
                    payload: &payload,
                };
                self.handle(1 - from, payload);
            }
            for node in 0..2 {
                if self.nodes[node]
                    .poll_timeout()
                    .is_some_and(|at| at <= self.now)
                {
                    self.handle(node, Input::Timeout);
                }
            }
            if self.wire.is_empty() {
                return;
            }
        }
    }

    fn handle(&mut self, node: usize, input: Input<'_>) {
        self.nodes[node].handle(self.now, &mut self.entropy, input);
        let mut written = false;
        while let Some(output) = self.nodes[node].poll_output() {
            match output {
                Output::Datagram { payload, .. } => self.wire.push_back((node, payload.to_vec())),
                Output::Persist(_) => written = true,
                Output::Committed { .. } => self.committed += 1,
                Output::Lease { .. } => self.leases += 1,
                _ => {}
            }
        }
        if written {
            self.handle(node, Input::Persisted);
        }
    }
}

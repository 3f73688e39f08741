//! The facade: inputs in, outputs out.

use std::collections::VecDeque;

use hitless_sa::{Entropy, Instant};

use crate::{Durable, Input, Output, Role, Settings, Status};

/// One member of one group.
pub struct Node {
    settings: Settings,
    durable: Durable,
    outputs: VecDeque<Output>,
    next: Instant,
}

impl Node {
    /// A member that has just started. `durable.incarnation` must already have been raised, and
    /// written.
    pub fn new(settings: Settings, durable: Durable, now: Instant) -> Node {
        Node {
            settings,
            durable,
            outputs: VecDeque::new(),
            next: now,
        }
    }

    /// Takes one input. Several may be given before the outputs are drained: what they cause is
    /// then coalesced into fewer datagrams.
    pub fn handle(&mut self, now: Instant, _entropy: &mut dyn Entropy, input: Input<'_>) {
        if let Input::Timeout = input {
            self.next = now + self.settings.heartbeat;
        }
    }

    /// The next thing to do, if any.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When to come back with [`Input::Timeout`] at the latest.
    pub fn poll_timeout(&self) -> Option<Instant> {
        Some(self.next)
    }

    /// What this member does now.
    pub fn status(&self, _now: Instant) -> Status {
        Status {
            role: Role::Out,
            epoch: None,
            base: None,
            leader: None,
            members: Vec::new(),
            objects: 0,
            sas: 0,
            held: 0,
            degraded: false,
            vouched: false,
            durable: self.durable,
        }
    }
}

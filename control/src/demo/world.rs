//! The network of the demo: two members, a peer gateway, a host behind each side.
//!
//! ```text
//!  host a --- peer ---+ outside switch +--- member 1 ---+ protected switch +--- host b
//!                     |                +--- member 2 ---+                  |
//! ```

use hitless_dataplane::port::memory::{self, MemoryPort};
use hitless_sa::Instant;

use crate::lab::{CLUSTER_INSIDE, HOST_A, HOST_B, Host, MTU, PEER_INSIDE, Switch};

/// Frames that a cable holds.
const CABLE: usize = 512;
/// Octets of a probe.
const PROBE: usize = 256;

/// Everything outside the gateways.
pub struct World {
    pub outside: Switch,
    pub protected: Switch,
    pub a: Host,
    pub b: Host,
}

impl World {
    /// The network, and the ends of the cables for the peer and for each member: outside first,
    /// protected second, as in the configurations.
    pub fn new(members: usize) -> (World, Vec<MemoryPort>, Vec<Vec<MemoryPort>>) {
        let (peer_outside, switch_end) = memory::link(CABLE, MTU);
        let (peer_protected, a) = memory::link(CABLE, MTU);
        let mut outside = vec![switch_end];
        let mut protected = Vec::new();
        let mut cables = Vec::new();
        for _ in 0..members {
            let (member_outside, outside_end) = memory::link(CABLE, MTU);
            let (member_protected, protected_end) = memory::link(CABLE, MTU);
            outside.push(outside_end);
            protected.push(protected_end);
            cables.push(vec![member_outside, member_protected]);
        }
        let (b, protected_end) = memory::link(CABLE, MTU);
        protected.push(protected_end);
        let world = World {
            outside: Switch::new(outside),
            protected: Switch::new(protected),
            a: Host::new(a, [2, 0, 0, 0, 0xa, 1], HOST_A, PEER_INSIDE, PROBE),
            b: Host::new(b, [2, 0, 0, 0, 0xb, 1], HOST_B, CLUSTER_INSIDE, PROBE),
        };
        (world, vec![peer_outside, peer_protected], cables)
    }

    /// Moves every frame that waits.
    pub fn turn(&mut self, now: Instant) -> usize {
        self.outside.turn(now) + self.protected.turn(now) + self.a.turn(now) + self.b.turn(now)
    }
}

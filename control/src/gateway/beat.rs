//! Heartbeats whatever the control thread is doing. It looks after everything: a takeover of tens of
//! thousands of SAs, a crowd of handshakes, an operator's list of all of them. Between two pieces of
//! such work it looks at the clock, and what the other members are owed by then leaves at once, ahead
//! of all that waits. A thread that does not get on with its work beats for nobody.

use std::net::SocketAddr;
use std::time::Duration;

use hitless_sa::Instant;
use hitless_sync::Node;

use super::Gateway;
use super::link::Link;

/// What the world lends to a gateway in the middle of its work.
pub trait Pacemaker: Send {
    /// What time it is by now.
    fn now(&mut self) -> Instant;
    /// Sends from the sync socket.
    fn send(&mut self, to: SocketAddr, datagram: &[u8]);
}

/// When other members heard of this one in the middle of its work.
#[derive(Default)]
pub(super) struct Beats {
    pacemaker: Option<Box<dyn Pacemaker>>,
    /// The last look at the clock, and the longest time from one to the next in one turn and in all.
    looked: Option<Instant>,
    pause: Duration,
    pub longest_pause: Duration,
    /// Sent in the middle of work.
    pub sent: u64,
}

impl Beats {
    /// Sends what is due.
    pub fn look(&mut self, node: &mut Node, link: Option<&mut Link>) {
        let Some(pacemaker) = &mut self.pacemaker else {
            return;
        };
        let now = pacemaker.now();
        if let Some(before) = self.looked.replace(now) {
            self.pause = self.pause.max(now.since(before));
        }
        let Some(link) = link else { return };
        for (to, payload) in node.beat(now) {
            if let Some((address, datagram)) = link.protect(to, &payload) {
                pacemaker.send(address, &datagram);
                self.sent += 1;
            }
        }
    }

    /// The caller waits for more to do; gives the longest time that a heartbeat may have waited for
    /// a piece of work since it last did.
    fn rest(&mut self) -> Duration {
        self.looked = None;
        self.longest_pause = self.longest_pause.max(self.pause);
        std::mem::take(&mut self.pause)
    }
}

impl Gateway {
    /// Lends it a clock and the sync socket: without them heartbeats wait for the end of a turn.
    pub fn set_pacemaker(&mut self, pacemaker: Box<dyn Pacemaker>) {
        self.beats.pacemaker = Some(pacemaker);
    }

    /// Between two pieces of work: heartbeats that are due leave now.
    pub fn beat(&mut self) {
        self.beats.look(&mut self.node, self.link.as_mut());
    }

    /// The thread that runs this has nothing more to do for now. Gives the longest time that a
    /// heartbeat may have waited for since it last had.
    pub fn rest(&mut self) -> Duration {
        self.beat();
        self.beats.rest()
    }
}

//! A path that loses what is large. A record does not always fit into one packet of the path: it leaves in
//! IP fragments, which some networks drop, and a link whose MTU is not what its ends believe loses it too.
//! Heartbeats are small and arrive, so nothing looks broken, and yet nobody is ever admitted. A standby
//! therefore says how large the largest message was that it had of late, and its leader names the path.

use std::time::Duration;

use hitless_sa::{Instant, MemberId};

use crate::Event;
use crate::message::Packet;
use crate::node::Node;
use crate::session::Session;

/// So many times D a record must have been sent in vain.
const IN_VAIN: u32 = 4;

/// The largest message in this span of time and in the one before.
#[derive(Default)]
pub(crate) struct Largest {
    began: Instant,
    now: usize,
    before: usize,
}

impl Largest {
    pub fn note(&mut self, now: Instant, span: Duration, octets: usize) {
        if now.since(self.began) >= span {
            self.before = std::mem::take(&mut self.now);
            self.began = now;
        }
        self.now = self.now.max(octets);
    }

    pub fn octets(&self) -> usize {
        self.now.max(self.before)
    }
}

/// What the words of a standby say of the path to it.
#[derive(Clone, Copy)]
pub(crate) struct Arrives {
    /// The largest that it had.
    largest: usize,
    /// One that is larger, and that it never had.
    lost: Option<usize>,
}

impl Arrives {
    /// `None` from a version that does not say it.
    pub fn heard(
        session: &Session,
        packet: &Packet,
        now: Instant,
        vouch: Duration,
    ) -> Option<Arrives> {
        let largest = usize::try_from(packet.largest).ok();
        let largest = largest.filter(|octets| *octets != 0)?;
        let lost = session.in_vain(now, vouch * IN_VAIN);
        Some(Arrives {
            largest,
            lost: lost.filter(|octets| *octets > largest),
        })
    }
}

impl Node {
    /// Told once, and known until something as large has arrived.
    pub(crate) fn path(&mut self, member: MemberId, arrives: Arrives) {
        let Some(peer) = self.peers.get_mut(&member) else {
            return;
        };
        peer.narrow = peer.narrow.filter(|octets| *octets > arrives.largest);
        if let (None, Some(octets)) = (peer.narrow, arrives.lost) {
            peer.narrow = Some(octets);
            self.event(Event::NarrowPath { member, octets });
        }
    }
}

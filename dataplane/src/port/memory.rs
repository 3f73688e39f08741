//! A cable in memory: two ends, and frames that are copied from one to the other.
//!
//! All buffers are made by [`link`]. A sender takes an empty one, copies a frame in and passes it
//! on by a ring; the receiver copies it out and gives the buffer back by a second ring. An end is a
//! [`Port`] for a worker; a host, a switch or the control thread uses it without a pool, through
//! [`MemoryPort::push_frame`] and [`MemoryPort::pop_frame`].

use rtrb::{Consumer, Producer, RingBuffer};

use crate::pool::{Packet, Pool};
use crate::port::{BURST, Burst, Port, PortCounters};
use crate::wire::ethernet;

/// Octets beside the payload: an Ethernet header and one VLAN tag.
pub(crate) const OVERHEAD: usize = ethernet::HEADER + 4;

/// A buffer that travels.
struct Frame {
    octets: Box<[u8]>,
    length: usize,
    /// What the sender says beside the octets.
    mark: u64,
}

/// One direction as its sender holds it.
struct Sender {
    full: Producer<Frame>,
    empty: Consumer<Frame>,
}

/// One direction as its receiver holds it.
struct Receiver {
    full: Consumer<Frame>,
    empty: Producer<Frame>,
}

/// One end of a cable.
pub struct MemoryPort {
    sender: Sender,
    receiver: Receiver,
    mtu: usize,
    counters: PortCounters,
}

/// Two ends of a cable that holds up to `capacity` frames each way.
pub fn link(capacity: usize, mtu: usize) -> (MemoryPort, MemoryPort) {
    let (left_out, right_in) = direction(capacity, mtu);
    let (right_out, left_in) = direction(capacity, mtu);
    let end = |sender, receiver| MemoryPort {
        sender,
        receiver,
        mtu,
        counters: PortCounters::default(),
    };
    (end(left_out, left_in), end(right_out, right_in))
}

fn direction(capacity: usize, mtu: usize) -> (Sender, Receiver) {
    let (full_in, full_out) = RingBuffer::new(capacity);
    let (mut empty_in, empty_out) = RingBuffer::new(capacity);
    for _ in 0..capacity {
        let octets = vec![0; mtu + OVERHEAD].into_boxed_slice();
        // The ring holds exactly as many as are made, so that none is refused, now or later.
        let _ = empty_in.push(Frame {
            octets,
            length: 0,
            mark: 0,
        });
    }
    (
        Sender {
            full: full_in,
            empty: empty_out,
        },
        Receiver {
            full: full_out,
            empty: empty_in,
        },
    )
}

impl MemoryPort {
    /// Sends a copy of `octets`. False, and counted, if the cable is full or they are too long.
    pub fn push_frame(&mut self, octets: &[u8]) -> bool {
        self.push_marked(0, octets)
    }

    /// As [`MemoryPort::push_frame`], with a word that comes along.
    pub(crate) fn push_marked(&mut self, mark: u64, octets: &[u8]) -> bool {
        if octets.len() > self.mtu + OVERHEAD {
            self.counters.malformed += 1;
            return false;
        }
        let Ok(mut frame) = self.sender.empty.pop() else {
            self.counters.transmit_full += 1;
            return false;
        };
        (frame.length, frame.mark) = (octets.len(), mark);
        if let Some(space) = frame.octets.get_mut(..octets.len()) {
            space.copy_from_slice(octets);
        }
        // As many slots as buffers: a buffer in hand is a free slot.
        self.sender.full.push(frame).is_ok()
    }

    /// Frames that could be sent now.
    pub fn room(&self) -> usize {
        self.sender.empty.slots()
    }

    /// Receives the oldest frame that waits, if any.
    pub fn pop_frame(&mut self, handle: impl FnOnce(&[u8])) -> bool {
        self.pop_marked(|_, octets| handle(octets))
    }

    /// As [`MemoryPort::pop_frame`], with the word that came along.
    pub(crate) fn pop_marked(&mut self, handle: impl FnOnce(u64, &[u8])) -> bool {
        let Ok(frame) = self.receiver.full.pop() else {
            return false;
        };
        handle(frame.mark, frame.octets.get(..frame.length).unwrap_or(&[]));
        let _ = self.receiver.empty.push(frame);
        true
    }

    /// Whether the other end has been dropped.
    pub fn is_abandoned(&self) -> bool {
        self.receiver.full.is_abandoned()
    }

    /// Frames that wait to be received here.
    pub fn waiting(&self) -> usize {
        self.receiver.full.slots()
    }
}

impl Port for MemoryPort {
    fn receive(&mut self, pool: &mut Pool, burst: &mut Burst) {
        for _ in 0..BURST {
            let mut received: Option<Option<Packet>> = None;
            if !self.pop_frame(|octets| received = Some(pool.copy_in(octets))) {
                return;
            }
            match received {
                Some(Some(packet)) => burst.push(packet),
                _ => self.counters.no_buffer += 1,
            }
        }
    }

    fn transmit(&mut self, pool: &mut Pool, burst: &mut Burst) {
        for packet in burst.drain(..) {
            self.push_frame(pool.bytes(&packet));
            pool.free(packet);
        }
    }

    fn mtu(&self) -> usize {
        self.mtu
    }

    fn counters(&self) -> PortCounters {
        self.counters
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_arrive_in_order_at_the_other_end_only() {
        let (mut left, mut right) = link(4, 100);
        assert!(left.push_frame(b"one") && left.push_frame(b"two"));
        assert!(!left.pop_frame(|_| panic!("came back")));
        let mut seen = Vec::new();
        while right.pop_frame(|frame| seen.push(frame.to_vec())) {}
        assert_eq!(seen, [b"one", b"two"]);
    }

    #[test]
    fn a_full_cable_and_a_long_frame_are_counted_and_nothing_is_lost_after() {
        let (mut left, mut right) = link(2, 100);
        assert!(left.push_frame(&[1]) && left.push_frame(&[2]));
        assert!(!left.push_frame(&[3]));
        assert!(!left.push_frame(&[0; 119]));
        assert_eq!(
            (left.counters().transmit_full, left.counters().malformed),
            (1, 1)
        );
        for round in 0..10 {
            assert!(right.pop_frame(|_| ()), "round {round}");
            assert!(left.push_frame(&[round]), "round {round}");
        }
    }

    #[test]
    fn a_worker_end_copies_into_its_pool_and_keeps_no_frame() {
        let (mut left, mut right) = link(64, 100);
        let mut pool = Pool::new(8).unwrap();
        for n in 0..10 {
            assert!(left.push_frame(&[n; 60]));
        }
        let mut burst = Burst::new();
        right.receive(&mut pool, &mut burst);
        assert_eq!((burst.len(), right.counters().no_buffer), (8, 2));
        assert_eq!(pool.bytes(&burst[7]), [7; 60]);
        right.transmit(&mut pool, &mut burst);
        assert_eq!((pool.available(), right.frames_held()), (8, 0));
        assert_eq!(left.waiting(), 8);
    }
}

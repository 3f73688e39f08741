//! What a worker counts. One writer, the worker; anybody may read at any time. Each group lies on
//! cache lines of its own, and a count costs a load and a store, never a locked instruction.

use std::iter::Sum;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam::utils::CachePadded;

use crate::port::PortCounters;
use crate::verdict::DropReason;
use crate::worker::FrameAccount;

pub use sa::SaCounters;

mod sa;

/// Reasons there are.
const REASONS: usize = DropReason::ALL.len();

/// Whether this build counts. One that does not is good for measurements alone.
pub const COUNTED: bool = !cfg!(feature = "uncounted");

/// A number with a single writer.
#[derive(Default)]
struct Count(AtomicU64);

impl Count {
    fn add(&self, more: u64) {
        if !COUNTED {
            return;
        }
        let now = self.0.load(Ordering::Relaxed);
        self.0.store(now.wrapping_add(more), Ordering::Relaxed);
    }

    fn set(&self, value: u64) {
        if !COUNTED {
            return;
        }
        self.0.store(value, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

#[derive(Default)]
struct PortCounts {
    rx_packets: Count,
    rx_bytes: Count,
    tx_packets: Count,
    tx_bytes: Count,
    transmit_full: Count,
    no_buffer: Count,
    malformed: Count,
    rx_bursts: Count,
}

#[derive(Default)]
struct TurnCounts {
    turns: Count,
    busy: Count,
}

#[derive(Default)]
struct FrameCounts {
    total: Count,
    free: Count,
    in_ports: Count,
    parked: Count,
    held: Count,
}

#[derive(Default)]
struct EspCounts {
    packets_out: Count,
    bytes_out: Count,
    packets_in: Count,
    bytes_in: Count,
    lease_stalls: Count,
    parked: Count,
    handed_over: Count,
    taken_over: Count,
}

/// Counters of one worker.
pub struct Counters {
    ports: Box<[CachePadded<PortCounts>]>,
    drops: CachePadded<[Count; REASONS]>,
    esp: CachePadded<EspCounts>,
    punted: CachePadded<Count>,
    turns: CachePadded<TurnCounts>,
    frames: CachePadded<FrameCounts>,
}

/// What a port of a worker has carried.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PortTraffic {
    pub rx_packets: u64,
    pub rx_bytes: u64,
    pub tx_packets: u64,
    pub tx_bytes: u64,
    /// Bursts that were not empty: packets for each of them say how busy the worker is.
    pub rx_bursts: u64,
    /// What the port dropped by itself.
    pub own: PortCounters,
}

impl Sum for PortTraffic {
    fn sum<I: Iterator<Item = PortTraffic>>(all: I) -> PortTraffic {
        all.fold(PortTraffic::default(), |a, b| PortTraffic {
            rx_packets: a.rx_packets + b.rx_packets,
            rx_bytes: a.rx_bytes + b.rx_bytes,
            tx_packets: a.tx_packets + b.tx_packets,
            tx_bytes: a.tx_bytes + b.tx_bytes,
            rx_bursts: a.rx_bursts + b.rx_bursts,
            own: PortCounters {
                transmit_full: a.own.transmit_full + b.own.transmit_full,
                no_buffer: a.own.no_buffer + b.own.no_buffer,
                malformed: a.own.malformed + b.own.malformed,
            },
        })
    }
}

/// How a worker has spent its turns.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Turns {
    pub turns: u64,
    /// Those that found something to do.
    pub busy: u64,
}

impl Sum for Turns {
    fn sum<I: Iterator<Item = Turns>>(all: I) -> Turns {
        all.fold(Turns::default(), |a, b| Turns {
            turns: a.turns + b.turns,
            busy: a.busy + b.busy,
        })
    }
}

/// What went through ESP.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct EspTraffic {
    pub packets_out: u64,
    /// Octets of inner packets.
    pub bytes_out: u64,
    pub packets_in: u64,
    pub bytes_in: u64,
    /// Draws that got fewer numbers than they asked for.
    pub lease_stalls: u64,
    /// Authentic packets that had to wait for the high water to rise.
    pub parked: u64,
    /// Packets given to the worker that has their SA, and got from others for that reason.
    pub handed_over: u64,
    pub taken_over: u64,
}

impl Sum for EspTraffic {
    fn sum<I: Iterator<Item = EspTraffic>>(all: I) -> EspTraffic {
        all.fold(EspTraffic::default(), |a, b| EspTraffic {
            packets_out: a.packets_out + b.packets_out,
            bytes_out: a.bytes_out + b.bytes_out,
            packets_in: a.packets_in + b.packets_in,
            bytes_in: a.bytes_in + b.bytes_in,
            lease_stalls: a.lease_stalls + b.lease_stalls,
            parked: a.parked + b.parked,
            handed_over: a.handed_over + b.handed_over,
            taken_over: a.taken_over + b.taken_over,
        })
    }
}

impl Counters {
    /// Counters for that many ports, all zero.
    pub fn new(ports: usize) -> Counters {
        Counters {
            ports: (0..ports).map(|_| CachePadded::default()).collect(),
            drops: CachePadded::new(std::array::from_fn(|_| Count::default())),
            esp: CachePadded::default(),
            punted: CachePadded::default(),
            turns: CachePadded::default(),
            frames: CachePadded::default(),
        }
    }

    /// Packets dropped for that reason, those that ports dropped by themselves included.
    pub fn dropped(&self, reason: DropReason) -> u64 {
        let own: u64 = self
            .ports
            .iter()
            .map(|port| match reason {
                DropReason::TransmitFull => port.transmit_full.get(),
                DropReason::NoBuffer => port.no_buffer.get(),
                DropReason::Malformed => port.malformed.get(),
                _ => 0,
            })
            .sum();
        own + self.drops.get(reason as usize).map_or(0, Count::get)
    }

    /// Every reason that has been counted, with its count.
    pub fn drops(&self) -> impl Iterator<Item = (DropReason, u64)> {
        DropReason::ALL
            .iter()
            .map(|reason| (*reason, self.dropped(*reason)))
            .filter(|(_, count)| *count > 0)
    }

    /// What the port with this index has carried.
    pub fn port(&self, index: usize) -> Option<PortTraffic> {
        self.ports.get(index).map(|port| PortTraffic {
            rx_packets: port.rx_packets.get(),
            rx_bytes: port.rx_bytes.get(),
            tx_packets: port.tx_packets.get(),
            tx_bytes: port.tx_bytes.get(),
            rx_bursts: port.rx_bursts.get(),
            own: PortCounters {
                transmit_full: port.transmit_full.get(),
                no_buffer: port.no_buffer.get(),
                malformed: port.malformed.get(),
            },
        })
    }

    /// Ports counted.
    pub fn ports(&self) -> usize {
        self.ports.len()
    }

    /// What went through ESP.
    pub fn esp(&self) -> EspTraffic {
        EspTraffic {
            packets_out: self.esp.packets_out.get(),
            bytes_out: self.esp.bytes_out.get(),
            packets_in: self.esp.packets_in.get(),
            bytes_in: self.esp.bytes_in.get(),
            lease_stalls: self.esp.lease_stalls.get(),
            parked: self.esp.parked.get(),
            handed_over: self.esp.handed_over.get(),
            taken_over: self.esp.taken_over.get(),
        }
    }

    /// Packets handed to the control thread.
    pub fn punted(&self) -> u64 {
        self.punted.get()
    }

    /// Turns, and those with work.
    pub fn turns(&self) -> Turns {
        Turns {
            turns: self.turns.turns.get(),
            busy: self.turns.busy.get(),
        }
    }

    /// Where the frames were when the worker last said so, a moment ago.
    pub fn frames(&self) -> FrameAccount {
        FrameAccount {
            total: self.frames.total.get() as usize,
            free: self.frames.free.get() as usize,
            in_ports: self.frames.in_ports.get() as usize,
            parked: self.frames.parked.get() as usize,
            held: self.frames.held.get() as usize,
        }
    }

    pub(crate) fn count_turn(&self, busy: bool) {
        self.turns.turns.add(1);
        self.turns.busy.add(u64::from(busy));
    }

    pub(crate) fn note_frames(&self, account: FrameAccount) {
        self.frames.total.set(account.total as u64);
        self.frames.free.set(account.free as u64);
        self.frames.in_ports.set(account.in_ports as u64);
        self.frames.parked.set(account.parked as u64);
        self.frames.held.set(account.held as u64);
    }

    pub(crate) fn count_drop(&self, reason: DropReason) {
        if let Some(count) = self.drops.get(reason as usize) {
            count.add(1);
        }
    }

    pub(crate) fn count_received(&self, port: usize, packets: usize, bytes: usize) {
        if let Some(port) = self.ports.get(port) {
            port.rx_packets.add(packets as u64);
            port.rx_bytes.add(bytes as u64);
            port.rx_bursts.add(1);
        }
    }

    pub(crate) fn count_sent(&self, port: usize, packets: usize, bytes: usize) {
        if let Some(port) = self.ports.get(port) {
            port.tx_packets.add(packets as u64);
            port.tx_bytes.add(bytes as u64);
        }
    }

    pub(crate) fn note_port(&self, port: usize, own: PortCounters) {
        if let Some(port) = self.ports.get(port) {
            port.transmit_full.set(own.transmit_full);
            port.no_buffer.set(own.no_buffer);
            port.malformed.set(own.malformed);
        }
    }

    pub(crate) fn count_sealed(&self, packets: usize, bytes: usize) {
        self.esp.packets_out.add(packets as u64);
        self.esp.bytes_out.add(bytes as u64);
    }

    pub(crate) fn count_opened(&self, packets: usize, bytes: usize) {
        self.esp.packets_in.add(packets as u64);
        self.esp.bytes_in.add(bytes as u64);
    }

    pub(crate) fn count_lease_stall(&self) {
        self.esp.lease_stalls.add(1);
    }

    pub(crate) fn count_parked(&self) {
        self.esp.parked.add(1);
    }

    pub(crate) fn count_handed_over(&self) {
        self.esp.handed_over.add(1);
    }

    pub(crate) fn count_taken_over(&self, packets: usize) {
        self.esp.taken_over.add(packets as u64);
    }

    pub(crate) fn count_punted(&self) {
        self.punted.add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_a_counter_of_its_own() {
        let counters = Counters::new(1);
        for (times, reason) in DropReason::ALL.iter().enumerate() {
            for _ in 0..=times {
                counters.count_drop(*reason);
            }
        }
        let expected: Vec<_> = DropReason::ALL.iter().copied().zip(1..).collect();
        assert_eq!(counters.drops().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn what_ports_drop_is_counted_with_the_rest() {
        let counters = Counters::new(2);
        counters.count_drop(DropReason::TransmitFull);
        let own = PortCounters {
            transmit_full: 3,
            no_buffer: 4,
            malformed: 5,
        };
        counters.note_port(1, own);
        counters.note_port(7, own);
        assert_eq!(counters.dropped(DropReason::TransmitFull), 4);
        assert_eq!(counters.dropped(DropReason::NoBuffer), 4);
        assert_eq!(counters.dropped(DropReason::Malformed), 5);
        assert_eq!(counters.port(1).map(|port| port.own), Some(own));
        assert_eq!(counters.port(2), None);
    }
}

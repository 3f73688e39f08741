//! Received packets that cross the punt ring as they are, with a label that says why.
//!
//! ```text
//!  not active any more:  port -> label LATE     -> control -> the new active's control
//!  the new active:       control -> label LATE  -> as if it had just come in by that port
//!  no SA of that SPI yet: port -> label STRANGER -> control, which is installing them
//!  no SA to leave by yet: SPD -> label DEPARTING -> control, likewise; back to where it was
//! ```
//!
//! A label is two octets in front of the IP packet: what it is, and the port. An IP packet begins
//! with its version, so that no label is taken for one.

use hitless_sa::Instant;

use crate::classify::Class;
use crate::path::{Departure, Sorted};
use crate::pool::{LARGEST_IN_FRAME, Packet};
use crate::verdict::DropReason;
use crate::wire::ethernet::{self, Ethernet};
use crate::worker::{PUNT, Worker};

/// Octets of a label.
pub const LABEL: usize = 2;

/// Why a packet crosses the punt ring.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Parcel {
    /// It came to a member that has just handed over.
    Late,
    /// It is ESP, and no SA has its SPI.
    Stranger,
    /// It is to be protected, and the SA is not there.
    Departing,
}

impl Parcel {
    const fn code(self) -> u8 {
        match self {
            Parcel::Late => 0,
            Parcel::Stranger => 1,
            Parcel::Departing => 2,
        }
    }

    /// The label of a packet that came by this port; `None` if there cannot be such a port.
    pub fn label(self, port: usize) -> Option<[u8; LABEL]> {
        Some([self.code(), u8::try_from(port).ok()?])
    }

    /// Reads a label: what it is, the port, and the IP packet. `None` for what has none.
    pub fn parse(octets: &[u8]) -> Option<(Parcel, usize, &[u8])> {
        let ([code, port], packet) = octets.split_first_chunk::<LABEL>()?;
        let parcel = [Parcel::Late, Parcel::Stranger, Parcel::Departing];
        let parcel = parcel.into_iter().find(|parcel| parcel.code() == *code)?;
        Some((parcel, usize::from(*port), packet))
    }
}

impl Worker {
    /// A frame that came while this member does not lead. For a while after a planned switchover
    /// what was meant for the cluster goes to the member that leads now; ARP and neighbour discovery
    /// do not, for that one has its own links.
    pub(crate) fn not_active(&mut self, port: usize, mut packet: Packet) {
        let octets = self.frames.pool.bytes(&packet);
        let mac = self.links.interface(port).map(|interface| interface.mac);
        let meant = self.term.forwards()
            && Ethernet::parse(octets).is_some_and(|frame| {
                let ip = matches!(frame.ether_type(), ethernet::IPV4 | ethernet::IPV6);
                ip && Some(frame.destination()) == mac
            });
        match meant && self.frames.pool.trim_front(&mut packet, ethernet::HEADER) {
            true => self.pass_on(Parcel::Late, port, packet, DropReason::NotActive),
            false => self.frames.drop(packet, DropReason::NotActive),
        }
    }

    /// A packet that came over another worker's ring while this member does not lead, or a fragment that
    /// waited when it ceased to.
    pub(crate) fn not_active_any_more(&mut self, packet: Packet) {
        match self.term.forwards() {
            true => self.pass_on(Parcel::Late, 0, packet, DropReason::NotActive),
            false => self.frames.drop(packet, DropReason::NotActive),
        }
    }

    /// ESP of an SPI that no SA has, while the control thread is installing many.
    pub(crate) fn stranger(&mut self, packet: Packet) {
        // Whoever floods must not keep IKE from the control thread.
        if self.punt.room() < PUNT / 2 {
            return self.frames.drop(packet, DropReason::PuntStranger);
        }
        // ESP is the same by whatever port it comes.
        self.pass_on(Parcel::Stranger, 0, packet, DropReason::UnknownSpi);
    }

    /// A packet that policy would protect, or that no policy knows: it waits with the control thread
    /// while that installs many SAs, and is dropped otherwise.
    pub(crate) fn no_way_out(&mut self, packet: Packet, reason: DropReason) {
        if self.strangers && self.punt.room() >= PUNT / 2 {
            self.pass_on(Parcel::Departing, 0, packet, reason);
        } else {
            self.frames.drop(packet, reason);
        }
    }

    fn pass_on(&mut self, parcel: Parcel, port: usize, mut packet: Packet, reason: DropReason) {
        // Jumbo packets do not fit the datagrams that parcels go on in.
        let fits = packet.len() + LABEL <= LARGEST_IN_FRAME;
        let label = parcel.label(port).filter(|_| fits);
        let Some(label) = label.filter(|_| self.frames.pool.prepend(&mut packet, LABEL)) else {
            return self.frames.drop(packet, reason);
        };
        let octets = self.frames.pool.bytes_mut(&mut packet);
        if let Some(space) = octets.first_chunk_mut::<LABEL>() {
            *space = label;
        }
        if self.punt.push_frame(self.frames.pool.bytes(&packet)) {
            self.frames.counters.count_punted();
            self.frames.pool.free(packet);
        } else {
            self.frames.drop(packet, DropReason::PuntFull);
        }
    }

    /// A parcel from the control thread goes the way of a packet that has just come; gives back what
    /// is none.
    pub(crate) fn unpack(
        &mut self,
        now: Instant,
        mut packet: Packet,
        sorted: &mut Sorted,
    ) -> Option<Packet> {
        let Some((parcel, port, _)) = Parcel::parse(self.frames.pool.bytes(&packet)) else {
            return Some(packet);
        };
        if self.links.interface(port).is_none() || !self.frames.pool.trim_front(&mut packet, LABEL)
        {
            self.frames.drop(packet, DropReason::Malformed);
        } else if parcel == Parcel::Departing {
            self.depart(packet, sorted);
        } else {
            self.sort_ip(port, now, packet, true, sorted);
        }
        None
    }

    /// Its hop has been counted already.
    fn depart(&mut self, packet: Packet, sorted: &mut Sorted) {
        match self.classified(packet) {
            Some((packet, Class::Forward(flow) | Class::Echo(flow))) => {
                sorted.departures.push(Departure { packet, flow });
            }
            Some((packet, _)) => self.frames.drop(packet, DropReason::Malformed),
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_is_read_back_and_no_ip_packet_has_one() {
        for parcel in [Parcel::Late, Parcel::Stranger, Parcel::Departing] {
            let mut octets = parcel.label(7).unwrap().to_vec();
            assert_eq!(Parcel::parse(&octets), Some((parcel, 7, &[][..])));
            octets.push(0x45);
            assert_eq!(Parcel::parse(&octets), Some((parcel, 7, &[0x45][..])));
            assert_eq!(parcel.label(256), None);
        }
        for first in 3..=255 {
            assert_eq!(Parcel::parse(&[first, 0, 0]), None);
        }
        assert_eq!(Parcel::parse(&[0]), None);
    }

    /// They cross the sync link to a member of another version.
    #[test]
    fn parcels_are_labelled_and_read_as_their_golden_file_says() {
        let golden = include_str!("../tests/golden/parcels.hex");
        let parcels = [Parcel::Late, Parcel::Stranger, Parcel::Departing];
        for (line, (parcel, port)) in golden.lines().zip(parcels.into_iter().zip([0, 7, 255])) {
            let mut octets = parcel.label(port).unwrap().to_vec();
            octets.extend_from_slice(&[0x45, 0]);
            let hex: String = octets.iter().map(|o| format!("{o:02x}")).collect();
            assert_eq!(hex, line);
            let read = Parcel::parse(&octets);
            assert_eq!(read, Some((parcel, port, &[0x45, 0][..])));
        }
        assert_eq!(golden.lines().count(), 3);
    }
}

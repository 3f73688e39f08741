//! Where packets leave: for each destination the port and the Ethernet header, ready. What the
//! forwarding table and the neighbours said is remembered until one of them changes, or the neighbour
//! is to be asked for again.

use std::net::IpAddr;

use hitless_sa::Instant;

use crate::wire::ethernet;
use crate::worker::Worker;

/// Destinations that are remembered.
const REMEMBERED: usize = 4096;

/// The last step of a packet's way.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Egress {
    /// The Ethernet header, for packets of the destination's family.
    pub(crate) header: [u8; ethernet::HEADER],
    pub(crate) port: u16,
    /// The largest IP packet that the port takes.
    pub(crate) mtu: u16,
    /// Whether the port leads to the protected side, and no policy may have the destination.
    pub(crate) protected: bool,
}

/// Of one destination, in a cache line.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct Known {
    destination: u128,
    until: Instant,
    /// Of the tables that it was made from; 0 is none.
    state: u64,
    egress: Egress,
}

/// See the module.
pub(crate) struct Egresses {
    known: Box<[Known; REMEMBERED]>,
    /// How often the forwarding table has changed.
    tables: u64,
}

impl Egresses {
    pub(crate) fn new() -> Egresses {
        let none = Known {
            destination: 0,
            until: Instant::default(),
            state: 0,
            egress: Egress {
                header: [0; ethernet::HEADER],
                port: 0,
                mtu: 0,
                protected: false,
            },
        };
        let known = vec![none; REMEMBERED].into_boxed_slice();
        Egresses {
            known: known
                .try_into()
                .unwrap_or_else(|_| Box::new([none; REMEMBERED])),
            tables: 1,
        }
    }

    /// The forwarding table has changed.
    pub(crate) fn clear(&mut self) {
        self.tables += 1;
    }

    #[inline]
    fn find(&self, destination: u128, state: u64, now: Instant) -> Option<(Egress, Instant)> {
        let known = &self.known[place(destination)];
        let holds = known.destination == destination && known.state == state && now < known.until;
        holds.then_some((known.egress, known.until))
    }
}

#[inline]
fn place(destination: u128) -> usize {
    let mixed =
        (destination as u64 ^ (destination >> 64) as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 32) as usize % REMEMBERED
}

/// A destination as the cache knows it: IPv4 addresses as IPv6 maps them.
#[inline]
pub(crate) fn v4_key(address: [u8; 4]) -> u128 {
    0xffff_0000_0000 | u128::from(u32::from_be_bytes(address))
}

/// The same for IPv6. None, of an address that stands for one of IPv4 (RFC 4291 section 2.5.5.2): its
/// key would be that one's, and no packet has such addresses.
#[inline]
pub(crate) fn v6_key(address: [u8; 16]) -> Option<u128> {
    let key = u128::from_be_bytes(address);
    (!is_v4_key(key)).then_some(key)
}

/// Whether a key is that of an IPv4 address.
#[inline]
pub(crate) fn is_v4_key(key: u128) -> bool {
    key >> 32 == v4_key([0; 4]) >> 32
}

/// The key of a destination of either family.
pub(crate) fn key(address: IpAddr) -> Option<u128> {
    match address {
        IpAddr::V4(address) => Some(v4_key(address.octets())),
        IpAddr::V6(address) => v6_key(address.octets()),
    }
}

/// The destination that a key stands for.
fn address(key: u128) -> IpAddr {
    std::net::Ipv6Addr::from(key).to_canonical()
}

impl Worker {
    /// The way to a destination, if it is known down to the Ethernet address.
    #[inline]
    pub(crate) fn egress(&mut self, now: Instant, destination: u128) -> Option<Egress> {
        self.egress_until(now, destination)
            .map(|(egress, _)| egress)
    }

    /// The same, and until when.
    #[inline]
    pub(crate) fn egress_until(
        &mut self,
        now: Instant,
        destination: u128,
    ) -> Option<(Egress, Instant)> {
        let state = self.egress_state();
        match self.express.egresses.find(destination, state, now) {
            Some(found) => Some(found),
            None => self.find_egress(now, destination),
        }
    }

    /// Changes with everything that an egress is made from, but for time.
    #[inline]
    pub(super) fn egress_state(&self) -> u64 {
        // Neither ever goes back, so neither does their sum, and it rises if one of them does.
        self.express.egresses.tables + self.links.changes()
    }

    #[cold]
    fn find_egress(&mut self, now: Instant, destination: u128) -> Option<(Egress, Instant)> {
        let to = address(destination);
        let (port, next_hop) = self.way(to)?;
        let (mac, until) = self.links.known(&mut self.frames, now, port, next_hop)?;
        let interface = self.links.interface(port)?;
        let mut header = [0; ethernet::HEADER];
        let ether_type = match to {
            IpAddr::V4(_) => ethernet::IPV4,
            IpAddr::V6(_) => ethernet::IPV6,
        };
        if !ethernet::write(&mut header, mac, interface.mac, ether_type) {
            return None;
        }
        let egress = Egress {
            header,
            port: u16::try_from(port).ok()?,
            mtu: u16::try_from(interface.mtu).unwrap_or(u16::MAX),
            protected: interface.protected && !self.spd.claims(to),
        };
        let state = self.egress_state();
        self.express.egresses.known[place(destination)] = Known {
            destination,
            until,
            state,
            egress,
        };
        Some((egress, until))
    }
}

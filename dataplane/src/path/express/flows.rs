//! The flows that the lane knows the SA of: what the plain way found out about a packet holds for all
//! of its flow, until the SPD, the forwarding table or the SA changes. Each flow may lie in two places
//! with room for two, so a flood of new flows costs the plain way, never memory. Where there is no room
//! a flow is only taken in that has been seen before, not long ago: one that ends with its first packet
//! drives out none that goes on.

use std::net::IpAddr;

use crate::flow::{Flow, Ports};
use crate::memory;
use crate::prefetch::prefetch;
use crate::wire::{ethernet, ipv4, ipv6};

/// Flows that are remembered at least and at most, in pairs.
const LEAST_PAIRS: usize = 4096;
const MOST_PAIRS: usize = 1 << 18;

/// Flows that are moved at most to make room for one. The last one is forgotten.
const MOVES: usize = 8;

/// What tells flows apart: family, protocol and ports in one word, and the addresses.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Key {
    kind: u64,
    addresses: [u64; 4],
}

impl Key {
    /// Of a plain frame with TCP or UDP.
    #[inline]
    pub(super) fn of_frame(frame: &[u8], v6: bool) -> Option<Key> {
        const V4: usize = ethernet::HEADER + ipv4::HEADER;
        const V6: usize = ethernet::HEADER + ipv6::HEADER;
        if !v6 {
            let head: &[u8; V4 + 4] = frame.first_chunk()?;
            let (rest, ports) = head.split_last_chunk::<4>()?;
            let addresses: &[u8; 8] = rest.last_chunk()?;
            return Some(Key {
                kind: kind(head[ethernet::HEADER + 9], *ports, 4),
                addresses: [u64::from_ne_bytes(*addresses), 0, 0, 0],
            });
        }
        let head: &[u8; V6 + 4] = frame.first_chunk()?;
        let (rest, ports) = head.split_last_chunk::<4>()?;
        let addresses: &[u8; 32] = rest.last_chunk()?;
        Some(Key {
            kind: kind(head[ethernet::HEADER + 6], *ports, 6),
            addresses: words(addresses),
        })
    }

    /// Of a flow, if it is TCP or UDP whose ports are seen.
    fn of(flow: &Flow) -> Option<Key> {
        let Ports::Of(from, to) = flow.ports else {
            return None;
        };
        let [p0, p1] = from.to_be_bytes();
        let [p2, p3] = to.to_be_bytes();
        let ports = [p0, p1, p2, p3];
        let (family, addresses) = match (flow.source, flow.destination) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                let mut both = [0; 8];
                both[..4].copy_from_slice(&from.octets());
                both[4..].copy_from_slice(&to.octets());
                (4, [u64::from_ne_bytes(both), 0, 0, 0])
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                let mut both = [0; 32];
                both[..16].copy_from_slice(&from.octets());
                both[16..].copy_from_slice(&to.octets());
                (6, words(&both))
            }
            _ => return None,
        };
        matches!(flow.protocol, ipv4::TCP | ipv4::UDP).then(|| Key {
            kind: kind(flow.protocol, ports, family),
            addresses,
        })
    }

    #[inline]
    fn hash(&self) -> u64 {
        let [a, b, c, d] = self.addresses;
        let mut hash = fold(self.kind ^ SEEDS[0], a ^ SEEDS[1]);
        if b | c | d != 0 {
            hash ^= fold(b ^ SEEDS[2], c ^ SEEDS[3]).wrapping_add(d.wrapping_mul(SEEDS[0]));
        }
        hash
    }
}

/// Digits of pi.
const SEEDS: [u64; 4] = [
    0x243f_6a88_85a3_08d3,
    0x1319_8a2e_0370_7344,
    0xa409_3822_299f_31d0,
    0x082e_fa98_ec4e_6c89,
];

#[inline]
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    product as u64 ^ (product >> 64) as u64
}

#[inline]
fn kind(protocol: u8, ports: [u8; 4], family: u64) -> u64 {
    u64::from(u32::from_ne_bytes(ports)) | u64::from(protocol) << 32 | family << 40
}

#[inline]
fn words(octets: &[u8; 32]) -> [u64; 4] {
    let (words, _) = octets.as_chunks::<8>();
    match *words {
        [a, b, c, d] => [a, b, c, d].map(u64::from_ne_bytes),
        _ => [0; 4],
    }
}

/// What is known of a flow.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Protected {
    /// Where its SA is, and in which state of the slot.
    pub(super) slot: u32,
    pub(super) stamp: u32,
    /// The policy that says so.
    pub(super) policy: u32,
}

impl Protected {
    /// No slot is that high.
    pub(super) const NONE: Protected = Protected {
        slot: u32::MAX,
        stamp: 0,
        policy: 0,
    };
}

/// A flow, in a cache line.
#[derive(Clone, Copy, Default)]
#[repr(align(64))]
struct Known {
    key: Key,
    /// Which tables said so; 0 is none.
    tables: u32,
    found: Protected,
}

/// See the module.
pub(crate) struct Flows {
    pairs: Box<[[Known; 2]]>,
    /// By place, a part of the hash of the last flow that found no room.
    callers: Box<[u16]>,
    tables: u32,
}

impl Flows {
    /// For so many SAs.
    pub(super) fn new(capacity: usize) -> Flows {
        let wanted = capacity.saturating_mul(2).min(MOST_PAIRS);
        let pairs = wanted.next_power_of_two().max(LEAST_PAIRS);
        Flows {
            pairs: memory::table(pairs, Default::default),
            callers: memory::table(pairs, Default::default),
            tables: 1,
        }
    }

    /// Forgets all: a table has changed.
    pub(super) fn clear(&mut self) {
        self.tables = self.tables.wrapping_add(1);
        if self.tables == 0 {
            self.pairs.fill(Default::default());
            self.tables = 1;
        }
    }

    /// Where a flow would be.
    #[inline]
    fn place(&self, key: &Key) -> usize {
        (key.hash() >> 32) as usize & (self.pairs.len() - 1)
    }

    /// Where a flow lies that others have driven from its place.
    #[inline]
    fn other_place(&self, key: &Key) -> usize {
        key.hash() as usize & (self.pairs.len() - 1)
    }

    /// Where a flow would be, which is asked for.
    #[inline]
    pub(super) fn ask(&self, key: &Key) -> u32 {
        let place = self.place(key);
        if let Some([first, _]) = self.pairs.get(place) {
            prefetch(first);
        }
        place as u32
    }

    #[inline]
    pub(super) fn find(&self, key: &Key, place: usize) -> Option<&Protected> {
        let found = self.find_in(key, place);
        found.or_else(|| self.find_in(key, self.other_place(key)))
    }

    #[inline]
    fn find_in(&self, key: &Key, place: usize) -> Option<&Protected> {
        let [first, second] = self.pairs.get(place)?;
        let holds = |known: &Known| known.key == *key && known.tables == self.tables;
        if holds(first) {
            return Some(&first.found);
        }
        holds(second).then_some(&second.found)
    }

    /// Remembers what the plain way has found.
    pub(super) fn learn(&mut self, flow: &Flow, found: Protected) {
        let Some(key) = Key::of(flow) else {
            return;
        };
        let tables = self.tables;
        let new = Known { key, tables, found };
        let places = [self.place(&key), self.other_place(&key)];
        // What was known of the flow is no longer so: it must not come to light again.
        for place in places {
            for known in self.pairs.get_mut(place).into_iter().flatten() {
                if known.key == key {
                    *known = Known::default();
                }
            }
        }
        for place in places {
            for known in self.pairs.get_mut(place).into_iter().flatten() {
                if known.tables != tables {
                    *known = new;
                    return;
                }
            }
        }
        if self.has_called(&key, places[0]) {
            self.make_room(new, places[0]);
        }
    }

    /// Whether a flow that finds no room did not find any a while ago either. The one that is remembered
    /// gives way to the second other, so that of two that take turns one gets in.
    fn has_called(&mut self, key: &Key, place: usize) -> bool {
        const PASSED_BY: u16 = 1;
        let part = (key.hash() >> 16) as u16 & !PASSED_BY;
        let Some(caller) = self.callers.get_mut(place) else {
            return false;
        };
        let again = *caller & !PASSED_BY == part;
        *caller = match again || *caller == 0 || *caller & PASSED_BY != 0 {
            true => part,
            false => *caller | PASSED_BY,
        };
        again
    }

    /// The elder of two makes room and goes to its other place, where the same may happen.
    fn make_room(&mut self, new: Known, mut place: usize) {
        let mut known = new;
        for _ in 0..MOVES {
            let Some(out) = self.put(place, known) else {
                return;
            };
            let first = self.place(&out.key);
            place = match first == place {
                true => self.other_place(&out.key),
                false => first,
            };
            known = out;
        }
    }

    /// Puts a flow into a place. What has to leave for it comes back.
    fn put(&mut self, place: usize, new: Known) -> Option<Known> {
        let [first, second] = self.pairs.get_mut(place)?;
        for free in [&mut *first, &mut *second] {
            if free.tables != new.tables {
                *free = new;
                return None;
            }
        }
        let before = std::mem::replace(first, new);
        Some(std::mem::replace(second, before))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::PacketBuilder;
    use proptest::prelude::*;

    fn found(slot: u32) -> Protected {
        Protected {
            slot,
            stamp: 1,
            policy: 9,
        }
    }

    proptest! {
        #[test]
        fn a_frame_and_its_flow_have_the_same_key(
            from: [u8; 16], to: [u8; 16], ports: (u16, u16), v6: bool, tcp: bool,
        ) {
            let mut frame = Vec::new();
            let ethernet = PacketBuilder::ethernet2([2; 6], [4; 6]);
            let ip = match v6 {
                true => ethernet.ipv6(from, to, 9),
                false => ethernet.ipv4(*from.first_chunk().unwrap(), *to.first_chunk().unwrap(), 9),
            };
            match tcp {
                true => ip.tcp(ports.0, ports.1, 1, 1).write(&mut frame, b"x").unwrap(),
                false => ip.udp(ports.0, ports.1).write(&mut frame, b"x").unwrap(),
            }
            let flow = Flow::parse(&frame[14..]).unwrap();
            let key = Key::of_frame(&frame, v6).unwrap();
            prop_assert_eq!(Key::of(&flow), Some(key));
            let mut flows = Flows::new(1);
            let place = flows.place(&key);
            prop_assert_eq!(flows.find(&key, place), None);
            flows.learn(&flow, found(3));
            prop_assert_eq!(flows.find(&key, place), Some(&found(3)));
            flows.clear();
            prop_assert_eq!(flows.find(&key, place), None);
        }
    }

    fn flow(n: u32) -> Flow {
        Flow {
            source: IpAddr::from(n.to_be_bytes()),
            destination: [10, 2, 0, 1].into(),
            protocol: ipv4::UDP,
            ports: Ports::Of(7, 7),
        }
    }

    #[test]
    fn flows_that_share_a_place_are_not_confused_and_the_eldest_moves_and_then_goes() {
        let mut flows = Flows::new(1);
        let place = |n: u32| flows.place(&Key::of(&flow(n)).unwrap());
        let wanted = place(0);
        let alike: Vec<u32> = (0..).filter(|n| place(*n) == wanted).take(3).collect();
        for n in &alike {
            flows.learn(&flow(*n), found(*n));
        }
        let ask = |n: u32| flows.find(&Key::of(&flow(n)).unwrap(), wanted).copied();
        for n in &alike {
            assert_eq!(ask(*n), Some(found(*n)));
        }
        // The eldest lies elsewhere now. What is learnt of it anew is all that is known of it.
        flows.learn(&flow(alike[0]), found(7));
        flows.learn(&flow(alike[1]), found(8));
        flows.learn(&flow(alike[2]), found(9));
        let ask = |n: u32| flows.find(&Key::of(&flow(n)).unwrap(), wanted).copied();
        let slots = alike.iter().map(|n| ask(*n).unwrap().slot);
        assert_eq!(slots.collect::<Vec<_>>(), [7, 8, 9]);
        flows.clear();
        let ask = |n: u32| flows.find(&Key::of(&flow(n)).unwrap(), wanted).copied();
        assert!(alike.iter().all(|n| ask(*n).is_none()));
    }

    #[test]
    fn a_flow_for_each_sa_is_remembered_at_any_capacity() {
        let mut flows = Flows::new(20_000);
        let flow = |n: u32| Flow {
            source: IpAddr::from((n | 10 << 24).to_be_bytes()),
            destination: [10, 2, 0, 1].into(),
            protocol: ipv4::UDP,
            ports: Ports::Of(7, 7),
        };
        // A few find no room at once, and two that share a place get in one after the other.
        for n in (0..8).flat_map(|_| 0..20_000) {
            flows.learn(&flow(n), found(n));
        }
        for n in 0..20_000 {
            let key = Key::of(&flow(n)).unwrap();
            assert_eq!(flows.find(&key, flows.place(&key)), Some(&found(n)));
        }
    }

    #[test]
    fn where_there_is_no_room_a_flow_is_taken_in_when_it_comes_again() {
        let mut flows = Flows::new(1);
        let ask = |flows: &Flows, n: u32| {
            let key = Key::of(&flow(n)).unwrap();
            flows.find(&key, flows.place(&key)).copied()
        };
        let full = 10 * LEAST_PAIRS as u32;
        for n in 0..full {
            flows.learn(&flow(n), found(n));
        }
        let known: Vec<u32> = (0..full).filter(|n| ask(&flows, *n).is_some()).collect();
        assert_eq!(known.len(), 2 * LEAST_PAIRS);
        // Others come once each: nothing changes.
        for n in full..full + 1000 {
            flows.learn(&flow(n), found(n));
        }
        assert!(known.iter().all(|n| ask(&flows, *n).is_some()));
        // It may take one call more to be remembered as one that has called.
        for _ in 0..3 {
            flows.learn(&flow(full + 2000), found(2));
        }
        assert_eq!(ask(&flows, full + 2000), Some(found(2)));
    }

    #[test]
    fn a_flow_takes_a_cache_line_and_what_is_not_tcp_or_udp_has_no_key() {
        assert_eq!(size_of::<Known>(), 64);
        let mut flow = Flow {
            source: [10, 1, 0, 1].into(),
            destination: [10, 2, 0, 1].into(),
            protocol: ipv4::ICMP,
            ports: Ports::Of(7, 7),
        };
        assert_eq!(Key::of(&flow), None);
        (flow.protocol, flow.ports) = (ipv4::UDP, Ports::Opaque);
        assert_eq!(Key::of(&flow), None);
    }
}

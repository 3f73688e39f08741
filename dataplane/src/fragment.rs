//! Fragmentation of IPv4 packets that may be fragmented, before they enter a tunnel that they are
//! too big for (RFC 791 section 3.2, RFC 4301 section 8.2): the other way round every packet would
//! cost the receiver a reassembly of ESP. Where there is no other way, that is what happens.

use smallvec::SmallVec;

use crate::frames::Frames;
use crate::pool::Packet;
use crate::verdict::DropReason;
use crate::wire::checksum;
use crate::wire::ipv4::{HEADER, Ipv4};
use crate::wire::ipv6;

/// Fragments that one packet may become: enough for a jumbo frame that enters a tunnel of 1,400
/// octets.
pub(crate) const MAX: usize = 8;

/// The fragments of a packet, in order.
pub(crate) type Fragments = SmallVec<[Packet; MAX]>;

/// Fragment offsets count units of this many octets.
const UNIT: usize = 8;
/// Octets of the longest IPv4 header.
const LONGEST: usize = 60;
/// Octets of an IPv6 header and a fragment header.
const FRONT_V6: usize = ipv6::HEADER + ipv6::FRAGMENT_HEADER;
const MORE_FRAGMENTS: u16 = 0x2000;
const OFFSET: u16 = 0x1fff;

/// Splits a packet into fragments of at most `mtu` octets; gives it back as it was if that cannot
/// be done.
pub(crate) fn split(
    frames: &mut Frames,
    packet: Packet,
    mtu: usize,
) -> Result<Fragments, (Packet, DropReason)> {
    split_v4(frames, packet, mtu, false)
}

/// A packet that is `ours` is fragmented whatever its DF says, which no fragment repeats.
fn split_v4(
    frames: &mut Frames,
    mut packet: Packet,
    mtu: usize,
    ours: bool,
) -> Result<Fragments, (Packet, DropReason)> {
    // 1. How, and not too often.
    let octets = frames.pool.bytes(&packet);
    if octets.first().is_some_and(|first| first >> 4 == 6) {
        // RFC 8200 section 5: only the source fragments.
        return Err((packet, DropReason::TooBig));
    }
    let Ok(ip) = Ipv4::parse(octets) else {
        return Err((packet, DropReason::Malformed));
    };
    let front = ip.header_length();
    let Some(header) = octets.get(..front).and_then(later_header) else {
        return Err((packet, DropReason::Malformed));
    };
    let step = mtu.saturating_sub(front) / UNIT * UNIT;
    let payload = ip.total_length() - front;
    let count = payload.div_ceil(step.max(1));
    let position = ip.fragment_field();
    let possible = (ours || !ip.dont_fragment())
        && step > 0
        && count <= MAX
        && usize::from(position & OFFSET) + payload / UNIT <= usize::from(OFFSET);
    if !possible {
        return Err((packet, DropReason::TooBig));
    }
    if frames.pool.available() < count {
        return Err((packet, DropReason::NoBuffer));
    }
    // 2. The later fragments are copies of their parts.
    let mut later = Fragments::new();
    for index in 1..count {
        let start = index * step;
        let end = payload.min(start + step);
        let more = position & MORE_FRAGMENTS != 0 || index + 1 < count;
        let field = field(position, start, more);
        match copy_part(frames, &packet, &header, front + start..front + end, field) {
            Some(fragment) => later.push(fragment),
            None => {
                later.drain(..).for_each(|made| frames.pool.free(made));
                return Err((packet, DropReason::NoBuffer));
            }
        }
    }
    // 3. The packet itself becomes the first one.
    let first_end = payload.min(step);
    let more = position & MORE_FRAGMENTS != 0 || count > 1;
    let cut = frames.pool.truncate(&mut packet, front + first_end);
    debug_assert!(cut, "a fragment is never longer than its packet");
    write_header(frames.pool.bytes_mut(&mut packet), field(position, 0, more));
    let mut all = Fragments::new();
    all.push(packet);
    all.append(&mut later);
    Ok(all)
}

/// Splits a packet that starts here, of either family: over IPv6 only its source may (RFC 8200
/// section 4.5). Over IPv4 the identification is in its header already. Only what nobody can be told
/// of comes here, so DF gives way (RFC 4213 section 3.2.2).
pub(crate) fn split_sent(
    frames: &mut Frames,
    packet: Packet,
    mtu: usize,
    identification: u32,
) -> Result<Fragments, (Packet, DropReason)> {
    match frames.pool.bytes(&packet).first().map(|first| first >> 4) {
        Some(6) => split_v6(frames, packet, mtu, identification),
        _ => split_v4(frames, packet, mtu, true),
    }
}

/// Lets routers fragment a packet of ours over IPv4, which needs a name for that (RFC 6864 section
/// 4.1). IPv6 packets stay as they are.
pub(crate) fn permit(octets: &mut [u8], identification: u16) {
    if octets.first().is_none_or(|first| first >> 4 != 4) || octets.len() < HEADER {
        return;
    }
    octets[4..6].copy_from_slice(&identification.to_be_bytes());
    write_header(octets, 0);
}

/// IPv6 without extension headers in front of what it carries.
fn split_v6(
    frames: &mut Frames,
    mut packet: Packet,
    mtu: usize,
    identification: u32,
) -> Result<Fragments, (Packet, DropReason)> {
    let step = mtu.saturating_sub(FRONT_V6) / UNIT * UNIT;
    let payload = packet.len().saturating_sub(ipv6::HEADER);
    let count = payload.div_ceil(step.max(1));
    if step == 0 || count > MAX {
        return Err((packet, DropReason::TooBig));
    }
    let Some(protocol) = frames.pool.bytes(&packet).get(6).copied() else {
        return Err((packet, DropReason::Malformed));
    };
    let part = |start: usize| Part {
        protocol,
        position: start,
        more: start + step < payload,
        identification,
    };
    let mut later = Fragments::new();
    for start in (step..payload).step_by(step) {
        let range = start..payload.min(start + step);
        match copy_part_v6(frames, &packet, range, part(start)) {
            Some(fragment) => later.push(fragment),
            None => {
                later.drain(..).for_each(|made| frames.pool.free(made));
                return Err((packet, DropReason::NoBuffer));
            }
        }
    }
    let cut = frames
        .pool
        .truncate(&mut packet, ipv6::HEADER + payload.min(step));
    if !cut || !frames.pool.prepend(&mut packet, ipv6::FRAGMENT_HEADER) {
        later.drain(..).for_each(|made| frames.pool.free(made));
        return Err((packet, DropReason::TooBig));
    }
    let octets = frames.pool.bytes_mut(&mut packet);
    octets.copy_within(ipv6::FRAGMENT_HEADER..FRONT_V6, 0);
    write_front_v6(octets, part(0));
    let mut all = Fragments::new();
    all.push(packet);
    all.append(&mut later);
    Ok(all)
}

/// What an IPv6 fragment header says.
#[derive(Clone, Copy)]
struct Part {
    protocol: u8,
    position: usize,
    more: bool,
    identification: u32,
}

/// A packet with the header, a fragment header, and a part of the payload.
fn copy_part_v6(
    frames: &mut Frames,
    packet: &Packet,
    range: std::ops::Range<usize>,
    part: Part,
) -> Option<Packet> {
    let pool = &mut frames.pool;
    let length = FRONT_V6 + range.len();
    let mut fragment = pool.allocate_for(length)?;
    let body = ipv6::HEADER + range.start..ipv6::HEADER + range.end;
    let whole = pool.append(&mut fragment, length)
        && pool.copy_between(packet, 0..ipv6::HEADER, &mut fragment, 0)
        && pool.copy_between(packet, body, &mut fragment, FRONT_V6);
    if !whole {
        pool.free(fragment);
        return None;
    }
    write_front_v6(pool.bytes_mut(&mut fragment), part);
    Some(fragment)
}

/// Corrects the length and writes the fragment header.
fn write_front_v6(fragment: &mut [u8], part: Part) {
    let length = fragment.len().saturating_sub(ipv6::HEADER) as u16;
    if let Some(front) = fragment.first_chunk_mut::<FRONT_V6>() {
        front[4..6].copy_from_slice(&length.to_be_bytes());
        front[6] = ipv6::FRAGMENT;
        let field = part.position as u16 | u16::from(part.more);
        front[40..42].copy_from_slice(&[part.protocol, 0]);
        front[42..44].copy_from_slice(&field.to_be_bytes());
        front[44..].copy_from_slice(&part.identification.to_be_bytes());
    }
}

/// Flags and offset of the part that starts at `start`.
fn field(position: u16, start: usize, more: bool) -> u16 {
    let offset = usize::from(position & OFFSET) + start / UNIT;
    let flag = if more { MORE_FRAGMENTS } else { 0 };
    offset as u16 & OFFSET | flag
}

/// The header of the fragments behind the first one: with those options alone that every fragment has
/// (RFC 791 section 3.1, the copied flag). Nothing if the options contradict themselves.
fn later_header(header: &[u8]) -> Option<SmallVec<[u8; LONGEST]>> {
    const END: u8 = 0;
    const NOTHING: u8 = 1;
    const COPIED: u8 = 0x80;
    let (fixed, mut options) = header.split_at_checked(HEADER)?;
    let mut later = SmallVec::from_slice(fixed);
    while let Some(kind) = options.first().filter(|kind| **kind != END) {
        let length = match *kind {
            NOTHING => 1,
            _ => options
                .get(1)
                .map(|octets| usize::from(*octets))
                .filter(|octets| *octets >= 2)?,
        };
        let (option, rest) = options.split_at_checked(length)?;
        if kind & COPIED != 0 {
            later.extend_from_slice(option);
        }
        options = rest;
    }
    later.resize(later.len().next_multiple_of(4), END);
    let words = (later.len() / 4) as u8;
    *later.first_mut()? = 0x40 | words;
    Some(later)
}

/// A packet with this header, and a part of the other's octets.
fn copy_part(
    frames: &mut Frames,
    packet: &Packet,
    header: &[u8],
    range: std::ops::Range<usize>,
    field: u16,
) -> Option<Packet> {
    let pool = &mut frames.pool;
    let length = header.len() + range.len();
    let mut fragment = pool.allocate_for(length)?;
    let copied = pool.append(&mut fragment, length)
        && pool.copy_between(packet, range, &mut fragment, header.len());
    let front = pool.bytes_mut(&mut fragment).get_mut(..header.len());
    match front.filter(|_| copied) {
        Some(front) => front.copy_from_slice(header),
        None => {
            pool.free(fragment);
            return None;
        }
    }
    write_header(frames.pool.bytes_mut(&mut fragment), field);
    Some(fragment)
}

/// Corrects length, flags, offset and checksum.
fn write_header(fragment: &mut [u8], field: u16) {
    let length = fragment.len() as u16;
    let words = fragment.first().map_or(0, |first| first & 0x0f);
    if let Some(header) = fragment.get_mut(..usize::from(words) * 4)
        && header.len() >= HEADER
    {
        header[2..4].copy_from_slice(&length.to_be_bytes());
        header[6..8].copy_from_slice(&field.to_be_bytes());
        header[10..12].fill(0);
        let sum = checksum(0, header);
        header[10..12].copy_from_slice(&sum.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::counters::Counters;
    use crate::pool::Pool;

    fn frames(count: u32) -> Frames {
        Frames {
            watch: Default::default(),
            pool: Pool::new(count).unwrap(),
            counters: Arc::new(Counters::new(0)),
        }
    }

    fn datagram(payload: usize) -> Vec<u8> {
        let body: Vec<u8> = (0..payload).map(|n| (n % 251) as u8).collect();
        let mut octets = Vec::new();
        etherparse::PacketBuilder::ipv4([10, 1, 0, 5], [10, 2, 0, 5], 9)
            .udp(1, 2)
            .write(&mut octets, &body)
            .unwrap();
        octets[6] &= !0x40;
        write_header(&mut octets, 0);
        octets
    }

    /// Puts fragments together again: payload, and whether the last one says that more follow.
    fn join(frames: &Frames, fragments: &[Packet], mtu: usize) -> (Vec<u8>, bool) {
        let (mut payload, mut more) = (Vec::new(), true);
        for fragment in fragments {
            let octets = frames.pool.bytes(fragment);
            assert!(octets.len() <= mtu);
            let (header, body) = etherparse::Ipv4Header::from_slice(octets).unwrap();
            assert_eq!(header.header_checksum, header.calc_header_checksum());
            assert_eq!(usize::from(header.total_len), octets.len());
            assert_eq!(header.fragment_offset.byte_offset() as usize, payload.len());
            payload.extend_from_slice(body);
            more = header.more_fragments;
        }
        (payload, more)
    }

    proptest! {
        #[test]
        fn the_parts_are_the_whole_rfc_791_section_3_2(payload in 1usize..1700, mtu in 400usize..1600) {
            let mut frames = frames(8);
            let whole = datagram(payload);
            let packet = frames.pool.copy_in(&whole).unwrap();
            match split(&mut frames, packet, mtu) {
                Ok(fragments) => {
                    let (joined, more) = join(&frames, &fragments, mtu);
                    prop_assert_eq!(&joined[..], &whole[20..]);
                    prop_assert!(!more);
                    for fragment in fragments { frames.pool.free(fragment); }
                }
                Err((packet, reason)) => {
                    prop_assert_eq!(reason, DropReason::TooBig);
                    prop_assert!(whole.len() - 20 > MAX * ((mtu - 20) / 8 * 8));
                    frames.pool.free(packet);
                }
            }
            prop_assert_eq!(frames.pool.available(), 8);
        }
    }

    proptest! {
        #[test]
        fn the_parts_are_the_whole_rfc_8200_section_4_5(payload in 1usize..1700, mtu in 500usize..1400) {
            let mut frames = frames(8);
            let mut whole = Vec::new();
            let body: Vec<u8> = (0..payload).map(|n| (n % 251) as u8).collect();
            etherparse::PacketBuilder::ipv6([0x20; 16], [0x30; 16], 9)
                .write(&mut whole, etherparse::IpNumber(50), &body)
                .unwrap();
            let packet = frames.pool.copy_in(&whole).unwrap();
            let fragments = split_sent(&mut frames, packet, mtu, 0x1234_5678).unwrap();
            let mut joined = Vec::new();
            let count = fragments.len();
            for (index, fragment) in fragments.into_iter().enumerate() {
                let octets = frames.pool.bytes(&fragment);
                prop_assert!(octets.len() <= mtu);
                let ip = ipv6::Ipv6::parse(octets).unwrap();
                prop_assert_eq!(ip.total_length(), octets.len());
                let upper = ip.upper().unwrap();
                if let Some(part) = upper.fragment {
                    prop_assert_eq!((upper.protocol, upper.offset), (50, 48));
                    prop_assert_eq!(part.position, joined.len());
                    prop_assert_eq!((part.more, part.identification), (index + 1 < count, 0x1234_5678));
                }
                joined.extend_from_slice(&octets[48..]);
                frames.pool.free(fragment);
            }
            prop_assert_eq!(joined, body);
            prop_assert_eq!(frames.pool.available(), 8);
        }
    }

    #[test]
    fn rfc791_section_3_1_every_fragment_has_the_options_that_say_so_and_the_first_has_all() {
        let with = |options: &[u8]| {
            let mut octets = datagram(1200);
            octets.splice(20..20, options.iter().copied());
            octets[0] = 0x45 + (options.len() / 4) as u8;
            write_header(&mut octets, 0);
            octets
        };
        // A record of the route is not copied, a source route and a router alert are.
        let record = [7, 7, 4, 0, 0, 0, 0];
        let (route, alert) = ([0x83, 7, 4, 10, 9, 9, 9], [0x94, 4, 0, 0]);
        let all = [&[1][..], &record, &route, &alert, &[0]].concat();
        let mut frames = frames(8);
        let whole = with(&all);
        let packet = frames.pool.copy_in(&whole).unwrap();
        let fragments = split(&mut frames, packet, 500).map_err(|(_, reason)| reason);
        let fragments = fragments.unwrap();
        let (joined, more) = join(&frames, &fragments, 500);
        assert_eq!((&joined[..], more), (&whole[40..], false));
        let options = |n: usize| {
            let octets = frames.pool.bytes(&fragments[n]);
            octets[20..Ipv4::parse(octets).unwrap().header_length()].to_vec()
        };
        assert_eq!(options(0), all);
        let copied = [&route[..], &alert, &[0]].concat();
        assert_eq!((options(1), options(2)), (copied.clone(), copied));
        fragments.into_iter().for_each(|f| frames.pool.free(f));
        // None is repeated of which nobody knows where it ends.
        for lying in [[7, 9, 0, 0], [7, 1, 0, 0], [7, 0, 0, 0], [1, 1, 1, 7]] {
            let packet = frames.pool.copy_in(&with(&lying)).unwrap();
            let (packet, reason) = split(&mut frames, packet, 500).unwrap_err();
            assert_eq!(reason, DropReason::Malformed);
            frames.pool.free(packet);
        }
        assert_eq!(frames.pool.available(), 8);
    }

    #[test]
    fn a_fragment_of_a_fragment_keeps_its_place() {
        let mut frames = frames(8);
        let mut octets = datagram(800);
        write_header(&mut octets, MORE_FRAGMENTS | 100);
        let packet = frames.pool.copy_in(&octets).unwrap();
        let fragments = split(&mut frames, packet, 500).unwrap();
        let fields: Vec<u16> = fragments
            .iter()
            .map(|fragment| {
                Ipv4::parse(frames.pool.bytes(fragment))
                    .unwrap()
                    .fragment_field()
            })
            .collect();
        assert_eq!(fields, [MORE_FRAGMENTS | 100, MORE_FRAGMENTS | 160]);
        fragments.into_iter().for_each(|f| frames.pool.free(f));
    }

    #[test]
    fn what_cannot_be_split_comes_back_as_it_was() {
        let mut frames = frames(2);
        for (flags, mtu, reason) in [
            (0x40, 1000, DropReason::TooBig),
            (0, 27, DropReason::TooBig),
            (0, 0, DropReason::TooBig),
            (0, 500, DropReason::NoBuffer),
        ] {
            let mut octets = datagram(1400);
            octets[6] = flags;
            write_header(&mut octets, u16::from(flags) << 8);
            let packet = frames.pool.copy_in(&octets).unwrap();
            let (packet, refused) = split(&mut frames, packet, mtu).unwrap_err();
            assert_eq!((refused, frames.pool.bytes(&packet)), (reason, &octets[..]));
            frames.pool.free(packet);
            assert_eq!(frames.pool.available(), 2);
        }
    }
}

//! Reassembly of packets that were fragmented on their way to us: ESP and UDP to our own addresses,
//! nothing else (RFC 791 section 3.2, RFC 8200 section 4.5, RFC 4303 section 3.4.1).
//!
//! Fragments come from anybody, so all is bounded: datagrams, those of one source, fragments, octets
//! and time. The oldest datagram makes room for a new one, or for one more fragment of another. What overlaps is an attack, and its whole
//! datagram dies with all that still comes of it (RFC 5722; we hold IPv4 to the same rule).

use std::net::IpAddr;
use std::time::Duration;

use hitless_sa::Instant;
use smallvec::SmallVec;

use crate::frames::Frames;
use crate::pool::{FRAME_SIZE, LARGEST_IN_RUN, LEAST_HEADROOM, Packet, Pool};
use crate::verdict::DropReason;
use crate::wire::checksum;
use crate::wire::ip::Ip;
use crate::wire::ipv4::{self, Ipv4};
use crate::wire::ipv6::{self, Ipv6};

/// Datagrams under way.
const DATAGRAMS: usize = 64;
/// Of these, from one source.
const EACH_SOURCE: usize = 8;
/// Fragments of one datagram: a jumbo one over links of the least MTU.
const PARTS: usize = 8;
/// Fragments in all.
const HELD: usize = 128;
/// How long a datagram may take (RFC 8200 section 4.5, RFC 1122 section 3.3.2).
const PATIENCE: Duration = Duration::from_secs(60);
const TICK: Duration = Duration::from_secs(1);

/// Which datagram a fragment is of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Key {
    source: IpAddr,
    destination: IpAddr,
    /// IPv4 only: IPv6 identifies without it (RFC 8200 section 4.5).
    protocol: u8,
    identification: u32,
}

/// Where a fragment lies in its datagram.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Piece {
    /// Octets in front of its content.
    front: usize,
    position: usize,
    length: usize,
    more: bool,
    /// The ECN field of its own header.
    ecn: u8,
}

struct Part {
    packet: Packet,
    piece: Piece,
}

struct Datagram {
    key: Key,
    begun: Instant,
    parts: SmallVec<[Part; PARTS]>,
    /// Octets of the whole, once its end has been seen.
    total: Option<usize>,
    /// It has been given up; what still comes of it dies too.
    poisoned: bool,
}

/// The datagrams of one worker.
pub(crate) struct Reassembly {
    datagrams: Vec<Datagram>,
    held: usize,
    next_tick: Instant,
}

impl Reassembly {
    /// None under way. It allocates all that it ever needs.
    pub(crate) fn new() -> Reassembly {
        Reassembly {
            datagrams: Vec::with_capacity(DATAGRAMS),
            held: 0,
            next_tick: Instant::default(),
        }
    }

    /// Fragments that wait here.
    pub(crate) fn held(&self) -> usize {
        self.held
    }

    /// Takes a fragment. Gives the whole packet if this was the last that was missing.
    pub(crate) fn take(
        &mut self,
        frames: &mut Frames,
        now: Instant,
        packet: Packet,
    ) -> Option<Packet> {
        let (key, piece) = match read(frames.pool.bytes(&packet)) {
            Ok(read) => read,
            Err(reason) => {
                frames.drop(packet, reason);
                return None;
            }
        };
        let mut at = self.find(frames, now, key);
        let datagram = self.datagrams.get_mut(at)?;
        match datagram.judge(&frames.pool, &packet, piece) {
            Verdict::Keep => {}
            Verdict::Duplicate => {
                frames.drop(packet, DropReason::FragmentOverlap);
                return None;
            }
            Verdict::Refuse(reason) => {
                frames.drop(packet, reason);
                return None;
            }
            Verdict::Poison(reason) => {
                frames.drop(packet, reason);
                self.held -= datagram.parts.len();
                datagram.poison(frames, reason);
                return None;
            }
        }
        if self.held >= HELD {
            at = self.make_room(frames, at);
        }
        let datagram = self.datagrams.get_mut(at)?;
        if !piece.more {
            datagram.total = Some(piece.position + piece.length);
        }
        datagram.parts.push(Part { packet, piece });
        self.held += 1;
        if !datagram.is_complete() {
            return None;
        }
        let mut datagram = self.datagrams.swap_remove(at);
        self.held -= datagram.parts.len();
        let whole = datagram.join(&mut frames.pool);
        for part in datagram.parts.drain(..) {
            match whole {
                Ok(_) => frames.pool.free(part.packet),
                Err(reason) => frames.drop(part.packet, reason),
            }
        }
        whole.ok()
    }

    /// Finds the datagram, or makes room for a new one.
    fn find(&mut self, frames: &mut Frames, now: Instant, key: Key) -> usize {
        self.tick(frames, now);
        if let Some(at) = self.datagrams.iter().position(|d| d.key == key) {
            return at;
        }
        // A source that has its share makes room itself: fragments lost on the way must not keep it
        // from sending more until they time out.
        let own = |d: &Datagram| d.key.source == key.source;
        let given_up = match self.datagrams.iter().filter(|d| own(d)).count() >= EACH_SOURCE {
            true => self.oldest(own),
            false if self.datagrams.len() >= DATAGRAMS => self.oldest(|_| true),
            false => None,
        };
        if let Some(at) = given_up {
            self.give_up(frames, at, DropReason::FragmentLimit);
        }
        self.datagrams.push(Datagram {
            key,
            begun: now,
            parts: SmallVec::new(),
            total: None,
            poisoned: false,
        });
        self.datagrams.len() - 1
    }

    /// Gives up the oldest of the datagrams that hold fragments, but not the one here, which has one
    /// to come. Returns where that is now. What is poisoned holds none: giving it up frees nothing.
    fn make_room(&mut self, frames: &mut Frames, at: usize) -> usize {
        let here = self.datagrams.get(at).map(|d| d.key);
        let full = |d: &Datagram| !d.parts.is_empty() && Some(d.key) != here;
        let Some(given_up) = self.oldest(full) else {
            return at;
        };
        self.give_up(frames, given_up, DropReason::FragmentLimit);
        // The last one has taken the place of the one that went.
        match at == self.datagrams.len() {
            true => given_up,
            false => at,
        }
    }

    /// Of those the one that is worth least: given up already, or else begun first.
    fn oldest(&self, among: impl Fn(&Datagram) -> bool) -> Option<usize> {
        let datagrams = self.datagrams.iter().enumerate().filter(|(_, d)| among(d));
        let worth = datagrams.min_by_key(|(_, d)| (!d.poisoned, d.begun));
        worth.map(|(at, _)| at)
    }

    /// Once a second: gives up what takes too long.
    pub(crate) fn tick(&mut self, frames: &mut Frames, now: Instant) {
        if self.datagrams.is_empty() || now < self.next_tick {
            return;
        }
        self.next_tick = now + TICK;
        for at in (0..self.datagrams.len()).rev() {
            let begun = self.datagrams.get(at).map(|d| d.begun);
            if begun.is_some_and(|begun| now.since(begun) >= PATIENCE) {
                self.give_up(frames, at, DropReason::FragmentTimeout);
            }
        }
    }

    /// One of the fragments that wait, as it came.
    pub(crate) fn pop(&mut self) -> Option<Packet> {
        loop {
            match self.datagrams.last_mut()?.parts.pop() {
                Some(part) => {
                    self.held -= 1;
                    return Some(part.packet);
                }
                None => self.datagrams.pop(),
            };
        }
    }

    /// Drops all fragments.
    pub(crate) fn clear(&mut self, frames: &mut Frames, reason: DropReason) {
        while !self.datagrams.is_empty() {
            self.give_up(frames, 0, reason);
        }
    }

    fn give_up(&mut self, frames: &mut Frames, at: usize, reason: DropReason) {
        let mut datagram = self.datagrams.swap_remove(at);
        self.held -= datagram.parts.len();
        datagram.poison(frames, reason);
    }
}

/// What to do with a fragment.
enum Verdict {
    Keep,
    /// The same once more, which does no harm (RFC 8200 section 4.5).
    Duplicate,
    Refuse(DropReason),
    /// Give up its datagram.
    Poison(DropReason),
}

impl Datagram {
    fn judge(&self, pool: &Pool, packet: &Packet, piece: Piece) -> Verdict {
        if self.poisoned {
            return Verdict::Refuse(DropReason::FragmentOverlap);
        }
        let end = piece.position + piece.length;
        for part in &self.parts {
            let other = part.piece;
            if other == piece && content(pool, &part.packet, other) == content(pool, packet, piece)
            {
                return Verdict::Duplicate;
            }
            if piece.position < other.position + other.length && other.position < end {
                return Verdict::Poison(DropReason::FragmentOverlap);
            }
        }
        // Beyond the end, or another end.
        let beyond = self.total.is_some_and(|total| end > total || !piece.more);
        let furthest = self.parts.iter().map(|p| p.piece.position + p.piece.length);
        let short = !piece.more && furthest.max().is_some_and(|furthest| furthest > end);
        if beyond || short || end + piece.front > largest(pool) {
            return Verdict::Poison(DropReason::FragmentTooLong);
        }
        if self.parts.len() >= PARTS {
            return Verdict::Poison(DropReason::FragmentLimit);
        }
        Verdict::Keep
    }

    fn poison(&mut self, frames: &mut Frames, reason: DropReason) {
        for part in self.parts.drain(..) {
            frames.drop(part.packet, reason);
        }
        (self.poisoned, self.total) = (true, None);
    }

    /// Parts do not overlap, so that their octets tell.
    fn is_complete(&self) -> bool {
        let there: usize = self.parts.iter().map(|part| part.piece.length).sum();
        self.total == Some(there)
    }

    /// The whole packet, with the header of the first fragment.
    fn join(&mut self, pool: &mut Pool) -> Result<Packet, DropReason> {
        self.parts.sort_unstable_by_key(|part| part.piece.position);
        let (Some(first), Some(total)) = (self.parts.first(), self.total) else {
            return Err(DropReason::Malformed);
        };
        let ecn = self.ecn()?;
        let is_v6 = self.key.source.is_ipv6();
        // IPv6: all headers but the fragment header, which is the last of them.
        let dropped = if is_v6 { ipv6::FRAGMENT_HEADER } else { 0 };
        let front = first.piece.front - dropped;
        let mut whole = pool
            .allocate_inbound(front + total, true)
            .ok_or(DropReason::NoBuffer)?;
        let mut copied = pool.copy_between(&first.packet, 0..front, &mut whole, 0);
        for part in &self.parts {
            let Piece {
                front: own,
                position,
                length,
                ..
            } = part.piece;
            let range = own..own + length;
            copied &= pool.copy_between(&part.packet, range, &mut whole, front + position);
        }
        let named = match is_v6 {
            true => fragment_header(pool.bytes(&first.packet)),
            false => None,
        };
        let octets = pool.bytes_mut(&mut whole);
        let mended = match is_v6 {
            true => named.and_then(|(at, next)| mend_v6(octets, at, next, ecn)),
            false => mend_v4(octets, front, ecn),
        };
        if !copied || mended.is_none() {
            pool.free(whole);
            return Err(DropReason::Malformed);
        }
        Ok(whole)
    }

    /// What the whole says of congestion: what any part says, and nothing that contradicts it
    /// (RFC 3168 section 5.3).
    fn ecn(&self) -> Result<Option<u8>, DropReason> {
        const CE: u8 = 3;
        let mut marks = self.parts.iter().map(|part| part.piece.ecn);
        let congested = marks.clone().any(|ecn| ecn == CE);
        match congested && marks.any(|ecn| ecn == 0) {
            true => Err(DropReason::Congestion),
            false => Ok(congested.then_some(CE)),
        }
    }
}

/// The most that a whole packet may have.
fn largest(pool: &Pool) -> usize {
    match pool.runs() {
        0 => FRAME_SIZE - LEAST_HEADROOM,
        _ => LARGEST_IN_RUN,
    }
}

fn content<'a>(pool: &'a Pool, packet: &'a Packet, piece: Piece) -> Option<&'a [u8]> {
    pool.bytes(packet)
        .get(piece.front..piece.front + piece.length)
}

/// What a fragment is of, and where it belongs.
fn read(packet: &[u8]) -> Result<(Key, Piece), DropReason> {
    let (key, piece) = match Ip::parse(packet)? {
        Ip::V4(ip) => read_v4(ip),
        Ip::V6(ip) => read_v6(ip)?,
    };
    // All but the last are made of whole units (RFC 8200 section 4.5), and none is empty.
    let units = !piece.more || piece.length % 8 == 0;
    let fits = piece.position + piece.length <= usize::from(u16::MAX);
    match units && fits && piece.length > 0 {
        true => Ok((key, piece)),
        false => Err(DropReason::Malformed),
    }
}

fn read_v4(ip: Ipv4<'_>) -> (Key, Piece) {
    let field = ip.fragment_field();
    let key = Key {
        source: ip.source().into(),
        destination: ip.destination().into(),
        protocol: ip.protocol(),
        identification: ip.identification().into(),
    };
    let piece = Piece {
        front: ip.header_length(),
        position: usize::from(field & 0x1fff) * 8,
        length: ip.payload().len(),
        more: field & 0x2000 != 0,
        ecn: ip.tos() & 3,
    };
    (key, piece)
}

fn read_v6(ip: Ipv6<'_>) -> Result<(Key, Piece), DropReason> {
    let upper = ip.upper()?;
    let fragment = upper.fragment.ok_or(DropReason::Malformed)?;
    let key = Key {
        source: ip.source().into(),
        destination: ip.destination().into(),
        protocol: 0,
        identification: fragment.identification,
    };
    let piece = Piece {
        front: upper.offset,
        position: fragment.position,
        length: ip.from(upper.offset).len(),
        more: fragment.more,
        ecn: ip.traffic_class() & 3,
    };
    Ok((key, piece))
}

/// Where the fragment header is named, and what it names itself.
fn fragment_header(packet: &[u8]) -> Option<(usize, u8)> {
    let upper = Ipv6::parse(packet).ok()?.upper().ok()?;
    Some((upper.fragment?.named_at, upper.protocol))
}

/// Takes the fragment header's name out of the headers, and corrects the length.
fn mend_v6(packet: &mut [u8], named_at: usize, next: u8, ecn: Option<u8>) -> Option<()> {
    let payload = u16::try_from(packet.len().checked_sub(ipv6::HEADER)?).ok()?;
    *packet.get_mut(named_at)? = next;
    packet
        .get_mut(4..6)?
        .copy_from_slice(&payload.to_be_bytes());
    *packet.get_mut(1)? |= ecn.unwrap_or(0) << 4;
    Some(())
}

/// Makes the header one of a whole packet.
fn mend_v4(packet: &mut [u8], front: usize, ecn: Option<u8>) -> Option<()> {
    let total = u16::try_from(packet.len()).ok()?;
    let header = packet.get_mut(..front)?;
    header.get_mut(2..4)?.copy_from_slice(&total.to_be_bytes());
    header.get_mut(6..8)?.fill(0);
    *header.get_mut(1)? |= ecn.unwrap_or(0);
    header.get_mut(10..12)?.fill(0);
    let sum = checksum(0, header);
    header.get_mut(10..12)?.copy_from_slice(&sum.to_be_bytes());
    Some(())
}

/// Whether fragments that carry this are put together: what a gateway is spoken to in.
pub(crate) fn wanted(protocol: u8) -> bool {
    matches!(protocol, ipv4::ESP | ipv4::UDP | ipv6::DESTINATION)
}

#[cfg(test)]
mod tests;

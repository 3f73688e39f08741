//! ESP (RFC 4303): packets in both modes, slices for the sync channel.
//!
//! ```text
//!  SPI 4 | sequence number 4 | IV | payload, padding, pad length 1, next header 1 | ICV 16
//!  ------ authenticated -----       ------------ encrypted and authenticated -------
//! ```
//!
//! The IV that we send is the 64-bit sequence number (S2) or made from it alone, so that a unique
//! number is a unique nonce. What a peer sends as IV is taken as it is. How long the parts are says
//! the key's suite.

use std::ops::Range;

use hitless_sa::{EspSuite, Mode, SequenceNumber, Spi};
use zeroize::Zeroize;

use crate::aead::EspKey;
use crate::outer::Inner;
use crate::pool::{FRAME_SIZE, Packet, Pool};
use crate::replay::AntiReplay;
use crate::sad::{InboundSa, OutboundSa};
use crate::transport;
use crate::verdict::DropReason;

/// Octets of SPI and sequence number.
const HEADER: usize = 8;
/// Octets of pad length and next header.
const TRAILER: usize = 2;

pub(crate) const NEXT_HEADER_IPV4: u8 = 4;
pub(crate) const NEXT_HEADER_IPV6: u8 = 41;
const NEXT_HEADER_NONE: u8 = 59;

/// Octets in front of the payload.
#[inline]
pub(crate) const fn prefix(suite: EspSuite) -> usize {
    HEADER + suite.iv_length()
}

/// Octets of padding for a payload: the fewest that align the trailer.
#[inline]
const fn padding(suite: EspSuite, payload: usize) -> usize {
    (payload + TRAILER).wrapping_neg() % suite.alignment()
}

/// The largest payload whose ESP packet fits into `octets`.
pub(crate) const fn largest_payload(suite: EspSuite, octets: usize) -> usize {
    let room = octets.saturating_sub(prefix(suite) + suite.icv_length());
    let text = room / suite.alignment() * suite.alignment();
    text.saturating_sub(TRAILER)
}

/// The SPI of an ESP packet, if it is long enough to have one.
#[inline]
pub fn spi(esp: &[u8]) -> Option<Spi> {
    esp.first_chunk()
        .map(|octets| Spi(u32::from_be_bytes(*octets)))
}

/// The low half of the number that an ESP packet carries, 0 if it is too short for one.
#[inline]
pub(crate) fn low(esp: &[u8]) -> u32 {
    let octets = esp.get(4..).and_then(<[u8]>::first_chunk);
    octets.map_or(0, |octets| u32::from_be_bytes(*octets))
}

/// What [`address`] has to know of a packet that [`wrap`] made ESP.
#[derive(Clone, Copy)]
pub(crate) struct Front {
    /// DSCP and ECN of the inner packet.
    tos: u8,
    dont_fragment: bool,
    /// In transport mode, the octets of headers that wait in front of the packet, and where they
    /// name what follows.
    kept: usize,
    named_at: usize,
}

/// Makes an inner IP packet, or an empty one for a dummy, the text of an ESP packet, with a number
/// that was drawn for it: ready for [`seal_burst`](crate::aead::seal_burst). In tunnel mode it is
/// padded to `pad_to` octets (RFC 4303 section 2.7). Returns what [`address`] takes.
///
/// After an error the packet's content is unspecified but never leaves: it goes back to the pool.
#[inline]
pub(crate) fn wrap(
    pool: &mut Pool,
    packet: &mut Packet,
    sa: &OutboundSa,
    number: SequenceNumber,
    pad_to: usize,
) -> Result<Front, DropReason> {
    // 1. What the packet is, and what the outer header repeats of it (RFC 4301 section 5.1.2,
    //    RFC 6040 section 4.1 normal mode).
    let (next_header, front) = match sa.mode {
        Mode::Tunnel => tunnel_front(pool.bytes(packet))?,
        Mode::Transport => transport_front(pool.bytes(packet))?,
    };
    // 2. Room for header and IV in front, and for padding, trailer and ICV behind.
    let suite = sa.key.suite();
    let (prefix, inner) = (prefix(suite), packet.len() - front.kept);
    let payload = inner.max(pad_to);
    let padding = padding(suite, payload);
    let behind = payload - inner + padding + TRAILER + suite.icv_length();
    let grown = pool.append(packet, behind)
        && pool.prepend(packet, prefix)
        && transport::set_aside(pool, packet, front.kept, prefix);
    if !grown {
        return Err(DropReason::TooBig);
    }
    let esp = pool.bytes_mut(packet);
    // 3. Trailer, ESP header and IV.
    if payload > inner {
        esp[prefix + inner..prefix + payload].fill(0);
    }
    write_trailer(&mut esp[prefix + payload..], padding, next_header);
    write_header(&sa.key, esp, sa.spi, number, sa.esn)?;
    Ok(front)
}

/// Puts the outer headers in front of a sealed ESP packet, or its own ones again.
#[inline]
pub(crate) fn address(
    pool: &mut Pool,
    packet: &mut Packet,
    sa: &OutboundSa,
    identification: u16,
    front: Front,
) -> Result<(), DropReason> {
    if sa.mode == Mode::Transport {
        let kept = (front.kept, front.named_at);
        return transport::put_back(pool, packet, kept, sa.encapsulation);
    }
    let inner = Inner {
        tos: front.tos,
        dont_fragment: front.dont_fragment,
    };
    let written = pool.prepend(packet, sa.outer.len())
        && sa
            .outer
            .write(pool.bytes_mut(packet), inner, identification);
    written.then_some(()).ok_or(DropReason::TooBig)
}

/// The full number of an ESP packet, if it is worth decrypting: long enough, and not a replay by what
/// the window knows now. RFC 4303 section 3.4.3: the check comes before decryption, the window moves
/// after it.
#[inline]
pub(crate) fn number(
    esp: &[u8],
    suite: EspSuite,
    window: &AntiReplay,
    esn: bool,
) -> Result<SequenceNumber, DropReason> {
    let number = infer(esp, suite, window, esn)?;
    window.check(number).map_err(|_| DropReason::Replay)?;
    Ok(number)
}

/// Takes the inner IP packet out of an ESP packet that verified and was decrypted. `front` octets of
/// IP headers, and of UDP if it was encapsulated, stand before it in its frame.
///
/// The number is not marked yet: [`InboundSa::admit`] does that once the high water allows the
/// packet. One that is refused here for its content is marked if it might have been delivered, so
/// that a copy of it costs no decryption.
#[inline]
pub(crate) fn unwrap(
    pool: &mut Pool,
    packet: &mut Packet,
    sa: &mut InboundSa,
    number: SequenceNumber,
    (front, encapsulated): (usize, bool),
) -> Result<(), DropReason> {
    sa.authenticated = sa.authenticated.max(number);
    // Trailer, and the inner packet's own length, which strips TFC padding.
    let suite = sa.key.suite();
    let (prefix, text) = (prefix(suite), text(pool.bytes(packet), suite));
    let unwrapped = match (strip_trailer(text), sa.mode) {
        (Ok((next_header, payload)), Mode::Tunnel) => inner_length(next_header, &text[..payload])
            .and_then(|length| {
                let cut = pool.trim_front(packet, prefix) && pool.truncate(packet, length);
                cut.then_some(()).ok_or(DropReason::Malformed)
            }),
        (Ok(inside), Mode::Transport) => {
            transport::restore(pool, packet, (front, prefix), inside, encapsulated)
        }
        (Err(reason), _) => Err(reason),
    };
    match unwrapped {
        Ok(()) => Ok(()),
        // Above the high water nothing is marked: what waits there would be left of the window.
        Err(reason) if !sa.cell.may_deliver(number) => Err(reason),
        // Seen already, in the same burst perhaps, comes before what is wrong with it.
        Err(reason) => match sa.window.mark(number) {
            true => Err(reason),
            false => Err(DropReason::Replay),
        },
    }
}

/// Whether a packet that [`number`] refused as a replay is the peer's all the same. Marks nothing;
/// afterwards the packet is of no use any more.
pub(crate) fn is_authentic(esp: &mut [u8], sa: &InboundSa) -> bool {
    let Ok(number) = infer(esp, sa.key.suite(), &sa.window, sa.esn) else {
        return false;
    };
    sa.key.open_packet(esp, high(number, sa.esn))
}

/// Whether a packet is the peer's although it lies more than a window below the floor of a takeover,
/// where Appendix A2.2 of RFC 4303 no longer looks for its number. Tries it on a copy.
#[cold]
pub(crate) fn is_authentic_below(esp: &[u8], sa: &InboundSa) -> bool {
    let [_, _, _, _, n0, n1, n2, n3, ..] = *esp else {
        return false;
    };
    let low = u32::from_be_bytes([n0, n1, n2, n3]);
    let mut copy = [0; FRAME_SIZE];
    match (
        sa.window.infer_below(low, sa.esn),
        copy.get_mut(..esp.len()),
    ) {
        (Some(number), Some(copy)) => {
            copy.copy_from_slice(esp);
            let authentic = sa.key.open_packet(copy, high(number, sa.esn));
            // What it says is for nobody here.
            copy.zeroize();
            authentic
        }
        _ => false,
    }
}

/// A whole ESP packet around `payload`, as a vector: for the control thread's sync channel.
pub fn seal_datagram(
    key: &EspKey,
    spi: Spi,
    number: SequenceNumber,
    esn: bool,
    next_header: u8,
    payload: &[u8],
) -> Result<Vec<u8>, DropReason> {
    let (suite, start) = (key.suite(), prefix(key.suite()));
    let padding = padding(suite, payload.len());
    let behind = padding + TRAILER + suite.icv_length();
    let mut esp = vec![0; start + payload.len() + behind];
    let (front, rest) = esp.split_at_mut(start + payload.len());
    front[start..].copy_from_slice(payload);
    write_trailer(rest, padding, next_header);
    write_header(key, &mut esp, spi, number, esn)?;
    match key.seal_packet(&mut esp, high(number, esn)) {
        true => Ok(esp),
        false => Err(DropReason::TooBig),
    }
}

/// Verifies and decrypts an ESP packet in place and marks its number. Returns the next header and
/// where in the packet the payload lies.
pub fn open_datagram(
    key: &EspKey,
    esn: bool,
    window: &mut AntiReplay,
    esp: &mut [u8],
) -> Result<(u8, Range<usize>), DropReason> {
    let (suite, start) = (key.suite(), prefix(key.suite()));
    let number = number(esp, suite, window, esn)?;
    if !key.open_packet(esp, high(number, esn)) {
        return Err(DropReason::Integrity);
    }
    window.mark(number);
    let (next_header, payload) = strip_trailer(text(esp, suite))?;
    Ok((next_header, start..start + payload))
}

/// Fills in header and IV.
#[inline]
fn write_header(
    key: &EspKey,
    esp: &mut [u8],
    spi: Spi,
    number: SequenceNumber,
    esn: bool,
) -> Result<(), DropReason> {
    // RFC 4303 section 3.3.3: "the sender MUST NOT send a packet on an SA if doing so would cause
    // the Sequence Number to cycle".
    if !esn && number.high() != 0 {
        return Err(DropReason::SequenceOverflow);
    }
    let (header, rest) = esp
        .split_first_chunk_mut::<HEADER>()
        .ok_or(DropReason::TooBig)?;
    let iv = rest
        .get_mut(..key.suite().iv_length())
        .ok_or(DropReason::TooBig)?;
    header[..4].copy_from_slice(&spi.0.to_be_bytes());
    header[4..].copy_from_slice(&number.low().to_be_bytes());
    key.write_iv(number, iv);
    Ok(())
}

/// The full number of a packet that is long enough to be ESP.
#[inline]
fn infer(
    esp: &[u8],
    suite: EspSuite,
    window: &AntiReplay,
    esn: bool,
) -> Result<SequenceNumber, DropReason> {
    let least = prefix(suite) + suite.alignment() + suite.icv_length();
    match esp {
        [_, _, _, _, n0, n1, n2, n3, ..] if esp.len() >= least => {
            Ok(window.infer(u32::from_be_bytes([*n0, *n1, *n2, *n3]), esn))
        }
        _ => Err(DropReason::Runt),
    }
}

/// The half of the number that only the ICV knows, with ESN (RFC 4303 section 2.2.1).
#[inline]
pub(crate) fn high(number: SequenceNumber, esn: bool) -> Option<u32> {
    esn.then(|| number.high())
}

/// Payload, padding and trailer of an ESP packet.
#[inline]
pub(crate) fn text(esp: &[u8], suite: EspSuite) -> &[u8] {
    let end = esp.len().saturating_sub(suite.icv_length());
    esp.get(prefix(suite)..end).unwrap_or_default()
}

/// Next header of a packet that begins with an IP header, and what the outer one takes from it.
#[inline]
fn tunnel_front(inner: &[u8]) -> Result<(u8, Front), DropReason> {
    let (next_header, tos, dont_fragment) = match *inner {
        [first, tos, _, _, _, _, flags, ..] if first >> 4 == 4 => {
            (NEXT_HEADER_IPV4, tos, flags & 0x40 != 0)
        }
        [first, second, ..] if first >> 4 == 6 => {
            (NEXT_HEADER_IPV6, first << 4 | second >> 4, true)
        }
        // A dummy packet (RFC 4303 section 2.6).
        [] => (NEXT_HEADER_NONE, 0, true),
        _ => return Err(DropReason::Malformed),
    };
    let front = Front {
        tos,
        dont_fragment,
        kept: 0,
        named_at: 0,
    };
    Ok((next_header, front))
}

/// The same in transport mode, where the packet keeps its own header.
fn transport_front(packet: &[u8]) -> Result<(u8, Front), DropReason> {
    let place = transport::place(packet)?;
    let front = Front {
        tos: 0,
        dont_fragment: false,
        kept: place.kept,
        named_at: place.named_at,
    };
    Ok((place.next_header, front))
}

/// Padding 1, 2, 3 and so on, its length, and the next header (RFC 4303 sections 2.4 to 2.6).
#[inline]
fn write_trailer(tail: &mut [u8], padding: usize, next_header: u8) {
    let values = (1..=padding as u8).chain([padding as u8, next_header]);
    for (octet, value) in tail.iter_mut().zip(values) {
        *octet = value;
    }
}

/// Next header, and octets of payload in front of the padding.
#[inline]
pub(crate) fn strip_trailer(text: &[u8]) -> Result<(u8, usize), DropReason> {
    let [body @ .., pad_length, next_header] = text else {
        return Err(DropReason::BadPadding);
    };
    let payload = body
        .len()
        .checked_sub(usize::from(*pad_length))
        .ok_or(DropReason::BadPadding)?;
    // RFC 4303 section 2.4: "the receiver SHOULD inspect the padding".
    let mut padding = body[payload..].iter().zip(1..=u8::MAX);
    match padding.all(|(octet, value)| *octet == value) {
        true => Ok((*next_header, payload)),
        false => Err(DropReason::BadPadding),
    }
}

/// The inner packet's length by its own header. What follows it is TFC padding (RFC 4303 section
/// 2.7).
#[inline]
fn inner_length(next_header: u8, payload: &[u8]) -> Result<usize, DropReason> {
    let (minimum, length) = match (next_header, payload) {
        (NEXT_HEADER_NONE, _) => return Err(DropReason::Dummy),
        (NEXT_HEADER_IPV4, [0x45..=0x4f, _, high, low, ..]) => (
            usize::from(payload[0] & 0x0f) * 4,
            usize::from(u16::from_be_bytes([*high, *low])),
        ),
        (NEXT_HEADER_IPV6, [0x60..=0x6f, _, _, _, high, low, ..]) => {
            (40, 40 + usize::from(u16::from_be_bytes([*high, *low])))
        }
        (NEXT_HEADER_IPV4 | NEXT_HEADER_IPV6, _) => return Err(DropReason::Malformed),
        _ => return Err(DropReason::BadNextHeader),
    };
    match (minimum..=payload.len()).contains(&length) {
        true => Ok(length),
        false => Err(DropReason::Malformed),
    }
}

#[cfg(all(test, not(loom)))]
mod tests;

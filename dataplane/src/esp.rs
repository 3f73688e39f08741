//! ESP with AES-GCM (RFC 4303, RFC 4106): tunnel mode for packets, slices for the sync channel.
//!
//! ```text
//!  SPI 4 | sequence number 4 | IV 8 | payload, padding, pad length 1, next header 1 | ICV 16
//!  ------ authenticated ----- nonce  ------------ encrypted and authenticated -------
//! ```
//!
//! The IV that we send is the 64-bit sequence number (S2), so that a unique number is a unique
//! nonce. What a peer sends as IV is taken as it is.

use std::ops::Range;

use hitless_sa::{ICV_LENGTH, IV_LENGTH, SequenceNumber, Spi};

use crate::aead::EspKey;
use crate::pool::{Packet, Pool};
use crate::replay::ReplayWindow;
use crate::sad::{InboundSa, OutboundSa};
use crate::verdict::DropReason;

/// Octets of SPI and sequence number.
const HEADER: usize = 8;
/// Octets in front of the payload.
const PREFIX: usize = HEADER + IV_LENGTH;
/// Octets of pad length and next header.
const TRAILER: usize = 2;
/// Payload, padding and trailer fill a multiple of this (RFC 4303 section 2.4).
const ALIGNMENT: usize = 4;

const NEXT_HEADER_IPV4: u8 = 4;
const NEXT_HEADER_IPV6: u8 = 41;
const NEXT_HEADER_NONE: u8 = 59;

/// Octets of padding for a payload: the fewest that align the trailer.
#[inline]
const fn padding(payload: usize) -> usize {
    (payload + TRAILER).wrapping_neg() % ALIGNMENT
}

/// The largest payload whose ESP packet fits into `octets`.
pub(crate) const fn largest_payload(octets: usize) -> usize {
    let text = octets.saturating_sub(PREFIX + ICV_LENGTH) / ALIGNMENT * ALIGNMENT;
    text.saturating_sub(TRAILER)
}

/// The SPI of an ESP packet, if it is long enough to have one.
#[inline]
pub fn spi(esp: &[u8]) -> Option<Spi> {
    esp.first_chunk()
        .map(|octets| Spi(u32::from_be_bytes(*octets)))
}

/// Puts an inner IP packet into an outer one, with a number that was drawn for it.
///
/// On entry the packet is the inner IP packet, on exit the outer one. After an error its content is
/// unspecified but never leaves: it goes back to the pool.
pub fn encapsulate(
    pool: &mut Pool,
    packet: &mut Packet,
    sa: &OutboundSa,
    number: SequenceNumber,
) -> Result<(), DropReason> {
    // 1. What the packet is, and the octet of DSCP and ECN, which the outer header repeats
    //    (RFC 4301 section 5.1.2, RFC 6040 section 4.1 normal mode).
    let (next_header, tos) = classify(pool.bytes(packet))?;
    // 2. Room for the outer headers in front, and for padding, trailer and ICV behind.
    let payload = packet.len();
    let padding = padding(payload);
    let prefix = sa.outer.len() + PREFIX;
    let grown = pool.append(packet, padding + TRAILER + ICV_LENGTH) && pool.prepend(packet, prefix);
    let outer = pool.bytes_mut(packet);
    let (true, Some(esp)) = (grown, outer.get_mut(sa.outer.len()..)) else {
        return Err(DropReason::TooBig);
    };
    // 3. Trailer, ESP header, IV, encryption, ICV.
    write_trailer(&mut esp[PREFIX + payload..], padding, next_header);
    seal(&sa.key, sa.spi, number, sa.esn, esp)?;
    // 4. Outer headers.
    if !sa.outer.write(outer, tos, number.0 as u16) {
        return Err(DropReason::TooBig);
    }
    sa.outer.finish(outer);
    Ok(())
}

/// Takes the inner IP packet out of ESP.
///
/// On entry the packet starts at the ESP header, on exit it is the authentic inner packet. Its number
/// is not marked yet: [`InboundSa::admit`] does that once the high water allows the packet. A packet
/// that verified but that is refused here for its content is marked, so that a copy of it costs no
/// decryption; unverified ones change nothing.
pub fn decapsulate(
    pool: &mut Pool,
    packet: &mut Packet,
    sa: &mut InboundSa,
) -> Result<SequenceNumber, DropReason> {
    // 1. Number, replay check, ICV, decryption (RFC 4303 section 3.4).
    let (number, text) = open(&sa.key, sa.esn, &sa.window, pool.bytes_mut(packet))?;
    sa.authenticated = sa.authenticated.max(number);
    // 2. Trailer, and the inner packet's own length, which strips TFC padding.
    let inner = strip_trailer(text)
        .and_then(|(next_header, payload)| inner_length(next_header, &text[..payload]));
    match inner {
        Ok(length) => {
            let cut = pool.trim_front(packet, PREFIX) && pool.truncate(packet, length);
            cut.then_some(number).ok_or(DropReason::Malformed)
        }
        Err(reason) => {
            sa.window.mark(number);
            Err(reason)
        }
    }
}

/// Whether a packet that [`decapsulate`] refused as a replay is the peer's all the same. Marks
/// nothing; afterwards the packet is of no use any more.
pub(crate) fn is_authentic(pool: &mut Pool, packet: &mut Packet, sa: &InboundSa) -> bool {
    let Ok(sealed) = Sealed::parse(pool.bytes_mut(packet)) else {
        return false;
    };
    let number = sa.window.infer(sealed.low, sa.esn);
    sealed.open(&sa.key, number, sa.esn).is_ok()
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
    let padding = padding(payload.len());
    let mut esp = vec![0; PREFIX + payload.len() + padding + TRAILER + ICV_LENGTH];
    let (front, rest) = esp.split_at_mut(PREFIX + payload.len());
    front[PREFIX..].copy_from_slice(payload);
    write_trailer(rest, padding, next_header);
    seal(key, spi, number, esn, &mut esp)?;
    Ok(esp)
}

/// Verifies and decrypts an ESP packet in place and marks its number. Returns the next header and
/// where in the packet the payload lies.
pub fn open_datagram(
    key: &EspKey,
    esn: bool,
    window: &mut ReplayWindow,
    esp: &mut [u8],
) -> Result<(u8, Range<usize>), DropReason> {
    let (number, text) = open(key, esn, window, esp)?;
    window.mark(number);
    let (next_header, payload) = strip_trailer(text)?;
    Ok((next_header, PREFIX..PREFIX + payload))
}

/// Fills in header and IV of an ESP packet whose payload and trailer are in place, encrypts, and
/// writes the ICV.
#[inline]
fn seal(
    key: &EspKey,
    spi: Spi,
    number: SequenceNumber,
    esn: bool,
    esp: &mut [u8],
) -> Result<(), DropReason> {
    // RFC 4303 section 3.3.3: "the sender MUST NOT send a packet on an SA if doing so would cause
    // the Sequence Number to cycle".
    if !esn && number.high() != 0 {
        return Err(DropReason::SequenceOverflow);
    }
    let (header, rest) = esp
        .split_first_chunk_mut::<HEADER>()
        .ok_or(DropReason::TooBig)?;
    let (iv, rest) = rest
        .split_first_chunk_mut::<IV_LENGTH>()
        .ok_or(DropReason::TooBig)?;
    let (text, icv) = rest
        .split_last_chunk_mut::<ICV_LENGTH>()
        .ok_or(DropReason::TooBig)?;
    header[..4].copy_from_slice(&spi.0.to_be_bytes());
    header[4..].copy_from_slice(&number.low().to_be_bytes());
    *iv = number.0.to_be_bytes();
    let aad = Aad::new(spi, number, esn);
    *icv = key.seal(*iv, aad.octets(), text);
    Ok(())
}

/// Checks the number, verifies and decrypts. Returns the full number and payload with trailer.
#[inline]
fn open<'a>(
    key: &EspKey,
    esn: bool,
    window: &ReplayWindow,
    esp: &'a mut [u8],
) -> Result<(SequenceNumber, &'a mut [u8]), DropReason> {
    let sealed = Sealed::parse(esp)?;
    let number = window.infer(sealed.low, esn);
    // RFC 4303 section 3.4.3: the check comes before decryption, the window moves after it.
    window.check(number).map_err(|_| DropReason::Replay)?;
    let text = sealed.open(key, number, esn)?;
    Ok((number, text))
}

/// The parts of an ESP packet that came.
struct Sealed<'a> {
    spi: Spi,
    /// The low half of its number.
    low: u32,
    iv: [u8; IV_LENGTH],
    text: &'a mut [u8],
    icv: &'a [u8; ICV_LENGTH],
}

impl<'a> Sealed<'a> {
    #[inline]
    fn parse(esp: &'a mut [u8]) -> Result<Sealed<'a>, DropReason> {
        let (header, rest) = esp
            .split_first_chunk_mut::<HEADER>()
            .ok_or(DropReason::Runt)?;
        let (iv, rest) = rest
            .split_first_chunk_mut::<IV_LENGTH>()
            .ok_or(DropReason::Runt)?;
        let (text, icv) = rest
            .split_last_chunk_mut::<ICV_LENGTH>()
            .ok_or(DropReason::Runt)?;
        if text.len() < ALIGNMENT {
            return Err(DropReason::Runt);
        }
        let [s0, s1, s2, s3, n0, n1, n2, n3] = *header;
        Ok(Sealed {
            spi: Spi(u32::from_be_bytes([s0, s1, s2, s3])),
            low: u32::from_be_bytes([n0, n1, n2, n3]),
            iv: *iv,
            text,
            icv,
        })
    }

    /// Verifies and decrypts, whatever a window says of the number.
    #[inline]
    fn open(
        self,
        key: &EspKey,
        number: SequenceNumber,
        esn: bool,
    ) -> Result<&'a mut [u8], DropReason> {
        let aad = Aad::new(self.spi, number, esn);
        match key.open(self.iv, aad.octets(), self.text, self.icv) {
            true => Ok(self.text),
            false => Err(DropReason::Integrity),
        }
    }
}

/// SPI and sequence number as the ICV covers them (RFC 4106 section 5).
struct Aad {
    octets: [u8; 12],
    length: usize,
}

impl Aad {
    #[inline]
    fn new(spi: Spi, number: SequenceNumber, esn: bool) -> Aad {
        let mut octets = [0; 12];
        octets[..4].copy_from_slice(&spi.0.to_be_bytes());
        let length = match esn {
            true => {
                octets[4..].copy_from_slice(&number.0.to_be_bytes());
                12
            }
            false => {
                octets[4..8].copy_from_slice(&number.low().to_be_bytes());
                8
            }
        };
        Aad { octets, length }
    }

    #[inline]
    fn octets(&self) -> &[u8] {
        &self.octets[..self.length]
    }
}

/// Next header, and DSCP with ECN, of a packet that begins with an IP header.
#[inline]
fn classify(inner: &[u8]) -> Result<(u8, u8), DropReason> {
    match *inner {
        [first, tos, ..] if first >> 4 == 4 => Ok((NEXT_HEADER_IPV4, tos)),
        [first, second, ..] if first >> 4 == 6 => Ok((NEXT_HEADER_IPV6, first << 4 | second >> 4)),
        _ => Err(DropReason::Malformed),
    }
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
fn strip_trailer(text: &[u8]) -> Result<(u8, usize), DropReason> {
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

//! What the lane has to know of a sending SA, in two cache lines: all headers in front of its packets,
//! ready but for what differs from packet to packet.

use std::sync::Arc;

use hitless_sa::{EspSuite, Instant, Mode, SequenceNumber, TfcPadding};

use super::egress::{Egress, v4_key, v6_key};
use crate::cell::Cell;
use crate::counters::SaCounters;
use crate::pool::FRAME_SIZE;
use crate::sad::OutboundSa;
use crate::wire::ipv6::decrement_hop_limit;
use crate::wire::{ethernet, ipv4, ipv6, udp};

/// Octets of SPI, number and IV.
pub(super) const ESP: usize = 16;
/// Octets of the ICV.
const ICV: usize = 16;
/// Octets in front of the inner packet, by shape.
const V4: usize = ethernet::HEADER + ipv4::HEADER + ESP;
const V4_UDP: usize = V4 + udp::HEADER;
const V6: usize = ethernet::HEADER + ipv6::HEADER + ESP;
/// Octets of number and IV, which differ from packet to packet.
const NUMBER: usize = 12;
/// The most octets in front of them.
const LONGEST: usize = V6 - NUMBER;
/// The most octets behind the inner packet that are encrypted with it.
pub(super) const TRAILER: usize = 3 + 2;
/// Octets behind the inner packet at most: padding, trailer, ICV. As many at least are written.
pub(super) const BEHIND: usize = TRAILER + ICV;
/// Octets that must be free in front of the inner packet.
pub(super) const IN_FRONT: usize = V6;

const NEXT_HEADER_IPV4: u8 = 4;
const NEXT_HEADER_IPV6: u8 = 41;
const DF: u32 = 0x4000;

/// What the headers are.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum Shape {
    #[default]
    V4,
    V4Udp,
    V6,
}

/// What the lane needs of an SA itself, without looking for it. Gone before the SA is: the control thread
/// wipes the key.
pub(super) struct Hold {
    pub(super) cell: Arc<Cell>,
    pub(super) counters: Arc<SaCounters>,
    /// Of a kernel for bursts.
    pub(super) key: Option<Arc<hitless_gcm::Key>>,
}

/// Of one slot.
#[repr(align(64))]
pub(super) struct Record {
    /// Ethernet, outer IP, UDP, SPI.
    headers: [u8; LONGEST],
    /// Of the template's IPv4 header, as 16-bit words.
    sum: u32,
    /// Changes with the SA.
    pub(super) stamp: u32,
    /// What the egress was made from; 0 if there is none.
    pub(super) state: u64,
    pub(super) until: Instant,
    /// The greatest inner packet that fits the link.
    fits: u16,
    port: u16,
    /// Where among a burst's SAs this one may be.
    pub(super) run: u8,
    /// Bits of the inner traffic class that the outer one repeats, and the others.
    repeated: u8,
    fixed: u8,
    copy_df: bool,
    shape: Shape,
    pub(super) esn: bool,
    pub(super) aes128: bool,
    /// Whether somebody wants to know when a packet was last sent.
    pub(super) keeps_alive: bool,
    pub(super) hold: Option<Hold>,
}

/// Two cache lines.
const _: () = assert!(size_of::<Record>() == 128);

impl Default for Record {
    fn default() -> Record {
        Record {
            headers: [0; LONGEST],
            sum: 0,
            stamp: 0,
            state: 0,
            until: Instant::default(),
            fits: 0,
            port: 0,
            run: 0,
            repeated: 0,
            fixed: 0,
            copy_df: false,
            shape: Shape::V4,
            esn: false,
            aes128: false,
            keeps_alive: false,
            hold: None,
        }
    }
}

/// Whether the lane has ever to do with an SA: in tunnel mode, with the layout of RFC 4106, and no more
/// to be done for each packet.
pub(super) fn suits(sa: &OutboundSa) -> bool {
    let suite: EspSuite = sa.key.suite();
    let layout = (suite.iv_length(), suite.alignment(), suite.icv_length()) == (8, 4, 16);
    // Over IPv6 the UDP checksum covers the whole packet.
    let plain_udp = sa.encapsulation.is_none() || sa.remote.is_ipv4();
    layout && plain_udp && sa.mode == Mode::Tunnel && sa.options.padding == TfcPadding::None
}

/// How packets of an SA leave.
#[derive(Clone, Copy)]
pub(super) struct Way {
    /// The greatest inner packet that fits the link.
    pub(super) fits: u16,
    pub(super) port: u16,
}

/// Where what leaves has come to lie.
pub(super) struct Dressed {
    pub(super) start: usize,
    pub(super) length: usize,
    /// Where ESP begins in the frame of the pool.
    pub(super) esp: usize,
}

impl Record {
    /// Writes down what packets of an SA need that leave by this egress. False, and nothing of it, if
    /// the lane has no shape for them.
    pub(super) fn fill(
        &mut self,
        sa: &OutboundSa,
        egress: &Egress,
        (state, until): (u64, Instant),
    ) -> bool {
        self.state = 0;
        let outer = sa.outer.template();
        self.shape = match outer.octets.len() + ethernet::HEADER + ESP {
            V4 => Shape::V4,
            V4_UDP => Shape::V4Udp,
            V6 => Shape::V6,
            _ => return false,
        };
        let parts = egress.header.iter().chain(outer.octets);
        let all = parts.copied().chain(sa.spi.0.to_be_bytes());
        for (octet, value) in self.headers.iter_mut().zip(all) {
            *octet = value;
        }
        (self.sum, self.repeated, self.fixed) = (outer.sum, outer.repeated, outer.fixed);
        self.copy_df = outer.copy_df;
        (self.esn, self.keeps_alive) = (sa.esn, sa.options.keepalive.is_some());
        self.aes128 = sa.key.is_aes128();
        self.hold = Some(Hold {
            cell: Arc::clone(&sa.cell),
            counters: Arc::clone(&sa.counters),
            key: sa.key.kernel().cloned(),
        });
        self.port = egress.port;
        self.fits = sa.inner_mtu(usize::from(egress.mtu)) as u16;
        (self.state, self.until) = (state, until);
        true
    }

    /// How packets leave, as long as the egress holds.
    #[inline]
    pub(super) fn way(&self) -> Way {
        Way {
            fits: self.fits,
            port: self.port,
        }
    }

    /// The destination of the outer header, as egresses are known by. None of one that is not filled.
    pub(super) fn remote(&self) -> Option<u128> {
        let v6 = self.shape == Shape::V6;
        let header = if v6 { ipv6::HEADER } else { ipv4::HEADER };
        let ip = self.headers.get(..ethernet::HEADER + header)?;
        match v6 {
            false => Some(v4_key(*ip.last_chunk()?)),
            true => v6_key(*ip.last_chunk()?),
        }
        .filter(|_| self.hold.is_some())
    }

    /// Octets in front of the inner packet.
    #[inline]
    fn front(&self) -> usize {
        match self.shape {
            Shape::V4 => V4,
            Shape::V4Udp => V4_UDP,
            Shape::V6 => V6,
        }
    }

    /// Makes an inner packet of so many octets, which begins there in its frame, ESP with all headers:
    /// ready but for encryption and ICV. Nothing if there is no room or the hops are used up.
    #[inline(always)]
    pub(super) fn dress(
        &self,
        frame: &mut [u8; FRAME_SIZE],
        (at, length): (usize, usize),
        number: SequenceNumber,
        identification: u16,
    ) -> Option<Dressed> {
        let (before, inner) = frame.split_at_mut_checked(at)?;
        // 1. The inner packet: one hop less (RFC 4301 section 5.1.2.1), then the trailer.
        let head: &mut [u8; ipv4::HEADER] = inner.first_chunk_mut()?;
        let (lower, next_header, tos, df) = if head[0] >> 4 == 4 {
            let (tos, df) = (head[1], head[6] & 0x40 != 0);
            (ipv4::decrement(head), NEXT_HEADER_IPV4, tos, df)
        } else {
            let tos = head[0] << 4 | head[1] >> 4;
            (decrement_hop_limit(head), NEXT_HEADER_IPV6, tos, true)
        };
        if !lower {
            return None;
        }
        let padding = (length + 2).wrapping_neg() % 4;
        let behind = padding + 2 + ICV;
        let tail: &mut [u8; 8] = inner.get_mut(length..length + behind)?.first_chunk_mut()?;
        *tail = trailer(padding, next_header).to_le_bytes();
        // 2. The headers.
        let esp = length + behind + ESP;
        let tos = tos & self.repeated | self.fixed;
        let df = self.copy_df && df;
        let varying = Varying {
            esp,
            tos,
            df,
            identification,
        };
        match self.shape {
            Shape::V4 => {
                self.head::<V4, { ipv4::HEADER }>(before.last_chunk_mut()?, number, varying)
            }
            Shape::V4Udp => {
                self.head::<V4_UDP, { ipv4::HEADER }>(before.last_chunk_mut()?, number, varying)
            }
            Shape::V6 => {
                self.head::<V6, { ipv6::HEADER }>(before.last_chunk_mut()?, number, varying)
            }
        }
        let front = self.front();
        Some(Dressed {
            start: at - front,
            length: front - ESP + esp,
            esp: at - ESP,
        })
    }

    /// Writes `FRONT` octets of headers, of which `IP` are the IP header.
    #[inline(always)]
    fn head<const FRONT: usize, const IP: usize>(
        &self,
        to: &mut [u8; FRONT],
        number: SequenceNumber,
        varying: Varying,
    ) {
        if let Some(headers) = self.headers.get(..FRONT - NUMBER) {
            to[..FRONT - NUMBER].copy_from_slice(headers);
        }
        let Varying {
            esp,
            tos,
            df,
            identification,
        } = varying;
        const AT: usize = ethernet::HEADER;
        let total = (FRONT - ESP - AT + esp) as u16;
        let payload = total - IP as u16;
        if IP == ipv4::HEADER {
            let flags = if df { DF } else { 0 };
            to[AT + 1] = tos;
            to[AT + 2..AT + 4].copy_from_slice(&total.to_be_bytes());
            to[AT + 4..AT + 6].copy_from_slice(&identification.to_be_bytes());
            to[AT + 6] |= (flags >> 8) as u8;
            let sum =
                self.sum + u32::from(tos) + u32::from(total) + u32::from(identification) + flags;
            to[AT + 10..AT + 12].copy_from_slice(&(!fold(sum)).to_be_bytes());
        } else {
            to[AT] |= tos >> 4;
            to[AT + 1] |= tos << 4;
            to[AT + 4..AT + 6].copy_from_slice(&payload.to_be_bytes());
        }
        // The UDP checksum stays zero (RFC 3948 section 2.1).
        if FRONT > AT + IP + ESP {
            to[AT + IP + 4..AT + IP + 6].copy_from_slice(&payload.to_be_bytes());
        }
        to[FRONT - 12..FRONT - 8].copy_from_slice(&number.low().to_be_bytes());
        // The IV is the number (S2).
        to[FRONT - 8..].copy_from_slice(&number.0.to_be_bytes());
    }
}

/// What differs from packet to packet.
struct Varying {
    /// Octets from SPI to ICV.
    esp: usize,
    tos: u8,
    df: bool,
    identification: u16,
}

/// Padding 1, 2, 3, its length, and the next header (RFC 4303 section 2.4), the first octet lowest.
#[inline]
fn trailer(padding: usize, next_header: u8) -> u64 {
    const PADDING: [u64; 4] = [0, 0x01_01, 0x02_02_01, 0x03_03_02_01];
    PADDING[padding % 4] | u64::from(next_header) << (8 * (padding % 4 + 1))
}

#[inline]
fn fold(sum: u32) -> u16 {
    let folded = (sum & 0xffff) + (sum >> 16);
    (folded + (folded >> 16)) as u16
}

//! Which IKE messages were seen, and which requests were answered.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use super::ledger::digest;
use super::report::{Places, TapId};
use super::wire::Ike;

/// Messages kept; more are counted in [`super::Report::ike_not_kept`].
const MESSAGES: usize = 100_000;

/// Where the type of the first payload is (RFC 7296 section 3.1), and that of a fragment with its
/// number and how many there are (RFC 7383 section 2.5).
const NEXT_PAYLOAD: usize = 16;
const SKF: u8 = 53;
const FRAGMENT_NUMBER: usize = 32;

/// Exchange types (RFC 7296 section 3.1).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Exchange {
    IkeSaInit,
    IkeAuth,
    CreateChildSa,
    Informational,
    Other(u8),
}

impl From<u8> for Exchange {
    fn from(number: u8) -> Self {
        match number {
            34 => Self::IkeSaInit,
            35 => Self::IkeAuth,
            36 => Self::CreateChildSa,
            37 => Self::Informational,
            other => Self::Other(other),
        }
    }
}

impl std::fmt::Display for Exchange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::IkeSaInit => f.write_str("IKE_SA_INIT"),
            Self::IkeAuth => f.write_str("IKE_AUTH"),
            Self::CreateChildSa => f.write_str("CREATE_CHILD_SA"),
            Self::Informational => f.write_str("INFORMATIONAL"),
            Self::Other(number) => write!(f, "exchange {number}"),
        }
    }
}

/// One IKE message on the wire. A copy of it at another tap is the same message; a retransmission
/// is another one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IkeEvent {
    pub time: Duration,
    pub tap: TapId,
    /// How often what `source` sent had gone over to another tap before.
    pub tenure: u64,
    pub source: IpAddr,
    pub destination: IpAddr,
    pub initiator_spi: u64,
    pub responder_spi: u64,
    pub exchange: Exchange,
    pub initiator: bool,
    pub response: bool,
    pub message_id: u32,
    /// Of an Encrypted Fragment payload (RFC 7383): its number, and how many there are.
    pub fragment: Option<(u16, u16)>,
    pub length: usize,
    /// Equal for byte-identical messages.
    pub digest: u64,
}

fn fragment(message: &[u8]) -> Option<(u16, u16)> {
    message.get(NEXT_PAYLOAD).filter(|kind| **kind == SKF)?;
    let [a, b, c, d] = *message.get(FRAGMENT_NUMBER..)?.first_chunk()?;
    Some((u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])))
}

impl IkeEvent {
    /// Whether `self` is the response to `request`.
    pub fn answers(&self, request: &IkeEvent) -> bool {
        self.response
            && !request.response
            && self.exchange == request.exchange
            && self.message_id == request.message_id
            && self.initiator != request.initiator
            && self.initiator_spi == request.initiator_spi
            && (request.responder_spi == 0 || self.responder_spi == request.responder_spi)
            && self.source == request.destination
            && self.time >= request.time
    }
}

/// The record of all IKE messages.
#[derive(Clone, Debug, Default)]
pub(super) struct Journal {
    pub(super) places: Places,
    copies: BTreeMap<(IpAddr, u64), Copies>,
    pub(super) events: Vec<IkeEvent>,
    pub(super) not_kept: u64,
}

#[derive(Clone, Debug, Default)]
struct Copies {
    sent: u32,
    seen: Vec<(TapId, u32)>,
}

impl Journal {
    pub(super) fn enter(&mut self, tap: TapId, tenure: u64, time: Duration, ike: &Ike<'_>) {
        let digest = digest(ike.message);
        let copies = self.copies.entry((ike.source, digest)).or_default();
        let place = match self.places {
            Places::EachTap => tap,
            Places::OneForAll => TapId(0),
        };
        let here = match copies.seen.iter_mut().find(|(seen, _)| *seen == place) {
            Some((_, times)) => {
                *times += 1;
                *times
            }
            None => {
                copies.seen.push((place, 1));
                1
            }
        };
        if here <= copies.sent {
            return;
        }
        copies.sent = here;
        if self.events.len() == MESSAGES {
            self.not_kept += 1;
            return;
        }
        self.events.push(IkeEvent {
            time,
            tap,
            tenure,
            source: ike.source,
            destination: ike.destination,
            initiator_spi: ike.initiator_spi,
            responder_spi: ike.responder_spi,
            exchange: ike.exchange.into(),
            initiator: ike.initiator,
            response: ike.response,
            message_id: ike.message_id,
            fragment: fragment(ike.message),
            length: ike.message.len(),
            digest,
        });
    }
}

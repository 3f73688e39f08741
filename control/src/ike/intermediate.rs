//! IKE_INTERMEDIATE (RFC 9242), with additional key exchanges in it (RFC 9370 section 2.2.2).
//!
//! ```text
//!  IKE_SA_INIT        SA (ADDKE transforms), N(INTERMEDIATE_EXCHANGE_SUPPORTED)   Message ID 0
//!  IKE_INTERMEDIATE   SK { KE }  once for each additional key exchange            1 to n
//!  IKE_AUTH           AUTH also covers IntAuth                                    n + 1
//! ```
//!
//! Each exchange is protected by the keys that came out of the one before. Like everything before
//! IKE_AUTH is complete, this is not replicated: the peer starts again.

use std::collections::VecDeque;

use hitless_sa::MessageId;

use super::crypto::kex::KeyPair;
use super::crypto::prf::prf;
use super::keys::{IkeKeys, Inputs, Side};
use super::message::{HEADER_LENGTH, Header, PAYLOAD_HEADER_LENGTH, PayloadKind, emit_header};
use super::output::Event;
use super::proposal::{Additional, KeyExchangeMethod};
use crate::keylog::KeyLines;

/// How far the exchanges between IKE_SA_INIT and IKE_AUTH have come.
pub(super) struct Intermediate {
    remaining: VecDeque<KeyExchangeMethod>,
    done: u32,
    /// IntAuth_i and IntAuth_r of the exchanges so far.
    initiator: Vec<u8>,
    responder: Vec<u8>,
    /// As initiator: our half of the exchange that is outstanding.
    pub key: Option<KeyPair>,
    /// For Wireshark, if the user asked for them: the keys of each exchange that is over.
    lines: Vec<KeyLines>,
}

impl Intermediate {
    pub fn new(additional: Additional) -> Intermediate {
        Intermediate {
            remaining: additional.methods().collect(),
            done: 0,
            initiator: Vec::new(),
            responder: Vec::new(),
            key: None,
            lines: Vec::new(),
        }
    }

    /// The key exchange that is due next; none before IKE_AUTH.
    pub fn due(&self) -> Option<KeyExchangeMethod> {
        self.remaining.front().copied()
    }

    /// Message ID of the exchange that is due next.
    pub fn message_id(&self) -> MessageId {
        MessageId(1 + self.done)
    }

    /// The exchange is over, which these keys protected.
    pub fn advance(&mut self, log: bool, keys: &IkeKeys, inputs: &Inputs<'_>) {
        if log {
            let (initiator, responder) = (inputs.initiator_spi, inputs.responder_spi);
            let exchange = u8::try_from(self.message_id().0).unwrap_or(u8::MAX);
            let lines = KeyLines::of_ike(initiator, responder, keys);
            self.lines.push(lines.of_intermediate(exchange));
        }
        self.remaining.pop_front();
        self.done += 1;
        self.key = None;
    }

    /// A message of an exchange, with the keys that protect it (RFC 9242 section 3.3.2):
    /// `IntAuth_iN = prf(SK_piN, IntAuth_i(N-1) | IntAuth_iNA | IntAuth_iNP)`, and alike for the
    /// responder. A is the message up to the content of its SK payload, as if it were sent without
    /// fragments, and with lengths as if IV, padding and ICV were not there; P is the content.
    pub fn absorb(
        &mut self,
        keys: &IkeKeys,
        header: &Header,
        (first, content): (PayloadKind, &[u8]),
    ) {
        let body = PAYLOAD_HEADER_LENGTH + content.len();
        let mut message = Vec::with_capacity(HEADER_LENGTH + PAYLOAD_HEADER_LENGTH);
        emit_header(&mut message, header, PayloadKind::SK, HEADER_LENGTH + body);
        message.extend([first.0, 0]);
        message.extend(u16::try_from(body).unwrap_or(u16::MAX).to_be_bytes());
        let (side, chain) = if header.response {
            (Side::Responder, &mut self.responder)
        } else {
            (Side::Initiator, &mut self.initiator)
        };
        let kind = keys.proposal().prf;
        *chain = prf(
            kind,
            keys.sk_p(side),
            &[chain.as_slice(), &message, content],
        )
        .to_vec();
    }

    /// The keys of all exchanges, for the key log: the peer is authenticated.
    pub fn log(&mut self) -> impl Iterator<Item = Event> {
        std::mem::take(&mut self.lines).into_iter().map(Event::Keys)
    }

    /// IntAuth, which AUTH covers: `IntAuth_iN | IntAuth_rN | IKE_AUTH_MID`; nothing if there was
    /// no exchange.
    pub fn int_auth(&self) -> Vec<u8> {
        if self.done == 0 {
            return Vec::new();
        }
        let message_id = self.message_id().0.to_be_bytes();
        [self.initiator.as_slice(), &self.responder, &message_id].concat()
    }
}

//! The payloads of a message, by what they are for.

use hitless_sa::{MessageId, Spi, TrafficSelector};

use super::message::{
    Configuration, Delete, IdBody, Notify, NotifyKind, Payload, PayloadKind, Proposal, Protocol,
};

/// Payloads of one message. Of those that may occur once the first counts.
#[derive(Default)]
pub(super) struct Contents<'a> {
    /// All of them, as they came.
    pub payloads: &'a [Payload],
    pub proposals: Option<&'a [Proposal]>,
    pub key_exchange: Option<(u16, &'a [u8])>,
    pub nonce: Option<&'a [u8]>,
    pub initiator_id: Option<&'a IdBody>,
    pub responder_id: Option<&'a IdBody>,
    pub auth: Option<(u8, &'a [u8])>,
    pub ts_initiator: Option<&'a [TrafficSelector]>,
    pub ts_responder: Option<&'a [TrafficSelector]>,
    pub configuration: Option<&'a Configuration>,
    pub deletes: Vec<&'a Delete>,
    pub notifies: Vec<&'a Notify>,
    /// Bodies of payloads that the parser leaves as they are: CERT, CERTREQ and others.
    pub raw: Vec<(PayloadKind, &'a [u8])>,
}

impl<'a> Contents<'a> {
    pub fn of(payloads: &'a [Payload]) -> Contents<'a> {
        let mut contents = Contents {
            payloads,
            ..Contents::default()
        };
        for payload in payloads {
            contents.add(payload);
        }
        contents
    }

    fn add(&mut self, payload: &'a Payload) {
        match payload {
            Payload::SecurityAssociation(proposals) => {
                self.proposals.get_or_insert(proposals);
            }
            Payload::KeyExchange { method, data } => {
                self.key_exchange.get_or_insert((*method, data));
            }
            Payload::IdInitiator(id) => {
                self.initiator_id.get_or_insert(id);
            }
            Payload::IdResponder(id) => {
                self.responder_id.get_or_insert(id);
            }
            Payload::Auth { method, data } => {
                self.auth.get_or_insert((*method, data));
            }
            Payload::Nonce(nonce) => {
                self.nonce.get_or_insert(nonce);
            }
            Payload::TsInitiator(selectors) => {
                self.ts_initiator.get_or_insert(selectors);
            }
            Payload::TsResponder(selectors) => {
                self.ts_responder.get_or_insert(selectors);
            }
            Payload::Notify(notify) => self.notifies.push(notify),
            Payload::Delete(delete) => self.deletes.push(delete),
            Payload::Configuration(configuration) => {
                self.configuration.get_or_insert(configuration);
            }
            Payload::Unknown { kind, body, .. } => self.raw.push((*kind, body)),
            Payload::VendorId(_) => {}
        }
    }

    pub fn notify(&self, kind: NotifyKind) -> Option<&'a Notify> {
        self.notifies.iter().find(|n| n.kind == kind).copied()
    }

    /// The bodies of all payloads of a kind that the parser leaves as they are.
    pub fn of_kind(&self, kind: PayloadKind) -> impl Iterator<Item = &'a [u8]> {
        let bodies = self.raw.iter().filter(move |(other, _)| *other == kind);
        bodies.map(|(_, body)| *body)
    }

    pub fn has(&self, kind: NotifyKind) -> bool {
        self.notify(kind).is_some()
    }

    /// The first error notification (RFC 7296 section 3.10.1).
    pub fn error(&self) -> Option<&'a Notify> {
        self.notifies.iter().find(|n| n.kind.is_error()).copied()
    }

    /// Why there is no more in a response: the peer's error, or else this.
    pub fn refusal(&self, otherwise: &str) -> String {
        match self.error() {
            Some(notify) => notify.kind.to_string(),
            None => otherwise.to_owned(),
        }
    }

    /// A CREATE_CHILD_SA request that offers an IKE SA (RFC 7296 section 1.3.2).
    pub fn rekeys_ike(&self) -> bool {
        let first = self.proposals.and_then(|p| p.first());
        first.is_some_and(|p| p.protocol == Protocol::Ike)
    }

    /// The Child SA that the peer replaces, by the peer's inbound SPI (RFC 7296 section 1.3.3).
    pub fn rekeyed_child(&self) -> Option<Spi> {
        self.notify(NotifyKind::REKEY_SA)?.esp_spi()
    }

    /// SET_WINDOW_SIZE (RFC 7296 section 2.3).
    pub fn window_size(&self) -> Option<u32> {
        let data = self.notify(NotifyKind::SET_WINDOW_SIZE)?.data.as_slice();
        data.try_into().ok().map(u32::from_be_bytes)
    }

    /// A cookie of an allowed length (RFC 7296 section 2.6).
    pub fn valid_cookie(&self) -> Option<&'a [u8]> {
        let cookie = self.notify(NotifyKind::COOKIE)?.data.as_slice();
        (1..=64).contains(&cookie.len()).then_some(cookie)
    }

    /// A nonce of an allowed length (RFC 7296 section 3.9).
    pub fn valid_nonce(&self) -> Option<&'a [u8]> {
        self.nonce.filter(|n| (16..=256).contains(&n.len()))
    }
}

/// The group that INVALID_KE_PAYLOAD asks for (RFC 7296 section 1.3).
pub(super) fn wanted_group(notify: &Notify) -> Option<u16> {
    notify
        .data
        .as_slice()
        .try_into()
        .ok()
        .map(u16::from_be_bytes)
}

/// A Message ID inside a notification.
pub(super) fn message_id(octets: &[u8]) -> Option<MessageId> {
    octets
        .try_into()
        .ok()
        .map(|o| MessageId(u32::from_be_bytes(o)))
}

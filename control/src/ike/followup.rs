//! IKE_FOLLOWUP_KE: additional key exchanges after CREATE_CHILD_SA (RFC 9370 section 2.2.4).
//!
//! ```text
//!  CREATE_CHILD_SA   SA, Ni, KEi(0) ...   ->   SA, Nr, KEr(0), N(ADDITIONAL_KEY_EXCHANGE)(link)
//!  IKE_FOLLOWUP_KE   KEi(1), N(link)      ->   KEr(1), N(ADDITIONAL_KEY_EXCHANGE)(link)
//!  IKE_FOLLOWUP_KE   KEi(2), N(link)      ->   KEr(2)           nothing follows: the SA is made
//! ```
//!
//! Until the last of them nothing is installed. Both sides keep the messages of CREATE_CHILD_SA and
//! read them again at the end; all of it is exported, and any member can go on.

use std::collections::VecDeque;
use std::time::Duration;

use hitless_sa::{IkeSpi, Instant, SaId, Spi};
use zeroize::Zeroizing;

use super::contents::Contents;
use super::create::{exchange_keys, key_exchange};
use super::crypto::kex::KeyPair;
use super::established::IkeSa;
use super::message::{
    Exchange, NotifyKind, Payload, PayloadKind, emit_payloads, first_kind, parse_payloads,
};
use super::output::Event;
use super::proposal::{Additional, KeyExchangeMethod};
use super::tasks::Pending;
use super::turn::Turn;
use super::{create, rekey};

/// How long a responder waits for the next exchange. Longer than a request is repeated.
const PATIENCE: Duration = Duration::from_secs(200);

/// Payloads of a message, to be read again later.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Chain {
    pub first: PayloadKind,
    pub octets: Vec<u8>,
}

impl Chain {
    fn of(payloads: &[Payload]) -> Chain {
        Chain {
            first: first_kind(payloads),
            octets: emit_payloads(payloads),
        }
    }

    /// They were read before, so that they can be read now.
    fn payloads(&self) -> Vec<Payload> {
        parse_payloads(self.first, &self.octets).unwrap_or_default()
    }
}

/// As initiator: what follows our CREATE_CHILD_SA, part of the offer.
#[derive(Clone)]
pub(super) struct Followup {
    /// The response of CREATE_CHILD_SA.
    pub response: Chain,
    /// SK(1) | SK(2) | ... so far.
    pub done: Zeroizing<Vec<u8>>,
    /// The methods after the one that is outstanding.
    pub remaining: VecDeque<KeyExchangeMethod>,
    /// Our half of the exchange that is outstanding.
    pub key: KeyPair,
    pub link: Vec<u8>,
}

/// Where an initiator stands after a response.
pub(super) enum Progress {
    /// Another exchange follows.
    Next(Followup),
    /// The payloads of CREATE_CHILD_SA's response, and SK(1) | ... | SK(n).
    Done(Vec<Payload>, Zeroizing<Vec<u8>>),
}

fn link(contents: &Contents<'_>) -> Option<Vec<u8>> {
    let notify = contents.notify(NotifyKind::ADDITIONAL_KEY_EXCHANGE)?;
    Some(notify.data.clone()).filter(|data| !data.is_empty())
}

impl Followup {
    /// After the response of CREATE_CHILD_SA.
    pub fn begin(
        turn: &mut Turn<'_>,
        contents: &Contents<'_>,
        additional: Additional,
    ) -> Result<Followup, &'static str> {
        let link = link(contents).ok_or("answer without ADDITIONAL_KEY_EXCHANGE")?;
        let mut remaining: VecDeque<KeyExchangeMethod> = additional.methods().collect();
        let method = remaining.pop_front().ok_or("no additional key exchange")?;
        let key = turn.key_pair(method).ok_or("no randomness")?;
        Ok(Followup {
            response: Chain::of(contents.payloads),
            done: Zeroizing::new(Vec::new()),
            remaining,
            key,
            link,
        })
    }

    /// After a response of IKE_FOLLOWUP_KE.
    pub fn absorb(
        mut self,
        turn: &mut Turn<'_>,
        contents: &Contents<'_>,
    ) -> Result<Progress, &'static str> {
        let (method, public) = contents.key_exchange.ok_or("answer without key exchange")?;
        if method != self.key.method().number() {
            return Err("answer with another key exchange method");
        }
        let shared = self.key.agree(public).map_err(|_| "invalid public key")?;
        self.done = [self.done.as_slice(), &shared].concat().into();
        let Some(method) = self.remaining.pop_front() else {
            return Ok(Progress::Done(self.response.payloads(), self.done));
        };
        self.link = link(contents).ok_or("answer without ADDITIONAL_KEY_EXCHANGE")?;
        self.key = turn.key_pair(method).ok_or("no randomness")?;
        Ok(Progress::Next(self))
    }

    /// Sends the next IKE_FOLLOWUP_KE for the offer that this is part of.
    pub fn ask(&self, ike: &mut IkeSa, turn: &mut Turn<'_>, pending: Pending) {
        let payloads = [
            key_exchange(&self.key),
            Payload::notify(NotifyKind::ADDITIONAL_KEY_EXCHANGE, &self.link),
        ];
        ike.request(turn, Exchange::IkeFollowupKe, &payloads, pending);
    }
}

/// As responder: an SA that waits for its additional key exchanges.
pub(super) struct HalfMade {
    pub what: What,
    /// The request of CREATE_CHILD_SA, as if it had asked for nothing but what was answered: by another
    /// configuration there would be something else to choose at the end.
    pub request: Chain,
    /// Our nonce.
    pub nonce: Vec<u8>,
    /// SK(0).
    pub shared: Zeroizing<Vec<u8>>,
    /// SK(1) | SK(2) | ... so far.
    pub done: Zeroizing<Vec<u8>>,
    pub remaining: VecDeque<KeyExchangeMethod>,
    pub link: Vec<u8>,
    pub until: Instant,
}

/// What is being made.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum What {
    Child {
        id: SaId,
        spi: Spi,
        replaced: Option<SaId>,
    },
    Ike {
        spi: IkeSpi,
    },
}

/// As responder: keeps what CREATE_CHILD_SA began, with the part of the request that was `answered`, as
/// many as there can be requests at once, and gives up what was kept longest before; gives the
/// notification that tells of it.
pub(super) fn begin(
    ike: &mut IkeSa,
    turn: &mut Turn<'_>,
    answered: &[Payload],
    (what, additional): (What, Additional),
    (nonce, shared): (&[u8], Zeroizing<Vec<u8>>),
) -> Payload {
    let mut link = vec![0; 8];
    turn.entropy.fill(&mut link);
    let notify = Payload::notify(NotifyKind::ADDITIONAL_KEY_EXCHANGE, &link);
    while ike.half_made.len() >= ike.window.own as usize {
        let oldest = ike.half_made.remove(0);
        oldest.release(turn);
    }
    ike.half_made.push(HalfMade {
        what,
        request: Chain::of(answered),
        nonce: nonce.to_vec(),
        shared,
        done: Zeroizing::new(Vec::new()),
        remaining: additional.methods().collect(),
        link,
        until: turn.now + PATIENCE,
    });
    notify
}

impl HalfMade {
    /// Whether this is what the peer was told that it gets. What is allowed no more is refused, so that
    /// the peer asks again and is answered by what holds now.
    pub fn was_answered(&self, answered: &[Payload]) -> bool {
        self.request == Chain::of(answered)
    }

    fn release(self, turn: &mut Turn<'_>) {
        if let What::Child { spi, .. } = self.what {
            turn.ids.release(spi);
        }
    }
}

/// Gives up what waits for additional key exchanges.
pub(super) fn discard(ike: &mut IkeSa, turn: &mut Turn<'_>) {
    for half in ike.half_made.drain(..) {
        half.release(turn);
    }
}

/// Answers IKE_FOLLOWUP_KE.
pub(super) fn answer(
    ike: &mut IkeSa,
    turn: &mut Turn<'_>,
    contents: &Contents<'_>,
) -> Vec<Payload> {
    let asked = link(contents);
    let now = turn.now;
    let known = |half: &HalfMade| Some(&half.link) == asked.as_ref() && half.until > now;
    let known = ike.half_made.iter().position(known);
    let Some(mut half) = known.map(|position| ike.half_made.remove(position)) else {
        // RFC 9370 section 2.2.4: "STATE_NOT_FOUND ... the responder doesn't have the state".
        return vec![Payload::notify(NotifyKind::STATE_NOT_FOUND, &[])];
    };
    let spi = match half.what {
        What::Child { spi, .. } => Some(spi),
        What::Ike { .. } => None,
    };
    let exchanged = match half.remaining.pop_front() {
        Some(method) => exchange_keys(turn, contents, method),
        None => Err(Payload::notify(NotifyKind::INVALID_SYNTAX, &[])),
    };
    let finished = exchanged.and_then(|(payload, shared)| {
        half.done = [half.done.as_slice(), &shared].concat().into();
        if !half.remaining.is_empty() {
            let link = Payload::notify(NotifyKind::ADDITIONAL_KEY_EXCHANGE, &half.link);
            half.until = turn.now + PATIENCE;
            ike.half_made.push(half);
            return Ok(vec![payload, link]);
        }
        let payloads = half.request.payloads();
        let request = Contents::of(&payloads);
        match half.what {
            What::Child { .. } => create::finish(ike, turn, &request, &half)?,
            What::Ike { spi } => rekey::finish(ike, turn, &request, &half, spi)?,
        }
        Ok(vec![payload])
    });
    finished.unwrap_or_else(|refusal| {
        // It ends without a Child SA.
        if let Some(spi) = spi {
            turn.ids.release(spi);
        }
        turn.events.push(Event::NegotiationFailed {
            peer: ike.path.remote,
            reason: "IKE_FOLLOWUP_KE request refused".to_owned(),
        });
        vec![refusal]
    })
}

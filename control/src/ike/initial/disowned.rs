//! INVALID_IKE_SPI in clear, while an IKE SA is half-open. Those are not replicated, so a failover loses
//! them, and an initiator that hears nothing repeats its request for a minute or two in vain.
//!
//! RFC 7296 section 1.5 lets a gateway say in clear that it has no such IKE SA, and anybody can say so:
//! by section 2.21.4 whoever hears it must not answer, must change no SA for it, and should take it as a
//! hint to find out whether the IKE SA lives. For a half-open one its own request does that. So a hint
//! brings the next repetition forward and takes none away: who forges hints must forge one for each of
//! them, and the responder's answer counts as before. Nor is that responder dead when all of them went
//! unanswered: it is asked anew before other addresses of its are.

use std::time::Duration;

use hitless_sa::{Entropy, Instant};

use super::Initiator;
use crate::ike::contents::Contents;
use crate::ike::engine::Engine;
use crate::ike::message::{Exchange, FragmentPlace, Header, NotifyKind, Payload, emit};
use crate::ike::nat::Path;
use crate::ike::output::Output;
use crate::ike::turn::Turn;

/// A repetition is due so many first timeouts after a hint: a responder that is asked again has had the
/// time for an answer.
const PATIENCE: u32 = 2;

/// Whether an exchange is one of a half-open IKE SA.
fn is_initial(exchange: Exchange) -> bool {
    matches!(exchange, Exchange::IkeAuth | Exchange::IkeIntermediate)
}

impl Engine {
    /// Says that a half-open IKE SA is none of ours; true if it did. That is no longer than the request,
    /// and no reason to answer. A leader behind a partition says so of another's too: hence no more than
    /// a hint, and only to addresses of peers, and not often.
    pub(in crate::ike) fn disown(
        &mut self,
        now: Instant,
        path: Path,
        header: &Header,
        place: Option<FragmentPlace>,
    ) -> bool {
        let asks = header.initiator && !header.response && is_initial(header.exchange);
        let whole = place.is_none_or(|place| place.number == 1);
        if !asks || !whole || !self.meant.any(path) || self.may_know(header) {
            return false;
        }
        if !self.hints.may(now, path.remote.ip()) {
            return false;
        }
        self.say_unknown(path, header, None);
        self.dropped(path, "unknown IKE SA, INVALID_IKE_SPI sent");
        true
    }

    /// RFC 7296 section 1.5: a response with the SPIs, the Message ID and the exchange of the request.
    pub(in crate::ike) fn say_unknown(
        &mut self,
        path: Path,
        header: &Header,
        proof: Option<Payload>,
    ) {
        let answer = Header {
            response: true,
            initiator: !header.initiator,
            ..*header
        };
        let unknown = Payload::notify(NotifyKind::INVALID_IKE_SPI, &[]);
        let payloads: Vec<Payload> = std::iter::once(unknown).chain(proof).collect();
        let transmit = path.transmit(emit(&answer, &payloads));
        self.outputs.push_back(Output::Transmit(transmit));
    }

    /// Somebody says so of an IKE SA that we initiate; true if there is one like that.
    pub(in crate::ike) fn disowned(
        &mut self,
        now: Instant,
        entropy: &mut dyn Entropy,
        path: Path,
        header: &Header,
        contents: &Contents<'_>,
    ) -> bool {
        if !contents.has(NotifyKind::INVALID_IKE_SPI) || !header.response {
            return false;
        }
        let Some(mut initiator) = self.initiators.remove(&header.initiator_spi) else {
            return false;
        };
        let turn = Turn::new(now, entropy, &self.settings, &mut self.ids);
        let after = turn.backoff().timeout.saturating_mul(PATIENCE);
        let meant = initiator.is_disowned(now, after, path, header);
        self.goes_on(header.initiator_spi, initiator);
        if meant {
            self.dropped(path, "INVALID_IKE_SPI in clear");
        }
        meant
    }
}

impl Initiator {
    /// Takes the hint, if it answers the request that is outstanding.
    fn is_disowned(&mut self, now: Instant, after: Duration, path: Path, header: &Header) -> bool {
        let asked = self.auth.as_ref().is_some_and(|stage| {
            stage.remote_spi == header.responder_spi && stage.message_id() == header.message_id
        });
        let from_there = path.remote.ip() == self.path.remote.ip() && !header.initiator;
        if !asked || !from_there || !is_initial(header.exchange) {
            return false;
        }
        self.disowned = true;
        self.resend_at = self.resend_at.min(now + after);
        true
    }
}

//! The way of a message through an established IKE SA.

use std::net::SocketAddr;

use hitless_sa::MessageId;

use super::asked::Asked;
use super::contents::Contents;
use super::established::{IkeSa, open};
use super::message::{
    Delete, Exchange, FragmentPlace, Header, MessageError, Notify, NotifyKind, Payload,
    parse_payloads,
};
use super::nat::Path;
use super::output::Event;
use super::tasks::Pending;
use super::turn::Turn;
use super::window::{Repetition, Sequence};
use super::{counter_sync, create, followup, inform, mobike, probe, rekey, takeover};

/// RFC 7296 section 2.21.3: a peer that notices that a request is badly formatted, and answers
/// INVALID_SYNTAX, and the peer that hears so, both delete the IKE SA, without a Delete.
const MALFORMED: &str = "INVALID_SYNTAX";

impl IkeSa {
    /// A message for this IKE SA. Nothing changes before its integrity is verified.
    pub fn receive(&mut self, turn: &mut Turn<'_>, path: Path, header: &Header, datagram: &[u8]) {
        if header.initiator == self.initiator {
            return turn.drop(path.remote, "reflected");
        }
        match open(&self.keys, header, datagram) {
            Ok(opened) => {
                let asked = Asked::new(datagram, 1, &opened.content);
                let payloads = parse_payloads(opened.first, &opened.content);
                self.opened(turn, path, header, (datagram, asked), payloads);
            }
            // What is inside is authentic, and its padding is wrong.
            Err(error) if error.notify().is_some() => {
                let asked = Asked::new(datagram, 1, datagram);
                self.opened(turn, path, header, (datagram, asked), Err(error));
            }
            Err(error) => turn.drop(path.remote, error.reason()),
        }
    }

    /// A part of a message for this IKE SA (RFC 7383).
    pub fn receive_fragment(
        &mut self,
        turn: &mut Turn<'_>,
        path: Path,
        header: &Header,
        place: FragmentPlace,
        datagram: &[u8],
    ) {
        if header.initiator == self.initiator {
            return turn.drop(path.remote, "reflected");
        }
        if !self.fragmenting.negotiated {
            return turn.drop(path.remote, "fragments were not negotiated");
        }
        if let Err(reason) = self.reassembly.wants(header, place) {
            return turn.drop(path.remote, reason);
        }
        let opened = match open(&self.keys, header, datagram) {
            Ok(opened) => opened,
            Err(error) => return turn.drop(path.remote, error.reason()),
        };
        self.pay(turn);
        if let Err(reason) = self.expects(turn, path, header, place, datagram) {
            return turn.drop(path.remote, reason);
        }
        match self
            .reassembly
            .add(turn.now, header, place, datagram, opened)
        {
            Err(reason) => turn.drop(path.remote, reason),
            Ok(None) => {}
            Ok(Some(whole)) => {
                let asked = Asked::new(&whole.head, place.total, &whole.content);
                let payloads = parse_payloads(whole.first, &whole.content);
                self.opened(turn, path, header, (datagram, asked), payloads);
            }
        }
    }

    /// Whether an authentic fragment belongs to a message that is due. One of a request that was
    /// answered makes us answer again, once for each repetition (RFC 7383 section 2.6.1).
    fn expects(
        &mut self,
        turn: &mut Turn<'_>,
        path: Path,
        header: &Header,
        place: FragmentPlace,
        datagram: &[u8],
    ) -> Result<(), &'static str> {
        let id = header.message_id;
        if header.response {
            let due = self.window.outstanding.contains_key(&id);
            return due.then_some(()).ok_or("unexpected response");
        }
        match self.window.sequence(id) {
            Sequence::New => Ok(()),
            Sequence::Ahead if self.accept_jump => Ok(()),
            Sequence::Ahead => {
                // It had answers that are not in our record.
                takeover::doubt(self, turn);
                Err("message ID above the window")
            }
            Sequence::Old => Err("message ID below the window"),
            Sequence::Repeated => match self.window.repetition(id, place, datagram) {
                Repetition::Collect => Ok(()),
                Repetition::Other => Err("another request with a used message ID"),
                Repetition::Ignore => Err("fragment of an answered request"),
                Repetition::Answer => {
                    self.answer_again(turn, path, id);
                    Err("fragment of an answered request")
                }
            },
        }
    }

    fn answer_again(&self, turn: &mut Turn<'_>, path: Path, id: MessageId) {
        if let Some(response) = self.window.responses.get(&id) {
            let payload = response.bytes.clone();
            turn.immediate.push(path.transmit(payload));
        }
    }

    /// A message that is whole and authentic. `datagram` is the one that completed it.
    fn opened(
        &mut self,
        turn: &mut Turn<'_>,
        path: Path,
        header: &Header,
        request: (&[u8], Asked),
        payloads: Result<Vec<Payload>, MessageError>,
    ) {
        // R33, RFC 6311 section 7: whoever sends something is asked first.
        self.pay(turn);
        let payloads = match payloads {
            Ok(payloads) => Ok(payloads),
            Err(error) => match refusal(&error) {
                Some(notify) if !header.response => Err(notify),
                _ => return turn.drop(path.remote, error.reason()),
            },
        };
        match payloads {
            Ok(payloads) if header.response => self.response(turn, path, header, &payloads),
            payloads => self.incoming_request(turn, path, header, request, payloads),
        }
    }

    fn incoming_request(
        &mut self,
        turn: &mut Turn<'_>,
        path: Path,
        header: &Header,
        (datagram, asked): (&[u8], Asked),
        payloads: Result<Vec<Payload>, Notify>,
    ) {
        if let Ok(payloads) = &payloads
            && counter_sync::is_request(header, payloads)
        {
            return counter_sync::answer(self, turn, path, datagram, payloads);
        }
        // R38, RFC 6311 section 8.1: nothing else until the synchronisation is complete.
        if self.sync.is_some() {
            return turn.drop(path.remote, "synchronising");
        }
        let id = header.message_id;
        if self.accept_jump && self.window.sequence(id) == Sequence::Ahead {
            self.window.jump(id);
        }
        match self.window.sequence(id) {
            Sequence::New => {}
            Sequence::Repeated if !self.window.repeats(id, &asked) => {
                return turn.drop(path.remote, "another request with a used message ID");
            }
            Sequence::Repeated => return self.answer_again(turn, path, id),
            Sequence::Old => return turn.drop(path.remote, "message ID below the window"),
            Sequence::Ahead => {
                // It had answers that are not in our record.
                takeover::doubt(self, turn);
                return turn.drop(path.remote, "message ID above the window");
            }
        }
        // Nothing has been declared yet: what was answered before gets its answer.
        if self.unanswered.is_some() {
            return turn.drop(path.remote, "synchronising");
        }
        if self.undecided && !payloads.as_ref().is_ok_and(|p| deletes_ike(p)) {
            // The peer knows more than we do and asks again; by then we know too.
            return turn.drop(path.remote, "rekeying is not decided");
        }
        self.alive(turn, path);
        let mut answer = match payloads {
            Ok(payloads) => self.process(turn, path, header, &payloads),
            Err(notify) => vec![Payload::Notify(notify)],
        };
        let malformed = Contents::of(&answer).has(NotifyKind::INVALID_SYNTAX);
        answer.extend(self.window.announce());
        // RFC 7296 section 2.11: to where the request came from.
        let reply = self.header(header.exchange, true, header.message_id);
        let Some(bytes) = self.seal(turn, &reply, &answer) else {
            return;
        };
        self.window
            .answered(header.message_id, Some(asked), bytes.clone());
        // Where several requests may be on their way, more of them may be ahead.
        self.accept_jump &= !self.window.gaps.is_empty();
        turn.transmits.push(path.transmit(bytes));
        turn.dirty = true;
        if malformed {
            return self.destroy(turn, MALFORMED);
        }
        self.advance(turn);
    }

    fn process(
        &mut self,
        turn: &mut Turn<'_>,
        path: Path,
        header: &Header,
        payloads: &[Payload],
    ) -> Vec<Payload> {
        let contents = Contents::of(payloads);
        if let Some(size) = contents.window_size() {
            self.window.peer_allows(size);
        }
        match header.exchange {
            Exchange::Informational => {
                inform::answer(self, turn, (header.message_id, path), &contents)
            }
            Exchange::CreateChildSa if contents.rekeys_ike() => {
                rekey::answer(self, turn, header.message_id, &contents)
            }
            Exchange::CreateChildSa => create::answer(self, turn, &contents),
            Exchange::IkeFollowupKe => followup::answer(self, turn, &contents),
            // An exchange that nobody agreed on is refused, and no reason to lose the IKE SA: section
            // 3.10.1 has this one for whatever has none of its own.
            _ => vec![Payload::notify(NotifyKind::NO_PROPOSAL_CHOSEN, &[])],
        }
    }

    fn response(&mut self, turn: &mut Turn<'_>, path: Path, header: &Header, payloads: &[Payload]) {
        let contents = Contents::of(payloads);
        // Said in the answer to a probe, too: with more than one, the peer wants those before it yet.
        if let Some(size) = contents.window_size() {
            self.window.peer_allows(size);
        }
        if self.sync.is_some() {
            return counter_sync::complete(self, turn, path, header, payloads);
        }
        if self.probe.is_some() && probe::complete(self, turn, path, header) {
            return;
        }
        let asked = self.pending.get(&header.message_id).map(Pending::exchange);
        if asked.is_some_and(|exchange| exchange != header.exchange) {
            // It answers a request of the predecessor that our record does not show.
            takeover::doubt(self, turn);
            return turn.drop(path.remote, "response of another exchange");
        }
        if !self.window.confirm(header.message_id) {
            return turn.drop(path.remote, "unexpected response");
        }
        self.answered();
        probe::begin_again(self, turn);
        self.alive(turn, path);
        mobike::heard_from(self, turn, path);
        turn.dirty = true;
        if contents.has(NotifyKind::INVALID_SYNTAX) {
            return self.destroy(turn, MALFORMED);
        }
        self.take_ticket(turn, &contents);
        match self.pending.remove(&header.message_id) {
            Some(Pending::CreateChild(offer)) => create::complete(self, turn, offer, &contents),
            Some(Pending::RekeyIke(offer)) => rekey::complete(self, turn, offer, &contents),
            Some(Pending::DeleteChildren(ids)) => {
                inform::deleted_by_us(self, turn, &ids, &contents);
            }
            Some(Pending::DeleteIke) => self.destroy(turn, "deleted by us"),
            Some(Pending::Mobike(asked)) => {
                mobike::complete(self, turn, asked, path, &contents);
            }
            Some(Pending::Liveness | Pending::Duty(_) | Pending::Filler) | None => {
                mobike::hear_of_mapping(self, turn, &contents);
                turn.events.push(Event::LivenessConfirmed {
                    ike: self.local_spi,
                })
            }
        }
        self.has_been_answered(turn);
        self.advance(turn);
    }

    /// An authenticated message that is not a repetition: the peer lives, and perhaps moved.
    pub fn alive(&mut self, turn: &mut Turn<'_>, path: Path) {
        self.heard = turn.now;
        // RFC 7296 section 2.23: follow a peer behind NAT; whoever is itself behind one does not. With
        // MOBIKE only UPDATE_SA_ADDRESSES and ESP do that (RFC 4555 section 3.8).
        if self.nat.remote && !self.nat.local && self.mobike.is_none() {
            self.moved(turn, path.remote);
        }
    }

    /// The peer's NAT mapping changed.
    pub fn moved(&mut self, turn: &mut Turn<'_>, remote: SocketAddr) {
        let path = Path {
            remote,
            ..self.path
        };
        mobike::followed(self, turn, path);
    }
}

fn deletes_ike(payloads: &[Payload]) -> bool {
    payloads.contains(&Payload::Delete(Delete::Ike))
}

/// The notification that an authenticated but unusable request is answered with
/// (RFC 7296 sections 2.5 and 2.21.3).
pub(super) fn refusal(error: &MessageError) -> Option<Notify> {
    let kind = error.notify()?;
    let data = match error {
        MessageError::UnsupportedCritical(kind) => vec![kind.0],
        _ => Vec::new(),
    };
    Some(Notify::new(kind, &data))
}

//! Finding the Message ID that the peer expects, by empty INFORMATIONAL requests
//! (`takeover = probe`).
//!
//! A peer answers exactly the request that is due and ignores others, so a new active member whose
//! record may be behind sends one at N, then N + 1, and so on. strongSwan with a combined-mode IKE
//! cipher survives this, where it does not survive a Message ID synchronisation.

use std::time::Duration;

use hitless_sa::{Instant, MessageId};

use super::established::IkeSa;
use super::message::{Exchange, Header};
use super::nat::Path;
use super::output::{Event, Resume};
use super::takeover;
use super::tasks::Pending;
use super::turn::Turn;
use super::window::{Due, Outstanding};

/// Requests that the old active member may have sent without our knowledge, at most; one that has sent
/// so many for the same reason leaves its successor one more to try.
const SPAN: usize = 16;
/// From one probe to the next; the first one is right nearly always, and has this long to be
/// answered before the second leaves.
const SPACING: Duration = Duration::from_millis(200);
/// Rounds over all probes before the peer counts as dead.
const ROUNDS: u32 = 4;
/// The same if it has been silent for a minute already.
const LAST_ROUNDS: u32 = 2;

/// Probes sent so far. Those that are sent again are the same bytes.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Probe {
    pub sent: Vec<(MessageId, Vec<u8>)>,
    /// One of them was answered; the ones after it may have been taken as well.
    pub answered: bool,
    next_at: Instant,
    /// Probes of a round.
    span: usize,
    position: usize,
    rounds: u32,
    most: u32,
}

impl Probe {
    pub fn new(now: Instant) -> Probe {
        Probe {
            sent: Vec::new(),
            answered: false,
            next_at: now,
            span: SPAN,
            position: 0,
            rounds: 0,
            most: ROUNDS,
        }
    }

    /// Probes that another member sent, to be sent again.
    pub fn resumed(now: Instant, sent: Vec<(MessageId, Vec<u8>)>) -> Probe {
        Probe {
            span: SPAN.max(sent.len() + 1),
            sent,
            ..Probe::new(now)
        }
    }

    /// The peer has not answered for long: if it lives, it answers soon.
    pub fn hurry(&mut self) {
        self.most = LAST_ROUNDS;
    }

    /// What was sent just now comes first.
    pub fn wait(&mut self, now: Instant) {
        self.next_at = now + SPACING;
    }

    /// Behind these, and not before `next`.
    fn behind(&self, next: MessageId) -> MessageId {
        let last = self.sent.last();
        last.map_or(next, |(last, _)| next.max(last.next()))
    }

    pub fn deadline(&self) -> Option<Instant> {
        (!self.answered).then_some(self.next_at)
    }
}

impl IkeSa {
    /// Behind every Message ID that a request of ours has had, those of probes with them: each is used
    /// up when it is sent, whether or not the peer has taken it (S4).
    pub fn unused(&self) -> MessageId {
        let next = self.window.next_request;
        let probe = self.probe.as_ref();
        probe.map_or(next, |probe| probe.behind(next))
    }

    /// What a predecessor had asked leaves once more before the first probe: the peer may have answered
    /// it, and forgets that answer with the next request (RFC 7296 section 2.3). With the commit, for what
    /// is sent at once does not leave before that, and the probe does.
    pub fn repeat(&mut self, turn: &mut Turn<'_>) {
        let Some(mut probe) = self.probe.take() else {
            return;
        };
        while let Due::Resend(_, bytes) = self.window.due(turn.now, turn.backoff()) {
            self.transmit(turn, bytes);
            probe.wait(turn.now);
        }
        self.probe = Some(probe);
    }
}

/// Sends the next probe when it is time.
pub(super) fn tick(ike: &mut IkeSa, turn: &mut Turn<'_>) {
    let Some(mut probe) = ike.probe.take() else {
        return;
    };
    if probe.answered || turn.now < probe.next_at {
        ike.probe = Some(probe);
        return;
    }
    if probe.position == probe.span {
        probe.position = 0;
        probe.rounds += 1;
        if probe.rounds >= probe.most {
            let hurried = probe.most < ROUNDS;
            ike.probe = Some(probe);
            return give_up(ike, turn, hurried);
        }
    }
    // The likely one may have been lost, and without it the others are ahead of their time.
    let first = probe.sent.first().filter(|_| probe.position > 0);
    let again = first.into_iter().chain(probe.sent.get(probe.position));
    let again: Vec<_> = again.map(|(_, bytes)| bytes.clone()).collect();
    match probe.sent.get(probe.position) {
        Some(_) => {
            let again = again.into_iter().map(|bytes| ike.path.transmit(bytes));
            turn.immediate.extend(again);
        }
        None => {
            // With the commit of the new one: what is sent at once would not leave before that.
            for bytes in again {
                ike.transmit(turn, bytes);
            }
            let id = probe.behind(ike.window.next_request);
            let header = ike.header(Exchange::Informational, false, id);
            let Some(bytes) = ike.seal(turn, &header, &[]) else {
                return;
            };
            ike.transmit(turn, bytes.clone());
            probe.sent.push((id, bytes));
        }
    }
    probe.position += 1;
    // Each round is slower than the one before.
    probe.next_at = turn.now + SPACING * (1 << probe.rounds);
    ike.probe = Some(probe);
}

/// No probe was answered. A leader of whom nothing is known may have declared Message IDs far above all
/// these (RFC 6311 section 5.1, R14): what is said in the same way is heard. Not sooner, for it ends
/// what is outstanding (R38, R42).
fn give_up(ike: &mut IkeSa, turn: &mut Turn<'_>, hurried: bool) {
    let how = takeover::inexactly(ike);
    if hurried || !matches!(how, Resume::MessageIdSync { .. }) {
        return ike.lose(turn, "no answer to any probe");
    }
    ike.abandon(turn);
    turn.dirty = true;
    ike.resynchronise(turn, how);
}

/// A response while probing. True if it answers a probe.
pub(super) fn complete(ike: &mut IkeSa, turn: &mut Turn<'_>, path: Path, header: &Header) -> bool {
    let Some(probe) = &mut ike.probe else {
        return false;
    };
    let id = header.message_id;
    let Some(position) = probe.sent.iter().position(|(sent, _)| *sent == id) else {
        return false;
    };
    let mut later = probe.sent.split_off(position + 1);
    let mut earlier = std::mem::take(&mut probe.sent);
    earlier.truncate(position);
    if !probe.answered {
        // Whatever was outstanding at the failover lies below: the peer is past it, but for what its
        // window leaves open.
        probe.answered = true;
        ike.abandon_below(turn, oldest_open(id.next(), ike.window.peer_window));
        for request in ike.window.outstanding.values_mut() {
            (request.sent, request.resend_at, request.fills) = (0, turn.now, true);
        }
        ike.answered();
    }
    for past in earlier.iter().map(|(id, _)| *id).chain([id]) {
        ike.window.confirm(past);
        ike.pending.remove(&past);
    }
    ike.window.next_request = ike.window.next_request.max(id.next());
    fill(ike, turn, earlier);
    if later.is_empty() {
        ike.probe = None;
    } else {
        // The peer expects the next probe now, and may have taken it already: it is an ordinary
        // outstanding request from here on.
        let (id, bytes) = later.remove(0);
        ike.window.next_request = id.next();
        promote(ike, turn, id, bytes.clone(), Pending::Liveness);
        if let Some(probe) = &mut ike.probe {
            probe.sent = std::iter::once((id, bytes)).chain(later).collect();
        }
    }
    turn.dirty = true;
    ike.alive(turn, path);
    turn.events
        .push(Event::LivenessConfirmed { ike: ike.local_spi });
    ike.advance(turn);
    true
}

/// A request below the probes was answered: the peer expects the first of them now, and has ignored
/// what it had of them.
pub(super) fn begin_again(ike: &mut IkeSa, turn: &mut Turn<'_>) {
    let Some(probe) = ike.probe.as_mut().filter(|probe| !probe.answered) else {
        return;
    };
    if let Some((_, first)) = probe.sent.first().cloned() {
        probe.position = 0;
        probe.wait(turn.now);
        ike.transmit(turn, first);
    }
}

/// A probe becomes an ordinary outstanding request, sent once more.
fn promote(ike: &mut IkeSa, turn: &mut Turn<'_>, id: MessageId, bytes: Vec<u8>, what: Pending) {
    let outstanding = Outstanding {
        bytes: bytes.clone(),
        sent: 1,
        resend_at: turn.now + turn.backoff().after(1),
        fills: matches!(what, Pending::Filler),
    };
    ike.window.outstanding.insert(id, outstanding);
    ike.pending.insert(id, what);
    ike.transmit(turn, bytes);
}

/// A peer that takes requests in any order within its window may have answered a later probe than
/// the one that is due. One that never arrives would hold its window up for ever; those that it had
/// before the takeover it does not answer.
fn fill(ike: &mut IkeSa, turn: &mut Turn<'_>, earlier: Vec<(MessageId, Vec<u8>)>) {
    let oldest = oldest_open(ike.window.next_request, ike.window.peer_window);
    for (id, bytes) in earlier.into_iter().filter(|(id, _)| *id >= oldest) {
        promote(ike, turn, id, bytes, Pending::Filler);
    }
}

/// The lowest Message ID that a peer may still take, or answer once more, when it has taken the one before
/// `next` (RFC 7296 section 2.3).
fn oldest_open(next: MessageId, window: u32) -> MessageId {
    match window {
        0 | 1 => next,
        _ => MessageId(next.0.saturating_sub(window)),
    }
}

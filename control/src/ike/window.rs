//! Message IDs, windows, retransmission and kept responses (RFC 7296 sections 2.1 to 2.3).
//!
//! ```text
//!   ours      next_request - outstanding ...  at most `sends()` beyond the first unanswered
//!   the peer's  gaps ... expected             at most `own` beyond the first that is missing
//! ```
//!
//! Both windows are one request wide unless `window_size` says more: then that many of ours may be
//! outstanding if the peer promised as much by SET_WINDOW_SIZE, and as many responses are kept, and
//! requests taken in any order within the window, as we promised.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use hitless_sa::{Instant, MessageId};

use super::asked::Asked;
use super::message::{FragmentPlace, NotifyKind, Payload};

/// Retransmission, from the engine's settings.
#[derive(Clone, Copy, Debug)]
pub(super) struct Backoff {
    /// First retransmission after this long; then it doubles (RFC 7296 section 2.4).
    pub timeout: Duration,
    /// Retransmissions before the peer counts as dead.
    pub tries: u32,
}

impl Backoff {
    /// How long to wait after `sent` transmissions.
    pub fn after(&self, sent: u32) -> Duration {
        let doublings = sent.saturating_sub(1).min(16);
        self.timeout.saturating_mul(1 << doublings)
    }

    /// From the first transmission until the peer counts as dead.
    pub fn whole(&self) -> Duration {
        let waits =
            (1..=self.tries.saturating_add(1).min(u16::MAX.into())).map(|sent| self.after(sent));
        waits.fold(Duration::ZERO, Duration::saturating_add)
    }
}

/// The widest window that can be configured: every response that is kept is in the record.
pub const MAX_WINDOW: u32 = 64;

/// SET_WINDOW_SIZE.
pub(super) fn set_window_size(size: u32) -> Payload {
    Payload::notify(NotifyKind::SET_WINDOW_SIZE, &size.to_be_bytes())
}

/// What a request's Message ID says of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Sequence {
    /// Within the window, and not answered yet.
    New,
    /// Answered, and the response is kept.
    Repeated,
    /// Answered longer ago.
    Old,
    /// Beyond the window.
    Ahead,
}

/// A request of ours that is not answered yet.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Outstanding {
    /// Resent byte for byte (RFC 7296 section 2.1).
    pub bytes: Vec<u8>,
    /// Transmissions so far; none while it waits for the window.
    pub sent: u32,
    pub resend_at: Instant,
    /// A later one was answered to a member that did not know whether this one was: it is sent a few times
    /// more, and then given up alone. Whoever takes over finds that out anew.
    pub fills: bool,
}

/// What to do about the outstanding requests now.
#[derive(PartialEq, Eq, Debug)]
pub(super) enum Due {
    Nothing,
    Resend(MessageId, Vec<u8>),
    /// Every retransmission of one went unanswered.
    Dead(MessageId),
}

/// A response that may be asked for again.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Response {
    pub bytes: Vec<u8>,
    /// The request that it answers; not known only if a member without digests answered it.
    pub request: Option<Asked>,
}

/// What to do with a fragment of a request that was answered (RFC 7383 section 2.6).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Repetition {
    /// The first fragment: the response is sent again.
    Answer,
    /// Another of them: once is enough.
    Ignore,
    /// Divided anew, for smaller datagrams: it must be put together to be recognised.
    Collect,
    /// Not the same request.
    Other,
}

/// Both windows of one IKE SA.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Window {
    /// Message ID of our next request.
    pub next_request: MessageId,
    /// Above every request of the peer that was received.
    pub expected: MessageId,
    /// Below `expected` and not received: overtaken by later ones.
    pub gaps: BTreeSet<MessageId>,
    /// As many as we promised to keep.
    pub responses: BTreeMap<MessageId, Response>,
    pub outstanding: BTreeMap<MessageId, Outstanding>,
    /// Requests that the peer lets us have outstanding (SET_WINDOW_SIZE, RFC 7296 section 2.3).
    pub peer_window: u32,
    /// What we promise the peer, and the most that we make use of ourselves.
    pub own: u32,
    /// The peer was told of `own`.
    pub announced: bool,
}

impl Window {
    /// Windows that start at these Message IDs, and that the peer is to be told of if they are
    /// wider than one: every IKE SA starts anew with that (RFC 7296 section 2.3).
    pub fn new(next_request: MessageId, expected: MessageId, own: u32) -> Window {
        Window {
            next_request,
            expected,
            gaps: BTreeSet::new(),
            responses: BTreeMap::new(),
            outstanding: BTreeMap::new(),
            peer_window: 1,
            own,
            announced: false,
        }
    }

    /// What SET_WINDOW_SIZE has to say in the next message, said once.
    pub fn announce(&mut self) -> Option<Payload> {
        let news = self.own > 1 && !self.announced;
        self.announced |= news;
        news.then(|| set_window_size(self.own))
    }

    /// The peer's SET_WINDOW_SIZE: "there is currently no way to reduce the window size of an
    /// existing IKE SA" (RFC 7296 section 2.3).
    pub fn peer_allows(&mut self, size: u32) {
        self.peer_window = self.peer_window.max(size);
    }

    /// Where a request stands (RFC 7296 section 2.3).
    pub fn sequence(&self, id: MessageId) -> Sequence {
        if self.responses.contains_key(&id) {
            return Sequence::Repeated;
        }
        if id == MessageId::END {
            return Sequence::Ahead;
        }
        let first = self.gaps.first().copied().unwrap_or(self.expected);
        if id >= self.expected {
            // Whoever asks X has the answers to all up to X - own.
            match id.0.checked_sub(first.0) {
                Some(ahead) if ahead < self.own => Sequence::New,
                _ => Sequence::Ahead,
            }
        } else if self.gaps.contains(&id) {
            Sequence::New
        } else {
            Sequence::Old
        }
    }

    /// Takes a request that is ahead of what we recorded for the next one. Those just below may
    /// still come, if another member has not answered them.
    pub fn jump(&mut self, id: MessageId) {
        let below = MessageId(id.0.saturating_sub(self.own.saturating_sub(1)));
        let from = below.max(self.expected);
        self.gaps.extend((from.0..id.0).map(MessageId));
        // Whoever asks X has the answers to all up to X - own.
        self.gaps = self.gaps.split_off(&below);
        self.expected = self.expected.max(id);
    }

    /// Remembers the response to a request that was new.
    pub fn answered(&mut self, id: MessageId, request: Option<Asked>, bytes: Vec<u8>) {
        if id >= self.expected {
            self.gaps.extend((self.expected.0..id.0).map(MessageId));
            self.expected = id.next();
        }
        self.gaps.remove(&id);
        self.responses.insert(id, Response { bytes, request });
        self.prune();
    }

    /// Forgets what the peer cannot ask for any more.
    fn prune(&mut self) {
        let oldest = MessageId(self.expected.0.saturating_sub(self.own));
        self.gaps = self.gaps.split_off(&oldest);
        self.responses = self.responses.split_off(&oldest);
    }

    /// The last response answers this request.
    pub fn recognise(&mut self, request: Asked) {
        if let Some(mut last) = self.responses.last_entry() {
            last.get_mut().request = Some(request);
        }
    }

    /// Whether an answered request is the same once more.
    pub fn repeats(&self, id: MessageId, request: &Asked) -> bool {
        let first = self.responses.get(&id).and_then(|r| r.request);
        first.is_none_or(|first| first.repeats(request))
    }

    /// What a fragment of an answered request is for.
    pub fn repetition(&self, id: MessageId, place: FragmentPlace, datagram: &[u8]) -> Repetition {
        match self.responses.get(&id).and_then(|r| r.request) {
            Some(first) if first.total != place.total => Repetition::Collect,
            _ if place.number != 1 => Repetition::Ignore,
            Some(first) if !first.began_with(datagram) => Repetition::Other,
            _ => Repetition::Answer,
        }
    }

    /// Requests of ours that may be outstanding at once.
    fn sends(&self) -> u32 {
        self.peer_window.min(self.own).max(1)
    }

    /// Whether a request with this Message ID may be on its way: "when the initiator needs to make
    /// a request X, it MUST wait until it has received responses to all requests up through
    /// request X-N" (RFC 7296 section 2.3).
    fn admits(&self, id: MessageId) -> bool {
        let first = self.outstanding.keys().next();
        let within = first.is_none_or(|first| id.0.saturating_sub(first.0) < self.sends());
        within && id != MessageId::END
    }

    /// Whether one more request can leave at once.
    pub fn has_room(&self) -> bool {
        self.admits(self.next_request)
    }

    /// Takes the next Message ID for a request. True if it may leave at once; else it waits for the
    /// answers that others wait for.
    pub fn request(&mut self, now: Instant, backoff: Backoff, bytes: Vec<u8>) -> bool {
        let leaves = self.has_room();
        let outstanding = Outstanding {
            bytes,
            sent: u32::from(leaves),
            resend_at: if leaves { now + backoff.after(1) } else { now },
            fills: false,
        };
        self.outstanding.insert(self.next_request, outstanding);
        self.next_request = self.next_request.next();
        leaves
    }

    /// Whether a response answers an outstanding request, which is then done.
    pub fn confirm(&mut self, id: MessageId) -> bool {
        self.outstanding.remove(&id).is_some()
    }

    /// Retransmits when it is time, one after the other.
    pub fn due(&mut self, now: Instant, backoff: Backoff) -> Due {
        let mut waiting = self.outstanding.iter().filter(|(id, _)| self.admits(**id));
        let due = waiting.find(|(_, o)| o.resend_at <= now).map(|(id, _)| *id);
        let Some((id, outstanding)) = due.and_then(|id| Some((id, self.outstanding.get_mut(&id)?)))
        else {
            return Due::Nothing;
        };
        if outstanding.sent > backoff.tries {
            return Due::Dead(id);
        }
        outstanding.sent += 1;
        outstanding.resend_at = now + backoff.after(outstanding.sent);
        Due::Resend(id, outstanding.bytes.clone())
    }

    /// Resends at once and starts counting anew: a new active member knows nothing of the
    /// transmissions of the old one.
    pub fn restart(&mut self, now: Instant) {
        for outstanding in self.outstanding.values_mut() {
            outstanding.sent = 0;
            outstanding.resend_at = now;
        }
    }

    /// When the outstanding requests must be looked at.
    pub fn deadline(&self) -> Option<Instant> {
        let waiting = self.outstanding.iter().filter(|(id, _)| self.admits(**id));
        waiting.map(|(_, o)| o.resend_at).min()
    }

    /// Moves both windows to what a synchronisation agreed on (RFC 6311 section 5.1). The kept
    /// responses belong to Message IDs that are past (H7), and so do the outstanding requests and
    /// those that had not arrived (R42, R43).
    pub fn synchronise(&mut self, next_request: MessageId, expected: MessageId) {
        if expected != self.expected {
            self.responses.clear();
        }
        self.next_request = next_request;
        self.expected = expected;
        self.gaps.clear();
        self.outstanding.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BACKOFF: Backoff = Backoff {
        timeout: Duration::from_secs(1),
        tries: 2,
    };

    fn asked(octet: u8) -> Asked {
        Asked::new(&[octet], 1, &[octet])
    }

    fn answer(window: &mut Window, id: u32) {
        window.answered(MessageId(id), Some(asked(id as u8)), vec![id as u8]);
    }

    fn wide(next_request: u32, expected: u32, own: u32) -> Window {
        let mut window = Window::new(MessageId(next_request), MessageId(expected), own);
        window.peer_allows(own);
        window
    }

    #[test]
    fn a_request_is_new_once_and_repeated_until_the_next_rfc7296_2_3() {
        let mut window = wide(0, 3, 1);
        assert_eq!(window.sequence(MessageId(3)), Sequence::New);
        assert_eq!(window.sequence(MessageId(2)), Sequence::Old);
        assert_eq!(window.sequence(MessageId(4)), Sequence::Ahead);
        answer(&mut window, 3);
        assert_eq!(window.sequence(MessageId(3)), Sequence::Repeated);
        let repeats = |octet| window.repeats(MessageId(3), &asked(octet));
        assert!(repeats(3) && !repeats(4));
        answer(&mut window, 4);
        assert_eq!(window.sequence(MessageId(3)), Sequence::Old);
    }

    #[test]
    fn requests_come_in_any_order_within_the_window_rfc7296_2_3() {
        let mut window = wide(0, 3, 3);
        answer(&mut window, 5);
        // Whoever asks 6 has the answer to 3, which it never asked for.
        assert_eq!(window.sequence(MessageId(6)), Sequence::Ahead);
        assert_eq!(window.sequence(MessageId(3)), Sequence::New);
        assert_eq!(window.sequence(MessageId(4)), Sequence::New);
        answer(&mut window, 3);
        assert_eq!(window.sequence(MessageId(6)), Sequence::New);
        assert_eq!(window.sequence(MessageId(7)), Sequence::Ahead);
        answer(&mut window, 4);
        let kept: Vec<u32> = window.responses.keys().map(|id| id.0).collect();
        assert_eq!(kept, [3, 4, 5], "as many as we promised");
        answer(&mut window, 6);
        assert_eq!(window.sequence(MessageId(3)), Sequence::Old);
        assert_eq!(window.sequence(MessageId(4)), Sequence::Repeated);
        assert!(window.gaps.is_empty());
    }

    #[test]
    fn a_request_waits_for_the_answer_that_opens_the_window_rfc7296_2_3() {
        let mut window = wide(7, 0, 2);
        let now = Instant(0);
        assert!(window.request(now, BACKOFF, vec![7]));
        assert!(window.request(now, BACKOFF, vec![8]));
        assert!(!window.has_room());
        assert!(!window.request(now, BACKOFF, vec![9]));
        assert!(window.confirm(MessageId(8)));
        assert!(!window.has_room(), "7 is unanswered");
        assert_eq!(window.due(now, BACKOFF), Due::Nothing);
        assert!(window.confirm(MessageId(7)));
        assert_eq!(window.deadline(), Some(now));
        assert_eq!(
            window.due(now, BACKOFF),
            Due::Resend(MessageId(9), vec![9]),
            "for the first time"
        );
        assert!(window.has_room());
    }

    #[test]
    fn a_window_is_announced_once_and_never_shrinks_rfc7296_2_3() {
        let mut window = wide(0, 0, 5);
        assert_eq!(window.announce(), Some(set_window_size(5)));
        assert_eq!(window.announce(), None);
        window.peer_allows(2);
        assert_eq!((window.peer_window, window.sends()), (5, 5));
        assert_eq!(wide(0, 0, 1).announce(), None, "one is what there is");
        let mut narrow = wide(0, 0, 1);
        narrow.peer_allows(u32::MAX);
        assert_eq!(narrow.sends(), 1);
    }

    #[test]
    fn a_jump_leaves_room_for_those_that_were_on_their_way() {
        let mut window = wide(0, 3, 3);
        window.jump(MessageId(90));
        answer(&mut window, 90);
        assert_eq!(window.sequence(MessageId(87)), Sequence::Old);
        assert_eq!(window.sequence(MessageId(88)), Sequence::New);
        window.jump(MessageId(91));
        answer(&mut window, 91);
        assert_eq!(window.sequence(MessageId(88)), Sequence::Old);
        let mut single = wide(0, 3, 1);
        single.jump(MessageId(9));
        assert!(single.gaps.is_empty());
    }

    #[test]
    fn rfc6311_r42_r43_a_synchronisation_waits_for_nothing() {
        let mut window = wide(3, 3, 5);
        for id in 3..8 {
            assert!(window.request(Instant(0), BACKOFF, vec![id]));
        }
        for id in [4, 5, 6, 7] {
            assert!(window.confirm(MessageId(id)));
            answer(&mut window, id);
        }
        assert_eq!(
            (window.next_request, window.expected),
            (MessageId(8), MessageId(8))
        );
        window.synchronise(MessageId(20), MessageId(30));
        assert!(window.gaps.is_empty() && window.responses.is_empty());
        assert!(window.outstanding.is_empty() && window.has_room());
        assert_eq!(window.sequence(MessageId(3)), Sequence::Old);
    }

    #[test]
    fn resends_the_same_bytes_ever_more_rarely_then_gives_up_rfc7296_2_4() {
        let mut window = wide(7, 0, 1);
        let start = Instant(0);
        window.request(start, BACKOFF, vec![9]);
        assert_eq!(window.due(start, BACKOFF), Due::Nothing);
        let mut at = Vec::new();
        let mut now = start;
        loop {
            now = window.deadline().unwrap().max(now);
            match window.due(now, BACKOFF) {
                Due::Resend(id, bytes) => assert_eq!((id, bytes), (MessageId(7), vec![9])),
                Due::Dead(_) => break,
                Due::Nothing => unreachable!("the deadline has passed"),
            }
            at.push(now.since(start).as_secs());
        }
        assert_eq!(at, vec![1, 3]);
        assert_eq!(now.since(start).as_secs(), 7);
    }

    #[test]
    fn only_the_response_to_an_outstanding_request_confirms_it() {
        let mut window = wide(7, 0, 1);
        window.request(Instant(0), BACKOFF, vec![9]);
        assert!(!window.confirm(MessageId(6)));
        assert!(window.confirm(MessageId(7)));
        assert!(!window.confirm(MessageId(7)));
        assert_eq!(window.next_request, MessageId(8));
    }
}

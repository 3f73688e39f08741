//! Message IDs, retransmission and the cached response (RFC 7296 sections 2.1 to 2.3).
//!
//! Both windows are one: one request of ours is outstanding, one response of ours is remembered.
//! A peer may allow more by SET_WINDOW_SIZE; we never need it.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use hitless_sa::{Instant, MessageId};

use super::message::FragmentPlace;

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
}

/// What a request's Message ID says of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Sequence {
    /// The next one that is due.
    New,
    /// The one that was answered last.
    Repeated,
    /// Answered longer ago.
    Old,
    /// Beyond the window.
    Ahead,
}

/// A request of ours that is not answered yet.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Outstanding {
    pub id: MessageId,
    /// Resent byte for byte (RFC 7296 section 2.1).
    pub bytes: Vec<u8>,
    pub sent: u32,
    pub resend_at: Instant,
}

/// What to do about the outstanding request now.
#[derive(PartialEq, Eq, Debug)]
pub(super) enum Due {
    Nothing,
    Resend(Vec<u8>),
    /// Every retransmission went unanswered.
    Dead,
}

/// The response that was sent last.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Response {
    pub id: MessageId,
    pub bytes: Vec<u8>,
    /// The request that it answers; not known of IKE_AUTH, nor if another member answered it.
    pub request: Option<Asked>,
}

/// What tells a repetition of a request from another request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Asked {
    /// Digest of the datagram, or of its first fragment's.
    datagram: u64,
    /// How many fragments it had; one if it was none.
    total: u16,
    /// Digest of what was inside.
    content: u64,
}

impl Asked {
    /// `datagram` is the first fragment if there are several.
    pub fn new(datagram: &[u8], total: u16, content: &[u8]) -> Asked {
        Asked {
            datagram: digest(datagram),
            total,
            content: digest(content),
        }
    }
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

/// Tells two messages of one peer apart; both are authenticated.
fn digest(message: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    message.hash(&mut hasher);
    hasher.finish()
}

/// Both windows of one IKE SA.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Window {
    /// Message ID of our next request.
    pub next_request: MessageId,
    /// Message ID of the peer's next request.
    pub expected: MessageId,
    pub response: Option<Response>,
    pub outstanding: Option<Outstanding>,
    /// Requests that the peer lets us have outstanding (SET_WINDOW_SIZE, RFC 7296 section 2.3).
    pub peer_window: u32,
}

impl Window {
    /// Windows that start at these Message IDs.
    pub fn new(next_request: MessageId, expected: MessageId) -> Window {
        Window {
            next_request,
            expected,
            response: None,
            outstanding: None,
            peer_window: 1,
        }
    }

    /// Where a request stands (RFC 7296 section 2.3).
    pub fn sequence(&self, id: MessageId) -> Sequence {
        if id == self.expected {
            Sequence::New
        } else if id > self.expected {
            Sequence::Ahead
        } else if self.response.as_ref().is_some_and(|r| r.id == id) {
            Sequence::Repeated
        } else {
            Sequence::Old
        }
    }

    /// Remembers the response to the request that was due.
    pub fn answered(&mut self, id: MessageId, request: Option<Asked>, bytes: Vec<u8>) {
        self.expected = id.next();
        self.response = Some(Response { id, bytes, request });
    }

    /// Whether an answered request is the same once more (RFC 7296 section 2.1: it must be
    /// bitwise identical). Two members of a cluster that both believe to lead can use one Message
    /// ID for two requests, and the answer to one would give the other wrong keys.
    pub fn repeats(&self, request: &Asked) -> bool {
        let first = self.response.as_ref().and_then(|r| r.request);
        first.is_none_or(|first| {
            // Divided into other fragments only its content is the same.
            first == *request || first.total != request.total && first.content == request.content
        })
    }

    /// What a fragment of an answered request is for.
    pub fn repetition(&self, place: FragmentPlace, datagram: &[u8]) -> Repetition {
        match self.response.as_ref().and_then(|r| r.request) {
            Some(first) if first.total != place.total => Repetition::Collect,
            _ if place.number != 1 => Repetition::Ignore,
            Some(first) if first.datagram != digest(datagram) => Repetition::Other,
            _ => Repetition::Answer,
        }
    }

    /// Takes the next Message ID for a request.
    pub fn request(&mut self, now: Instant, backoff: Backoff, bytes: Vec<u8>) {
        debug_assert!(self.outstanding.is_none(), "the window is one request");
        self.outstanding = Some(Outstanding {
            id: self.next_request,
            bytes,
            sent: 1,
            resend_at: now + backoff.after(1),
        });
        self.next_request = self.next_request.next();
    }

    /// Whether a response answers the outstanding request, which is then done.
    pub fn confirm(&mut self, id: MessageId) -> bool {
        let matches = self.outstanding.as_ref().is_some_and(|o| o.id == id);
        if matches {
            self.outstanding = None;
        }
        matches
    }

    /// Retransmits when it is time.
    pub fn due(&mut self, now: Instant, backoff: Backoff) -> Due {
        let Some(outstanding) = &mut self.outstanding else {
            return Due::Nothing;
        };
        if now < outstanding.resend_at {
            return Due::Nothing;
        }
        if outstanding.sent > backoff.tries {
            return Due::Dead;
        }
        outstanding.sent += 1;
        outstanding.resend_at = now + backoff.after(outstanding.sent);
        Due::Resend(outstanding.bytes.clone())
    }

    /// Resends at once and starts counting anew: a new active member knows nothing of the
    /// transmissions of the old one.
    pub fn restart(&mut self, now: Instant) {
        if let Some(outstanding) = &mut self.outstanding {
            outstanding.sent = 0;
            outstanding.resend_at = now;
        }
    }

    /// When the outstanding request must be looked at.
    pub fn deadline(&self) -> Option<Instant> {
        self.outstanding.as_ref().map(|o| o.resend_at)
    }

    /// Moves both windows to what a synchronisation agreed on (RFC 6311 section 5.1). The cached
    /// response belongs to a Message ID that is past (H7), and so does the outstanding request.
    pub fn synchronise(&mut self, next_request: MessageId, expected: MessageId) {
        if expected != self.expected {
            self.response = None;
        }
        self.next_request = next_request;
        self.expected = expected;
        self.outstanding = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BACKOFF: Backoff = Backoff {
        timeout: Duration::from_secs(1),
        tries: 2,
    };

    #[test]
    fn a_request_is_new_once_and_repeated_until_the_next_rfc7296_2_3() {
        let mut window = Window::new(MessageId(0), MessageId(3));
        assert_eq!(window.sequence(MessageId(3)), Sequence::New);
        assert_eq!(window.sequence(MessageId(2)), Sequence::Old);
        assert_eq!(window.sequence(MessageId(4)), Sequence::Ahead);
        let asked = |octet: u8| Asked::new(&[octet], 1, &[octet]);
        window.answered(MessageId(3), Some(asked(3)), vec![1]);
        assert_eq!(window.sequence(MessageId(3)), Sequence::Repeated);
        assert!(window.repeats(&asked(3)) && !window.repeats(&asked(4)));
        window.answered(MessageId(4), Some(asked(4)), vec![2]);
        assert_eq!(window.sequence(MessageId(3)), Sequence::Old);
    }

    #[test]
    fn resends_the_same_bytes_ever_more_rarely_then_gives_up_rfc7296_2_4() {
        let mut window = Window::new(MessageId(7), MessageId(0));
        let start = Instant(0);
        window.request(start, BACKOFF, vec![9]);
        assert_eq!(window.due(start, BACKOFF), Due::Nothing);
        let mut at = Vec::new();
        let mut now = start;
        loop {
            now = window.deadline().unwrap().max(now);
            match window.due(now, BACKOFF) {
                Due::Resend(bytes) => assert_eq!(bytes, vec![9]),
                Due::Dead => break,
                Due::Nothing => unreachable!("the deadline has passed"),
            }
            at.push(now.since(start).as_secs());
        }
        assert_eq!(at, vec![1, 3]);
        assert_eq!(now.since(start).as_secs(), 7);
    }

    #[test]
    fn only_the_response_to_the_outstanding_request_confirms_it() {
        let mut window = Window::new(MessageId(7), MessageId(0));
        window.request(Instant(0), BACKOFF, vec![9]);
        assert!(!window.confirm(MessageId(6)));
        assert!(window.confirm(MessageId(7)));
        assert!(!window.confirm(MessageId(7)));
        assert_eq!(window.next_request, MessageId(8));
    }
}

//! RFC 6311: synchronisation of Message IDs and replay counters, as a peer of a cluster and as the
//! new active member of one. Rule ids are those of the reference list (R9 to R46, H1 to H8).
//!
//! Three places where we do other than the text prefers, or than another reading of it would have:
//!
//! - R40 (section 8.3) prefers to tear an IKE SA down whose Child SAs are inconsistent. We patch: a
//!   Child SA that the peer has no more is answered by CHILD_SA_NOT_FOUND when it is replaced (RFC
//!   7296 section 2.25.1), and a new one is made. Section 8.3 fears a state that nobody can tell; our
//!   record says exactly which Child SAs there were, replacing all of them ends every doubt, and
//!   tearing down would cost the new IKE_AUTH that a takeover is to spare.
//! - H2: the examples A.2 and A.3 answer an M1 that R18 drops silently. There is no setting that
//!   follows them: the appendix is an example and R18 a MUST, no cluster that raises its M1 (R14)
//!   needs it, and an M1 at or below what was seen is what a replayed request looks like.
//! - H4: IPSEC_REPLAY_COUNTER_SYNC alone under Message ID 0 is no synchronisation of Message IDs, and
//!   ignored, unless 0 is the next one that we expect, as it is when an IKE SA has just been rekeyed:
//!   then it is "the current Message ID" of a regular request (R11, section 5 case 2).

use hitless_sa::{Entropy, Instant, MessageId};

use super::contents::{Contents, message_id};
use super::established::{IkeSa, State};
use super::last_ids::{are_left, may_be_declared};
use super::message::{Exchange, Header, Notify, NotifyKind, Payload};
use super::nat::Path;
use super::output::Event;
use super::settings::Connection;
use super::takeover::MAX_REPLAY_DELTA;
use super::tasks::{Pending, Task};
use super::turn::Turn;

/// Identical retransmissions before a fresh request with higher values (H1).
const RETRANSMISSIONS: u32 = 3;
/// How far above the known Message IDs we declare ourselves to be: more than the exchanges that a
/// standby can have missed (R14; R15 recommends at least the window). They are plentiful.
const MARGIN: u32 = 4096;
/// Fresh requests before the peer counts as dead.
const ROUNDS: u32 = 3;

/// IKEV2_MESSAGE_ID_SYNC: a nonce and what the sender will use next in both directions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct MessageIdSync {
    pub nonce: [u8; 4],
    /// EXPECTED_SEND_REQ_MESSAGE_ID.
    pub send: MessageId,
    /// EXPECTED_RECV_REQ_MESSAGE_ID.
    pub receive: MessageId,
}

impl MessageIdSync {
    fn payload(self) -> Payload {
        let mut data = self.nonce.to_vec();
        data.extend_from_slice(&self.send.0.to_be_bytes());
        data.extend_from_slice(&self.receive.0.to_be_bytes());
        Payload::notify(NotifyKind::IKEV2_MESSAGE_ID_SYNC, &data)
    }

    fn parse(notify: &Notify) -> Option<MessageIdSync> {
        // R30: SPI size 0 and Protocol ID 0.
        if notify.protocol != 0 || !notify.spi.is_empty() || notify.data.len() != 12 {
            return None;
        }
        let (nonce, ids) = notify.data.split_first_chunk::<4>()?;
        Some(MessageIdSync {
            nonce: *nonce,
            send: message_id(ids.get(..4)?)?,
            receive: message_id(ids.get(4..)?)?,
        })
    }
}

/// Our synchronisation with the peer, after a takeover.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct CounterSync {
    pub values: MessageIdSync,
    pub delta: Option<u64>,
    pub bytes: Vec<u8>,
    pub sent: u32,
    pub rounds: u32,
    pub resend_at: Instant,
}

impl CounterSync {
    /// The peer has not answered for long: if it lives, it answers the first request.
    pub fn hurry(&mut self) {
        self.rounds = self.rounds.max(ROUNDS - 1);
    }
}

/// The synchronisation that we answered last (H1).
#[derive(Clone, PartialEq, Eq)]
pub(super) struct AnsweredSync {
    pub request: Vec<u8>,
    pub response: Vec<u8>,
    /// Highest Message ID seen from the cluster by it (R18).
    pub send: MessageId,
    /// What we expected after it: anything newer ends the repetition.
    pub expected: MessageId,
}

/// Whether all Child SAs of a connection use ESN, or none (R31, RFC 6311 section 6.4). Otherwise
/// replay counters cannot be synchronised.
pub(super) fn uniform_esn(connection: &Connection) -> bool {
    let mut esn = connection
        .children
        .iter()
        .flat_map(|c| &c.esp_proposals)
        .map(|p| p.esn);
    let first = esn.next();
    esn.all(|e| Some(e) == first)
}

fn synchronises_replay(connection: &Connection) -> bool {
    uniform_esn(connection) && !connection.roads.withheld.replay_counter_sync
}

/// What we assert in IKE_AUTH (R5: as responder only what the initiator did).
pub(super) fn capabilities(connection: &Connection, peer: Option<&Contents<'_>>) -> Vec<Payload> {
    let wanted = |kind| peer.is_none_or(|contents| contents.has(kind));
    let withheld = connection.roads.withheld;
    let mut payloads = Vec::new();
    if wanted(NotifyKind::IKEV2_MESSAGE_ID_SYNC_SUPPORTED) && !withheld.message_id_sync {
        payloads.push(Payload::notify(
            NotifyKind::IKEV2_MESSAGE_ID_SYNC_SUPPORTED,
            &[],
        ));
    }
    if wanted(NotifyKind::IPSEC_REPLAY_COUNTER_SYNC_SUPPORTED) && synchronises_replay(connection) {
        let kind = NotifyKind::IPSEC_REPLAY_COUNTER_SYNC_SUPPORTED;
        payloads.push(Payload::notify(kind, &[]));
    }
    payloads
}

/// The capabilities of an IKE SA: what both asserted (R6).
pub(super) fn negotiated(connection: &Connection, peer: &Contents<'_>) -> (bool, bool) {
    let withheld = connection.roads.withheld;
    (
        peer.has(NotifyKind::IKEV2_MESSAGE_ID_SYNC_SUPPORTED) && !withheld.message_id_sync,
        peer.has(NotifyKind::IPSEC_REPLAY_COUNTER_SYNC_SUPPORTED)
            && synchronises_replay(connection),
    )
}

/// Whether a request is a Message ID synchronisation, by its content: after a rekeying the first
/// ordinary request has Message ID 0 too (H4).
pub(super) fn is_request(header: &Header, payloads: &[Payload]) -> bool {
    header.exchange == Exchange::Informational
        && header.message_id == MessageId(0)
        && only_sync(payloads)
}

/// R23: nothing but IKEV2_MESSAGE_ID_SYNC, and perhaps IPSEC_REPLAY_COUNTER_SYNC.
fn only_sync(payloads: &[Payload]) -> bool {
    let kinds: Vec<NotifyKind> = payloads
        .iter()
        .filter_map(|p| match p {
            Payload::Notify(n) => Some(n.kind),
            _ => None,
        })
        .collect();
    let count = |kind| kinds.iter().filter(|k| **k == kind).count();
    let sync = count(NotifyKind::IKEV2_MESSAGE_ID_SYNC);
    let replay = count(NotifyKind::IPSEC_REPLAY_COUNTER_SYNC);
    sync == 1 && replay <= 1 && sync + replay == payloads.len()
}

/// RFC 6311 section 5.1: what the peer answers to (M1, P1), from its own next Message IDs; both
/// windows then stand there. R19, R20, R42, R43: pending requests and responses are not waited for.
pub(super) fn agree(
    asked: MessageIdSync,
    next_request: MessageId,
    expected: MessageId,
) -> MessageIdSync {
    MessageIdSync {
        nonce: asked.nonce,
        send: asked.receive.max(next_request),
        receive: asked.send.max(expected),
    }
}

/// As peer: answers a new active member (R9, R18 to R29).
pub(super) fn answer(
    ike: &mut IkeSa,
    turn: &mut Turn<'_>,
    path: Path,
    datagram: &[u8],
    payloads: &[Payload],
) {
    if !ike.message_id_sync {
        return turn.drop(path.remote, "synchronisation was not negotiated");
    }
    if let Some(answered) = &ike.answered_sync
        && answered.request == datagram
        && answered.expected == ike.window.expected
    {
        // H1: repeated while nothing newer was seen.
        let response = answered.response.clone();
        turn.immediate.push(path.transmit(response));
        return;
    }
    let contents = Contents::of(payloads);
    let asked = contents
        .notify(NotifyKind::IKEV2_MESSAGE_ID_SYNC)
        .and_then(MessageIdSync::parse);
    let Some(asked) = asked else {
        return turn.drop(path.remote, "malformed synchronisation");
    };
    // R18: M1 must be above everything seen from the cluster, earlier synchronisations included.
    let seen = ike.answered_sync.as_ref().map(|a| a.send);
    if asked.send < ike.window.expected || seen.is_some_and(|seen| asked.send <= seen) {
        return turn.drop(path.remote, "stale synchronisation");
    }
    // RFC 7296 section 2.2: whoever is so near to the end has closed the IKE SA.
    if !may_be_declared(asked.send.max(asked.receive)) {
        return turn.drop(path.remote, "synchronisation at the end of the message IDs");
    }
    // R20: "1 + the highest sender value used", by a probe too.
    let agreed = agree(asked, ike.unused(), ike.window.expected);
    let header = ike.header(Exchange::Informational, true, MessageId(0));
    let Some(response) = ike.seal(turn, &header, &[agreed.payload()]) else {
        return;
    };
    ike.alive(turn, path);
    ike.probe = None;
    ike.window.synchronise(agreed.send, agreed.receive);
    ike.answered_sync = Some(AnsweredSync {
        request: datagram.to_vec(),
        response: response.clone(),
        send: asked.send,
        expected: agreed.receive,
    });
    turn.transmits.push(path.transmit(response));
    turn.dirty = true;
    turn.events
        .push(Event::MessageIdSynced { ike: ike.local_spi });
    // R28: the Message IDs come first, for they may drop the whole message.
    replay_counters(ike, turn, &contents);
    // The cluster no longer expects what is outstanding: it is asked anew with a new Message ID.
    ike.abandon(turn);
    ike.advance(turn);
}

impl IkeSa {
    /// Whether replay counters can be synchronised: both asserted it, and all Child SAs use ESN, or none
    /// (R31), which another file may have changed since.
    pub fn synchronises_replay(&self) -> bool {
        let mut esn = self.children.iter().map(|child| child.sa.esn);
        let first = esn.next();
        self.replay_counter_sync && esn.all(|other| Some(other) == first)
    }
}

/// As peer: IPSEC_REPLAY_COUNTER_SYNC, alone or beside the other (R28, R29).
pub(super) fn replay_counters(ike: &mut IkeSa, turn: &mut Turn<'_>, contents: &Contents<'_>) {
    let Some(notify) = contents.notify(NotifyKind::IPSEC_REPLAY_COUNTER_SYNC) else {
        return;
    };
    if !ike.replay_counter_sync {
        return turn.drop(ike.path.remote, "replay counter sync was not negotiated");
    }
    if !ike.synchronises_replay() {
        return turn.drop(ike.path.remote, "replay counter sync with and without ESN");
    }
    let delta = match notify.data.as_slice() {
        data if notify.protocol != 0 || !notify.spi.is_empty() || data.is_empty() => None,
        data => delta_of(data),
    };
    let Some(delta) = delta else {
        return turn.drop(ike.path.remote, "malformed replay counter sync");
    };
    // H3: a greater jump breaks the receiver's inference of the high half.
    if delta > MAX_REPLAY_DELTA {
        return turn.drop(ike.path.remote, "replay counter delta too great");
    }
    turn.dirty = true;
    turn.events.push(Event::ReplayCounterSync {
        ike: ike.local_spi,
        children: ike.children.iter().map(|c| c.sa.id).collect(),
        delta,
        esn: ike.children.iter().any(|c| c.sa.esn),
    });
}

fn delta_of(data: &[u8]) -> Option<u64> {
    match data.len() {
        4 => Some(u64::from(u32::from_be_bytes(data.try_into().ok()?))),
        8 => Some(u64::from_be_bytes(data.try_into().ok()?)),
        _ => None,
    }
}

/// IPSEC_REPLAY_COUNTER_SYNC: eight octets with ESN, four without (R31, RFC 6311 section 6.4).
fn replay_payload(ike: &IkeSa, delta: u64) -> Payload {
    let esn = ike.children.first().is_some_and(|c| c.sa.esn);
    let short = u32::try_from(delta).unwrap_or(u32::MAX).to_be_bytes();
    let data = if esn {
        delta.to_be_bytes().to_vec()
    } else {
        short.to_vec()
    };
    Payload::notify(NotifyKind::IPSEC_REPLAY_COUNTER_SYNC, &data)
}

/// As cluster, with Message IDs that are known exactly: only the replay counters are synchronised,
/// in a regular INFORMATIONAL (R11, RFC 6311 section 5 case 2). Nothing is sent if the peer cannot,
/// the delta is none or too great, or the window is full.
pub(super) fn replay_only(ike: &mut IkeSa, turn: &mut Turn<'_>, delta: u64) {
    let possible = ike.synchronises_replay() && (1..=MAX_REPLAY_DELTA).contains(&delta);
    if possible && ike.allows(&Task::Liveness) && ike.state == State::Established {
        let payload = replay_payload(ike, delta);
        ike.request(turn, Exchange::Informational, &[payload], Pending::Liveness);
        turn.events.push(Event::ReplayCounterSyncSent {
            ike: ike.local_spi,
            delta,
        });
    }
}

/// As cluster: starts the synchronisation after a takeover (R8, R10, R12).
pub(super) fn start(ike: &mut IkeSa, turn: &mut Turn<'_>, delta: Option<u64>) {
    // R14, R15, R17: above all that the old active used or a former synchronisation declared.
    let known = ike.sync.as_ref().map(|s| s.values.send);
    let next = known.map_or(ike.unused(), |known| known.max(ike.unused()));
    // The peer takes nothing below what is declared any more: probes would go on in vain, and end it.
    // Their Message IDs stay used.
    ike.window.next_request = ike.unused();
    ike.probe = None;
    turn.events
        .push(Event::MessageIdSyncSent { ike: ike.local_spi });
    send(ike, turn, above(next), delta, 0);
}

fn above(known: MessageId) -> MessageId {
    MessageId(known.0.saturating_add(MARGIN))
}

fn send(ike: &mut IkeSa, turn: &mut Turn<'_>, first: MessageId, delta: Option<u64>, rounds: u32) {
    if !may_be_declared(first) {
        return ike.lose(turn, "its message IDs are used up");
    }
    let values = MessageIdSync {
        nonce: nonce(turn.entropy),
        send: first,
        // R16: last received + 1.
        receive: ike.window.expected,
    };
    let mut payloads = vec![values.payload()];
    if let Some(delta) = delta.filter(|_| ike.synchronises_replay()) {
        payloads.push(replay_payload(ike, delta));
    }
    // R24: Message ID 0.
    let header = ike.header(Exchange::Informational, false, MessageId(0));
    let Some(bytes) = ike.seal(turn, &header, &payloads) else {
        return;
    };
    ike.sync = Some(CounterSync {
        values,
        delta,
        bytes: bytes.clone(),
        sent: 1,
        rounds,
        resend_at: turn.now + turn.backoff().after(1),
    });
    ike.transmit(turn, bytes);
}

fn nonce(entropy: &mut dyn Entropy) -> [u8; 4] {
    let mut nonce = [0; 4];
    entropy.fill(&mut nonce);
    nonce
}

/// As cluster: retransmits; then asks afresh with higher values (H1), still the same failover event
/// (R35).
pub(super) fn tick(ike: &mut IkeSa, turn: &mut Turn<'_>) {
    let backoff = turn.backoff();
    let Some(sync) = &mut ike.sync else {
        return;
    };
    if turn.now < sync.resend_at {
        return;
    }
    if sync.sent <= RETRANSMISSIONS {
        sync.sent += 1;
        sync.resend_at = turn.now + backoff.after(sync.sent);
        let bytes = sync.bytes.clone();
        turn.immediate.push(ike.path.transmit(bytes));
        return;
    }
    let (rounds, delta, next) = (sync.rounds + 1, sync.delta, above(sync.values.send));
    if rounds == ROUNDS {
        return ike.lose(turn, "no answer to the synchronisation");
    }
    send(ike, turn, next, delta, rounds);
}

/// As cluster: the peer answered. Anything else is dropped until then (R38).
pub(super) fn complete(
    ike: &mut IkeSa,
    turn: &mut Turn<'_>,
    path: Path,
    header: &Header,
    payloads: &[Payload],
) {
    let Some(sync) = &ike.sync else {
        return;
    };
    let shape = header.exchange == Exchange::Informational
        && header.message_id == MessageId(0)
        && payloads.len() == 1;
    let answer = Contents::of(payloads)
        .notify(NotifyKind::IKEV2_MESSAGE_ID_SYNC)
        .and_then(MessageIdSync::parse)
        .filter(|_| shape);
    let Some(answer) = answer else {
        return turn.drop(path.remote, "synchronising");
    };
    // R22: another nonce answers another request.
    if answer.nonce != sync.values.nonce {
        return turn.drop(path.remote, "synchronisation with another nonce");
    }
    // R19, R20: the peer only raises what we declared.
    if answer.receive < sync.values.send || answer.send < sync.values.receive {
        return turn.drop(path.remote, "synchronisation with lower values");
    }
    if !are_left(answer.receive.max(answer.send)) {
        return turn.drop(path.remote, "synchronisation at the end of the message IDs");
    }
    ike.sync = None;
    ike.synchronised = true;
    ike.abandon(turn);
    let next_request = answer.receive.max(ike.window.next_request);
    let expected = answer.send.max(ike.window.expected);
    ike.window.synchronise(next_request, expected);
    ike.alive(turn, path);
    turn.dirty = true;
    turn.events
        .push(Event::MessageIdSynced { ike: ike.local_spi });
    ike.advance(turn);
}

#[cfg(test)]
mod asserted;
#[cfg(test)]
mod failovers;
#[cfg(test)]
mod numbers;
#[cfg(test)]
mod rules;

#[cfg(test)]
mod tests {
    use super::*;

    /// Values as (EXPECTED_SEND, EXPECTED_RECV).
    fn exchange(member: (u32, u32), peer: (u32, u32)) -> (u32, u32) {
        let asked = MessageIdSync {
            nonce: [1; 4],
            send: MessageId(member.0),
            receive: MessageId(member.1),
        };
        let agreed = agree(asked, MessageId(peer.0), MessageId(peer.1));
        assert_eq!(agreed.nonce, [1; 4], "R21");
        (agreed.send.0, agreed.receive.0)
    }

    #[test]
    fn the_arithmetic_of_rfc6311_appendix_a() {
        assert_eq!(exchange((0, 5), (5, 0)), (5, 0), "A.1");
        assert_eq!(exchange((2, 3), (4, 5)), (4, 5), "A.2");
        assert_eq!(exchange((2, 5), (2, 4)), (5, 4), "A.3");
        assert_eq!(exchange((4, 4), (5, 5)), (5, 5), "A.4");
        assert_eq!(exchange((5, 5), (4, 4)), (5, 5), "A.4, the other way");
    }

    #[test]
    fn the_notification_is_nonce_send_receive_rfc6311_6_3() {
        let values = MessageIdSync {
            nonce: [1, 2, 3, 4],
            send: MessageId(5),
            receive: MessageId(6),
        };
        let Payload::Notify(notify) = values.payload() else {
            panic!("a notification")
        };
        assert_eq!(notify.kind, NotifyKind(16422));
        assert_eq!(notify.data, [1, 2, 3, 4, 0, 0, 0, 5, 0, 0, 0, 6]);
        assert_eq!(MessageIdSync::parse(&notify), Some(values));
        for length in 0..12 {
            let mut short = notify.clone();
            short.data.truncate(length);
            assert_eq!(MessageIdSync::parse(&short), None);
        }
    }

    #[test]
    fn only_the_two_notifications_make_a_synchronisation_rfc6311_5_1() {
        let values = MessageIdSync {
            nonce: [0; 4],
            send: MessageId(1),
            receive: MessageId(1),
        };
        let replay = Payload::notify(NotifyKind::IPSEC_REPLAY_COUNTER_SYNC, &[0; 4]);
        let other = Payload::notify(NotifyKind::INITIAL_CONTACT, &[]);
        assert!(only_sync(&[values.payload()]));
        assert!(only_sync(&[values.payload(), replay.clone()]));
        assert!(!only_sync(&[values.payload(), other]));
        assert!(!only_sync(&[values.payload(), values.payload()]));
        assert!(!only_sync(std::slice::from_ref(&replay)), "H4");
        assert!(!only_sync(&[]));
    }
}

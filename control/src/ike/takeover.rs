//! How a new active member resumes an IKE SA (`takeover = auto | exact | ...`).

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use hitless_sa::{Entropy, IkeSpi, Instant, MessageId, Spi};

use super::engine::Engine;
use super::established::{IkeSa, State};
use super::export::{self, Imported};
use super::inform;
use super::output::Resume;
use super::probe::Probe;
use super::settings::Takeover;
use super::tasks::Task;
use super::turn::Turn;
use crate::allowance::Allowance;

/// Greatest delta that IPSEC_REPLAY_COUNTER_SYNC may carry: only 32 bits travel, and the receiver
/// of a jump must still infer the high half (RFC 4303 appendix A, decision H3).
pub const MAX_REPLAY_DELTA: u64 = (1 << 32) - (1 << 20);

/// Transmissions that go unanswered by chance.
const UNANSWERED: u32 = 2;
/// How often the Message IDs of an IKE SA are found out again in one leadership.
const DOUBTS: u8 = 3;
/// More Message IDs than another leader can have used up, declared ones included.
const LEAP: u32 = 1 << 20;
/// Foreign SPIs of one IKE SA that are remembered.
const FOREIGN: usize = 8;
/// And that wait to be asked of: they go in one request.
pub(super) const FOREIGN_WAITING: usize = 256;
/// Such a request costs so much of the time: whoever forges ESP costs no more messages.
const QUESTION: Duration = Duration::from_micros(500);
/// So much of it may come at once, for each tunnel of a cluster that was split may need one.
const QUESTIONS: Duration = Duration::from_secs(1);

/// Peers are asked of SPIs that nobody here knows.
#[derive(Default)]
pub(super) struct Questions {
    allowance: Allowance,
    /// Of more IKE SAs than can be asked at once, the first.
    first: usize,
}

impl Questions {
    fn affords(&mut self, now: Instant) -> bool {
        let affords = self.allowance.is_left(now, QUESTIONS);
        if affords {
            self.allowance.spend(now, QUESTION);
            self.first = self.first.wrapping_add(1);
        }
        affords
    }
}

/// What is known of an IKE SA that decides how it can be resumed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Facts {
    /// Both sides asserted IKEV2_MESSAGE_ID_SYNC_SUPPORTED (R6, RFC 6311 section 5).
    pub message_id_sync: bool,
    /// Both sides asserted IPSEC_REPLAY_COUNTER_SYNC_SUPPORTED.
    pub replay_counter_sync: bool,
    /// The IKE cipher is combined-mode: strongSwan then destroys the IKE SA when it answers a
    /// Message ID synchronisation, for it derives its IV from the Message ID.
    pub combined_mode: bool,
}

/// The way to resume. `exact`: the Message IDs in our record are vouched for (R16 of the lease
/// rules). `delta`: inbound numbers that the peer should skip, if any.
pub fn resume(policy: Takeover, exact: bool, facts: Facts, delta: Option<u64>) -> Resume {
    let synchronise = || Resume::MessageIdSync {
        replay_delta: delta
            .filter(|d| facts.replay_counter_sync && (1..=MAX_REPLAY_DELTA).contains(d)),
    };
    match policy {
        Takeover::Exact => Resume::Exact,
        Takeover::Probe => Resume::Probe,
        Takeover::Auto if exact => Resume::Exact,
        // The requests that rekey need Message IDs as well: one that the peer has answered already
        // is taken for a repetition, and its old answer would be taken for the answer to ours.
        Takeover::Rekey if exact => Resume::Rekey,
        Takeover::Auto | Takeover::Rekey if facts.message_id_sync && !facts.combined_mode => {
            synchronise()
        }
        // Asked for by name, the risk with combined-mode ciphers is the user's.
        Takeover::MessageIdSync if facts.message_id_sync => synchronise(),
        Takeover::Auto | Takeover::MessageIdSync | Takeover::Rekey => Resume::Probe,
    }
}

/// The way to resume one whose Message IDs nobody vouches for.
pub(super) fn inexactly(ike: &IkeSa) -> Resume {
    resume(ike.connection.takeover, false, ike.facts(), None)
}

/// The same of one that this leadership has resumed: it synchronises once (R35, RFC 6311 section 7), and
/// tries from then on.
fn again(ike: &IkeSa) -> Resume {
    match inexactly(ike) {
        Resume::MessageIdSync { .. } if ike.synchronised => Resume::Probe,
        how => how,
    }
}

/// Whether there is anything to find out of its Message IDs, but for what probes may find.
fn may_find_out(ike: &IkeSa) -> bool {
    let asking = ike.sync.is_some() || ike.owed.is_some();
    let done = ike.doubts >= DOUBTS || ike.state == State::Gone;
    !asking && !done && ike.connection.takeover != Takeover::Exact
}

/// The peer's Message IDs are not those of our record. Even an exact record is overtaken if the old
/// active lives on behind a partition and goes on with the peer, and so is a leader that was deposed
/// there and leads again: then the other may also have replaced or deleted Child SAs. So the Message
/// IDs are found out as after an inexact takeover, and every Child SA is replaced: one that the peer
/// has no more is answered by CHILD_SA_NOT_FOUND. A few times for each takeover; false if there is
/// nothing to find out any more.
fn find_out(ike: &mut IkeSa, turn: &mut Turn<'_>, how: Resume) -> bool {
    if ike.probe.is_some() || !may_find_out(ike) {
        return false;
    }
    ike.doubts += 1;
    turn.dirty = true;
    ike.resynchronise(turn, how);
    ike.replace_children(turn);
    true
}

/// The peer's own words prove it: an answer to another request than ours, or a request after one
/// that we never saw. What is outstanding was never taken. Once for each takeover: loss alone must
/// not look like it.
pub(super) fn doubt(ike: &mut IkeSa, turn: &mut Turn<'_>) -> bool {
    let doubted = ike.inherited && find_out(ike, turn, again(ike));
    if doubted {
        ike.inherited = false;
        ike.abandon(turn);
    }
    doubted
}

/// A request of ours is to be sent again: has another leader used its Message ID, so that the peer
/// will never answer it (RFC 7296 section 2.3)? Asked if the peer sends on an SPI that only another
/// leader can have given it; not if the request was sent once, for that may be loss. It may still be
/// loss, and an SPI can be forged by anybody: so the request stays outstanding while the Message IDs
/// above it are tried, and its answer counts. Were it given up, what the peer makes for it would
/// linger there, and a peer that never had it would take nothing above it. For the same reason they
/// are tried by probes, whatever the peer could do better: a Message ID synchronisation ends what is
/// outstanding (R38, R42, RFC 6311 sections 8.1 and 9).
pub(super) fn ignored(ike: &mut IkeSa, turn: &mut Turn<'_>, id: MessageId) -> bool {
    let sent = ike.window.outstanding.get(&id).map_or(0, |o| o.sent);
    if sent <= UNANSWERED || ike.foreign.is_empty() || !find_out(ike, turn, Resume::Probe) {
        return false;
    }
    // Once more before the first probe, which lets a peer forget its answer.
    if let Some(request) = ike.window.outstanding.get(&id) {
        let again = request.bytes.clone();
        ike.transmit(turn, again);
    }
    if let Some(probe) = ike.probe.as_mut() {
        probe.wait(turn.now);
    }
    // The peer may have deleted what we had: what is missing is made before the former leader's is
    // deleted. That was asked for already, in a request that is given up now.
    let configured = &ike.connection.children;
    let wanted = configured
        .iter()
        .filter(|child| child.start || configured.len() == 1);
    let missing: Vec<String> = wanted
        .map(|child| child.name.clone())
        .filter(|child| !ike.serves(child))
        .collect();
    for child in missing {
        ike.schedule(turn.now, Task::CreateChild(child));
    }
    for spi in std::mem::take(&mut ike.foreign) {
        inform::delete_later(ike, turn, turn.now, spi);
    }
    true
}

/// The same when a request was repeated in vain until now. A peer that has lost the IKE SA must not
/// keep the tunnel down for as long again.
pub(super) fn doubt_silence(ike: &mut IkeSa, turn: &mut Turn<'_>) -> bool {
    let doubted = doubt(ike, turn);
    if let Some(probe) = ike.probe.as_mut().filter(|_| doubted) {
        probe.hurry();
    }
    if let Some(sync) = ike.sync.as_mut().filter(|_| doubted) {
        sync.hurry();
    }
    doubted
}

/// Goes on where another leader of this IKE SA came to. It may have declared Message IDs far above ours
/// (RFC 6311 section 5.1, R14), which nobody would find by trying. What it had asked, or what we asked
/// meanwhile at the same place, the peer may not have heard, and then takes nothing above it (RFC 7296
/// section 2.3): so those are the first probes, the same octets again (S4). What it had answered is
/// answered in the same way.
fn go_on_behind(ike: &mut IkeSa, turn: &mut Turn<'_>, theirs: &IkeSa) -> bool {
    let unused = ike.unused();
    let declared = theirs.sync.as_ref().map(|sync| sync.values.send);
    let next = declared.map_or(theirs.unused(), |send| send.max(theirs.unused()));
    let ahead = next.0.saturating_sub(ike.window.next_request.0);
    if !may_find_out(ike) || !(1..=LEAP).contains(&ahead) {
        return false;
    }
    let (mut own, mut of_theirs) = (asked(ike), asked(theirs));
    // The peer has answered all below.
    let oldest = of_theirs.first_key_value().map_or(next, |(id, _)| *id);
    let mut sent = own.split_off(&oldest);
    sent.append(&mut of_theirs.split_off(&unused));
    ike.abandon(turn);
    ike.probe = None;
    ike.window.next_request = unused.max(next);
    if theirs.window.expected > ike.window.expected {
        ike.window.expected = theirs.window.expected;
        ike.window.gaps.clone_from(&theirs.window.gaps);
        ike.window.responses.clone_from(&theirs.window.responses);
    }
    let found = find_out(ike, turn, again(ike));
    if let Some(probe) = &mut ike.probe {
        *probe = Probe::resumed(turn.now, sent.into_iter().collect());
    }
    found
}

/// What waits for its answer, probes with it.
fn asked(ike: &IkeSa) -> BTreeMap<MessageId, Vec<u8>> {
    let outstanding = ike.window.outstanding.iter();
    let outstanding = outstanding.map(|(id, request)| (*id, request.bytes.clone()));
    let probes = ike.probe.iter().flat_map(|probe| probe.sent.clone());
    outstanding.chain(probes).collect()
}

impl Engine {
    /// A member that led the same IKE SA behind a partition, and leads it no more, has kept what it
    /// made of it, Child SAs of these SPIs among it. False if that is not ahead of ours, or there is
    /// nothing to find out any more.
    pub fn overtaken(
        &mut self,
        now: Instant,
        entropy: &mut dyn Entropy,
        (ike, version, body): (IkeSpi, u64, &[u8]),
        asked: &dyn Fn(Spi) -> bool,
    ) -> bool {
        let kept = export::read(now, &self.by_name, version, body);
        let Ok(Imported::IkeSa(theirs)) = kept else {
            return false;
        };
        let meant = theirs.children.iter().any(|c| asked(c.sa.inbound_spi));
        let mut overtaken = false;
        if theirs.local_spi == ike && meant {
            self.with(now, entropy, ike, |ike, turn| {
                overtaken = go_on_behind(ike, turn, &theirs);
            });
        }
        overtaken
    }

    /// The peer has a Child SA that nobody here knows: a former leader made it and died with it.
    /// We make what is missing of its connection anew, then ask the peer to delete that one, which
    /// it knows by the SPI that we should receive on (RFC 7296 section 1.4.1).
    pub(super) fn unknown_spi(
        &mut self,
        now: Instant,
        entropy: &mut dyn Entropy,
        source: IpAddr,
        spi: Spi,
    ) {
        // Several tunnels may end there; only one of them knows the SPI, and no other minds.
        let at = self.index.at(source).filter_map(|ike| self.sas.get(&ike));
        let with_peer: Vec<&IkeSa> = at.map(|ike| &**ike).collect();
        let mut children = with_peer.iter().flat_map(|sa| &sa.children);
        if children.any(|child| child.sa.inbound_spi == spi) {
            return;
        }
        let up = with_peer.iter().filter(|sa| sa.state == State::Established);
        let mut found: Vec<IkeSpi> = up.map(|sa| sa.local_spi).collect();
        let first = self.foreign.first.checked_rem(found.len());
        found.rotate_left(first.unwrap_or(0));
        for ike in found {
            let Some(sa) = self.sas.get(&ike) else {
                continue;
            };
            let waiting = sa.waiting_deletions();
            let another = waiting == 0 && self.foreign.affords(now);
            if !another && !(1..FOREIGN_WAITING).contains(&waiting) {
                continue;
            }
            let configured = &sa.connection.children;
            let wanted = configured
                .iter()
                .filter(|c| c.start || configured.len() == 1);
            let connection = sa.connection.name.clone();
            let missing: Vec<String> = wanted
                .map(|child| child.name.clone())
                .filter(|child| !self.serves(&connection, child, |_| true))
                .collect();
            self.with(now, entropy, ike, |ike, turn| {
                for child in missing {
                    ike.schedule(turn.now, Task::CreateChild(child));
                }
                inform::delete_later(ike, turn, turn.now, spi);
                if ike.foreign.len() < FOREIGN && !ike.foreign.contains(&spi) {
                    ike.foreign.push(spi);
                }
                // The next repetition may be seconds away, and nothing else goes before it.
                let mut waiting = ike.window.outstanding.iter();
                let overdue = waiting.find(|(_, request)| request.sent > UNANSWERED);
                if let Some(id) = overdue.map(|(id, _)| *id) {
                    ignored(ike, turn, id);
                }
                ike.advance(turn);
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_plan_for_each_policy() {
        let none = Facts::default();
        let both = Facts {
            message_id_sync: true,
            replay_counter_sync: true,
            combined_mode: false,
        };
        let ids_only = Facts {
            replay_counter_sync: false,
            ..both
        };
        let aead = Facts {
            combined_mode: true,
            ..both
        };
        let sync = |replay_delta| Resume::MessageIdSync { replay_delta };
        use Takeover::{Auto, Exact, MessageIdSync, Probe, Rekey};
        let table = [
            (Auto, true, both, Some(9), Resume::Exact),
            (Auto, false, both, Some(9), sync(Some(9))),
            (Auto, false, both, None, sync(None)),
            (Auto, false, both, Some(0), sync(None)),
            (
                Auto,
                false,
                both,
                Some(MAX_REPLAY_DELTA),
                sync(Some(MAX_REPLAY_DELTA)),
            ),
            (Auto, false, both, Some(MAX_REPLAY_DELTA + 1), sync(None)),
            (Auto, false, ids_only, Some(9), sync(None)),
            (Auto, false, aead, Some(9), Resume::Probe),
            (Auto, false, none, Some(9), Resume::Probe),
            (Exact, false, both, None, Resume::Exact),
            (MessageIdSync, true, both, None, sync(None)),
            (MessageIdSync, false, aead, None, sync(None)),
            (MessageIdSync, true, none, None, Resume::Probe),
            (Probe, true, both, None, Resume::Probe),
            (Rekey, true, both, None, Resume::Rekey),
            (Rekey, false, both, None, sync(None)),
            (Rekey, false, aead, None, Resume::Probe),
        ];
        for (policy, exact, facts, delta, expected) in table {
            assert_eq!(
                resume(policy, exact, facts, delta),
                expected,
                "{policy:?} exact={exact} {facts:?} {delta:?}"
            );
        }
    }
}

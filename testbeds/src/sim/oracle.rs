//! What must hold, judged from outside: the frames that left the members, and what the hosts got.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use hitless::audit::wire::{self, Esp, Frame, Ike};
use hitless::audit::{Audit, Exchange, IkeEvent, Report, TapId};
use hitless::gateway::Event;
use hitless::lab::{Host, Probe};
use hitless_sa::{Epoch, Instant, Spi};

use super::continuity::Continuity;
use super::plan::Plan;
use super::secrecy::{self, Secrecy, is_error_in_clear};

const IKE_SESSION_RESUME: Exchange = Exchange::Other(38);
/// SPIs, direction, IV.
type SkIv = (u64, u64, bool, Vec<u8>);

/// A member began to lead.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Reign {
    at: Duration,
    who: TapId,
    /// Its first one: a leader may take higher ones without a word.
    epoch: Epoch,
    /// The reign that it is the successor of, if it knows all that was sent in that one.
    exact: Option<usize>,
}

/// First and last number, by who used them and in which of its reigns.
type Ranges = BTreeMap<(u8, usize), (u64, u64)>;

/// Watches one run.
#[derive(Default)]
pub struct Oracle {
    /// Each gateway is a tap of its own; that of the peer is 0.
    audit: Audit,
    /// The key of an SPI as a member uses it.
    keys: BTreeMap<(u8, u32), u64>,
    /// Who sent a number of a key, and when.
    numbers: BTreeMap<(Option<u64>, u32, u64), (u8, Instant)>,
    repeated: Vec<String>,
    /// Every IV of an SK payload, and the message that had it.
    sk_ivs: BTreeMap<SkIv, u64>,
    repeated_sk_ivs: u64,
    reigns: Vec<Reign>,
    /// The lowest and the highest number of a key that each leadership used.
    ranges: BTreeMap<u64, Ranges>,
    /// Members of the cluster: the other machines are those of the peer.
    members: u8,
    /// Output commit is the one rule that needs clocks, of bounded rate.
    clocks_jump: bool,
    secrecy: Secrecy,
    continuity: Option<Continuity>,
    /// The cipher of ESP has IVs of its own, or shows none: its numbers are those that are sent.
    own_ivs: bool,
}

impl Oracle {
    /// For a cluster of so many members.
    fn new(members: u8) -> Oracle {
        Oracle {
            members,
            ..Oracle::default()
        }
    }

    /// For a plan that starts at `epoch`. The tunnels are to go on as they are, if that is promised; S2
    /// is a promise of ciphers whose IV on the wire is of eight octets.
    pub fn watching(plan: &Plan, epoch: Instant) -> Oracle {
        let mut words = plan.esp_proposal.split('-');
        Oracle {
            continuity: Continuity::of(plan, epoch),
            own_ivs: words.any(|word| word.starts_with("sha") || word.ends_with("iiv")),
            ..Oracle::new(plan.members)
        }
    }

    /// The longest silence where continuity was promised.
    pub fn silence(&self, hosts: [&Host; 2], end: Instant) -> Option<Duration> {
        let continuity = self.continuity.as_ref()?;
        Some(continuity.silence(hosts.map(Host::received), end))
    }

    /// What every sync message of a cluster has in it, in clear nowhere.
    pub fn marked(&mut self, digest: &[u8; 32]) {
        self.secrecy.marked(digest);
    }

    fn is_peer(&self, tap: TapId) -> bool {
        tap.0 == 0 || tap.0 > u16::from(self.members)
    }

    /// A frame has left a gateway (0 is the peer) on the outside.
    pub fn sent(&mut self, now: Instant, who: u8, frame: &[u8], keys: &[(Spi, u64)]) {
        let at = Duration::from_nanos(now.0);
        self.secrecy.outside(who, frame);
        match wire::decode(frame) {
            // The audit's own ledger has nothing to add to what is kept of it here.
            Frame::Esp(esp) => return self.numbered(now, who, &esp, keys),
            Frame::Ike(ike) => {
                self.secrecy.ike(&format!("machine {who}"), ike.message);
                // An error in clear answers what nobody may have sent, and is not a version of
                // anything (RFC 7296 section 2.21).
                if is_error_in_clear(ike.message) {
                    return;
                }
                if let Some(continuity) = &mut self.continuity {
                    continuity.sent(now, who, &ike);
                }
                self.sealed(&ike);
            }
            _ => {}
        }
        self.audit.observe(TapId(u16::from(who)), at, frame);
    }

    /// S1: one key, one number, one packet. Nothing that a gateway sends is sent again.
    fn numbered(&mut self, now: Instant, who: u8, esp: &Esp<'_>, keys: &[(Spi, u64)]) {
        let key = keys.iter().find(|(spi, _)| spi.0 == esp.spi);
        if let Some((_, key)) = key {
            self.keys.insert((who, esp.spi), *key);
        }
        // One that is gone again already is taken for the one that others know by that SPI.
        let others = || {
            let mut known = self.keys.iter().filter(|((_, spi), _)| *spi == esp.spi);
            known.next().map(|(_, key)| key)
        };
        let known = self.keys.get(&(who, esp.spi)).or_else(others).copied();
        let iv = match self.own_ivs {
            // No course has as many packets as four octets count.
            true => u64::from(esp.sequence),
            false => esp.iv,
        };
        // A key is one whatever SPI it goes by.
        let spi = known.map_or(esp.spi, |_| 0);
        let number = (known, spi, iv);
        if let Some((first, then)) = self.numbers.insert(number, (who, now)) {
            self.repeated.push(format!(
                "SPI {:08x} number {iv} by {first} at {} and by {who} at {}",
                esp.spi, then.0, now.0
            ));
        }
        if let Some(key) = known {
            let reign = self
                .reigns
                .iter()
                .filter(|r| r.who == TapId(u16::from(who)));
            let ranges = self.ranges.entry(key).or_default();
            let range = ranges.entry((who, reign.count())).or_insert((iv, iv));
            *range = (range.0.min(iv), range.1.max(iv));
        }
        if iv as u32 != esp.sequence {
            self.repeated
                .push(format!("SPI {:08x}: the IV is not the number", esp.spi));
        }
    }

    /// The AEAD IVs of an IKE SA must not repeat either, whoever sends.
    fn sealed(&mut self, ike: &Ike<'_>) {
        let Some(iv) = secrecy::iv(ike) else {
            return;
        };
        let digest = secrecy::digest(ike.message);
        let key = (
            ike.initiator_spi,
            ike.responder_spi,
            ike.initiator,
            iv.to_vec(),
        );
        let first = *self.sk_ivs.entry(key).or_insert(digest);
        self.repeated_sk_ivs += u64::from(first != digest);
    }

    /// S5: what one leadership was granted no other one uses: the numbers of each are a range of
    /// its own, whether or not the ranges happened to hit one number.
    fn overlaps(&self) -> impl Iterator<Item = String> {
        self.ranges.iter().flat_map(|(key, ranges)| {
            let mut sorted: Vec<_> = ranges.iter().collect();
            sorted.sort_by_key(|(_, range)| **range);
            let pairs = sorted.windows(2).filter_map(|pair| match pair {
                [(first, a), (second, b)] if a.1 >= b.0 => Some(format!(
                    "S5: of key {key:x} leadership {first:?} used {a:?}, and {second:?} {b:?}"
                )),
                _ => None,
            });
            pairs.collect::<Vec<_>>()
        })
    }

    /// From now on S4 is not promised.
    pub fn clocks_jump(&mut self) {
        self.clocks_jump = true;
    }

    /// A gateway said something. Only who leads since when is taken from it.
    pub fn said(&mut self, now: Instant, who: u8, event: &Event) {
        if let Some(continuity) = &mut self.continuity {
            continuity.said(now, who, event);
        }
        let Event::Leads {
            epoch, base, exact, ..
        } = event
        else {
            return;
        };
        // Members of either side count from one.
        let first = who.wrapping_sub(epoch.leader.0);
        let base = base.filter(|_| *exact).and_then(|base| {
            let leader = TapId(u16::from(first.wrapping_add(base.leader.0)));
            self.reigns.iter().rposition(|reign| {
                let same = reign.epoch.incarnation == base.incarnation && reign.epoch <= base;
                reign.who == leader && same
            })
        });
        self.reigns.push(Reign {
            at: Duration::from_nanos(now.0),
            who: TapId(u16::from(who)),
            epoch: *epoch,
            exact: base,
        });
    }

    /// Everything that was broken.
    pub fn verdict(&self, hosts: [&Host; 2], end: Instant) -> Vec<String> {
        let mut broken = Vec::new();
        let report = self.audit.clone().report();
        broken.extend(
            self.repeated
                .iter()
                .take(3)
                .map(|what| format!("S1: {what}")),
        );
        broken.extend(self.overlaps().take(1));
        if self.repeated_sk_ivs > 0 {
            broken.push(format!(
                "an IKE SA's IV was used twice: {}",
                self.repeated_sk_ivs
            ));
        }
        let leaked = report.leaked(is_protected);
        if leaked > 0 {
            broken.push(format!("S6: {leaked} packets in clear on the outside"));
        }
        broken.extend(self.secrecy.found());
        if let Some(continuity) = &self.continuity {
            broken.extend(continuity.verdict(hosts.map(Host::received), end));
        }
        for (name, host, other) in [("a", hosts[0], hosts[1]), ("b", hosts[1], hosts[0])] {
            let again = delivered_twice(host.received());
            if !again.is_empty() {
                broken.push(format!("S3: delivered twice to host {name}: {again:?}"));
            }
            let invented = |probe: &&Probe| {
                let sent = usize::try_from(probe.number).ok();
                sent.and_then(|number| other.sent().get(number))
                    .is_none_or(|sent| *sent > probe.at)
            };
            if let Some(probe) = host.received().iter().find(invented) {
                broken.push(format!("host {name} got what nobody sent: {probe:?}"));
            }
            if host.altered() > 0 {
                broken.push(format!(
                    "{} packets arrived altered at host {name}",
                    host.altered()
                ));
            }
        }
        if !self.clocks_jump {
            broken.extend(self.output_commit(&report));
            broken.extend(self.answers_to_zero(&report));
        }
        broken
    }

    /// S4: what an active member has sent its exact successors send again with the same octets or
    /// not at all.
    fn output_commit(&self, report: &Report) -> Vec<String> {
        let mut versions: BTreeMap<MessageKey, Vec<&IkeEvent>> = BTreeMap::new();
        for event in report.ike.iter().filter(|event| is_numbered(event)) {
            versions.entry(key(event)).or_default().push(event);
        }
        let mut broken = Vec::new();
        for events in versions.values() {
            for (index, later) in events.iter().enumerate() {
                let differs = |earlier: &&&IkeEvent| {
                    earlier.digest != later.digest && self.bound(earlier, later)
                };
                if let Some(earlier) = events[..index].iter().find(differs) {
                    broken.push(format!(
                        "S4: one message, two versions: {earlier:?}, {later:?}"
                    ));
                }
            }
        }
        broken
    }

    /// S4 of what is not numbered: a synchronisation is made anew, and each request with its Message ID 0
    /// still has one answer (RFC 6311 section 5.1). Of those who are bound by each other, for each request.
    fn answers_to_zero(&self, report: &Report) -> Vec<String> {
        let mut asked: BTreeMap<MessageKey, BTreeSet<u64>> = BTreeMap::new();
        let mut answers: BTreeMap<MessageKey, Vec<&IkeEvent>> = BTreeMap::new();
        for event in report.ike.iter().filter(|event| synchronises(event)) {
            let (initiator, responder, id, response, side, _) = key(event);
            match response {
                true => answers.entry(key(event)).or_default().push(event),
                false => {
                    let answer = (initiator, responder, id, true, !side, None);
                    asked.entry(answer).or_default().insert(event.digest);
                }
            }
        }
        let mut broken = Vec::new();
        for (key, events) in answers {
            let Some(last) = events.last() else { continue };
            let bound = events.iter().filter(|earlier| self.bound(earlier, last));
            let versions: BTreeSet<u64> = bound.map(|event| event.digest).collect();
            let requests = asked.get(&key).map_or(0, BTreeSet::len);
            if versions.len() > requests {
                let count = versions.len();
                broken.push(format!(
                    "S4: {count} answers to {requests} requests with Message ID 0: {last:?}"
                ));
            }
        }
        broken
    }

    /// Whether the later sender had to know what the earlier one sent, as the same or as a successor of
    /// its successors. Whoever was deposed without knowing it binds nobody and is bound by nobody, itself
    /// included when it leads again as somebody else's successor: the leases keep it harmless to S1 and
    /// S3, and for Message IDs there is RFC 6311.
    fn bound(&self, earlier: &IkeEvent, later: &IkeEvent) -> bool {
        let (Some(before), Some(after)) = (self.reign(earlier), self.reign(later)) else {
            return false;
        };
        let mut reign = Some(after);
        while let Some(at) = reign.filter(|at| *at > before) {
            reign = self.reigns[at].exact;
        }
        reign == Some(before)
    }

    /// The reign in which this was sent, unless it was over.
    fn reign(&self, event: &IkeEvent) -> Option<usize> {
        let side = self.is_peer(event.tap);
        let of_side = |reign: &Reign| self.is_peer(reign.who) == side;
        let last = self
            .reigns
            .iter()
            .rposition(|reign| reign.at <= event.time && of_side(reign))?;
        (self.reigns[last].who == event.tap).then_some(last)
    }
}

/// Whether an address is of a network behind a gateway.
fn is_protected(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.octets()[0] == 10,
        IpAddr::V6(address) => matches!(address.segments(), [0x2001, 0xdb8, 1 | 2, ..]),
    }
}

/// What names an IKE message, or a fragment of one; two of another exchange type with one Message ID
/// are two versions.
type MessageKey = (u64, u64, u32, bool, bool, Option<(u16, u16)>);

fn key(event: &IkeEvent) -> MessageKey {
    (
        event.initiator_spi,
        event.responder_spi,
        event.message_id,
        event.response,
        event.initiator,
        event.fragment,
    )
}

/// Not a Message ID synchronisation, which is made anew each time (RFC 6311 section 5.1), and not
/// before the IKE SA is there: a request to begin one is sent anew with the cookie that it needs (RFC
/// 7296 section 2.6, RFC 5723 section 4.3.2).
fn is_numbered(event: &IkeEvent) -> bool {
    let begins = [Exchange::IkeSaInit, IKE_SESSION_RESUME].contains(&event.exchange);
    !begins && !synchronises(event)
}

/// Whether it may be a Message ID synchronisation: the first ordinary request of a side looks like one.
fn synchronises(event: &IkeEvent) -> bool {
    event.exchange == Exchange::Informational && event.message_id == 0
}

fn delivered_twice(received: &[Probe]) -> Vec<u64> {
    let mut seen = BTreeSet::new();
    received
        .iter()
        .map(|probe| probe.number)
        .filter(|number| !seen.insert(*number))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    use hitless_sa::{Incarnation, MemberId};

    /// What must not show is in the host's own frames: Ethernet, IPv4, and whatever follows.
    fn frame(protocol: u8, source: [u8; 4], payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![2; 12];
        frame.extend_from_slice(&[0x08, 0x00, 0x45, 0]);
        frame.extend_from_slice(&((20 + payload.len()) as u16).to_be_bytes());
        frame.extend_from_slice(&[0, 0, 0, 0, 64, protocol, 0, 0]);
        frame.extend_from_slice(&source);
        frame.extend_from_slice(&[192, 0, 2, 2]);
        frame.extend_from_slice(payload);
        frame
    }

    fn esp(spi: u32, number: u32, iv: u64) -> Vec<u8> {
        let mut packet = spi.to_be_bytes().to_vec();
        packet.extend_from_slice(&number.to_be_bytes());
        packet.extend_from_slice(&iv.to_be_bytes());
        packet.resize(64, 0);
        frame(50, [192, 0, 2, 1], &packet)
    }

    fn verdict(frames: &[(u8, Vec<u8>)]) -> Vec<String> {
        let mut oracle = Oracle::default();
        for (at, (who, frame)) in (1..).zip(frames) {
            oracle.sent(Instant(at), *who, frame, &[(Spi(7), 99), (Spi(8), 99)]);
        }
        let host = || {
            let (end, _) = hitless_dataplane::port::memory::link(4, 1500);
            Host::new(
                end,
                [2; 6],
                hitless::lab::HOST_A,
                hitless::lab::PEER_INSIDE,
                120,
            )
        };
        oracle.verdict([&host(), &host()], Instant(100))
    }

    fn begins(found: &[String], with: &str) -> bool {
        found.iter().any(|what| what.starts_with(with))
    }

    #[test]
    fn what_is_sound_is_not_complained_about() {
        let sound = verdict(&[(1, esp(7, 1, 1)), (1, esp(7, 2, 2)), (2, esp(7, 3, 3))]);
        assert_eq!(sound, Vec::<String>::new());
    }

    #[test]
    fn s1_s2_s5_and_s6_are_noticed() {
        assert!(begins(
            &verdict(&[(1, esp(7, 1, 1)), (2, esp(7, 1, 1))]),
            "S1"
        ));
        let iv = verdict(&[(1, esp(7, 1, 9))]);
        assert!(
            iv.iter()
                .any(|what| what.contains("the IV is not the number")),
            "{iv:?}"
        );
        // The same key under another SPI.
        let renamed = verdict(&[(1, esp(7, 1, 1)), (1, esp(8, 1, 1))]);
        assert!(begins(&renamed, "S1"), "{renamed:?}");
        let ranges = [(1, esp(7, 1, 1)), (2, esp(7, 5, 5)), (1, esp(7, 9, 9))];
        assert!(begins(&verdict(&ranges), "S5"));
        let clear = verdict(&[(1, frame(17, [10, 2, 0, 10], &[0, 9, 0, 9, 0, 8, 0, 0]))]);
        assert!(begins(&clear, "S6"), "{clear:?}");
    }

    /// INFORMATIONAL with Message ID 0.
    fn zero(from: [u8; 4], flags: u8, fill: u8) -> Vec<u8> {
        let mut message = [1_u64, 2].map(u64::to_be_bytes).concat();
        message.extend_from_slice(&[46, 0x20, 37, flags, 0, 0, 0, 0, 0, 0, 0, 60]);
        message.resize(60, fill);
        let mut udp = vec![1, 0xf4, 1, 0xf4, 0, 68, 0, 0];
        udp.extend_from_slice(&message);
        frame(17, from, &udp)
    }

    #[test]
    fn s4_message_id_0_has_one_answer_for_each_request_of_all_who_are_bound() {
        let epoch = |counter, leader| Epoch {
            counter,
            leader: MemberId(leader),
            incarnation: Incarnation(1),
        };
        let leads = |epoch, base| Event::Leads {
            epoch,
            base,
            sas: 1,
            skip: Some(0),
            exact: true,
        };
        // Asked by the peer, answered by 1; then 2 leads and answers.
        let found = |asked: &[u8], second: u8, exact: bool| {
            let mut oracle = Oracle::default();
            oracle.said(Instant(1), 1, &leads(epoch(1, 1), None));
            for fill in asked {
                oracle.sent(Instant(2), 0, &zero([192, 0, 2, 2], 0x08, *fill), &[]);
            }
            oracle.sent(Instant(3), 1, &zero([192, 0, 2, 1], 0x20, 7), &[]);
            let base = exact.then(|| epoch(1, 1));
            oracle.said(Instant(4), 2, &leads(epoch(2, 2), base));
            oracle.sent(Instant(5), 2, &zero([192, 0, 2, 1], 0x20, second), &[]);
            oracle.answers_to_zero(&oracle.audit.clone().report())
        };
        assert!(begins(&found(&[5], 8, true), "S4: 2 answers to 1 requests"));
        for (asked, second, exact) in [(&[5][..], 7, true), (&[5, 6], 8, true), (&[5], 8, false)] {
            assert_eq!(found(asked, second, exact), Vec::<String>::new());
        }
    }
}

//! The drill: before a standby may lead it proves, for each Child SA that it has a copy of, that it
//! could carry it: both halves are made as the workers would get them, and each encrypts a packet in
//! memory and decrypts it again. A copy that cannot be read here, because this member's configuration
//! lacks the connection say, has failed with all its Child SAs, until a reload. So has one that a
//! takeover here would close, because the connection or the child means something else in this file, or
//! that its peer would not find here: this member neither preempts with it nor is handed the lead in a
//! planned switchover, as long as another file or a new copy has not mended it. Where the active dies it
//! leads all the same: what it can carry is worth more than what it cannot.
//!
//! The packet never leaves this file, and its number is one that no cell ever gives out (above 2^63,
//! where leases end): so no nonce of the wire is used, even if it did (S1, S2).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use hitless_dataplane::aead::{Engine as AeadEngine, EspKey};
use hitless_dataplane::cell::Cell;
use hitless_dataplane::esp;
use hitless_dataplane::replay::AntiReplay;
use hitless_dataplane::sad::{InboundSa, OutboundSa};
use hitless_sa::{
    ChildSa, Entropy, IkeSpi, Instant, KeyMaterial, Lease, SaId, SequenceNumber, Spi,
};
use hitless_sync::{Flaw, Input as SyncInput, ObjectId};

use super::{Event, Gateway};
use crate::ike::WouldClose;

/// SAs drilled at a time: some tens of microseconds.
const A_TURN: usize = 32;
/// Above every number that may be sent.
const NUMBER: SequenceNumber = SequenceNumber((1 << 63) + 2);
const NO_NEXT_HEADER: u8 = 59;
const TEXT: &[u8] = b"hitless drill";

/// What is wrong, and how it shows.
type Failure = (Flaw, String);
type Found = Option<Result<(), Failure>>;

/// What each copy of a Child SA was found to be.
#[derive(Default)]
pub(super) struct Drill {
    /// By IKE SA; `None` if it waits for its turn.
    results: BTreeMap<IkeSpi, BTreeMap<SaId, Found>>,
    waiting: VecDeque<(IkeSpi, Arc<ChildSa>)>,
    /// Those whose copies cannot be read.
    unread: BTreeSet<IkeSpi>,
    /// Copies that failed, and whether they are others than the node was told.
    failures: usize,
    changed: bool,
    /// The node was told that copies wait.
    waits: bool,
    /// This member leads: it tries nothing, and its results go with the copies that they are of.
    over: bool,
}

/// What `status` says of the drill.
#[derive(Default)]
pub(super) struct DrillStatus {
    pub passed: u64,
    pub waiting: u64,
    pub failed: Vec<(SaId, Failure)>,
}

impl Drill {
    /// Nothing tried yet, which the node has to hear: it may know of copies that are gone.
    pub fn anew() -> Drill {
        Drill {
            changed: true,
            ..Drill::default()
        }
    }

    /// A new copy of an IKE SA, of which some Child SAs would be closed here: those that passed have
    /// been drilled.
    pub fn stored(
        &mut self,
        ike: IkeSpi,
        children: Vec<Arc<ChildSa>>,
        mut closed: BTreeMap<SaId, Flaw>,
    ) {
        if self.over {
            return;
        }
        let before = self.take(ike);
        let passed = |sa: &SaId| matches!(before.get(sa), Some(Some(Ok(()))));
        let waits = |sa: &SaId| matches!(before.get(sa), Some(None));
        let mut results = BTreeMap::new();
        for child in children {
            let known = match closed.remove(&child.id) {
                Some(flaw) => Some(Err((flaw, here(flaw).to_owned()))),
                None if passed(&child.id) => Some(Ok(())),
                None => None,
            };
            if known.is_none() && !waits(&child.id) {
                self.waiting.push_back((ike, Arc::clone(&child)));
            }
            let failed = matches!(known, Some(Err(_)));
            self.failures += usize::from(failed);
            self.changed |= failed;
            results.insert(child.id, known);
        }
        if !results.is_empty() {
            self.results.insert(ike, results);
        }
    }

    /// A copy that cannot be read: none of its Child SAs could be carried.
    fn refused(&mut self, ike: IkeSpi, children: &[SaId], reason: &str) {
        self.take(ike);
        if self.over {
            return;
        }
        self.unread.insert(ike);
        self.failures += children.len();
        self.changed |= !children.is_empty();
        let failed = |sa: &SaId| (*sa, Some(Err((Flaw::Unread, reason.to_owned()))));
        let results = children.iter().map(failed).collect();
        self.results.insert(ike, results);
    }

    pub fn forget(&mut self, ike: IkeSpi) {
        self.take(ike);
    }

    fn take(&mut self, ike: IkeSpi) -> BTreeMap<SaId, Found> {
        self.unread.remove(&ike);
        let taken = self.results.remove(&ike).unwrap_or_default();
        let failed = taken.values().filter(|r| matches!(r, Some(Err(_))));
        let failed = failed.count();
        self.failures -= failed;
        self.changed |= failed > 0;
        taken
    }

    /// Drills a few; they may have been forgotten meanwhile.
    fn turn(&mut self, engine: AeadEngine) {
        for _ in 0..A_TURN {
            let Some((ike, child)) = self.waiting.pop_front() else {
                return;
            };
            let results = self.results.get_mut(&ike);
            let Some(result) = results.and_then(|results| results.get_mut(&child.id)) else {
                continue;
            };
            if result.is_none() {
                let found = drill(&child, engine).map_err(|reason| (Flaw::Keys, reason));
                self.failures += usize::from(found.is_err());
                self.changed |= found.is_err();
                *result = Some(found);
            }
        }
    }

    /// This member leads.
    pub fn leave(&mut self) {
        self.over = true;
        self.waiting = VecDeque::new();
    }

    /// What is wrong with a copy of an IKE SA.
    fn flaw(&self, ike: IkeSpi) -> Option<Flaw> {
        let mut results = self.results.get(&ike)?.values();
        results.find_map(|result| match result {
            Some(Err((flaw, _))) => Some(*flaw),
            _ => None,
        })
    }

    /// Copies that failed: this member would replace them, or close them.
    fn broken(&self) -> BTreeMap<SaId, Flaw> {
        if self.over || self.failures == 0 {
            return BTreeMap::new();
        }
        let failed = |(sa, result): (&SaId, &Found)| match result {
            Some(Err((flaw, _))) => Some((*sa, *flaw)),
            _ => None,
        };
        self.results.values().flatten().filter_map(failed).collect()
    }

    pub fn status(&self) -> DrillStatus {
        let mut status = DrillStatus::default();
        if self.over {
            return status;
        }
        for (sa, result) in self.results.values().flatten() {
            match result {
                None => status.waiting += 1,
                Some(Ok(())) => status.passed += 1,
                Some(Err(reason)) => status.failed.push((*sa, reason.clone())),
            }
        }
        status
    }
}

fn flaw(why: WouldClose) -> Flaw {
    match why {
        WouldClose::Ends => Flaw::Ends,
        WouldClose::Child => Flaw::Child,
        WouldClose::Address => Flaw::Address,
    }
}

/// What to do about it, to whom it is told here.
fn here(flaw: Flaw) -> &'static str {
    match flaw {
        Flaw::Keys | Flaw::Unread => "",
        Flaw::Ends => "the connection of that name means other ends or users in this member's file",
        Flaw::Child => "its child is not in this member's file, or protects something else there",
        Flaw::Address => {
            "its peer sends to an address that is none of the connection's local_addrs here, and \
             does not follow (MOBIKE)"
        }
    }
}

/// Makes both halves and tries both keys.
fn drill(child: &ChildSa, engine: AeadEngine) -> Result<(), String> {
    let cell = || Arc::new(Cell::new(SequenceNumber(1), Lease::default()));
    let outbound = OutboundSa::new(child, cell(), 0, engine).map_err(|e| e.to_string())?;
    let inbound =
        InboundSa::new(child, cell(), SequenceNumber(0), 0, engine).map_err(|e| e.to_string())?;
    round_trip(&outbound.key, child.outbound_spi).map_err(|e| format!("outbound: {e}"))?;
    round_trip(&inbound.key, child.inbound_spi).map_err(|e| format!("inbound: {e}"))
}

fn round_trip(key: &EspKey, spi: Spi) -> Result<(), &'static str> {
    let sealed = esp::seal_datagram(key, spi, NUMBER, true, NO_NEXT_HEADER, TEXT);
    let mut packet = sealed.map_err(|_| "does not encrypt")?;
    if packet.windows(TEXT.len()).any(|octets| octets == TEXT) {
        return Err("does not encrypt");
    }
    let mut window = AntiReplay::new(64, SequenceNumber(NUMBER.0 - 1));
    let opened = esp::open_datagram(key, true, &mut window, &mut packet);
    let (_, text) = opened.map_err(|_| "does not decrypt what it encrypted")?;
    match packet.get(text) {
        Some(TEXT) => Ok(()),
        _ => Err("decrypts to something else"),
    }
}

impl Gateway {
    /// Tries a new copy at once, but for what a great one leaves to later turns: a standby is ready
    /// again before its leader hears that it was not.
    pub(super) fn drill(&mut self, now: Instant, ike: IkeSpi) {
        let mut children = self.engine.child_sas(ike);
        if self.settings.tuning().broken_copies {
            for child in &mut children {
                Arc::make_mut(child).outbound_key = KeyMaterial::new(&[0; 3]);
            }
        }
        let before = self.drilled.flaw(ike);
        let closed = self.engine.closed_by_takeover(now, ike);
        let closed = closed.into_iter().map(|(sa, why)| (sa, flaw(why)));
        let closed: BTreeMap<SaId, Flaw> = closed.collect();
        if let Some((sa, flaw)) = closed.first_key_value()
            && before != Some(*flaw)
            && !self.drilled.over
        {
            self.tell(Event::WouldClose {
                ike,
                sa: *sa,
                reason: here(*flaw),
            });
        }
        self.drilled.stored(ike, children, closed);
        self.drilled.turn(self.settings.aead());
    }

    /// A standby's copy of an IKE SA cannot be read here: it would be lost with this member's takeover.
    pub(super) fn fail_drill(&mut self, ike: IkeSpi, reason: &str) {
        let children = self.node.copied_children(ObjectId(ike.0));
        self.drilled.refused(ike, children, reason);
    }

    /// Reads once more what could not be read, with another configuration; returns how many are whole.
    pub(super) fn read_again(&mut self, now: Instant) -> usize {
        let unread = self.drilled.unread.clone();
        let read = unread.into_iter().filter(|ike| {
            let copy = self.node.copy(ObjectId(ike.0));
            copy.is_some_and(|(version, body)| self.store(now, *ike, version, &body))
        });
        read.count()
    }

    /// Compares every copy with another configuration.
    pub(super) fn compare_again(&mut self, now: Instant) {
        let unread = &self.drilled.unread;
        let read = self
            .drilled
            .results
            .keys()
            .filter(|ike| !unread.contains(ike));
        for ike in read.copied().collect::<Vec<_>>() {
            self.beat();
            self.drill(now, ike);
        }
    }

    /// Goes on with the drill, and tells the node whether this member is ready to lead.
    pub(super) fn tend_drill(&mut self, now: Instant, entropy: &mut dyn Entropy) {
        self.drilled.turn(self.settings.aead());
        let waits = !self.drilled.waiting.is_empty();
        let changed = std::mem::take(&mut self.drilled.changed);
        if changed || waits != self.drilled.waits {
            self.drilled.waits = waits;
            let input = SyncInput::Ready {
                ready: !waits,
                broken: self.drilled.broken(),
            };
            self.node.handle(now, entropy, input);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hitless_sa::{EspSuite, Incarnation, MemberId, Mode, SaOptions, TrafficSelector};

    fn child(counter: u32, key: usize) -> Arc<ChildSa> {
        let network = |text: [u8; 4]| TrafficSelector::prefix(text.into(), 24).unwrap();
        Arc::new(ChildSa {
            id: SaId {
                creator: MemberId(1),
                incarnation: Incarnation(1),
                counter,
            },
            inbound_spi: Spi(0x1000 + counter),
            outbound_spi: Spi(0x2000 + counter),
            suite: EspSuite::Aes128Gcm16,
            inbound_key: KeyMaterial::new(&[7; 20]),
            outbound_key: KeyMaterial::new(&vec![9; key]),
            esn: false,
            mode: Mode::Tunnel,
            local: [192, 0, 2, 1].into(),
            remote: [192, 0, 2, 2].into(),
            encapsulation: None,
            local_ts: vec![network([10, 2, 0, 0])],
            remote_ts: vec![network([10, 1, 0, 0])],
            replay_window: 64,
            options: SaOptions::default(),
        })
    }

    fn ready(drill: &Drill) -> bool {
        drill.waiting.is_empty() && drill.broken().is_empty()
    }

    #[test]
    fn a_copy_is_ready_once_each_of_its_sas_encrypts_and_decrypts() {
        let mut drill = Drill::default();
        assert!(ready(&drill));
        drill.stored(IkeSpi(1), vec![child(1, 20), child(2, 20)], BTreeMap::new());
        assert!(!ready(&drill));
        drill.turn(AeadEngine::default());
        assert!(ready(&drill));
        assert_eq!(drill.status().passed, 2);
        // A later version of it brings one more: only that is drilled.
        drill.stored(IkeSpi(1), vec![child(2, 20), child(3, 20)], BTreeMap::new());
        assert_eq!(drill.waiting.len(), 1);
        drill.turn(AeadEngine::default());
        assert_eq!(drill.status().passed, 2);
    }

    #[test]
    fn a_copy_with_a_broken_key_is_named_until_it_is_gone() {
        let mut drill = Drill::default();
        drill.stored(IkeSpi(1), vec![child(1, 20), child(2, 3)], BTreeMap::new());
        drill.turn(AeadEngine::default());
        assert!(!ready(&drill));
        let status = drill.status();
        assert_eq!((status.passed, status.failed.len()), (1, 1));
        assert_eq!(status.failed[0].0.counter, 2);
        assert_eq!(
            drill.broken(),
            BTreeMap::from([(status.failed[0].0, Flaw::Keys)])
        );
        drill.stored(IkeSpi(1), vec![child(1, 20)], BTreeMap::new());
        assert!(ready(&drill));
        drill.stored(IkeSpi(2), vec![child(3, 3)], BTreeMap::new());
        drill.turn(AeadEngine::default());
        drill.forget(IkeSpi(2));
        assert!(ready(&drill));
        assert_eq!(drill.failures, 0);
    }

    #[test]
    fn a_member_that_stepped_down_has_the_node_forget_the_copies_that_failed_before() {
        let mut drill = Drill::default();
        assert!(!drill.changed, "nothing to tell");
        drill.stored(IkeSpi(1), vec![child(1, 3)], BTreeMap::new());
        drill.turn(AeadEngine::default());
        assert!(std::mem::take(&mut drill.changed));
        drill.leave();
        drill = Drill::anew();
        assert!(drill.changed && ready(&drill));
        drill.stored(IkeSpi(1), vec![child(2, 20)], BTreeMap::new());
        assert_eq!(drill.waiting.len(), 1, "this one is tried again");
    }

    #[test]
    fn a_copy_that_cannot_be_read_has_failed_until_it_can_be_or_is_gone() {
        let mut drill = Drill::default();
        let sa = child(1, 20).id;
        drill.stored(IkeSpi(1), vec![child(1, 20)], BTreeMap::new());
        drill.turn(AeadEngine::default());
        assert!(ready(&drill));
        drill.refused(IkeSpi(1), &[sa], "no such connection");
        assert_eq!(drill.broken(), BTreeMap::from([(sa, Flaw::Unread)]));
        let failed = vec![(sa, (Flaw::Unread, "no such connection".to_owned()))];
        assert_eq!(drill.status().failed, failed);
        // What was said of it is no result of a drill.
        drill.stored(IkeSpi(1), vec![child(1, 20)], BTreeMap::new());
        assert_eq!(drill.waiting.len(), 1);
        drill.turn(AeadEngine::default());
        assert!(ready(&drill) && drill.unread.is_empty());
        drill.refused(IkeSpi(1), &[sa], "no such connection");
        drill.forget(IkeSpi(1));
        assert!(ready(&drill) && drill.unread.is_empty());
        assert_eq!(drill.failures, 0);
    }

    #[test]
    fn a_copy_that_is_forgotten_before_its_turn_is_not_drilled() {
        let mut drill = Drill::default();
        drill.stored(IkeSpi(1), vec![child(1, 3)], BTreeMap::new());
        drill.forget(IkeSpi(1));
        drill.turn(AeadEngine::default());
        assert!(ready(&drill));
    }
}

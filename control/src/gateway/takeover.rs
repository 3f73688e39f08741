//! A takeover of very many SAs, a few at a time: each turn goes on with some of the inherited IKE SAs,
//! so that packets, heartbeats and whatever peers ask for have their turns in between. What packets
//! arrive for comes first (`Engine::resume_spi`).

use hitless_dataplane::flow::Flow;
use hitless_dataplane::parcel::Parcel;
use hitless_dataplane::spd::Action;
use hitless_sa::{Entropy, IkeSpi, Instant, SaId, Spi};
use hitless_sync::{ObjectId, TakeoverObject};

use super::{Event, Gateway, punt};
use crate::ike::settings::TakeoverInbound;
use crate::ike::{Resume, takeover};

/// IKE SAs that one turn goes on with: a few milliseconds of it, a fraction of a heartbeat.
const A_TURN: usize = 64;

impl Gateway {
    /// Goes on with some of the inherited IKE SAs; returns how many wait.
    pub(super) fn go_on(&mut self, now: Instant, entropy: &mut dyn Entropy) -> usize {
        if self.handing_over || self.publication.left == 0 {
            return self.publication.left;
        }
        let next = self.engine.next_waiting(A_TURN);
        let rest = A_TURN - next.len();
        for ike in next {
            self.go_on_with(now, entropy, ike);
        }
        // Graves, and what only the node had a copy of.
        for _ in 0..rest {
            let Some(object) = self.node.next_inherited() else {
                break;
            };
            self.go_on_with(now, entropy, IkeSpi(object.0));
        }
        self.publication.left = self.left_to_inherit();
        if self.publication.left == 0 {
            self.inherited_all();
            if std::mem::take(&mut self.gradual) {
                self.tell(Event::Inherited { skip: self.skip });
            }
        }
        self.publication.left
    }

    /// Goes on with the IKE SA of which a peer sends on this SPI, if that one waits.
    pub(super) fn go_on_at(&mut self, now: Instant, entropy: &mut dyn Entropy, spi: Spi) -> bool {
        let waiting = self.engine.waiting_at(spi).filter(|_| !self.handing_over);
        if let Some(ike) = waiting {
            self.go_on_with(now, entropy, ike);
        }
        waiting.is_some()
    }

    fn go_on_with(&mut self, now: Instant, entropy: &mut dyn Entropy, ike: IkeSpi) {
        self.beat();
        if let Some(object) = self.node.inherit(ObjectId(ike.0))
            && let Some((ike, version)) = self.inherit(now, object)
        {
            return self.give_up(now, entropy, ike, version + 1, &[]);
        }
        self.drilled.forget(ike);
        self.engine.go_on_with(now, entropy, ike);
    }

    pub(super) fn left_to_inherit(&self) -> usize {
        self.engine.waiting().max(self.node.left())
    }

    /// Inherits an IKE SA with its Child SAs; gives back one that cannot be read, with its version.
    pub(super) fn inherit(
        &mut self,
        now: Instant,
        object: TakeoverObject,
    ) -> Option<(IkeSpi, u64)> {
        let (ike, version) = (IkeSpi(object.object.0), object.version);
        // A member that led before has copies that only the node kept.
        let known = self.engine.facts(ike).is_some() || self.engine.buried(ike);
        if !known {
            if !self.store(now, ike, version, &object.body) {
                return Some((ike, version));
            }
            if self.dataplane.leading() {
                self.engine.take_in(ike);
            }
        }
        self.inherit_named(object);
        None
    }

    /// The same of one that IKE has, or has just ended.
    pub(super) fn inherit_named(&mut self, object: TakeoverObject) {
        let ike = IkeSpi(object.object.0);
        if self.engine.buried(ike) {
            return;
        }
        let policy = self.engine.connection(ike).map(|c| c.inbound);
        let policy = policy.unwrap_or_default();
        let resume = self.resume(ike, &object, policy);
        let synchronises = matches!(
            resume,
            Resume::MessageIdSync {
                replay_delta: Some(_)
            }
        );
        let asked = self.engine.plan(ike, resume) && synchronises;
        for mut sa in object.children {
            // At most once for each takeover (R35, RFC 6311 section 7).
            sa.delta = if asked { 0 } else { sa.delta };
            let handed_over = sa.window.is_some();
            if policy == TakeoverInbound::Learn && !handed_over {
                // Without a checkpoint nothing says what was delivered.
                if let Some(checkpoint) = &sa.checkpoint {
                    sa.floor = sa.floor.min(checkpoint.inbound_top);
                    sa.delta = 0;
                }
            }
            // Without an exact record the predecessor may have replaced or deleted it.
            let renew = policy == TakeoverInbound::Rekey && !handed_over;
            if sa.rekey_only || !object.exact || renew {
                self.doubtful.insert(sa.sa);
            }
            if !sa.rekey_only {
                self.skip = self.skip.max(sa.skip);
                self.inherited.insert(sa.sa, sa);
            }
        }
    }

    fn resume(&self, ike: IkeSpi, object: &TakeoverObject, policy: TakeoverInbound) -> Resume {
        let facts = self.engine.facts(ike).unwrap_or_default();
        let wish = self.engine.connection(ike).map(|c| c.takeover);
        // An SA without a right is replaced: it says nothing about a counter.
        let carried = object.children.iter().filter(|sa| !sa.rekey_only);
        // Who accepts them asks for no leap.
        let strict = policy != TakeoverInbound::Learn;
        let delta = carried.map(|sa| sa.delta).max().filter(|_| strict);
        takeover::resume(wish.unwrap_or_default(), object.exact, facts, delta)
    }

    /// Inherited IKE SAs that this member has not gone on with yet.
    pub fn taking_over(&self) -> usize {
        self.publication.left
    }

    /// A packet that came before its SA was installed: if its IKE SA waits, it waits no more. True if the
    /// workers have been given the SA.
    pub(super) fn go_on_for(
        &mut self,
        now: Instant,
        entropy: &mut dyn Entropy,
        packet: &[u8],
    ) -> bool {
        let Some((parcel, port, ip)) = Parcel::parse(packet) else {
            return false;
        };
        let ports = &self.settings.config().ports;
        let protected = || ports.get(port).is_some_and(|port| port.protected);
        let sa = match parcel {
            Parcel::Departing => Flow::parse(ip).and_then(|flow| self.protecting(&flow)),
            // As it came to the member that led before, from within.
            Parcel::Late if protected() => Flow::parse(ip).and_then(|flow| self.protecting(&flow)),
            _ => punt::esp_spi(ip).and_then(|spi| self.engine.child_stored_at(spi)),
        };
        let Some(sa) = sa else {
            return false;
        };
        // Its worker may have asked for it in this turn already: what that brought about is still to do.
        let goes_on = self.go_on_by(now, entropy, sa) || self.engine.leads_child(sa);
        if goes_on && self.children.get(sa).is_none() {
            self.carry(now, entropy);
        }
        self.children.get(sa).is_some()
    }

    /// The SA that a packet is to leave by.
    pub(super) fn protecting(&self, flow: &Flow) -> Option<SaId> {
        match self.policies.outbound(flow)?.action {
            Action::Protect(sa) => sa,
            Action::Bypass | Action::Discard => None,
        }
    }

    /// Goes on with the IKE SA of a Child SA that a packet is to leave by, if it waits.
    pub(super) fn go_on_by(&mut self, now: Instant, entropy: &mut dyn Entropy, sa: SaId) -> bool {
        let ike = self.engine.ike_of(sa).filter(|ike| self.engine.waits(*ike));
        let ike = ike.filter(|_| !self.handing_over);
        if let Some(ike) = ike {
            self.go_on_with(now, entropy, ike);
        }
        ike.is_some()
    }
}

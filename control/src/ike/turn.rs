//! What one input may touch besides the IKE SA that it is for, and what comes of it.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use hitless_sa::{Entropy, IkeSpi, Incarnation, Instant, MemberId, SaId, Spi};

use super::child::Installed;
use super::crypto::kex::KeyPair;
use super::crypto::sk::IvCounter;
use super::established::IkeSa;
use super::governor::Owed;
use super::output::{ChildChange, Event, Transmit};
use super::proposal::KeyExchangeMethod;
use super::redirect::Redirects;
use super::resume::Held;
use super::settings::{EngineSettings, Pool};
use super::tasks::Scheduled;
use super::virtual_ip::Leases;
use super::window::Backoff;

/// How finely the margin of chance of a lifetime is drawn.
const JITTER_STEPS: u32 = 1 << 20;

/// SPIs that are drawn until one is free: with nine of ten taken that fails once in 10^11 times.
const DRAWS: usize = 256;

/// Numbers that this member hands out, each at most once.
pub(super) struct Ids {
    member: MemberId,
    incarnation: Incarnation,
    next_sa: u32,
    /// `None` if the incarnation does not fit: then nothing can be encrypted.
    ivs: Option<IvCounter>,
    next_unique: u32,
    spis: BTreeSet<Spi>,
    /// Virtual addresses of peers.
    pub leases: Leases,
    /// How often gateways sent us to others.
    pub redirects: Redirects,
}

impl Ids {
    pub fn new(member: MemberId, incarnation: Incarnation, pools: Vec<Pool>) -> Ids {
        Ids {
            member,
            incarnation,
            next_sa: 1,
            ivs: IvCounter::new(member, incarnation),
            next_unique: 1,
            spis: BTreeSet::new(),
            redirects: Redirects::default(),
            leases: Leases::new(pools),
        }
    }

    /// IVs that another member or life of this one also gives: what a test must notice.
    pub fn share_ivs(&mut self) {
        self.ivs = IvCounter::new(MemberId(0), Incarnation(0));
    }

    /// A name for a new Child SA.
    pub fn sa(&mut self) -> SaId {
        let counter = self.next_sa;
        self.next_sa = self.next_sa.wrapping_add(1);
        SaId {
            creator: self.member,
            incarnation: self.incarnation,
            counter,
        }
    }

    /// A running number for `list-sas`.
    pub fn unique(&mut self) -> u32 {
        let unique = self.next_unique;
        self.next_unique = self.next_unique.wrapping_add(1);
        unique
    }

    /// Running numbers that SAs of another member have, or of an earlier life of this one: an operator
    /// who names one means one.
    pub fn occupy_numbers(&mut self, ike: u32, children: impl Iterator<Item = SaId>) {
        self.next_unique = after(self.next_unique, ike);
        let sas = children.map(|sa| sa.counter);
        self.next_sa = sas.fold(self.next_sa, after);
    }

    /// The IV of the next SK payload that is sealed with our keys of an IKE SA, named by our SPI:
    /// member (8 bits), incarnation (24), counter (32), so that no two members and no two lives of one
    /// ever use the same (R17 of the lease rules). `None` once its counter is used up: then nothing
    /// more is said there.
    pub fn iv(&mut self, ike: IkeSpi) -> Option<[u8; 8]> {
        self.ivs.as_mut()?.draw(ike)
    }

    /// SPI of a new IKE SA: the first octet is the member, the rest random.
    pub fn ike_spi(&mut self, entropy: &mut dyn Entropy) -> IkeSpi {
        IkeSpi(u64::from(self.member.0) << 56 | entropy.u64() >> 8)
    }

    /// Inbound SPI of a new Child SA: the first octet is the member, which keeps it above the
    /// reserved 255, and two members from choosing the same one (R2, RFC 6311 section 3.3). `None` if
    /// hardly any is left.
    pub fn spi(&mut self, entropy: &mut dyn Entropy) -> Option<Spi> {
        let mut drawn =
            (0..DRAWS).map(|_| Spi(u32::from(self.member.0) << 24 | entropy.u32() >> 8));
        let spi = drawn.find(|spi| !self.spis.contains(spi))?;
        self.spis.insert(spi);
        Some(spi)
    }

    /// Inbound SPIs that are taken.
    #[cfg(test)]
    pub fn taken(&self) -> usize {
        self.spis.len()
    }

    /// As if all were.
    #[cfg(test)]
    pub fn take_all(&mut self) {
        let ours = u32::from(self.member.0) << 24;
        self.spis = (ours..=ours | 0x00ff_ffff).map(Spi).collect();
    }

    /// An SPI that some IKE SA of ours holds, perhaps from an earlier life of this member.
    pub fn occupy(&mut self, spi: Spi) {
        self.spis.insert(spi);
    }

    pub fn release(&mut self, spi: Spi) {
        self.spis.remove(&spi);
    }
}

/// The next number where that one is taken; a record from nowhere does not drive it round.
fn after(next: u32, taken: u32) -> u32 {
    match taken <= u32::MAX / 2 {
        true => next.max(taken + 1),
        false => next,
    }
}

/// What an input to one IKE SA means for others and for the engine.
pub(super) enum Effect {
    /// An IKE SA came out of an exchange.
    Created(Box<IkeSa>),
    /// All Child SAs go to this IKE SA (RFC 7296 section 2.8).
    Inherit {
        to: IkeSpi,
        /// Where the peer stands is to be found out of that one too.
        owed: Option<Owed>,
        children: Vec<Installed>,
        queue: Vec<Scheduled>,
    },
    /// The peer has never had this successor, as it seems (`recall.rs`).
    Recall(IkeSpi),
    /// The peer should delete this IKE SA, for it lost a simultaneous rekey.
    Redundant(IkeSpi),
    /// We delete this IKE SA, for our exchange lost a simultaneous rekey.
    Delete(IkeSpi),
    /// A Child SA of that name ended or was refused.
    Lost(String),
    /// The peer says that this IKE SA is its only one (RFC 7296 section 2.4).
    InitialContact,
    /// The other IKE SAs of its peer are to be deleted.
    Replace,
    /// This IKE SA of ours is gone, for the peer has resumed it (RFC 5723).
    Resumed(IkeSpi),
    /// The peer is lost, and there is a ticket for a connection.
    Resumable(String, Box<Held>),
    /// A new IKE SA with these children is to take the place of this one.
    Reauthenticate(Vec<String>),
    /// The same, with another gateway (RFC 5685).
    Redirected(IpAddr, Vec<String>),
}

/// One input's worth of context and results.
pub(super) struct Turn<'a> {
    pub now: Instant,
    pub entropy: &'a mut dyn Entropy,
    pub settings: &'a EngineSettings,
    pub ids: &'a mut Ids,
    /// Released with the record.
    pub transmits: Vec<Transmit>,
    /// Sent at once, or as soon as what was committed before is released.
    pub immediate: Vec<Transmit>,
    pub changes: Vec<ChildChange>,
    pub events: Vec<Event>,
    pub effects: Vec<Effect>,
    /// The exported state changed.
    pub dirty: bool,
    /// The peer may not rekey the IKE SA now.
    pub crowded: bool,
}

impl<'a> Turn<'a> {
    pub fn new(
        now: Instant,
        entropy: &'a mut dyn Entropy,
        settings: &'a EngineSettings,
        ids: &'a mut Ids,
    ) -> Turn<'a> {
        Turn {
            now,
            entropy,
            settings,
            ids,
            transmits: Vec::new(),
            immediate: Vec::new(),
            changes: Vec::new(),
            events: Vec::new(),
            effects: Vec::new(),
            dirty: false,
            crowded: false,
        }
    }

    pub fn backoff(&self) -> Backoff {
        Backoff {
            timeout: self.settings.retransmit_timeout,
            tries: self.settings.retransmit_tries,
        }
    }

    /// A nonce (RFC 7296 section 2.10): at least half the key size of any PRF we have.
    pub fn nonce(&mut self) -> Vec<u8> {
        let mut nonce = vec![0; 32];
        self.entropy.fill(&mut nonce);
        nonce
    }

    /// A NAT detection source that is none, for `encap = yes`.
    pub fn fake_source(&mut self, encap: bool) -> Option<[u8; 20]> {
        encap.then(|| {
            let mut source = [0; 20];
            self.entropy.fill(&mut source);
            source
        })
    }

    /// An ephemeral key; `None` if the source of randomness is broken.
    pub fn key_pair(&mut self, method: KeyExchangeMethod) -> Option<KeyPair> {
        KeyPair::generate(method, self.entropy).ok()
    }

    /// Up to a tenth less than `time`, so that many SAs do not expire together.
    pub fn jitter(&mut self, time: Duration) -> Duration {
        // So fine that very many SAs of one age do not come due in bursts.
        let step = time / 10 / JITTER_STEPS;
        time - step * (self.entropy.u32() % (JITTER_STEPS + 1))
    }

    /// When something with this lifetime is due; zero is never.
    pub fn lifetime(&mut self, time: Duration) -> Option<Instant> {
        (!time.is_zero()).then(|| self.now + self.jitter(time))
    }

    /// How long to leave a peer alone that refused for a reason that will not go away by itself.
    pub fn long_pause(&mut self) -> Duration {
        self.pause() * 15
    }

    /// No pause is longer.
    pub fn longest_pause(&self) -> Duration {
        self.settings.retransmit_timeout.saturating_mul(2 * 2 * 15)
    }

    /// How long to leave a peer alone that answered TEMPORARY_FAILURE (RFC 7296 section 2.25).
    pub fn pause(&mut self) -> Duration {
        let base = self.settings.retransmit_timeout.saturating_mul(2);
        base + base / 1000 * (self.entropy.u32() % 1000)
    }

    /// The results alone, without what was borrowed.
    pub fn finish(self) -> Results {
        Results {
            now: self.now,
            transmits: self.transmits,
            immediate: self.immediate,
            changes: self.changes,
            events: self.events,
            effects: self.effects,
            dirty: self.dirty,
        }
    }

    pub fn drop(&mut self, peer: SocketAddr, reason: &'static str) {
        self.events.push(Event::Dropped { peer, reason });
    }
}

/// What a turn leaves behind.
pub(super) struct Results {
    pub now: Instant,
    pub transmits: Vec<Transmit>,
    pub immediate: Vec<Transmit>,
    pub changes: Vec<ChildChange>,
    pub events: Vec<Event>,
    pub effects: Vec<Effect>,
    pub dirty: bool,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    struct Zeros;

    /// So little randomness that whatever can be drawn twice is.
    struct Narrow(u8);

    impl Entropy for Narrow {
        fn fill(&mut self, out: &mut [u8]) {
            out.fill(0);
            self.0 = self.0.wrapping_mul(5).wrapping_add(7);
            // Above the octet that the member's number takes the place of.
            out.iter_mut().for_each(|octet| *octet = self.0 & 0x3f);
        }
    }

    proptest! {
        /// Two members, either of which starts anew in between and knows of its former life what the
        /// records of its IKE SAs say: no inbound SPI that is held is given out again.
        #[test]
        fn rfc6311_r2_no_two_members_and_no_two_lives_hold_one_spi(
            seed: u8,
            turns in prop::collection::vec((0usize..2, 0u8..8), 0..120),
        ) {
            let born = |member: usize, life: u32| {
                Ids::new(MemberId(member as u8 + 1), Incarnation(life), Vec::new())
            };
            let mut members = [born(0, 1), born(1, 1)];
            let mut held: [BTreeSet<Spi>; 2] = Default::default();
            let mut entropy = Narrow(seed);
            for (life, (member, act)) in (2u32..).zip(turns) {
                let ids = &mut members[member];
                match act {
                    0 => {
                        *ids = born(member, life);
                        held[member].iter().for_each(|spi| ids.occupy(*spi));
                    }
                    1 => {
                        if let Some(spi) = held[member].pop_first() {
                            ids.release(spi);
                        }
                    }
                    _ if held[member].len() < 50 => {
                        let spi = ids.spi(&mut entropy).unwrap();
                        prop_assert!(held.iter().all(|held| !held.contains(&spi)), "{spi}");
                        held[member].insert(spi);
                    }
                    _ => {}
                }
            }
        }
    }

    impl Entropy for Zeros {
        fn fill(&mut self, out: &mut [u8]) {
            out.fill(0);
        }
    }

    #[test]
    fn rfc6311_r2_spis_lie_in_the_members_part() {
        let mut ids = Ids::new(MemberId(7), Incarnation(1), Vec::new());
        let entropy: &mut dyn Entropy = &mut Zeros;
        assert_eq!(ids.spi(entropy), Some(Spi(0x0700_0000)));
        // None is given twice, and nobody waits for one for ever.
        assert_eq!(ids.spi(entropy), None);
        ids.release(Spi(0x0700_0000));
        assert_eq!(ids.spi(entropy), Some(Spi(0x0700_0000)));
        assert_eq!(ids.ike_spi(entropy), IkeSpi(7 << 56));
    }
}

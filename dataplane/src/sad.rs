//! The SAD: the SAs of one worker, share-nothing (RFC 4301 section 4.4.2).
//!
//! Inbound SAs are found by SPI, outbound ones by their slot, a dense index that the control thread
//! gives to each Child SA and that checkpoints use too. SAs arrive and leave in boxes, so that the
//! control thread pays for expanding and wiping keys.

mod heirs;
mod receiving;
mod senders;

pub use receiving::{Admission, InboundSa};

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use hitless_sa::{
    ChildSa, Instant, Mode, SaId, SaOptions, SequenceNumber, Spi, TfcPadding, UdpEncapsulation,
};

use crate::aead::{Engine, EspKey, KeyError};
use crate::cell::Cell;
use crate::checkpoint::Checkpoint;
use crate::counters::SaCounters;
use crate::esp;
use crate::memory;
use crate::outer::{Inner, MixedFamilies, OuterHeader};
use crate::pmtu::TooBig;
use crate::prefetch::prefetch;
use crate::transport;
use crate::wire::{ipv6, udp};

use heirs::Heirs;
use senders::{Sender, Senders};

/// Why an SA cannot be installed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SaError {
    Key(KeyError),
    /// The tunnel's endpoints are of different families.
    MixedFamilies,
}

impl fmt::Display for SaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SaError::Key(error) => error.fmt(f),
            SaError::MixedFamilies => MixedFamilies.fmt(f),
        }
    }
}

impl std::error::Error for SaError {}

impl From<MixedFamilies> for SaError {
    fn from(_: MixedFamilies) -> SaError {
        SaError::MixedFamilies
    }
}

impl From<KeyError> for SaError {
    fn from(error: KeyError) -> SaError {
        SaError::Key(error)
    }
}

/// What to do about a packet that is too big for its way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Remedy {
    /// Fragment it, if it may be, and protect the parts.
    FragmentBefore,
    /// Protect it, and fragment what comes of it.
    FragmentAfter,
    /// Drop it, and tell its sender what fits.
    Tell,
}

/// The sending half of a Child SA, in one leadership.
pub struct OutboundSa {
    pub id: SaId,
    pub mode: Mode,
    pub spi: Spi,
    pub esn: bool,
    pub key: EspKey,
    pub cell: Arc<Cell>,
    pub slot: u32,
    pub local: IpAddr,
    pub remote: IpAddr,
    pub encapsulation: Option<UdpEncapsulation>,
    pub options: SaOptions,
    pub(crate) outer: OuterHeader,
    /// When a keepalive last went.
    pub(crate) kept_alive: Instant,
    /// A NAT keepalive is due as soon as this half is installed, if it wants any: a predecessor's
    /// may be long ago.
    pub keep_alive_at_once: bool,
    /// What this worker has sent and dropped of it.
    pub counters: Arc<SaCounters>,
    /// When a packet was last sent.
    pub last_use: Instant,
}

impl OutboundSa {
    /// An SA that sends what its cell lets it draw.
    pub fn new(
        child: &ChildSa,
        cell: Arc<Cell>,
        slot: u32,
        engine: Engine,
    ) -> Result<OutboundSa, SaError> {
        let outer = OuterHeader::new(
            child.local,
            child.remote,
            child.encapsulation,
            &child.options,
        )?;
        Ok(OutboundSa {
            id: child.id,
            mode: child.mode,
            spi: child.outbound_spi,
            esn: child.esn,
            key: EspKey::new(engine, child.suite, &child.outbound_key)?,
            cell,
            slot,
            local: child.local,
            remote: child.remote,
            encapsulation: child.encapsulation,
            options: child.options,
            outer,
            kept_alive: Instant::default(),
            keep_alive_at_once: false,
            counters: Arc::default(),
            last_use: Instant::default(),
        })
    }

    /// Moves the tunnel's endpoints: after a takeover with another address, or a peer behind a NAT
    /// whose port changed (RFC 7296 section 2.23).
    pub fn set_endpoint(
        &mut self,
        local: IpAddr,
        remote: IpAddr,
        encapsulation: Option<UdpEncapsulation>,
    ) -> Result<(), SaError> {
        self.outer = OuterHeader::new(local, remote, encapsulation, &self.options)?;
        if self.remote != remote {
            self.cell.path_mtu().forget();
        }
        self.local = local;
        self.remote = remote;
        self.encapsulation = encapsulation;
        Ok(())
    }

    /// The largest inner packet whose outer packet fits into `mtu` octets, in tunnel mode.
    pub fn inner_mtu(&self, mtu: usize) -> usize {
        esp::largest_payload(self.key.suite(), mtu.saturating_sub(self.outer.len()))
    }

    /// The same for a packet like this one: in transport mode its own headers stay in front.
    #[inline]
    pub(crate) fn fitting(&self, packet: &[u8], mtu: usize) -> usize {
        match self.mode {
            Mode::Tunnel => self.inner_mtu(mtu),
            Mode::Transport => {
                let kept = transport::kept(packet);
                let udp = self.encapsulation.map_or(0, |_| udp::HEADER);
                let room = mtu.saturating_sub(kept + udp);
                kept + esp::largest_payload(self.key.suite(), room)
            }
        }
    }

    /// What to do about a packet that does not fit.
    pub(crate) fn too_big(&self, packet: &[u8]) -> Remedy {
        let v6 = packet.first().is_some_and(|first| first >> 4 == 6);
        let dont_fragment = packet.get(6).is_none_or(|flags| flags & 0x40 != 0);
        match (self.mode, v6) {
            // RFC 2473 section 7.1: IPv6 senders need not go below that.
            (Mode::Tunnel, true) if packet.len() <= ipv6::MINIMUM_MTU => Remedy::FragmentAfter,
            (_, true) => Remedy::Tell,
            (Mode::Tunnel, false) => Remedy::FragmentBefore,
            // RFC 4303 section 3.3.4: only whole packets are protected in transport mode.
            (Mode::Transport, false) if dont_fragment => Remedy::Tell,
            (Mode::Transport, false) => Remedy::FragmentAfter,
        }
    }

    /// How long inner packets are made (RFC 4303 section 2.7), of which so many octets fit.
    #[inline]
    pub(crate) fn pad_to(&self, fits: usize) -> usize {
        match (self.options.padding, self.mode) {
            (TfcPadding::None, _) | (_, Mode::Transport) => 0,
            (TfcPadding::To(length), _) => fits.min(usize::from(length)),
            (TfcPadding::ToMtu, _) => fits,
        }
    }

    /// Writes a NAT keepalive: the outer headers and one octet (RFC 3948 section 2.3).
    #[must_use]
    pub(crate) fn write_keepalive(&self, packet: &mut [u8]) -> bool {
        if let Some(last) = packet.last_mut() {
            *last = 0xff;
        }
        let inner = Inner {
            tos: 0,
            dont_fragment: false,
        };
        self.outer.write(packet, inner, 0)
    }

    /// Whether an error quotes a packet of this SA.
    fn has_sent(&self, error: &TooBig) -> bool {
        let ports = self
            .encapsulation
            .map(|ports| (ports.local_port, ports.remote_port));
        // In transport mode the packet's own addresses stand there, which selectors know.
        let ends = self.mode == Mode::Transport
            || (error.source, error.destination) == (self.local, self.remote);
        ends && error.spi == self.spi && error.ports == ports
    }
}

/// All SAs of one worker.
pub struct Sad {
    /// The slots of the inbound SPIs.
    spis: HashMap<Spi, u32, FixedState>,
    senders: Senders,
    slots: Box<[Slot]>,
    ids: HashMap<SaId, u32, FixedState>,
    heirs: Heirs,
}

/// What is in a slot, on one cache line.
#[derive(Default)]
#[repr(align(64))]
struct Slot {
    id: Option<SaId>,
    inbound: Option<Box<InboundSa>>,
    outbound: Option<Box<OutboundSa>>,
    bound: Option<Bound>,
}

/// Where the packets of a Child SA go that come to a worker which is not to handle them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bound {
    /// Its inbound SPI.
    pub spi: Spi,
    /// Index of the worker that has the SA, as in [`crate::handover::connect`].
    pub owner: usize,
    /// Its outbound SPI, if what is to be sent goes there too, and errors about it. What is received
    /// does unless a receiving half is installed here.
    pub outbound: Option<Spi>,
}

/// Why the SAD did not take an SA.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Conflict {
    /// The slot is not below the SAD's capacity.
    NoSuchSlot,
    /// Another SA has the slot; remove it first.
    SlotTaken,
    /// Another SA has the SPI; remove it first.
    SpiTaken,
    /// The same SA is installed in another slot.
    OtherSlot,
}

impl Sad {
    /// Room for `capacity` Child SAs, in slots below `capacity`. Allocates all that it ever needs.
    pub fn new(capacity: usize) -> Sad {
        // Only SPIs that we chose get into the table, so nobody outside can make them collide.
        let hasher = FixedState::default();
        Sad {
            // What is removed leaves marks: a table that is more than half full would grow for them.
            spis: HashMap::with_capacity_and_hasher(2 * capacity, hasher.clone()),
            senders: Senders::new(capacity),
            slots: memory::table(capacity, Slot::default),
            ids: HashMap::with_capacity_and_hasher(2 * capacity, hasher),
            heirs: Heirs::new(),
        }
    }

    /// Installs an SA. Returns the one of the same Child SA that it replaces; or the SA itself with
    /// the reason if it cannot be installed, the SAD being as before.
    pub fn insert_inbound(
        &mut self,
        sa: Box<InboundSa>,
    ) -> Result<Option<Box<InboundSa>>, (Box<InboundSa>, Conflict)> {
        if self.spi_taken(sa.spi, sa.id) {
            return Err((sa, Conflict::SpiTaken));
        }
        match self.claim(sa.id, sa.slot) {
            Err(conflict) => Err((sa, conflict)),
            Ok(slot) => {
                let (spi, number) = (sa.spi, sa.slot);
                let old = slot.inbound.replace(sa);
                if let Some(old) = &old {
                    self.spis.remove(&old.spi);
                }
                self.spis.insert(spi, number);
                Ok(old)
            }
        }
    }

    /// Installs an SA, like [`Sad::insert_inbound`].
    pub fn insert_outbound(
        &mut self,
        sa: Box<OutboundSa>,
    ) -> Result<Option<Box<OutboundSa>>, (Box<OutboundSa>, Conflict)> {
        match self.claim(sa.id, sa.slot) {
            Err(conflict) => Err((sa, conflict)),
            Ok(slot) => {
                let (spi, number) = (sa.spi, sa.slot);
                let old = slot.outbound.replace(sa);
                self.senders.set(number, Sender::Here, Some(spi));
                Ok(old)
            }
        }
    }

    /// Gives the packets of a Child SA to another worker from now on.
    pub fn bind(&mut self, id: SaId, slot: u32, bound: Bound) -> Result<(), Conflict> {
        if self.spi_taken(bound.spi, id) {
            return Err(Conflict::SpiTaken);
        }
        self.claim(id, slot)?.bound = Some(bound);
        self.spis.insert(bound.spi, slot);
        self.senders.set(slot, Sender::Elsewhere, bound.outbound);
        Ok(())
    }

    /// Takes the receiving half out, for a worker that has the SA's sending half and gets its
    /// packets from now on. With it comes where the SA was bound to. Nothing if there is none or
    /// several workers share its window.
    pub fn take_inbound(
        &mut self,
        id: SaId,
        owner: usize,
    ) -> Option<(Box<InboundSa>, Option<Bound>)> {
        let slot = *self.ids.get(&id)?;
        let entry = self.slots.get_mut(slot as usize)?;
        let half = entry.inbound.take_if(|half| !half.window.is_shared())?;
        let before = entry.bound;
        entry.bound = Some(Bound {
            spi: half.spi,
            owner,
            outbound: before.and_then(|bound| bound.outbound),
        });
        Some((half, before))
    }

    /// Undoes [`Sad::take_inbound`].
    pub fn put_back(&mut self, half: Box<InboundSa>, bound: Option<Bound>) {
        if let Some(entry) = self.slots.get_mut(half.slot as usize) {
            entry.bound = bound;
            entry.inbound = Some(half);
        }
    }

    /// Takes in a receiving half that another worker had; gives it back if the SA is not here any
    /// more, or here in another leadership.
    pub fn arrive(&mut self, half: Box<InboundSa>) -> Result<(), Box<InboundSa>> {
        let Some(entry) = self.slots.get_mut(half.slot as usize) else {
            return Err(half);
        };
        let cell = entry.outbound.as_ref().map(|sending| &sending.cell);
        let same = cell.is_some_and(|cell| Arc::ptr_eq(cell, &half.cell));
        if !same || entry.inbound.is_some() || entry.id != Some(half.id) {
            return Err(half);
        }
        let (spi, slot) = (half.spi, half.slot);
        entry.bound = None;
        entry.inbound = Some(half);
        self.spis.insert(spi, slot);
        self.senders.set(slot, Sender::Elsewhere, None);
        Ok(())
    }

    /// Handles the packets of a Child SA here again, as far as it is installed.
    pub fn unbind(&mut self, id: SaId) {
        let Some(slot) = self.ids.get(&id).copied() else {
            return;
        };
        let Some(entry) = self.slots.get_mut(slot as usize) else {
            return;
        };
        let Some(bound) = entry.bound.take() else {
            return;
        };
        if entry.inbound.is_none() {
            self.spis.remove(&bound.spi);
            if entry.outbound.is_none() {
                entry.id = None;
                self.ids.remove(&id);
            }
        }
        self.senders.set(slot, Sender::Elsewhere, None);
    }

    /// The worker that has the SA which a packet names, if it is another one.
    #[inline]
    pub fn inbound_owner(&self, spi: Spi) -> Option<(SaId, usize)> {
        let slot = *self.spis.get(&spi)?;
        let entry = self.slots.get(slot as usize)?;
        Some((entry.id?, entry.bound?.owner))
    }

    /// The worker that sends on the SA in a slot, if it is another one.
    #[inline]
    pub fn outbound_owner(&self, slot: u32) -> Option<(SaId, usize)> {
        let entry = self.slots.get(slot as usize)?;
        let bound = entry.bound.filter(|bound| bound.outbound.is_some())?;
        Some((entry.id?, bound.owner))
    }

    /// Removes both halves of a Child SA, for the control thread to drop.
    pub fn remove(&mut self, id: SaId) -> (Option<Box<InboundSa>>, Option<Box<OutboundSa>>) {
        let Some(number) = self.ids.remove(&id) else {
            return (None, None);
        };
        let Some(slot) = self.slots.get_mut(number as usize) else {
            return (None, None);
        };
        let Slot {
            inbound,
            outbound,
            bound,
            ..
        } = std::mem::take(slot);
        let spi = inbound.as_ref().map(|sa| sa.spi);
        if let Some(spi) = spi.or(bound.map(|bound| bound.spi)) {
            self.spis.remove(&spi);
        }
        for sender in [Sender::Here, Sender::Elsewhere] {
            self.senders.set(number, sender, None);
        }
        (inbound, outbound)
    }

    /// The slot whose packet an error quotes, if it sends from here.
    fn quoted(&self, error: &TooBig) -> Option<u32> {
        let mut slots = self.senders.slots(error.spi);
        slots.find(|slot| {
            let entry = self.slots.get(*slot as usize);
            let sa = entry.and_then(|entry| entry.outbound.as_ref());
            sa.is_some_and(|sa| sa.has_sent(error))
        })
    }

    /// The worker that has the SA whose packet an error quotes, if nothing is known of it here.
    pub(crate) fn quoted_elsewhere(&self, error: &TooBig) -> Option<usize> {
        if self.quoted(error).is_some() {
            return None;
        }
        self.senders.slots(error.spi).find_map(|slot| {
            let entry = self.slots.get(slot as usize)?;
            let bound = entry.bound.filter(|_| entry.outbound.is_none())?;
            Some(bound.owner)
        })
    }

    /// The SA whose packet an error quotes.
    pub(crate) fn quoted_by(&mut self, error: &TooBig) -> Option<&mut OutboundSa> {
        self.outbound_mut(self.quoted(error)?)
    }

    /// The SA that a packet names.
    #[inline]
    pub fn inbound(&self, spi: Spi) -> Option<&InboundSa> {
        self.inbound_in(self.slot_of_spi(spi)?)
    }

    /// The slot of the SA that a packet names, here or at another worker.
    #[inline]
    pub(crate) fn slot_of_spi(&self, spi: Spi) -> Option<u32> {
        self.spis.get(&spi).copied()
    }

    /// The receiving half in a slot, to look at.
    #[inline]
    pub(crate) fn inbound_in(&self, slot: u32) -> Option<&InboundSa> {
        self.slots.get(slot as usize)?.inbound.as_deref()
    }

    /// Asks for a slot, which says where its SAs are.
    #[inline]
    pub(crate) fn prefetch_slot(&self, slot: u32) {
        if let Some(entry) = self.slots.get(slot as usize) {
            prefetch(entry);
        }
    }

    /// Asks for the receiving half in a slot.
    #[inline]
    pub(crate) fn prefetch_inbound(&self, slot: u32) {
        if let Some(sa) = self.inbound_in(slot) {
            sa.prefetch();
        }
    }

    /// Asks for the sending half in a slot.
    #[inline]
    pub(crate) fn prefetch_outbound(&self, slot: u32) {
        let entry = self.slots.get(slot as usize);
        if let Some(sa) = entry.and_then(|entry| entry.outbound.as_deref()) {
            prefetch(sa);
        }
    }

    /// Asks for what a checkpoint of the SA in a slot tells.
    #[inline]
    pub(crate) fn prefetch_counts(&self, slot: u32) {
        let Some(entry) = self.slots.get(slot as usize) else {
            return;
        };
        if let Some(sa) = &entry.inbound {
            sa.counters.prefetch();
        }
        if let Some(sa) = &entry.outbound {
            sa.cell.prefetch_sending();
            sa.counters.prefetch();
        }
    }

    /// The receiving half in a slot.
    #[inline]
    pub fn inbound_in_slot(&mut self, slot: u32) -> Option<&mut InboundSa> {
        self.slots.get_mut(slot as usize)?.inbound.as_deref_mut()
    }

    /// The key that opens what came for a slot.
    #[inline]
    pub fn opening_key(&self, slot: u32) -> Option<&EspKey> {
        let slot = self.slots.get(slot as usize)?;
        slot.inbound.as_ref().map(|sa| &sa.key)
    }

    /// The key that seals what a slot sends.
    #[inline]
    pub fn sealing_key(&self, slot: u32) -> Option<&EspKey> {
        let slot = self.slots.get(slot as usize)?;
        slot.outbound.as_ref().map(|sa| &sa.key)
    }

    /// The sending half in a slot.
    #[inline]
    pub fn outbound_mut(&mut self, slot: u32) -> Option<&mut OutboundSa> {
        self.slots.get_mut(slot as usize)?.outbound.as_deref_mut()
    }

    /// The slot of a Child SA.
    pub fn slot_of(&self, id: SaId) -> Option<u32> {
        self.ids.get(&id).copied()
    }

    /// What policies send by `old` goes by `new`, until nothing is said of it.
    pub fn succeed(&mut self, old: SaId, new: Option<SaId>) {
        self.heirs.succeed(old, new);
    }

    /// The slot of what sends for a Child SA: its heir, if that is here.
    #[inline]
    pub fn sending_slot(&self, id: SaId) -> Option<u32> {
        let heir = self.heirs.of(id).and_then(|heir| self.slot_of(heir));
        heir.or_else(|| self.slot_of(id))
    }

    /// Slots that there are.
    pub(crate) fn capacity(&self) -> usize {
        self.slots.len()
    }

    /// Child SAs installed, with one half or both.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether no SA is installed.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// What this worker knows of the Child SA in a slot, in this leadership.
    pub fn checkpoint(&self, slot: u32) -> Option<Checkpoint> {
        let entry = self.slots.get(slot as usize)?;
        let inbound = entry.inbound.as_ref();
        let outbound = entry.outbound.as_ref();
        Some(Checkpoint {
            sa: entry.id?,
            outbound_next: outbound.map_or(SequenceNumber(0), |sa| sa.cell.cursor()),
            inbound_top: inbound.map_or(SequenceNumber(0), |sa| sa.authenticated),
            packets_out: outbound.map_or(0, |sa| sa.counters.packets()),
            bytes_out: outbound.map_or(0, |sa| sa.counters.bytes()),
            packets_in: inbound.map_or(0, |sa| sa.counters.packets()),
            bytes_in: inbound.map_or(0, |sa| sa.counters.bytes()),
        })
    }

    /// Whether a packet with this SPI belongs to another SA.
    fn spi_taken(&self, spi: Spi, id: SaId) -> bool {
        let slot = self.spis.get(&spi);
        let entry = slot.and_then(|slot| self.slots.get(*slot as usize));
        entry.is_some_and(|entry| entry.id != Some(id))
    }

    fn claim(&mut self, id: SaId, slot: u32) -> Result<&mut Slot, Conflict> {
        if self.ids.get(&id).is_some_and(|&other| other != slot) {
            return Err(Conflict::OtherSlot);
        }
        let entry = self
            .slots
            .get_mut(slot as usize)
            .ok_or(Conflict::NoSuchSlot)?;
        if entry.id.is_some_and(|other| other != id) {
            return Err(Conflict::SlotTaken);
        }
        entry.id = Some(id);
        self.ids.insert(id, slot);
        Ok(entry)
    }
}

#[cfg(all(test, not(loom)))]
mod tests;

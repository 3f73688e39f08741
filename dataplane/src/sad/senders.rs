//! The slots that send with an outbound SPI, for errors that quote it. Peers choose these SPIs, and any
//! number of peers may choose the same: the slots of one SPI are a list through a table that has a
//! place for each, so that none is ever allocated and none is looked for.

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use hitless_sa::Spi;

use crate::memory;

/// No place.
const NONE: u32 = u32::MAX;

/// Which worker sends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Sender {
    Here,
    Elsewhere,
}

#[derive(Clone, Copy)]
struct Place {
    spi: Option<Spi>,
    previous: u32,
    next: u32,
}

/// See the module.
pub(super) struct Senders {
    /// The first place of each SPI.
    firsts: HashMap<Spi, u32, FixedState>,
    /// Two of each slot: what sends here, and what does elsewhere.
    places: Box<[Place]>,
}

impl Senders {
    /// For slots below `capacity`. Allocates all that it ever needs.
    pub(super) fn new(capacity: usize) -> Senders {
        let empty = || Place {
            spi: None,
            previous: NONE,
            next: NONE,
        };
        Senders {
            firsts: HashMap::with_capacity_and_hasher(2 * capacity, FixedState::default()),
            places: memory::table(2 * capacity, empty),
        }
    }

    /// A slot sends with this SPI, or with none any more.
    pub(super) fn set(&mut self, slot: u32, sender: Sender, spi: Option<Spi>) {
        let at = slot.saturating_mul(2);
        let at = at.saturating_add(u32::from(sender == Sender::Elsewhere));
        let Some(place) = self.places.get(at as usize).copied() else {
            return;
        };
        if place.spi == spi {
            return;
        }
        if let Some(old) = place.spi {
            self.leave(at, old, place);
        }
        let mut new = Place {
            spi,
            previous: NONE,
            next: NONE,
        };
        if let Some(spi) = spi {
            new.next = self.firsts.insert(spi, at).unwrap_or(NONE);
            if let Some(first) = self.places.get_mut(new.next as usize) {
                first.previous = at;
            }
        }
        if let Some(place) = self.places.get_mut(at as usize) {
            *place = new;
        }
    }

    fn leave(&mut self, at: u32, spi: Spi, place: Place) {
        if let Some(next) = self.places.get_mut(place.next as usize) {
            next.previous = place.previous;
        }
        if let Some(previous) = self.places.get_mut(place.previous as usize) {
            previous.next = place.next;
        }
        if self.firsts.get(&spi) == Some(&at) {
            match place.next {
                NONE => self.firsts.remove(&spi),
                next => self.firsts.insert(spi, next),
            };
        }
    }

    /// The slots that send with an SPI; one that does here and elsewhere comes twice.
    pub(super) fn slots(&self, spi: Spi) -> impl Iterator<Item = u32> {
        let mut at = self.firsts.get(&spi).copied().unwrap_or(NONE);
        std::iter::from_fn(move || {
            let place = self.places.get(at as usize)?;
            let slot = at / 2;
            at = place.next;
            Some(slot)
        })
    }

    /// Whether no slot sends.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.firsts.is_empty()
    }
}

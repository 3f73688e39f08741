//! The packets that wait for the neighbours of one port: a store for all of them, and a queue in it for
//! each. So an entry of the table has no room of its own for packets that hardly ever come.

use super::{HELD_EACH, Held};
use crate::pool::Packet;

/// No place.
const NOWHERE: u16 = u16::MAX;

/// What waits for one neighbour, first come first.
#[derive(Clone, Copy)]
pub(super) struct Queue {
    first: u16,
    last: u16,
    length: usize,
}

impl Queue {
    pub const EMPTY: Queue = Queue {
        first: NOWHERE,
        last: NOWHERE,
        length: 0,
    };

    pub fn is_empty(&self) -> bool {
        self.length == 0
    }
}

struct Place {
    packet: Option<Packet>,
    /// In its queue, or among the free ones.
    next: u16,
}

/// The store.
pub(super) struct Waiting {
    places: Box<[Place]>,
    free: u16,
    held: usize,
}

impl Waiting {
    /// With room for so many packets.
    pub fn new(room: u16) -> Waiting {
        let place = |next| Place { packet: None, next };
        let mut places: Box<[Place]> = (1..=room).map(place).collect();
        if let Some(last) = places.last_mut() {
            last.next = NOWHERE;
        }
        Waiting {
            free: if places.is_empty() { NOWHERE } else { 0 },
            places,
            held: 0,
        }
    }

    /// Packets that wait.
    pub fn held(&self) -> usize {
        self.held
    }

    /// Lets a packet wait; gives it back if there is no room.
    pub fn push(&mut self, queue: &mut Queue, packet: Packet) -> Result<(), Packet> {
        let at = self.free;
        match self.places.get_mut(usize::from(at)) {
            Some(place) if queue.length < HELD_EACH => {
                self.free = place.next;
                self.held += 1;
                place.packet = Some(packet);
            }
            _ => return Err(packet),
        }
        self.append(queue, at);
        Ok(())
    }

    /// Gives out what waits.
    pub fn take(&mut self, queue: &mut Queue) -> Held {
        let mut held = Held::new();
        self.retain(queue, |packet| {
            held.push(packet);
            None
        });
        held
    }

    /// Gives each packet to `judge`, and goes on holding what that returns.
    pub fn retain(&mut self, queue: &mut Queue, mut judge: impl FnMut(Packet) -> Option<Packet>) {
        let mut at = std::mem::replace(queue, Queue::EMPTY).first;
        while let Some(place) = self.places.get_mut(usize::from(at)) {
            let next = place.next;
            place.packet = place.packet.take().and_then(&mut judge);
            if place.packet.is_some() {
                self.append(queue, at);
            } else {
                place.next = self.free;
                self.free = at;
                self.held -= 1;
            }
            at = next;
        }
    }

    /// A place that is taken becomes the last of a queue.
    fn append(&mut self, queue: &mut Queue, at: u16) {
        if let Some(place) = self.places.get_mut(usize::from(at)) {
            place.next = NOWHERE;
        }
        match self.places.get_mut(usize::from(queue.last)) {
            Some(last) => last.next = at,
            None => queue.first = at,
        }
        queue.last = at;
        queue.length += 1;
    }
}

//! Which of the cluster's tickets have come back: each counts once (RFC 5723 section 4.3.1). The IKE
//! SAs that came of them carry their names through a failover.

use std::collections::BTreeMap;

use super::ticket::TicketId;

/// Kept at most; the one that expires first makes room.
const ROOM: usize = 65_536;

/// Names of tickets, with the time until which they would count.
#[derive(Default)]
pub(in crate::ike) struct Used {
    tickets: BTreeMap<TicketId, u64>,
    order: BTreeMap<(u64, TicketId), ()>,
}

impl Used {
    pub fn contains(&self, id: &TicketId) -> bool {
        self.tickets.contains_key(id)
    }

    /// `until` in seconds since 1970.
    pub fn insert(&mut self, id: TicketId, until: u64) {
        if self.tickets.insert(id, until).is_none() {
            self.order.insert((until, id), ());
        }
        while self.tickets.len() > ROOM {
            let Some(((_, oldest), ())) = self.order.pop_first() else {
                return;
            };
            self.tickets.remove(&oldest);
        }
    }

    /// Forgets what has expired anyway.
    pub fn expire(&mut self, now: u64) {
        while let Some(entry) = self.order.first_entry() {
            let (until, id) = *entry.key();
            if until >= now {
                return;
            }
            entry.remove();
            self.tickets.remove(&id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_kept_until_they_expire_in_bounded_room() {
        let mut used = Used::default();
        for n in 0..ROOM as u64 + 10 {
            used.insert(u128::from(n).to_be_bytes(), 1000 + n);
        }
        assert_eq!((used.tickets.len(), used.order.len()), (ROOM, ROOM));
        assert!(!used.contains(&9u128.to_be_bytes()));
        assert!(used.contains(&10u128.to_be_bytes()));
        used.expire(1011);
        assert!(!used.contains(&10u128.to_be_bytes()));
        assert!(used.contains(&11u128.to_be_bytes()));
    }
}

//! Who is who on the links (RFC 826, RFC 4861): a bounded table of neighbours of both families, and
//! the few packets that wait for an answer. It decides what to ask and when; `links.rs` does the
//! asking.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::Duration;

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use hitless_sa::Instant;

use crate::pool::Packet;
use crate::port::MacAddress;

/// Neighbours that are remembered.
const CAPACITY: usize = 1024;
/// Packets that wait for one neighbour: what comes for the router behind a member that has just taken
/// over until that one answers.
const HELD_EACH: usize = 256;
/// Packets that wait in all; such a member has something for each of many neighbours at once.
const HELD_TOTAL: usize = CAPACITY;
/// Of the buffers that are free they take at most one in so many, beyond a few.
const HELD_SHARE: usize = 8;
const HELD_LEAST: usize = 128;
/// At most one request an address in this time (RFC 1122 section 2.3.2.1).
const ASK_EVERY: Duration = Duration::from_secs(1);
/// Requests without an answer before an address counts as gone.
const ATTEMPTS: u8 = 3;
/// How long an answer is trusted before it is asked for again, in unicast.
const FRESH: Duration = Duration::from_secs(30);
/// How long a neighbour that nobody sends to is remembered.
const UNUSED: Duration = Duration::from_secs(300);

/// An address on a link.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Neighbour {
    pub port: usize,
    pub address: IpAddr,
}

struct Entry {
    mac: Option<MacAddress>,
    confirmed: Instant,
    asked: Instant,
    attempts: u8,
    used: Instant,
    /// Packets that wait for it.
    held: usize,
}

/// What to do with a packet for a neighbour.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Resolution {
    /// Send it; and ask again in unicast if `probe`.
    Known { mac: MacAddress, probe: bool },
    /// Hold it; and ask everybody if `ask`.
    Unknown { ask: bool },
    /// The table is full.
    Full,
}

/// How far to trust what somebody says of an address. Unknown addresses are added only if `create`:
/// for those who speak to us (RFC 826, RFC 4861 section 7.2.3).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Trust {
    /// It answers our question, or an administrator says so.
    Confirmed { create: bool },
    /// It was said unasked: to be used, and soon to be asked for (RFC 4861 section 7.2.5, STALE).
    Heard { create: bool },
    /// It may not correct what is known already (an advertisement without the override flag).
    IfUnknown,
}

/// What came of an answer. What waited for it is [`Neighbours::next_held`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Learned {
    /// Whether the address is new or another one.
    pub changed: bool,
}

/// What a second has brought for one neighbour.
#[derive(Debug)]
pub enum Tick {
    /// Ask everybody again.
    Ask(Neighbour),
    /// It does not answer: this one, which waited, is lost.
    Gone(Packet),
}

/// The table of one worker.
pub struct Neighbours {
    table: HashMap<Neighbour, Entry, FixedState>,
    /// What waits, oldest first.
    held: VecDeque<(Neighbour, Packet)>,
    next_tick: Instant,
    given_up: u64,
}

impl Neighbours {
    /// An empty table. It allocates all that it ever needs.
    pub fn new() -> Neighbours {
        // Twice the entries that it may hold, so that tombstones are cleared in place.
        Neighbours {
            table: HashMap::with_capacity_and_hasher(CAPACITY * 2, FixedState::default()),
            held: VecDeque::with_capacity(HELD_TOTAL),
            next_tick: Instant::default(),
            given_up: 0,
        }
    }

    /// How many addresses have been forgotten because their neighbour fell silent. Who keeps copies
    /// of them must look again when this changes.
    #[inline]
    pub fn given_up(&self) -> u64 {
        self.given_up
    }

    /// Packets that wait here.
    pub fn held(&self) -> usize {
        self.held.len()
    }

    /// Looks an address up on behalf of a packet.
    pub fn resolve(&mut self, neighbour: Neighbour, now: Instant) -> Resolution {
        let Some(entry) = self.table.get_mut(&neighbour) else {
            if self.table.len() >= CAPACITY {
                return Resolution::Full;
            }
            let entry = Entry {
                mac: None,
                confirmed: now,
                asked: now,
                attempts: 1,
                used: now,
                held: 0,
            };
            self.table.insert(neighbour, entry);
            return Resolution::Unknown { ask: true };
        };
        entry.used = now;
        match entry.mac {
            Some(mac) if now.since(entry.confirmed) < FRESH => {
                Resolution::Known { mac, probe: false }
            }
            Some(mac) => {
                let probe = now.since(entry.asked) >= ASK_EVERY;
                if probe && entry.attempts >= ATTEMPTS {
                    entry.mac = None;
                    self.given_up += 1;
                    (entry.asked, entry.attempts) = (now, 1);
                    return Resolution::Unknown { ask: true };
                }
                if probe {
                    (entry.asked, entry.attempts) = (now, entry.attempts + 1);
                }
                Resolution::Known { mac, probe }
            }
            None => Resolution::Unknown { ask: false },
        }
    }

    /// Until when [`Neighbours::resolve`] goes on to say what it says now, if it knows the address and
    /// nothing is learnt: not for long, as it must hear who is still in use.
    pub fn fresh_until(&self, neighbour: Neighbour, now: Instant) -> Option<Instant> {
        let entry = self.table.get(&neighbour)?;
        entry.mac?;
        let fresh = (entry.confirmed + FRESH).min(now + ASK_EVERY);
        // A stale one is asked for again, sooner or later.
        Some(fresh.max(now + Duration::from_nanos(1)))
    }

    /// Keeps a packet until its neighbour answers; gives it back if there is no room. So many buffers
    /// are `free`.
    pub fn hold(
        &mut self,
        neighbour: Neighbour,
        packet: Packet,
        free: usize,
    ) -> Result<(), Packet> {
        let room = (free / HELD_SHARE).clamp(HELD_LEAST, HELD_TOTAL);
        match self.table.get_mut(&neighbour) {
            Some(entry) if entry.held < HELD_EACH && self.held.len() < room => {
                entry.held += 1;
                self.held.push_back((neighbour, packet));
                Ok(())
            }
            _ => Err(packet),
        }
    }

    /// The next packet that waited for a neighbour whose address is known now.
    pub fn next_held(&mut self, neighbour: Neighbour) -> Option<Packet> {
        let entry = self.table.get_mut(&neighbour)?;
        entry.held = entry.held.checked_sub(1)?;
        let at = self.held.iter().position(|(who, _)| *who == neighbour)?;
        self.held.remove(at).map(|(_, packet)| packet)
    }

    /// Takes an answer, or what a request says about its sender.
    pub fn learn(
        &mut self,
        neighbour: Neighbour,
        mac: MacAddress,
        trust: Trust,
        now: Instant,
    ) -> Option<Learned> {
        let stale = now.saturating_sub(FRESH);
        if let Some(entry) = self.table.get_mut(&neighbour) {
            let changed = entry.mac != Some(mac);
            if trust == Trust::IfUnknown && changed && entry.mac.is_some() {
                return None;
            }
            entry.mac = Some(mac);
            match trust {
                Trust::Confirmed { .. } => (entry.confirmed, entry.attempts) = (now, 0),
                _ if changed => {
                    (entry.confirmed, entry.asked, entry.attempts) = (stale, now, 0);
                }
                _ => {}
            }
            return Some(Learned { changed });
        }
        let confirmed = match trust {
            Trust::Confirmed { create: true } => now,
            Trust::Heard { create: true } => stale,
            _ => return None,
        };
        if self.table.len() >= CAPACITY {
            return None;
        }
        let entry = Entry {
            mac: Some(mac),
            confirmed,
            asked: now,
            attempts: 0,
            used: now,
            held: 0,
        };
        self.table.insert(neighbour, entry);
        Some(Learned { changed: true })
    }

    /// Once a second: what to ask again, what to give up, whom to forget.
    pub fn tick(&mut self, now: Instant, mut act: impl FnMut(Tick)) {
        if now < self.next_tick {
            return;
        }
        self.next_tick = now + ASK_EVERY;
        let held = &mut self.held;
        self.table.retain(|neighbour, entry| {
            if entry.mac.is_some() {
                return now.since(entry.used) < UNUSED;
            }
            if now.since(entry.asked) < ASK_EVERY {
                return true;
            }
            if entry.attempts < ATTEMPTS && entry.held > 0 {
                (entry.asked, entry.attempts) = (now, entry.attempts + 1);
                act(Tick::Ask(*neighbour));
                return true;
            }
            // In turn, so that the others keep their order.
            for _ in 0..if entry.held > 0 { held.len() } else { 0 } {
                match held.pop_front() {
                    Some((who, packet)) if who == *neighbour => act(Tick::Gone(packet)),
                    other => held.extend(other),
                }
            }
            false
        });
    }

    /// Gives back every packet that waits.
    pub fn release_all(&mut self, mut take: impl FnMut(Packet)) {
        for (neighbour, packet) in self.held.drain(..) {
            if let Some(entry) = self.table.get_mut(&neighbour) {
                entry.held = 0;
            }
            take(packet);
        }
    }
}

impl Default for Neighbours {
    fn default() -> Neighbours {
        Neighbours::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool::Pool;
    use std::net::Ipv4Addr;

    const WHO: Neighbour = Neighbour {
        port: 1,
        address: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 9)),
    };
    const MAC: MacAddress = [2, 0, 0, 0, 0, 9];

    fn at(seconds: f64) -> Instant {
        Instant::default() + Duration::from_secs_f64(seconds)
    }

    #[test]
    fn a_few_packets_wait_and_leave_in_order() {
        let room = HELD_EACH.min(HELD_LEAST);
        let mut pool = Pool::new(256).unwrap();
        let mut table = Neighbours::new();
        assert_eq!(
            table.resolve(WHO, at(0.0)),
            Resolution::Unknown { ask: true }
        );
        for n in 0..room {
            let packet = pool.copy_in(&[n as u8]).unwrap();
            table.hold(WHO, packet, 0).unwrap();
        }
        assert_eq!(
            table.resolve(WHO, at(0.5)),
            Resolution::Unknown { ask: false }
        );
        let packet = pool.copy_in(&[9]).unwrap();
        let refused = table.hold(WHO, packet, 0).unwrap_err();
        pool.free(refused);
        let learned = table
            .learn(WHO, MAC, Trust::Confirmed { create: false }, at(0.6))
            .unwrap();
        assert!(learned.changed);
        let mut order = Vec::new();
        while let Some(packet) = table.next_held(WHO) {
            order.push(pool.bytes(&packet)[0]);
            pool.free(packet);
        }
        assert_eq!(order, (0..room as u8).collect::<Vec<_>>());
        assert_eq!(table.held(), 0);
        let known = Resolution::Known {
            mac: MAC,
            probe: false,
        };
        assert_eq!(table.resolve(WHO, at(0.7)), known);
        assert_eq!(pool.available(), 256);
    }

    #[test]
    fn silence_is_asked_three_times_and_then_given_up_rfc_1122_section_2_3_2_1() {
        let mut pool = Pool::new(1).unwrap();
        let mut table = Neighbours::new();
        table.resolve(WHO, at(0.0));
        table.hold(WHO, pool.allocate().unwrap(), 0).unwrap();
        let (mut asked, mut lost) = (0, 0);
        for tenth in 0..50 {
            table.tick(at(f64::from(tenth) / 10.0), |tick| match tick {
                Tick::Ask(who) => asked += usize::from(who == WHO),
                Tick::Gone(packet) => {
                    lost += 1;
                    pool.free(packet);
                }
            });
        }
        assert_eq!((asked, lost, table.held()), (2, 1, 0));
        assert_eq!(
            table.resolve(WHO, at(6.0)),
            Resolution::Unknown { ask: true }
        );
    }

    #[test]
    fn an_old_answer_is_probed_and_trusted_until_three_probes_fail() {
        let mut table = Neighbours::new();
        table.learn(WHO, MAC, Trust::Confirmed { create: true }, at(0.0));
        let known = |probe| Resolution::Known { mac: MAC, probe };
        assert_eq!(table.resolve(WHO, at(29.9)), known(false));
        assert_eq!(table.resolve(WHO, at(30.0)), known(true));
        assert_eq!(table.resolve(WHO, at(30.1)), known(false));
        assert_eq!(table.resolve(WHO, at(31.0)), known(true));
        assert_eq!(table.resolve(WHO, at(32.0)), known(true));
        assert_eq!(table.given_up(), 0);
        assert_eq!(
            table.resolve(WHO, at(33.0)),
            Resolution::Unknown { ask: true }
        );
        assert_eq!(table.given_up(), 1, "copies of the address are void");
        table.learn(WHO, MAC, Trust::Confirmed { create: false }, at(33.1));
        assert_eq!(table.resolve(WHO, at(33.2)), known(false));
    }

    #[test]
    fn strangers_are_not_added_and_the_table_is_bounded() {
        let mut table = Neighbours::new();
        assert!(
            table
                .learn(WHO, MAC, Trust::Confirmed { create: false }, at(0.0))
                .is_none()
        );
        for n in 0..CAPACITY as u32 {
            let address = Ipv4Addr::from(n).into();
            let who = Neighbour { port: 0, address };
            assert!(
                table
                    .learn(who, MAC, Trust::Confirmed { create: true }, at(0.0))
                    .is_some()
            );
        }
        assert!(
            table
                .learn(WHO, MAC, Trust::Confirmed { create: true }, at(0.0))
                .is_none()
        );
        assert_eq!(table.resolve(WHO, at(0.0)), Resolution::Full);
        table.tick(at(301.0), |_| ());
        assert_eq!(
            table.resolve(WHO, at(301.0)),
            Resolution::Unknown { ask: true }
        );
    }

    #[test]
    fn rfc4861_section_7_2_5_what_is_said_unasked_is_used_but_soon_asked_for() {
        const OTHER: MacAddress = [2, 0, 0, 0, 0, 7];
        let mut table = Neighbours::new();
        let heard = Trust::Heard { create: true };
        assert!(table.learn(WHO, MAC, heard, at(100.0)).unwrap().changed);
        let known = |mac, probe| Resolution::Known { mac, probe };
        assert_eq!(table.resolve(WHO, at(100.5)), known(MAC, false));
        assert_eq!(table.resolve(WHO, at(101.0)), known(MAC, true));
        // Hearing the same again confirms nothing; an answer does.
        table.learn(WHO, MAC, heard, at(101.5));
        assert_eq!(table.resolve(WHO, at(102.0)), known(MAC, true));
        table.learn(WHO, MAC, Trust::Confirmed { create: false }, at(102.1));
        assert_eq!(table.resolve(WHO, at(110.0)), known(MAC, false));
        // Without the override flag nothing that is known changes.
        assert!(
            table
                .learn(WHO, OTHER, Trust::IfUnknown, at(111.0))
                .is_none()
        );
        assert_eq!(table.resolve(WHO, at(112.0)), known(MAC, false));
        assert!(table.learn(WHO, OTHER, heard, at(113.0)).unwrap().changed);
        assert_eq!(table.resolve(WHO, at(113.5)), known(OTHER, false));
        assert_eq!(table.resolve(WHO, at(114.0)), known(OTHER, true));
    }

    #[test]
    fn a_packet_for_each_of_many_neighbours_waits_while_buffers_are_plenty() {
        let mut pool = Pool::new(4096).unwrap();
        let mut table = Neighbours::new();
        let mut held = 0;
        for n in 0..CAPACITY as u32 {
            let address = Ipv4Addr::from(n).into();
            let who = Neighbour { port: 0, address };
            assert_eq!(
                table.resolve(who, at(0.0)),
                Resolution::Unknown { ask: true }
            );
            let packet = pool.allocate().unwrap();
            match table.hold(who, packet, 16_384 - held) {
                Ok(()) => held += 1,
                Err(packet) => pool.free(packet),
            }
        }
        assert_eq!((held, table.held()), (CAPACITY, CAPACITY));
        // With few buffers others need them more.
        table.release_all(|packet| pool.free(packet));
        let who = |n: u32| Neighbour {
            port: 0,
            address: Ipv4Addr::from(n).into(),
        };
        let mut refused = 0;
        for n in 0..2 * HELD_LEAST as u32 {
            let packet = pool.allocate().unwrap();
            if let Err(packet) = table.hold(who(n), packet, 500) {
                pool.free(packet);
                refused += 1;
            }
        }
        assert_eq!((refused, table.held()), (HELD_LEAST, HELD_LEAST));
        table.release_all(|packet| pool.free(packet));
    }
}

//! Who is who on the links (RFC 826, RFC 4861): a bounded table for each port of neighbours of both
//! families, and the few packets that wait for an answer. It decides what to ask and when; `links.rs`
//! does the asking.
//!
//! On a link anybody can claim any address, or make us look for one. So no port takes another's room,
//! and in a full table those give way first that are worth least; routers of ours never do.

mod waiting;

use std::net::IpAddr;
use std::time::Duration;

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use hitless_sa::Instant;
use smallvec::SmallVec;

use crate::pool::Packet;
use crate::port::MacAddress;
use waiting::{Queue, Waiting};

/// Neighbours of one port that are remembered.
const CAPACITY: usize = 1024;
/// Routers of ours by one port, for which there is always room.
const ROUTERS: usize = 256;
/// Packets that wait for one neighbour: what comes at once for the router behind a member that has
/// just taken over, until that one answers.
const HELD_EACH: usize = 32;
/// Packets that wait in all: each port has its share. Such a member has something for each of hundreds
/// of neighbours, too; the smallest pool has twice as many buffers.
const HELD_TOTAL: u16 = 512;
/// Neighbours that give way at a time, and how often: it takes a look at all of them.
const SWEPT: usize = 128;
const SWEEP_EVERY: Duration = Duration::from_millis(1);
/// At most one request an address in this time (RFC 1122 section 2.3.2.1).
const ASK_EVERY: Duration = Duration::from_secs(1);
/// Requests without an answer before an address counts as gone.
const ATTEMPTS: u8 = 3;
/// How long an answer is trusted before it is asked for again, in unicast.
const FRESH: Duration = Duration::from_secs(30);
/// The same of a router of ours, on which all that is sent depends: what it says unasked when it moves is
/// not heard by every port. One that does not answer counts as what it was for as long as others.
const FRESH_ROUTER: Duration = Duration::from_secs(1);
/// How long a neighbour that nobody sends to is remembered.
const UNUSED: Duration = Duration::from_secs(300);

/// An address on a link.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Neighbour {
    pub port: usize,
    pub address: IpAddr,
}

/// Packets given back.
pub type Held = SmallVec<[Packet; HELD_EACH]>;

struct Entry {
    mac: Option<MacAddress>,
    confirmed: Instant,
    asked: Instant,
    attempts: u8,
    used: Instant,
    /// Somebody has sent to it.
    wanted: bool,
    /// It was learnt in another term: it may have moved unheard.
    doubted: bool,
    /// A next hop of the forwarding table.
    router: bool,
    held: Queue,
}

/// What a neighbour is worth to a full table, least first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Worth {
    /// It has said who it is, and nobody wanted to know.
    Heard,
    /// It is looked for, and nothing waits for it.
    Sought,
    Known,
}

impl Entry {
    /// How long its answer is trusted.
    fn fresh(&self) -> Duration {
        match self.router {
            true => FRESH_ROUTER,
            false => FRESH,
        }
    }

    /// None if it has to stay, as what waits for it does not wait for long.
    fn worth(&self) -> Option<Worth> {
        match (self.wanted, self.mac) {
            _ if !self.held.is_empty() => None,
            (false, _) => Some(Worth::Heard),
            (true, None) => Some(Worth::Sought),
            (true, Some(_)) => Some(Worth::Known),
        }
    }
}

/// What to do with a packet for a neighbour.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Resolution {
    /// Send it; and ask again if there is a `probe`.
    Known {
        mac: MacAddress,
        probe: Option<Probe>,
    },
    /// Hold it; and ask everybody if `ask`.
    Unknown { ask: bool },
    /// The table is full.
    Full,
}

/// Whom to ask whether an address is still whose it was.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Probe {
    /// The one that had it (RFC 4861 section 7.3.3; RFC 1122 section 2.3.2.1).
    Unicast,
    /// Everybody: another one may have it by now.
    Broadcast,
}

/// How far to trust what somebody says of an address. Unknown addresses are added only if `create`:
/// for those who speak to us (RFC 826, RFC 4861 section 7.2.3).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Trust {
    /// It answers our question, or an administrator says so.
    Confirmed { create: bool },
    /// It was said unasked: to be used, and soon to be asked for (RFC 4861 section 7.2.5, STALE).
    Heard { create: bool },
    /// It may not correct what is known already (an advertisement without the override flag); as an
    /// answer it confirms the same.
    IfUnknown { answers: bool },
}

/// What a worker is told of a neighbour, by another one as that was told itself.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct News {
    pub neighbour: Neighbour,
    pub mac: MacAddress,
    pub trust: Trust,
}

impl News {
    /// What the embedder knows.
    pub fn certain(port: usize, address: IpAddr, mac: MacAddress) -> News {
        News {
            neighbour: Neighbour { port, address },
            mac,
            trust: Trust::Confirmed { create: true },
        }
    }
}

/// What came of an answer.
#[derive(Debug)]
pub struct Learned {
    /// Whether the address is new or another one.
    pub changed: bool,
    /// What waited for it.
    pub released: Held,
}

/// What a second has brought for one neighbour.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "handled where it is made; a box would be an allocation"
)]
pub enum Tick {
    /// Ask everybody again.
    Ask(Neighbour),
    /// It does not answer: these are lost.
    Gone(Held),
}

/// The neighbours of one port.
struct Table {
    entries: HashMap<IpAddr, Entry, FixedState>,
    waiting: Waiting,
    /// Next hops of the forwarding table, in order.
    routers: Vec<IpAddr>,
    next_sweep: Instant,
    /// Where the oldest are found.
    ages: Vec<Instant>,
}

/// The tables of one worker.
pub struct Neighbours {
    tables: Box<[Table]>,
    next_tick: Instant,
    given_up: u64,
}

impl Neighbours {
    /// Empty tables for so many ports. They allocate all that they ever need.
    pub fn new(ports: usize) -> Neighbours {
        let share = HELD_TOTAL / u16::try_from(ports).unwrap_or(HELD_TOTAL).max(1);
        let share = share.max(HELD_EACH as u16);
        Neighbours {
            tables: (0..ports).map(|_| Table::new(share)).collect(),
            next_tick: Instant::default(),
            given_up: 0,
        }
    }

    /// The next hops of the forwarding table: there is always room for them, and they stay.
    pub fn set_routers(&mut self, routers: impl Iterator<Item = Neighbour>) {
        self.tables.iter_mut().for_each(|t| t.routers.clear());
        for Neighbour { port, address } in routers {
            if let Some(table) = self.tables.get_mut(port)
                && table.routers.len() < ROUTERS
            {
                table.routers.push(address);
            }
        }
        for table in &mut self.tables {
            table.routers.sort_unstable();
            for (address, entry) in &mut table.entries {
                entry.router = table.routers.binary_search(address).is_ok();
            }
        }
    }

    /// How often addresses were forgotten because their neighbour fell silent, or doubted. Who keeps
    /// copies of them must look again when this changes.
    #[inline]
    pub fn given_up(&self) -> u64 {
        self.given_up
    }

    /// Packets that wait here.
    pub fn held(&self) -> usize {
        self.tables.iter().map(|table| table.waiting.held()).sum()
    }

    /// Looks an address up on behalf of a packet.
    pub fn resolve(&mut self, neighbour: Neighbour, now: Instant) -> Resolution {
        let Some(table) = self.tables.get_mut(neighbour.port) else {
            return Resolution::Full;
        };
        let Some(entry) = table.entries.get_mut(&neighbour.address) else {
            if !table.make_room(neighbour.address, Worth::Known, now) {
                return Resolution::Full;
            }
            let entry = Entry {
                mac: None,
                confirmed: now,
                asked: now,
                attempts: 1,
                used: now,
                wanted: true,
                doubted: false,
                router: table.is_router(neighbour.address),
                held: Queue::EMPTY,
            };
            table.entries.insert(neighbour.address, entry);
            return Resolution::Unknown { ask: true };
        };
        (entry.used, entry.wanted) = (now, true);
        match entry.mac {
            Some(mac) if !entry.doubted && now.since(entry.confirmed) < entry.fresh() => {
                Resolution::Known { mac, probe: None }
            }
            Some(mac) => {
                let at_once = entry.doubted && entry.attempts == 0;
                let due = at_once || now.since(entry.asked) >= ASK_EVERY;
                let stale = entry.doubted || now.since(entry.confirmed) >= FRESH;
                if due && stale && entry.attempts >= ATTEMPTS {
                    entry.mac = None;
                    self.given_up += 1;
                    (entry.asked, entry.attempts) = (now, 1);
                    return Resolution::Unknown { ask: true };
                }
                // Who does not answer may be somebody else by now.
                let probe = match entry.doubted || entry.attempts > 0 {
                    true => Probe::Broadcast,
                    false => Probe::Unicast,
                };
                if due {
                    entry.attempts = ATTEMPTS.min(entry.attempts + 1);
                    entry.asked = now;
                }
                let probe = due.then_some(probe);
                Resolution::Known { mac, probe }
            }
            None => Resolution::Unknown { ask: false },
        }
    }

    /// Whoever leads again has heard no announcement since it last did: what it knows is used, and
    /// everybody is asked at once.
    pub fn doubt(&mut self) {
        for entry in self.tables.iter_mut().flat_map(|t| t.entries.values_mut()) {
            if entry.mac.is_some() {
                (entry.attempts, entry.doubted) = (0, true);
            }
        }
        // Copies of the addresses are void.
        self.given_up += 1;
    }

    /// The Ethernet address of a neighbour, as far as it is known.
    pub fn peek(&self, neighbour: Neighbour) -> Option<MacAddress> {
        let table = self.tables.get(neighbour.port)?;
        table.entries.get(&neighbour.address)?.mac
    }

    /// Whether an answer about it is to a question of ours that is open. With several workers it may
    /// be to one of another's: a card gives what is no flow to one of its queues.
    pub fn awaits(&self, neighbour: Neighbour) -> bool {
        let table = self.tables.get(neighbour.port);
        let entry = table.and_then(|table| table.entries.get(&neighbour.address));
        entry.is_some_and(|entry| entry.attempts > 0)
    }

    /// Until when [`Neighbours::resolve`] goes on to say what it says now, if it knows the address and
    /// nothing is learnt: not for long, as it must hear who is still in use.
    pub fn fresh_until(&self, neighbour: Neighbour, now: Instant) -> Option<Instant> {
        let table = self.tables.get(neighbour.port)?;
        let entry = table.entries.get(&neighbour.address)?;
        entry.mac?;
        let fresh = match entry.doubted {
            true => now,
            false => (entry.confirmed + entry.fresh())
                .max(entry.asked + ASK_EVERY)
                .min(now + ASK_EVERY),
        };
        // A stale one is asked for again, sooner or later.
        Some(fresh.max(now + Duration::from_nanos(1)))
    }

    /// Keeps a packet until its neighbour answers; gives it back if there is no room.
    pub fn hold(&mut self, neighbour: Neighbour, packet: Packet) -> Result<(), Packet> {
        let Some(table) = self.tables.get_mut(neighbour.port) else {
            return Err(packet);
        };
        match table.entries.get_mut(&neighbour.address) {
            Some(entry) => table.waiting.push(&mut entry.held, packet),
            None => Err(packet),
        }
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
        let table = self.tables.get_mut(neighbour.port)?;
        if let Some(entry) = table.entries.get_mut(&neighbour.address) {
            let changed = entry.mac != Some(mac);
            let corrects = changed && entry.mac.is_some();
            // It may correct who has been asked himself, and did not answer.
            let silent = entry.attempts > 1 && trust == Trust::IfUnknown { answers: true };
            if corrects && matches!(trust, Trust::IfUnknown { .. }) && !silent {
                return None;
            }
            entry.mac = Some(mac);
            match trust {
                Trust::Confirmed { .. } | Trust::IfUnknown { answers: true } => {
                    (entry.confirmed, entry.attempts, entry.doubted) = (now, 0, false)
                }
                _ if changed => {
                    (entry.confirmed, entry.asked, entry.attempts) = (stale, now, 0);
                }
                _ => {}
            }
            return Some(Learned {
                changed,
                released: table.waiting.take(&mut entry.held),
            });
        }
        let confirmed = match trust {
            Trust::Confirmed { create: true } => now,
            Trust::Heard { create: true } => stale,
            _ => return None,
        };
        if !table.make_room(neighbour.address, Worth::Heard, now) {
            return None;
        }
        let entry = Entry {
            mac: Some(mac),
            confirmed,
            asked: now,
            attempts: 0,
            used: now,
            wanted: false,
            doubted: false,
            router: table.is_router(neighbour.address),
            held: Queue::EMPTY,
        };
        table.entries.insert(neighbour.address, entry);
        Some(Learned {
            changed: true,
            released: Held::new(),
        })
    }

    /// Once a second: what to ask again, what to give up, whom to forget.
    pub fn tick(&mut self, now: Instant, mut act: impl FnMut(Tick)) {
        if now < self.next_tick {
            return;
        }
        self.next_tick = now + ASK_EVERY;
        for (port, table) in self.tables.iter_mut().enumerate() {
            table.tick(port, now, &mut act);
        }
    }

    /// Gives every packet that waits to `judge`, and goes on holding what that returns.
    pub fn release(&mut self, mut judge: impl FnMut(Neighbour, Packet) -> Option<Packet>) {
        for (port, table) in self.tables.iter_mut().enumerate() {
            if table.waiting.held() == 0 {
                continue;
            }
            for (address, entry) in &mut table.entries {
                let neighbour = Neighbour {
                    port,
                    address: *address,
                };
                let waiting = &mut table.waiting;
                waiting.retain(&mut entry.held, |packet| judge(neighbour, packet));
            }
        }
    }
}

impl Table {
    /// With room for so many packets that wait.
    fn new(room: u16) -> Table {
        // Twice the entries that it may hold, so that tombstones are cleared in place.
        Table {
            entries: HashMap::with_capacity_and_hasher(CAPACITY * 2, FixedState::default()),
            waiting: Waiting::new(room),
            routers: Vec::with_capacity(ROUTERS),
            next_sweep: Instant::default(),
            ages: Vec::with_capacity(CAPACITY),
        }
    }

    /// Whether an address is a next hop of the forwarding table.
    fn is_router(&self, address: IpAddr) -> bool {
        self.routers.binary_search(&address).is_ok()
    }

    /// Whether there is room for one more; if need be those make it that were used longest ago among
    /// the ones that are worth least, and no more than `most`. Not for long do routers wait for that.
    fn make_room(&mut self, newcomer: IpAddr, most: Worth, now: Instant) -> bool {
        if self.entries.len() < CAPACITY {
            return true;
        }
        let routers = &self.routers;
        let is_router = |address: &IpAddr| routers.binary_search(address).is_ok();
        let urgent = is_router(&newcomer);
        if now < self.next_sweep && !urgent {
            return false;
        }
        self.next_sweep = now + SWEEP_EVERY;
        let worth = |address: &IpAddr, entry: &Entry| match is_router(address) {
            false => entry.worth(),
            true => None,
        };
        let all = self.entries.iter();
        let least = all
            .filter_map(|(address, entry)| worth(address, entry))
            .min();
        let most = if urgent { Worth::Known } else { most };
        let Some(least) = least.filter(|least| *least <= most) else {
            return false;
        };
        let gives_way = |address: &IpAddr, entry: &Entry| worth(address, entry) == Some(least);
        let all = self.entries.iter().filter(|(a, e)| gives_way(a, e));
        self.ages.clear();
        self.ages.extend(all.map(|(_, entry)| entry.used));
        let Some(nth) = self
            .ages
            .len()
            .checked_sub(1)
            .map(|last| last.min(SWEPT - 1))
        else {
            return false;
        };
        let (_, youngest, _) = self.ages.select_nth_unstable(nth);
        let mut left = nth + 1;
        self.entries.retain(|address, entry| {
            let goes = left > 0 && entry.used <= *youngest && gives_way(address, entry);
            left -= usize::from(goes);
            !goes
        });
        true
    }

    fn tick(&mut self, port: usize, now: Instant, act: &mut impl FnMut(Tick)) {
        let waiting = &mut self.waiting;
        self.entries.retain(|address, entry| {
            if entry.mac.is_some() {
                return now.since(entry.used) < UNUSED;
            }
            if now.since(entry.asked) < ASK_EVERY {
                return true;
            }
            if entry.attempts < ATTEMPTS && !entry.held.is_empty() {
                (entry.asked, entry.attempts) = (now, entry.attempts + 1);
                act(Tick::Ask(Neighbour {
                    port,
                    address: *address,
                }));
                return true;
            }
            act(Tick::Gone(waiting.take(&mut entry.held)));
            false
        });
    }
}

#[cfg(test)]
mod tests;

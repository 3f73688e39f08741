//! Which ESP sequence numbers and IVs were used, how often, and in which order: invariants S1 and
//! S2 as seen on the wire.
//!
//! A number is the 64-bit one wherever the packet shows it: the sender uses its sequence number as
//! IV (S2), so if the low half of the IV is the number that travels, the IV is taken as the number.
//! Otherwise (another vendor's IV) the 32 bits that travel are all there is.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::IpAddr;
use std::time::Duration;

use super::report::{Places, TapId};
use super::wire::Esp;

/// Faults kept in detail; all are counted.
const DETAILS: usize = 1000;

/// An SA, as the wire shows it (RFC 4301 section 4.1: destination and SPI name a unicast SA).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct EspKey {
    pub destination: IpAddr,
    pub spi: u32,
}

impl fmt::Display for EspKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SPI {:08x} to {}", self.spi, self.destination)
    }
}

/// S1 broken: a number that was sent twice.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RepeatedNumber {
    pub key: EspKey,
    pub number: u64,
    /// When and where the second packet was seen.
    pub time: Duration,
    pub tap: TapId,
    /// The two packets differ: two encryptions with one nonce. Identical packets mean that one was
    /// sent twice, or that the network doubled it.
    pub distinct: bool,
}

/// S2 broken: one explicit IV with two different numbers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RepeatedIv {
    pub key: EspKey,
    pub iv: u64,
    pub numbers: (u64, u64),
    pub time: Duration,
}

/// The packets of one SA, in the order of the wire.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stream {
    pub source: IpAddr,
    pub encapsulated: bool,
    pub packets: u64,
    pub first: u64,
    pub last: u64,
    pub highest: u64,
    pub first_time: Duration,
    pub last_time: Duration,
    /// Packets with a number below one seen before.
    pub reordered: u64,
    /// The furthest that a packet was behind the highest number before it.
    pub greatest_step_back: u64,
    pub greatest_step_back_time: Duration,
    /// The widest step from the highest number to a higher one.
    pub greatest_jump: u64,
    pub greatest_jump_time: Duration,
    /// Packets whose explicit IV is not their sequence number; another vendor's, or S2 broken.
    pub iv_not_number: u64,
}

impl Stream {
    fn begin(esp: &Esp<'_>, time: Duration, number: u64) -> Stream {
        Stream {
            source: esp.source,
            encapsulated: esp.encapsulated,
            packets: 0,
            first: number,
            last: number,
            highest: number,
            first_time: time,
            last_time: time,
            reordered: 0,
            greatest_step_back: 0,
            greatest_step_back_time: time,
            greatest_jump: 0,
            greatest_jump_time: time,
            iv_not_number: 0,
        }
    }

    fn enter(&mut self, time: Duration, number: u64, iv_is_number: bool) {
        self.packets += 1;
        self.last = number;
        self.last_time = time;
        self.iv_not_number += u64::from(!iv_is_number);
        if number < self.highest {
            self.reordered += 1;
            let back = self.highest - number;
            if back > self.greatest_step_back {
                self.greatest_step_back = back;
                self.greatest_step_back_time = time;
            }
            return;
        }
        let jump = number - self.highest;
        if jump > self.greatest_jump {
            self.greatest_jump = jump;
            self.greatest_jump_time = time;
        }
        self.highest = number;
    }
}

/// One use of a number.
#[derive(Clone, Debug)]
pub(super) struct Use {
    digest: u64,
    pub(super) seen: Vec<(TapId, u32)>,
}

/// The record of all packets.
#[derive(Clone, Debug, Default)]
pub(super) struct Ledger {
    pub(super) places: Places,
    pub(super) used: BTreeMap<(EspKey, u64), Use>,
    ivs: BTreeMap<(EspKey, u64), u64>,
    /// What each tap saw.
    pub(super) streams: BTreeMap<(EspKey, TapId), Stream>,
    /// What was sent, wherever it was seen: without the copies at other taps.
    pub(super) sent: BTreeMap<EspKey, Stream>,
    pub(super) repeated: Vec<RepeatedNumber>,
    pub(super) repeated_identical: u64,
    pub(super) repeated_distinct: u64,
    pub(super) repeated_ivs: Vec<RepeatedIv>,
    pub(super) repeated_iv_count: u64,
}

impl Ledger {
    pub(super) fn enter(&mut self, tap: TapId, time: Duration, esp: &Esp<'_>) {
        let key = EspKey {
            destination: esp.destination,
            spi: esp.spi,
        };
        let iv_is_number = esp.iv as u32 == esp.sequence;
        let number = if iv_is_number {
            esp.iv
        } else {
            u64::from(esp.sequence)
        };
        let begin = || Stream::begin(esp, time, number);
        let at_tap = self.streams.entry((key, tap)).or_insert_with(begin);
        at_tap.enter(time, number, iv_is_number);
        if self.enter_number(key, tap, time, number, digest(esp.packet)) {
            let sent = self.sent.entry(key).or_insert_with(begin);
            sent.enter(time, number, iv_is_number);
        }
        self.enter_iv(key, time, esp.iv, number);
    }

    /// Whether it is a packet of its own, and no copy of one that was seen at another tap.
    fn enter_number(
        &mut self,
        key: EspKey,
        tap: TapId,
        time: Duration,
        number: u64,
        digest: u64,
    ) -> bool {
        let entry = self.used.entry((key, number));
        let known = matches!(entry, Entry::Occupied(_));
        let used = entry.or_insert_with(|| Use {
            digest,
            seen: Vec::with_capacity(1),
        });
        let times_here = match used.seen.iter_mut().find(|(seen, _)| *seen == tap) {
            Some((_, times)) => {
                *times += 1;
                *times
            }
            None => {
                used.seen.push((tap, 1));
                1
            }
        };
        // The same packet at another place is the same packet; anything else is a second one.
        let distinct = used.digest != digest;
        let second = match self.places {
            Places::EachTap => times_here > 1,
            Places::OneForAll => known,
        };
        if !distinct && !second {
            return !known;
        }
        if distinct {
            self.repeated_distinct += 1;
        } else {
            self.repeated_identical += 1;
        }
        if self.repeated.len() < DETAILS {
            self.repeated.push(RepeatedNumber {
                key,
                number,
                time,
                tap,
                distinct,
            });
        }
        true
    }

    fn enter_iv(&mut self, key: EspKey, time: Duration, iv: u64, number: u64) {
        let first = *self.ivs.entry((key, iv)).or_insert(number);
        if first == number {
            return;
        }
        self.repeated_iv_count += 1;
        if self.repeated_ivs.len() < DETAILS {
            self.repeated_ivs.push(RepeatedIv {
                key,
                iv,
                numbers: (first, number),
                time,
            });
        }
    }
}

/// 64 bits that tell two packets apart. Chance, not malice, is what they guard against.
pub(super) fn digest(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    hasher.finish()
}

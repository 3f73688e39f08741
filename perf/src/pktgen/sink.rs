//! What arrives: which packets, how often, in which order, how late.

use std::net::IpAddr;

use hdrhistogram::{CreationError, Histogram};
use hitless_dataplane::wire::{checksum, ethernet, ip, ipv4, ipv6};
use serde::Serialize;

use super::source::Stamp;

/// Numbers behind the highest of a flow that are still told apart.
const WINDOW: u64 = 4096;
const WORDS: usize = WINDOW as usize / 64;
/// Longest delay that is told apart: a minute, in nanoseconds.
const LONGEST: u64 = 60_000_000_000;
const UDP_HEADER: usize = 8;

/// What was seen so far.
#[derive(Clone, PartialEq, Debug, Default, Serialize)]
pub struct Arrivals {
    /// Packets of this run, copies included.
    pub received: u64,
    pub received_bytes: u64,
    pub duplicated: u64,
    /// Behind a later number of their flow.
    pub reordered: u64,
    /// Ours by their stamp, but their checksum is wrong.
    pub altered: u64,
    /// Everything else.
    pub foreign: u64,
    pub p50_us: f64,
    pub p99_us: f64,
    pub p999_us: f64,
    pub max_us: f64,
}

/// Which numbers of a flow have come.
struct Flow {
    /// One above the highest; 0 before the first.
    next: u64,
    seen: [u64; WORDS],
}

enum Order {
    Next,
    Late,
    Again,
}

impl Flow {
    fn note(&mut self, number: u64) -> Order {
        let place = |number: u64| ((number / 64) as usize % WORDS, 1u64 << (number % 64));
        if number >= self.next {
            // Words that the window enters hold old numbers.
            let first = self.next.div_ceil(64);
            let last = number / 64;
            for word in first..=last.min(first + WORDS as u64) {
                self.seen[word as usize % WORDS] = 0;
            }
            self.next = number + 1;
            let (word, bit) = place(number);
            self.seen[word] |= bit;
            return Order::Next;
        }
        let (word, bit) = place(number);
        // Too far behind to know: it is late in any case.
        if number / 64 + WORDS as u64 <= (self.next - 1) / 64 {
            return Order::Late;
        }
        if self.seen[word] & bit != 0 {
            return Order::Again;
        }
        self.seen[word] |= bit;
        Order::Late
    }
}

impl Arrivals {
    /// Packets that arrived of those sent. A replay's carry no stamp of the run: any of them counts.
    pub fn of_ours(&self, replay: bool) -> u64 {
        match replay {
            true => self.foreign,
            false => self.received - self.duplicated,
        }
    }
}

/// The far end.
pub struct Sink {
    run: u32,
    flows: Vec<Flow>,
    arrivals: Arrivals,
    delay: Histogram<u64>,
}

impl Sink {
    /// For so many flows; what earlier runs left in some queue is not this one's.
    pub fn new(flows: u32) -> Result<Sink, CreationError> {
        let flow = |_| Flow {
            next: 0,
            seen: [0; WORDS],
        };
        Ok(Sink {
            run: hitless::clock::now().0 as u32,
            flows: (0..flows).map(flow).collect(),
            arrivals: Arrivals::default(),
            delay: Histogram::new_with_max(LONGEST, 3)?,
        })
    }

    /// Names the run in its stamps.
    pub fn run(&self) -> u32 {
        self.run
    }

    /// A frame that arrived at this time.
    pub fn note(&mut self, frame: &[u8], now: u64) {
        let Some((stamp, intact)) = read(frame) else {
            self.arrivals.foreign += 1;
            return;
        };
        if !intact {
            self.arrivals.altered += 1;
            return;
        }
        let flow = self.flows.get_mut(stamp.flow as usize);
        let Some(flow) = flow.filter(|_| stamp.run == self.run) else {
            self.arrivals.foreign += 1;
            return;
        };
        self.arrivals.received += 1;
        self.arrivals.received_bytes += frame.len() as u64;
        match flow.note(stamp.number) {
            Order::Next => {}
            Order::Late => self.arrivals.reordered += 1,
            Order::Again => self.arrivals.duplicated += 1,
        }
        self.delay
            .saturating_record(now.saturating_sub(stamp.sent_ns).max(1));
    }

    /// Packets of this run so far.
    pub fn received(&self) -> u64 {
        self.arrivals.received
    }

    /// All of it, with the delays.
    pub fn arrivals(&self) -> Arrivals {
        let microseconds = |q| self.delay.value_at_quantile(q) as f64 / 1e3;
        Arrivals {
            p50_us: microseconds(0.5),
            p99_us: microseconds(0.99),
            p999_us: microseconds(0.999),
            max_us: self.delay.max() as f64 / 1e3,
            ..self.arrivals.clone()
        }
    }
}

/// The stamp of a frame, and whether its checksum is right.
fn read(frame: &[u8]) -> Option<(Stamp, bool)> {
    let packet = frame.get(ethernet::HEADER..)?;
    let parsed = ip::Ip::parse(packet).ok()?;
    let (from, to): (IpAddr, IpAddr) = (parsed.source(), parsed.destination());
    let header = match from {
        IpAddr::V4(_) => ipv4::HEADER,
        IpAddr::V6(_) => ipv6::HEADER,
    };
    let udp = packet.get(header..)?;
    let length = usize::from(u16::from_be_bytes(*udp.get(4..)?.first_chunk()?));
    // Padding of short Ethernet frames is behind it.
    let udp = udp.get(..length)?;
    let stamp = Stamp::parse(udp.get(UDP_HEADER..)?)?;
    let sum = checksum(ip::pseudo_header(from, to, ipv4::UDP, length), udp);
    Some((stamp, sum == 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_number_counts_once_in_any_order() {
        let mut flow = Flow {
            next: 0,
            seen: [0; WORDS],
        };
        let mut seen = std::collections::BTreeSet::new();
        let mut random = hitless_bench::Random(3);
        let mut base = 0;
        for _ in 0..20_000 {
            base += random.draw() % 3;
            // Now and then a leap; mostly within the window.
            if random.draw().is_multiple_of(500) {
                base += random.draw() % (3 * WINDOW);
            }
            let number = base.saturating_sub(random.draw() % (WINDOW / 2));
            let highest = seen.last().copied();
            let again = matches!(flow.note(number), Order::Again);
            let recent = highest.is_none_or(|highest| number + WINDOW - 64 > highest);
            assert!(recent, "the test stays where the window knows");
            assert_eq!(again, !seen.insert(number), "{number}");
        }
    }
}

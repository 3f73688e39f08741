//! Next hops that this member must reach to do its work (`ports.NAME.monitor`): while it is active
//! it asks each of them for its Ethernet address again and again (ARP, neighbour discovery). One
//! that does not answer is an ailment, like a link that is down: this member yields to a standby
//! that has none.
//!
//! A standby cannot ask: the answer would go to the cluster's address, which is the active's. It
//! remembers for a while what it saw as the active, so that two members behind one dead router do
//! not hand the lead to and fro; then it counts as well again, for somebody may have mended it.

use std::net::IpAddr;
use std::time::Duration;

use hitless_dataplane::command::Command;
use hitless_sa::Instant;

use super::Gateway;

/// From one question to the next.
const PERIOD: Duration = Duration::from_millis(250);
/// So many unanswered in a row: it is down.
const UNANSWERED: u32 = 4;
/// How long a member that is not active any more believes that.
const MEMORY: Duration = Duration::from_secs(60);

struct NextHop {
    port: usize,
    address: IpAddr,
    unanswered: u32,
    /// When it was last found not to answer.
    down: Option<Instant>,
}

/// See the module.
#[derive(Default)]
pub(super) struct NextHops {
    hops: Vec<NextHop>,
    next: Instant,
}

impl NextHops {
    /// Those of all ports, by index.
    pub fn new<'a>(monitors: impl Iterator<Item = (usize, &'a [IpAddr])>) -> NextHops {
        let all = monitors.flat_map(|(port, addresses)| {
            addresses.iter().map(move |address| NextHop {
                port,
                address: *address,
                unanswered: 0,
                down: None,
            })
        });
        NextHops {
            hops: all.collect(),
            next: Instant::default(),
        }
    }

    /// It has answered.
    pub fn answered(&mut self, port: usize, address: IpAddr) {
        let named = |hop: &&mut NextHop| (hop.port, hop.address) == (port, address);
        for hop in self.hops.iter_mut().filter(named) {
            hop.unanswered = 0;
            hop.down = None;
        }
    }

    /// A port's carrier has come or gone: what was seen before is past.
    pub fn forget(&mut self, port: usize) {
        for hop in self.hops.iter_mut().filter(|hop| hop.port == port) {
            hop.unanswered = 0;
            hop.down = None;
        }
    }

    /// Those that do not answer.
    pub fn down(&self) -> impl Iterator<Item = (usize, IpAddr)> {
        let down = self.hops.iter().filter(|hop| hop.down.is_some());
        down.map(|hop| (hop.port, hop.address))
    }

    /// Whom to ask now.
    fn due(&mut self, now: Instant, leading: bool) -> Vec<(usize, IpAddr)> {
        if self.hops.is_empty() || now < self.next {
            return Vec::new();
        }
        self.next = now + PERIOD;
        for hop in &mut self.hops {
            if !leading {
                hop.unanswered = 0;
                hop.down = hop.down.filter(|since| now.since(*since) < MEMORY);
            } else if hop.unanswered >= UNANSWERED {
                hop.down = Some(now);
            } else {
                hop.unanswered += 1;
            }
        }
        match leading {
            true => self.hops.iter().map(|h| (h.port, h.address)).collect(),
            false => Vec::new(),
        }
    }
}

impl Gateway {
    /// Asks whom it is time to ask.
    pub(super) fn watch_next_hops(&mut self, now: Instant) {
        let leading = self.dataplane.leading();
        for (port, address) in self.next_hops.due(now, leading) {
            // One asks; the answer may come to any.
            for worker in 0..self.dataplane.len() {
                let ask = worker == 0;
                let probe = Command::Probe { port, address, ask };
                self.dataplane.send(worker, probe);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    const ROUTER: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 254));

    fn at(step: u64) -> Instant {
        Instant(1_000_000_000) + PERIOD * u32::try_from(step).unwrap()
    }

    #[test]
    fn a_next_hop_is_down_after_some_questions_and_up_with_its_first_answer() {
        let addresses = [ROUTER];
        let mut hops = NextHops::new([(1, &addresses[..])].into_iter());
        for step in 0..u64::from(UNANSWERED) {
            assert_eq!(hops.due(at(step), true), [(1, ROUTER)]);
            assert_eq!(hops.due(at(step), true), [], "one question a period");
            assert_eq!(hops.down().count(), 0);
        }
        hops.due(at(4), true);
        assert_eq!(hops.down().collect::<Vec<_>>(), [(1, ROUTER)]);
        hops.answered(0, ROUTER);
        assert_eq!(hops.down().count(), 1, "of another port");
        hops.answered(1, ROUTER);
        assert_eq!(hops.down().count(), 0);
    }

    #[test]
    fn a_standby_asks_nobody_and_forgets_after_a_while() {
        let addresses = [ROUTER];
        let mut hops = NextHops::new([(1, &addresses[..])].into_iter());
        for step in 0..=4 {
            hops.due(at(step), true);
        }
        assert_eq!(hops.due(at(5), false), []);
        assert_eq!(hops.down().count(), 1);
        hops.due(at(4) + MEMORY, false);
        assert_eq!(hops.down().count(), 0);
        for step in 500..=504 {
            hops.due(at(step), true);
        }
        assert_eq!(hops.down().count(), 1);
        hops.forget(1);
        assert_eq!(hops.down().count(), 0);
    }
}

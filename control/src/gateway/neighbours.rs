//! The neighbours that the workers have learned, for `hitless show neighbours`. Each worker has its
//! own table and decides by that one; this is the control thread's memory of what they told.

use std::collections::BTreeMap;
use std::net::IpAddr;

use hitless_dataplane::neighbour::News;
use hitless_dataplane::port::MacAddress;
use hitless_sa::Instant;

/// Neighbours remembered at most: on a link anybody can claim addresses.
const MOST: usize = 4096;

/// One neighbour.
pub(super) struct Neighbour {
    pub mac: MacAddress,
    /// The worker that told first.
    pub worker: usize,
    /// When it was learned or changed.
    pub at: Instant,
}

/// By port and address.
#[derive(Default)]
pub(super) struct Neighbours(BTreeMap<(usize, IpAddr), Neighbour>);

impl Neighbours {
    pub fn learned(&mut self, now: Instant, worker: usize, news: News) {
        let key = (news.neighbour.port, news.neighbour.address);
        let mac = news.mac;
        if self.0.get(&key).is_some_and(|known| known.mac == mac) {
            return;
        }
        if self.0.len() < MOST || self.0.contains_key(&key) {
            let neighbour = Neighbour {
                mac,
                worker,
                at: now,
            };
            self.0.insert(key, neighbour);
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = (&(usize, IpAddr), &Neighbour)> {
        self.0.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    #[test]
    fn the_newest_address_counts_and_a_flood_is_bounded() {
        let mut neighbours = Neighbours::default();
        let router = Ipv4Addr::new(192, 0, 2, 1).into();
        let mut learned = |at, worker, port, address, mac| {
            neighbours.learned(Instant(at), worker, News::certain(port, address, [mac; 6]));
        };
        learned(1, 0, 0, router, 1);
        learned(2, 1, 0, router, 1);
        learned(3, 1, 0, router, 2);
        for number in 0..10_000u32 {
            let address = Ipv4Addr::from(number).into();
            learned(4, 0, 1, address, 3);
        }
        learned(5, 0, 0, router, 4);
        assert_eq!(neighbours.iter().count(), MOST);
        let (_, known) = neighbours.iter().next().unwrap();
        assert_eq!((known.mac, known.at), ([4; 6], Instant(5)));
    }
}

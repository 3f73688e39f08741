//! A packet that comes in several frames is gathered into a run of the pool, so that the path sees
//! one slice. Ordinary packets never come here.

use crate::pool::{Packet, Pool};

/// What came of a part.
#[derive(Debug)]
pub enum Gathered {
    /// More parts will come.
    More,
    /// The whole packet.
    Packet(Packet),
    /// The packet is over, and lost: no run was free.
    NoBuffer,
    /// The packet is over, and lost: it is longer than a run, or a part of it was none.
    Malformed,
}

/// The packet that is being gathered. It lives from burst to burst.
#[derive(Debug)]
enum Gathering {
    Run(Packet),
    Lost { malformed: bool },
}

/// At most one packet in parts.
#[derive(Debug, Default)]
pub struct Chain(Option<Gathering>);

impl Chain {
    /// Whether parts of a packet have come and its end has not.
    pub fn is_open(&self) -> bool {
        self.0.is_some()
    }

    /// Packets of the pool that are held here.
    pub fn held(&self) -> usize {
        usize::from(matches!(self.0, Some(Gathering::Run(_))))
    }

    /// Takes a part, or `None` in place of one that the kernel described wrongly.
    pub fn take(&mut self, pool: &mut Pool, part: Option<Packet>, continues: bool) -> Gathered {
        let so_far = self.0.take().unwrap_or_else(|| match pool.allocate_run() {
            Some(run) => Gathering::Run(run),
            None => Gathering::Lost { malformed: false },
        });
        let now = match (so_far, part) {
            (Gathering::Run(run), Some(part)) => add(pool, run, part),
            (Gathering::Run(run), None) => {
                pool.free(run);
                Gathering::Lost { malformed: true }
            }
            (lost, part) => {
                if let Some(part) = part {
                    pool.free(part);
                }
                lost
            }
        };
        match (now, continues) {
            (now, true) => {
                self.0 = Some(now);
                Gathered::More
            }
            (Gathering::Run(run), false) => Gathered::Packet(run),
            (Gathering::Lost { malformed: false }, false) => Gathered::NoBuffer,
            (Gathering::Lost { malformed: true }, false) => Gathered::Malformed,
        }
    }

    /// Gives up the packet that is being gathered.
    pub fn clear(&mut self, pool: &mut Pool) {
        if let Some(Gathering::Run(run)) = self.0.take() {
            pool.free(run);
        }
    }
}

/// Without a pool the run stays out of use, as do the frames in the rings.
impl Drop for Chain {
    fn drop(&mut self) {
        if let Some(Gathering::Run(run)) = self.0.take() {
            run.into_frame();
        }
    }
}

/// Copies a part behind what has come so far.
fn add(pool: &mut Pool, mut run: Packet, part: Packet) -> Gathering {
    let (at, length) = (run.len(), part.len());
    let added = pool.append(&mut run, length) && pool.copy_between(&part, 0..length, &mut run, at);
    pool.free(part);
    if added {
        return Gathering::Run(run);
    }
    pool.free(run);
    Gathering::Lost { malformed: true }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(pool: &mut Pool, length: usize, fill: u8) -> Option<Packet> {
        Some(pool.copy_in(&vec![fill; length]).unwrap())
    }

    #[test]
    fn parts_become_one_slice_in_their_order() {
        let mut pool = Pool::with_runs(4, 1).unwrap();
        let mut chain = Chain::default();
        for fill in [1, 2] {
            let part = part(&mut pool, 1792, fill);
            let more = chain.take(&mut pool, part, true);
            assert!(matches!(more, Gathered::More));
            assert_eq!((chain.held(), pool.available()), (1, 4));
        }
        let last = part(&mut pool, 7, 3);
        let Gathered::Packet(packet) = chain.take(&mut pool, last, false) else {
            panic!("no packet");
        };
        let whole = [vec![1; 1792], vec![2; 1792], vec![3; 7]].concat();
        assert_eq!(pool.bytes(&packet), whole);
        assert!(!chain.is_open() && chain.held() == 0);
        pool.free(packet);
        assert_eq!(pool.available(), 5);
    }

    #[test]
    fn a_packet_without_a_run_or_with_a_bad_part_is_lost_to_its_end_and_no_further() {
        let mut pool = Pool::with_runs(16, 1).unwrap();
        let mut chain = Chain::default();
        let run = pool.allocate_run().unwrap();
        for continues in [true, false] {
            let part = part(&mut pool, 1000, 1);
            let gathered = chain.take(&mut pool, part, continues);
            assert_eq!(matches!(gathered, Gathered::NoBuffer), !continues);
        }
        pool.free(run);
        for (bad, lengths) in [(1, vec![1000; 3]), (9, vec![1792; 8])] {
            for (index, length) in lengths.iter().enumerate() {
                let part = match index == bad {
                    true => None,
                    false => part(&mut pool, *length, 1),
                };
                let continues = index + 1 < lengths.len();
                let gathered = chain.take(&mut pool, part, continues);
                assert_eq!(matches!(gathered, Gathered::Malformed), !continues);
            }
            assert_eq!(pool.available(), 17);
        }
        let first = part(&mut pool, 10, 1);
        chain.take(&mut pool, first, true);
        chain.clear(&mut pool);
        assert_eq!((pool.available(), chain.is_open()), (17, false));
    }
}

//! Where a frame of unknown length lands: in a frame of the pool, and what does not fit there in a
//! buffer of the port's own. Only a jumbo frame is copied again, into a run.

use super::LINK_HEADER;
use crate::pool::{FRAME_SIZE, HEADROOM, Packet, Pool};

/// Octets that land in the pool's frame.
pub(super) const LANDING: usize = FRAME_SIZE - HEADROOM;

/// Octets beyond the pool's frame that a frame of an interface may have.
pub(super) fn overflow(mtu: usize) -> usize {
    (mtu + LINK_HEADER).saturating_sub(LANDING)
}

/// A packet to receive into, with all its room.
pub(super) fn prepare(pool: &mut Pool) -> Option<Packet> {
    let mut packet = pool.allocate()?;
    let grown = pool.append(&mut packet, LANDING);
    debug_assert!(grown, "an empty frame has this room");
    Some(packet)
}

/// What landed, as one packet of `length` octets; `None` if there was no run for it.
pub(super) fn land(
    pool: &mut Pool,
    mut landed: Packet,
    overflow: &[u8],
    length: usize,
) -> Option<Packet> {
    if length <= LANDING {
        let cut = pool.truncate(&mut landed, length);
        debug_assert!(cut, "it landed with all its room");
        return Some(landed);
    }
    let run = gather(pool, &landed, overflow, length);
    pool.free(landed);
    run
}

fn gather(pool: &mut Pool, landed: &Packet, overflow: &[u8], length: usize) -> Option<Packet> {
    let rest = overflow.get(..length - LANDING)?;
    let mut run = pool.allocate_for(length)?;
    let whole = pool.append(&mut run, length) && pool.copy_between(landed, 0..LANDING, &mut run, 0);
    match pool.bytes_mut(&mut run).get_mut(LANDING..) {
        Some(target) if whole => target.copy_from_slice(rest),
        _ => {
            pool.free(run);
            return None;
        }
    }
    Some(run)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fits_stays_where_it_is_and_the_rest_moves_into_a_run() {
        let mut pool = Pool::with_runs(2, 1).unwrap();
        let overflow = [9; 5000];
        for length in [0, 60, LANDING, LANDING + 1, LANDING + 5000] {
            let mut packet = prepare(&mut pool).unwrap();
            pool.bytes_mut(&mut packet).fill(7);
            let packet = land(&mut pool, packet, &overflow, length).unwrap();
            let octets = pool.bytes(&packet);
            let seven = octets.iter().take_while(|&&octet| octet == 7).count();
            assert_eq!(seven, length.min(LANDING));
            assert!(octets[seven..].iter().all(|&octet| octet == 9));
            assert_eq!((octets.len(), packet.is_run()), (length, length > LANDING));
            pool.free(packet);
            assert_eq!(pool.available(), 3);
        }
        // Longer than the port's own buffer, and without a run.
        let packet = prepare(&mut pool).unwrap();
        assert!(land(&mut pool, packet, &overflow, LANDING + 5001).is_none());
        let run = pool.allocate_run().unwrap();
        let packet = prepare(&mut pool).unwrap();
        assert!(land(&mut pool, packet, &overflow, LANDING + 1).is_none());
        pool.free(run);
        assert_eq!(pool.available(), 3);
    }
}

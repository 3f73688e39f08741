//! Who draws from a cell: a seat for each worker.

use std::marker::PhantomData;

use crate::sync::unique;

/// Several draw, each with a locked instruction.
pub(super) const SEVERAL: u64 = 0;
/// One alone draws, who has not done so yet.
pub(super) const UNCLAIMED: u64 = 1;
/// The first seat.
const FIRST: u64 = 2;

/// What a worker draws with. There is one of each, and one thread at a time has it: it is neither
/// `Clone` nor `Sync`. That is why a cell may believe that who has claimed it is alone.
#[derive(Debug)]
pub struct Seat {
    id: u64,
    one_thread: PhantomData<std::cell::Cell<()>>,
}

impl Default for Seat {
    fn default() -> Seat {
        Seat {
            id: FIRST + u64::from(unique()),
            one_thread: PhantomData,
        }
    }
}

impl Seat {
    #[inline]
    pub(super) fn id(&self) -> u64 {
        self.id
    }
}

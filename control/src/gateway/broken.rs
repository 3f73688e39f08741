//! Where the gateway keeps a rule that a simulator may have switched off ([`Tuning`]).

use hitless_sa::{Lease, SequenceNumber};

use super::{Gateway, Tuning};

impl Tuning {
    /// What an inherited SA starts with, where the rule for it is switched off.
    pub(super) fn break_rights(&self, floor: &mut SequenceNumber, lease: &mut Lease) {
        if self.no_floor {
            *floor = SequenceNumber(0);
        }
        if self.no_high_water {
            lease.high_water = SequenceNumber(u64::MAX);
        }
    }
}

impl Gateway {
    /// The member steps down, and its cells are still there.
    pub(super) fn break_end(&mut self) {
        let tuning = self.settings.tuning();
        if tuning.old_cells {
            let cells = self.children.iter();
            self.former
                .extend(cells.map(|carried| (carried.child.id, carried.cell.cursor())));
        }
        if tuning.final_too_soon {
            self.stop_forwarding();
        }
    }
}

//! The ledger of grants (`control.grant_log`): which numbers each outbound SPI was given, and
//! when, so that `hitless audit --ledger` can hold what was sent against it.

use hitless_sa::{SaId, SequenceNumber, Spi};

use super::{Gateway, Output};

/// Workers hold drawn numbers that they have not sent yet; a takeover skips them as well.
const HELD_BY_WORKERS: u64 = 1024;

/// A line of the ledger: what the SA may use from now on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Granted {
    pub spi: Spi,
    /// The lowest number that may not have been sent yet; this member's lowest after a takeover.
    pub first: SequenceNumber,
    pub last: SequenceNumber,
    /// After a takeover: from where on the predecessor may have sent, as its last checkpoint says. What
    /// lies between this and `first` may be left out.
    pub left_out_from: Option<SequenceNumber>,
}

impl std::fmt::Display for Granted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:08x} {} {}", self.spi.0, self.first.0, self.last.0)?;
        match self.left_out_from {
            Some(from) => write!(f, " {}", from.0),
            None => Ok(()),
        }
    }
}

impl Gateway {
    /// The cell has got more numbers than up to `before`.
    pub(super) fn enter_grant(
        &mut self,
        sa: SaId,
        before: SequenceNumber,
        left_out_from: Option<SequenceNumber>,
    ) {
        if self.settings.config().control.grant_log.is_none() {
            return;
        }
        let Some(carried) = self.children.get(sa) else {
            return;
        };
        let last = carried.cell.limit();
        if last <= before {
            return;
        }
        let unsent = carried.cell.cursor().0.saturating_sub(HELD_BY_WORKERS);
        let first = SequenceNumber(unsent).max(carried.began).min(last);
        let granted = Granted {
            spi: carried.child.outbound_spi,
            first,
            last,
            left_out_from: left_out_from.map(|from| from.min(first)),
        };
        self.outputs.push_back(Output::Granted(granted));
    }
}

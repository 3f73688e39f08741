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
    /// The lowest number that may not have been sent yet; after a takeover, the one that the
    /// predecessor's last checkpoint names.
    pub first: SequenceNumber,
    pub last: SequenceNumber,
}

impl std::fmt::Display for Granted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Granted { spi, first, last } = self;
        write!(f, "{:08x} {} {}", spi.0, first.0, last.0)
    }
}

impl Gateway {
    /// The cell has got more numbers than up to `before`; `first` if it is not where it stands.
    pub(super) fn enter_grant(
        &mut self,
        sa: SaId,
        before: SequenceNumber,
        first: Option<SequenceNumber>,
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
        let first = first.unwrap_or(SequenceNumber(unsent));
        let granted = Granted {
            spi: carried.child.outbound_spi,
            first: SequenceNumber(first.0.clamp(1, last.0)),
            last,
        };
        self.outputs.push_back(Output::Granted(granted));
    }
}

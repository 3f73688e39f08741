//! What an active member may use of one Child SA.

use crate::SequenceNumber;

/// The bounds of one Child SA that are recorded (or on their way to be recorded) by the standby.
///
/// The active sends no outbound number above `grant` and delivers no inbound number above
/// `high_water`; whoever takes over sends from `grant + 1` and counts everything up to
/// `high_water` as seen.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Lease {
    pub grant: SequenceNumber,
    pub high_water: SequenceNumber,
}

impl Lease {
    /// The greater of the two in each direction: recorded bounds only rise within an epoch.
    #[must_use]
    pub fn max(self, other: Lease) -> Lease {
        Lease {
            grant: self.grant.max(other.grant),
            high_water: self.high_water.max(other.high_water),
        }
    }

    /// The lesser of the two in each direction: what every admitted standby has recorded.
    #[must_use]
    pub fn min(self, other: Lease) -> Lease {
        Lease {
            grant: self.grant.min(other.grant),
            high_water: self.high_water.min(other.high_water),
        }
    }
}

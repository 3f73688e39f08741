//! The wire audit: reads what was really sent, from captures, and says whether the safety case
//! held. It is the oracle of the demo, the simulator and the testbeds, so it shares no parser of
//! packets with the dataplane or with IKE: a mistake there must not hide itself here.
//!
//! Reading order: `wire.rs` (what a frame is), `ledger.rs` (which sequence numbers were used),
//! `exchanges.rs` (which IKE messages were seen), `tenures.rs` (which member sent), `report.rs` (what
//! that comes to), `permits.rs` (what somebody says was granted), `judge.rs` (what of all that is a
//! fault).

mod exchanges;
mod judge;
mod ledger;
mod permits;
mod report;
mod tenures;
pub mod wire;

pub use hitless_dataplane::pcap;

pub use exchanges::{Exchange, IkeEvent};
pub use judge::{Expectations, Finding, Verdict, judge};
pub use ledger::{EspKey, RepeatedIv, RepeatedNumber, Stream};
pub use permits::{PermitError, Permits};
pub use report::{Audit, Places, Report, TapId};

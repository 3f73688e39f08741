//! The wire audit: reads what was really sent, from captures, and says whether the safety case
//! held. It is the oracle of the demo, the simulator and the testbeds, so it shares no parser of
//! packets with the dataplane or with IKE: a mistake there must not hide itself here.
//!
//! Reading order: `wire.rs` (what a frame is), `ledger.rs` (which sequence numbers were used),
//! `exchanges.rs` (which IKE messages were seen), `report.rs` (what that amounts to).

mod exchanges;
mod ledger;
mod report;
pub mod wire;

pub use hitless_dataplane::pcap;

pub use exchanges::{Exchange, IkeEvent};
pub use ledger::{EspKey, RepeatedIv, RepeatedNumber, Stream};
pub use report::{Audit, Report, TapId};

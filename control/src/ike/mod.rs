//! IKEv2 (RFC 7296), sans-IO.
//!
//! ```text
//!  datagrams, timers, requests -> Engine -> IkeSa (one file for each exchange) -> Output
//!                                                                    Transmit | Commit | Event
//! ```
//!
//! Every established IKE SA can be exported at any moment. Each change of one leaves the engine as
//! one [`Commit`]: the state that results, the messages that imply it, and what changes for its
//! Child SAs. The gateway gives the record to the standby and releases the messages when it is
//! recorded (output commit). Commits take effect in the order in which they leave the engine, also
//! those of different IKE SAs: a rekeyed IKE SA commits its successor first.
//!
//! Read `engine.rs` first, then `initial/` (IKE_SA_INIT and IKE_AUTH), `established.rs`,
//! `receive.rs` and `tasks.rs`, then the exchanges: `create.rs`, `rekey.rs`, `inform.rs`,
//! `counter_sync.rs` (RFC 6311). `crowd.rs` says what strangers may cost, `room.rs` what peers may,
//! `last_ids.rs` ends what has no Message IDs left, `purpose.rs` notes what the file said, `work.rs` counts what is
//! done, `due.rs` does a share of it, `takeover.rs` decides how a new active member resumes,
//! `recall.rs` makes an IKE SA live again whose successor the peer never had,
//! `resuming.rs` when, `governor.rs` when its peer is asked, `graves.rs` keeps the last answers of IKE
//! SAs that are no more,
//! `sessions/` bounds them in time and finds out when a peer has lost one (RFC 6290), `resume/`
//! brings it back (RFC 5723).

mod asked;
pub mod auth;
mod child;
mod contents;
mod cookie;
mod counter_sync;
mod create;
mod crowd;
pub mod crypto;
mod dispatch;
mod due;
pub mod eap;
mod ends;
mod engine;
mod established;
mod export;
mod followup;
pub mod fragments;
mod governor;
mod graves;
mod index;
mod inform;
mod initial;
mod intermediate;
pub mod keys;
mod last_ids;
mod meant;
pub mod message;
mod mobike;
mod narrow;
mod nat;
mod output;
#[cfg(test)]
mod pair;
mod probe;
pub mod proposal;
mod purpose;
mod recall;
mod receive;
mod redirect;
mod rekey;
mod reload;
mod resource;
mod resume;
mod resuming;
mod room;
pub mod sessions;
pub mod settings;
mod starts;
pub mod status;
pub mod takeover;
mod tasks;
mod timers;
mod turn;
mod unanswered;
mod unique;
mod virtual_ip;
pub mod window;
pub mod work;

pub use engine::{Engine, Input};
pub use export::ImportError;
pub use output::{ChildChange, Commit, Event, Output, Record, Resume, Transmit};
pub use reload::WouldClose;

/// Octets written as hex digits.
#[cfg(test)]
pub(crate) fn octets(hex: &str) -> Vec<u8> {
    let digit = |octet: u8| char::from(octet).to_digit(16).unwrap();
    let pairs = hex.as_bytes().chunks(2);
    pairs
        .map(|pair| (digit(pair[0]) << 4 | digit(pair[1])) as u8)
        .collect()
}

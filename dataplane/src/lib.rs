//! A poll-mode ESP dataplane.
//!
//! ```text
//!  Port -> Worker::turn -> classify -> SPD / SAD -> sequence or replay -> AEAD -> Port
//!                ^ commands                                  | punt port, events, checkpoints
//!                +------------------ control thread <--------+
//! ```
//!
//! Reading order: `pool.rs` (what a packet is), `port.rs` (where packets come from), `path.rs` (what
//! happens to them), `worker.rs` (who does it), `cell.rs` (what may be sent), `esp.rs` (how).

pub mod aead;
pub mod cell;
pub mod checkpoint;
pub mod ecn;
pub mod esp;
pub mod flow;
pub mod memory;
pub mod outer;
pub mod pool;
pub mod port;
pub mod replay;
pub mod sad;
mod sync;
pub mod verdict;

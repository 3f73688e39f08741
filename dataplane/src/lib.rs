//! A poll-mode ESP dataplane.
//!
//! ```text
//!  Port -> Worker::turn -> classify -> SPD / SAD -> sequence or replay -> AEAD -> Port
//!                ^ commands                                  | punt port, events, checkpoints
//!                +------------------ control thread <--------+
//! ```
//!
//! Reading order: `pool.rs` (what a packet is), `port` (where packets come from), `path.rs` (what
//! happens to them), `worker.rs` (who does it), `cell.rs` (what may be sent), `esp.rs` (how).

pub mod aead;
pub mod cell;
pub mod checkpoint;
pub mod classify;
pub mod command;
pub mod counters;
pub mod ecn;
pub mod esp;
pub mod fib;
pub mod flow;
mod fragment;
mod frames;
pub mod handover;
mod held;
mod keepalive;
mod leadership;
mod links;
mod local;
pub mod memory;
mod mss;
pub mod neighbour;
pub mod outer;
pub mod parcel;
mod park;
mod path;
pub mod pcap;
pub mod pmtu;
pub mod pool;
pub mod port;
mod prefetch;
mod reassembly;
pub mod replay;
mod report;
pub mod sad;
mod schedule;
pub mod spd;
mod sync;
pub mod thread;
mod transport;
pub mod verdict;
pub mod watch;
pub mod wire;
pub mod worker;

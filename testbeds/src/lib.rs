//! Scenarios with real peers in network namespaces, and the simulator. Everything runs inside
//! namespaces that a scenario makes and removes, or in memory: nothing leaves the machine, nothing
//! of it stays.
//!
//! Reading order: `scenario.rs` (what a scenario is and reports), `scenarios/` (each of them),
//! `topology.rs` (the network they share), `gateway.rs` and `strongswan.rs` (who runs in it),
//! `faults/` (one fault after another under many tunnels), `capture.rs`, `ping.rs` and
//! `tshark.rs` (what is seen), `netns.rs`, `guard.rs`, `process.rs`, `clock.rs`
//! and `syscall.rs` (what it stands on). `sim/` and `model/` stand alone, and so does `esp_peer/`, a
//! gateway for suites in other languages, with `mutate/`, which spoils packets for it, `mangle/`, a
//! peer whose IKE messages are wrong, and `conformance.rs` and `matrix.rs`, the tables of what all the
//! suites show.

pub mod capture;
pub mod clock;
pub mod conformance;
pub mod error;
pub mod esp_peer;
pub mod faults;
pub mod gateway;
pub mod guard;
pub mod libreswan;
pub mod mangle;
pub mod matrix;
pub mod model;
pub mod mutate;
pub mod netns;
pub mod ping;
pub mod process;
pub mod scenario;
pub mod scenarios;
pub mod sim;
pub mod stage;
pub mod strongswan;
mod syscall;
pub mod topology;
pub mod tshark;

//! A network in one process: switches, hosts and captures over memory ports.
//!
//! ```text
//!  host -- switch(protected) -- gateway worker -- switch(outside) -- gateway worker -- ... -- host
//! ```
//!
//! The demo runs it on threads and real time, the simulator on one thread and virtual time. It is
//! the world outside the gateways: hosts build and read their packets with code of their own, so
//! that they can judge what the gateways did.

mod host;
mod hub;
mod station;
mod switch;
mod topology;

pub use host::{Host, MAGIC, Probe};
pub use hub::{Hub, SyncNetwork};
pub use station::{MTU, Room, Station, first_start};
pub use switch::{Captured, Switch};
pub use topology::{
    CLUSTER, CLUSTER_INSIDE, Family, HOST_A, HOST_B, PEER, PEER_INSIDE, Stations, Topology,
    sync_address,
};

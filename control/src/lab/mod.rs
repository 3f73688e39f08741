//! A network in one process: switches, hosts and captures over memory ports.
//!
//! ```text
//!  host -- switch(protected) -- gateway worker -- switch(outside) -- gateway worker -- ... -- host
//! ```
//!
//! The demo runs it on threads and real time, the simulator, the tests and `hitless-perf takeover` on
//! one thread and virtual time. Hosts share the dataplane's Ethernet, IP and UDP, and nothing of
//! gateways, ESP or IKE: what they send is numbered, so that they can judge what becomes of it.

mod extras;
mod host;
mod hub;
mod station;
mod switch;
mod topology;

pub use extras::{Begins, Extras, Lane, Redirect};
pub use host::{Host, MAGIC, Probe};
pub use hub::{Hub, SyncNetwork};
pub use station::{MTU, Room, Station, first_start};
pub use switch::{Captured, Switch};
pub use topology::{
    CLUSTER, CLUSTER_INSIDE, Family, HOST_A, HOST_B, NAT, PEER, PEER_INSIDE, Stations, Topology,
    sync_address,
};

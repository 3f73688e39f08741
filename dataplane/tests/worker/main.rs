//! Workers on memory ports: whole journeys, every drop, leases, and hostile frames.

mod abuse;
mod bed;
mod burst;
mod discovery;
mod drops;
mod express_inbound;
mod faults;
mod hostile;
mod interfaces;
mod jumbo;
mod keepalives;
mod lane;
mod leases;
mod local;
mod long_messages;
mod parcels;
mod policy;
mod replay;
mod router;
mod suites;
mod transport;
mod tunnel;
mod twins;
mod v6;
mod watch;

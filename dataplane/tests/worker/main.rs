//! Workers on memory ports: whole journeys, every drop, leases, and hostile frames.

mod bed;
mod drops;
mod hostile;
mod jumbo;
mod leases;
mod local;
mod tunnel;

//! Whole gateways over memory ports: a cluster and its peer, one thread, virtual time.

mod families;
mod fitness;
mod flood;
mod held;
mod hostile;
mod idle;
mod roads;
mod roles;
mod takeover;
mod view;
mod world;

//! Whole gateways over memory ports: a cluster and its peer, one thread, virtual time.

mod families;
mod fitness;
mod held;
mod hostile;
mod idle;
mod metrics;
mod roads;
mod roles;
mod takeover;
mod view;
mod world;

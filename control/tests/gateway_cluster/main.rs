//! Whole gateways over memory ports: a cluster and its peer, one thread, virtual time.

mod held;
mod hostile;
mod roles;
mod takeover;
mod view;
mod world;

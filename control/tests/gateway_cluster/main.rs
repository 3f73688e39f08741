//! Whole gateways over memory ports: a cluster and its peer, one thread, virtual time.

mod beat;
mod clusters;
mod families;
mod fitness;
mod flood;
mod gradual;
mod held;
mod hostile;
mod idle;
mod inbound;
mod lazy;
mod metrics;
mod nat;
mod policies;
mod record_size;
mod retrieve;
mod roads;
mod roles;
mod sessions;
mod several;
mod share;
mod switchover;
mod takeover;
mod view;
mod wire;
mod world;

//! Ports against the kernel, each test in a network namespace of its own. Without the right to make
//! one a test is skipped, and says so.

mod af_packet;
mod af_xdp;
mod jumbo;
mod namespace;
mod opening;
mod station;
mod tap;

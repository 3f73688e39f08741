//! Two IKE engines on one virtual clock.

mod establish;
mod world;

//! Several workers of one gateway: one SA on all of them, SAs that are bound to one, packets handed
//! from one to another, and the life cycle of SAs while packets flow.

mod bed;
mod fat;
mod handover;
mod life;
#[expect(
    dead_code,
    reason = "the packets of the worker tests, of which these need a part"
)]
#[path = "../worker/bed.rs"]
mod packets;
mod threads;

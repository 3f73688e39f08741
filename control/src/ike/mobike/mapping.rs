//! Whether the NAT in front of us still maps us to the same address (RFC 4555 section 3.8). The peer is the
//! only one that sees, and must not follow by itself: the initiator is to notice, and to say so.

use super::Errand;
use crate::ike::contents::Contents;
use crate::ike::established::IkeSa;
use crate::ike::message::{NotifyKind, Payload};
use crate::ike::nat;
use crate::ike::tasks::Task;
use crate::ike::turn::Turn;

/// What a check of liveness asks besides.
pub(in crate::ike) fn ask_for_mapping(ike: &IkeSa, turn: &mut Turn<'_>) -> Vec<Payload> {
    if !is_mapped(ike) {
        return Vec::new();
    }
    let (initiator, responder) = ike.spis();
    let fake = turn.fake_source(ike.nat.forced);
    nat::notifications(initiator, responder, ike.path, fake).into()
}

/// What the answer says.
pub(in crate::ike) fn hear_of_mapping(
    ike: &mut IkeSa,
    turn: &mut Turn<'_>,
    contents: &Contents<'_>,
) {
    let before = ike.mapping.clone();
    note(ike, contents);
    // What is said first on an IKE SA has nothing to differ from: the digest has its SPIs in it.
    if before.is_some() && before != ike.mapping {
        ike.schedule(turn.now, Task::Mobike(Errand::Update));
    }
}

/// Keeps the digest of where the peer sees us.
pub(super) fn note(ike: &mut IkeSa, contents: &Contents<'_>) {
    let seen = contents.notify(NotifyKind::NAT_DETECTION_DESTINATION_IP);
    if let Some(seen) = seen.filter(|_| is_mapped(ike)) {
        ike.mapping = Some(seen.data.clone());
    }
}

fn is_mapped(ike: &IkeSa) -> bool {
    ike.mobike.is_some() && ike.began() && ike.nat.local
}

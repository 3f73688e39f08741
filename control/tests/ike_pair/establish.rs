//! IKE_SA_INIT and IKE_AUTH.

use std::time::Duration;

use hitless::ike::{Event, Input};
use proptest::prelude::*;

use crate::world::{A, B, Faults, World, address, settings};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn establishes_an_ike_sa_and_the_first_child_rfc7296_1_2() {
    let world = World::established(1);
    assert_eq!(world.hosts[A].sent.len(), 2);
    assert_eq!(world.hosts[B].sent.len(), 2);
    let status = &world.hosts[A].engine.status(world.now)[0];
    assert_eq!(
        status.proposal,
        "AES_GCM_16-128/PRF_HMAC_SHA2_256/CURVE_25519"
    );
    assert_eq!(status.children[0].proposal, "AES_GCM_16-128/ESN");
    assert!(status.message_id_sync && status.replay_counter_sync);
    assert_eq!(world.sa(A).encapsulation, None);
    assert_eq!(world.sa(A).remote, address(B));
}

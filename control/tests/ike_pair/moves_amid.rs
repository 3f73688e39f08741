//! Addresses that change (RFC 4555) between CREATE_CHILD_SA and each IKE_FOLLOWUP_KE of it (RFC 9370
//! section 2.2.4).

use hitless::ike::{Event, Input, Resume};

use crate::followup::{ESP, IKE, REKEYS, Rekey};
use crate::mobike::{assert_at, mobile, moved, talk};
use crate::world::{A, B, SECOND, World, address};

fn established(seed: u64) -> World {
    let [a, b] = [A, B].map(|host| {
        let mut settings = mobile(host);
        settings.connections[0].proposals = vec![IKE.parse().unwrap()];
        settings.connections[0].children[0].esp_proposals = vec![ESP.parse().unwrap()];
        settings
    });
    let mut world = World::new(seed, a, b);
    world.run(SECOND);
    world.assert_agreement(1);
    world
}

/// All IKE SAs of a host go with it, whatever they are at: there are two for a moment.
fn relocate(world: &mut World, host: usize) {
    let local = moved(host);
    for status in world.hosts[host].engine.status(world.now) {
        let ike = status.local_spi;
        world.input(host, Input::Relocate { ike, local });
    }
}

/// The rekeying is under way by so many steps when `mover` moves; `fails_over`: and dies at once.
/// Returns whether it was over before.
fn move_after(steps: usize, rekey: Rekey, mover: usize, fails_over: bool) -> bool {
    eprintln!("{rekey:?}, {mover} moves after {steps} steps, takeover {fails_over}");
    let mut world = established(11);
    let before = (world.ike(A), world.sa(A).id);
    rekey.start(&mut world);
    let end = world.now + SECOND;
    let taken = (0..steps).take_while(|_| world.step(end)).count();
    relocate(&mut world, mover);
    if fails_over {
        world.fail_over(mover, Resume::Exact);
    }
    world.run(100 * SECOND);
    let [a, b] = [A, B].map(|host| match host == mover {
        true => moved(host),
        false => address(host),
    });
    assert_at(&world, a, b);
    assert_ne!((world.ike(A), world.sa(A).id), before, "and it is rekeyed");
    let again = |e: &Event| matches!(e, Event::IkeEstablished { .. });
    let begun = usize::from(!fails_over);
    assert_eq!(world.hosts[mover].count(again), begun, "no new IKE_AUTH");
    talk(&mut world);
    taken < steps
}

fn at_every_step(fails_over: bool) {
    for rekey in REKEYS {
        for mover in [A, B] {
            let over = (0..40).any(|steps| move_after(steps, rekey, mover, fails_over));
            assert!(over, "no step is left out");
        }
    }
}

#[test]
fn rfc9370_section_2_2_4_an_end_moves_at_every_step_of_a_rekeying() {
    at_every_step(false);
}

#[test]
fn an_end_moves_and_fails_over_at_every_step_of_a_rekeying() {
    at_every_step(true);
}

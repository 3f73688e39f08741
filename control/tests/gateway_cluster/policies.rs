//! Policies that take long to make: what is replaced meanwhile, and how often they are made.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use hitless::gateway::{Builder, Job};
use hitless::ike::Input;
use hitless_dataplane::spd::Spd;

use crate::world::{PEER, World};

/// A builder that is done when the test says so, for however few SAs.
#[derive(Clone, Default)]
struct Slow(Arc<Mutex<Building>>);

#[derive(Default)]
struct Building {
    job: Option<Job>,
    stuck: bool,
    begun: usize,
    /// See [`Builder::worth`].
    worth: usize,
}

impl Builder for Slow {
    fn start(&mut self, job: Job) {
        let mut building = self.0.lock().unwrap();
        building.job = Some(job);
        building.begun += 1;
    }

    fn take(&mut self) -> Option<Vec<Arc<Spd>>> {
        let mut building = self.0.lock().unwrap();
        if building.stuck {
            return None;
        }
        Some(building.job.take().expect("a job")())
    }

    fn worth(&self) -> usize {
        self.0.lock().unwrap().worth
    }
}

impl Slow {
    fn stick(&self, stuck: bool) {
        self.0.lock().unwrap().stuck = stuck;
    }

    fn begun(&self) -> usize {
        self.0.lock().unwrap().begun
    }
}

/// A cluster whose active makes its policies there, the active, and the builder.
fn slow(seed: u64) -> (World, u8, Slow) {
    let mut world = World::with_traffic(seed);
    let active = world.leader().unwrap();
    let builder = Slow::default();
    world.gateway(active).set_builder(Box::new(builder.clone()));
    world.run(Duration::from_millis(50));
    (world, active, builder)
}

/// Rekeys the tunnel by that end, and waits until the old SA is gone at the active.
fn rekey(world: &mut World, active: u8, by: u8) {
    // Both ends have ended what came before.
    world.run(Duration::from_millis(2));
    let old = world.status(active).leases[0].sa.clone();
    world.ask(by, |gateway, now, entropy| {
        let (_, children) = gateway.ike_sas().remove(0);
        gateway.ike(now, entropy, Input::RekeyChild(children[0]));
    });
    world.until("a successor alone", |world| {
        let leases = world.status(active).leases;
        leases.len() == 1 && leases[0].sa != old
    });
}

fn nothing_is_lost(world: &mut World) {
    world.traffic = false;
    world.run(Duration::from_millis(50));
    let [a, b] = [world.a.sent().len(), world.b.sent().len()];
    assert_eq!(world.received(), [b, a], "every probe arrives");
    world.traffic = true;
}

#[test]
fn an_sa_that_is_replaced_sends_by_its_successor_until_there_are_policies() {
    let (mut world, active, builder) = slow(501);
    builder.stick(true);
    let begun = builder.begun();
    for by in [active, PEER, active] {
        rekey(&mut world, active, by);
        world.run(Duration::from_millis(100));
        nothing_is_lost(&mut world);
    }
    assert_eq!(builder.begun(), begun + 1, "the first is not done");
    builder.stick(false);
    world.run(Duration::from_millis(100));
    assert!(builder.begun() > begun + 1);
    rekey(&mut world, active, active);
    nothing_is_lost(&mut world);
    world.audit();
}

#[test]
fn policies_are_made_once_for_all_that_is_installed_in_a_while() {
    let (mut world, active, builder) = slow(502);
    // Every SA counts as a crowd, for which 10 ms are waited.
    builder.0.lock().unwrap().worth = 1;
    let (begun, start) = (builder.begun(), world.now);
    let installed = 60;
    for _ in 0..installed {
        rekey(&mut world, active, PEER);
    }
    let took = world.now.since(start).as_millis() as usize;
    let made = builder.begun() - begun;
    assert!(made <= took / 10 + 2, "{made} in {took} ms");
    assert!(3 * made <= 2 * installed, "{made} for {installed}");
    nothing_is_lost(&mut world);
    world.audit();
}

#[test]
fn what_is_loaded_is_published_when_the_workers_have_it() {
    let (mut world, active, builder) = slow(503);
    builder.stick(true);
    let config = world.config(active);
    let now = world.now;
    world.ask(active, |gateway, _, entropy| {
        gateway.reload(now, entropy, config).unwrap();
    });
    let publication = world.gateway(active).publication();
    world.run(Duration::from_millis(50));
    assert!(!world.gateway(active).has_published(publication));
    builder.stick(false);
    world.run(Duration::from_millis(5));
    assert!(world.gateway(active).has_published(publication));
    nothing_is_lost(&mut world);
}

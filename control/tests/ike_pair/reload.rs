//! What the operator changes holds, whichever member read it first and whoever leads then.

use std::collections::BTreeMap;
use std::time::Duration;

use hitless::ike::Input;
use hitless::ike::settings::{Connection, EngineSettings, Mobike};
use hitless_sa::{IkeSpi, SaId};

use crate::world::{A, B, SECOND, World, address, settings, several};

/// Which member reads the file that the operator changed.
#[derive(Clone, Copy, Debug)]
enum Reader {
    Leader,
    /// Its leader dies before it does the same.
    Standby,
    /// The same, and it began with that file.
    NewStandby,
}

const READERS: [Reader; 3] = [Reader::Leader, Reader::Standby, Reader::NewStandby];

/// Two children each.
fn both(host: usize) -> EngineSettings {
    let mut settings = settings(host);
    settings.connections[0].children = several(host, 2);
    settings
}

/// The member of A's cluster that leads then has this file.
fn change(world: &mut World, reader: Reader, edit: impl Fn(&mut Vec<Connection>)) {
    let mut file = world.hosts[A].settings.clone();
    edit(&mut file.connections);
    match reader {
        Reader::Leader => {
            world.hosts[A].settings = file.clone();
            let engine = &mut world.hosts[A].engine;
            engine.reload(world.now, &mut world.entropy, file);
            world.input(A, Input::Timeout);
        }
        Reader::Standby => world.fail_over_reloaded(A, file, false),
        Reader::NewStandby => world.fail_over_reloaded(A, file, true),
    }
    world.run(30 * SECOND);
}

fn established() -> World {
    let mut world = World::new(41, both(A), both(B));
    world.run(SECOND);
    world.assert_agreement(2);
    world
}

/// The Child SAs of A: what each is called and protects.
fn children(world: &World) -> BTreeMap<SaId, (String, String)> {
    let sad = world.hosts[A].sad.iter();
    let named = sad.map(|(id, (sa, name, _))| (*id, (name.clone(), sa.local_ts[0].to_string())));
    named.collect()
}

/// What a reload may leave alone.
fn left(world: &World) -> (IkeSpi, BTreeMap<SaId, (String, String)>) {
    (world.ike(A), children(world))
}

#[test]
fn rfc7296_section_2_9_what_was_narrowed_is_narrow_whoever_leads_then() {
    for reader in READERS {
        let mut world = established();
        let (ike, before) = left(&world);
        change(&mut world, reader, |file| {
            file[0].children[1].local_ts = vec!["10.1.0.0/17".parse().unwrap()];
        });
        world.assert_agreement(2);
        let (same, after) = left(&world);
        assert_eq!(ike, same, "{reader:?}");
        let protected: Vec<&str> = after.values().map(|(_, ts)| ts.as_str()).collect();
        assert_eq!(protected.len(), 2, "{reader:?}");
        assert!(protected.contains(&"10.0.0.0/16") && protected.contains(&"10.1.0.0/17"));
        // The other one was not touched.
        let stayed = before.keys().filter(|id| after.contains_key(id));
        assert_eq!(stayed.count(), 1, "{reader:?}");
    }
}

#[test]
fn what_was_taken_out_of_the_file_is_closed_whoever_leads_then() {
    for reader in READERS {
        let mut world = established();
        change(&mut world, reader, |file| {
            file[0].children.truncate(1);
        });
        world.assert_agreement(1);
        assert!(children(&world).values().all(|(name, _)| name == "net0"));

        // A member that never had the connection does not take its records.
        if let Reader::NewStandby = reader {
            continue;
        }
        change(&mut world, reader, |file| {
            file[0].name = "another".to_owned();
            file[0].children[0].start = false;
        });
        for host in [A, B] {
            assert!(world.ike_sas(host).is_empty(), "{reader:?}");
        }
    }
}

#[test]
fn what_is_between_others_now_is_made_anew_whoever_leads_then() {
    for reader in READERS {
        let mut world = established();
        let (ike, _) = left(&world);
        change(&mut world, reader, |file| {
            file[0].remote_addrs.push("192.0.2.77".parse().unwrap());
        });
        world.assert_agreement(2);
        assert_ne!(world.ike(A), ike, "{reader:?}");
    }
}

#[test]
fn what_the_file_says_of_later_ones_leaves_those_that_are_there() {
    for reader in READERS {
        let mut world = established();
        let before = left(&world);
        change(&mut world, reader, |file| {
            file[0].dpd_delay = Duration::from_secs(5);
            file[0].children[0].rekey_time = Duration::from_secs(5000);
            file[0].children[0].start = false;
        });
        world.assert_agreement(2);
        assert_eq!(before, left(&world), "{reader:?}");
    }
}

/// The peer can go to it when the first one fails.
#[test]
fn rfc4555_section_3_6_another_address_of_ours_is_told_by_whoever_leads_then() {
    for reader in READERS {
        let [mut a, mut b] = [both(A), both(B)];
        for settings in [&mut a, &mut b] {
            settings.connections[0].roads.mobike = Mobike::Offer;
        }
        // The initiator is the one that moves.
        for child in &mut a.connections[0].children {
            child.start = false;
        }
        for child in &mut b.connections[0].children {
            child.start = true;
        }
        let mut world = World::new(43, a, b);
        let another = Input::Initiate {
            connection: "peer".to_owned(),
            child: None,
        };
        world.input(B, another);
        world.run(SECOND);
        let third = "198.51.100.9".parse().unwrap();
        change(&mut world, reader, |file| {
            file[0].local_addrs.push(third);
        });
        world.unreachable.push(address(A));
        let ike = world.ike(B);
        world.input(B, Input::Liveness(ike));
        world.run(60 * SECOND);
        assert_eq!(world.sa(B).remote, third, "{reader:?}");
    }
}

/// What another file made is closed once: the next leader finds nothing to close.
#[test]
fn a_takeover_by_the_same_file_closes_nothing_after_a_reload() {
    let mut world = established();
    change(&mut world, Reader::Leader, |file| {
        file[0].children[1].local_ts = vec!["10.1.0.0/17".parse().unwrap()];
    });
    let before = left(&world);
    for reader in [Reader::NewStandby, Reader::Standby] {
        change(&mut world, reader, |_| ());
        assert_eq!(before, left(&world));
    }
}

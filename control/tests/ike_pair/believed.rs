//! Peers that are believed no more while their IKE SAs live: a list revokes a certificate, or an
//! anchor is taken out of the file.

use std::time::Duration;

use hitless::ike::Event;
use hitless::ike::auth::{AuthSettings, Family, RemoteAuth, Revocation, RevocationList, TimeOfDay};
use hitless::ike::sessions::{ClusterSecret, Tickets};
use hitless::ike::settings::EngineSettings;
use rcgen::SerialNumber;

use crate::pki::{Authority, Date, Issued, NOON, Wish, local, remote, trust};
use crate::world::{A, B, SECOND, World, settings};

/// Longer than IKE_AUTH is tried for anew.
const A_WHILE: Duration = Duration::from_secs(20);
const FRESH: Date = Date(2026, 12, 1);
/// Serial numbers of an intermediate authority, and of who has its certificate of it.
const MIDDLE: u64 = 50;
const OWN: u64 = 70;

struct House {
    anchor: Authority,
    middle: Authority,
    a: Issued,
    b: Issued,
}

fn house() -> House {
    let anchor = Authority::anchor("anchor");
    let middle = anchor.below_with("middle", |params| {
        params.serial_number = Some(SerialNumber::from(MIDDLE));
    });
    let issue = |name: &str| {
        middle.issue(&Wish::named(name).with(|params| {
            params.serial_number = Some(SerialNumber::from(OWN));
        }))
    };
    let (a, b) = (issue("a.test"), issue("b.test"));
    House {
        anchor,
        middle,
        a,
        b,
    }
}

/// What is said of the peer from now on.
#[derive(Clone, Copy, Debug)]
enum Change {
    /// Its certificate is revoked, or that of the authority that issued it.
    Own,
    Middle,
    /// The anchor is gone, or another one has its name.
    Gone,
    Replaced,
    /// What ends nothing: others are revoked, also by an authority of the same name, ...
    Others,
    Impostor,
    /// ... lists are demanded where there are none, and another anchor is believed as well.
    Demanded,
    More,
}

const ENDS: [Change; 4] = [Change::Own, Change::Middle, Change::Gone, Change::Replaced];
const STAYS: [Change; 4] = [
    Change::Others,
    Change::Impostor,
    Change::Demanded,
    Change::More,
];

impl House {
    fn settings(&self, host: usize, tickets: bool) -> EngineSettings {
        let own = [&self.a, &self.b][host];
        let mut settings = settings(host);
        settings.secrets.clear();
        settings.connections[0].auth = AuthSettings {
            local: local(own, &[&self.middle], Family::Any),
            remote: remote(trust(&[&self.anchor], Revocation::Relaxed, Vec::new())),
            ..AuthSettings::default()
        };
        settings.cluster_secret = ClusterSecret::new("test", b"the secret of the cluster");
        if tickets {
            settings.connections[0].session.tickets = Some(Tickets {
                ticket_time: Duration::from_secs(3600),
                resumption_time: Duration::from_secs(7200),
            });
        }
        settings
    }

    fn established(&self, tickets: bool) -> World {
        let mut world = World::new(19, self.settings(A, tickets), self.settings(B, tickets));
        world.set_time_of_day(NOON);
        for host in [A, B] {
            world.hosts[host].settings.time_of_day = TimeOfDay::new(world.now, NOON);
        }
        world.run(SECOND);
        world.assert_agreement(1);
        world
    }

    fn lists(&self, change: Change) -> Vec<RevocationList> {
        match change {
            Change::Own => vec![self.middle.revoke(&[OWN], FRESH)],
            Change::Middle => vec![self.anchor.revoke(&[MIDDLE], FRESH)],
            Change::Others => vec![
                self.middle.revoke(&[MIDDLE, OWN + 1], FRESH),
                self.anchor.revoke(&[OWN], FRESH),
            ],
            Change::Impostor => vec![Authority::anchor("middle").revoke(&[OWN], FRESH)],
            _ => Vec::new(),
        }
    }

    fn remote(&self, change: Change) -> RemoteAuth {
        let other = Authority::anchor("other");
        let replaced = Authority::anchor("anchor");
        let anchors = match change {
            Change::Gone => vec![&other],
            Change::Replaced => vec![&replaced],
            Change::More => vec![&other, &self.anchor],
            _ => vec![&self.anchor],
        };
        let revocation = match change {
            Change::Demanded => Revocation::Strict,
            _ => Revocation::Relaxed,
        };
        remote(trust(&anchors, revocation, self.lists(change)))
    }
}

/// Who learns of it, and how.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Way {
    /// The files of the lists changed.
    Lists,
    Reload,
    /// A reload that its leader did not live to do; or the one that takes over began with that file.
    Standby,
    NewStandby,
    /// The leader, which is not the one that proved who the peer is.
    AfterTakeover,
}

fn change(world: &mut World, house: &House, host: usize, (change, way): (Change, Way)) {
    if way == Way::AfterTakeover {
        let file = world.hosts[host].settings.clone();
        world.fail_over_reloaded(host, file, true);
        world.run(SECOND);
        world.assert_agreement(1);
    }
    let mut file = world.hosts[host].settings.clone();
    file.connections[0].auth.remote = house.remote(change);
    match way {
        Way::Lists => {
            let RemoteAuth::Pubkey(believed) =
                &world.hosts[host].settings.connections[0].auth.remote
            else {
                panic!("certificates");
            };
            believed.trust.replace_crls(house.lists(change));
            let engine = &mut world.hosts[host].engine;
            engine.relist(world.now, &mut world.entropy, &mut || ());
        }
        Way::Reload | Way::AfterTakeover => {
            let engine = &mut world.hosts[host].engine;
            engine.reload(world.now, &mut world.entropy, file);
        }
        Way::Standby => world.fail_over_reloaded(host, file, false),
        Way::NewStandby => world.fail_over_reloaded(host, file, true),
    }
    world.input(host, hitless::ike::Input::Timeout);
    world.run(A_WHILE);
}

fn said(world: &World, host: usize) -> Option<&String> {
    let mut events = world.hosts[host].events.iter();
    events.find_map(|event| match event {
        Event::AuthenticationFailed { reason, .. } => Some(reason),
        _ => None,
    })
}

/// Each change as whoever may learn of it does, in both roles.
fn each(changes: [Change; 4], mut look: impl FnMut(&World, usize, &str)) {
    use Way::{AfterTakeover, Lists, NewStandby, Reload, Standby};
    let house = house();
    for what in changes {
        for way in [Lists, Reload, Standby, NewStandby, AfterTakeover] {
            for (host, tickets) in [(A, false), (B, false), (B, true)] {
                let of_file = house.lists(what).is_empty();
                if way == Lists && of_file {
                    continue;
                }
                let mut world = house.established(tickets);
                let before = world.ike(host);
                change(&mut world, &house, host, (what, way));
                let case = format!("{what:?} {way:?} host {host} tickets {tickets}");
                let same = world.ike_sas(host).contains(&before);
                let failed = said(&world, host);
                match ENDS.map(|c| c as u8).contains(&(what as u8)) {
                    true => assert!(!same && failed.is_some(), "{case}: {failed:?}"),
                    false => assert!(same && failed.is_none(), "{case}: {failed:?}"),
                }
                look(&world, host, &case);
            }
        }
    }
}

#[test]
fn rfc7296_section_1_4_1_who_is_believed_no_more_is_deleted_at_both_ends() {
    each(ENDS, |world, host, case| {
        // It began anew, and was refused.
        for host in [A, B] {
            assert!(world.ike_sas(host).is_empty(), "{case}");
            assert!(world.hosts[host].sad.is_empty(), "{case}");
        }
        let why = said(world, host).unwrap();
        assert!(why.ends_with("its IKE_SA is closed"), "{case}: {why}");
    });
}

#[test]
fn who_is_believed_as_before_stays() {
    each(STAYS, |world, _, _| world.assert_agreement(1));
}

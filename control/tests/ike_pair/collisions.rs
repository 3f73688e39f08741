//! Exchange collisions (RFC 7296 sections 2.8.1, 2.8.2 and 2.25): what either end may be doing when
//! the other asks for something that does not go with it. Every case is played in both orders, with
//! each of the first messages lost, and with either end failing over at each step; the ends always
//! agree afterwards, and nothing needs a new IKE_AUTH.

use hitless::ike::{Event, Input, Resume};

use crate::windows::with_window;
use crate::world::{A, B, SECOND, World};

/// What one end begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Act {
    CreateChild,
    RekeyChild,
    CloseChild,
    RekeyIke,
    CloseIke,
}

use Act::{CloseChild, CloseIke, CreateChild, RekeyChild, RekeyIke};

/// Two acts that cross, and what may be left of it.
struct Case {
    section: &'static str,
    acts: [Act; 2],
    /// Child SAs in the end, when both requests and both answers arrive.
    children: usize,
    /// Another figure that loss or a failover can lead to: then one comes before the other.
    otherwise: usize,
}

const fn case(section: &'static str, one: Act, other: Act, children: usize) -> Case {
    Case {
        section,
        acts: [one, other],
        children,
        otherwise: children,
    }
}

impl Case {
    const fn otherwise(self, otherwise: usize) -> Case {
        Case { otherwise, ..self }
    }
}

const CASES: &[Case] = &[
    // "the SA created with the lowest of the four nonces ... SHOULD be closed".
    case("2.8.1 both rekey a Child SA", RekeyChild, RekeyChild, 1),
    case("2.8.2 both rekey the IKE SA", RekeyIke, RekeyIke, 1),
    // "rekey a Child SA that it is currently trying to close ... TEMPORARY_FAILURE"; "close a Child
    // SA that it is currently rekeying ... reply as usual". Asked after that, it does not exist:
    // CHILD_SA_NOT_FOUND, and a new one is made.
    case(
        "2.25.1 rekeying and closing a Child SA",
        RekeyChild,
        CloseChild,
        0,
    )
    .otherwise(1),
    // "close a Child SA that it is currently trying to close ... without a Delete payload".
    case("2.25.1 both close a Child SA", CloseChild, CloseChild, 0),
    // "currently creating, rekeying, or closing a Child SA of that IKE SA ... TEMPORARY_FAILURE";
    // "create or rekey a Child SA when it is currently rekeying the IKE SA ... TEMPORARY_FAILURE".
    case(
        "2.25.2 creating a Child SA and rekeying the IKE SA",
        CreateChild,
        RekeyIke,
        2,
    ),
    case(
        "2.25.2 rekeying a Child SA and the IKE SA",
        RekeyChild,
        RekeyIke,
        1,
    ),
    // "delete a Child SA when it is currently rekeying the IKE SA ... reply as usual".
    case(
        "2.25.2 closing a Child SA and rekeying the IKE SA",
        CloseChild,
        RekeyIke,
        0,
    ),
    // "rekey an IKE SA that it is currently trying to close ... TEMPORARY_FAILURE"; "close an IKE SA
    // that it is currently rekeying ... reply as usual, and forget its own rekeying request".
    case(
        "2.25.2 rekeying and closing the IKE SA",
        RekeyIke,
        CloseIke,
        0,
    )
    .otherwise(1),
    // "close an IKE SA that it is currently trying to close ... forget about its own close request".
    case("2.25.2 both close the IKE SA", CloseIke, CloseIke, 0),
    case(
        "2.25.2 creating a Child SA and closing the IKE SA",
        CreateChild,
        CloseIke,
        0,
    ),
    case(
        "2.25.2 rekeying a Child SA and closing the IKE SA",
        RekeyChild,
        CloseIke,
        0,
    ),
    case(
        "2.25.2 closing a Child SA and the IKE SA",
        CloseChild,
        CloseIke,
        0,
    ),
    // Not a collision, but both at once all the same.
    case("1.3.1 both create a Child SA", CreateChild, CreateChild, 3).otherwise(2),
];

/// What befalls them.
#[derive(Clone, Copy, Debug)]
struct Trouble {
    seed: u64,
    /// Who does the first of the two acts, and whose request leaves first.
    first: usize,
    /// Which of the first messages are lost.
    lost: u8,
    /// An end fails over after so many steps.
    failover: Option<(usize, usize)>,
    window: u32,
}

fn start(trouble: Trouble) -> World {
    let [a, b] = [A, B].map(|host| {
        let mut settings = with_window(host, 2, trouble.window);
        for child in &mut settings.connections[0].children {
            child.start = false;
        }
        settings
    });
    let mut world = World::new(trouble.seed, a, b);
    initiate(&mut world, A, 0);
    world.run(3 * SECOND);
    world.assert_agreement(1);
    for host in &mut world.hosts {
        host.events.clear();
    }
    world
}

fn initiate(world: &mut World, host: usize, number: usize) {
    let connection = "peer".to_owned();
    let child = Some(format!("net{number}"));
    world.input(host, Input::Initiate { connection, child });
}

impl Act {
    fn begin(self, world: &mut World, host: usize) {
        let (ike, sa) = (world.ike(host), world.sa(host).id);
        match self {
            CreateChild => initiate(world, host, 1),
            RekeyChild => world.input(host, Input::RekeyChild(sa)),
            CloseChild => world.input(host, Input::TerminateChild(sa)),
            RekeyIke => world.input(host, Input::RekeyIke(ike)),
            CloseIke => world.input(host, Input::Terminate { ike }),
        }
    }
}

fn play(case: &Case, trouble: Trouble) -> World {
    let mut world = start(trouble);
    let end = world.now + SECOND;
    case.acts[0].begin(&mut world, trouble.first);
    case.acts[1].begin(&mut world, 1 - trouble.first);
    for (position, packet) in world.intercept().into_iter().enumerate() {
        if trouble.lost >> position & 1 == 0 {
            world.inject(packet);
        }
    }
    for step in 0.. {
        if let Some((host, at)) = trouble.failover
            && at == step
        {
            world.fail_over(host, Resume::Exact);
        }
        // The answers to the two requests are the next to be lost.
        if step == 1 {
            for (position, packet) in world.intercept().into_iter().enumerate() {
                if trouble.lost >> (2 + position) & 1 == 0 {
                    world.inject(packet);
                }
            }
        }
        if !world.step(end) {
            break;
        }
    }
    world.run(150 * SECOND);
    world
}

fn check(case: &Case, trouble: Trouble) {
    let world = play(case, trouble);
    let section = case.section;
    let children = world.hosts[A].sad.len();
    let calm = trouble.lost == 0 && trouble.failover.is_none();
    assert!(
        children == case.children || !calm && children == case.otherwise,
        "{section}: {children}, {trouble:?}"
    );
    if world.ike_sas(A).is_empty() {
        assert!(case.acts.contains(&CloseIke), "{section}: {trouble:?}");
        assert!(world.ike_sas(B).is_empty(), "{section}: {trouble:?}");
        assert!(world.hosts[B].sad.is_empty(), "{section}: {trouble:?}");
    } else {
        world.assert_agreement(children);
    }
    for host in [A, B] {
        let again = |e: &Event| matches!(e, Event::IkeEstablished { .. });
        assert_eq!(world.hosts[host].count(again), 0, "{section}: {trouble:?}");
    }
}

const CALM: Trouble = Trouble {
    seed: 1,
    first: A,
    lost: 0,
    failover: None,
    window: 1,
};

#[test]
fn collisions_in_both_orders_rfc7296_2_8_and_2_25() {
    for case in CASES {
        for (seed, first) in (0..8).flat_map(|seed| [(seed, A), (seed, B)]) {
            for window in [1, 3] {
                check(
                    case,
                    Trouble {
                        seed,
                        first,
                        window,
                        ..CALM
                    },
                );
            }
        }
    }
}

#[test]
fn collisions_with_loss_rfc7296_2_8_and_2_25() {
    for case in CASES {
        for lost in 1..16 {
            for first in [A, B] {
                check(
                    case,
                    Trouble {
                        first,
                        lost,
                        ..CALM
                    },
                );
            }
        }
    }
}

#[test]
fn collisions_under_failover_at_each_step_rfc7296_2_8_and_2_25() {
    for case in CASES {
        for (host, at) in (0..8).flat_map(|at| [(A, at), (B, at)]) {
            for (first, lost) in [(A, 0), (B, 0), (A, 5)] {
                let failover = Some((host, at));
                check(
                    case,
                    Trouble {
                        first,
                        lost,
                        failover,
                        ..CALM
                    },
                );
            }
        }
    }
}

/// What was asked for is done in the end, whoever was refused at first.
#[test]
fn what_met_temporary_failure_is_done_later_rfc7296_2_25() {
    let both = [
        (RekeyChild, RekeyIke),
        (RekeyIke, RekeyIke),
        (RekeyChild, RekeyChild),
    ];
    for (one, other) in both {
        for seed in 0..6 {
            let trouble = Trouble { seed, ..CALM };
            let before = start(trouble);
            let (ike, sa) = (before.ike(A), before.sa(A).inbound_key.clone());
            let world = play(&case("2.25", one, other, 1), trouble);
            let acts = [one, other];
            assert_eq!(world.ike(A) != ike, acts.contains(&RekeyIke));
            assert_eq!(world.sa(A).inbound_key != sa, acts.contains(&RekeyChild));
        }
    }
}

/// RFC 7296 section 2.25.1: "rekey a Child SA that does not exist ... CHILD_SA_NOT_FOUND", and
/// whoever hears that makes a new one. RFC 6311 section 8.3 would rather have the IKE SA torn down;
/// why it is not is said in `ike/counter_sync.rs`.
#[test]
fn rfc7296_2_25_1_and_rfc6311_r40_what_the_peer_has_lost_is_made_anew() {
    for host in [A, B] {
        let mut world = start(CALM);
        let sa = world.sa(host);
        // The peer has closed it, and the answer was never read: this end goes back.
        let old = world.hosts[host].records.clone();
        let mut released = world.hosts[1 - host].records.clone();
        CloseChild.begin(&mut world, 1 - host);
        world.run(SECOND);
        released.clone_from(&world.hosts[1 - host].records);
        world.fail_over_with(host, old, Resume::Rekey);
        world.fail_over_with(1 - host, released, Resume::Exact);
        let ike = world.ike(host);
        world.run(100 * SECOND);
        world.assert_agreement(1);
        assert_ne!(world.sa(host).inbound_key, sa.inbound_key);
        assert_eq!(world.ike(host), ike, "patched, not torn down");
    }
}

//! SAs without traffic across several handovers: what was delivered long ago is still seen.

use std::time::Duration;

use crate::world::{PEER, World};

/// Traffic, then silence; two changes of the leader, the last one planned; then everything that the
/// peer ever sent, once more.
fn replay_after(first_is_a_crash: bool) {
    let mut world = World::with_traffic(77);
    world.traffic = false;
    world.run(Duration::from_millis(300));
    let sent = world.esp().into_iter();
    let from_peer = sent.filter(|esp| esp.port == usize::from(PEER));
    let old: Vec<Vec<u8>> = from_peer.map(|esp| esp.frame).collect();
    assert!(old.len() > 100, "{} frames", old.len());
    let first = world.leader().unwrap();
    let second = 3 - first;
    let received = world.b.received().len();
    if first_is_a_crash {
        world.kill(first);
        world.until("takeover", |w| w.leader() == Some(second));
        world.start(first);
    } else {
        world.ask(first, |g, now, e| g.switchover(now, e));
        world.until("switchover", |w| w.leader() == Some(second));
    }
    world.until("standby", World::standby_is_ready);
    world.run(Duration::from_secs(1));
    world.ask(second, |g, now, e| g.switchover(now, e));
    world.until("switchover back", |w| w.leader() == Some(first));
    world.until("standby", World::standby_is_ready);
    for frame in &old {
        world.outside.inject(frame);
        world.run(Duration::from_millis(1));
    }
    world.run(Duration::from_millis(300));
    assert_eq!(world.b.received().len(), received, "replays were delivered");
}

#[test]
fn two_switchovers_of_an_idle_sa_accept_no_replay_s3() {
    replay_after(false);
}

#[test]
fn a_crash_and_a_switchover_of_an_idle_sa_accept_no_replay_s3() {
    replay_after(true);
}

/// Whoever restarts is heard at once: it joins long before it would lead on nothing.
#[test]
fn a_member_that_restarts_never_leads_beside_a_living_active() {
    for who in [1, 2] {
        let mut world = World::with_traffic(78);
        world.kill(who);
        world.until("a leader", |w| w.leader() == Some(3 - who));
        world.run(Duration::from_millis(700));
        world.start(who);
        let mut waited = Duration::ZERO;
        while !world.standby_is_ready() {
            world.run(Duration::from_millis(1));
            waited += Duration::from_millis(1);
            assert_eq!(
                world.leader(),
                Some(3 - who),
                "one leader, member {who} restarted"
            );
            assert!(
                waited < Duration::from_millis(400),
                "member {who} joined late"
            );
        }
    }
}

/// Lets the outside switch believe that the cluster's address is behind this member's port.
fn divert(world: &mut World, from_peer: &[u8], member: u8) {
    let (cluster, peer) = (&from_peer[..6], &from_peer[6..12]);
    let frame = [peer, cluster, &[0x88, 0xb5], &[0; 46]].concat();
    let now = world.now;
    world.outside.carry(now, usize::from(member), &frame);
}

/// R15: the predecessor's window goes with the lead, so what the network had held back is delivered
/// by the successor, once.
#[test]
fn packets_that_a_planned_switchover_overtakes_are_delivered_once_s3() {
    let mut world = World::with_traffic(79);
    world.traffic = false;
    world.run(Duration::from_millis(100));
    let active = world.leader().unwrap();
    let standby = 3 - active;
    let from_peer = |world: &World| {
        let sent = world.esp().into_iter();
        let sent = sent.filter(|esp| esp.port == usize::from(PEER));
        sent.map(|esp| esp.frame).collect::<Vec<_>>()
    };
    let send = |world: &mut World, count: usize| {
        for _ in 0..count {
            let now = world.now;
            world.a.send(now, hitless::lab::HOST_B);
            world.run(Duration::from_millis(1));
        }
        world.run(Duration::from_millis(5));
    };
    let some = from_peer(&world)[0].clone();
    // Five packets lose their way; ten later ones do not.
    let (before, received) = (from_peer(&world).len(), world.b.received().len());
    divert(&mut world, &some, standby);
    send(&mut world, 5);
    let held = from_peer(&world)[before..].to_vec();
    assert_eq!((held.len(), world.b.received().len()), (5, received));
    divert(&mut world, &some, active);
    send(&mut world, 10);
    let received = received + 10;
    assert_eq!(world.b.received().len(), received);
    world.ask(active, |g, now, e| g.switchover(now, e));
    world.until("switchover", |w| w.leader() == Some(standby));
    for accepted in [5, 0] {
        let replays = world.drops(standby, "replay");
        for frame in &held {
            assert!(world.outside.inject(frame));
            world.run(Duration::from_millis(1));
        }
        world.run(Duration::from_millis(5));
        let refused = world.drops(standby, "replay") - replays;
        assert_eq!(refused, 5 - accepted, "{accepted} of 5 are new");
        assert_eq!(world.b.received().len(), received + 5);
    }
    // What the predecessor delivered is seen here as well.
    let delivered = &from_peer(&world)[before + 5..];
    let replays = world.drops(standby, "replay");
    for frame in delivered {
        world.outside.inject(frame);
        world.run(Duration::from_millis(1));
    }
    assert_eq!(world.drops(standby, "replay"), replays + 10);
    assert_eq!(world.b.received().len(), received + 5);
}

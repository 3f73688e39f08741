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

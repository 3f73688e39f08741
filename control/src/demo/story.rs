//! What happens in the demo, step by step.

use std::io;
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use hitless_sa::{Entropy, Instant, SaId};
use hitless_sync::Event as SyncEvent;

use super::member::{self, Running, Said};
use super::world::World;
use crate::clock;
use crate::entropy::SeededEntropy;
use crate::gateway::Event;
use crate::ike::{self, Input};
use crate::lab::{HOST_A, HOST_B, Hub, Topology};

const MEMBERS: u8 = 2;
/// The peer gateway's number; it is a cluster of its own.
const PEER: u8 = 0;
/// Time between two probes of a host.
const PROBE_EVERY: Duration = Duration::from_millis(1);
/// No step may take longer.
const PATIENCE: Duration = Duration::from_secs(20);
const BEFORE_CRASH: Duration = Duration::from_millis(1500);
const AFTER_CRASH: Duration = Duration::from_millis(1500);
const SETTLE: Duration = Duration::from_millis(200);
/// Frames replayed in one round of the world, so that no ring overflows.
const REPLAYS_A_ROUND: usize = 16;

/// What was seen, for the verdict.
pub struct Story {
    pub seed: u64,
    pub world: World,
    pub crash: Instant,
    /// Members suspected for nothing before the crash: on a busy machine heartbeats come late.
    pub takeovers_before: usize,
    /// When the standby said that it leads.
    pub lead: Instant,
    /// Probes that both hosts had received when the replays began, and how many frames those were.
    pub replayed: usize,
    pub received_before_replay: [usize; 2],
    pub received_after_replay: [usize; 2],
    /// What the new active asked of the peer (RFC 6311): Message ID synchronisations, and the
    /// numbers that it should skip. The wire shows neither, for both are encrypted.
    pub message_id_syncs: usize,
    pub replay_delta: Option<u64>,
    /// After the takeover the peer rekeyed the Child SA, and it worked.
    pub rekeyed: bool,
}

/// The narrator: turns the world, listens to the gateways, prints what happens.
struct Narrator {
    world: World,
    said: Receiver<Said>,
    began: Instant,
    progress: bool,
    traffic: bool,
    next_probe: Instant,
    heard: Vec<Said>,
}

/// Runs the demo.
pub fn tell(seed: u64, progress: bool) -> io::Result<Story> {
    let mut entropy = SeededEntropy::new(seed);
    let entropy: &mut dyn Entropy = &mut entropy;
    let secret = format!("{:016x}{:016x}", entropy.u64(), entropy.u64());
    let (world, peer_cables, member_cables) = World::new(usize::from(MEMBERS));
    let (tell, said) = mpsc::channel();
    let hub = Hub::default();
    let topology = Topology::new(MEMBERS, secret);
    let mut members = Vec::new();
    let began = clock::now();
    let mut narrator = Narrator {
        world,
        said,
        began,
        progress,
        traffic: false,
        next_probe: began,
        heard: Vec::new(),
    };
    narrator.say("two members and a peer gateway start");
    for (index, cables) in member_cables.into_iter().enumerate() {
        let who = index as u8 + 1;
        let config = topology.member(who).map_err(io::Error::other)?;
        members.push(member::start(
            who,
            config,
            cables,
            hub.clone(),
            entropy.u64(),
            tell.clone(),
        )?);
    }
    let config = topology.peer().map_err(io::Error::other)?;
    let peer = member::start(PEER, config, peer_cables, hub, entropy.u64(), tell)?;

    let told = act(&mut narrator, &members, &peer, entropy);
    for running in members {
        running.join();
    }
    peer.join();
    let mut story = told?;
    story.seed = seed;
    story.world = narrator.world;
    Ok(story)
}

fn act(
    narrator: &mut Narrator,
    members: &[Running],
    peer: &Running,
    entropy: &mut dyn Entropy,
) -> io::Result<Story> {
    narrator.wait_for("no member led with a standby behind it", |n| n.leader())?;
    narrator.wait_for("no tunnel came up", |n| n.tunnel())?;
    narrator.traffic = true;
    narrator.wait_for("no packet came through the tunnel", |n| {
        let arrived = !n.world.a.received().is_empty() && !n.world.b.received().is_empty();
        arrived.then_some(())
    })?;
    narrator.say("traffic flows both ways, 1,000 packets/s in each direction");
    narrator.run_for(BEFORE_CRASH + Duration::from_millis(entropy.u64() % 200));

    // On a busy machine a member may have been suspected for nothing, and another one lead now.
    let active = narrator.wait_for("the standby did not come back", |n| n.leader())?;
    let crash = clock::now();
    members[usize::from(active) - 1].kill();
    narrator.say(&format!(
        "member {active} is killed: its threads stop, nothing is flushed"
    ));
    let lead = narrator.wait_for("no standby took over", |n| n.takeover(crash))?;
    let received = [
        narrator.world.a.received().len(),
        narrator.world.b.received().len(),
    ];
    narrator.wait_for("traffic did not resume", |n| {
        let now = [n.world.a.received().len(), n.world.b.received().len()];
        (now[0] > received[0] + 10 && now[1] > received[1] + 10).then_some(())
    })?;
    narrator.say("traffic flows again");
    narrator.run_for(AFTER_CRASH);
    narrator.traffic = false;
    narrator.run_for(SETTLE);

    let mut story = Story {
        seed: 0,
        world: World::new(0).0,
        crash,
        takeovers_before: narrator.takeovers(crash),
        lead,
        replayed: 0,
        received_before_replay: narrator.received(),
        received_after_replay: [0; 2],
        message_id_syncs: narrator
            .count(|event| matches!(event, ike::Event::MessageIdSyncSent { .. })),
        replay_delta: narrator.replay_delta(),
        rekeyed: false,
    };
    story.replayed = narrator.replay(crash);
    story.received_after_replay = narrator.received();
    narrator.say(&format!(
        "{} packets from before the crash were replayed",
        story.replayed
    ));
    narrator.rekey(peer, &mut story);
    Ok(story)
}

impl Narrator {
    fn say(&self, what: &str) {
        if self.progress {
            let at = clock::now().since(self.began);
            eprintln!("  {:>7.3} s  {what}", at.as_secs_f64());
        }
    }

    fn received(&self) -> [usize; 2] {
        [self.world.a.received().len(), self.world.b.received().len()]
    }

    /// One round: packets move, probes leave when they are due, gateways are heard.
    fn round(&mut self) {
        let now = clock::now();
        if self.traffic && now >= self.next_probe {
            self.world.a.send(now, HOST_B);
            self.world.b.send(now, HOST_A);
            self.next_probe =
                self.next_probe.max(now.saturating_sub(PROBE_EVERY * 8)) + PROBE_EVERY;
        }
        let moved = self.world.turn(now);
        while let Ok(said) = self.said.try_recv() {
            if let Some(line) = describe(&said) {
                self.say(&line);
            }
            self.heard.push(said);
        }
        if moved == 0 {
            std::thread::yield_now();
        }
    }

    fn run_for(&mut self, time: Duration) {
        let end = clock::now() + time;
        while clock::now() < end {
            self.round();
        }
    }

    fn wait_for<T>(
        &mut self,
        otherwise: &str,
        mut found: impl FnMut(&mut Narrator) -> Option<T>,
    ) -> io::Result<T> {
        let end = clock::now() + PATIENCE;
        loop {
            self.round();
            if let Some(value) = found(self) {
                return Ok(value);
            }
            if clock::now() >= end {
                let seconds = PATIENCE.as_secs();
                return Err(io::Error::other(format!("{otherwise} within {seconds} s")));
            }
        }
    }

    /// The member that leads, once another one holds every lease.
    fn leader(&self) -> Option<u8> {
        let leads = |said: &Said| matches!(said.event, Event::Leads { .. }) && said.who != PEER;
        let last = self.heard.iter().rposition(leads)?;
        let admitted = |said: &Said| matches!(said.event, Event::Sync(SyncEvent::Admitted { .. }));
        self.heard[last..]
            .iter()
            .any(admitted)
            .then(|| self.heard[last].who)
    }

    fn count(&self, wanted: impl Fn(&ike::Event) -> bool) -> usize {
        let ike = |said: &&Said| matches!(&said.event, Event::Ike(event) if wanted(event));
        self.heard.iter().filter(ike).count()
    }

    fn replay_delta(&self) -> Option<u64> {
        self.heard.iter().rev().find_map(|said| match said.event {
            Event::Ike(ike::Event::ReplayCounterSyncSent { delta, .. }) => Some(delta),
            _ => None,
        })
    }

    fn takeovers(&self, before: Instant) -> usize {
        let inherits = |said: &&Said| {
            matches!(said.event, Event::Leads { base: Some(_), .. }) && said.at < before
        };
        self.heard.iter().filter(inherits).count()
    }

    /// When a member began to lead after the crash.
    fn takeover(&self, crash: Instant) -> Option<Instant> {
        let leads = |said: &&Said| {
            matches!(said.event, Event::Leads { .. }) && said.who != PEER && said.at > crash
        };
        self.heard.iter().find(leads).map(|said| said.at)
    }

    /// The peer's newest Child SA.
    fn tunnel(&self) -> Option<SaId> {
        let newest = |said: &Said| match said.event {
            Event::Ike(ike::Event::ChildEstablished { sa, .. }) if said.who == PEER => Some(sa),
            Event::Ike(ike::Event::ChildRekeyed { new, .. }) if said.who == PEER => Some(new),
            _ => None,
        };
        self.heard.iter().rev().find_map(newest)
    }

    /// Everything that crossed the outside switch before the crash, once more, to whoever owns the
    /// addresses now.
    fn replay(&mut self, crash: Instant) -> usize {
        let old = self
            .world
            .outside
            .capture()
            .iter()
            .filter(|frame| frame.at < crash);
        let old: Vec<Vec<u8>> = old.map(|frame| frame.frame.clone()).collect();
        let mut replayed = 0;
        for frames in old.chunks(REPLAYS_A_ROUND) {
            for frame in frames {
                replayed += usize::from(self.world.outside.inject(frame));
            }
            self.run_for(Duration::from_millis(1));
        }
        self.run_for(SETTLE);
        replayed
    }

    /// The tunnel is alive for IKE too: the peer rekeys it, and traffic goes on.
    fn rekey(&mut self, peer: &Running, story: &mut Story) {
        let Some(sa) = self.tunnel() else { return };
        let from = self.heard.len();
        peer.request(Box::new(move |gateway, now, entropy| {
            gateway.ike(now, entropy, Input::RekeyChild(sa));
        }));
        let rekeyed = self.wait_for("the tunnel was not rekeyed", |n| {
            let rekeyed = |said: &&Said| {
                matches!(said.event, Event::Ike(ike::Event::ChildRekeyed { .. }))
                    && said.who == PEER
            };
            n.heard[from..].iter().find(rekeyed).map(|_| ())
        });
        self.traffic = true;
        self.run_for(SETTLE);
        self.traffic = false;
        self.run_for(SETTLE);
        let after = self.received();
        story.rekeyed = rekeyed.is_ok()
            && after[0] > story.received_after_replay[0]
            && after[1] > story.received_after_replay[1];
    }
}

/// A line of progress, for what a person wants to know.
fn describe(said: &Said) -> Option<String> {
    let who = match said.who {
        PEER => "the peer".to_owned(),
        member => format!("member {member}"),
    };
    match &said.event {
        Event::Leads { .. } if said.who == PEER => None,
        Event::Leads {
            epoch, base: None, ..
        } => Some(format!("{who} leads epoch {epoch}")),
        Event::Leads {
            epoch, skip, sas, ..
        } => {
            let skip = skip
                .map(|skip| format!(", skip {skip}"))
                .unwrap_or_default();
            Some(format!(
                "{who} takes over in epoch {epoch}: {sas} Child SAs{skip}"
            ))
        }
        Event::SteppedDown { .. } => Some(format!("{who} steps down")),
        Event::Sync(SyncEvent::Admitted { member, .. }) => Some(format!(
            "member {member} holds every lease and may take over"
        )),
        Event::Sync(SyncEvent::Suspected { silent_for, .. }) => Some(format!(
            "{who} has heard nothing for {} ms",
            silent_for.as_millis()
        )),
        Event::Ike(ike::Event::ChildEstablished { child, .. }) if said.who == PEER => {
            Some(format!("IKE_SA and CHILD_SA {child} established"))
        }
        Event::Ike(ike::Event::ChildRekeyed { .. }) if said.who == PEER => {
            Some("CHILD_SA rekeyed by the peer".to_owned())
        }
        _ => None,
    }
}

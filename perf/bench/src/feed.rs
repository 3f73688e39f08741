//! Ports that cost next to nothing: one hands out packets that are ready in buffers, the other
//! frees what it is given.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use hitless_dataplane::pool::{Packet, Pool};
use hitless_dataplane::port::{BURST, Burst, Port, PortCounters};

/// What the benchmark and a [`Feed`] share.
#[derive(Default)]
pub struct Script {
    /// Frames to load into buffers.
    pub frames: Mutex<Vec<Vec<u8>>>,
    /// Load on the next receive, and hand out nothing.
    pub load: AtomicBool,
    /// Packets that wait to be handed out.
    pub waiting: AtomicU64,
}

/// A port that receives what the script says.
pub struct Feed {
    script: Arc<Script>,
    ready: Vec<Packet>,
}

impl Feed {
    pub fn new(script: Arc<Script>) -> Feed {
        Feed {
            script,
            ready: Vec::new(),
        }
    }
}

impl Port for Feed {
    fn receive(&mut self, pool: &mut Pool, burst: &mut Burst) {
        if self.script.load.swap(false, Ordering::Relaxed) {
            let frames = self
                .script
                .frames
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            self.ready
                .extend(frames.iter().rev().filter_map(|frame| pool.copy_in(frame)));
        } else {
            let first = self.ready.len().saturating_sub(BURST);
            burst.extend(self.ready.drain(first..).rev());
        }
        self.script
            .waiting
            .store(self.ready.len() as u64, Ordering::Relaxed);
    }

    fn transmit(&mut self, pool: &mut Pool, burst: &mut Burst) {
        for packet in burst.drain(..) {
            pool.free(packet);
        }
    }

    fn frames_held(&self) -> usize {
        self.ready.len()
    }

    fn mtu(&self) -> usize {
        MTU
    }

    fn counters(&self) -> PortCounters {
        PortCounters::default()
    }
}

/// Room for the largest inner packet and the outer headers.
pub const MTU: usize = 1700;

/// A port that counts what it is given.
pub struct Sink {
    pub sent: Arc<AtomicU64>,
}

impl Port for Sink {
    fn receive(&mut self, _: &mut Pool, _: &mut Burst) {}

    fn transmit(&mut self, pool: &mut Pool, burst: &mut Burst) {
        self.sent.fetch_add(burst.len() as u64, Ordering::Relaxed);
        for packet in burst.drain(..) {
            pool.free(packet);
        }
    }

    fn mtu(&self) -> usize {
        MTU
    }

    fn counters(&self) -> PortCounters {
        PortCounters::default()
    }
}

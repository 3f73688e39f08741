//! A gateway of the demo on its two threads, which can be killed at any moment.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::Duration;

use hitless_dataplane::port::memory::MemoryPort;
use hitless_dataplane::thread::{Idle, spawn, wait};
use hitless_sa::Instant;

use crate::clock;
use crate::config::Config;
use crate::entropy::SeededEntropy;
use crate::gateway::{Event, Gateway};
use crate::lab::{Hub, Station, first_start};

/// Something that a gateway said.
pub struct Said {
    pub at: Instant,
    /// 0 for the peer, else the member.
    pub who: u8,
    pub event: Event,
}

/// A request to a gateway, run by its control thread.
pub type Request = Box<dyn FnOnce(&mut Gateway, Instant, &mut SeededEntropy) + Send>;

/// A running gateway.
pub struct Running {
    stop: Arc<AtomicBool>,
    requests: Sender<Request>,
    threads: Vec<thread::JoinHandle<()>>,
}

/// Rounds without work after which a control thread sleeps for a tick.
const PATIENCE: u32 = 4;
const TICK: Duration = Duration::from_millis(1);

/// Starts the worker thread and the control thread of one gateway.
pub fn start(
    who: u8,
    config: Config,
    cables: Vec<MemoryPort>,
    mut hub: Hub,
    seed: u64,
    said: Sender<Said>,
) -> io::Result<Running> {
    let now = clock::now();
    let mut entropy = SeededEntropy::new(seed ^ (u64::from(who) << 32));
    let durable = first_start();
    let (mut station, worker) = Station::new(config, cables, &mut hub, durable, now, &mut entropy)?;
    let stop = Arc::new(AtomicBool::new(false));
    let worker = spawn(worker, None, clock::now, Idle::default(), Arc::clone(&stop))?;
    let (requests, inbox): (Sender<Request>, Receiver<Request>) = mpsc::channel();
    let stopped = Arc::clone(&stop);
    let control = thread::Builder::new()
        .name(format!("control-{who}"))
        .spawn(move || {
            let mut idle = 0;
            // The kill: between two rounds the thread is gone, whatever was under way.
            while !stopped.load(Ordering::Relaxed) {
                let now = clock::now();
                for request in inbox.try_iter() {
                    request(station.gateway(), now, &mut entropy);
                }
                let mut tell = |event| {
                    // The demo may have ended; a gateway does not care who listens.
                    let _ = said.send(Said {
                        at: clock::now(),
                        who,
                        event,
                    });
                };
                let work = station.turn(now, &mut entropy, &mut hub, &mut tell, &mut |_| true);
                idle = if work == 0 { idle + 1 } else { 0 };
                if idle > PATIENCE {
                    wait([], TICK);
                }
            }
        })?;
    let worker = thread::Builder::new()
        .name(format!("reaper-{who}"))
        .spawn(move || {
            // Its memory is freed only when the thread has really ended.
            drop(worker.join());
        })?;
    Ok(Running {
        stop,
        requests,
        threads: vec![control, worker],
    })
}

impl Running {
    /// Ends both threads without flushing anything: what a SIGKILL does to a process.
    pub fn kill(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Runs a request on the control thread.
    pub fn request(&self, request: Request) {
        // A dead gateway takes no requests.
        let _ = self.requests.send(request);
    }

    /// Ends the gateway and waits for its threads.
    pub fn join(self) {
        self.kill();
        for thread in self.threads {
            // A thread that panicked has said so on stderr.
            let _ = thread.join();
        }
    }
}

//! A responder of ours on a UDP socket of the kernel: an engine in a thread of its own.

use std::error::Error;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use hitless::entropy::SystemEntropy;
use hitless::ike::proposal::Identification;
use hitless::ike::settings::{Cookies, EngineSettings, Limits};
use hitless::ike::{Engine, Input, Output, Resume};
use hitless_sa::Instant;

use super::flock::Road;
use super::meter::Meter;
use crate::clock::Moment;
use crate::ike::{PROPOSALS, settings};
use crate::machine::Cores;

const GATEWAY: usize = 1;
const AT_ONCE: usize = 256;
const TICK: Duration = Duration::from_millis(1);

/// It runs until it is asked to end.
pub struct Answerer {
    pub address: SocketAddr,
    pub meter: Meter,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<usize, String>>,
}

/// One connection for anybody, who may come as fast as it likes.
fn anybody() -> Result<EngineSettings, Box<dyn Error>> {
    let mut settings = settings(GATEWAY, PROPOSALS[0].0, "aes128gcm16")?;
    settings.limits = Limits {
        cookies: Cookies::Never,
        init_rate: 0,
        init_rate_ip: 0,
        ..settings.limits
    };
    for connection in &mut settings.connections {
        connection.local_addrs = vec![Ipv4Addr::LOCALHOST.into()];
        connection.remote_addrs.clear();
        connection.remote_id = Identification::Any;
        connection.local_id = Identification::Fqdn("cluster.test".to_owned());
        for child in &mut connection.children {
            child.local_ts = vec!["10.2.0.0/24".parse()?];
            child.remote_ts = vec!["10.64.0.0/10".parse()?];
        }
    }
    Ok(settings)
}

impl Answerer {
    /// On the first of the cores.
    pub fn start(cores: Cores) -> Result<Answerer, Box<dyn Error>> {
        let road = Road::open(Ipv4Addr::LOCALHOST.into(), 0)?;
        let address = road.address()?;
        let settings = anybody()?;
        let stop = Arc::new(AtomicBool::new(false));
        let (tell, told) = mpsc::channel();
        let thread = std::thread::spawn({
            let stop = Arc::clone(&stop);
            move || {
                cores.take(0);
                let meter = Meter::this_thread().map_err(|error| error.to_string())?;
                // Whoever started us has gone if it does not listen.
                let _ = tell.send(meter);
                serve(settings, &road, &stop).map_err(|error| error.to_string())
            }
        });
        Ok(Answerer {
            address,
            meter: told.recv()?,
            stop,
            thread,
        })
    }

    /// Ends it; gives the number of its IKE SAs with a Child SA.
    pub fn end(self) -> Result<usize, Box<dyn Error>> {
        self.stop.store(true, Ordering::Relaxed);
        let ended = self.thread.join();
        Ok(ended.map_err(|_| "the responder panicked")??)
    }
}

fn serve(
    settings: EngineSettings,
    road: &Road,
    stop: &AtomicBool,
) -> Result<usize, Box<dyn Error>> {
    let began = Moment::now();
    let now = || Instant(1_000_000_000) + began.elapsed();
    let (mut engine, mut entropy) = (Engine::new(settings), SystemEntropy);
    engine.lead(now(), &mut entropy, &mut |_| Resume::Exact);
    let mut room = vec![0; 65_536];
    while !stop.load(Ordering::Relaxed) {
        Road::wait([road], TICK);
        for _ in 0..AT_ONCE {
            let Some((remote, payload)) = road.receive(&mut room) else {
                break;
            };
            let local = road.local();
            let input = Input::Datagram {
                local,
                remote,
                payload,
            };
            engine.handle(now(), &mut entropy, input);
            obey(&mut engine, road)?;
        }
        if engine.poll_timeout().is_some_and(|due| due <= now()) {
            engine.handle(now(), &mut entropy, Input::Timeout);
            obey(&mut engine, road)?;
        }
    }
    let sas = engine.status(now());
    Ok(sas.iter().filter(|sa| sa.children.len() == 1).count())
}

/// There is no standby to wait for.
fn obey(engine: &mut Engine, road: &Road) -> Result<(), Box<dyn Error>> {
    while let Some(output) = engine.poll_output() {
        match output {
            Output::Transmit(transmit) | Output::Retransmit { transmit, .. } => {
                road.send(&transmit)?;
            }
            Output::Commit(commit) => {
                for transmit in &commit.transmits {
                    road.send(transmit)?;
                }
            }
            Output::Event(_) => {}
        }
    }
    Ok(())
}

//! Datagrams through every tunnel, both ways, at a steady pace; when each was sent, and whether and
//! when it arrived.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use super::bed::{HOST, inner_address};
use crate::clock;
use crate::error::LabError;
use crate::netns::Namespace;
use crate::syscall;

const PORT: u16 = 7000;
/// The receiver looks this often whether it is to end.
const PATIENCE: Duration = Duration::from_millis(50);
const TICK: Duration = Duration::from_millis(1);
/// What was sent last may still be on its way.
const LINGER: Duration = Duration::from_millis(400);
const PAYLOAD: usize = 64;

/// Which way a datagram goes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Way {
    /// From the peers to the host behind the cluster: the cluster decrypts.
    In,
    /// From that host to the peers: the cluster encrypts.
    Out,
}

pub const WAYS: [Way; 2] = [Way::In, Way::Out];

/// The datagrams of one tunnel, one way, by their number.
#[derive(Clone, Debug, Default)]
pub struct Stream {
    pub sent: Vec<Duration>,
    pub arrived: BTreeMap<u32, Duration>,
    /// Delivered more than once.
    pub twice: u64,
}

/// Everything that was sent and received.
#[derive(Clone, Debug, Default)]
pub struct Flow {
    pub streams: BTreeMap<(Way, u16), Stream>,
}

/// A tunnel through which nothing came for a while.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Silence {
    pub tunnel: u16,
    pub since: Duration,
    pub length: Duration,
}

/// When something last arrived on each stream, in nanoseconds.
type Latest = Arc<[AtomicU64]>;

/// When each datagram of each tunnel was sent.
pub(super) type Sent = Vec<Vec<Duration>>;

/// Senders and receivers at work.
pub struct Traffic {
    latest: [Latest; 2],
    stop: Arc<AtomicBool>,
    quiet: Arc<AtomicBool>,
    senders: Vec<(Way, Sender)>,
    receivers: Vec<(Way, JoinHandle<io::Result<Vec<Arrival>>>)>,
}

struct Arrival {
    tunnel: u16,
    number: u32,
    time: Duration,
}

impl Traffic {
    /// Starts `rate` datagrams a second each way, spread evenly over the tunnels.
    pub fn start(
        peer: &Namespace,
        host: &Namespace,
        tunnels: u16,
        rate: u32,
    ) -> Result<Traffic, LabError> {
        let what = || "opening the sockets of the traffic";
        let any = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        let open = |namespace: &Namespace, address: IpAddr, port| {
            let at = SocketAddr::new(address, port);
            syscall::udp_socket(&namespace.path(), at).map_err(LabError::io(what()))
        };
        let inner = || (0..tunnels).map(inner_address);
        let at_peer: Result<Vec<UdpSocket>, LabError> =
            inner().map(|address| open(peer, address, 0)).collect();
        let at_host = open(host, HOST, 0)?;
        let to_host = (0..tunnels).map(|_| SocketAddr::new(HOST, PORT));
        let to_peer = inner().map(|address| SocketAddr::new(address, PORT));
        let stop = Arc::new(AtomicBool::new(false));
        let quiet = Arc::new(AtomicBool::new(false));
        let none = || (0..tunnels).map(|_| AtomicU64::new(0)).collect();
        let latest: [Latest; 2] = [none(), none()];
        let receive = |socket: UdpSocket, latest: &Latest| {
            let (stop, latest) = (Arc::clone(&stop), Arc::clone(latest));
            std::thread::spawn(move || receive(&socket, &stop, &latest))
        };
        let receivers = vec![
            (Way::In, receive(open(host, HOST, PORT)?, &latest[0])),
            (Way::Out, receive(open(peer, any, PORT)?, &latest[1])),
        ];
        let send = |sockets: Vec<UdpSocket>, targets: Vec<SocketAddr>| {
            let quiet = Arc::clone(&quiet);
            std::thread::spawn(move || send(&sockets, &targets, rate, &quiet))
        };
        let senders = vec![
            (Way::In, send(at_peer?, to_host.collect())),
            (Way::Out, send(vec![at_host], to_peer.collect())),
        ];
        Ok(Traffic {
            latest,
            stop,
            quiet,
            senders,
            receivers,
        })
    }

    /// Whether something arrived on every stream, both ways, after that moment.
    pub fn flows_since(&self, moment: Duration) -> bool {
        let moment = moment.as_nanos() as u64;
        let mut latest = self.latest.iter().flat_map(|way| way.iter());
        latest.all(|latest| latest.load(Ordering::Relaxed) > moment)
    }

    /// Whether nothing arrived on any stream after that moment.
    pub fn silent_since(&self, moment: Duration) -> bool {
        let moment = moment.as_nanos() as u64;
        let mut latest = self.latest.iter().flat_map(|way| way.iter());
        latest.all(|latest| latest.load(Ordering::Relaxed) <= moment)
    }

    /// Ends it and tells what became of every datagram.
    pub fn stop(mut self) -> Result<Flow, LabError> {
        let what = || "the traffic";
        let broken = |_| LabError::io(what())(io::Error::other("a thread of it panicked"));
        self.quiet.store(true, Ordering::Relaxed);
        let mut flow = Flow::default();
        for (way, sender) in std::mem::take(&mut self.senders) {
            let sent = sender
                .join()
                .map_err(broken)?
                .map_err(LabError::io(what()))?;
            for (tunnel, sent) in (0..).zip(sent) {
                flow.streams.entry((way, tunnel)).or_default().sent = sent;
            }
        }
        clock::pass(LINGER)?;
        self.stop.store(true, Ordering::Relaxed);
        for (way, receiver) in std::mem::take(&mut self.receivers) {
            let arrived = receiver.join().map_err(broken)?;
            for arrival in arrived.map_err(LabError::io(what()))? {
                let stream = flow.streams.entry((way, arrival.tunnel)).or_default();
                let before = stream.arrived.insert(arrival.number, arrival.time);
                if let Some(first) = before {
                    stream.arrived.insert(arrival.number, first);
                    stream.twice += 1;
                }
            }
        }
        Ok(flow)
    }
}

/// A trial that ends early leaves no threads behind, which would keep its namespaces.
impl Drop for Traffic {
    fn drop(&mut self) {
        self.quiet.store(true, Ordering::Relaxed);
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// A thread that sends.
pub(super) type Sender = JoinHandle<io::Result<Sent>>;

/// Sends `rate` datagrams a second, to one target after the other, until it is to be quiet.
pub(super) fn send(
    sockets: &[UdpSocket],
    targets: &[SocketAddr],
    rate: u32,
    quiet: &AtomicBool,
) -> io::Result<Sent> {
    let mut sent = vec![Vec::new(); targets.len()];
    let mut payload = [0; PAYLOAD];
    let start = clock::wall();
    let mut count = 0u64;
    while !quiet.load(Ordering::Relaxed) {
        let passed = clock::wall().saturating_sub(start);
        let due = (passed.as_secs_f64() * f64::from(rate)) as u64;
        while count < due {
            let tunnel = (count % targets.len().max(1) as u64) as usize;
            count += 1;
            let (Some(target), Some(times)) = (targets.get(tunnel), sent.get_mut(tunnel)) else {
                continue;
            };
            let Some(socket) = sockets.get(tunnel).or(sockets.first()) else {
                continue;
            };
            payload[..2].copy_from_slice(&(tunnel as u16).to_be_bytes());
            payload[2..6].copy_from_slice(&(times.len() as u32).to_be_bytes());
            times.push(clock::wall());
            // What cannot be sent is as lost as what does not arrive.
            let _ = socket.send_to(&payload, target);
        }
        if clock::pass(TICK).is_err() {
            break;
        }
    }
    Ok(sent)
}

fn receive(
    socket: &UdpSocket,
    stop: &AtomicBool,
    latest: &[AtomicU64],
) -> io::Result<Vec<Arrival>> {
    socket.set_read_timeout(Some(PATIENCE))?;
    let mut arrived = Vec::new();
    let mut payload = [0; 2 * PAYLOAD];
    while !stop.load(Ordering::Relaxed) {
        // An error is the time-out, or an ICMP error that some datagram of ours has met.
        if socket.recv(&mut payload).is_err() {
            continue;
        }
        let [a, b, c, d, e, f, ..] = payload;
        let (tunnel, time) = (u16::from_be_bytes([a, b]), clock::wall());
        if let Some(latest) = latest.get(usize::from(tunnel)) {
            latest.store(time.as_nanos() as u64, Ordering::Relaxed);
        }
        arrived.push(Arrival {
            tunnel,
            number: u32::from_be_bytes([c, d, e, f]),
            time,
        });
    }
    Ok(arrived)
}

impl Flow {
    fn of(&self, way: Way) -> impl Iterator<Item = &Stream> {
        let streams = self.streams.iter();
        streams.filter_map(move |((this, _), stream)| (*this == way).then_some(stream))
    }

    pub fn sent(&self) -> u64 {
        self.streams.values().map(|s| s.sent.len() as u64).sum()
    }

    pub fn lost(&self) -> u64 {
        let lost = |s: &Stream| s.sent.len().saturating_sub(s.arrived.len()) as u64;
        self.streams.values().map(lost).sum()
    }

    pub fn delivered_twice(&self) -> u64 {
        WAYS.map(|way| self.twice(way)).iter().sum()
    }

    /// Of those that went one way.
    pub fn twice(&self, way: Way) -> u64 {
        self.of(way).map(|stream| stream.twice).sum()
    }

    /// The longest time after `from` in which nothing at all arrived that way.
    pub fn outage(&self, way: Way, from: Duration) -> Option<Duration> {
        let mut times: Vec<Duration> = self
            .of(way)
            .flat_map(|s| s.arrived.values())
            .copied()
            .collect();
        times.sort_unstable();
        longest(&times, from).map(|(_, length)| length)
    }

    /// The longest time after `from` in which a tunnel was silent: of the tunnel that waited
    /// longest, less the pause between its datagrams.
    pub fn slowest(&self, way: Way, from: Duration) -> Option<Silence> {
        let of_way = self.streams.iter().filter(|((this, _), _)| *this == way);
        let silences = of_way.map(|((_, tunnel), stream)| {
            let times: Vec<Duration> = stream.arrived.values().copied().collect();
            let (first, last) = (stream.sent.first()?, stream.sent.last()?);
            let pause = last.saturating_sub(*first) / (stream.sent.len() as u32).max(1);
            let (since, length) = longest(&times, from)?;
            Some(Silence {
                tunnel: *tunnel,
                since,
                length: length.saturating_sub(pause),
            })
        });
        // A tunnel on which nothing came afterwards makes it endless.
        let silences = silences.collect::<Option<Vec<_>>>()?.into_iter();
        silences.max_by_key(|silence| silence.length)
    }

    /// Streams of which something sent at `from` or later arrived.
    pub fn alive_since(&self, way: Way, from: Duration) -> usize {
        let alive = |stream: &&Stream| stream.arrived.values().any(|time| *time >= from);
        self.of(way).filter(alive).count()
    }

    /// Arrivals in each of `bins` spans of `width` from `from` on.
    pub fn histogram(&self, way: Way, from: Duration, width: Duration, bins: usize) -> Vec<u64> {
        let mut counts = vec![0; bins];
        for time in self.of(way).flat_map(|stream| stream.arrived.values()) {
            let Some(after) = time.checked_sub(from) else {
                continue;
            };
            let bin = after.as_micros() / width.as_micros().max(1);
            if let Some(count) = usize::try_from(bin)
                .ok()
                .and_then(|bin| counts.get_mut(bin))
            {
                *count += 1;
            }
        }
        counts
    }
}

/// When the longest gap of which the end is after `from` began, and its length; `None` if nothing
/// came after it.
fn longest(times: &[Duration], from: Duration) -> Option<(Duration, Duration)> {
    let pairs = times.windows(2).filter(|pair| pair[1] > from);
    let gaps = pairs.map(|pair| (pair[0], pair[1].saturating_sub(pair[0])));
    gaps.max_by_key(|(_, length)| *length)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn flow(arrived: &[(u32, u64)]) -> Flow {
        let stream = Stream {
            sent: (0..10).map(|n| at(n * 10)).collect(),
            arrived: arrived.iter().map(|(n, ms)| (*n, at(*ms))).collect(),
            twice: 1,
        };
        Flow {
            streams: [((Way::In, 0), stream)].into(),
        }
    }

    #[test]
    fn losses_and_gaps_are_counted() {
        let flow = flow(&[(0, 1), (1, 11), (5, 51), (9, 90)]);
        assert_eq!(
            (flow.sent(), flow.lost(), flow.delivered_twice()),
            (10, 6, 1)
        );
        assert_eq!(flow.outage(Way::In, at(20)), Some(at(40)));
        let slowest = flow.slowest(Way::In, at(20)).unwrap();
        assert_eq!((slowest.since, slowest.length), (at(11), at(31)));
        assert_eq!(flow.outage(Way::In, at(91)), None);
        assert_eq!(flow.outage(Way::Out, at(0)), None);
        let alive = |from| flow.alive_since(Way::In, at(from));
        assert_eq!((alive(90), alive(92)), (1, 0));
        assert_eq!(flow.histogram(Way::In, at(0), at(50), 2), [2, 2]);
    }
}

//! Ports by name, and what every station on a network must do: answer ARP for its address.

use std::error::Error;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use hitless_dataplane::pool::Pool;
use hitless_dataplane::port::af_packet::{AfPacketPort, AfPacketSettings};
use hitless_dataplane::port::af_xdp::{AfXdpPort, AfXdpSettings};
use hitless_dataplane::port::memory;
use hitless_dataplane::port::pcap::{Pace, PcapPort, PcapSettings};
use hitless_dataplane::port::tap::{TapPort, TapSettings};
use hitless_dataplane::port::{Burst, MacAddress, Port};
use hitless_dataplane::wire::arp::{Arp, Operation};
use hitless_dataplane::wire::ethernet::{self, Ethernet};

use super::Ends;
use crate::clock::Moment;

const FRAMES: u32 = 8192;
/// Room for packets of 9,000 octets.
const JUMBOS: u32 = 64;
const MTU: usize = 9000;
/// Frames in each direction of a memory port.
const RING: usize = 1024;
/// Ours on the wire; no vendor has these.
const OUT_MAC: MacAddress = [2, 0x68, 0x70, 0, 0, 1];
const SINK_MAC: MacAddress = [2, 0x68, 0x70, 0, 0, 2];
/// How often and how long a next hop is asked for.
const ASK_EVERY: Duration = Duration::from_millis(200);
const ASK_FOR: Duration = Duration::from_secs(3);

/// A port in words.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PortSpec {
    AfPacket(String),
    AfXdp(String),
    Tap(String),
    Pcap(PathBuf),
    Memory,
}

impl FromStr for PortSpec {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<PortSpec, &'static str> {
        match text.split_once(':') {
            Some(("af_packet", name)) if !name.is_empty() => {
                Ok(PortSpec::AfPacket(name.to_owned()))
            }
            Some(("af_xdp", name)) if !name.is_empty() => Ok(PortSpec::AfXdp(name.to_owned())),
            Some(("tap", name)) if !name.is_empty() => Ok(PortSpec::Tap(name.to_owned())),
            Some(("pcap", path)) if !path.is_empty() => Ok(PortSpec::Pcap(path.into())),
            None if text == "memory" => Ok(PortSpec::Memory),
            _ => Err("write af_packet:IF, af_xdp:IF, tap:IF, pcap:FILE or memory"),
        }
    }
}

impl PortSpec {
    /// Whether somebody with an Ethernet address is at the other end.
    pub fn needs_mac(&self) -> bool {
        matches!(
            self,
            PortSpec::AfPacket(_) | PortSpec::AfXdp(_) | PortSpec::Tap(_)
        )
    }
}

/// An Ethernet address in text.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mac(pub MacAddress);

impl FromStr for Mac {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Mac, &'static str> {
        const HELP: &str = "write six octets, such as 02:00:00:00:00:01";
        let octets = text.split(':').map(|octet| u8::from_str_radix(octet, 16));
        let octets: Vec<u8> = octets.collect::<Result<_, _>>().map_err(|_| HELP)?;
        octets.try_into().map(Mac).map_err(|_| HELP)
    }
}

/// A port with its pool and its address.
pub struct End {
    pub port: Box<dyn Port>,
    pub pool: Pool,
    pub mac: MacAddress,
    pub address: IpAddr,
}

/// Opens both ends.
pub fn open(
    out: &PortSpec,
    sink: Option<&PortSpec>,
    src: IpAddr,
    dst: IpAddr,
) -> Result<Ends, Box<dyn Error>> {
    match (out, sink) {
        (PortSpec::Memory, None) => {
            let (near, far) = memory::link(RING, MTU);
            Ok(Ends {
                out: End::new(Box::new(near), OUT_MAC, src)?,
                into: Some(End::new(Box::new(far), SINK_MAC, dst)?),
            })
        }
        (PortSpec::Memory, Some(_)) => Err("a memory port has no other end than its own".into()),
        (out, sink) => Ok(Ends {
            out: End::open(out, OUT_MAC, src)?,
            into: sink
                .map(|sink| End::open(sink, SINK_MAC, dst))
                .transpose()?,
        }),
    }
}

/// Every frame of a capture.
pub fn frames_of(path: &Path) -> Result<Vec<Vec<u8>>, Box<dyn Error>> {
    let mut port = PcapPort::open(&pcap_settings(Some(path.to_owned()), None))?;
    let mut pool = Pool::with_runs(64, JUMBOS)?;
    let mut frames = Vec::new();
    loop {
        let mut burst = Burst::new();
        port.receive(&mut pool, &mut burst);
        if burst.is_empty() && port.remaining() == 0 {
            return Ok(frames);
        }
        for packet in burst {
            frames.push(pool.bytes(&packet).to_vec());
            pool.free(packet);
        }
    }
}

fn pcap_settings(input: Option<PathBuf>, output: Option<PathBuf>) -> PcapSettings {
    PcapSettings {
        input,
        output,
        pace: Pace::Fast,
        mtu: MTU,
        clock: || Duration::from_nanos(hitless::clock::now().0),
    }
}

impl End {
    /// An end at a port that is open.
    pub fn new(
        port: Box<dyn Port>,
        mac: MacAddress,
        address: IpAddr,
    ) -> Result<End, Box<dyn Error>> {
        let pool = Pool::with_runs(FRAMES, JUMBOS)?;
        Ok(End {
            port,
            pool,
            mac,
            address,
        })
    }

    fn open(spec: &PortSpec, mac: MacAddress, address: IpAddr) -> Result<End, Box<dyn Error>> {
        let mut pool = Pool::with_runs(FRAMES, JUMBOS)?;
        let port: Box<dyn Port> = match spec {
            PortSpec::AfPacket(interface) => {
                let settings = AfPacketSettings {
                    interface: interface.clone(),
                    mac,
                    addresses: vec![address],
                    queues: 1,
                };
                Box::new(AfPacketPort::open(&settings, &pool)?)
            }
            PortSpec::AfXdp(interface) => {
                let mut settings = AfXdpSettings::new(interface.clone(), mac);
                settings.addresses = vec![address];
                Box::new(AfXdpPort::open(&settings, &mut pool)?)
            }
            PortSpec::Tap(interface) => {
                let settings = TapSettings {
                    interface: interface.clone(),
                    mtu: None,
                    several: false,
                };
                Box::new(TapPort::open(&settings, &pool)?)
            }
            PortSpec::Pcap(path) => {
                Box::new(PcapPort::open(&pcap_settings(None, Some(path.clone())))?)
            }
            PortSpec::Memory => {
                return Err("a memory port is the sink of its own far end only".into());
            }
        };
        Ok(End {
            port,
            pool,
            mac,
            address,
        })
    }

    /// Hands over what has arrived; answers ARP for our address.
    pub fn receive(&mut self, mut handle: impl FnMut(&[u8])) {
        let mut burst = Burst::new();
        self.port.receive(&mut self.pool, &mut burst);
        for packet in burst.drain(..) {
            let frame = self.pool.bytes(&packet);
            let answer = self.answer(frame);
            handle(frame);
            self.pool.free(packet);
            if let Some(answer) = answer {
                self.send(&answer);
            }
        }
    }

    fn answer(&self, frame: &[u8]) -> Option<Vec<u8>> {
        let ether = Ethernet::parse(frame)?;
        let request = (ether.ether_type() == ethernet::ARP).then(|| frame.get(ethernet::HEADER..));
        let request = Arp::parse(request??)?;
        (request.operation == Operation::Request && IpAddr::V4(request.target) == self.address)
            .then(|| {
                let arp = Arp {
                    operation: Operation::Reply,
                    sender_mac: self.mac,
                    sender: request.target,
                    target_mac: request.sender_mac,
                    target: request.sender,
                };
                framed(request.sender_mac, self.mac, &arp)
            })
    }

    fn send(&mut self, frame: &[u8]) {
        if let Some(packet) = self.pool.copy_in(frame) {
            let mut burst = Burst::new();
            burst.push(packet);
            self.port.transmit(&mut self.pool, &mut burst);
        }
    }

    /// Housekeeping when there is nothing to send.
    pub fn poll(&mut self) {
        self.port.poll(&mut self.pool);
    }

    /// Frames that the port had no room for.
    pub fn refused(&self) -> u64 {
        self.port.counters().transmit_full
    }

    /// Asks for the Ethernet address of a next hop.
    pub fn resolve(
        &mut self,
        gateway: Ipv4Addr,
        src: IpAddr,
    ) -> Result<MacAddress, Box<dyn Error>> {
        let IpAddr::V4(sender) = src else {
            return Err("--gateway asks by ARP, which is IPv4's: give --dst-mac".into());
        };
        let request = Arp {
            operation: Operation::Request,
            sender_mac: self.mac,
            sender,
            target_mac: [0; 6],
            target: gateway,
        };
        let request = framed(ethernet::BROADCAST, self.mac, &request);
        let begun = Moment::now();
        let mut next = Duration::ZERO;
        while begun.elapsed() < ASK_FOR {
            if begun.elapsed() >= next {
                next += ASK_EVERY;
                self.send(&request);
            }
            let mut found = None;
            self.receive(|frame| {
                let arp = frame.get(ethernet::HEADER..).and_then(Arp::parse);
                found = found.or(arp
                    .filter(|arp| arp.sender == gateway)
                    .map(|arp| arp.sender_mac));
            });
            if let Some(mac) = found {
                return Ok(mac);
            }
        }
        Err(Unanswered(gateway).into())
    }
}

fn framed(to: MacAddress, from: MacAddress, arp: &Arp) -> Vec<u8> {
    let mut frame = vec![0; ethernet::HEADER];
    let _ = ethernet::write(&mut frame, to, from, ethernet::ARP);
    frame.extend(arp.emit());
    frame
}

/// Nobody has the address.
#[derive(Debug)]
struct Unanswered(Ipv4Addr);

impl fmt::Display for Unanswered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "nobody answered for {}; check the cable, or give --dst-mac",
            self.0
        )
    }
}

impl Error for Unanswered {}

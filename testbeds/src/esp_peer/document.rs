//! What a suite in another language may ask of the driver, as JSON, and what it is told.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use hitless_dataplane::aead::Engine;
use hitless_dataplane::fib::Route;
use hitless_dataplane::port::MacAddress;
use hitless_dataplane::spd::{Action, Policy};
use hitless_dataplane::worker::Interface;
use hitless_sa::{
    ChildSa, DontFragment, Dscp, EspSuite, Incarnation, KeyMaterial, MemberId, Mode, MssClamp,
    SaId, SaOptions, Spi, TfcPadding, TrafficSelector, UdpEncapsulation,
};
use serde::{Deserialize, Serialize};

use super::Refused;

/// One command.
#[derive(Deserialize)]
#[serde(tag = "op", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// A new gateway, in place of the one that there was.
    Start(Setup),
    /// Installs an SA pair, or replaces the one of the same number.
    Install(Sa),
    /// Moves an SA's endpoints.
    Update {
        sa: u32,
        local: IpAddr,
        remote: IpAddr,
        encapsulation: Option<Udp>,
    },
    /// Removes an SA pair.
    Remove { sa: u32 },
    /// Replaces the policies.
    Policies { policies: Vec<PolicyText> },
    /// Lets the gateway lead, or no longer.
    Lead { leading: bool },
    /// Moves the clock, then does all that there is to do.
    Run {
        #[serde(default)]
        milliseconds: u64,
    },
}

/// A gateway without SAs.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Setup {
    pub ports: Vec<PortText>,
    pub routes: Vec<RouteText>,
    pub neighbours: Vec<NeighbourText>,
    #[serde(default)]
    pub policies: Vec<PolicyText>,
    /// The AEAD engine by its name, the default one if there is none.
    pub engine: Option<String>,
    #[serde(default = "usual_frames")]
    pub frames: u32,
    /// Runs of adjacent frames, for packets too long for one.
    #[serde(default)]
    pub runs: u32,
}

fn usual_frames() -> u32 {
    2048
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PortText {
    pub mac: String,
    pub addresses: Vec<String>,
    pub mtu: usize,
    pub protected: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouteText {
    pub prefix: String,
    pub port: usize,
    pub next_hop: Option<IpAddr>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NeighbourText {
    pub port: usize,
    pub address: IpAddr,
    pub mac: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyText {
    pub local: Selector,
    pub remote: Selector,
    pub action: ActionText,
    pub sa: Option<u32>,
}

#[derive(Deserialize, Clone, Copy)]
#[serde(rename_all = "snake_case")]
pub enum ActionText {
    Protect,
    Bypass,
    Discard,
}

/// A prefix, and optionally a protocol and ports.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Selector {
    pub prefix: String,
    #[serde(default)]
    pub protocol: u8,
    pub ports: Option<(u16, u16)>,
}

#[derive(Deserialize, Clone, Copy)]
#[serde(deny_unknown_fields)]
pub struct Udp {
    pub local_port: u16,
    pub remote_port: u16,
}

/// An SA pair. Keys are hexadecimal, with their salt.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sa {
    pub id: u32,
    #[serde(default)]
    pub transport: bool,
    pub suite: String,
    pub esn: bool,
    pub inbound_spi: u32,
    pub outbound_spi: u32,
    pub inbound_key: String,
    pub outbound_key: String,
    pub local: IpAddr,
    pub remote: IpAddr,
    pub encapsulation: Option<Udp>,
    pub local_ts: Vec<Selector>,
    pub remote_ts: Vec<Selector>,
    pub replay_window: u32,
    #[serde(default)]
    pub options: Options,
    /// The first number to send.
    #[serde(default = "one")]
    pub first: u64,
    /// Every number up to this one counts as received.
    #[serde(default)]
    pub floor: u64,
}

/// Settings of an SA; what is left out is as an SA has it by default.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub struct Options {
    /// A fixed one; else it is copied.
    dscp: Option<u8>,
    copy_dscp_in: Option<bool>,
    copy_ecn: Option<bool>,
    dont_fragment: Option<DontFragmentText>,
    hop_limit: Option<u8>,
    flow_label: Option<u32>,
    tfc: Option<Size>,
    mss: Option<Size>,
    keepalive_seconds: Option<u64>,
}

#[derive(Deserialize, Clone, Copy)]
#[serde(rename_all = "snake_case")]
enum DontFragmentText {
    Copy,
    Set,
    Clear,
}

/// A number of octets, or 0 for what the MTU allows.
#[derive(Deserialize, Clone, Copy)]
struct Size(u16);

impl Options {
    fn options(&self) -> SaOptions {
        let usual = SaOptions::default();
        SaOptions {
            dscp: self.dscp.map_or(usual.dscp, Dscp::Fixed),
            copy_dscp_in: self.copy_dscp_in.unwrap_or(usual.copy_dscp_in),
            copy_ecn: self.copy_ecn.unwrap_or(usual.copy_ecn),
            dont_fragment: match self.dont_fragment {
                None => usual.dont_fragment,
                Some(DontFragmentText::Copy) => DontFragment::Copy,
                Some(DontFragmentText::Set) => DontFragment::Set,
                Some(DontFragmentText::Clear) => DontFragment::Clear,
            },
            hop_limit: self.hop_limit.unwrap_or(usual.hop_limit),
            flow_label: self.flow_label.unwrap_or(usual.flow_label),
            padding: match self.tfc {
                None => usual.padding,
                Some(Size(0)) => TfcPadding::ToMtu,
                Some(Size(octets)) => TfcPadding::To(octets),
            },
            resource: usual.resource,
            mss: match self.mss {
                None => usual.mss,
                Some(Size(0)) => MssClamp::ToMtu,
                Some(Size(octets)) => MssClamp::To(octets),
            },
            keepalive: self
                .keepalive_seconds
                .map_or(usual.keepalive, |s| Some(Duration::from_secs(s))),
            workers: usual.workers,
        }
    }
}

fn one() -> u64 {
    1
}

/// What has become of the packets, after every command.
#[derive(Serialize, Default)]
pub struct Answer {
    /// Why the command was refused; nothing if it was obeyed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
    /// Packets dropped, by reason, since the gateway was made.
    pub drops: BTreeMap<&'static str, u64>,
    pub packets_in: u64,
    pub bytes_in: u64,
    pub packets_out: u64,
    pub bytes_out: u64,
    pub punted: u64,
    /// Top of the receive window of each SA.
    pub tops: BTreeMap<u32, u64>,
    /// Frames of the pool that nobody holds any more.
    pub leaked: i64,
}

/// The identity of an SA by its number.
pub fn sa_id(counter: u32) -> SaId {
    SaId {
        creator: MemberId(1),
        incarnation: Incarnation(1),
        counter,
    }
}

fn refuse<T>(what: &str, text: &str) -> Result<T, Refused> {
    Err(Refused(format!("{what}: cannot understand {text:?}")))
}

fn mac(text: &str) -> Result<MacAddress, Refused> {
    let mut mac = [0; 6];
    let mut parts = text.split(':');
    for octet in &mut mac {
        let part = parts.next().unwrap_or_default();
        match u8::from_str_radix(part, 16) {
            Ok(value) => *octet = value,
            Err(_) => return refuse("MAC address", text),
        }
    }
    Ok(mac)
}

fn prefix(text: &str) -> Result<(IpAddr, u8), Refused> {
    let parsed = text
        .split_once('/')
        .and_then(|(address, length)| Some((address.parse().ok()?, length.parse().ok()?)));
    parsed.map_or_else(|| refuse("prefix", text), Ok)
}

fn key(text: &str) -> Result<KeyMaterial, Refused> {
    let octets: Option<Vec<u8>> = (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(text.get(at..at + 2)?, 16).ok())
        .collect();
    match octets {
        Some(octets) => Ok(KeyMaterial::new(&octets)),
        // A key is not printed, not even a wrong one.
        None => refuse("key", "(hidden)"),
    }
}

impl PortText {
    pub fn interface(&self) -> Result<Interface, Refused> {
        let addresses: Result<_, _> = self.addresses.iter().map(|text| prefix(text)).collect();
        Ok(Interface {
            mac: mac(&self.mac)?,
            addresses: addresses?,
            mtu: self.mtu,
            protected: self.protected,
        })
    }
}

impl RouteText {
    pub fn route(&self) -> Result<Route, Refused> {
        Ok(Route {
            prefix: prefix(&self.prefix)?,
            port: self.port,
            next_hop: self.next_hop,
        })
    }
}

impl NeighbourText {
    pub fn mac(&self) -> Result<MacAddress, Refused> {
        mac(&self.mac)
    }
}

impl Selector {
    fn selector(&self) -> Result<TrafficSelector, Refused> {
        let (address, length) = prefix(&self.prefix)?;
        let Some(whole) = TrafficSelector::prefix(address, length) else {
            return refuse("prefix", &self.prefix);
        };
        let (start_port, end_port) = self.ports.unwrap_or((0, u16::MAX));
        Ok(TrafficSelector {
            protocol: self.protocol,
            start_port,
            end_port,
            ..whole
        })
    }
}

impl PolicyText {
    pub fn policy(&self) -> Result<Policy, Refused> {
        Ok(Policy {
            local: self.local.selector()?,
            remote: self.remote.selector()?,
            action: match self.action {
                ActionText::Protect => Action::Protect(self.sa.map(sa_id)),
                ActionText::Bypass => Action::Bypass,
                ActionText::Discard => Action::Discard,
            },
        })
    }
}

impl From<Udp> for UdpEncapsulation {
    fn from(ports: Udp) -> UdpEncapsulation {
        UdpEncapsulation {
            local_port: ports.local_port,
            remote_port: ports.remote_port,
        }
    }
}

impl Sa {
    pub fn child(&self) -> Result<ChildSa, Refused> {
        let Some(suite) = EspSuite::ALL
            .iter()
            .find(|suite| suite.keyword() == self.suite)
        else {
            return refuse("suite", &self.suite);
        };
        let selectors = |texts: &[Selector]| {
            texts
                .iter()
                .map(Selector::selector)
                .collect::<Result<Vec<_>, _>>()
        };
        Ok(ChildSa {
            id: sa_id(self.id),
            mode: match self.transport {
                true => Mode::Transport,
                false => Mode::Tunnel,
            },
            inbound_spi: Spi(self.inbound_spi),
            outbound_spi: Spi(self.outbound_spi),
            suite: *suite,
            esn: self.esn,
            inbound_key: key(&self.inbound_key)?,
            outbound_key: key(&self.outbound_key)?,
            local: self.local,
            remote: self.remote,
            encapsulation: self.encapsulation.map(Into::into),
            local_ts: selectors(&self.local_ts)?,
            remote_ts: selectors(&self.remote_ts)?,
            replay_window: self.replay_window,
            options: self.options.options(),
        })
    }
}

impl Setup {
    pub fn engine(&self) -> Result<Engine, Refused> {
        let Some(name) = &self.engine else {
            return Ok(Engine::default());
        };
        name.parse()
            .map_err(|error| Refused(format!("engine: {error}")))
    }
}

//! The description of a Child SA: all that any member needs to carry it.

use std::net::IpAddr;

use crate::{EspSuite, KeyMaterial, SaId, SaOptions, Spi, TrafficSelector};

/// UDP ports around ESP (RFC 3948), as seen from us.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct UdpEncapsulation {
    pub local_port: u16,
    pub remote_port: u16,
}

/// How ESP wraps a packet (RFC 4301 section 3.2).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Mode {
    Tunnel,
    Transport,
}

/// A pair of ESP SAs, one for each direction (RFC 4301 section 4.1).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ChildSa {
    pub id: SaId,
    pub mode: Mode,
    /// SPI that we chose; the peer sends to it.
    pub inbound_spi: Spi,
    /// SPI that the peer chose; we send to it.
    pub outbound_spi: Spi,
    pub suite: EspSuite,
    /// Extended sequence numbers (RFC 4303 section 2.2.1).
    pub esn: bool,
    pub inbound_key: KeyMaterial,
    pub outbound_key: KeyMaterial,
    /// Our tunnel endpoint.
    pub local: IpAddr,
    /// The peer's tunnel endpoint.
    pub remote: IpAddr,
    pub encapsulation: Option<UdpEncapsulation>,
    pub local_ts: Vec<TrafficSelector>,
    pub remote_ts: Vec<TrafficSelector>,
    /// Replay window in packets: a power of two from 64 to 65,536.
    pub replay_window: u32,
    /// What is ours alone to decide.
    pub options: SaOptions,
}

impl ChildSa {
    /// Moves the endpoints: a peer behind a NAT whose mapping changed (RFC 7296 section 2.23), or an
    /// end at another address (RFC 4555). In transport mode the addresses are what is protected, and
    /// the selectors go along.
    pub fn relocate(
        &mut self,
        local: IpAddr,
        remote: IpAddr,
        encapsulation: Option<UdpEncapsulation>,
    ) {
        if self.mode == Mode::Transport {
            for selector in &mut self.local_ts {
                selector.follow(self.local, local);
            }
            for selector in &mut self.remote_ts {
                selector.follow(self.remote, remote);
            }
        }
        (self.local, self.remote) = (local, remote);
        self.encapsulation = encapsulation;
    }
}

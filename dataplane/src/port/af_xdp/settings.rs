//! What an AF_XDP port is asked for, and what it got.

use std::net::IpAddr;

use crate::port::MacAddress;

/// How the XDP program is attached.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum AfXdpMode {
    /// In the driver if it can, in the kernel behind it otherwise.
    #[default]
    Auto,
    /// In the driver.
    Native,
    /// In the kernel, behind the driver (generic mode): works with any driver.
    Skb,
}

/// What to open.
#[derive(Clone, Debug)]
pub struct AfXdpSettings {
    /// Name of the interface.
    pub interface: String,
    /// Receive queue. Further queues of the same interface are opened with [`super::AfXdpPort::join`].
    pub queue: u32,
    /// How to attach.
    pub mode: AfXdpMode,
    /// Let the driver write into our frames, if it can.
    pub zero_copy: bool,
    /// The cluster's virtual MAC address: every frame to it is ours. Not the interface's own.
    pub mac: MacAddress,
    /// The cluster's addresses: ARP and neighbour solicitations about them are ours.
    pub addresses: Vec<IpAddr>,
    /// Entries in each ring, a power of two. The rings of a port also never hold more than a
    /// quarter of the pool to receive, and a quarter to send.
    pub ring_size: u32,
}

impl AfXdpSettings {
    /// Queue 0 of an interface, with the usual ring size.
    pub fn new(interface: impl Into<String>, mac: MacAddress) -> AfXdpSettings {
        AfXdpSettings {
            interface: interface.into(),
            queue: 0,
            mode: AfXdpMode::Auto,
            zero_copy: false,
            mac,
            addresses: Vec::new(),
            ring_size: 2048,
        }
    }
}

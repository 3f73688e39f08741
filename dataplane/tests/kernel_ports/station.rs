//! A port with its pool, and the frames that tests send.

use std::net::Ipv4Addr;

use hitless_dataplane::pool::{Packet, Pool};
use hitless_dataplane::port::af_xdp::{AfXdpPort, AfXdpSettings};
use hitless_dataplane::port::{Burst, MacAddress, Port};

use crate::namespace::wait;

pub const OURS: MacAddress = [0x02, 0x00, 0x5e, 0x00, 0x01, 0x01];
pub const FOREIGN: MacAddress = [0x02, 0x11, 0x22, 0x33, 0x44, 0x55];
pub const BROADCAST: MacAddress = [0xff; 6];
pub const OUR_ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
pub const OTHER_ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
/// EtherType for local experiments (IEEE 802): no stack answers it.
pub const EXPERIMENT: u16 = 0x88b5;

pub fn settings(interface: &str) -> AfXdpSettings {
    AfXdpSettings {
        addresses: vec![OUR_ADDRESS.into()],
        ring_size: 64,
        ..AfXdpSettings::new(interface, OURS)
    }
}

/// A port with its pool, at the near end of a cable.
pub struct Station<P: Port = AfXdpPort> {
    pub port: P,
    pub pool: Pool,
}

impl Station {
    pub fn new(settings: &AfXdpSettings) -> Station {
        Station::with(settings, Pool::new(1024).unwrap())
    }

    pub fn with(settings: &AfXdpSettings, mut pool: Pool) -> Station {
        let port = AfXdpPort::open(settings, &mut pool).unwrap_or_else(|error| panic!("{error}"));
        Station { port, pool }
    }

    /// Reaps until nothing is being sent any more.
    pub fn settle(&mut self) {
        for _ in 0..100 {
            self.port.poll(&mut self.pool);
            self.assert_accounted(0);
            if self.port.frames_held() == 64 {
                return;
            }
        }
        panic!("{} frames never came back", self.port.frames_held() - 64);
    }
}

impl<P: Port> Station<P> {
    /// Every frame is free, in the rings, or in the test's hands.
    pub fn assert_accounted(&self, in_hand: usize) {
        let frames = self.pool.available() + self.port.frames_held() + in_hand;
        assert_eq!(frames, self.pool.packets());
    }

    /// One or more packets, waiting for them. A descriptor that is readable means packets.
    pub fn receive_some(&mut self) -> Burst {
        wait(self.port.wake_descriptor().unwrap());
        let mut burst = Burst::new();
        self.port.receive(&mut self.pool, &mut burst);
        assert!(!burst.is_empty(), "readable without a packet");
        burst
    }

    /// The next `count` packets, waiting for them; more must not come with them.
    pub fn receive(&mut self, count: usize) -> Vec<Packet> {
        let mut packets = Vec::new();
        while packets.len() < count {
            packets.extend(self.receive_some());
        }
        assert_eq!(packets.len(), count, "more packets came");
        packets
    }

    /// The next packet's octets.
    pub fn receive_octets(&mut self) -> Vec<u8> {
        let packets = self.receive(1);
        self.assert_accounted(1);
        let octets = self.pool.bytes(&packets[0]).to_vec();
        packets
            .into_iter()
            .for_each(|packet| self.pool.free(packet));
        octets
    }

    pub fn send(&mut self, frames: &[Vec<u8>]) {
        let mut burst: Burst = frames
            .iter()
            .map(|frame| self.pool.copy_in(frame).unwrap())
            .collect();
        self.port.transmit(&mut self.pool, &mut burst);
        assert!(burst.is_empty());
        self.assert_accounted(0);
    }
}

pub fn frame_of(to: MacAddress, ether_type: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = to.to_vec();
    frame.extend(FOREIGN);
    frame.extend(ether_type.to_be_bytes());
    frame.extend(payload);
    frame
}

/// A frame of `length` octets whose content tells its length and number.
pub fn frame(to: MacAddress, length: usize, number: u32) -> Vec<u8> {
    let mut payload = number.to_be_bytes().to_vec();
    payload.extend((4..length - 14).map(|n| (n % 251) as u8));
    frame_of(to, EXPERIMENT, &payload)
}

/// An ARP request (RFC 826).
pub fn arp_request(to: MacAddress, target: Ipv4Addr) -> Vec<u8> {
    let mut packet = vec![0, 1, 8, 0, 6, 4, 0, 1];
    packet.extend(FOREIGN);
    packet.extend([192, 0, 2, 99]);
    packet.extend([0; 6]);
    packet.extend(target.octets());
    frame_of(to, 0x0806, &packet)
}

/// A UDP datagram in IPv4, without a UDP checksum.
pub fn datagram(to: MacAddress, address: Ipv4Addr, port: u16, text: &[u8]) -> Vec<u8> {
    let mut packet = Vec::new();
    etherparse::PacketBuilder::ipv4([192, 0, 2, 99], address.octets(), 64)
        .udp(9999, port)
        .write(&mut packet, text)
        .unwrap();
    frame_of(to, 0x0800, &packet)
}

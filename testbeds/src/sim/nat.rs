//! A NAT in front of the peer (RFC 3947): another address, other ports, and a memory that it may lose.
//! It is transparent on the segment: it answers for its own address with the peer's MAC.

use std::net::Ipv4Addr;

use hitless::lab::{NAT, PEER};

/// In an Ethernet frame: its type, in IPv4 the protocol, in IPv4 and ARP the addresses.
const ETHER_TYPE: std::ops::Range<usize> = 12..14;
const IPV4: [u8; 2] = [0x08, 0x00];
const ARP: [u8; 2] = [0x08, 0x06];
const PROTOCOL: usize = 23;
const UDP: u8 = 17;
const IP_CHECKSUM: usize = 24;
const IP_SOURCE: usize = 26;
const IP_DESTINATION: usize = 30;
const ARP_SENDER: usize = 28;
const ARP_TARGET: usize = 38;
/// Behind an IPv4 header without options.
const SOURCE_PORT: usize = 34;
const DESTINATION_PORT: usize = 36;
const UDP_CHECKSUM: usize = 40;

/// Ports outside are those inside and so many more.
#[derive(Clone, Copy, Debug)]
pub struct Nat {
    shift: u16,
}

impl Nat {
    pub fn new() -> Nat {
        Nat { shift: 1000 }
    }

    /// It has started again: the peer has other ports from now on.
    pub fn forget(&mut self) {
        self.shift += 100;
    }

    /// From the peer to everybody; `None` if it does not pass.
    pub fn outwards(self, frame: &[u8]) -> Option<Vec<u8>> {
        let mut frame = frame.to_vec();
        self.pass(
            &mut frame,
            PEER,
            NAT,
            [IP_SOURCE, ARP_SENDER],
            |nat, frame| {
                let port = port(frame, SOURCE_PORT)?.checked_add(nat.shift)?;
                put(frame, SOURCE_PORT, &port.to_be_bytes())
            },
        )?;
        Some(frame)
    }

    /// And back: only what answers the peer passes.
    pub fn inwards(self, frame: &[u8]) -> Option<Vec<u8>> {
        let mut frame = frame.to_vec();
        self.pass(
            &mut frame,
            NAT,
            PEER,
            [IP_DESTINATION, ARP_TARGET],
            |nat, frame| {
                let port = port(frame, DESTINATION_PORT)?.checked_sub(nat.shift)?;
                matches!(port, 500 | 4500).then_some(())?;
                put(frame, DESTINATION_PORT, &port.to_be_bytes())
            },
        )?;
        Some(frame)
    }

    fn pass(
        self,
        frame: &mut [u8],
        from: Ipv4Addr,
        to: Ipv4Addr,
        [in_ip, in_arp]: [usize; 2],
        ports: impl FnOnce(Nat, &mut [u8]) -> Option<()>,
    ) -> Option<()> {
        let kind = frame.get(ETHER_TYPE)?;
        if kind == ARP {
            if frame.get(in_arp..in_arp + 4)? == from.octets() {
                put(frame, in_arp, &to.octets())?;
            }
            return Some(());
        }
        if kind != IPV4 || frame.get(in_ip..in_ip + 4)? != from.octets() {
            return None;
        }
        // Neither ports nor what they are about: ESP as it is does not pass.
        (*frame.get(PROTOCOL)? == UDP).then_some(())?;
        put(frame, in_ip, &to.octets())?;
        ports(self, frame)?;
        put(frame, UDP_CHECKSUM, &[0, 0])?;
        put(frame, IP_CHECKSUM, &[0, 0])?;
        let sum = hitless_dataplane::wire::checksum(0, frame.get(14..34)?);
        put(frame, IP_CHECKSUM, &sum.to_be_bytes())
    }
}

fn port(frame: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*frame.get(at..)?.first_chunk()?))
}

fn put(frame: &mut [u8], at: usize, octets: &[u8]) -> Option<()> {
    let place = frame.get_mut(at..at + octets.len())?;
    place.copy_from_slice(octets);
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From PEER to somebody by UDP.
    fn datagram() -> Vec<u8> {
        let mut frame = vec![2; 12];
        frame.extend_from_slice(&IPV4);
        frame.extend_from_slice(&[0x45, 0, 0, 40, 0, 0, 0, 0, 64, UDP, 0, 0]);
        frame.extend_from_slice(&PEER.octets());
        frame.extend_from_slice(&[192, 0, 2, 1]);
        frame.extend_from_slice(&[0x11, 0x94, 0x11, 0x94, 0, 20, 7, 7]);
        frame.resize(54, 9);
        frame
    }

    #[test]
    fn what_goes_out_comes_back_and_nothing_else_does() {
        let mut nat = Nat::new();
        let out = nat.outwards(&datagram()).unwrap();
        assert_eq!(out[IP_SOURCE..IP_SOURCE + 4], NAT.octets());
        assert_eq!(port(&out, SOURCE_PORT), Some(5500));
        assert_eq!(hitless_dataplane::wire::checksum(0, &out[14..34]), 0);
        let mut back = out.clone();
        back.swap_with_slice(&mut {
            let mut answer = out.clone();
            answer[IP_SOURCE..IP_SOURCE + 4].copy_from_slice(&[192, 0, 2, 1]);
            answer[IP_DESTINATION..IP_DESTINATION + 4].copy_from_slice(&NAT.octets());
            answer[DESTINATION_PORT..DESTINATION_PORT + 2].copy_from_slice(&5500_u16.to_be_bytes());
            answer
        });
        let inside = nat.inwards(&back).unwrap();
        assert_eq!(port(&inside, DESTINATION_PORT), Some(4500));
        assert_eq!(inside[IP_DESTINATION..IP_DESTINATION + 4], PEER.octets());
        nat.forget();
        assert_eq!(nat.inwards(&back), None);
        let mut esp = datagram();
        esp[PROTOCOL] = 50;
        assert_eq!(nat.outwards(&esp), None);
    }
}

//! An SA whose ends move: a NAT mapping that changed (RFC 7296 section 2.23), or MOBIKE (RFC 4555).

use std::net::IpAddr;

use hitless_sa::{Mode, UdpEncapsulation};

use super::{InboundSa, Usual};

impl InboundSa {
    /// Moves the endpoints; in transport mode they are what the SA may carry (RFC 4301 section 4.1).
    pub(crate) fn set_endpoint(
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
            self.usual = Usual::of(&self.local_ts, &self.remote_ts);
        }
        (self.local, self.remote) = (local, remote);
        self.encapsulation = encapsulation;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use hitless_sa::{
        ChildSa, EspSuite, Incarnation, KeyMaterial, MemberId, SaId, SaOptions, SequenceNumber,
        Spi, TrafficSelector,
    };

    use super::*;
    use crate::aead::Engine;
    use crate::cell::Cell;

    fn selectors(text: &str) -> Vec<TrafficSelector> {
        vec![text.parse().unwrap()]
    }

    #[test]
    fn rfc4301_section_4_1_transport_mode_moves_with_its_selectors_and_a_tunnel_without() {
        for mode in [Mode::Tunnel, Mode::Transport] {
            let [local, remote, moved] =
                ["192.0.2.1", "192.0.2.2", "198.51.100.2"].map(|a| a.parse().unwrap());
            let child = ChildSa {
                id: SaId {
                    creator: MemberId(1),
                    incarnation: Incarnation(1),
                    counter: 1,
                },
                mode,
                inbound_spi: Spi(0x1000),
                outbound_spi: Spi(0x2000),
                suite: EspSuite::Aes128Gcm16,
                esn: true,
                inbound_key: KeyMaterial::new(&[7; 20]),
                outbound_key: KeyMaterial::new(&[8; 20]),
                local,
                remote,
                encapsulation: None,
                local_ts: selectors("192.0.2.1/32"),
                remote_ts: selectors("192.0.2.2/32"),
                replay_window: 64,
                options: SaOptions::default(),
            };
            let cell = Arc::new(Cell::new(SequenceNumber(1), Default::default()));
            let floor = SequenceNumber(0);
            let mut sa = InboundSa::new(&child, cell, floor, 1, Engine::AwsLc).unwrap();
            sa.set_endpoint(local, moved, None);
            assert_eq!(sa.remote, moved);
            let expected = match mode {
                Mode::Tunnel => selectors("192.0.2.2/32"),
                Mode::Transport => selectors("198.51.100.2/32"),
            };
            assert_eq!(*sa.remote_ts, *expected);
            assert_eq!(*sa.local_ts, *selectors("192.0.2.1/32"));
            // What the express lane asks says the same.
            let [from, to] = [expected[0].start, local].map(|address| match address {
                IpAddr::V4(address) => u32::from(address),
                IpAddr::V6(_) => 0,
            });
            assert!(sa.allows_usual(from, to));
        }
    }
}

//! The gateway under attack, the peer that knows its keys, and a stranger that does not.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hitless_dataplane::aead::Engine;
use hitless_dataplane::fib::Route;
use hitless_dataplane::spd::{Action, Policy};
use hitless_dataplane::worker::Interface;
use hitless_sa::{
    ChildSa, EspSuite, KeyMaterial, Mode, SaId, SaOptions, Spi, TrafficSelector, UdpEncapsulation,
};

use crate::esp_peer::{Refused, Rig, sa_id};

pub const INSIDE: usize = 0;
pub const OUTSIDE: usize = 1;
const FRAMES: u32 = 1024;

/// An SA's form.
pub struct Shape {
    pub suite: EspSuite,
    pub esn: bool,
    pub window: u32,
    pub udp: bool,
    /// Families of the inner and of the outer packet.
    pub inner: u8,
    pub outer: u8,
}

/// The SAs whose windows no packet of the run may move: one of each suite.
pub const SAS: usize = EspSuite::ALL.len();

/// The form of an SA by its number; everything varies with another period.
pub fn shape(sa: usize) -> Shape {
    let usual = EspSuite::Aes128Gcm16;
    Shape {
        suite: EspSuite::ALL.get(sa).copied().unwrap_or(usual),
        esn: sa >= SAS || sa.is_multiple_of(2),
        window: [1024, 64, 65_536][(sa + 2) % 3],
        udp: sa < SAS && sa % 4 >= 2,
        inner: if sa < SAS && sa % 5 > 2 { 6 } else { 4 },
        outer: if sa < SAS && sa % 3 == 1 { 6 } else { 4 },
    }
}

/// The SA for authentic packets whose content is damaged: AES-128-GCM with ESN.
pub const AUTHENTIC: usize = SAS;
pub const AUTHENTIC_KEY: [u8; 20] = [0x5a; 20];
pub const AUTHENTIC_SPI: u32 = inbound_spi(AUTHENTIC);

pub const fn inbound_spi(sa: usize) -> u32 {
    0xaaaa_0000 + sa as u32
}

/// A host behind the peer that this SA leads to.
pub fn far_host(sa: usize) -> IpAddr {
    match shape(sa).inner {
        6 => Ipv6Addr::new(0xfd02, 0, 0, sa as u16, 0, 0, 0, 5).into(),
        _ => Ipv4Addr::new(10, 2, sa as u8, 5).into(),
    }
}

/// A host behind the gateway with this number.
pub fn host(gateway: u8, family: u8) -> IpAddr {
    match family {
        6 => Ipv6Addr::new(0xfd00 + u16::from(gateway), 0, 0, 0, 0, 0, 0, 5).into(),
        _ => Ipv4Addr::new(10, gateway, 0, 5).into(),
    }
}

/// The inside of the gateway with this number.
fn inside(gateway: u8, family: u8) -> IpAddr {
    match family {
        6 => Ipv6Addr::new(0xfd00 + u16::from(gateway), 0, 0, 0, 0, 0, 0, 1).into(),
        _ => Ipv4Addr::new(10, gateway, 0, 1).into(),
    }
}

/// The outside of the gateway with this number.
pub fn outside(gateway: u8, family: u8) -> IpAddr {
    match family {
        6 => Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, u16::from(gateway)).into(),
        _ => Ipv4Addr::new(192, 0, 2, gateway).into(),
    }
}

pub fn identity(sa: usize) -> SaId {
    sa_id(sa as u32 + 1)
}

pub fn mac(gateway: u8, port: usize) -> [u8; 6] {
    [2, 0, 0, 0, gateway, port as u8]
}

/// Ethernet addresses of the gateways: the number in the middle of their addresses.
pub const TARGET: u8 = 1;
pub const PEER: u8 = 2;

/// An SA pair as the gateway with this number holds it. `salt` makes other keys.
fn child(sa: usize, gateway: u8, salt: u8) -> Option<ChildSa> {
    let form = shape(sa);
    let key = |way: u8| {
        let seed = (8 * sa as u8 + way) ^ salt;
        match sa == AUTHENTIC && way == 1 {
            true => KeyMaterial::new(&AUTHENTIC_KEY),
            false => KeyMaterial::new(&vec![seed; form.suite.key_material_length()]),
        }
    };
    let prefix = |address, v4, v6| {
        let length = if form.inner == 6 { v6 } else { v4 };
        TrafficSelector::prefix(address, length)
    };
    let ours = prefix(host(TARGET, form.inner), 16, 64)?;
    let theirs = prefix(far_host(sa), 24, 64)?;
    let target = gateway == TARGET;
    let own = if target { TARGET } else { PEER };
    let (local, remote) = (outside(own, form.outer), outside(3 - own, form.outer));
    let (keys, spis) = (
        if target {
            (key(1), key(2))
        } else {
            (key(2), key(1))
        },
        (Spi(inbound_spi(sa)), Spi(0xbbbb_0000 + sa as u32)),
    );
    let (local_ts, remote_ts) = if target {
        (ours, theirs)
    } else {
        (theirs, ours)
    };
    Some(ChildSa {
        id: identity(sa),
        mode: Mode::Tunnel,
        inbound_spi: if target { spis.0 } else { spis.1 },
        outbound_spi: if target { spis.1 } else { spis.0 },
        suite: form.suite,
        esn: form.esn,
        inbound_key: keys.0,
        outbound_key: keys.1,
        local,
        remote,
        encapsulation: form.udp.then_some(UdpEncapsulation {
            local_port: 4500,
            remote_port: 4500,
        }),
        local_ts: vec![local_ts],
        remote_ts: vec![remote_ts],
        replay_window: form.window,
        options: SaOptions::default(),
    })
}

/// A gateway of one side with every SA. It knows its neighbours.
///
/// # Errors
/// If the worker refuses something.
pub fn gateway(number: u8, salt: u8, first: u64) -> Result<Rig, Refused> {
    let interface = |port, lengths: [u8; 2], protected| {
        let addresses = match protected {
            true => [inside(number, 4), inside(number, 6)],
            false => [outside(number, 4), outside(number, 6)],
        };
        Interface {
            mac: mac(number, port),
            addresses: addresses.into_iter().zip(lengths).collect(),
            mtu: 1500,
            protected,
        }
    };
    let interfaces = vec![
        interface(INSIDE, [16, 48], true),
        interface(OUTSIDE, [24, 64], false),
    ];
    let mut rig = Rig::new(interfaces, FRAMES, 0, Engine::default())?;
    let route = |address, length, port| Route {
        prefix: (address, length),
        port,
        next_hop: None,
    };
    rig.routes(&[
        route(inside(number, 4), 16, INSIDE),
        route(inside(number, 6), 48, INSIDE),
        route(outside(number, 4), 24, OUTSIDE),
        route(outside(number, 6), 64, OUTSIDE),
    ])?;
    let mut policies = Vec::new();
    for sa in 0..=AUTHENTIC {
        let Some(child) = child(sa, number, salt) else {
            return Err(Refused("a selector that is none".to_owned()));
        };
        rig.install(&child, first, 0)?;
        for (local, remote) in child.local_ts.iter().zip(&child.remote_ts) {
            policies.push(Policy {
                local: *local,
                remote: *remote,
                action: Action::Protect(Some(child.id)),
            });
        }
    }
    rig.policies(policies)?;
    introduce(&mut rig, number)?;
    Ok(rig)
}

/// Tells a gateway the Ethernet addresses of its neighbours, again from time to time: nobody answers
/// when it asks.
///
/// # Errors
/// As the worker says.
pub fn introduce(rig: &mut Rig, number: u8) -> Result<(), Refused> {
    let other = if number == TARGET { PEER } else { TARGET };
    for family in [4, 6] {
        rig.neighbour(INSIDE, host(number, family), [2, 0, 0, 0, 0, number])?;
        rig.neighbour(OUTSIDE, outside(other, family), mac(other, OUTSIDE))?;
    }
    Ok(())
}

//! The gateway under attack, the peer that knows its keys, and a stranger that does not.

use std::net::{IpAddr, Ipv4Addr};

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
pub const TARGET_OUTSIDE: [u8; 4] = [192, 0, 2, 1];
pub const PEER_OUTSIDE: [u8; 4] = [192, 0, 2, 2];
pub const HOST: [u8; 4] = [10, 1, 0, 5];
/// Ethernet addresses of gateways end in their side and port.
const FRAMES: u32 = 1024;

/// An SA's form. Its place in [`SHAPES`] is its number.
pub struct Shape {
    pub suite: EspSuite,
    pub esn: bool,
    pub window: u32,
    pub udp: bool,
}

const fn shape(suite: EspSuite, esn: bool, window: u32, udp: bool) -> Shape {
    Shape {
        suite,
        esn,
        window,
        udp,
    }
}

/// The SAs whose windows no packet of the run may move.
pub const SHAPES: &[Shape] = &[
    shape(EspSuite::Aes128Gcm16, true, 64, false),
    shape(EspSuite::Aes256Gcm16, false, 1024, false),
    shape(EspSuite::Aes128Gcm16, true, 65_536, true),
    shape(EspSuite::Aes256Gcm16, false, 64, true),
];

/// The SA for authentic packets whose content is damaged: AES-128-GCM with ESN.
pub const AUTHENTIC: usize = SHAPES.len();
pub const AUTHENTIC_KEY: [u8; 20] = [0x5a; 20];
pub const AUTHENTIC_SPI: u32 = inbound_spi(AUTHENTIC);

pub const fn inbound_spi(sa: usize) -> u32 {
    0xaaaa_0000 + sa as u32
}

/// A host behind the peer that this SA leads to.
pub fn far_host(sa: usize) -> [u8; 4] {
    [10, 2, sa as u8, 5]
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
    let usual = shape(EspSuite::Aes128Gcm16, true, 1024, false);
    let form = SHAPES.get(sa).unwrap_or(&usual);
    let key = |way: u8| {
        let seed = 16 * sa as u8 + way + salt;
        match sa == AUTHENTIC && way == 1 {
            true => KeyMaterial::new(&AUTHENTIC_KEY),
            false => KeyMaterial::new(&vec![seed; form.suite.key_material_length()]),
        }
    };
    let inner = |third: u8, second: u8, length| {
        TrafficSelector::prefix(Ipv4Addr::new(10, second, third, 0).into(), length)
    };
    let (ours, theirs) = (inner(0, 1, 16)?, inner(sa as u8, 2, 24)?);
    let target = gateway == TARGET;
    let pick = |ours, theirs| {
        if target {
            (ours, theirs)
        } else {
            (theirs, ours)
        }
    };
    let (local, remote) = pick(IpAddr::from(TARGET_OUTSIDE), IpAddr::from(PEER_OUTSIDE));
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
    let interface = |port, address: [u8; 4], length, protected| Interface {
        mac: mac(number, port),
        addresses: vec![(IpAddr::from(address), length)],
        mtu: 1500,
        protected,
    };
    let interfaces = vec![
        interface(INSIDE, [10, number, 0, 1], 16, true),
        interface(OUTSIDE, [192, 0, 2, number], 24, false),
    ];
    let mut rig = Rig::new(interfaces, FRAMES, Engine::default())?;
    let other = if number == TARGET { PEER } else { TARGET };
    let route = |address: [u8; 4], length, port| Route {
        prefix: (IpAddr::from(address), length),
        port,
        next_hop: None,
    };
    rig.routes(&[
        route([10, number, 0, 0], 16, INSIDE),
        route([192, 0, 2, 0], 24, OUTSIDE),
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
    let host = IpAddr::from([10, number, 0, 5]);
    rig.neighbour(INSIDE, host, [2, 0, 0, 0, 0, number])?;
    rig.neighbour(
        OUTSIDE,
        IpAddr::from([192, 0, 2, other]),
        mac(other, OUTSIDE),
    )?;
    Ok(rig)
}

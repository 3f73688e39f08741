//! Virtual addresses (RFC 7296 sections 2.19 and 3.15): given to peers from pools, and asked for.

mod leases;
mod told;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use leases::{Holder, Wish};

pub(super) use leases::Leases;
pub(super) use told::tell;

use super::contents::Contents;
use super::established::IkeSa;
use super::message::{
    Attribute, AttributeKind, Configuration, ConfigurationKind, NotifyKind, Payload,
};
use super::turn::{Effect, Turn};

/// The addresses that came of Configuration payloads on one IKE SA, and go on to its successors.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(super) struct Internal {
    /// What the peer got from us.
    pub given: Vec<IpAddr>,
    /// What we got from the peer.
    pub taken: Vec<IpAddr>,
    /// Name servers that the peer told us of.
    pub dns: Vec<IpAddr>,
}

/// Addresses that one request may ask for.
const REQUESTS: usize = 8;

/// As responder: what the request asks for. An error takes the place of the Child SA, the IKE SA
/// stays (RFC 7296 sections 2.19 and 3.15.4).
pub(super) fn answer(
    ike: &mut IkeSa,
    turn: &Turn<'_>,
    contents: &Contents<'_>,
) -> Result<Option<Payload>, NotifyKind> {
    let connection = ike.connection.clone();
    let pools = connection.roads.pools.as_slice();
    let request = contents
        .configuration
        .filter(|c| c.kind == ConfigurationKind::REQUEST);
    let request = match request {
        Some(request) if !pools.is_empty() => request,
        // A child that is for virtual addresses cannot be without.
        None if contents.proposals.is_some()
            && connection
                .children
                .iter()
                .all(|c| !c.dynamic.remote.is_empty())
            && !pools.is_empty() =>
        {
            return Err(NotifyKind::FAILED_CP_REQUIRED);
        }
        _ => return Ok(None),
    };
    let holder = Holder::of(ike);
    let alone = matches!(
        ike.connection.others(false, contents),
        Some(Effect::InitialContact)
    );
    let wanted = request.attributes.iter().filter_map(Attribute::as_address);
    // The order of the configuration says which is asked first.
    let mut dns: Vec<IpAddr> = Vec::new();
    for address in wanted.take(REQUESTS) {
        // One of each family: the next one asked for would be the same.
        let family = |given: &IpAddr| given.is_ipv4() == address.is_ipv4();
        if ike.addresses.given.iter().any(family) {
            continue;
        }
        let wish = Wish {
            pools,
            holder: &holder,
            address,
            alone,
        };
        if let Some((given, servers)) = turn.ids.leases.find(&wish) {
            ike.addresses.given.push(given);
            for server in servers {
                if !dns.contains(server) {
                    dns.push(*server);
                }
            }
        }
    }
    // RFC 7296 section 3.15.4: only if there is none at all.
    if ike.addresses.given.is_empty() {
        return Err(NotifyKind::INTERNAL_ADDRESS_FAILURE);
    }
    let addresses = ike.addresses.given.iter().copied().map(Attribute::address);
    // Servers of a family that was not asked for are of no use.
    let usable = |server: &IpAddr| {
        let mut given = ike.addresses.given.iter();
        given.any(|a| a.is_ipv4() == server.is_ipv4())
    };
    let servers = dns.into_iter().filter(usable).map(Attribute::dns);
    Ok(Some(Payload::Configuration(Configuration {
        kind: ConfigurationKind::REPLY,
        attributes: addresses.chain(servers).collect(),
    })))
}

/// As initiator: what we want, if anything.
pub(super) fn request(vips: &[IpAddr]) -> Option<Payload> {
    let mut attributes: Vec<Attribute> = vips
        .iter()
        .map(|vip| match vip {
            IpAddr::V4(Ipv4Addr::UNSPECIFIED) => {
                Attribute::empty(AttributeKind::INTERNAL_IP4_ADDRESS)
            }
            IpAddr::V6(Ipv6Addr::UNSPECIFIED) => {
                Attribute::empty(AttributeKind::INTERNAL_IP6_ADDRESS)
            }
            vip => Attribute::address(*vip),
        })
        .collect();
    let families = [
        (true, AttributeKind::INTERNAL_IP4_DNS),
        (false, AttributeKind::INTERNAL_IP6_DNS),
    ];
    for (v4, kind) in families {
        if vips.iter().any(|vip| vip.is_ipv4() == v4) {
            attributes.push(Attribute::empty(kind));
        }
    }
    (!vips.is_empty()).then_some(Payload::Configuration(Configuration {
        kind: ConfigurationKind::REQUEST,
        attributes,
    }))
}

/// As initiator: takes what the responder gives.
pub(super) fn accept(ike: &mut IkeSa, contents: &Contents<'_>) {
    let vips = &ike.connection.roads.vips;
    let reply = contents
        .configuration
        .filter(|c| c.kind == ConfigurationKind::REPLY);
    let Some(reply) = reply else { return };
    let attributes = || reply.attributes.iter().take(4 * REQUESTS);
    let asked = |address: &IpAddr| {
        let family = vips.iter().any(|vip| vip.is_ipv4() == address.is_ipv4());
        family && !address.is_unspecified() && !address.is_multicast() && !address.is_loopback()
    };
    ike.addresses.taken = attributes()
        .filter_map(Attribute::as_address)
        .filter(asked)
        .take(vips.len())
        .collect();
    ike.addresses.dns = attributes().filter_map(Attribute::as_dns).collect();
}

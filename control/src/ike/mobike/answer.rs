//! What the peer says about addresses (RFC 4555 sections 3.5 to 3.9).

use hitless_sa::MessageId;

use super::ask::ask_there;
use super::{Errand, is_host, is_newest, relocate};
use crate::ike::contents::Contents;
use crate::ike::established::IkeSa;
use crate::ike::message::{NotifyKind, Payload};
use crate::ike::nat::{self, Path};
use crate::ike::tasks::Task;
use crate::ike::turn::Turn;

/// Answers what an INFORMATIONAL request from `path` says. One that another has overtaken gets "a normal
/// response message", and "no other action is taken" (section 3.5).
pub(in crate::ike) fn answer(
    ike: &mut IkeSa,
    turn: &mut Turn<'_>,
    (id, path): (MessageId, Path),
    contents: &Contents<'_>,
) -> Vec<Payload> {
    let mut payloads = Vec::new();
    let mut updates = contents.has(NotifyKind::UPDATE_SA_ADDRESSES);
    if let Some(mobike) = &mut ike.mobike {
        mobike.hear_of_others(id, path, contents);
        updates = updates && is_newest(&mut mobike.newest.update, id);
    }
    let refusal = match updates {
        true => update(ike, turn, path, contents),
        false => None,
    };
    payloads.extend(refusal.map(|kind| Payload::notify(kind, &[])));
    // Section 3.5 of an update, and section 3.8 of a mere question.
    if contents.has(NotifyKind::NAT_DETECTION_SOURCE_IP) && ike.mobike.is_some() {
        let (initiator, responder) = ike.spis();
        let fake = turn.fake_source(ike.nat.forced);
        payloads.extend(nat::notifications(initiator, responder, path, fake));
    }
    // Section 3.7: copied, whatever else there is.
    if let Some(cookie) = contents.notify(NotifyKind::COOKIE2)
        && (8..=64).contains(&cookie.data.len())
    {
        payloads.push(Payload::notify(NotifyKind::COOKIE2, &cookie.data));
    }
    payloads
}

/// The peer is somewhere else; gives the reason if it may not be.
fn update(
    ike: &mut IkeSa,
    turn: &mut Turn<'_>,
    path: Path,
    contents: &Contents<'_>,
) -> Option<NotifyKind> {
    let mobike = ike.mobike.as_ref()?;
    // Section 3.5: the initiator decides, unless both take it from the responder too.
    if ike.began() && !mobike.both_ways {
        return Some(NotifyKind::UNACCEPTABLE_ADDRESSES);
    }
    // Section 3.9: the addresses that were sent are those that arrived.
    if let Some(sent) = contents.notify(NotifyKind::NO_NATS_ALLOWED)
        && sent.data != addresses_of(path)
    {
        return Some(NotifyKind::UNEXPECTED_NAT_DETECTED);
    }
    let ours = ike.connection.local_addrs.contains(&path.local.ip());
    if !ours || !is_host(path.remote.ip()) {
        return Some(NotifyKind::UNACCEPTABLE_ADDRESSES);
    }
    let (initiator, responder) = ike.spis();
    let notifies = contents.notifies.iter().copied();
    let mut found = nat::detect(initiator, responder, path, notifies);
    found.forced = ike.nat.forced;
    if ike.began() {
        // Draft-vidya section 6: provisional until the new address has answered.
        let provisional = (path != ike.path).then_some((path, found));
        if let Some(mobike) = &mut ike.mobike {
            mobike.provisional = provisional;
        }
        if provisional.is_some() {
            ask_there(ike, turn, path);
            ike.schedule(turn.now, Task::Mobike(Errand::Routability));
        }
        turn.dirty = true;
        return None;
    }
    // Of a peer behind a NAT the ESP may have been followed already.
    let elsewhere = path.remote.ip() != ike.path.remote.ip() || ike.nat.remote;
    relocate(ike, turn, path, found);
    if elsewhere {
        ike.schedule(turn.now, Task::Mobike(Errand::Routability));
    }
    None
}

/// An authentic message of a peer behind a NAT came from elsewhere (RFC 7296 section 2.23): with MOBIKE
/// it was ESP. Whether the peer is there is asked, if it knows how to answer.
pub(in crate::ike) fn followed(ike: &mut IkeSa, turn: &mut Turn<'_>, path: Path) {
    let elsewhere = path.remote.ip() != ike.path.remote.ip();
    relocate(ike, turn, path, ike.nat);
    if elsewhere && ike.mobike.is_some() {
        ike.schedule(turn.now, Task::Mobike(Errand::Routability));
    }
}

/// Addresses and ports of a message that we received, as NO_NATS_ALLOWED has them (section 4.2.5).
fn addresses_of(path: Path) -> Vec<u8> {
    let octets = |address: std::net::IpAddr| match address {
        std::net::IpAddr::V4(a) => a.octets().to_vec(),
        std::net::IpAddr::V6(a) => a.octets().to_vec(),
    };
    let (source, destination) = (path.remote, path.local);
    let mut data = octets(source.ip());
    data.extend(octets(destination.ip()));
    data.extend(source.port().to_be_bytes());
    data.extend(destination.port().to_be_bytes());
    data
}

/// An authenticated response came from another of the peer's addresses, where a repetition of our
/// request had gone (section 3.10): the initiator goes on there and says so.
pub(in crate::ike) fn heard_from(ike: &mut IkeSa, turn: &mut Turn<'_>, path: Path) {
    let began = ike.began();
    let Some(mobike) = &mut ike.mobike else {
        return;
    };
    let (old, new) = (ike.path.remote.ip(), path.remote.ip());
    if !began || mobike.provisional.is_some() || !mobike.others.contains(&new) {
        return;
    }
    mobike.others.retain(|other| *other != new);
    mobike.others.push(old);
    let nat = ike.nat;
    relocate(ike, turn, path, nat);
    ike.schedule(turn.now, Task::Mobike(Errand::Update));
    ike.schedule(turn.now, Task::Mobike(Errand::Routability));
}

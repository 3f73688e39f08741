//! What we say about addresses, and what the peer answers (RFC 4555 sections 3.5 to 3.7).

use std::net::{IpAddr, SocketAddr};

use hitless_sa::MessageId;

use super::{Asked, Errand, additional, at, mapping, others, relocate};
use crate::ike::contents::Contents;
use crate::ike::established::IkeSa;
use crate::ike::message::{Exchange, NotifyKind, Payload};
use crate::ike::nat::{self, Path};
use crate::ike::output::Event;
use crate::ike::settings::Connection;
use crate::ike::tasks::{Pending, Task};
use crate::ike::turn::Turn;

/// Octets of COOKIE2; section 4.2.4 wants 8 to 64.
const COOKIE: usize = 16;

/// This end has another address now. IKE and ESP move at once, and what is outstanding is repeated
/// from there (section 3.5).
pub(in crate::ike) fn move_to(ike: &mut IkeSa, turn: &mut Turn<'_>, local: IpAddr) {
    let Some(remote) = reachable(ike, local) else {
        return turn.events.push(Event::NegotiationFailed {
            peer: ike.path.remote,
            reason: format!("no address of the peer is of the family of {local}"),
        });
    };
    let path = match ike.mobike {
        Some(_) => Path {
            local: at(local, ike.path.local),
            remote: at(remote, ike.path.remote),
        },
        // Nobody was told of another port.
        None => Path {
            local: SocketAddr::new(local, ike.path.local.port()),
            remote: SocketAddr::new(remote, ike.path.remote.port()),
        },
    };
    if path == ike.path {
        return;
    }
    let nat = ike.nat;
    relocate(ike, turn, path, nat);
    let decides = decides(ike);
    let Some(mobike) = &mut ike.mobike else {
        return;
    };
    mobike.provisional = None;
    let elsewhere = remote != ike.proven;
    let errand = match decides {
        true => Errand::Update,
        // Section 3.6: all that a responder may do is to name its addresses.
        false => Errand::Announce,
    };
    ike.schedule(turn.now, Task::Mobike(errand));
    if elsewhere {
        ike.schedule(turn.now, Task::Mobike(Errand::Routability));
    }
}

/// Whether the peer goes where we say that we are (section 3.5).
fn decides(ike: &IkeSa) -> bool {
    let mobike = ike.mobike.as_ref();
    mobike.is_some_and(|mobike| ike.began() || mobike.both_ways)
}

/// Another member led it, perhaps at an address that this one does not have
/// (draft-vidya-ipsec-failover-redundancy section 4.2).
pub(in crate::ike) fn took_over(ike: &mut IkeSa, turn: &mut Turn<'_>) {
    let ours = &ike.connection.local_addrs;
    let (local, remote) = (ike.path.local.ip(), ike.path.remote.ip());
    if ours.contains(&local) {
        return;
    }
    let alike = ours.iter().find(|a| a.is_ipv4() == remote.is_ipv4());
    if let Some(address) = alike.or(ours.first()).copied() {
        move_to(ike, turn, address);
    }
}

/// Not all is known that was said before the takeover: a third member may have moved it, or that
/// which led it before us when it led earlier. The peer is told again, after it was asked where it
/// stands; alone this is no reason to ask.
pub(in crate::ike) fn tell_again(ike: &mut IkeSa, turn: &Turn<'_>) {
    if decides(ike) {
        ike.schedule(turn.now, Task::Mobike(Errand::Update));
    }
}

/// Whether it can go on with the addresses that a connection has now: it is at one of them, or may
/// move to one (section 3.5; a responder that its peer does not follow may not).
pub(in crate::ike) fn stays(ike: &IkeSa, connection: &Connection) -> bool {
    let ours = &connection.local_addrs;
    ours.contains(&ike.path.local.ip())
        || decides(ike) && ours.iter().any(|local| reachable(ike, *local).is_some())
}

/// The operator gave the connection other addresses: it moves if it has to, and the peer hears of
/// what there is besides (section 3.6).
pub(in crate::ike) fn readdressed(ike: &mut IkeSa, turn: &mut Turn<'_>) {
    turn.dirty = true;
    if !ike.connection.local_addrs.contains(&ike.path.local.ip()) {
        took_over(ike, turn);
    } else if ike.mobike.is_some() {
        ike.schedule(turn.now, Task::Mobike(Errand::Announce));
    }
}

/// The peer's address to go on with from one of ours.
fn reachable(ike: &IkeSa, local: IpAddr) -> Option<IpAddr> {
    let known = ike.mobike.iter().flat_map(|mobike| &mobike.others);
    let configured = ike.connection.remote_addrs.iter();
    let mut all = std::iter::once(ike.path.remote.ip()).chain(known.chain(configured).copied());
    all.find(|remote| remote.is_ipv4() == local.is_ipv4())
}

/// Sends what is to be asked.
pub(in crate::ike) fn perform(ike: &mut IkeSa, turn: &mut Turn<'_>, errand: Errand) {
    let Some(mobike) = &ike.mobike else { return };
    let mut payloads = Vec::new();
    let asked = match errand {
        Errand::Update => {
            let (initiator, responder) = ike.spis();
            let fake = turn.fake_source(ike.nat.forced);
            payloads.push(Payload::notify(NotifyKind::UPDATE_SA_ADDRESSES, &[]));
            payloads.extend(nat::notifications(initiator, responder, ike.path, fake));
            payloads.extend(additional(&others(&ike.connection, ike.path)));
            Asked::Update(ike.path)
        }
        Errand::Announce => {
            // The address in use may be news as well.
            let mut all = vec![ike.path.local.ip()];
            all.extend(others(&ike.connection, ike.path));
            payloads.extend(additional(&all));
            Asked::Announce
        }
        Errand::Routability => {
            let mut cookie = vec![0; COOKIE];
            turn.entropy.fill(&mut cookie);
            payloads.push(Payload::notify(NotifyKind::COOKIE2, &cookie));
            let path = mobike.provisional.map_or(ike.path, |(path, _)| path);
            Asked::Routability {
                cookie,
                path,
                copied: false,
            }
        }
    };
    let path = match &asked {
        Asked::Routability { path, .. } => *path,
        _ => ike.path,
    };
    let ours = std::mem::replace(&mut ike.path, path);
    let pending = Pending::Mobike(asked);
    ike.request(turn, Exchange::Informational, &payloads, pending);
    ike.path = ours;
}

/// The peer answered, from `path`.
pub(in crate::ike) fn complete(
    ike: &mut IkeSa,
    turn: &mut Turn<'_>,
    asked: Asked,
    path: Path,
    contents: &Contents<'_>,
) {
    match asked {
        Asked::Announce => {}
        // Moved again meanwhile: what is said of the other address is past (section 3.5).
        Asked::Update(of) if of != ike.path => {}
        Asked::Update(_) => {
            if let Some(error) = contents.error() {
                return turn.events.push(Event::NegotiationFailed {
                    peer: path.remote,
                    reason: format!("update of addresses: {}", error.kind),
                });
            }
            let (initiator, responder) = ike.spis();
            let notifies = contents.notifies.iter().copied();
            let mut found = nat::detect(initiator, responder, ike.path, notifies);
            found.forced = ike.nat.forced;
            if contents.has(NotifyKind::NAT_DETECTION_SOURCE_IP) {
                relocate(ike, turn, ike.path, found);
                mapping::note(ike, contents);
            }
        }
        Asked::Routability {
            cookie,
            path: to,
            copied,
        } => {
            let same = |n: &crate::ike::message::Notify| n.data == cookie;
            if !contents.notify(NotifyKind::COOKIE2).is_some_and(same) {
                // Section 3.7: whoever answers is not who was asked.
                turn.drop(path.remote, "COOKIE2 does not match");
                return ike.schedule(turn.now, Task::DeleteIke);
            }
            if copied && path.remote.ip() == to.remote.ip() {
                // Whoever is elsewhere may have read it there, and any source can be written.
                return ike.schedule(turn.now, Task::Mobike(Errand::Routability));
            }
            let provisional = ike.mobike.as_mut().and_then(|m| {
                let asked = m.provisional.filter(|(path, _)| *path == to);
                asked.inspect(|_| m.provisional = None)
            });
            // Answered from where it was before, it has proved nothing.
            if let Some((new, nat)) = provisional
                && path.remote == new.remote
            {
                relocate(ike, turn, new, nat);
            }
            if !copied && to.remote.ip() == ike.path.remote.ip() {
                ike.proven = to.remote.ip();
                turn.dirty = true;
            }
        }
    }
}

/// The responder says that it is at `path`. What is outstanding was asked where it may be no more, and
/// may leave no place in the window for the question whether it is there: it is asked there as well.
pub(super) fn ask_there(ike: &IkeSa, turn: &mut Turn<'_>, path: Path) {
    let asked = ike.window.outstanding.values().filter(|o| o.sent > 0);
    let again = asked.map(|outstanding| path.transmit(outstanding.bytes.clone()));
    turn.immediate.extend(again);
}

/// Where the next repetition of an outstanding request goes. While there is a provisional address it
/// goes there and to the known one in turn, so that a false one costs nothing; and when half of the
/// attempts were in vain, to the peer's other addresses too (section 3.10).
pub(in crate::ike) fn resend_path(
    ike: &mut IkeSa,
    turn: &mut Turn<'_>,
    id: MessageId,
    tries: u32,
) -> Path {
    let sent = ike.window.outstanding.get(&id).map_or(0, |o| o.sent);
    let known = ike.path;
    if let Some(Pending::Mobike(Asked::Routability { path, copied, .. })) = ike.pending.get_mut(&id)
    {
        if sent.is_multiple_of(2) {
            return *path;
        }
        if !*copied && known.remote.ip() != path.remote.ip() {
            *copied = true;
            turn.dirty = true;
        }
        return known;
    }
    let provisional = ike.mobike.as_ref().and_then(|mobike| mobike.provisional);
    if let Some((path, _)) = provisional.filter(|_| sent.is_multiple_of(2)) {
        return path;
    }
    let Some(mobike) = ike
        .mobike
        .as_ref()
        .filter(|_| ike.began() && sent > tries / 2)
    else {
        return ike.path;
    };
    let family = |a: &&IpAddr| a.is_ipv4() == ike.path.local.is_ipv4();
    let mut others: Vec<IpAddr> = mobike.others.iter().filter(family).copied().collect();
    others.insert(0, ike.path.remote.ip());
    let turn = (sent - tries / 2) as usize % others.len();
    let remote = others.get(turn).copied().unwrap_or(ike.path.remote.ip());
    Path {
        remote: at(remote, ike.path.remote),
        ..ike.path
    }
}

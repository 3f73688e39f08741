//! A gateway that sends its client to another one (RFC 5685), in either role.
//!
//! As gateway: `redirect_to` of a connection answers IKE_SA_INIT with REDIRECT where every connection
//! that the client may mean has the same, else IKE_AUTH, once it is known which is meant; and
//! [`Task::Redirect`] asks a client that is here already. As client: REDIRECT in the answer to
//! IKE_SA_INIT (with our nonce), to IKE_AUTH, and in INFORMATIONAL. The new gateway has to prove the
//! identity that the connection names, as the old one had to: that is what the PAD allows (section
//! 8). A gateway that is named by a domain name is not followed: there is no resolver in here.
//!
//! What the RFC's security considerations ask for (section 10):
//!
//! * A forged REDIRECT in the answer to IKE_SA_INIT lacks our nonce, unless its maker is on the path
//!   and could drop everything anyway; and the gateway that it names has to authenticate.
//! * A gateway that sends its clients to a victim: five in five minutes for a connection, each with
//!   IKE_SA_INIT, which the victim answers with a cookie when it is busy.
//! * Loops: the same bound, and a gateway does not send a client back to where it came from.
//! * A gateway that does not answer, or refuses: the client stays until it is deleted, and begins again
//!   with the gateway of its configuration. So it does when its configuration is read anew.
//! * A client that was told to go and stays is closed after a while; what it said of itself fails
//!   over with the IKE SA.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use hitless_sa::{Entropy, IkeSpi, Instant};

use super::contents::Contents;
use super::engine::Engine;
use super::established::{DELETE_GRACE, IkeSa, State};
use super::initial::Initiator;
use super::message::{Exchange, NotifyKind, Payload};
use super::output::Event;
use super::settings::Connection;
use super::tasks::{Pending, Task};
use super::turn::{Effect, Turn};

/// RFC 5685 section 7, MAX_REDIRECTS and REDIRECT_LOOP_DETECT_PERIOD: "the default value is 5", "the
/// default is 300 seconds".
const MOST: usize = 5;
const PERIOD: Duration = Duration::from_secs(300);

const IPV4: u8 = 1;
const IPV6: u8 = 2;
const FQDN: u8 = 3;

/// When each connection was redirected of late. Not replicated: after a takeover the count begins
/// anew.
#[derive(Default)]
pub(super) struct Redirects(BTreeMap<String, Vec<Instant>>);

impl Redirects {
    /// Whether a connection may follow once more (RFC 5685 section 7).
    fn allow(&mut self, now: Instant, connection: &str) -> bool {
        let followed = self.0.entry(connection.to_owned()).or_default();
        followed.retain(|at| now.since(*at) < PERIOD);
        let allowed = followed.len() < MOST;
        if allowed {
            followed.push(now);
        }
        allowed
    }
}

/// The identity of a gateway (RFC 5685 section 4): REDIRECT and REDIRECTED_FROM begin with it.
fn identity(gateway: IpAddr) -> Vec<u8> {
    match gateway {
        IpAddr::V4(four) => [&[IPV4, 4][..], &four.octets()].concat(),
        IpAddr::V6(six) => [&[IPV6, 16][..], &six.octets()].concat(),
    }
}

/// The identity in a notification, and what follows it.
fn parse(data: &[u8]) -> Result<(IpAddr, &[u8]), &'static str> {
    let short = "REDIRECT is too short";
    let (&[kind, length], rest) = data.split_first_chunk().ok_or(short)?;
    let (identity, rest) = rest.split_at_checked(length.into()).ok_or(short)?;
    let four = identity.try_into().map(|octets: [u8; 4]| octets.into());
    let six = identity.try_into().map(|octets: [u8; 16]| octets.into());
    match (kind, four, six) {
        (IPV4, Ok(address), _) | (IPV6, _, Ok(address)) => Ok((address, rest)),
        (FQDN, ..) => Err("REDIRECT to a name: only addresses are followed"),
        _ => Err("REDIRECT to an unknown kind of gateway"),
    }
}

/// What an initiator says in IKE_SA_INIT (RFC 5685 section 3): that it can be redirected, or by whom
/// it was.
pub(super) fn announcement(connection: &Connection, from: Option<IpAddr>) -> Option<Payload> {
    let follows = !connection.roads.ignores_redirects;
    follows.then(|| match from {
        Some(from) => Payload::notify(NotifyKind::REDIRECTED_FROM, &identity(from)),
        None => Payload::notify(NotifyKind::REDIRECT_SUPPORTED, &[]),
    })
}

/// What a client said in IKE_SA_INIT: nothing, that it can be redirected, or by whom it was.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Redirectable {
    No,
    Yes,
    From(IpAddr),
}

impl Redirectable {
    pub fn of(contents: &Contents<'_>) -> Redirectable {
        let from = contents.notify(NotifyKind::REDIRECTED_FROM);
        match from.and_then(|from| parse(&from.data).ok()) {
            Some((from, _)) => Redirectable::From(from),
            None if contents.has(NotifyKind::REDIRECT_SUPPORTED) => Redirectable::Yes,
            None => Redirectable::No,
        }
    }

    pub fn is_able(self) -> bool {
        self != Redirectable::No
    }

    /// Not to the gateway that it has just come from.
    pub fn can_go(self, to: IpAddr) -> bool {
        self.is_able() && self != Redirectable::From(to)
    }
}

/// REDIRECT; in the answer to IKE_SA_INIT with the client's nonce, else without any.
pub(super) fn order(to: IpAddr, nonce: &[u8]) -> Payload {
    let data = [identity(to), nonce.to_vec()].concat();
    Payload::notify(NotifyKind::REDIRECT, &data)
}

/// Where all of these connections redirect a client to that can be, if they agree.
pub(super) fn in_common<'c>(
    mut connections: impl Iterator<Item = &'c Connection>,
    contents: &Contents<'_>,
) -> Option<IpAddr> {
    let to = connections.next()?.roads.redirect_to?;
    let agreed = connections.all(|c| c.roads.redirect_to == Some(to));
    (agreed && Redirectable::of(contents).can_go(to)).then_some(to)
}

/// Where a gateway sends us, if we go there. `nonce` is ours where it must be repeated, else empty.
pub(super) fn followed(
    turn: &mut Turn<'_>,
    connection: &Connection,
    remote: std::net::SocketAddr,
    contents: &Contents<'_>,
    nonce: &[u8],
) -> Option<IpAddr> {
    let notify = contents.notify(NotifyKind::REDIRECT)?;
    let to = match parse(&notify.data) {
        _ if connection.roads.ignores_redirects => Err("redirected, and not asked to be"),
        // Section 3: "the client MUST verify": else anybody off the path could forge it.
        Ok((_, data)) if data != nonce => Err("REDIRECT with another nonce"),
        Ok((to, _)) if to.is_ipv4() != remote.is_ipv4() => {
            Err("REDIRECT to an address of the other family")
        }
        Ok((to, _)) if to == remote.ip() => Err("REDIRECT to the gateway that sent it"),
        Ok((to, _)) if !turn.ids.redirects.allow(turn.now, &connection.name) => {
            turn.events.push(Event::NegotiationFailed {
                peer: remote,
                reason: format!("redirected more than {MOST} times, now to {to}"),
            });
            return None;
        }
        Ok((to, _)) => Ok(to),
        Err(reason) => Err(reason),
    };
    to.map_err(|reason| turn.drop(remote, reason)).ok()
}

impl IkeSa {
    /// Leaves for another gateway. Child SAs stay until they are up there.
    pub fn move_on(&mut self, turn: &mut Turn<'_>, to: IpAddr) {
        self.redirected_to = Some(to);
        turn.dirty = true;
        turn.effects.push(Effect::Redirected(to, self.names()));
    }

    /// It does not leave after all.
    pub fn forget_redirect(&mut self) {
        self.ordered |= self.redirected_to.take().is_some();
    }

    /// INFORMATIONAL from the gateway (RFC 5685 section 5).
    pub fn take_redirect(&mut self, turn: &mut Turn<'_>, contents: &Contents<'_>) {
        let connection = self.connection.clone();
        // Only the client goes (RFC 5685 section 3), and whoever was it stays it, whichever side rekeyed
        // the IKE SA since.
        if !self.authenticated.asked || self.redirected_to.is_some() {
            return;
        }
        let remote = self.path.remote;
        if let Some(to) = followed(turn, &connection, remote, contents, &[]) {
            self.move_on(turn, to);
        }
    }
}

/// Asks a client to go (RFC 5685 section 5): it SHOULD delete the IKE SA itself, and we do after a
/// while.
pub(super) fn request(ike: &mut IkeSa, turn: &mut Turn<'_>, to: IpAddr) {
    if !ike.redirectable {
        return turn.events.push(Event::NegotiationFailed {
            peer: ike.path.remote,
            reason: "the peer cannot be redirected".to_owned(),
        });
    }
    ike.request(
        turn,
        Exchange::Informational,
        &[order(to, &[])],
        Pending::Duty(Task::Redirect(to)),
    );
    ike.schedule(turn.now + DELETE_GRACE, Task::DeleteIke);
}

impl Engine {
    /// Whether the peer of an IKE SA that this member leads can be asked to go.
    pub fn can_be_redirected(&self, ike: IkeSpi) -> bool {
        let ike = self.sas.get(&ike);
        ike.is_some_and(|ike| ike.redirectable && ike.state == State::Established)
    }

    /// The other gateway does not have us: what still stands with the first one does, and may be sent
    /// elsewhere; what ends there begins again where the connection says.
    pub(super) fn redirect_failed(&mut self, initiator: &Initiator) {
        let old = initiator.replaces.and_then(|old| self.sas.get_mut(&old));
        if let Some(old) = old {
            old.forget_redirect();
        }
    }

    /// Starts the IKE SA with the gateway that this one sends us to.
    pub(super) fn redirected(
        &mut self,
        now: Instant,
        entropy: &mut dyn Entropy,
        old: &IkeSa,
        to: IpAddr,
        children: Vec<String>,
    ) {
        let mut turn = Turn::new(now, entropy, &self.settings, &mut self.ids);
        let mut children = children.into_iter();
        let first = children.next();
        let way = Some((to, old.path.remote.ip()));
        let started = Initiator::begin(&mut turn, old.connection.clone(), first, false, None, way);
        let results = turn.finish();
        self.emit(results.immediate, results.events);
        if let Some(mut initiator) = started {
            initiator.children.extend(children);
            initiator.replaces = Some(old.local_spi);
            initiator.keep_addresses(old);
            self.timers.set(initiator.spi, Some(initiator.deadline()));
            self.initiators.insert(initiator);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc5685_section_4_identities_are_read_as_they_are_written() {
        for text in ["192.0.2.7", "2001:db8::7"] {
            let gateway: IpAddr = text.parse().unwrap();
            let data = [identity(gateway), vec![9; 20]].concat();
            assert_eq!(parse(&data), Ok((gateway, &[9; 20][..])));
            for length in 0..identity(gateway).len() {
                assert!(parse(&data[..length]).is_err());
            }
        }
        assert!(parse(b"\x03\x04name").is_err());
        assert!(parse(&[IPV4, 5, 1, 2, 3, 4, 5]).is_err());
        assert!(parse(&[IPV6, 4, 1, 2, 3, 4]).is_err());
    }

    #[test]
    fn rfc5685_section_7_five_redirects_in_five_minutes() {
        let mut redirects = Redirects::default();
        let start = Instant(1_000_000_000_000);
        let followed = (0..8).filter(|_| redirects.allow(start, "a")).count();
        assert_eq!(followed, MOST);
        assert!(redirects.allow(start, "b"));
        assert!(redirects.allow(start + PERIOD, "a"));
    }
}

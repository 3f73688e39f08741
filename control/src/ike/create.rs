//! CREATE_CHILD_SA for Child SAs: new ones and rekeying (RFC 7296 sections 1.3.1 and 1.3.3), with
//! the collisions of sections 2.8.1 and 2.25.1.

use std::time::Duration;

use hitless_sa::{KeyMaterial, Mode, SaId, Spi};
use zeroize::Zeroizing;

use super::child::{self, ChildState, Closing, Making, Terms};
use super::contents::{Contents, wanted_group};
use super::crypto::kex::{self, KexError, KeyPair};
use super::ends::Ends;
use super::established::{DELETE_GRACE, IkeSa, State};
use super::followup::{self, Followup, HalfMade, Progress, What};
use super::inform;
use super::message::{Exchange, Notify, NotifyKind, Payload};
use super::output::Event;
use super::proposal::{Ask, KeyExchangeMethod};
use super::resource;
use super::room;
use super::tasks::{Pending, Task};
use super::turn::{Effect, Turn};

/// Retries with another group before the exchange counts as failed.
const GROUP_RETRIES: u8 = 2;

/// Our outstanding offer of a Child SA, with the secrets that its answer needs.
pub(super) struct ChildOffer {
    pub child: String,
    pub id: SaId,
    pub spi: Spi,
    pub nonce: Vec<u8>,
    pub key: Option<KeyPair>,
    pub replaces: Option<SaId>,
    /// The peer replaced the same Child SA meanwhile.
    pub collision: Option<Collision>,
    pub retries: u8,
    /// What it replaces was closed meanwhile, and is gone.
    pub closing: Option<Closing>,
    /// It was answered, and additional key exchanges follow.
    pub followup: Option<Followup>,
}

/// What the peer's exchange made while ours was outstanding.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Collision {
    pub sa: SaId,
    /// The lower of that exchange's nonces.
    pub lowest: Vec<u8>,
}

/// Asks for a Child SA; with `replaces`, for a successor of that one.
pub(super) fn request(
    ike: &mut IkeSa,
    turn: &mut Turn<'_>,
    name: &str,
    replaces: Option<SaId>,
    retry: Option<(KeyExchangeMethod, u8)>,
) {
    let connection = ike.connection.clone();
    let Some(config) = connection.children.iter().find(|c| c.name == name) else {
        return failed(ike, turn, format!("no child `{name}` in the configuration"));
    };
    let (group, retries) = match retry {
        Some((group, retries)) => (Some(group), retries),
        None => (config.esp_proposals.iter().find_map(|p| p.key_exchange), 0),
    };
    let key = group.and_then(|group| turn.key_pair(group));
    let Some(spi) = turn.ids.spi(turn.entropy) else {
        let again = replaces.map_or(Task::CreateChild(name.to_owned()), Task::RekeyChild);
        let at = turn.now + turn.long_pause();
        return ike.schedule(at, again);
    };
    let offer = ChildOffer {
        child: name.to_owned(),
        id: turn.ids.sa(),
        spi,
        nonce: turn.nonce(),
        key,
        replaces,
        collision: None,
        retries,
        closing: None,
        followup: None,
    };
    let mut payloads = Vec::new();
    if let Some(old) = replaces.and_then(|id| ike.child(id)) {
        let rekey = Notify::about_esp(NotifyKind::REKEY_SA, old.sa.inbound_spi);
        payloads.push(Payload::Notify(rekey));
    }
    let offered = Ends::of(ike).resolve(config);
    payloads.extend(child::offer(&offered, offer.spi, Ask::Create));
    payloads.push(Payload::Nonce(offer.nonce.clone()));
    payloads.extend(offer.key.as_ref().map(key_exchange));
    ike.request(
        turn,
        Exchange::CreateChildSa,
        &payloads,
        Pending::CreateChild(offer),
    );
}

/// The KE payload of our half of the key exchange.
pub(super) fn key_exchange(key: &KeyPair) -> Payload {
    Payload::KeyExchange {
        method: key.method().number(),
        data: key.public(),
    }
}

/// Asks for the successor of a Child SA, if that is still wanted.
pub(super) fn rekey(ike: &mut IkeSa, turn: &mut Turn<'_>, id: SaId) {
    let Some(old) = ike.child_mut(id) else {
        return;
    };
    if !matches!(old.state, ChildState::Installed | ChildState::Rekeying) {
        return;
    }
    if !old.sending {
        // The initiator of the exchange that made it may not have it yet.
        let at = turn.now + turn.pause();
        return ike.schedule(at, Task::RekeyChild(id));
    }
    old.state = ChildState::Rekeying;
    old.rekey_at = None;
    let name = old.name.clone();
    request(ike, turn, &name, Some(id), None);
}

/// Answers the peer's request for a Child SA.
pub(super) fn answer(
    ike: &mut IkeSa,
    turn: &mut Turn<'_>,
    contents: &Contents<'_>,
) -> Vec<Payload> {
    // RFC 7296 section 2.25.2: not while the IKE SA is being rekeyed or closed.
    if ike.state != State::Established || ike.is_rekeying() {
        return vec![Payload::notify(NotifyKind::TEMPORARY_FAILURE, &[])];
    }
    let replaced = match contents.rekeyed_child() {
        // RFC 7296 section 1.3.3: REKEY_SA names the SA by its protocol and SPI. One that names none of
        // ours is well formed all the same, and INVALID_SYNTAX would end the IKE SA (section 2.21.3).
        None if contents.has(NotifyKind::REKEY_SA) => {
            return vec![Payload::notify(NotifyKind::CHILD_SA_NOT_FOUND, &[])];
        }
        None => None,
        Some(spi) => match replaced_child(ike, spi) {
            Ok(id) => Some(id),
            Err(refusal) => return vec![refusal],
        },
    };
    match agree(ike, turn, contents, replaced) {
        Ok(payloads) => payloads,
        Err(refusal) => {
            turn.events.push(Event::NegotiationFailed {
                peer: ike.path.remote,
                reason: "CREATE_CHILD_SA request refused".to_owned(),
            });
            vec![refusal]
        }
    }
}

/// The Child SA that the peer wants to replace (RFC 7296 section 2.25.1).
fn replaced_child(ike: &IkeSa, spi: Spi) -> Result<SaId, Payload> {
    let not_found = Payload::Notify(Notify::about_esp(NotifyKind::CHILD_SA_NOT_FOUND, spi));
    let id = match ike.child_by_peer_spi(spi) {
        Some(id) => id,
        // It may be the one that the answer to our own request is about.
        None if ike.is_making() => return Err(Payload::notify(NotifyKind::TEMPORARY_FAILURE, &[])),
        None => return Err(not_found),
    };
    match ike.child(id).map(|c| c.state) {
        Some(ChildState::Deleting) => Err(Payload::notify(NotifyKind::TEMPORARY_FAILURE, &[])),
        _ => Ok(id),
    }
}

fn agree(
    ike: &mut IkeSa,
    turn: &mut Turn<'_>,
    contents: &Contents<'_>,
    replaced: Option<SaId>,
) -> Result<Vec<Payload>, Payload> {
    if replaced.is_none() && ike.is_full() {
        return Err(Payload::notify(NotifyKind::NO_ADDITIONAL_SAS, &[]));
    }
    let peer_nonce = contents
        .valid_nonce()
        .ok_or_else(|| Payload::notify(NotifyKind::INVALID_SYNTAX, &[]))?;
    room::for_child(ike, &turn.settings.limits, replaced)
        .map_err(|kind| Payload::notify(kind, &[]))?;
    let terms = child::choose(ike, contents, replaced, Ask::Create)
        .map_err(|kind| Payload::notify(kind, &[]))?;
    let exchanged = match terms.proposal.key_exchange {
        None => None,
        Some(method) => Some(exchange_keys(turn, contents, method)?),
    };
    let nonce = turn.nonce();
    let (id, spi) = (turn.ids.sa(), turn.ids.spi(turn.entropy));
    let spi = spi.ok_or_else(|| Payload::notify(NotifyKind::TEMPORARY_FAILURE, &[]))?;
    let mut payloads = child::answer(&terms, spi, Ask::Create);
    payloads.push(Payload::Nonce(nonce.clone()));
    let (payload, shared) = exchanged.unzip();
    payloads.extend(payload);
    let additional = terms.proposal.additional;
    if let Some(shared) = shared.as_ref().filter(|_| !additional.is_empty()) {
        let what = What::Child { id, spi, replaced };
        let secrets = (nonce.as_slice(), shared.clone());
        let answered = answered(contents.payloads, &terms);
        let link = followup::begin(ike, turn, &answered, (what, additional), secrets);
        payloads.push(link);
        return Ok(payloads);
    }
    let nonces = (peer_nonce, nonce.as_slice());
    let shared = shared.as_ref().map(|s| s.as_slice());
    let keys = ike
        .keys
        .child_keys(shared, nonces, &[], terms.proposal.suite);
    make(ike, turn, terms, (id, spi), keys, nonces, replaced);
    Ok(payloads)
}

/// The part of a request that these terms take.
fn answered(request: &[Payload], terms: &Terms) -> Vec<Payload> {
    let proposal = terms.proposal;
    let proposal = proposal.to_proposal(terms.number, terms.peer_spi, Ask::Create);
    let taken = |payload: &&Payload| match payload {
        Payload::Notify(n) if n.kind == NotifyKind::USE_TRANSPORT_MODE => {
            terms.mode == Mode::Transport
        }
        Payload::Notify(n) if n.kind == NotifyKind::SA_RESOURCE_INFO => terms.per_resource,
        _ => true,
    };
    let part = |payload: &Payload| match payload {
        Payload::SecurityAssociation(_) => Payload::SecurityAssociation(vec![proposal.clone()]),
        Payload::TsInitiator(_) => Payload::TsInitiator(terms.remote_ts.clone()),
        Payload::TsResponder(_) => Payload::TsResponder(terms.local_ts.clone()),
        other => other.clone(),
    };
    request.iter().filter(taken).map(part).collect()
}

/// The terms that were answered to the part of the request that is kept, if they are still allowed.
fn as_answered(mut terms: Terms, request: &Contents<'_>, half: &HalfMade) -> Option<Terms> {
    let (tsi, tsr) = (request.ts_initiator?, request.ts_responder?);
    let allowed = tsi.iter().all(|ts| terms.remote_ts.contains(ts))
        && tsr.iter().all(|ts| terms.local_ts.contains(ts));
    // Where ours overlap there are parts of them as well.
    (terms.local_ts, terms.remote_ts) = (tsr.to_vec(), tsi.to_vec());
    let same = half.was_answered(&answered(request.payloads, &terms));
    (allowed && same).then_some(terms)
}

/// The last additional key exchange is done: what the peer's CREATE_CHILD_SA began is made, unless
/// what it replaces has gone meanwhile, or what was answered is allowed no more.
pub(super) fn finish(
    ike: &mut IkeSa,
    turn: &mut Turn<'_>,
    request: &Contents<'_>,
    half: &HalfMade,
) -> Result<(), Payload> {
    let What::Child { id, spi, replaced } = half.what else {
        return Ok(());
    };
    let peer_nonce = request
        .valid_nonce()
        .ok_or_else(|| Payload::notify(NotifyKind::INVALID_SYNTAX, &[]))?;
    let settled = |state| matches!(state, ChildState::Installed | ChildState::Rekeying);
    let replaceable = |old| ike.child(old).is_some_and(|c| settled(c.state));
    if ike.state != State::Established || !replaced.is_none_or(replaceable) {
        return Err(Payload::notify(NotifyKind::TEMPORARY_FAILURE, &[]));
    }
    room::for_child(ike, &turn.settings.limits, replaced)
        .map_err(|kind| Payload::notify(kind, &[]))?;
    let terms = child::choose(ike, request, replaced, Ask::Create).ok();
    let terms = terms.and_then(|terms| as_answered(terms, request, half));
    let terms = terms.ok_or_else(|| Payload::notify(NotifyKind::TEMPORARY_FAILURE, &[]))?;
    let nonces = (peer_nonce, half.nonce.as_slice());
    let suite = terms.proposal.suite;
    let keys = ike
        .keys
        .child_keys(Some(&half.shared), nonces, &half.done, suite);
    make(ike, turn, terms, (id, spi), keys, nonces, replaced);
    Ok(())
}

/// As responder: installs the Child SA.
fn make(
    ike: &mut IkeSa,
    turn: &mut Turn<'_>,
    terms: Terms,
    (id, spi): (SaId, Spi),
    (inbound_key, outbound_key): (KeyMaterial, KeyMaterial),
    (peer_nonce, nonce): (&[u8], &[u8]),
    replaced: Option<SaId>,
) {
    let making = Making {
        id,
        spi,
        inbound_key,
        outbound_key,
        replaces: replaced,
    };
    let lowest = peer_nonce.min(nonce).to_vec();
    announce(ike, turn, &terms, id, replaced);
    child::install(ike, turn, terms, making, replaced.is_none());
    if let Some(old) = replaced {
        replace(ike, turn, old, Collision { sa: id, lowest });
    }
}

/// Our half of the key exchange and the shared secret; or the refusal of the peer's half.
pub(super) fn exchange_keys(
    turn: &mut Turn<'_>,
    contents: &Contents<'_>,
    method: KeyExchangeMethod,
) -> Result<(Payload, Zeroizing<Vec<u8>>), Payload> {
    let public = match contents.key_exchange {
        Some((group, public)) if group == method.number() => public,
        // RFC 7296 section 1.3: tell the group that we want.
        _ => {
            let wanted = method.number().to_be_bytes();
            return Err(Payload::notify(NotifyKind::INVALID_KE_PAYLOAD, &wanted));
        }
    };
    let (data, shared) = kex::respond(method, turn.entropy, public).map_err(|error| {
        let kind = match error {
            KexError::NoEntropy => NotifyKind::TEMPORARY_FAILURE,
            _ => NotifyKind::INVALID_SYNTAX,
        };
        Payload::notify(kind, &[])
    })?;
    let method = method.number();
    Ok((Payload::KeyExchange { method, data }, shared))
}

fn announce(ike: &IkeSa, turn: &mut Turn<'_>, terms: &Terms, id: SaId, replaces: Option<SaId>) {
    turn.events.push(match replaces {
        Some(old) => Event::ChildRekeyed {
            ike: ike.local_spi,
            old,
            new: id,
        },
        None => Event::ChildEstablished {
            ike: ike.local_spi,
            sa: id,
            child: terms.name.clone(),
        },
    });
}

/// The peer replaced one of our Child SAs.
fn replace(ike: &mut IkeSa, turn: &mut Turn<'_>, old: SaId, collision: Collision) {
    let new = collision.sa;
    if let Some(offer) = ike.replacing(old) {
        // RFC 7296 section 2.8.1: who wins is known when our own answer is here.
        offer.collision = Some(collision);
    } else {
        ike.queue.retain(|s| s.task != Task::RekeyChild(old));
    }
    let delete_at = turn.now + DELETE_GRACE;
    if let Some(old) = ike.child_mut(old) {
        old.state = ChildState::Rekeyed;
        old.replaced_by = Some(new);
        old.rekey_at = Some(delete_at);
    }
    ike.close_heir(turn.now, old, new);
}

/// The peer answered our request, or one that followed it.
pub(super) fn complete(
    ike: &mut IkeSa,
    turn: &mut Turn<'_>,
    mut offer: ChildOffer,
    contents: &Contents<'_>,
) {
    if contents.proposals.is_none()
        && let Some(error) = contents.error()
    {
        return refused(ike, turn, offer, error);
    }
    let progress = match offer.followup.take() {
        None => Ok(Progress::Done(
            contents.payloads.to_vec(),
            Zeroizing::default(),
        )),
        Some(followup) => followup.absorb(turn, contents),
    };
    let (payloads, additional) = match progress {
        Ok(Progress::Next(followup)) => return follow(ike, turn, offer, followup),
        Ok(Progress::Done(payloads, additional)) => (payloads, additional),
        // The peer keeps nothing of it for long.
        Err(reason) => return unusable(ike, turn, offer, reason),
    };
    let contents = &Contents::of(&payloads);
    match conclude(ike, &offer, contents, &additional) {
        Ok((terms, _)) if additional.is_empty() && !terms.proposal.additional.is_empty() => {
            match Followup::begin(turn, contents, terms.proposal.additional) {
                Ok(followup) => follow(ike, turn, offer, followup),
                Err(reason) => unusable(ike, turn, offer, reason),
            }
        }
        Ok((terms, making)) => succeeded(ike, turn, offer, contents, terms, making),
        Err(reason) => {
            // The peer believes in a Child SA that we cannot use.
            let spi = offer.spi;
            unusable(ike, turn, offer, reason);
            inform::delete_later(ike, turn, turn.now, spi);
        }
    }
}

/// Asks for the next additional key exchange.
fn follow(ike: &mut IkeSa, turn: &mut Turn<'_>, mut offer: ChildOffer, followup: Followup) {
    offer.followup = Some(followup.clone());
    followup.ask(ike, turn, Pending::CreateChild(offer));
}

/// The exchange made nothing that we could use.
fn unusable(ike: &mut IkeSa, turn: &mut Turn<'_>, offer: ChildOffer, reason: &str) {
    turn.ids.release(offer.spi);
    let pause = turn.long_pause();
    unsettle(ike, turn, &offer, pause);
    failed(ike, turn, reason.to_owned());
    missed(ike, turn, &offer);
}

/// The exchange made nothing, and the peer may have deleted meanwhile what it was to replace, or what it
/// had made in place of that itself. Whoever missed the child then saw that it was being made.
pub(super) fn missed(ike: &IkeSa, turn: &mut Turn<'_>, offer: &ChildOffer) {
    if !ike.serves(&offer.child) && !ike.stays_closed(offer) {
        turn.effects.push(Effect::Lost(offer.child.clone()));
    }
}

fn conclude(
    ike: &IkeSa,
    offer: &ChildOffer,
    contents: &Contents<'_>,
    additional: &[u8],
) -> Result<(Terms, Making), &'static str> {
    let config = ike
        .connection
        .children
        .iter()
        .find(|c| c.name == offer.child);
    let config = config.ok_or("child is no longer configured")?;
    let peer_nonce = contents.valid_nonce().ok_or("answer without nonce")?;
    let offered = Ends::of(ike).resolve(config);
    let terms = child::accept(ike, &offered, contents, Ask::Create)?;
    let shared = match (&offer.key, terms.proposal.key_exchange) {
        (_, None) => None,
        (Some(key), Some(method)) if key.method() == method => match contents.key_exchange {
            Some((group, public)) if group == method.number() => {
                Some(key.agree(public).map_err(|_| "invalid public key")?)
            }
            _ => return Err("answer without key exchange"),
        },
        _ => return Err("answer with another key exchange method"),
    };
    let (outbound_key, inbound_key) = ike.keys.child_keys(
        shared.as_ref().map(|s| s.as_slice()),
        (&offer.nonce, peer_nonce),
        additional,
        terms.proposal.suite,
    );
    let making = Making {
        id: offer.id,
        spi: offer.spi,
        inbound_key,
        outbound_key,
        replaces: offer.replaces,
    };
    Ok((terms, making))
}

fn succeeded(
    ike: &mut IkeSa,
    turn: &mut Turn<'_>,
    offer: ChildOffer,
    contents: &Contents<'_>,
    terms: Terms,
    making: Making,
) {
    let peer_nonce = contents.valid_nonce().unwrap_or_default();
    let collision = offer.collision.as_ref();
    let lost = collision.is_some_and(|c| loses(&offer.nonce, peer_nonce, &c.lowest));
    let new = making.id;
    announce(ike, turn, &terms, new, offer.replaces);
    child::install(ike, turn, terms, making, !lost);
    if lost {
        if let (Some(old), Some(winner)) = (offer.replaces, collision) {
            ike.close_heir(turn.now, old, winner.sa);
        }
        return close(ike, turn, new, None);
    }
    let Some(old) = offer.replaces else {
        return resource::go_on(ike, turn, &offer.child);
    };
    close(ike, turn, old, Some(new));
    ike.close_heir(turn.now, old, new);
    ike.close_as(turn.now, new, offer.closing);
    if let Some(collision) = offer.collision {
        // The peer deletes its own; we do if it does not.
        let delete_at = turn.now + DELETE_GRACE;
        if let Some(redundant) = ike.child_mut(collision.sa) {
            redundant.state = ChildState::Rekeyed;
            redundant.replaced_by = Some(new);
            redundant.rekey_at = Some(delete_at);
        }
    }
}

/// RFC 7296 section 2.8.1: of two exchanges that rekeyed the same SA the one with the lowest of the
/// four nonces loses, and whoever initiated it deletes what it made. `theirs` is the lower nonce of
/// the exchange that the peer initiated.
pub(super) fn loses(nonce: &[u8], peer_nonce: &[u8], theirs: &[u8]) -> bool {
    nonce.min(peer_nonce) < theirs
}

/// Is about to be deleted by us: from now on a request to rekey it meets TEMPORARY_FAILURE
/// (RFC 7296 section 2.25.1), also while the Delete waits for the window.
fn close(ike: &mut IkeSa, turn: &Turn<'_>, id: SaId, successor: Option<SaId>) {
    if let Some(child) = ike.child_mut(id) {
        child.state = ChildState::Deleting;
        child.replaced_by = successor.or(child.replaced_by);
        child.rekey_at = None;
        ike.schedule(turn.now, Task::DeleteChild(id));
    }
}

/// Our rekeying did not happen: the old Child SA stays what it is.
fn unsettle(ike: &mut IkeSa, turn: &Turn<'_>, offer: &ChildOffer, pause: Duration) {
    let retry_at = turn.now + pause;
    if let Some(old) = offer.replaces.and_then(|id| ike.child_mut(id))
        && old.state == ChildState::Rekeying
    {
        old.state = ChildState::Installed;
        old.rekey_at = Some(retry_at);
    }
}

fn refused(ike: &mut IkeSa, turn: &mut Turn<'_>, offer: ChildOffer, error: &Notify) {
    turn.ids.release(offer.spi);
    if error.kind == NotifyKind::INVALID_KE_PAYLOAD
        && offer.collision.is_none()
        && let Some(group) = other_group(ike, &offer, error)
    {
        let retry = Some((group, offer.retries + 1));
        return request(ike, turn, &offer.child, offer.replaces, retry);
    }
    let pause = match error.kind {
        NotifyKind::TEMPORARY_FAILURE => turn.pause(),
        _ => turn.long_pause(),
    };
    unsettle(ike, turn, &offer, pause);
    match offer.replaces {
        // RFC 7296 section 2.25: not now; `unsettle` has set when.
        Some(_) if error.kind == NotifyKind::TEMPORARY_FAILURE => missed(ike, turn, &offer),
        None if error.kind == NotifyKind::TEMPORARY_FAILURE => {
            ike.schedule(turn.now + pause, Task::CreateChild(offer.child));
        }
        // RFC 7296 section 2.25.1: the peer has it no more; make a new one.
        Some(old) if error.kind == NotifyKind::CHILD_SA_NOT_FOUND => {
            let replaced = offer.collision.is_some();
            let closing = ike.child(old).and_then(|old| old.closing);
            let closed = closing.max(offer.closing) == Some(Closing::ForGood);
            child::remove(ike, turn, old);
            if replaced {
                missed(ike, turn, &offer);
            } else if !closed && !ike.serves(&offer.child) {
                ike.schedule(turn.now, Task::CreateChild(offer.child));
            }
        }
        _ => {
            failed(ike, turn, child::refusal(&offer.child, error.kind));
            missed(ike, turn, &offer);
        }
    }
}

/// The group to try next after INVALID_KE_PAYLOAD, if it is one of ours.
fn other_group(ike: &IkeSa, offer: &ChildOffer, error: &Notify) -> Option<KeyExchangeMethod> {
    let wanted = KeyExchangeMethod::from_number(wanted_group(error)?)?;
    let config = ike
        .connection
        .children
        .iter()
        .find(|c| c.name == offer.child)?;
    let ours = config
        .esp_proposals
        .iter()
        .any(|p| p.key_exchange == Some(wanted));
    (ours && offer.retries < GROUP_RETRIES).then_some(wanted)
}

fn failed(ike: &IkeSa, turn: &mut Turn<'_>, reason: String) {
    turn.events.push(Event::NegotiationFailed {
        peer: ike.path.remote,
        reason,
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exchange_with_the_lowest_nonce_loses_rfc7296_2_8_1() {
        assert!(loses(&[1, 9], &[5, 5], &[2, 0]));
        assert!(loses(&[5, 5], &[1, 9], &[2, 0]));
        assert!(!loses(&[3, 0], &[2, 1], &[2, 0]));
        // As strings of octets: a prefix is lower.
        assert!(loses(&[2], &[9], &[2, 0]));
    }
}

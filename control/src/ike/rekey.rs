//! CREATE_CHILD_SA that rekeys the IKE SA (RFC 7296 sections 1.3.2 and 2.18), with the collisions
//! of sections 2.8.2 and 2.25.2.

use std::time::Duration;

use hitless_sa::{IkeSpi, MessageId};
use zeroize::Zeroizing;

use super::contents::{Contents, wanted_group};
use super::create::{exchange_keys, key_exchange, loses};
use super::crypto::kex::KeyPair;
use super::established::{Birth, DELETE_GRACE, IkeSa, State};
use super::followup::{self, Followup, HalfMade, Progress, What};
use super::keys::{IkeKeys, Inputs};
use super::message::{Exchange, Notify, NotifyKind, Payload};
use super::mobike::Newest;
use super::output::Event;
use super::proposal::{IkeProposal, KeyExchangeMethod, accepted, select};
use super::sessions::crash;
use super::tasks::{Pending, Scheduled, Task};
use super::turn::{Effect, Turn};
use super::window::Window;

/// Retries with another group before the exchange counts as failed.
const GROUP_RETRIES: u8 = 2;
/// Of one rekeying: RFC 9370 has up to seven after the first.
const EXCHANGES: u32 = 8;

/// Our outstanding offer of a new IKE SA, with the secrets that its answer needs.
#[derive(Clone)]
pub(super) struct IkeOffer {
    pub spi: IkeSpi,
    pub nonce: Vec<u8>,
    pub key: KeyPair,
    /// The peer rekeyed the same IKE SA meanwhile.
    pub collision: Option<IkeCollision>,
    pub retries: u8,
    /// It was answered, and additional key exchanges follow.
    pub followup: Option<Followup>,
}

/// The IKE SA that the peer's exchange made while ours was outstanding.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct IkeCollision {
    pub ike: IkeSpi,
    /// The lower of that exchange's nonces.
    pub lowest: Vec<u8>,
}

/// Asks for a successor of the IKE SA.
pub(super) fn request(
    ike: &mut IkeSa,
    turn: &mut Turn<'_>,
    retry: Option<(KeyExchangeMethod, u8)>,
) {
    let (group, retries) = retry.unwrap_or((ike.proposal.key_exchange, 0));
    let Some(key) = turn.key_pair(group) else {
        return;
    };
    let offer = IkeOffer {
        spi: turn.ids.ike_spi(turn.entropy),
        nonce: turn.nonce(),
        key,
        collision: None,
        retries,
        followup: None,
    };
    let payloads = [
        Payload::SecurityAssociation(IkeProposal::offer(
            &ike.connection.proposals,
            Some(offer.spi),
        )),
        Payload::Nonce(offer.nonce.clone()),
        key_exchange(&offer.key),
    ];
    ike.request(
        turn,
        Exchange::CreateChildSa,
        &payloads,
        Pending::RekeyIke(offer),
    );
}

/// Answers the peer's request for a successor.
pub(super) fn answer(
    ike: &mut IkeSa,
    turn: &mut Turn<'_>,
    id: MessageId,
    contents: &Contents<'_>,
) -> Vec<Payload> {
    if is_busy(ike) || turn.crowded {
        ike.doubt_successor(turn, id);
        return vec![Payload::notify(NotifyKind::TEMPORARY_FAILURE, &[])];
    }
    match agree(ike, turn, contents) {
        Ok(payloads) => payloads,
        Err(refusal) => {
            turn.events.push(Event::NegotiationFailed {
                peer: ike.path.remote,
                reason: "rekeying of the IKE SA refused".to_owned(),
            });
            vec![refusal]
        }
    }
}

/// RFC 7296 section 2.25.2: no new IKE SA while a Child SA is being made, replaced or closed, nor while
/// the IKE SA itself is being closed. One crosses our own rekeying (section 2.8.2), and no second: the
/// nonces decide between two, and what the peer made besides would stay for ever.
fn is_busy(ike: &IkeSa) -> bool {
    let busy = |pending: &Pending| match pending {
        Pending::CreateChild(_) | Pending::DeleteChildren(_) | Pending::DeleteIke => true,
        Pending::RekeyIke(offer) => offer.collision.is_some(),
        _ => false,
    };
    ike.pending.values().any(busy) || ike.state != State::Established
}

fn agree(
    ike: &mut IkeSa,
    turn: &mut Turn<'_>,
    contents: &Contents<'_>,
) -> Result<Vec<Payload>, Payload> {
    let invalid = || Payload::notify(NotifyKind::INVALID_SYNTAX, &[]);
    let proposals = contents.proposals.ok_or_else(invalid)?;
    let peer_nonce = contents.valid_nonce().ok_or_else(invalid)?;
    let (theirs, chosen) = select(&ike.connection.proposals, proposals)
        .ok_or_else(|| Payload::notify(NotifyKind::NO_PROPOSAL_CHOSEN, &[]))?;
    let peer_spi = theirs
        .ike_spi()
        .filter(|spi| spi.0 != 0)
        .ok_or_else(invalid)?;
    let (key_payload, shared) = exchange_keys(turn, contents, chosen.key_exchange)?;
    let nonce = turn.nonce();
    let spi = turn.ids.ike_spi(turn.entropy);
    let inputs = Inputs {
        initiator_nonce: peer_nonce,
        responder_nonce: &nonce,
        initiator_spi: peer_spi,
        responder_spi: spi,
    };
    let mut payloads = vec![
        Payload::SecurityAssociation(vec![chosen.to_proposal(theirs.number, Some(spi))]),
        Payload::Nonce(nonce.clone()),
        key_payload,
    ];
    if chosen.additional.is_empty() {
        let keys = ike.keys.rekey(&chosen, &inputs, &shared, &[]);
        make(ike, turn, chosen, &inputs, keys);
        payloads.extend(crash::offer(
            turn.settings,
            &ike.connection,
            (peer_spi, spi),
        ));
    } else {
        let began = (What::Ike { spi }, chosen.additional);
        let answered = answered(contents.payloads, &chosen, theirs.number, peer_spi);
        let secrets = (nonce.as_slice(), shared);
        payloads.push(followup::begin(ike, turn, &answered, began, secrets));
    }
    Ok(payloads)
}

/// A request as if it had offered nothing but what was chosen.
fn answered(
    request: &[Payload],
    chosen: &IkeProposal,
    number: u8,
    peer_spi: IkeSpi,
) -> Vec<Payload> {
    let part = |payload: &Payload| match payload {
        Payload::SecurityAssociation(_) => {
            Payload::SecurityAssociation(vec![chosen.to_proposal(number, Some(peer_spi))])
        }
        other => other.clone(),
    };
    request.iter().map(part).collect()
}

/// The last additional key exchange is done: what the peer's CREATE_CHILD_SA began is made.
pub(super) fn finish(
    ike: &mut IkeSa,
    turn: &mut Turn<'_>,
    request: &Contents<'_>,
    half: &HalfMade,
    spi: IkeSpi,
) -> Result<(), Payload> {
    if is_busy(ike) || turn.crowded {
        return Err(Payload::notify(NotifyKind::TEMPORARY_FAILURE, &[]));
    }
    let chosen = request.proposals.and_then(|proposals| {
        let (theirs, chosen) = select(&ike.connection.proposals, proposals)?;
        let peer_spi = theirs.ike_spi()?;
        let answered = answered(request.payloads, &chosen, theirs.number, peer_spi);
        half.was_answered(&answered).then_some((peer_spi, chosen))
    });
    // It was read before: only another configuration, of another member perhaps, makes it unusable.
    let (Some((peer_spi, chosen)), Some(peer_nonce)) = (chosen, request.valid_nonce()) else {
        return Err(Payload::notify(NotifyKind::TEMPORARY_FAILURE, &[]));
    };
    let inputs = Inputs {
        initiator_nonce: peer_nonce,
        responder_nonce: &half.nonce,
        initiator_spi: peer_spi,
        responder_spi: spi,
    };
    let keys = ike.keys.rekey(&chosen, &inputs, &half.shared, &half.done);
    make(ike, turn, chosen, &inputs, keys);
    Ok(())
}

/// As responder: the successor, which inherits unless our own rekeying is under way.
fn make(
    ike: &mut IkeSa,
    turn: &mut Turn<'_>,
    chosen: IkeProposal,
    inputs: &Inputs<'_>,
    keys: IkeKeys,
) {
    let (peer_spi, spi) = (inputs.initiator_spi, inputs.responder_spi);
    let (peer_nonce, nonce) = (inputs.initiator_nonce, inputs.responder_nonce);
    let mut successor = successor(ike, turn, false, chosen, spi, peer_spi, keys);
    if !successor.proposal.additional.is_empty() {
        // The answer that would have had it left before the last key exchange.
        successor.give_token_later(turn);
    }
    successor.undecided = ike.is_rekeying();
    if successor.undecided {
        // Whatever becomes of ours is known long before; nobody keeps it for nothing.
        let exchange = turn.backoff().whole();
        successor.forget_at = Some(turn.now + exchange * EXCHANGES);
    }
    turn.effects.push(Effect::Created(Box::new(successor)));
    ike.successors.push(spi);
    let ours = ike.pending.values_mut().find_map(|pending| match pending {
        Pending::RekeyIke(offer) => Some(offer),
        _ => None,
    });
    match ours {
        Some(offer) => {
            // RFC 7296 section 2.8.2: who wins is known when our own answer is here.
            offer.collision = Some(IkeCollision {
                ike: spi,
                lowest: peer_nonce.min(nonce).to_vec(),
            });
        }
        None => inherit(ike, turn, spi),
    }
}

impl IkeSa {
    /// Whether, by this record of ours, the exchange that made `heir` is not over, and makes it anew: ours,
    /// of which the answer comes again, or the peer's, which it repeats as it knows nothing of it.
    pub(super) fn is_yet_to_make(&self, heir: &IkeSa) -> bool {
        if self.successors.contains(&heir.local_spi) {
            return false;
        }
        let mut pending = self.pending.values();
        match heir.initiator {
            true => pending.any(|pending| {
                matches!(pending, Pending::RekeyIke(offer) if offer.spi == heir.local_spi)
            }),
            false => heir.is_unused(),
        }
    }
}

/// The new IKE SA: everything but the keys, the SPIs and the Message IDs is as before
/// (RFC 7296 section 2.18; H5: the capabilities of RFC 6311 too).
fn successor(
    ike: &IkeSa,
    turn: &mut Turn<'_>,
    initiator: bool,
    proposal: IkeProposal,
    local_spi: IkeSpi,
    remote_spi: IkeSpi,
    keys: IkeKeys,
) -> IkeSa {
    let mut successor = IkeSa::new(
        turn,
        Birth {
            connection: ike.connection.clone(),
            initiator,
            local_spi,
            remote_spi,
            proposal,
            keys,
            path: ike.path,
            nat: ike.nat,
            local_id: ike.local_id.clone(),
            remote_id: ike.remote_id.clone(),
            message_id_sync: ike.message_id_sync,
            replay_counter_sync: ike.replay_counter_sync,
            fragmenting: ike.fragmenting,
            window: Window::new(
                MessageId(0),
                MessageId(0),
                ike.connection.roads.window_size.get(),
            ),
        },
    );
    successor.rest_on(ike.authenticated.clone(), turn);
    successor.predecessor = Some(ike.local_spi);
    // RFC 5723 section 6.2: rekeying invalidates the ticket, and the client should ask for another.
    // Not before the peer knows the new IKE SA.
    if ike.session.ticket.is_some() {
        let at = turn.now + turn.pause();
        successor.schedule(at, Task::AskTicket);
    }
    successor.session.origin = Some(ike.origin());
    successor.addresses = ike.addresses.clone();
    successor.proven = ike.proven;
    let mobike = ike.mobike.as_ref();
    successor.mobike = mobike.map(|mobike| mobike.handed_on(Newest::default()));
    successor.redirectable = ike.redirectable;
    successor
}

/// What no other IKE SA can do for this one. Not its end: whatever asked for that, the peer does not outrun
/// it by a rekeying.
pub(super) fn is_own(task: &Task) -> bool {
    matches!(
        task,
        Task::RekeyIke | Task::Liveness | Task::CrashToken | Task::AskTicket
    )
}

/// All Child SAs and all that is still to be done go to the successor.
pub(super) fn inherit(ike: &mut IkeSa, turn: &mut Turn<'_>, to: IkeSpi) {
    ike.state = State::Rekeyed {
        delete_at: turn.now + DELETE_GRACE,
    };
    ike.session.ticket = None;
    let mut queue = std::mem::take(&mut ike.queue);
    queue.retain(|s| !is_own(&s.task));
    // An answer to these moves what ends, and not its successor.
    let errands = ike.pending.values().filter_map(|pending| match pending {
        Pending::Mobike(asked) => Some(Scheduled {
            at: turn.now,
            task: Task::Mobike(asked.errand()),
        }),
        _ => None,
    });
    queue.extend(errands);
    turn.dirty = true;
    turn.events.push(Event::IkeRekeyed {
        old: ike.local_spi,
        new: to,
    });
    turn.effects.push(Effect::Inherit {
        to,
        owed: ike.bequeath(),
        children: std::mem::take(&mut ike.children),
        queue,
    });
}

/// The peer answered our request.
pub(super) fn complete(
    ike: &mut IkeSa,
    turn: &mut Turn<'_>,
    mut offer: IkeOffer,
    contents: &Contents<'_>,
) {
    if contents.proposals.is_none()
        && let Some(error) = contents.error()
    {
        return refused(ike, turn, offer, error);
    }
    if let Err(reason) = go_on(ike, turn, &mut offer, contents) {
        turn.events.push(Event::NegotiationFailed {
            peer: ike.path.remote,
            reason: reason.to_owned(),
        });
        let pause = turn.long_pause();
        give_up(ike, turn, &offer, pause);
    }
}

/// The next additional key exchange, or the successor.
fn go_on(
    ike: &mut IkeSa,
    turn: &mut Turn<'_>,
    offer: &mut IkeOffer,
    contents: &Contents<'_>,
) -> Result<(), &'static str> {
    let progress = match offer.followup.take() {
        Some(followup) => followup.absorb(turn, contents)?,
        None => {
            let (chosen, _) = accepted_by(ike, contents)?;
            if chosen.additional.is_empty() {
                Progress::Done(contents.payloads.to_vec(), Zeroizing::default())
            } else {
                Progress::Next(Followup::begin(turn, contents, chosen.additional)?)
            }
        }
    };
    match progress {
        Progress::Next(followup) => {
            let next = IkeOffer {
                followup: Some(followup.clone()),
                ..offer.clone()
            };
            followup.ask(ike, turn, Pending::RekeyIke(next));
        }
        Progress::Done(payloads, additional) => {
            let contents = Contents::of(&payloads);
            let successor = conclude(ike, turn, offer, &contents, &additional)?;
            succeeded(ike, turn, offer.clone(), &contents, successor);
        }
    }
    Ok(())
}

/// What the peer chose of our offer, and its SPI.
fn accepted_by(
    ike: &IkeSa,
    contents: &Contents<'_>,
) -> Result<(IkeProposal, IkeSpi), &'static str> {
    let proposals = contents.proposals.ok_or("answer without proposal")?;
    let (theirs, chosen) = accepted(&ike.connection.proposals, proposals)
        .ok_or("answer with a proposal that was not offered")?;
    let peer_spi = theirs
        .ike_spi()
        .filter(|spi| spi.0 != 0)
        .ok_or("answer without SPI")?;
    Ok((chosen, peer_spi))
}

fn conclude(
    ike: &IkeSa,
    turn: &mut Turn<'_>,
    offer: &IkeOffer,
    contents: &Contents<'_>,
    additional: &[u8],
) -> Result<IkeSa, &'static str> {
    let (chosen, peer_spi) = accepted_by(ike, contents)?;
    let peer_nonce = contents.valid_nonce().ok_or("answer without nonce")?;
    let public = match contents.key_exchange {
        Some((group, public))
            if group == chosen.key_exchange.number()
                && chosen.key_exchange == offer.key.method() =>
        {
            public
        }
        _ => return Err("answer with another key exchange"),
    };
    let shared = offer.key.agree(public).map_err(|_| "invalid public key")?;
    let inputs = Inputs {
        initiator_nonce: &offer.nonce,
        responder_nonce: peer_nonce,
        initiator_spi: offer.spi,
        responder_spi: peer_spi,
    };
    let keys = ike.keys.rekey(&chosen, &inputs, &shared, additional);
    let mut successor = successor(ike, turn, true, chosen, offer.spi, peer_spi, keys);
    successor.take_token(turn, contents);
    successor.give_token_later(turn);
    Ok(successor)
}

fn succeeded(
    ike: &mut IkeSa,
    turn: &mut Turn<'_>,
    offer: IkeOffer,
    contents: &Contents<'_>,
    successor: IkeSa,
) {
    let new = successor.local_spi;
    let peer_nonce = contents.valid_nonce().unwrap_or_default();
    turn.effects.push(Effect::Created(Box::new(successor)));
    ike.successors.push(new);
    match offer.collision {
        // RFC 7296 section 2.8.2: the IKE SA of the lowest nonce goes, by the hand that made it;
        // the other one inherits, and its initiator deletes the old one.
        Some(theirs) if loses(&offer.nonce, peer_nonce, &theirs.lowest) => {
            inherit(ike, turn, theirs.ike);
            turn.effects.push(Effect::Delete(new));
        }
        theirs => {
            inherit(ike, turn, new);
            ike.schedule(turn.now, Task::DeleteIke);
            turn.effects
                .extend(theirs.map(|t| Effect::Redundant(t.ike)));
        }
    }
}

fn refused(ike: &mut IkeSa, turn: &mut Turn<'_>, offer: IkeOffer, error: &Notify) {
    let wanted = (error.kind == NotifyKind::INVALID_KE_PAYLOAD)
        .then(|| wanted_group(error).and_then(KeyExchangeMethod::from_number))
        .flatten();
    if let Some(group) = wanted
        && offer.retries < GROUP_RETRIES
        && offer.collision.is_none()
        && ike
            .connection
            .proposals
            .iter()
            .any(|p| p.key_exchange == group)
    {
        return request(ike, turn, Some((group, offer.retries + 1)));
    }
    let mut pause = turn.pause();
    if error.kind != NotifyKind::TEMPORARY_FAILURE {
        pause = turn.long_pause();
        turn.events.push(Event::NegotiationFailed {
            peer: ike.path.remote,
            reason: format!("rekeying of the IKE SA: {}", error.kind),
        });
    }
    give_up(ike, turn, &offer, pause);
}

/// Our exchange made nothing: the peer's one counts, or we try again later.
fn give_up(ike: &mut IkeSa, turn: &mut Turn<'_>, offer: &IkeOffer, pause: Duration) {
    match &offer.collision {
        Some(theirs) => inherit(ike, turn, theirs.ike),
        None => ike.rekey_at = Some(turn.now + pause),
    }
}

//! Child SAs of an IKE SA: their states, what both sides agree on, and their end.

use std::sync::Arc;

use hitless_sa::{
    ChildSa, Instant, KeyMaterial, Mode, SaId, SaOptions, Spi, TfcPadding, TrafficSelector,
};

use super::contents::Contents;
use super::ends::{self, Ends};
use super::established::IkeSa;
use super::message::{NotifyKind, Payload};
use super::narrow::{self, narrow, within};
use super::nat::{self, Nat};
use super::output::{ChildChange, Event};
use super::proposal::{Ask, EspProposal, accepted_esp, select_esp};
use super::purpose::Purpose;
use super::resource;
use super::sessions::lifetimes::{self, Limits};
use super::settings::Child;
use super::turn::{Effect, Turn};

/// Where a Child SA stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum ChildState {
    Installed,
    /// Our CREATE_CHILD_SA that replaces it is outstanding.
    Rekeying,
    /// Replaced; whoever initiated that deletes it.
    Rekeyed,
    /// Our Delete of it is outstanding or about to be sent.
    Deleting,
}

/// A Child SA that the dataplane carries.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Installed {
    pub sa: Arc<ChildSa>,
    /// `children.<name>`.
    pub name: String,
    /// What that said when it was made; none if an older version made it.
    pub purpose: Option<Purpose>,
    pub state: ChildState,
    /// Outbound traffic uses it.
    pub sending: bool,
    /// The peer takes no padding that hides lengths.
    pub no_tfc: bool,
    pub replaced_by: Option<SaId>,
    pub installed: Instant,
    /// When to rekey it or, once it is replaced, to delete it.
    pub rekey_at: Option<Instant>,
    /// When it ends, replaced or not.
    pub life_at: Option<Instant>,
    pub limits: Limits,
    /// To be deleted on demand, and what takes its place too.
    pub closing: Option<Closing>,
}

impl Installed {
    /// Deleted on demand, and nothing is to take its place.
    pub fn stays_closed(&self) -> bool {
        self.closing == Some(Closing::ForGood)
    }
}

/// What is to become of that which is deleted on demand.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Closing {
    /// The file wants it, and wants it otherwise.
    Again,
    ForGood,
}

/// What both sides agreed on for a new Child SA.
pub(super) struct Terms {
    pub name: String,
    pub mode: Mode,
    pub proposal: EspProposal,
    /// Number of the peer's proposal, to be repeated in our answer.
    pub number: u8,
    pub peer_spi: Spi,
    pub local_ts: Vec<TrafficSelector>,
    pub remote_ts: Vec<TrafficSelector>,
    /// The peer takes no padding that hides lengths (RFC 7296 section 1.3.1).
    pub no_tfc: bool,
    /// The peer would take other selectors too, in an SA of their own (RFC 7296 section 2.9).
    pub more: bool,
    /// One of several SAs with the same selectors (RFC 9611).
    pub per_resource: bool,
}

/// The name, SPI and keys of a new Child SA on our side.
pub(super) struct Making {
    pub id: SaId,
    pub spi: Spi,
    pub inbound_key: KeyMaterial,
    pub outbound_key: KeyMaterial,
    pub replaces: Option<SaId>,
}

/// The configured children in the order in which they are tried: `preferred` before others, and what
/// allows transport mode, if that is wanted, before falling back to tunnels (RFC 7296 section 2.23.1).
fn candidates<'a>(ike: &'a IkeSa, preferred: Option<&str>, transport: bool) -> Vec<&'a Child> {
    let mut children: Vec<&Child> = ike.connection.children.iter().collect();
    children.retain(|child| transport || child.mode == Mode::Tunnel);
    children.sort_by_key(|child| {
        let tunnel = child.mode == Mode::Tunnel;
        (tunnel, preferred != Some(child.name.as_str()))
    });
    children
}

/// As responder: the first configured child that both its selectors and its algorithms allow.
/// `replaced` is the Child SA that is being rekeyed.
pub(super) fn choose(
    ike: &IkeSa,
    contents: &Contents<'_>,
    replaced: Option<SaId>,
    ask: Ask,
) -> Result<Terms, NotifyKind> {
    let preferred = replaced
        .and_then(|id| ike.child(id))
        .map(|child| child.name.as_str());
    let (Some(proposals), Some(tsi), Some(tsr)) = (
        contents.proposals,
        contents.ts_initiator,
        contents.ts_responder,
    ) else {
        // RFC 7296 section 2.21.2: beside an IKE SA that stands it would say that it does not.
        return Err(match ask {
            Ask::First => NotifyKind::NO_PROPOSAL_CHOSEN,
            Ask::Create => NotifyKind::INVALID_SYNTAX,
        });
    };
    let mut refusal = NotifyKind::TS_UNACCEPTABLE;
    let moving = ike.proven != ike.path.remote.ip() && ike.wants_routability();
    if moving && ends::asks_for_address(&ike.connection) {
        // It has to show first that it is where it says: soon.
        return Err(NotifyKind::TEMPORARY_FAILURE);
    }
    let (ends, seen) = (Ends::of(ike), nat::seen(ike.nat, ike.path, tsr, tsi));
    let transport = contents.has(NotifyKind::USE_TRANSPORT_MODE);
    for child in candidates(ike, preferred, transport) {
        let resolved = ends.resolve(child);
        let (tsr, tsi) = match child.mode {
            Mode::Transport => (seen.0.as_slice(), seen.1.as_slice()),
            Mode::Tunnel => (tsr, tsi),
        };
        let mut local_ts = narrow(&resolved.local_ts, tsr);
        let mut remote_ts = narrow(&resolved.remote_ts, tsi);
        if local_ts.is_empty() || remote_ts.is_empty() {
            continue;
        }
        let most = narrow::most(&resolved).min(narrow::room(ike, replaced));
        let Some(clipped) = narrow::clip(&mut local_ts, &mut remote_ts, most) else {
            refusal = NotifyKind::NO_ADDITIONAL_SAS;
            continue;
        };
        let chosen = select_esp(&child.esp_proposals, proposals, ask);
        let Some((theirs, proposal)) = chosen else {
            refusal = NotifyKind::NO_PROPOSAL_CHOSEN;
            continue;
        };
        let per_resource = resource::asked(child, contents);
        if per_resource && preferred.is_none() && resource::is_full(ike, &child.name) {
            return Err(NotifyKind::TS_MAX_QUEUE);
        }
        let narrowed = (local_ts.as_slice(), remote_ts.as_slice());
        let more = clipped || takes_more(ike, &ends, child, (tsr, tsi), narrowed);
        return Ok(Terms {
            name: child.name.clone(),
            mode: child.mode,
            proposal,
            number: theirs.number,
            peer_spi: theirs.esp_spi().ok_or(NotifyKind::NO_PROPOSAL_CHOSEN)?,
            local_ts,
            remote_ts,
            no_tfc: contents.has(NotifyKind::ESP_TFC_PADDING_NOT_SUPPORTED),
            more,
            per_resource,
        });
    }
    Err(refusal)
}

/// Whether another child would take more of what the peer asks for than this one leaves of it:
/// "the responder ... narrowed ... but other Traffic Selectors would also have been acceptable,
/// though only in a separate SA" (RFC 7296 section 2.9).
fn takes_more(
    ike: &IkeSa,
    ends: &Ends,
    chosen: &Child,
    (tsr, tsi): (&[TrafficSelector], &[TrafficSelector]),
    (local_ts, remote_ts): (&[TrafficSelector], &[TrafficSelector]),
) -> bool {
    let others = ike.connection.children.iter();
    let mut others = others.filter(|c| c.name != chosen.name && c.mode == Mode::Tunnel);
    others.any(|other| {
        let other = ends.resolve(other);
        let local = narrow(&other.local_ts, tsr);
        let remote = narrow(&other.remote_ts, tsi);
        let covered = within(&local, local_ts) && within(&remote, remote_ts);
        !local.is_empty() && !remote.is_empty() && !covered
    })
}

/// As initiator: whether the answer is one that we offered. `offered` has the selectors of the offer.
pub(super) fn accept(
    ike: &IkeSa,
    offered: &Child,
    contents: &Contents<'_>,
    ask: Ask,
) -> Result<Terms, &'static str> {
    let (Some(proposals), Some(tsi), Some(tsr)) = (
        contents.proposals,
        contents.ts_initiator,
        contents.ts_responder,
    ) else {
        return Err("answer without proposal or traffic selectors");
    };
    let (theirs, proposal) = accepted_esp(&offered.esp_proposals, proposals, ask)
        .ok_or("answer with a proposal that was not offered")?;
    let peer_spi = theirs.esp_spi().ok_or("answer without SPI")?;
    // RFC 7296 section 1.3.1: without the notification in the answer it is tunnel mode.
    let transport = contents.has(NotifyKind::USE_TRANSPORT_MODE);
    if transport != (offered.mode == Mode::Transport) {
        return Err("the peer wants another mode");
    }
    let (tsi, tsr) = match transport {
        true => nat::seen(ike.nat, ike.path, tsi, tsr),
        false => (tsi.to_vec(), tsr.to_vec()),
    };
    if !within(&tsi, &offered.local_ts) || !within(&tsr, &offered.remote_ts) {
        return Err("answer with traffic selectors that were not offered");
    }
    // Where the offer left an address open (RFC 7296 section 2.19), it is known now.
    let resolved = Ends::of(ike).resolve(offered);
    let local_ts = narrow(&resolved.local_ts, &tsi);
    let remote_ts = narrow(&resolved.remote_ts, &tsr);
    if local_ts.is_empty() || remote_ts.is_empty() {
        return Err("answer without the virtual address");
    }
    if !narrow::fits(&local_ts, &remote_ts, narrow::most(&resolved)) {
        return Err("answer with too many traffic selectors");
    }
    Ok(Terms {
        name: offered.name.clone(),
        mode: offered.mode,
        proposal,
        number: theirs.number,
        peer_spi,
        local_ts,
        remote_ts,
        no_tfc: contents.has(NotifyKind::ESP_TFC_PADDING_NOT_SUPPORTED),
        more: contents.has(NotifyKind::ADDITIONAL_TS_POSSIBLE),
        per_resource: resource::asked(offered, contents),
    })
}

/// SA, TSi, TSr and notifications of our offer.
pub(super) fn offer(child: &Child, spi: Spi, ask: Ask) -> Vec<Payload> {
    let mut payloads = vec![
        Payload::SecurityAssociation(EspProposal::offer(&child.esp_proposals, spi, ask)),
        Payload::TsInitiator(child.local_ts.clone()),
        Payload::TsResponder(child.remote_ts.clone()),
    ];
    if child.mode == Mode::Transport {
        payloads.push(Payload::notify(NotifyKind::USE_TRANSPORT_MODE, &[]));
    }
    payloads.extend((child.per_cpu_sas > 0).then(resource::info));
    payloads
}

/// SA, TSi, TSr and notifications of our answer.
pub(super) fn answer(terms: &Terms, spi: Spi, ask: Ask) -> Vec<Payload> {
    let chosen = terms.proposal.to_proposal(terms.number, spi, ask);
    let mut payloads = vec![
        Payload::SecurityAssociation(vec![chosen]),
        Payload::TsInitiator(terms.remote_ts.clone()),
        Payload::TsResponder(terms.local_ts.clone()),
    ];
    if terms.mode == Mode::Transport {
        payloads.push(Payload::notify(NotifyKind::USE_TRANSPORT_MODE, &[]));
    }
    payloads.extend(terms.per_resource.then(resource::info));
    if terms.more {
        payloads.push(Payload::notify(NotifyKind::ADDITIONAL_TS_POSSIBLE, &[]));
    }
    payloads
}

/// Gives a new Child SA to the dataplane. A responder of a rekey does not send yet.
pub(super) fn install(
    ike: &mut IkeSa,
    turn: &mut Turn<'_>,
    terms: Terms,
    making: Making,
    sending: bool,
) {
    let config = ike
        .connection
        .children
        .iter()
        .find(|c| c.name == terms.name);
    let replay_window = config.map_or(64, |c| c.replay_window);
    let rekey_at = config.and_then(|c| lifetimes::child_rekey_at(c, turn));
    let life_at = config.and_then(|c| lifetimes::child_life_at(c, turn));
    let limits = config.map_or_else(Limits::default, |c| Limits::draw(c, turn));
    let purpose = config.map(Purpose::of_child);
    let mut options = options(config, ike.nat, terms.no_tfc);
    options.resource = resource::of(ike, &terms, making.replaces);
    let sa = Arc::new(ChildSa {
        id: making.id,
        mode: terms.mode,
        inbound_spi: making.spi,
        outbound_spi: terms.peer_spi,
        suite: terms.proposal.suite,
        esn: terms.proposal.esn,
        inbound_key: making.inbound_key,
        outbound_key: making.outbound_key,
        local: ike.path.local.ip(),
        remote: ike.path.remote.ip(),
        encapsulation: ike.nat.encapsulation(ike.path),
        local_ts: terms.local_ts,
        remote_ts: terms.remote_ts,
        replay_window,
        options,
    });
    turn.dirty = true;
    turn.changes.push(ChildChange::Install {
        child: sa.clone(),
        connection: ike.connection.name.clone(),
        name: terms.name.clone(),
        send: sending,
    });
    ike.children.push(Installed {
        sa,
        name: terms.name,
        purpose,
        state: ChildState::Installed,
        sending,
        no_tfc: terms.no_tfc,
        replaced_by: None,
        installed: turn.now,
        rekey_at,
        life_at,
        limits,
        closing: None,
    });
}

/// How a Child SA treats packets: what the configuration says, as far as the peer and the way allow.
pub(super) fn options(config: Option<&Child>, nat: Nat, no_tfc: bool) -> SaOptions {
    let mut options = config.map(|c| c.options).unwrap_or_default();
    if no_tfc {
        options.padding = TfcPadding::None;
    }
    // RFC 3948 section 4: whoever is behind a NAT keeps the mapping alive.
    if nat.local && options.keepalive.is_none() {
        options.keepalive = Some(nat::KEEPALIVE);
    }
    options
}

/// Why a child that we asked for is not up, and what to do about it.
pub(super) fn refusal(name: &str, kind: NotifyKind) -> String {
    let advice = match kind {
        // RFC 7296 section 2.9: "only willing to accept ... a single pair of addresses".
        NotifyKind::SINGLE_PAIR_REQUIRED => {
            ": give it one address in local_ts and one in remote_ts, and each pair a child"
        }
        NotifyKind::TS_MAX_QUEUE => ": the peer has as many SAs for it as it wants",
        _ => "",
    };
    format!("child `{name}`: {kind}{advice}")
}

/// Moves outbound traffic to a Child SA that so far only received.
pub(super) fn send_on(ike: &mut IkeSa, turn: &mut Turn<'_>, id: SaId) {
    if let Some(child) = ike.child_mut(id)
        && !child.sending
        && child.state != ChildState::Deleting
    {
        child.sending = true;
        turn.dirty = true;
        turn.changes.push(ChildChange::Send(id));
    }
}

/// Ends a Child SA. Its successor, if any, takes over the outbound traffic first.
pub(super) fn remove(ike: &mut IkeSa, turn: &mut Turn<'_>, id: SaId) {
    let Some(successor) = ike.child(id).map(|c| c.replaced_by) else {
        return;
    };
    if let Some(successor) = successor {
        send_on(ike, turn, successor);
    }
    let Some(position) = ike.children.iter().position(|c| c.sa.id == id) else {
        return;
    };
    let child = ike.children.remove(position);
    turn.ids.release(child.sa.inbound_spi);
    turn.dirty = true;
    turn.changes.push(ChildChange::Remove(id));
    turn.events.push(Event::ChildDeleted {
        ike: ike.local_spi,
        sa: id,
        child: child.name.clone(),
    });
    if !child.stays_closed() {
        turn.effects.push(Effect::Lost(child.name));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selectors(list: &[&str]) -> Vec<TrafficSelector> {
        list.iter().map(|s| s.parse().unwrap()).collect()
    }

    #[test]
    fn the_responder_narrows_to_what_both_allow_rfc7296_2_9() {
        let ours = selectors(&["10.1.0.0/16", "10.2.0.0/16"]);
        let theirs = selectors(&["10.1.2.0/24", "10.0.0.0/8"]);
        assert_eq!(
            narrow(&ours, &theirs),
            selectors(&["10.1.2.0/24", "10.1.0.0/16", "10.2.0.0/16"])
        );
        assert!(narrow(&ours, &selectors(&["10.3.0.0/16", "fd00::/8"])).is_empty());
    }

    #[test]
    fn the_initiator_takes_only_a_part_of_its_offer_rfc7296_2_9() {
        let ours = selectors(&["10.1.0.0/16"]);
        assert!(within(&selectors(&["10.1.2.0/24"]), &ours));
        assert!(!within(&selectors(&["10.1.2.0/24", "10.0.0.0/8"]), &ours));
        assert!(!within(&[], &ours));
    }
}

//! The IKE SA itself.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use hitless_sa::{IkeSpi, Instant, MessageId};

use super::child::{child, child_record};
use super::followup::{half_made, half_made_record};
use super::pending::{pending_record, scheduled, task_record};
use super::record::{AnsweredRecord, IkeRecord, OwedRecord, ProbeRecord, SyncRecord};
use super::window::{requests, requests_record, window, window_record};
use super::{FORMAT, ImportError, after, ago, before, collect, roads, until};
use crate::ike::auth::Authenticated;
use crate::ike::counter_sync::{AnsweredSync, CounterSync, MessageIdSync};
use crate::ike::established::{Birth, IkeSa, State};
use crate::ike::fragments::Fragmenting;
use crate::ike::governor::Owed;
use crate::ike::keys::IkeKeys;
use crate::ike::nat::{Nat, Path};
use crate::ike::output::Resume;
use crate::ike::probe::Probe;
use crate::ike::proposal::Identification;
use crate::ike::purpose::Purpose;
use crate::ike::sessions::SessionState;
use crate::ike::settings::Connection;

pub(super) fn to_record(ike: &IkeSa, now: Instant) -> IkeRecord {
    let (state, delete_in) = match ike.state {
        State::Established => (0, None),
        State::Rekeyed { delete_at } => (1, Some(until(now, delete_at))),
        State::Deleting | State::Gone => (2, None),
    };
    IkeRecord {
        format: FORMAT,
        connection: ike.connection.name.clone(),
        unique: ike.unique,
        initiator: ike.initiator,
        local_spi: ike.local_spi.0,
        remote_spi: ike.remote_spi.0,
        proposal: ike.proposal.to_string(),
        keys: ike.keys.export().to_vec(),
        local: ike.path.local.to_string(),
        remote: ike.path.remote.to_string(),
        proven: (ike.proven != ike.path.remote.ip()).then(|| ike.proven.to_string()),
        nat_local: ike.nat.local,
        nat_remote: ike.nat.remote,
        nat_forced: ike.nat.forced,
        local_id: ike.local_id.to_body(),
        remote_id: ike.remote_id.to_body(),
        message_id_sync: ike.message_id_sync,
        replay_counter_sync: ike.replay_counter_sync,
        window: Some(window_record(&ike.window)),
        pending: ike.pending.values().next().map(pending_record),
        requests: requests_record(ike),
        queue: ike.queue.iter().map(|s| task_record(s, now)).collect(),
        sync: ike.sync.as_ref().map(sync_record),
        answered_sync: ike.answered_sync.as_ref().map(answered_record),
        probing: ike.probe.is_some(),
        probe: ike
            .probe
            .iter()
            .flat_map(|p| &p.sent)
            .map(probe_record)
            .collect(),
        accept_jump: ike.accept_jump,
        owed: ike.owed.map(owed_record),
        children: ike.children.iter().map(|c| child_record(c, now)).collect(),
        state,
        delete_in,
        established_ago: ago(now, ike.established),
        heard_ago: ago(now, ike.heard),
        rekey_in: ike.rekey_at.map(|at| until(now, at)),
        predecessor: ike.predecessor.map(|spi| spi.0),
        successors: ike.successors.iter().map(|spi| spi.0).collect(),
        forget_in: ike.forget_at.map(|at| until(now, at)),
        terminated: ike.terminated,
        undecided: ike.undecided,
        addresses: roads::internal_record(&ike.addresses),
        mobike: ike.mobike.as_ref().map(roads::mobike_record),
        mapping: ike.mapping.clone(),
        fragmentation: ike.fragmenting.negotiated,
        fragment_size: ike.fragmenting.size.into(),
        half_made: ike
            .half_made
            .iter()
            .map(|h| half_made_record(h, now))
            .collect(),
        grave: None,
        purpose: Purpose::record(ike.purpose),
        addressed: Purpose::record(ike.addressed),
        authenticated: Some(ike.authenticated.to_record(now)),
        session: Some(ike.session.to_record(now)),
        redirectable: ike.redirectable,
        redirected_to: ike.redirected_to.map(|to| to.to_string()),
    }
}

pub(super) fn from_record(
    record: &IkeRecord,
    connection: Arc<Connection>,
    now: Instant,
) -> Result<IkeSa, ImportError> {
    let birth = birth(record, connection)?;
    let rekey_at = record.rekey_in.map(|until| after(now, until));
    let mut ike = IkeSa::with(
        birth,
        record.unique,
        before(now, record.established_ago),
        rekey_at,
    );
    ike.heard = before(now, record.heard_ago);
    ike.purpose = Purpose::recorded(record.purpose);
    ike.addressed = Purpose::recorded(record.addressed);
    ike.state = match (record.state, record.delete_in) {
        (0, _) => State::Established,
        (1, Some(until)) => State::Rekeyed {
            delete_at: after(now, until),
        },
        (2, _) => State::Deleting,
        _ => return Err(ImportError::Field("state")),
    };
    requests(record, &mut ike, now)?;
    ike.queue = collect(&record.queue, |t| scheduled(t, now))?;
    ike.sync = record.sync.as_ref().map(|s| sync(s, now)).transpose()?;
    ike.answered_sync = record.answered_sync.as_ref().map(|a| AnsweredSync {
        request: a.request.clone(),
        response: a.response.clone(),
        send: MessageId(a.send),
        expected: MessageId(a.expected),
    });
    ike.probe = record.probing.then(|| {
        let sent = record
            .probe
            .iter()
            .map(|p| (MessageId(p.id), p.bytes.clone()));
        Probe::resumed(now, sent.collect())
    });
    ike.accept_jump = record.accept_jump;
    ike.owed = record.owed.as_ref().map(|o| owed(o, &ike));
    ike.half_made = collect(&record.half_made, |h| half_made(h, now))?;
    ike.children = collect(&record.children, |c| child(c, &ike, now))?;
    ike.predecessor = record.predecessor.map(IkeSpi);
    ike.successors = record.successors.iter().copied().map(IkeSpi).collect();
    ike.forget_at = record.forget_in.map(|until| after(now, until));
    ike.terminated = record.terminated;
    ike.undecided = record.undecided;
    if let Some(proven) = &record.proven {
        let proven = proven.parse();
        ike.proven = proven.map_err(|_| ImportError::Field("proven"))?;
    }
    ike.addresses = roads::internal(record.addresses.as_ref())?;
    ike.mobike = record.mobike.as_ref().map(roads::mobike).transpose()?;
    ike.mapping.clone_from(&record.mapping);
    ike.authenticated = Authenticated::from_record(record.authenticated.as_ref(), now);
    ike.redirectable = record.redirectable;
    ike.redirected_to = record.redirected_to.as_deref().map(gateway).transpose()?;
    ike.session = SessionState::from_record(record.session.as_ref(), now);
    Ok(ike)
}

fn birth(record: &IkeRecord, connection: Arc<Connection>) -> Result<Birth, ImportError> {
    let proposal = record
        .proposal
        .parse()
        .map_err(|_| ImportError::Field("proposal"))?;
    let keys = IkeKeys::import(&proposal, &record.keys).map_err(|_| ImportError::Field("keys"))?;
    Ok(Birth {
        connection,
        initiator: record.initiator,
        local_spi: IkeSpi(record.local_spi),
        remote_spi: IkeSpi(record.remote_spi),
        proposal,
        keys,
        path: Path {
            local: socket_address(&record.local)?,
            remote: socket_address(&record.remote)?,
        },
        nat: Nat {
            local: record.nat_local,
            remote: record.nat_remote,
            forced: record.nat_forced,
        },
        local_id: identity(&record.local_id)?,
        remote_id: identity(&record.remote_id)?,
        message_id_sync: record.message_id_sync,
        replay_counter_sync: record.replay_counter_sync,
        fragmenting: Fragmenting {
            negotiated: record.fragmentation,
            size: u16::try_from(record.fragment_size)
                .map_err(|_| ImportError::Field("fragment size"))?,
        },
        window: window(record.window.as_ref().ok_or(ImportError::Field("window"))?)?,
    })
}

fn socket_address(text: &str) -> Result<SocketAddr, ImportError> {
    text.parse().map_err(|_| ImportError::Field("address"))
}

fn identity(body: &[u8]) -> Result<Identification, ImportError> {
    body.split_first_chunk::<4>()
        .and_then(|(head, data)| Identification::from_wire(head[0], data))
        .ok_or(ImportError::Field("identity"))
}

fn sync_record(sync: &CounterSync) -> SyncRecord {
    SyncRecord {
        nonce: sync.values.nonce.to_vec(),
        send: sync.values.send.0,
        receive: sync.values.receive.0,
        delta: sync.delta,
        bytes: sync.bytes.clone(),
    }
}

fn sync(record: &SyncRecord, now: Instant) -> Result<CounterSync, ImportError> {
    let nonce = record.nonce.as_slice().try_into();
    Ok(CounterSync {
        values: MessageIdSync {
            nonce: nonce.map_err(|_| ImportError::Field("nonce"))?,
            send: MessageId(record.send),
            receive: MessageId(record.receive),
        },
        delta: record.delta,
        bytes: record.bytes.clone(),
        sent: 0,
        rounds: 0,
        resend_at: now,
    })
}

fn answered_record(answered: &AnsweredSync) -> AnsweredRecord {
    AnsweredRecord {
        request: answered.request.clone(),
        response: answered.response.clone(),
        send: answered.send.0,
        expected: answered.expected.0,
    }
}

fn owed_record(owed: Owed) -> OwedRecord {
    let (probe, delta) = match owed.how {
        Resume::MessageIdSync { replay_delta } => (false, replay_delta),
        _ => (true, None),
    };
    OwedRecord { probe, delta }
}

fn owed(record: &OwedRecord, ike: &IkeSa) -> Owed {
    Owed {
        how: match record.probe {
            true => Resume::Probe,
            false => Resume::MessageIdSync {
                replay_delta: record.delta,
            },
        },
        needed: !ike.window.outstanding.is_empty(),
    }
}

fn probe_record((id, bytes): &(MessageId, Vec<u8>)) -> ProbeRecord {
    ProbeRecord {
        id: id.0,
        bytes: bytes.clone(),
    }
}

/// The address of a gateway that a client goes to.
pub(super) fn gateway(text: &str) -> Result<IpAddr, ImportError> {
    text.parse().map_err(|_| ImportError::Field("redirect"))
}

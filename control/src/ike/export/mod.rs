//! An established IKE SA as a record, and back.
//!
//! The record is prost (protobuf), so that versions of the software can differ by fields. Times are
//! relative to the moment of export or import: clocks of members are never compared. `record.rs`
//! has the encoding, this file its meaning.

mod record;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hitless_sa::{
    ChildSa, EspSuite, IkeSpi, Incarnation, Instant, KeyMaterial, MemberId, MessageId, Mode, SaId,
    Spi, TrafficSelector,
};
use prost::Message;
use zeroize::Zeroizing;

use self::record::{
    AnsweredRecord, ChildRecord, CollisionRecord, IkeRecord, OfferRecord, PendingRecord,
    ProbeRecord, SaIdRecord, SelectorRecord, SyncRecord, TaskRecord, WindowRecord,
};
use super::child::{ChildState, Installed};
use super::counter_sync::{AnsweredSync, CounterSync, MessageIdSync};
use super::create::{ChildOffer, Collision};
use super::crypto::kex::KeyPair;
use super::established::{Birth, IkeSa, Pending, Scheduled, State, Task};
use super::keys::IkeKeys;
use super::nat::{Nat, Path};
use super::output::Record;
use super::probe::Probe;
use super::proposal::{Identification, KeyExchangeMethod};
use super::rekey::{IkeCollision, IkeOffer};
use super::settings::Connection;
use super::turn::Ids;
use super::window::{Outstanding, Response, Window};

/// Raised when a field changes its meaning; new fields do not raise it.
const FORMAT: u32 = 1;

/// Why a record cannot be used.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ImportError {
    /// Not an encoding at all.
    Encoding,
    /// Written by a version that means other things by it.
    Format(u32),
    /// A field is missing or makes no sense.
    Field(&'static str),
    /// The configuration of this member has no such connection.
    UnknownConnection(String),
    /// The record is of this IKE SA and not of the one it was given for.
    OtherIkeSa(IkeSpi),
}

impl fmt::Display for ImportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ImportError::Encoding => write!(f, "the IKE SA record is damaged"),
            ImportError::Format(format) => {
                write!(f, "IKE SA record of format {format}; update this member")
            }
            ImportError::Field(field) => write!(f, "IKE SA record with a bad `{field}`"),
            ImportError::UnknownConnection(name) => {
                write!(
                    f,
                    "no connection `{name}` here; give all members the same configuration"
                )
            }
            ImportError::OtherIkeSa(spi) => write!(f, "the record is of IKE SA {spi}"),
        }
    }
}

impl std::error::Error for ImportError {}

/// The record of an IKE SA as it is now.
pub(super) fn export(ike: &IkeSa, now: Instant) -> Record {
    let record = Zeroizing::new(to_record(ike, now));
    let mut body = Zeroizing::new(Vec::with_capacity(record.encoded_len()));
    body.extend_from_slice(&Zeroizing::new(record.encode_to_vec()));
    let mut children: Vec<SaId> = ike.children.iter().map(|c| c.sa.id).collect();
    if let Some(Pending::CreateChild(offer)) = &ike.pending {
        children.push(offer.id);
    }
    Record { body, children }
}

/// The IKE SA of a record.
pub(super) fn import(
    now: Instant,
    connections: &[Arc<Connection>],
    ids: &mut Ids,
    body: &[u8],
) -> Result<IkeSa, ImportError> {
    let record = IkeRecord::decode(body).map_err(|_| ImportError::Encoding)?;
    let record = Zeroizing::new(record);
    if record.format != FORMAT {
        return Err(ImportError::Format(record.format));
    }
    let connection = connections
        .iter()
        .find(|c| c.name == record.connection)
        .ok_or_else(|| ImportError::UnknownConnection(record.connection.clone()))?;
    let ike = from_record(&record, connection.clone(), now)?;
    for child in &ike.children {
        ids.occupy(child.sa.inbound_spi);
    }
    if let Some(Pending::CreateChild(offer)) = &ike.pending {
        ids.occupy(offer.spi);
    }
    Ok(ike)
}

/// The stored IKE SAs that a new leader goes on with. A rekeying of an IKE SA leaves as two records;
/// of one that the old leader did not finish only the first may be here, and then the exchange is
/// done again, and the successor that came of it is given back apart: nobody else knows it.
pub(super) fn reconcile(passive: BTreeMap<IkeSpi, IkeSa>) -> (Vec<IkeSa>, Vec<IkeSa>) {
    let acknowledged: BTreeSet<(IkeSpi, IkeSpi)> = passive
        .values()
        .flat_map(|ike| ike.successors.iter().map(|s| (ike.local_spi, *s)))
        .collect();
    let known: BTreeSet<IkeSpi> = passive.keys().copied().collect();
    let mut taken = BTreeSet::new();
    let (mut kept, mut unborn) = (Vec::new(), Vec::new());
    for ike in passive.into_values() {
        let unfinished = ike.predecessor.is_some_and(|old| {
            known.contains(&old) && !acknowledged.contains(&(old, ike.local_spi))
        });
        if unfinished {
            unborn.push(ike);
        } else {
            kept.push(ike);
        }
    }
    // A successor has inherited what its predecessor's older record still shows.
    let by_age = |ike: &IkeSa| ike.successors.is_empty();
    for successor in kept.iter().filter(|ike| by_age(ike)) {
        taken.extend(successor.children.iter().map(|c| c.sa.id));
    }
    for ike in kept.iter_mut().filter(|ike| !ike.successors.is_empty()) {
        ike.children.retain(|c| !taken.contains(&c.sa.id));
    }
    (kept, unborn)
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn ago(now: Instant, at: Instant) -> u64 {
    nanoseconds(now.since(at))
}

fn until(now: Instant, at: Instant) -> u64 {
    nanoseconds(at.since(now))
}

fn before(now: Instant, ago: u64) -> Instant {
    now.saturating_sub(Duration::from_nanos(ago))
}

fn after(now: Instant, until: u64) -> Instant {
    now + Duration::from_nanos(until)
}

fn to_record(ike: &IkeSa, now: Instant) -> IkeRecord {
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
        nat_local: ike.nat.local,
        nat_remote: ike.nat.remote,
        nat_forced: ike.nat.forced,
        local_id: ike.local_id.to_body(),
        remote_id: ike.remote_id.to_body(),
        message_id_sync: ike.message_id_sync,
        replay_counter_sync: ike.replay_counter_sync,
        window: Some(window_record(&ike.window)),
        pending: ike.pending.as_ref().map(pending_record),
        queue: ike.queue.iter().map(|s| task_record(s, now)).collect(),
        sync: ike.sync.as_ref().map(sync_record),
        answered_sync: ike.answered_sync.as_ref().map(|a| AnsweredRecord {
            request: a.request.clone(),
            response: a.response.clone(),
            send: a.send.0,
            expected: a.expected.0,
        }),
        probing: ike.probe.is_some(),
        probe: ike
            .probe
            .iter()
            .flat_map(|p| &p.sent)
            .map(probe_record)
            .collect(),
        accept_jump: ike.accept_jump,
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
    }
}

fn from_record(
    record: &IkeRecord,
    connection: Arc<Connection>,
    now: Instant,
) -> Result<IkeSa, ImportError> {
    let proposal = record
        .proposal
        .parse()
        .map_err(|_| ImportError::Field("proposal"))?;
    let keys = IkeKeys::import(&proposal, &record.keys).map_err(|_| ImportError::Field("keys"))?;
    let birth = Birth {
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
        window: window(
            record.window.as_ref().ok_or(ImportError::Field("window"))?,
            now,
        ),
    };
    let rekey_at = record.rekey_in.map(|until| after(now, until));
    let mut ike = IkeSa::with(
        birth,
        record.unique,
        before(now, record.established_ago),
        rekey_at,
    );
    ike.heard = before(now, record.heard_ago);
    ike.state = match (record.state, record.delete_in) {
        (0, _) => State::Established,
        (1, Some(until)) => State::Rekeyed {
            delete_at: after(now, until),
        },
        (2, _) => State::Deleting,
        _ => return Err(ImportError::Field("state")),
    };
    ike.pending = record.pending.as_ref().map(pending).transpose()?;
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
    ike.children = collect(&record.children, |c| child(c, now))?;
    ike.predecessor = record.predecessor.map(IkeSpi);
    ike.successors = record.successors.iter().copied().map(IkeSpi).collect();
    ike.forget_at = record.forget_in.map(|until| after(now, until));
    ike.terminated = record.terminated;
    ike.undecided = record.undecided;
    if ike.pending.is_some() != ike.window.outstanding.is_some() {
        return Err(ImportError::Field("pending"));
    }
    Ok(ike)
}

fn collect<A, B>(
    records: &[A],
    convert: impl Fn(&A) -> Result<B, ImportError>,
) -> Result<Vec<B>, ImportError> {
    records.iter().map(convert).collect()
}

fn socket_address(text: &str) -> Result<SocketAddr, ImportError> {
    text.parse().map_err(|_| ImportError::Field("address"))
}

fn identity(body: &[u8]) -> Result<Identification, ImportError> {
    body.split_first_chunk::<4>()
        .and_then(|(head, data)| Identification::from_wire(head[0], data))
        .ok_or(ImportError::Field("identity"))
}

fn window_record(window: &Window) -> WindowRecord {
    WindowRecord {
        next_request: window.next_request.0,
        expected: window.expected.0,
        peer_window: window.peer_window,
        response_id: window.response.as_ref().map(|r| r.id.0),
        response: window
            .response
            .as_ref()
            .map_or_else(Vec::new, |r| r.bytes.clone()),
        outstanding_id: window.outstanding.as_ref().map(|o| o.id.0),
        outstanding: window
            .outstanding
            .as_ref()
            .map_or_else(Vec::new, |o| o.bytes.clone()),
    }
}

fn window(record: &WindowRecord, now: Instant) -> Window {
    let mut window = Window::new(MessageId(record.next_request), MessageId(record.expected));
    window.peer_window = record.peer_window;
    window.response = record.response_id.map(|id| Response {
        id: MessageId(id),
        bytes: record.response.clone(),
    });
    window.outstanding = record.outstanding_id.map(|id| Outstanding {
        id: MessageId(id),
        bytes: record.outstanding.clone(),
        sent: 0,
        resend_at: now,
    });
    window
}

fn sa_id_record(id: SaId) -> SaIdRecord {
    SaIdRecord {
        creator: id.creator.0.into(),
        incarnation: id.incarnation.0,
        counter: id.counter,
    }
}

fn sa_id(record: &SaIdRecord) -> Result<SaId, ImportError> {
    Ok(SaId {
        creator: MemberId(u8::try_from(record.creator).map_err(|_| ImportError::Field("SA"))?),
        incarnation: Incarnation(record.incarnation),
        counter: record.counter,
    })
}

fn task_record(scheduled: &Scheduled, now: Instant) -> TaskRecord {
    let mut record = TaskRecord {
        due_in: until(now, scheduled.at),
        ..TaskRecord::default()
    };
    match &scheduled.task {
        Task::CreateChild(name) => {
            record.kind = 1;
            record.child = name.clone();
        }
        Task::RekeyChild(id) => {
            record.kind = 2;
            record.sa = Some(sa_id_record(*id));
        }
        Task::RekeyIke => record.kind = 3,
        Task::DeleteChild(id) => {
            record.kind = 4;
            record.sa = Some(sa_id_record(*id));
        }
        Task::DeleteSpi(spi) => {
            record.kind = 5;
            record.spi = spi.0;
        }
        Task::DeleteIke => record.kind = 6,
        Task::Liveness => record.kind = 7,
    }
    record
}

fn scheduled(record: &TaskRecord, now: Instant) -> Result<Scheduled, ImportError> {
    let sa = record.sa.as_ref().map(sa_id).transpose()?;
    let task = match (record.kind, sa) {
        (1, _) => Task::CreateChild(record.child.clone()),
        (2, Some(id)) => Task::RekeyChild(id),
        (3, _) => Task::RekeyIke,
        (4, Some(id)) => Task::DeleteChild(id),
        (5, _) => Task::DeleteSpi(Spi(record.spi)),
        (6, _) => Task::DeleteIke,
        (7, _) => Task::Liveness,
        _ => return Err(ImportError::Field("task")),
    };
    Ok(Scheduled {
        at: after(now, record.due_in),
        task,
    })
}

fn offer_record(key: Option<&KeyPair>) -> OfferRecord {
    OfferRecord {
        key_method: key.map(|k| u32::from(k.method().number())),
        key: key.map_or_else(Vec::new, |k| k.export().to_vec()),
        ..OfferRecord::default()
    }
}

fn pending_record(pending: &Pending) -> PendingRecord {
    let mut record = PendingRecord::default();
    match pending {
        Pending::CreateChild(offer) => {
            record.kind = 1;
            record.offer = Some(OfferRecord {
                child: offer.child.clone(),
                id: Some(sa_id_record(offer.id)),
                spi: offer.spi.0.into(),
                nonce: offer.nonce.clone(),
                replaces: offer.replaces.map(sa_id_record),
                retries: offer.retries.into(),
                collision: offer.collision.as_ref().map(|c| CollisionRecord {
                    sa: Some(sa_id_record(c.sa)),
                    ike: 0,
                    lowest: c.lowest.clone(),
                }),
                ..offer_record(offer.key.as_ref())
            });
        }
        Pending::RekeyIke(offer) => {
            record.kind = 2;
            record.offer = Some(OfferRecord {
                spi: offer.spi.0,
                nonce: offer.nonce.clone(),
                retries: offer.retries.into(),
                collision: offer.collision.as_ref().map(|c| CollisionRecord {
                    sa: None,
                    ike: c.ike.0,
                    lowest: c.lowest.clone(),
                }),
                ..offer_record(Some(&offer.key))
            });
        }
        Pending::DeleteChildren(ids) => {
            record.kind = 3;
            record.children = ids.iter().copied().map(sa_id_record).collect();
        }
        Pending::DeleteIke => record.kind = 4,
        Pending::Liveness => record.kind = 5,
    }
    record
}

fn pending(record: &PendingRecord) -> Result<Pending, ImportError> {
    let offer = || record.offer.as_ref().ok_or(ImportError::Field("offer"));
    Ok(match record.kind {
        1 => Pending::CreateChild(child_offer(offer()?)?),
        2 => Pending::RekeyIke(ike_offer(offer()?)?),
        3 => Pending::DeleteChildren(collect(&record.children, sa_id)?),
        4 => Pending::DeleteIke,
        5 => Pending::Liveness,
        _ => return Err(ImportError::Field("pending")),
    })
}

fn key_pair(record: &OfferRecord) -> Result<Option<KeyPair>, ImportError> {
    let Some(number) = record.key_method else {
        return Ok(None);
    };
    let bad = ImportError::Field("key exchange");
    let method = u16::try_from(number)
        .ok()
        .and_then(KeyExchangeMethod::from_number);
    let method = method.ok_or(bad.clone())?;
    KeyPair::import(method, &record.key)
        .map(Some)
        .map_err(|_| bad)
}

fn child_offer(record: &OfferRecord) -> Result<ChildOffer, ImportError> {
    let collision = |c: &CollisionRecord| {
        let sa = c.sa.as_ref().ok_or(ImportError::Field("collision"))?;
        Ok(Collision {
            sa: sa_id(sa)?,
            lowest: c.lowest.clone(),
        })
    };
    Ok(ChildOffer {
        child: record.child.clone(),
        id: sa_id(record.id.as_ref().ok_or(ImportError::Field("offer"))?)?,
        spi: Spi(u32::try_from(record.spi).map_err(|_| ImportError::Field("spi"))?),
        nonce: record.nonce.clone(),
        key: key_pair(record)?,
        replaces: record.replaces.as_ref().map(sa_id).transpose()?,
        collision: record.collision.as_ref().map(collision).transpose()?,
        retries: u8::try_from(record.retries).unwrap_or(u8::MAX),
    })
}

fn ike_offer(record: &OfferRecord) -> Result<IkeOffer, ImportError> {
    Ok(IkeOffer {
        spi: IkeSpi(record.spi),
        nonce: record.nonce.clone(),
        key: key_pair(record)?.ok_or(ImportError::Field("key exchange"))?,
        collision: record.collision.as_ref().map(|c| IkeCollision {
            ike: IkeSpi(c.ike),
            lowest: c.lowest.clone(),
        }),
        retries: u8::try_from(record.retries).unwrap_or(u8::MAX),
    })
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

fn probe_record((id, bytes): &(MessageId, Vec<u8>)) -> ProbeRecord {
    ProbeRecord {
        id: id.0,
        bytes: bytes.clone(),
    }
}

fn selector_record(selector: &TrafficSelector) -> SelectorRecord {
    let octets = |address: IpAddr| match address {
        IpAddr::V4(a) => a.octets().to_vec(),
        IpAddr::V6(a) => a.octets().to_vec(),
    };
    SelectorRecord {
        protocol: selector.protocol.into(),
        start_port: selector.start_port.into(),
        end_port: selector.end_port.into(),
        start: octets(selector.start),
        end: octets(selector.end),
    }
}

fn selector(record: &SelectorRecord) -> Result<TrafficSelector, ImportError> {
    let bad = || ImportError::Field("traffic selector");
    let port = |port: u32| u16::try_from(port).map_err(|_| bad());
    Ok(TrafficSelector {
        protocol: u8::try_from(record.protocol).map_err(|_| bad())?,
        start_port: port(record.start_port)?,
        end_port: port(record.end_port)?,
        start: address(&record.start).ok_or_else(bad)?,
        end: address(&record.end).ok_or_else(bad)?,
    })
}

fn address(octets: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(octets).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(octets).map(IpAddr::from))
        .ok()
}

fn child_record(child: &Installed, now: Instant) -> ChildRecord {
    let sa = &child.sa;
    ChildRecord {
        id: Some(sa_id_record(sa.id)),
        name: child.name.clone(),
        transport: sa.mode == Mode::Transport,
        inbound_spi: sa.inbound_spi.0,
        outbound_spi: sa.outbound_spi.0,
        suite: sa.suite.keyword().to_owned(),
        esn: sa.esn,
        inbound_key: sa.inbound_key.expose().to_vec(),
        outbound_key: sa.outbound_key.expose().to_vec(),
        local_ts: sa.local_ts.iter().map(selector_record).collect(),
        remote_ts: sa.remote_ts.iter().map(selector_record).collect(),
        replay_window: sa.replay_window,
        local: sa.local.to_string(),
        remote: sa.remote.to_string(),
        local_port: sa.encapsulation.map(|e| e.local_port.into()),
        remote_port: sa.encapsulation.map(|e| e.remote_port.into()),
        state: match child.state {
            ChildState::Installed => 0,
            ChildState::Rekeying => 1,
            ChildState::Rekeyed => 2,
            ChildState::Deleting => 3,
        },
        sending: child.sending,
        replaced_by: child.replaced_by.map(sa_id_record),
        installed_ago: ago(now, child.installed),
        rekey_in: child.rekey_at.map(|at| until(now, at)),
    }
}

fn child(record: &ChildRecord, now: Instant) -> Result<Installed, ImportError> {
    let bad = ImportError::Field;
    let suite = [EspSuite::Aes128Gcm16, EspSuite::Aes256Gcm16]
        .into_iter()
        .find(|s| s.keyword() == record.suite)
        .ok_or(bad("suite"))?;
    let key = |octets: &[u8]| {
        let fits = octets.len() == suite.key_material_length();
        fits.then(|| KeyMaterial::new(octets)).ok_or(bad("key"))
    };
    let port = |port: u32| u16::try_from(port).map_err(|_| bad("port"));
    let encapsulation = match (record.local_port, record.remote_port) {
        (Some(local), Some(remote)) => Some(hitless_sa::UdpEncapsulation {
            local_port: port(local)?,
            remote_port: port(remote)?,
        }),
        _ => None,
    };
    let sa = ChildSa {
        id: sa_id(record.id.as_ref().ok_or(bad("SA"))?)?,
        mode: if record.transport {
            Mode::Transport
        } else {
            Mode::Tunnel
        },
        inbound_spi: Spi(record.inbound_spi),
        outbound_spi: Spi(record.outbound_spi),
        suite,
        esn: record.esn,
        inbound_key: key(&record.inbound_key)?,
        outbound_key: key(&record.outbound_key)?,
        local: record.local.parse().map_err(|_| bad("address"))?,
        remote: record.remote.parse().map_err(|_| bad("address"))?,
        encapsulation,
        local_ts: collect(&record.local_ts, selector)?,
        remote_ts: collect(&record.remote_ts, selector)?,
        replay_window: record.replay_window,
    };
    Ok(Installed {
        sa: Arc::new(sa),
        name: record.name.clone(),
        state: match record.state {
            0 => ChildState::Installed,
            1 => ChildState::Rekeying,
            2 => ChildState::Rekeyed,
            3 => ChildState::Deleting,
            _ => return Err(bad("state")),
        },
        sending: record.sending,
        replaced_by: record.replaced_by.as_ref().map(sa_id).transpose()?,
        installed: before(now, record.installed_ago),
        rekey_at: record.rekey_in.map(|until| after(now, until)),
    })
}

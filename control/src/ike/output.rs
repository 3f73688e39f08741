//! What the engine gives back.

use std::net::SocketAddr;
use std::sync::Arc;

use hitless_sa::{ChildSa, IkeSpi, SaId};
use zeroize::Zeroizing;

use crate::keylog::KeyLines;

/// A UDP datagram to a peer. The sender puts the non-ESP marker in front when both ports are not
/// 500 (RFC 7296 section 2.23).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Transmit {
    pub local: SocketAddr,
    pub remote: SocketAddr,
    pub payload: Vec<u8>,
}

/// One output of the engine; drain them all after each input.
#[derive(Debug)]
pub enum Output {
    /// Sent at once: it implies no state that a standby would need (IKE_SA_INIT, the first
    /// IKE_AUTH request, stateless answers).
    Transmit(Transmit),
    /// Bytes of an established IKE SA that were committed before, byte for byte. Sent if that
    /// version of it is released, else discarded: whoever waits for it will ask again.
    Retransmit {
        ike: IkeSpi,
        version: u64,
        transmit: Transmit,
    },
    /// An established IKE SA changed.
    Commit(Commit),
    /// For the log, counters and tests.
    Event(Event),
}

/// One change of one established IKE SA: all of it takes effect, or none.
#[derive(Debug)]
pub struct Commit {
    /// The SPI that we chose names the IKE SA in the cluster.
    pub ike: IkeSpi,
    /// Rises with each commit of this IKE SA.
    pub version: u64,
    /// The state that results; `None` when the IKE SA is gone.
    pub record: Option<Record>,
    /// Messages to release once every bound standby has acknowledged the record.
    pub transmits: Vec<Transmit>,
    /// What changes in the dataplane, in order, under the same condition as `transmits`.
    pub changes: Vec<ChildChange>,
}

/// An exported IKE SA.
pub struct Record {
    /// The encoding of `ike::export`; opaque to the sync protocol.
    pub body: Zeroizing<Vec<u8>>,
    /// Every Child SA that the body has the keys of, or the secrets to make them (a pending
    /// CREATE_CHILD_SA): each needs its first lease in the same record. When an IKE SA is rekeyed
    /// its Child SAs appear under the successor, and nothing changes in the dataplane.
    pub children: Vec<SaId>,
}

impl std::fmt::Debug for Record {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "Record({} octets, children {:?})",
            self.body.len(),
            self.children
        )
    }
}

/// What changes for a Child SA.
#[derive(Clone, Debug)]
pub enum ChildChange {
    /// Accept inbound packets; with `send`, use it for outbound packets too. A responder of a
    /// rekey does not send before the initiator has the SA (RFC 7296 section 2.8).
    Install {
        child: Arc<ChildSa>,
        connection: String,
        name: String,
        send: bool,
    },
    /// Move outbound traffic of this child's policies to the SA.
    Send(SaId),
    /// The peer moved (NAT mapping changed): new endpoint and ports for an installed SA.
    Update(Arc<ChildSa>),
    /// Stop using it in both directions and wipe the keys.
    Remove(SaId),
}

/// How a new active member resumes an IKE SA.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Resume {
    /// Message IDs in the record are exact: go on, and retransmit what is outstanding.
    Exact,
    /// RFC 6311 Message ID synchronisation; with a delta also IPSEC_REPLAY_COUNTER_SYNC, if the
    /// peer negotiated it.
    MessageIdSync { replay_delta: Option<u64> },
    /// Empty INFORMATIONALs at the recorded Message ID, the next, and so on until one is answered.
    Probe,
    /// Keep the IKE SA, replace every Child SA.
    Rekey,
}

/// What happened, for log and tests.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    IkeEstablished {
        ike: IkeSpi,
        connection: String,
    },
    /// The peer came back with a ticket (RFC 5723).
    IkeResumed {
        old: IkeSpi,
        new: IkeSpi,
    },
    /// Keys that are past or taken over, for Wireshark; only if the settings ask for them.
    Keys(KeyLines),
    IkeDeleted {
        ike: IkeSpi,
        connection: String,
        reason: String,
    },
    IkeRekeyed {
        old: IkeSpi,
        new: IkeSpi,
    },
    ChildEstablished {
        ike: IkeSpi,
        sa: SaId,
        child: String,
    },
    ChildDeleted {
        ike: IkeSpi,
        sa: SaId,
        child: String,
    },
    ChildRekeyed {
        ike: IkeSpi,
        old: SaId,
        new: SaId,
    },
    MessageIdSyncSent {
        ike: IkeSpi,
    },
    MessageIdSynced {
        ike: IkeSpi,
    },
    /// The peer was asked to leave so many numbers out on every Child SA.
    ReplayCounterSyncSent {
        ike: IkeSpi,
        delta: u64,
    },
    /// The peer asked for a synchronisation, and `delta` is added to the outbound number of each
    /// of these Child SAs (RFC 6311 section 5.2); all of them have extended numbers, or none (R31).
    ReplayCounterSync {
        ike: IkeSpi,
        children: Vec<SaId>,
        delta: u64,
        esn: bool,
    },
    /// IKE and its Child SAs go on between other addresses (RFC 4555, RFC 7296 section 2.23).
    Relocated {
        ike: IkeSpi,
        local: SocketAddr,
        remote: SocketAddr,
    },
    LivenessConfirmed {
        ike: IkeSpi,
    },
    AuthenticationFailed {
        peer: SocketAddr,
        reason: String,
    },
    NegotiationFailed {
        peer: SocketAddr,
        reason: String,
    },
    /// A message that was dropped, and why; counted by `reason`.
    Dropped {
        peer: SocketAddr,
        reason: &'static str,
    },
}

//! The encoding of an IKE SA. Fields are only added; what a number means never changes.

use zeroize::Zeroize;

use crate::ike::auth::AuthenticatedRecord;
use crate::ike::sessions::SessionRecord;

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct IkeRecord {
    #[prost(uint32, tag = "1")]
    pub format: u32,
    #[prost(string, tag = "2")]
    pub connection: String,
    #[prost(uint32, tag = "3")]
    pub unique: u32,
    #[prost(bool, tag = "4")]
    pub initiator: bool,
    #[prost(fixed64, tag = "5")]
    pub local_spi: u64,
    #[prost(fixed64, tag = "6")]
    pub remote_spi: u64,
    #[prost(string, tag = "7")]
    pub proposal: String,
    #[prost(bytes = "vec", tag = "8")]
    pub keys: Vec<u8>,
    #[prost(string, tag = "9")]
    pub local: String,
    #[prost(string, tag = "10")]
    pub remote: String,
    #[prost(bool, tag = "11")]
    pub nat_local: bool,
    #[prost(bool, tag = "12")]
    pub nat_remote: bool,
    #[prost(bool, tag = "13")]
    pub nat_forced: bool,
    #[prost(bytes = "vec", tag = "14")]
    pub local_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "15")]
    pub remote_id: Vec<u8>,
    #[prost(bool, tag = "16")]
    pub message_id_sync: bool,
    #[prost(bool, tag = "17")]
    pub replay_counter_sync: bool,
    #[prost(message, optional, tag = "18")]
    pub window: Option<WindowRecord>,
    #[prost(message, optional, tag = "19")]
    pub pending: Option<PendingRecord>,
    #[prost(message, repeated, tag = "20")]
    pub queue: Vec<TaskRecord>,
    #[prost(message, optional, tag = "21")]
    pub sync: Option<SyncRecord>,
    #[prost(message, optional, tag = "22")]
    pub answered_sync: Option<AnsweredRecord>,
    #[prost(bool, tag = "23")]
    pub probing: bool,
    #[prost(message, repeated, tag = "24")]
    pub probe: Vec<ProbeRecord>,
    #[prost(bool, tag = "25")]
    pub accept_jump: bool,
    #[prost(message, repeated, tag = "26")]
    pub children: Vec<ChildRecord>,
    /// 0 established, 1 rekeyed, 2 deleting.
    #[prost(uint32, tag = "27")]
    pub state: u32,
    #[prost(uint64, optional, tag = "28")]
    pub delete_in: Option<u64>,
    #[prost(uint64, tag = "29")]
    pub established_ago: u64,
    #[prost(uint64, tag = "30")]
    pub heard_ago: u64,
    #[prost(uint64, optional, tag = "31")]
    pub rekey_in: Option<u64>,
    #[prost(fixed64, optional, tag = "32")]
    pub predecessor: Option<u64>,
    #[prost(fixed64, repeated, tag = "33")]
    pub successors: Vec<u64>,
    #[prost(uint64, optional, tag = "34")]
    pub forget_in: Option<u64>,
    #[prost(bool, tag = "35")]
    pub terminated: bool,
    #[prost(bool, tag = "36")]
    pub undecided: bool,
    #[prost(message, optional, tag = "60")]
    pub addresses: Option<InternalRecord>,
    #[prost(message, optional, tag = "61")]
    pub mobike: Option<MobikeRecord>,
    /// RFC 7383 was negotiated.
    #[prost(bool, tag = "50")]
    pub fragmentation: bool,
    /// The longest IP datagram with a fragment; 0 for none.
    #[prost(uint32, tag = "51")]
    pub fragment_size: u32,
    #[prost(message, repeated, tag = "52")]
    pub half_made: Vec<HalfMadeRecord>,
    #[prost(message, optional, tag = "40")]
    pub authenticated: Option<AuthenticatedRecord>,
    /// The IKE SA is no more; only `format`, `local_spi` and this are set.
    #[prost(message, optional, tag = "70")]
    pub grave: Option<GraveRecord>,
    #[prost(message, optional, tag = "100")]
    pub session: Option<SessionRecord>,
    /// RFC 5685: the client can be redirected; and where we were.
    #[prost(bool, tag = "90")]
    pub redirectable: bool,
    #[prost(string, optional, tag = "91")]
    pub redirected_to: Option<String>,
    /// Where the peer has shown that it is, if that is not `remote`.
    #[prost(string, optional, tag = "230")]
    pub proven: Option<String>,
    /// The digest of where the peer sees us behind a NAT.
    #[prost(bytes = "vec", optional, tag = "232")]
    pub mapping: Option<Vec<u8>>,
    /// The peer has not been asked yet where it stands, by this member or one before it.
    #[prost(message, optional, tag = "180")]
    pub owed: Option<OwedRecord>,
    /// Outstanding requests but the first, which is in `window` and `pending`.
    #[prost(message, repeated, tag = "80")]
    pub requests: Vec<RequestRecord>,
    /// What the configuration said of it.
    #[prost(fixed64, tag = "171")]
    pub purpose: u64,
    #[prost(fixed64, tag = "172")]
    pub addressed: u64,
}

/// What the peer is to be asked.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct OwedRecord {
    /// By probes; else by RFC 6311, with this delta.
    #[prost(bool, tag = "1")]
    pub probe: bool,
    #[prost(uint64, optional, tag = "2")]
    pub delta: Option<u64>,
}

/// An outstanding request.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct RequestRecord {
    #[prost(uint32, tag = "1")]
    pub id: u32,
    #[prost(bytes = "vec", tag = "2")]
    pub bytes: Vec<u8>,
    #[prost(message, optional, tag = "3")]
    pub pending: Option<PendingRecord>,
}

/// A response that is kept.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct ResponseRecord {
    #[prost(uint32, tag = "1")]
    pub id: u32,
    #[prost(bytes = "vec", tag = "2")]
    pub bytes: Vec<u8>,
    #[prost(message, optional, tag = "3")]
    pub asked: Option<AskedRecord>,
}

/// What tells a repetition of the request from another one.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct AskedRecord {
    #[prost(bytes = "vec", tag = "1")]
    pub datagram: Vec<u8>,
    #[prost(uint32, tag = "2")]
    pub total: u32,
    #[prost(bytes = "vec", tag = "3")]
    pub content: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct GraveRecord {
    #[prost(bytes = "vec", tag = "1")]
    pub request: Vec<u8>,
    #[prost(message, repeated, tag = "2")]
    pub responses: Vec<TransmitRecord>,
    #[prost(uint64, tag = "3")]
    pub levelled_in: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct TransmitRecord {
    #[prost(string, tag = "1")]
    pub local: String,
    #[prost(string, tag = "2")]
    pub remote: String,
    #[prost(bytes = "vec", tag = "3")]
    pub payload: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct MobikeRecord {
    #[prost(string, repeated, tag = "1")]
    pub others: Vec<String>,
    #[prost(bool, tag = "2")]
    pub both_ways: bool,
    #[prost(message, optional, tag = "3")]
    pub provisional: Option<PathRecord>,
    /// Message IDs of the peer's newest update, and of its newest word of other addresses.
    #[prost(uint32, optional, tag = "248")]
    pub update: Option<u32>,
    #[prost(uint32, optional, tag = "249")]
    pub named: Option<u32>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct PathRecord {
    #[prost(string, tag = "1")]
    pub local: String,
    #[prost(string, tag = "2")]
    pub remote: String,
    #[prost(bool, tag = "3")]
    pub nat_local: bool,
    #[prost(bool, tag = "4")]
    pub nat_remote: bool,
    #[prost(bool, tag = "5")]
    pub nat_forced: bool,
}

/// Virtual addresses, as text.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct InternalRecord {
    #[prost(string, repeated, tag = "1")]
    pub given: Vec<String>,
    #[prost(string, repeated, tag = "2")]
    pub taken: Vec<String>,
    #[prost(string, repeated, tag = "3")]
    pub dns: Vec<String>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct WindowRecord {
    #[prost(uint32, tag = "1")]
    pub next_request: u32,
    #[prost(uint32, tag = "2")]
    pub expected: u32,
    #[prost(uint32, tag = "3")]
    pub peer_window: u32,
    #[prost(uint32, optional, tag = "4")]
    pub response_id: Option<u32>,
    #[prost(bytes = "vec", tag = "5")]
    pub response: Vec<u8>,
    #[prost(uint32, optional, tag = "6")]
    pub outstanding_id: Option<u32>,
    #[prost(bytes = "vec", tag = "7")]
    pub outstanding: Vec<u8>,
    /// The request that `response` answers.
    #[prost(message, optional, tag = "80")]
    pub asked: Option<AskedRecord>,
    /// Responses but the last.
    #[prost(message, repeated, tag = "81")]
    pub responses: Vec<ResponseRecord>,
    /// Message IDs below `expected` that were not received.
    #[prost(uint32, repeated, tag = "82")]
    pub gaps: Vec<u32>,
    /// What we promised the peer; 0 for one.
    #[prost(uint32, tag = "83")]
    pub own: u32,
    #[prost(bool, tag = "84")]
    pub announced: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct SaIdRecord {
    #[prost(uint32, tag = "1")]
    pub creator: u32,
    #[prost(uint32, tag = "2")]
    pub incarnation: u32,
    #[prost(uint32, tag = "3")]
    pub counter: u32,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct PendingRecord {
    /// 1 child, 2 IKE SA, 3 delete children, 4 delete IKE SA, 5 liveness, 60 to 62 of MOBIKE, 80 nothing.
    #[prost(uint32, tag = "1")]
    pub kind: u32,
    #[prost(message, optional, tag = "2")]
    pub offer: Option<OfferRecord>,
    #[prost(message, repeated, tag = "3")]
    pub children: Vec<SaIdRecord>,
    /// Of an update of addresses (kind 60) and a check of routability (61).
    #[prost(message, optional, tag = "60")]
    pub path: Option<PathRecord>,
    #[prost(bytes = "vec", tag = "61")]
    pub cookie: Vec<u8>,
    #[prost(bool, tag = "231")]
    pub copied: bool,
    /// What is told or asked beside the question whether the peer lives (kind 5).
    #[prost(message, optional, tag = "130")]
    pub duty: Option<TaskRecord>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct OfferRecord {
    #[prost(string, tag = "1")]
    pub child: String,
    #[prost(message, optional, tag = "2")]
    pub id: Option<SaIdRecord>,
    #[prost(fixed64, tag = "3")]
    pub spi: u64,
    #[prost(bytes = "vec", tag = "4")]
    pub nonce: Vec<u8>,
    #[prost(uint32, optional, tag = "5")]
    pub key_method: Option<u32>,
    #[prost(bytes = "vec", tag = "6")]
    pub key: Vec<u8>,
    #[prost(message, optional, tag = "7")]
    pub replaces: Option<SaIdRecord>,
    #[prost(message, optional, tag = "8")]
    pub collision: Option<CollisionRecord>,
    #[prost(uint32, tag = "9")]
    pub retries: u32,
    #[prost(message, optional, tag = "50")]
    pub followup: Option<FollowupRecord>,
    /// What it replaces was closed and is gone.
    #[prost(bool, tag = "173")]
    pub terminated: bool,
    /// The same, and may come again.
    #[prost(bool, tag = "174")]
    pub again: bool,
}

/// An initiator's additional key exchanges (RFC 9370).
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct FollowupRecord {
    #[prost(uint32, tag = "1")]
    pub first: u32,
    #[prost(bytes = "vec", tag = "2")]
    pub response: Vec<u8>,
    #[prost(bytes = "vec", tag = "3")]
    pub done: Vec<u8>,
    #[prost(uint32, repeated, tag = "4")]
    pub remaining: Vec<u32>,
    #[prost(uint32, tag = "5")]
    pub key_method: u32,
    #[prost(bytes = "vec", tag = "6")]
    pub key: Vec<u8>,
    #[prost(bytes = "vec", tag = "7")]
    pub link: Vec<u8>,
}

/// A responder's additional key exchanges (RFC 9370): for a Child SA, which has an `id`, or for an
/// IKE SA.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct HalfMadeRecord {
    #[prost(message, optional, tag = "1")]
    pub id: Option<SaIdRecord>,
    #[prost(fixed64, tag = "2")]
    pub spi: u64,
    #[prost(message, optional, tag = "3")]
    pub replaced: Option<SaIdRecord>,
    #[prost(uint32, tag = "4")]
    pub first: u32,
    #[prost(bytes = "vec", tag = "5")]
    pub request: Vec<u8>,
    #[prost(bytes = "vec", tag = "6")]
    pub nonce: Vec<u8>,
    #[prost(bytes = "vec", tag = "7")]
    pub shared: Vec<u8>,
    #[prost(bytes = "vec", tag = "8")]
    pub done: Vec<u8>,
    #[prost(uint32, repeated, tag = "9")]
    pub remaining: Vec<u32>,
    #[prost(bytes = "vec", tag = "10")]
    pub link: Vec<u8>,
    #[prost(uint64, tag = "11")]
    pub until: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct CollisionRecord {
    #[prost(message, optional, tag = "1")]
    pub sa: Option<SaIdRecord>,
    #[prost(fixed64, tag = "2")]
    pub ike: u64,
    #[prost(bytes = "vec", tag = "3")]
    pub lowest: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct TaskRecord {
    /// 1 create child, 2 rekey child, 3 rekey IKE SA, 4 delete child, 5 delete an SPI, 6 delete
    /// IKE SA, 7 liveness, 60 to 62 of MOBIKE, 90 redirect (to the address in `child`).
    #[prost(uint32, tag = "1")]
    pub kind: u32,
    #[prost(uint64, tag = "2")]
    pub due_in: u64,
    #[prost(string, tag = "3")]
    pub child: String,
    #[prost(message, optional, tag = "4")]
    pub sa: Option<SaIdRecord>,
    #[prost(fixed32, tag = "5")]
    pub spi: u32,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct SyncRecord {
    #[prost(bytes = "vec", tag = "1")]
    pub nonce: Vec<u8>,
    #[prost(uint32, tag = "2")]
    pub send: u32,
    #[prost(uint32, tag = "3")]
    pub receive: u32,
    #[prost(uint64, optional, tag = "4")]
    pub delta: Option<u64>,
    #[prost(bytes = "vec", tag = "5")]
    pub bytes: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct AnsweredRecord {
    #[prost(bytes = "vec", tag = "1")]
    pub request: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    pub response: Vec<u8>,
    #[prost(uint32, tag = "3")]
    pub send: u32,
    #[prost(uint32, tag = "4")]
    pub expected: u32,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct ProbeRecord {
    #[prost(uint32, tag = "1")]
    pub id: u32,
    #[prost(bytes = "vec", tag = "2")]
    pub bytes: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct SelectorRecord {
    #[prost(uint32, tag = "1")]
    pub protocol: u32,
    #[prost(uint32, tag = "2")]
    pub start_port: u32,
    #[prost(uint32, tag = "3")]
    pub end_port: u32,
    #[prost(bytes = "vec", tag = "4")]
    pub start: Vec<u8>,
    #[prost(bytes = "vec", tag = "5")]
    pub end: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct ChildRecord {
    #[prost(message, optional, tag = "1")]
    pub id: Option<SaIdRecord>,
    #[prost(string, tag = "2")]
    pub name: String,
    #[prost(bool, tag = "3")]
    pub transport: bool,
    #[prost(fixed32, tag = "4")]
    pub inbound_spi: u32,
    #[prost(fixed32, tag = "5")]
    pub outbound_spi: u32,
    #[prost(string, tag = "6")]
    pub suite: String,
    #[prost(bool, tag = "7")]
    pub esn: bool,
    #[prost(bytes = "vec", tag = "8")]
    pub inbound_key: Vec<u8>,
    #[prost(bytes = "vec", tag = "9")]
    pub outbound_key: Vec<u8>,
    #[prost(message, repeated, tag = "10")]
    pub local_ts: Vec<SelectorRecord>,
    #[prost(message, repeated, tag = "11")]
    pub remote_ts: Vec<SelectorRecord>,
    #[prost(uint32, tag = "12")]
    pub replay_window: u32,
    #[prost(string, tag = "13")]
    pub local: String,
    #[prost(string, tag = "14")]
    pub remote: String,
    #[prost(uint32, optional, tag = "15")]
    pub local_port: Option<u32>,
    #[prost(uint32, optional, tag = "16")]
    pub remote_port: Option<u32>,
    /// 0 installed, 1 rekeying, 2 rekeyed, 3 deleting.
    #[prost(uint32, tag = "17")]
    pub state: u32,
    #[prost(bool, tag = "18")]
    pub sending: bool,
    #[prost(message, optional, tag = "19")]
    pub replaced_by: Option<SaIdRecord>,
    #[prost(uint64, tag = "20")]
    pub installed_ago: u64,
    #[prost(uint64, optional, tag = "21")]
    pub rekey_in: Option<u64>,
    #[prost(bool, tag = "60")]
    pub no_tfc: bool,
    /// Which of several SAs with the same selectors (RFC 9611).
    #[prost(uint32, optional, tag = "80")]
    pub resource: Option<u32>,
    #[prost(bool, tag = "100")]
    pub terminated: bool,
    #[prost(uint64, optional, tag = "101")]
    pub life_in: Option<u64>,
    #[prost(message, optional, tag = "102")]
    pub limits: Option<LimitsRecord>,
    /// What the configuration said of it.
    #[prost(fixed64, tag = "171")]
    pub purpose: u64,
    /// To be deleted, and may come again.
    #[prost(bool, tag = "170")]
    pub again: bool,
}

/// Zero for none.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct LimitsRecord {
    #[prost(uint64, tag = "1")]
    pub rekey_bytes: u64,
    #[prost(uint64, tag = "2")]
    pub life_bytes: u64,
    #[prost(uint64, tag = "3")]
    pub rekey_packets: u64,
    #[prost(uint64, tag = "4")]
    pub life_packets: u64,
}

/// Wipes the secrets; the rest is no secret.
impl Zeroize for IkeRecord {
    fn zeroize(&mut self) {
        self.keys.zeroize();
        self.session.zeroize();
        for half in &mut self.half_made {
            half.shared.zeroize();
            half.done.zeroize();
        }
        let others = self.requests.iter_mut().map(|r| &mut r.pending);
        let all = others.chain([&mut self.pending]).flatten();
        for offer in all.filter_map(|p| p.offer.as_mut()) {
            offer.key.zeroize();
            offer.nonce.zeroize();
            if let Some(followup) = &mut offer.followup {
                followup.key.zeroize();
                followup.done.zeroize();
            }
        }
        for child in &mut self.children {
            child.inbound_key.zeroize();
            child.outbound_key.zeroize();
        }
    }
}

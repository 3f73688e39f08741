//! The wire: one message kind, [`Packet`], in protobuf.
//!
//! A packet says what its sender is now, and as much of the work of its session as fits. All of
//! it may be lost, delayed, repeated or reordered: every section is idempotent and bound to the
//! session (or to a challenge) that it belongs to. Field numbers are for ever; unknown fields and
//! later versions are skipped, as protobuf does.

use hitless_sa::{Epoch, Incarnation, Lease, MemberId, SaId, SequenceNumber};
use prost::Message;
use zeroize::{Zeroize, Zeroizing};

/// The version that this code writes. Raised only for a change that an older member would
/// misunderstand; additions need no raise.
pub(crate) const VERSION: u32 = 1;

/// What a datagram is filled up to, so that it is not fragmented.
pub(crate) const DATAGRAM_TARGET: usize = 1_200;

/// The largest object that fits into one datagram.
pub const BODY_LIMIT: usize = 57_344;

/// What a member may be able to do. A bit that is not known is ignored; who lacks one is never sent
/// what it stands for, so that members of two versions work together (the upgrade path).
pub(crate) mod features {
    /// Takes packets that came late to its predecessor.
    pub const LATE: u64 = 1;
    /// Knows SA_Retr by SPI.
    pub const RETRIEVE: u64 = 2;
}

/// (1 counter, 2 leader, 3 incarnation of the leader)
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub(crate) struct WireEpoch {
    #[prost(uint64, tag = "1")]
    pub counter: u64,
    #[prost(uint32, tag = "2")]
    pub leader: u32,
    #[prost(uint32, tag = "3")]
    pub incarnation: u32,
}

/// A session: one random nonce of each end, so that it dies once and is never reused.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub(crate) struct Sid {
    #[prost(fixed64, tag = "1")]
    pub leader: u64,
    #[prost(fixed64, tag = "2")]
    pub standby: u64,
}

/// A Child SA and a lease: an offer, an acknowledgement, or the first lease in a record.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub(crate) struct Grant {
    #[prost(uint32, tag = "1")]
    pub creator: u32,
    #[prost(uint32, tag = "2")]
    pub incarnation: u32,
    #[prost(uint32, tag = "3")]
    pub counter: u32,
    #[prost(uint64, tag = "4")]
    pub grant: u64,
    #[prost(uint64, tag = "5")]
    pub high_water: u64,
    /// All that takeovers have skipped (in a record only).
    #[prost(uint64, tag = "6")]
    pub skip_sum: u64,
    /// The leader has the keys but no right to them, so nobody gets one (in a record only).
    #[prost(bool, tag = "7")]
    pub no_right: bool,
    #[prost(bool, tag = "8")]
    pub esn: bool,
}

/// One step of a session's ordered stream. Kind 1 stores an object, 2 deletes it, 3 gives the
/// exact end of one SA, 4 hands over, 5 only asks for an answer. A standby applies n only after
/// n - 1.
#[derive(Clone, PartialEq, prost::Message)]
#[prost(skip_debug)]
pub(crate) struct Record {
    #[prost(uint64, tag = "1")]
    pub n: u64,
    #[prost(uint32, tag = "2")]
    pub kind: u32,
    #[prost(fixed64, tag = "3")]
    pub object: u64,
    #[prost(uint64, tag = "4")]
    pub version: u64,
    #[prost(bytes = "vec", tag = "5")]
    pub body: Vec<u8>,
    /// The children of the object; the one SA of kind 3.
    #[prost(message, repeated, tag = "6")]
    pub children: Vec<Grant>,
    /// The replay window of kind 3.
    #[prost(bytes = "vec", tag = "7")]
    pub window: Vec<u8>,
}

impl Drop for Record {
    fn drop(&mut self) {
        self.body.zeroize();
    }
}

pub(crate) const STORE: u32 = 1;
pub(crate) const DELETE: u32 = 2;
pub(crate) const FINAL: u32 = 3;
pub(crate) const HAND_OVER: u32 = 4;
/// Says nothing: a member that does not know it acknowledges it as any later step.
pub(crate) const PROBE: u32 = 5;

/// The name of one Child SA.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub(crate) struct WireSa {
    #[prost(uint32, tag = "1")]
    pub creator: u32,
    #[prost(uint32, tag = "2")]
    pub incarnation: u32,
    #[prost(uint32, tag = "3")]
    pub counter: u32,
}

/// The newest known use of one SA.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub(crate) struct WireCheckpoint {
    #[prost(uint32, tag = "1")]
    pub creator: u32,
    #[prost(uint32, tag = "2")]
    pub incarnation: u32,
    #[prost(uint32, tag = "3")]
    pub counter: u32,
    #[prost(uint64, tag = "4")]
    pub outbound_next: u64,
    #[prost(uint64, tag = "5")]
    pub inbound_top: u64,
    #[prost(uint64, tag = "6")]
    pub packets_out: u64,
    #[prost(uint64, tag = "7")]
    pub bytes_out: u64,
    #[prost(uint64, tag = "8")]
    pub packets_in: u64,
    #[prost(uint64, tag = "9")]
    pub bytes_in: u64,
}

/// Everything that one member says to another.
#[derive(Clone, PartialEq, prost::Message)]
#[prost(skip_debug)]
pub(crate) struct Packet {
    #[prost(uint32, tag = "1")]
    pub version: u32,
    #[prost(bytes = "vec", tag = "2")]
    pub config: Vec<u8>,
    #[prost(uint32, tag = "3")]
    pub incarnation: u32,
    /// Rises with each packet of an incarnation: the newest one says what the sender is.
    #[prost(uint64, tag = "4")]
    pub serial: u64,
    /// The sender's clock.
    #[prost(uint64, tag = "5")]
    pub time: u64,
    /// The receiver's incarnation as the sender knows it, 0 for not at all.
    #[prost(uint32, tag = "6")]
    pub to_incarnation: u32,
    /// The receiver's clock in the newest packet that the sender had of it.
    #[prost(uint64, tag = "7")]
    pub time_echo: u64,
    #[prost(fixed64, tag = "8")]
    pub challenge: u64,
    /// The receiver's newest challenge: proves that this packet is younger than it.
    #[prost(fixed64, tag = "9")]
    pub echo: u64,
    #[prost(message, optional, tag = "10")]
    pub promised: Option<WireEpoch>,
    #[prost(message, optional, tag = "11")]
    pub led: Option<WireEpoch>,
    /// 1 out, 2 learning, 3 admitted, 4 taking over, 5 leading, 6 handing over.
    #[prost(uint32, tag = "12")]
    pub role: u32,
    /// The epoch that the sender leads or follows.
    #[prost(message, optional, tag = "13")]
    pub epoch: Option<WireEpoch>,
    /// That epoch inherits from none.
    #[prost(bool, tag = "14")]
    pub bare: bool,
    #[prost(uint32, tag = "15")]
    pub objects: u32,
    #[prost(bool, tag = "16")]
    pub unhealthy: bool,
    /// Drawn once by each process, never 0: tells apart two processes that claim one incarnation
    /// (hole A20).
    #[prost(fixed64, tag = "17")]
    pub process: u64,
    /// The session in which sections 21 to 32 are meant.
    #[prost(message, optional, tag = "20")]
    pub session: Option<Sid>,

    // From the leader.
    #[prost(message, repeated, tag = "21")]
    pub records: Vec<Record>,
    #[prost(message, repeated, tag = "22")]
    pub offers: Vec<Grant>,
    #[prost(message, repeated, tag = "23")]
    pub checkpoints: Vec<WireCheckpoint>,
    /// The standby has rights once it has applied this record.
    #[prost(uint64, optional, tag = "24")]
    pub admit: Option<u64>,
    /// Outputs have left that this standby did not acknowledge.
    #[prost(bool, tag = "25")]
    pub unvouched: bool,

    // From the standby.
    /// Every record up to here is applied.
    #[prost(uint64, tag = "30")]
    pub applied: u64,
    #[prost(message, repeated, tag = "31")]
    pub recorded: Vec<Grant>,
    /// The standby has erased all rights of the session and ignores it from now on.
    #[prost(bool, tag = "32")]
    pub resign: bool,

    /// SAs of which the standby has no checkpoint (repair).
    #[prost(message, repeated, tag = "70")]
    pub lacks: Vec<WireSa>,

    // Outside any session, proved fresh by `echo`.
    /// Nonce of a standby that asks for a session, and holds no right in any older one.
    #[prost(fixed64, tag = "40")]
    pub join: u64,
    /// The epoch that the sender asks to be elected to, and the one whose rights it holds. Who
    /// agrees promises it on disk, and says so in field 10.
    #[prost(message, optional, tag = "41")]
    pub candidate: Option<WireEpoch>,
    #[prost(message, optional, tag = "42")]
    pub candidate_base: Option<WireEpoch>,

    /// What the sender can do beyond what every version can: bits of [`features`].
    #[prost(uint64, tag = "130")]
    pub features: u64,
    /// Packets for the cluster that came to a member which has handed over to the receiver. Such a
    /// message says nothing else, and is sent only to who has [`features::LATE`].
    #[prost(bytes = "vec", repeated, tag = "131")]
    pub late: Vec<Vec<u8>>,
    /// SA_Retr: an SPI that the sender, who leads, hears and does not know. Says nothing else.
    #[prost(uint32, repeated, tag = "132")]
    pub retrieve: Vec<u32>,
    /// The answer: a copy without a right. Says nothing else.
    #[prost(message, optional, tag = "133")]
    pub retrieved: Option<Record>,
    /// Unhealthy only because copies have failed their drill: the sender would take over, and replace
    /// them. Some of them by name, and how many there are.
    #[prost(bool, tag = "210")]
    pub partly: bool,
    #[prost(message, repeated, tag = "211")]
    pub broken: Vec<WireSa>,
    #[prost(uint32, tag = "212")]
    pub broken_count: u32,
    /// What is wrong with each of those, in their order; 0 is what it is where nothing is said.
    #[prost(uint32, repeated, tag = "245")]
    pub flaws: Vec<u32>,
    /// Digest of which networks the sender's ports are on, 0 if it has none: one that differs is told of,
    /// and no more.
    #[prost(fixed64, tag = "246")]
    pub layout: u64,
    /// Octets of the largest message of this leader that the standby has had of late, 0 if it does not
    /// say: the leader sees whether larger ones are lost on the way.
    #[prost(uint32, tag = "247")]
    pub largest: u32,
}

impl Packet {
    /// The octets, behind their checksum; whoever sends them wipes them. `more` are fields that only
    /// another version knows.
    pub fn seal(&self, more: &[u8]) -> Zeroizing<Vec<u8>> {
        let mut octets = Zeroizing::new(Vec::with_capacity(
            CHECKSUM + self.encoded_len() + more.len(),
        ));
        octets.extend_from_slice(&[0; CHECKSUM]);
        // A Vec grows as needed, so that encoding cannot fail.
        let _ = self.encode(&mut *octets);
        octets.extend_from_slice(more);
        let (head, body) = octets.split_at_mut(CHECKSUM);
        head.copy_from_slice(&checksum(body));
        octets
    }

    /// `None` for what no member wrote. The channel below authenticates; the checksum keeps a
    /// fault between it and us (memory, a relay in a test) from being read as another statement.
    pub fn open(octets: &[u8]) -> Option<Packet> {
        let (head, body) = octets.split_at_checked(CHECKSUM)?;
        if head != checksum(body) {
            return None;
        }
        let packet = Packet::decode(body).ok()?;
        (packet.version != 0 && packet.process != 0).then_some(packet)
    }
}

/// Octets in front of a message.
pub(crate) const CHECKSUM: usize = 8;

/// FNV-1a: every change of a single octet changes it.
fn checksum(octets: &[u8]) -> [u8; CHECKSUM] {
    let sum = octets.iter().fold(0xcbf2_9ce4_8422_2325_u64, |sum, octet| {
        (sum ^ u64::from(*octet)).wrapping_mul(0x0100_0000_01b3)
    });
    sum.to_be_bytes()
}

impl From<Epoch> for WireEpoch {
    fn from(epoch: Epoch) -> WireEpoch {
        WireEpoch {
            counter: epoch.counter,
            leader: u32::from(epoch.leader.0),
            incarnation: epoch.incarnation.0,
        }
    }
}

impl WireEpoch {
    /// `None` if the leader's id is none.
    pub fn epoch(self) -> Option<Epoch> {
        Some(Epoch {
            counter: self.counter,
            leader: member(self.leader)?,
            incarnation: Incarnation(self.incarnation),
        })
    }
}

impl Grant {
    pub fn new(sa: SaId, lease: Lease) -> Grant {
        Grant {
            creator: u32::from(sa.creator.0),
            incarnation: sa.incarnation.0,
            counter: sa.counter,
            grant: lease.grant.0,
            high_water: lease.high_water.0,
            ..Grant::default()
        }
    }

    pub fn sa(&self) -> Option<SaId> {
        sa(self.creator, self.incarnation, self.counter)
    }

    pub fn lease(&self) -> Lease {
        Lease {
            grant: SequenceNumber(self.grant),
            high_water: SequenceNumber(self.high_water),
        }
    }
}

impl WireSa {
    pub fn new(sa: SaId) -> WireSa {
        WireSa {
            creator: u32::from(sa.creator.0),
            incarnation: sa.incarnation.0,
            counter: sa.counter,
        }
    }

    pub fn sa(&self) -> Option<SaId> {
        sa(self.creator, self.incarnation, self.counter)
    }
}

impl WireCheckpoint {
    pub fn new(sa: SaId, checkpoint: &crate::Checkpoint) -> WireCheckpoint {
        WireCheckpoint {
            creator: u32::from(sa.creator.0),
            incarnation: sa.incarnation.0,
            counter: sa.counter,
            outbound_next: checkpoint.outbound_next.0,
            inbound_top: checkpoint.inbound_top.0,
            packets_out: checkpoint.packets_out,
            bytes_out: checkpoint.bytes_out,
            packets_in: checkpoint.packets_in,
            bytes_in: checkpoint.bytes_in,
        }
    }

    pub fn sa(&self) -> Option<SaId> {
        sa(self.creator, self.incarnation, self.counter)
    }

    pub fn checkpoint(&self) -> crate::Checkpoint {
        crate::Checkpoint {
            outbound_next: SequenceNumber(self.outbound_next),
            inbound_top: SequenceNumber(self.inbound_top),
            packets_out: self.packets_out,
            bytes_out: self.bytes_out,
            packets_in: self.packets_in,
            bytes_in: self.bytes_in,
        }
    }
}

fn sa(creator: u32, incarnation: u32, counter: u32) -> Option<SaId> {
    Some(SaId {
        creator: member(creator)?,
        incarnation: Incarnation(incarnation),
        counter,
    })
}

fn member(id: u32) -> Option<MemberId> {
    u8::try_from(id).ok().filter(|id| *id != 0).map(MemberId)
}

#[cfg(test)]
mod golden;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_version_with_unknown_fields_is_read() {
        let packet = Packet {
            version: 2,
            incarnation: 7,
            process: 1,
            ..Packet::default()
        };
        let mut octets = packet.seal(&[]);
        octets.extend_from_slice(&[0xfa, 0x3f, 3, 1, 2, 3]); // field 1023, three octets
        let sum = checksum(&octets[CHECKSUM..]);
        octets[..CHECKSUM].copy_from_slice(&sum);
        assert!(Packet::open(&octets).unwrap() == packet);
    }

    /// A member of the next version says more in every part of a message.
    #[test]
    fn unknown_fields_are_skipped_in_every_part_of_a_message() {
        let unknown = [0xfa, 0x3f, 3, 1, 2, 3]; // field 1023, three octets
        let wrap = |tag: u8, mut body: Vec<u8>| {
            body.extend_from_slice(&unknown);
            let mut field = vec![0x80 | (tag << 3 | 2), tag >> 4, body.len() as u8];
            field.append(&mut body);
            field
        };
        let grant = Grant {
            creator: 1,
            counter: 5,
            ..Grant::default()
        };
        let mut packet = Packet {
            version: VERSION + 1,
            process: 1,
            ..Packet::default()
        };
        let mut body = packet.encode_to_vec();
        let mut record = Record::default();
        record.n = 1;
        // A kind of step that only the next version has.
        record.kind = 99;
        body.extend(wrap(21, record.encode_to_vec()));
        body.extend(wrap(22, grant.encode_to_vec()));
        let epoch = WireEpoch {
            counter: 3,
            leader: 1,
            incarnation: 1,
        };
        // Tags below 16 take one octet.
        let mut nested = epoch.encode_to_vec();
        nested.extend_from_slice(&unknown);
        body.extend([13 << 3 | 2, nested.len() as u8]);
        body.extend(nested);
        let mut octets = checksum(&body).to_vec();
        octets.extend(body);
        packet.records = vec![record];
        packet.offers = vec![grant];
        packet.epoch = Some(epoch);
        assert!(Packet::open(&octets) == Some(packet));
    }

    #[test]
    fn a_packet_of_no_process_is_refused_a20() {
        let mut packet = Packet {
            version: VERSION,
            process: 1,
            ..Packet::default()
        };
        assert!(Packet::open(&packet.seal(&[])).is_some());
        packet.process = 0;
        assert!(Packet::open(&packet.seal(&[])).is_none());
    }

    #[test]
    fn what_is_no_member_is_no_name() {
        assert_eq!(sa(0, 1, 1), None);
        assert_eq!(sa(256, 1, 1), None);
        let epoch = WireEpoch {
            leader: 300,
            ..WireEpoch::default()
        };
        assert_eq!(epoch.epoch(), None);
    }
}

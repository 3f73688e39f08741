//! SA_Retr by SPI (draft-vidya-ipsec-failover-redundancy sections 4.2 and 5.1.2): an active that hears
//! ESP of an SPI that it does not know asks the other members, and who has led with that SA behind a
//! partition gives what it kept: the IKE SA with its Child SAs and their selectors.
//!
//! What comes so is a copy without a right (`lease-holes` R18): [`Leading::adopt`] gives none to an SA
//! that this incarnation did not make, so the Child SAs are replaced under the IKE SA, and no number
//! of theirs is ever used again. Messages of these kinds say nothing else, and go to who understands
//! them.
//!
//! [`Leading::adopt`]: crate::leading::Leading

use hitless_sa::{MemberId, SaId, Spi};
use zeroize::Zeroizing;

use crate::leading::Phase;
use crate::message::{BODY_LIMIT, Packet, Record, STORE, features};
use crate::node::{Node, State};
use crate::{Event, ObjectId, Output};

impl Node {
    /// The newest copy of an object that this member has and does not lead.
    pub fn copy(&self, object: ObjectId) -> Option<(u64, std::sync::Arc<Zeroizing<Vec<u8>>>)> {
        let stored = self.store.objects.get(&object)?;
        Some((stored.version, stored.body.clone()))
    }

    /// Every Child SA whose keys that copy holds.
    pub fn copied_children(&self, object: ObjectId) -> &[SaId] {
        let stored = self.store.objects.get(&object);
        stored.map_or(&[], |stored| &stored.children)
    }

    fn leads_alone(&self) -> bool {
        matches!(&self.state, State::Leading(leading) if leading.phase == Phase::Active)
    }

    fn understands(&self, member: MemberId) -> bool {
        let said = self.peers.get(&member).and_then(|peer| peer.said);
        said.is_some_and(|said| said.features & features::RETRIEVE != 0)
    }

    /// Asks every other member.
    pub(crate) fn ask_for(&mut self, spi: Spi) {
        if !self.leads_alone() {
            return;
        }
        let members: Vec<MemberId> = self.peers.keys().copied().collect();
        for to in members {
            if self.understands(to) {
                let role = self.role();
                let mut packet = self.base(to, role);
                packet.retrieve = vec![spi.0];
                self.send(to, &packet);
            }
        }
    }

    pub(crate) fn answer_with(
        &mut self,
        to: MemberId,
        object: ObjectId,
        version: u64,
        body: &[u8],
    ) {
        if self.understands(to) && body.len() <= BODY_LIMIT {
            let role = self.role();
            let mut packet = self.base(to, role);
            let mut record = Record::default();
            record.kind = STORE;
            record.object = object.0;
            record.version = version;
            record.body = body.to_vec();
            packet.retrieved = Some(record);
            self.send(to, &packet);
        }
    }

    /// A question or an answer. A question counts from who leads, an answer for who leads.
    pub(crate) fn retrieval(&mut self, from: MemberId, present: bool, mut packet: Packet) {
        let said = self.peers.get(&from).and_then(|peer| peer.said);
        let asker_leads = said.is_some_and(|said| said.leads().is_some());
        if let Some(record) = packet.retrieved.as_mut() {
            if present && self.leads_alone() && record.kind == STORE && record.version > 0 {
                let body = Zeroizing::new(std::mem::take(&mut record.body));
                return self.outputs.push_back(Output::Retrieved {
                    from,
                    object: ObjectId(record.object),
                    version: record.version,
                    body,
                });
            }
        } else if let Some(spi) = packet.retrieve.first()
            && present
            && asker_leads
        {
            let spi = Spi(*spi);
            return self.outputs.push_back(Output::Retrieve { from, spi });
        }
        self.event(Event::UnexpectedRetrieval { member: from });
    }
}

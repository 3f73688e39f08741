//! Writes datagrams: what this member is, and as much of its session's work as fits.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use hitless_sa::{Entropy, Lease, MemberId, SaId};
use prost::Message;

use crate::following::Following;
use crate::leading::{Leading, Phase};
use crate::message::{DATAGRAM_TARGET, Grant, Packet, VERSION};
use crate::node::{Node, Out, State};
use crate::peer::wire_role;
use crate::session::Session;
use crate::{Output, Role};

/// Datagrams to one member in one go: what is left goes with the next input.
const BURST: usize = 64;

impl Node {
    /// Writes everything that is due.
    pub(crate) fn post(&mut self) {
        let mut poke = std::mem::take(&mut self.poke);
        if std::mem::take(&mut self.beat_due) {
            poke.extend(self.peers.keys());
            self.next_word = self.now + self.settings.heartbeat;
        }
        self.told = self.standing();
        let state = std::mem::replace(&mut self.state, State::out(self.now));
        self.state = match state {
            State::Leading(mut leading) => {
                self.post_leading(&mut leading, &poke);
                State::Leading(leading)
            }
            State::Following(mut following) => {
                self.post_following(&mut following, poke);
                State::Following(following)
            }
            State::TakingOver(taking) => {
                for to in poke {
                    let mut packet = self.base(to, Role::TakingOver);
                    self.stand(&taking.campaign, taking.following.epoch, &mut packet);
                    self.send(to, &packet);
                }
                State::TakingOver(taking)
            }
            State::Out(out) => {
                self.post_out(&out, poke);
                State::Out(out)
            }
        };
    }

    fn post_out(&mut self, out: &Out, poke: BTreeSet<MemberId>) {
        let heard = self.settings.votes_only().then(|| self.leader_heard());
        for to in poke {
            let mut packet = self.base(to, Role::Out);
            packet.epoch = heard.flatten().map(Into::into);
            packet.objects = count(self.store.objects.len());
            match self.resigned.filter(|(leader, _)| *leader == to) {
                Some((_, sid)) => {
                    packet.session = Some(sid);
                    packet.resign = true;
                }
                None if self.stopping.is_none() && !self.settings.votes_only() => {
                    packet.join = out.nonce;
                }
                None => {}
            }
            self.send(to, &packet);
        }
    }

    fn post_following(&mut self, following: &mut Following, mut poke: BTreeSet<MemberId>) {
        let leader = following.leader;
        let mut due = std::mem::take(&mut following.ack_due) || poke.remove(&leader);
        for to in poke {
            let packet = self.base_following(to, following);
            self.send(to, &packet);
        }
        let asks = due && following.repair_due(self.now, self.settings.vouch);
        let mut lacks = match asks {
            true => self
                .store
                .lacks(following.session, &mut following.asked_up_to),
            false => Vec::new(),
        };
        // R1: nothing is acknowledged in an epoch that is not yet promised on disk.
        let promised = self.durable.promised >= Some(following.epoch);
        while due {
            let mut packet = self.base_following(leader, following);
            packet.session = Some(following.sid);
            packet.lacks = std::mem::take(&mut lacks);
            packet.largest = count(following.largest.octets());
            due = false;
            if following.bare || promised {
                packet.applied = following.applied();
                self.fill_acks(&mut following.acks, &mut packet);
                due = !following.acks.is_empty();
            }
            self.send(leader, &packet);
        }
    }

    pub(crate) fn base_following(&mut self, to: MemberId, following: &Following) -> Packet {
        let role = match self.has_right(following) {
            true => Role::Admitted,
            false => Role::Learning,
        };
        let mut packet = self.base(to, role);
        packet.epoch = Some(following.epoch.into());
        packet.bare = following.bare;
        packet.objects = count(self.store.objects.len());
        packet
    }

    pub(crate) fn base_leading(&mut self, to: MemberId, role: Role, leading: &Leading) -> Packet {
        let mut packet = self.base(to, role);
        packet.epoch = Some(leading.epoch.into());
        packet.bare = leading.bare();
        packet.objects = count(leading.count());
        packet
    }

    fn post_leading(&mut self, leading: &mut Leading, poke: &BTreeSet<MemberId>) {
        let role = match leading.phase {
            Phase::Active => Role::Leading,
            _ => Role::HandingOver,
        };
        let retransmit = self.settings.heartbeat.max(Duration::from_millis(1));
        let members: Vec<MemberId> = self.peers.keys().copied().collect();
        for to in members {
            let mut due = poke.contains(&to);
            let vouch = self.settings.vouch;
            let silent = |session: &Session| session.contact.unheard_for(self.now) >= vouch;
            // Who does not answer is asked once a heartbeat, not flooded.
            let burst = match leading.sessions.get(&to) {
                Some(session) if silent(session) => usize::from(due),
                _ => BURST,
            };
            for _ in 0..burst {
                let mut packet = self.base_leading(to, role, leading);
                if let Some(campaign) = &leading.campaign {
                    self.stand(campaign, leading.epoch, &mut packet);
                }
                let mut filled = false;
                let Leading {
                    objects,
                    sas,
                    sessions,
                    ..
                } = leading;
                if let Some(session) = sessions.get_mut(&to) {
                    session.head(&mut packet);
                    if role == Role::Leading {
                        session.build(self.now, &self.settings, objects, sas);
                    }
                    filled = session.fill((self.now, due), retransmit, sas, &mut packet);
                }
                if !filled && !due {
                    break;
                }
                due = false;
                self.send(to, &packet);
                if !filled {
                    break;
                }
            }
        }
    }

    /// Draws every random number that is due, before anything is written with it.
    pub(crate) fn draw_nonces(&mut self, entropy: &mut dyn Entropy) {
        if self.process == 0 {
            self.process = entropy.u64().max(1);
        }
        for peer in self.peers.values_mut().filter(|p| p.challenge == 0) {
            peer.challenge = entropy.u64().max(1);
        }
        if let State::Out(out) = &mut self.state
            && out.nonce == 0
        {
            out.nonce = entropy.u64().max(1);
        }
    }

    /// What every packet says.
    pub(crate) fn base(&mut self, to: MemberId, role: Role) -> Packet {
        self.serial += 1;
        let peer = self.peers.get(&to);
        let said = peer.and_then(|peer| peer.said);
        let mut packet = Packet {
            version: VERSION,
            config: self.settings.config_hash.to_vec(),
            incarnation: self.durable.incarnation.0,
            process: self.process,
            serial: self.serial,
            time: self.now.0,
            to_incarnation: peer.and_then(|peer| peer.incarnation).map_or(0, |i| i.0),
            time_echo: said.map_or(0, |said| said.time),
            challenge: peer.map_or(0, |peer| peer.challenge),
            echo: said.map_or(0, |said| said.challenge),
            promised: self.durable.promised.map(Into::into),
            led: self.led().map(Into::into),
            role: wire_role(role),
            features: self.settings.features(),
            layout: self.settings.layout,
            ..Packet::default()
        };
        self.say_fitness(role, &mut packet);
        packet
    }

    fn fill_acks(&self, acks: &mut BTreeMap<SaId, Lease>, packet: &mut Packet) {
        let mut room = DATAGRAM_TARGET.saturating_sub(packet.encoded_len());
        while room > 48 {
            let Some((sa, lease)) = acks.pop_first() else {
                break;
            };
            if !self.store.sas.contains_key(&sa) {
                continue;
            }
            let ack = Grant::new(sa, lease);
            room = room.saturating_sub(ack.encoded_len() + 3);
            packet.recorded.push(ack);
        }
    }

    pub(crate) fn send(&mut self, to: MemberId, packet: &Packet) {
        self.outputs.push_back(Output::Datagram {
            to,
            payload: packet.seal(self.settings.mutant.more()),
        });
    }
}

pub(crate) fn count(objects: usize) -> u32 {
    u32::try_from(objects).unwrap_or(u32::MAX)
}

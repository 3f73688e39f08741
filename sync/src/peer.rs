//! What is known of each other member, from its newest packet.

use std::collections::VecDeque;

use hitless_sa::{Epoch, Incarnation, Instant, MemberId};

use crate::message::{Packet, Sid, WireEpoch};
use crate::{Event, Member, Output, Role};

/// One other configured member.
pub(crate) struct Peer {
    pub member: Member,
    /// The highest seen: a lower one is a message of a dead process (R2, hole A14).
    pub incarnation: Option<Incarnation>,
    /// The process that was first heard under that incarnation.
    process: u64,
    /// What it must echo to prove that a packet is younger than this number.
    pub challenge: u64,
    pub said: Option<Said>,
    /// What it says under another `[cluster]` section.
    pub other: Option<Other>,
    /// Messages of so many octets do not reach it, and smaller ones do.
    pub narrow: Option<usize>,
}

/// All that is taken from a member with which nothing is agreed: whether it leads, lest two do.
#[derive(Clone, Copy)]
pub(crate) struct Other {
    incarnation: Incarnation,
    serial: u64,
    pub at: Instant,
    /// The epoch that it leads.
    pub leads: Option<Epoch>,
    pub healthy: bool,
    pub objects: u32,
    pub bare: bool,
}

/// The newest packet of the present incarnation.
#[derive(Clone, Copy)]
pub(crate) struct Said {
    serial: u64,
    pub at: Instant,
    /// The newest of its clock.
    pub time: u64,
    pub challenge: u64,
    /// It had our challenge.
    pub fresh: bool,
    pub role: Option<Role>,
    pub epoch: Option<Epoch>,
    pub bare: bool,
    pub objects: u32,
    /// It could lead with every SA, or with all but some that it would replace.
    pub healthy: bool,
    pub carries: bool,
    /// It asks for a session.
    pub joins: bool,
    pub promised: Option<Epoch>,
    pub session: Option<Sid>,
    pub features: u64,
    /// Digest of its ports, or 0.
    pub layout: u64,
}

/// What of this member's own it is compared with.
#[derive(Clone, Copy)]
pub(crate) struct Own {
    pub incarnation: Incarnation,
    pub layout: u64,
}

/// How a packet relates to those before it.
pub(crate) struct Reading {
    /// The newest so far.
    pub newest: bool,
    /// It echoes our challenge.
    pub fresh: bool,
    /// It was written for our present incarnation.
    pub for_me: bool,
}

impl Peer {
    pub fn new(member: Member) -> Peer {
        Peer {
            member,
            incarnation: None,
            process: 0,
            challenge: 0,
            said: None,
            other: None,
            narrow: None,
        }
    }

    /// Takes note of a packet under another configuration: it moves nothing else.
    pub fn differs(&mut self, now: Instant, packet: &Packet) {
        let incarnation = Incarnation(packet.incarnation);
        let newer =
            |other: &Other| (incarnation, packet.serial) > (other.incarnation, other.serial);
        let over = self.incarnation.is_some_and(|known| incarnation < known);
        if over || !self.other.as_ref().is_none_or(newer) {
            return;
        }
        let epoch = claimed(packet, self.member.id, incarnation);
        self.other = Some(Other {
            incarnation,
            serial: packet.serial,
            at: now,
            leads: epoch.filter(|_| leads(role(packet.role))),
            healthy: !packet.unhealthy,
            objects: packet.objects,
            bare: packet.bare,
        });
    }

    /// The same, unless that is older than `age`.
    pub fn other_lately(&self, now: Instant, age: std::time::Duration) -> Option<&Other> {
        self.other
            .as_ref()
            .filter(|other| now.since(other.at) < age)
    }

    /// Takes note of a packet; `None` if its sender's incarnation is over, or is that
    /// of another process.
    pub fn observe(
        &mut self,
        now: Instant,
        own: Own,
        packet: &Packet,
        outputs: &mut VecDeque<Output>,
    ) -> Option<Reading> {
        let incarnation = Incarnation(packet.incarnation);
        let member = self.member.id;
        let mut tell = |event| outputs.push_back(Output::Event(event));
        match self.incarnation {
            Some(seen) if incarnation < seen => {
                tell(Event::StaleIncarnation {
                    member,
                    incarnation,
                });
                return None;
            }
            // A second process of one incarnation would repeat IVs and SA numbers (hole A20).
            Some(seen) if incarnation == seen && packet.process != self.process => {
                tell(Event::RepeatedIncarnation {
                    member,
                    incarnation,
                });
                return None;
            }
            Some(seen) if incarnation > seen => {
                self.said = None;
                tell(restarted(member, incarnation));
            }
            _ => {}
        }
        self.incarnation = Some(incarnation);
        self.process = packet.process;
        let for_me = packet.to_incarnation == own.incarnation.0;
        let fresh = for_me && packet.echo != 0 && packet.echo == self.challenge;
        let newest = self.said.is_none_or(|said| packet.serial > said.serial);
        if newest {
            let before = self.said.map_or(0, |said| said.time);
            let known = self.said.map_or(0, |said| said.layout) == packet.layout;
            if !known && differ(own.layout, packet.layout) {
                tell(Event::LayoutDiffers { member });
            }
            self.said = Some(Said {
                serial: packet.serial,
                at: now,
                time: before.max(packet.time),
                challenge: packet.challenge,
                fresh,
                role: role(packet.role),
                epoch: claimed(packet, member, incarnation),
                bare: packet.bare,
                objects: packet.objects,
                healthy: !packet.unhealthy,
                carries: !packet.unhealthy || packet.partly,
                joins: packet.join != 0,
                promised: packet.promised.and_then(WireEpoch::epoch),
                session: packet.session,
                features: packet.features,
                layout: packet.layout,
            });
        }
        Some(Reading {
            newest,
            fresh,
            for_me,
        })
    }

    /// Whether a packet is of the process that is known, for this one of ours.
    pub fn is_present(&self, me: Incarnation, packet: &Packet) -> bool {
        let known = (self.incarnation, self.process);
        known == (Some(Incarnation(packet.incarnation)), packet.process)
            && packet.to_incarnation == me.0
    }

    /// What it says of itself, unless that is older than `age`.
    pub fn lately(&self, now: Instant, age: std::time::Duration) -> Option<&Said> {
        self.said.as_ref().filter(|said| now.since(said.at) < age)
    }
}

impl Said {
    /// The epoch that it leads.
    pub fn leads(&self) -> Option<Epoch> {
        self.epoch.filter(|_| leads(self.role))
    }
}

fn restarted(member: MemberId, incarnation: Incarnation) -> Event {
    Event::Restarted {
        member,
        incarnation,
    }
}

/// Whether two members' ports are on different networks, as far as both have said.
pub(crate) fn differ(one: u64, other: u64) -> bool {
    one != 0 && other != 0 && one != other
}

/// Who hands over still leads its epoch.
fn leads(role: Option<Role>) -> bool {
    matches!(role, Some(Role::Leading | Role::HandingOver))
}

/// The epoch that it leads or follows. Who leads leads one of its own: another member's is not its to
/// claim.
fn claimed(packet: &Packet, member: MemberId, incarnation: Incarnation) -> Option<Epoch> {
    let leads = leads(role(packet.role));
    let own = |epoch: &Epoch| epoch.leader == member && epoch.incarnation == incarnation;
    let epoch = packet.epoch.and_then(WireEpoch::epoch);
    epoch.filter(|epoch| !leads || own(epoch))
}

/// An unknown role is one of a later version: it neither leads nor may lead.
pub(crate) fn role(wire: u32) -> Option<Role> {
    match wire {
        1 => Some(Role::Out),
        2 => Some(Role::Learning),
        3 => Some(Role::Admitted),
        4 => Some(Role::TakingOver),
        5 => Some(Role::Leading),
        6 => Some(Role::HandingOver),
        _ => None,
    }
}

/// The role on the wire.
pub(crate) fn wire_role(role: Role) -> u32 {
    match role {
        Role::Out => 1,
        Role::Learning => 2,
        Role::Admitted => 3,
        Role::TakingOver => 4,
        Role::Leading => 5,
        Role::HandingOver => 6,
    }
}

//! The peer's other addresses (`remote_addrs`), each of which may be another gateway: tried in their
//! order when one gives no answer, or refuses us. Nothing of this is replicated: whoever takes over
//! begins with the first.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};

use super::{AuthStage, Initiator};
use crate::ike::fragments::Reassembly;
use crate::ike::initial::Progress;
use crate::ike::nat::{IKE_PORT, NAT_PORT, Path};
use crate::ike::settings::Connection;
use crate::ike::turn::{Ids, Turn};

/// How often one is begun anew where the last one was unknown.
const RENEWALS: u8 = 3;
/// Retransmissions to an address from which nothing has come, where there are others: it has its turn
/// again, and the tunnel waits no minute for whoever is not there (RFC 7296 section 2.4 leaves the
/// number to us).
const UNHEARD: u32 = 3;

/// Those of our addresses and the peer's between which there can be an IKE SA: each of the peer's
/// once, the family of our first address first.
pub(super) fn pairs(connection: &Connection, remotes: &[IpAddr]) -> VecDeque<(IpAddr, IpAddr)> {
    let mut pairs: VecDeque<(IpAddr, IpAddr)> = VecDeque::new();
    for local in &connection.local_addrs {
        for remote in remotes {
            let alike = remote.is_ipv4() == local.is_ipv4();
            if alike && pairs.iter().all(|(_, there)| there != remote) {
                pairs.push_back((*local, *remote));
            }
        }
    }
    pairs
}

/// Where IKE_SA_INIT goes.
pub(super) fn first_path(connection: &Connection, (local, remote): (IpAddr, IpAddr)) -> Path {
    let port = if connection.remote_port == IKE_PORT {
        IKE_PORT
    } else {
        NAT_PORT
    };
    Path {
        local: SocketAddr::new(local, port),
        remote: SocketAddr::new(remote, connection.remote_port),
    }
}

impl Initiator {
    /// Retransmissions before this address counts as dead.
    pub(super) fn tries(&self, turn: &Turn<'_>) -> u32 {
        let all = turn.backoff().tries;
        match self.several && self.auth.is_none() {
            true => all.min(UNHEARD),
            false => all,
        }
    }

    /// This one did not want us, or was not the one that we want.
    pub(super) fn refused(&mut self, turn: &mut Turn<'_>) -> Progress {
        match self.go_elsewhere(turn) {
            true => Progress::Waiting,
            false => Progress::Failed,
        }
    }

    /// What was being made is not: its SPI is free again.
    pub fn release(&mut self, ids: &mut Ids) {
        if let Some((_, _, spi)) = self.auth.take().and_then(|stage| stage.child) {
            ids.release(spi);
        }
    }

    /// What follows of an answer that nobody has authenticated comes to nothing, and costs nothing: another
    /// answer may come (RFC 7296 section 2.21.1).
    pub(super) fn abandon(&mut self, turn: &mut Turn<'_>, stage: AuthStage) {
        self.auth = Some(stage);
        self.release(turn.ids);
    }

    /// Begins anew with the next address; false if there is none.
    pub(super) fn go_elsewhere(&mut self, turn: &mut Turn<'_>) -> bool {
        let next = self.untried.pop_front();
        self.redirected_from = None;
        self.renewed = 0;
        self.begin_at(turn, next)
    }

    /// Begins anew with an address that lives and says that it knows nothing of this one; false if it does
    /// not say so, or has said so again and again.
    pub(super) fn begin_anew(&mut self, turn: &mut Turn<'_>) -> bool {
        if !self.disowned || self.renewed >= RENEWALS {
            return false;
        }
        self.renewed += 1;
        let there = (self.path.local.ip(), self.path.remote.ip());
        self.begin_at(turn, Some(there))
    }

    fn begin_at(&mut self, turn: &mut Turn<'_>, pair: Option<(IpAddr, IpAddr)>) -> bool {
        self.disowned = false;
        self.release(turn.ids);
        let group = self.connection.proposals.first().map(|p| p.key_exchange);
        let Some(key) = group.and_then(|group| turn.key_pair(group)) else {
            return false;
        };
        let Some(pair) = pair else {
            return false;
        };
        self.path = first_path(&self.connection, pair);
        self.key = key;
        self.reassembly = Reassembly::default();
        self.begin_in_full(turn);
        true
    }
}

//! What waits for a neighbour's Ethernet address while policies or routes change. It has been judged
//! already, and would leave by what is not so any more.

use std::sync::Arc;

use crate::classify::Addresses;
use crate::fib::Fib;
use crate::flow::Flow;
use crate::neighbour::Neighbour;
use crate::path;
use crate::spd::{Action, Match, Spd};
use crate::verdict::DropReason;
use crate::wire::ipv4::{ESP, UDP};
use crate::worker::Worker;

impl Worker {
    /// Drops what waits in clear and may not leave by the policies of now (RFC 4301 section 5.1), came
    /// in by one that has gone (section 5.2), or is no longer the protected side's.
    pub(crate) fn judge_held_again(&mut self, before: &Spd) {
        let Worker {
            links,
            frames,
            spd,
            addresses,
            ..
        } = self;
        if links.held() == 0 {
            return;
        }
        links.drop_held(frames, DropReason::Outdated, |octets, _, protected| {
            let Some(flow) = Flow::parse(octets) else {
                return true;
            };
            match protected {
                true => {
                    let came = passed(before.inbound(&flow)) && !passed(spd.inbound(&flow));
                    came || spd.takes(&flow) && !addresses.contains(flow.source)
                }
                false => !may_leave(spd, addresses, &flow),
            }
        });
    }

    /// Another forwarding table. Drops what waits by a way that is none any more, but for what is
    /// ours: that says nothing to whom it does not concern. Returns the old table.
    pub(crate) fn replace_routes(&mut self, fib: Arc<Fib>) -> Arc<Fib> {
        let old = std::mem::replace(&mut self.fib, fib);
        self.express.forget_routes();
        self.links.set_routers(&self.fib);
        let Worker {
            links,
            frames,
            fib,
            addresses,
            ..
        } = self;
        links.drop_held(frames, DropReason::Outdated, |octets, to, _| {
            let Some(flow) = Flow::parse(octets) else {
                return true;
            };
            let Neighbour { port, address } = to;
            let same = path::way(fib, flow.destination) == Some((port, address));
            !same && !addresses.contains(flow.source)
        });
        old
    }
}

fn passed(found: Option<Match>) -> bool {
    found.is_some_and(|found| found.action == Action::Bypass)
}

/// Whether a packet that waits on the unprotected side may leave: ESP and IKE of ours, what policy lets
/// pass in clear, and what else is ours unless policy says something of it.
fn may_leave(spd: &Spd, addresses: &Addresses, flow: &Flow) -> bool {
    let ours = addresses.contains(flow.source);
    if ours && matches!(flow.protocol, ESP | UDP) {
        return true;
    }
    match spd.outbound(flow) {
        None => ours,
        found => passed(found),
    }
}

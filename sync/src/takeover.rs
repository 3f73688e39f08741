//! From a standby's copy to a leader's book: what a new leader may carry on, and from where.

use hitless_sa::{Epoch, Lease, SequenceNumber};

use crate::estate::Estate;
use crate::leading::{Context, Leading, LedSa};
use crate::lease::{self, Rate};
use crate::store::{Recorded, Store};
use crate::{Left, Output, RekeyReason, TakeoverSa};

/// The right to carry on: the session that it was given in, and what is known of its end.
#[derive(Clone, Copy)]
pub(crate) struct Right {
    pub base: Epoch,
    pub session: u64,
    /// The predecessor sent the exact ends and stopped (R15).
    pub handed_over: bool,
    /// No output can have left that is not in the copy (R16).
    pub exact: bool,
}

/// Makes the book of epoch `epoch`, and tells the gateway.
pub(crate) fn lead(
    cx: &mut Context<'_>,
    epoch: Epoch,
    right: Option<Right>,
    store: Store,
) -> Leading {
    let base = right.map(|right| right.base);
    let mut leading = Leading::new(epoch, base);
    leading.estate = Estate::new(right, store);
    let (exact, handed_over) = (leading.estate.exact(), leading.estate.handed_over());
    // Asked for by the estate, but obeyed by a gateway that leads.
    let before = cx.outputs.len();
    let mut objects = Vec::new();
    if leading.estate.len().0 <= cx.settings.at_once {
        while let Some(object) = leading.estate.first() {
            objects.extend(leading.inherit(cx, object));
        }
    }
    let asked = cx.outputs.split_off(before);
    let (left, sas) = leading.estate.len();
    cx.outputs.push_back(Output::Lead {
        epoch,
        base,
        objects,
        left: Left {
            objects: left,
            sas,
            exact,
            handed_over,
        },
    });
    cx.outputs.extend(asked);
    leading
}

/// R11: only what was recorded in the session that gave the right gets a cell, one above the
/// recorded grant.
pub(crate) fn inherit(
    cx: &Context<'_>,
    right: Option<Right>,
    recorded: &Recorded,
) -> (LedSa, Option<RekeyReason>) {
    let mut led = LedSa {
        object: recorded.object,
        right: false,
        live: true,
        limit: Lease::default(),
        offered: Lease::default(),
        cursor: 1,
        top: 0,
        esn: recorded.esn,
        skip_sum: recorded.skip_sum,
        checkpoint: recorded.checkpoint,
        outbound: Rate::default(),
        inbound: Rate::default(),
        asked: None,
    };
    let Some(right) = right.filter(|right| right.session == recorded.session && !recorded.no_right)
    else {
        if let Some((used, _)) = recorded.last.as_ref().filter(|_| leftovers(cx, right)) {
            led.right = true;
            (led.limit, led.offered) = (recorded.lease, recorded.lease);
            (led.cursor, led.top) = (used.grant.0 + 1, used.high_water.0);
        }
        return (led, None);
    };
    let end = end(right, recorded);
    let ceiling = lease::ceiling(led.esn);
    let reach = lease::outbound(cx.settings, led.outbound, led.esn);
    let ahead = lease::inbound(cx.settings, led.inbound);
    let limit = Lease {
        grant: SequenceNumber(end.grant.0.saturating_add(reach).min(ceiling)),
        high_water: SequenceNumber(end.high_water.0.saturating_add(ahead).min(ceiling)),
    };
    led.right = true;
    led.limit = limit.max(end);
    led.offered = led.limit;
    led.cursor = first(cx, end, recorded).0;
    led.top = end.high_water.0;
    led.skip_sum = recorded.skip_sum.saturating_add(skip(right, recorded));
    let reason = if lease::skipped_too_much(led.skip_sum, reach, led.esn) {
        Some(RekeyReason::SkipSum)
    } else if lease::runs_out(led.cursor, led.esn) {
        Some(RekeyReason::NumbersRunOut)
    } else {
        None
    };
    (led, reason)
}

/// Whether a mutant goes on with what was left of its own leases.
fn leftovers(cx: &Context<'_>, right: Option<Right>) -> bool {
    cx.settings.mutant.residual_after_final && right.is_none()
}

/// The recorded end of the predecessor's use.
fn end(right: Right, recorded: &Recorded) -> Lease {
    match &recorded.last {
        Some((last, _)) if right.handed_over => *last,
        _ => recorded.lease,
    }
}

fn first(cx: &Context<'_>, end: Lease, recorded: &Recorded) -> SequenceNumber {
    if let Some(skip) = cx.settings.mutant.guessed_skip {
        let next = recorded.checkpoint.map_or(1, |c| c.outbound_next.0);
        return SequenceNumber(next.saturating_add(skip));
    }
    let step = u64::from(!cx.settings.mutant.no_plus_one);
    SequenceNumber(end.grant.0.saturating_add(step))
}

/// Numbers between the last known use and the recorded end.
fn skip(right: Right, recorded: &Recorded) -> u64 {
    if right.handed_over && recorded.last.is_some() {
        return 0;
    }
    let next = recorded.checkpoint.map_or(1, |c| c.outbound_next.0.max(1));
    recorded
        .lease
        .grant
        .0
        .saturating_add(1)
        .saturating_sub(next)
}

pub(crate) fn describe(
    cx: &Context<'_>,
    right: Option<Right>,
    sa: hitless_sa::SaId,
    recorded: &Recorded,
    led: &LedSa,
) -> TakeoverSa {
    let end = match &recorded.last {
        Some((used, _)) if leftovers(cx, right) => *used,
        _ => right.map_or(recorded.lease, |right| end(right, recorded)),
    };
    let seen = recorded.checkpoint.map_or(0, |c| c.inbound_top.0);
    let handed_over = right.is_some_and(|right| right.handed_over);
    TakeoverSa {
        sa,
        rekey_only: !led.right,
        first: first(cx, end, recorded),
        floor: end.high_water,
        lease: led.limit,
        checkpoint: recorded.checkpoint,
        skip: right.map_or(0, |right| skip(right, recorded)),
        skip_sum: led.skip_sum,
        delta: match &recorded.last {
            Some(_) if handed_over => 0,
            _ => end.high_water.0.saturating_sub(seen),
        },
        window: match &recorded.last {
            Some((_, window)) if handed_over && led.right => Some(window.clone()),
            _ => None,
        },
    }
}

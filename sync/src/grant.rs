//! The leader's leases: how far each cell may go, when more is offered, and what happens to an SA
//! that can get no more (`lease-holes` R5, R7, R20).

use std::time::Duration;

use hitless_sa::{Lease, SaId, SequenceNumber};

use crate::leading::{Context, Leading, Phase};
use crate::lease;
use crate::{Degraded, Output, RekeyReason, Usage};

/// How often an SA that cannot be extended is mentioned again.
const ASK_AGAIN: Duration = Duration::from_secs(1);

impl Leading {
    /// The lowest lease acknowledged by those that know the SA's secrets and may have a right to
    /// them; `None` if nobody does.
    fn bound(&self, cx: &Context<'_>, sa: SaId) -> Option<Lease> {
        let mutant = cx.settings.mutant;
        let binding = self.sessions.values().filter(|session| session.binds());
        binding
            .filter_map(|session| {
                let acked = *session.shares.get(&sa)?;
                let never = acked == Lease::default();
                let silent = session.silent_for(cx.now) >= cx.settings.vouch;
                let skip =
                    never && (mutant.offer_unbound || mutant.fresh_although_offered && silent);
                (!skip).then_some(acked)
            })
            .reduce(Lease::min)
    }

    /// Raises the limit to what is acknowledged (R7), or to the first lease if the SA is solo.
    pub fn settle_limit(&mut self, cx: &mut Context<'_>, sa: SaId) {
        if self.phase != Phase::Active {
            return;
        }
        let bound = self.bound(cx, sa);
        let Some(led) = self.sas.get_mut(&sa).filter(|led| led.right) else {
            return;
        };
        let limit = match cx.settings.mutant.unacknowledged {
            false => led.limit.max(bound.unwrap_or(led.offered)),
            true => led.offered,
        };
        if limit != led.limit {
            led.limit = limit;
            if led.live {
                cx.outputs.push_back(Output::Lease { sa, lease: limit });
            }
        }
    }

    /// Where a cell stands: extends its lease in time.
    pub fn usage(&mut self, cx: &mut Context<'_>, usage: Usage) {
        let Some(led) = self.sas.get_mut(&usage.sa) else {
            return;
        };
        led.cursor = led.cursor.max(usage.cursor.0);
        led.top = led.top.max(usage.inbound_top.0);
        led.esn = usage.esn;
        led.outbound.note(cx.now, led.cursor);
        led.inbound.note(cx.now, led.top);
        self.extend(cx, usage.sa);
    }

    fn extend(&mut self, cx: &mut Context<'_>, sa: SaId) {
        if self.phase != Phase::Active || cx.settings.mutant.no_extension {
            return;
        }
        let bound = self.bound(cx, sa).is_some();
        let Some(led) = self.sas.get_mut(&sa).filter(|led| led.right) else {
            return;
        };
        let ceiling = lease::ceiling(led.esn);
        let used = led.cursor.saturating_sub(1);
        let reach = lease::outbound(cx.settings, led.outbound, led.esn);
        let ahead = lease::inbound(cx.settings, led.inbound);
        let mut wanted = led.offered;
        if led.offered.grant.0.saturating_sub(used) <= reach / 2 {
            let grant = used.saturating_add(reach).min(ceiling);
            wanted.grant = wanted.grant.max(SequenceNumber(grant));
        }
        if led.offered.high_water.0.saturating_sub(led.top) <= ahead / 2 {
            let high_water = led.top.saturating_add(ahead).min(ceiling);
            wanted.high_water = wanted.high_water.max(SequenceNumber(high_water));
        }
        let short = led.limit.grant.0.saturating_sub(used) <= reach / 2
            || led.limit.high_water.0.saturating_sub(led.top) <= ahead / 2;
        let ends = lease::runs_out(led.cursor, led.esn);
        if wanted != led.offered {
            led.offered = wanted;
            if bound {
                for session in self.sessions.values_mut() {
                    session.offer(sa);
                }
            }
        }
        if !bound || cx.settings.mutant.unacknowledged {
            self.settle_limit(cx, sa);
        } else if short && self.starved(cx, sa) {
            self.ask(cx, sa, RekeyReason::LeaseRunsOut);
        }
        if ends {
            self.ask(cx, sa, RekeyReason::NumbersRunOut);
        }
    }

    /// Whether a standby that bounds the SA is silent, and the policy is to replace it.
    fn starved(&self, cx: &Context<'_>, sa: SaId) -> bool {
        let patience = match cx.settings.degraded {
            Degraded::Rekey => cx.settings.vouch,
            Degraded::Strict => return false,
            // New keys are needless if the witness elects this leader meanwhile.
            Degraded::Witness
                if self
                    .campaign
                    .as_ref()
                    .is_some_and(|campaign| campaign.is_young(cx.now, cx.settings.patience())) =>
            {
                return false;
            }
            Degraded::Witness => cx.settings.vouch * 2,
        };
        self.sessions.values().any(|session| {
            let shares = session.binds() && session.shares.contains_key(&sa);
            shares && session.silent_for(cx.now) >= patience
        })
    }

    /// Asks for new keys, at most once a second.
    pub fn ask(&mut self, cx: &mut Context<'_>, sa: SaId, reason: RekeyReason) {
        let Some(led) = self.sas.get_mut(&sa).filter(|led| led.live) else {
            return;
        };
        if led
            .asked
            .is_none_or(|asked| cx.now.since(asked) >= ASK_AGAIN)
        {
            led.asked = Some(cx.now);
            cx.outputs.push_back(Output::RekeyNow { sa, reason });
        }
    }

    /// The SAs that already wait for an extension, nearest to their limit first.
    pub fn ask_starved(&mut self, cx: &mut Context<'_>) {
        let mut waiting: Vec<(u64, SaId)> = self
            .sas
            .iter()
            .filter(|(_, led)| led.right && led.live && led.offered != led.limit)
            .map(|(sa, led)| (led.limit.grant.0.saturating_sub(led.cursor), *sa))
            .collect();
        waiting.sort_unstable();
        for (_, sa) in waiting {
            if self.starved(cx, sa) {
                self.ask(cx, sa, RekeyReason::LeaseRunsOut);
            }
        }
    }
}

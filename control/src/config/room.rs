//! What one IKE SA can carry: all that the members tell each other of it is one record, of limited
//! size. A connection with more children than fit would never come up with all of them.

use hitless_sa::TrafficSelector;
use hitless_sync::BODY_LIMIT;

use super::document::Section;
use super::report::Refusal;
use crate::ike::settings::Child;

/// Left for the IKE SA itself: keys, identities, and the messages that may be asked for again.
const IKE_SA: usize = 12_288;
/// Of a Child SA without its name and selectors: keys, addresses, lifetimes.
const CHILD_SA: usize = 400;
/// Of its name, when it waits to be made or to be rekeyed.
const TASK: usize = 48;

/// Refuses more children than fit, where this gateway has so many workers.
pub(super) fn check(section: &Section<'_>, children: Option<&[Child]>, workers: usize) {
    let children = children.unwrap_or_default();
    let each = children.iter().map(|child| octets(child, workers));
    let all = each.fold(0, usize::saturating_add);
    let room = BODY_LIMIT - IKE_SA;
    if all > room {
        let title = format!(
            "{}: {} children with {} traffic selectors are too many for one IKE SA",
            section.path,
            children.len(),
            children.iter().map(selectors).sum::<usize>(),
        );
        let help = format!(
            "what members tell each other of them takes {all} octets and may take {room}: give \
             some of them a connection of their own, or write larger networks"
        );
        section.refuse("children", Refusal::new(title, help));
    }
}

fn selectors(child: &Child) -> usize {
    child.local_ts.len() + child.remote_ts.len()
}

fn octets(child: &Child, workers: usize) -> usize {
    let selector = |selector: &TrafficSelector| if selector.start.is_ipv4() { 24 } else { 48 };
    let all = child.local_ts.iter().chain(&child.remote_ts).map(selector);
    let one = CHILD_SA + TASK + 2 * child.name.len() + all.sum::<usize>();
    // RFC 9611: one for each worker.
    let parallel = usize::from(child.per_cpu_sas).min(workers).max(1);
    one.saturating_mul(parallel)
}

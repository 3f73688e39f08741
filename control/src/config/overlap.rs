//! Children whose selectors overlap: the first match wins (RFC 4301 section 4.4.1), so the order of
//! the file decides whose traffic it is. The more specific one first is what people mean; the other
//! ways round are worth a word.

use hitless_sa::TrafficSelector;

use super::report::Problems;
use crate::ike::settings::Connection;

/// Comparisons at most: a check must not take longer than its reader's patience.
const COMPARISONS: usize = 1 << 20;
/// Warnings at most.
const WARNINGS: usize = 20;

/// One pair of selectors and whose it is.
struct Pair {
    /// Its place in the file.
    order: usize,
    child: String,
    local: TrafficSelector,
    remote: TrafficSelector,
}

/// Warns of children that take traffic from one that stands behind them.
pub(super) fn warn(problems: &Problems, connections: &[Connection]) {
    let mut pairs = pairs(connections);
    pairs.sort_by_key(|pair| (pair.remote.start, pair.order));
    let (mut compared, mut warned) = (0, 0);
    for (index, one) in pairs.iter().enumerate() {
        for other in pairs.iter().skip(index + 1) {
            // Sorted by where they start: nothing behind this one overlaps either.
            compared += 1;
            if other.remote.start > one.remote.end || compared > COMPARISONS {
                break;
            }
            let (first, second) = match one.order < other.order {
                true => (one, other),
                false => (other, one),
            };
            if let Some(text) = verdict(first, second)
                && warned < WARNINGS
            {
                warned += 1;
                problems.warn(text);
            }
        }
    }
}

fn pairs(connections: &[Connection]) -> Vec<Pair> {
    let mut pairs = Vec::new();
    for connection in connections {
        for child in &connection.children {
            for local in &child.local_ts {
                for remote in &child.remote_ts {
                    pairs.push(Pair {
                        order: pairs.len(),
                        child: format!("{}.{}", connection.name, child.name),
                        local: *local,
                        remote: *remote,
                    });
                }
            }
        }
    }
    pairs
}

/// What there is to say about two pairs, the first of which is tried first.
fn verdict(first: &Pair, second: &Pair) -> Option<String> {
    let same = (first.local, first.remote) == (second.local, second.remote);
    let apart = !overlap(&first.local, &second.local) || !overlap(&first.remote, &second.remote);
    let specific = covers(&second.local, &first.local) && covers(&second.remote, &first.remote);
    // Twins have a warning of their own.
    if first.child == second.child || same || apart || specific {
        return None;
    }
    let whole = covers(&first.local, &second.local) && covers(&first.remote, &second.remote);
    let (one, other) = (&first.child, &second.child);
    let (local, remote) = (second.local, second.remote);
    Some(match whole {
        true => format!(
            "{other}: {local} === {remote} is never used, because {one} stands first and covers \
             it; put {other} in front of it"
        ),
        false => format!(
            "{other}: {local} === {remote} overlaps with {one}, which stands first and takes what \
             both cover"
        ),
    })
}

fn overlap(a: &TrafficSelector, b: &TrafficSelector) -> bool {
    let protocols = a.protocol == 0 || b.protocol == 0 || a.protocol == b.protocol;
    let ports = a.start_port <= b.end_port && b.start_port <= a.end_port;
    let addresses = a.start <= b.end && b.start <= a.end;
    protocols && ports && addresses && a.start.is_ipv4() == b.start.is_ipv4()
}

/// Whether every packet that the inner one matches, the outer one matches too.
fn covers(outer: &TrafficSelector, inner: &TrafficSelector) -> bool {
    let protocols = outer.protocol == 0 || outer.protocol == inner.protocol;
    let ports = outer.start_port <= inner.start_port && inner.end_port <= outer.end_port;
    let addresses = outer.start <= inner.start && inner.end <= outer.end;
    protocols && ports && addresses && outer.start.is_ipv4() == inner.start.is_ipv4()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(order: usize, local: &str, remote: &str) -> Pair {
        Pair {
            order,
            child: format!("c.{order}"),
            local: local.parse().unwrap(),
            remote: remote.parse().unwrap(),
        }
    }

    #[test]
    fn the_more_specific_first_is_fine_and_the_other_ways_are_told_of() {
        let verdict = |first: (&str, &str), second: (&str, &str)| {
            verdict(&pair(1, first.0, first.1), &pair(2, second.0, second.1))
        };
        let (small, large) = (("10.1.0.0/24", "10.2.0.0/24"), ("10.1.0.0/16", "0.0.0.0/0"));
        assert_eq!(verdict(small, large), None);
        let text = verdict(large, small).unwrap();
        assert!(
            text.contains("c.2: 10.1.0.0/24 === 10.2.0.0/24 is never used"),
            "{text}"
        );
        let text = verdict(
            ("10.1.0.0/16", "10.2.0.0/24"),
            ("10.1.0.0/24", "10.2.0.0/16"),
        );
        assert!(text.unwrap().contains("overlaps with c.1"));
        assert_eq!(verdict(small, ("10.1.1.0/24", "10.2.0.0/24")), None);
        assert_eq!(verdict(small, small), None, "twins");
        assert_eq!(verdict(small, ("2001:db8::/32", "2001:db8::/32")), None);
    }
}

//! Revocation lists by which a chain of certificates is judged (RFC 5280 section 6.3).

use std::time::Duration;

use hitless::ike::auth::{Revocation, RevocationList};
use rcgen::{CrlDistributionPoint, CrlIssuingDistributionPoint, CrlScope, SerialNumber};

use crate::pki::{Authority, Date, Issued, NOON, Wish, place, trust};

const FRESH: Date = Date(2026, 12, 1);
const STALE: Date = Date(2026, 3, 1);

/// A chain below an anchor.
struct Chain {
    anchor: Authority,
    middle: Authority,
    own: Issued,
}

impl Chain {
    /// Whether the peer's own certificate names a CRL, and whether its issuer's does.
    fn naming(own: bool, middle: bool) -> Chain {
        let at = |names: bool, at: &str| -> Vec<CrlDistributionPoint> {
            names.then(|| place(at)).into_iter().collect()
        };
        let anchor = Authority::anchor("anchor");
        let middle = anchor.below_with("middle", |params| {
            params.serial_number = Some(SerialNumber::from(50));
            params.crl_distribution_points = at(middle, "anchor");
        });
        let own = middle.issue(&Wish::named("a.test").with(|params| {
            params.crl_distribution_points = at(own, "middle");
        }));
        Chain {
            anchor,
            middle,
            own,
        }
    }

    fn of_middle(&self, until: Date) -> RevocationList {
        self.middle.revoke(&[], until)
    }

    fn of_anchor(&self, until: Date) -> RevocationList {
        self.anchor.revoke(&[51], until)
    }

    /// With `ifuri`; all of it is good otherwise.
    fn verdict(&self, lists: Vec<RevocationList>) -> Result<(), String> {
        let chain = [&self.own.certificate, &self.middle.certificate].map(|c| c.der().as_ref());
        let relaxed = trust(&[&self.anchor], Revocation::Relaxed, lists.clone());
        assert_eq!(relaxed.verify(&chain, NOON).map(drop), Ok(()));
        let believed = trust(&[&self.anchor], Revocation::IfUri, lists);
        let verdict = believed.verify(&chain, NOON).map(drop);
        // What was found good is so for no longer than the lists are fresh.
        let later = NOON + Duration::from_secs(184 * 86_400);
        assert!(believed.verify(&chain, later).is_err());
        verdict.map_err(|error| error.to_string())
    }

    fn assert_refused(&self, lists: Vec<RevocationList>, why: &str) {
        let verdict = self.verdict(lists).unwrap_err();
        assert!(verdict.contains(why), "{verdict}");
    }
}

/// With `ifuri` each certificate of a chain that names a CRL needs a fresh one that speaks of it, and not
/// the peer's own alone.
#[test]
fn rfc5280_section_6_3_3_an_authority_that_names_a_crl_needs_a_fresh_one() {
    for own_names in [false, true] {
        let chain = Chain::naming(own_names, true);
        let (middle, anchor) = (|| chain.of_middle(FRESH), || chain.of_anchor(FRESH));
        assert_eq!(chain.verdict(vec![middle(), anchor()]), Ok(()));
        chain.assert_refused(vec![], "no CRL");
        chain.assert_refused(vec![middle()], "no CRL");
        chain.assert_refused(vec![middle(), chain.of_anchor(STALE)], "too old");
        let both = [anchor(), chain.of_anchor(STALE)];
        let [fresh, stale] = both.clone();
        assert_eq!(chain.verdict([&both[..], &[middle()]].concat()), Ok(()));
        assert_eq!(chain.verdict(vec![stale, middle(), fresh]), Ok(()));
    }
}

#[test]
fn rfc5280_section_6_3_3_who_names_no_crl_needs_none() {
    let chain = Chain::naming(true, false);
    assert_eq!(chain.verdict(vec![chain.of_middle(FRESH)]), Ok(()));
    chain.assert_refused(vec![], "no CRL");
    chain.assert_refused(vec![chain.of_anchor(FRESH)], "no CRL");
    chain.assert_refused(vec![chain.of_middle(STALE)], "too old");
}

#[test]
fn rfc5280_section_5_2_5_a_list_of_a_part_speaks_of_that_part_alone() {
    let chain = Chain::naming(true, true);
    for (name, scope, good) in [
        ("anchor", None, true),
        ("anchor", Some(CrlScope::CaCertsOnly), true),
        ("anchor", Some(CrlScope::UserCertsOnly), false),
        ("elsewhere", None, false),
    ] {
        let point = CrlIssuingDistributionPoint {
            distribution_point: place(name),
            scope,
        };
        let part = chain.anchor.revoke_at(&[51], FRESH, Some(point));
        let verdict = chain.verdict(vec![chain.of_middle(FRESH), part]);
        assert_eq!(verdict.is_ok(), good, "{name} {scope:?} {verdict:?}");
    }
}

//! What operators ask of a gateway that leads: that clients go elsewhere, that Child SAs end and begin,
//! that it uses another of its addresses.

use std::net::IpAddr;

use hitless::api::Choice;
use hitless::ike::Input;
use hitless_sa::Instant;

use super::machine::Machine;

impl Machine {
    /// Each client goes to that one of these addresses at which it is not (RFC 5685 section 5).
    pub fn redirect(&mut self, now: Instant, addresses: [IpAddr; 2]) {
        self.order(now, |gateway, now, entropy| {
            let sas = gateway.list_sas(now).into_iter();
            let all: Vec<(u64, String)> = sas.map(|ike| (ike.unique_id, ike.local_host)).collect();
            for (id, here) in all {
                let choice = Choice {
                    ike_id: Some(id),
                    ..Choice::default()
                };
                let there = addresses.into_iter().find(|to| to.to_string() != here);
                if let Some(to) = there {
                    // Whoever does not lead, or whose client cannot go, says so.
                    let _ = gateway.redirect(now, entropy, &choice, to);
                }
            }
        });
    }

    /// All of its IKE SAs go on from there (RFC 4555).
    pub fn move_to(&mut self, now: Instant, local: IpAddr) {
        self.order(now, |gateway, now, entropy| {
            if gateway.leading() {
                for (ike, _) in gateway.ike_sas() {
                    gateway.ike(now, entropy, Input::Relocate { ike, local });
                }
            }
        });
    }

    /// No Child SA is left, and none is started again by itself.
    pub fn close_children(&mut self, now: Instant) {
        self.order(now, |gateway, now, entropy| {
            if gateway.leading() {
                for sa in gateway.ike_sas().into_iter().flat_map(|(_, sas)| sas) {
                    gateway.ike(now, entropy, Input::TerminateChild(sa));
                }
            }
        });
    }

    /// Every child is wanted again.
    pub fn open_children(&mut self, now: Instant) {
        let owned = |(connection, child): (&str, &str)| (connection.to_owned(), child.to_owned());
        let all: Vec<(String, String)> = self.named().map(owned).collect();
        self.order(now, |gateway, now, entropy| {
            for (connection, child) in all {
                // Whoever does not lead says so.
                let _ = gateway.initiate(now, entropy, &child, Some(&connection));
            }
        });
    }

    /// Name servers that came with an address (RFC 7296 section 3.15.1), if it leads.
    pub fn name_servers(&mut self, now: Instant) -> usize {
        let told = self.order(now, |gateway, now, _| match gateway.leading() {
            true => gateway.list_sas(now).iter().map(|ike| ike.dns.len()).sum(),
            false => 0,
        });
        told.unwrap_or_default()
    }
}

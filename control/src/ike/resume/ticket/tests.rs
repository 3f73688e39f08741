//! Tickets: who opens them, and until when.

use super::*;
use crate::ike::sessions::ClusterSecret;
use crate::ike::settings::EngineSettings;
use hitless_sa::{Incarnation, MemberId};

fn settings(secret: &[u8]) -> EngineSettings {
    EngineSettings {
        cluster_secret: ClusterSecret::new("hq", secret),
        ..EngineSettings::new(MemberId(1), Incarnation(1), Vec::new(), Vec::new())
    }
}

const TIME: Duration = Duration::from_secs(1_800_000_000);

fn record() -> TicketRecord {
    TicketRecord {
        connection: "office".to_owned(),
        ike: 7,
        local_id: "a.test".parse::<Identification>().unwrap().to_body(),
        remote_id: "b.test".parse::<Identification>().unwrap().to_body(),
        proposal: "aes128gcm16-prfsha256-x25519".to_owned(),
        sk_d: vec![9; 32],
        expires: TIME.as_secs() + 3600,
        ..TicketRecord::default()
    }
}

#[test]
fn rfc5723_section_6_1_any_member_opens_what_any_member_sealed_and_nobody_else() {
    let [one, two] = [0, 1].map(|_| settings(b"the secret of a cluster"));
    let ticket = seal(&one, TIME, [3; SALT], &record()).unwrap();
    let session = open(&two, TIME, &ticket).unwrap();
    assert_eq!(session.ike, IkeSpi(7));
    assert_eq!(*session.sk_d, [9; 32]);
    assert!(!ticket.windows(16).any(|part| part == [9; 16]));
    let other = settings(b"the secret of another");
    assert!(open(&other, TIME, &ticket).is_none());
    assert!(open(&settings(b""), TIME, &[]).is_none());
    for length in 0..ticket.len() {
        assert!(open(&two, TIME, &ticket[..length]).is_none(), "{length}");
    }
    for position in 0..ticket.len() {
        let mut damaged = ticket.clone();
        damaged[position] ^= 1;
        assert!(open(&two, TIME, &damaged).is_none(), "octet {position}");
    }
}

#[test]
fn rfc5723_section_6_2_a_ticket_expires_and_so_does_its_key() {
    let settings = settings(b"the secret of a cluster");
    let ticket = seal(&settings, TIME, [3; SALT], &record()).unwrap();
    let seconds = Duration::from_secs;
    assert!(open(&settings, TIME + seconds(3599), &ticket).is_some());
    assert!(open(&settings, TIME + seconds(3600), &ticket).is_none());
    let endless = TicketRecord {
        expires: u64::MAX,
        ..record()
    };
    let ticket = seal(&settings, TIME, [4; SALT], &endless).unwrap();
    assert!(open(&settings, TIME + LONGEST - seconds(DAY), &ticket).is_some());
    assert!(open(&settings, TIME + LONGEST + seconds(DAY), &ticket).is_none());
    // From a member whose clock is days ahead.
    assert!(open(&settings, TIME - seconds(2 * DAY), &ticket).is_none());
}

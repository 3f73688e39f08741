//! The judge against made-up evidence: a clean trial passes, and each planted fault fails the check
//! that is there for it.

use std::net::Ipv4Addr;
use std::time::Duration;

use hitless::audit::pcap::PcapWriter;

use super::evidence::{Evidence, Rekey, Snapshot};
use super::{AEAD, Gateway, Plan};
use crate::ping::PingLog;
use crate::scenario::Report;
use crate::strongswan::{ChildSa, IkeSa};
use crate::topology::V4;

const CLUSTER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const PEER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
const HOST_A: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 2);
const HOST_B: Ipv4Addr = Ipv4Addr::new(10, 2, 0, 2);
const OLD: u32 = 0xc000_0001;
const NEW: u32 = 0xc000_0002;
const START: u64 = 1_000_000;
const KILLED: u64 = START + 3_000;
const AUTH: u8 = 35;
const INFORMATIONAL: u8 = 37;

/// A frame and its milliseconds since 1970.
type Timed = (u64, Vec<u8>);

fn at(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

fn ip(source: Ipv4Addr, destination: Ipv4Addr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![2; 12];
    frame.extend_from_slice(&[0x08, 0x00, 0x45, 0]);
    frame.extend_from_slice(&((20 + payload.len()) as u16).to_be_bytes());
    frame.extend_from_slice(&[0, 0, 0, 0, 64, protocol, 0, 0]);
    frame.extend_from_slice(&source.octets());
    frame.extend_from_slice(&destination.octets());
    frame.extend_from_slice(payload);
    frame
}

fn udp(from_cluster: bool, payload: &[u8]) -> Vec<u8> {
    let mut segment = [4500u16.to_be_bytes(), 4500u16.to_be_bytes()].concat();
    segment.extend_from_slice(&((8 + payload.len()) as u16).to_be_bytes());
    segment.extend_from_slice(&[0, 0]);
    segment.extend_from_slice(payload);
    let (source, destination) = if from_cluster {
        (CLUSTER, PEER)
    } else {
        (PEER, CLUSTER)
    };
    ip(source, destination, 17, &segment)
}

fn esp(spi: u32, number: u32) -> Vec<u8> {
    let iv = u64::from(number).to_be_bytes();
    let packet = [
        &spi.to_be_bytes()[..],
        &number.to_be_bytes(),
        &iv,
        &[0xee; 40],
    ]
    .concat();
    udp(true, &packet)
}

fn ike(from_cluster: bool, exchange: u8, response: bool, message_id: u32) -> Vec<u8> {
    // The peer is the original initiator.
    let flags = u8::from(!from_cluster) << 3 | u8::from(response) << 5;
    let mut message = vec![0, 0, 0, 0];
    message.extend_from_slice(&[0x11; 16]);
    message.extend_from_slice(&[46, 0x20, exchange, flags]);
    message.extend_from_slice(&message_id.to_be_bytes());
    message.extend_from_slice(&58u32.to_be_bytes());
    message.extend_from_slice(&[0x5a; 30]);
    udp(from_cluster, &message)
}

fn echo(source: Ipv4Addr, destination: Ipv4Addr, sequence: u8) -> Vec<u8> {
    ip(source, destination, 1, &[8, 0, 0, 0, 0, 7, 0, sequence])
}

fn capture(frames: &[Timed]) -> Vec<u8> {
    let mut writer = PcapWriter::new(Vec::new()).expect("a vector takes all");
    let mut frames = frames.to_vec();
    frames.sort_by_key(|(time, _)| *time);
    for (time, frame) in frames {
        writer.write(at(time), &frame).expect("a vector takes all");
    }
    writer.finish().expect("a vector takes all")
}

/// What a trial would have gathered, still open to faults.
struct Made {
    m1: Vec<Timed>,
    m2: Vec<Timed>,
    peer: Vec<Timed>,
    host_b: Vec<Timed>,
    spi_after: &'static str,
    log: &'static str,
    replays_arrived: u64,
    answers: Vec<Duration>,
}

impl Made {
    fn clean() -> Self {
        let m1: Vec<Timed> = (1..=100)
            .map(|n| (START + u64::from(n), esp(OLD, n)))
            .chain([(START, ike(true, AUTH, true, 1))])
            .collect();
        let m2: Vec<Timed> = (1025..=1100)
            .map(|n| (KILLED - 1000 + u64::from(n), esp(OLD, n)))
            .chain((1..=20).map(|n| (KILLED + 9_000 + u64::from(n), esp(NEW, n))))
            .chain([
                (KILLED + 4_002, ike(true, INFORMATIONAL, true, 2)),
                (KILLED + 6_001, ike(true, INFORMATIONAL, false, 0)),
            ])
            .collect();
        let mut peer = [m1.clone(), m2.clone()].concat();
        peer.extend([
            (START - 1, ike(false, AUTH, false, 1)),
            (KILLED + 4_001, ike(false, INFORMATIONAL, false, 2)),
            (KILLED + 6_002, ike(false, INFORMATIONAL, true, 0)),
        ]);
        Self {
            m1,
            m2,
            peer,
            host_b: (1..=90).map(|n| (START, echo(HOST_A, HOST_B, n))).collect(),
            spi_after: "aaaa",
            log: "[ENC] parsed IKE_AUTH response 1 [ IDr AUTH N(MSG_ID_SYN_SUP) ]\n\
                  [ENC] parsed INFORMATIONAL request 0 [ ]\n",
            replays_arrived: 50,
            answers: vec![at(START), at(KILLED - 50), at(KILLED + 900)],
        }
    }

    /// What the standby sends is seen at the peer too.
    fn standby_sends(&mut self, time: u64, frame: Vec<u8>) {
        self.m2.push((time, frame.clone()));
        self.peer.push((time, frame));
    }

    fn judge(&self, variant: &str) -> Report {
        let snapshot = |spi: &str, milliseconds| Snapshot {
            sa: Some(IkeSa {
                state: "ESTABLISHED".to_owned(),
                initiator_spi: spi.to_owned(),
                established: (milliseconds - START) / 1000,
                ..IkeSa::default()
            }),
            time: at(milliseconds),
        };
        let after = snapshot(self.spi_after, KILLED + 3_000);
        let pings = [ping_log(&self.answers), ping_log(&self.answers)];
        let before = snapshot("aaaa", KILLED);
        let mut evidence = Evidence::new(at(KILLED), before, after.clone(), pings, 10);
        evidence.replayed_to_cluster = 50;
        evidence.replayed_to_peer = 40;
        evidence.replays_arrived = self.replays_arrived;
        evidence.one_way = vec![
            (at(KILLED + 4_000), at(KILLED + 5_000)),
            (at(KILLED + 6_000), at(KILLED + 7_000)),
        ];
        let child = |spi: u32| ChildSa {
            spi_in: format!("{spi:08x}"),
            ..ChildSa::default()
        };
        evidence.rekey = Some(Rekey {
            command: Ok(()),
            old: child(OLD),
            new: Some(child(NEW)),
            during: ping_log(&self.answers),
            after: Some(ping_log(&self.answers)),
        });
        evidence.last = Some(after);
        evidence.ike_rekey = Ok("cccc".to_owned());
        self.log.clone_into(&mut evidence.charon_log);
        evidence.outside = vec![capture(&self.peer)];
        evidence.members = vec![capture(&self.m1), capture(&self.m2)];
        evidence.hosts = vec![capture(&[]), capture(&self.host_b)];
        let plan = Plan {
            scenario: "made-up",
            gateway: Gateway::Hitless,
            at: V4,
            starts: false,
            proposals: AEAD,
            takeover: "auto",
            sync_expected: variant == "message-id-sync",
        };
        evidence.judge(&plan, variant)
    }
}

fn ping_log(answers: &[Duration]) -> PingLog {
    PingLog {
        transmitted: 300,
        received: 300,
        duplicates: 0,
        answers: answers.to_vec(),
    }
}

/// Judges a clean trial with one fault: exactly these checks must fail.
fn expect_failures(variant: &str, plant: impl FnOnce(&mut Made), expected: &[&str]) {
    let mut made = Made::clean();
    plant(&mut made);
    let report = made.judge(variant);
    let failed: Vec<_> = report.checks.iter().filter(|check| !check.passed).collect();
    let names: Vec<&str> = failed.iter().map(|check| check.name.as_str()).collect();
    assert_eq!(names, expected, "{failed:#?}");
    assert_eq!(report.passed, expected.is_empty());
}

#[test]
fn a_clean_trial_passes_and_its_figures_are_right() {
    expect_failures("exact", |_| {}, &[]);
    let report = Made::clean().judge("exact");
    assert_eq!(report.takeover_ms, Some(25.0));
    assert_eq!(report.outage_ms, Some(950.0));
    assert_eq!(report.skip, Some(924));
    assert_eq!(report.packets_lost, Some(0));
    assert_eq!(report.replays_accepted, Some(0));
    assert_eq!(report.ike_auth_after_failover, Some(0));
    assert_eq!(report.repeated_sequence_numbers, Some(0));
}

#[test]
fn s1_a_number_that_both_members_used_fails() {
    let plant = |made: &mut Made| made.standby_sends(KILLED + 3_000, esp(OLD, 77));
    expect_failures("exact", plant, &["no-repeated-number"]);
}

#[test]
fn s1_a_standby_that_starts_too_low_fails() {
    let plant = |made: &mut Made| made.standby_sends(KILLED + 10, esp(OLD, 100));
    expect_failures("exact", plant, &["no-repeated-number", "goes-on-above"]);
}

#[test]
fn s2_an_iv_that_is_not_the_number_fails() {
    let plant = |made: &mut Made| {
        let mut frame = esp(OLD, 2000);
        frame[14 + 20 + 8 + 15] ^= 1;
        made.standby_sends(KILLED + 3_000, frame);
    };
    expect_failures("exact", plant, &["iv-is-number"]);
}

#[test]
fn s3_a_packet_delivered_twice_fails() {
    let plant = |made: &mut Made| made.host_b.push((KILLED, echo(HOST_A, HOST_B, 5)));
    expect_failures("exact", plant, &["replays-refused"]);
}

#[test]
fn replays_that_never_reached_the_gateway_prove_nothing() {
    expect_failures(
        "exact",
        |made| made.replays_arrived = 49,
        &["replays-refused"],
    );
}

#[test]
fn a_standby_that_talks_too_early_fails() {
    let plant = |made: &mut Made| made.standby_sends(KILLED - 1, esp(OLD, 1024));
    expect_failures("exact", plant, &["standby-silent"]);
}

#[test]
fn no_takeover_fails() {
    let plant = |made: &mut Made| made.m2.clear();
    expect_failures("exact", plant, &["takeover-in-time", "goes-on-above"]);
}

#[test]
fn hosts_that_wait_too_long_or_for_ever_fail() {
    let late = |made: &mut Made| made.answers = vec![at(KILLED - 50), at(KILLED + 4_951)];
    expect_failures("exact", late, &["pings-a-to-b", "pings-b-to-a"]);
    let never = |made: &mut Made| made.answers = vec![at(KILLED - 50), at(KILLED - 40)];
    expect_failures("exact", never, &["pings-a-to-b", "pings-b-to-a"]);
}

#[test]
fn a_new_ike_auth_fails() {
    let plant = |made: &mut Made| made.peer.push((KILLED + 50, ike(false, AUTH, false, 1)));
    expect_failures("exact", plant, &["no-new-ike-auth"]);
}

#[test]
fn another_ike_sa_fails() {
    expect_failures(
        "exact",
        |made| made.spi_after = "bbbb",
        &["ike-sa-unchanged"],
    );
}

#[test]
fn a_sync_where_none_may_be_and_none_where_one_must_be_fail() {
    let sync = "[ENC] parsed INFORMATIONAL request 0 [ N(MSG_ID_SYN) ]\n";
    expect_failures("exact", |made| made.log = sync, &["no-message-id-sync"]);
    expect_failures("message-id-sync", |made| made.log = sync, &[]);
    expect_failures("message-id-sync", |_| {}, &["message-id-sync-answered"]);
}

#[test]
fn rfc6311_section_7_two_syncs_for_one_failover_fail() {
    let sync = "[ENC] parsed INFORMATIONAL request 0 [ N(MSG_ID_SYN) ]\n";
    let both = "[ENC] parsed INFORMATIONAL request 0 [ N(MSG_ID_SYN) ]\n\
                [ENC] parsed INFORMATIONAL request 0 [ ]\n";
    let again = |made: &mut Made, log| {
        let mut other = ike(true, INFORMATIONAL, false, 0);
        if let Some(last) = other.last_mut() {
            *last ^= 1;
        }
        made.standby_sends(KILLED + 6_100, other);
        made.log = log;
    };
    let failed = ["message-id-sync-answered"];
    expect_failures("message-id-sync", |made| again(made, sync), &failed);
    // The other one is the ordinary request.
    expect_failures("message-id-sync", |made| again(made, both), &[]);
    // Repeated it is the same.
    let repeated = |made: &mut Made| {
        made.standby_sends(KILLED + 6_100, ike(true, INFORMATIONAL, false, 0));
        made.log = sync;
    };
    expect_failures("message-id-sync", repeated, &[]);
}

#[test]
fn a_liveness_check_without_an_answer_fails() {
    let plant = |made: &mut Made| {
        made.peer.retain(|(time, _)| *time != KILLED + 6_002);
    };
    expect_failures("exact", plant, &["liveness-by-cluster"]);
    let plant = |made: &mut Made| {
        made.peer.retain(|(time, _)| *time != KILLED + 4_001);
    };
    expect_failures("exact", plant, &["liveness-by-peer"]);
}

#[test]
fn clear_text_outside_fails() {
    let plant = |made: &mut Made| made.standby_sends(KILLED + 50, echo(HOST_B, HOST_A, 1));
    expect_failures("exact", plant, &["no-clear-text"]);
}

#[test]
fn a_new_child_sa_that_carries_nothing_fails() {
    let plant = |made: &mut Made| {
        made.m2.retain(|(time, _)| *time < KILLED + 9_000);
        made.peer.retain(|(time, _)| *time < KILLED + 9_000);
    };
    expect_failures("exact", plant, &["traffic-after-rekey"]);
}

#[test]
fn a_frame_that_the_audit_cannot_read_fails() {
    let plant = |made: &mut Made| {
        let mut frame = esp(OLD, 3000);
        frame.truncate(40);
        made.standby_sends(KILLED + 3_000, frame);
    };
    expect_failures("exact", plant, &["every-frame-understood"]);
}

//! `hitless audit` from outside: what it says, and its exit codes, over crafted captures and a real
//! one.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use hitless::audit::pcap::{Direction, Entry, LinkType, PcapWriter, PcapngWriter};
use serde_json::Value;

const CLUSTER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const PEER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
const SPI: u32 = 0xc001_cafe;

/// Files of one test, gone with it.
struct Folder(PathBuf);

impl Folder {
    fn new(test: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("hitless-{test}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir(&path).unwrap();
        Folder(path)
    }

    fn text(&self, name: &str, text: &str) -> String {
        let path = self.0.join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    }

    /// A capture: frames with their milliseconds.
    fn capture(&self, name: &str, frames: &[(u64, Vec<u8>)]) -> String {
        let mut writer = PcapWriter::new(Vec::new()).unwrap();
        for (at, frame) in frames {
            writer.write(Duration::from_millis(*at), frame).unwrap();
        }
        let path = self.0.join(name);
        std::fs::write(&path, writer.finish().unwrap()).unwrap();
        path.display().to_string()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn udp(source: Ipv4Addr, destination: Ipv4Addr, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![2; 12];
    let length = (28 + payload.len()) as u16;
    frame.extend_from_slice(&[8, 0, 0x45, 0]);
    frame.extend_from_slice(&length.to_be_bytes());
    frame.extend_from_slice(&[0, 0, 0, 0, 64, 17, 0, 0]);
    frame.extend_from_slice(&source.octets());
    frame.extend_from_slice(&destination.octets());
    frame.extend_from_slice(&4500_u16.to_be_bytes());
    frame.extend_from_slice(&4500_u16.to_be_bytes());
    frame.extend_from_slice(&(length - 20).to_be_bytes());
    frame.extend_from_slice(&[0, 0]);
    frame.extend_from_slice(payload);
    frame
}

fn esp(spi: u32, number: u64) -> Vec<u8> {
    let mut packet = spi.to_be_bytes().to_vec();
    packet.extend_from_slice(&(number as u32).to_be_bytes());
    packet.extend_from_slice(&number.to_be_bytes());
    packet.extend_from_slice(&[number as u8; 32]);
    udp(CLUSTER, PEER, &packet)
}

/// An INFORMATIONAL request with Message ID 0 of the cluster; `initiator`: it began the IKE SA.
fn synchronisation(initiator: bool, fill: u8) -> Vec<u8> {
    let mut message = vec![0; 4];
    message.extend_from_slice(&[1; 16]);
    message.extend_from_slice(&[46, 0x20, 37, if initiator { 8 } else { 0 }]);
    message.extend_from_slice(&0_u32.to_be_bytes());
    message.extend_from_slice(&60_u32.to_be_bytes());
    message.extend_from_slice(&[fill; 32]);
    udp(CLUSTER, PEER, &message)
}

/// The exit code and the verdict.
fn audit(arguments: &[&str]) -> (i32, Value) {
    let output = Command::new(env!("CARGO_BIN_EXE_hitless"))
        .args(["audit", "--json"])
        .args(arguments)
        .output()
        .unwrap();
    let verdict = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
    (output.status.code().unwrap(), verdict)
}

fn kinds(verdict: &Value) -> Vec<String> {
    let faults = verdict["faults"].as_array().unwrap();
    let kinds = faults.iter().map(|fault| fault["kind"].as_str().unwrap());
    kinds.map(str::to_owned).collect()
}

fn fault(arguments: &[&str], kind: &str) {
    let (code, verdict) = audit(arguments);
    assert_eq!((code, kinds(&verdict)), (1, vec![kind.to_owned()]));
}

fn clean(arguments: &[&str]) {
    let (code, verdict) = audit(arguments);
    assert_eq!(code, 0, "{verdict:#}");
    assert_eq!(
        (&verdict["clean"], &verdict["conclusive"]),
        (&true.into(), &true.into())
    );
}

fn doubtful(arguments: &[&str], note: &str) {
    let (code, verdict) = audit(arguments);
    assert_eq!(code, 3, "{verdict:#}");
    assert_eq!(
        (&verdict["clean"], &verdict["conclusive"]),
        (&true.into(), &false.into())
    );
    assert!(verdict["notes"].to_string().contains(note), "{verdict:#}");
}

fn of(numbers: &[(u64, u64)]) -> Vec<(u64, Vec<u8>)> {
    numbers
        .iter()
        .map(|(at, number)| (*at, esp(SPI, *number)))
        .collect()
}

#[test]
fn a_real_capture_is_judged_and_its_second_copy_is_a_fault_only_if_the_files_are_one_place() {
    let real = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/vectors/strongswan-5.9.8/strongswan-5.9.8.pcap")
        .display()
        .to_string();
    clean(&[&real]);
    let (_, verdict) = audit(&[&real, &real]);
    assert_eq!(verdict["clean"], true);
    // strongSwan sent 8 IKE messages, and the two sides 10 packets on 4 SAs.
    let seen = ["ike_messages", "sas", "frames"].map(|what| verdict[what].as_u64().unwrap());
    assert_eq!(seen, [8, 4, 36]);
    fault(&["--together", &real, &real], "packet-sent-twice");
}

/// Each packet is in it twice: as the frame on the wire, and in clear.
#[test]
fn what_hitless_capture_writes_is_judged_by_its_frames() {
    let folder = Folder::new("audit-captured");
    let mut octets = Vec::new();
    let mut writer = PcapngWriter::new(&mut octets).unwrap();
    let inner = writer.interface("inner", LinkType::Ip).unwrap();
    let outside = writer.interface("outside", LinkType::Ethernet).unwrap();
    for (at, frame) in of(&[(1, 1), (2, 2)]) {
        // What is in clear begins with its IP header.
        for (interface, octets) in [(inner, &frame[14..]), (outside, &frame[..])] {
            let entry = Entry {
                interface,
                time: Duration::from_millis(at),
                direction: Direction::Out,
                length: octets.len() as u32,
                octets,
                comment: "",
            };
            writer.packet(&entry).unwrap();
        }
    }
    let file = folder.0.join("captured.pcapng");
    std::fs::write(&file, octets).unwrap();
    let file = file.display().to_string();
    clean(&[&file]);
    let (_, verdict) = audit(&[&file]);
    assert_eq!(verdict["frames"], 2);
    let note = "2 packets that are no Ethernet frames were passed over";
    assert!(verdict["notes"].to_string().contains(note), "{verdict:#}");
}

#[test]
fn order_is_judged_across_files_in_order_of_time() {
    let folder = Folder::new("audit-order");
    let first = folder.capture("first", &of(&[(1, 1), (2, 9_000)]));
    let back = folder.capture("back", &of(&[(3, 2), (4, 3)]));
    let on = folder.capture("on", &of(&[(3, 9_001), (4, 9_002)]));
    for together in ["--together", "--reordering=4096"] {
        fault(&[together, &first, &back], "went-back");
        fault(&[together, &back, &first], "went-back");
        clean(&[together, &first, &on]);
        clean(&[together, &on, &first]);
    }
    let ahead = folder.capture("ahead", &of(&[(3, 1 << 33)]));
    fault(&[&first, &ahead], "skipped-too-far");
}

#[test]
fn leadership_that_comes_back_is_no_step_back() {
    let folder = Folder::new("audit-return");
    let m1 = folder.capture("m1", &of(&[(1, 1), (2, 2), (9, 30_001), (10, 30_002)]));
    let m2 = folder.capture("m2", &of(&[(5, 15_001), (6, 15_002)]));
    clean(&["--together", &m1, &m2]);
    clean(&["--together", &m2, &m1]);
    // And the gap between two members is not hidden by what the first sent later.
    fault(
        &["--together", &m1, &m2, "--greatest-skip", "14998"],
        "skipped-too-far",
    );
    // The one that was deposed goes on where it stood: at once, for it never heard of the other,
    let both = folder.capture("both", &of(&[(1, 1), (2, 2), (9, 3)]));
    fault(&["--together", &both, &m2], "went-back-of-a-split");
    // and long after, when it should have.
    let stale = folder.capture("stale", &of(&[(1, 1), (2, 2), (9_000, 3)]));
    fault(&["--together", &stale, &m2], "went-back");
}

#[test]
fn s5_what_was_sent_is_held_against_the_intervals_of_the_ledger() {
    let folder = Folder::new("audit-ledger");
    let capture = folder.capture("capture", &of(&[(1, 1), (2, 50), (3, 90)]));
    let ledger = |name: &str, text: &str| folder.text(name, text);
    let whole = ledger("whole", "c001cafe 1 64\nc001cafe 65 192\n");
    clean(&[&capture, "--ledger", &whole]);
    let short = ledger("short", "c001cafe 1 89\n");
    fault(&[&capture, "--ledger", &short], "beyond-the-grant");
    let hole = ledger("hole", "c001cafe 1 49\nc001cafe 51 100\n");
    fault(&[&capture, "--ledger", &hole], "outside-the-grants");
    // The older half, that the daemon has put aside.
    let later = ledger("later", "c001cafe 60 120\n");
    fault(&[&capture, "--ledger", &later], "outside-the-grants");
    ledger("later.1", "c001cafe 1 59\n");
    clean(&[&capture, "--ledger", &later]);
    clean(&[&capture, "--ledger", &short, "--ledger", &hole]);
    // Another SA of the same gateway, which the ledger lacks; the peer's own are not in it.
    let mut frames = of(&[(1, 1), (2, 2)]);
    let mut peers = esp(9, 1);
    peers[26..34].copy_from_slice(&[192, 0, 2, 2, 192, 0, 2, 1]);
    frames.push((3, peers));
    let both = folder.capture("both", &frames);
    clean(&[&both, "--ledger", &whole]);
    frames.push((4, esp(8, 1)));
    let other = folder.capture("other", &frames);
    fault(&[&other, "--ledger", &whole], "sent-without-a-grant");
    let strange = ledger("strange", "1 1 100\n");
    doubtful(&[&capture, "--ledger", &strange], "no SA of the ledger");
    let empty = ledger("empty", "# nothing\n");
    assert_eq!(audit(&[&capture, "--ledger", &empty]).0, 2);
}

#[test]
fn s5_a_number_that_only_the_other_member_was_granted_is_a_fault() {
    let folder = Folder::new("audit-members");
    let m1 = folder.capture("m1", &of(&[(1, 1), (2, 64)]));
    let m2 = folder.capture("m2", &of(&[(5, 129), (6, 130)]));
    let deposed = folder.capture("deposed", &of(&[(1, 1), (2, 64), (7, 140)]));
    let own = folder.text("own", "c001cafe 1 128\n");
    let successor = folder.text("successor", "c001cafe 129 256 60\n");
    let ledgers = ["--member-ledger", &own, "--member-ledger", &successor];
    let with = |first| [&["--together", first, m2.as_str()][..], &ledgers].concat();
    clean(&with(m1.as_str()));
    fault(&with(deposed.as_str()), "not-granted-to-the-sender");
    // The successor has to be above all that its predecessor may have sent, whatever that did send.
    let low = folder.capture("low", &of(&[(5, 100), (6, 130)]));
    let lower = [&["--together", m1.as_str(), low.as_str()][..], &ledgers].concat();
    fault(&lower, "not-granted-to-the-sender");
    // All grants in one heap would permit it.
    clean(&[
        "--together",
        &deposed,
        &m2,
        "--ledger",
        &own,
        "--ledger",
        &successor,
    ]);
    // One for each, and only with the ports of members.
    let (one, lacking) = (ledgers[..2].to_vec(), ["--together", &m1, &m2]);
    assert_eq!(audit(&[&lacking[..], &one].concat()).0, 2);
    assert_eq!(audit(&[&m1, "--member-ledger", &own]).0, 2);
}

#[test]
fn rfc6311_section_7_a_second_synchronisation_for_one_failover_is_a_fault() {
    let folder = Folder::new("audit-sync");
    let sync = |at, initiator, fill| (at, synchronisation(initiator, fill));
    let m1 = folder.capture("m1", &of(&[(1, 1), (9, 40)]));
    let mut frames = of(&[(4, 20)]);
    frames.extend([sync(5, true, 1), sync(6, true, 1)]);
    let once = folder.capture("once", &frames);
    // Sent again it is the same one.
    clean(&["--together", &m1, &once]);
    frames.push(sync(7, true, 2));
    let twice = folder.capture("twice", &frames);
    // Where its IKE_SA_INIT is not captured it may be the first request of a rekeyed IKE SA.
    doubtful(&["--together", &m1, &twice], "of a rekeying");
    clean(&["--together", &m1, &twice, "--failovers", "2"]);
    doubtful(&[&twice, "--failovers", "1"], "of a rekeying");
    doubtful(&[&twice], "--failovers");
    frames.push(sync(8, true, 3));
    let thrice = folder.capture("thrice", &frames);
    fault(&["--together", &m1, &thrice], "too-many-synchronisations");
    fault(&[&thrice, "--failovers", "1"], "too-many-synchronisations");
    // Each failover has its own, whoever leads then.
    let mut frames = of(&[(1, 1), (9, 40)]);
    frames.push(sync(10, true, 2));
    let returned = folder.capture("returned", &frames);
    clean(&["--together", &returned, &once]);
    // The original responder's first ordinary request has Message ID 0 too.
    let mut frames = of(&[(4, 20)]);
    frames.extend([sync(5, false, 1), sync(6, false, 2)]);
    let responder = folder.capture("responder", &frames);
    clean(&["--together", &m1, &responder]);
    clean(&[&responder]);
    frames.push(sync(7, false, 3));
    let responder = folder.capture("responder", &frames);
    fault(
        &["--together", &m1, &responder],
        "too-many-synchronisations",
    );
}

#[test]
fn what_could_not_be_judged_has_an_exit_code_of_its_own() {
    let folder = Folder::new("audit-doubt");
    let none = folder.capture("none", &[(1, synchronisation(true, 1))]);
    doubtful(&[&none], "no ESP was seen");
    let mut frames = of(&[(1, 1)]);
    let mut malformed = esp(SPI, 2);
    malformed.truncate(40);
    frames.push((2, malformed));
    doubtful(
        &[&folder.capture("malformed", &frames)],
        "could not be decoded",
    );
    let mut fragment = esp(SPI, 3);
    fragment[20] = 0x20;
    frames[1].1 = fragment;
    doubtful(&[&folder.capture("fragment", &frames)], "fragments");
    // The first record claims to have been longer on the wire.
    let cut = folder.capture("cut", &of(&[(1, 1), (2, 2)]));
    let mut octets = std::fs::read(&cut).unwrap();
    octets[36..40].copy_from_slice(&9_000_u32.to_le_bytes());
    std::fs::write(&cut, &octets).unwrap();
    doubtful(&[&cut], "cut");
    // A fault is a fault for all that.
    let with_fault = folder.capture("fault", &of(&[(1, 1), (2, 1)]));
    fault(&[&cut, &with_fault], "packet-sent-twice");
    // What cannot be read at all.
    octets.truncate(octets.len() - 1);
    std::fs::write(&cut, &octets).unwrap();
    for file in [
        cut,
        folder.text("text", "no capture"),
        "/nowhere".to_owned(),
    ] {
        assert_eq!(audit(&[&file]), (2, Value::Null), "{file}");
    }
}

//! Damaged packets by the million through one worker, from a seed: nothing panics, no frame of the
//! pool is lost, no receive window moves, nothing leaves or enters in clear, no number is sent
//! twice, and every packet is accounted for.
//!
//! Four kinds of damage take turns. `forged`: valid frames from the outside, spoilt; those under the
//! right keys have been received before, so that none may be delivered. `authentic`: inner packets
//! and trailers spoilt, then sealed under the right key. `inside`: what hosts send, spoilt. `whole`:
//! once, at the start, every truncation of and every flipped bit in every sealed packet.

mod dice;
mod pair;
mod seeds;

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use aes_gcm::aead::inout::InOutBuf;
use aes_gcm::{AeadInOut, Aes128Gcm, KeyInit};
use hitless_dataplane::replay::WindowState;
use serde::Serialize;

use crate::esp_peer::{Refused, Rig};
use dice::mend;

pub use dice::Dice;
use pair::{AUTHENTIC, AUTHENTIC_KEY, AUTHENTIC_SPI, INSIDE, OUTSIDE, PEER, SAS, TARGET};

/// Frames that go in at once.
const BATCH: usize = 64;
/// Faults told; more do not help.
const FAULTS: usize = 20;
/// Batches between two looks at the windows.
const LOOK: u64 = 16;
/// How far the clock moves between them.
const PACE: Duration = Duration::from_millis(500);
const ETHERNET: usize = 14;
/// Where a stranger starts: far from everything received.
const STRANGE: u64 = 1_000_000;

/// What to run.
#[derive(Clone, Copy, Debug)]
pub struct Wish {
    pub packets: u64,
    pub seed: u64,
}

/// What came of it.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Summary {
    pub seed: u64,
    /// Truncations and flipped bits of the whole ones, in order.
    pub systematic: u64,
    /// Frames that were damaged by chance.
    pub packets: u64,
    /// Authentic packets, their content damaged, that were delivered none the less.
    pub delivered: u64,
    /// Frames that left as ESP.
    pub sealed: u64,
    pub punted: u64,
    pub drops: BTreeMap<&'static str, u64>,
    pub faults: Vec<String>,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = if self.faults.is_empty() {
            "PASSED"
        } else {
            "FAILED"
        };
        writeln!(f, "mutate: {verdict}")?;
        writeln!(
            f,
            "  seed {}: {} truncations and flipped bits, {} damaged by chance",
            self.seed, self.systematic, self.packets
        )?;
        writeln!(
            f,
            "  {} delivered, {} sealed, {} punted",
            self.delivered, self.sealed, self.punted
        )?;
        for (reason, count) in &self.drops {
            writeln!(f, "  dropped {count:>9} {reason}")?;
        }
        for fault in &self.faults {
            writeln!(f, "  FAULT {fault}")?;
        }
        Ok(())
    }
}

/// What a batch did, as seen from outside the worker.
#[derive(Default)]
struct Outcome {
    pushed: u64,
    /// Frames that the worker may have taken without a count: ARP, neighbour discovery, and
    /// fragments that wait for the others.
    quiet: u64,
    inside: Vec<Vec<u8>>,
    outside: Vec<Vec<u8>>,
}

struct Run {
    target: Rig,
    dice: Dice,
    /// Sealed under the right keys, and received.
    known: Vec<Vec<u8>>,
    /// Sealed under others, and everything else that comes from outside.
    strange: Vec<Vec<u8>>,
    inside: Vec<Vec<u8>>,
    windows: Vec<Option<WindowState>>,
    /// The next number under [`AUTHENTIC_KEY`].
    next: u64,
    /// The last number sent to each SPI.
    sent: BTreeMap<u32, u32>,
    counted: u64,
    summary: Summary,
}

/// Runs it; `progress` is told how many packets are done.
///
/// # Errors
/// If the worker refuses what it must take. Faults are in the summary.
pub fn run(wish: Wish, mut progress: impl FnMut(u64)) -> Result<Summary, Refused> {
    let mut run = Run::new(wish.seed)?;
    run.whole()?;
    run.summary.systematic = std::mem::take(&mut run.summary.packets);
    let mut batches = 0;
    while run.summary.packets < wish.packets && run.summary.faults.len() < FAULTS {
        match batches % 4 {
            0 | 1 => run.forged()?,
            2 => run.authentic()?,
            _ => run.hosts_send()?,
        }
        batches += 1;
        if batches % LOOK == 0 {
            run.look_at_windows()?;
            // What waits for a neighbour or for more fragments must not wait for ever.
            run.target.advance(PACE);
            pair::introduce(&mut run.target, TARGET)?;
            progress(run.summary.packets);
        }
    }
    run.look_at_windows()?;
    let drops = run.target.counters().drops();
    run.summary.drops = drops.map(|(reason, n)| (reason.name(), n)).collect();
    run.summary.punted = run.target.counters().punted();
    Ok(run.summary)
}

impl Run {
    fn new(seed: u64) -> Result<Run, Refused> {
        let mut target = pair::gateway(TARGET, 0, 1)?;
        let known = seeds::sealed(&mut pair::gateway(PEER, 0, 1)?)?;
        let mut strange = seeds::sealed(&mut pair::gateway(PEER, 0x80, STRANGE)?)?;
        strange.extend(seeds::plain_outside());
        for frame in &known {
            target.push(OUTSIDE, frame);
        }
        target.run()?;
        let mut delivered = 0;
        while target.pop(INSIDE, |_| delivered += 1) {}
        if delivered != known.len() {
            return Err(Refused(format!(
                "{delivered} of {} whole packets were delivered",
                known.len()
            )));
        }
        let mut run = Run {
            dice: Dice::new(seed),
            known,
            strange,
            inside: seeds::inside(),
            windows: Vec::new(),
            next: 1,
            sent: BTreeMap::new(),
            counted: 0,
            summary: Summary {
                seed,
                ..Summary::default()
            },
            target,
        };
        run.counted = run.count();
        run.windows = run.read_windows()?;
        Ok(run)
    }

    /// Packets that are accounted for: dropped for a reason, or punted.
    fn count(&self) -> u64 {
        let counters = self.target.counters();
        counters.drops().map(|(_, count)| count).sum::<u64>() + counters.punted()
    }

    fn fault(&mut self, text: String) {
        if self.summary.faults.len() < FAULTS {
            self.summary.faults.push(text);
        }
    }

    fn read_windows(&mut self) -> Result<Vec<Option<WindowState>>, Refused> {
        let ids = (0..SAS).map(pair::identity);
        ids.map(|id| self.target.window(id)).collect()
    }

    fn look_at_windows(&mut self) -> Result<(), Refused> {
        let now = self.read_windows()?;
        if now != self.windows {
            let text = format!("a window has moved by packet {}", self.summary.packets);
            self.fault(text);
            self.windows = now;
        }
        let leaked = self.target.leaked();
        if leaked != 0 {
            self.fault(format!("{leaked} frames of the pool are lost"));
        }
        Ok(())
    }

    /// Puts frames into a port and lets the worker do everything.
    fn feed(&mut self, port: usize, frames: &[Vec<u8>]) -> Result<Outcome, Refused> {
        let mut outcome = Outcome::default();
        for frame in frames {
            outcome.pushed += u64::from(self.target.push(port, frame));
            outcome.quiet += u64::from(is_chatter(frame) || is_fragment(frame));
        }
        self.summary.packets += outcome.pushed;
        self.target.run()?;
        for (port, list) in [
            (INSIDE, &mut outcome.inside),
            (OUTSIDE, &mut outcome.outside),
        ] {
            while self.target.pop(port, |octets| list.push(octets.to_vec())) {}
        }
        // Who wants to know a neighbour asks, whatever became of the packet.
        for list in [&mut outcome.inside, &mut outcome.outside] {
            list.retain(|frame| !is_chatter(frame));
        }
        self.account(&outcome);
        Ok(outcome)
    }

    /// Every packet came out, was dropped for a reason, or waits for a neighbour.
    fn account(&mut self, outcome: &Outcome) {
        let counted = self.count();
        let out = (outcome.inside.len() + outcome.outside.len()) as u64;
        let waiting = self.target.waiting();
        let found = counted - self.counted + out + outcome.quiet + waiting;
        if found < outcome.pushed {
            let text = format!(
                "{} of {} packets are nowhere",
                outcome.pushed - found,
                outcome.pushed
            );
            self.fault(text);
        }
        self.counted = counted;
        self.watch_numbers(&outcome.outside);
    }

    /// What leaves on the outside is ESP with a number that was never sent, or speaks for ourselves.
    fn watch_numbers(&mut self, frames: &[Vec<u8>]) {
        for frame in frames {
            let Some((protocol, payload)) = ip_payload(frame) else {
                self.fault(format!("this left: {frame:02x?}"));
                continue;
            };
            let esp = match protocol {
                50 => payload,
                17 => payload.get(8..).unwrap_or_default(),
                // Answers and errors of our own.
                1 if frame.get(26..30) == Some(&[192, 0, 2, TARGET]) => continue,
                58 if frame.get(22..26) == Some(&[0x20, 0x01, 0x0d, 0xb8]) => continue,
                _ => &[],
            };
            let word = |at: usize| {
                let octets = esp
                    .get(at..at + 4)
                    .and_then(|octets| octets.try_into().ok());
                octets.map_or(0, u32::from_be_bytes)
            };
            let (spi, number) = (word(0), word(4));
            if spi & 0xffff_ff00 != 0xbbbb_0000 {
                self.fault(format!("this left in clear: {frame:02x?}"));
            } else if self.sent.get(&spi).is_some_and(|last| number <= *last) {
                self.fault(format!("number {number} was sent twice to {spi:#x}"));
            } else {
                self.sent.insert(spi, number);
                self.summary.sealed += 1;
            }
        }
    }

    /// Every truncation of and every flipped bit in every sealed packet, ESP and what is around it.
    fn whole(&mut self) -> Result<(), Refused> {
        let stranger = seeds::sealed(&mut pair::gateway(PEER, 0x80, STRANGE)?)?;
        for frame in self.known.clone().iter().chain(&stranger) {
            let mut damaged = Vec::new();
            for length in 0..frame.len() {
                damaged.push(frame[..length].to_vec());
                // With a length that agrees, so that the end is missed by ESP and not by IP.
                let mut mended = frame[..length].to_vec();
                mend(mended.get_mut(ETHERNET..).unwrap_or_default(), true);
                damaged.push(mended);
            }
            for bit in 0..8 * frame.len() {
                let mut flipped = frame.clone();
                flipped[bit / 8] ^= 0x80 >> (bit % 8);
                if (ETHERNET..ETHERNET + 20).contains(&(bit / 8)) {
                    mend(&mut flipped[ETHERNET..], false);
                }
                damaged.push(flipped);
            }
            for batch in damaged.chunks(BATCH) {
                let outcome = self.feed(OUTSIDE, batch)?;
                self.nothing_delivered(&outcome);
            }
        }
        self.look_at_windows()
    }

    fn nothing_delivered(&mut self, outcome: &Outcome) {
        if let Some(frame) = outcome.inside.first() {
            self.fault(format!(
                "a forged or replayed packet was delivered: {frame:02x?}"
            ));
        }
    }

    fn forged(&mut self) -> Result<(), Refused> {
        let batch: Vec<_> = (0..BATCH).map(|_| self.spoil_outside()).collect();
        let outcome = self.feed(OUTSIDE, &batch)?;
        self.nothing_delivered(&outcome);
        Ok(())
    }

    fn spoil_outside(&mut self) -> Vec<u8> {
        let dice = &mut self.dice;
        let from = if dice.below(2) == 0 {
            &self.known
        } else {
            &self.strange
        };
        let mut frame = dice.pick(from).cloned().unwrap_or_default();
        let other = dice.pick(&self.strange).map_or(&[][..], Vec::as_slice);
        spoil(dice, &mut frame, other);
        frame
    }

    fn hosts_send(&mut self) -> Result<(), Refused> {
        let mut batch = Vec::new();
        for _ in 0..BATCH {
            let dice = &mut self.dice;
            let mut frame = dice.pick(&self.inside).cloned().unwrap_or_default();
            let other = dice.pick(&self.inside).map_or(&[][..], Vec::as_slice);
            spoil(dice, &mut frame, other);
            batch.push(frame);
        }
        self.feed(INSIDE, &batch).map(drop)
    }

    /// Inner packets and trailers that are wrong, under the right key.
    fn authentic(&mut self) -> Result<(), Refused> {
        let first = self.next;
        let batch: Result<Vec<_>, Refused> = (0..BATCH).map(|_| self.seal_spoilt()).collect();
        let outcome = self.feed(OUTSIDE, &batch?)?;
        self.summary.delivered += outcome.inside.len() as u64;
        // What has a bad trailer is not marked: it may come again, to be dropped again.
        let top = self.target.window(pair::identity(AUTHENTIC))?;
        let top = top.map_or(0, |state| state.top.0);
        if top >= self.next || (top < first && !outcome.inside.is_empty()) {
            self.fault(format!("the window is at {top} after {first} and on"));
        }
        Ok(())
    }

    fn seal_spoilt(&mut self) -> Result<Vec<u8>, Refused> {
        let dice = &mut self.dice;
        let size = dice.below(200);
        let payload = seeds::udp(50_000, 40_000, &dice.octets(size));
        let (far, host) = (pair::far_host(AUTHENTIC), pair::host(TARGET, 4));
        let mut text = seeds::ip(far, host, 17, &payload);
        let pad = (4 - (text.len() + 2) % 4) % 4;
        text.extend((1..=pad as u8).chain([pad as u8, 4]));
        let other = dice
            .pick(&self.inside)
            .map_or(&[][..], |frame| &frame[ETHERNET..]);
        dice.mutate(&mut text, 0, other);
        if dice.below(2) == 0 {
            mend(&mut text, false);
        }
        if dice.below(4) == 0 {
            // The trailer is the last thing that was spoilt: make it say that all is well.
            text.truncate(text.len() / 4 * 4);
            text.extend([1, 2, 2, 4]);
        }
        let number = self.next;
        self.next += 1;
        let esp = seal(number, &text)?;
        let packet = seeds::ip(pair::outside(PEER, 4), pair::outside(TARGET, 4), 50, &esp);
        Ok(seeds::frame(OUTSIDE, &packet))
    }
}

/// ESP under [`AUTHENTIC_KEY`] (RFC 4106), by the crate and not by the dataplane.
fn seal(number: u64, text: &[u8]) -> Result<Vec<u8>, Refused> {
    let broken = || Refused("AES-GCM gave no packet".to_owned());
    let (key, salt) = AUTHENTIC_KEY.split_at(16);
    let cipher = Aes128Gcm::new_from_slice(key).map_err(|_| broken())?;
    let nonce: [u8; 12] = [salt, &number.to_be_bytes()]
        .concat()
        .try_into()
        .map_err(|_| broken())?;
    let aad = [&AUTHENTIC_SPI.to_be_bytes()[..], &number.to_be_bytes()].concat();
    let mut sealed = text.to_vec();
    let text = InOutBuf::from(sealed.as_mut_slice());
    let tag = cipher
        .encrypt_inout_detached(&nonce.into(), &aad, text)
        .map_err(|_| broken())?;
    sealed.extend(tag);
    let header = [
        &AUTHENTIC_SPI.to_be_bytes()[..],
        &(number as u32).to_be_bytes(),
        &number.to_be_bytes(),
    ];
    Ok([&header.concat()[..], &sealed].concat())
}

/// Spoils a frame, mostly behind its Ethernet header, and mostly with a header that still adds up.
fn spoil(dice: &mut Dice, frame: &mut Vec<u8>, other: &[u8]) {
    let keep = if dice.below(16) == 0 { 0 } else { ETHERNET };
    dice.mutate(frame, keep, other);
    if dice.below(8) != 0 {
        let length_too = dice.below(2) == 0;
        mend(frame.get_mut(ETHERNET..).unwrap_or_default(), length_too);
    }
}

/// ARP, or neighbour discovery (RFC 4861 section 4).
fn is_chatter(frame: &[u8]) -> bool {
    let icmpv6 = || ip_payload(frame).filter(|(protocol, _)| *protocol == 58);
    frame.get(12..14) == Some(&[0x08, 0x06])
        || icmpv6().is_some_and(|(_, message)| matches!(message.first(), Some(133..=137)))
}

fn is_fragment(frame: &[u8]) -> bool {
    match (frame.get(12..14), frame.get(ETHERNET..)) {
        (Some([0x08, 0x00]), Some([_, _, _, _, _, _, flags, low, ..])) => {
            (*flags & 0x3f, *low) != (0, 0)
        }
        // An IPv6 fragment header may lie behind others.
        (Some([0x86, 0xdd]), Some([_, _, _, _, _, _, next, ..])) => {
            matches!(next, 0 | 43 | 44 | 60)
        }
        _ => false,
    }
}

/// Protocol and payload of the IP packet in a frame.
fn ip_payload(frame: &[u8]) -> Option<(u8, &[u8])> {
    let packet = frame.get(ETHERNET..)?;
    match packet.first()? >> 4 {
        4 => Some((*packet.get(9)?, packet.get(20..)?)),
        6 => Some((*packet.get(6)?, packet.get(40..)?)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damaged_packets_do_no_harm() {
        let wish = Wish {
            packets: 40_000,
            seed: 1,
        };
        let summary = run(wish, |_| ()).expect("carried out");
        assert_eq!(summary.faults, Vec::<String>::new());
        assert!(summary.delivered > 0 && summary.sealed > 0, "{summary}");
        for reason in ["replay", "integrity", "runt", "bad_padding", "malformed"] {
            assert!(summary.drops.contains_key(reason), "{reason}: {summary}");
        }
    }

    #[test]
    fn a_fault_is_seen() {
        let mut run = Run::new(1).expect("made");
        let (us, peer) = (pair::outside(TARGET, 4), pair::outside(PEER, 4));
        let clear = seeds::frame(OUTSIDE, &seeds::ip(us, peer, 17, &[0; 20]));
        run.watch_numbers(&[clear]);
        let packet = seeds::ip(us, peer, 50, &[0xbb, 0xbb, 0, 0, 0, 0, 0, 1]);
        let esp = seeds::frame(OUTSIDE, &packet);
        run.watch_numbers(&[esp.clone(), esp.clone()]);
        run.windows.pop();
        run.look_at_windows().expect("read");
        run.nothing_delivered(&Outcome {
            inside: vec![esp],
            ..Outcome::default()
        });
        run.account(&Outcome {
            pushed: 1_000_000,
            ..Outcome::default()
        });
        assert_eq!(run.summary.faults.len(), 5, "{}", run.summary);
    }
}

//! The faults: what is done to a cluster that carries traffic, and how it is undone.

use std::path::{Path, PathBuf};
use std::time::Duration;

use x509_cert::der::DateTime;

use super::bed::Bed;
use super::lossy::Lossy;
use crate::clock;
use crate::error::LabError;
use crate::syscall::Held;
use crate::topology::{PORT_MEMBERS, PORT_MEMBERS_INSIDE};

/// How long a disk stays full, and a process stopped.
const SPELL: Duration = Duration::from_secs(2);
/// The name of the thread that is stopped.
const WORKER: &str = "worker-0";
/// What clocks are set wrong by, in seconds: the active's, and the standby's.
const STEPS: [i64; 2] = [3_600, -7_200];
/// A clock that is off by so much more or less is taken for one that was set.
const CLOCK_GRAIN: u64 = 60;
const FAKETIME: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1";

/// What happens to the cluster.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    Kill,
    Zombie,
    Switchover,
    Restarts,
    StandbyDown,
    SyncToStandby,
    SyncToActive,
    SyncCut,
    SyncLoss,
    SyncSize,
    StuckWorker,
    ProtectedDown,
    OutsideDown,
    NextHop,
    DiskFull,
    ClockStep,
}

/// What was done, and when.
#[derive(Clone, Debug, Default)]
pub struct Diary(pub Vec<(Duration, String)>);

impl Diary {
    pub fn note(&mut self, what: impl Into<String>) -> Duration {
        let now = clock::wall();
        self.0.push((now, what.into()));
        now
    }
}

impl Fault {
    pub const ALL: &'static [Fault] = &[
        Fault::Kill,
        Fault::Zombie,
        Fault::Switchover,
        Fault::Restarts,
        Fault::StandbyDown,
        Fault::SyncToStandby,
        Fault::SyncToActive,
        Fault::SyncCut,
        Fault::SyncLoss,
        Fault::SyncSize,
        Fault::StuckWorker,
        Fault::ProtectedDown,
        Fault::OutsideDown,
        Fault::NextHop,
        Fault::DiskFull,
        Fault::ClockStep,
    ];

    pub const fn name(self) -> &'static str {
        match self {
            Fault::Kill => "kill",
            Fault::Zombie => "zombie",
            Fault::Switchover => "switchover",
            Fault::Restarts => "restarts",
            Fault::StandbyDown => "standby-down",
            Fault::SyncToStandby => "sync-to-standby",
            Fault::SyncToActive => "sync-to-active",
            Fault::SyncCut => "sync-cut",
            Fault::SyncLoss => "sync-loss",
            Fault::SyncSize => "sync-size",
            Fault::StuckWorker => "stuck-worker",
            Fault::ProtectedDown => "protected-down",
            Fault::OutsideDown => "outside-down",
            Fault::NextHop => "next-hop",
            Fault::DiskFull => "disk-full",
            Fault::ClockStep => "clock-step",
        }
    }

    pub const fn says(self) -> &'static str {
        match self {
            Fault::Kill => "SIGKILL to the active",
            Fault::Zombie => "SIGSTOP to the active, SIGCONT 2 s later",
            Fault::Switchover => "the operator hands over",
            Fault::Restarts => "SIGTERM and a new start of both, one after the other",
            Fault::StandbyDown => "SIGKILL to the standby, started again later",
            Fault::SyncToStandby => "sync datagrams to the standby lost",
            Fault::SyncToActive => "sync datagrams to the active lost",
            Fault::SyncCut => "sync datagrams lost both ways, then not",
            Fault::SyncLoss => "a fifth of sync datagrams lost both ways, then none",
            Fault::SyncSize => {
                "SIGKILL to the active whose standby joined while sync datagrams above 740 octets are lost"
            }
            Fault::StuckWorker => {
                "a worker of the active stands still for 2 s, its other threads run"
            }
            Fault::ProtectedDown => "the active's cable to the protected side pulled",
            Fault::OutsideDown => "the active's cable to the outside pulled",
            Fault::NextHop => "the active's way to a next hop that it monitors cut, the link up",
            Fault::DiskFull => "SIGKILL to the active while the standby's disk is full for 2 s",
            Fault::ClockStep => "wall clocks set 1 h ahead at the active, 2 h back at the standby",
        }
    }

    /// Why it cannot be done here.
    pub fn impossible(self) -> Option<String> {
        let missing = self == Fault::ClockStep && !PathBuf::from(FAKETIME).exists();
        missing.then(|| "needs libfaketime: apt-get install libfaketime".to_owned())
    }

    /// What has to be in place before traffic is watched.
    pub fn prepare(self, bed: &mut Bed<'_>) -> Result<(), LabError> {
        match self {
            Fault::ClockStep => Fault::clocks(bed),
            Fault::NextHop => {
                bed.monitor = true;
                let restarted = Fault::start_anew(bed, |_, _| Ok(()));
                bed.monitor = false;
                restarted
            }
            Fault::SyncSize => Fault::join_without_long_words(bed),
            _ => Ok(()),
        }
    }

    /// The standby joins while long sync datagrams are lost, and what it is told of SAs is long. Either
    /// it has all of them, or it says that it is no standby yet: then nothing is lost any more.
    fn join_without_long_words(bed: &mut Bed<'_>) -> Result<(), LabError> {
        let standby = 1 - bed.wait_for_roles()?;
        bed.member(standby)?.kill()?;
        Lossy::Long.begin(&bed.lab)?;
        bed.lossy = true;
        bed.restart(standby)?;
        let joined = bed.until("a standby", |bed| {
            Ok(bed.member(standby)?.role()? == "standby")
        });
        let lost = Lossy::lost(&bed.lab)?;
        bed.bench
            .say(&format!("{lost} long datagrams lost: {joined:?}"));
        match joined {
            Ok(()) => {}
            Err(LabError::Late { .. }) => {
                Lossy::end(&bed.lab)?;
                bed.lossy = false;
            }
            Err(error) => return Err(error),
        }
        match lost {
            0 => Err(LabError::Usage("no long datagram was lost".to_owned())),
            _ => Ok(()),
        }
    }

    /// A library stands between the daemons and the clock; file 1 is m1's.
    fn clocks(bed: &mut Bed<'_>) -> Result<(), LabError> {
        Fault::start_anew(bed, |bed, index| {
            let file = clock_file(bed, index);
            set_clock(&file, 0)?;
            bed.environment = vec![
                ("LD_PRELOAD", PathBuf::from(FAKETIME)),
                ("FAKETIME_TIMESTAMP_FILE", file),
                ("FAKETIME_CACHE_DURATION", PathBuf::from("1")),
                ("FAKETIME_DONT_FAKE_MONOTONIC", PathBuf::from("1")),
                ("DONT_FAKE_MONOTONIC", PathBuf::from("1")),
            ];
            Ok(())
        })
    }

    /// One member after the other, as `with` wants it.
    fn start_anew<'a>(
        bed: &mut Bed<'a>,
        with: impl Fn(&mut Bed<'a>, usize) -> Result<(), LabError>,
    ) -> Result<(), LabError> {
        for index in 0..2 {
            with(bed, index)?;
            bed.member(index)?.shut_down()?;
            bed.restart(index)?;
            bed.environment.clear();
            bed.wait_for_roles()?;
        }
        Ok(())
    }

    /// Does it, waits for `after`, undoes it, and waits until the cluster is whole again. Gives the
    /// moment at which it began.
    pub fn strike(
        self,
        bed: &mut Bed<'_>,
        active: usize,
        after: Duration,
        diary: &mut Diary,
    ) -> Result<Duration, LabError> {
        let standby = 1 - active;
        let moment = diary.note(self.name());
        match self {
            Fault::Kill => Fault::kill(bed, active, after, diary)?,
            Fault::Zombie => {
                bed.member(active)?.signal(libc::SIGSTOP)?;
                clock::pass(SPELL)?;
                diary.note("SIGCONT");
                bed.member(active)?.signal(libc::SIGCONT)?;
                clock::pass(after)?;
            }
            Fault::Switchover => {
                bed.member(active)?.switch_over()?;
                clock::pass(after)?;
            }
            Fault::Restarts => {
                for index in [active, standby] {
                    diary.note(format!("SIGTERM to m{}", index + 1));
                    bed.member(index)?.shut_down()?;
                    clock::pass(after)?;
                    bed.restart(index)?;
                    bed.wait_for_roles()?;
                }
            }
            Fault::StandbyDown => Fault::kill(bed, standby, after, diary)?,
            Fault::SyncToStandby | Fault::SyncToActive | Fault::SyncCut => {
                self.silence(bed, active, after, diary)?;
            }
            Fault::SyncLoss => Fault::lose_some(bed, after, diary)?,
            Fault::SyncSize => {
                bed.member(active)?.kill()?;
                clock::pass(after)?;
                if std::mem::take(&mut bed.lossy) {
                    Lossy::end(&bed.lab)?;
                }
                bed.restart(active)?;
            }
            Fault::StuckWorker => Fault::hold_a_worker(bed, active, after, diary)?,
            Fault::ProtectedDown => Fault::pull(bed, PORT_MEMBERS_INSIDE[active], after, diary)?,
            Fault::OutsideDown => Fault::pull(bed, PORT_MEMBERS[active], after, diary)?,
            Fault::NextHop => Fault::cut_off(bed, active, after, diary)?,
            Fault::DiskFull => {
                bed.disks[standby].fill()?;
                bed.member(active)?.kill()?;
                clock::pass(SPELL)?;
                diary.note("room on the disk");
                bed.disks[standby].free()?;
                clock::pass(after)?;
                bed.restart(active)?;
            }
            Fault::ClockStep => {
                Fault::step(bed, active, STEPS[0])?;
                clock::pass(SPELL)?;
                diary.note("the standby's clock");
                Fault::step(bed, standby, STEPS[1])?;
                clock::pass(SPELL)?;
            }
        }
        bed.wait_for_roles()?;
        diary.note("whole again");
        Ok(moment)
    }

    /// SIGKILL, and a new start later.
    fn kill(
        bed: &mut Bed<'_>,
        member: usize,
        after: Duration,
        diary: &mut Diary,
    ) -> Result<(), LabError> {
        bed.member(member)?.kill()?;
        clock::pass(after)?;
        diary.note("restarted");
        bed.restart(member)
    }

    /// Cuts the sync link, and goes on once the members have noticed: a cut that nobody notices
    /// is none.
    fn silence(
        self,
        bed: &mut Bed<'_>,
        active: usize,
        after: Duration,
        diary: &mut Diary,
    ) -> Result<(), LabError> {
        let standby = 1 - active;
        let muted: &[usize] = match self {
            Fault::SyncToStandby => &[active],
            Fault::SyncToActive => &[standby],
            _ => &[active, standby],
        };
        for index in muted {
            bed.mute_sync(*index)?;
        }
        match self {
            // It hears nothing and takes over; the old one hears that.
            Fault::SyncToStandby => {
                bed.until("the deaf standby leading", |bed| leads(bed, standby))?;
                let follows = |bed: &mut Bed<'_>| Ok(!leads(bed, active)?);
                bed.until("the old active stepping down", follows)?;
            }
            // Nobody acknowledges what it says.
            Fault::SyncToActive => {
                bed.until("the active missing its standby", |bed| alone(bed, active))?;
            }
            _ => bed.until("two active members", |bed| {
                Ok(leads(bed, active)? && leads(bed, standby)?)
            })?,
        }
        diary.note("noticed");
        clock::pass(after)?;
        diary.note("healed");
        for index in muted {
            bed.unmute_sync(*index)?;
        }
        if self == Fault::SyncToActive {
            let missed = |bed: &mut Bed<'_>| Ok(!alone(bed, active)?);
            bed.until("the active having its standby again", missed)?;
        }
        clock::pass(after)
    }

    /// One of its threads stands still for a while.
    fn hold_a_worker(
        bed: &mut Bed<'_>,
        member: usize,
        after: Duration,
        diary: &mut Diary,
    ) -> Result<(), LabError> {
        let worker = bed.member(member)?.thread(WORKER)?;
        let worker = Held::stop(worker).map_err(LabError::io("stopping a worker"))?;
        clock::pass(SPELL)?;
        diary.note("it runs again");
        drop(worker);
        clock::pass(after)
    }

    /// The sync link loses some datagrams for a while.
    fn lose_some(bed: &Bed<'_>, after: Duration, diary: &mut Diary) -> Result<(), LabError> {
        Lossy::Fifth.begin(&bed.lab)?;
        clock::pass(after)?;
        let lost = Lossy::lost(&bed.lab)?;
        Lossy::end(&bed.lab)?;
        diary.note(format!("healed, {lost} datagrams lost"));
        if lost == 0 {
            return Err(LabError::Usage("no sync datagram was lost".to_owned()));
        }
        clock::pass(after)
    }

    /// Sets a clock, and waits until the daemon goes by it: the time of day before what it logs.
    fn step(bed: &mut Bed<'_>, index: usize, by: i64) -> Result<(), LabError> {
        set_clock(&clock_file(bed, index), by)?;
        bed.until("a daemon going by a clock that was set", |bed| {
            let member = bed.member(index)?;
            // It logs that it has read its file again.
            member.order(&["reload"])?;
            let shift = log_time(&member.log()).map(|time| time - clock::wall().as_secs() as i64);
            Ok(shift.is_some_and(|shift| shift.abs_diff(by) < CLOCK_GRAIN))
        })
    }

    /// The next hop does not answer the active any more, and its link is up: it yields. Meanwhile
    /// the new active knows that its standby has an ailment.
    fn cut_off(
        bed: &mut Bed<'_>,
        active: usize,
        after: Duration,
        diary: &mut Diary,
    ) -> Result<(), LabError> {
        let standby = 1 - active;
        bed.patch(PORT_MEMBERS_INSIDE[active], false)?;
        bed.until("the other member leading", |bed| {
            Ok(bed.member(standby)?.role()? == "active")
        })?;
        diary.note("the other one leads");
        bed.until("the next hop being named as an ailment", |bed| {
            let status = bed.member(active)?.cluster()?;
            let ailments = status["ailments"].to_string();
            Ok(ailments.contains("next hop") && ailments.contains("does not answer"))
        })?;
        bed.until("the new active knowing of it", |bed| {
            let status = bed.member(standby)?.cluster()?;
            let id = active + 1;
            let members = status["members"].as_array().cloned().unwrap_or_default();
            let other = members.into_iter().find(|member| member["id"] == id);
            Ok(other.is_some_and(|member| member["healthy"] == false))
        })?;
        clock::pass(after)?;
        diary.note("mended");
        bed.patch(PORT_MEMBERS_INSIDE[active], true)?;
        // With a link that goes and comes a standby forgets what it saw as the active; by itself it
        // would believe it for a minute.
        bed.cable(PORT_MEMBERS_INSIDE[active], false)?;
        bed.until("a link that is down", |bed| {
            Ok(!ails(bed, active, "next hop")?)
        })?;
        bed.cable(PORT_MEMBERS_INSIDE[active], true)?;
        bed.until("a standby without ailments", |bed| {
            Ok(!ails(bed, active, "")?)
        })?;
        clock::pass(after)
    }

    fn pull(bed: &Bed<'_>, port: &str, after: Duration, diary: &mut Diary) -> Result<(), LabError> {
        bed.cable(port, false)?;
        clock::pass(after)?;
        diary.note("plugged in");
        bed.cable(port, true)?;
        clock::pass(after)
    }
}

fn clock_file(bed: &Bed<'_>, index: usize) -> PathBuf {
    bed.directory.join(format!("clock-m{}", index + 1))
}

fn set_clock(file: &Path, seconds: i64) -> Result<(), LabError> {
    std::fs::write(file, format!("{seconds:+}s")).map_err(LabError::io("setting a clock"))
}

fn leads(bed: &mut Bed<'_>, member: usize) -> Result<bool, LabError> {
    Ok(bed.member(member)?.role()? == "active")
}

/// Whether that active has nobody who could take over.
fn alone(bed: &mut Bed<'_>, active: usize) -> Result<bool, LabError> {
    Ok(bed.member(active)?.cluster()?["standbys"] == 0)
}

/// Whether a member has an ailment with these words.
fn ails(bed: &mut Bed<'_>, member: usize, words: &str) -> Result<bool, LabError> {
    let status = bed.member(member)?.cluster()?;
    let ailments = status["ailments"].as_array().cloned().unwrap_or_default();
    Ok(ailments
        .iter()
        .any(|ailment| ailment.to_string().contains(words)))
}

/// Seconds since 1970 at the beginning of the last line that has a time: `2026-11-22T07:35:15.442Z`.
fn log_time(log: &str) -> Option<i64> {
    log.lines().rev().find_map(|line| {
        let time: DateTime = format!("{}Z", line.get(..19)?).parse().ok()?;
        i64::try_from(time.unix_duration().as_secs()).ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_the_last_line_of_a_log_is_read() {
        let log = "2026-11-22T07:35:15.442950Z  WARN x\n2026-11-22T08:35:39.870970Z  INFO y\n  z\n";
        assert_eq!(log_time(log), Some(1_795_336_539));
        assert_eq!(log_time("1970-01-01T00:00:01Z x"), Some(1));
        assert_eq!(log_time("2024-03-01T00:00:00Z x"), Some(1_709_251_200));
        assert_eq!(log_time("2000-02-29T23:59:59Z x"), Some(951_868_799));
        for none in [
            "",
            "no time",
            "Their log",
            "2026-11-T1",
            "T",
            "2026-11-22T07",
        ] {
            assert_eq!(log_time(none), None, "{none}");
        }
    }

    #[test]
    fn every_fault_has_a_name_of_its_own() {
        let mut names = std::collections::BTreeSet::new();
        for fault in Fault::ALL {
            assert!(names.insert(fault.name()), "{}", fault.name());
        }
    }
}

//! The faults: what is done to a cluster that carries traffic, and how it is undone.

use std::path::PathBuf;
use std::time::Duration;

use super::bed::Bed;
use crate::clock;
use crate::error::LabError;
use crate::topology::PORT_MEMBERS;

/// Ports of the inside switch towards the members.
const INSIDE_PORTS: [&str; 2] = ["i-m1", "i-m2"];
/// How long a disk stays full, and a process stopped.
const SPELL: Duration = Duration::from_secs(2);
/// What a clock is set wrong by.
const STEPS: [&str; 2] = ["+3600s", "-7200s"];
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
    ProtectedDown,
    OutsideDown,
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
        Fault::ProtectedDown,
        Fault::OutsideDown,
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
            Fault::ProtectedDown => "protected-down",
            Fault::OutsideDown => "outside-down",
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
            Fault::ProtectedDown => "the active's cable to the protected side pulled",
            Fault::OutsideDown => "the active's cable to the outside pulled",
            Fault::DiskFull => "SIGKILL to the active while the standby's disk is full for 2 s",
            Fault::ClockStep => "wall clocks set 1 h ahead at the active, 2 h back at the standby",
        }
    }

    /// Whether another member has to take over.
    pub const fn deposes(self) -> bool {
        !matches!(
            self,
            Fault::StandbyDown
                | Fault::SyncToStandby
                | Fault::SyncToActive
                | Fault::SyncCut
                | Fault::ClockStep
        )
    }

    /// Why it cannot be done here.
    pub fn impossible(self) -> Option<String> {
        let missing = self == Fault::ClockStep && !PathBuf::from(FAKETIME).exists();
        missing.then(|| "needs libfaketime: apt-get install libfaketime".to_owned())
    }

    /// What has to be in place before traffic is watched.
    pub fn prepare(self, bed: &mut Bed<'_>) -> Result<(), LabError> {
        if self != Fault::ClockStep {
            return Ok(());
        }
        // A library stands between the daemon and the clock; file 1 is m1's.
        for index in 0..2 {
            let file = clock_file(bed, index);
            set_clock(&file, "+0s")?;
            bed.environment = vec![
                ("LD_PRELOAD", PathBuf::from(FAKETIME)),
                ("FAKETIME_TIMESTAMP_FILE", file),
                ("FAKETIME_CACHE_DURATION", PathBuf::from("1")),
                ("FAKETIME_DONT_FAKE_MONOTONIC", PathBuf::from("1")),
                ("DONT_FAKE_MONOTONIC", PathBuf::from("1")),
            ];
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
            Fault::Kill => {
                bed.member(active)?.kill()?;
                clock::pass(after)?;
                diary.note("restarted");
                bed.restart(active)?;
            }
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
            Fault::StandbyDown => {
                bed.member(standby)?.kill()?;
                clock::pass(after)?;
                diary.note("restarted");
                bed.restart(standby)?;
            }
            Fault::SyncToStandby => Fault::silence(bed, &[active], after, diary)?,
            Fault::SyncToActive => Fault::silence(bed, &[standby], after, diary)?,
            Fault::SyncCut => Fault::silence(bed, &[active, standby], after, diary)?,
            Fault::ProtectedDown => Fault::pull(bed, INSIDE_PORTS[active], after, diary)?,
            Fault::OutsideDown => Fault::pull(bed, PORT_MEMBERS[active], after, diary)?,
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
                set_clock(&clock_file(bed, active), STEPS[0])?;
                clock::pass(SPELL)?;
                diary.note("the standby's clock");
                set_clock(&clock_file(bed, standby), STEPS[1])?;
                clock::pass(SPELL)?;
            }
        }
        bed.wait_for_roles()?;
        diary.note("whole again");
        Ok(moment)
    }

    fn silence(
        bed: &Bed<'_>,
        from: &[usize],
        after: Duration,
        diary: &mut Diary,
    ) -> Result<(), LabError> {
        for index in from {
            bed.mute_sync(*index)?;
        }
        clock::pass(after)?;
        diary.note("healed");
        for index in from {
            bed.unmute_sync(*index)?;
        }
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

fn set_clock(file: &std::path::Path, offset: &str) -> Result<(), LabError> {
    std::fs::write(file, offset).map_err(LabError::io("setting a clock"))
}

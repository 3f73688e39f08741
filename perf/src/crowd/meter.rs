//! What a responder takes of the machine: time on a core, and memory.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A process, or one thread of it, as /proc shows it.
#[derive(Clone, Debug)]
pub struct Meter {
    process: PathBuf,
    thread: Option<PathBuf>,
}

impl Meter {
    /// A process with all its threads.
    pub fn process(id: u32) -> Meter {
        Meter {
            process: Path::new("/proc").join(id.to_string()),
            thread: None,
        }
    }

    /// The thread that asks; the memory is that of its process.
    pub fn this_thread() -> Result<Meter, Box<dyn Error>> {
        let own = fs::read_link("/proc/thread-self")?;
        Ok(Meter {
            process: PathBuf::from("/proc/self"),
            thread: Some(Path::new("/proc").join(own)),
        })
    }

    /// How long it has been on a core.
    pub fn on_core(&self) -> Result<Duration, Box<dyn Error>> {
        if let Some(thread) = &self.thread {
            return of_thread(thread);
        }
        let tasks = self.process.join("task");
        let entries = fs::read_dir(&tasks).map_err(|e| format!("{}: {e}", tasks.display()))?;
        let mut sum = Duration::ZERO;
        for task in entries {
            // One that ends meanwhile had nothing to do.
            sum += of_thread(&task?.path()).unwrap_or_default();
        }
        Ok(sum)
    }

    /// Its memory, in octets.
    pub fn resident(&self) -> Result<u64, Box<dyn Error>> {
        let path = self.process.join("status");
        let status = fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kibibytes = line.and_then(|line| line.split_whitespace().next());
        Ok(kibibytes.ok_or("no VmRSS")?.parse::<u64>()? * 1024)
    }
}

/// The first figure of `schedstat`: nanoseconds on a core.
fn of_thread(task: &Path) -> Result<Duration, Box<dyn Error>> {
    let path = task.join("schedstat");
    let text = fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
    let nanoseconds = text.split_whitespace().next().ok_or("schedstat is empty")?;
    Ok(Duration::from_nanos(nanoseconds.parse()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_and_its_process_have_time_and_memory() {
        let thread = Meter::this_thread().unwrap();
        let process = Meter::process(std::process::id());
        // The kernel counts at its ticks, and when a thread gives its core away.
        while thread.on_core().unwrap().is_zero() {
            std::thread::yield_now();
        }
        assert!(process.on_core().unwrap() > Duration::ZERO);
        assert!(process.resident().unwrap() > 1 << 20);
    }
}

//! The carriers of the ports' interfaces, from /sys: a member without a link yields to one with it.
//!
//! Since Linux 6.15 whoever reads one waits for the kernel's lock of its network configuration, which
//! others may hold for long just when links fail. So a thread of its own reads them.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender, TryIter};
use std::thread;
use std::time::Duration;

use crate::config::PortConfig;

/// How often the kernel is asked.
const EVERY: Duration = Duration::from_millis(10);

/// Ports that have a carrier to lose. The thread ends soon after this value is dropped.
pub(super) struct Carriers {
    changes: Receiver<(usize, bool)>,
    _alive: Sender<()>,
}

impl Carriers {
    /// Watches every port with an interface that the kernel shows, once those of our own making
    /// are there.
    pub fn watch(ports: &[PortConfig]) -> io::Result<Carriers> {
        let files = ports.iter().enumerate().filter_map(|(index, port)| {
            let interface = port.kernel_interface()?;
            let path = format!("/sys/class/net/{interface}/carrier");
            Some((index, File::open(path).ok()?))
        });
        Carriers::of(files.collect())
    }

    /// Each port's position in the configuration, and its file.
    fn of(files: Vec<(usize, File)>) -> io::Result<Carriers> {
        let (tell, changes) = mpsc::channel();
        let (alive, gone) = mpsc::channel();
        let read = move || {
            let mut known = vec![None; files.len()];
            loop {
                for ((port, file), known) in files.iter().zip(&mut known) {
                    let up = Some(carrier(file));
                    if *known != up {
                        *known = up;
                        let _ = tell.send((*port, up == Some(true)));
                    }
                }
                if gone.recv_timeout(EVERY) != Err(RecvTimeoutError::Timeout) {
                    return;
                }
            }
        };
        thread::Builder::new()
            .name("carrier".to_owned())
            .spawn(read)?;
        Ok(Carriers {
            changes,
            _alive: alive,
        })
    }

    /// The ports whose carrier has come or gone, and whether it is there; each is told of first.
    pub fn changes(&self) -> TryIter<'_, (usize, bool)> {
        self.changes.try_iter()
    }
}

/// An interface that is down has none to read.
fn carrier(file: &File) -> bool {
    let mut octet = [0];
    file.read_at(&mut octet, 0).is_ok_and(|read| read == 1) && octet == *b"1"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_of_a_carrier_are_told_once_each() {
        let path = std::env::temp_dir().join(format!("hitless-carrier-{}", std::process::id()));
        let written = File::create(&path).unwrap();
        written.write_all_at(b"1\n", 0).unwrap();
        let carriers = Carriers::of(vec![(3, File::open(&path).unwrap())]).unwrap();
        let next = || carriers.changes.recv().unwrap();
        assert_eq!(next(), (3, true));
        written.write_all_at(b"0\n", 0).unwrap();
        assert_eq!(next(), (3, false));
        written.write_all_at(b"1\n", 0).unwrap();
        assert_eq!(next(), (3, true));
        // An interface that is down has none to read.
        written.set_len(0).unwrap();
        assert_eq!(next(), (3, false));
        std::fs::remove_file(&path).unwrap();
    }
}

//! The carriers of the ports' interfaces, from /sys: a member without a link yields to one with it.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use hitless_sa::Instant;

use crate::config::PortConfig;

/// How often the kernel is asked.
const EVERY: Duration = Duration::from_millis(10);

/// Ports that have a carrier to lose.
pub(super) struct Carriers {
    /// The port's position in the configuration, and its file.
    files: Vec<(usize, File)>,
    next: Instant,
}

impl Carriers {
    /// Watches every port with an interface that the kernel shows, once those of our own making
    /// are there.
    pub fn open(ports: &[PortConfig]) -> Carriers {
        let files = ports.iter().enumerate().filter_map(|(index, port)| {
            let interface = port.kernel_interface()?;
            let path = format!("/sys/class/net/{interface}/carrier");
            Some((index, File::open(path).ok()?))
        });
        Carriers {
            files: files.collect(),
            next: Instant::default(),
        }
    }

    /// Each port and whether it has its carrier, if it is time to look.
    pub fn poll(&mut self, now: Instant) -> Vec<(usize, bool)> {
        if now < self.next {
            return Vec::new();
        }
        self.next = now + EVERY;
        let files = self.files.iter();
        files.map(|(port, file)| (*port, carrier(file))).collect()
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
    use std::io::Write;

    #[test]
    fn the_carrier_is_read_anew_each_time() {
        let path = std::env::temp_dir().join(format!("hitless-carrier-{}", std::process::id()));
        let mut written = File::create(&path).unwrap();
        written.write_all(b"1\n").unwrap();
        let file = File::open(&path).unwrap();
        assert!(carrier(&file));
        written.write_all_at(b"0\n", 0).unwrap();
        assert!(!carrier(&file));
        written.set_len(0).unwrap();
        assert!(!carrier(&file));
        std::fs::remove_file(&path).unwrap();
    }
}

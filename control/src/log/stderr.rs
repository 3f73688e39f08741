//! Lines to stderr from a thread of their own (`aside.rs`).

use std::io::{self, Write};

use crate::aside::{Aside, Sink};

/// Lines that wait at most.
const ROOM: usize = 4096;

/// Where lines are put; each `write` is a whole one.
#[derive(Clone)]
pub struct Lines(Aside<Vec<u8>>);

impl Lines {
    pub fn to(sink: impl Write + Send + 'static) -> Lines {
        Lines::with_room(ROOM, sink)
    }

    fn with_room(room: usize, sink: impl Write + Send + 'static) -> Lines {
        Lines(Aside::start("log", room, Stream(sink)))
    }

    /// Waits, not for ever, until what was put is written.
    pub fn flush(&self) {
        self.0.flush();
    }
}

impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.put(line.to_vec());
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Stream<W>(W);

/// A line that cannot be written is gone: the log is no reason to stop.
impl<W: Write + Send + 'static> Sink<Vec<u8>> for Stream<W> {
    fn take(&mut self, line: Vec<u8>) {
        let _ = self.0.write_all(&line);
    }

    fn lost(&mut self, count: u64) {
        let _ = writeln!(
            self.0,
            "{count} lines of the log were lost: nobody read them"
        );
    }

    fn flush(&mut self) {
        let _ = self.0.flush();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};
    use std::thread;

    use super::*;

    /// Stuck for as long as its lock is held.
    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl Write for Sink {
        fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(octets);
            Ok(octets.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn whoever_logs_never_waits_for_a_stuck_reader_and_losses_are_told() {
        let sink = Sink::default();
        let mut lines = Lines::with_room(4, sink.clone());
        let stuck = sink.0.lock().unwrap();
        for number in 0..20 {
            lines
                .write_all(format!("line {number}\n").as_bytes())
                .unwrap();
        }
        drop(stuck);
        // There may be no room for the question yet either.
        while !String::from_utf8_lossy(&sink.0.lock().unwrap()).contains("were lost") {
            thread::yield_now();
        }
        lines.write_all(b"the last one\n").unwrap();
        Lines::flush(&lines);
        let text = String::from_utf8(sink.0.lock().unwrap().clone()).unwrap();
        assert!(text.starts_with("line 0\n"), "{text}");
        assert!(text.ends_with("the last one\n"), "{text}");
        assert!(!text.contains("line 19\n"), "{text}");
    }
}

//! Lines to stderr from a thread of their own. A reader that stops reading, or a disk that hangs,
//! must not hold up whoever has heartbeats to send: what finds no room is lost, and counted.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::thread;
use std::time::Duration;

/// Lines that wait at most.
const ROOM: usize = 4096;
/// How long the end of the process waits for the last lines.
const PATIENCE: Duration = Duration::from_secs(1);

enum Order {
    Line(Vec<u8>),
    /// Everything before it has been written: tell.
    Flush(SyncSender<()>),
}

/// Where lines are put; each `write` is a whole one.
#[derive(Clone)]
pub struct Lines {
    orders: SyncSender<Order>,
    lost: Arc<AtomicU64>,
}

impl Lines {
    /// Starts the thread, which lives as long as a place to put lines does. Where no thread can be
    /// started no daemon can either, and that is told without a log.
    pub fn to(sink: impl Write + Send + 'static) -> Lines {
        Lines::with_room(ROOM, sink)
    }

    fn with_room(room: usize, sink: impl Write + Send + 'static) -> Lines {
        let (orders, waiting) = mpsc::sync_channel(room);
        let lost = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&lost);
        let write = move || copy(&waiting, &counted, sink);
        let _ = thread::Builder::new().name("log".to_owned()).spawn(write);
        Lines { orders, lost }
    }

    /// Waits until what was put is written, or [`PATIENCE`] is over.
    pub fn flush(&self) {
        let (tell, done) = mpsc::sync_channel(1);
        if self.orders.try_send(Order::Flush(tell)).is_ok() {
            let _ = done.recv_timeout(PATIENCE);
        }
    }
}

impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.orders.try_send(Order::Line(line.to_vec())).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A line that cannot be written is gone: the log is no reason to stop.
fn copy(orders: &Receiver<Order>, lost: &AtomicU64, mut sink: impl Write) {
    for order in orders {
        match order {
            Order::Line(line) => {
                let _ = sink.write_all(&line);
            }
            Order::Flush(tell) => {
                let _ = sink.flush();
                let _ = tell.try_send(());
            }
        }
        let gone = lost.swap(0, Ordering::Relaxed);
        if gone > 0 {
            let _ = writeln!(sink, "{gone} lines of the log were lost: nobody read them");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

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

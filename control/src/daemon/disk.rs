//! Durable writes on a thread of their own, because an fsync may take long (`lease-holes` D18).

use std::io;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;

use hitless_sync::Durable;

use crate::durable::DurableFile;

/// The disk as the loop sees it.
pub struct Disk {
    wanted: Sender<Durable>,
    written: Receiver<bool>,
}

impl Disk {
    /// Starts the thread, which ends when this value is dropped.
    pub fn start(mut file: DurableFile) -> io::Result<Disk> {
        let (wanted, orders) = mpsc::channel::<Durable>();
        let (tell, written) = mpsc::channel();
        thread::Builder::new()
            .name("disk".to_owned())
            .spawn(move || {
                for durable in orders {
                    let result = file.store(durable);
                    if let Err(error) = &result {
                        tracing::error!(%error, "durable state was not written");
                    }
                    if tell.send(result.is_ok()).is_err() {
                        return;
                    }
                }
            })?;
        Ok(Disk { wanted, written })
    }

    /// Orders a write.
    pub fn write(&mut self, durable: Durable) {
        // If the thread is gone nothing is ever confirmed, which is the safe answer.
        let _ = self.wanted.send(durable);
    }

    /// Whether a write has come to its end, and how.
    pub fn finished(&mut self) -> Option<bool> {
        self.written.try_recv().ok()
    }
}

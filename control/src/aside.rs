//! Work for a thread of its own behind a queue with little room: a disk that hangs or a reader that
//! stops reading must not hold up whoever has heartbeats to send. What finds no room is lost, and
//! counted.

use std::iter;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender, TrySendError};
use std::thread;
use std::time::Duration;

/// How long the end of the process waits for the last of it.
const PATIENCE: Duration = Duration::from_secs(1);
/// The thread rests so long once it has done all that waited: whoever puts thousands of items in a
/// row wakes it for the first of them, not for each, which costs more than the item.
const REST: Duration = Duration::from_millis(5);

/// What the thread does.
pub trait Sink<T>: Send + 'static {
    fn take(&mut self, item: T);

    /// So many found no room, before whatever is taken next.
    fn lost(&mut self, count: u64);

    /// Nothing more waits for now.
    fn flush(&mut self) {}
}

enum Order<T> {
    Item(T),
    /// Everything before it has been done: tell.
    Flush(SyncSender<()>),
}

/// Where items are put.
pub struct Aside<T> {
    orders: SyncSender<Order<T>>,
    /// Ends the thread's rest.
    hurry: SyncSender<()>,
    lost: Arc<AtomicU64>,
}

impl<T> Clone for Aside<T> {
    fn clone(&self) -> Aside<T> {
        Aside {
            orders: self.orders.clone(),
            hurry: self.hurry.clone(),
            lost: Arc::clone(&self.lost),
        }
    }
}

impl<T: Send + 'static> Aside<T> {
    /// Starts the thread, which lives as long as a place to put items does; `room` of them wait at
    /// most. Where no thread can be started no daemon can either, and everything put is lost.
    pub fn start(name: &str, room: usize, sink: impl Sink<T>) -> Aside<T> {
        let (orders, waiting) = mpsc::sync_channel(room);
        let (hurry, rest) = mpsc::sync_channel(1);
        let lost = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&lost);
        let work = move || work(&waiting, &rest, &counted, sink);
        let _ = thread::Builder::new().name(name.to_owned()).spawn(work);
        Aside {
            orders,
            hurry,
            lost,
        }
    }

    /// Never waits.
    pub fn put(&self, item: T) {
        if self.orders.try_send(Order::Item(item)).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits until what was put is done, [`PATIENCE`] for room and as long for its turn.
    pub fn flush(&self) {
        let _ = self.hurry.try_send(());
        let (tell, done) = mpsc::sync_channel(1);
        let mut order = Order::Flush(tell);
        let mut rests = PATIENCE.as_millis() / REST.as_millis();
        // Of a full queue too: what was lost meanwhile has to be told.
        while let Err(TrySendError::Full(back)) = self.orders.try_send(order) {
            if rests == 0 {
                return;
            }
            (order, rests) = (back, rests - 1);
            // Nobody tells before there was room.
            let _ = done.recv_timeout(REST);
        }
        let _ = done.recv_timeout(PATIENCE);
    }
}

fn work<T>(
    orders: &Receiver<Order<T>>,
    rest: &Receiver<()>,
    lost: &AtomicU64,
    mut sink: impl Sink<T>,
) {
    while let Ok(first) = orders.recv() {
        for order in iter::once(first).chain(orders.try_iter()) {
            let tell = match order {
                Order::Item(item) => {
                    sink.take(item);
                    None
                }
                Order::Flush(tell) => Some(tell),
            };
            let gone = lost.swap(0, Ordering::Relaxed);
            if gone > 0 {
                sink.lost(gone);
            }
            if let Some(tell) = tell {
                sink.flush();
                let _ = tell.try_send(());
            }
        }
        let _ = rest.recv_timeout(REST);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    /// Stuck for as long as its lock is held.
    #[derive(Clone, Default)]
    struct Stuck(Arc<Mutex<(Vec<u32>, u64)>>);

    impl Sink<u32> for Stuck {
        fn take(&mut self, item: u32) {
            self.0.lock().unwrap().0.push(item);
        }

        fn lost(&mut self, count: u64) {
            self.0.lock().unwrap().1 += count;
        }
    }

    #[test]
    fn whoever_puts_never_waits_and_every_item_is_taken_or_counted_as_lost() {
        let sink = Stuck::default();
        let aside = Aside::start("stuck", 4, sink.clone());
        let stuck = sink.0.lock().unwrap();
        for number in 0..20 {
            aside.put(number);
        }
        drop(stuck);
        // There is no room for the question yet either.
        aside.flush();
        let (taken, lost) = sink.0.lock().unwrap().clone();
        assert!((4..=5).contains(&taken.len()), "{taken:?}");
        assert!(taken.iter().copied().eq(0..taken.len() as u32), "{taken:?}");
        assert_eq!(taken.len() as u64 + lost, 20);
    }
}

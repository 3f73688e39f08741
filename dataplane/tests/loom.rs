//! Every interleaving of the dataplane's atomics, under loom's model checker:
//! `RUSTFLAGS="--cfg loom" cargo test -p hitless-dataplane --release --test loom`, in a target
//! directory of its own.
#![cfg(loom)]

use std::sync::Arc;

use hitless_dataplane::cell::Cell;
use hitless_dataplane::checkpoint::mailbox;
use hitless_dataplane::replay::{ReplayWindow, SharedWindow};
use hitless_sa::{Lease, SequenceNumber};
use loom::thread;

fn lease(grant: u64, high_water: u64) -> Lease {
    Lease {
        grant: SequenceNumber(grant),
        high_water: SequenceNumber(high_water),
    }
}

/// Searches all schedules with at most four preemptions; without a bound the larger of these models
/// take more than ten minutes each.
fn model(body: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(4);
    builder.check(body);
}

/// Draws `count` numbers, and once more what is left of them.
fn draw(cell: &Cell, count: u32) -> Vec<u64> {
    let mut drawn: Vec<u64> = cell.draw(count).map(|number| number.0).collect();
    if drawn.len() < count as usize {
        let rest = count - drawn.len() as u32;
        drawn.extend(cell.draw(rest).map(|number| number.0));
    }
    drawn
}

fn assert_once_each(mut numbers: Vec<u64>, first: u64, last: u64) {
    numbers.sort_unstable();
    let expected: Vec<u64> = (first..first + numbers.len() as u64).collect();
    assert_eq!(numbers, expected, "a number was drawn twice or skipped");
    assert!(numbers.last().is_none_or(|&number| number <= last));
}

/// R3, D1: two workers draw while control raises the limit.
#[test]
fn no_number_is_drawn_twice_or_above_the_limit_while_it_rises() {
    model(|| {
        let cell = Arc::new(Cell::new(SequenceNumber(1), lease(2, 0)));
        let workers = [3, 3].map(|count| {
            let cell = Arc::clone(&cell);
            thread::spawn(move || draw(&cell, count))
        });
        cell.raise(lease(5, 0));
        cell.raise(lease(3, 0));
        let mut numbers = Vec::new();
        for worker in workers {
            numbers.extend(worker.join().unwrap());
        }
        assert_eq!(cell.limit(), SequenceNumber(5));
        assert_eq!(cell.cursor().0, numbers.len() as u64 + 1);
        assert_once_each(numbers, 1, 5);
    });
}

/// R14, R15: what `freeze` returns is one past everything that was ever drawn.
#[test]
fn after_freeze_nothing_is_drawn_and_its_cursor_is_exact() {
    model(|| {
        let cell = Arc::new(Cell::new(SequenceNumber(1), lease(3, 0)));
        let workers = [1, 2].map(|count| {
            let cell = Arc::clone(&cell);
            thread::spawn(move || draw(&cell, count))
        });
        cell.raise(lease(4, 0));
        let cursor = cell.freeze();
        cell.raise(lease(100, 100));
        let mut numbers = Vec::new();
        for worker in workers {
            numbers.extend(worker.join().unwrap());
        }
        assert_eq!(cursor.0, numbers.len() as u64 + 1);
        assert_eq!((cell.cursor(), cell.limit()), (cursor, SequenceNumber(4)));
        assert_once_each(numbers, 1, 4);
    });
}

/// RFC 6311 section 5.2: numbers are left out while others are drawn.
#[test]
fn a_leap_is_not_lost_in_a_draw() {
    model(|| {
        let cell = Arc::new(Cell::new(SequenceNumber(1), lease(100, 0)));
        let worker = {
            let cell = Arc::clone(&cell);
            thread::spawn(move || {
                let bursts = (0..2).flat_map(|_| cell.draw(2));
                bursts.map(|number| number.0).collect::<Vec<_>>()
            })
        };
        let before = cell.cursor().0;
        cell.leap(20);
        assert!(cell.cursor().0 >= before + 20);
        let mut numbers = worker.join().unwrap();
        numbers.extend(cell.draw(1).map(|number| number.0));
        assert_eq!(numbers.len(), 5);
        assert!(numbers.is_sorted() && cell.cursor().0 >= before + 20);
        let good = |n: &u64| (1..=4).contains(n) || *n >= before + 20;
        assert!(numbers.iter().all(good), "{numbers:?}");
    });
}

/// Raising and freezing from two control paths: a frozen cell is not thawed, and delivery stops.
#[test]
fn a_raise_that_races_with_freeze_never_thaws_the_cell() {
    model(|| {
        let cell = Arc::new(Cell::new(SequenceNumber(1), lease(1, 1)));
        let raiser = {
            let cell = Arc::clone(&cell);
            thread::spawn(move || cell.raise(lease(10, 10)))
        };
        let worker = {
            let cell = Arc::clone(&cell);
            thread::spawn(move || {
                let before = cell.may_deliver(SequenceNumber(1));
                let after = cell.may_deliver(SequenceNumber(1));
                assert!(before || !after, "delivery came back");
                assert!(!cell.may_deliver(SequenceNumber(11)));
            })
        };
        cell.freeze();
        raiser.join().unwrap();
        worker.join().unwrap();
        assert!(cell.frozen());
        assert!(!cell.may_deliver(SequenceNumber(1)));
        assert_eq!(cell.draw(1).len(), 0);
        assert!([1, 10].contains(&cell.limit().0));
    });
}

/// The top that workers report is the greatest of all.
#[test]
fn the_inbound_top_is_the_highest_reported() {
    model(|| {
        let cell = Arc::new(Cell::new(SequenceNumber(1), lease(0, 100)));
        let workers = [[3, 7], [5, 6]].map(|numbers| {
            let cell = Arc::clone(&cell);
            thread::spawn(move || {
                for number in numbers {
                    cell.note_inbound_top(SequenceNumber(number));
                }
            })
        });
        for worker in workers {
            worker.join().unwrap();
        }
        assert_eq!(cell.inbound_top(), SequenceNumber(7));
    });
}

/// The collector sees only messages that were published whole, newer each time, and the newest in
/// the end, although the publisher never waits.
#[test]
fn checkpoints_are_never_torn_and_the_newest_wins() {
    model(|| {
        let (mut sender, mut receiver) = mailbox::<2>(1);
        let worker = thread::spawn(move || {
            for round in 1..=3u64 {
                sender.publish(0, [round, round * 100]);
            }
        });
        let mut last = 0;
        let mut take = |slot: u32, [a, b]: [u64; 2]| {
            assert_eq!((slot, b), (0, a * 100), "torn");
            assert!(a > last, "older, or twice");
            last = a;
        };
        receiver.drain(&mut take);
        receiver.drain(&mut take);
        worker.join().unwrap();
        receiver.drain(&mut take);
        assert_eq!(last, 3, "the newest was lost");
    });
}

/// Two slots share a ring of two entries that wraps: no slot's last message is lost.
#[test]
fn slots_that_share_the_ring_lose_nothing() {
    model(|| {
        let (mut sender, mut receiver) = mailbox::<1>(2);
        let worker = thread::spawn(move || {
            for (slot, value) in [(0, 1), (1, 11), (0, 2), (1, 12)] {
                sender.publish(slot, [value]);
            }
        });
        let mut last = [0, 0];
        let mut take = |slot: u32, [value]: [u64; 1]| {
            assert!(value > last[slot as usize], "older, or twice");
            last[slot as usize] = value;
        };
        receiver.drain(&mut take);
        worker.join().unwrap();
        receiver.drain(&mut take);
        assert_eq!(last, [2, 12]);
    });
}

fn window(top: u64) -> Arc<SharedWindow> {
    let mut window = ReplayWindow::new(64);
    window.leap(SequenceNumber(top));
    Arc::new(SharedWindow::new(&window))
}

/// Marks each of these on a thread of its own; gives what each was told.
fn mark_all<const N: usize>(
    window: &Arc<SharedWindow>,
    numbers: [&'static [u64]; N],
) -> [Vec<bool>; N] {
    let workers = numbers.map(|numbers| {
        let window = Arc::clone(window);
        thread::spawn(move || {
            let numbers = numbers.iter().copied().map(SequenceNumber);
            numbers.map(|number| window.mark(number)).collect()
        })
    });
    workers.map(|worker| worker.join().unwrap())
}

/// RFC 4303 section 3.4.3: copies of a packet on several cores at once.
#[test]
fn of_two_copies_on_two_cores_one_is_accepted() {
    model(|| {
        let window = window(100);
        let told = mark_all(&window, [&[101, 90], &[101, 102]]);
        assert!(!told[0][1], "below the floor");
        assert_eq!([told[0][0], told[1][0]].iter().filter(|t| **t).count(), 1);
        assert!(told[1][1]);
        assert_eq!((window.top().0, window.lost()), (102, 0));
    });
}

/// The race between the core that moves the window, and so takes words over, and one that marks an
/// old number in such a word: never both, never twice, and whatever was not accepted is lost.
#[test]
fn an_old_number_is_accepted_or_lost_while_the_window_moves_past_it() {
    model(|| {
        // 131 lies in the word that 258 takes over, a ring of 128 numbers later.
        let window = window(129);
        let told = mark_all(&window, [&[131, 131], &[258, 131]]);
        let times = [told[0][0], told[0][1], told[1][1]];
        let times = times.iter().filter(|told| **told).count();
        assert!(times <= 1, "accepted twice");
        assert!(told[1][0]);
        // 130 to 194 have left the window.
        assert_eq!(window.lost() as usize, 65 - times);
        let quiet = window.to_window();
        assert!(quiet.check(SequenceNumber(131)).is_err());
        assert!(quiet.check(SequenceNumber(195)).is_ok());
        assert!(quiet.check(SequenceNumber(258)).is_err());
        assert!(quiet.check(SequenceNumber(259)).is_ok(), "marked by nobody");
    });
}

/// Two cores move the window at once, by more than its ring and by less.
#[test]
fn two_cores_move_the_window_and_every_number_is_accounted_for_once() {
    model(|| {
        let window = window(5);
        let told = mark_all(&window, [&[72, 6], &[300]]);
        assert!(told[1][0]);
        let accepted = told[0].iter().filter(|told| **told).count();
        // 6 to 236 have left the window.
        assert_eq!(window.lost() as usize, 231 - accepted);
        assert_eq!(window.top(), SequenceNumber(300));
        assert!(window.check(SequenceNumber(72)).is_err());
    });
}

/// RFC 4303 section 3.4.3: bursts with the same numbers on two cores, marked in one go.
#[test]
fn of_two_bursts_on_two_cores_each_number_is_accepted_once() {
    model(|| {
        let window = window(100);
        let bursts = [[101, 90, 102, 101], [102, 101, 103, 103]];
        let workers = bursts.map(|numbers| {
            let window = Arc::clone(&window);
            thread::spawn(move || window.mark_all(&numbers.map(SequenceNumber)))
        });
        let told = workers.map(|worker| worker.join().unwrap());
        let times = |number| -> u32 {
            let each = bursts.iter().zip(told);
            let of =
                each.flat_map(|(burst, told)| burst.iter().enumerate().map(move |b| (b, told)));
            of.filter(|((at, n), told)| **n == number && told >> at & 1 != 0)
                .count() as u32
        };
        assert_eq!([90, 101, 102, 103].map(times), [0, 1, 1, 1]);
        assert_eq!((window.top().0, window.lost()), (103, 0));
    });
}

/// A burst that leaps, while the other core marks what the leap leaves behind: both, never twice, and
/// every number is accounted for.
#[test]
fn a_burst_that_leaps_leaves_nothing_uncounted() {
    model(|| {
        let window = window(129);
        let leaping = {
            let window = Arc::clone(&window);
            thread::spawn(move || window.mark_all(&[131, 258, 131].map(SequenceNumber)))
        };
        let told = window.mark_all(&[131, 132].map(SequenceNumber));
        let other = leaping.join().unwrap();
        assert_eq!(other >> 1, 1, "258 alone, and 131 no more behind it");
        let times = (other & 1) + (told & 1);
        assert!(times <= 1, "accepted twice");
        // 130 to 194 have left the window.
        assert_eq!(window.lost(), u64::from(65 - times - (told >> 1)));
        assert_eq!(window.top().0, 258);
        assert!(window.check(SequenceNumber(131)).is_err());
    });
}

/// A window that both cores have left is the same for one again.
#[test]
fn what_two_cores_saw_one_has_seen() {
    model(|| {
        let window = window(63);
        let told = mark_all(&window, [&[64], &[65]]);
        assert_eq!(told, [[true], [true]]);
        let quiet = window.to_window();
        assert_eq!(quiet.top(), SequenceNumber(65));
        for number in [63, 64, 65].map(SequenceNumber) {
            assert!(quiet.check(number).is_err());
        }
    });
}

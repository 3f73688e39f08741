//! What guards an SA against replays: a window of one worker's own, one that several share, or
//! nothing.

use std::sync::Arc;

use hitless_sa::SequenceNumber;

use super::{ReplayReject, ReplayWindow, SharedWindow, WindowState, infer};
use crate::sync::{AtomicU64, Ordering};

/// How far behind the highest number a packet may be without its low half being taken for one of
/// the next 2^32, where no window says so.
const HORIZON: u32 = 1 << 30;

/// The anti-replay service of an SA, as the worker that holds it sees it.
#[derive(Clone)]
pub enum AntiReplay {
    /// One worker receives, and pays for no atomic.
    Own(ReplayWindow),
    /// Several workers receive at once.
    Shared(Arc<SharedWindow>),
    /// Switched off (RFC 4303 section 3.4.3: "if the receiver does not enable anti-replay").
    Off(Horizon),
}

/// Where the peer is, for the high half of its numbers alone (RFC 4303 Appendix A2.2: without
/// anti-replay, ESN still needs a window of some size). Nothing is refused.
#[derive(Clone, Debug)]
pub enum Horizon {
    /// As one worker has seen it.
    Own(SequenceNumber),
    /// As several workers have, each a part: they infer alike only from the same number.
    Shared(Arc<AtomicU64>),
}

impl Horizon {
    fn top(&self) -> SequenceNumber {
        match self {
            Horizon::Own(top) => *top,
            Horizon::Shared(top) => SequenceNumber(top.load(Ordering::Relaxed)),
        }
    }

    fn raise(&mut self, number: SequenceNumber) {
        match self {
            Horizon::Own(top) => *top = number.max(*top),
            // Most packets are not ahead of what the others have seen: those write nothing.
            Horizon::Shared(top) if top.load(Ordering::Relaxed) < number.0 => {
                top.fetch_max(number.0, Ordering::Relaxed);
            }
            Horizon::Shared(_) => {}
        }
    }
}

impl AntiReplay {
    /// A window of `size` numbers, or none if that is 0, with every number up to `floor` seen.
    pub fn new(size: u32, floor: SequenceNumber) -> AntiReplay {
        if size == 0 {
            return AntiReplay::Off(Horizon::Own(floor));
        }
        let mut window = ReplayWindow::new(size);
        window.leap(floor);
        AntiReplay::Own(window)
    }

    /// A window of `size` numbers, or none if that is 0, in which the numbers are seen that this
    /// state says, and no others: of a predecessor that marked everything that it accepted. Nothing
    /// if that is no window's state.
    pub fn inherit(size: u32, state: &WindowState) -> Option<AntiReplay> {
        if size == 0 {
            return Some(AntiReplay::new(0, state.top));
        }
        let mut window = ReplayWindow::new(size);
        window.import(state).then_some(AntiReplay::Own(window))
    }

    /// As [`ReplayWindow::infer`].
    #[inline]
    pub fn infer(&self, low: u32, esn: bool) -> SequenceNumber {
        match self {
            AntiReplay::Own(window) => window.infer(low, esn),
            AntiReplay::Shared(window) => window.infer(low, esn),
            AntiReplay::Off(horizon) => infer(horizon.top(), HORIZON, low, esn),
        }
    }

    /// Of an SA that was taken over, the number that a packet with this low half has if its sender
    /// is still more than a window below the floor. Appendix A2.2 takes it for one of the next
    /// 2^32, for which it does not verify: only an SA that has not heard its peer yet asks.
    #[inline]
    pub fn infer_below(&self, low: u32, esn: bool) -> Option<SequenceNumber> {
        let ahead = self.infer(low, esn);
        let below = ahead.0.checked_sub(1 << 32).filter(|_| ahead > self.top());
        below.map(SequenceNumber)
    }

    /// Whether a packet with this number may be accepted if its ICV verifies. Changes nothing.
    #[inline]
    pub fn check(&self, number: SequenceNumber) -> Result<(), ReplayReject> {
        match self {
            AntiReplay::Own(window) => window.check(number),
            AntiReplay::Shared(window) => window.check(number),
            AntiReplay::Off(_) => Ok(()),
        }
    }

    /// Asks for the bit of a number, of which the low half is enough.
    #[inline]
    pub(crate) fn prefetch(&self, low: u32) {
        match self {
            AntiReplay::Own(window) => window.prefetch(low),
            AntiReplay::Shared(window) => window.prefetch(low),
            AntiReplay::Off(_) => {}
        }
    }

    /// Checks and marks an authenticated number; false if it was seen before or is too old.
    #[inline]
    pub fn mark(&mut self, number: SequenceNumber) -> bool {
        match self {
            AntiReplay::Own(window) => window.mark(number),
            AntiReplay::Shared(window) => window.mark(number),
            AntiReplay::Off(horizon) => {
                horizon.raise(number);
                true
            }
        }
    }

    /// The window in which other workers may mark too.
    #[inline]
    pub(crate) fn shared(&self) -> Option<&SharedWindow> {
        match self {
            AntiReplay::Shared(window) => Some(window),
            _ => None,
        }
    }

    /// The highest number seen.
    #[inline]
    pub fn top(&self) -> SequenceNumber {
        match self {
            AntiReplay::Own(window) => window.top(),
            AntiReplay::Shared(window) => window.top(),
            AntiReplay::Off(horizon) => horizon.top(),
        }
    }

    /// Numbers that fell out of the window unseen.
    pub fn lost(&self) -> u64 {
        match self {
            AntiReplay::Own(window) => window.lost(),
            AntiReplay::Shared(window) => window.lost(),
            AntiReplay::Off(_) => 0,
        }
    }

    /// Whether replays are refused at all.
    pub fn is_on(&self) -> bool {
        !matches!(self, AntiReplay::Off(_))
    }

    /// Whether other workers may mark in the same window, or raise the same horizon.
    pub fn is_shared(&self) -> bool {
        matches!(
            self,
            AntiReplay::Shared(_) | AntiReplay::Off(Horizon::Shared(_))
        )
    }

    /// The content, for a member that takes over; nothing if there is no window.
    pub fn export(&self) -> Option<WindowState> {
        match self {
            AntiReplay::Own(window) => Some(window.export()),
            AntiReplay::Shared(window) => Some(window.to_window().export()),
            AntiReplay::Off(_) => None,
        }
    }

    /// The same for several workers, each with a clone. Without anti-replay they share the horizon,
    /// or one that gets little would fall behind it.
    pub fn share(self) -> AntiReplay {
        match self {
            AntiReplay::Own(window) => AntiReplay::Shared(Arc::new(SharedWindow::new(&window))),
            AntiReplay::Off(Horizon::Own(top)) => {
                AntiReplay::Off(Horizon::Shared(Arc::new(AtomicU64::new(top.0))))
            }
            shared => shared,
        }
    }

    /// The same for a single worker again. Gives itself back while another clone is left.
    pub fn unshare(self) -> Result<AntiReplay, AntiReplay> {
        match self {
            AntiReplay::Shared(window) => match Arc::try_unwrap(window) {
                Ok(window) => Ok(AntiReplay::Own(window.to_window())),
                Err(window) => Err(AntiReplay::Shared(window)),
            },
            AntiReplay::Off(Horizon::Shared(top)) => match Arc::try_unwrap(top) {
                Ok(top) => Ok(AntiReplay::Off(Horizon::Own(SequenceNumber(
                    top.load(Ordering::Relaxed),
                )))),
                Err(top) => Err(AntiReplay::Off(Horizon::Shared(top))),
            },
            other => Ok(other),
        }
    }
}

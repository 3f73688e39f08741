//! What the control thread and a worker tell each other. Both ways go through bounded rings; a
//! worker takes a command only while the answers to it have room, so none is ever lost, and never
//! waits. Hints (what the wire brought up) are dropped rather than crowd answers out.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hitless_sa::{SaId, SequenceNumber, Spi, UdpEncapsulation};

use crate::counters::SaCounters;
use crate::fib::Fib;
use crate::flow::Flow;
use crate::neighbour::News;
use crate::replay::WindowState;
use crate::sad::{Bound, Conflict, InboundSa, OutboundSa};
use crate::spd::Spd;
use crate::watch::Watched;
use crate::watch::capture::Tap;
use crate::watch::trace::Tracer;

/// From the control thread to a worker, in order.
pub enum Command {
    /// Installs the receiving half of a Child SA; one of the same id is replaced, and what waits
    /// for its high water dies with it.
    InstallInbound(Box<InboundSa>),
    /// Installs the sending half.
    InstallOutbound(Box<OutboundSa>),
    /// Moves the tunnel's endpoints of an installed Child SA.
    Update {
        sa: SaId,
        local: IpAddr,
        remote: IpAddr,
        encapsulation: Option<UdpEncapsulation>,
        /// As in [`SaOptions`](hitless_sa::SaOptions): there may be a NAT on the new way, or none.
        keepalive: Option<Duration>,
    },
    /// Hands the packets of a Child SA over to another worker, the one that has it.
    Bind { sa: SaId, slot: u32, bound: Bound },
    /// Takes that back.
    Unbind(SaId),
    /// Moves the receiving half of a Child SA, with its window, to another worker that has the
    /// sending one. Answered by that one's [`Event::Moved`], or [`Event::Stayed`] by this one.
    Move {
        sa: SaId,
        to: usize,
        /// What it counts there.
        counters: Arc<SaCounters>,
    },
    /// What policies send by `old` goes by `new` from now on, here or there; nothing takes that back.
    /// Policies take longer to make than a successor.
    Succeed { old: SaId, new: Option<SaId> },
    /// Removes both halves and what [`Command::Bind`] said; they come back in [`Event::Retired`].
    Remove(SaId),
    /// Replaces the SPD; of what waits for a neighbour nothing leaves that it forbids.
    Policies(Arc<Spd>),
    /// Replaces the forwarding table; of what waits for a neighbour nothing leaves the old way but
    /// what is our own.
    Routes(Arc<Fib>),
    /// Puts an Ethernet address into the neighbour table: what the embedder knows ([`News::certain`]), or
    /// what another worker was told ([`Event::NeighbourLearned`]), trusted as it was there.
    Neighbour(News),
    /// Watches for a sign of life of a neighbour, told once by [`Event::Answered`]; and asks for one.
    Probe {
        port: usize,
        address: IpAddr,
        ask: bool,
    },
    /// Sends gratuitous ARP or an unsolicited neighbour advertisement for every address on every
    /// port: at once, after 200 ms and after 1 s.
    Announce,
    /// Sends dummy packets on an SA in tunnel mode, each as long as an inner packet of so many octets
    /// would make it: traffic that hides when there is none (RFC 4303 section 2.6).
    Dummies { sa: SaId, count: u16, octets: u16 },
    /// Asks for [`Event::Barrier`] with the same number. Everything that earlier bursts sent has
    /// been given to the ports when it is answered, but for what waits for a neighbour's Ethernet
    /// address: that is dropped if this member does not lead, and if a later policy or route forbids
    /// it.
    Barrier(u64),
    /// Begins a trace in place of another one, or ends it.
    Trace(Option<Box<Tracer>>),
    /// Begins a capture in place of another one, or ends it.
    Capture(Option<Box<Tap>>),
    /// Asks for [`Event::Window`], which names the question.
    QueryWindow { sa: SaId, question: u64 },
    /// Whether packets whose SA is not there are given to the control thread, which is installing
    /// them, or dropped: ESP ([`Parcel::Stranger`](crate::parcel::Parcel::Stranger)) and what would
    /// leave as ESP ([`Parcel::Departing`](crate::parcel::Parcel::Departing)).
    Strangers(bool),
}

/// What a worker no longer uses, for the control thread to drop: dropping costs time and wipes
/// keys, which is no work for the packet path.
pub enum Retired {
    Inbound(Box<InboundSa>),
    Outbound(Box<OutboundSa>),
    Policies(Arc<Spd>),
    Routes(Arc<Fib>),
    Watched(Watched),
}

/// From a worker to the control thread.
pub enum Event {
    /// Removed, replaced or refused.
    Retired(Retired),
    /// An SA could not be installed; it comes back in [`Event::Retired`].
    Refused { sa: SaId, conflict: Conflict },
    /// A receiving half has come from another worker.
    Moved { sa: SaId },
    /// It did not leave: there is none, its window is shared, or the other worker is slow.
    Stayed { sa: SaId },
    /// Answer to [`Command::Barrier`].
    Barrier(u64),
    /// Answer to [`Command::QueryWindow`]; nothing if no such SA is installed.
    Window {
        sa: SaId,
        question: u64,
        state: Option<WindowState>,
    },
    /// A neighbour's Ethernet address is new or has changed, or may be so to another worker.
    NeighbourLearned(News),
    /// The neighbour of [`Command::Probe`] lives (rate-limited hint).
    Answered { port: usize, address: IpAddr },
    /// A policy wants protection and has no SA (rate-limited hint).
    Acquire { policy: usize, flow: Flow },
    /// ESP for an SPI that is not installed (rate-limited hint).
    UnknownSpi { spi: Spi, source: SocketAddr },
    /// The newest authentic packet of an SA of this worker came `to` another one, which handed it over
    /// (rate-limited hint).
    Strayed { sa: SaId, to: usize },
    /// The newest authentic packet of an SA came from elsewhere than its endpoint (rate-limited
    /// hint; RFC 7296 section 2.23).
    PeerMoved { sa: SaId, remote: SocketAddr },
    /// Packets of an SA that was taken over are refused because the peer still sends numbers that
    /// the predecessor might have delivered (rate-limited hint; RFC 6027 section 3.5). Only
    /// what the peer once sent causes it, but anybody may send that again.
    BelowFloor { sa: SaId },
    /// Packets of this SA wait for its high water to reach at least this number (rate-limited hint;
    /// the cell's `inbound_top` says the same).
    HighWater { sa: SaId, wanted: SequenceNumber },
}

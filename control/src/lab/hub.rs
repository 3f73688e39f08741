//! The sync network of one process: a mailbox for each address.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use hitless_sa::Instant;

/// Datagrams that one mailbox holds; more are lost, as in a socket's buffer.
const MAILBOX: usize = 4096;

/// What carries sync datagrams between stations: the demo's hub, the simulator's faulty network.
pub trait SyncNetwork {
    /// Takes an address; what was on its way to a predecessor may or may not arrive.
    fn open(&mut self, address: SocketAddr);
    /// Sends a datagram, which may be lost.
    fn send(&mut self, now: Instant, from: SocketAddr, to: SocketAddr, datagram: Vec<u8>);
    /// The next datagram that has arrived, and who sent it.
    fn receive(&mut self, now: Instant, address: SocketAddr) -> Option<(SocketAddr, Vec<u8>)>;
}

type Mailboxes = BTreeMap<SocketAddr, VecDeque<(SocketAddr, Vec<u8>)>>;

/// Where members on threads of one process meet. Clones share the mailboxes.
#[derive(Clone, Default)]
pub struct Hub(Arc<Mutex<Mailboxes>>);

impl SyncNetwork for Hub {
    fn open(&mut self, address: SocketAddr) {
        let mut mailboxes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        mailboxes.insert(address, VecDeque::new());
    }

    fn send(&mut self, _: Instant, from: SocketAddr, to: SocketAddr, datagram: Vec<u8>) {
        let mut mailboxes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(mailbox) = mailboxes
            .get_mut(&to)
            .filter(|mailbox| mailbox.len() < MAILBOX)
        {
            mailbox.push_back((from, datagram));
        }
    }

    fn receive(&mut self, _: Instant, address: SocketAddr) -> Option<(SocketAddr, Vec<u8>)> {
        let mut mailboxes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        mailboxes.get_mut(&address)?.pop_front()
    }
}

//! The socket of the sync protocol.
#![expect(
    unsafe_code,
    reason = "setsockopt(2) has no safe wrapper in what we depend on"
)]

use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::Arc;

use hitless_sa::Instant;

use super::DaemonError;

/// Octets that the kernel may keep while a turn lasts: a copy of many SAs and its acknowledgements
/// come faster than the kernel's default of about 100 datagrams, and what is lost is waited for.
const ROOM: libc::c_int = 8 << 20;

/// Binds the socket. Whoever may not have more room than others (without CAP_NET_ADMIN) has the
/// most that is left to him.
pub fn open(listen: SocketAddr) -> Result<Arc<UdpSocket>, DaemonError> {
    let refuse = |error| DaemonError::SyncSocket {
        address: listen,
        error,
    };
    let socket = UdpSocket::bind(listen).map_err(refuse)?;
    socket.set_nonblocking(true).map_err(refuse)?;
    if !has_room(&socket, libc::SO_RCVBUFFORCE) && !has_room(&socket, libc::SO_RCVBUF) {
        tracing::warn!("the sync socket has no more than the kernel's default of room");
    }
    Ok(Arc::new(socket))
}

/// Takes so many datagrams as wait, at most `most`, each with a time after it was read.
///
/// What is counted from that time errs on the late side, which is the safe one (R16). A leader that
/// believed a word to be as old as the beginning of its turn could have been descheduled since, and
/// heard what its standby said later: it would stop waiting for the standby while that one, which
/// counts from its own clock in the same word, still vouches. To wait longer is always safe. A standby
/// takes nothing that it vouches by from this time: the echo is what its clock was when it spoke.
pub fn receive(
    socket: &UdpSocket,
    buffer: &mut [u8],
    most: usize,
    mut clock: impl FnMut() -> Instant,
    mut each: impl FnMut(Instant, SocketAddr, &[u8]),
) {
    for _ in 0..most {
        // WouldBlock ends the round; so does any other error, which concerns one datagram (an ICMP
        // error of an earlier one) and not the socket.
        let Ok((length, from)) = socket.recv_from(buffer) else {
            return;
        };
        each(clock(), from, &buffer[..length]);
    }
}

fn has_room(socket: &UdpSocket, option: libc::c_int) -> bool {
    let octets = ROOM;
    // SAFETY: the value is readable for its own size and outlives the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            option,
            (&raw const octets).cast(),
            size_of_val(&octets) as libc::socklen_t,
        )
    };
    result == 0
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::net::Ipv4Addr;

    use super::*;

    /// Each datagram is answered by the next one, which is said later and read in the same round.
    #[test]
    fn r16_no_word_is_heard_before_it_was_said() {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let to = socket.local_addr().unwrap();
        let time = Cell::new(1_000);
        let clock = || {
            time.set(time.get() + 15_000_000);
            Instant(time.get())
        };
        let say = || socket.send_to(&clock().0.to_be_bytes(), to).unwrap();
        say();
        let mut heard = 0;
        receive(&socket, &mut [0; 64], 5, clock, |now, from, word| {
            let said = Instant(u64::from_be_bytes(word.try_into().unwrap()));
            assert!(from == to && now >= said, "{now:?} before {said:?}");
            heard += 1;
            say();
        });
        assert_eq!(heard, 5, "no more in a round");
    }

    /// Many more datagrams than the kernel's default has room for, to the machine itself.
    #[test]
    fn a_burst_of_datagrams_finds_room() {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        if !has_room(&socket, libc::SO_RCVBUFFORCE) {
            return; // no privilege
        }
        let to = socket.local_addr().unwrap();
        socket.set_nonblocking(true).unwrap();
        for _ in 0..1_000 {
            socket.send_to(&[7; 1_400], to).unwrap();
        }
        let received = (0..).take_while(|_| socket.recv(&mut [0; 1_500]).is_ok());
        assert_eq!(received.count(), 1_000);
    }
}

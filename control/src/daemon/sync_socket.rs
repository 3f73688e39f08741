//! The socket of the sync protocol.
#![expect(
    unsafe_code,
    reason = "setsockopt(2) has no safe wrapper in what we depend on"
)]

use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::Arc;

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
    use std::net::Ipv4Addr;

    use super::*;

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

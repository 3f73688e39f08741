//! The system calls that the standard library does not have: a signal to a process of ours, one
//! of its threads stopped, and sockets inside a network namespace.
#![expect(
    unsafe_code,
    reason = "kill(2), setpriority(2), ptrace(2), setns(2) and AF_PACKET have no safe wrapper in std"
)]

use std::fs::File;
use std::io;
use std::marker::PhantomData;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;
use std::process::Child;

/// Half a second of small datagrams, and more.
const RECEIVE_BUFFER: libc::c_int = 4 << 20;

/// The nice value of who runs when nobody else wants to.
const LEAST: libc::c_int = 19;

/// Sends `signal` to a child that has not been waited for, so its id cannot be another's.
pub fn signal(child: &Child, signal: i32) -> io::Result<()> {
    let pid = libc::pid_t::try_from(child.id()).map_err(io::Error::other)?;
    // SAFETY: kill(2) takes two integers and touches no memory of ours.
    match unsafe { libc::kill(pid, signal) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Gives every thread of a child that has not been waited for the least priority that there is.
pub fn stand_back(child: &Child) -> io::Result<()> {
    for thread in std::fs::read_dir(format!("/proc/{}/task", child.id()))? {
        let Some(thread) = thread?.file_name().to_str().and_then(|id| id.parse().ok()) else {
            continue;
        };
        // A thread that has ended since has nothing to stand back from.
        // SAFETY: setpriority(2) takes three integers and touches no memory of ours.
        unsafe { libc::setpriority(libc::PRIO_PROCESS, thread, LEAST) };
    }
    Ok(())
}

/// One thread of a child that stands still until this is dropped, while the others run: SIGSTOP would
/// stop them all.
pub struct Held {
    thread: libc::pid_t,
    /// A tracer is a thread: only the one that stopped it can let it go.
    _here: PhantomData<*const ()>,
}

impl Held {
    pub fn stop(thread: u32) -> io::Result<Held> {
        let thread = libc::pid_t::try_from(thread).map_err(io::Error::other)?;
        trace(libc::PTRACE_SEIZE, thread)?;
        let held = Held {
            thread,
            _here: PhantomData,
        };
        trace(libc::PTRACE_INTERRUPT, thread)?;
        let mut status = 0;
        // SAFETY: `status` is an int that outlives the call.
        match unsafe { libc::waitpid(thread, &raw mut status, libc::__WALL) } {
            id if id == thread && libc::WIFSTOPPED(status) => Ok(held),
            id if id == thread => Err(io::Error::other("the thread has ended")),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // An error means that it has ended.
        let _: io::Result<()> = trace(libc::PTRACE_DETACH, self.thread);
    }
}

fn trace(request: libc::c_uint, thread: libc::pid_t) -> io::Result<()> {
    let none = std::ptr::null_mut::<libc::c_void>();
    // SAFETY: these requests take a thread id and no memory of ours.
    match unsafe { libc::ptrace(request, thread, none, none) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// A raw Ethernet socket, bound to `interface` in the namespace whose file is `namespace`. What is
/// written to it leaves by that interface. It receives nothing.
pub fn packet_socket(namespace: &Path, interface: &str) -> io::Result<File> {
    let namespace = File::open(namespace)?;
    let interface = std::ffi::CString::new(interface)?;
    inside(namespace, move || open_packet_socket(&interface))
}

/// A UDP socket bound to `address` in the namespace whose file is `namespace`, with room for what
/// comes while nobody reads.
pub fn udp_socket(namespace: &Path, address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = inside(File::open(namespace)?, move || UdpSocket::bind(address))?;
    let room: libc::c_int = RECEIVE_BUFFER;
    let length = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the descriptor is open, and `room` is an int of the length given.
    let set = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_RCVBUFFORCE,
            (&raw const room).cast(),
            length,
        )
    };
    match set {
        0 => Ok(socket),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Opens a socket in a namespace. A namespace belongs to a thread, a socket stays in the namespace
/// it was made in: a thread that ends is the cleanest way there and back.
fn inside<T: Send + 'static>(
    namespace: File,
    open: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let maker = std::thread::spawn(move || {
        // SAFETY: setns(2) takes a descriptor, which `namespace` keeps open, and an integer.
        if unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) } != 0 {
            return Err(io::Error::last_os_error());
        }
        open()
    });
    let made = maker.join();
    made.map_err(|_| io::Error::other("the thread that opens sockets panicked"))?
}

fn open_packet_socket(interface: &std::ffi::CStr) -> io::Result<File> {
    // Protocol 0: a socket that only sends.
    // SAFETY: socket(2) takes three integers.
    let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: `fd` was returned just now and belongs to nobody else.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: the argument is a NUL-terminated string that outlives the call.
    let index = unsafe { libc::if_nametoindex(interface.as_ptr()) };
    if index == 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: sockaddr_ll is made of integers, for which zero is a value.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_ifindex = index.cast_signed();
    let length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
    // SAFETY: `address` is a sockaddr_ll of the length given and outlives the call.
    let bound = unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length) };
    if bound != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(File::from(socket))
}

//! A network namespace for one test: cables (veth pairs), and raw sockets at their ends.
//!
//! The namespace belongs to a thread and has no name, so the kernel removes it with everything in
//! it when the thread ends, whether the test passes, panics or is killed.
#![expect(unsafe_code, reason = "unshare, capset and packet sockets")]

use std::io;
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use hitless_dataplane::port::MacAddress;

/// How long anything is waited for before the test fails, in milliseconds.
const PATIENCE: libc::c_int = 5000;
/// Socket option: do not show me what this host sends.
const PACKET_IGNORE_OUTGOING: libc::c_int = 23;

/// One test at a time: a thread that starts a program holds copies of every test's descriptors
/// until the program runs, and a program or socket closed meanwhile would seem to live on.
static TURN: Mutex<()> = Mutex::new(());

/// Runs a test in a new network namespace. Without the right to make one the test is skipped, and
/// says so.
pub fn in_namespace(test: impl FnOnce() + Send + 'static) {
    let run = move || {
        // SAFETY: no pointers; only this thread changes its namespace.
        if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
            let error = io::Error::last_os_error();
            assert_eq!(error.raw_os_error(), Some(libc::EPERM), "{error}");
            println!("skipped: making a network namespace is not permitted");
            return;
        }
        test();
    };
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Err(panic) = std::thread::spawn(run).join() {
        std::panic::resume_unwind(panic);
    }
}

/// Runs `ip` in this thread's namespace.
pub fn ip(arguments: &str) -> String {
    let output = Command::new("ip")
        .args(arguments.split_whitespace())
        .output()
        .unwrap_or_else(|error| panic!("cannot run `ip {arguments}`: {error}"));
    assert!(output.status.success(), "`ip {arguments}`: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// A veth pair: `near` is where the port goes, `far` where the test listens.
pub struct Cable {
    pub near: String,
    pub far: String,
}

impl Cable {
    /// Lays a cable whose ends have `queues` queues, and lights it.
    pub fn new(name: &str, queues: u32) -> Cable {
        let process = std::process::id();
        let (near, far) = (format!("{name}n{process}"), format!("{name}f{process}"));
        let queues = format!("numrxqueues {queues} numtxqueues {queues}");
        ip(&format!(
            "link add {near} {queues} type veth peer name {far} {queues}"
        ));
        for end in [&near, &far] {
            ip(&format!("link set {end} addrgenmode none"));
        }
        let cable = Cable { near, far };
        cable.light();
        cable
    }

    /// Brings both ends up, the far end last: an end that comes up under a carrier can send at
    /// once, but one that gets its carrier later drops frames until the kernel has noticed.
    pub fn light(&self) {
        ip(&format!("link set {} up", self.near));
        ip(&format!("link set {} down", self.far));
        ip(&format!("link set {} up", self.far));
    }

    /// What the kernel says about the near end, as JSON.
    pub fn describe(&self) -> String {
        ip(&format!("-json -details link show {}", self.near))
    }

    /// Whether an XDP program is attached to the near end.
    pub fn has_program(&self) -> bool {
        self.describe().contains("\"xdp\"")
    }

    /// The near end's own MAC address.
    pub fn mac(&self) -> MacAddress {
        let text = self.describe();
        let (_, rest) = text.split_once("\"address\":\"").unwrap();
        let mut mac = MacAddress::default();
        for (octet, digits) in mac.iter_mut().zip(rest[..17].split(':')) {
            *octet = u8::from_str_radix(digits, 16).unwrap();
        }
        mac
    }
}

/// A raw socket on an interface: it sends frames, and sees what the kernel there receives.
pub struct Wire(OwnedFd);

impl Wire {
    /// Listens to all frames that the kernel receives on the interface.
    pub fn new(interface: &str) -> Wire {
        let all = (libc::ETH_P_ALL as u16).to_be();
        // SAFETY: no pointers; the result is checked.
        let descriptor = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW, 0) };
        assert!(descriptor >= 0, "{}", io::Error::last_os_error());
        // SAFETY: a new descriptor that nobody else knows.
        let socket = unsafe { OwnedFd::from_raw_fd(descriptor) };
        let name = std::ffi::CString::new(interface).unwrap();
        // SAFETY: plain data, for which all zeros is a valid value.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = all;
        // SAFETY: the name ends with a zero and outlives the call.
        address.sll_ifindex = unsafe { libc::if_nametoindex(name.as_ptr()) } as i32;
        let one: libc::c_int = 1;
        // SAFETY: both values have the sizes given and outlive the calls.
        let result = unsafe {
            libc::setsockopt(
                descriptor,
                libc::SOL_PACKET,
                PACKET_IGNORE_OUTGOING,
                (&raw const one).cast(),
                size_of_val(&one) as u32,
            ) | libc::bind(
                descriptor,
                (&raw const address).cast(),
                size_of_val(&address) as u32,
            )
        };
        assert_eq!(result, 0, "{}", io::Error::last_os_error());
        Wire(socket)
    }

    /// Sends a frame.
    pub fn send(&self, frame: &[u8]) {
        let fd = self.0.as_raw_fd();
        // SAFETY: the frame is readable for its length.
        let sent = unsafe { libc::send(fd, frame.as_ptr().cast(), frame.len(), 0) };
        assert_eq!(sent, frame.len() as isize, "{}", io::Error::last_os_error());
    }

    /// The next frame, waiting for it; the kernel's own IPv6 chatter is left out.
    pub fn receive(&self) -> Vec<u8> {
        loop {
            wait(self.0.as_raw_fd());
            let mut frame = vec![0; 16384];
            let fd = self.0.as_raw_fd();
            // SAFETY: the buffer is writable for its length.
            let length = unsafe { libc::recv(fd, frame.as_mut_ptr().cast(), frame.len(), 0) };
            assert!(length >= 14, "{}", io::Error::last_os_error());
            frame.truncate(length as usize);
            if frame[12..14] != [0x86, 0xdd] {
                return frame;
            }
        }
    }
}

/// Waits until the descriptor is readable.
pub fn wait(descriptor: RawFd) {
    let mut wanted = libc::pollfd {
        fd: descriptor,
        events: libc::POLLIN,
        revents: 0,
    };
    // SAFETY: one `pollfd`, which outlives the call.
    let ready = unsafe { libc::poll(&raw mut wanted, 1, PATIENCE) };
    assert_eq!(ready, 1, "nothing arrived");
}

/// Gives up all capabilities of this thread but these.
pub fn keep_capabilities(kept: &[u32]) {
    #[repr(C)]
    struct Header {
        version: u32,
        process: i32,
    }
    let header = Header {
        version: 0x2008_0522,
        process: 0,
    };
    // Effective, permitted and inheritable; the low 32 capabilities, then the high.
    let mut sets = [[0_u32; 3]; 2];
    for &capability in kept {
        let word = &mut sets[capability as usize / 32];
        word[0] |= 1 << (capability % 32);
        word[1] = word[0];
    }
    // SAFETY: version 3 of the interface reads a header and two sets of three words.
    let result = unsafe { libc::syscall(libc::SYS_capset, &raw const header, sets.as_ptr()) };
    assert_eq!(result, 0, "{}", io::Error::last_os_error());
}

/// Sends `length` octets as datagrams of `segment` octets that the kernel merges into one frame.
pub fn send_merged(socket: &UdpSocket, to: Ipv4Addr, length: usize, segment: libc::c_int) {
    // SAFETY: the value has the size given and outlives the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_UDP,
            libc::UDP_SEGMENT,
            (&raw const segment).cast(),
            size_of_val(&segment) as u32,
        )
    };
    assert_eq!(result, 0, "{}", io::Error::last_os_error());
    socket.send_to(&vec![7; length], (to, 5000)).unwrap();
}

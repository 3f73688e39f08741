//! What ports ask the kernel about a network interface and tell it: name, MTU, state, and the filter
//! for a second MAC address.
#![expect(
    unsafe_code,
    reason = "interface ioctls and packet memberships take pointers"
)]

use std::ffi::CString;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use super::{MacAddress, OpenError};

/// An interface of this network namespace that carries Ethernet frames.
#[derive(Clone, Debug)]
pub struct Interface {
    pub name: String,
    pub index: u32,
    pub mac: MacAddress,
    pub mtu: usize,
}

impl Interface {
    /// Looks the interface up.
    pub fn find(name: &str) -> Result<Interface, OpenError> {
        let text = check_name(name)?;
        // SAFETY: the name ends with a zero and outlives the call.
        let index = unsafe { libc::if_nametoindex(text.as_ptr()) };
        let failed =
            |error| OpenError::system(name, "ask the kernel about the interface", "", error);
        if index == 0 {
            return Err(failed(io::Error::last_os_error()));
        }
        let socket = open_socket(libc::AF_INET, libc::SOCK_DGRAM).map_err(failed)?;
        let answer = ask(&socket, name, libc::SIOCGIFMTU).map_err(failed)?;
        // SAFETY: SIOCGIFMTU has filled this member in.
        let mtu = unsafe { answer.ifr_ifru.ifru_mtu };
        let answer = ask(&socket, name, libc::SIOCGIFHWADDR).map_err(failed)?;
        // SAFETY: SIOCGIFHWADDR has filled this member in.
        let hardware = unsafe { answer.ifr_ifru.ifru_hwaddr };
        if hardware.sa_family != libc::ARPHRD_ETHER {
            return Err(OpenError::NotEthernet {
                interface: name.to_owned(),
            });
        }
        let mut mac = MacAddress::default();
        for (to, from) in mac.iter_mut().zip(hardware.sa_data) {
            *to = from as u8;
        }
        Ok(Interface {
            name: name.to_owned(),
            index,
            mac,
            mtu: usize::try_from(mtu).unwrap_or(0),
        })
    }

    /// Whether this may be the cluster's address on the interface: unicast, and not the
    /// interface's own, or the kernel would route in clear what this process left behind.
    pub fn check_mac(&self, mac: MacAddress) -> Result<(), OpenError> {
        let interface = self.name.clone();
        if mac[0] & 1 == 1 || mac == [0; 6] {
            return Err(OpenError::MacNotUnicast { interface });
        }
        if mac == self.mac {
            return Err(OpenError::MacOfInterface { interface });
        }
        Ok(())
    }
}

/// Whether an interface can have this name, and the name for the kernel.
pub fn check_name(name: &str) -> Result<CString, OpenError> {
    let invalid = || OpenError::InterfaceName {
        interface: name.to_owned(),
    };
    let printable = |octet: u8| octet.is_ascii_graphic() && octet != b'/';
    if name.is_empty() || name.len() >= libc::IFNAMSIZ || !name.bytes().all(printable) {
        return Err(invalid());
    }
    CString::new(name).map_err(|_| invalid())
}

/// Sets the largest packet that the interface carries.
pub fn set_mtu(name: &str, mtu: usize) -> io::Result<()> {
    let socket = open_socket(libc::AF_INET, libc::SOCK_DGRAM)?;
    let mut request = request(name);
    request.ifr_ifru.ifru_mtu = libc::c_int::try_from(mtu).unwrap_or(libc::c_int::MAX);
    control(&socket, libc::SIOCSIFMTU, &mut request)
}

/// Brings the interface up.
pub fn bring_up(name: &str) -> io::Result<()> {
    let socket = open_socket(libc::AF_INET, libc::SOCK_DGRAM)?;
    let mut answer = ask(&socket, name, libc::SIOCGIFFLAGS)?;
    // SAFETY: SIOCGIFFLAGS has filled this member in.
    let flags = unsafe { answer.ifr_ifru.ifru_flags };
    answer.ifr_ifru.ifru_flags = flags | libc::IFF_UP as libc::c_short;
    control(&socket, libc::SIOCSIFFLAGS, &mut answer)
}

pub fn open_socket(family: libc::c_int, kind: libc::c_int) -> io::Result<OwnedFd> {
    // SAFETY: no pointers; the result is checked.
    let descriptor = unsafe { libc::socket(family, kind | libc::SOCK_CLOEXEC, 0) };
    if descriptor < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// A request about an interface, whose name is valid.
pub fn request(name: &str) -> libc::ifreq {
    // SAFETY: `ifreq` is plain data, for which all zeros is a valid value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    let room = request.ifr_name.len() - 1;
    for (to, from) in request.ifr_name.iter_mut().take(room).zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    request
}

fn ask(socket: &OwnedFd, name: &str, what: libc::Ioctl) -> io::Result<libc::ifreq> {
    let mut answer = request(name);
    control(socket, what, &mut answer)?;
    Ok(answer)
}

/// An ioctl that reads and writes an `ifreq` and nothing else.
pub fn control(
    descriptor: &impl AsRawFd,
    what: libc::Ioctl,
    request: &mut libc::ifreq,
) -> io::Result<()> {
    // SAFETY: the requests of this package (SIOC[GS]IF*, TUNSETIFF) read the name, which is shorter
    // than its array and so ends with a zero, and read and write only within the structure.
    let result = unsafe { libc::ioctl(descriptor.as_raw_fd(), what, std::ptr::from_mut(request)) };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Makes the interface receive frames to a second unicast MAC address, for as long as this lives:
/// it is a membership of a packet socket, so it dies with the process. A driver that cannot filter
/// several addresses becomes promiscuous, which is the kernel's own rule.
///
/// The socket itself receives nothing: its protocol is 0.
#[derive(Debug)]
pub struct MacFilter {
    socket: OwnedFd,
    interface: u32,
}

impl MacFilter {
    /// Adds the address; if the kernel refuses, asks for all frames instead.
    pub fn add(interface: u32, mac: MacAddress) -> io::Result<MacFilter> {
        let socket = open_socket(libc::AF_PACKET, libc::SOCK_RAW)?;
        join(&socket, interface, libc::PACKET_MR_UNICAST, mac)
            .or_else(|_| join(&socket, interface, libc::PACKET_MR_PROMISC, mac))?;
        Ok(MacFilter { socket, interface })
    }

    /// Adds the group that neighbours ask about an IPv6 address (RFC 4291 section 2.7.1, RFC 2464
    /// section 7). IPv4 asks by broadcast, which everybody hears.
    pub fn hear(&self, address: IpAddr) -> io::Result<()> {
        let IpAddr::V6(address) = address else {
            return Ok(());
        };
        let [.., a, b, c] = address.octets();
        let group = [0x33, 0x33, 0xff, a, b, c];
        join(
            &self.socket,
            self.interface,
            libc::PACKET_MR_MULTICAST,
            group,
        )
    }
}

fn join(socket: &OwnedFd, interface: u32, kind: libc::c_int, mac: MacAddress) -> io::Result<()> {
    // SAFETY: `packet_mreq` is plain data, for which all zeros is a valid value.
    let mut request: libc::packet_mreq = unsafe { std::mem::zeroed() };
    request.mr_ifindex = interface as libc::c_int;
    request.mr_type = kind as libc::c_ushort;
    request.mr_alen = mac.len() as libc::c_ushort;
    request.mr_address[..mac.len()].copy_from_slice(&mac);
    // SAFETY: the option's value is a whole `packet_mreq`, which outlives the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_ADD_MEMBERSHIP,
            (&raw const request).cast(),
            size_of::<libc::packet_mreq>() as libc::socklen_t,
        )
    };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

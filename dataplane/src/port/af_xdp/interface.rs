//! What a port asks the kernel about its network interface, and the filter for a second MAC address.
#![expect(
    unsafe_code,
    reason = "interface ioctls and packet memberships take pointers"
)]

use std::ffi::CString;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use super::error::{AfXdpError, Step};
use crate::port::MacAddress;

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
    pub fn find(name: &str) -> Result<Interface, AfXdpError> {
        let invalid = || AfXdpError::InterfaceName {
            interface: name.to_owned(),
        };
        let printable = |octet: u8| octet.is_ascii_graphic() && octet != b'/';
        if name.is_empty() || name.len() >= libc::IFNAMSIZ || !name.bytes().all(printable) {
            return Err(invalid());
        }
        let text = CString::new(name).map_err(|_| invalid())?;
        // SAFETY: the name ends with a zero and outlives the call.
        let index = unsafe { libc::if_nametoindex(text.as_ptr()) };
        let failed = |error| AfXdpError::system(name, Step::ReadInterface, error);
        if index == 0 {
            return Err(failed(io::Error::last_os_error()));
        }
        let socket = open_socket(libc::AF_INET, libc::SOCK_DGRAM).map_err(failed)?;
        let request = ask(&socket, name, libc::SIOCGIFMTU).map_err(failed)?;
        // SAFETY: SIOCGIFMTU has filled this member in.
        let mtu = unsafe { request.ifr_ifru.ifru_mtu };
        let request = ask(&socket, name, libc::SIOCGIFHWADDR).map_err(failed)?;
        // SAFETY: SIOCGIFHWADDR has filled this member in.
        let hardware = unsafe { request.ifr_ifru.ifru_hwaddr };
        if hardware.sa_family != libc::ARPHRD_ETHER {
            return Err(AfXdpError::NotEthernet {
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
}

fn open_socket(family: libc::c_int, kind: libc::c_int) -> io::Result<OwnedFd> {
    // SAFETY: no pointers; the result is checked.
    let descriptor = unsafe { libc::socket(family, kind | libc::SOCK_CLOEXEC, 0) };
    if descriptor < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

fn ask(socket: &OwnedFd, name: &str, request: libc::Ioctl) -> io::Result<libc::ifreq> {
    // SAFETY: `ifreq` is plain data, for which all zeros is a valid value.
    let mut question: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in question.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    // SAFETY: both requests read the name, which is shorter than its array and so ends with a zero,
    // and write only within the structure.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), request, &raw mut question) };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(question)
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

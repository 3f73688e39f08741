//! The few bpf(2) commands that an XDP program needs, without libbpf.
//!
//! Everything here dies with its file descriptor, so with the process: also the link that attaches
//! the program to an interface. Numbers and offsets are those of `union bpf_attr` in
//! `include/uapi/linux/bpf.h`, which is stable.
#![expect(unsafe_code, reason = "bpf(2) takes pointers and returns a descriptor")]

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use super::assembler::Instruction;

const MAP_CREATE: libc::c_long = 0;
const MAP_UPDATE: libc::c_long = 2;
const MAP_DELETE: libc::c_long = 3;
const PROGRAM_LOAD: libc::c_long = 5;
#[cfg(test)]
const PROGRAM_TEST_RUN: libc::c_long = 10;
const LINK_CREATE: libc::c_long = 28;

const PROGRAM_TYPE_XDP: u32 = 6;
const ATTACH_TYPE_XDP: u32 = 37;
/// `BPF_F_XDP_HAS_FRAGS`: the program does not mind that only the first buffer is in its sight.
const XDP_HAS_FRAGS: u32 = 1 << 5;
/// Octets of verifier output that are kept when a program is refused.
const LOG_OCTETS: usize = 64 * 1024;
/// Shown by `bpftool`; at most 15 octets.
const OBJECT_NAME: &[u8] = b"hitless";
/// No helper that the program calls is reserved to the GPL.
const LICENCE: &CStr = c"Apache-2.0";

/// `union bpf_attr`. The kernel takes any size whose unknown part is zero.
#[repr(C, align(8))]
struct Attributes([u8; 128]);

impl Attributes {
    fn new() -> Attributes {
        Attributes([0; 128])
    }

    fn word(mut self, offset: usize, value: u32) -> Attributes {
        self.0[offset..offset + 4].copy_from_slice(&value.to_ne_bytes());
        self
    }

    fn double_word(mut self, offset: usize, value: u64) -> Attributes {
        self.0[offset..offset + 8].copy_from_slice(&value.to_ne_bytes());
        self
    }

    fn descriptor(self, offset: usize, descriptor: &OwnedFd) -> Attributes {
        self.word(offset, descriptor.as_raw_fd() as u32)
    }

    fn pointer<T>(self, offset: usize, pointer: *const T) -> Attributes {
        self.double_word(offset, pointer as u64)
    }

    fn name(mut self, offset: usize) -> Attributes {
        self.0[offset..offset + OBJECT_NAME.len()].copy_from_slice(OBJECT_NAME);
        self
    }
}

/// Makes the system call.
///
/// # Safety
/// Every pointer in `attributes` must be valid for what `command` reads and writes through it.
unsafe fn bpf(command: libc::c_long, attributes: &mut Attributes) -> io::Result<RawFd> {
    // SAFETY: the attributes are a live array of the given size; the caller vouches for the rest.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            attributes.0.as_mut_ptr(),
            attributes.0.len(),
        )
    };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result as RawFd)
    }
}

/// As [`bpf`], for the commands that return a descriptor.
///
/// # Safety
/// As for [`bpf`], and `command` must be one that returns a new descriptor.
unsafe fn bpf_open(command: libc::c_long, attributes: &mut Attributes) -> io::Result<OwnedFd> {
    // SAFETY: the caller vouches for the pointers.
    let descriptor = unsafe { bpf(command, attributes) }?;
    // SAFETY: the kernel has just made this descriptor (close-on-exec, as always for bpf(2)) and
    // nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// What kind of map.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum MapKind {
    /// Hash table.
    Hash = 1,
    /// Array of AF_XDP sockets.
    Sockets = 17,
}

/// Whether an insertion may replace.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u64)]
pub enum Insertion {
    /// Replace what is there (`BPF_ANY`).
    Replace = 0,
    /// Fail with `EEXIST` if the key is there (`BPF_NOEXIST`).
    New = 1,
}

/// A map whose values are four octets.
#[derive(Debug)]
pub struct Map {
    descriptor: OwnedFd,
    key_length: usize,
}

impl Map {
    /// An empty map with room for `entries` whose keys have this length.
    pub fn new(kind: MapKind, key_length: usize, entries: u32) -> io::Result<Map> {
        let mut attributes = Attributes::new()
            .word(0, kind as u32)
            .word(4, key_length as u32)
            .word(8, 4)
            .word(12, entries)
            .name(28);
        // SAFETY: MAP_CREATE follows no pointer and returns a descriptor.
        let descriptor = unsafe { bpf_open(MAP_CREATE, &mut attributes) }?;
        Ok(Map {
            descriptor,
            key_length,
        })
    }

    /// Writes an entry; the running program sees it at once.
    pub fn insert(&self, key: &[u8], value: [u8; 4], insertion: Insertion) -> io::Result<()> {
        assert_eq!(key.len(), self.key_length, "a key of another map");
        let mut attributes = Attributes::new()
            .descriptor(0, &self.descriptor)
            .pointer(8, key.as_ptr())
            .pointer(16, value.as_ptr())
            .double_word(24, insertion as u64);
        // SAFETY: key and value are as long as the map's (the key is asserted), and outlive the
        // call.
        unsafe { bpf(MAP_UPDATE, &mut attributes) }.map(drop)
    }

    /// Removes an entry; `ENOENT` if it is not there.
    pub fn remove(&self, key: &[u8]) -> io::Result<()> {
        assert_eq!(key.len(), self.key_length, "a key of another map");
        let mut attributes = Attributes::new()
            .descriptor(0, &self.descriptor)
            .pointer(8, key.as_ptr());
        // SAFETY: the key is as long as the map's (asserted), and outlives the call.
        unsafe { bpf(MAP_DELETE, &mut attributes) }.map(drop)
    }

    /// The descriptor, to write into a program.
    pub fn descriptor(&self) -> RawFd {
        self.descriptor.as_raw_fd()
    }
}

/// A loaded XDP program.
#[derive(Debug)]
pub struct Program(OwnedFd);

impl Program {
    /// Loads a program, which takes frames in several buffers if `fragments`. When the verifier
    /// refuses it the error is in the kernel's words.
    pub fn load(code: &[Instruction], fragments: bool) -> io::Result<Program> {
        let flags = if fragments { XDP_HAS_FRAGS } else { 0 };
        let attributes = || {
            Attributes::new()
                .word(0, PROGRAM_TYPE_XDP)
                .word(4, code.len() as u32)
                .pointer(8, code.as_ptr())
                .pointer(16, LICENCE.as_ptr())
                .word(44, flags)
                .name(48)
                .word(68, ATTACH_TYPE_XDP)
        };
        // SAFETY: the code is `code.len()` instructions in the kernel's layout, the licence ends
        // with a zero, both outlive the call, which returns a descriptor.
        match unsafe { bpf_open(PROGRAM_LOAD, &mut attributes()) } {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {}
            Err(error) if error.raw_os_error() == Some(libc::EACCES) => {}
            other => return other.map(Program),
        }
        let mut log = vec![0; LOG_OCTETS];
        let mut attributes = attributes()
            .word(24, 1)
            .word(28, log.len() as u32)
            .pointer(32, log.as_mut_ptr());
        // SAFETY: as above; the log is writable for the length that is given with it.
        let result = unsafe { bpf_open(PROGRAM_LOAD, &mut attributes) };
        result.map(Program).map_err(|error| {
            let text = CStr::from_bytes_until_nul(&log).unwrap_or_default();
            io::Error::new(error.kind(), format!("{error}: {}", text.to_string_lossy()))
        })
    }

    /// Attaches the program to an interface for as long as the link lives.
    pub fn attach(&self, interface: u32, flags: u32) -> io::Result<Link> {
        let mut attributes = Attributes::new()
            .descriptor(0, &self.0)
            .word(4, interface)
            .word(8, ATTACH_TYPE_XDP)
            .word(12, flags);
        // SAFETY: LINK_CREATE for XDP follows no pointer and returns a descriptor.
        unsafe { bpf_open(LINK_CREATE, &mut attributes) }.map(Link)
    }

    /// Runs the program once over a frame, as if received on queue 0 of `lo`, for its verdict.
    #[cfg(test)]
    pub fn test_run(&self, frame: &[u8]) -> io::Result<u32> {
        let mut attributes = Attributes::new()
            .descriptor(0, &self.0)
            .word(8, frame.len() as u32)
            .pointer(16, frame.as_ptr())
            .word(32, 1);
        // SAFETY: the frame is readable for the length given with it and outlives the call.
        unsafe { bpf(PROGRAM_TEST_RUN, &mut attributes) }?;
        let mut verdict = [0; 4];
        verdict.copy_from_slice(&attributes.0[4..8]);
        Ok(u32::from_ne_bytes(verdict))
    }
}

/// A program's attachment to an interface: it is undone when this is dropped or the process dies.
#[derive(Debug)]
pub struct Link(#[expect(dead_code, reason = "held open, never read")] OwnedFd);

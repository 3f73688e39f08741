//! DPDK's functions, and safe types over them: EAL, a memory pool, a started device, an mbuf.
#![expect(unsafe_code, reason = "a C library")]

use std::ffi::{CStr, CString, c_char, c_int, c_uint, c_void};
use std::ptr::NonNull;
use std::sync::{Arc, OnceLock};

use super::DpdkError;
use crate::port::BURST;

/// Octets in front of a packet in its mbuf (RTE_PKTMBUF_HEADROOM).
const MBUF_HEADROOM: usize = 128;

/// The head of `struct rte_mbuf`; shim.c proves each field's place when it is compiled.
#[repr(C)]
struct RawMbuf {
    buffer: *mut u8,
    _iova: u64,
    data_offset: u16,
    _references: u16,
    segments: u16,
    _port: u16,
    _flags: u64,
    _packet_type: u32,
    packet_length: u32,
    data_length: u16,
    _vlan: u16,
    _hash: [u32; 2],
    _outer_vlan: u16,
    buffer_length: u16,
    _pool: *mut c_void,
    next: *mut RawMbuf,
}

const _: () = {
    assert!(std::mem::offset_of!(RawMbuf, data_offset) == 16);
    assert!(std::mem::offset_of!(RawMbuf, segments) == 20);
    assert!(std::mem::offset_of!(RawMbuf, packet_length) == 36);
    assert!(std::mem::offset_of!(RawMbuf, data_length) == 40);
    assert!(std::mem::offset_of!(RawMbuf, buffer_length) == 54);
    assert!(std::mem::offset_of!(RawMbuf, next) == 64);
};

unsafe extern "C" {
    fn rte_eal_init(count: c_int, arguments: *mut *mut c_char) -> c_int;
    fn rte_strerror(number: c_int) -> *const c_char;
    fn rte_pktmbuf_pool_create(
        name: *const c_char,
        count: c_uint,
        cache: c_uint,
        private: u16,
        room: u16,
        node: c_int,
    ) -> *mut c_void;
    fn rte_mempool_free(pool: *mut c_void);
    fn rte_mempool_avail_count(pool: *const c_void) -> c_uint;
    fn rte_eth_dev_get_port_by_name(name: *const c_char, port: *mut u16) -> c_int;
    fn rte_eth_dev_get_mtu(port: u16, mtu: *mut u16) -> c_int;
    fn rte_eth_dev_set_mtu(port: u16, mtu: u16) -> c_int;
    fn rte_eth_promiscuous_enable(port: u16) -> c_int;
    fn rte_eth_dev_stop(port: u16) -> c_int;
    fn rte_eth_dev_close(port: u16) -> c_int;
    fn hitless_dpdk_errno() -> c_int;
    fn hitless_dpdk_register_thread();
    fn hitless_dpdk_start(port: u16, queues: u16, size: u16, pool: *mut c_void) -> c_int;
    fn hitless_dpdk_receive(port: u16, queue: u16, mbufs: *mut *mut RawMbuf, most: u16) -> u16;
    fn hitless_dpdk_transmit(port: u16, queue: u16, mbufs: *mut *mut RawMbuf, count: u16) -> u16;
    fn hitless_dpdk_allocate(pool: *mut c_void) -> *mut RawMbuf;
    fn hitless_dpdk_free(mbuf: *mut RawMbuf);
}

fn text_of(number: c_int) -> String {
    // SAFETY: `rte_strerror` returns a string that ends with a zero for every number, in storage of
    // the calling thread.
    let text = unsafe { CStr::from_ptr(rte_strerror(number)) };
    text.to_string_lossy().into_owned()
}

fn last_error() -> String {
    // SAFETY: no pointers.
    text_of(unsafe { hitless_dpdk_errno() })
}

/// DPDK's environment: once for a process, for as long as it lives.
#[derive(Clone, Copy, Debug)]
pub struct Eal(());

/// Starts EAL, or returns how that went before. `arguments` are those of any DPDK program, without
/// its name.
pub fn start(arguments: &[&str]) -> Result<Eal, DpdkError> {
    static STARTED: OnceLock<Result<Vec<String>, String>> = OnceLock::new();
    let wanted: Vec<String> = arguments.iter().map(|text| (*text).to_owned()).collect();
    match STARTED.get_or_init(|| init(wanted.clone())) {
        Ok(given) if *given == wanted => Ok(Eal(())),
        Ok(given) => Err(DpdkError::StartedOtherwise {
            given: given.join(" "),
        }),
        Err(text) => Err(DpdkError::Eal { text: text.clone() }),
    }
}

fn init(given: Vec<String>) -> Result<Vec<String>, String> {
    let all = std::iter::once("hitless").chain(given.iter().map(String::as_str));
    let mut owned = Vec::new();
    for argument in all {
        let argument = CString::new(argument).map_err(|_| "an argument has a zero".to_owned())?;
        // EAL keeps pointers into its arguments and may reorder them.
        owned.push(argument.into_raw());
    }
    let count = owned.len() as c_int;
    owned.push(std::ptr::null_mut());
    let arguments: &'static mut [*mut c_char] = owned.leak();
    // SAFETY: `count` strings that end with a zero and live for ever, then a null pointer; called
    // once, by way of a OnceLock.
    match unsafe { rte_eal_init(count, arguments.as_mut_ptr()) } {
        0.. => Ok(given),
        _ => Err(last_error()),
    }
}

/// Tells DPDK of this thread, so that it gets a cache of mbufs.
pub fn register_thread(_: Eal) {
    // SAFETY: no pointers; EAL has been started.
    unsafe { hitless_dpdk_register_thread() };
}

/// A pool of mbufs, which is freed with its last owner.
#[derive(Debug)]
pub struct Mempool {
    pool: NonNull<c_void>,
    count: usize,
}

// SAFETY: DPDK's pools are made for use by several threads at once.
unsafe impl Send for Mempool {}
// SAFETY: as above.
unsafe impl Sync for Mempool {}

impl Mempool {
    /// A pool of `count` mbufs with room for `octets` each.
    pub fn new(_: Eal, name: &str, count: u32, octets: usize) -> Result<Mempool, DpdkError> {
        let failed = |text| DpdkError::Mempool {
            name: name.to_owned(),
            text,
        };
        let label = CString::new(name).map_err(|_| failed("its name has a zero".to_owned()))?;
        let room = u16::try_from(octets + MBUF_HEADROOM);
        let room = room.map_err(|_| failed("frames are too long".to_owned()))?;
        const CACHE: c_uint = 256;
        const ANY_NODE: c_int = -1;
        let cache = CACHE.min(count / 4);
        // SAFETY: the name ends with a zero and is copied; EAL has been started.
        let pool =
            unsafe { rte_pktmbuf_pool_create(label.as_ptr(), count, cache, 0, room, ANY_NODE) };
        let pool = NonNull::new(pool).ok_or_else(|| failed(last_error()))?;
        Ok(Mempool {
            pool,
            count: count as usize,
        })
    }

    /// Mbufs that nobody has.
    pub fn available(&self) -> usize {
        // SAFETY: the pool lives as long as `self`.
        unsafe { rte_mempool_avail_count(self.pool.as_ptr()) as usize }
    }

    /// An empty mbuf, unless there is none.
    pub fn allocate(&self) -> Option<Mbuf> {
        // SAFETY: the pool lives as long as `self`.
        NonNull::new(unsafe { hitless_dpdk_allocate(self.pool.as_ptr()) }).map(Mbuf)
    }
}

impl Drop for Mempool {
    fn drop(&mut self) {
        // Somebody still has mbufs (a ring between two devices, a driver that keeps some): then the
        // memory stays, for as long as the process does.
        if self.available() == self.count {
            // SAFETY: the last owner, and nobody has an mbuf of the pool.
            unsafe { rte_mempool_free(self.pool.as_ptr()) };
        }
    }
}

/// A packet in DPDK's memory, which goes back to its pool when dropped.
#[derive(Debug)]
pub struct Mbuf(NonNull<RawMbuf>);

// SAFETY: an mbuf has one owner and no thread affinity.
unsafe impl Send for Mbuf {}

impl Mbuf {
    /// Octets in the packet.
    pub fn len(&self) -> usize {
        // SAFETY: an mbuf that we own is valid.
        unsafe { self.0.as_ref() }.packet_length as usize
    }

    /// The parts of the packet, in order.
    pub fn parts(&self) -> impl Iterator<Item = &[u8]> {
        let mut next = Some(self.0);
        std::iter::from_fn(move || {
            let part = next?;
            // SAFETY: the segments of an mbuf that we own are valid and ours until it is dropped.
            let part = unsafe { part.as_ref() };
            next = NonNull::new(part.next);
            let (offset, length) = (part.data_offset.into(), part.data_length.into());
            assert!(offset + length <= usize::from(part.buffer_length));
            // SAFETY: the range lies within the segment's buffer (asserted), which is readable.
            Some(unsafe { std::slice::from_raw_parts(part.buffer.add(offset), length) })
        })
    }

    /// Fills a fresh mbuf; false if the octets do not fit.
    pub fn fill(&mut self, octets: &[u8]) -> bool {
        // SAFETY: an mbuf that we own is valid, and ours alone.
        let raw = unsafe { self.0.as_mut() };
        let offset = usize::from(raw.data_offset);
        let Ok(length) = u16::try_from(octets.len()) else {
            return false;
        };
        if offset + octets.len() > usize::from(raw.buffer_length) {
            return false;
        }
        // SAFETY: the range lies within the buffer (checked), which is ours and not `octets`.
        unsafe {
            std::ptr::copy_nonoverlapping(octets.as_ptr(), raw.buffer.add(offset), octets.len());
        }
        (raw.data_length, raw.packet_length) = (length, length.into());
        true
    }
}

impl Drop for Mbuf {
    fn drop(&mut self) {
        // SAFETY: ours, and not used after this.
        unsafe { hitless_dpdk_free(self.0.as_ptr()) };
    }
}

/// A device with its queues started; stopped and closed with its last owner.
#[derive(Debug)]
pub struct Device {
    port: u16,
    mtu: usize,
    eal: Eal,
    /// Behind the port in time: mbufs are given back when it is closed.
    pool: Mempool,
}

impl Device {
    /// Configures and starts the device of this name.
    pub fn start(
        eal: Eal,
        name: &str,
        queues: u16,
        size: u16,
        mtu: Option<usize>,
        pool: Mempool,
    ) -> Result<Arc<Device>, DpdkError> {
        let failed = |what, number: c_int| DpdkError::Device {
            name: name.to_owned(),
            what,
            text: text_of(-number),
        };
        let check = |what, result: c_int| match result {
            0.. => Ok(()),
            number => Err(failed(what, number)),
        };
        let label = CString::new(name).map_err(|_| failed("find", -libc::EINVAL))?;
        let mut port = 0;
        // SAFETY: the name ends with a zero, and the number is written before the call ends.
        check("find", unsafe {
            rte_eth_dev_get_port_by_name(label.as_ptr(), &raw mut port)
        })?;
        // Before the start: many drivers refuse it later.
        if let Some(mtu) = mtu.and_then(|mtu| u16::try_from(mtu).ok()) {
            // SAFETY: no pointers. Devices that know no MTU refuse this; then it is ours to keep.
            unsafe { rte_eth_dev_set_mtu(port, mtu) };
        }
        // SAFETY: the pool lives as long as the device that is made from it here.
        check("start", unsafe {
            hitless_dpdk_start(port, queues, size, pool.pool.as_ptr())
        })?;
        // SAFETY: no pointers. The cluster's MAC address is not the device's; a device that has no
        // filter refuses, and needs none.
        unsafe { rte_eth_promiscuous_enable(port) };
        let mut told = 0;
        // SAFETY: the number is written before the call ends.
        check("ask for the MTU of", unsafe {
            rte_eth_dev_get_mtu(port, &raw mut told)
        })?;
        Ok(Arc::new(Device {
            port,
            mtu: mtu.unwrap_or_else(|| usize::from(told)),
            eal,
            pool,
        }))
    }

    /// Largest Ethernet payload.
    pub fn mtu(&self) -> usize {
        self.mtu
    }

    pub fn eal(&self) -> Eal {
        self.eal
    }

    /// The mbufs of the device.
    pub fn pool(&self) -> &Mempool {
        &self.pool
    }

    /// Receives up to a burst, and hands over each packet. Only one thread may use a queue at a
    /// time, which its port sees to.
    pub(super) fn receive(&self, queue: u16, most: usize, mut take: impl FnMut(Mbuf)) {
        let mut mbufs = [std::ptr::null_mut(); BURST];
        let most = most.min(BURST) as u16;
        // SAFETY: room for `most` pointers; the port is started, and nobody else uses the queue.
        let count = unsafe { hitless_dpdk_receive(self.port, queue, mbufs.as_mut_ptr(), most) };
        for mbuf in mbufs.iter().take(count.into()) {
            if let Some(mbuf) = NonNull::new(*mbuf) {
                take(Mbuf(mbuf));
            }
        }
    }

    /// Sends a burst in order; returns how many the device took. The rest goes back to the pool.
    pub(super) fn transmit(&self, queue: u16, mbufs: impl Iterator<Item = Mbuf>) -> usize {
        let mut raw = [std::ptr::null_mut(); BURST];
        let mut count = 0;
        for (place, mbuf) in raw.iter_mut().zip(mbufs) {
            *place = mbuf.0.as_ptr();
            std::mem::forget(mbuf);
            count += 1;
        }
        // SAFETY: `count` mbufs that were ours; those that are taken are the device's from now on.
        let sent =
            unsafe { hitless_dpdk_transmit(self.port, queue, raw.as_mut_ptr(), count as u16) };
        let sent = usize::from(sent);
        for refused in raw.iter().take(count).skip(sent) {
            if let Some(refused) = NonNull::new(*refused) {
                drop(Mbuf(refused));
            }
        }
        sent
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        // SAFETY: no pointers; no port uses it any more. What fails here fails for a device that is
        // gone already.
        unsafe {
            rte_eth_dev_stop(self.port);
            rte_eth_dev_close(self.port);
        }
    }
}

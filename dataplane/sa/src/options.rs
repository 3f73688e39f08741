//! How one SA treats the packets that it carries, as far as IKE does not negotiate it: what crosses
//! between inner and outer header, padding, clamping. The default is what a plain gateway does.

use std::time::Duration;

/// Settings of a Child SA that are ours alone; the peer need not agree.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SaOptions {
    /// DSCP of outer headers (RFC 4301 section 5.1.2.1, RFC 2983).
    pub dscp: Dscp,
    /// Whether the inner packet takes the outer one's DSCP when it leaves the tunnel (RFC 2983's
    /// uniform model).
    pub copy_dscp_in: bool,
    /// Whether ECN is copied to the outer header (RFC 6040 section 4.1, normal mode; without it
    /// compatibility mode). Leaving the tunnel is the same in both.
    pub copy_ecn: bool,
    pub dont_fragment: DontFragment,
    /// TTL or hop limit of outer headers.
    pub hop_limit: u8,
    /// Flow label of outer IPv6 headers; 20 bits count (RFC 8200 section 3).
    pub flow_label: u32,
    pub padding: TfcPadding,
    pub mss: MssClamp,
    /// How long nothing may have gone out on an SA behind a NAT before a keepalive goes (RFC 3948
    /// section 2.3); nothing means that none do.
    pub keepalive: Option<Duration>,
    pub workers: Workers,
    /// Which of several SAs with the same selectors it is: the one for that worker's outbound
    /// packets (RFC 9611). Not a setting, but agreed on.
    pub resource: Option<u16>,
}

/// Which of a gateway's workers handle an SA.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Workers {
    /// All send, one receives: the one that the network card puts the peer's packets to.
    Any,
    /// All send and receive: an SA that one core is too slow for.
    All,
    /// One sends and receives, and the others hand it their packets: order is kept both ways.
    One,
}

/// Where the DSCP of an outer header comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Dscp {
    /// From the inner header.
    Copy,
    /// Always this one; six bits count.
    Fixed(u8),
}

/// The DF bit of outer IPv4 headers (RFC 4301 section 8.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DontFragment {
    /// As the inner IPv4 header has it; set for IPv6, which routers never fragment.
    Copy,
    Set,
    Clear,
}

/// Padding that hides how long inner packets are (RFC 4303 section 2.7; tunnel mode only).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TfcPadding {
    None,
    /// Inner packets are at least that long.
    To(u16),
    /// Every ESP packet is as long as its way allows.
    ToMtu,
}

/// Whether TCP connections are told to send segments that fit the tunnel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MssClamp {
    None,
    /// To what fits the way's MTU.
    ToMtu,
    /// To this size at most.
    To(u16),
}

impl Default for SaOptions {
    fn default() -> SaOptions {
        SaOptions {
            dscp: Dscp::Copy,
            copy_dscp_in: false,
            copy_ecn: true,
            dont_fragment: DontFragment::Clear,
            hop_limit: 64,
            flow_label: 0,
            padding: TfcPadding::None,
            mss: MssClamp::None,
            keepalive: None,
            workers: Workers::Any,
            resource: None,
        }
    }
}

//! What becomes of a packet. On the packet path there are no errors, only verdicts; each reason to
//! drop is a counter that `hitless status` shows.

/// Declares the reasons once: the enum, their names and the kernel's `/proc/net/xfrm_stat` names.
macro_rules! drop_reasons {
    ($($(#[$doc:meta])* $variant:ident = $name:literal, $xfrm:literal;)*) => {
        /// Why a packet was dropped.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        #[repr(u8)]
        pub enum DropReason {
            $($(#[$doc])* $variant,)*
        }

        impl DropReason {
            /// All reasons, in the order of their counters.
            pub const ALL: &'static [DropReason] = &[$(DropReason::$variant,)*];

            /// The name in `status` and in metrics.
            pub const fn name(self) -> &'static str {
                match self { $(DropReason::$variant => $name,)* }
            }

            /// The kernel's name for the same thing, or an empty string.
            pub const fn xfrm_name(self) -> &'static str {
                match self { $(DropReason::$variant => $xfrm,)* }
            }
        }
    };
}

drop_reasons! {
    /// Not the active member of the group: frames to the cluster are not ours to handle.
    NotActive = "not_active", "";
    /// No Ethernet, IP or UDP header where one must be, or lengths that contradict each other.
    Malformed = "malformed", "XfrmInHdrError";
    /// IPv4 header checksum wrong.
    BadChecksum = "bad_checksum", "";
    /// A fragment where whole packets are needed.
    Fragment = "fragment", "";
    /// TTL would reach zero.
    TtlExceeded = "ttl_exceeded", "";
    /// Addressed to the cluster, but no service of ours.
    NotForUs = "not_for_us", "";
    /// ESP shorter than header, IV and ICV.
    Runt = "runt", "XfrmInHdrError";
    /// SPI 0 on the wire (RFC 4303 section 2.1).
    SpiZero = "spi_zero", "XfrmInNoStates";
    /// No SA with this SPI.
    UnknownSpi = "unknown_spi", "XfrmInNoStates";
    /// Sequence number seen before, or left of the window (RFC 4303 section 3.4.3).
    Replay = "replay", "XfrmInStateSeqError";
    /// ICV did not verify (RFC 4303 section 3.4.4).
    Integrity = "integrity", "XfrmInStateProtoError";
    /// Padding longer than the packet, or not 1, 2, 3 and so on (RFC 4303 section 2.4).
    BadPadding = "bad_padding", "XfrmInStateProtoError";
    /// Next header is not what the mode carries.
    BadNextHeader = "bad_next_header", "XfrmInStateModeError";
    /// Dummy packet, next header 59 (RFC 4303 section 2.6): dropped silently by design.
    Dummy = "dummy", "";
    /// Met congestion in the tunnel, and its sender would not understand the mark (RFC 6040
    /// section 4.2).
    Congestion = "congestion", "";
    /// Inner packet does not match the SA's selectors (RFC 4301 section 5.2).
    SelectorMismatch = "selector_mismatch", "XfrmInTmplMismatch";
    /// Authentic, but above the inbound high water and no room to wait for it to rise.
    HighWater = "high_water", "XfrmInStateInvalid";
    /// No outbound number left in the recorded grant.
    LeaseExhausted = "lease_exhausted", "XfrmOutStateSeqError";
    /// 32-bit sequence numbers used up (RFC 4303 section 3.3.3).
    SequenceOverflow = "sequence_overflow", "XfrmOutStateSeqError";
    /// Policy says DISCARD.
    PolicyDiscard = "policy_discard", "XfrmOutPolBlock";
    /// No policy matches: discarded by default (RFC 4301 section 5.1). Nor does a policy let into
    /// clear a later fragment that an earlier one may forbid (section 7.4), or the answer to an echo
    /// request from outside that names a host of the protected side.
    NoPolicy = "no_policy", "XfrmInNoPols";
    /// Policy says PROTECT, but no SA is up.
    NoSa = "no_sa", "XfrmOutNoStates";
    /// Arrived in clear although policy protects it (RFC 4301 section 5.2).
    ClearText = "clear_text", "XfrmInTmplMismatch";
    /// No route to the destination.
    NoRoute = "no_route", "";
    /// Next hop's Ethernet address not known yet; a request was sent.
    NeighbourUnresolved = "neighbour_unresolved", "";
    /// Waited for its next hop's Ethernet address when the policy or the route changed that let it go.
    Outdated = "outdated", "";
    /// Larger than the MTU of the port it must leave by.
    TooBig = "too_big", "";
    /// No free packet buffer.
    NoBuffer = "no_buffer", "";
    /// The control thread did not take punted packets quickly enough.
    PuntFull = "punt_full", "";
    /// The half of that room which is for IKE_SA_INIT, or for what pretends to be, was full.
    PuntStranger = "punt_stranger", "";
    /// The port's transmit ring was full.
    TransmitFull = "transmit_full", "";
    /// NAT keepalive (RFC 3948 section 2.3): dropped silently by design.
    NatKeepalive = "nat_keepalive", "";
    /// An address family or protocol that hitless does not handle yet.
    Unsupported = "unsupported", "";
    /// An ICMP error that tells the path MTU, and has been heeded: dropped silently by design.
    PathMtu = "path_mtu", "";
    /// An ICMP error about a packet of ours that quotes no SA of ours, or says what cannot be
    /// (RFC 4301 section 8.2).
    IcmpRefused = "icmp_refused", "";
    /// A fragment that overlaps another or repeats it, or that is of a datagram where one did
    /// (RFC 5722, RFC 8200 section 4.5).
    FragmentOverlap = "fragment_overlap", "";
    /// A fragment whose datagram did not become whole in time.
    FragmentTimeout = "fragment_timeout", "";
    /// A fragment for which there was no room.
    FragmentLimit = "fragment_limit", "";
    /// A fragment that ends behind the end of its datagram, or gives it another end, or makes it
    /// longer than a packet can be.
    FragmentTooLong = "fragment_too_long", "";
    /// The worker that has its SA did not take packets from this one quickly enough.
    HandOver = "hand_over", "";
}

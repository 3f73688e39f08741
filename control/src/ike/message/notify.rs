//! Notify message types (RFC 7296 section 3.10.1 and its successors).

use std::fmt;

/// Notify message type.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NotifyKind(pub u16);

macro_rules! notify_kinds {
    ($($(#[$doc:meta])* $name:ident = $value:literal,)*) => {
        impl NotifyKind {
            $($(#[$doc])* pub const $name: NotifyKind = NotifyKind($value);)*

            /// The name in the registry, if we know it.
            pub const fn name(self) -> Option<&'static str> {
                match self.0 {
                    $($value => Some(stringify!($name)),)*
                    _ => None,
                }
            }
        }
    };
}

notify_kinds! {
    // Errors, RFC 7296 section 3.10.1.
    UNSUPPORTED_CRITICAL_PAYLOAD = 1,
    INVALID_IKE_SPI = 4,
    INVALID_MAJOR_VERSION = 5,
    INVALID_SYNTAX = 7,
    INVALID_MESSAGE_ID = 9,
    INVALID_SPI = 11,
    NO_PROPOSAL_CHOSEN = 14,
    INVALID_KE_PAYLOAD = 17,
    AUTHENTICATION_FAILED = 24,
    SINGLE_PAIR_REQUIRED = 34,
    NO_ADDITIONAL_SAS = 35,
    INTERNAL_ADDRESS_FAILURE = 36,
    FAILED_CP_REQUIRED = 37,
    TS_UNACCEPTABLE = 38,
    INVALID_SELECTORS = 39,
    /// RFC 4555.
    UNACCEPTABLE_ADDRESSES = 40,
    /// RFC 4555.
    UNEXPECTED_NAT_DETECTED = 41,
    TEMPORARY_FAILURE = 43,
    CHILD_SA_NOT_FOUND = 44,
    /// RFC 9370.
    STATE_NOT_FOUND = 47,
    /// RFC 9611.
    TS_MAX_QUEUE = 48,
    // Status, RFC 7296 section 3.10.1.
    INITIAL_CONTACT = 16384,
    SET_WINDOW_SIZE = 16385,
    ADDITIONAL_TS_POSSIBLE = 16386,
    IPCOMP_SUPPORTED = 16387,
    NAT_DETECTION_SOURCE_IP = 16388,
    NAT_DETECTION_DESTINATION_IP = 16389,
    COOKIE = 16390,
    USE_TRANSPORT_MODE = 16391,
    HTTP_CERT_LOOKUP_SUPPORTED = 16392,
    REKEY_SA = 16393,
    ESP_TFC_PADDING_NOT_SUPPORTED = 16394,
    NON_FIRST_FRAGMENTS_ALSO = 16395,
    /// RFC 4555, like the six that follow.
    MOBIKE_SUPPORTED = 16396,
    ADDITIONAL_IP4_ADDRESS = 16397,
    ADDITIONAL_IP6_ADDRESS = 16398,
    NO_ADDITIONAL_ADDRESSES = 16399,
    UPDATE_SA_ADDRESSES = 16400,
    COOKIE2 = 16401,
    NO_NATS_ALLOWED = 16402,
    /// RFC 4478.
    AUTH_LIFETIME = 16403,
    /// RFC 4739.
    MULTIPLE_AUTH_SUPPORTED = 16404,
    /// RFC 4739.
    ANOTHER_AUTH_FOLLOWS = 16405,
    /// RFC 5685, like the two that follow.
    REDIRECT_SUPPORTED = 16406,
    REDIRECT = 16407,
    REDIRECTED_FROM = 16408,
    /// RFC 5723, like the four that follow.
    TICKET_LT_OPAQUE = 16409,
    TICKET_REQUEST = 16410,
    TICKET_ACK = 16411,
    TICKET_NACK = 16412,
    TICKET_OPAQUE = 16413,
    /// RFC 5739.
    LINK_ID = 16414,
    /// RFC 5840.
    USE_WESP_MODE = 16415,
    /// RFC 5857.
    ROHC_SUPPORTED = 16416,
    /// RFC 5998.
    EAP_ONLY_AUTHENTICATION = 16417,
    /// RFC 6023.
    CHILDLESS_IKEV2_SUPPORTED = 16418,
    /// RFC 6290.
    QUICK_CRASH_DETECTION = 16419,
    /// RFC 6311 section 8.
    IKEV2_MESSAGE_ID_SYNC_SUPPORTED = 16420,
    IPSEC_REPLAY_COUNTER_SYNC_SUPPORTED = 16421,
    IKEV2_MESSAGE_ID_SYNC = 16422,
    IPSEC_REPLAY_COUNTER_SYNC = 16423,
    /// RFC 6467.
    SECURE_PASSWORD_METHODS = 16424,
    /// RFC 7383.
    IKEV2_FRAGMENTATION_SUPPORTED = 16430,
    /// RFC 7427.
    SIGNATURE_HASH_ALGORITHMS = 16431,
    /// RFC 7791, like the one that follows.
    CLONE_IKE_SA_SUPPORTED = 16432,
    CLONE_IKE_SA = 16433,
    /// RFC 8784, like the two that follow.
    USE_PPK = 16435,
    PPK_IDENTITY = 16436,
    NO_PPK_AUTH = 16437,
    /// RFC 9242.
    INTERMEDIATE_EXCHANGE_SUPPORTED = 16438,
    /// RFC 9370.
    ADDITIONAL_KEY_EXCHANGE = 16441,
    /// RFC 9611.
    SA_RESOURCE_INFO = 16444,
    /// Private use, told from others' by its data: the sender takes UPDATE_SA_ADDRESSES from a
    /// responder (draft-smyslov-ipsecme-ikev2-r-mobike has no number).
    RESPONDER_MOBIKE = 47213,
}

impl NotifyKind {
    /// Error types lie below 16384 (RFC 7296 section 3.10.1).
    pub const fn is_error(self) -> bool {
        self.0 < 16384
    }
}

impl fmt::Display for NotifyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "notify {}", self.0),
        }
    }
}

impl fmt::Debug for NotifyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NotifyKind({self})")
    }
}

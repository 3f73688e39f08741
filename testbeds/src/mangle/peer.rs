//! The mangling peer's own half of an IKE SA: SPIs, nonces, real keys, and SK payloads that are
//! right in all but what a case wants wrong. AES-GCM is of another crate than the gateway's.

use aes_gcm::aead::inout::InOutBuf;
use aes_gcm::{AeadInOut, Aes128Gcm, KeyInit};
use hitless::entropy::SeededEntropy;
use hitless::ike::crypto::KeyPair;
use hitless::ike::crypto::prf::prf;
use hitless::ike::keys::{IkeKeys, Inputs, Side};
use hitless::ike::proposal::{IkeProposal, KeyExchangeMethod, Prf};
use hitless_sa::{Entropy, IkeSpi};

use super::wire::{
    self, AUTH, IDI, IDR, INITIATOR, KE, Message, NONCE, PROTOCOL_ESP, PROTOCOL_IKE, Proposal,
    RESPONSE, Raw, SK, SKF, TSI, TSR, Transform, aes_gcm, proposal, security_association, selector,
    traffic_selectors, transform,
};

/// The pre-shared key of all beds.
pub const SECRET: &str = "0123456789abcdef";
/// Group of the key exchange: X25519.
pub const GROUP: u16 = 31;
/// IDi of the mangling peer and of the gateway: ID_FQDN.
const OUR_NAME: &[u8] = b"mangler.test";
const THEIR_NAME: &[u8] = b"gateway.test";
/// IKEV2_FRAGMENTATION_SUPPORTED.
const FRAGMENTS: u16 = 16430;
const TAG: usize = 16;
const IV: usize = 8;

/// Our half of one IKE SA.
#[derive(Debug)]
pub struct Peer {
    /// We are the original initiator.
    pub initiator: bool,
    pub spi: u64,
    /// The gateway's; zero until it has one.
    pub other: u64,
    /// Message ID of our next request.
    pub next: u32,
    /// The SPIs of the first Child SA.
    pub esp: [u8; 4],
    pub other_esp: [u8; 4],
    key: Option<KeyPair>,
    pub nonce: Vec<u8>,
    other_nonce: Vec<u8>,
    /// IKE_SA_INIT, request and response, as AUTH signs them.
    request: Vec<u8>,
    response: Vec<u8>,
    keys: Option<IkeKeys>,
    drawn: u64,
}

/// What is wrong with an SK or SKF payload.
#[derive(Clone, Debug, Default)]
pub struct Sealing {
    /// Fragment number and total: an SKF payload.
    pub place: Option<(u16, u16)>,
    /// Another type of the first payload inside, and other content.
    pub first: Option<u8>,
    pub content: Option<Vec<u8>>,
    /// Payloads in front of it, in clear, and octets behind it.
    pub before: Vec<Raw>,
    pub behind: Vec<u8>,
    /// Octets of padding, and what the pad length says of them.
    pub padding: u8,
    pub pad_length: Option<u8>,
    /// One bit of the ICV is wrong.
    pub forged: bool,
    /// The length that its generic header claims.
    pub length: Option<u16>,
}

impl Sealing {
    pub fn forged() -> Sealing {
        Sealing {
            forged: true,
            ..Sealing::default()
        }
    }
}

/// The transforms of the gateway's first IKE proposal.
pub fn ike_transforms() -> Vec<Transform> {
    vec![aes_gcm(128), transform(2, 5), transform(4, GROUP)]
}

/// Those of its ESP proposal, with or without the group that CREATE_CHILD_SA has.
pub fn esp_transforms(group: bool) -> Vec<Transform> {
    let mut transforms = vec![aes_gcm(128)];
    transforms.extend(group.then(|| transform(4, GROUP)));
    transforms.push(transform(5, 0));
    transforms
}

pub fn ike_proposal() -> Proposal {
    proposal(1, PROTOCOL_IKE, &[], ike_transforms())
}

/// The networks of the one child: ours first.
pub const OUR_NET: ([u8; 4], [u8; 4]) = ([10, 9, 0, 0], [10, 9, 255, 255]);
pub const THEIR_NET: ([u8; 4], [u8; 4]) = ([10, 1, 0, 0], [10, 1, 255, 255]);

impl Peer {
    pub fn new(entropy: &mut SeededEntropy, initiator: bool) -> Peer {
        let mut octets = [0; 44];
        entropy.fill(&mut octets);
        let spi = octets
            .iter()
            .take(8)
            .fold(1, |spi: u64, octet| spi << 7 | u64::from(*octet & 0x7f));
        Peer {
            initiator,
            spi,
            other: 0,
            next: 0,
            esp: [0xc0, octets[8], octets[9], octets[10]],
            other_esp: [0; 4],
            key: KeyPair::generate(KeyExchangeMethod::X25519, entropy).ok(),
            nonce: octets[12..].to_vec(),
            other_nonce: Vec::new(),
            request: Vec::new(),
            response: Vec::new(),
            keys: None,
            drawn: 0,
        }
    }

    pub fn public(&self) -> Vec<u8> {
        self.key.as_ref().map(KeyPair::public).unwrap_or_default()
    }

    fn side(&self) -> Side {
        Side::of_initiator(self.initiator)
    }

    /// SA, KE and Nonce of IKE_SA_INIT, and that fragments are known.
    pub fn init_payloads(&self) -> Vec<Raw> {
        vec![
            security_association(&[ike_proposal()]),
            wire::key_exchange(GROUP, &self.public()),
            Raw::new(NONCE, self.nonce.clone()),
            wire::notify(FRAGMENTS, &[]),
        ]
    }

    /// IKE_SA_INIT, as it should be: a request, or a response if we answer.
    pub fn init(&self) -> Message {
        let mut message = self.message(wire::IKE_SA_INIT, self.init_payloads());
        message.id = 0;
        message
    }

    /// A message of ours with the next Message ID: a request, but while the gateway waits for the
    /// answers that set up an IKE SA it is a response.
    pub fn message(&self, exchange: u8, payloads: Vec<Raw>) -> Message {
        let setup = matches!(exchange, wire::IKE_SA_INIT | wire::IKE_AUTH);
        let (initiator, responder) = match self.initiator {
            true => (self.spi, self.other),
            false => (self.other, self.spi),
        };
        let side = if self.initiator { INITIATOR } else { 0 };
        let answer = if setup && !self.initiator {
            RESPONSE
        } else {
            0
        };
        Message {
            initiator,
            responder,
            version: 0x20,
            exchange,
            flags: side | answer,
            id: match exchange {
                wire::IKE_AUTH => 1,
                _ => self.next,
            },
            length: None,
            payloads,
        }
    }

    /// A response of ours.
    pub fn answer(&self, exchange: u8, id: u32, payloads: Vec<Raw>) -> Message {
        let mut message = self.message(exchange, payloads);
        message.flags |= RESPONSE;
        message.id = id;
        message
    }

    /// Notes our own IKE_SA_INIT message, which AUTH signs.
    pub fn sent_init(&mut self, datagram: &[u8]) {
        match self.initiator {
            true => self.request = datagram.to_vec(),
            false => self.response = datagram.to_vec(),
        }
    }

    /// Reads the gateway's IKE_SA_INIT message; as initiator the keys follow at once.
    pub fn learn(&mut self, datagram: &[u8]) -> Option<()> {
        let header = wire::read_header(datagram)?;
        let payloads = wire::read_chain(header.first, datagram.get(28..)?)?;
        let body = |kind| payloads.iter().find(|(k, _)| *k == kind).map(|(_, b)| b);
        self.other_nonce = body(NONCE)?.clone();
        let public = body(KE)?.get(4..)?.to_vec();
        match self.initiator {
            true => (self.other, self.response) = (header.responder, datagram.to_vec()),
            false => (self.other, self.request) = (header.initiator, datagram.to_vec()),
        }
        let shared = self.key.as_ref()?.agree(&public).ok()?;
        let proposal: IkeProposal = "aes128gcm16-prfsha256-x25519".parse().ok()?;
        let (spis, nonces) = match self.initiator {
            true => ((self.spi, self.other), (&self.nonce, &self.other_nonce)),
            false => ((self.other, self.spi), (&self.other_nonce, &self.nonce)),
        };
        let inputs = Inputs {
            initiator_nonce: nonces.0,
            responder_nonce: nonces.1,
            initiator_spi: IkeSpi(spis.0),
            responder_spi: IkeSpi(spis.1),
        };
        self.keys = Some(IkeKeys::derive(&proposal, &inputs, &shared));
        Some(())
    }

    /// RFC 7296 section 2.15: prf(prf(secret, "Key Pad for IKEv2"), signed octets).
    pub fn proof(&self, secret: &str, id: &[u8]) -> Vec<u8> {
        let pad = prf(Prf::HmacSha256, secret.as_bytes(), &[b"Key Pad for IKEv2"]);
        let mut data = vec![2, 0, 0, 0];
        data.extend(prf(Prf::HmacSha256, &pad, &[&self.signed(id)]).iter());
        data
    }

    /// The signed octets of that section.
    pub fn signed(&self, id: &[u8]) -> Vec<u8> {
        let sk_p = self
            .keys
            .as_ref()
            .map(|keys| keys.sk_p(self.side()).to_vec());
        let message = match self.initiator {
            true => &self.request,
            false => &self.response,
        };
        let maced = prf(Prf::HmacSha256, &sk_p.unwrap_or_default(), &[id]);
        [&message[..], &self.other_nonce, &maced].concat()
    }

    /// Body of an identity payload of ours, of a type.
    pub fn identity(kind: u8, name: &[u8]) -> Vec<u8> {
        [&[kind, 0, 0, 0], name].concat()
    }

    /// Ours, as the gateway knows it.
    pub fn our_identity() -> Vec<u8> {
        Self::identity(2, OUR_NAME)
    }

    pub fn their_identity() -> Vec<u8> {
        Self::identity(2, THEIR_NAME)
    }

    /// IKE_AUTH, as it should be.
    pub fn auth_payloads(&self) -> Vec<Raw> {
        let id = Self::our_identity();
        let kind = if self.initiator { IDI } else { IDR };
        let proof = Raw::new(AUTH, self.proof(SECRET, &id));
        let mut payloads = vec![Raw::new(kind, id), proof];
        payloads.extend(self.child_payloads(esp_transforms(false)));
        payloads
    }

    /// SA, TSi and TSr of a Child SA.
    pub fn child_payloads(&self, transforms: Vec<Transform>) -> Vec<Raw> {
        let esp = proposal(1, PROTOCOL_ESP, &self.esp, transforms);
        let ours = selector(OUR_NET.0, OUR_NET.1);
        let theirs = selector(THEIR_NET.0, THEIR_NET.1);
        let (first, second) = match self.initiator {
            true => (ours, theirs),
            false => (theirs, ours),
        };
        vec![
            security_association(&[esp]),
            traffic_selectors(TSI, 1, &[first]),
            traffic_selectors(TSR, 1, &[second]),
        ]
    }

    /// CREATE_CHILD_SA for one more Child SA, as it should be.
    pub fn create_payloads(&self) -> Vec<Raw> {
        let mut payloads = self.child_payloads(esp_transforms(true));
        payloads.push(Raw::new(NONCE, self.nonce.clone()));
        payloads.push(wire::key_exchange(GROUP, &self.public()));
        payloads
    }

    /// The payloads of CREATE_CHILD_SA that rekeys the IKE SA: SA, Nonce, KE.
    pub fn rekey_payloads(&self, spi: &[u8]) -> Vec<Raw> {
        let offered = proposal(1, PROTOCOL_IKE, spi, ike_transforms());
        vec![
            security_association(&[offered]),
            Raw::new(NONCE, self.nonce.clone()),
            wire::key_exchange(GROUP, &self.public()),
        ]
    }

    /// A protected message, as it should be.
    pub fn seal(&mut self, message: &Message) -> Vec<u8> {
        self.seal_as(message, Sealing::default())
    }

    /// A protected message with something wrong with its protection.
    pub fn seal_as(&mut self, message: &Message, wrong: Sealing) -> Vec<u8> {
        let (first, content) = wire::chain(&message.payloads);
        let first = wrong.first.unwrap_or(first);
        let mut plain = wrong.content.unwrap_or(content);
        plain.resize(plain.len() + usize::from(wrong.padding), 0);
        plain.push(wrong.pad_length.unwrap_or(wrong.padding));

        let kind = if wrong.place.is_some() { SKF } else { SK };
        let place = wrong.place.map_or_else(Vec::new, |(number, total)| {
            [number.to_be_bytes(), total.to_be_bytes()].concat()
        });
        let mut before = wrong.before;
        if let Some(last) = before.last_mut() {
            last.next = Some(kind);
        }
        let (outer, before) = wire::chain(&before);
        let outer = if before.is_empty() { kind } else { outer };
        let body = 4 + place.len() + IV + plain.len() + TAG;
        let behind = before.len() + body + wrong.behind.len();

        let mut out = message.header(outer, behind);
        out.extend(before);
        out.extend([first, 0]);
        out.extend(wrong.length.unwrap_or(body as u16).to_be_bytes());
        out.extend(place);
        self.drawn += 1;
        let iv = self.drawn.to_be_bytes();
        let tag = self.encrypt(&out, iv, &mut plain).unwrap_or([0; TAG]);
        out.extend(iv);
        out.extend(plain);
        out.extend(tag);
        if wrong.forged
            && let Some(last) = out.last_mut()
        {
            *last ^= 1;
        }
        out.extend(wrong.behind);
        out
    }

    fn cipher(&self, side: Side) -> Option<(Aes128Gcm, [u8; 4])> {
        let material = self.keys.as_ref()?.sk_e(side);
        let (key, salt) = material.split_last_chunk()?;
        Some((Aes128Gcm::new_from_slice(key).ok()?, *salt))
    }

    fn encrypt(&self, aad: &[u8], iv: [u8; IV], plain: &mut [u8]) -> Option<[u8; TAG]> {
        let (cipher, salt) = self.cipher(self.side())?;
        let nonce: [u8; 12] = [&salt[..], &iv].concat().try_into().ok()?;
        let plain = InOutBuf::from(plain);
        let tag = cipher.encrypt_inout_detached(&nonce.into(), aad, plain);
        tag.ok().map(Into::into)
    }

    /// Decrypts what the gateway sent: the payloads inside its SK payload.
    pub fn open(&self, datagram: &[u8]) -> Option<Vec<(u8, Vec<u8>)>> {
        let header = wire::read_header(datagram)?;
        (header.first == SK).then_some(())?;
        let aad = datagram.get(..32)?;
        let first = *datagram.get(28)?;
        let (iv, sealed) = datagram.get(32..)?.split_first_chunk::<IV>()?;
        let (sealed, tag) = sealed.split_last_chunk::<TAG>()?;
        let (cipher, salt) = self.cipher(self.side().other())?;
        let nonce: [u8; 12] = [&salt[..], iv].concat().try_into().ok()?;
        let mut plain = sealed.to_vec();
        let text = InOutBuf::from(plain.as_mut_slice());
        cipher
            .decrypt_inout_detached(&nonce.into(), aad, text, &(*tag).into())
            .ok()?;
        let padding = usize::from(plain.pop()?);
        plain.truncate(plain.len().checked_sub(padding)?);
        wire::read_chain(first, &plain)
    }
}

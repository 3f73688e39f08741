//! EAP packets (RFC 3748 section 4) and the messages of EAP-MSCHAPv2 in them
//! (draft-kamath-pppext-eap-mschapv2).
//!
//! ```text
//!  EAP         code (1) | identifier (1) | length (2) | type (1) | data
//!  MS-CHAPv2   opcode (1) | MS-CHAPv2-ID (1) | MS-Length (2) | ...
//!    Challenge   16 (1) | challenge (16) | name
//!    Response    49 (1) | peer challenge (16) | zero (8) | NT-Response (24) | flags (1) | name
//!    Success     "S=" and 40 hex digits, then "M=" and a text; answered with the opcode alone
//!    Failure     "E=691 R=0 C=... V=3 M=..."; answered with the opcode alone
//! ```

const REQUEST: u8 = 1;
const RESPONSE: u8 = 2;
const SUCCESS: u8 = 3;
const FAILURE: u8 = 4;

/// Types (RFC 3748 section 5).
pub(super) const IDENTITY: u8 = 1;
pub(super) const NOTIFICATION: u8 = 2;
pub(super) const NAK: u8 = 3;
pub(super) const MSCHAPV2: u8 = 26;

/// Octets of an EAP packet that is looked at: RFC 3748 section 3.1 has links carry 1020.
pub(super) const LONGEST: usize = 1020;
pub(super) const CHALLENGE: usize = 16;
const NT_RESPONSE: usize = 24;

/// Opcodes of MS-CHAPv2.
const OP_CHALLENGE: u8 = 1;
const OP_RESPONSE: u8 = 2;
pub(super) const OP_SUCCESS: u8 = 3;
pub(super) const OP_FAILURE: u8 = 4;

/// Request or Response.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Typed<'a> {
    pub identifier: u8,
    pub kind: u8,
    pub data: &'a [u8],
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Packet<'a> {
    Request(Typed<'a>),
    Response(Typed<'a>),
    Success(u8),
    Failure(u8),
}

impl Packet<'_> {
    /// What an EAP payload holds. Its length is that of the payload (RFC 7296 section 3.16).
    pub fn read(octets: &[u8]) -> Result<Packet<'_>, &'static str> {
        if octets.len() > LONGEST {
            return Err("EAP packet that is too long");
        }
        let (head, rest) = octets.split_first_chunk::<4>().ok_or("short EAP packet")?;
        let [code, identifier, high, low] = *head;
        if usize::from(u16::from_be_bytes([high, low])) != octets.len() {
            return Err("EAP packet with a wrong length");
        }
        let typed = || {
            let (kind, data) = rest.split_first().ok_or("EAP packet without a type")?;
            Ok(Typed {
                identifier,
                kind: *kind,
                data,
            })
        };
        match code {
            REQUEST => typed().map(Packet::Request),
            RESPONSE => typed().map(Packet::Response),
            // RFC 3748 section 4.2: they have no data.
            SUCCESS | FAILURE if !rest.is_empty() => Err("EAP result with data"),
            SUCCESS => Ok(Packet::Success(identifier)),
            FAILURE => Ok(Packet::Failure(identifier)),
            _ => Err("EAP packet of an unknown code"),
        }
    }
}

/// A packet of EAP, or a message of MS-CHAPv2: their headers are alike.
fn write(code: u8, identifier: u8, rest: &[&[u8]]) -> Vec<u8> {
    let length = 4 + rest.iter().map(|part| part.len()).sum::<usize>();
    let mut packet = vec![code, identifier];
    packet.extend(u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes());
    packet.extend(rest.concat());
    packet
}

pub(super) fn request(identifier: u8, kind: u8, data: &[u8]) -> Vec<u8> {
    write(REQUEST, identifier, &[&[kind], data])
}

pub(super) fn response(identifier: u8, kind: u8, data: &[u8]) -> Vec<u8> {
    write(RESPONSE, identifier, &[&[kind], data])
}

pub(super) fn success(identifier: u8) -> Vec<u8> {
    write(SUCCESS, identifier, &[])
}

pub(super) fn failure(identifier: u8) -> Vec<u8> {
    write(FAILURE, identifier, &[])
}

/// What comes after the header of a message with this opcode, and its MS-CHAPv2-ID.
fn body(data: &[u8], opcode: u8) -> Result<(u8, &[u8]), &'static str> {
    let (head, rest) = data
        .split_first_chunk::<4>()
        .ok_or("short MS-CHAPv2 message")?;
    let [op, id, high, low] = *head;
    if op != opcode {
        return Err("unexpected MS-CHAPv2 message");
    }
    match usize::from(u16::from_be_bytes([high, low])) == data.len() {
        true => Ok((id, rest)),
        false => Err("MS-CHAPv2 message with a wrong length"),
    }
}

/// What the gateway asks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Challenge<'a> {
    pub id: u8,
    pub challenge: [u8; CHALLENGE],
    pub name: &'a [u8],
}

impl Challenge<'_> {
    pub fn read(data: &[u8]) -> Result<Challenge<'_>, &'static str> {
        let (id, rest) = body(data, OP_CHALLENGE)?;
        let (size, rest) = rest.split_first().ok_or("MS-CHAPv2 challenge missing")?;
        let (challenge, name) = rest
            .split_first_chunk::<CHALLENGE>()
            .filter(|_| usize::from(*size) == CHALLENGE)
            .ok_or("MS-CHAPv2 challenge of a wrong size")?;
        Ok(Challenge {
            id,
            challenge: *challenge,
            name,
        })
    }

    pub fn write(&self) -> Vec<u8> {
        let size = [CHALLENGE as u8];
        write(OP_CHALLENGE, self.id, &[&size, &self.challenge, self.name])
    }
}

/// What the client answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Response<'a> {
    pub id: u8,
    pub peer_challenge: [u8; CHALLENGE],
    pub nt_response: [u8; NT_RESPONSE],
    pub name: &'a [u8],
}

/// Octets of the value: two challenges' room, of which half is zero, the answer, and flags.
const VALUE: usize = CHALLENGE + 8 + NT_RESPONSE + 1;

impl Response<'_> {
    pub fn read(data: &[u8]) -> Result<Response<'_>, &'static str> {
        let wrong = "MS-CHAPv2 response of a wrong size";
        let (id, rest) = body(data, OP_RESPONSE)?;
        let (size, rest) = rest.split_first().ok_or(wrong)?;
        if usize::from(*size) != VALUE {
            return Err(wrong);
        }
        let (peer_challenge, rest) = rest.split_first_chunk().ok_or(wrong)?;
        let (_reserved, rest) = rest.split_first_chunk::<8>().ok_or(wrong)?;
        let (nt_response, rest) = rest.split_first_chunk().ok_or(wrong)?;
        let (_flags, name) = rest.split_first().ok_or(wrong)?;
        Ok(Response {
            id,
            peer_challenge: *peer_challenge,
            nt_response: *nt_response,
            name,
        })
    }

    pub fn write(&self) -> Vec<u8> {
        let size = [VALUE as u8];
        let parts: [&[u8]; 6] = [
            &size,
            &self.peer_challenge,
            &[0; 8],
            &self.nt_response,
            &[0],
            self.name,
        ];
        write(OP_RESPONSE, self.id, &parts)
    }
}

/// The gateway's proof that it knows the password too (RFC 2759 section 5).
pub(super) fn write_success(id: u8, proof: &[u8; 20]) -> Vec<u8> {
    let text = format!("S={} M=Welcome", hex(proof));
    write(OP_SUCCESS, id, &[text.as_bytes()])
}

pub(super) fn read_success(data: &[u8]) -> Result<[u8; 20], &'static str> {
    let (_, text) = body(data, OP_SUCCESS)?;
    let digits = text
        .strip_prefix(b"S=")
        .and_then(|rest| rest.split_at_checked(40))
        .filter(|(_, rest)| rest.is_empty() || rest.starts_with(b" "));
    let (digits, _) = digits.ok_or("MS-CHAPv2 success without proof")?;
    let mut proof = [0; 20];
    for (out, pair) in proof.iter_mut().zip(digits.as_chunks::<2>().0) {
        let digit = |octet: u8| char::from(octet).to_digit(16);
        let (Some(high), Some(low)) = (digit(pair[0]), digit(pair[1])) else {
            return Err("MS-CHAPv2 success without proof");
        };
        *out = (high << 4 | low) as u8;
    }
    Ok(proof)
}

/// ERROR_AUTHENTICATION_FAILURE, and no retry (RFC 2759 section 6).
pub(super) fn write_failure(id: u8, challenge: &[u8; CHALLENGE]) -> Vec<u8> {
    let text = format!(
        "E=691 R=0 C={} V=3 M=Authentication failure",
        hex(challenge)
    );
    write(OP_FAILURE, id, &[text.as_bytes()])
}

/// The error that the gateway names; 0 if it names none.
pub(super) fn read_failure(data: &[u8]) -> Result<u32, &'static str> {
    let (_, text) = body(data, OP_FAILURE)?;
    let text = text.strip_prefix(b"E=").unwrap_or_default();
    let digits = text
        .iter()
        .take(9)
        .map_while(|octet| char::from(*octet).to_digit(10));
    Ok(digits.fold(0, |error, digit| error * 10 + digit))
}

fn hex(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02X}")).collect()
}

/// Whether what can be read of a packet is written as it was read: what a fuzzer asks.
pub fn is_consistent(octets: &[u8]) -> bool {
    let Ok(packet) = Packet::read(octets) else {
        return true;
    };
    let (Packet::Request(typed) | Packet::Response(typed)) = packet else {
        return octets.len() == 4;
    };
    let data = typed.data;
    let challenge = Challenge::read(data).is_ok_and(|c| c.write() != data);
    let response = Response::read(data).is_ok_and(|r| Response::read(&r.write()) != Ok(r));
    let proof = read_success(data).is_ok_and(|p| read_success(&write_success(0, &p)) != Ok(p));
    let failure = read_failure(data).is_ok_and(|error| error > 999_999_999);
    !(challenge || response || proof || failure)
}

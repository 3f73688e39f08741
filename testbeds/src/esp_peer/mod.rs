//! A gateway's worker for suites in other languages: `hitless-testbeds esp-peer` speaks over its
//! standard input and output, and time is in the suite's hands.
//!
//! ```text
//!  message  = length (4 octets, big endian, of what follows), kind (1 octet), body
//!  kind F   : a frame; body = port (1 octet), Ethernet frame
//!  kind J   : JSON; a request (`document::Request`) or its answer (`document::Answer`)
//! ```
//!
//! Frames that the suite sends wait on the port's cable until a request lets the gateway run. Each
//! request is answered by every frame that came out since the last one, then by one JSON message.

mod document;
mod rig;

use std::fmt;
use std::io::{self, Read, Write};
use std::time::Duration;

pub use document::{Answer, Request, sa_id};
pub use rig::Rig;

const FRAME: u8 = b'F';
const JSON: u8 = b'J';
/// No message is longer: a frame is shorter, and a request with some thousand policies too.
const LONGEST: u32 = 1 << 24;

/// Why a request was not obeyed.
#[derive(Debug)]
pub struct Refused(pub String);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Refused {}

/// Serves until the input ends.
///
/// # Errors
/// If the pipe breaks, or carries what is no message.
pub fn serve(mut input: impl Read, mut output: impl Write) -> io::Result<()> {
    let mut rig = None;
    while let Some((kind, body)) = read_message(&mut input)? {
        match (kind, body.split_first()) {
            (FRAME, Some((port, frame))) => {
                let taken = rig
                    .as_mut()
                    .is_some_and(|rig: &mut Rig| rig.push((*port).into(), frame));
                if !taken {
                    return Err(invalid("a frame for no port, or for a cable that is full"));
                }
            }
            (JSON, _) => {
                let refused = obey(&mut rig, &body).err().map(|refused| refused.0);
                let answer = answer(&mut rig, refused, &mut output)?;
                let text = serde_json::to_vec(&answer)?;
                write_message(&mut output, JSON, &[&text])?;
                output.flush()?;
            }
            _ => return Err(invalid("a message that is neither frame nor request")),
        }
    }
    Ok(())
}

fn invalid(text: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}

/// The next message; nothing at the end of the input.
fn read_message(input: &mut impl Read) -> io::Result<Option<(u8, Vec<u8>)>> {
    let mut length = [0; 4];
    match input.read_exact(&mut length) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    }
    let length = u32::from_be_bytes(length);
    if length == 0 || length > LONGEST {
        return Err(invalid("a message of no length, or of an absurd one"));
    }
    let mut kind = [0];
    input.read_exact(&mut kind)?;
    let mut body = vec![0; length as usize - 1];
    input.read_exact(&mut body)?;
    Ok(Some((kind[0], body)))
}

fn write_message(output: &mut impl Write, kind: u8, parts: &[&[u8]]) -> io::Result<()> {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let length = u32::try_from(length + 1).map_err(|_| invalid("a message too long to send"))?;
    output.write_all(&length.to_be_bytes())?;
    output.write_all(&[kind])?;
    parts.iter().try_for_each(|part| output.write_all(part))
}

fn obey(place: &mut Option<Rig>, body: &[u8]) -> Result<(), Refused> {
    let request: Request =
        serde_json::from_slice(body).map_err(|error| Refused(error.to_string()))?;
    let request = match request {
        Request::Start(setup) => {
            *place = Some(start(&setup)?);
            return Ok(());
        }
        other => other,
    };
    let Some(rig) = place else {
        return Err(Refused("nothing is started".to_owned()));
    };
    match request {
        Request::Start(_) => Ok(()),
        Request::Install(sa) => rig.install(&sa.child()?, sa.first, sa.floor),
        Request::Update {
            sa,
            local,
            remote,
            encapsulation,
        } => rig.update(sa_id(sa), local, remote, encapsulation.map(Into::into)),
        Request::Remove { sa } => rig.remove(sa_id(sa)),
        Request::Policies { policies } => {
            let policies: Result<_, _> = policies.iter().map(|p| p.policy()).collect();
            rig.policies(policies?)
        }
        Request::Lead { leading } => {
            rig.lead(leading);
            Ok(())
        }
        Request::Run { milliseconds } => {
            rig.advance(Duration::from_millis(milliseconds));
            rig.run()
        }
    }
}

fn start(setup: &document::Setup) -> Result<Rig, Refused> {
    let interfaces: Result<_, _> = setup.ports.iter().map(|port| port.interface()).collect();
    let mut rig = Rig::new(interfaces?, setup.frames, setup.runs, setup.engine()?)?;
    let routes: Result<Vec<_>, _> = setup.routes.iter().map(|route| route.route()).collect();
    rig.routes(&routes?)?;
    let policies: Result<_, _> = setup.policies.iter().map(|p| p.policy()).collect();
    rig.policies(policies?)?;
    for neighbour in &setup.neighbours {
        rig.neighbour(neighbour.port, neighbour.address, neighbour.mac()?)?;
    }
    Ok(rig)
}

/// Writes what came out of the ports, and counts.
fn answer(
    place: &mut Option<Rig>,
    refused: Option<String>,
    output: &mut impl Write,
) -> io::Result<Answer> {
    let Some(rig) = place else {
        return Ok(Answer {
            refused,
            ..Answer::default()
        });
    };
    for port in 0..rig.ports() {
        let number = [port as u8];
        let mut written = Ok(());
        while written.is_ok()
            && rig.pop(port, |frame| {
                written = write_message(output, FRAME, &[&number, frame]);
            })
        {}
        written?;
    }
    let mut tops = std::collections::BTreeMap::new();
    for sa in rig.installed() {
        if let Ok(Some(state)) = rig.window(sa) {
            tops.insert(sa.counter, state.top.0);
        }
    }
    let esp = rig.counters().esp();
    Ok(Answer {
        refused,
        drops: rig
            .counters()
            .drops()
            .map(|(reason, count)| (reason.name(), count))
            .collect(),
        packets_in: esp.packets_in,
        bytes_in: esp.bytes_in,
        packets_out: esp.packets_out,
        bytes_out: esp.bytes_out,
        punted: rig.counters().punted(),
        tops,
        leaked: rig.leaked(),
    })
}

#[cfg(test)]
mod tests;

//! What is said, and to whom. A reader that has seen enough (`| head`) is no failure, and no reason
//! to panic.

use std::error::Error;
use std::fmt::Display;
use std::io::{self, ErrorKind, Write};

use serde::Serialize;

/// Writes a result to stdout: for people, or as one JSON object.
pub fn result<T: Serialize + Display>(value: &T, json: bool) -> Result<(), Box<dyn Error>> {
    let text = match json {
        true => serde_json::to_string_pretty(value)? + "\n",
        false => value.to_string(),
    };
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(format!("stdout: {error}").into())
        }
        _ => Ok(()),
    }
}

/// Tells something on stderr, beside the result.
pub fn note(text: impl Display) {
    // With stderr closed there is nobody left to tell.
    let _ = writeln!(io::stderr(), "hitless-perf: {text}");
}

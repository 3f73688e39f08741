//! The protocol of the pipe; what the worker does behind it is for the suites.

use super::*;

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut octets = Vec::new();
    write_message(&mut octets, kind, &[body]).unwrap();
    octets
}

fn answers(input: &[u8]) -> Vec<serde_json::Value> {
    let mut output = Vec::new();
    serve(input, &mut output).unwrap();
    let mut output = output.as_slice();
    let mut found = Vec::new();
    while let Some((kind, body)) = read_message(&mut output).unwrap() {
        if kind == JSON {
            found.push(serde_json::from_slice(&body).unwrap());
        }
    }
    found
}

const START: &[u8] = br#"{"op":"start","routes":[],"neighbours":[],
    "ports":[{"mac":"02:00:00:00:00:01","addresses":["10.1.0.1/24"],"mtu":1500,"protected":true}]}"#;

#[test]
fn a_request_that_is_no_request_is_refused_and_the_next_one_obeyed() {
    let input = [
        message(JSON, b"{}"),
        message(JSON, br#"{"op":"run"}"#),
        message(JSON, START),
        message(FRAME, &[0; 61]),
        message(JSON, br#"{"op":"run"}"#),
    ]
    .concat();
    let answers = answers(&input);
    assert_eq!(answers.len(), 4);
    assert!(answers[0]["refused"].is_string() && answers[1]["refused"].is_string());
    assert!(answers[2]["refused"].is_null(), "{}", answers[2]);
    let drops = answers[3]["drops"].as_object().unwrap();
    assert_eq!(drops.values().filter_map(|n| n.as_u64()).sum::<u64>(), 1);
    assert_eq!(answers[3]["leaked"], 0);
}

#[test]
fn broken_pipes_and_messages_are_errors() {
    let cut = &message(JSON, START)[..20];
    assert!(serve(cut, Vec::new()).is_err());
    assert!(serve(&[0, 0, 0, 0][..], Vec::new()).is_err());
    assert!(serve(&[0xff; 8][..], Vec::new()).is_err());
    assert!(serve(&message(FRAME, &[0; 61])[..], Vec::new()).is_err());
    assert!(serve(&message(b'X', b"?")[..], Vec::new()).is_err());
}

//! The control socket: requests and replies, hostile clients, and who may listen.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::thread;

use hitless::api::{
    Choice, ClientId, LONGEST_LINE, MOST_CLIENTS, Reply, Request, Server, ServerError, client,
};
use proptest::prelude::*;

/// A directory of this test's own, removed at its end; short, for `sun_path`.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Scratch {
        let path = std::env::temp_dir().join(format!("hitless-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        Scratch(path)
    }
    fn socket(&self) -> PathBuf {
        self.0.join("s.sock")
    }
    fn server(&self) -> Server {
        Server::bind(&self.socket()).unwrap()
    }
    fn connect(&self) -> UnixStream {
        UnixStream::connect(self.socket()).unwrap()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn done(message: &str) -> Reply {
    Reply::Done {
        message: message.to_owned(),
    }
}

fn reply_of(stream: &UnixStream) -> Reply {
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).unwrap();
    serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line}"))
}

fn reason_of(stream: &UnixStream) -> String {
    match reply_of(stream) {
        Reply::Refused { reason } => reason,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_request_reaches_the_daemon_and_its_reply_the_client() {
    let scratch = Scratch::new("call");
    let mut server = scratch.server();
    let socket = scratch.socket();
    let asker = thread::spawn(move || {
        let request = Request::ListSas {
            connection: Some("office".to_owned()),
        };
        client::call(&socket, &request).unwrap()
    });
    let (id, request) = loop {
        match server.poll().pop() {
            Some(asked) => break asked,
            None => thread::yield_now(),
        }
    };
    let wanted = Request::ListSas {
        connection: Some("office".to_owned()),
    };
    assert_eq!(request, wanted);
    server.reply(id, &done("so it is"));
    assert_eq!(asker.join().unwrap(), done("so it is"));
    server.poll();
    assert_eq!(server.clients(), 0);
}

#[test]
fn requests_have_a_plain_json_form() {
    for (text, request) in [
        (r#"{"request":"status"}"#, Request::Status {}),
        (
            r#"{"request":"list-sas"}"#,
            Request::ListSas { connection: None },
        ),
        (
            r#"{"request":"switchover"}"#,
            Request::Switchover { wait_ms: 0 },
        ),
    ] {
        assert_eq!(serde_json::to_string(&request).unwrap(), text);
        assert_eq!(serde_json::from_str::<Request>(text).unwrap(), request);
    }
}

#[test]
fn only_the_owner_and_the_group_may_connect() {
    let scratch = Scratch::new("mode");
    let _server = scratch.server();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&scratch.socket()), 0o660);
    assert_eq!(
        mode(&scratch.0) & 0o027,
        0,
        "nothing for others, no writing for the group"
    );
}

#[test]
fn a_second_daemon_is_refused_and_does_no_harm() {
    let scratch = Scratch::new("second");
    let mut first = scratch.server();
    let Err(error) = Server::bind(&scratch.socket()) else {
        panic!("two daemons on one socket")
    };
    assert!(matches!(error, ServerError::Taken { .. }), "{error}");
    assert!(
        error.to_string().contains("another hitless daemon answers"),
        "{error}"
    );
    let mut stream = scratch.connect();
    stream.write_all(b"{\"request\":\"status\"}\n").unwrap();
    assert_eq!(first.poll().len(), 1);
}

#[test]
fn a_foreign_listener_is_not_replaced() {
    let scratch = Scratch::new("foreign");
    fs::create_dir_all(&scratch.0).unwrap();
    let _listener = UnixListener::bind(scratch.socket()).unwrap();
    let error = Server::bind(&scratch.socket()).err().unwrap();
    assert!(matches!(error, ServerError::Taken { .. }), "{error}");
}

#[test]
fn a_stale_socket_is_replaced_and_another_file_is_not() {
    let scratch = Scratch::new("stale");
    fs::create_dir_all(&scratch.0).unwrap();
    // A listener that closes leaves its name behind, as a killed daemon does.
    drop(UnixListener::bind(scratch.socket()).unwrap());
    assert!(scratch.socket().exists());
    drop(scratch.server());
    assert!(!scratch.socket().exists(), "removed at the end");
    fs::write(scratch.socket(), "precious").unwrap();
    let error = Server::bind(&scratch.socket()).err().unwrap();
    assert!(matches!(error, ServerError::NotASocket { .. }), "{error}");
    assert_eq!(fs::read(scratch.socket()).unwrap(), b"precious");
}

#[test]
fn without_a_daemon_the_error_names_the_socket_and_the_way_out() {
    let error = client::call(Path::new("/nonexistent/h.sock"), &Request::Status {}).unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("no hitless daemon answers on /nonexistent/h.sock"),
        "{text}"
    );
    assert!(
        text.contains("--socket") && text.contains("hitless run"),
        "{text}"
    );
}

#[test]
fn what_is_no_request_is_refused_and_the_client_may_go_on() {
    let scratch = Scratch::new("bad");
    let mut server = scratch.server();
    let mut stream = scratch.connect();
    for line in [
        "",
        "hello",
        "{}",
        "[]",
        "{\"request\":\"reboot\"}",
        "{\"request\":\"status\",\"force\":true}",
        "{\"request\":\"list-sas\",\"connection\":7}",
        "{\"request\":\"status\"}{\"request\":\"status\"}",
    ] {
        stream.write_all(line.as_bytes()).unwrap();
        stream.write_all(b"\n").unwrap();
        assert!(server.poll().is_empty(), "{line}");
        assert!(reason_of(&stream).contains("not understood"), "{line}");
    }
    stream.write_all(b"\xff\xfe{\n").unwrap();
    assert!(server.poll().is_empty());
    assert!(reason_of(&stream).contains("not understood"));
    stream.write_all(b"{\"request\":\"status\"}\r\n").unwrap();
    assert_eq!(server.poll().len(), 1);
}

#[test]
fn a_request_may_come_octet_by_octet() {
    let scratch = Scratch::new("slow");
    let mut server = scratch.server();
    let mut stream = scratch.connect();
    for octet in b"{\"request\":\"status\"}" {
        stream.write_all(&[*octet]).unwrap();
        assert!(server.poll().is_empty());
    }
    stream.write_all(b"\n").unwrap();
    assert_eq!(server.poll().len(), 1);
}

#[test]
fn an_endless_line_ends_the_client() {
    let scratch = Scratch::new("endless");
    let mut server = scratch.server();
    let stream = scratch.connect();
    stream.set_nonblocking(true).unwrap();
    let mut sent = 0;
    // As much as the socket takes between two polls, until the server hangs up.
    while sent <= 4 * LONGEST_LINE {
        match (&stream).write(&[b'x'; 8192]) {
            Ok(count) => sent += count,
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => break,
        }
        assert!(server.poll().is_empty());
    }
    assert!(sent <= 4 * LONGEST_LINE, "it never hung up");
    assert_eq!(server.clients(), 0);
    let mut said = String::new();
    let _ = (&stream).read_to_string(&mut said);
    assert!(said.is_empty() || said.contains("65536"), "{said}");
}

#[test]
fn a_client_has_one_request_under_way() {
    let scratch = Scratch::new("pipeline");
    let mut server = scratch.server();
    let mut stream = scratch.connect();
    stream
        .write_all(&b"{\"request\":\"status\"}\n".repeat(3))
        .unwrap();
    for round in 0..3 {
        let asked = server.poll();
        assert_eq!(asked.len(), 1, "{round}");
        assert!(server.poll().is_empty(), "not before the reply");
        server.reply(asked[0].0, &done("x"));
        assert_eq!(reply_of(&stream), done("x"));
    }
    assert!(server.poll().is_empty());
}

#[test]
fn a_client_that_does_not_read_costs_one_reply_and_nobody_else_anything() {
    let scratch = Scratch::new("deaf");
    let mut server = scratch.server();
    let mut deaf = scratch.connect();
    deaf.write_all(b"{\"request\":\"status\"}\n{\"request\":\"status\"}\n")
        .unwrap();
    let asked = server.poll();
    let large = done(&"x".repeat(4 << 20));
    server.reply(asked[0].0, &large);
    for _ in 0..10 {
        assert!(
            server.poll().is_empty(),
            "no second request before the first reply has left"
        );
    }
    assert!(server.descriptors().any(|(_, writing)| writing));
    let mut other = scratch.connect();
    other.write_all(b"{\"request\":\"status\"}\n").unwrap();
    let asked = server.poll();
    assert_eq!(asked.len(), 1);
    server.reply(asked[0].0, &done("y"));
    assert_eq!(reply_of(&other), done("y"));
    // Once it reads, it gets all of it.
    let reader = thread::spawn(move || reply_of(&deaf));
    while !reader.is_finished() {
        server.poll();
    }
    assert_eq!(reader.join().unwrap(), large);
}

#[test]
fn more_clients_than_places_push_out_the_idle_and_not_the_busy() {
    let scratch = Scratch::new("crowd");
    let mut server = scratch.server();
    let mut busy: Vec<UnixStream> = Vec::new();
    let mut ids: Vec<ClientId> = Vec::new();
    for _ in 0..MOST_CLIENTS - 1 {
        let mut stream = scratch.connect();
        stream.write_all(b"{\"request\":\"status\"}\n").unwrap();
        ids.extend(server.poll().iter().map(|(id, _)| *id));
        busy.push(stream);
    }
    assert_eq!(ids.len(), MOST_CLIENTS - 1);
    let mut idle = scratch.connect();
    server.poll();
    assert_eq!(server.clients(), MOST_CLIENTS);
    let mut late = scratch.connect();
    late.write_all(b"{\"request\":\"status\"}\n").unwrap();
    assert_eq!(server.poll().len(), 1, "the idle one made room");
    assert_eq!(idle.read(&mut [0; 1]).unwrap(), 0, "and was parted with");
    let last = scratch.connect();
    server.poll();
    assert!(reason_of(&last).contains("too many clients"));
    for (id, stream) in ids.iter().zip(&busy) {
        server.reply(*id, &done("z"));
        assert_eq!(reply_of(stream), done("z"));
    }
}

#[test]
fn a_client_that_is_gone_is_forgotten() {
    let scratch = Scratch::new("gone");
    let mut server = scratch.server();
    let mut stream = scratch.connect();
    stream.write_all(b"{\"request\":\"status\"}\n").unwrap();
    let asked = server.poll();
    drop(stream);
    server.reply(asked[0].0, &done("to nobody"));
    server.reply(asked[0].0, &done("twice"));
    server.reply(ClientId(999), &done("to a stranger"));
    server.poll();
    assert_eq!(server.clients(), 0);
}

#[test]
fn a_client_that_has_sent_all_still_gets_its_reply() {
    let scratch = Scratch::new("half");
    let mut server = scratch.server();
    let mut stream = scratch.connect();
    stream.write_all(b"{\"request\":\"status\"}\n").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let asked = server.poll();
    server.poll();
    server.reply(asked[0].0, &done("late"));
    assert_eq!(reply_of(&stream), done("late"));
    server.poll();
    assert_eq!(server.clients(), 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_octets_in_any_pieces(pieces in proptest::collection::vec(
        prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..300),
            Just(b"{\"request\":\"status\"}\n".to_vec()),
            Just(vec![b'{'; 5000]),
        ],
        0..12,
    )) {
        let scratch = Scratch::new("any");
        let mut server = scratch.server();
        let mut stream = scratch.connect();
        stream.set_nonblocking(true).unwrap();
        for piece in pieces {
            let _ = stream.write(&piece);
            for (id, _) in server.poll() {
                server.reply(id, &done("ok"));
            }
        }
        let mut other = scratch.connect();
        other.write_all(b"{\"request\":\"status\"}\n").unwrap();
        let served = (0..4).flat_map(|_| server.poll()).count();
        prop_assert!(served >= 1);
    }
}

/// The words of a script: what swanctl calls them, and nothing that is not known.
#[test]
fn orders_are_written_in_swanctls_words() {
    let read = |text: &str| serde_json::from_str::<Request>(text);
    let choice = |ike: Option<&str>, child: Option<&str>, ike_id| Choice {
        ike: ike.map(str::to_owned),
        child: child.map(str::to_owned),
        ike_id,
        child_id: None,
    };
    let known = [
        (
            r#"{"request":"initiate","child":"net"}"#,
            Request::Initiate {
                child: "net".to_owned(),
                ike: None,
                wait_ms: 0,
            },
        ),
        (
            r#"{"request":"terminate","choice":{"ike":"office","child":"net"},"wait_ms":500}"#,
            Request::Terminate {
                choice: choice(Some("office"), Some("net"), None),
                wait_ms: 500,
            },
        ),
        (
            r#"{"request":"rekey","choice":{"ike_id":3}}"#,
            Request::Rekey {
                choice: choice(None, None, Some(3)),
                wait_ms: 0,
            },
        ),
        (
            r#"{"request":"redirect","choice":{"ike":"office"},"to":"203.0.113.9"}"#,
            Request::Redirect {
                choice: choice(Some("office"), None, None),
                to: [203, 0, 113, 9].into(),
            },
        ),
        (r#"{"request":"reload"}"#, Request::Reload {}),
    ];
    for (text, request) in known {
        assert_eq!(read(text).unwrap(), request, "{text}");
        let again = serde_json::to_string(&request).unwrap();
        assert_eq!(again, text);
    }
    for wrong in [
        r#"{"request":"initiate"}"#,
        r#"{"request":"redirect","choice":{"ike":"office"},"to":"office"}"#,
        r#"{"request":"redirect","choice":{"ike":"office"}}"#,
        r#"{"request":"terminate","choice":{"name":"office"}}"#,
        r#"{"request":"rekey","choice":{"ike_id":-1}}"#,
        r#"{"request":"reload","file":"/etc/passwd"}"#,
    ] {
        assert!(read(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn a_reply_in_parts_is_one_line_and_what_is_not_read_of_it_is_known() {
    let scratch = Scratch::new("parts");
    let mut server = scratch.server();
    let mut stream = scratch.connect();
    let asked = b"{\"request\":\"status\"}\n{\"request\":\"metrics\"}\n";
    stream.write_all(asked).unwrap();
    let next = |server: &mut Server| loop {
        match server.poll().pop() {
            Some(asked) => break asked,
            None => thread::yield_now(),
        }
    };
    let (id, _) = next(&mut server);
    server.reply_part(id, br#"{"reply":"done","#, false);
    assert!(server.poll().is_empty(), "one request at a time");
    assert_eq!(server.unread(id), Some(0));
    server.reply_part(id, br#""message":"whole"}"#, true);
    assert_eq!(reply_of(&stream), done("whole"));
    assert_eq!(next(&mut server), (id, Request::Metrics {}));
    // More than the socket holds.
    server.reply_part(id, &vec![b'x'; 8 << 20], false);
    assert!(server.unread(id).is_some_and(|octets| octets > 1 << 20));
    drop(stream);
    while server.unread(id).is_some() {
        server.poll();
    }
}

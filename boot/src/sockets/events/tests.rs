use super::*;
use crate::sockets::SocketHub;
use std::io::Write;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::time::Duration;
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(20);

/// A hub; the test holds the machine's end of the connection.
struct Bench {
    hub: SocketHub,
    machine: BufReader<TcpStream>,
    folder: TempDir,
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let ours = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let sockets = crate::sockets::Sockets::bind(Some(&folder.path().join("s")), &[]).unwrap();
        let hub = sockets.start(ours).unwrap();
        hub.event(&json!({"t": 1, "event": "boot"}));
        Self { hub, machine: BufReader::new(listener.accept().unwrap().0), folder }
    }

    fn client(&self) -> TestClient {
        let stream = UnixStream::connect(self.folder.path().join("s")).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        TestClient(BufReader::new(stream))
    }

    fn command(&mut self) -> Value {
        next(&mut self.machine)
    }
}

struct TestClient(BufReader<UnixStream>);

impl TestClient {
    fn next(&mut self) -> Value {
        next(&mut self.0)
    }
    fn send(&mut self, line: &str) {
        self.0.get_mut().write_all(line.as_bytes()).unwrap();
    }
}

fn next(reader: &mut impl BufRead) -> Value {
    let mut line = String::new();
    assert!(reader.read_line(&mut line).unwrap() > 0, "the connection has ended");
    serde_json::from_str(&line).unwrap()
}

#[test]
fn everybody_gets_events_and_who_comes_late_those_before() {
    let bench = Bench::new();
    let mut early = bench.client();
    assert_eq!(early.next()["event"], "boot");
    bench.hub.event(&json!({"t": 2, "event": "crash", "partition": "web"}));
    let mut late = bench.client();
    for client in [&mut early, &mut late] {
        while client.next()["event"] != "crash" {}
    }
}

#[test]
fn an_answer_goes_to_the_client_that_asked_with_its_own_id() {
    let mut bench = Bench::new();
    let (mut one, mut two) = (bench.client(), bench.client());
    for client in [&mut one, &mut two] {
        client.next();
    }
    one.send("{\"id\":1,\"command\":\"stats\"}\n");
    let first = bench.command();
    two.send("{\"id\":1,\"command\":\"crash\",\"partition\":\"web\"}\n");
    let second = bench.command();
    assert_eq!((&second["command"], &second["partition"]), (&json!("crash"), &json!("web")));
    // The second is answered first.
    bench
        .hub
        .event(&json!({"t": 3, "event": "reply", "id": second["id"], "ok": true, "error": null}));
    bench.hub.event(&json!({"t": 4, "event": "stats", "id": first["id"], "partition": "web"}));
    bench
        .hub
        .event(&json!({"t": 5, "event": "reply", "id": first["id"], "ok": false, "error": "x"}));
    bench.hub.event(&json!({"t": 6, "event": "end", "status": 0}));
    let told = |client: &mut TestClient| -> Vec<Value> {
        std::iter::from_fn(|| Some(client.next()))
            .take_while(|event| event["event"] != "end")
            .collect()
    };
    let told = [told(&mut one), told(&mut two)];
    assert_eq!(
        told[0].iter().map(|event| (&event["t"], &event["id"])).collect::<Vec<_>>(),
        [(&json!(4), &json!(1)), (&json!(5), &json!(1))]
    );
    assert_eq!(told[1].len(), 1);
    assert_eq!(
        (&told[1][0]["t"], &told[1][0]["id"], &told[1][0]["ok"]),
        (&json!(3), &json!(1), &json!(true))
    );
    let mut late = bench.client();
    assert_eq!(
        [late.next()["event"].clone(), late.next()["event"].clone()],
        ["boot", "end"],
        "answers are no history"
    );
}

#[test]
fn what_is_no_command_is_answered_here() {
    let bench = Bench::new();
    let mut client = bench.client();
    client.next();
    let long = format!("{{\"id\":4,\"command\":\"{}\"}}\n", "x".repeat(2 * LONGEST));
    for (line, id) in [
        ("crash web\n", json!(null)),
        ("{\"id\":\"a\",\"command\":3}\n", json!("a")),
        (&long, json!(null)),
    ] {
        client.send(line);
        let reply = client.next();
        assert_eq!(
            (&reply["event"], &reply["id"], &reply["ok"]),
            (&json!("reply"), &id, &json!(false)),
            "{reply}"
        );
    }
}

#[test]
fn a_slow_client_loses_whole_lines_and_is_told_how_many() {
    let bench = Bench::new();
    let mut slow = bench.client();
    slow.next();
    let count = 20_000u64;
    for n in 0..count {
        bench.hub.event(&json!({"t": n, "event": "drain", "text": "x".repeat(200)}));
    }
    let (mut told, mut lost) = (0, 0);
    // The message about the last lost lines comes with the next line that fits.
    while told + lost < count {
        if told % 100 == 0 {
            bench.hub.event(&json!({"t": 0, "event": "more"}));
        }
        let event = slow.next();
        match event["event"].as_str() {
            Some("drain") => told += 1,
            Some("lost") => lost += event["lines"].as_u64().unwrap(),
            _ => {}
        }
    }
    assert!(lost > 0 && told > 0, "{told} came, {lost} lost");
}

#[test]
fn the_last_events_reach_a_client_before_the_connection_ends() {
    let bench = Bench::new();
    let mut client = bench.client();
    client.next();
    bench.hub.event(&json!({"t": 9, "event": "end", "status": 0}));
    bench.hub.finish();
    assert_eq!(client.next()["event"], "end");
    assert_eq!(client.0.read_line(&mut String::new()).unwrap(), 0);
}

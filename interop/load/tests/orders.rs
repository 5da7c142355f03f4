//! Every order, carried out by the program itself against its own mirror and origins.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use serde_json::{Value, json};

/// The program, with pipes; it ends with its input.
struct Program {
    child: Child,
    output: BufReader<std::process::ChildStdout>,
}

impl Program {
    fn start(arguments: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_load"))
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        Self { child, output }
    }

    fn read_line(&mut self) -> Value {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap()
    }

    fn order(&mut self, order: &Value) -> Value {
        writeln!(self.child.stdin.as_mut().unwrap(), "{order}").unwrap();
        self.read_line()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        assert!(self.child.wait().unwrap().success());
    }
}

/// A generator and a server, and what every order says.
struct Bench {
    generator: Program,
    server: Program,
    port: Value,
}

impl Bench {
    fn start(server: &[&str]) -> Self {
        let mut server = Program::start(server);
        let port = server.read_line();
        Self { generator: Program::start(&[]), server, port }
    }

    /// Carries out an order that takes little time, and gives an answer in which nothing is wrong.
    fn measure(&mut self, order: Value) -> Value {
        let answer = self.ask(order);
        assert!(answer.get("error").is_none(), "{answer}");
        let number = |key: &str| answer[key].as_f64().unwrap();
        assert!(number("work") > 0.0 && number("seconds") > 0.0, "{answer}");
        assert!(number("proxy_cpu") > 0.0 && number("load_cpu") > 0.0, "{answer}");
        answer
    }

    fn ask(&mut self, mut order: Value) -> Value {
        let mut whole = json!({"server": ["127.0.0.1", self.port], "pids": [self.server.child.id()]});
        whole.as_object_mut().unwrap().append(order.as_object_mut().unwrap());
        self.generator.order(&whole)
    }
}

fn sum(counts: &Value) -> f64 {
    counts.as_array().unwrap().iter().map(|count| count.as_f64().unwrap()).sum()
}

#[test]
fn datagrams() {
    let mut bench = Bench::start(&["mirror"]);
    let answer = bench.measure(
        json!({"load": "datagrams", "target": 9, "size": 1100, "tunnels": 70, "window": 3, "warmup": 0.1, "seconds": 0.2}),
    );
    let lost = 1.0 - answer["work"].as_f64().unwrap() / answer["offered"].as_f64().unwrap();
    assert!(lost.abs() < 0.1, "{answer}");
    let answer = bench.measure(json!({"load": "fairness", "kind": "datagrams", "target": 9, "size": 64, "tunnels": 7,
        "connections": 3, "window": 8, "warmup": 0.1, "seconds": 0.2}));
    assert_eq!(answer["counts"].as_array().unwrap().len(), 7);
    assert_eq!(sum(&answer["counts"]), answer["work"].as_f64().unwrap());
    let answer = bench.ask(
        json!({"load": "datagrams", "target": 9, "size": 1400, "tunnels": 1, "window": 1, "warmup": 0, "seconds": 0.1}),
    );
    assert!(answer["error"].as_str().unwrap().contains("do not fit"), "{answer}");
}

#[test]
fn streams() {
    let mut bench = Bench::start(&["mirror"]);
    for direction in ["down", "up"] {
        let answer = bench.measure(json!({"load": "streams", "target": 9, "direction": direction, "streams": 3,
            "size": 3_000_001, "warmup": 100_000, "seconds": 20}));
        assert_eq!(answer["work"], 3_000_000.0);
        bench
            .measure(json!({"load": "paced-streams", "target": 9, "direction": direction, "streams": 2, "warmup": 0.1,
            "seconds": 0.2}));
    }
    let answer = bench.measure(json!({"load": "fairness", "kind": "down", "target": 9, "tunnels": 4, "connections": 4,
        "warmup": 0.1, "seconds": 0.2}));
    assert_eq!(sum(&answer["counts"]), answer["work"].as_f64().unwrap());
}

#[test]
fn connections_and_tunnels() {
    let mut bench = Bench::start(&["mirror"]);
    bench.measure(json!({"load": "handshakes", "parallel": 4, "warmup": 0.1, "seconds": 0.3}));
    for kind in ["tcp", "udp"] {
        let order =
            json!({"load": "tunnels", "kind": kind, "target": 9, "parallel": 16, "warmup": 0.1, "seconds": 0.2});
        bench.measure(order);
    }
    let answer =
        bench.ask(json!({"load": "memory", "connections": 20, "udp_target": null, "tcp_target": 9, "tunnels": 10}));
    assert!(answer["base"].as_f64().unwrap() > 0.0 && answer["connection"].as_f64().unwrap() > 0.0, "{answer}");
    assert!(answer.get("tcp_tunnel").is_some() && answer.get("udp_tunnel").is_none(), "{answer}");
}

#[test]
fn latency() {
    let mut bench = Bench::start(&["mirror"]);
    let mut server_cpu = Vec::new();
    for direct in [true, false] {
        let order = json!({"load": "latency", "size": 200, "tunnels": 5, "rate": 2000, "warmup": 0.1, "seconds": 0.5,
            "direct": direct});
        let begin = Instant::now();
        let answer = bench.ask(order);
        let elapsed = begin.elapsed().as_secs_f64();
        assert_eq!((&answer["offered"], &answer["work"]), (&json!(1000.0), &json!(1000.0)), "{answer}");
        let values: Vec<f64> = ["p50", "p99", "p999", "max"].map(|key| answer[key].as_f64().unwrap()).into();
        assert!(values[0] > 0.0 && values.is_sorted(), "{answer}");
        assert!((0.0..=1.0).contains(&answer["late"].as_f64().unwrap()));
        // two stretches: two warm-ups and two rests, however busy the machine is, and none of them is measured
        let beside = elapsed - answer["seconds"].as_f64().unwrap();
        assert!(beside >= 2.0 * (0.099 + 0.06), "{beside} {answer}");
        server_cpu.push(answer["proxy_cpu"].as_f64().unwrap());
    }
    // the server has nothing to do with what goes straight
    assert!(server_cpu[0] < server_cpu[1], "{server_cpu:?}");
}

#[test]
fn floor() {
    let mut bench = Bench::start(&["origin", "udp"]);
    bench.measure(json!({"load": "floor", "size": 1100, "batch": 50, "window": 200, "warmup": 0.1, "seconds": 0.2}));
}

#[test]
fn a_server_that_is_not_there() {
    let mut bench = Bench::start(&["origin", "tcp"]);
    let answer = bench.ask(json!({"load": "probe", "seconds": 0.2}));
    assert!(answer["error"].as_str().unwrap().contains("no handshake"), "{answer}");
    let mut bench = Bench::start(&["mirror"]);
    assert!(bench.ask(json!({"load": "probe", "seconds": 5}))["seconds"].as_f64().unwrap() < 5.0);
}

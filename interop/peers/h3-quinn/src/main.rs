//! A client under remote control: JSON lines in, JSON lines out (interop/peers/README.md).

mod connect;
mod dial;
mod fetch;
mod inner;
mod observer;
mod payloads;
mod protocol;
mod session;
mod tls;
mod tunnel;
mod varint;
mod verbs;

use std::io;
use std::sync::Arc;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};

use verbs::Driver;

/// What the packages can do as they are.
const FEATURES: [&str; 14] = [
    "udp",
    "headers",
    "early",
    "reset",
    "ends",
    "max-payload",
    "contexts",
    "capsules",
    "no-datagrams",
    "migration",
    "goaway",
    "closed",
    "fetch-udp",
    "settings",
];

/// What they can do once their CONNECT is mended.
const MENDED: [&str; 2] = ["tcp", "fetch-tcp"];

#[tokio::main(flavor = "current_thread")]
async fn main() -> io::Result<()> {
    let mends = std::env::args().any(|argument| argument == "--mend-connect");
    let driver = Arc::new(Driver::new(mends));
    protocol::say(&greeting(mends))?;
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Some(line) = lines.next_line().await? {
        let driver = driver.clone();
        tokio::spawn(async move {
            if let Err(error) = protocol::say(&driver.answer(&line).await) {
                eprintln!("no answer could be written: {error}");
            }
        });
    }
    driver.leave().await;
    Ok(())
}

fn greeting(mends: bool) -> Value {
    let versions: Vec<_> = ["h3", "h3-quinn", "h3-datagram", "quinn"]
        .iter()
        .map(|name| format!("{name} {}", pinned(name)))
        .collect();
    let mut features = FEATURES.to_vec();
    features.extend(if mends { &MENDED[..] } else { &[] });
    let note = if mends { " (CONNECT mended)" } else { "" };
    json!({"peer": "h3-quinn", "version": versions.join(", ") + note, "features": features})
}

/// The version that Cargo.toml pins.
fn pinned(name: &str) -> &'static str {
    let line = include_str!("../Cargo.toml")
        .lines()
        .find(|line| line.split(' ').next() == Some(name));
    line.and_then(|line| line.split("\"=").nth(1)?.split('"').next())
        .unwrap_or("unknown")
}

#[cfg(test)]
mod tests {
    #[test]
    fn versions_are_found() {
        assert_eq!(super::pinned("h3"), "0.0.8");
        assert_eq!(super::pinned("h3-datagram"), "0.0.2");
    }
}

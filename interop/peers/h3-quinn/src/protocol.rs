//! The driver's protocol: requests and answers (interop/peers/README.md).

use std::error::Error;
use std::io::{self, Write};
use std::path::PathBuf;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// What a verb gives, or why it could not be done.
pub type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// Which tunnel.
#[derive(Clone, Copy, Deserialize, PartialEq)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    Tcp,
    Udp,
}

/// Bytes in base64.
#[derive(Default)]
pub struct Base64(pub Bytes);

impl<'de> Deserialize<'de> for Base64 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let data = BASE64_STANDARD
            .decode(text)
            .map_err(serde::de::Error::custom)?;
        Ok(Self(data.into()))
    }
}

/// The other way.
pub fn encode(data: &[u8]) -> String {
    BASE64_STANDARD.encode(data)
}

/// What `connect` is told.
#[derive(Deserialize)]
pub struct Server {
    pub url: String,
    pub ca: PathBuf,
    #[serde(default)]
    pub template: String,
    #[serde(default = "yes")]
    pub datagrams: bool,
    #[serde(default)]
    pub qlog: String,
    #[serde(default = "patience")]
    pub timeout: f64,
}

/// What `open` is told.
#[derive(Deserialize)]
pub struct Wanted {
    pub kind: Kind,
    pub host: String,
    pub port: u16,
    #[serde(default)]
    pub headers: Vec<(String, String)>,
    #[serde(default)]
    pub early: Base64,
    #[serde(default = "patience")]
    pub timeout: f64,
}

/// What `fetch` is told.
#[derive(Deserialize)]
pub struct Page {
    pub url: String,
    pub ca: PathBuf,
    pub via: Kind,
    #[serde(default)]
    pub headers: Vec<(String, String)>,
    #[serde(default = "patience")]
    pub timeout: f64,
}

/// A request, by its verb.
#[derive(Deserialize)]
#[serde(tag = "verb", rename_all = "snake_case")]
pub enum Verb {
    Connect(Server),
    Open(Wanted),
    Send {
        tunnel: u64,
        #[serde(default)]
        data: Base64,
        #[serde(default)]
        pattern: usize,
        #[serde(default)]
        end: bool,
    },
    Receive {
        tunnel: u64,
        size: usize,
        #[serde(default = "patience")]
        timeout: f64,
    },
    ReceiveAll {
        tunnel: u64,
        #[serde(default = "patience")]
        timeout: f64,
    },
    Reset {
        tunnel: u64,
        code: u64,
    },
    End {
        tunnel: u64,
    },
    WaitEnd {
        tunnel: u64,
        #[serde(default = "patience")]
        timeout: f64,
    },
    SendDatagrams {
        tunnel: u64,
        payloads: Vec<Base64>,
        #[serde(default)]
        context: u64,
    },
    ReceiveDatagrams {
        tunnel: u64,
        count: usize,
        #[serde(default = "patience")]
        timeout: f64,
    },
    MaxPayload {
        tunnel: u64,
    },
    SendCapsule {
        tunnel: u64,
        r#type: u64,
        value: Base64,
    },
    Migrate {
        #[serde(default = "patience")]
        timeout: f64,
    },
    WaitGoaway {
        #[serde(default = "patience")]
        timeout: f64,
    },
    WaitClosed {
        #[serde(default = "patience")]
        timeout: f64,
    },
    Fetch(Page),
    Close {},
}

fn yes() -> bool {
    true
}

fn patience() -> f64 {
    15.0
}

/// Writes one line, in one piece.
pub fn say(value: &Value) -> io::Result<()> {
    let mut line = value.to_string();
    line.push('\n');
    let mut out = io::stdout().lock();
    out.write_all(line.as_bytes())?;
    out.flush()
}

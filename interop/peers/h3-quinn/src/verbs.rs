//! The verbs, carried out one by one; they overlap.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::timeout;

use crate::fetch::fetch;
use crate::protocol::{Outcome, Server, Verb, Wanted, encode};
use crate::session::Session;
use crate::tunnel::{End, Tunnel};

/// What the requests work with.
pub struct Driver {
    mends: bool,
    session: Mutex<Option<Arc<Session>>>,
    tunnels: Mutex<HashMap<u64, Arc<Tunnel>>>,
    last: AtomicU64,
}

impl Driver {
    /// Nothing is connected yet.
    pub fn new(mends: bool) -> Self {
        Self {
            mends,
            session: Mutex::default(),
            tunnels: Mutex::default(),
            last: AtomicU64::new(0),
        }
    }

    /// Carries out one request.
    pub async fn answer(&self, line: &str) -> Value {
        let request: Value = match serde_json::from_str(line) {
            Ok(request) => request,
            Err(error) => return json!({"id": null, "error": error.to_string()}),
        };
        let id = request["id"].clone();
        let done = match serde_json::from_value(request) {
            Ok(verb) => self.carry_out(verb).await,
            Err(error) => Err(error.into()),
        };
        match done {
            Ok(ok) => json!({"id": id, "ok": ok}),
            Err(error) => json!({"id": id, "error": error.to_string()}),
        }
    }

    /// Closes what is open.
    pub async fn leave(&self) {
        let session = self.session.lock().unwrap().take();
        if let Some(session) = session {
            session.close().await;
        }
    }

    async fn carry_out(&self, verb: Verb) -> Outcome<Value> {
        match verb {
            Verb::Connect(server) => return self.connect(server).await,
            Verb::Open(wanted) => return self.open(wanted).await,
            Verb::Send {
                tunnel,
                data,
                pattern,
                end,
            } => {
                let tunnel = self.tunnel(tunnel)?;
                if !data.0.is_empty() {
                    tunnel.send(data.0).await?;
                }
                tunnel.send_pattern(pattern).await?;
                if end {
                    tunnel.end().await?;
                }
            }
            Verb::Receive {
                tunnel,
                size,
                timeout,
            } => {
                let tunnel = self.tunnel(tunnel)?;
                let (data, end) = within(timeout, "receive", tunnel.receive(size)).await?;
                return Ok(json!({"data": encode(&data), "end": end}));
            }
            Verb::ReceiveAll { tunnel, timeout } => {
                let tunnel = self.tunnel(tunnel)?;
                let (size, digest, end) =
                    within(timeout, "receive_all", tunnel.receive_all()).await?;
                let (end, code) = words(end);
                return Ok(json!({"size": size, "sha256": digest, "end": end, "code": code}));
            }
            Verb::Reset { tunnel, code } => self.tunnel(tunnel)?.reset(code).await,
            Verb::End { tunnel } => self.tunnel(tunnel)?.end().await?,
            Verb::WaitEnd { tunnel, timeout } => {
                let tunnel = self.tunnel(tunnel)?;
                let (end, code) = words(within(timeout, "wait_end", tunnel.wait_end()).await?);
                return Ok(json!({"end": end, "code": code}));
            }
            Verb::SendDatagrams {
                tunnel,
                payloads,
                context,
            } => {
                let payloads = payloads.into_iter().map(|payload| payload.0);
                let sent = self
                    .tunnel(tunnel)?
                    .send_datagrams(context, payloads)
                    .await?;
                return Ok(json!({"sent": sent}));
            }
            Verb::ReceiveDatagrams {
                tunnel,
                count,
                timeout,
            } => {
                let tunnel = self.tunnel(tunnel)?;
                let payloads = tunnel.receive_datagrams(count, seconds(timeout)?).await?;
                let payloads: Vec<_> = payloads.iter().map(|payload| encode(payload)).collect();
                return Ok(json!({"payloads": payloads}));
            }
            Verb::MaxPayload { tunnel } => {
                return Ok(json!({"size": self.tunnel(tunnel)?.max_payload()?}));
            }
            Verb::SendCapsule {
                tunnel,
                r#type,
                value,
            } => {
                let capsule = crate::varint::capsule(r#type, &value.0);
                self.tunnel(tunnel)?.send(capsule).await?;
            }
            Verb::Migrate { timeout } => {
                within(timeout, "migrate", self.session()?.migrate()).await?
            }
            Verb::WaitGoaway { timeout } => {
                let stream = within(timeout, "wait_goaway", self.session()?.goaway()).await?;
                return Ok(json!({"stream": stream}));
            }
            Verb::WaitClosed { timeout } => {
                let code = within(timeout, "wait_closed", self.session()?.closed()).await?;
                return Ok(json!({"code": code}));
            }
            Verb::Fetch(page) => {
                let session = self.session()?;
                let fetched = within(page.timeout, "fetch", fetch(&session, &page)).await?;
                return Ok(serde_json::to_value(fetched)?);
            }
            Verb::Close {} => self.session()?.close().await,
        }
        Ok(json!({}))
    }

    async fn connect(&self, server: Server) -> Outcome<Value> {
        self.leave().await;
        let session = within(
            server.timeout,
            "connect",
            Session::connect(&server, self.mends),
        )
        .await?;
        let (extended, datagrams) = session.settings();
        *self.session.lock().unwrap() = Some(Arc::new(session));
        Ok(json!({"settings": {"8": u8::from(extended), "51": u8::from(datagrams)}}))
    }

    async fn open(&self, wanted: Wanted) -> Outcome<Value> {
        let session = self.session()?;
        let opened = within(wanted.timeout, "open", session.open(&wanted)).await?;
        let headers: Vec<_> = opened
            .headers
            .iter()
            .map(|(name, value)| json!([name.as_str(), String::from_utf8_lossy(value.as_bytes())]))
            .collect();
        let mut ok = json!({"status": opened.status, "headers": headers});
        if let Some(tunnel) = opened.tunnel {
            let number = self.last.fetch_add(1, Ordering::Relaxed) + 1;
            self.tunnels
                .lock()
                .unwrap()
                .insert(number, Arc::new(tunnel));
            ok["tunnel"] = number.into();
        }
        Ok(ok)
    }

    fn session(&self) -> Outcome<Arc<Session>> {
        Ok(self
            .session
            .lock()
            .unwrap()
            .clone()
            .ok_or("not connected")?)
    }

    fn tunnel(&self, number: u64) -> Outcome<Arc<Tunnel>> {
        let tunnels = self.tunnels.lock().unwrap();
        Ok(tunnels
            .get(&number)
            .cloned()
            .ok_or_else(|| format!("no tunnel {number}"))?)
    }
}

/// Bounds a verb that waits.
async fn within<T>(
    patience: f64,
    verb: &str,
    work: impl Future<Output = Outcome<T>>,
) -> Outcome<T> {
    match timeout(seconds(patience)?, work).await {
        Ok(done) => done,
        Err(_) => Err(format!("timeout after {patience} s in {verb}").into()),
    }
}

fn seconds(number: f64) -> Outcome<Duration> {
    Ok(Duration::try_from_secs_f64(number)?)
}

fn words(end: End) -> (&'static str, Option<u64>) {
    match end {
        End::Fin => ("fin", None),
        End::Reset(code) => ("reset", Some(code)),
    }
}

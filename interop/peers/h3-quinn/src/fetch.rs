//! A page through a tunnel of its own: HTTP/1.1 over TLS in a TCP tunnel, HTTP/3 in a UDP tunnel.

use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Uri};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use quinn::rustls::pki_types::ServerName;
use ring::digest::{Context, SHA256};
use serde::Serialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

use crate::inner;
use crate::protocol::{Kind, Outcome, Page, Wanted};
use crate::session::Session;
use crate::tls::client_config;
use crate::tunnel::{Tunnel, hex};

const PIECE: usize = 1 << 16;

/// A page that came.
#[derive(Serialize)]
pub struct Fetched {
    pub status: u16,
    pub size: usize,
    pub sha256: String,
    pub protocol: String,
}

/// Counts a page's content.
pub struct Tally {
    size: usize,
    digest: Context,
}

impl Tally {
    /// Nothing came yet.
    pub fn new() -> Self {
        Self {
            size: 0,
            digest: Context::new(&SHA256),
        }
    }

    /// A piece came.
    pub fn add(&mut self, data: &[u8]) {
        self.size += data.len();
        self.digest.update(data);
    }

    /// The end came.
    pub fn finish(self, status: u16, protocol: &str) -> Fetched {
        Fetched {
            status,
            size: self.size,
            sha256: hex(self.digest.finish().as_ref()),
            protocol: protocol.into(),
        }
    }
}

/// Fetches a page.
pub async fn fetch(session: &Session, page: &Page) -> Outcome<Fetched> {
    let uri: Uri = page.url.parse()?;
    let host = uri
        .host()
        .ok_or("`url` names no host")?
        .trim_matches(['[', ']'])
        .to_string();
    let wanted = Wanted {
        kind: page.via,
        host: host.clone(),
        port: uri.port_u16().unwrap_or(443),
        headers: page.headers.clone(),
        early: Default::default(),
        timeout: page.timeout,
    };
    let opened = session.open(&wanted).await?;
    let tunnel = opened
        .tunnel
        .ok_or_else(|| format!("the relay answered {}", opened.status))?;
    let tunnel = Arc::new(tunnel);
    let fetched = match page.via {
        Kind::Tcp => over_tcp(tunnel.clone(), page, &uri, host).await,
        Kind::Udp => inner::over_udp(tunnel.clone(), page, uri, &host).await,
    };
    let _ = tunnel.end().await; // TLS may have ended it
    fetched
}

async fn over_tcp(tunnel: Arc<Tunnel>, page: &Page, uri: &Uri, host: String) -> Outcome<Fetched> {
    let (near, far) = tokio::io::duplex(PIECE);
    let mut tasks = JoinSet::new(); // ends what it holds when it is dropped
    tasks.spawn(splice(tunnel, far));
    let connector = TlsConnector::from(Arc::new(client_config(&page.ca, b"http/1.1")?));
    let tls = connector.connect(ServerName::try_from(host)?, near).await?;
    let (mut requests, connection) = http1::handshake(TokioIo::new(tls)).await?;
    tasks.spawn(async {
        if let Err(error) = connection.await {
            eprintln!("the connection of a page: {error}");
        }
    });
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let request = Request::get(path)
        .header(
            "host",
            uri.authority().map_or("", |authority| authority.as_str()),
        )
        .body(Empty::<Bytes>::new())?;
    let mut answer = requests.send_request(request).await?;
    let mut tally = Tally::new();
    while let Some(frame) = answer.frame().await {
        if let Some(data) = frame?.data_ref() {
            tally.add(data);
        }
    }
    Ok(tally.finish(answer.status().as_u16(), "http/1.1"))
}

/// Moves bytes between a tunnel and one end of a pipe, until both directions are over.
async fn splice(tunnel: Arc<Tunnel>, pipe: DuplexStream) {
    let (mut reader, mut writer) = tokio::io::split(pipe);
    let up = async {
        let mut piece = vec![0; PIECE];
        loop {
            match reader.read(&mut piece).await? {
                0 => return tunnel.end().await,
                size => tunnel.send(Bytes::copy_from_slice(&piece[..size])).await?,
            }
        }
    };
    let down = async {
        loop {
            let data = tunnel.receive_some().await?;
            if data.is_empty() {
                return Ok(writer.shutdown().await?);
            }
            writer.write_all(&data).await?;
        }
    };
    if let Err(error) = tokio::try_join!(up, down) {
        eprintln!("the tunnel of a page: {error}");
    }
}

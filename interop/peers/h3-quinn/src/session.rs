//! One connection to the relay, and the tunnels that are opened on it.

use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::net::UdpSocket;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use h3::ConnectionState;
use h3::error::{Code, ConnectionError, LocalError};
use h3::ext::Protocol;
use h3::quic::ConnectionErrorIncoming;
use h3_datagram::datagram_handler::{DatagramReader, HandleDatagramsExt};
use h3_quinn::datagram::RecvDatagramHandler;
use http::uri::{Authority, Parts, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri};
use quinn::Endpoint;
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};
use tracing::Dispatch;
use tracing::dispatcher::with_default;

use crate::connect::Mended;
use crate::dial::{dial, unspecified};
use crate::observer::{Facts, Observer};
use crate::payloads::send_payloads;
use crate::protocol::{Kind, Outcome, Server, Wanted};
use crate::tunnel::Tunnel;
use crate::varint::take_varint;

/// Payloads kept for a tunnel that nobody reads; later ones are lost, as UDP loses them.
const KEPT: usize = 8192;
const LEAVE: Duration = Duration::from_secs(3);
const LOOK: Duration = Duration::from_millis(2);

type Carried = h3::client::Connection<Mended<h3_quinn::Connection>, Bytes>;
type Requests = h3::client::SendRequest<Mended<h3_quinn::OpenStreams>, Bytes>;
type Routes = Arc<Mutex<HashMap<u64, mpsc::Sender<Bytes>>>>;

/// The relay's answer to a request for a tunnel.
pub struct Opened {
    pub status: u16,
    pub headers: HeaderMap,
    /// `None` when it was refused.
    pub tunnel: Option<Tunnel>,
}

/// One connection.
pub struct Session {
    endpoint: Endpoint,
    quic: quinn::Connection,
    requests: Mutex<Option<Requests>>,
    facts: watch::Receiver<Facts>,
    routes: Routes,
    authority: Authority,
    template: String,
    frames: bool,
}

impl Session {
    /// Connects, and waits for the relay's SETTINGS.
    pub async fn connect(server: &Server, mends: bool) -> Outcome<Self> {
        let uri: Uri = server.url.parse()?;
        let authority = uri.authority().ok_or("`url` names no host")?.clone();
        let (endpoint, quic) = dial(server, &authority).await?;
        let transport = Mended::new(h3_quinn::Connection::new(quic.clone()), mends);
        let (connection, requests) = h3::client::builder()
            .enable_datagram(server.datagrams)
            .enable_extended_connect(true)
            .build(transport)
            .await?;
        let (sender, mut facts) = watch::channel(Facts::default());
        let routes = Routes::default();
        tokio::spawn(deliver(connection.get_datagram_reader(), routes.clone()));
        tokio::spawn(drive(connection, Arc::new(sender)));
        let known = facts
            .wait_for(|facts| facts.settings.is_some() || facts.closed.is_some())
            .await?;
        let (_, datagrams) = known.settings.ok_or("closed before SETTINGS came")?;
        drop(known);
        Ok(Self {
            endpoint,
            quic,
            requests: Mutex::new(Some(requests)),
            facts,
            routes,
            authority,
            template: server.template.clone(),
            frames: server.datagrams && datagrams,
        })
    }

    /// Whether the relay announced extended CONNECT and H3_DATAGRAM.
    pub fn settings(&self) -> (bool, bool) {
        self.facts.borrow().settings.unwrap_or_default()
    }

    /// Asks for a tunnel.
    pub async fn open(&self, wanted: &Wanted) -> Outcome<Opened> {
        let request = self.request(wanted)?;
        let mut requests = self
            .requests
            .lock()
            .unwrap()
            .clone()
            .ok_or("the connection was closed")?;
        let stream = requests.send_request(request).await?;
        let id = stream.id().into_inner();
        let (sender, datagrams) = mpsc::channel(KEPT);
        let frames = self.frames && wanted.kind == Kind::Udp;
        if frames {
            self.routes.lock().unwrap().insert(id, sender);
        }
        let (mut send, mut receive) = stream.split();
        let early = &wanted.early.0;
        if wanted.kind == Kind::Tcp && !early.is_empty() {
            send.send_data(early.clone()).await?;
        }
        let quic = frames.then(|| self.quic.clone());
        if wanted.kind == Kind::Udp && !early.is_empty() {
            send_payloads(quic.as_ref(), &mut send, id, 0, [early.clone()]).await?;
        }
        let mut answer = receive.recv_response().await?;
        let mut is_fresh = true;
        while answer.status().is_informational() {
            answer = receive.recv_response().await?;
            is_fresh = false;
        }
        let (parts, ()) = answer.into_parts();
        let tunnel = if parts.status.is_success() {
            Some(Tunnel::new(id, quic, send, receive, is_fresh, datagrams))
        } else {
            self.routes.lock().unwrap().remove(&id);
            tokio::spawn(async move {
                // The refusal is complete; only the stream has to end as it should.
                let _ = send.finish().await;
                while let Ok(Some(_)) = receive.recv_data().await {}
            });
            None
        };
        Ok(Opened {
            status: parts.status.as_u16(),
            headers: parts.headers,
            tunnel,
        })
    }

    fn request(&self, wanted: &Wanted) -> Outcome<Request<()>> {
        let host = match wanted.host.contains(':') {
            true => format!("[{}]", wanted.host),
            false => wanted.host.clone(),
        };
        let mut parts = Parts::default();
        let mut request = Request::builder().method(Method::CONNECT);
        if wanted.kind == Kind::Tcp {
            parts.authority = Some(format!("{host}:{}", wanted.port).parse()?);
        } else {
            let path = self
                .template
                .replace("{target_host}", &wanted.host.replace(':', "%3A"))
                .replace("{target_port}", &wanted.port.to_string());
            parts.scheme = Some(Scheme::HTTPS);
            parts.authority = Some(self.authority.clone());
            parts.path_and_query = Some(path.parse::<PathAndQuery>()?);
            request = request
                .extension(Protocol::CONNECT_UDP)
                .header("capsule-protocol", "?1");
        }
        let mut request = request.uri(Uri::from_parts(parts)?).body(())?;
        for (name, value) in &wanted.headers {
            let name = HeaderName::from_bytes(name.as_bytes())?;
            request
                .headers_mut()
                .append(name, HeaderValue::from_bytes(value.as_bytes())?);
        }
        Ok(request)
    }

    /// Goes on from a new port, and waits until the relay has asked whether that path is ours (RFC 9000 §9.3).
    pub async fn migrate(&self) -> Outcome<()> {
        let before = self.quic.stats().frame_rx.path_challenge;
        let any = unspecified(self.quic.remote_address());
        self.endpoint.rebind(UdpSocket::bind(any)?)?;
        while self.quic.stats().frame_rx.path_challenge == before {
            if let Some(error) = self.quic.close_reason() {
                return Err(error.into());
            }
            sleep(LOOK).await;
        }
        Ok(())
    }

    /// Waits for GOAWAY; gives its stream.
    pub async fn goaway(&self) -> Outcome<u64> {
        let mut facts = self.facts.clone();
        let known = facts
            .wait_for(|facts| facts.goaway.is_some() || facts.closed.is_some())
            .await?;
        Ok(known
            .goaway
            .ok_or("the connection was closed without GOAWAY")?)
    }

    /// Waits for the end of the connection; gives its code where there is one.
    pub async fn closed(&self) -> Outcome<Option<u64>> {
        let mut facts = self.facts.clone();
        let known = facts.wait_for(|facts| facts.closed.is_some()).await?;
        Ok(known.closed.flatten())
    }

    /// Closes in order: h3 does it once nobody can send requests any more.
    pub async fn close(&self) {
        drop(self.requests.lock().unwrap().take());
        let _ = timeout(LEAVE, self.closed()).await;
        self.endpoint.close(quinn::VarInt::from_u32(0x100), b"");
        let _ = timeout(LEAVE, self.endpoint.wait_idle()).await;
    }
}

/// Keeps the connection going until it is over.
fn drive(mut connection: Carried, facts: Arc<watch::Sender<Facts>>) -> impl Future<Output = ()> {
    let observer = Dispatch::new(Observer(facts.clone()));
    async move {
        let error = poll_fn(|cx| {
            let polled = with_default(&observer, || connection.poll_close(cx));
            let is_new = facts.borrow().has_settings && facts.borrow().settings.is_none();
            if is_new {
                let settings = connection.settings();
                let seen = (
                    settings.enable_extended_connect(),
                    settings.enable_datagram(),
                );
                facts.send_modify(|facts| facts.settings = Some(seen));
            }
            polled
        })
        .await;
        facts.send_modify(|facts| facts.closed = Some(code(&error)));
    }
}

/// Hands each payload to its tunnel. Contexts that nobody registered are dropped (RFC 9298 §4).
async fn deliver(mut reader: DatagramReader<RecvDatagramHandler>, routes: Routes) {
    while let Ok(datagram) = reader.read_datagram().await {
        let id = datagram.stream_id().into_inner();
        let mut payload = datagram.into_payload();
        if take_varint(&mut payload) == Some(0)
            && let Some(tunnel) = routes.lock().unwrap().get(&id)
        {
            let _ = tunnel.try_send(payload); // full: lost, as UDP would
        }
    }
    routes.lock().unwrap().clear();
}

/// The code that a connection was closed with.
fn code(error: &ConnectionError) -> Option<u64> {
    match error {
        ConnectionError::Remote(ConnectionErrorIncoming::ApplicationClose { error_code }) => {
            Some(*error_code)
        }
        ConnectionError::Remote(ConnectionErrorIncoming::Undefined(error)) => {
            match error.downcast_ref()? {
                quinn::ConnectionError::ConnectionClosed(close) => Some(close.error_code.into()),
                _ => None,
            }
        }
        ConnectionError::Local {
            error: LocalError::Application { code, .. },
            ..
        } => Some(Code::value(code)),
        _ => None,
    }
}

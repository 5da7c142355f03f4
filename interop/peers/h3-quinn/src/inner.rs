//! HTTP/3 inside of a UDP tunnel: a second quinn endpoint, whose socket is the tunnel.

use std::fmt;
use std::future::poll_fn;
use std::io::{self, IoSliceMut};
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use http::{Request, Uri};
use quinn::crypto::rustls::QuicClientConfig;
use quinn::udp::{RecvMeta, Transmit};
use quinn::{
    AsyncUdpSocket, ClientConfig, Endpoint, EndpointConfig, TokioRuntime, TransportConfig,
    UdpPoller,
};
use tokio::sync::{Mutex, mpsc};

use crate::fetch::{Fetched, Tally};
use crate::protocol::{Outcome, Page};
use crate::tls::client_config;
use crate::tunnel::Tunnel;

/// Stands for the origin, whose address the relay alone knows (RFC 5737).
const ORIGIN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 443);
const WAITING: usize = 1024;
const NO_ERROR: quinn::VarInt = quinn::VarInt::from_u32(0x100);

/// Fetches a page over HTTP/3.
pub async fn over_udp(tunnel: Arc<Tunnel>, page: &Page, uri: Uri, host: &str) -> Outcome<Fetched> {
    let (sender, payloads) = mpsc::channel(WAITING);
    let source = tunnel.clone();
    let reader = tokio::spawn(async move {
        while let Ok(payload) = source.receive_datagram().await {
            if sender.send(payload).await.is_err() {
                break;
            }
        }
    });
    let fetched = get(
        Socket {
            tunnel: tunnel.clone(),
            payloads: Mutex::new(payloads),
        },
        page,
        uri,
        host,
    )
    .await;
    reader.abort();
    fetched
}

async fn get(socket: Socket, page: &Page, uri: Uri, host: &str) -> Outcome<Fetched> {
    let runtime = Arc::new(TokioRuntime);
    let endpoint = Endpoint::new_with_abstract_socket(
        EndpointConfig::default(),
        None,
        Arc::new(socket),
        runtime,
    )?;
    let mut transport = TransportConfig::default();
    transport.mtu_discovery_config(None); // the tunnel's packets have one size
    let crypto = QuicClientConfig::try_from(client_config(&page.ca, b"h3")?)?;
    let mut config = ClientConfig::new(Arc::new(crypto));
    config.transport_config(Arc::new(transport));
    let quic = endpoint.connect_with(config, ORIGIN, host)?.await?;
    let (mut connection, mut requests) = h3::client::new(h3_quinn::Connection::new(quic)).await?;
    let driver = tokio::spawn(async move { poll_fn(|cx| connection.poll_close(cx)).await });
    let mut stream = requests.send_request(Request::get(uri).body(())?).await?;
    stream.finish().await?;
    let status = stream.recv_response().await?.status().as_u16();
    let mut tally = Tally::new();
    while let Some(mut data) = stream.recv_data().await? {
        while data.has_remaining() {
            let size = data.chunk().len();
            tally.add(data.chunk());
            data.advance(size);
        }
    }
    drop(requests); // closes the inner connection
    driver.await?;
    endpoint.close(NO_ERROR, b"");
    endpoint.wait_idle().await;
    Ok(tally.finish(status, "h3"))
}

/// A tunnel as a UDP socket.
struct Socket {
    tunnel: Arc<Tunnel>,
    payloads: Mutex<mpsc::Receiver<Bytes>>,
}

impl fmt::Debug for Socket {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Socket")
    }
}

impl AsyncUdpSocket for Socket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(Always)
    }

    fn try_send(&self, transmit: &Transmit) -> io::Result<()> {
        // What does not fit is lost, like on any path; quinn then sends less.
        let _ = self.tunnel.try_send_datagram(transmit.contents);
        Ok(())
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let mut payloads = self.payloads.try_lock().map_err(io::Error::other)?;
        match payloads.poll_recv(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(None) => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
            Poll::Ready(Some(payload)) => {
                let size = payload.len().min(buffers[0].len());
                buffers[0][..size].copy_from_slice(&payload[..size]);
                meta[0] = RecvMeta {
                    addr: ORIGIN,
                    len: size,
                    stride: size.max(1),
                    ..RecvMeta::default()
                };
                Poll::Ready(Ok(1))
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok((Ipv4Addr::UNSPECIFIED, 0).into())
    }

    fn may_fragment(&self) -> bool {
        false
    }
}

/// Frames are taken at any time.
#[derive(Debug)]
struct Always;

impl UdpPoller for Always {
    fn poll_writable(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

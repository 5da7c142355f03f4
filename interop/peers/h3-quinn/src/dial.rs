//! The QUIC connection to the relay.

use std::fs::File;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use http::uri::Authority;
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ClientConfig, Endpoint, QlogConfig, TransportConfig};

use crate::protocol::{Outcome, Server};
use crate::tls::client_config;

/// Large enough for a QUIC client's first packet inside of a DATAGRAM frame, and what the relay's own packets have. It
/// stays so: with quinn's discovery a payload may fit on the way up whose echo does not fit on the way down.
const PACKET: u16 = 1350;

/// Connects.
pub async fn dial(
    server: &Server,
    authority: &Authority,
) -> Outcome<(Endpoint, quinn::Connection)> {
    let host = authority.host().trim_matches(['[', ']']);
    let port = authority.port_u16().unwrap_or(443);
    let address = tokio::net::lookup_host((host, port))
        .await?
        .next()
        .ok_or("no address")?;
    let crypto = QuicClientConfig::try_from(client_config(&server.ca, b"h3")?)?;
    let mut transport = TransportConfig::default();
    transport.initial_mtu(PACKET).mtu_discovery_config(None);
    if !server.qlog.is_empty() {
        transport.qlog_stream(qlog(Path::new(&server.qlog))?.into_stream());
    }
    let mut config = ClientConfig::new(Arc::new(crypto));
    config.transport_config(Arc::new(transport));
    let endpoint = Endpoint::client(unspecified(address))?;
    let quic = endpoint.connect_with(config, address, host)?.await?;
    Ok((endpoint, quic))
}

/// Any address of the same family, and any port.
pub fn unspecified(remote: SocketAddr) -> SocketAddr {
    match remote {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    }
}

/// A new file for each connection.
fn qlog(folder: &Path) -> Outcome<QlogConfig> {
    static NUMBER: AtomicU32 = AtomicU32::new(1);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    std::fs::create_dir_all(folder)?;
    let file =
        File::create(folder.join(format!("h3-quinn-{}-{number}.sqlog", std::process::id())))?;
    let mut config = QlogConfig::default();
    config.writer(Box::new(file)).title(Some("h3-quinn".into()));
    Ok(config)
}

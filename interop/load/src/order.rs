//! One order: what a line of input asks for.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use quinn_proto::{ClientConfig, EndpointConfig};
use serde::Deserialize;

use crate::client::Dial;
use crate::failure::{Outcome, fail};
use crate::http3::{encode_authority, encode_connect_tcp, encode_connect_udp};
use crate::tls::{NoTokens, configure_client};
use crate::transport::{Congestion, configure};

/// A load and its arguments; README.md says which load takes which.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Order {
    /// The name of the load.
    pub load: String,
    /// The server's process, then those of the origins.
    #[serde(default)]
    pub pids: Vec<i32>,
    /// `down`, or `up`.
    pub direction: Option<Direction>,
    /// What tunnels carry.
    pub kind: Option<Kind>,
    /// Go to the target with no proxy between.
    #[serde(default)]
    pub direct: bool,
    server: Option<(String, u16)>,
    server_name: Option<String>,
    target_host: Option<String>,
    target: Option<u16>,
    udp_target: Option<u16>,
    tcp_target: Option<u16>,
    udp_path: Option<String>,
    congestion: Option<Congestion>,
    size: Option<u64>,
    tunnels: Option<u64>,
    streams: Option<u64>,
    connections: Option<u64>,
    parallel: Option<u64>,
    window: Option<u64>,
    batch: Option<u64>,
    rate: Option<f64>,
    warmup: Option<f64>,
    seconds: Option<f64>,
}

/// Which way bytes go.
#[derive(Clone, Copy, PartialEq, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// From the target to the client.
    Down,
    /// From the client to the target.
    Up,
}

/// What is in tunnels.
#[derive(Clone, Copy, PartialEq, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// TCP by CONNECT.
    Tcp,
    /// UDP by CONNECT-UDP.
    Udp,
    /// Echoes by CONNECT-UDP.
    Datagrams,
    /// Downloads by CONNECT.
    Down,
}

const LOCALHOST: &str = "localhost";
const LOOPBACK: &str = "127.0.0.1";
const UDP_PATH: &str = "/.well-known/masque/udp/{target_host}/{target_port}/";

/// Gives an argument, or says which one is missing.
fn need<T>(value: Option<T>, load: &str, name: &str) -> Outcome<T> {
    match value {
        Some(value) => Ok(value),
        None => fail(format!("an order for {load} needs {name}")),
    }
}

macro_rules! counts {
    ($($name:ident),*) => {
        $(
            #[doc = concat!("The argument `", stringify!($name), "`, at least 1.")]
            pub fn $name(&self) -> Outcome<usize> {
                match need(self.$name, &self.load, stringify!($name))? {
                    0 => fail(concat!(stringify!($name), " must be at least 1")),
                    count => Ok(count as usize),
                }
            }
        )*
    };
}

impl Order {
    counts!(size, tunnels, streams, connections, parallel, window, batch);

    /// The server's address.
    pub fn server(&self) -> Outcome<SocketAddr> {
        let (host, port) = need(self.server.as_ref(), &self.load, "server")?;
        resolve(host, *port)
    }

    /// The target's host as an address, for a load that is the origin itself.
    pub fn target_address(&self) -> Outcome<IpAddr> {
        let host = self.target_host();
        host.parse().or_else(|_| fail(format!("{host} is no address")))
    }

    /// Datagrams per second.
    pub fn rate(&self) -> Outcome<f64> {
        match need(self.rate, &self.load, "rate")? {
            rate if rate > 0.0 => Ok(rate),
            _ => fail("rate must be above 0"),
        }
    }

    /// Bytes before the measurement.
    pub fn warmup_bytes(&self) -> Outcome<u64> {
        Ok(need(self.warmup, &self.load, "warmup")? as u64)
    }

    /// The time before the measurement; none if the order says nothing.
    pub fn warmup(&self) -> Outcome<Duration> {
        duration(self.warmup.unwrap_or(0.0))
    }

    /// How long to measure, or to try.
    pub fn seconds(&self) -> Outcome<Duration> {
        duration(need(self.seconds, &self.load, "seconds")?)
    }

    /// The request for a tunnel to the target.
    pub fn head(&self, is_udp: bool) -> Outcome<Bytes> {
        self.head_to(need(self.target, &self.load, "target")?, is_udp)
    }

    /// The requests for tunnels to those of both targets that the order has, and what such a tunnel is called.
    pub fn heads(&self) -> Outcome<Vec<(&'static str, Bytes)>> {
        let targets = [("udp_tunnel", self.udp_target, true), ("tcp_tunnel", self.tcp_target, false)];
        let asked = targets.into_iter().filter_map(|(name, port, is_udp)| Some((name, port?, is_udp)));
        asked.map(|(name, port, is_udp)| Ok((name, self.head_to(port, is_udp)?))).collect()
    }

    /// How to connect: with the order's congestion control, or this one.
    pub fn dial(&self, congestion: Congestion) -> Outcome<Dial> {
        let mut config = ClientConfig::new(configure_client());
        config.transport_config(Arc::new(configure(self.congestion.unwrap_or(congestion))));
        config.token_store(Arc::new(NoTokens));
        Ok(Dial {
            server: self.server()?,
            server_name: self.server_name.clone().unwrap_or_else(|| LOCALHOST.to_owned()),
            config,
            endpoint: Arc::new(EndpointConfig::default()),
        })
    }

    /// The request for a tunnel to a port of the target's host.
    pub fn head_to(&self, port: u16, is_udp: bool) -> Outcome<Bytes> {
        let host = self.target_host();
        if !is_udp {
            return Ok(encode_connect_tcp(host, port).into());
        }
        let template = self.udp_path.as_deref().unwrap_or(UDP_PATH);
        if !template.contains("{target_host}") || !template.contains("{target_port}") {
            return fail("udp_path needs {target_host} and {target_port}");
        }
        let (server, server_port) = need(self.server.as_ref(), &self.load, "server")?;
        let authority = encode_authority(self.server_name.as_ref().unwrap_or(server), *server_port);
        Ok(encode_connect_udp(template, &authority, host, port).into())
    }

    fn target_host(&self) -> &str {
        self.target_host.as_deref().unwrap_or(LOOPBACK)
    }
}

fn duration(seconds: f64) -> Outcome<Duration> {
    Duration::try_from_secs_f64(seconds).or_else(|_| fail(format!("{seconds} is no time")))
}

fn resolve(host: &str, port: u16) -> Outcome<SocketAddr> {
    match (host, port).to_socket_addrs()?.next() {
        Some(address) => Ok(address),
        None => fail(format!("{host} has no address")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> serde_json::Result<Order> {
        serde_json::from_str(text)
    }

    #[test]
    fn an_order_of_the_harness() {
        let order = parse(
            r#"{"load": "datagrams", "target": 4000, "size": 1100, "tunnels": 16, "window": 12, "warmup": 0.2,
                "seconds": 2.0, "pids": [1, 2, 3], "server": ["127.0.0.1", 4433]}"#,
        )
        .unwrap();
        assert_eq!(order.server().unwrap(), "127.0.0.1:4433".parse().unwrap());
        assert_eq!((order.size().unwrap(), order.tunnels().unwrap(), order.window().unwrap()), (1100, 16, 12));
        assert_eq!(order.warmup().unwrap(), Duration::from_millis(200));
        assert_eq!(order.pids, [1, 2, 3]);
        let head = order.head(true).unwrap();
        let path = b"/.well-known/masque/udp/127.0.0.1/4000/";
        assert!(head.windows(path.len()).any(|window| window == path));
        assert!(order.head(false).unwrap().ends_with(b"127.0.0.1:4000"));
    }

    #[test]
    fn what_is_missing_or_wrong_is_named() {
        let order = parse(r#"{"load": "streams", "size": 0, "udp_path": "/x", "target": 1}"#).unwrap();
        assert_eq!(order.server().unwrap_err().0, "an order for streams needs server");
        assert_eq!(order.size().unwrap_err().0, "size must be at least 1");
        assert!(order.head(true).unwrap_err().0.contains("udp_path"));
        assert!(order.rate().is_err() && order.seconds().is_err());
        assert!(parse(r#"{"load": "streams", "sise": 1}"#).is_err());
        assert!(parse(r#"{"load": "streams", "direction": "sideways"}"#).is_err());
    }

    #[test]
    fn other_hosts_and_names() {
        let order = parse(
            r#"{"load": "latency", "server": ["::1", 1], "target": 5, "target_host": "::1", "server_name": "proxy.test",
                "udp_path": "/m/{target_host}/{target_port}", "congestion": "bbr"}"#,
        )
        .unwrap();
        assert_eq!(order.dial(Congestion::Open).unwrap().server_name, "proxy.test");
        assert_eq!(order.target_address().unwrap(), "::1".parse::<IpAddr>().unwrap());
        assert!(parse(r#"{"load": "latency", "target_host": "localhost"}"#).unwrap().target_address().is_err());
        let head = order.head(true).unwrap();
        assert!(head.windows(13).any(|window| window == b"/m/%3A%3A1/5\x27"));
    }
}

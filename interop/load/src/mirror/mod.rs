//! A QUIC server with no target behind it: the generator against it shows the generator's own ceiling.
//!
//! It answers every request with 200. It echoes datagrams itself, and does itself what the TCP origin would do.

mod answer;
mod peer;

use std::collections::HashMap;
use std::io::stdin;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use quinn_proto::{ConnectionHandle, DatagramEvent, Endpoint, EndpointConfig, EndpointEvent, ServerConfig, VarInt};

use crate::epoll::{Epoll, Interest};
use crate::failure::Outcome;
use crate::origins::{INPUT, tell_port};
use crate::tls::configure_server;
use crate::transport::{Congestion, configure};
use crate::udp::{self, Inbox};
use peer::Peer;

const MOST_STREAMS: u32 = 10_000;
const READS: usize = 8;
const BURST: usize = 46;

/// Serves until standard input ends.
pub fn serve(host: IpAddr) -> Outcome<()> {
    let mut transport = configure(Congestion::Cubic);
    transport.max_concurrent_bidi_streams(VarInt::from_u32(MOST_STREAMS));
    let mut config = ServerConfig::with_crypto(configure_server()?);
    config.transport_config(Arc::new(transport));
    let endpoint = Endpoint::new(Arc::new(EndpointConfig::default()), Some(Arc::new(config)), false, None);
    let socket = udp::open((host, 0).into(), None)?;
    tell_port(socket.local_addr()?.port())?;
    let mut epoll = Epoll::new()?;
    epoll.add(&socket, 0, Interest::Read)?;
    epoll.add(&stdin(), INPUT, Interest::Read)?;
    let mut mirror = Mirror { socket, endpoint, peers: HashMap::new(), touched: Vec::new(), outgoing: Vec::new() };
    let mut inbox = Inbox::new();
    while !epoll.wait(mirror.timeout())?.any(|token| token == INPUT) {
        let now = Instant::now();
        mirror.receive(&mut inbox, now);
        mirror.on_deadline(now);
        mirror.flush(now);
    }
    Ok(())
}

/// The server's connections.
struct Mirror {
    socket: UdpSocket,
    endpoint: Endpoint,
    peers: HashMap<ConnectionHandle, Peer>,
    touched: Vec<ConnectionHandle>,
    outgoing: Vec<u8>,
}

impl Mirror {
    fn timeout(&mut self) -> Option<Duration> {
        let deadlines = self.peers.values_mut().filter_map(|peer| peer.connection.poll_timeout());
        deadlines.min().map(|deadline| deadline.saturating_duration_since(Instant::now()))
    }

    fn receive(&mut self, inbox: &mut Inbox, now: Instant) {
        for _ in 0..READS {
            let has_more = inbox.receive(&self.socket);
            for batch in inbox.batches.drain(..) {
                let mut payload = batch.payload;
                while !payload.is_empty() {
                    let packet = payload.split_to(batch.segment.min(payload.len()));
                    let event = self.endpoint.handle(now, batch.sender, None, None, packet, &mut self.outgoing);
                    self.handle(event, batch.sender, now);
                }
            }
            if !has_more {
                break;
            }
        }
    }

    fn handle(&mut self, event: Option<DatagramEvent>, sender: SocketAddr, now: Instant) {
        match event {
            Some(DatagramEvent::ConnectionEvent(handle, event)) => {
                if let Some(peer) = self.peers.get_mut(&handle) {
                    peer.connection.handle_event(event);
                    self.touch(handle);
                }
            }
            Some(DatagramEvent::NewConnection(incoming)) => {
                // who is not accepted tries again
                if let Ok((handle, connection)) = self.endpoint.accept(incoming, now, &mut self.outgoing, None) {
                    self.peers.insert(handle, Peer::new(connection, sender));
                    self.touch(handle);
                }
            }
            // version negotiation and stateless resets are of no use on loopback
            Some(DatagramEvent::Response(_)) | None => {}
        }
        self.outgoing.clear();
    }

    fn touch(&mut self, handle: ConnectionHandle) {
        if !self.touched.contains(&handle) {
            self.touched.push(handle);
        }
    }

    fn on_deadline(&mut self, now: Instant) {
        for (&handle, peer) in &mut self.peers {
            if peer.connection.poll_timeout().is_some_and(|deadline| deadline <= now) {
                peer.connection.handle_timeout(now);
                if !self.touched.contains(&handle) {
                    self.touched.push(handle);
                }
            }
        }
    }

    /// Answers what has come, and forgets who has gone.
    fn flush(&mut self, now: Instant) {
        for handle in std::mem::take(&mut self.touched) {
            let Some(peer) = self.peers.get_mut(&handle) else { continue };
            while let Some(event) = peer.connection.poll_endpoint_events() {
                if let Some(event) = self.endpoint.handle_event(handle, event) {
                    peer.connection.handle_event(event);
                }
            }
            if peer.take_events() {
                self.peers.remove(&handle);
                self.endpoint.handle_event(handle, EndpointEvent::drained());
                continue;
            }
            while let Some(transmit) = peer.connection.poll_transmit(now, BURST, &mut self.outgoing) {
                let segment = transmit.segment_size.unwrap_or(transmit.size);
                // what the kernel refuses is lost
                let _ = udp::send(&self.socket, &self.outgoing[..transmit.size], segment, Some(peer.address));
                self.outgoing.clear();
            }
        }
    }
}

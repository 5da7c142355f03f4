//! One HTTP/3 connection to the server under test, over a socket of its own.

use std::collections::HashMap;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use quinn_proto::{
    ClientConfig, Connection, ConnectionHandle, DatagramEvent, Dir, Endpoint, EndpointConfig, Event, ReadError,
    StreamEvent, StreamId, VarInt,
};

use crate::failure::{Failure, Outcome, fail};
use crate::http3::{Incoming, NO_ERROR, REQUEST_CANCELLED, encode_preface};
use crate::udp::{self, Inbox};

/// Packets of one call of GSO: as many as fit 64 KiB at their usual size.
const BURST: usize = 46;
/// Bytes before the payload: a quarter stream id below 2^14, and context 0.
const MAX_PREFIX: usize = 3;

/// Where connections go, and how they are set up.
#[derive(Clone)]
pub struct Dial {
    /// The server's address.
    pub server: SocketAddr,
    /// The name in the TLS handshake.
    pub server_name: String,
    /// The library's configuration.
    pub config: ClientConfig,
    /// The endpoint's configuration.
    pub endpoint: Arc<EndpointConfig>,
}

/// A connection. A `Pool` moves it on.
pub struct Client {
    /// The connection's own socket.
    pub socket: UdpSocket,
    /// Request streams by id.
    pub streams: HashMap<u64, Incoming>,
    /// The connection is over; why.
    pub closed: Option<String>,
    server: SocketAddr,
    endpoint: Endpoint,
    handle: ConnectionHandle,
    connection: Connection,
}

impl Client {
    /// Begins the handshake; `flush` sends it.
    pub fn new(dial: &Dial, now: Instant) -> Outcome<Self> {
        let socket = udp::open(udp::unbound(dial.server), Some(dial.server))?;
        let mut endpoint = Endpoint::new(dial.endpoint.clone(), None, false, None);
        let (handle, connection) = endpoint
            .connect(now, dial.config.clone(), dial.server, &dial.server_name)
            .map_err(|error| Failure(error.to_string()))?;
        let streams = HashMap::new();
        Ok(Self { socket, streams, closed: None, server: dial.server, endpoint, handle, connection })
    }

    /// The server has confirmed the handshake (HANDSHAKE_DONE, RFC 9001 §4.1.2).
    pub fn is_connected(&self) -> bool {
        self.connection.stats().frame_rx.handshake_done > 0
    }

    /// When `on_deadline` is due.
    pub fn deadline(&mut self) -> Option<Instant> {
        self.connection.poll_timeout()
    }

    /// Opens a request stream with a HEADERS frame; its answer appears in `streams`. None without stream credit.
    pub fn open_request(&mut self, head: &Bytes) -> Option<u64> {
        let id = self.connection.streams().open(Dir::Bi)?;
        let sent = self.connection.send_stream(id).write_chunks(&mut [head.clone()]);
        debug_assert!(sent.is_ok_and(|written| written.chunks == 1));
        self.streams.insert(id.into(), Incoming::default());
        Some(id.into())
    }

    /// Queues bytes on a stream as far as it takes them, and leaves the rest in `data`.
    pub fn send_stream(&mut self, id: u64, data: &mut Bytes) {
        let mut stream = self.connection.send_stream(stream_id(id));
        // a stream that blocks, or that the server has stopped, takes nothing
        let _ = stream.write_chunks(std::slice::from_mut(data));
    }

    /// Ends our half of a stream.
    pub fn finish_stream(&mut self, id: u64) {
        let _ = self.connection.send_stream(stream_id(id)).finish();
    }

    /// Gives up both halves of a stream (RFC 9114 §4.1.1).
    pub fn abandon_stream(&mut self, id: u64) {
        let _ = self.connection.send_stream(stream_id(id)).reset(VarInt::from_u32(REQUEST_CANCELLED));
        let _ = self.connection.recv_stream(stream_id(id)).stop(VarInt::from_u32(REQUEST_CANCELLED));
        self.streams.remove(&id);
    }

    /// Fails when the server takes no DATAGRAM frames, or none as large as a UDP payload of this size needs.
    pub fn check_datagram_size(&mut self, size: usize) -> Outcome<()> {
        match self.connection.datagrams().max_size() {
            None => fail("the server takes no DATAGRAM frames"),
            Some(most) if size + MAX_PREFIX > most => fail(format!("{size} bytes do not fit a DATAGRAM frame")),
            Some(_) => Ok(()),
        }
    }

    /// Queues one DATAGRAM; `flush` sends it.
    pub fn send_datagram(&mut self, data: Bytes) {
        // one that is too large is lost: see `check_datagram_size`
        let _ = self.connection.datagrams().send(data, true);
    }

    /// Takes one DATAGRAM that has come.
    pub fn receive_datagram(&mut self) -> Option<Bytes> {
        self.connection.datagrams().recv()
    }

    /// Takes everything that waits in the socket.
    pub fn receive(&mut self, inbox: &mut Inbox, now: Instant) {
        let mut scratch = Vec::new();
        loop {
            let has_more = inbox.receive(&self.socket);
            for batch in inbox.batches.drain(..) {
                let mut payload = batch.payload;
                while !payload.is_empty() {
                    let packet = payload.split_to(batch.segment.min(payload.len()));
                    let event = self.endpoint.handle(now, self.server, None, None, packet, &mut scratch);
                    if let Some(DatagramEvent::ConnectionEvent(_, event)) = event {
                        self.connection.handle_event(event);
                    }
                }
            }
            if !has_more {
                break;
            }
        }
        self.take_events();
    }

    /// Tells the connection that its deadline has passed.
    pub fn on_deadline(&mut self, now: Instant) {
        self.connection.handle_timeout(now);
        self.take_events();
    }

    /// Sends what the connection has to send.
    pub fn flush(&mut self, outgoing: &mut Vec<u8>, now: Instant) {
        while let Some(transmit) = self.connection.poll_transmit(now, BURST, outgoing) {
            let segment = transmit.segment_size.unwrap_or(transmit.size);
            // what the kernel refuses is lost
            let _ = udp::send(&self.socket, &outgoing[..transmit.size], segment, None);
            outgoing.clear();
        }
    }

    /// Sends the end of the connection.
    pub fn close(&mut self, outgoing: &mut Vec<u8>, now: Instant) {
        if self.closed.is_none() {
            self.connection.close(now, VarInt::from_u32(NO_ERROR), Bytes::new());
            self.flush(outgoing, now);
        }
    }

    fn take_events(&mut self) {
        while let Some(event) = self.connection.poll_endpoint_events() {
            if let Some(event) = self.endpoint.handle_event(self.handle, event) {
                self.connection.handle_event(event);
            }
        }
        while let Some(event) = self.connection.poll() {
            match event {
                Event::Connected => self.open_control(),
                Event::ConnectionLost { reason } => self.closed = Some(reason.to_string()),
                Event::Stream(StreamEvent::Readable { id }) => self.read_stream(id),
                Event::Stream(StreamEvent::Opened { dir: Dir::Uni }) => {
                    while let Some(id) = self.connection.streams().accept(Dir::Uni) {
                        self.read_stream(id);
                    }
                }
                _ => {}
            }
        }
    }

    fn open_control(&mut self) {
        // a server without room for a control stream breaks the rules, and its tunnels will fail
        if let Some(id) = self.connection.streams().open(Dir::Uni) {
            let _ = self.connection.send_stream(id).write(&encode_preface());
        }
    }

    /// Gives what has come to its request stream; what the server's own streams say is of no interest here.
    fn read_stream(&mut self, id: StreamId) {
        let mut incoming = self.streams.get_mut(&id.into());
        let mut stream = self.connection.recv_stream(id);
        let Ok(mut chunks) = stream.read(true) else { return };
        let is_ended = loop {
            match chunks.next(usize::MAX) {
                Ok(Some(chunk)) => {
                    if let Some(incoming) = &mut incoming {
                        incoming.receive(&chunk.bytes);
                    }
                }
                Ok(None) | Err(ReadError::Reset(_)) => break true,
                Err(ReadError::Blocked) => break false,
            }
        };
        // credit goes out with the next flush, which always follows
        let _ = chunks.finalize();
        if let Some(incoming) = incoming {
            incoming.is_ended |= is_ended;
        }
    }
}

fn stream_id(id: u64) -> StreamId {
    VarInt::from_u64(id).expect("ids come from the library").into()
}

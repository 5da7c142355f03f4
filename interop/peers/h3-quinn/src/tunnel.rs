//! One tunnel: bytes both ways on its stream, payloads in DATAGRAM frames or in capsules.

use std::future::Future;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use h3::client::RequestStream;
use h3::error::{Code, StreamError};
use ring::digest::{Context, SHA256};
use tokio::sync::{Mutex, mpsc, watch};
use tokio::time::{Instant, timeout_at};

use crate::payloads::{frame, send_payloads};
use crate::protocol::Outcome;
use crate::varint::{DATAGRAM, take_capsule, take_varint, varint_size};

const PIECE: usize = 1 << 16;

/// Our direction of a request stream.
pub type Sending = RequestStream<h3_quinn::SendStream<Bytes>, Bytes>;
type Receiving = RequestStream<h3_quinn::RecvStream, Bytes>;

/// How the relay's direction ended.
#[derive(Clone, Copy)]
pub enum End {
    Fin,
    Reset(u64),
}

/// The relay's direction.
struct Reader {
    stream: Option<Receiving>,
    /// Nothing was read yet but the answer.
    is_fresh: bool,
    buffer: BytesMut,
    end: Option<End>,
}

/// A tunnel. Each verb of the driver's protocol that names one is a method.
pub struct Tunnel {
    id: u64,
    /// Where DATAGRAM frames go; without it payloads go in capsules.
    quic: Option<quinn::Connection>,
    sending: Mutex<Option<Sending>>,
    reader: Mutex<Reader>,
    datagrams: Mutex<mpsc::Receiver<Bytes>>,
    abandoned: watch::Sender<bool>,
}

impl Tunnel {
    /// A tunnel that the relay granted.
    pub fn new(
        id: u64,
        quic: Option<quinn::Connection>,
        sending: Sending,
        receiving: Receiving,
        is_fresh: bool,
        datagrams: mpsc::Receiver<Bytes>,
    ) -> Self {
        Self {
            id,
            quic,
            sending: Mutex::new(Some(sending)),
            reader: Mutex::new(Reader {
                stream: Some(receiving),
                is_fresh,
                buffer: BytesMut::new(),
                end: None,
            }),
            datagrams: Mutex::new(datagrams),
            abandoned: watch::channel(false).0,
        }
    }

    /// Sends bytes.
    pub async fn send(&self, data: Bytes) -> Outcome<()> {
        let mut sending = self.sending.lock().await;
        let stream = sending.as_mut().ok_or("our direction is over")?;
        Ok(self.unless_abandoned(stream.send_data(data)).await??)
    }

    /// Sends so many bytes of the pattern.
    pub async fn send_pattern(&self, size: usize) -> Outcome<()> {
        for start in (0..size).step_by(PIECE) {
            self.send(pattern(start, size.min(start + PIECE))).await?;
        }
        Ok(())
    }

    /// Ends our direction.
    pub async fn end(&self) -> Outcome<()> {
        let mut sending = self.sending.lock().await;
        let mut stream = sending.take().ok_or("our direction is over")?;
        Ok(self.unless_abandoned(stream.finish()).await??)
    }

    /// Receives so many bytes, fewer when the stream ended. The second value tells that it did.
    pub async fn receive(&self, size: usize) -> Outcome<(Bytes, bool)> {
        let mut reader = self.reader.lock().await;
        while reader.buffer.len() < size && reader.end.is_none() {
            self.unless_abandoned(reader.fill()).await??;
        }
        let size = size.min(reader.buffer.len());
        let data = reader.buffer.split_to(size).freeze();
        Ok((data, reader.end.is_some() && reader.buffer.is_empty()))
    }

    /// Receives what is there, at least one byte; nothing at the end.
    pub async fn receive_some(&self) -> Outcome<Bytes> {
        let mut reader = self.reader.lock().await;
        while reader.buffer.is_empty() && reader.end.is_none() {
            self.unless_abandoned(reader.fill()).await??;
        }
        match reader.end {
            Some(End::Reset(code)) if reader.buffer.is_empty() => {
                Err(format!("reset with {code:#x}").into())
            }
            _ => Ok(reader.buffer.split().freeze()),
        }
    }

    /// Receives until the end: size, digest, and how it ended.
    pub async fn receive_all(&self) -> Outcome<(usize, String, End)> {
        let mut reader = self.reader.lock().await;
        let (mut size, mut digest) = (0, Context::new(&SHA256));
        loop {
            let data = reader.buffer.split();
            size += data.len();
            digest.update(&data);
            if let Some(end) = reader.end {
                return Ok((size, hex(digest.finish().as_ref()), end));
            }
            self.unless_abandoned(reader.fill()).await??;
        }
    }

    /// Throws away what comes until the end.
    pub async fn wait_end(&self) -> Outcome<End> {
        let mut reader = self.reader.lock().await;
        loop {
            reader.buffer.clear();
            if let Some(end) = reader.end {
                return Ok(end);
            }
            self.unless_abandoned(reader.fill()).await??;
        }
    }

    /// Abandons both directions.
    ///
    /// h3-quinn 0.0.10 panics when it is asked for STOP_SENDING after a read that had to wait (`stop_sending` of its
    /// lib.rs). Then the stream is dropped instead, and quinn sends STOP_SENDING with the code 0.
    pub async fn reset(&self, code: u64) {
        self.abandoned.send_replace(true);
        if let Some(mut stream) = self.sending.lock().await.take() {
            stream.stop_stream(Code::from(code));
        }
        let mut reader = self.reader.lock().await;
        if let Some(mut stream) = reader.stream.take()
            && reader.is_fresh
        {
            stream.stop_sending(Code::from(code));
        }
    }

    /// Sends UDP payloads; gives how many quinn took.
    pub async fn send_datagrams(
        &self,
        context: u64,
        payloads: impl IntoIterator<Item = Bytes>,
    ) -> Outcome<usize> {
        let mut sending = self.sending.lock().await;
        let stream = sending.as_mut().ok_or("our direction is over")?;
        let sent = send_payloads(self.quic.as_ref(), stream, self.id, context, payloads);
        self.unless_abandoned(sent).await?
    }

    /// Receives UDP payloads until there are enough or the time is over.
    pub async fn receive_datagrams(&self, count: usize, patience: Duration) -> Outcome<Vec<Bytes>> {
        let until = Instant::now() + patience;
        let mut payloads = Vec::new();
        while payloads.len() < count {
            match timeout_at(until, self.receive_datagram()).await {
                Ok(Ok(payload)) => payloads.push(payload),
                Ok(Err(error)) if payloads.is_empty() => return Err(error),
                _ => break,
            }
        }
        Ok(payloads)
    }

    /// Receives one UDP payload.
    pub async fn receive_datagram(&self) -> Outcome<Bytes> {
        if self.quic.is_some() {
            let mut datagrams = self.datagrams.lock().await;
            return Ok(datagrams.recv().await.ok_or("the connection is over")?);
        }
        let mut reader = self.reader.lock().await;
        loop {
            while let Some((kind, mut value)) = take_capsule(&mut reader.buffer) {
                if kind == DATAGRAM && take_varint(&mut value) == Some(0) {
                    return Ok(value);
                }
            }
            if reader.end.is_some() {
                return Err("the tunnel is over".into());
            }
            self.unless_abandoned(reader.fill()).await??;
        }
    }

    /// The largest UDP payload that fits a DATAGRAM frame now.
    pub fn max_payload(&self) -> Outcome<usize> {
        let quic = self
            .quic
            .as_ref()
            .ok_or("this tunnel has no DATAGRAM frames")?;
        let size = quic
            .max_datagram_size()
            .ok_or("the relay takes no DATAGRAM frames")?;
        Ok(size.saturating_sub(varint_size(self.id / 4) + 1))
    }

    /// Hands a payload to quinn at once, for what must not wait.
    pub fn try_send_datagram(&self, payload: &[u8]) -> Outcome<()> {
        let quic = self
            .quic
            .as_ref()
            .ok_or("this tunnel has no DATAGRAM frames")?;
        Ok(quic.send_datagram(frame(self.id, 0, payload))?)
    }

    async fn unless_abandoned<T>(&self, work: impl Future<Output = T>) -> Outcome<T> {
        let mut abandoned = self.abandoned.subscribe();
        tokio::select! {
            biased;
            _ = abandoned.wait_for(|is_so| *is_so) => Err("the tunnel was reset by us".into()),
            done = work => Ok(done),
        }
    }
}

impl Reader {
    /// Reads once.
    async fn fill(&mut self) -> Outcome<()> {
        let stream = self.stream.as_mut().ok_or("the tunnel was reset by us")?;
        self.is_fresh = false;
        match stream.recv_data().await {
            Ok(Some(data)) => self.buffer.put(data),
            Ok(None) => self.end = Some(End::Fin),
            Err(StreamError::RemoteTerminate { code, .. }) => {
                self.end = Some(End::Reset(code.value()))
            }
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }
}

/// A part of the pattern.
fn pattern(start: usize, end: usize) -> Bytes {
    (start..end).map(|i| (i ^ i >> 8 ^ i >> 16) as u8).collect()
}

/// A digest in words.
pub fn hex(digest: &[u8]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

//! h3's transport, with one thing mended on the way: the request of a classic CONNECT.
//!
//! h3 0.0.8 puts `:scheme` and `:path` into every request. A CONNECT without `:protocol` must not have them (RFC 9114
//! §4.4), and a server must treat one that has as malformed. h3's next release leaves them out; until then they are
//! taken out here, where h3 hands the HEADERS frame to its transport. All else passes unchanged.

use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use h3::error::Code;
use h3::proto::frame::Frame;
use h3::quic::{self, ConnectionErrorIncoming, StreamErrorIncoming, StreamId, WriteBuf};
use h3_datagram::quic_traits::DatagramConnectionExt;
use h3_quinn::datagram::{RecvDatagramHandler, SendDatagramHandler};

use crate::varint::take_varint;

type Polled<T> = Poll<Result<T, StreamErrorIncoming>>;

const HEADERS: u64 = 1;
/// What h3 starts each CONNECT with: an empty prefix, `:method: CONNECT`, `:scheme: https` (RFC 9204, appendix A).
const CONNECT_HTTPS: [u8; 4] = [0x00, 0x00, 0xcf, 0xd7];
/// The same without `:scheme`.
const CONNECT: [u8; 3] = [0x00, 0x00, 0xcf];
/// A literal value for the static table's `:authority`.
const AUTHORITY: u8 = 0x50;
/// `:path: /`, which no CONNECT-UDP has.
const ROOT: u8 = 0xc1;

/// A connection, or what opens its streams.
pub struct Mended<T> {
    inner: T,
    mends: bool,
}

impl Mended<h3_quinn::Connection> {
    /// Wraps a connection.
    pub fn new(inner: h3_quinn::Connection, mends: bool) -> Self {
        Self { inner, mends }
    }
}

impl Clone for Mended<h3_quinn::OpenStreams> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            mends: self.mends,
        }
    }
}

impl<T> quic::OpenStreams<Bytes> for Mended<T>
where
    T: quic::OpenStreams<
            Bytes,
            BidiStream = h3_quinn::BidiStream<Bytes>,
            SendStream = h3_quinn::SendStream<Bytes>,
        >,
{
    type BidiStream = RequestStream;
    type SendStream = h3_quinn::SendStream<Bytes>;

    fn poll_open_bidi(&mut self, cx: &mut Context<'_>) -> Polled<RequestStream> {
        let mends = self.mends;
        self.inner
            .poll_open_bidi(cx)
            .map_ok(|inner| RequestStream { inner, mends })
    }

    fn poll_open_send(&mut self, cx: &mut Context<'_>) -> Polled<Self::SendStream> {
        self.inner.poll_open_send(cx)
    }

    fn close(&mut self, code: Code, reason: &[u8]) {
        self.inner.close(code, reason);
    }
}

impl quic::Connection<Bytes> for Mended<h3_quinn::Connection> {
    type RecvStream = h3_quinn::RecvStream;
    type OpenStreams = Mended<h3_quinn::OpenStreams>;

    fn poll_accept_recv(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<h3_quinn::RecvStream, ConnectionErrorIncoming>> {
        quic::Connection::<Bytes>::poll_accept_recv(&mut self.inner, cx)
    }

    fn poll_accept_bidi(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<RequestStream, ConnectionErrorIncoming>> {
        self.inner
            .poll_accept_bidi(cx)
            .map_ok(|inner| RequestStream {
                inner,
                mends: false,
            })
    }

    fn opener(&self) -> Self::OpenStreams {
        Mended {
            inner: quic::Connection::<Bytes>::opener(&self.inner),
            mends: self.mends,
        }
    }
}

impl DatagramConnectionExt<Bytes> for Mended<h3_quinn::Connection> {
    type SendDatagramHandler = SendDatagramHandler;
    type RecvDatagramHandler = RecvDatagramHandler;

    fn send_datagram_handler(&self) -> SendDatagramHandler {
        DatagramConnectionExt::<Bytes>::send_datagram_handler(&self.inner)
    }

    fn recv_datagram_handler(&self) -> RecvDatagramHandler {
        DatagramConnectionExt::<Bytes>::recv_datagram_handler(&self.inner)
    }
}

/// A request's stream. What it is split into is h3-quinn's own.
pub struct RequestStream {
    inner: h3_quinn::BidiStream<Bytes>,
    /// The next frame is a request's, and is to be mended.
    mends: bool,
}

impl quic::SendStream<Bytes> for RequestStream {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Polled<()> {
        self.inner.poll_ready(cx)
    }

    fn send_data<T: Into<WriteBuf<Bytes>>>(&mut self, data: T) -> Result<(), StreamErrorIncoming> {
        if !std::mem::take(&mut self.mends) {
            return self.inner.send_data(data);
        }
        let mut buffer = data.into();
        let mut frame = buffer.copy_to_bytes(buffer.remaining());
        match (take_varint(&mut frame), take_varint(&mut frame)) {
            (Some(HEADERS), Some(_)) => self.inner.send_data(Frame::Headers(mend(frame))),
            _ => Err(StreamErrorIncoming::Unknown(
                "h3 began a request without HEADERS".into(),
            )),
        }
    }

    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Polled<()> {
        self.inner.poll_finish(cx)
    }

    fn reset(&mut self, code: u64) {
        self.inner.reset(code);
    }

    fn send_id(&self) -> StreamId {
        self.inner.send_id()
    }
}

impl quic::RecvStream for RequestStream {
    type Buf = Bytes;

    fn poll_data(&mut self, cx: &mut Context<'_>) -> Polled<Option<Bytes>> {
        self.inner.poll_data(cx)
    }

    fn stop_sending(&mut self, code: u64) {
        self.inner.stop_sending(code);
    }

    fn recv_id(&self) -> StreamId {
        self.inner.recv_id()
    }
}

impl quic::BidiStream<Bytes> for RequestStream {
    type SendStream = h3_quinn::SendStream<Bytes>;
    type RecvStream = h3_quinn::RecvStream;

    fn split(self) -> (Self::SendStream, Self::RecvStream) {
        self.inner.split()
    }
}

/// Takes `:scheme` and `:path` out of the field section of a classic CONNECT; any other stays as it is.
fn mend(section: Bytes) -> Bytes {
    match parts(&section) {
        Some((authority, fields)) => [&CONNECT[..], authority, fields].concat().into(),
        None => section,
    }
}

/// The lines of a classic CONNECT that may stay: `:authority`, and all that follows `:path`.
fn parts(section: &[u8]) -> Option<(&[u8], &[u8])> {
    let rest = section.strip_prefix(&CONNECT_HTTPS)?;
    let (size, value) = string_size(rest.strip_prefix(&[AUTHORITY])?)?;
    let end = rest.len() - value.len() + size;
    let (authority, rest) = rest.split_at_checked(end)?;
    Some((authority, rest.strip_prefix(&[ROOT])?))
}

/// The size of a string, and where it begins (RFC 7541 §5.1, §5.2).
fn string_size(data: &[u8]) -> Option<(usize, &[u8])> {
    let (first, mut rest) = data.split_first()?;
    let mut size = usize::from(first & 0x7f);
    if size == 0x7f {
        for shift in (0..28).step_by(7) {
            let (byte, next) = rest.split_first()?;
            rest = next;
            size += usize::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some((size, rest));
            }
        }
        return None;
    }
    Some((size, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn section(authority: &[u8], path: &[u8]) -> (Bytes, Bytes) {
        let line = [&[AUTHORITY][..], authority].concat();
        let bad = [&CONNECT_HTTPS[..], &line, path, b"\x27\x01more"].concat();
        let good = [&CONNECT[..], &line, b"\x27\x01more"].concat();
        (bad.into(), good.into())
    }

    #[test]
    fn connect_loses_scheme_and_path() {
        let long = [&[0xff, 0x49][..], &[b'x'; 200]].concat();
        for authority in [&b"\x83abc"[..], &long] {
            let (bad, good) = section(authority, &[ROOT]);
            assert_eq!(mend(bad), good);
        }
    }

    #[test]
    fn others_stay() {
        let (udp, _) = section(b"\x83abc", b"\x51\x81x");
        assert_eq!(mend(udp.clone()), udp);
        for end in 0..12 {
            let (bad, _) = section(b"\x83abc", &[ROOT]);
            let piece = bad.slice(..end.min(9));
            assert_eq!(mend(piece.clone()), piece);
        }
    }
}

//! The little HTTP/3 that a load needs (RFC 9114, RFC 9297): CONNECT out, status and DATA in.
//!
//! It trusts its peer and costs the same for every server; it is no example of a client.

use std::net::IpAddr;

use crate::qpack::{encode_section, parse_status};
use crate::varint;

const DATA: u64 = 0x00;
const HEADERS: u64 = 0x01;
const SETTINGS: u64 = 0x04;
const CONTROL_STREAM: u64 = 0x00;
const ENABLE_CONNECT_PROTOCOL: u64 = 0x08;
const H3_DATAGRAM: u64 = 0x33;
const KEPT: usize = 16;

/// `H3_NO_ERROR`, the code that ends connections (RFC 9114 §8.1).
pub const NO_ERROR: u32 = 0x0100;

/// `H3_REQUEST_CANCELLED`, the code that gives up a request.
pub const REQUEST_CANCELLED: u32 = 0x010c;

/// Encodes the control stream's first bytes: its type and SETTINGS (RFC 9114 §6.2.1, RFC 9297 §2.1.1).
pub fn encode_preface() -> Vec<u8> {
    let mut settings = Vec::new();
    for (name, value) in [(ENABLE_CONNECT_PROTOCOL, 1), (H3_DATAGRAM, 1)] {
        varint::encode(name, &mut settings);
        varint::encode(value, &mut settings);
    }
    let mut preface = Vec::new();
    varint::encode(CONTROL_STREAM, &mut preface);
    preface.extend(encode_frame(SETTINGS, &settings));
    preface
}

/// Encodes a classic CONNECT (RFC 9114 §4.4).
pub fn encode_connect_tcp(host: &str, port: u16) -> Vec<u8> {
    encode_head(&[(":method", "CONNECT"), (":authority", &encode_authority(host, port))])
}

/// Encodes a host and a port (RFC 3986 §3.2).
pub fn encode_authority(host: &str, port: u16) -> String {
    match host.parse() {
        Ok(IpAddr::V6(address)) => format!("[{address}]:{port}"),
        _ => format!("{host}:{port}"),
    }
}

/// Encodes a CONNECT-UDP request (RFC 9298 §3.4); `template` has {target_host} and {target_port}.
pub fn encode_connect_udp(template: &str, authority: &str, host: &str, port: u16) -> Vec<u8> {
    let path = template.replace("{target_host}", &host.replace(':', "%3A")).replace("{target_port}", &port.to_string());
    encode_head(&[
        (":method", "CONNECT"),
        (":protocol", "connect-udp"),
        (":scheme", "https"),
        (":authority", authority),
        (":path", &path),
        ("capsule-protocol", "?1"),
    ])
}

/// Encodes the answer of a server that accepts everything.
pub fn encode_accepted() -> Vec<u8> {
    // Required Insert Count 0, Base 0, static entry 25: ":status: 200"
    encode_frame(HEADERS, &[0, 0, 0xd9])
}

/// Encodes a DATA frame (RFC 9114 §7.2.1).
pub fn encode_data(payload: &[u8]) -> Vec<u8> {
    encode_frame(DATA, payload)
}

/// Encodes what goes before a DATA frame's payload of this size.
pub fn encode_data_header(size: u64) -> Vec<u8> {
    let mut header = Vec::new();
    varint::encode(DATA, &mut header);
    varint::encode(size, &mut header);
    header
}

fn encode_head(fields: &[(&str, &str)]) -> Vec<u8> {
    encode_frame(HEADERS, &encode_section(fields))
}

fn encode_frame(kind: u64, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    varint::encode(kind, &mut frame);
    varint::encode(payload.len() as u64, &mut frame);
    frame.extend_from_slice(payload);
    frame
}

/// The receiving half of one request stream: the peer's head, and how much DATA has come.
#[derive(Default)]
pub struct Incoming {
    /// The first bytes of DATA, sixteen at most.
    pub content: Vec<u8>,
    /// Bytes of DATA so far.
    pub received: u64,
    /// A HEADERS frame is complete.
    pub has_head: bool,
    /// The final status of a response, when there is one.
    pub status: Option<u16>,
    /// The peer has ended the stream, or reset it.
    pub is_ended: bool,
    pending: Vec<u8>,
    left: u64,
}

impl Incoming {
    /// Takes the next bytes of the stream, cut anywhere.
    pub fn receive(&mut self, data: &[u8]) {
        if self.pending.is_empty() {
            let taken = self.receive_frames(data);
            self.pending.extend_from_slice(&data[taken..]);
        } else {
            self.pending.extend_from_slice(data);
            let joined = std::mem::take(&mut self.pending);
            let taken = self.receive_frames(&joined);
            self.pending.extend_from_slice(&joined[taken..]);
        }
    }

    /// Reads frames and returns how far they are complete.
    fn receive_frames(&mut self, data: &[u8]) -> usize {
        let mut at = 0;
        while at < data.len() {
            if self.left > 0 {
                let taken = self.left.min((data.len() - at) as u64) as usize;
                self.keep(&data[at..at + taken]);
                at += taken;
                continue;
            }
            match self.receive_frame(&data[at..]) {
                Some(taken) => at += taken,
                None => break,
            }
        }
        at
    }

    fn keep(&mut self, payload: &[u8]) {
        if self.content.len() < KEPT {
            let missing = KEPT - self.content.len();
            self.content.extend_from_slice(&payload[..missing.min(payload.len())]);
        }
        self.received += payload.len() as u64;
        self.left -= payload.len() as u64;
    }

    /// Reads a DATA frame's header, or a whole frame of another kind; None until it is complete.
    fn receive_frame(&mut self, data: &[u8]) -> Option<usize> {
        let (kind, start) = varint::parse(data)?;
        let (length, taken) = varint::parse(&data[start..])?;
        let start = start + taken;
        if kind == DATA {
            self.left = length;
            return Some(start);
        }
        let end = start + length as usize;
        let payload = data.get(start..end)?;
        if kind == HEADERS {
            self.has_head = true;
            self.status = self.status.or(parse_status(payload).filter(|&status| status >= 200));
        }
        Some(end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer() -> Vec<u8> {
        let mut stream = encode_frame(HEADERS, &[0, 0, 0xff, 0]);
        stream.extend(encode_accepted());
        stream.extend(encode_frame(0x21, b"unknown"));
        stream.extend(encode_data(b"abc"));
        stream.extend(encode_data(&[7; 100]));
        stream
    }

    #[test]
    fn a_response_in_any_two_cuts() {
        let stream = answer();
        for cut in 0..=stream.len() {
            let mut incoming = Incoming::default();
            incoming.receive(&stream[..cut]);
            incoming.receive(&stream[cut..]);
            assert_eq!(incoming.status, Some(200));
            assert_eq!(incoming.received, 103);
            assert_eq!(incoming.content, b"abc\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07");
        }
    }

    #[test]
    fn a_response_byte_by_byte() {
        let mut incoming = Incoming::default();
        for byte in answer() {
            incoming.receive(&[byte]);
        }
        assert_eq!((incoming.status, incoming.received), (Some(200), 103));
    }

    #[test]
    fn an_interim_response_is_no_answer() {
        let mut incoming = Incoming::default();
        incoming.receive(&encode_frame(HEADERS, &[0, 0, 0xff, 0]));
        assert_eq!(incoming.status, None);
    }

    #[test]
    fn requests() {
        assert_eq!(encode_preface(), b"\x00\x04\x04\x08\x01\x33\x01");
        let tcp = encode_connect_tcp("::1", 80);
        assert!(tcp.ends_with(b"\x08[::1]:80"));
        let udp = encode_connect_udp("/m/{target_host}/{target_port}/", "localhost", "::1", 53);
        let path = b"/m/%3A%3A1/53/";
        assert!(udp.windows(path.len()).any(|window| window == path));
        assert_eq!(udp[0], 0x01);
        assert_eq!(varint::parse(&udp[1..]), Some((udp.len() as u64 - 3, 2)));
    }

    #[test]
    fn data() {
        assert_eq!(encode_data(b"hi"), b"\x00\x02hi");
        assert_eq!(encode_data_header(65_536), b"\x00\x80\x01\x00\x00");
    }
}

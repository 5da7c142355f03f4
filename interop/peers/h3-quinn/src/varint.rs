//! Variable-length integers (RFC 9000 §16), and the capsules made of them (RFC 9297 §3.2).

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// The type of the capsule that carries an HTTP Datagram (RFC 9297 §3.5).
pub const DATAGRAM: u64 = 0;

/// Writes an integer in its shortest form.
pub fn put_varint(out: &mut BytesMut, value: u64) {
    match value {
        0..=0x3f => out.put_u8(value as u8),
        0x40..=0x3fff => out.put_u16(value as u16 | 0x4000),
        0x4000..=0x3fff_ffff => out.put_u32(value as u32 | 0x8000_0000),
        _ => out.put_u64(value | 0xc000_0000_0000_0000),
    }
}

/// Reads an integer. `None`, and nothing taken, when it is not complete.
pub fn take_varint(data: &mut impl Buf) -> Option<u64> {
    let first = *data.chunk().first()?;
    let size = 1 << (first >> 6);
    if data.remaining() < size {
        return None;
    }
    Some(data.get_uint(size) & (u64::MAX >> (66 - 8 * size)))
}

/// How many bytes an integer takes.
pub fn varint_size(value: u64) -> usize {
    match value {
        0..=0x3f => 1,
        0x40..=0x3fff => 2,
        0x4000..=0x3fff_ffff => 4,
        _ => 8,
    }
}

/// Writes one capsule.
pub fn capsule(kind: u64, value: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(value.len() + 16);
    put_varint(&mut out, kind);
    put_varint(&mut out, value.len() as u64);
    out.put_slice(value);
    out.freeze()
}

/// Takes the first capsule out of what arrived: its type and value. `None` when it is not complete.
pub fn take_capsule(data: &mut BytesMut) -> Option<(u64, Bytes)> {
    let mut rest = &data[..];
    let kind = take_varint(&mut rest)?;
    let size = take_varint(&mut rest)? as usize;
    if rest.len() < size {
        return None;
    }
    let head = data.len() - rest.len();
    data.advance(head);
    Some((kind, data.split_to(size).freeze()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_come_back() {
        for value in [
            0,
            63,
            64,
            16_383,
            16_384,
            0x3fff_ffff,
            0x4000_0000,
            (1 << 62) - 1,
        ] {
            let mut out = BytesMut::new();
            put_varint(&mut out, value);
            assert_eq!(out.len(), varint_size(value));
            for end in 0..out.len() {
                assert_eq!(take_varint(&mut &out[..end]), None);
            }
            assert_eq!(take_varint(&mut &out[..]), Some(value));
        }
    }

    #[test]
    fn capsules_come_back_at_every_split() {
        let whole = [capsule(0x2f3a, b"skipped"), capsule(DATAGRAM, b"\0payload")].concat();
        for split in 0..whole.len() {
            let mut data = BytesMut::from(&whole[..split]);
            let mut came = Vec::new();
            came.extend(std::iter::from_fn(|| take_capsule(&mut data)));
            data.extend_from_slice(&whole[split..]);
            came.extend(std::iter::from_fn(|| take_capsule(&mut data)));
            let expected: [(u64, Bytes); 2] = [
                (0x2f3a, Bytes::from_static(b"skipped")),
                (DATAGRAM, Bytes::from_static(b"\0payload")),
            ];
            assert_eq!(came, expected);
            assert!(data.is_empty());
        }
    }
}

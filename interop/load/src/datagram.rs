//! The DATAGRAM payloads of a load: HTTP Datagrams with context 0 (RFC 9297 §2.1, RFC 9298 §5) that begin with a number.

use bytes::{BufMut, Bytes, BytesMut};

use crate::varint;

const BLOCK_BYTES: usize = 1 << 16;

/// Bytes of a payload's number.
pub const NUMBER_BYTES: usize = 4;

/// Makes payloads in blocks, so that memory is asked for once for many of them.
pub struct Payloads {
    block: BytesMut,
    padding: usize,
}

impl Payloads {
    /// Prepares for UDP payloads of `size` bytes, at least four.
    pub fn new(size: usize) -> Self {
        Self { block: BytesMut::new(), padding: size.saturating_sub(NUMBER_BYTES) }
    }

    /// Makes one: the tunnel's prefix, the number, zeros.
    pub fn make(&mut self, prefix: &[u8], number: u32) -> Bytes {
        let size = prefix.len() + NUMBER_BYTES + self.padding;
        if self.block.capacity() < size {
            self.block.reserve(BLOCK_BYTES.max(size));
        }
        self.block.extend_from_slice(prefix);
        self.block.put_u32(number);
        self.block.put_bytes(0, self.padding);
        self.block.split().freeze()
    }
}

/// Encodes what goes before the payloads of a tunnel: quarter stream id and context 0.
pub fn encode_prefix(stream: u64) -> Vec<u8> {
    let mut prefix = Vec::new();
    varint::encode(stream / 4, &mut prefix);
    varint::encode(0, &mut prefix);
    prefix
}

/// Reads the stream and the number of an echo; None when it is no echo.
#[inline]
pub fn parse(datagram: &[u8]) -> Option<(u64, u32)> {
    let (quarter, start) = varint::parse(datagram)?;
    let (context, taken) = varint::parse(&datagram[start..])?;
    let number = datagram.get(start + taken..)?.first_chunk::<NUMBER_BYTES>()?;
    (context == 0).then(|| (quarter * 4, u32::from_be_bytes(*number)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_made_can_be_read() {
        let mut payloads = Payloads::new(1100);
        for stream in [0, 4, 252, 256, 4_000_000] {
            let prefix = encode_prefix(stream);
            let made: Vec<Bytes> = (0..200).map(|number| payloads.make(&prefix, number << 16)).collect();
            for (number, datagram) in made.iter().enumerate() {
                assert_eq!(datagram.len(), prefix.len() + 1100);
                assert_eq!(parse(datagram), Some((stream, (number as u32) << 16)));
            }
        }
    }

    #[test]
    fn the_smallest_and_the_foreign() {
        assert_eq!(&Payloads::new(4).make(&encode_prefix(8), 9)[..], [2, 0, 0, 0, 0, 9]);
        assert_eq!(parse(&[2, 0, 0, 0, 0, 9]), Some((8, 9)));
        assert_eq!(parse(&[2, 1, 0, 0, 0, 9]), None);
        for end in 0..6 {
            assert_eq!(parse(&[2, 0, 0, 0, 0, 9][..end]), None);
        }
    }
}

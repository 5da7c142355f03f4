//! QUIC's variable-length integers (RFC 9000 §16).

/// Appends an integer in its shortest form.
///
/// Panics on 2^62 and above, which nothing here ever has to encode.
pub fn encode(value: u64, out: &mut Vec<u8>) {
    match value {
        0..=0x3f => out.push(value as u8),
        0x40..=0x3fff => out.extend_from_slice(&(value as u16 | 0x4000).to_be_bytes()),
        0x4000..=0x3fff_ffff => out.extend_from_slice(&(value as u32 | 0x8000_0000).to_be_bytes()),
        0x4000_0000..=0x3fff_ffff_ffff_ffff => {
            out.extend_from_slice(&(value | 0xc000_0000_0000_0000).to_be_bytes());
        }
        _ => panic!("{value} is no varint"),
    }
}

/// Reads an integer from the front: its value and how many bytes it took, or None until it is complete.
#[inline]
pub fn parse(data: &[u8]) -> Option<(u64, usize)> {
    let first = *data.first()?;
    let size = 1 << (first >> 6);
    if size == 1 {
        return Some((u64::from(first), 1));
    }
    let bytes = data.get(1..size)?;
    let value = bytes.iter().fold(u64::from(first & 0x3f), |value, &byte| value << 8 | u64::from(byte));
    Some((value, size))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_the_rfc() {
        // RFC 9000 §A.1
        let examples: [(&[u8], u64); 4] = [
            (&[0xc2, 0x19, 0x7c, 0x5e, 0xff, 0x14, 0xe8, 0x8c], 151_288_809_941_952_652),
            (&[0x9d, 0x7f, 0x3e, 0x7d], 494_878_333),
            (&[0x7b, 0xbd], 15_293),
            (&[0x25], 37),
        ];
        for (bytes, value) in examples {
            let mut encoded = Vec::new();
            encode(value, &mut encoded);
            assert_eq!(encoded, bytes);
            assert_eq!(parse(bytes), Some((value, bytes.len())));
        }
    }

    #[test]
    fn long_forms_are_read() {
        assert_eq!(parse(&[0x40, 0x25]), Some((37, 2)));
    }

    #[test]
    fn edges_round_trip_and_prefixes_wait() {
        for value in [0, 63, 64, 16_383, 16_384, (1 << 30) - 1, 1 << 30, (1 << 62) - 1] {
            let mut encoded = Vec::new();
            encode(value, &mut encoded);
            assert_eq!(parse(&encoded), Some((value, encoded.len())));
            for end in 0..encoded.len() {
                assert_eq!(parse(&encoded[..end]), None);
            }
        }
    }

    #[test]
    #[should_panic(expected = "is no varint")]
    fn too_large() {
        encode(1 << 62, &mut Vec::new());
    }
}

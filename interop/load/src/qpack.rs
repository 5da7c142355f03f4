//! The little QPACK that is needed (RFC 9204): literals out, `:status` in, no dynamic table.

/// Encodes a field section of literals with literal names (RFC 9204 §4.5.6), not Huffman-coded.
pub fn encode_section(fields: &[(&str, &str)]) -> Vec<u8> {
    // Required Insert Count 0, Base 0
    let mut section = vec![0, 0];
    for (name, value) in fields {
        encode_integer(name.len() as u64, 3, 0x20, &mut section);
        section.extend_from_slice(name.as_bytes());
        encode_integer(value.len() as u64, 7, 0, &mut section);
        section.extend_from_slice(value.as_bytes());
    }
    section
}

/// Reads `:status` out of a response's field section, where it is the first field (RFC 9114 §4.3).
///
/// None when the section begins with something else, or refers to the dynamic table, which has size 0.
pub fn parse_status(section: &[u8]) -> Option<u16> {
    let (required, at) = parse_integer(section, 8)?;
    let (_, taken) = parse_integer(section.get(at..)?, 7)?;
    let line = section.get(at + taken..)?;
    if required != 0 {
        return None;
    }
    let first = *line.first()?;
    if first & 0xc0 == 0xc0 {
        return static_status(parse_integer(line, 6)?.0);
    }
    let value = if first & 0xd0 == 0x50 {
        let (index, taken) = parse_integer(line, 4)?;
        // every entry with this name has one of its values
        static_status(index)?;
        parse_string(line.get(taken..)?, 7)?.0
    } else if first & 0xe0 == 0x20 {
        let (name, taken) = parse_string(line, 3)?;
        if name != b":status" {
            return None;
        }
        parse_string(line.get(taken..)?, 7)?.0
    } else {
        return None;
    };
    std::str::from_utf8(&value).ok()?.parse().ok()
}

/// The values of `:status` in the static table (RFC 9204 Appendix A).
fn static_status(index: u64) -> Option<u16> {
    let status = match index {
        24 => 103,
        25 => 200,
        26 => 304,
        27 => 404,
        28 => 503,
        63 => 100,
        64 => 204,
        65 => 206,
        66 => 302,
        67 => 400,
        68 => 403,
        69 => 421,
        70 => 425,
        71 => 500,
        _ => return None,
    };
    Some(status)
}

/// Appends an integer with a prefix of `bits` bits behind the bits of `first` (RFC 7541 §5.1).
fn encode_integer(value: u64, bits: u32, first: u8, out: &mut Vec<u8>) {
    let most = (1 << bits) - 1;
    if value < most {
        return out.push(first | value as u8);
    }
    out.push(first | most as u8);
    let mut rest = value - most;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

/// Reads an integer with a prefix of `bits` bits: its value and how many bytes it took.
fn parse_integer(data: &[u8], bits: u32) -> Option<(u64, usize)> {
    let most = (1u64 << bits) - 1;
    let mut value = u64::from(*data.first()?) & most;
    if value < most {
        return Some((value, 1));
    }
    for (at, &byte) in data.iter().enumerate().skip(1).take(5) {
        value += u64::from(byte & 0x7f) << (7 * (at - 1));
        if byte & 0x80 == 0 {
            return Some((value, at + 1));
        }
    }
    None
}

/// Reads a string whose length has a prefix of `bits` bits, and the Huffman flag above them.
fn parse_string(data: &[u8], bits: u32) -> Option<(Vec<u8>, usize)> {
    let is_huffman = *data.first()? >> bits & 1 == 1;
    let (size, start) = parse_integer(data, bits)?;
    let end = start + size as usize;
    let text = data.get(start..end)?;
    let value = if is_huffman { parse_huffman(text)? } else { text.to_vec() };
    Some((value, end))
}

/// Decodes Huffman-coded text of the characters that `:status` and its value consist of (RFC 7541 Appendix B).
fn parse_huffman(data: &[u8]) -> Option<Vec<u8>> {
    let mut text = Vec::new();
    let (mut code, mut size) = (0u32, 0u32);
    for bit in data.iter().flat_map(|byte| (0..8).rev().map(move |at| byte >> at & 1)) {
        code = code << 1 | u32::from(bit);
        size += 1;
        let symbol = match (size, code) {
            (5, 0..=2) => b'0' + code as u8,
            (5, 0x3) => b'a',
            (5, 0x8) => b's',
            (5, 0x9) => b't',
            (6, 0x19..=0x1f) => b'3' + (code - 0x19) as u8,
            (6, 0x2d) => b'u',
            (7, 0x5c) => b':',
            _ => continue,
        };
        text.push(symbol);
        (code, size) = (0, 0);
    }
    // what is left is padding of ones
    (size < 8 && code == (1 << size) - 1).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals() {
        assert_eq!(
            encode_section(&[("a", "bc"), ("capsule-protocol", "?1")]),
            b"\0\0\x21a\x02bc\x27\x09capsule-protocol\x02?1"
        );
    }

    #[test]
    fn status_of_the_static_table() {
        assert_eq!(parse_status(b"\0\0\xd9"), Some(200));
        assert_eq!(parse_status(b"\0\0\xff\x00\xd9"), Some(100));
        assert_eq!(parse_status(b"\0\0\xff\x08"), Some(500));
        // the index of :path
        assert_eq!(parse_status(b"\0\0\xc1"), None);
    }

    #[test]
    fn status_as_a_literal() {
        // a name of the static table, value plain and Huffman-coded
        assert_eq!(parse_status(b"\0\0\x5f\x09\x03407"), Some(407));
        // RFC 7541 §C.6.1
        assert_eq!(parse_status(b"\0\0\x5f\x09\x82\x64\x02"), Some(302));
        assert_eq!(parse_status(b"\0\0\x27\x00:status\x03502"), Some(502));
        // content-type as the first field
        assert_eq!(parse_status(b"\0\0\x5f\x1d\x03200"), None);
    }

    #[test]
    fn the_name_huffman_coded() {
        let coded = [0xb8, 0x84, 0x8d, 0x36, 0xa3];
        assert_eq!(parse_huffman(&coded).as_deref(), Some(&b":status"[..]));
    }

    #[test]
    fn every_prefix_is_refused() {
        let section = b"\0\0\x5f\x09\x03407";
        for end in 0..section.len() {
            assert_eq!(parse_status(&section[..end]), None);
        }
        assert_eq!(parse_status(b"\x01\0\xd9"), None);
    }

    #[test]
    fn integers() {
        // RFC 7541 §C.1
        let mut out = Vec::new();
        encode_integer(1337, 5, 0, &mut out);
        assert_eq!(out, [0x1f, 0x9a, 0x0a]);
        assert_eq!(parse_integer(&out, 5), Some((1337, 3)));
        assert_eq!(parse_integer(&[0x0a], 5), Some((10, 1)));
        assert_eq!(parse_integer(&[0xff; 12], 8), None);
    }
}

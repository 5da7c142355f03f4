//! What a connection to the TCP origin begins with: nine bytes that say what the origin shall do.

/// Bytes of a command.
pub const COMMAND_BYTES: usize = 9;

/// An order to the TCP origin.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Command {
    /// Send so many zeros, then end.
    Download(u64),
    /// Count until the end, then answer with the count in eight bytes.
    Upload,
}

/// Encodes a command: `D` and a size, or `U` and anything.
pub fn encode(command: Command) -> [u8; COMMAND_BYTES] {
    let (kind, size) = match command {
        Command::Download(size) => (b'D', size),
        Command::Upload => (b'U', 0),
    };
    let mut encoded = [kind; COMMAND_BYTES];
    encoded[1..].copy_from_slice(&size.to_be_bytes());
    encoded
}

/// Reads a command from the front of a connection; None until it is complete.
pub fn parse(data: &[u8]) -> Option<Command> {
    let (kind, size) = data.first_chunk::<COMMAND_BYTES>()?.split_first()?;
    let size = u64::from_be_bytes(size.try_into().ok()?);
    Some(if *kind == b'D' { Command::Download(size) } else { Command::Upload })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways() {
        assert_eq!(encode(Command::Download(258)), *b"D\0\0\0\0\0\0\x01\x02");
        for command in [Command::Download(0), Command::Download(u64::MAX), Command::Upload] {
            assert_eq!(parse(&encode(command)), Some(command));
            assert_eq!(parse(&encode(command)[..8]), None);
        }
    }
}

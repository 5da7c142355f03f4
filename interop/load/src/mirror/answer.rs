//! What the mirror answers on one request stream: 200, then what the TCP origin would have sent.

use std::sync::LazyLock;

use bytes::Bytes;

use crate::command::{COMMAND_BYTES, Command, parse};
use crate::http3::{Incoming, encode_accepted, encode_data};

const CHUNK: u64 = 64 << 10;

static FRAME: LazyLock<Bytes> = LazyLock::new(|| encode_data(&[0; CHUNK as usize]).into());

/// One request stream.
#[derive(Default)]
pub struct Answer {
    /// What the client has sent.
    pub incoming: Incoming,
    kept: Bytes,
    is_accepted: bool,
    sent: u64,
    is_done: bool,
}

impl Answer {
    /// Gives what is to be sent next, or None until more has come; what is not taken comes back with `keep`.
    pub fn next_data(&mut self) -> Option<Bytes> {
        if !self.kept.is_empty() {
            return Some(std::mem::take(&mut self.kept));
        }
        if !self.is_accepted {
            self.is_accepted = self.incoming.has_head;
            return self.is_accepted.then(|| encode_accepted().into());
        }
        match parse(&self.incoming.content) {
            _ if self.is_done => None,
            Some(Command::Download(size)) => {
                let most = (size - self.sent).min(CHUNK);
                self.sent += most;
                self.is_done = self.sent == size;
                Some(if most == CHUNK { FRAME.clone() } else { encode_data(&vec![0; most as usize]).into() })
            }
            Some(Command::Upload) if self.incoming.is_ended => {
                self.is_done = true;
                let count = self.incoming.received - COMMAND_BYTES as u64;
                Some(encode_data(&count.to_be_bytes()).into())
            }
            Some(Command::Upload) => None,
            None => {
                self.is_done = self.incoming.is_ended;
                None
            }
        }
    }

    /// Takes back what the connection did not take.
    pub fn keep(&mut self, data: Bytes) {
        self.kept = data;
    }

    /// Everything has been given out.
    pub fn is_done(&self) -> bool {
        self.is_done && self.kept.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::encode;
    use crate::http3::encode_connect_tcp;

    fn answers(to: &[&[u8]]) -> Vec<u8> {
        let mut answer = Answer::default();
        let mut sent = Vec::new();
        for data in to {
            answer.incoming.receive(data);
            while let Some(mut data) = answer.next_data() {
                // half of everything is not taken at once
                sent.extend_from_slice(&data.split_to(data.len().div_ceil(2)));
                answer.keep(data);
            }
        }
        answer.incoming.is_ended = true;
        while let Some(data) = answer.next_data() {
            sent.extend_from_slice(&data);
        }
        assert!(answer.is_done());
        sent
    }

    #[test]
    fn a_tunnel_that_is_closed_again() {
        assert_eq!(answers(&[&encode_connect_tcp("host", 1)]), encode_accepted());
    }

    #[test]
    fn a_download() {
        let command = encode_data(&encode(Command::Download(2 * CHUNK + 3)));
        let sent = answers(&[&encode_connect_tcp("host", 1), &command]);
        let mut incoming = Incoming::default();
        incoming.receive(&sent);
        assert_eq!((incoming.status, incoming.received), (Some(200), 2 * CHUNK + 3));
    }

    #[test]
    fn an_upload() {
        let command = encode_data(&encode(Command::Upload));
        let sent = answers(&[&encode_connect_tcp("host", 1), &command, &encode_data(&[1; 1000])]);
        let mut incoming = Incoming::default();
        incoming.receive(&sent);
        assert_eq!(incoming.content, 1000u64.to_be_bytes());
    }
}

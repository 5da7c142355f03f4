//! One client of the mirror.

use std::collections::HashMap;
use std::net::SocketAddr;

use quinn_proto::{Connection, Dir, Event, ReadError, StreamEvent, StreamId};

use crate::http3::encode_preface;
use crate::mirror::answer::Answer;

/// A connection and what is under way on it.
pub struct Peer {
    /// The connection.
    pub connection: Connection,
    /// Where its packets go.
    pub address: SocketAddr,
    answers: HashMap<StreamId, Answer>,
}

impl Peer {
    /// Takes a connection that has just been accepted.
    pub fn new(connection: Connection, address: SocketAddr) -> Self {
        Self { connection, address, answers: HashMap::new() }
    }

    /// Does what the client asks for; tells whether the connection is over.
    pub fn take_events(&mut self) -> bool {
        while let Some(event) = self.connection.poll() {
            match event {
                Event::Connected => self.open_control(),
                Event::ConnectionLost { .. } => return true,
                Event::DatagramReceived => self.echo(),
                Event::Stream(StreamEvent::Opened { dir }) => self.accept(dir),
                Event::Stream(StreamEvent::Readable { id }) => self.read(id),
                Event::Stream(StreamEvent::Writable { id }) => self.write(id),
                Event::Stream(StreamEvent::Stopped { id, error_code }) => {
                    let _ = self.connection.send_stream(id).reset(error_code);
                    self.answers.remove(&id);
                }
                _ => {}
            }
        }
        false
    }

    fn open_control(&mut self) {
        if let Some(id) = self.connection.streams().open(Dir::Uni) {
            let _ = self.connection.send_stream(id).write(&encode_preface());
        }
    }

    fn echo(&mut self) {
        let mut datagrams = self.connection.datagrams();
        while let Some(datagram) = datagrams.recv() {
            let _ = datagrams.send(datagram, true);
        }
    }

    fn accept(&mut self, dir: Dir) {
        while let Some(id) = self.connection.streams().accept(dir) {
            if dir == Dir::Bi {
                self.answers.insert(id, Answer::default());
            }
            self.read(id);
        }
    }

    fn read(&mut self, id: StreamId) {
        let mut answer = self.answers.get_mut(&id);
        let mut stream = self.connection.recv_stream(id);
        let Ok(mut chunks) = stream.read(true) else { return };
        let is_ended = loop {
            match chunks.next(usize::MAX) {
                Ok(Some(chunk)) => {
                    if let Some(answer) = &mut answer {
                        answer.incoming.receive(&chunk.bytes);
                    }
                }
                Ok(None) | Err(ReadError::Reset(_)) => break true,
                Err(ReadError::Blocked) => break false,
            }
        };
        let _ = chunks.finalize();
        if let Some(answer) = answer {
            answer.incoming.is_ended |= is_ended;
            self.write(id);
        }
    }

    fn write(&mut self, id: StreamId) {
        let Some(answer) = self.answers.get_mut(&id) else { return };
        let mut stream = self.connection.send_stream(id);
        while let Some(mut data) = answer.next_data() {
            while !data.is_empty() {
                // only a stream that has refused is told when there is room
                if stream.write_chunks(std::slice::from_mut(&mut data)).is_err() {
                    return answer.keep(data);
                }
            }
        }
        if answer.is_done() {
            let _ = stream.finish();
            self.answers.remove(&id);
        }
    }
}

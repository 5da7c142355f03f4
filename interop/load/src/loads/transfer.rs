//! What moves bytes through CONNECT tunnels to the TCP origin: its commands, downloads and uploads.

use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};

use crate::client::Client;
use crate::command::{Command, encode};
use crate::failure::Outcome;
use crate::http3::{encode_data, encode_data_header};
use crate::pool::Pool;

/// More than any load can carry.
pub const ENDLESS: u64 = 1 << 50;

/// Bytes of an upload's DATA frame.
const CHUNK: u64 = 64 << 10;
const COUNT_BYTES: usize = 8;

/// Asks the origin for so many bytes.
pub fn ask_for(client: &mut Client, stream: u64, size: u64) {
    client.send_stream(stream, &mut encode_data(&encode(Command::Download(size))).into());
}

/// Uploads on many streams of one connection.
pub struct Uploads {
    client: usize,
    streams: Vec<Upload>,
    chunk: Bytes,
}

/// One upload: what of it is still to be queued, and the rest of a frame that the connection did not take.
struct Upload {
    stream: u64,
    left: u64,
    rest: Bytes,
    is_finished: bool,
}

impl Uploads {
    /// Begins uploads of so many bytes each; `push` sends them.
    pub fn new(client: usize, streams: &[u64], size: u64) -> Self {
        let command = Bytes::from(encode_data(&encode(Command::Upload)));
        let begin = |&stream| Upload { stream, left: size, rest: command.clone(), is_finished: false };
        Self { client, streams: streams.iter().map(begin).collect(), chunk: encode_chunk(CHUNK) }
    }

    /// Sends no more than what has been begun, and ends the streams behind it.
    pub fn cut(&mut self) {
        for upload in &mut self.streams {
            upload.left = 0;
        }
    }

    /// Queues as much as the connection takes, a frame of each stream in turns.
    pub fn push(&mut self, pool: &mut Pool) {
        let client = pool.client(self.client);
        let chunk = &self.chunk;
        // another stream is first every time, so that none has the room that is left to itself
        self.streams.rotate_left(1);
        let mut has_taken = true;
        while has_taken {
            // every stream has its turn: no short circuit
            has_taken = self.streams.iter_mut().fold(false, |has_taken, upload| upload.push(client, chunk) | has_taken);
        }
    }

    /// The origin has counted every upload, or the server has ended its tunnel.
    pub fn are_counted(&self, pool: &mut Pool) -> bool {
        let client = pool.client(self.client);
        self.streams.iter().all(|upload| {
            let stream = &client.streams[&upload.stream];
            stream.received >= COUNT_BYTES as u64 || stream.is_ended
        })
    }

    /// The bytes that the origin has counted.
    pub fn counted(&self, pool: &mut Pool) -> u64 {
        let client = pool.client(self.client);
        let counts = self.streams.iter().filter_map(|upload| client.streams[&upload.stream].content.first_chunk());
        counts.map(|&count: &[u8; COUNT_BYTES]| u64::from_be_bytes(count)).sum()
    }
}

impl Upload {
    /// Queues one frame, or the rest of one; tells whether all of it was taken.
    fn push(&mut self, client: &mut Client, chunk: &Bytes) -> bool {
        if self.rest.is_empty() && self.left > 0 {
            let size = self.left.min(CHUNK);
            self.left -= size;
            self.rest = if size == CHUNK { chunk.clone() } else { encode_chunk(size) };
        }
        if !self.rest.is_empty() {
            client.send_stream(self.stream, &mut self.rest);
            return self.rest.is_empty();
        }
        if !self.is_finished {
            client.finish_stream(self.stream);
            self.is_finished = true;
        }
        false
    }
}

/// Uploads so many bytes on each stream, and gives what the origin has counted.
pub fn upload(pool: &mut Pool, client: usize, streams: &[u64], size: u64, longest: Duration) -> Outcome<u64> {
    let mut uploads = Uploads::new(client, streams, size);
    pool.wait_until(
        |pool| {
            uploads.push(pool);
            uploads.are_counted(pool)
        },
        longest,
        "end of the upload",
    )?;
    Ok(uploads.counted(pool))
}

/// Uploads on each stream for a time, and gives what the origin has counted when the last byte was there.
pub fn upload_for(pool: &mut Pool, client: usize, streams: &[u64], time: Duration, longest: Duration) -> Outcome<u64> {
    let mut uploads = Uploads::new(client, streams, ENDLESS);
    let end = Instant::now() + time;
    pool.wait_until(
        |pool| {
            if Instant::now() >= end {
                uploads.cut();
            }
            uploads.push(pool);
            uploads.are_counted(pool)
        },
        time + longest,
        "end of the upload",
    )?;
    Ok(uploads.counted(pool))
}

/// Downloads so many bytes on each stream, and gives what has come.
pub fn download(pool: &mut Pool, client: usize, streams: &[u64], size: u64, longest: Duration) -> Outcome<u64> {
    for &stream in streams {
        ask_for(pool.client(client), stream, size);
    }
    let has_come = |pool: &mut Pool| {
        let client = pool.client(client);
        streams.iter().all(|id| client.streams[id].received >= size || client.streams[id].is_ended)
    };
    pool.wait_until(has_come, longest, "download")?;
    Ok(received(pool, client, streams))
}

/// Downloads on each stream for a time, and gives what has come.
pub fn download_for(pool: &mut Pool, client: usize, streams: &[u64], time: Duration) -> Outcome<u64> {
    for &stream in streams {
        ask_for(pool.client(client), stream, ENDLESS);
    }
    let end = Instant::now() + time;
    while Instant::now() < end {
        pool.step(end.saturating_duration_since(Instant::now()))?;
        pool.check()?;
    }
    Ok(received(pool, client, streams))
}

fn received(pool: &mut Pool, client: usize, streams: &[u64]) -> u64 {
    let client = pool.client(client);
    streams.iter().map(|id| client.streams[id].received).sum()
}

fn encode_chunk(size: u64) -> Bytes {
    let mut chunk = BytesMut::from(&encode_data_header(size)[..]);
    chunk.resize(chunk.len() + size as usize, 0);
    chunk.freeze()
}

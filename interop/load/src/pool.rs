//! All connections of a load on one epoll, and what every load begins with: connecting and opening tunnels.

use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::client::{Client, Dial};
use crate::epoll::{Epoll, Interest};
use crate::failure::{Outcome, fail};
use crate::udp::Inbox;

/// How long a handshake or an answer may take.
pub const PATIENCE: Duration = Duration::from_secs(10);

const AT_A_TIME: usize = 8;
const RARELY: Duration = Duration::from_millis(50);
/// All connections of a load, moved on together.
pub struct Pool {
    /// The time when `step` last returned: when what has come was read.
    pub now: Instant,
    dial: Dial,
    clients: Vec<Option<Client>>,
    epoll: Epoll,
    inbox: Inbox,
    outgoing: Vec<u8>,
    touched: Vec<usize>,
}

impl Pool {
    /// Makes an empty pool for one server.
    pub fn new(dial: Dial) -> Outcome<Self> {
        Ok(Self {
            now: Instant::now(),
            dial,
            clients: Vec::new(),
            epoll: Epoll::new()?,
            inbox: Inbox::new(),
            outgoing: Vec::new(),
            touched: Vec::new(),
        })
    }

    /// Begins a connection and gives its index; its handshake goes on with every `step`.
    pub fn connect(&mut self) -> Outcome<usize> {
        let mut client = Client::new(&self.dial, Instant::now())?;
        let index = self.clients.iter().position(Option::is_none).unwrap_or(self.clients.len());
        self.epoll.add(&client.socket, index, Interest::Read)?;
        client.flush(&mut self.outgoing, Instant::now());
        if index == self.clients.len() {
            self.clients.push(None);
        }
        self.clients[index] = Some(client);
        Ok(index)
    }

    /// Closes a connection.
    pub fn forget(&mut self, index: usize) {
        if let Some(mut client) = self.clients[index].take() {
            client.close(&mut self.outgoing, Instant::now());
        }
    }

    /// A connection that is not forgotten; the next `step` or `flush` sends what it is given.
    pub fn client(&mut self, index: usize) -> &mut Client {
        if !self.touched.contains(&index) {
            self.touched.push(index);
        }
        self.clients[index].as_mut().expect("the connection is not forgotten")
    }

    /// Sends what waits, then waits itself for packets or a deadline, and takes what has come.
    ///
    /// What comes of it is sent by the next call, together with what the load adds to it.
    pub fn step(&mut self, longest: Duration) -> Outcome<()> {
        self.flush(Instant::now());
        self.collect(longest)
    }

    /// Does the same without sending before.
    pub fn collect(&mut self, longest: Duration) -> Outcome<()> {
        let now = Instant::now();
        let mut due = now + longest;
        for client in self.clients.iter_mut().flatten() {
            due = client.deadline().map_or(due, |deadline| deadline.min(due));
        }
        let ready = self.epoll.wait(Some(due.saturating_duration_since(now)))?;
        self.now = Instant::now();
        for index in ready {
            if let Some(client) = &mut self.clients[index] {
                client.receive(&mut self.inbox, self.now);
                if !self.touched.contains(&index) {
                    self.touched.push(index);
                }
            }
        }
        if due <= self.now {
            self.on_deadline();
        }
        Ok(())
    }

    /// Sends what connections that something has happened to have to send.
    pub fn flush(&mut self, now: Instant) {
        for index in self.touched.drain(..) {
            if let Some(client) = &mut self.clients[index] {
                client.flush(&mut self.outgoing, now);
            }
        }
    }

    fn on_deadline(&mut self) {
        for (index, client) in self.clients.iter_mut().enumerate() {
            let Some(client) = client else { continue };
            if client.deadline().is_some_and(|deadline| deadline <= self.now) {
                client.on_deadline(self.now);
                if !self.touched.contains(&index) {
                    self.touched.push(index);
                }
            }
        }
    }

    /// Fails when a connection is over, with its reason.
    pub fn check(&self) -> Outcome<()> {
        match self.clients.iter().flatten().find_map(|client| client.closed.as_ref()) {
            Some(reason) => fail(format!("the server closed the connection: {reason}")),
            None => Ok(()),
        }
    }

    /// Steps until something is true.
    pub fn wait_until(
        &mut self,
        mut is_done: impl FnMut(&mut Self) -> bool,
        longest: Duration,
        what: &str,
    ) -> Outcome<()> {
        let deadline = Instant::now() + longest;
        while !is_done(self) {
            if Instant::now() > deadline {
                return fail(format!("no {what} within {longest:?}"));
            }
            self.check()?;
            self.step(RARELY)?;
        }
        Ok(())
    }

    /// Opens connections and waits until their handshakes are confirmed.
    pub fn connect_many(&mut self, count: usize) -> Outcome<Vec<usize>> {
        let mut opened = Vec::new();
        while opened.len() < count {
            let missing = count - opened.len();
            let begun: Vec<usize> = (0..missing.min(AT_A_TIME)).map(|_| self.connect()).collect::<Outcome<_>>()?;
            self.wait_until(|pool| begun.iter().all(|&index| pool.is_connected(index)), PATIENCE, "handshake")?;
            opened.extend(begun);
        }
        Ok(opened)
    }

    /// The handshake of a connection is confirmed.
    pub fn is_connected(&self, index: usize) -> bool {
        self.clients[index].as_ref().is_some_and(Client::is_connected)
    }

    /// A connection is over.
    pub fn is_closed(&self, index: usize) -> bool {
        self.clients[index].as_ref().is_some_and(|client| client.closed.is_some())
    }

    /// Opens tunnels on one connection and waits until all are accepted; gives the ids of their streams.
    pub fn open_tunnels(&mut self, index: usize, head: &Bytes, count: usize) -> Outcome<Vec<u64>> {
        let mut opened = Vec::new();
        self.wait_until(
            |pool| {
                let client = pool.client(index);
                while opened.len() < count
                    && let Some(id) = client.open_request(head)
                {
                    opened.push(id);
                }
                let is_answered = |id| client.streams[id].status.is_some() || client.streams[id].is_ended;
                opened.len() == count && opened.iter().all(is_answered)
            },
            PATIENCE,
            "answer",
        )?;
        let streams = &self.client(index).streams;
        let refused: Vec<Option<u16>> = (opened.iter().map(|id| &streams[id]))
            .filter(|stream| stream.is_ended || !matches!(stream.status, Some(200..=299)))
            .map(|stream| stream.status)
            .collect();
        match refused.first() {
            None => Ok(opened),
            Some(status) => {
                let status = status.map_or("none".to_owned(), |status| status.to_string());
                fail(format!("{} of {count} tunnels refused, the first with status {status}", refused.len()))
            }
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        for index in 0..self.clients.len() {
            self.forget(index);
        }
    }
}

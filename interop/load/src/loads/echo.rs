//! A window of datagrams under way in each of many tunnels.

use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::datagram::{Payloads, encode_prefix, parse};
use crate::failure::Outcome;
use crate::pool::Pool;

/// Without an echo for so long, everything that is under way counts as lost.
const STALL: Duration = Duration::from_millis(100);
/// The same for one tunnel whose neighbours' echoes come.
const TUNNEL_STALL: Duration = Duration::from_millis(500);

/// How long to let more come when only a few have: as long as network cards hold back an interrupt. On loopback every
/// packet would wake us otherwise, and with our answers to each a server would work in ones and twos, however busy.
const MODERATION: Duration = Duration::from_micros(50);
/// Fewer than this share of what is under way are a few.
const FEW: u64 = 8;
/// With fewer under way it is the time of one that counts: nothing is held back.
const MANY: u64 = 32;

/// Keeps a window of datagrams under way in each tunnel and counts the echoes.
///
/// A payload begins with its number. The number of the newest echo tells how many are still under way, so a lost
/// datagram leaves its place to another at once.
pub struct EchoLoop {
    /// Datagrams sent.
    pub sent: u64,
    /// The tunnels, in the order in which they were given.
    pub tunnels: Vec<Tunnel>,
    /// For each connection, the tunnel of each quarter stream id.
    places: Vec<Vec<usize>>,
    clients: Vec<usize>,
    payloads: Payloads,
    window: u32,
    few: u64,
    last_echo: Instant,
}

/// One tunnel, and how far its numbers have got.
pub struct Tunnel {
    /// Datagrams that came back.
    pub echoed: u64,
    client: usize,
    prefix: Vec<u8>,
    next: u32,
    acknowledged: u32,
    last_echo: Instant,
}

impl EchoLoop {
    /// Begins with tunnels that are open, each a connection's index and a stream.
    pub fn new(opened: &[(usize, u64)], size: usize, window: usize, now: Instant) -> Self {
        let mut places = Vec::new();
        let mut clients: Vec<usize> = opened.iter().map(|&(client, _)| client).collect();
        clients.sort_unstable();
        clients.dedup();
        let mut tunnels = Vec::new();
        for (place, &(client, stream)) in opened.iter().enumerate() {
            note_place(&mut places, client, stream, place);
            let prefix = encode_prefix(stream);
            tunnels.push(Tunnel { echoed: 0, client, prefix, next: 0, acknowledged: 0, last_echo: now });
        }
        let under_way = (opened.len() * window) as u64;
        let few = if under_way < MANY { 0 } else { under_way / FEW };
        let (window, payloads) = (window as u32, Payloads::new(size));
        Self { sent: 0, tunnels, places, clients, payloads, window, few, last_echo: now }
    }

    /// Datagrams that came back, in all tunnels.
    pub fn echoed(&self) -> u64 {
        self.tunnels.iter().map(|tunnel| tunnel.echoed).sum()
    }

    /// Keeps the windows full for a time.
    pub fn run(&mut self, pool: &mut Pool, time: Duration) -> Outcome<()> {
        let deadline = Instant::now() + time;
        pool.now = Instant::now();
        while pool.now < deadline {
            self.send(pool);
            pool.step(STALL.min(deadline - pool.now))?;
            let echoed = self.receive(pool);
            if 0 < echoed && echoed < self.few {
                std::thread::sleep(MODERATION);
                pool.collect(Duration::ZERO)?;
                self.receive(pool);
            }
            pool.check()?;
        }
        Ok(())
    }

    fn send(&mut self, pool: &mut Pool) {
        for tunnel in &mut self.tunnels {
            let end = tunnel.acknowledged.wrapping_add(self.window);
            let missing = end.wrapping_sub(tunnel.next);
            if missing == 0 || missing > self.window {
                continue;
            }
            let client = pool.client(tunnel.client);
            for _ in 0..missing {
                client.send_datagram(self.payloads.make(&tunnel.prefix, tunnel.next));
                tunnel.next = tunnel.next.wrapping_add(1);
            }
            self.sent += u64::from(missing);
        }
    }

    /// Takes echoes, gives up what is lost, and tells how many have come.
    fn receive(&mut self, pool: &mut Pool) -> u64 {
        let mut echoed = 0;
        for at in 0..self.clients.len() {
            let index = self.clients[at];
            while let Some(datagram) = pool.client(index).receive_datagram() {
                echoed += u64::from(self.count(index, &datagram, pool.now));
            }
        }
        if echoed > 0 {
            self.last_echo = pool.now;
        }
        let is_stalled = pool.now - self.last_echo > STALL;
        if is_stalled {
            self.last_echo = pool.now;
        }
        for tunnel in &mut self.tunnels {
            if is_stalled || pool.now - tunnel.last_echo > TUNNEL_STALL {
                tunnel.acknowledged = tunnel.next;
                tunnel.last_echo = pool.now;
            }
        }
        echoed
    }

    /// Counts one echo, if it is one.
    fn count(&mut self, client: usize, datagram: &Bytes, now: Instant) -> bool {
        let Some((stream, number)) = parse(datagram) else { return false };
        let place = self.places[client].get(stream as usize / 4).copied().unwrap_or(usize::MAX);
        let Some(tunnel) = self.tunnels.get_mut(place) else { return false };
        tunnel.echoed += 1;
        tunnel.acknowledged = number.wrapping_add(1);
        tunnel.last_echo = now;
        true
    }
}

fn note_place(places: &mut Vec<Vec<usize>>, client: usize, stream: u64, place: usize) {
    if places.len() <= client {
        places.resize(client + 1, Vec::new());
    }
    let quarter = (stream / 4) as usize;
    if places[client].len() <= quarter {
        places[client].resize(quarter + 1, usize::MAX);
    }
    places[client][quarter] = place;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn echoes_are_counted_for_their_tunnels() {
        let now = Instant::now();
        let mut echo = EchoLoop::new(&[(0, 0), (1, 0), (0, 8)], 64, 4, now);
        let mut payloads = Payloads::new(64);
        for (client, stream, number) in [(0, 8, 0), (0, 8, 1), (1, 0, 0)] {
            assert!(echo.count(client, &payloads.make(&encode_prefix(stream), number), now));
        }
        assert!(!echo.count(0, &payloads.make(&encode_prefix(4), 0), now));
        assert!(!echo.count(1, &payloads.make(&encode_prefix(8), 0), now));
        assert!(!echo.count(1, &Bytes::from_static(&[0, 1, 0, 0, 0, 0]), now));
        let counts: Vec<u64> = echo.tunnels.iter().map(|tunnel| tunnel.echoed).collect();
        assert_eq!(counts, [0, 1, 2]);
        assert_eq!(echo.echoed(), 3);
        assert_eq!(echo.tunnels[2].acknowledged, 2);
    }
}

//! Echoes at a fixed rate, open loop: how long each took from when it was due.
//!
//! A datagram that leaves late is measured from when it was due, so a server that holds up the generator cannot hide
//! how long others would have waited (coordinated omission).

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::datagram::{NUMBER_BYTES, Payloads, encode_prefix, parse};
use crate::epoll::{Epoll, Interest};
use crate::failure::Outcome;
use crate::measure::Meter;
use crate::order::Order;
use crate::pool::Pool;
use crate::samples::Samples;
use crate::schedule::Schedule;
use crate::transport::Congestion;
use crate::udp::{self, Inbox};

/// A send that left so long after it was due counts as late.
const LATE: Duration = Duration::from_millis(1);
/// How long to wait for the last echoes.
const LAST: Duration = Duration::from_secs(1);

/// The way there and back: through tunnels, or straight.
trait Path {
    /// Sends a number on the tunnel whose turn it is.
    fn send(&mut self, number: u32);

    /// Waits for echoes and gives the number of each, and when they were read.
    fn wait(&mut self, longest: Duration, echo: impl FnMut(u32, Instant)) -> Outcome<()>;
}

/// Carries out `latency`; work is in echoes that came back.
pub fn run(order: &Order) -> Outcome<Value> {
    if order.direct { measure(order, Direct::open(order)?) } else { measure(order, Tunnels::open(order)?) }
}

/// What has been sent, and what has come back.
struct Tally {
    schedule: Schedule,
    first: u64,
    samples: Samples,
    late: u64,
}

impl Tally {
    fn note_send(&mut self, number: u64, now: Instant) {
        self.late += u64::from(number >= self.first && now > self.schedule.due(number) + LATE);
    }

    fn note_echo(&mut self, number: u64, now: Instant) {
        if number >= self.first {
            self.samples.add(now.saturating_duration_since(self.schedule.due(number)).as_nanos() as u64);
        }
    }
}

fn measure(order: &Order, mut path: impl Path) -> Outcome<Value> {
    let schedule = Schedule::new(Instant::now(), order.rate()?);
    let first = schedule.count(order.warmup()?);
    let total = first + schedule.count(order.seconds()?);
    let samples = Samples::new((total - first) as usize);
    let mut tally = Tally { schedule, first, samples, late: 0 };
    drive(&mut path, &mut tally, 0, first)?;
    let meter = Meter::start(&order.pids)?;
    drive(&mut path, &mut tally, first, total)?;
    let offered = total - first;
    let mut cost = meter.stop(0, offered)?;
    let end = Instant::now() + LAST;
    while tally.samples.count() < offered as usize && Instant::now() < end {
        path.wait(end.saturating_duration_since(Instant::now()), |number, now| tally.note_echo(number.into(), now))?;
    }
    cost.work = tally.samples.count() as f64;
    let mut answer = json!(cost);
    answer["late"] = json!(tally.late as f64 / offered.max(1) as f64);
    let names = ["p50", "p99", "p999", "max"];
    for (name, value) in names.into_iter().zip(tally.samples.percentiles([0.5, 0.99, 0.999, 1.0])) {
        answer[name] = json!(value);
    }
    Ok(answer)
}

/// Sends the numbers from `next` up to `end`, each when it is due, and takes echoes in between.
fn drive(path: &mut impl Path, tally: &mut Tally, mut next: u64, end: u64) -> Outcome<()> {
    while next < end {
        let mut now = Instant::now();
        while next < end && tally.schedule.due(next) <= now {
            path.send(next as u32);
            tally.note_send(next, now);
            next += 1;
            now = Instant::now();
        }
        let longest = tally.schedule.due(next).saturating_duration_since(now);
        path.wait(longest, |number, now| tally.note_echo(number.into(), now))?;
    }
    Ok(())
}

/// CONNECT-UDP tunnels of one connection, in turns.
struct Tunnels {
    pool: Pool,
    client: usize,
    prefixes: Vec<Vec<u8>>,
    payloads: Payloads,
}

impl Tunnels {
    fn open(order: &Order) -> Outcome<Self> {
        let payloads = Payloads::new(order.size()?);
        let mut pool = Pool::new(order.dial(Congestion::Open)?)?;
        let client = pool.connect_many(1)?[0];
        pool.client(client).check_datagram_size(order.size()?)?;
        let streams = pool.open_tunnels(client, &order.head(true)?, order.tunnels()?)?;
        Ok(Self { pool, client, prefixes: streams.into_iter().map(encode_prefix).collect(), payloads })
    }
}

impl Path for Tunnels {
    fn send(&mut self, number: u32) {
        let prefix = &self.prefixes[number as usize % self.prefixes.len()];
        self.pool.client(self.client).send_datagram(self.payloads.make(prefix, number));
    }

    fn wait(&mut self, longest: Duration, mut echo: impl FnMut(u32, Instant)) -> Outcome<()> {
        self.pool.step(longest)?;
        self.pool.check()?;
        let now = self.pool.now;
        while let Some(datagram) = self.pool.client(self.client).receive_datagram() {
            if let Some((_, number)) = parse(&datagram) {
                echo(number, now);
            }
        }
        Ok(())
    }
}

/// Plain UDP to the origin: what is due at the same time leaves in one call.
struct Direct {
    socket: UdpSocket,
    epoll: Epoll,
    inbox: Inbox,
    payloads: Payloads,
    outgoing: Vec<u8>,
    size: usize,
}

impl Direct {
    fn open(order: &Order) -> Outcome<Self> {
        let (target, size) = (order.target_address()?, order.size()?);
        let epoll = Epoll::new()?;
        let socket = udp::open(udp::unbound(target), Some(target))?;
        epoll.add(&socket, 0, Interest::Read)?;
        Ok(Self { socket, epoll, inbox: Inbox::new(), payloads: Payloads::new(size), outgoing: Vec::new(), size })
    }
}

impl Path for Direct {
    fn send(&mut self, number: u32) {
        self.outgoing.extend_from_slice(&self.payloads.make(&[], number));
    }

    fn wait(&mut self, longest: Duration, mut echo: impl FnMut(u32, Instant)) -> Outcome<()> {
        if !self.outgoing.is_empty() {
            // what the kernel refuses is lost
            let _ = udp::send(&self.socket, &self.outgoing, self.size, None);
            self.outgoing.clear();
        }
        let is_ready = self.epoll.wait(Some(longest))?.count() > 0;
        let now = Instant::now();
        let mut has_more = is_ready;
        while has_more {
            has_more = self.inbox.receive(&self.socket);
            for batch in self.inbox.batches.drain(..) {
                for payload in batch.payload.chunks(batch.segment) {
                    if let Some(number) = payload.first_chunk::<NUMBER_BYTES>() {
                        echo(u32::from_be_bytes(*number), now);
                    }
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Echoes at once, but loses every third and sleeps before every tenth.
    struct Scripted {
        waiting: Vec<u32>,
        sent: Vec<u32>,
    }

    impl Path for Scripted {
        fn send(&mut self, number: u32) {
            self.sent.push(number);
            if number % 10 == 9 {
                std::thread::sleep(Duration::from_millis(5));
            }
            if !number.is_multiple_of(3) {
                self.waiting.push(number);
            }
        }

        fn wait(&mut self, longest: Duration, mut echo: impl FnMut(u32, Instant)) -> Outcome<()> {
            if self.waiting.is_empty() {
                std::thread::sleep(longest);
            }
            self.waiting.drain(..).for_each(|number| echo(number, Instant::now()));
            Ok(())
        }
    }

    #[test]
    fn a_held_up_sender_hides_nothing() {
        let schedule = Schedule::new(Instant::now(), 1000.0);
        let mut tally = Tally { schedule, first: 10, samples: Samples::new(0), late: 0 };
        let mut path = Scripted { waiting: Vec::new(), sent: Vec::new() };
        drive(&mut path, &mut tally, 0, 40).unwrap();
        path.wait(Duration::ZERO, |number, now| tally.note_echo(number.into(), now)).unwrap();
        assert_eq!(path.sent, (0..40).collect::<Vec<u32>>());
        assert_eq!(tally.samples.count(), (10..40).filter(|number| number % 3 != 0).count());
        // those behind a pause of 5 ms wait up to 4 ms, and are measured from when they were due
        assert!(tally.late >= 4, "{}", tally.late);
        let [median, most] = tally.samples.percentiles([0.5, 1.0]);
        assert!(most >= 0.003 && most >= median, "{most}");
    }
}

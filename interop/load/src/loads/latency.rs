//! Echoes at a fixed rate, open loop: how long each took from when it was due.
//!
//! A datagram that leaves late is measured from when it was due, so a server that holds up the generator cannot hide
//! how long others would have waited (coordinated omission).
//!
//! The generator is the origin too, and it never sleeps: with an origin of its own process on the same core, each
//! echo would wait for the kernel to change from one to the other, straight as well as through a server, and that by
//! more than what is measured.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::datagram::{NUMBER_BYTES, Payloads, encode_prefix, parse};
use crate::failure::Outcome;
use crate::measure::{Cost, Meter};
use crate::order::Order;
use crate::origins::udp::echo_waiting;
use crate::pool::Pool;
use crate::samples::Samples;
use crate::schedule::Schedule;
use crate::transport::Congestion;
use crate::udp::{self, Inbox};

/// A send that left so long after it was due counts as late.
const LATE: Duration = Duration::from_micros(100);
/// How long to wait for the last echoes.
const LAST: Duration = Duration::from_millis(200);
/// How long to measure at a stretch. Where the generator has real-time priority, the kernel gives its core to others
/// for 50 ms in every second (the fair server of Linux 6.12), unless they have had as much of it already.
const STRETCH: Duration = Duration::from_millis(400);
/// How long the core is left to others between two stretches.
const REST: Duration = Duration::from_millis(60);
/// So many leave in one turn at most, so that echoes are taken however late the generator is.
const BURST: u64 = 64;
/// So many calls read a socket in one turn at most.
const READS: usize = 16;

/// The way there and back: through tunnels, or straight.
trait Path {
    /// Sends a number on the tunnel whose turn it is.
    fn send(&mut self, number: u32);

    /// Moves everything on without waiting, and gives the number of each echo and when it was read.
    fn poll(&mut self, echo: impl FnMut(u32, Instant)) -> Outcome<()>;
}

/// Carries out `latency`; work is in echoes that came back.
pub fn run(order: &Order) -> Outcome<Value> {
    let origin = Origin::open(order.target_address()?)?;
    if order.direct {
        measure(order, Direct::open(order, origin)?)
    } else {
        measure(order, Tunnels::open(order, origin)?)
    }
}

/// What has been sent, and what has come back.
struct Tally {
    schedule: Schedule,
    /// The number that the schedule begins with.
    begin: u64,
    /// The first number that counts, after the warm-up.
    first: u64,
    samples: Samples,
    late: u64,
}

impl Tally {
    fn due(&self, number: u64) -> Instant {
        self.schedule.due(number - self.begin)
    }

    fn note_send(&mut self, number: u64, now: Instant) {
        self.late += u64::from(number >= self.first && now > self.due(number) + LATE);
    }

    fn note_echo(&mut self, number: u64, now: Instant) {
        if number >= self.first {
            self.samples.add(now.saturating_duration_since(self.due(number)).as_nanos() as u64);
        }
    }
}

fn measure(order: &Order, mut path: impl Path) -> Outcome<Value> {
    let (mut left, schedule) = (order.seconds()?, Schedule::new(Instant::now(), order.rate()?));
    let samples = Samples::new(schedule.count(left) as usize);
    let mut tally = Tally { schedule, begin: 0, first: 0, samples, late: 0 };
    let mut cost = Cost::default();
    while !left.is_zero() {
        let time = left.min(STRETCH);
        left -= time;
        cost += measure_stretch(order, &mut path, &mut tally, time)?;
        std::thread::sleep(REST);
    }
    cost.work = tally.samples.count() as f64;
    let late = tally.late as f64 / cost.offered.max(1.0);
    let mut answer = json!(cost);
    answer["late"] = json!(late);
    let names = ["p50", "p99", "p999", "max"];
    for (name, value) in names.into_iter().zip(tally.samples.percentiles([0.5, 0.99, 0.999, 1.0])) {
        answer[name] = json!(value);
    }
    Ok(answer)
}

/// Warms up and measures once; what of it came back is in the tally alone.
fn measure_stretch(order: &Order, path: &mut impl Path, tally: &mut Tally, time: Duration) -> Outcome<Cost> {
    tally.schedule = Schedule::new(Instant::now(), order.rate()?);
    let begin = tally.begin;
    let first = begin + tally.schedule.count(order.warmup()?);
    let end = first + tally.schedule.count(time);
    // what is left of the stretch before does not count any more
    tally.first = first;
    drive(path, tally, begin, first)?;
    let meter = Meter::start(&order.pids)?;
    let wanted = tally.samples.count() as u64 + end - first;
    drive(path, tally, first, end)?;
    let cost = meter.stop(0, end - first)?;
    let last = Instant::now() + LAST;
    while (tally.samples.count() as u64) < wanted && Instant::now() < last {
        path.poll(|number, now| tally.note_echo(number.into(), now))?;
    }
    tally.begin = end;
    Ok(cost)
}

/// Sends the numbers from `next` up to `end`, each when it is due, and takes echoes in between.
fn drive(path: &mut impl Path, tally: &mut Tally, mut next: u64, end: u64) -> Outcome<()> {
    while next < end {
        let now = Instant::now();
        let most = end.min(next + BURST);
        while next < most && tally.due(next) <= now {
            path.send(next as u32);
            tally.note_send(next, now);
            next += 1;
        }
        path.poll(|number, now| tally.note_echo(number.into(), now))?;
    }
    Ok(())
}

/// The origin: echoes datagrams, in the batches in which they came.
struct Origin {
    socket: UdpSocket,
    inbox: Inbox,
}

impl Origin {
    fn open(host: IpAddr) -> Outcome<Self> {
        Ok(Self { socket: udp::open((host, 0).into(), None)?, inbox: Inbox::new() })
    }

    fn address(&self) -> Outcome<SocketAddr> {
        Ok(self.socket.local_addr()?)
    }

    fn poll(&mut self) {
        echo_waiting(&self.socket, &mut self.inbox);
    }
}

/// CONNECT-UDP tunnels of one connection, in turns.
struct Tunnels {
    origin: Origin,
    pool: Pool,
    client: usize,
    prefixes: Vec<Vec<u8>>,
    payloads: Payloads,
}

impl Tunnels {
    fn open(order: &Order, origin: Origin) -> Outcome<Self> {
        let payloads = Payloads::new(order.size()?);
        let mut pool = Pool::new(order.dial(Congestion::Open)?)?;
        let client = pool.connect_many(1)?[0];
        pool.client(client).check_datagram_size(order.size()?)?;
        let head = order.head_to(origin.address()?.port(), true)?;
        let streams = pool.open_tunnels(client, &head, order.tunnels()?)?;
        let prefixes = streams.into_iter().map(encode_prefix).collect();
        Ok(Self { origin, pool, client, prefixes, payloads })
    }
}

impl Path for Tunnels {
    fn send(&mut self, number: u32) {
        let prefix = &self.prefixes[number as usize % self.prefixes.len()];
        self.pool.client(self.client).send_datagram(self.payloads.make(prefix, number));
    }

    fn poll(&mut self, mut echo: impl FnMut(u32, Instant)) -> Outcome<()> {
        self.pool.step(Duration::ZERO)?;
        self.pool.check()?;
        let now = self.pool.now;
        while let Some(datagram) = self.pool.client(self.client).receive_datagram() {
            if let Some((_, number)) = parse(&datagram) {
                echo(number, now);
            }
        }
        self.origin.poll();
        Ok(())
    }
}

/// Plain UDP to the origin: what is due at the same time leaves in one call.
struct Direct {
    origin: Origin,
    socket: UdpSocket,
    inbox: Inbox,
    payloads: Payloads,
    outgoing: Vec<u8>,
    size: usize,
}

impl Direct {
    fn open(order: &Order, origin: Origin) -> Outcome<Self> {
        let (target, size) = (origin.address()?, order.size()?);
        let socket = udp::open(udp::unbound(target), Some(target))?;
        Ok(Self { origin, socket, inbox: Inbox::new(), payloads: Payloads::new(size), outgoing: Vec::new(), size })
    }
}

impl Path for Direct {
    fn send(&mut self, number: u32) {
        self.outgoing.extend_from_slice(&self.payloads.make(&[], number));
    }

    fn poll(&mut self, mut echo: impl FnMut(u32, Instant)) -> Outcome<()> {
        if !self.outgoing.is_empty() {
            // what the kernel refuses is lost
            let _ = udp::send(&self.socket, &self.outgoing, self.size, None);
            self.outgoing.clear();
        }
        for _ in 0..READS {
            let now = Instant::now();
            let has_more = self.inbox.receive(&self.socket);
            for batch in self.inbox.batches.drain(..) {
                for payload in batch.payload.chunks(batch.segment) {
                    if let Some(number) = payload.first_chunk::<NUMBER_BYTES>() {
                        echo(u32::from_be_bytes(*number), now);
                    }
                }
            }
            if !has_more {
                break;
            }
        }
        self.origin.poll();
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

        fn poll(&mut self, mut echo: impl FnMut(u32, Instant)) -> Outcome<()> {
            self.waiting.drain(..).for_each(|number| echo(number, Instant::now()));
            Ok(())
        }
    }

    fn tally() -> Tally {
        let schedule = Schedule::new(Instant::now(), 1000.0);
        Tally { schedule, begin: 0, first: 10, samples: Samples::new(0), late: 0 }
    }

    #[test]
    fn a_held_up_sender_hides_nothing() {
        let mut tally = tally();
        let mut path = Scripted { waiting: Vec::new(), sent: Vec::new() };
        drive(&mut path, &mut tally, 0, 40).unwrap();
        path.poll(|number, now| tally.note_echo(number.into(), now)).unwrap();
        assert_eq!(path.sent, (0..40).collect::<Vec<u32>>());
        assert_eq!(tally.samples.count(), (10..40).filter(|number| number % 3 != 0).count());
        // those behind a pause of 5 ms wait up to 4 ms, and are measured from when they were due
        assert!(tally.late >= 4, "{}", tally.late);
        let [median, most] = tally.samples.percentiles([0.5, 1.0]);
        assert!(most >= 0.003 && most >= median, "{most}");
    }

    #[test]
    fn a_late_send_is_counted_once_and_an_echo_of_before_not_at_all() {
        let mut tally = Tally { begin: 100, first: 110, ..tally() };
        let due = tally.due(111);
        assert_eq!(due, tally.schedule.due(11));
        tally.note_send(109, due + LATE * 9);
        tally.note_send(111, due + LATE);
        assert_eq!(tally.late, 0);
        tally.note_send(111, due + LATE + Duration::from_nanos(1));
        assert_eq!(tally.late, 1);
        for number in [0, 99, 109] {
            tally.note_echo(number, due);
        }
        assert_eq!(tally.samples.count(), 0);
        tally.note_echo(111, due + LATE);
        assert_eq!(tally.samples.percentiles([1.0]), [LATE.as_secs_f64()]);
    }
}

//! Tunnels that are opened and closed, one after another.
//!
//! A TCP tunnel is closed by ending our half and waiting for the server's. A UDP tunnel is given up, as browsers do: not
//! every server ends its half of one when the client has ended its own.

use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::client::Client;
use crate::failure::{Outcome, fail};
use crate::measure::{Cost, Meter};
use crate::order::{Kind, Order};
use crate::pool::Pool;
use crate::transport::Congestion;

const RARELY: Duration = Duration::from_millis(50);
/// Without a new tunnel for so long, a figure would say nothing.
const STALL: Duration = Duration::from_secs(1);

/// Carries out `tunnels`; work is tunnels opened.
pub fn run(order: &Order) -> Outcome<Cost> {
    let is_udp = match order.kind {
        Some(Kind::Udp) => true,
        Some(Kind::Tcp) => false,
        _ => return fail("an order for tunnels needs kind, tcp or udp"),
    };
    let mut pool = Pool::new(order.dial(Congestion::Open)?)?;
    let client = pool.connect_many(1)?[0];
    let slots = vec![None; order.parallel()?];
    let mut turnover =
        Turnover { client, head: order.head(is_udp)?, is_udp, slots, closing: Vec::new(), opened: 0, asked: 0 };
    turnover.run(&mut pool, order.warmup()?)?;
    let (opened, asked) = (turnover.opened, turnover.asked);
    let meter = Meter::start(&order.pids)?;
    turnover.run(&mut pool, order.seconds()?)?;
    meter.stop(turnover.opened - opened, turnover.asked - asked)
}

/// Slots of one connection, each with a request under way whenever the server gives stream credit.
struct Turnover {
    client: usize,
    head: Bytes,
    is_udp: bool,
    slots: Vec<Option<u64>>,
    closing: Vec<u64>,
    opened: u64,
    asked: u64,
}

impl Turnover {
    fn run(&mut self, pool: &mut Pool, time: Duration) -> Outcome<()> {
        let end = Instant::now() + time;
        let (mut last, mut opened) = (Instant::now(), self.opened);
        while Instant::now() < end {
            self.turn(pool.client(self.client))?;
            pool.step(RARELY)?;
            pool.check()?;
            if self.opened > opened {
                (last, opened) = (Instant::now(), self.opened);
            } else if last.elapsed() > STALL {
                return fail(format!("no tunnel opens, {} are not closed by the server", self.closing.len()));
            }
        }
        Ok(())
    }

    /// Closes what has been accepted, and asks for as many again.
    fn turn(&mut self, client: &mut Client) -> Outcome<()> {
        for slot in &mut self.slots {
            if let Some(id) = *slot {
                let stream = &client.streams[&id];
                match stream.status {
                    Some(200..=299) => {}
                    None if !stream.is_ended => continue,
                    None => return fail("the server reset a request"),
                    Some(status) => return fail(format!("a tunnel refused with status {status}")),
                }
                if self.is_udp {
                    client.abandon_stream(id);
                } else {
                    client.finish_stream(id);
                    self.closing.push(id);
                }
                self.opened += 1;
            }
            *slot = client.open_request(&self.head);
            self.asked += u64::from(slot.is_some());
        }
        self.closing.retain(|id| {
            let is_open = !client.streams[id].is_ended;
            if !is_open {
                client.streams.remove(id);
            }
            is_open
        });
        Ok(())
    }
}

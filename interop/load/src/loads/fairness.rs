//! How a server divides its work: many tunnels that all want as much as they can get.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::failure::{Outcome, fail};
use crate::loads::echo::EchoLoop;
use crate::loads::transfer::{ENDLESS, ask_for};
use crate::measure::Meter;
use crate::order::{Kind, Order};
use crate::pool::Pool;
use crate::transport::Congestion;

/// Carries out `fairness`; the answer has `counts`, the work of each tunnel.
pub fn run(order: &Order) -> Outcome<Value> {
    match order.kind {
        Some(Kind::Datagrams) => run_datagrams(order),
        Some(Kind::Down) => run_downloads(order),
        _ => fail("an order for fairness needs kind, datagrams or down"),
    }
}

fn run_datagrams(order: &Order) -> Outcome<Value> {
    let mut pool = Pool::new(order.dial(Congestion::Open)?)?;
    let opened = open(order, &mut pool, true)?;
    for &(client, _) in &opened {
        pool.client(client).check_datagram_size(order.size()?)?;
    }
    let mut echo = EchoLoop::new(&opened, order.size()?, order.window()?, pool.now);
    echo.run(&mut pool, order.warmup()?)?;
    let sent = echo.sent;
    let before: Vec<u64> = echo.tunnels.iter().map(|tunnel| tunnel.echoed).collect();
    let meter = Meter::start(&order.pids)?;
    echo.run(&mut pool, order.seconds()?)?;
    let counts = echo.tunnels.iter().zip(before).map(|(tunnel, before)| 2 * (tunnel.echoed - before)).collect();
    answer(meter, counts, Some(2 * (echo.sent - sent)))
}

fn run_downloads(order: &Order) -> Outcome<Value> {
    let mut pool = Pool::new(order.dial(Congestion::Cubic)?)?;
    let opened = open(order, &mut pool, false)?;
    for &(client, stream) in &opened {
        ask_for(pool.client(client), stream, ENDLESS);
    }
    step_for(&mut pool, order.warmup()?)?;
    let received = |pool: &mut Pool| -> Vec<u64> {
        opened.iter().map(|&(client, stream)| pool.client(client).streams[&stream].received).collect()
    };
    let before = received(&mut pool);
    let meter = Meter::start(&order.pids)?;
    step_for(&mut pool, order.seconds()?)?;
    let counts = received(&mut pool).into_iter().zip(before).map(|(after, before)| after - before).collect();
    answer(meter, counts, None)
}

/// Opens tunnels spread over connections: the first on the first, the second on the second, and round again.
fn open(order: &Order, pool: &mut Pool, is_udp: bool) -> Outcome<Vec<(usize, u64)>> {
    let (tunnels, connections) = (order.tunnels()?, order.connections()?);
    let head = order.head(is_udp)?;
    let clients = pool.connect_many(connections)?;
    let mut streams = Vec::new();
    for (place, &client) in clients.iter().enumerate() {
        let count = tunnels / connections + usize::from(place < tunnels % connections);
        streams.push(pool.open_tunnels(client, &head, count)?.into_iter());
    }
    let opened = (0..tunnels).filter_map(|tunnel| {
        let place = tunnel % connections;
        Some((clients[place], streams[place].next()?))
    });
    Ok(opened.collect())
}

fn step_for(pool: &mut Pool, time: Duration) -> Outcome<()> {
    let end = Instant::now() + time;
    while Instant::now() < end {
        pool.step(end.saturating_duration_since(Instant::now()))?;
        pool.check()?;
    }
    Ok(())
}

fn answer(meter: Meter, counts: Vec<u64>, offered: Option<u64>) -> Outcome<Value> {
    let work = counts.iter().sum();
    let mut answer = json!(meter.stop(work, offered.unwrap_or(work))?);
    answer["counts"] = json!(counts);
    Ok(answer)
}

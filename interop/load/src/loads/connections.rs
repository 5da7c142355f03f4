//! Loads of connections: handshakes one after another, and idle connections and tunnels that only take memory.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::failure::{Outcome, fail};
use crate::measure::{Cost, Meter, resident_bytes};
use crate::order::Order;
use crate::pool::{PATIENCE, Pool};
use crate::transport::Congestion;

/// Connections that carry the idle tunnels of one kind.
const TENTH: usize = 10;
const ATTEMPT: Duration = Duration::from_millis(500);
const RARELY: Duration = Duration::from_millis(50);
/// How long a server may take to finish what it does for connections and tunnels that are open.
const SETTLED: Duration = Duration::from_millis(500);

/// Carries out `handshakes`: connections that are closed as soon as they are confirmed.
pub fn run_handshakes(order: &Order) -> Outcome<Cost> {
    let mut pool = Pool::new(order.dial(Congestion::Open)?)?;
    let measured = Instant::now() + order.warmup()?;
    let end = measured + order.seconds()?;
    let begin = |pool: &mut Pool| Ok((pool.connect()?, Instant::now()));
    let mut started: Vec<(usize, Instant)> =
        (0..order.parallel()?).map(|_| begin(&mut pool)).collect::<Outcome<_>>()?;
    let (mut done, mut meter) = (0, None);
    while Instant::now() < end {
        if meter.is_none() && Instant::now() >= measured {
            meter = Some(Meter::start(&order.pids)?);
            done = 0;
        }
        pool.step(RARELY)?;
        for slot in &mut started {
            let is_connected = pool.is_connected(slot.0);
            if is_connected || pool.is_closed(slot.0) {
                done += u64::from(is_connected);
                pool.forget(slot.0);
                *slot = begin(&mut pool)?;
            } else if slot.1.elapsed() > PATIENCE {
                return fail("a handshake hangs");
            }
        }
    }
    match meter {
        Some(meter) => meter.stop(done, done),
        None => fail("nothing was measured"),
    }
}

/// Carries out `memory`: opens idle connections, then idle tunnels on ten of them, and reads the server's memory in
/// between. The answer has the kinds of tunnels that the order has targets for.
pub fn run_memory(order: &Order) -> Outcome<Value> {
    let (connections, tunnels) = (order.connections()?, order.tunnels()?);
    let Some(&pid) = order.pids.first() else { return fail("an order for memory needs pids") };
    if connections < 2 * TENTH || !tunnels.is_multiple_of(TENTH) {
        return fail("memory needs 20 connections or more, and tunnels in tens");
    }
    let mut pool = Pool::new(order.dial(Congestion::Open)?)?;
    pool.connect_many(4)?;
    let base = settled(&mut pool, pid)?;
    let clients = pool.connect_many(connections)?;
    let mut before = settled(&mut pool, pid)?;
    let mut answer = json!({"base": base, "connection": (before - base) / connections as f64});
    for ((name, head), own) in order.heads()?.into_iter().zip(clients.chunks(TENTH)) {
        for &client in own {
            pool.open_tunnels(client, &head, tunnels / TENTH)?;
        }
        let after = settled(&mut pool, pid)?;
        answer[name] = json!((after - before) / tunnels as f64);
        before = after;
    }
    Ok(answer)
}

fn settled(pool: &mut Pool, pid: i32) -> Outcome<f64> {
    let end = Instant::now() + SETTLED;
    while Instant::now() < end {
        pool.step(RARELY)?;
    }
    Ok(resident_bytes(pid)? as f64)
}

/// Carries out `probe`: waits until the server completes a handshake.
pub fn run_probe(order: &Order) -> Outcome<Value> {
    let dial = order.dial(Congestion::Open)?;
    let (begin, longest) = (Instant::now(), order.seconds()?);
    while begin.elapsed() < longest {
        let mut pool = Pool::new(dial.clone())?;
        let client = pool.connect()?;
        if pool.wait_until(|pool| pool.is_connected(client), ATTEMPT, "handshake").is_ok() {
            return Ok(json!({"seconds": begin.elapsed().as_secs_f64()}));
        }
    }
    fail(format!("no handshake within {longest:?}"))
}

//! Bytes through CONNECT tunnels of one connection for a time: for links that lose, where a volume may take for ever.

use std::time::Duration;

use crate::failure::{Outcome, fail};
use crate::loads::transfer::{download_for, upload_for};
use crate::measure::{Cost, Meter};
use crate::order::{Direction, Order};
use crate::pool::Pool;
use crate::transport::Congestion;

/// How long an upload's last bytes may take.
const LAST: Duration = Duration::from_secs(30);

/// Carries out `paced-streams`; work is in bytes that arrived.
///
/// An upload is over when the origin has counted it: the time is a little longer then, and all of it is measured. One
/// more tunnel carries bytes for `warmup` seconds before.
pub fn run(order: &Order) -> Outcome<Cost> {
    let Some(direction) = order.direction else { return fail("an order for paced-streams needs direction") };
    let head = order.head(false)?;
    let mut pool = Pool::new(order.dial(Congestion::Bbr)?)?;
    let client = pool.connect_many(1)?[0];
    if !order.warmup()?.is_zero() {
        let first = pool.open_tunnels(client, &head, 1)?;
        carry(&mut pool, direction, client, &first, order.warmup()?)?;
        pool.client(client).abandon_stream(first[0]);
    }
    let opened = pool.open_tunnels(client, &head, order.streams()?)?;
    let meter = Meter::start(&order.pids)?;
    let arrived = carry(&mut pool, direction, client, &opened, order.seconds()?)?;
    meter.stop(arrived, arrived)
}

fn carry(pool: &mut Pool, direction: Direction, client: usize, streams: &[u64], time: Duration) -> Outcome<u64> {
    match direction {
        Direction::Down => download_for(pool, client, streams, time),
        Direction::Up => upload_for(pool, client, streams, time, LAST),
    }
}

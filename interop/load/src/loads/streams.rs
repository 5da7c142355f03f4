//! A volume of bytes through CONNECT tunnels of one connection.

use crate::failure::{Outcome, fail};
use crate::loads::transfer::{download, upload};
use crate::measure::{Cost, Meter};
use crate::order::{Direction, Order};
use crate::pool::Pool;
use crate::transport::Congestion;

/// Carries out `streams`; work is in bytes that arrived.
///
/// One more tunnel carries `warmup` bytes before the measurement, so that congestion windows are open.
pub fn run(order: &Order) -> Outcome<Cost> {
    let carry = match order.direction {
        Some(Direction::Down) => download,
        Some(Direction::Up) => upload,
        None => return fail("an order for streams needs direction"),
    };
    let (streams, longest) = (order.streams()?, order.seconds()?);
    let share = (order.size()? / streams) as u64;
    let head = order.head(false)?;
    let mut pool = Pool::new(order.dial(Congestion::Cubic)?)?;
    let client = pool.connect_many(1)?[0];
    let first = pool.open_tunnels(client, &head, 1)?;
    carry(&mut pool, client, &first, order.warmup_bytes()?, longest)?;
    let opened = pool.open_tunnels(client, &head, streams)?;
    let meter = Meter::start(&order.pids)?;
    let arrived = carry(&mut pool, client, &opened, share, longest)?;
    meter.stop(arrived, share * streams as u64)
}

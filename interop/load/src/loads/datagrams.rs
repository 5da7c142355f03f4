//! Echoes through CONNECT-UDP tunnels of one connection, closed loop. An echo is two relayed datagrams.

use crate::failure::Outcome;
use crate::loads::echo::EchoLoop;
use crate::measure::{Cost, Meter};
use crate::order::Order;
use crate::pool::Pool;
use crate::transport::Congestion;

/// Carries out `datagrams`; work is in datagrams relayed.
pub fn run(order: &Order) -> Outcome<Cost> {
    let mut pool = Pool::new(order.dial(Congestion::Open)?)?;
    let client = pool.connect_many(1)?[0];
    let streams = pool.open_tunnels(client, &order.head(true)?, order.tunnels()?)?;
    pool.client(client).check_datagram_size(order.size()?)?;
    let opened: Vec<(usize, u64)> = streams.into_iter().map(|stream| (client, stream)).collect();
    let mut echo = EchoLoop::new(&opened, order.size()?, order.window()?, pool.now);
    echo.run(&mut pool, order.warmup()?)?;
    let (sent, echoed) = (echo.sent, echo.echoed());
    let meter = Meter::start(&order.pids)?;
    echo.run(&mut pool, order.seconds()?)?;
    meter.stop(2 * (echo.echoed() - echoed), 2 * (echo.sent - sent))
}

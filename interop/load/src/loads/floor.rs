//! Bare UDP datagrams through the floor's forwarder: what the kernel alone costs.

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use crate::epoll::{Epoll, Interest};
use crate::failure::{Outcome, fail};
use crate::measure::{Cost, Meter};
use crate::order::Order;
use crate::udp::{self, Inbox};

const STALL: Duration = Duration::from_millis(50);

/// Carries out `floor`; work is in datagrams forwarded, two for an echo.
pub fn run(order: &Order) -> Outcome<Cost> {
    let (size, batch, window) = (order.size()?, order.batch()?, order.window()?);
    let server = order.server()?;
    let socket = udp::open(udp::unbound(server), Some(server))?;
    let mut epoll = Epoll::new()?;
    epoll.add(&socket, 0, Interest::Read)?;
    let payload = vec![0; size * batch];
    let mut inbox = Inbox::new();
    let (mut sent, mut echoed, mut under_way) = (0, 0, 0usize);
    let mut meter = None;
    let measured = Instant::now() + order.warmup()?;
    let end = measured + order.seconds()?;
    while Instant::now() < end {
        if meter.is_none() && Instant::now() >= measured {
            meter = Some(Meter::start(&order.pids)?);
            (sent, echoed) = (0, 0);
        }
        while under_way + batch <= window {
            // what the kernel refuses is lost
            let _ = udp::send(&socket, &payload, size, None);
            under_way += batch;
            sent += batch as u64;
        }
        if epoll.wait(Some(STALL))?.count() == 0 {
            under_way = 0;
        }
        let count = count_echoes(&socket, &mut inbox);
        echoed += count as u64;
        under_way = under_way.saturating_sub(count);
    }
    match meter {
        Some(meter) => meter.stop(2 * echoed, 2 * sent),
        None => fail("nothing was measured"),
    }
}

fn count_echoes(socket: &UdpSocket, inbox: &mut Inbox) -> usize {
    let (mut count, mut has_more) = (0, true);
    while has_more {
        has_more = inbox.receive(socket);
        count += inbox.batches.iter().map(|echo| echo.payload.len().div_ceil(echo.segment)).sum::<usize>();
    }
    count
}

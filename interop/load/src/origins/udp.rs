//! The UDP origin: echoes datagrams, in the batches in which they came.

use std::io::{self, stdin};
use std::net::{IpAddr, UdpSocket};

use crate::epoll::{Epoll, Interest};
use crate::origins::{INPUT, tell_port};
use crate::udp::{self, Inbox};

const READS: usize = 16;

/// Echoes until standard input ends.
pub fn serve(host: IpAddr) -> io::Result<()> {
    let socket = udp::open((host, 0).into(), None)?;
    tell_port(socket.local_addr()?.port())?;
    let mut epoll = Epoll::new()?;
    epoll.add(&socket, 0, Interest::Read)?;
    epoll.add(&stdin(), INPUT, Interest::Read)?;
    let mut inbox = Inbox::new();
    loop {
        if epoll.wait(None)?.any(|token| token == INPUT) {
            return Ok(());
        }
        echo_waiting(&socket, &mut inbox);
    }
}

/// Echoes what waits in a socket; the rest, if there is much, with the next call.
pub fn echo_waiting(socket: &UdpSocket, inbox: &mut Inbox) {
    for _ in 0..READS {
        let has_more = inbox.receive(socket);
        for batch in inbox.batches.drain(..) {
            // what the kernel refuses is lost
            let _ = udp::send(socket, &batch.payload, batch.segment, Some(batch.sender));
        }
        if !has_more {
            break;
        }
    }
}

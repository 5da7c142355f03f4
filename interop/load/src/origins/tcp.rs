//! The TCP origin: sends zeros, or counts what it receives. `command` says how a connection begins.

use std::collections::HashMap;
use std::io::{self, ErrorKind, Read, Write, stdin};
use std::net::{IpAddr, TcpStream};
use std::os::fd::AsRawFd;

use crate::command::{COMMAND_BYTES, Command, parse};
use crate::epoll::{Epoll, Interest};
use crate::origins::{INPUT, tell_port};

const LISTENER: usize = usize::MAX - 1;
const CHUNK: usize = 256 << 10;
const BACKLOG: i32 = 1024;

static ZEROS: [u8; CHUNK] = [0; CHUNK];

/// Serves downloads and uploads until standard input ends.
pub fn serve(host: IpAddr) -> io::Result<()> {
    let listener = std::net::TcpListener::bind((host, 0))?;
    // a second listen only widens the queue, which is 128 in the standard library
    // SAFETY: the call takes no pointer
    if unsafe { libc::listen(listener.as_raw_fd(), BACKLOG) } != 0 {
        return Err(io::Error::last_os_error());
    }
    listener.set_nonblocking(true)?;
    tell_port(listener.local_addr()?.port())?;
    let mut epoll = Epoll::new()?;
    epoll.add(&listener, LISTENER, Interest::Read)?;
    epoll.add(&stdin(), INPUT, Interest::Read)?;
    let mut exchanges: HashMap<usize, Exchange> = HashMap::new();
    loop {
        let ready: Vec<usize> = epoll.wait(None)?.collect();
        for token in ready {
            match token {
                INPUT => return Ok(()),
                LISTENER => {
                    while let Ok((socket, _)) = listener.accept() {
                        socket.set_nonblocking(true)?;
                        let token = socket.as_raw_fd() as usize;
                        epoll.add(&socket, token, Interest::Read)?;
                        exchanges.insert(token, Exchange::new(socket));
                    }
                }
                _ => serve_ready(&epoll, &mut exchanges, token)?,
            }
        }
    }
}

/// Moves one connection on, and closes it at its end.
fn serve_ready(epoll: &Epoll, exchanges: &mut HashMap<usize, Exchange>, token: usize) -> io::Result<()> {
    let Some(exchange) = exchanges.get_mut(&token) else { return Ok(()) };
    match exchange.on_ready() {
        Ok(Some(interest)) if interest == exchange.interest => {}
        Ok(Some(interest)) => {
            exchange.interest = interest;
            epoll.change(&exchange.socket, token, interest)?;
        }
        Err(error) if error.kind() == ErrorKind::WouldBlock => {}
        // the other side may go at any time
        Ok(None) | Err(_) => drop(exchanges.remove(&token)),
    }
    Ok(())
}

/// One connection: its command, and how far it has got.
struct Exchange {
    socket: TcpStream,
    interest: Interest,
    head: Vec<u8>,
    command: Option<Command>,
    done: u64,
}

impl Exchange {
    fn new(socket: TcpStream) -> Self {
        Self { socket, interest: Interest::Read, head: Vec::new(), command: None, done: 0 }
    }

    /// Does what the socket allows now, and tells what to wait for; None at the end.
    fn on_ready(&mut self) -> io::Result<Option<Interest>> {
        match self.command {
            None => self.receive_command(),
            Some(Command::Download(size)) => self.send_zeros(size),
            Some(Command::Upload) => self.count(),
        }
    }

    fn receive_command(&mut self) -> io::Result<Option<Interest>> {
        let mut data = [0; COMMAND_BYTES];
        let size = self.socket.read(&mut data[self.head.len()..])?;
        let start = self.head.len();
        self.head.extend_from_slice(&data[start..start + size]);
        self.command = parse(&self.head);
        Ok(match self.command {
            _ if size == 0 => None,
            Some(Command::Download(_)) => Some(Interest::Write),
            _ => Some(Interest::Read),
        })
    }

    fn send_zeros(&mut self, size: u64) -> io::Result<Option<Interest>> {
        if self.done < size {
            let most = (size - self.done).min(CHUNK as u64) as usize;
            self.done += self.socket.write(&ZEROS[..most])? as u64;
        }
        Ok((self.done < size).then_some(Interest::Write))
    }

    fn count(&mut self) -> io::Result<Option<Interest>> {
        // MSG_TRUNC: the kernel throws the bytes away and copies nothing (tcp(7))
        // SAFETY: with MSG_TRUNC nothing is written
        let size = unsafe { libc::recv(self.socket.as_raw_fd(), std::ptr::null_mut(), CHUNK << 2, libc::MSG_TRUNC) };
        match size {
            1.. => {
                self.done += size as u64;
                Ok(Some(Interest::Read))
            }
            0 => {
                self.socket.write_all(&self.done.to_be_bytes())?;
                Ok(None)
            }
            _ => Err(io::Error::last_os_error()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, Shutdown, TcpListener};

    use crate::command::encode;

    /// Runs one exchange to its end, against a client that says this and ends; gives what the client got.
    fn exchange(said: Vec<u8>) -> Vec<u8> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let mut exchange = Exchange::new(listener.accept().unwrap().0);
        let writer = std::thread::spawn(move || {
            client.write_all(&said).unwrap();
            client.shutdown(Shutdown::Write).unwrap();
            let mut got = Vec::new();
            client.read_to_end(&mut got).unwrap();
            got
        });
        while exchange.on_ready().unwrap().is_some() {}
        drop(exchange);
        writer.join().unwrap()
    }

    #[test]
    fn downloads() {
        for size in [0, 1, CHUNK, 3 * CHUNK + 5] {
            assert_eq!(exchange(encode(Command::Download(size as u64)).into()), vec![0; size]);
        }
    }

    #[test]
    fn uploads_are_counted() {
        for size in [0, 1, 5 * CHUNK + 7] {
            let mut said = encode(Command::Upload).to_vec();
            said.resize(COMMAND_BYTES + size, 1);
            assert_eq!(exchange(said), (size as u64).to_be_bytes());
        }
    }

    #[test]
    fn nothing_comes_of_half_a_command() {
        assert_eq!(exchange(b"D\0\0".to_vec()), b"");
    }
}

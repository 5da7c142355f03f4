//! The benchmark's load generator; README.md says what it takes and gives.

mod client;
mod command;
mod datagram;
mod epoll;
mod failure;
mod http3;
mod loads;
mod measure;
mod mirror;
mod order;
mod origins;
mod pool;
mod qpack;
mod samples;
mod schedule;
mod serve;
mod tls;
mod transport;
mod udp;
mod varint;

use std::net::{IpAddr, Ipv4Addr};
use std::process::ExitCode;

use failure::{Outcome, fail};

const USAGE: &str = "usage: load | load origin udp|tcp [--host ADDRESS] | load mirror [--host ADDRESS]";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments.iter().map(String::as_str).collect::<Vec<_>>()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("{failure}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[&str]) -> Outcome<()> {
    match arguments {
        [] => Ok(serve::serve()?),
        ["origin", "udp", rest @ ..] => Ok(origins::udp::serve(parse_host(rest)?)?),
        ["origin", "tcp", rest @ ..] => Ok(origins::tcp::serve(parse_host(rest)?)?),
        ["mirror", rest @ ..] => mirror::serve(parse_host(rest)?),
        _ => fail(USAGE),
    }
}

/// Reads where to listen: an address of this machine, 127.0.0.1 unless told.
fn parse_host(arguments: &[&str]) -> Outcome<IpAddr> {
    match arguments {
        [] => Ok(Ipv4Addr::LOCALHOST.into()),
        ["--host", host] => host.parse().or_else(|_| fail(format!("{host} is no address"))),
        _ => fail(USAGE),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_lines() {
        assert_eq!(parse_host(&[]).unwrap(), IpAddr::from(Ipv4Addr::LOCALHOST));
        assert_eq!(parse_host(&["--host", "::1"]).unwrap(), "::1".parse::<IpAddr>().unwrap());
        assert!(parse_host(&["--host"]).is_err() && parse_host(&["--host", "here"]).is_err());
        assert_eq!(run(&["origin", "icmp"]).unwrap_err().0, USAGE);
    }
}

//! The origins behind the server under test, each in a process of its own.

pub mod tcp;
pub mod udp;

use std::io::{self, Write};

/// The token of standard input, whose end is the process's.
pub const INPUT: usize = usize::MAX;

/// Prints the port, which is the first line.
pub fn tell_port(port: u16) -> io::Result<()> {
    let mut output = io::stdout();
    writeln!(output, "{port}")?;
    output.flush()
}

//! What a process costs: CPU time and resident memory, read from the kernel's own account.
//!
//! CPU time is the process's CPU clock (clock_getcpuclockid(3)): user and system time of all its threads, in
//! nanoseconds. A process counts together with its descendants, so a server that forks workers is measured whole.

use std::fs;
use std::io;
use std::ops::AddAssign;
use std::time::Instant;

use serde::Serialize;

use crate::failure::{Outcome, fail};

// a process's CPU clock has this kind in the low three bits of its id, and the inverted process id above them
const CPU_CLOCK: libc::clockid_t = 2;

/// What one measurement found.
#[derive(Serialize, Default)]
pub struct Cost {
    /// Units of work done: datagrams relayed, bytes carried, handshakes.
    pub work: f64,
    /// Units of work asked for.
    pub offered: f64,
    /// How long it took.
    pub seconds: f64,
    /// CPU seconds of the server alone.
    pub proxy_cpu: f64,
    /// CPU seconds of the generator and the origins.
    pub load_cpu: f64,
}

impl AddAssign for Cost {
    fn add_assign(&mut self, other: Self) {
        self.work += other.work;
        self.offered += other.offered;
        self.seconds += other.seconds;
        self.proxy_cpu += other.proxy_cpu;
        self.load_cpu += other.load_cpu;
    }
}

/// Reads CPU time at two moments: the server's, and that of the generator and the origins.
///
/// Loads count their work between the same two moments, so start-up, handshakes and warm-up are never part of a
/// figure.
pub struct Meter {
    pids: Vec<i32>,
    start: (Instant, f64, f64),
}

impl Meter {
    /// Reads the first time; the first process is the server, the others are the origins.
    pub fn start(pids: &[i32]) -> Outcome<Self> {
        let pids = pids.to_vec();
        let start = read_all(&pids)?;
        Ok(Self { pids, start })
    }

    /// Reads the second time.
    pub fn stop(self, work: u64, offered: u64) -> Outcome<Cost> {
        let (begin, proxy, load) = self.start;
        let (end, proxy_end, load_end) = read_all(&self.pids)?;
        Ok(Cost {
            work: work as f64,
            offered: offered as f64,
            seconds: (end - begin).as_secs_f64(),
            proxy_cpu: proxy_end - proxy,
            load_cpu: load_end - load,
        })
    }
}

fn read_all(pids: &[i32]) -> Outcome<(Instant, f64, f64)> {
    let Some((server, origins)) = pids.split_first() else {
        return fail("an order that measures needs pids");
    };
    let proxy = cpu_seconds(*server)?;
    let mut load = read_clock(libc::CLOCK_PROCESS_CPUTIME_ID)?;
    for origin in origins {
        load += cpu_seconds(*origin)?;
    }
    Ok((Instant::now(), proxy, load))
}

/// Reads the CPU seconds of a process and all its descendants that are alive.
fn cpu_seconds(pid: i32) -> io::Result<f64> {
    let own = read_clock(!pid << 3 | CPU_CLOCK)?;
    let others = descendants(pid).into_iter().filter_map(|child| read_clock(!child << 3 | CPU_CLOCK).ok());
    Ok(own + others.sum::<f64>())
}

/// Reads the resident bytes of a process and all its descendants that are alive.
pub fn resident_bytes(pid: i32) -> io::Result<u64> {
    let own = read_resident(pid)?;
    let others = descendants(pid).into_iter().filter_map(|child| read_resident(child).ok());
    Ok(own + others.sum::<u64>())
}

fn read_resident(pid: i32) -> io::Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/statm"))?;
    let pages = text.split_whitespace().nth(1).and_then(|word| word.parse::<u64>().ok());
    let pages = pages.ok_or(io::ErrorKind::InvalidData)?;
    // SAFETY: sysconf only reads
    Ok(pages * unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as u64)
}

fn read_clock(clock: libc::clockid_t) -> io::Result<f64> {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel writes one timespec
    if unsafe { libc::clock_gettime(clock, &mut time) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(time.tv_sec as f64 + time.tv_nsec as f64 / 1e9)
}

fn descendants(pid: i32) -> Vec<i32> {
    let mut found = Vec::new();
    for task in fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
        let children = fs::read_to_string(task.path().join("children")).unwrap_or_default();
        for child in children.split_whitespace().filter_map(|word| word.parse().ok()) {
            found.push(child);
            found.extend(descendants(child));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn own_cpu_grows_with_work() {
        let pid = std::process::id() as i32;
        let meter = Meter::start(&[pid]).unwrap();
        let begin = read_clock(libc::CLOCK_THREAD_CPUTIME_ID).unwrap();
        while read_clock(libc::CLOCK_THREAD_CPUTIME_ID).unwrap() < begin + 0.02 {}
        let cost = meter.stop(1, 2).unwrap();
        assert!(cost.proxy_cpu >= 0.02 && cost.load_cpu >= 0.02, "{} {}", cost.proxy_cpu, cost.load_cpu);
        assert!(cost.seconds >= 0.02);
        assert!(resident_bytes(pid).unwrap() > 4096);
    }

    #[test]
    fn children_are_found_and_the_dead_are_an_error() {
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let pid = child.id() as i32;
        assert!(descendants(std::process::id() as i32).contains(&pid));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(Meter::start(&[pid]).is_err());
        assert!(Meter::start(&[]).is_err());
    }
}

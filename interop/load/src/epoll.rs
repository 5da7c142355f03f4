//! One epoll with timeouts in nanoseconds: at high rates a millisecond is a thousand datagrams.

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

const EVENTS: usize = 256;

/// Waits for many descriptors, each with a token that tells which it was.
pub struct Epoll {
    fd: OwnedFd,
    events: Vec<libc::epoll_event>,
}

/// What to wait for.
#[derive(Clone, Copy, PartialEq)]
pub enum Interest {
    /// There is something to read.
    Read,
    /// There is room to write.
    Write,
}

impl Interest {
    fn flags(self) -> u32 {
        match self {
            Interest::Read => libc::EPOLLIN as u32,
            Interest::Write => libc::EPOLLOUT as u32,
        }
    }
}

impl Epoll {
    /// Makes an epoll that waits for nothing yet.
    pub fn new() -> io::Result<Self> {
        // SAFETY: the call takes no pointer, and its descriptor is ours alone
        let fd = unsafe {
            let fd = libc::epoll_create1(libc::EPOLL_CLOEXEC);
            if fd < 0 {
                return Err(io::Error::last_os_error());
            }
            OwnedFd::from_raw_fd(fd)
        };
        Ok(Self { fd, events: vec![libc::epoll_event { events: 0, u64: 0 }; EVENTS] })
    }

    /// Waits for a descriptor too. Closing the descriptor takes it out.
    pub fn add(&self, fd: &impl AsFd, token: usize, interest: Interest) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_ADD, fd, token, interest)
    }

    /// Waits for something else of a descriptor.
    pub fn change(&self, fd: &impl AsFd, token: usize, interest: Interest) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_MOD, fd, token, interest)
    }

    fn control(&self, operation: i32, fd: &impl AsFd, token: usize, interest: Interest) -> io::Result<()> {
        let mut event = libc::epoll_event { events: interest.flags(), u64: token as u64 };
        // SAFETY: the kernel reads one epoll_event
        let result = unsafe { libc::epoll_ctl(self.fd.as_raw_fd(), operation, fd.as_fd().as_raw_fd(), &mut event) };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// Waits, for ever if None, and gives the tokens of what is ready.
    pub fn wait(&mut self, timeout: Option<Duration>) -> io::Result<impl Iterator<Item = usize> + '_> {
        let time = timeout.map(|timeout| libc::timespec {
            tv_sec: timeout.as_secs() as i64,
            tv_nsec: i64::from(timeout.subsec_nanos()),
        });
        let time = time.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
        // SAFETY: the kernel writes at most EVENTS events, and reads one timespec if there is one
        let count = unsafe {
            libc::epoll_pwait2(self.fd.as_raw_fd(), self.events.as_mut_ptr(), EVENTS as i32, time, std::ptr::null())
        };
        let count = match count {
            0.. => count as usize,
            _ if io::Error::last_os_error().kind() == io::ErrorKind::Interrupted => 0,
            _ => return Err(io::Error::last_os_error()),
        };
        Ok(self.events[..count].iter().map(|event| event.u64 as usize))
    }
}

/// Asks the kernel to wake this thread when it said, and not up to 50 microseconds later.
pub fn wake_on_time() {
    // SAFETY: the call takes no pointer
    unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1) };
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::unix::net::UnixStream;
    use std::time::Instant;

    #[test]
    fn tokens_and_timeouts() {
        let mut epoll = Epoll::new().unwrap();
        let (mut near, far) = UnixStream::pair().unwrap();
        epoll.add(&far, 7, Interest::Read).unwrap();
        let begin = Instant::now();
        assert_eq!(epoll.wait(Some(Duration::from_micros(300))).unwrap().count(), 0);
        assert!(begin.elapsed() >= Duration::from_micros(300));
        near.write_all(b"x").unwrap();
        assert_eq!(epoll.wait(None).unwrap().collect::<Vec<_>>(), [7]);
        epoll.change(&far, 8, Interest::Write).unwrap();
        assert_eq!(epoll.wait(None).unwrap().collect::<Vec<_>>(), [8]);
        drop(far);
        assert_eq!(epoll.wait(Some(Duration::ZERO)).unwrap().count(), 0);
    }
}

//! UDP sockets in batches: many datagrams to a system call, by UDP_GRO, UDP_SEGMENT and recvmmsg (udp(7)).

use std::io;
use std::mem::{size_of, zeroed};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;

use bytes::BytesMut;

/// Segments that one call may send; older kernels take no more.
pub const MAX_SEGMENTS: usize = 64;

const BUFFER_BYTES: libc::c_int = 4 << 20;
const MAX_BYTES: usize = 65_507;
const SLOT_BYTES: usize = 1 << 16;
const SLOTS: usize = 8;

/// Datagrams of one sender that the kernel has joined.
pub struct Batch {
    /// The joined payloads.
    pub payload: BytesMut,
    /// The size of each but the last.
    pub segment: usize,
    /// Who sent them.
    pub sender: SocketAddr,
}

/// What a call to the kernel has brought, in buffers that are used again once their batches are dropped.
pub struct Inbox {
    /// The batches of the last call.
    pub batches: Vec<Batch>,
    buffers: Vec<BytesMut>,
    slots: Box<[Slot; SLOTS]>,
    headers: Box<[libc::mmsghdr; SLOTS]>,
}

/// What the headers point to, besides the buffers.
struct Slot {
    vector: libc::iovec,
    name: libc::sockaddr_storage,
    // u64 for the alignment of cmsghdr
    control: [u64; 8],
}

impl Inbox {
    /// Makes empty buffers.
    pub fn new() -> Self {
        // SAFETY: all-zero bytes are valid for these C structures
        let (slots, headers) = unsafe { (Box::new(zeroed()), Box::new(zeroed())) };
        Self { batches: Vec::new(), buffers: vec![BytesMut::new(); SLOTS], slots, headers }
    }

    /// Receives what waits in a socket, and tells whether there may be more.
    ///
    /// An error that an earlier send has left behind is dropped: UDP may lose anything.
    pub fn receive(&mut self, socket: &UdpSocket) -> bool {
        self.batches.clear();
        self.point();
        // SAFETY: every pointer in `headers` is to a buffer that is alive and as long as it says
        let count = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                self.headers.as_mut_ptr(),
                SLOTS as u32,
                libc::MSG_DONTWAIT,
                std::ptr::null_mut(),
            )
        };
        if count < 0 {
            return io::Error::last_os_error().kind() != io::ErrorKind::WouldBlock;
        }
        for at in 0..count as usize {
            let batch = self.take(at);
            self.batches.extend(batch);
        }
        count as usize == SLOTS
    }

    fn point(&mut self) {
        for ((buffer, slot), header) in self.buffers.iter_mut().zip(self.slots.iter_mut()).zip(self.headers.iter_mut())
        {
            buffer.reserve(SLOT_BYTES);
            slot.vector.iov_base = buffer.spare_capacity_mut().as_mut_ptr().cast();
            slot.vector.iov_len = SLOT_BYTES;
            header.msg_hdr.msg_iov = &mut slot.vector;
            header.msg_hdr.msg_iovlen = 1;
            header.msg_hdr.msg_name = (&raw mut slot.name).cast();
            header.msg_hdr.msg_namelen = size_of::<libc::sockaddr_storage>() as u32;
            header.msg_hdr.msg_control = slot.control.as_mut_ptr().cast();
            header.msg_hdr.msg_controllen = size_of_val(&slot.control);
        }
    }

    fn take(&mut self, at: usize) -> Option<Batch> {
        let (header, buffer) = (&self.headers[at], &mut self.buffers[at]);
        let size = header.msg_len as usize;
        // SAFETY: the kernel has written so many bytes behind the empty buffer's start
        unsafe { buffer.set_len(size) };
        let sender = parse_address(&self.slots[at].name)?;
        let segment = parse_segment(&header.msg_hdr).unwrap_or(size).max(1);
        Some(Batch { payload: buffer.split_to(size), segment, sender })
    }
}

/// Opens a non-blocking socket that takes and gives batches.
pub fn open(bound: SocketAddr, peer: Option<SocketAddr>) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind(bound)?;
    socket.set_nonblocking(true)?;
    set_option(&socket, libc::SOL_SOCKET, libc::SO_RCVBUF, BUFFER_BYTES)?;
    set_option(&socket, libc::SOL_SOCKET, libc::SO_SNDBUF, BUFFER_BYTES)?;
    set_option(&socket, libc::SOL_UDP, libc::UDP_GRO, 1)?;
    if let Some(peer) = peer {
        socket.connect(peer)?;
    }
    Ok(socket)
}

/// The address that a socket for this peer is bound to: any, of the same family.
pub fn unbound(peer: SocketAddr) -> SocketAddr {
    match peer {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    }
}

/// Sends one buffer as datagrams of equal size, the last may be shorter; to the peer of a connected socket if None.
///
/// What the kernel refuses is lost, as any datagram may be; the error says so.
pub fn send(socket: &UdpSocket, payload: &[u8], segment: usize, peer: Option<SocketAddr>) -> io::Result<()> {
    let most = segment * MAX_SEGMENTS.min(MAX_BYTES / segment.max(1)).max(1);
    let mut name = encode_address(peer);
    let (name, size) = match &mut name {
        Some((name, size)) => ((&raw mut *name).cast(), *size),
        None => (std::ptr::null_mut(), 0),
    };
    if payload.len() <= segment {
        return send_one(socket, payload, None, name, size);
    }
    for chunk in payload.chunks(most) {
        send_one(socket, chunk, (chunk.len() > segment).then_some(segment as u16), name, size)?;
    }
    Ok(())
}

fn send_one(
    socket: &UdpSocket,
    payload: &[u8],
    segment: Option<u16>,
    name: *mut libc::c_void,
    name_size: u32,
) -> io::Result<()> {
    let mut control = [0u64; 4];
    let mut vector = libc::iovec { iov_base: payload.as_ptr().cast_mut().cast(), iov_len: payload.len() };
    // SAFETY: all-zero bytes are a valid msghdr; the pointers are to what lives until the call has returned, and
    // `control` has room for one header with two bytes
    let sent = unsafe {
        let mut header: libc::msghdr = zeroed();
        header.msg_iov = &mut vector;
        header.msg_iovlen = 1;
        header.msg_name = name;
        header.msg_namelen = name_size;
        if let Some(segment) = segment {
            header.msg_control = control.as_mut_ptr().cast();
            header.msg_controllen = libc::CMSG_SPACE(size_of::<u16>() as u32) as usize;
            let item = libc::CMSG_FIRSTHDR(&header);
            (*item).cmsg_level = libc::SOL_UDP;
            (*item).cmsg_type = libc::UDP_SEGMENT;
            (*item).cmsg_len = libc::CMSG_LEN(size_of::<u16>() as u32) as usize;
            libc::CMSG_DATA(item).cast::<u16>().write_unaligned(segment);
        }
        libc::sendmsg(socket.as_raw_fd(), &header, 0)
    };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn set_option(socket: &UdpSocket, level: i32, name: i32, value: libc::c_int) -> io::Result<()> {
    // SAFETY: the value is an int, as these options want
    let result = unsafe {
        libc::setsockopt(socket.as_raw_fd(), level, name, (&raw const value).cast(), size_of_val(&value) as u32)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn parse_segment(header: &libc::msghdr) -> Option<usize> {
    // SAFETY: the kernel has filled the control buffer up to msg_controllen
    unsafe {
        let mut item = libc::CMSG_FIRSTHDR(header);
        while !item.is_null() {
            if (*item).cmsg_level == libc::SOL_UDP && (*item).cmsg_type == libc::UDP_GRO {
                return Some(libc::CMSG_DATA(item).cast::<libc::c_int>().read_unaligned() as usize);
            }
            item = libc::CMSG_NXTHDR(header, item);
        }
    }
    None
}

fn parse_address(name: &libc::sockaddr_storage) -> Option<SocketAddr> {
    // SAFETY: sockaddr_storage is aligned and large enough for either, and the family says which it is
    unsafe {
        match i32::from(name.ss_family) {
            libc::AF_INET => {
                let name = &*(&raw const *name).cast::<libc::sockaddr_in>();
                let address = Ipv4Addr::from(u32::from_be(name.sin_addr.s_addr));
                Some((address, u16::from_be(name.sin_port)).into())
            }
            libc::AF_INET6 => {
                let name = &*(&raw const *name).cast::<libc::sockaddr_in6>();
                Some((Ipv6Addr::from(name.sin6_addr.s6_addr), u16::from_be(name.sin6_port)).into())
            }
            _ => None,
        }
    }
}

fn encode_address(peer: Option<SocketAddr>) -> Option<(libc::sockaddr_storage, u32)> {
    let peer = peer?;
    // SAFETY: all-zero bytes are valid; sockaddr_storage is aligned and large enough for either
    unsafe {
        let mut storage: libc::sockaddr_storage = zeroed();
        let size = match peer.ip() {
            IpAddr::V4(address) => {
                let name = &mut *(&raw mut storage).cast::<libc::sockaddr_in>();
                name.sin_family = libc::AF_INET as u16;
                name.sin_port = peer.port().to_be();
                name.sin_addr.s_addr = u32::from(address).to_be();
                size_of::<libc::sockaddr_in>()
            }
            IpAddr::V6(address) => {
                let name = &mut *(&raw mut storage).cast::<libc::sockaddr_in6>();
                name.sin6_family = libc::AF_INET6 as u16;
                name.sin6_port = peer.port().to_be();
                name.sin6_addr.s6_addr = address.octets();
                size_of::<libc::sockaddr_in6>()
            }
        };
        Some((storage, size as u32))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loopback(version: u8) -> SocketAddr {
        match version {
            4 => (Ipv4Addr::LOCALHOST, 0).into(),
            _ => (Ipv6Addr::LOCALHOST, 0).into(),
        }
    }

    fn exchange(version: u8, sizes: &[(usize, usize)]) -> Vec<(usize, usize)> {
        let receiver = open(loopback(version), None).unwrap();
        let address = receiver.local_addr().unwrap();
        let connected = open(loopback(version), Some(address)).unwrap();
        for (turn, &(size, segment)) in sizes.iter().enumerate() {
            let peer = (turn % 2 == 1).then_some(address);
            send(&connected, &vec![turn as u8; size], segment, peer).unwrap();
        }
        let mut inbox = Inbox::new();
        let mut found = Vec::new();
        while found.len() < sizes.len() {
            inbox.receive(&receiver);
            assert!(!inbox.batches.is_empty(), "loopback delivers at once");
            for batch in &inbox.batches {
                assert_eq!(batch.sender, connected.local_addr().unwrap());
                assert!(batch.payload.iter().all(|&byte| usize::from(byte) == found.len()));
                found.push((batch.payload.len(), batch.segment));
            }
        }
        found
    }

    #[test]
    fn batches_keep_their_segments() {
        let sizes = [(1200, 1200), (3000, 1200), (50 * 1100, 1100), (1, 1)];
        assert_eq!(exchange(4, &sizes), sizes);
        assert_eq!(exchange(6, &sizes), sizes);
    }

    #[test]
    fn what_is_too_much_for_a_call_takes_two() {
        assert_eq!(exchange(4, &[(60_000, 60_000)]), [(60_000, 60_000)]);
        let receiver = open(loopback(4), None).unwrap();
        let socket = open(loopback(4), Some(receiver.local_addr().unwrap())).unwrap();
        send(&socket, &vec![0; 70 * 1400], 1400, None).unwrap();
        let mut inbox = Inbox::new();
        inbox.receive(&receiver);
        let sizes: Vec<usize> = inbox.batches.iter().map(|batch| batch.payload.len() / 1400).collect();
        assert_eq!(sizes, [46, 24]);
    }

    #[test]
    fn buffers_are_used_again() {
        let receiver = open(loopback(4), None).unwrap();
        let socket = open(loopback(4), Some(receiver.local_addr().unwrap())).unwrap();
        let mut inbox = Inbox::new();
        let mut places = Vec::new();
        for _ in 0..3 {
            send(&socket, b"x", 1, None).unwrap();
            assert!(!inbox.receive(&receiver));
            places.push(inbox.batches[0].payload.as_ptr());
        }
        assert!(places.iter().all(|&place| place == places[0]));
        assert!(!inbox.receive(&receiver) && inbox.batches.is_empty());
    }
}

//! The UDP socket: many datagrams a system call.
//!
//! Datagrams of equal size leave as one buffer that the kernel cuts (UDP_SEGMENT), whatever inner
//! flows they belong to, and arrive as one that it has joined (UDP_GRO). Buffers are allocated once.
#![allow(unsafe_code)]

use std::io;
use std::net::{SocketAddrV4, UdpSocket};
use std::os::fd::AsRawFd;

mod path;
mod receive;
mod send;

use super::ecn::Ecn;
use path::Path;
pub(super) use receive::Receiver;
pub(super) use send::Sender;

/// Socket buffers, in bytes. The kernel grants less to those without CAP_NET_ADMIN.
const SOCKET_BUFFER: usize = 4 << 20;

/// Sets the socket up for the data thread. Returns whether it can cut and whether it can join.
///
/// # Errors
/// The socket cannot be made non-blocking.
pub(super) fn prepare(socket: &UdpSocket, offload: bool) -> io::Result<(bool, bool)> {
    use rustix::net::sockopt;
    socket.set_nonblocking(true)?;
    // Smaller buffers cost throughput, nothing else.
    if sockopt::set_socket_recv_buffer_size_force(socket, SOCKET_BUFFER).is_err() {
        let _ = sockopt::set_socket_recv_buffer_size(socket, SOCKET_BUFFER);
    }
    if sockopt::set_socket_send_buffer_size_force(socket, SOCKET_BUFFER).is_err() {
        let _ = sockopt::set_socket_send_buffer_size(socket, SOCKET_BUFFER);
    }
    // The congestion that routers tell of; without it packets inside tell of none.
    let _ = sockopt::set_ip_recvtos(socket, true);
    // A size of 0 sets nothing; the kernel that knows the option takes it.
    let gso = offload && set(socket, libc::UDP_SEGMENT, 0).is_ok();
    let gro = set(socket, libc::UDP_GRO, offload.into()).is_ok() && offload;
    Ok((gso, gro))
}

fn set(socket: &UdpSocket, option: libc::c_int, value: libc::c_int) -> io::Result<()> {
    let size = size_of::<libc::c_int>() as libc::socklen_t;
    let pointer = (&raw const value).cast();
    // SAFETY: the kernel reads `size` bytes at `pointer`, which is `value`.
    let result =
        unsafe { libc::setsockopt(socket.as_raw_fd(), libc::SOL_UDP, option, pointer, size) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// One control message with a small value, in as many bytes as the kernel gives it (`CMSG_SPACE`): an
/// array of them is a buffer for several.
#[repr(C)]
#[derive(Clone, Copy)]
struct Control {
    header: libc::cmsghdr,
    value: [u8; size_of::<usize>()],
}

/// What is said beside a datagram.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Beside {
    /// Bytes of each datagram but the last, where there are several.
    segment: Option<usize>,
    ecn: Ecn,
}

/// Room for both.
type Controls = [Control; 2];

impl Control {
    const EMPTY: Self = Self {
        header: libc::cmsghdr {
            cmsg_len: 0,
            cmsg_level: 0,
            cmsg_type: 0,
        },
        value: [0; size_of::<usize>()],
    };

    fn new<const N: usize>(level: libc::c_int, kind: libc::c_int, bytes: [u8; N]) -> Self {
        let mut control = Self::EMPTY;
        control.header.cmsg_len = (size_of::<libc::cmsghdr>() + N) as _;
        control.header.cmsg_level = level;
        control.header.cmsg_type = kind;
        control.value[..N].copy_from_slice(&bytes);
        control
    }
}

impl Beside {
    /// What to tell the kernel: so many messages of the array.
    fn encode(self) -> (Controls, usize) {
        let mut controls = [Control::EMPTY; 2];
        let mut count = 0;
        let mut put = |control| {
            controls[count] = control;
            count += 1;
        };
        if let Some(size) = self.segment {
            // No datagram is longer than 65507 bytes.
            let size = (size as u16).to_ne_bytes();
            put(Control::new(libc::SOL_UDP, libc::UDP_SEGMENT, size));
        }
        if self.ecn != Ecn::NotEct {
            let tos = libc::c_int::from(self.ecn as u8).to_ne_bytes();
            put(Control::new(libc::SOL_IP, libc::IP_TOS, tos));
        }
        (controls, count)
    }

    /// What the kernel has told in `len` bytes.
    fn decode(controls: &Controls, len: usize) -> Self {
        let mut beside = Self::default();
        for control in &controls[..(len / size_of::<Control>()).min(controls.len())] {
            let [a, b, c, d, ..] = control.value;
            match (control.header.cmsg_level, control.header.cmsg_type) {
                (libc::SOL_UDP, libc::UDP_GRO) => {
                    let size = usize::try_from(i32::from_ne_bytes([a, b, c, d]));
                    beside.segment = size.ok().filter(|size| *size > 0);
                }
                // One byte.
                (libc::SOL_IP, libc::IP_TOS) => beside.ecn = Ecn::of(a),
                _ => {}
            }
        }
        beside
    }
}

fn sockaddr(address: SocketAddrV4) -> libc::sockaddr_in {
    libc::sockaddr_in {
        sin_family: libc::AF_INET as libc::sa_family_t,
        sin_port: address.port().to_be(),
        sin_addr: libc::in_addr {
            s_addr: u32::from(*address.ip()).to_be(),
        },
        sin_zero: [0; 8],
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::rc::Rc;
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    use super::super::counters::Counters;
    use super::*;

    struct Ends {
        near: Rc<UdpSocket>,
        sender: Sender,
        receiver: Receiver,
        counters: Arc<Counters>,
    }

    fn ends(offload: bool) -> Ends {
        let bind = || Rc::new(UdpSocket::bind("127.0.0.1:0").unwrap());
        let (near, far) = (bind(), bind());
        let SocketAddr::V4(remote) = far.local_addr().unwrap() else {
            unreachable!("bound to an IPv4 address")
        };
        prepare(&far, offload).unwrap();
        let (gso, _) = prepare(&near, offload).unwrap();
        let counters = Arc::<Counters>::default();
        Ends {
            sender: Sender::new(Rc::clone(&near), remote, gso, Arc::clone(&counters)),
            receiver: Receiver::new(far),
            near,
            counters,
        }
    }

    impl Ends {
        fn send(&mut self, datagrams: &[Vec<u8>]) {
            for datagram in datagrams {
                self.sender.queue(datagram);
            }
            self.sender.flush();
        }

        fn receive(&mut self, count: usize) -> Vec<Vec<u8>> {
            let port = self.near.local_addr().unwrap().port();
            let deadline = Instant::now() + Duration::from_secs(5);
            let mut all = Vec::new();
            while all.len() < count && Instant::now() < deadline {
                let Some(messages) = self.receiver.receive() else {
                    std::thread::yield_now();
                    continue;
                };
                for message in messages {
                    assert_eq!(message.from.port(), port);
                    all.extend(message.data.chunks(message.segment).map(<[u8]>::to_vec));
                }
            }
            all
        }
    }

    fn datagrams() -> Vec<Vec<u8>> {
        let sizes = [32, 1452, 1452, 1452, 80, 1452, 1200, 1200, 1300, 1, 9000];
        let many = sizes.iter().cycle().take(150);
        many.enumerate()
            .map(|(n, size)| vec![n as u8; *size])
            .collect()
    }

    #[test]
    fn datagrams_arrive_whole_and_in_order_with_offload_and_without() {
        for offload in [true, false] {
            let mut ends = ends(offload);
            ends.send(&datagrams());
            assert!(ends.receive(150) == datagrams(), "offload {offload}");
            assert_eq!(ends.counters.snapshot().offload_fallbacks, 0);
        }
    }

    #[test]
    fn a_batch_tells_of_congestion_packet_by_packet() {
        use Ecn::{Ce, Ect0, NotEct};
        let marks = [NotEct, NotEct, Ect0, Ect0, Ect0, Ce, NotEct, Ect0];
        for offload in [true, false] {
            let mut ends = ends(offload);
            for ecn in marks {
                ends.sender.slot(1000)[..1000].fill(ecn as u8);
                ends.sender.commit(1000, ecn);
            }
            ends.sender.flush();
            let mut heard = Vec::new();
            let deadline = Instant::now() + Duration::from_secs(5);
            while heard.len() < marks.len() && Instant::now() < deadline {
                for message in ends.receiver.receive().into_iter().flatten() {
                    for datagram in message.data.chunks(message.segment) {
                        assert_eq!(datagram, vec![message.ecn as u8; 1000]);
                        heard.push(message.ecn);
                    }
                }
            }
            assert_eq!(heard, marks);
        }
    }

    #[test]
    fn a_batch_the_kernel_will_not_cut_is_sent_again_uncut() {
        let mut ends = ends(true);
        // The kernel refuses to cut what it is not to checksum (EINVAL, net/ipv4/udp.c).
        let on: libc::c_int = 1;
        // SAFETY: the kernel reads four bytes at the pointer, which is `on`.
        let result = unsafe {
            libc::setsockopt(
                ends.near.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_NO_CHECK,
                (&raw const on).cast(),
                4,
            )
        };
        assert_eq!(result, 0);
        ends.send(&datagrams());
        assert!(ends.receive(150) == datagrams());
        let snapshot = ends.counters.snapshot();
        assert_eq!(snapshot.offload_fallbacks, 1);
        assert!(snapshot.dropped().all(|(_, packets)| packets == 0));
    }

    #[test]
    fn what_cannot_be_sent_is_counted_and_does_not_hold_up_the_rest() {
        let mut ends = ends(true);
        let good = vec![7; 100];
        // Longer than any datagram.
        let bad = vec![7; 65508];
        ends.send(&[good.clone(), bad, good.clone()]);
        assert_eq!(ends.receive(2), [good.clone(), good]);
        let sent = ends.counters.snapshot();
        let dropped: u64 = sent.dropped().map(|(_, packets)| packets).sum();
        assert_eq!(dropped, 1);
    }
}

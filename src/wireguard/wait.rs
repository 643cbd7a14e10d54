//! Waiting for the TUN device, the socket and the other threads.

use std::io;
use std::net::UdpSocket;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;

use rustix::event::{Timespec, epoll};
use rustix::io::Errno;

const TUN: u64 = 0;
const UDP: u64 = 1;
const WAKE: u64 = 2;

/// Who may have something to read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Ready {
    pub(super) tun: bool,
    pub(super) udp: bool,
    /// The other threads.
    pub(super) woken: bool,
}

/// What is waited for. An epoll, for a `poll` of three descriptors enters and leaves three queues of the kernel each
/// time, which is a microsecond of each idle round trip's four waits.
pub(super) struct Waiter {
    epoll: OwnedFd,
    socket: Option<Rc<UdpSocket>>,
}

impl Waiter {
    /// # Errors
    /// Those of epoll_create1(2) and epoll_ctl(2).
    pub(super) fn new(tun: BorrowedFd<'_>, wake: BorrowedFd<'_>) -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        add(&epoll, tun, TUN)?;
        add(&epoll, wake, WAKE)?;
        Ok(Self {
            epoll,
            socket: None,
        })
    }

    /// Waits for this socket from now on, in the place of the one before.
    ///
    /// # Errors
    /// Those of epoll_ctl(2).
    pub(super) fn watch(&mut self, socket: Option<Rc<UdpSocket>>) -> io::Result<()> {
        // To close it would not be enough: somebody else may hold it too (epoll(7), question 6).
        if let Some(before) = self.socket.take() {
            epoll::delete(&self.epoll, &*before)?;
        }
        if let Some(socket) = &socket {
            add(&self.epoll, socket.as_fd(), UDP)?;
        }
        self.socket = socket;
        Ok(())
    }

    /// Waits until one of them has something, or for `timeout` rounded up to a millisecond.
    ///
    /// # Errors
    /// Those of epoll_wait(2).
    pub(super) fn wait(&self, timeout: Option<Duration>) -> io::Result<Ready> {
        let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
        let mut buffer = [const { std::mem::MaybeUninit::uninit() }; 3];
        let (events, _) = match epoll::wait(&self.epoll, &mut buffer, timeout.as_ref()) {
            Ok(events) => events,
            Err(Errno::INTR) => return Ok(Ready::default()),
            Err(error) => return Err(error.into()),
        };
        let has = |which| events.iter().any(|event| event.data.u64() == which);
        Ok(Ready {
            tun: has(TUN),
            udp: has(UDP),
            woken: has(WAKE),
        })
    }
}

fn add(epoll: &OwnedFd, of: BorrowedFd<'_>, which: u64) -> io::Result<()> {
    let data = epoll::EventData::new_u64(which);
    // Of the level: what one turn leaves behind is told again.
    Ok(epoll::add(epoll, of, data, epoll::EventFlags::IN)?)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;

    use super::*;

    const NOW: Option<Duration> = Some(Duration::ZERO);

    /// A socket, and one that sends to it.
    fn socket() -> (Rc<UdpSocket>, UdpSocket) {
        let [near, far] = [(); 2].map(|()| UdpSocket::bind("127.0.0.1:0").unwrap());
        far.connect(near.local_addr().unwrap()).unwrap();
        (Rc::new(near), far)
    }

    #[test]
    fn each_is_told_apart_and_told_again_until_it_was_read() {
        let (tun, program) = UnixDatagram::pair().unwrap();
        let (wake, thread) = UnixDatagram::pair().unwrap();
        let mut waiter = Waiter::new(tun.as_fd(), wake.as_fd()).unwrap();
        let (near, far) = socket();
        waiter.watch(Some(Rc::clone(&near))).unwrap();
        assert_eq!(waiter.wait(NOW).unwrap(), Ready::default());

        far.send(b"packet").unwrap();
        let udp = Ready {
            udp: true,
            ..Ready::default()
        };
        assert_eq!(waiter.wait(None).unwrap(), udp);
        assert_eq!(waiter.wait(None).unwrap(), udp);
        program.send(b"packet").unwrap();
        let both = Ready { tun: true, ..udp };
        assert_eq!(waiter.wait(None).unwrap(), both);
        near.recv(&mut [0; 9]).unwrap();
        tun.recv(&mut [0; 9]).unwrap();
        thread.send(b"command").unwrap();
        let woken = Ready {
            woken: true,
            ..Ready::default()
        };
        assert_eq!(waiter.wait(None).unwrap(), woken);
    }

    #[test]
    fn a_socket_that_was_replaced_is_not_waited_for_although_another_holds_it() {
        let (tun, _program) = UnixDatagram::pair().unwrap();
        let (wake, _thread) = UnixDatagram::pair().unwrap();
        let mut waiter = Waiter::new(tun.as_fd(), wake.as_fd()).unwrap();
        let (first, to_first) = socket();
        let held = first.try_clone().unwrap();
        waiter.watch(Some(first)).unwrap();
        to_first.send(b"packet").unwrap();
        assert!(waiter.wait(None).unwrap().udp);
        let (second, to_second) = socket();
        waiter.watch(Some(second)).unwrap();
        assert_eq!(waiter.wait(NOW).unwrap(), Ready::default());
        to_second.send(b"packet").unwrap();
        assert!(waiter.wait(None).unwrap().udp);
        waiter.watch(None).unwrap();
        assert_eq!(waiter.wait(NOW).unwrap(), Ready::default());
        drop(held);
    }
}

//! Messages with file descriptors, over a SOCK_SEQPACKET pair.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg,
    sendmsg, socketpair,
};

use super::seqpacket;

/// Most bytes of a message. What is longer goes by [`memfd`](super::memfd), or in parts.
pub const LONGEST: usize = 64 * 1024;

/// Most file descriptors of a message.
pub const MOST_FDS: usize = 8;

/// A connected pair: message boundaries are kept, and each end learns when the other is gone. Both
/// ends are non-blocking and close on exec. The first is for the half that takes no descriptors
/// (`seqpacket::take_no_descriptors`).
///
/// # Errors
/// Where the process has no descriptors left.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let (ours, theirs) = socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        None,
    )?;
    seqpacket::take_no_descriptors(&ours);
    Ok((ours, theirs))
}

/// Sends one message with up to [`MOST_FDS`] descriptors, all of it or nothing.
///
/// # Errors
/// `WouldBlock` when the other end does not keep up, `BrokenPipe` when it is gone, `InvalidInput` for
/// an empty message (it would read as the end), one over [`LONGEST`] or too many descriptors.
pub fn send(socket: impl AsFd, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    if bytes.is_empty() || bytes.len() > LONGEST || fds.len() > MOST_FDS {
        let (length, count) = (bytes.len(), fds.len());
        let text = format!(
            "a message of {length} bytes and {count} descriptors: 1 to {LONGEST} bytes and up to {MOST_FDS} descriptors fit"
        );
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_FDS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() {
        // There is room for MOST_FDS.
        control.push(SendAncillaryMessage::ScmRights(fds));
    }
    let slices = [IoSlice::new(bytes)];
    sendmsg(socket, &slices, &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// Receives one message into `buffer`: how long it is, and its descriptors, which close on exec.
/// `None` when the other end is gone.
///
/// # Errors
/// `WouldBlock` when there is none; `InvalidData` when message or descriptors did not fit, in which
/// case those that arrived are closed.
pub fn receive(socket: impl AsFd, buffer: &mut [u8]) -> io::Result<Option<(usize, Vec<OwnedFd>)>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_FDS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let length = receive_with(socket, buffer, &mut control)?;
    let mut fds = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            fds.extend(rights);
        }
    }
    Ok(length?.map(|length| (length, fds)))
}

/// Receives one message that must have no descriptors, and gets none: closing one can wait for whoever is behind it,
/// such as the server of a FUSE file (`filp_flush`, fs/open.c). `None` when the other end is gone.
///
/// # Errors
/// `WouldBlock` when there is none; `InvalidData` when the message did not fit, or has descriptors.
pub fn receive_bytes(socket: impl AsFd, buffer: &mut [u8]) -> io::Result<Option<usize>> {
    receive_with(socket, buffer, &mut RecvAncillaryBuffer::default())?
}

/// The outer error is that of the socket; the inner one is said after the descriptors were looked at.
fn receive_with(
    socket: impl AsFd,
    buffer: &mut [u8],
    control: &mut RecvAncillaryBuffer<'_>,
) -> io::Result<io::Result<Option<usize>>> {
    let mut slices = [IoSliceMut::new(buffer)];
    let received = recvmsg(socket, &mut slices, control, RecvFlags::CMSG_CLOEXEC)?;
    let cut = ReturnFlags::TRUNC | ReturnFlags::CTRUNC;
    if received.flags.intersects(cut) {
        let text = "a message was cut off, or has descriptors that nobody asked for; the other half is of another release";
        return Ok(Err(io::Error::new(io::ErrorKind::InvalidData, text)));
    }
    // send() refuses empty messages, so this is the end.
    Ok(Ok((received.bytes > 0).then_some(received.bytes)))
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Read;

    use super::*;

    #[test]
    fn a_message_arrives_whole_with_its_descriptors() {
        let (one, other) = pair().unwrap();
        let (reader, writer) = io::pipe().unwrap();
        send(&one, b"hello", &[writer.as_fd()]).unwrap();
        send(&one, b"again", &[]).unwrap();
        drop(writer);
        let mut buffer = [0; 100];
        let (length, mut fds) = receive(&other, &mut buffer).unwrap().unwrap();
        assert_eq!(&buffer[..length], b"hello");
        let fd = fds.pop().unwrap();
        assert!(
            rustix::io::fcntl_getfd(&fd)
                .unwrap()
                .contains(rustix::io::FdFlags::CLOEXEC)
        );
        rustix::io::write(&fd, b"x").unwrap();
        drop(fd);
        let mut text = String::new();
        File::from(OwnedFd::from(reader))
            .read_to_string(&mut text)
            .unwrap();
        assert_eq!(text, "x");
        assert_eq!(receive(&other, &mut buffer).unwrap().unwrap().0, 5);
    }

    #[test]
    fn a_message_that_does_not_fit_is_an_error_and_leaves_no_descriptor_open() {
        let (one, other) = pair().unwrap();
        let (mut reader, writer) = io::pipe().unwrap();
        send(&one, &[7; 100], &[writer.as_fd()]).unwrap();
        drop(writer);
        let cut = receive(&other, &mut [0; 10]).unwrap_err();
        assert_eq!(cut.kind(), io::ErrorKind::InvalidData);
        // The end of the pipe: no writer is left.
        assert_eq!(reader.read(&mut [0; 1]).unwrap(), 0);
    }

    #[test]
    fn who_takes_no_descriptors_gets_none() {
        let (ours, theirs) = pair().unwrap();
        let (mut reader, writer) = io::pipe().unwrap();
        let mut buffer = [0; 100];
        // From Linux 6.16 on they are not even sent.
        if send(&theirs, b"take this", &[writer.as_fd()]).is_ok() {
            let refused = receive_bytes(&ours, &mut buffer).unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::InvalidData);
        }
        drop(writer);
        // The end of the pipe: no writer is left.
        assert_eq!(reader.read(&mut [0; 1]).unwrap(), 0);
        send(&theirs, b"plain", &[]).unwrap();
        assert_eq!(receive_bytes(&ours, &mut buffer).unwrap(), Some(5));
        drop(theirs);
        assert_eq!(receive_bytes(&ours, &mut buffer).unwrap(), None);
    }

    #[test]
    fn the_end_is_told_from_an_empty_queue() {
        let (one, other) = pair().unwrap();
        let mut buffer = [0; 10];
        let empty = receive(&other, &mut buffer).unwrap_err();
        assert_eq!(empty.kind(), io::ErrorKind::WouldBlock);
        drop(one);
        assert!(receive(&other, &mut buffer).unwrap().is_none());
    }

    #[test]
    fn what_would_not_fit_is_not_sent() {
        let (one, _other) = pair().unwrap();
        let fds = [one.as_fd(); MOST_FDS + 1];
        for (bytes, fds) in [
            (&[][..], &[][..]),
            (&[0; LONGEST + 1], &[]),
            (b"x", &fds[..]),
        ] {
            let error = send(&one, bytes, fds).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        }
        send(&one, &vec![1; LONGEST], &[]).unwrap();
    }
}

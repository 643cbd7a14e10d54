//! Messages with file descriptors, over a SOCK_SEQPACKET pair.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg,
    sendmsg, socketpair,
};

/// Most bytes of a message.
pub const LONGEST: usize = 64 * 1024;

/// Most file descriptors of a message.
pub const MOST_FDS: usize = 8;

/// A connected pair: message boundaries are kept, and each end learns when the other is gone. Both
/// ends are non-blocking and close on exec.
///
/// # Errors
/// Where the process has no descriptors left.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        None,
    )?)
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
    let mut slices = [IoSliceMut::new(buffer)];
    let received = recvmsg(socket, &mut slices, &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let mut fds = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            fds.extend(rights);
        }
    }
    let cut = ReturnFlags::TRUNC | ReturnFlags::CTRUNC;
    if received.flags.intersects(cut) {
        let text = "a message was cut off; the other half is of another release";
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    // send() refuses empty messages, so this is the end.
    if received.bytes == 0 {
        return Ok(None);
    }
    Ok(Some((received.bytes, fds)))
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

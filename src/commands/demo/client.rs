//! The stand-in for the torrent client: one TCP connection that downloads as fast as it can and
//! checks every byte.

use std::io::{self, Read};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use super::internet::{PATTERN, SEEDER};

/// A handle to the running download. It stops when dropped.
pub(super) struct Download {
    shared: Arc<Shared>,
    /// Our end of the connection.
    pub(super) local: SocketAddr,
}

#[derive(Default)]
struct Shared {
    stopped: AtomicBool,
    bytes: AtomicU64,
    broken: AtomicBool,
}

impl Download {
    /// Connects to the seeder and starts to download, from the calling thread's namespace.
    ///
    /// # Errors
    /// Those of connecting; those of starting a thread.
    pub(super) fn start() -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&SEEDER.into(), Duration::from_secs(5))?;
        stream.set_read_timeout(Some(Duration::from_millis(100)))?;
        let local = stream.local_addr()?;
        let shared = Arc::new(Shared::default());
        let theirs = Arc::clone(&shared);
        thread::Builder::new()
            .name("client".to_owned())
            .spawn(move || theirs.download(stream))?;
        Ok(Self { shared, local })
    }

    /// Bytes received and found correct.
    pub(super) fn bytes(&self) -> u64 {
        self.shared.bytes.load(Ordering::Relaxed)
    }

    /// Whether the connection ended, or brought a wrong byte.
    pub(super) fn broken(&self) -> bool {
        self.shared.broken.load(Ordering::Acquire)
    }
}

impl Drop for Download {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::Release);
    }
}

impl Shared {
    fn download(&self, mut stream: TcpStream) {
        let mut buffer = vec![0; 1 << 18];
        let mut at = 0;
        while !self.stopped.load(Ordering::Acquire) {
            match stream.read(&mut buffer) {
                Ok(0) => break,
                Ok(length) if follows(&buffer[..length], at) => {
                    at = (at + length) % PATTERN.len();
                    self.bytes.fetch_add(length as u64, Ordering::Relaxed);
                }
                Ok(_) => break,
                Err(error) if is_timeout(&error) => {}
                Err(_) => break,
            }
        }
        self.broken.store(true, Ordering::Release);
    }
}

/// Whether `bytes` are the pattern from its byte `at` on.
fn follows(bytes: &[u8], at: usize) -> bool {
    let (head, rest) = bytes.split_at(bytes.len().min(PATTERN.len() - at));
    PATTERN[at..].starts_with(head)
        && rest
            .chunks(PATTERN.len())
            .all(|chunk| PATTERN.starts_with(chunk))
}

fn is_timeout(error: &io::Error) -> bool {
    [
        io::ErrorKind::WouldBlock,
        io::ErrorKind::TimedOut,
        io::ErrorKind::Interrupted,
    ]
    .contains(&error.kind())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pattern_is_followed_across_any_cut() {
        let bytes: Vec<u8> = PATTERN.iter().copied().cycle().take(1000).collect();
        for at in 0..PATTERN.len() {
            assert!(follows(&bytes[at..], at));
            assert!(follows(&bytes[at..at + 3], at));
            assert!(!follows(&bytes[at + 1..], at));
        }
    }
}

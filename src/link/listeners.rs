//! TCP listeners whose connections are handed from one half to the other.

use std::collections::BTreeSet;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::task::{Context, Poll};

use tokio::net::{TcpListener, TcpStream};

use crate::sys::socket;

/// A connection that arrived.
#[derive(Debug)]
pub struct Visitor {
    /// At which listener.
    pub at: SocketAddrV4,
    /// From which host.
    pub from: Ipv4Addr,
    /// The connection.
    pub stream: TcpStream,
}

/// Some listeners; replaced as a whole, those that stay keep the connections that wait.
#[derive(Debug, Default)]
pub struct Listeners {
    open: Vec<(SocketAddrV4, TcpListener)>,
}

impl Listeners {
    /// Listens at these addresses and no other. Inside a tokio runtime.
    ///
    /// # Errors
    /// The last one that could not be opened, in one line; the others are open.
    pub fn follow(&mut self, wanted: &[SocketAddrV4]) -> Result<(), String> {
        let mut missing: BTreeSet<_> = wanted.iter().copied().collect();
        // What is open already is missing no longer.
        self.open.retain(|(at, _)| missing.remove(at));
        let mut outcome = Ok(());
        for at in missing {
            match socket::tcp_listener(at).and_then(TcpListener::from_std) {
                Ok(listener) => self.open.push((at, listener)),
                Err(error) => outcome = Err(failed(at, &error)),
            }
        }
        outcome
    }

    /// The next connection. Cancelled, none is lost.
    ///
    /// # Errors
    /// Where the process has no descriptors left.
    pub async fn visitor(&self) -> io::Result<Visitor> {
        std::future::poll_fn(|context| self.poll(context)).await
    }

    fn poll(&self, context: &mut Context<'_>) -> Poll<io::Result<Visitor>> {
        for (at, listener) in &self.open {
            match listener.poll_accept(context) {
                Poll::Ready(Ok((stream, SocketAddr::V4(from)))) => {
                    let (at, from) = (*at, *from.ip());
                    return Poll::Ready(Ok(Visitor { at, from, stream }));
                }
                // An IPv4 listener has no such.
                Poll::Ready(Ok((_, SocketAddr::V6(_)))) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {}
            }
        }
        Poll::Pending
    }
}

fn failed(at: SocketAddrV4, error: &io::Error) -> String {
    // `inet_port_requires_bind_service`, include/net/ip.h.
    let low = error.kind() == io::ErrorKind::PermissionDenied && at.port() < 1024;
    let hint = if low {
        "; ports below 1024 take the capability NET_BIND_SERVICE, or the kernel parameter \
         net.ipv4.ip_unprivileged_port_start=0"
    } else {
        ""
    };
    format!("listen at {at}: {error}{hint}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listeners_that_stay_keep_their_connections() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        runtime.unwrap().block_on(async {
            let mut listeners = Listeners::default();
            // A port that is free, most likely still when it is bound again.
            let free = || {
                let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
                match socket.local_addr().unwrap() {
                    SocketAddr::V4(at) => at,
                    SocketAddr::V6(at) => panic!("{at}"),
                }
            };
            let (one, other) = (free(), free());
            listeners.follow(&[one, other]).unwrap();
            let _client = TcpStream::connect(one).await.unwrap();
            listeners.follow(&[one]).unwrap();
            let visitor = listeners.visitor().await.unwrap();
            assert_eq!((visitor.at, visitor.from), (one, Ipv4Addr::LOCALHOST));
            assert!(TcpStream::connect(other).await.is_err());
            let nowhere = SocketAddrV4::new([203, 0, 113, 1].into(), 1);
            let failed = listeners.follow(&[one, nowhere]).unwrap_err();
            assert!(failed.contains("203.0.113.1:1"), "{failed}");
        });
    }
}

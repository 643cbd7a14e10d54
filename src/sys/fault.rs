//! Faults to order, for the namespace tests: SIGUSR2 makes the half that gets it panic, SIGUSR1 makes it try what
//! an engine may not do. Only a build with the feature `netns` has them.

/// Panics when that is ordered, and tries things when that is; pending otherwise.
#[cfg(feature = "netns")]
pub async fn injected() {
    use tokio::signal::unix::{SignalKind, signal};

    let (Ok(mut panic), Ok(mut attempt)) = (
        signal(SignalKind::user_defined2()),
        signal(SignalKind::user_defined1()),
    ) else {
        return std::future::pending().await;
    };
    loop {
        tokio::select! {
            _ = panic.recv() => panic!("a fault, as ordered"),
            _ = attempt.recv() => for (what, errno) in attempts() {
                tracing::warn!("tried {what}: {errno}");
            },
        }
    }
}

/// Pending for ever.
#[cfg(not(feature = "netns"))]
pub async fn injected() {
    std::future::pending().await
}

/// Tries what an engine may not do: what, and the error number it ended with, 0 where it worked. None of it
/// does harm where it works.
#[cfg(feature = "netns")]
pub fn attempts() -> Vec<(&'static str, i32)> {
    use std::fs::File;
    use std::os::unix::net::UnixDatagram;
    use std::process::Command;

    use rustix::process::{Pid, getppid, test_kill_process};
    use socket2::{Domain, Socket, Type};

    type Attempt = (&'static str, fn() -> std::io::Result<()>);
    let attempts: [Attempt; 11] = [
        ("running a program", || {
            Command::new("/bin/true").status().map(drop)
        }),
        ("a packet socket", || {
            Socket::new(Domain::PACKET, Type::RAW, None).map(drop)
        }),
        ("a netlink socket", || {
            Socket::new(libc::AF_NETLINK.into(), Type::RAW, None).map(drop)
        }),
        ("an IPv6 socket", || {
            Socket::new(Domain::IPV6, Type::DGRAM, None).map(drop)
        }),
        ("reading /etc/passwd", || {
            File::open("/etc/passwd").map(drop)
        }),
        ("listing /", || std::fs::read_dir("/").map(drop)),
        ("writing a file", || {
            File::options().append(true).open("/dev/null").map(drop)
        }),
        ("a signal to its parent", || {
            Ok(test_kill_process(getppid().unwrap_or(Pid::INIT))?)
        }),
        ("a namespace of its own", || {
            use rustix::thread::{UnshareFlags, unshare_unsafe};
            #[expect(unsafe_code, reason = "rustix has no other form")]
            // SAFETY: the table of file descriptors is not unshared.
            Ok(unsafe { unshare_unsafe(UnshareFlags::NEWUTS) }?)
        }),
        ("its limits", || {
            use rustix::process::{Resource, getrlimit, setrlimit};
            Ok(setrlimit(Resource::Stack, getrlimit(Resource::Stack))?)
        }),
        ("a socket file", || {
            let path = std::env::temp_dir().join(format!("vpngw-{}", std::process::id()));
            UnixDatagram::bind(&path)?;
            std::fs::remove_file(path)
        }),
    ];
    let tried = attempts.map(|(what, attempt)| match attempt() {
        Ok(()) => (what, 0),
        Err(error) => (what, error.raw_os_error().unwrap_or(-1)),
    });
    tried.to_vec()
}

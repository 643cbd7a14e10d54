//! The kernel: one file for each of its objects. The only user of netlink and of AF_PACKET.

pub mod async_fd;
pub mod capture;
pub mod enter;
pub mod ethtool;
pub mod fault;
pub mod fdpass;
pub mod host;
pub mod interference;
pub mod joined;
pub mod landlock;
pub mod link;
pub mod memfd;
pub mod namespace;
pub mod netlink;
pub mod nflog;
pub mod nft;
pub mod notify;
pub mod privilege;
pub mod process;
mod pty;
mod relay;
pub mod resolv;
pub mod route;
pub mod rtnl;
pub mod rule;
pub mod seccomp;
pub mod seqpacket;
pub mod session;
mod signals;
pub mod socket;
pub mod sysctl;
pub mod tun;
pub mod veth;
pub mod watch;

/// An error with all its causes, on one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text += &format!(": {error}");
        cause = error.source();
    }
    text
}

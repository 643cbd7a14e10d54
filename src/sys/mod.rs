//! The kernel: one file for each of its objects. The only user of netlink, ioctl and /proc.

pub mod netlink;
pub mod nft;

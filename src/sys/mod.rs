//! The kernel: one file for each of its objects. The only user of netlink, ioctl and /proc.

pub mod capture;
pub mod namespace;

//! The ruleset against the kernel: what we load is what `nft` prints, and packets meet the fate that the
//! rules promise.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::time::{Duration, Instant};

use ipnetwork::Ipv4Network;
use rustix::thread::{LinkNameSpaceType, ThreadNameSpaceType as _Unused};
use socket2::{Domain, Protocol, Socket, Type};
use vpngw::config::{Inbound, Outbound};
use vpngw::net::{Fwmark, IfName};
use vpngw::policy::{Hole, Policy, Reason, TunnelPolicy, UplinkPolicy};
use vpngw::ruleset::{Hook, Kernel, Ruleset};
use vpngw::sys::nft;

//! The API on the control socket: HTTP and JSON over a UNIX socket, both sides.

pub mod api;
pub mod client;
#[cfg(test)]
pub(crate) mod example;
pub mod http;
pub mod server;

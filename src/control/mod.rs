//! The API on the control socket: HTTP and JSON over a UNIX socket, both sides.

pub mod api;

//! Looks up the name of an endpoint over one granted socket.

//! The unprivileged half: keys, UDP socket, WireGuard, API, metrics. Holds no capability.

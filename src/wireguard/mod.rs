//! The data plane: packets between the TUN device and the UDP socket, sealed and opened.

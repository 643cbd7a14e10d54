//! How long a packet may be that goes through the tunnel.

/// Bytes that a packet gets around it: IPv4 header 20 (RFC 791 section 3.1), UDP header 8 (RFC 768), message
/// header and tag 32 (WireGuard white paper, section 5.4.6).
pub const OVERHEAD: u16 = 60;

/// The least MTU of the tunnel device, in bytes: what every host has to take (RFC 791 section 3.1).
pub const LEAST: u16 = 576;

/// The MTU of the tunnel device, in bytes, where it may be at most `configured` and IPv4 packets of at most
/// `path` bytes get to the endpoint.
pub fn inner(configured: u16, path: u32) -> u16 {
    let room = path.saturating_sub(OVERHEAD.into());
    let room = u16::try_from(room).unwrap_or(u16::MAX);
    configured.min(room).max(LEAST.min(configured))
}

/// Whether the tunnel's least MTU does not fit a path of this many bytes. No link in use is that narrow, so
/// it is more likely a lie, and a router should cut what does not fit after all.
pub fn is_absurd(path: u32) -> bool {
    path < u32::from(LEAST + OVERHEAD)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tunnel_fits_the_path_and_never_exceeds_what_is_configured() {
        for (configured, path, inner_mtu) in [
            (1420, 1500, 1420),
            (1420, 9000, 1420),
            (8920, 9000, 8920),
            (1420, 1400, 1340),
            (1420, 1280, 1220),
            (1420, 636, 576),
            (1420, 552, 576),
            (1420, 0, 576),
            (576, 0, 576),
            (65535, u32::MAX, 65535),
        ] {
            assert_eq!(inner(configured, path), inner_mtu, "{configured} {path}");
        }
    }

    #[test]
    fn a_path_is_absurd_when_the_least_packet_does_not_fit() {
        assert!(is_absurd(635));
        assert!(!is_absurd(636));
    }
}

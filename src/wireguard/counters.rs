//! What the data thread counts. It alone writes; anyone may read.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Why a packet was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DropReason {
    /// From the TUN device while there is no peer.
    Disconnected,
    /// From the TUN device, and given up before there was a session.
    NoSession,
    /// An inner packet that is not IPv4.
    NotIpv4,
    /// An inner packet, or its offload header, that contradicts itself.
    Malformed,
    /// An inner packet to an address the peer may not be sent.
    DestinationNotAllowed,
    /// An inner packet for the peer whose source is none of our addresses.
    SourceNotOurs,
    /// DNS to another host than the tunnel's resolvers.
    Dns,
    /// An inner packet to a private destination that is not configured, or that leaves its way to others.
    PrivateDestination,
    /// An inner packet from an address the peer may not send from.
    SourceNotAllowed,
    /// A datagram from somebody other than the endpoint.
    NotTheEndpoint,
    /// A datagram that is not a valid message of our peer: forged, repeated, of a forgotten session.
    Rejected,
    /// The session has sent as many messages as it may.
    Exhausted,
    /// A datagram that is too long for the path to the endpoint.
    TooLong,
    /// A router was congested, and the sender of the packet would not understand (RFC 6040).
    Congestion,
    /// The kernel refused to send a datagram.
    Send,
    /// The kernel refused to take a packet from the TUN device.
    Deliver,
}

impl DropReason {
    /// Every reason, in the order they are counted.
    pub const ALL: [Self; 16] = [
        Self::Disconnected,
        Self::NoSession,
        Self::NotIpv4,
        Self::Malformed,
        Self::DestinationNotAllowed,
        Self::SourceNotOurs,
        Self::Dns,
        Self::PrivateDestination,
        Self::SourceNotAllowed,
        Self::NotTheEndpoint,
        Self::Rejected,
        Self::Exhausted,
        Self::TooLong,
        Self::Congestion,
        Self::Send,
        Self::Deliver,
    ];

    /// The reason as a metric's label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Disconnected => "disconnected",
            Self::NoSession => "no_session",
            Self::NotIpv4 => "not_ipv4",
            Self::Malformed => "malformed",
            Self::DestinationNotAllowed => "destination_not_allowed",
            Self::SourceNotOurs => "source_not_ours",
            Self::Dns => "dns",
            Self::PrivateDestination => "private_destination",
            Self::SourceNotAllowed => "source_not_allowed",
            Self::NotTheEndpoint => "not_the_endpoint",
            Self::Rejected => "rejected",
            Self::Exhausted => "exhausted",
            Self::TooLong => "too_long",
            Self::Congestion => "congestion",
            Self::Send => "send",
            Self::Deliver => "deliver",
        }
    }
}

/// A number with one writer.
#[derive(Debug, Default)]
pub(super) struct Count(AtomicU64);

impl Count {
    /// Adds without a locked instruction, which one writer does not need.
    pub(super) fn add(&self, n: u64) {
        let sum = self.get().wrapping_add(n);
        self.0.store(sum, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The counters of one device.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) rx_bytes: Count,
    pub(super) rx_packets: Count,
    pub(super) tx_bytes: Count,
    pub(super) tx_packets: Count,
    pub(super) handshakes: Count,
    pub(super) offload_fallbacks: Count,
    dropped: [Count; DropReason::ALL.len()],
    /// Nanoseconds since 1970; 0 is never.
    last_handshake: AtomicU64,
    pub(super) tun_offload: AtomicBool,
    pub(super) udp_gso: AtomicBool,
    pub(super) udp_gro: AtomicBool,
}

impl Counters {
    pub(super) fn dropped(&self, reason: DropReason, packets: u64) {
        self.dropped[reason as usize].add(packets);
    }

    pub(super) fn handshake(&self, at: SystemTime) {
        self.handshakes.add(1);
        let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
        let nanos = u64::try_from(since.as_nanos()).unwrap_or(u64::MAX);
        self.last_handshake.store(nanos, Ordering::Relaxed);
    }

    /// The next session starts without a handshake.
    pub(super) fn forget_handshake(&self) {
        self.last_handshake.store(0, Ordering::Relaxed);
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        let last = self.last_handshake.load(Ordering::Relaxed);
        Snapshot {
            rx_bytes: self.rx_bytes.get(),
            tx_bytes: self.tx_bytes.get(),
            rx_packets: self.rx_packets.get(),
            tx_packets: self.tx_packets.get(),
            handshakes: self.handshakes.get(),
            last_handshake: (last > 0).then(|| UNIX_EPOCH + Duration::from_nanos(last)),
            dropped: std::array::from_fn(|reason| self.dropped[reason].get()),
            offload_fallbacks: self.offload_fallbacks.get(),
            tun_offload: self.tun_offload.load(Ordering::Relaxed),
            udp_gso: self.udp_gso.load(Ordering::Relaxed),
            udp_gro: self.udp_gro.load(Ordering::Relaxed),
        }
    }
}

/// The counters at one moment. Bytes and packets are those inside the tunnel, keepalives excluded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Bytes received through the tunnel.
    pub rx_bytes: u64,
    /// Bytes sent through the tunnel.
    pub tx_bytes: u64,
    /// Packets received through the tunnel.
    pub rx_packets: u64,
    /// Packets sent through the tunnel.
    pub tx_packets: u64,
    /// Handshakes completed since the device started, rekeys included.
    pub handshakes: u64,
    /// When the newest handshake with the present peer was completed.
    pub last_handshake: Option<SystemTime>,
    /// Times an offload was given up because the kernel refused what it had promised.
    pub offload_fallbacks: u64,
    /// Whether the TUN device hands over and takes several segments at once.
    pub tun_offload: bool,
    /// Whether datagrams of equal size leave in one call (UDP_SEGMENT).
    pub udp_gso: bool,
    /// Whether datagrams of one flow arrive in one buffer (UDP_GRO).
    pub udp_gro: bool,
    dropped: [u64; DropReason::ALL.len()],
}

impl Snapshot {
    /// Packets dropped for each reason since the device started.
    pub fn dropped(&self) -> impl Iterator<Item = (DropReason, u64)> + '_ {
        DropReason::ALL.into_iter().zip(self.dropped)
    }

    /// Messages from the endpoint that were no valid ones of our peer.
    pub fn rejected(&self) -> u64 {
        let rejected = self.dropped().find(|(why, _)| *why == DropReason::Rejected);
        rejected.map_or(0, |(_, count)| count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_is_counted_by_itself() {
        let counters = Counters::default();
        for (n, reason) in DropReason::ALL.into_iter().enumerate() {
            counters.dropped(reason, n as u64 + 1);
        }
        for (n, (reason, count)) in counters.snapshot().dropped().enumerate() {
            assert_eq!(count, n as u64 + 1, "{}", reason.as_str());
        }
    }

    #[test]
    fn a_handshake_is_remembered_in_unix_time() {
        let counters = Counters::default();
        assert_eq!(counters.snapshot().last_handshake, None);
        let at = UNIX_EPOCH + Duration::from_millis(1_700_000_000_123);
        counters.handshake(at);
        assert_eq!(counters.snapshot().last_handshake, Some(at));
        counters.forget_handshake();
        assert_eq!(counters.snapshot().last_handshake, None);
    }
}

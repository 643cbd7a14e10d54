//! Whether a packet that came out of the TUN device may enter the tunnel. Programs' packets have passed the same policy
//! as rules; a raw frame into the device has not.

use super::counters::DropReason;
use super::header::{IPV4, addresses, length, word};
use crate::policy::{IntoTunnel, NotIntoTunnel};

/// The last 13 bits of the word with the flags: where a fragment belongs (RFC 791, section 3.1).
const FRAGMENT_OFFSET: u16 = 0x1fff;

/// Loose and strict source route, end of the list, no operation (RFC 791, section 3.1).
const SOURCE_ROUTES: [u8; 2] = [131, 137];
const END: u8 = 0;
const NO_OPERATION: u8 = 1;

const TCP: u8 = 6;
const UDP: u8 = 17;

/// Judges a packet, or a superpacket as a whole: its segments have its addresses and ports. To be asked when nothing
/// writes to its headers any more.
///
/// A fragment without ports is judged by its addresses. Whoever puts fragments together gets the ports from the one
/// with offset 0, which is judged by them.
///
/// # Errors
/// Why the packet is dropped.
pub(super) fn admit(policy: &IntoTunnel, packet: &[u8]) -> Result<(), DropReason> {
    let Some((source, destination)) = addresses(packet) else {
        return Err(DropReason::NotIpv4);
    };
    let Ok(header) = length(packet[0] & 0x0f, packet.len()) else {
        return Err(DropReason::Malformed);
    };
    // The other end cuts off what is behind this.
    let total = usize::from(word(packet, 2));
    if !(header..=packet.len()).contains(&total) {
        return Err(DropReason::Malformed);
    }
    if header > IPV4 {
        look_at_options(&packet[IPV4..header])?;
    }
    let port = destination_port(packet, &packet[header..total])?;
    policy
        .judge(source, destination, port)
        .map_err(|why| match why {
            NotIntoTunnel::Source => DropReason::SourceNotOurs,
            NotIntoTunnel::Dns => DropReason::Dns,
            NotIntoTunnel::Destination => DropReason::PrivateDestination,
        })
}

/// The destination port of TCP and UDP. `None`: another protocol, or a fragment that has no ports.
fn destination_port(header: &[u8], payload: &[u8]) -> Result<Option<u16>, DropReason> {
    let has_ports = matches!(header[9], TCP | UDP) && word(header, 6) & FRAGMENT_OFFSET == 0;
    match payload.get(2..4) {
        Some(port) if has_ports => Ok(Some(word(port, 0))),
        None if has_ports => Err(DropReason::Malformed),
        Some(_) | None => Ok(None),
    }
}

/// A source route leads to another destination than the header names.
fn look_at_options(mut options: &[u8]) -> Result<(), DropReason> {
    while let [kind, rest @ ..] = options {
        let len = match (*kind, rest.first()) {
            (END, _) => return Ok(()),
            (NO_OPERATION, _) => 1,
            (kind, _) if SOURCE_ROUTES.contains(&kind) => {
                return Err(DropReason::PrivateDestination);
            }
            // Its length counts both bytes before its data.
            (_, Some(&len)) if len >= 2 => usize::from(len),
            (_, _) => return Err(DropReason::Malformed),
        };
        options = options.get(len..).ok_or(DropReason::Malformed)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use proptest::prelude::*;

    use super::super::header::set_word;
    use super::super::packets::Packet;
    use super::*;
    use crate::policy::TunnelPolicy;

    const OURS: Ipv4Addr = Ipv4Addr::new(10, 64, 0, 2);
    const PUBLIC: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 9);
    const RESOLVER: Ipv4Addr = Ipv4Addr::new(10, 64, 0, 1);
    const PRIVATE: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 1);

    fn policy() -> IntoTunnel {
        IntoTunnel::new(&TunnelPolicy {
            device: "tun0".parse().unwrap(),
            addresses: vec![OURS.into()],
            dns: vec![RESOLVER],
            private: Vec::new(),
            forward: Vec::new(),
        })
    }

    fn packet(udp: bool, from: Ipv4Addr, to: Ipv4Addr, port: u16) -> Vec<u8> {
        let packet = if udp {
            Packet::udp(1, 40)
        } else {
            Packet::tcp(1, 40)
        };
        let mut bytes = packet.build();
        bytes[12..16].copy_from_slice(&from.octets());
        bytes[16..20].copy_from_slice(&to.octets());
        set_word(&mut bytes, IPV4 + 2, port);
        bytes
    }

    /// The packet with these options in its header, which are a multiple of four bytes.
    fn with_options(packet: &[u8], options: &[u8]) -> Vec<u8> {
        let mut bytes = [&packet[..IPV4], options, &packet[IPV4..]].concat();
        bytes[0] += (options.len() / 4) as u8;
        let total = bytes.len() as u16;
        set_word(&mut bytes, 2, total);
        bytes
    }

    #[test]
    fn dns_and_private_destinations_do_not_enter_the_tunnel_and_others_do() {
        let private = Err(DropReason::PrivateDestination);
        for (to, port, expected) in [
            (PUBLIC, 443, Ok(())),
            (PUBLIC, 53, Err(DropReason::Dns)),
            (PUBLIC, 853, Err(DropReason::Dns)),
            (RESOLVER, 53, Ok(())),
            (RESOLVER, 853, Ok(())),
            (RESOLVER, 80, Ok(())),
            (PRIVATE, 443, private),
            (Ipv4Addr::new(169, 254, 169, 254), 80, private),
            (Ipv4Addr::new(239, 1, 1, 1), 6771, private),
        ] {
            for udp in [false, true] {
                let packet = packet(udp, OURS, to, port);
                assert_eq!(admit(&policy(), &packet), expected, "{to} {port}");
                // A record of the route, which a program may ask for (RFC 791).
                let options = with_options(&packet, &[NO_OPERATION, 7, 6, 4, 0, 0, 0, END]);
                assert_eq!(admit(&policy(), &options), expected, "{to} {port}");
            }
        }
        let forged = packet(true, PRIVATE, PUBLIC, 443);
        assert_eq!(admit(&policy(), &forged), Err(DropReason::SourceNotOurs));
    }

    #[test]
    fn the_fragment_with_the_ports_is_judged_by_them_and_others_by_their_addresses() {
        let fragment = |to, flags_and_offset| {
            let mut bytes = packet(true, OURS, to, 53);
            set_word(&mut bytes, 6, flags_and_offset);
            admit(&policy(), &bytes)
        };
        const MORE: u16 = 0x2000;
        assert_eq!(fragment(PUBLIC, MORE), Err(DropReason::Dns));
        assert_eq!(fragment(PUBLIC, 0x8000), Err(DropReason::Dns));
        assert_eq!(fragment(PUBLIC, MORE + 1), Ok(()));
        assert_eq!(fragment(PUBLIC, 185), Ok(()));
        assert_eq!(fragment(PRIVATE, 185), Err(DropReason::PrivateDestination));
    }

    #[test]
    fn a_header_that_hides_the_port_or_the_destination_does_not_enter_the_tunnel() {
        let good = packet(true, OURS, PUBLIC, 443);
        let malformed = Err(DropReason::Malformed);
        // The other end sees no ports where the packet ends before them; and fragments end with eight bytes at least.
        for total in [0, 19, 20, 23, good.len() as u16 + 1] {
            let mut bytes = good.clone();
            set_word(&mut bytes, 2, total);
            assert_eq!(admit(&policy(), &bytes), malformed, "{total}");
        }
        for first in [0x44, 0x4f] {
            let mut bytes = good.clone();
            bytes[0] = first;
            bytes.truncate(40);
            assert_eq!(admit(&policy(), &bytes), malformed, "{first:x}");
        }
        for options in [[7, 1, 0, 0], [7, 5, 4, 0], [1, 1, 1, 68]] {
            let bytes = with_options(&good, &options);
            assert_eq!(admit(&policy(), &bytes), malformed, "{options:?}");
        }
        // Source routes lead on to a private address.
        for kind in SOURCE_ROUTES {
            let route = [NO_OPERATION, kind, 7, 4, 192, 168, 1, 1];
            let bytes = with_options(&good, &route);
            assert_eq!(
                admit(&policy(), &bytes),
                Err(DropReason::PrivateDestination)
            );
        }
        assert_eq!(admit(&policy(), &good[..19]), Err(DropReason::NotIpv4));
        assert_eq!(admit(&policy(), &[0x60; 60]), Err(DropReason::NotIpv4));
        assert_eq!(admit(&policy(), &good), Ok(()), "the control");
    }

    proptest! {
        #[test]
        fn no_packet_makes_it_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..120), ihl in 0..16_u8) {
            if let Some(first) = bytes.first_mut() {
                *first = 0x40 | ihl;
            }
            let _ = admit(&policy(), &bytes);
        }

        /// Whatever enters whole has a port, if any, and addresses that the policy lets in.
        #[test]
        fn what_enters_is_what_the_policy_says(
            to in prop::sample::select(vec![PUBLIC, RESOLVER, PRIVATE]), port in prop::sample::select(vec![53, 853, 443]),
            words in 0..11_usize, udp: bool, protocol in prop::option::of(any::<u8>()), flags: u16,
        ) {
            let plain = packet(udp, OURS, to, port);
            let mut bytes = with_options(&plain, &[NO_OPERATION; 40][..words * 4]);
            let kind = protocol.unwrap_or(bytes[9]);
            bytes[9] = kind;
            set_word(&mut bytes, 6, flags);
            let ports = matches!(kind, TCP | UDP) && flags & FRAGMENT_OFFSET == 0;
            let expected = policy().judge(OURS, to, ports.then_some(port));
            prop_assert_eq!(admit(&policy(), &bytes).is_ok(), expected.is_ok());
        }
    }
}

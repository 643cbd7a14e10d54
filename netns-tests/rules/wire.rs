//! Frames on a device, sent and seen by AF_PACKET.

use std::io::{self, Read};
use std::mem::MaybeUninit;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    EthernetFrame, EthernetProtocol, IpProtocol, Ipv4Packet, Ipv4Repr, UdpPacket, UdpRepr,
};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

/// `ETH_P_ALL` in network order (linux/if_ether.h).
const ALL: i32 = 0x0300;

/// A socket that sees every frame of a device, in both directions, and may send any.
pub(crate) struct Wire(Socket);

impl Wire {
    pub(crate) fn open(device: &str) -> Self {
        let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(ALL))).unwrap();
        socket.bind(&address(device)).unwrap();
        let wait = Some(Duration::from_millis(20));
        socket.set_read_timeout(wait).unwrap();
        Self(socket)
    }

    /// Gives what is sent from now on this mark.
    pub(crate) fn mark(&self, mark: u32) {
        self.0.set_mark(mark).unwrap();
    }

    pub(crate) fn send(&self, frame: &[u8]) -> io::Result<usize> {
        self.0.send(frame)
    }

    /// The frames that come within this time.
    pub(crate) fn seen(&self, wait: Duration) -> Vec<Vec<u8>> {
        let until = Instant::now() + wait;
        let mut frames = Vec::new();
        let mut buffer = [0; 2048];
        while Instant::now() < until {
            if let Ok(length) = (&self.0).read(&mut buffer) {
                frames.push(buffer[..length].to_vec());
            }
        }
        frames
    }
}

fn address(device: &str) -> SockAddr {
    let index = rustix::net::netdevice::name_to_index(datagram(), device).unwrap();
    #[expect(unsafe_code, reason = "socket2 has no constructor for sockaddr_ll")]
    // SAFETY: the storage is large enough for a sockaddr_ll (sockaddr_storage is for any), it is zeroed,
    // and the length is that of the type that was written.
    let made = unsafe {
        SockAddr::try_init(|storage, length| {
            let link = libc::sockaddr_ll {
                sll_family: libc::AF_PACKET as u16,
                sll_protocol: ALL as u16,
                sll_ifindex: index as i32,
                ..MaybeUninit::zeroed().assume_init()
            };
            storage.cast::<libc::sockaddr_ll>().write(link);
            *length = size_of::<libc::sockaddr_ll>() as u32;
            Ok(())
        })
    };
    made.unwrap().1
}

fn datagram() -> Socket {
    Socket::new(Domain::IPV4, Type::DGRAM, None).unwrap()
}

/// An IPv4 packet with UDP in it.
pub(crate) fn udp(from: (&str, u16), to: (&str, u16), payload: &[u8]) -> Vec<u8> {
    let (source, destination): (Ipv4Addr, Ipv4Addr) =
        (from.0.parse().unwrap(), to.0.parse().unwrap());
    let inner = UdpRepr {
        src_port: from.1,
        dst_port: to.1,
    };
    let outer = Ipv4Repr {
        src_addr: source,
        dst_addr: destination,
        next_header: IpProtocol::Udp,
        payload_len: inner.header_len() + payload.len(),
        hop_limit: 64,
    };
    let sums = ChecksumCapabilities::default();
    let mut bytes = vec![0; outer.buffer_len() + outer.payload_len];
    let mut packet = Ipv4Packet::new_unchecked(&mut bytes);
    outer.emit(&mut packet, &sums);
    inner.emit(
        &mut UdpPacket::new_unchecked(packet.payload_mut()),
        &source.into(),
        &destination.into(),
        payload.len(),
        |buffer| buffer.copy_from_slice(payload),
        &sums,
    );
    bytes
}

/// The packet in an Ethernet frame to everybody.
pub(crate) fn frame(packet: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; 14 + packet.len()];
    let mut frame = EthernetFrame::new_unchecked(&mut bytes);
    frame.set_dst_addr(smoltcp::wire::EthernetAddress::BROADCAST);
    frame.set_src_addr(smoltcp::wire::EthernetAddress([2, 0, 0, 0, 0, 1]));
    frame.set_ethertype(EthernetProtocol::Ipv4);
    frame.payload_mut().copy_from_slice(packet);
    bytes
}

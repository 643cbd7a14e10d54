//! The simulated Internet behind the demo's VPN server: one TCP/IP stack that answers for every
//! address. Packets go in and out as bytes; time is a parameter.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::{tcp, udp};
use smoltcp::time::Instant;
use smoltcp::wire::{HardwareAddress, IpAddress, IpCidr};

/// The resolver, and the address the stack calls its own.
pub(super) const RESOLVER: Ipv4Addr = Ipv4Addr::new(10, 64, 0, 1);
/// A peer that has the whole torrent and sends it without end.
pub(super) const SEEDER: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(203, 0, 113, 80), 6881);
/// A tracker that speaks UDP.
pub(super) const TRACKER: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(203, 0, 113, 69), 6969);
/// What every name resolves to.
pub(super) const WEB_SITE: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 80);
/// Bytes of the largest packet inside the tunnel.
pub(super) const MTU: usize = 1420;

/// The torrent is this pattern over and over; a prime length, so that no buffer size hides a gap.
pub(super) const PATTERN: [u8; 251] = pattern();

/// Connections the seeder serves at once, and the same for the web site.
const CONNECTIONS: usize = 4;
/// Ports on which every address is a web site; the second is that of the VPN server, for a client
/// that connects to it through the tunnel.
const SITES: [u16; 2] = [80, 51820];
/// Bytes the seeder keeps in flight. Small enough for the receive buffer a UDP socket has without
/// privilege (212992 bytes, of which a full packet takes over 2000).
const IN_FLIGHT: usize = 96 * 1024;

/// The stack and its services.
pub(super) struct Internet {
    interface: Interface,
    wire: Wire,
    sockets: SocketSet<'static>,
    seeders: Vec<Seeder>,
    sites: Vec<Site>,
    resolver: SocketHandle,
    tracker: SocketHandle,
}

struct Site {
    socket: SocketHandle,
    port: u16,
}

struct Seeder {
    socket: SocketHandle,
    offset: usize,
}

impl Internet {
    /// An Internet at time zero. `seed` makes its sequence numbers differ from run to run.
    pub(super) fn new(seed: u64) -> Self {
        let mut wire = Wire::default();
        let mut config = Config::new(HardwareAddress::Ip);
        config.random_seed = seed;
        let mut interface = Interface::new(config, &mut wire, Instant::ZERO);
        interface.update_ip_addrs(|addresses| {
            // The list holds two; this is the first.
            let _ = addresses.push(IpCidr::new(IpAddress::Ipv4(RESOLVER), 32));
        });
        // A route to itself is what makes smoltcp answer for any address.
        let _ = interface.routes_mut().add_default_ipv4_route(RESOLVER);
        interface.set_any_ip(true);
        let mut sockets = SocketSet::new(Vec::new());
        let seeders = (0..CONNECTIONS)
            .map(|_| Seeder {
                socket: sockets.add(tcp_socket(IN_FLIGHT)),
                offset: 0,
            })
            .collect();
        let sites = (0..CONNECTIONS)
            .flat_map(|_| SITES)
            .map(|port| Site {
                socket: sockets.add(tcp_socket(4096)),
                port,
            })
            .collect();
        let resolver = sockets.add(udp_socket());
        let tracker = sockets.add(udp_socket());
        Self {
            interface,
            wire,
            sockets,
            seeders,
            sites,
            resolver,
            tracker,
        }
    }

    /// Takes an IP packet that came out of the tunnel.
    pub(super) fn push(&mut self, packet: &[u8]) {
        self.wire.arrived.push_back(packet.to_vec());
    }

    /// Lets the stack work and hands each packet for the tunnel to `send`. `now` is the time since
    /// [`Self::new`]. Returns how long it may rest if nothing arrives.
    pub(super) fn poll(&mut self, now: Duration, mut send: impl FnMut(&[u8])) -> Option<Duration> {
        let now = Instant::from_micros(i64::try_from(now.as_micros()).unwrap_or(i64::MAX));
        self.interface.poll(now, &mut self.wire, &mut self.sockets);
        self.serve();
        self.interface.poll(now, &mut self.wire, &mut self.sockets);
        for packet in self.wire.leaving.drain(..) {
            send(&packet);
        }
        let delay = self.interface.poll_delay(now, &self.sockets)?;
        Some(Duration::from_micros(delay.total_micros()))
    }

    fn serve(&mut self) {
        for seeder in &mut self.seeders {
            serve_seeder(self.sockets.get_mut(seeder.socket), &mut seeder.offset);
        }
        for site in &self.sites {
            serve_site(self.sockets.get_mut(site.socket), site.port);
        }
        answer(self.sockets.get_mut(self.resolver), 53, resolve);
        answer(self.sockets.get_mut(self.tracker), TRACKER.port(), track);
    }
}

fn serve_seeder(socket: &mut tcp::Socket<'_>, offset: &mut usize) {
    if !socket.is_open() {
        *offset = 0;
        // A closed socket and a port that is not 0: `listen` has no other error.
        let _ = socket.listen(SEEDER.port());
    }
    while socket.can_send() {
        let sent = socket.send_slice(&PATTERN[*offset % PATTERN.len()..]);
        *offset += sent.unwrap_or(0);
    }
    finish_reading(socket);
}

fn serve_site(socket: &mut tcp::Socket<'_>, port: u16) {
    const GREETING: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\
        Connection: close\r\n\r\nYou reached the simulated Internet, through the tunnel.\n";
    if !socket.is_open() {
        let _ = socket.listen(port);
    }
    if socket.can_recv() && socket.can_send() {
        let _ = socket.send_slice(GREETING);
        socket.close();
    }
    finish_reading(socket);
}

/// Throws away what the client says, and closes when it has closed.
fn finish_reading(socket: &mut tcp::Socket<'_>) {
    while socket.can_recv() {
        let _ = socket.recv(|bytes| (bytes.len(), ()));
    }
    if socket.state() == tcp::State::CloseWait {
        socket.abort();
    }
}

fn answer(socket: &mut udp::Socket<'_>, port: u16, reply: fn(&[u8]) -> Option<Vec<u8>>) {
    if !socket.is_open() {
        let _ = socket.bind(port);
    }
    while let Ok((request, from)) = socket.recv() {
        if let Some(reply) = reply(request) {
            // A full buffer loses the answer, as the Internet would.
            let _ = socket.send_slice(&reply, from);
        }
    }
}

/// Answers a DNS question (RFC 1035, section 4.1): every A record is [`WEB_SITE`], every other type
/// exists and is empty.
fn resolve(query: &[u8]) -> Option<Vec<u8>> {
    let header = query.get(..12)?;
    let is_query = header[2] & 0x80 == 0;
    if !is_query || header[4..6] != [0, 1] {
        return None;
    }
    let mut end = 12;
    while *query.get(end)? != 0 {
        end += 1 + usize::from(query[end]);
    }
    end += 5;
    let question = query.get(12..end)?;
    let is_a = question[question.len() - 4..] == [0, 1, 0, 1];
    let mut reply = header[..2].to_vec();
    // A response, recursion desired and available, no error.
    reply.extend([0x81, 0x80, 0, 1, 0, u8::from(is_a), 0, 0, 0, 0]);
    reply.extend(question);
    if is_a {
        // The name is at offset 12; type A, class IN, 60 seconds, 4 bytes.
        reply.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
        reply.extend(WEB_SITE.octets());
    }
    Some(reply)
}

/// Answers the connect request of the UDP tracker protocol (BEP 15).
fn track(request: &[u8]) -> Option<Vec<u8>> {
    let is_connect = request.get(..12)? == [0, 0, 0x04, 0x17, 0x27, 0x10, 0x19, 0x80, 0, 0, 0, 0];
    let transaction = request.get(12..16)?;
    is_connect.then(|| {
        let mut reply = vec![0; 4];
        reply.extend(transaction);
        reply.extend(*b"vpngw!!!");
        reply
    })
}

fn tcp_socket(send: usize) -> tcp::Socket<'static> {
    tcp::Socket::new(
        tcp::SocketBuffer::new(vec![0; 8192]),
        tcp::SocketBuffer::new(vec![0; send]),
    )
}

fn udp_socket() -> udp::Socket<'static> {
    let buffer = || udp::PacketBuffer::new(vec![udp::PacketMetadata::EMPTY; 32], vec![0; 16384]);
    udp::Socket::new(buffer(), buffer())
}

const fn pattern() -> [u8; 251] {
    let mut bytes = [0; 251];
    let mut at = 0;
    while at < 251 {
        bytes[at] = at as u8;
        at += 1;
    }
    bytes
}

/// The device of the stack: two queues.
#[derive(Default)]
struct Wire {
    arrived: VecDeque<Vec<u8>>,
    leaving: VecDeque<Vec<u8>>,
}

struct Arrived(Vec<u8>);

struct Leaving<'a>(&'a mut VecDeque<Vec<u8>>);

impl Device for Wire {
    type RxToken<'a> = Arrived;
    type TxToken<'a> = Leaving<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Arrived, Leaving<'_>)> {
        let packet = self.arrived.pop_front()?;
        Some((Arrived(packet), Leaving(&mut self.leaving)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Leaving<'_>> {
        Some(Leaving(&mut self.leaving))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = MTU;
        capabilities
    }
}

impl RxToken for Arrived {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, read: F) -> R {
        read(&self.0)
    }
}

impl TxToken for Leaving<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, write: F) -> R {
        let mut packet = vec![0; length];
        let result = write(&mut packet);
        self.0.push_back(packet);
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_resolves_and_garbage_does_not() {
        let mut query = vec![7, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        query.extend(b"\x07example\x03com\x00\x00\x01\x00\x01");
        let reply = resolve(&query).unwrap();
        assert_eq!(reply[..4], [7, 7, 0x81, 0x80]);
        assert_eq!(reply[reply.len() - 4..], WEB_SITE.octets());
        for end in 0..query.len() {
            assert_eq!(resolve(&query[..end]), None);
        }
    }

    #[test]
    fn a_tracker_answers_connect_only() {
        let mut request = vec![
            0, 0, 0x04, 0x17, 0x27, 0x10, 0x19, 0x80, 0, 0, 0, 0, 1, 2, 3, 4,
        ];
        assert_eq!(track(&request).unwrap()[4..8], [1, 2, 3, 4]);
        request[11] = 1;
        assert_eq!(track(&request), None);
    }

    #[test]
    fn any_address_answers_a_ping() {
        let mut internet = Internet::new(1);
        // An echo request from 10.64.0.2 to 192.0.2.77, checksums computed by hand.
        let mut packet = vec![
            0x45, 0, 0, 28, 0, 0, 0, 0, 64, 1, 0, 0, 10, 64, 0, 2, 192, 0, 2, 77,
        ];
        packet.extend([8, 0, 0xf7, 0xfe, 0, 1, 0, 0]);
        let sum = checksum(&packet[..20]);
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
        let mut sent = Vec::new();
        internet.push(&packet);
        internet.poll(Duration::ZERO, |packet| sent.push(packet.to_vec()));
        assert_eq!(sent.len(), 1);
        assert_eq!(sent[0][12..20], [192, 0, 2, 77, 10, 64, 0, 2]);
        assert_eq!(sent[0][20], 0);
    }

    fn checksum(bytes: &[u8]) -> u16 {
        let words = bytes
            .chunks(2)
            .map(|w| u32::from(w[0]) << 8 | u32::from(w[1]));
        let sum: u32 = words.sum();
        !((sum & 0xffff) + (sum >> 16)) as u16
    }
}

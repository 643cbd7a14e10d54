//! Two data planes, two network namespaces, real TUN devices. Needs root.
//!
//! Each namespace belongs to a thread; the UDP sockets of both devices are made in a third one, so
//! that the outer path is a loopback device of its own and nothing else has to be configured.
#![allow(unsafe_code)]

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::Command;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

use rustix::io::retry_on_intr;
use rustix::net::{RecvFlags, recv};
use rustix::thread::UnshareFlags;

use super::{Device, DropReason, Event, PeerSetup, Returns, Setup, Snapshot};
use crate::config::{Offload, PublicKey, Secret};
use crate::net::Stamps;
use crate::policy::IntoTunnel;

const MTU: u16 = 1420;
const BULK: usize = 64 << 20;
const NEAR: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
const FAR: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
const PATIENCE: Duration = Duration::from_secs(20);

fn enter_new_namespace() {
    // SAFETY: a network namespace of its own does not touch the memory or the files of this thread.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }.unwrap();
    ip("link set lo up");
}

fn ip(arguments: &str) {
    let status = Command::new("ip").args(arguments.split(' ')).status();
    assert!(status.unwrap().success(), "ip {arguments}");
}

fn tun(address: Ipv4Addr, vnet_hdr: bool) -> OwnedFd {
    let mut options = std::fs::OpenOptions::new();
    let file = options.read(true).write(true).open("/dev/net/tun").unwrap();
    let flags = libc::IFF_TUN | libc::IFF_NO_PI;
    let offload = if vnet_hdr { libc::IFF_VNET_HDR } else { 0 };
    // SAFETY: zeros are a valid `ifreq`.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"tun0") {
        *to = *from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (flags | offload) as libc::c_short;
    // SAFETY: TUNSETIFF reads and writes one `ifreq`, and `request` is one.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw mut request) };
    assert_eq!(result, 0);
    ip(&format!("address add {address}/24 dev tun0"));
    ip(&format!("link set tun0 mtu {MTU} up"));
    file.into()
}

fn sockets<const N: usize>() -> [(UdpSocket, SocketAddrV4); N] {
    let make = || {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let SocketAddr::V4(address) = socket.local_addr().unwrap() else {
            unreachable!("bound to an IPv4 address")
        };
        (socket, address)
    };
    let inside = thread::spawn(move || {
        enter_new_namespace();
        std::array::from_fn(|_| make())
    });
    inside.join().unwrap()
}

fn peer(own: u8, other: u8) -> PeerSetup {
    let key = x25519_dalek::StaticSecret::from([other; 32]);
    PeerSetup {
        private_key: Secret::new([own; 32]),
        public_key: PublicKey(x25519_dalek::PublicKey::from(&key).to_bytes()),
        preshared_key: None,
        keepalive: None,
        allowed_ips: vec!["10.77.0.0/24".parse().unwrap()],
    }
}

struct End {
    device: Device,
    events: Receiver<Event>,
}

impl End {
    fn wait_handshake(&self) {
        let told = |event: &Event| matches!(event, Event::Handshake | Event::Failed(_));
        let next = || self.events.recv_timeout(PATIENCE).unwrap();
        assert_eq!(
            std::iter::repeat_with(next).find(told),
            Some(Event::Handshake)
        );
    }
}

fn setup(tun: OwnedFd, offload: Offload) -> Setup {
    let mut config = crate::config::example::config();
    config.tunnel.addresses = [NEAR, FAR].map(|ip| ip.into()).to_vec();
    config.tunnel.private = vec!["10.77.0.0/24".parse().unwrap()];
    Setup {
        tun,
        mtu: MTU,
        offload,
        policy: IntoTunnel::of(&config),
        stamps: Stamps::default(),
    }
}

fn end(address: Ipv4Addr, vnet_hdr: bool, offload: Offload) -> End {
    let (tell, events): (Sender<Event>, _) = channel();
    let notify = move |event| drop(tell.send(event));
    let device = Device::start(setup(tun(address, vnet_hdr), offload), notify).unwrap();
    End { device, events }
}

fn pattern(at: usize) -> u8 {
    (at.wrapping_mul(2_654_435_761) >> 13) as u8
}

fn write_bulk(stream: &mut TcpStream) {
    let block: Vec<u8> = (0..1 << 20).map(pattern).collect();
    for _ in 0..BULK >> 20 {
        stream.write_all(&block).unwrap();
    }
}

fn read_bulk(stream: &mut TcpStream) {
    let expected: Vec<u8> = (0..1 << 20).map(pattern).collect();
    let mut block = vec![0; 1 << 20];
    for n in 0..BULK >> 20 {
        stream.read_exact(&mut block).unwrap();
        assert!(block == expected, "MiB {n} arrived changed");
    }
}

/// Sends bulk both ways between two devices; returns what the near one counted.
fn bulk(near: (bool, Offload), far: (bool, Offload)) -> Snapshot {
    let [(near_socket, near_address), (far_socket, far_address)] = sockets();
    bulk_by(
        near,
        far,
        (near_socket, far_address),
        (far_socket, near_address),
    )
}

/// The same, with the socket and the endpoint of each.
fn bulk_by(
    near: (bool, Offload),
    far: (bool, Offload),
    (near_socket, far_address): (UdpSocket, SocketAddrV4),
    (far_socket, near_address): (UdpSocket, SocketAddrV4),
) -> Snapshot {
    let (ready, listening) = channel();
    let (finish, finished) = channel::<()>();
    let server = thread::spawn(move || {
        enter_new_namespace();
        let end = end(FAR, far.0, far.1);
        end.device
            .connect(peer(2, 1), far_socket, near_address, Returns::default());
        let listener = TcpListener::bind((FAR, 9)).unwrap();
        ready.send(()).unwrap();
        let (mut stream, _) = listener.accept().unwrap();
        read_bulk(&mut stream);
        write_bulk(&mut stream);
        // The device outlives the last acknowledgement.
        let _ = finished.recv();
    });
    let client = thread::spawn(move || {
        enter_new_namespace();
        let end = end(NEAR, near.0, near.1);
        listening.recv().unwrap();
        end.device
            .connect(peer(1, 2), near_socket, far_address, Returns::default());
        end.wait_handshake();
        let mut stream = TcpStream::connect((FAR, 9)).unwrap();
        write_bulk(&mut stream);
        read_bulk(&mut stream);
        end.device.snapshot()
    });
    let snapshot = client.join().unwrap();
    drop(finish);
    server.join().unwrap();
    snapshot
}

fn dropped(snapshot: &Snapshot, reason: DropReason) -> u64 {
    let mut all = snapshot.dropped();
    all.find(|(one, _)| *one == reason).unwrap().1
}

#[test]
fn bulk_arrives_unchanged_in_every_mix_of_offloads() {
    let kinds = [
        (true, Offload::Auto),
        (true, Offload::Off),
        (false, Offload::Auto),
    ];
    for near in kinds {
        for far in kinds {
            let snapshot = bulk(near, far);
            let least = BULK as u64;
            assert!(snapshot.tx_bytes > least && snapshot.rx_bytes > least);
            assert_eq!(snapshot.tun_offload, near == (true, Offload::Auto));
            assert_eq!(snapshot.udp_gso, near.1 == Offload::Auto);
            assert_eq!(snapshot.offload_fallbacks, 0, "{near:?} {far:?}");
            for reason in [DropReason::Malformed, DropReason::Deliver, DropReason::Send] {
                assert_eq!(dropped(&snapshot, reason), 0, "{reason:?} {near:?} {far:?}");
            }
        }
    }
}

#[test]
fn what_is_too_long_for_the_path_is_dropped_and_the_rest_still_leaves_in_batches() {
    use super::udp::{Sender, prepare};
    use std::rc::Rc;
    let inside = thread::spawn(|| {
        enter_new_namespace();
        let [near, far] =
            [(); 2].map(|()| Rc::new(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap()));
        let SocketAddr::V4(remote) = far.local_addr().unwrap() else {
            unreachable!("bound to an IPv4 address")
        };
        let (gso, _) = prepare(&near, true).unwrap();
        let counters = std::sync::Arc::<super::counters::Counters>::default();
        let mut sender = Sender::new(Rc::clone(&near), remote, gso, counters.clone());
        // The sender has looked at the path before.
        ip("link set lo mtu 1300");
        for size in [1400, 1000, 1272, 1273] {
            for _ in 0..10 {
                sender.queue(&vec![7; size]);
            }
        }
        sender.flush();
        far.set_read_timeout(Some(PATIENCE)).unwrap();
        for size in [1000, 1272] {
            for _ in 0..10 {
                assert_eq!(received(&far, &mut [0; 2000]).unwrap(), size);
            }
        }
        let snapshot = counters.snapshot();
        assert_eq!(dropped(&snapshot, DropReason::TooLong), 20);
        assert_eq!(snapshot.offload_fallbacks, 0);
        assert_eq!(sender.path.mtu(), Some(1300));
    });
    inside.join().unwrap();
}

/// A wait with a timeout ends early where the program is stopped and goes on (signal(7)).
fn received(socket: &UdpSocket, buffer: &mut [u8]) -> rustix::io::Result<usize> {
    let (len, _) = retry_on_intr(|| recv(socket, &mut *buffer, RecvFlags::empty()))?;
    Ok(len)
}

/// Passes datagrams on one by one, and returns how many messages of sessions went by. Their counters (white
/// paper, section 5.4.6) must rise in each session.
fn pass_on(from: &UdpSocket, to: &UdpSocket, far: SocketAddrV4) -> u64 {
    let mut last = std::collections::HashMap::new();
    let (mut count, mut buffer) = (0, [0; 2000]);
    from.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
    while let Ok(len) = received(from, &mut buffer) {
        if buffer[0] == 4 {
            let session: [u8; 4] = buffer[4..8].try_into().unwrap();
            let counter = u64::from_le_bytes(buffer[8..16].try_into().unwrap());
            let before = last.insert(session, counter);
            assert!(
                before.is_none_or(|before| before < counter),
                "{before:?} {counter}"
            );
            count += 1;
        }
        to.send_to(&buffer[..len], far).unwrap();
    }
    count
}

#[test]
fn no_packet_overtakes_another_within_a_session() {
    let auto = (true, Offload::Auto);
    for kinds in [(auto, auto), ((true, Offload::Off), (false, Offload::Off))] {
        let [near, far, (left, left_address), (right, right_address)] = sockets();
        let (near_address, far_address) = (near.1, far.1);
        let (left_back, right_back) = (left.try_clone().unwrap(), right.try_clone().unwrap());
        let out = thread::spawn(move || pass_on(&left, &right, far_address));
        let back = thread::spawn(move || pass_on(&right_back, &left_back, near_address));
        let snapshot = bulk_by(
            kinds.0,
            kinds.1,
            (near.0, left_address),
            (far.0, right_address),
        );
        // An old counter would be rejected as a replay.
        assert_eq!(dropped(&snapshot, DropReason::Rejected), 0);
        let least = (BULK / usize::from(MTU)) as u64;
        assert!(out.join().unwrap() > least && back.join().unwrap() > least);
    }
}

#[test]
fn bursts_of_datagrams_arrive_unchanged_and_in_order() {
    const BURST: usize = 32;
    const ROUNDS: usize = 200;
    let [(near_socket, near_address), (far_socket, far_address)] = sockets();
    let (ready, listening) = channel();
    let (finish, finished) = channel::<()>();
    let server = thread::spawn(move || {
        enter_new_namespace();
        let end = end(FAR, true, Offload::Auto);
        end.device
            .connect(peer(2, 1), far_socket, near_address, Returns::default());
        let socket = UdpSocket::bind((FAR, 9)).unwrap();
        ready.send(()).unwrap();
        let mut datagram = [0; 2000];
        for _ in 0..BURST * ROUNDS {
            let (len, from) = socket.recv_from(&mut datagram).unwrap();
            socket.send_to(&datagram[..len], from).unwrap();
        }
        let _ = finished.recv();
    });
    let client = thread::spawn(move || {
        enter_new_namespace();
        let end = end(NEAR, true, Offload::Auto);
        listening.recv().unwrap();
        end.device
            .connect(peer(1, 2), near_socket, far_address, Returns::default());
        end.wait_handshake();
        let socket = UdpSocket::bind((NEAR, 0)).unwrap();
        socket.connect((FAR, 9)).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        for round in 0..ROUNDS {
            // Bursts of one size, as uTP sends them, and bursts of many.
            let len = |n: usize| if round % 2 == 0 { 1200 } else { 1 + 37 * n };
            let sent: Vec<Vec<u8>> = (0..BURST)
                .map(|n| (0..len(n)).map(|at| pattern(round * 99 + n + at)).collect())
                .collect();
            for datagram in &sent {
                socket.send(datagram).unwrap();
            }
            for expected in &sent {
                let mut datagram = [0; 2000];
                let len = received(&socket, &mut datagram).unwrap();
                assert!(datagram[..len] == expected[..], "round {round}");
            }
        }
    });
    client.join().unwrap();
    drop(finish);
    server.join().unwrap();
}

#[test]
fn nothing_passes_without_a_peer_and_the_device_stays() {
    let inside = thread::spawn(|| {
        enter_new_namespace();
        let end = end(NEAR, true, Offload::Auto);
        let probe = UdpSocket::bind((NEAR, 0)).unwrap();
        let before = dropped(&end.device.snapshot(), DropReason::Disconnected);
        for _ in 0..10 {
            probe.send_to(b"probe", (FAR, 9)).unwrap();
        }
        let deadline = std::time::Instant::now() + PATIENCE;
        let count = || dropped(&end.device.snapshot(), DropReason::Disconnected) - before;
        while count() < 10 && std::time::Instant::now() < deadline {
            thread::yield_now();
        }
        assert!(count() >= 10);
        assert_eq!(end.device.snapshot().tx_packets, 0);
        drop(end.device);
        assert!(end.events.try_recv().is_err());
    });
    inside.join().unwrap();
}

#[test]
fn a_stranger_and_a_forbidden_address_are_not_heard() {
    let inside = thread::spawn(|| {
        enter_new_namespace();
        let near = end(NEAR, true, Offload::Auto);
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = socket.local_addr().unwrap();
        let nobody = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 9);
        let stranger = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        // From now on the kernel would not let a stranger's in.
        stranger.send_to(&[4, 0, 0, 0], address).unwrap();
        near.device
            .connect(peer(1, 2), socket, nobody, Returns::default());
        let probe = UdpSocket::bind((NEAR, 0)).unwrap();
        ip("route add 198.51.100.0/24 dev tun0");
        let heard = |reason| dropped(&near.device.snapshot(), reason);
        let deadline = std::time::Instant::now() + PATIENCE;
        while heard(DropReason::NotTheEndpoint) == 0
            || heard(DropReason::DestinationNotAllowed) == 0
        {
            probe.send_to(b"probe", ("198.51.100.1", 9)).unwrap();
            assert!(std::time::Instant::now() < deadline);
        }
        stranger.send_to(&[4, 0, 0, 0], address).unwrap();
        assert_eq!(heard(DropReason::Rejected), 0);
        assert_eq!(heard(DropReason::NotTheEndpoint), 1);
        assert_eq!(near.device.snapshot().tx_packets, 0);
    });
    inside.join().unwrap();
}

#[test]
fn a_deleted_device_is_told_of() {
    let inside = thread::spawn(|| {
        enter_new_namespace();
        let end = end(NEAR, true, Offload::Auto);
        ip("link del tun0");
        let told = end.events.recv_timeout(PATIENCE);
        assert!(matches!(told, Ok(Event::Failed(_))), "{told:?}");
    });
    inside.join().unwrap();
}

#[test]
fn a_device_that_is_no_tun_is_refused() {
    let null: OwnedFd = std::fs::File::open("/dev/null").unwrap().into();
    assert!(Device::start(setup(null, Offload::Auto), |_| {}).is_err());
}

#[test]
fn the_same_keys_keep_the_session_and_others_do_not() {
    let [(near_socket, near_address), (far_socket, far_address)] = sockets();
    let sockets = [&near_socket, &near_socket, &near_socket].map(|s| s.try_clone().unwrap());
    let ear = far_socket.try_clone().unwrap();
    let (finish, finished) = channel::<()>();
    let far = thread::spawn(move || {
        enter_new_namespace();
        let end = end(FAR, true, Offload::Auto);
        end.device
            .connect(peer(2, 1), far_socket, near_address, Returns::default());
        let _ = finished.recv();
    });
    let near = thread::spawn(move || {
        enter_new_namespace();
        let end = end(NEAR, true, Offload::Auto);
        let [first, second, third] = sockets;
        end.device
            .connect(peer(1, 2), first, far_address, Returns::default());
        end.wait_handshake();
        drop(finish);
        far.join().unwrap();
        let last = || end.device.snapshot().last_handshake;
        assert!(last().is_some());
        drain(&ear);
        end.device
            .connect(peer(1, 2), second, far_address, Returns::default());
        hear_initiation(&ear);
        assert!(last().is_some());
        end.device
            .connect(peer(3, 2), third, far_address, Returns::default());
        hear_initiation(&ear);
        assert_eq!(last(), None);
    });
    near.join().unwrap();
}

fn drain(socket: &UdpSocket) {
    while socket.recv(&mut [0; 2000]).is_ok() {}
}

/// Waits for a handshake initiation on a socket that does not block.
fn hear_initiation(socket: &UdpSocket) {
    let deadline = std::time::Instant::now() + PATIENCE;
    let mut message = [0; 2000];
    while socket.recv(&mut message).ok() != Some(148) {
        assert!(std::time::Instant::now() < deadline, "no initiation");
        thread::yield_now();
    }
}

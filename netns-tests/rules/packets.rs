//! What happens to packets: each test of a refusal shows first, or beside it, that the same packet would
//! have passed.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tun_rs::{DeviceBuilder, SyncDevice};
use vpngw::net::Fwmark;
use vpngw::policy::{Policy, Reason};
use vpngw::ruleset::{Hook, Ruleset};
use vpngw::sys::nft;
use vpngw::sys::socket::uninterrupted;

use super::wire::{Wire, frame, udp};
use super::{Ns, ip, kernel, load, name, policy, sh};
use crate::lab::wait;

/// Long enough for anything on one machine.
const SOON: Duration = Duration::from_millis(500);

/// The first bytes of a WireGuard handshake initiation.
const INITIATION: [u8; 8] = [1, 0, 0, 0, 9, 9, 9, 9];

/// A gateway's namespace and the network it is in: router, endpoint and LAN hosts in one.
pub(super) struct Lab {
    pub(super) app: Ns,
    pub(super) world: Ns,
    tun: SyncDevice,
}

pub(super) fn lab() -> Lab {
    let (app, world) = (Ns::new(), Ns::new());
    let path = app.path();
    world.run(|| {
        ip(&format!(
            "link add w0 type veth peer name eth0 netns {path}"
        ));
        ip("address add 172.30.0.1/24 dev w0");
        ip("address add 172.30.0.20/24 dev w0");
        ip("address add 198.51.100.10/32 dev w0");
        ip("link set w0 up");
    });
    let tun = app.run(|| {
        ip("address add 172.30.0.2/24 dev eth0");
        ip("link set eth0 up");
        let tun = DeviceBuilder::new()
            .name("tun0")
            .mtu(1420)
            .build_sync()
            .unwrap();
        ip("address add 10.64.0.2/32 dev tun0");
        ip("link set tun0 up");
        ip("route add default dev tun0");
        ip("route add default via 172.30.0.1 dev eth0 table 51820");
        ip("rule add fwmark 0x1234 lookup 51820");
        tun.set_nonblocking(true).unwrap();
        tun
    });
    Lab { app, world, tun }
}

fn lab_policy() -> Policy {
    let mut policy = policy();
    if let Some(tunnel) = &mut policy.tunnel {
        tunnel.addresses.truncate(1);
    }
    policy
}

impl Lab {
    pub(super) fn connect(&self) {
        let ruleset = Ruleset::of(&lab_policy(), &[name("eth0")], kernel());
        self.app.run(|| load(&ruleset));
    }

    /// Packets that rules of this reason have counted in the chain.
    pub(super) fn counted(&self, hook: Hook, reason: Reason) -> u64 {
        let counters = self.app.run(|| nft::counters().unwrap());
        let matching = counters
            .iter()
            .filter(|c| c.hook == hook && c.reason == reason);
        matching.map(|c| c.packets).sum()
    }
}

fn socket(local: &str, mark: Option<Fwmark>) -> UdpSocket {
    let socket = bound(local);
    socket.set_read_timeout(Some(SOON)).unwrap();
    if let Some(mark) = mark {
        SockRef::from(&socket).set_mark(mark.0).unwrap();
    }
    socket
}

/// The port may be held a moment longer than its socket: a test beside this one that starts a program has
/// a copy of every descriptor from fork to exec.
fn bound(address: &str) -> UdpSocket {
    let until = Instant::now() + Duration::from_secs(2);
    loop {
        match UdpSocket::bind(address) {
            Ok(socket) => return socket,
            Err(error) if error.kind() == ErrorKind::AddrInUse && Instant::now() < until => {
                std::thread::yield_now();
            }
            Err(error) => panic!("{address}: {error}"),
        }
    }
}

fn send(local: &str, mark: Option<Fwmark>, payload: &[u8], remote: &str) -> io::Result<usize> {
    socket(local, mark).send_to(payload, remote)
}

/// The error by which the kernel says that a rule dropped it.
fn refused(result: io::Result<usize>) -> bool {
    result.is_err_and(|error| error.raw_os_error() == Some(libc::EPERM))
}

fn connect_from(local: &str, remote: &str) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)).unwrap();
    socket.bind(&local.parse::<SocketAddr>().unwrap().into())?;
    let remote: SocketAddr = remote.parse().unwrap();
    socket.connect_timeout(&remote.into(), SOON * 2)?;
    Ok(socket.into())
}

#[test]
fn nothing_but_our_wireguard_flow_reaches_the_endpoint() {
    let lab = lab();
    let mark = Some(Fwmark(0x1234));
    let server = lab.world.run(|| socket("198.51.100.10:51820", None));
    lab.connect();
    lab.app.run(|| {
        let (us, endpoint) = ("172.30.0.2:40000", "198.51.100.10:51820");
        let ours = socket(us, mark);
        ours.send_to(&INITIATION, endpoint).unwrap();
        let mut buffer = [0; 64];
        let (length, from) = uninterrupted(|| server.recv_from(&mut buffer)).unwrap();
        assert_eq!(&buffer[..length], INITIATION);
        // The answer comes by a device to which the main table does not lead.
        server.send_to(&[2, 0, 0, 0], from).unwrap();
        assert_eq!(uninterrupted(|| ours.recv(&mut buffer)).unwrap(), 4);
        server.send_to(b"not WireGuard", from).unwrap();
        assert!(uninterrupted(|| ours.recv(&mut buffer)).is_err());

        assert!(refused(ours.send_to(b"GET / HTTP/1.1", endpoint)));
        assert!(refused(ours.send_to(&[5, 0, 0, 0], endpoint)));
        assert!(refused(ours.send_to(&[1, 0, 1, 0], endpoint)));
        assert!(refused(ours.send_to(&INITIATION, "198.51.100.10:51821")));
        drop(ours);
        assert!(refused(send(
            "172.30.0.2:40002",
            mark,
            &INITIATION,
            endpoint
        )));
        // Without the mark it is routed into the tunnel, unless it is bound to the uplink.
        let bound = socket(us, None);
        SockRef::from(&bound).bind_device(Some(b"eth0")).unwrap();
        assert!(refused(bound.send_to(&INITIATION, endpoint)));
    });
    assert!(uninterrupted(|| server.recv(&mut [0; 64])).is_err());
    assert_eq!(
        lab.counted(Hook::Egress, Reason::Endpoint),
        1,
        "egress sees the mark"
    );
    assert_eq!(lab.counted(Hook::Egress, Reason::Raw), 0);
}

#[test]
fn a_segmented_send_passes_whole() {
    let lab = lab();
    let server = lab.world.run(|| socket("198.51.100.10:51820", None));
    lab.connect();
    lab.app.run(|| {
        let ours = socket("172.30.0.2:40000", Some(Fwmark(0x1234)));
        let segment: libc::c_int = 1000;
        #[expect(unsafe_code, reason = "UDP_SEGMENT")]
        // SAFETY: the pointer and the length are those of `segment`, which outlives the call.
        let set = unsafe {
            let value = (&raw const segment).cast();
            let fd = std::os::fd::AsRawFd::as_raw_fd(&ours);
            libc::setsockopt(fd, libc::SOL_UDP, libc::UDP_SEGMENT, value, 4)
        };
        assert_eq!(set, 0);
        let messages = [4, 0, 0, 0].repeat(250 * 10);
        ours.send_to(&messages, "198.51.100.10:51820").unwrap();
    });
    for _ in 0..10 {
        assert_eq!(uninterrupted(|| server.recv(&mut [0; 2000])).unwrap(), 1000);
    }
}

#[test]
fn a_raw_frame_dies_at_egress() {
    let lab = lab();
    let far = lab.world.run(|| Wire::open("w0"));
    let near = lab.app.run(|| Wire::open("eth0"));
    let canary = frame(&udp(("172.30.0.2", 9), ("1.1.1.1", 443), b"canary"));
    near.send(&canary).unwrap();
    assert!(
        far.seen(SOON).contains(&canary),
        "seen while nothing is loaded"
    );
    let armed = lab.app.run(|| nft::arm().unwrap());
    assert!(armed.egress_hook);
    let error = near.send(&canary).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ENOBUFS));
    drop(armed);
    lab.connect();
    let error = near.send(&canary).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ENOBUFS));
    assert!(!far.seen(SOON).contains(&canary));
    assert_eq!(lab.counted(Hook::Egress, Reason::Raw), 1);
}

#[test]
fn a_refusal_is_heard_at_once_and_leaves_no_trace_on_the_uplink() {
    let lab = lab();
    lab.connect();
    let far = lab.world.run(|| Wire::open("w0"));
    lab.app.run(|| {
        ip("route replace default via 172.30.0.1 dev eth0");
        let started = Instant::now();
        let error = TcpStream::connect("1.1.1.1:80").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
        let error = TcpStream::connect("172.30.0.1:53").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
        assert!(started.elapsed() < SOON, "{:?}", started.elapsed());
        for remote in [
            "1.1.1.1:80",
            "172.30.0.1:53",
            "172.30.0.20:5351",
            "169.254.169.254:80",
        ] {
            assert!(refused(send("0.0.0.0:0", None, b"x", remote)), "{remote}");
        }
        let multicast = send("172.30.0.2:0", None, b"x", "239.255.255.250:1900");
        assert!(refused(multicast));
        let ping = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4)).unwrap();
        let to: SocketAddr = "172.30.0.1:0".parse().unwrap();
        assert!(refused(
            ping.send_to(&[8, 0, 0xf7, 0xff, 0, 0, 0, 0], &to.into())
        ));
    });
    let seen = far.seen(SOON);
    let ipv4 = |frame: &&Vec<u8>| frame[12..14] == [8, 0];
    assert_eq!(seen.iter().filter(ipv4).count(), 0, "{seen:?}");
    assert_eq!(lab.counted(Hook::Output, Reason::Dns), 2);
    assert_eq!(lab.counted(Hook::Output, Reason::PortMapping), 1);
    assert_eq!(lab.counted(Hook::Output, Reason::Metadata), 1);
    assert_eq!(lab.counted(Hook::Output, Reason::Multicast), 1);
}

#[test]
fn a_lan_client_is_answered_and_cannot_be_called() {
    let lab = lab();
    lab.connect();
    let listener = lab.app.run(|| TcpListener::bind("0.0.0.0:8080").unwrap());
    let mut client = lab
        .world
        .run(|| connect_from("172.30.0.20:0", "172.30.0.2:8080").unwrap());
    let (mut server, _) = listener.accept().unwrap();
    server.write_all(b"hello").unwrap();
    let mut buffer = [0; 5];
    client.read_exact(&mut buffer).unwrap();
    assert_eq!(&buffer, b"hello");
    // An unlisted port is silent.
    lab.app.run(|| TcpListener::bind("0.0.0.0:8081").unwrap());
    let error = lab
        .world
        .run(|| connect_from("172.30.0.20:0", "172.30.0.2:8081").unwrap_err());
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    // From the listed port to the same client, but opened by us.
    drop((client, server, listener));
    let trap = lab
        .world
        .run(|| TcpListener::bind("172.30.0.20:9999").unwrap());
    trap.set_nonblocking(true).unwrap();
    let result = lab.app.run(|| {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)).unwrap();
        socket.set_reuse_address(true).unwrap();
        let from: SocketAddr = "172.30.0.2:8080".parse().unwrap();
        // A test beside this one that starts a program has a copy of the listener from fork to exec.
        wait("the port is free", SOON * 20, || {
            socket.bind(&from.into()).ok()
        });
        let to: SocketAddr = "172.30.0.20:9999".parse().unwrap();
        socket.connect(&to.into())
    });
    assert_eq!(result.unwrap_err().kind(), ErrorKind::ConnectionRefused);
    assert_eq!(trap.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
    assert_eq!(lab.counted(Hook::Output, Reason::Other), 1);
}

#[test]
fn a_lan_host_is_reached_at_its_port_only() {
    let lab = lab();
    lab.connect();
    let (share, other) = lab.world.run(|| {
        let bind = |at| TcpListener::bind(at).unwrap();
        (bind("172.30.0.20:445"), bind("172.30.0.20:446"))
    });
    let mut client = lab
        .app
        .run(|| connect_from("172.30.0.2:0", "172.30.0.20:445").unwrap());
    let (mut server, _) = share.accept().unwrap();
    server.write_all(b"hello").unwrap();
    client.read_exact(&mut [0; 5]).unwrap();
    let error = lab
        .app
        .run(|| connect_from("172.30.0.2:0", "172.30.0.20:446").unwrap_err());
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    other.set_nonblocking(true).unwrap();
    assert_eq!(other.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
    assert!(
        lab.app
            .run(|| refused(send("0.0.0.0:0", None, b"x", "172.30.0.20:53")))
    );
}

#[test]
fn a_veth_called_tun0_is_no_tunnel() {
    let lab = lab();
    lab.connect();
    let ask = || send("10.64.0.2:0", None, b"x", "10.64.0.1:53");
    lab.app
        .run(|| assert!(!refused(ask()), "the tunnel carries it"));
    lab.app.run(|| {
        ip("link delete tun0");
        ip("link add tun0 type veth peer name trap");
        ip("address add 10.64.0.2/32 dev tun0");
        ip("link set trap up");
        ip("link set tun0 up");
        ip("route add default dev tun0");
        assert!(refused(ask()));
        assert!(refused(send("10.64.0.2:0", None, b"x", "1.1.1.1:80")));
    });
}

#[test]
fn the_tunnel_carries_its_own_dns_public_hosts_and_replies() {
    let lab = lab();
    lab.connect();
    let mut buffer = [0; 2000];
    lab.app.run(|| {
        assert!(!refused(send("10.64.0.2:0", None, b"x", "10.64.0.1:53")));
        assert!(!refused(send("10.64.0.2:0", None, b"x", "1.1.1.1:80")));
        for remote in [
            "1.1.1.1:53",
            "8.8.8.8:853",
            "192.168.5.5:80",
            "10.64.0.77:80",
        ] {
            assert!(refused(send("10.64.0.2:0", None, b"x", remote)), "{remote}");
        }
        // Another source than ours, bound to the tunnel.
        let lost = socket("172.30.0.2:0", None);
        SockRef::from(&lost).bind_device(Some(b"tun0")).unwrap();
        assert!(refused(lost.send_to(b"x", "1.1.1.1:80")));

        let asking = socket("10.64.0.2:5000", None);
        asking.send_to(b"x", "1.1.1.1:80").unwrap();
        let answer = udp(("1.1.1.1", 80), ("10.64.0.2", 5000), b"yes");
        lab.tun.send(&answer).unwrap();
        assert_eq!(
            uninterrupted(|| asking.recv(&mut buffer)).unwrap(),
            3,
            "a reply"
        );
        let stranger = udp(("8.8.4.4", 80), ("10.64.0.2", 5000), b"no");
        lab.tun.send(&stranger).unwrap();
        assert!(
            uninterrupted(|| asking.recv(&mut buffer)).is_err(),
            "not a reply"
        );

        let forwarded = socket("10.64.0.2:6881", None);
        lab.tun
            .send(&udp(("8.8.4.4", 80), ("10.64.0.2", 6881), b"peer"))
            .unwrap();
        assert_eq!(uninterrupted(|| forwarded.recv(&mut buffer)).unwrap(), 4);
        for source in [
            "172.30.0.20",
            "127.0.0.1",
            "10.64.0.2",
            "172.30.0.2",
            "224.0.0.1",
        ] {
            lab.tun
                .send(&udp((source, 80), ("10.64.0.2", 6881), b"liar"))
                .unwrap();
            assert!(
                uninterrupted(|| forwarded.recv(&mut buffer)).is_err(),
                "{source}"
            );
        }
    });
    assert_eq!(lab.counted(Hook::Prerouting, Reason::Spoofed), 5);
}

#[test]
fn a_neighbour_learns_nothing_of_the_tunnel_address() {
    let lab = lab();
    lab.connect();
    let listener = lab.app.run(|| TcpListener::bind("0.0.0.0:8080").unwrap());
    lab.world.run(|| {
        connect_from("172.30.0.20:0", "172.30.0.2:8080").unwrap();
        ip("route add 10.64.0.2/32 dev w0");
        connect_from("172.30.0.20:0", "10.64.0.2:8080").unwrap_err();
        let neighbours = sh("ip", &["neighbour", "show"]);
        assert!(
            neighbours.contains("172.30.0.2 dev w0 lladdr"),
            "{neighbours}"
        );
        assert!(
            !neighbours.contains("10.64.0.2 dev w0 lladdr"),
            "{neighbours}"
        );
        ip("route replace 10.64.0.2/32 via 172.30.0.2");
        let error = connect_from("172.30.0.20:0", "10.64.0.2:8080").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut, "no answer to TCP");
    });
    drop(listener);
    assert!(lab.counted(Hook::Prerouting, Reason::Spoofed) > 0);
}

#[test]
fn docker_s_resolver_is_out_of_reach_by_socket_and_by_frame() {
    let ns = Ns::new();
    ns.run(|| {
        // Else the kernel takes no frame between loopback addresses (ip_route_input_slow and
        // fib_validate_source, net/ipv4).
        for switch in ["route_localnet", "accept_local"] {
            std::fs::write(format!("/proc/sys/net/ipv4/conf/lo/{switch}"), "1").unwrap();
        }
        let resolver = socket("127.0.0.11:5300", None);
        let lo = Wire::open("lo");
        let question = frame(&udp(("127.0.0.1", 9), ("127.0.0.11", 5300), b"canary"));
        let mut loopback = question.clone();
        loopback[..12].fill(0);
        let ask = || send("127.0.0.1:0", None, b"canary", "127.0.0.11:5300");
        ask().unwrap();
        lo.send(&loopback).unwrap();
        for _ in 0..2 {
            assert_eq!(
                uninterrupted(|| resolver.recv(&mut [0; 64])).unwrap(),
                6,
                "reached while nothing is loaded"
            );
        }
        let armed = nft::arm().unwrap();
        assert!(armed.devices.is_empty());
        assert!(refused(ask()));
        lo.send(&loopback).unwrap();
        assert!(uninterrupted(|| resolver.recv(&mut [0; 64])).is_err());
        send("127.0.0.1:0", None, b"x", "127.0.0.1:9").unwrap();
        assert!(sh("nft", &["list", "ruleset"]).contains("table netdev vpngw"));
    });
}

#[test]
fn an_open_connection_outlives_a_block() {
    let lab = lab();
    lab.connect();
    let listener = lab.app.run(|| TcpListener::bind("0.0.0.0:8080").unwrap());
    let mut client = lab
        .world
        .run(|| connect_from("172.30.0.20:0", "172.30.0.2:8080").unwrap());
    client.set_read_timeout(Some(SOON * 20)).unwrap();
    let (mut server, _) = listener.accept().unwrap();
    let blocked = Ruleset::deny_all(&[name("eth0")], kernel());
    lab.app.run(|| load(&blocked));
    server.write_all(b"hello").unwrap();
    let before = client
        .set_read_timeout(Some(SOON))
        .and_then(|()| uninterrupted(|| client.read(&mut [0; 5])));
    assert!(before.is_err(), "blocked");
    lab.connect();
    client.set_read_timeout(Some(SOON * 20)).unwrap();
    client.write_all(b"hello").unwrap();
    client.read_exact(&mut [0; 5]).unwrap();
    server.read_exact(&mut [0; 5]).unwrap();
}

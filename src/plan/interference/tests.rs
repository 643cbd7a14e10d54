//! What is found, and what stays.

use super::*;

fn device(name: &str, index: u32, role: Role) -> Guarded {
    Guarded {
        index,
        name: name.parse().unwrap(),
        role,
        arp: role == Role::Uplink,
        carrier: true,
        queue: 1000,
        master: None,
        far_end: None,
        disciplines: vec![discipline("noqueue", 0, ROOT)],
        fixed: Vec::new(),
    }
}

fn seen() -> Seen {
    let devices = vec![
        device("eth0", 7, Role::Uplink),
        device("tun0", 2, Role::Tunnel),
    ];
    let value = |it: Parameter| (it.to_string() == "net.ipv4.ip_default_ttl").then_some(it);
    let uplink: IfName = "eth0".parse().unwrap();
    let all = Parameter::all(Some(&uplink)).into_iter();
    let values = all
        .filter_map(value)
        .map(|it| (it, "64".to_owned()))
        .collect();
    Seen { devices, values }
}

fn discipline(kind: &str, handle: u32, parent: u32) -> Discipline {
    Discipline {
        kind: kind.to_owned(),
        handle,
        parent,
    }
}

fn fixed(last: u8) -> Fixed {
    Fixed {
        address: Ipv4Addr::new(172, 30, 0, 1),
        link_address: vec![2, 0, 0, 0, 0, last],
    }
}

fn undone(seen: &Seen, first: &Seen) -> Vec<String> {
    let found = interference(seen, first);
    found.iter().map(|it| it.undo.to_string()).collect()
}

/// What somebody does to the uplink.
type Spoil = fn(&mut Seen);

const SPOILS: &[(Spoil, &str)] = &[
    (
        |it| it.devices[0].master = Some(9),
        "ip link set dev eth0 nomaster",
    ),
    (
        |it| it.devices[0].arp = false,
        "ip link set dev eth0 arp on",
    ),
    (
        |it| it.devices[1].carrier = false,
        "ip link set dev tun0 carrier on",
    ),
    (
        |it| it.devices[1].queue = 0,
        "ip link set dev tun0 txqueuelen 1000",
    ),
    (
        |it| it.devices[0].disciplines = vec![discipline("tbf", 0x8001_0000, ROOT)],
        "tc qdisc del dev eth0 root",
    ),
    (
        |it| {
            let clsact = discipline("clsact", 0xffff_0000, INGRESS);
            it.devices[0].disciplines.push(clsact);
        },
        "tc qdisc del dev eth0 ingress",
    ),
    (
        |it| it.devices[0].fixed.push(fixed(0x99)),
        "ip neigh del 172.30.0.1 dev eth0",
    ),
    (
        |it| {
            for value in it.values.values_mut() {
                "1".clone_into(value);
            }
        },
        "sysctl -w net.ipv4.ip_default_ttl=\"64\"",
    ),
];

#[test]
fn what_cuts_is_undone_and_what_was_there_at_first_stays() {
    assert_eq!(undone(&seen(), &seen()), [""; 0]);
    for (spoil, expected) in SPOILS {
        let mut spoilt = seen();
        spoil(&mut spoilt);
        assert_eq!(undone(&spoilt, &seen()), [*expected]);
        // A TTL of 1 serves nobody, so that one is undone whenever it was set.
        let stays = undone(&spoilt, &spoilt);
        let parameter = expected.starts_with("sysctl");
        assert_eq!(stays, if parameter { vec![*expected] } else { vec![] });
    }
}

#[test]
fn a_cable_that_is_pulled_is_nobodys_doing() {
    let mut pulled = seen();
    pulled.devices[0].carrier = false;
    assert_eq!(undone(&pulled, &seen()), [""; 0]);
}

/// Deleting the discipline at the root deletes those below it.
#[test]
fn of_disciplines_that_hang_on_each_other_the_upper_one_goes() {
    let mut shaped = seen();
    shaped.devices[0].disciplines = vec![
        discipline("prio", 0x1_0000, ROOT),
        discipline("netem", 0x10_0000, 0x1_0001),
    ];
    assert_eq!(undone(&shaped, &seen()), ["tc qdisc del dev eth0 root"]);
    // The upper one is the operator's.
    let mut first = seen();
    first.devices[0].disciplines = vec![discipline("prio", 0x1_0000, ROOT)];
    assert_eq!(
        undone(&shaped, &first),
        ["tc qdisc del dev eth0 parent 1:1"]
    );
}

#[test]
fn another_bridge_than_at_first_is_undone() {
    let (mut first, mut now) = (seen(), seen());
    first.devices[0].master = Some(9);
    now.devices[0].master = Some(10);
    assert_eq!(undone(&now, &first), ["ip link set dev eth0 nomaster"]);
}

#[test]
fn what_cannot_be_undone_is_said_once_and_tried_each_time() {
    let mut memory = Memory::default();
    assert_eq!(memory.judge(&seen()), []);
    let mut spoilt = seen();
    SPOILS[0].0(&mut spoilt);
    let news = |judged: Vec<Judged>| judged.iter().map(|it| it.is_new).collect::<Vec<_>>();
    assert_eq!(news(memory.judge(&spoilt)), [true]);
    assert_eq!(news(memory.judge(&spoilt)), [false]);
    assert_eq!(news(memory.judge(&seen())), [false; 0]);
    assert_eq!(news(memory.judge(&spoilt)), [true]);
}

#[test]
fn a_device_that_is_made_anew_is_at_first_as_it_comes() {
    let mut memory = Memory::default();
    memory.judge(&seen());
    let mut anew = seen();
    anew.devices[0].index = 8;
    anew.devices[0].fixed.push(fixed(1));
    assert_eq!(memory.judge(&anew), []);
    anew.devices[0].fixed[0] = fixed(0x99);
    assert_eq!(memory.judge(&anew).len(), 1);
    // While it is down it is no uplink, and what is done to it meanwhile is found when it is one again.
    let mut away = seen();
    away.devices.remove(0);
    assert_eq!(memory.judge(&away), []);
    assert_eq!(memory.judge(&anew).len(), 1);
}

#[test]
fn a_memory_of_many_devices_stays_small() {
    let mut memory = Memory::default();
    for index in 10..10_000 {
        let mut anew = seen();
        anew.devices[0].index = index;
        memory.judge(&anew);
    }
    assert_eq!(memory.first.devices.len(), REMEMBERED);
}

//! The socket filter of the frame sensor: passes every frame that leaves, but for our own WireGuard
//! flow, which would be most of the traffic.

use socket2::SockFilter;

use crate::policy::UplinkPolicy;

/// Bytes of a frame that are looked at: Ethernet, IPv4 with options, TCP with options.
const SNAP: u32 = 256;

/// Ancillary loads (linux/filter.h): packet type, and whether a VLAN tag was taken off.
const PACKET_TYPE: u32 = 0xffff_f000 + 4;
const VLAN_PRESENT: u32 = 0xffff_f000 + 48;
/// `PACKET_OUTGOING` (linux/if_packet.h).
const OUTGOING: u32 = 4;

/// The shortest frame of our flow: Ethernet 14, IPv4 20, UDP 8, the first word of a message.
const SHORTEST: u32 = 46;

/// The filter for the device of `uplink`; `None` is another device, where nothing is ours.
pub fn outgoing(uplink: Option<&UplinkPolicy>) -> Vec<SockFilter> {
    let ours = uplink.and_then(|uplink| Some((uplink.address, uplink.endpoint?)));
    let mut code = vec![load_word(PACKET_TYPE), Step::Unless(OUTGOING, Target::Drop)];
    if let Some((address, hole)) = ours {
        code.extend([
            // A load past the end of a frame ends the filter with "drop": the length first.
            Step::Code(LD_LEN, 0),
            Step::Below(SHORTEST, Target::Pass),
            load_word(VLAN_PRESENT),
            Step::Unless(0, Target::Pass),
            load_half(12),
            Step::Unless(0x0800, Target::Pass),
            load_byte(23),
            Step::Unless(17, Target::Pass),
            // More fragments, or not the first one.
            load_half(20),
            Step::AnyOf(0x3fff, Target::Pass),
            load_word(26),
            Step::Unless(address.to_bits(), Target::Pass),
            load_word(30),
            Step::Unless(hole.remote.ip().to_bits(), Target::Pass),
            // Only without IPv4 options are ports where the next loads look.
            load_byte(14),
            Step::Unless(0x45, Target::Pass),
            load_half(34),
            Step::Unless(u32::from(hole.source_port), Target::Pass),
            load_half(36),
            Step::Unless(u32::from(hole.remote.port()), Target::Pass),
            load_byte(42),
            Step::Below(1, Target::Pass),
            Step::AtLeast(5, Target::Pass),
            load_byte(43),
            Step::Unless(0, Target::Pass),
            load_half(44),
            Step::If(0, Target::Drop),
        ]);
    }
    assemble(&code)
}

const LD_W_ABS: u16 = 0x20;
const LD_H_ABS: u16 = 0x28;
const LD_B_ABS: u16 = 0x30;
const LD_LEN: u16 = 0x80;
const JEQ: u16 = 0x15;
const JGE: u16 = 0x35;
const JSET: u16 = 0x45;
const RET: u16 = 0x06;

#[derive(Clone, Copy)]
enum Target {
    Pass,
    Drop,
}

/// One instruction; jumps name where they lead, and fall through otherwise.
#[derive(Clone, Copy)]
enum Step {
    Code(u16, u32),
    If(u32, Target),
    Unless(u32, Target),
    AnyOf(u32, Target),
    Below(u32, Target),
    AtLeast(u32, Target),
}

fn load_word(offset: u32) -> Step {
    Step::Code(LD_W_ABS, offset)
}

fn load_half(offset: u32) -> Step {
    Step::Code(LD_H_ABS, offset)
}

fn load_byte(offset: u32) -> Step {
    Step::Code(LD_B_ABS, offset)
}

/// Resolves the targets: after the steps stand "pass", then "drop".
fn assemble(code: &[Step]) -> Vec<SockFilter> {
    let mut program = Vec::with_capacity(code.len() + 2);
    for (at, step) in code.iter().enumerate() {
        // Invariant: the program is far shorter than the 255 instructions a jump can pass over.
        let to = |target: Target| {
            let end = match target {
                Target::Pass => code.len(),
                Target::Drop => code.len() + 1,
            };
            u8::try_from(end - at - 1).unwrap_or(u8::MAX)
        };
        program.push(match *step {
            Step::Code(code, operand) => SockFilter::new(code, 0, 0, operand),
            Step::If(value, target) => SockFilter::new(JEQ, to(target), 0, value),
            Step::Unless(value, target) => SockFilter::new(JEQ, 0, to(target), value),
            Step::AnyOf(bits, target) => SockFilter::new(JSET, to(target), 0, bits),
            Step::Below(value, target) => SockFilter::new(JGE, 0, to(target), value),
            Step::AtLeast(value, target) => SockFilter::new(JGE, to(target), 0, value),
        });
    }
    program.push(SockFilter::new(RET, 0, 0, SNAP));
    program.push(SockFilter::new(RET, 0, 0, 0));
    program
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;

    use super::*;
    use crate::net::Fwmark;
    use crate::policy::Hole;

    fn uplink() -> UplinkPolicy {
        UplinkPolicy {
            device: "eth0".parse().unwrap(),
            address: [172, 30, 0, 2].into(),
            endpoint: Some(Hole {
                mark: Fwmark::DEFAULT,
                source_port: 40000,
                remote: "198.51.100.10:51820".parse().unwrap(),
            }),
            resolver: None,
            inbound: Vec::new(),
            outbound: Vec::new(),
        }
    }

    /// A frame of our flow: a keepalive.
    fn ours() -> Vec<u8> {
        let mut frame = vec![0; 14 + 20 + 8 + 32];
        frame[12..14].copy_from_slice(&[0x08, 0x00]);
        frame[14] = 0x45;
        frame[23] = 17;
        frame[26..30].copy_from_slice(&[172, 30, 0, 2]);
        frame[30..34].copy_from_slice(&[198, 51, 100, 10]);
        frame[34..36].copy_from_slice(&40000_u16.to_be_bytes());
        frame[36..38].copy_from_slice(&51820_u16.to_be_bytes());
        frame[42] = 4;
        frame
    }

    /// Runs the filter in the kernel, on a UNIX socket: there every packet has type 0, so the first two
    /// steps, which part outgoing frames from others, are left out.
    fn passes(frame: &[u8]) -> bool {
        let mut filter = outgoing(Some(&uplink()));
        filter.drain(..2);
        let (near, far) = UnixDatagram::pair().unwrap();
        socket2::SockRef::from(&far).attach_filter(&filter).unwrap();
        far.set_nonblocking(true).unwrap();
        near.send(frame).unwrap();
        far.recv(&mut [0; 2000]).is_ok()
    }

    #[test]
    fn our_own_flow_is_left_out() {
        assert!(!passes(&ours()));
    }

    #[test]
    fn a_frame_that_differs_in_one_field_is_seen() {
        let fields = [
            12, 14, 20, 21, 23, 26, 29, 30, 33, 34, 35, 36, 37, 43, 44, 45,
        ];
        for at in fields {
            let mut frame = ours();
            frame[at] ^= 1;
            assert!(passes(&frame), "byte {at}");
        }
        for kind in [0, 5, 255] {
            let mut frame = ours();
            frame[42] = kind;
            assert!(passes(&frame), "message type {kind}");
        }
    }

    #[test]
    fn a_short_frame_is_seen() {
        for length in [14, 20, 33, 41, 45] {
            assert!(passes(&ours()[..length]), "{length} bytes");
        }
    }

    #[test]
    fn without_a_flow_of_ours_every_frame_that_leaves_is_seen() {
        let filter = outgoing(None);
        assert_eq!(filter.len(), 4);
    }
}

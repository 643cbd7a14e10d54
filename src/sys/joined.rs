//! What the kernel refuses a program that `vpngw exec` starts: the system calls that lead out of a network namespace
//! without a packet, or that type into a terminal of somebody else.

use std::collections::BTreeMap;

use seccompiler::SeccompCmpArgLen::Dword;
use seccompiler::SeccompCmpOp::{Eq, Ne};
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch, apply_filter,
};

use super::seccomp::{SeccompError, errno, one, request};

/// What is refused whatever its arguments are.
///
/// A key that is asked for starts /sbin/request-key in the machine's own namespaces (keys/request-key.rst), which
/// may look a name up there. io_uring makes sockets that no filter sees (`IORING_OP_SOCKET`).
const REFUSED: &[i64] = &[
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
];

/// What types into a terminal: TIOCSTI, and the paste of a console by TIOCLINUX (ioctl_console(2)).
const TYPING: &[libc::Ioctl] = &[libc::TIOCSTI, libc::TIOCLINUX];

/// What a socket may be of. AF_VSOCK and AF_QIPCRTR, among others, know no network namespaces.
const DOMAINS: &[libc::c_int] = &[
    libc::AF_UNIX,
    libc::AF_INET,
    libc::AF_INET6,
    libc::AF_NETLINK,
];

/// Limits this process and all that it starts, for good.
///
/// Refused calls answer EPERM; sockets of another domain answer EAFNOSUPPORT, as where the kernel has none. A program of
/// another architecture (32 bits) is killed at its first call, since its calls have other numbers; one of x32 is
/// told that there are no such calls, as where the kernel has none.
///
/// # Errors
/// Where the kernel has no such filters, or this architecture has none.
pub fn limit() -> Result<(), SeccompError> {
    let target: TargetArch = std::env::consts::ARCH.try_into()?;
    let allow = || SeccompAction::Allow;
    let domains = BTreeMap::from([(libc::SYS_socket, vec![other_domain()?])]);
    let absent = errno(libc::EAFNOSUPPORT);
    let sockets = SeccompFilter::new(domains, allow(), absent, target)?;
    let calls = SeccompFilter::new(calls()?, allow(), errno(libc::EPERM), target)?;
    for filter in [sockets, calls] {
        let program: BpfProgram = filter.try_into()?;
        apply_filter(&program)?;
    }
    #[cfg(target_arch = "x86_64")]
    apply_filter(&x32())?;
    Ok(())
}

fn calls() -> Result<BTreeMap<i64, Vec<SeccompRule>>, BackendError> {
    let all = REFUSED.iter().map(|call| (*call, Vec::new()));
    let mut calls: BTreeMap<_, _> = all.collect();
    // The kernel reads 32 bits of a request, so nothing is hidden in the others.
    let typing = TYPING
        .iter()
        .map(|number| one(1, Dword, Eq, request(*number)));
    calls.insert(libc::SYS_ioctl, typing.collect::<Result<_, _>>()?);
    Ok(calls)
}

/// The kernel reads 32 bits of a domain.
fn other_domain() -> Result<SeccompRule, BackendError> {
    let conditions = DOMAINS
        .iter()
        .map(|domain| SeccompCondition::new(0, Dword, Ne, u64::from(domain.unsigned_abs())));
    SeccompRule::new(conditions.collect::<Result<_, _>>()?)
}

/// The calls of x32 have the architecture of all others and numbers of their own, `__X32_SYSCALL_BIT` and more
/// (asm/unistd.h): a filter that refuses by number does not meet them. ENOSYS for all of them, but for -1,
/// which is a tracer's word for none.
#[cfg(target_arch = "x86_64")]
fn x32() -> BpfProgram {
    use seccompiler::sock_filter;
    const X32_SYSCALL_BIT: u32 = 0x4000_0000;
    // Codes are those of linux/bpf_common.h and linux/filter.h; the number stands first in `seccomp_data`.
    let load = |offset| sock_filter {
        code: (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16,
        jt: 0,
        jf: 0,
        k: offset,
    };
    let jump = |kind, k, jt, jf| sock_filter {
        code: (libc::BPF_JMP | kind | libc::BPF_K) as u16,
        jt,
        jf,
        k,
    };
    let answer = |k| sock_filter {
        code: (libc::BPF_RET | libc::BPF_K) as u16,
        jt: 0,
        jf: 0,
        k,
    };
    vec![
        load(0),
        jump(libc::BPF_JGE, X32_SYSCALL_BIT, 0, 2),
        jump(libc::BPF_JEQ, u32::MAX, 1, 0),
        answer(libc::SECCOMP_RET_ERRNO | libc::ENOSYS.unsigned_abs()),
        answer(libc::SECCOMP_RET_ALLOW),
    ]
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    /// What a system call answers: 0, or the number of an error.
    #[expect(unsafe_code, reason = "calls that no library makes")]
    fn call(number: i64, arguments: [u64; 4]) -> i32 {
        let [a, b, c, d] = arguments;
        // SAFETY: descriptors that are not open and null pointers, which the kernel looks at and refuses.
        let answer = unsafe { libc::syscall(number, a, b, c, d) };
        if answer < 0 {
            io::Error::last_os_error().raw_os_error().unwrap()
        } else {
            0
        }
    }

    /// A descriptor that nobody has.
    const NONE: u64 = u64::MAX;

    fn ask(request: u64) -> i32 {
        call(libc::SYS_ioctl, [NONE, request, 0, 0])
    }

    fn socket(domain: libc::c_int) -> i32 {
        let kind = u64::from(libc::SOCK_DGRAM.unsigned_abs());
        // It is not closed: the test makes few.
        call(libc::SYS_socket, [domain.unsigned_abs().into(), kind, 0, 0])
    }

    #[test]
    fn a_joined_program_types_into_no_terminal_and_asks_no_keyring() {
        let joined = std::thread::spawn(|| {
            // The control: without the filter the kernel looks at the arguments.
            assert_eq!(ask(request(libc::TIOCSTI)), libc::EBADF);
            assert_eq!(call(libc::SYS_request_key, [0; 4]), libc::EFAULT);
            let before: Vec<_> = DOMAINS.iter().map(|domain| socket(*domain)).collect();
            limit().unwrap();
            for number in [libc::TIOCSTI, libc::TIOCLINUX] {
                assert_eq!(ask(request(number)), libc::EPERM);
                assert_eq!(ask(request(number) | 1 << 40), libc::EPERM, "high bits");
            }
            assert_eq!(ask(request(libc::TIOCGWINSZ)), libc::EBADF);
            for number in REFUSED {
                assert_eq!(call(*number, [0; 4]), libc::EPERM, "{number}");
            }
            let after: Vec<_> = DOMAINS.iter().map(|domain| socket(*domain)).collect();
            assert_eq!(after, before);
            for domain in [libc::AF_VSOCK, libc::AF_PACKET, libc::AF_ALG] {
                assert_eq!(socket(domain), libc::EAFNOSUPPORT, "{domain}");
            }
            // It works on, and so do those that it starts.
            let said = std::process::Command::new("true").status().unwrap();
            assert!(said.success());
        });
        joined.join().unwrap();
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn there_is_no_way_around_by_the_calls_of_x32() {
        let joined = std::thread::spawn(|| {
            limit().unwrap();
            // Numbers of arch/x86/entry/syscalls/syscall_64.tbl: ioctl of x32, keyctl, socket.
            for number in [514, libc::SYS_keyctl, libc::SYS_socket] {
                let x32 = 0x4000_0000 | number;
                assert_eq!(call(x32, [0; 4]), libc::ENOSYS, "{number}");
            }
        });
        joined.join().unwrap();
        // What the kernel itself would say depends on CONFIG_X86_X32_ABI, so the filter is read, too.
        let code = x32();
        assert_eq!((code[1].k, code[3].k), (0x4000_0000, 0x0005_0000 | 38));
    }
}

//! Which system calls the engine may make: seccomp(2) lets those through and answers EPERM to all others.

use std::collections::BTreeMap;

use rustix::process::getpid;
use seccompiler::SeccompCmpArgLen::{Dword, Qword};
use seccompiler::SeccompCmpOp::{Eq, MaskedEq};
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition,
    SeccompFilter, SeccompRule, TargetArch, apply_filter,
};

/// The filter is not in force.
#[derive(Debug, thiserror::Error)]
pub enum SeccompError {
    /// There is no filter for this architecture, or not this one.
    #[error("a filter of system calls for {}", std::env::consts::ARCH)]
    Build(#[from] BackendError),
    /// The kernel refused it.
    #[error("load a filter of system calls (CONFIG_SECCOMP_FILTER)")]
    Load(#[from] seccompiler::Error),
}

/// Limits the calling thread and those that it starts to what an engine needs. The filter of a process is
/// inherited and can only become narrower.
///
/// # Errors
/// Where the kernel has no such filters.
pub fn limit() -> Result<(), SeccompError> {
    let target: TargetArch = std::env::consts::ARCH.try_into()?;
    // The flags of clone3(2) are behind a pointer, where no filter can look. Without it the C library takes
    // clone(2). Of two filters the stricter answer counts (seccomp_run_filters, kernel/seccomp.c).
    let clone3 = BTreeMap::from([(libc::SYS_clone3, vec![])]);
    let absent = errno(libc::ENOSYS);
    let first = SeccompFilter::new(clone3, SeccompAction::Allow, absent, target)?;
    let rules = rules()?;
    let second = SeccompFilter::new(rules, errno(libc::EPERM), SeccompAction::Allow, target)?;
    // The second one no longer lets seccomp(2) through, so it is the last.
    for filter in [first, second] {
        let program: BpfProgram = filter.try_into()?;
        apply_filter(&program)?;
    }
    Ok(())
}

pub(super) fn errno(number: i32) -> SeccompAction {
    SeccompAction::Errno(number.unsigned_abs())
}

/// What is let through whatever its arguments are. Each acts on memory, on threads of our own, or on
/// descriptors that we have.
const FREE: &[i64] = &[
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_readv,
    libc::SYS_writev,
    libc::SYS_pread64,
    libc::SYS_lseek,
    libc::SYS_close,
    libc::SYS_fcntl,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_getdents64,
    libc::SYS_getcwd,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_brk,
    libc::SYS_futex,
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_set_tid_address,
    libc::SYS_membarrier,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_restart_syscall,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_getppid,
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getegid,
    libc::SYS_getrandom,
    libc::SYS_getrusage,
    libc::SYS_sysinfo,
    libc::SYS_uname,
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_gettimeofday,
    libc::SYS_ppoll,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_eventfd2,
    libc::SYS_pipe2,
    libc::SYS_bind,
    libc::SYS_connect,
    libc::SYS_listen,
    libc::SYS_accept4,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    libc::SYS_getsockopt,
    libc::SYS_setsockopt,
    libc::SYS_sendto,
    libc::SYS_recvfrom,
    libc::SYS_sendmsg,
    libc::SYS_recvmsg,
    libc::SYS_sendmmsg,
    libc::SYS_recvmmsg,
    libc::SYS_shutdown,
];

/// Older forms of the same, which newer architectures do not have.
#[cfg(target_arch = "x86_64")]
const OLDER: &[i64] = &[
    libc::SYS_poll,
    libc::SYS_epoll_wait,
    libc::SYS_stat,
    libc::SYS_lstat,
    libc::SYS_time,
];
#[cfg(not(target_arch = "x86_64"))]
const OLDER: &[i64] = &[];

/// What may be asked of descriptors that we have: nothing that makes one into a TUN device.
const IOCTLS: &[libc::Ioctl] = &[
    libc::FIONBIO,
    libc::TIOCOUTQ,
    libc::TCGETS,
    libc::TUNGETIFF,
    libc::TUNGETVNETHDRSZ,
    libc::TUNSETOFFLOAD,
];

fn rules() -> Result<BTreeMap<i64, Vec<SeccompRule>>, BackendError> {
    let all = FREE.iter().chain(OLDER).map(|call| (*call, Vec::new()));
    let mut rules: BTreeMap<_, _> = all.collect();
    let thread = libc::CLONE_THREAD as u64;
    let executable = libc::PROT_EXEC as u64;
    let own = u64::from(getpid().as_raw_nonzero().get().unsigned_abs());
    let domains = [libc::AF_UNIX, libc::AF_INET].map(|domain| domain as u64);
    let reading = written_flags();
    // The first filter answers it.
    rules.insert(libc::SYS_clone3, Vec::new());
    // Threads of our own; no process.
    let clone = one(0, Qword, MaskedEq(thread), thread)?;
    rules.insert(libc::SYS_clone, vec![clone]);
    // No memory that is written and then run.
    let mapped = one(2, Dword, MaskedEq(executable), 0)?;
    rules.insert(libc::SYS_mmap, vec![mapped.clone()]);
    rules.insert(libc::SYS_mprotect, vec![mapped]);
    // No netlink, no packet sockets, no kernel cryptography.
    let sockets = domains.map(|domain| one(0, Dword, Eq, domain));
    rules.insert(
        libc::SYS_socket,
        sockets.into_iter().collect::<Result<_, _>>()?,
    );
    let unix = one(0, Dword, Eq, libc::AF_UNIX as u64)?;
    rules.insert(libc::SYS_socketpair, vec![unix]);
    // To read, and to read only.
    let opened = one(2, Dword, MaskedEq(reading), 0)?;
    rules.insert(libc::SYS_openat, vec![opened]);
    #[cfg(target_arch = "x86_64")]
    rules.insert(libc::SYS_open, vec![one(1, Dword, MaskedEq(reading), 0)?]);
    // A panic ends in a signal to ourselves.
    rules.insert(libc::SYS_tgkill, vec![one(0, Dword, Eq, own)?]);
    let name = one(0, Dword, Eq, libc::PR_SET_NAME as u64)?;
    rules.insert(libc::SYS_prctl, vec![name]);
    // Its own thread's, and nobody else's.
    let own_thread = one(0, Dword, Eq, 0)?;
    rules.insert(libc::SYS_sched_setaffinity, vec![own_thread]);
    // Limits are read, and never set.
    rules.insert(libc::SYS_prlimit64, vec![one(2, Qword, Eq, 0)?]);
    let requests = IOCTLS
        .iter()
        .map(|number| one(1, Dword, Eq, request(*number)));
    rules.insert(libc::SYS_ioctl, requests.collect::<Result<_, _>>()?);
    Ok(rules)
}

/// A request has 32 bits (linux/ioctl.h), whatever integer the C library takes it for.
pub(super) fn request(number: libc::Ioctl) -> u64 {
    #[allow(clippy::unnecessary_cast, reason = "musl has another type for it")]
    let number = number as u64;
    number & u64::from(u32::MAX)
}

/// The flags of open(2) that are for more than reading.
fn written_flags() -> u64 {
    let flags = libc::O_ACCMODE | libc::O_CREAT | libc::O_TRUNC;
    flags as u64
}

pub(super) fn one(
    argument: u8,
    length: SeccompCmpArgLen,
    operator: SeccompCmpOp,
    value: u64,
) -> Result<SeccompRule, BackendError> {
    let condition = SeccompCondition::new(argument, length, operator, value)?;
    SeccompRule::new(vec![condition])
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn a_limited_thread_reads_and_talks_and_does_nothing_else() {
        let limited = std::thread::spawn(|| {
            limit().unwrap();
            let denied = |outcome: io::Result<()>| {
                let error = outcome.expect_err("it is not let through");
                assert_eq!(error.raw_os_error(), Some(libc::EPERM), "{error}");
            };
            let folder = std::env::temp_dir();
            denied(std::fs::File::create(folder.join("vpngw-never")).map(drop));
            denied(std::process::Command::new("true").status().map(drop));
            denied(std::fs::remove_file("/tmp/vpngw-never"));
            let socket = |domain, kind| socket2::Socket::new(domain, kind, None).map(drop);
            denied(socket(libc::AF_NETLINK.into(), socket2::Type::RAW));
            denied(socket(libc::AF_PACKET.into(), socket2::Type::RAW));
            denied(socket(socket2::Domain::IPV6, socket2::Type::DGRAM));
            socket(socket2::Domain::IPV4, socket2::Type::DGRAM).unwrap();
            std::fs::read("/proc/self/stat").unwrap();
            let other = std::thread::spawn(|| 7).join().unwrap();
            assert_eq!(other, 7);
        });
        limited.join().unwrap();
    }
}

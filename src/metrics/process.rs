//! This process in numbers, under the names that every Prometheus client library uses.

use std::fs;

/// What the engine uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Process {
    /// Seconds of processor time, user and system; whole seconds, since counters here are integers.
    pub cpu_seconds: u64,
    /// Bytes of memory in use.
    pub resident_bytes: u64,
    /// Bytes of address space.
    pub virtual_bytes: u64,
    /// Open file descriptors.
    pub open_fds: u64,
    /// The most there may be; `None` is no limit.
    pub max_fds: Option<u64>,
    /// Unix time of its start.
    pub started: u64,
}

impl Process {
    /// Reads `/proc`; `None` where it is hidden.
    pub fn read() -> Option<Self> {
        let read = |path| fs::read_to_string(path).ok();
        let (cpu_ticks, start_ticks) = ticks(&read("/proc/self/stat")?)?;
        let status = read("/proc/self/status")?;
        let boot = field(&read("/proc/stat")?, "btime ")?;
        let fds = fs::read_dir("/proc/self/fd").ok()?.count() as u64;
        Some(Self {
            cpu_seconds: cpu_ticks / USER_HZ,
            resident_bytes: field(&status, "VmRSS:")? * 1024,
            virtual_bytes: field(&status, "VmSize:")? * 1024,
            // Less the one that reads the folder.
            open_fds: fds.saturating_sub(1),
            max_fds: rustix::process::getrlimit(rustix::process::Resource::Nofile).current,
            started: boot + start_ticks / USER_HZ,
        })
    }
}

/// Ticks a second in `/proc`, on every architecture that runs this (asm-generic/param.h).
const USER_HZ: u64 = 100;

/// Processor time and start time of `/proc/PID/stat`: fields 14, 15 and 22 of proc(5). The name,
/// field 2, may hold spaces and parentheses.
fn ticks(stat: &str) -> Option<(u64, u64)> {
    let (_, rest) = stat.rsplit_once(") ")?;
    let field = |number: usize| rest.split(' ').nth(number - 3)?.parse::<u64>().ok();
    Some((field(14)? + field(15)?, field(22)?))
}

/// The number after a word at the start of a line.
fn field(text: &str, word: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(word))?;
    rest.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_shifts_no_field() {
        let stat = "7 (a) b (c) S 1 1 1 0 -1 4194560 1 0 0 0 250 50 0 0 20 0 1 0 900 5 6";
        assert_eq!(ticks(stat), Some((300, 900)));
        assert_eq!(ticks("7 (a"), None);
    }

    #[test]
    fn a_field_is_found_at_the_start_of_its_line() {
        assert_eq!(field("VmSizeX: 1\nVmSize:\t 20 kB\n", "VmSize:"), Some(20));
        assert_eq!(field("a VmSize: 1", "VmSize:"), None);
    }

    #[test]
    fn this_process_can_be_read() {
        let process = Process::read().unwrap();
        assert!(process.resident_bytes > 0 && process.resident_bytes <= process.virtual_bytes);
        assert!(process.open_fds >= 3);
        // 2020-01-01.
        assert!(process.started > 1_577_836_800);
    }
}

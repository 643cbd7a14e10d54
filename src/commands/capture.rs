//! `vpngw capture`: what crosses the uplink and what is stopped, as a file for forensics.
//!
//! It asks the gateway for nothing, so it works beside one that hangs and after one that ended: frames come
//! from packet sockets of its own, and of the packets that the rules refuse there is a second copy in a
//! group of its own ([`LOG_CAPTURE`](crate::ruleset::LOG_CAPTURE)).

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, anyhow};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{MissedTickBehavior, interval, sleep_until};

use super::block_on;
use super::exit::{Code, Failure};
use super::units::{bytes, count, duration};
use crate::leak::pcapng::{self, Interface, Packet};

mod sources;

use sources::Sources;

/// What is recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Where to.
    pub file: PathBuf,
    /// Whether a file that is there is replaced.
    pub replace: bool,
    /// For how long.
    pub time: Duration,
    /// The file grows no larger.
    pub bytes: u64,
    /// Whether the encrypted content of WireGuard messages is kept. It tells nothing, and fills a file in
    /// seconds.
    pub whole: bool,
}

/// The interfaces of the file, by their numbers.
const UPLINK: u32 = 0;
const BLOCKED: u32 = 1;

const INTERFACES: [Interface<'_>; 2] = [
    Interface {
        name: "uplink",
        description: "every device but lo and TUN, both ways",
    },
    Interface {
        name: "blocked",
        description: "what the kill switch stopped; link headers without addresses are made up",
    },
];

/// Why a recording ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Time,
    Full,
    Interrupted,
}

/// Records until the time is over, the file is full, or somebody interrupts.
///
/// # Errors
/// There is a file already, it cannot be written, or the capabilities NET_ADMIN and NET_RAW are missing.
pub fn run(wanted: &Wanted) -> Result<Code, Failure> {
    block_on(record(wanted))
}

async fn record(wanted: &Wanted) -> Result<Code, Failure> {
    // Before the file: one that was there is not to be lost for nothing.
    let mut sources = Sources::open(wanted.whole).map_err(denied)?;
    let file = create(&wanted.file, wanted.replace).map_err(Failure::usage)?;
    let mut recording = Recording::begin(file, wanted.bytes)?;
    let begun = Instant::now();
    eprintln!(
        "recording {} and what is stopped, for {} or {} at most; Ctrl-C ends it",
        sources.names(),
        duration(wanted.time.as_secs_f64()),
        bytes(wanted.bytes),
    );
    let ended = until_end(&mut sources, &mut recording, begun + wanted.time).await;
    // What was recorded is kept, whatever happened.
    let kept = recording.out.flush();
    let file = wanted.file.display();
    let why = match ended.and_then(|end| kept.map(|()| end)) {
        Ok(End::Time) => "the time is over",
        Ok(End::Full) => "the file is as large as it may be",
        Ok(End::Interrupted) => "interrupted",
        Err(error) => {
            return Err(anyhow::Error::from(error)
                .context(format!("{file}: the rest is missing"))
                .into());
        }
    };
    eprintln!(
        "{file}: {}",
        summary(&recording, sources.missed(), begun.elapsed(), why)
    );
    Ok(Code::Ok)
}

async fn until_end(
    sources: &mut Sources,
    recording: &mut Recording,
    deadline: Instant,
) -> io::Result<End> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut second = interval(Duration::from_secs(1));
    second.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = interrupt.recv() => return Ok(End::Interrupted),
            _ = terminate.recv() => return Ok(End::Interrupted),
            () = sleep_until(deadline.into()) => return Ok(End::Time),
            _ = second.tick() => {
                sources.follow()?;
                // Whoever looks at the file meanwhile sees it up to here.
                recording.out.flush()?;
            }
            () = sources.stirred() => sources.read(|packet| recording.write(packet))?,
        }
        if recording.full {
            return Ok(End::Full);
        }
    }
}

/// The file under way.
struct Recording {
    out: BufWriter<File>,
    written: u64,
    most: u64,
    full: bool,
    frames: u64,
    stopped: u64,
}

impl Recording {
    fn begin(file: File, most: u64) -> io::Result<Self> {
        let application = concat!("vpngw ", env!("CARGO_PKG_VERSION"));
        let head = pcapng::head(application, &INTERFACES);
        let mut out = BufWriter::with_capacity(256 * 1024, file);
        out.write_all(&head)?;
        Ok(Self {
            out,
            written: head.len() as u64,
            most,
            full: false,
            frames: 0,
            stopped: 0,
        })
    }

    /// Adds a packet; the first one that does not fit ends it.
    fn write(&mut self, packet: &Packet<'_>) -> io::Result<()> {
        let block = pcapng::packet(packet);
        self.full |= self.written + block.len() as u64 > self.most;
        if self.full {
            return Ok(());
        }
        self.out.write_all(&block)?;
        self.written += block.len() as u64;
        let counted = if packet.interface == BLOCKED {
            &mut self.stopped
        } else {
            &mut self.frames
        };
        *counted += 1;
        Ok(())
    }
}

/// A new file that only its owner reads. One that is replaced is removed first, so that nothing is written
/// through a link, or to who holds it open.
fn create(path: &Path, replace: bool) -> anyhow::Result<File> {
    if replace && fs::symlink_metadata(path).is_ok() {
        fs::remove_file(path).with_context(|| format!("{}: cannot be replaced", path.display()))?;
    }
    let mut options = OpenOptions::new();
    let file = options.write(true).create_new(true).mode(0o600).open(path);
    file.map_err(|error| {
        let file = path.display();
        if error.kind() == io::ErrorKind::AlreadyExists {
            anyhow!("{file} is there already: name another file, or replace it with --force")
        } else {
            anyhow::Error::from(error).context(format!("{file}: cannot be made"))
        }
    })
}

fn denied(error: io::Error) -> Failure {
    let hint = match error.raw_os_error() {
        Some(libc::EPERM) => {
            "recording takes CAP_NET_ADMIN and CAP_NET_RAW: run it as root in the gateway's namespace"
        }
        Some(libc::EBUSY) => "another recording runs in this namespace",
        _ => "nothing can be recorded here",
    };
    Failure::usage(anyhow::Error::from(error).context(hint))
}

fn summary(recording: &Recording, missed: u64, took: Duration, why: &str) -> String {
    let (frames, stopped) = (recording.frames, recording.stopped);
    let mut text = format!(
        "{} of the uplink, {} in {}, {}: {why}",
        number(frames, "frame"),
        number(stopped, "stopped packet"),
        duration(took.as_secs_f64()),
        bytes(recording.written),
    );
    if missed > 0 {
        text += &format!("; {} more came too fast and are missing", count(missed));
    }
    text
}

fn number(number: u64, what: &str) -> String {
    let s = if number == 1 { "" } else { "s" };
    format!("{} {what}{s}", count(number))
}

/// Since 1970.
fn clock() -> Duration {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    // A clock before 1970 is not set at all.
    since.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::leak::pcapng::{Link, Way};

    #[test]
    fn a_file_that_is_there_is_kept_unless_told_and_is_private() {
        let folder = tempfile::tempdir().unwrap();
        let (path, link) = (folder.path().join("a"), folder.path().join("link"));
        fs::write(&path, "evidence").unwrap();
        let error = create(&path, false).unwrap_err().to_string();
        assert!(error.contains("--force"), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "evidence");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        let file = create(&link, true).unwrap();
        assert_eq!(
            fs::read_to_string(&path).unwrap(),
            "evidence",
            "through the link"
        );
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn the_file_never_grows_past_its_bound() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        let mut recording = Recording::begin(create(&path, false).unwrap(), 10_000).unwrap();
        let packet = Packet {
            interface: UPLINK,
            at: Duration::ZERO,
            link: Link::Ethernet,
            bytes: &[0; 900],
            length: 900,
            way: Way::Out,
            comment: "",
        };
        for _ in 0..50 {
            recording.write(&packet).unwrap();
        }
        recording.out.flush().unwrap();
        let length = fs::metadata(&path).unwrap().len();
        assert!(recording.full && recording.frames < 12);
        assert!(length <= 10_000 && length == recording.written, "{length}");
    }
}

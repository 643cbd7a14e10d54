//! Lines of the log on their way out. Whoever reads them may be slow, or stopped (a full pipe): the gateway does not
//! wait for him. What does not fit meanwhile is lost, and the log says how much.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use tracing_subscriber::fmt::MakeWriter;

/// Lines that may wait. A burst at debug level has hundreds.
const WAITING: usize = 4096;

/// How often it is looked at whether all lines are out.
const PAUSE: Duration = Duration::from_millis(1);

/// Where lines are put.
#[derive(Clone)]
pub(super) struct Lines {
    queue: SyncSender<Vec<u8>>,
    counts: Arc<Counts>,
}

#[derive(Default)]
struct Counts {
    put: AtomicU64,
    written: AtomicU64,
    lost: AtomicU64,
}

impl Lines {
    /// Starts the thread that writes.
    ///
    /// # Errors
    /// Where no thread can be had.
    pub(super) fn to(out: impl Write + Send + 'static) -> io::Result<Self> {
        let (queue, lines) = sync_channel(WAITING);
        let counts = Arc::<Counts>::default();
        let shared = Arc::clone(&counts);
        thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || write(&lines, out, &shared))?;
        Ok(Self { queue, counts })
    }

    /// Waits until what was put is written, for so long and no longer.
    pub(super) fn finish(&self, patience: Duration) {
        let until = Instant::now() + patience;
        let put = self.counts.put.load(Ordering::Acquire);
        while self.counts.written.load(Ordering::Acquire) < put && Instant::now() < until {
            thread::sleep(PAUSE);
        }
    }

    fn put(&self, line: Vec<u8>) {
        match self.queue.try_send(line) {
            Ok(()) => self.counts.put.fetch_add(1, Ordering::AcqRel),
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.counts.lost.fetch_add(1, Ordering::AcqRel)
            }
        };
    }
}

fn write(lines: &Receiver<Vec<u8>>, mut out: impl Write, counts: &Counts) {
    for line in lines {
        // Nobody is left to hear of a log that cannot be written.
        let _ = out.write_all(&line);
        let lost = counts.lost.swap(0, Ordering::AcqRel);
        if lost > 0 {
            let _ = writeln!(
                out,
                "{lost} lines of the log were lost: whoever reads it was too slow"
            );
        }
        counts.written.fetch_add(1, Ordering::AcqRel);
    }
}

/// One line, put in the queue when it is whole.
pub(super) struct Line {
    bytes: Vec<u8>,
    lines: Lines,
}

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.lines.put(std::mem::take(&mut self.bytes));
    }
}

impl MakeWriter<'_> for Lines {
    type Writer = Line;

    fn make_writer(&self) -> Line {
        Line {
            bytes: Vec::new(),
            lines: self.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn a_reader_that_is_stopped_keeps_nobody_waiting_and_hears_what_he_missed() {
        let (mut reader, writer) = io::pipe().unwrap();
        let lines = Lines::to(writer).unwrap();
        // More than the pipe (64 KiB) and the queue hold.
        let line = [b'x'; 99];
        let begun = Instant::now();
        for _ in 0..WAITING + 2000 {
            let mut one = lines.make_writer();
            one.write_all(&line).unwrap();
            one.write_all(b"\n").unwrap();
        }
        lines.finish(Duration::from_millis(50));
        assert!(begun.elapsed() < Duration::from_secs(5));
        let reading = thread::spawn(move || {
            let mut text = String::new();
            reader.read_to_string(&mut text).unwrap();
            text
        });
        lines.finish(Duration::from_secs(60));
        drop(lines);
        let text = reading.join().unwrap();
        assert!(
            text.contains("lines of the log were lost"),
            "{}",
            text.len()
        );
        assert!(text.lines().count() > WAITING);
    }
}

//! What the tests counted, one file a test, for `scripts/leak-table` to add up.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::sync::atomic::Ordering;

use super::sensor::Sensor;

/// Where the files are.
const FOLDER: &str = concat!(env!("CARGO_TARGET_TMPDIR"), "/leaks");

/// The end of a lab: probes tried, and what its sensor saw.
pub fn test(sensor: &Sensor) {
    let (probes, seen) = (sensor.tries().load(Ordering::Relaxed), sensor.tally());
    line(&format!(
        "test {probes} {} {} {} {}",
        seen.frames, seen.before, seen.wireguard, seen.other
    ));
}

/// Adds a line to the file of the test that runs in this thread.
pub fn line(text: &str) {
    let thread = std::thread::current();
    let name = thread.name().unwrap_or("unnamed").replace("::", ".");
    let _ = fs::create_dir_all(FOLDER);
    let path = Path::new(FOLDER).join(name);
    // A report that cannot be written is no reason to fail: the table then lacks the test, and says so.
    if let Ok(mut file) = File::options().append(true).create(true).open(path) {
        let _ = writeln!(file, "{text}");
    }
}

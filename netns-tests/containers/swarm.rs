//! Behind the VPN server: a tracker (opentracker), and a seeder (transmission-cli) with one file.

use std::fs;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use crate::docker::{PATIENCE, text};
use crate::lab::wait;
use crate::stage::{Stage, TRACKER};

/// The name of the file.
pub const FILE: &str = "film.bin";

/// Bytes of the file.
const SIZE: usize = 200 << 20;

/// What the seeder gives at most, KiB/s: the transfer lasts long enough to be interrupted.
const RATE: &str = "30000";

/// A running swarm.
pub struct Swarm {
    /// The torrent file.
    pub torrent: PathBuf,
    /// SHA-256 of the file, as sha256sum prints it.
    pub sum: String,
    processes: Vec<Child>,
}

impl Swarm {
    /// Makes the file and its torrent; on return the tracker knows the seeder.
    pub fn start(stage: &Stage) -> Self {
        let folder = stage.folder.path().join("swarm");
        fs::create_dir_all(&folder).unwrap();
        let file = folder.join(FILE);
        fs::write(&file, noise(SIZE)).unwrap();
        let torrent = folder.join("film.torrent");
        let mut command = Command::new("transmission-create");
        command.args(["--tracker", &format!("http://{TRACKER}:6969/announce")]);
        command.arg("--outfile").arg(&torrent).arg(&file);
        text("transmission-create", &command.output().unwrap());
        let mut sum = Command::new("sha256sum");
        let sum = text("sha256sum", &sum.arg(&file).output().unwrap());

        // Debian's opentracker serves listed torrents only, and reads the list as `nobody`.
        let shown = Command::new("transmission-show").arg(&torrent).output();
        let shown = text("transmission-show", &shown.unwrap());
        let hash = shown
            .lines()
            .find_map(|line| line.trim().strip_prefix("Hash: "));
        let listed = folder.join("tracker");
        fs::create_dir(&listed).unwrap();
        fs::set_permissions(&listed, fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(listed.join("list"), format!("{}\n", hash.unwrap())).unwrap();
        let tracker = TRACKER.to_string();
        let mut command = Command::new("opentracker");
        command.arg("-d").arg(&listed).args(["-w", "list"]);
        command.args(["-i", &tracker, "-p", "6969"]);
        let mut processes = vec![stage.ns.start("swarm", quiet(&mut command))];
        stage.ns.enter("swarm", || {
            wait("the tracker listens", PATIENCE, || {
                TcpStream::connect((TRACKER, 6969)).ok()
            })
        });
        let mut command = Command::new("transmission-cli");
        command.arg("--config-dir").arg(folder.join("seeder"));
        command.arg("--download-dir").arg(&folder);
        command.args(["--uplimit", RATE, "--no-portmap", "--port", "51413"]);
        command.arg(&torrent);
        processes.push(stage.ns.start("swarm", quiet(&mut command)));
        let scrape = format!("curl --silent http://{TRACKER}:6969/scrape");
        // It reads the whole file first.
        wait("the tracker knows the seeder", PATIENCE * 2, || {
            let said = stage.ns.output("swarm", &scrape).stdout;
            let said = String::from_utf8_lossy(&said).into_owned();
            said.contains("completei1e").then_some(())
        });
        Self {
            torrent,
            sum: first_word(&sum),
            processes,
        }
    }
}

impl Drop for Swarm {
    fn drop(&mut self) {
        for process in &mut self.processes {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

/// The sum in a line of sha256sum.
pub fn first_word(line: &str) -> String {
    line.split_whitespace().next().unwrap().to_owned()
}

fn quiet(command: &mut Command) -> &mut Command {
    command.stdin(Stdio::null());
    command.stdout(Stdio::null()).stderr(Stdio::null())
}

/// Bytes that do not repeat and cannot be compressed (xorshift64, Marsaglia 2003).
fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(len);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.to_le_bytes());
    }
    bytes
}

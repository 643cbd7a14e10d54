//! A program that is started from a shell on a terminal has another one: it can be used as that one, and what it types
//! there is not the shell's.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use crate::lab::gateway::{Gateway, PROGRAM};
use crate::lab::{Lab, wait};
use crate::probes::program;

const PATIENCE: Duration = Duration::from_secs(30);

/// A shell of the machine on a terminal, where `$IN` starts a program in the namespace.
struct Shell {
    master: File,
    child: Child,
    shown: Arc<Mutex<String>>,
    /// What was shown up to here has been seen.
    seen: usize,
}

impl Shell {
    fn start(gateway: &Gateway) -> Self {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master = openpt(flags).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let slave = File::from(ioctl_tiocgptpeer(&master, flags).unwrap());
        size(&master, 24, 80);
        let mut command = Command::new("setsid");
        command.args(["--ctty", "bash", "--norc", "--noprofile", "-i"]);
        command
            .env("PS1", "$ ")
            .env("TERM", "dumb")
            .env("HISTFILE", "")
            .env("VPNGW_SOCKET", &gateway.socket)
            .env("IN", format!("{PROGRAM} exec --netns app --"))
            .env("PROBE", program::PROGRAM);
        command.stdin(Stdio::from(slave.try_clone().unwrap()));
        command.stdout(Stdio::from(slave.try_clone().unwrap()));
        command.stderr(Stdio::from(slave));
        let child = command.spawn().unwrap();
        let master = File::from(master);
        let shown = Arc::new(Mutex::new(String::new()));
        let (mut reader, text) = (master.try_clone().unwrap(), shown.clone());
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(length @ 1..) = reader.read(&mut bytes) {
                let new = String::from_utf8_lossy(&bytes[..length]);
                text.lock().unwrap().push_str(&new);
            }
        });
        Self {
            master,
            child,
            shown,
            seen: 0,
        }
    }

    /// Types this.
    fn keys(&mut self, keys: &str) {
        self.master.write_all(keys.as_bytes()).unwrap();
    }

    /// Types a line, and waits until these words are shown after it. They must not stand in the line: that is shown too.
    fn line(&mut self, line: &str, words: &str) -> String {
        self.keys(&format!("{line}\n"));
        self.until(words)
    }

    /// Waits for words that were not seen yet; returns all up to them.
    fn until(&mut self, words: &str) -> String {
        let (shown, seen) = (self.shown.clone(), self.seen);
        let all = || shown.lock().unwrap()[seen..].to_owned();
        let end = wait(&format!("{words:?} is shown"), PATIENCE, || {
            let found = all().find(words);
            if found.is_none() && self.child.try_wait().unwrap().is_some() {
                panic!("the shell ended: {}", all());
            }
            found
        });
        self.seen += end + words.len();
        all()[..end].to_owned()
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("---- the terminal ----\n{}", self.shown.lock().unwrap());
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn size(master: impl AsFd, rows: u16, columns: u16) {
    let size = Winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    tcsetwinsize(master, size).unwrap();
}

/// A command that the program types, and the file that it makes.
fn typed(file: &Path) -> String {
    format!(
        "calls $'touch {}\\n'; echo typed=$((6 * 7))",
        file.display()
    )
}

#[test]
fn a_program_types_nothing_into_the_shell_that_started_it() {
    let lab = Lab::new();
    let gateway = lab.connect(&lab.conf());
    let mut shell = Shell::start(&gateway);
    let [control, escaped] = ["control", "escaped"].map(|name| lab.folder.path().join(name));
    let said = shell.line(&format!("$PROBE {}", typed(&control)), "typed=42");
    if said.contains("typing: 0") {
        // The control: what is typed is run by the shell.
        wait("the shell ran it", PATIENCE, || {
            control.exists().then_some(())
        });
    } else {
        // dev.tty.legacy_tiocsti = 0, and no capability in the first user namespace: the kernel itself refuses.
        assert!(said.contains(&format!("typing: {}", libc::EIO)), "{said}");
    }
    let said = shell.line(&format!("$IN $PROBE {}", typed(&escaped)), "typed=42");
    assert!(said.contains(&format!("typing: {}", libc::EPERM)), "{said}");
    // Whatever was typed has been run by now.
    shell.line("echo after=$((6 * 7))", "after=42");
    assert!(!escaped.exists());
    // Nor is there anything of the shell's to be opened, or to be read.
    let said = shell.line(
        "$IN sh -c 'ls /dev/pts; tty; echo here=$((6 * 7))'",
        "here=42",
    );
    assert!(said.ends_with("0  ptmx\r\n/dev/pts/0\r\n"), "{said:?}");
    lab.sensor.verdict();
}

#[test]
fn a_program_is_used_as_on_the_terminal_that_it_was_started_from() {
    let lab = Lab::new();
    let gateway = lab.connect(&lab.conf());
    let mut shell = Shell::start(&gateway);
    // Keys, echo, size and status.
    let ask = r#"$IN sh -c 'stty size; read -r line; echo "line=$line"; exit 7'; echo status=$?"#;
    shell.line(ask, "24 80");
    shell.line("what I typed", "line=what I typed");
    shell.until("status=7\r\n$ ");
    // A shell in it has job control, and its prompt.
    shell.line("$IN bash --norc --noprofile -i", "$ ");
    shell.line("echo inner=$((6 * 7))", "inner=42");
    shell.line("sh -c 'echo one=$((6 * 7)); exec sleep 1000'", "one=42");
    shell.keys("\x1a");
    shell.until("Stopped");
    shell.until("$ ");
    shell.line("fg", "sleep 1000");
    shell.keys("\x03");
    shell.until("$ ");
    shell.line("exit 3", "exit\r\n$ ");
    shell.line("echo status=$?", "status=3");
    // What the terminal sends: its size, Ctrl-C and Ctrl-Z.
    let trap =
        r#"$IN sh -c 'trap "stty size" WINCH; echo two=$((6 * 7)); while :; do sleep 0.05; done'"#;
    shell.line(trap, "two=42");
    size(&shell.master, 50, 132);
    shell.until("50 132");
    shell.keys("\x03");
    shell.until("$ ");
    shell.line("echo status=$?", "status=130");
    shell.line(
        "$IN sh -c 'echo three=$((6 * 7)); exec sleep 1000'",
        "three=42",
    );
    shell.keys("\x1a");
    shell.until("Stopped");
    shell.until("$ ");
    // The shell's terminal is as it was.
    let said = shell.line("stty -a; echo modes=$((6 * 7))", "modes=42");
    assert!(
        said.contains(" icanon") && !said.contains("-icanon"),
        "{said}"
    );
    shell.line("fg", "sleep 1000");
    shell.keys("\x03");
    shell.until("$ ");
    shell.line("echo status=$?", "status=130");
    // A signal that ends the program ends the command.
    shell.line("$IN sh -c 'kill -TERM $$'; echo status=$?", "status=143");
    // In the background, and back: it stops when it reads, as any other.
    shell.line("$IN head -n 1 &", "$ ");
    wait("it is stopped", PATIENCE, || {
        shell
            .line("jobs; echo jobs=$((6 * 7))", "jobs=42")
            .contains("Stopped")
            .then_some(())
    });
    shell.line("fg", "head -n 1");
    let echoed = shell.line("some words", "some words");
    assert!(!echoed.contains("$ "), "{echoed}");
    shell.until("some words");
    shell.line("echo status=$?", "status=0");
    lab.sensor.verdict();
}

#[test]
fn pipes_pass_through_a_program_untouched_and_without_a_terminal() {
    let lab = Lab::new();
    let gateway = lab.connect(&lab.conf());
    let bytes: Vec<u8> = (0..1 << 20_u32).map(|n| (n * 7 + n / 251) as u8).collect();
    let source = lab.folder.path().join("bytes");
    fs::write(&source, &bytes).unwrap();
    let mut command = Command::new(PROGRAM);
    command.args(["exec", "--netns", "app", "--", "cat"]);
    command.env("VPNGW_SOCKET", &gateway.socket);
    command.stdin(File::open(&source).unwrap());
    let said = command.output().unwrap();
    assert!(
        said.status.success() && said.stdout == bytes,
        "{:?}",
        said.status
    );
    // The same from a shell on a terminal, all of whose descriptors are pipes or files.
    let mut shell = Shell::start(&gateway);
    let folder = lab.folder.path().display();
    let copied = format!(
        "cat {folder}/bytes | $IN cat 2>{folder}/complaints | cmp - {folder}/bytes; echo same=$?"
    );
    shell.line(&copied, "same=0");
    let open = "sh -c 'exec 3</dev/tty && echo opened' 2>/dev/null </dev/null | cat";
    assert!(
        shell
            .line(&format!("{open}; echo a=$((6 * 7))"), "a=42")
            .contains("\nopened")
    );
    let said = shell.line(&format!("$IN {open}; echo b=$((6 * 7))"), "b=42");
    assert!(!said.contains("\nopened"), "{said}");
    // In a pipeline the next program may be the one that reads keys, until this one does.
    shell.line(
        "$IN head -n 1 | cat; echo status=${PIPESTATUS[0]}",
        "status=$",
    );
    shell.line("what I typed", "what I typed");
    shell.until("what I typed");
    shell.until("status=0");
    lab.sensor.verdict();
}

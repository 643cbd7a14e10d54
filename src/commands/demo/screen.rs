//! What the demo looks like: numbered acts with their time, aligned rows, one line that changes in
//! place on a terminal.

use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

/// Where the second column begins.
const COLUMN: usize = 32;

/// Standard output.
pub(super) struct Screen {
    begin: Instant,
    terminal: bool,
    colour: bool,
    act: usize,
    live: bool,
    printed: Option<Instant>,
}

/// How a word is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tone {
    /// As it should be.
    Good,
    /// Not as it should be.
    Bad,
    /// Worth a look.
    Note,
    /// In the background.
    Faint,
    /// Plain.
    Plain,
}

impl Screen {
    /// Looks whether standard output is a terminal; NO_COLOR (no-color.org) is respected.
    pub(super) fn new() -> Self {
        let terminal = io::stdout().is_terminal();
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self {
            begin: Instant::now(),
            terminal: terminal && !dumb,
            colour: terminal && !dumb && !no_colour,
            act: 0,
            live: false,
            printed: None,
        }
    }

    /// A line without a place in the columns.
    pub(super) fn say(&mut self, text: &str) {
        self.settle();
        self.print(&format!("{text}\n"));
    }

    /// Begins the next act.
    pub(super) fn act(&mut self, title: &str) {
        self.settle();
        self.act += 1;
        let time = format!("{:5.1} s", self.begin.elapsed().as_secs_f64());
        let head = self.bold(&format!("{}. {title}", self.act));
        let gap = " ".repeat(77_usize.saturating_sub(title.chars().count() + 3 + time.len()));
        let time = self.paint(Tone::Faint, &time);
        self.print(&format!("\n{head}{gap}{time}\n"));
    }

    /// A row: what, and what came of it.
    pub(super) fn row(&mut self, label: &str, tone: Tone, text: &str) {
        self.settle();
        let line = self.line(label, tone, text);
        self.print(&format!("{line}\n"));
    }

    /// A row that the next one like it replaces; printed every two seconds where that cannot be.
    pub(super) fn live(&mut self, label: &str, tone: Tone, text: &str) {
        let line = self.line(label, tone, text);
        if self.terminal {
            self.print(&format!("\r{line}\x1b[K"));
            self.live = true;
        } else if self
            .printed
            .is_none_or(|at| at.elapsed() >= Duration::from_millis(1990))
        {
            self.print(&format!("{line}\n"));
            self.printed = Some(Instant::now());
        }
    }

    /// A word in the colour of its tone.
    pub(super) fn paint(&self, tone: Tone, text: &str) -> String {
        let code = match tone {
            Tone::Good => "32",
            Tone::Bad => "1;31",
            Tone::Note => "33",
            Tone::Faint => "2",
            Tone::Plain => return text.to_owned(),
        };
        self.escape(code, text)
    }

    /// A word in bold.
    pub(super) fn bold(&self, text: &str) -> String {
        self.escape("1", text)
    }

    /// Removes a live row, where that can be.
    pub(super) fn wipe(&mut self) {
        if self.live {
            self.print("\r\x1b[K");
            self.live = false;
        }
        self.printed = None;
    }

    /// Ends a live row, so that it stays.
    pub(super) fn settle(&mut self) {
        if self.live {
            self.print("\n");
            self.live = false;
        }
        self.printed = None;
    }

    fn line(&self, label: &str, tone: Tone, text: &str) -> String {
        format!("   {label:COLUMN$}{}", self.paint(tone, text))
    }

    fn escape(&self, code: &str, text: &str) -> String {
        if self.colour {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }

    fn print(&self, text: &str) {
        let mut out = io::stdout().lock();
        // Nobody reads any more: the verdict is the exit code then.
        let _ = out.write_all(text.as_bytes());
        let _ = out.flush();
    }
}

/// Bits a second as a person says it.
pub(super) struct Rate(pub f64);

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let megabits = self.0 / 1e6;
        if megabits >= 1000.0 {
            write!(f, "{:.2} Gbit/s", megabits / 1000.0)
        } else if megabits >= 10.0 {
            write!(f, "{megabits:.0} Mbit/s")
        } else {
            write!(f, "{megabits:.1} Mbit/s")
        }
    }
}

/// Bytes as a person says it.
pub(super) struct Bytes(pub u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let megabytes = self.0 as f64 / 1e6;
        if megabytes >= 1000.0 {
            write!(f, "{:.2} GB", megabytes / 1000.0)
        } else {
            write!(f, "{megabytes:.1} MB")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!(Rate(4_200_000.0).to_string(), "4.2 Mbit/s");
        assert_eq!(Rate(420e6).to_string(), "420 Mbit/s");
        assert_eq!(Rate(2.345e9).to_string(), "2.35 Gbit/s");
        assert_eq!(Bytes(1_234_567_890).to_string(), "1.23 GB");
    }
}

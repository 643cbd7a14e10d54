//! A page that is redrawn in place.

use std::convert::Infallible;
use std::future::Future;
use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use crate::commands::until_told;

/// Shows every second what `page` makes of what `ask` was told, until TERM or INT.
pub(in crate::commands) async fn refresh<T, F: Future<Output = T>>(
    ask: impl Fn() -> F,
    mut page: impl FnMut(T) -> String,
) -> io::Result<()> {
    let mut second = interval(Duration::from_secs(1));
    second.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let pages = async {
        let mut screen = Screen::open()?;
        loop {
            second.tick().await;
            let answer = ask().await;
            screen.show(&page(answer))?;
        }
    };
    let ended: Option<io::Result<Infallible>> = until_told(pages).await?;
    match ended {
        None => Ok(()),
        Some(Err(error)) => Err(error),
    }
}

/// The alternate screen of a terminal, given back on drop. Where there is no terminal, pages follow
/// each other.
struct Screen {
    terminal: bool,
}

impl Screen {
    fn open() -> io::Result<Self> {
        let screen = Self {
            terminal: io::stdout().is_terminal(),
        };
        if screen.terminal {
            write(OPEN)?;
        }
        Ok(screen)
    }

    /// Replaces the page.
    fn show(&mut self, page: &str) -> io::Result<()> {
        if self.terminal {
            write(&frame(page))
        } else {
            write(&format!("{page}\n"))
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        if self.terminal {
            // A terminal that is gone needs no restoring.
            let _ = write(CLOSE);
        }
    }
}

/// Alternate screen, no cursor, no automatic line wrap (xterm control sequences, DEC private modes
/// 1049, 25 and 7).
const OPEN: &str = "\x1b[?1049h\x1b[?25l\x1b[?7l";
const CLOSE: &str = "\x1b[?7h\x1b[?25h\x1b[?1049l";

/// Every line is placed by its number and cleared to its end, so nothing flickers and nothing
/// scrolls, however small the window is.
fn frame(page: &str) -> String {
    let mut frame = String::new();
    for (number, line) in page.lines().enumerate() {
        frame += &format!("\x1b[{};1H{line}\x1b[K", number + 1);
    }
    frame + "\x1b[J"
}

fn write(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_places_each_line_and_clears_the_rest() {
        assert_eq!(
            frame("one\ntwo\n"),
            "\x1b[1;1Hone\x1b[K\x1b[2;1Htwo\x1b[K\x1b[J"
        );
    }

    #[test]
    fn what_opening_sets_closing_resets_in_reverse() {
        let modes = |text: &str| -> Vec<String> {
            let parts = text.split("\x1b[?").skip(1);
            parts
                .map(|part| part[..part.len() - 1].to_owned())
                .collect()
        };
        let mut closed = modes(CLOSE);
        closed.reverse();
        assert_eq!(modes(OPEN), closed);
    }
}

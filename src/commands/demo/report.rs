//! The end of the demo: what the sensor saw, and the verdict.

use super::Verdict;
use super::screen::{Bytes, Screen, Tone};
use super::sensor::Record;
use crate::commands::units::count;
use crate::leak::frame::Message;

/// Everything the verdict is made of.
pub(super) struct Summary {
    /// What the sensor saw.
    pub(super) record: Record,
    /// Packets that the gateway says it stopped; `None` when it does not answer.
    pub(super) stopped: Option<u64>,
    /// Attempts to get around the tunnel.
    pub(super) tried: u32,
    /// Bytes the client received, if it downloaded.
    pub(super) downloaded: Option<u64>,
}

impl Summary {
    /// Nothing but WireGuard left, as far as the sensor could tell, and it could tell.
    pub(super) fn verdict(&self) -> Verdict {
        if self.record.held() {
            Verdict::Held
        } else {
            Verdict::Leaked
        }
    }

    /// Shows it all and returns the verdict.
    pub(super) fn show(&self, screen: &mut Screen) -> Verdict {
        self.show_counts(screen);
        screen.say("");
        let verdict = self.verdict();
        match verdict {
            Verdict::Held => self.show_held(screen),
            Verdict::Leaked => {
                let text = screen.paint(Tone::Bad, &self.leaked());
                screen.say(&text);
            }
        }
        verdict
    }

    fn show_counts(&self, screen: &mut Screen) {
        let number = |number| format!("{:>10}", count(number));
        for (message, count) in &self.record.wireguard {
            let label = match message {
                Message::Initiation => "WireGuard handshake initiations",
                Message::Response => "WireGuard handshake responses",
                Message::Cookie => "WireGuard cookies",
                Message::Keepalive => "WireGuard keepalives",
                Message::Data => "WireGuard data",
            };
            screen.row(label, Tone::Plain, &number(*count));
        }
        if self.record.uncounted > 0 {
            let label = "WireGuard data, not captured";
            screen.row(label, Tone::Plain, &number(self.record.uncounted));
        }
        screen.row("ARP for the router", Tone::Plain, &number(self.record.arp));
        let tone = match self.verdict() {
            Verdict::Held => Tone::Good,
            Verdict::Leaked => Tone::Bad,
        };
        screen.row("anything else", tone, &number(self.record.leaked()));
        for (at, text) in &self.record.evidence {
            let label = format!("  after {:.3} s", at.as_secs_f64());
            screen.row(&label, Tone::Bad, text);
        }
        if let Some(stopped) = self.stopped {
            let text = format!("{} packets, by the gateway's count", number(stopped));
            screen.row("stopped by the kill switch", Tone::Plain, &text);
        }
    }

    fn leaked(&self) -> String {
        if self.record.leaks.is_empty() {
            "CANNOT TELL  the sensor had no room for some frames: run it again".to_owned()
        } else {
            let leaked = count(self.record.leaked());
            format!("LEAKED  frames that are not WireGuard: {leaked}")
        }
    }

    fn show_held(&self, screen: &mut Screen) {
        let head = screen.paint(Tone::Good, "HELD");
        let frames = count(self.record.frames());
        screen.say(&format!(
            "{head}  {frames} frames left: WireGuard to the server, ARP for the router."
        ));
        if self.tried > 0 {
            let tried = self.tried;
            screen.say(&format!(
                "      {tried} attempts to get around the tunnel: none was seen outside."
            ));
        }
        if let Some(bytes) = self.downloaded {
            let bytes = Bytes(bytes);
            screen.say(&format!(
                "      {bytes} on one TCP connection across the death, every byte checked."
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wireguard_and_arp_are_no_leak() {
        let mut summary = quiet();
        summary.record.wireguard.insert(Message::Data, 7);
        summary.record.arp = 1;
        summary.record.uncounted = 3;
        assert_eq!(summary.verdict(), Verdict::Held);
        assert_eq!(summary.record.frames(), 8);
    }

    #[test]
    fn one_other_frame_is_a_leak() {
        let mut summary = quiet();
        summary.record.leaks.insert("dns", 1);
        assert_eq!(summary.verdict(), Verdict::Leaked);
        assert!(summary.leaked().starts_with("LEAKED"));
    }

    #[test]
    fn a_frame_that_was_missed_may_have_been_a_leak() {
        let mut summary = quiet();
        summary.record.missed = 1;
        assert_eq!(summary.verdict(), Verdict::Leaked);
        assert!(summary.leaked().starts_with("CANNOT TELL"));
    }

    fn quiet() -> Summary {
        Summary {
            record: Record::default(),
            stopped: Some(0),
            tried: 0,
            downloaded: None,
        }
    }
}

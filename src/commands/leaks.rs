//! `vpngw leaks`: what the sensors saw, newest first.

use std::io::{self, Write};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use super::block_on;
use super::exit::{Code, Failure};
use super::units::{count, duration};
use crate::control::api::{Status, printable};
use crate::control::client;
use crate::leak::evidence::Evidence;

/// Prints what the sensors saw, and says whether something left.
///
/// # Errors
/// Nothing usable answered, or the output cannot be written to.
pub fn run(socket: &Path, json: bool) -> Result<Code, Failure> {
    let evidence = block_on(client::leaks(socket))?;
    let mut out = io::stdout();
    if json {
        writeln!(out, "{}", serde_json::to_string_pretty(&evidence)?)?;
    } else {
        let status = block_on(client::status(socket))?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = now.unwrap_or_default().as_secs_f64();
        out.write_all(page(&evidence, &status, now).as_bytes())?;
    }
    Ok(code(&evidence))
}

fn code(evidence: &[Evidence]) -> Code {
    if evidence.iter().any(|it| it.leaked) {
        Code::Leak
    } else {
        Code::Ok
    }
}

/// `now` is in seconds since 1970.
fn page(evidence: &[Evidence], status: &Status, now: f64) -> String {
    let mut page = String::new();
    for it in evidence.iter().rev() {
        let ago = duration(now - it.last as f64 / 1000.0);
        let what = match it.leaked {
            true => "LEAK",
            false => "undone",
        };
        let times = match it.count {
            1 => String::new(),
            more => format!(", {} times", count(more)),
        };
        page += &format!(
            "{what:<7} {ago:>14} ago  {:<10}  {}{times}\n",
            it.sensor,
            printable(&it.what)
        );
        if !it.bytes.is_empty() {
            page += &format!("{:25}{}\n", "", it.bytes);
        }
    }
    if evidence.is_empty() {
        page += "No leak was seen, and nobody changed what guards the way out.\n";
    }
    let leaks = &status.leaks;
    let watches = [
        (
            leaks.watched,
            "each frame that leaves",
            "CAP_NET_RAW is missing",
        ),
        (
            leaks.accounted,
            "what the devices sent",
            leaks
                .not_accounted
                .as_deref()
                .unwrap_or("not looked at yet"),
        ),
    ];
    page += &match leaks.proof_age_seconds {
        Some(age) => format!(
            "Proved: a datagram out of each device was refused {} ago.\n",
            duration(age)
        ),
        None => "NOT proved: no probe has been refused yet.\n".to_owned(),
    };
    for (on, what, why) in watches {
        page += &match on {
            true => format!("Watched: {what}.\n"),
            false => format!("NOT watched: {what}: {}.\n", printable(why)),
        };
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::example;
    use crate::leak::evidence::Sensor;

    #[test]
    fn the_newest_stands_first_with_its_frame() {
        let first = Evidence::undone(1_000, "rules", "table inet vpngw: is gone");
        let what = "udp 172.30.0.2:9 > 203.0.113.9:9 by eth0";
        let then = Evidence::new(4_000, Sensor::Frame, "udp", what)
            .with_frame(&[1, 2])
            .times(1200);
        let page = page(&[first, then], &example::connected(), 65.0);
        insta::assert_snapshot!(page, @r"
        LEAK         1 min 1 s ago  frame       udp 172.30.0.2:9 > 203.0.113.9:9 by eth0, 1,200 times
                                 0102
        undone       1 min 4 s ago  watcher     table inet vpngw: is gone
        Proved: a datagram out of each device was refused 31 s ago.
        Watched: each frame that leaves.
        Watched: what the devices sent.
        ");
    }

    #[test]
    fn what_is_not_watched_is_said() {
        let mut status = example::connected();
        status.leaks.watched = false;
        status.leaks.accounted = false;
        status.leaks.proof_age_seconds = None;
        status.leaks.not_accounted = Some("eth0: it has a queue (fq_codel)".to_owned());
        insta::assert_snapshot!(page(&[], &status, 0.0), @r"
        No leak was seen, and nobody changed what guards the way out.
        NOT proved: no probe has been refused yet.
        NOT watched: each frame that leaves: CAP_NET_RAW is missing.
        NOT watched: what the devices sent: eth0: it has a queue (fq_codel).
        ");
    }

    #[test]
    fn only_what_left_is_a_leak() {
        let undone = Evidence::undone(0, "rules", "x");
        assert_eq!(code(&[]), Code::Ok);
        assert_eq!(code(std::slice::from_ref(&undone)), Code::Ok);
        let leak = Evidence::new(0, Sensor::Accounting, "uncounted", "x");
        assert_eq!(code(&[undone, leak]), Code::Leak);
    }
}

//! Takes orders on standard input, one a line, and answers each with one line:
//!
//! | order | answer |
//! |---|---|
//! | `fire NAME TOKEN` | `sent`, `sent PROTOCOL PORT ADDRESS PORT` for a probe without room for the token, or `refused ERRNO WHY` |
//! | `flood NAME...` | `flooding`: from now on each of these once a millisecond |
//! | `count` | `count SENT REFUSED`: of the flood so far |
//! | `halt` | `count SENT REFUSED`: the flood has ended |
//!
//! Whether a probe went anywhere is not known here: a sensor outside has to say.

use std::io::{self, BufRead, Write};

use crate::canary::Canary;
use crate::find;
use crate::flood::Flood;
use crate::socket::Sent;

/// Serves until the end of the input.
///
/// # Errors
///
/// The other side is gone, or an order makes no sense.
pub fn serve() -> io::Result<()> {
    let mut flood = Flood::default();
    let mut out = io::stdout().lock();
    for line in io::stdin().lock().lines() {
        let line = line?;
        let words: Vec<_> = line.split_whitespace().collect();
        let answer = match words.as_slice() {
            ["fire", name, token] => fire(name, token)?,
            ["flood", names @ ..] => {
                let probes = names.iter().map(|name| find(name));
                let probes: Option<Vec<_>> = probes.collect();
                flood.start(probes.ok_or_else(|| nonsense(&line))?);
                "flooding".to_owned()
            }
            ["count"] => flood.count(),
            ["halt"] => {
                flood.stop();
                flood.count()
            }
            _ => return Err(nonsense(&line)),
        };
        writeln!(out, "{answer}")?;
        out.flush()?;
    }
    Ok(())
}

fn fire(name: &str, token: &str) -> io::Result<String> {
    let probe = find(name).ok_or_else(|| nonsense(name))?;
    let token = u128::from_str_radix(token, 16).map_err(|_| nonsense(token))?;
    Ok(answer((probe.send)(&Canary::from(token.to_be_bytes()))))
}

fn answer(sent: Sent) -> String {
    match sent {
        Ok(None) => "sent".to_owned(),
        Ok(Some((protocol, source, to, port))) => format!("sent {protocol} {source} {to} {port}"),
        Err(why) => format!("refused {} {why}", why.raw_os_error().unwrap_or(0)),
    }
}

fn nonsense(what: &str) -> io::Error {
    io::Error::other(format!("`{what}` is not understood"))
}

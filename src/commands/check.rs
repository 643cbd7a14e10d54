//! `vpngw check`: is the configuration good, and where does each value come from?

use std::io;

use super::exit::Code;
use crate::config::{Errors, Loaded, Origin};

/// Widest column of values, in characters; a longer value pushes only its own source aside.
const WIDEST: usize = 48;

/// Prints where each value came from and what was left out, and returns 0; or prints all that is
/// wrong, and returns 2.
///
/// # Errors
///
/// Those of writing.
pub fn run(loaded: Result<Loaded, Errors>, out: &mut impl io::Write) -> io::Result<Code> {
    match loaded {
        Ok(loaded) => {
            table(&loaded.origins, out)?;
            for warning in &loaded.warnings {
                write!(out, "\nwarning: {warning}")?;
            }
            writeln!(out, "\nThe configuration is valid.")?;
            Ok(Code::Ok)
        }
        Err(errors) => {
            for error in errors.diagnostics() {
                writeln!(out, "error: {error}")?;
            }
            let count = errors.diagnostics().len();
            let noun = if count == 1 { "error" } else { "errors" };
            writeln!(out, "The configuration has {count} {noun}.")?;
            Ok(Code::Usage)
        }
    }
}

fn table(origins: &[Origin], out: &mut impl io::Write) -> io::Result<()> {
    let width = |text: fn(&Origin) -> &str| origins.iter().map(move |o| text(o).chars().count());
    let key = width(|origin| &origin.key)
        .max()
        .unwrap_or_default()
        .max("KEY".len());
    let values = width(|origin| &origin.value).filter(|width| *width <= WIDEST);
    let value = values.max().unwrap_or_default().max("VALUE".len());
    writeln!(out, "{:key$}  {:value$}  SOURCE", "KEY", "VALUE")?;
    for origin in origins {
        writeln!(
            out,
            "{:key$}  {:value$}  {}",
            origin.key, origin.value, origin.source
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::config::{Sources, load};

    const WG: &str = "[Interface]\nPrivateKey = yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=\n\
        Address = 10.64.0.2/32, fd00::2/128\nPostUp = iptables -F\n[Peer]\n\
        PublicKey = xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=\n\
        AllowedIPs = 0.0.0.0/0\nEndpoint = 203.0.113.7:51820\n";

    fn check(text: &'static str) -> (u8, String) {
        let file = Some("/etc/wg0.conf".into());
        let sources = Sources {
            file,
            wireguard: Vec::new(),
            environment: BTreeMap::new(),
        };
        let mut out = Vec::new();
        let code = run(load(&sources, &|_| Ok(text.to_owned())), &mut out).unwrap();
        (code as u8, String::from_utf8(out).unwrap())
    }

    #[test]
    fn a_good_configuration_prints_its_origins_and_warnings() {
        let (code, text) = check(WG);
        assert_eq!(code, 0);
        insta::assert_snapshot!(text);
    }

    #[test]
    fn a_bad_one_prints_every_error_with_its_line() {
        let (code, text) =
            check("[Interface]\nPrivateKey = short\nMTU = 100\n[Peer]\nEndpont = x\n");
        assert_eq!(code, 2);
        insta::assert_snapshot!(text);
    }
}

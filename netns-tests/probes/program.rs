//! The joined program, seen from outside: started as somebody, told what to try.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use crate::lab::canary::{Canary, Flow};
use crate::lab::ns::Namespaces;

/// Where it is.
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_vpngw-probe");

/// Who tries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Persona {
    /// As the test itself: every capability there is.
    Lab,
    /// An ordinary user.
    User,
    /// Root with the capabilities that Docker gives unless told otherwise, NET_RAW among them.
    Docker,
    /// That without NET_RAW.
    NoRaw,
    /// That with NET_ADMIN.
    Admin,
    /// Root without any capability.
    Bare,
}

impl Persona {
    /// Those of the matrix.
    pub const JOINED: [Self; 5] = [
        Self::User,
        Self::Docker,
        Self::NoRaw,
        Self::Admin,
        Self::Bare,
    ];

    /// As the program and the table call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Lab => "lab",
            Self::User => "user",
            Self::Docker => "docker",
            Self::NoRaw => "no-raw",
            Self::Admin => "admin",
            Self::Bare => "bare",
        }
    }
}

/// What became of a probe, as far as its sender knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The kernel took it. One without room for a token names its flow.
    Sent(Option<Flow>),
    /// The kernel refused it.
    Refused {
        /// errno(3); 0 if it was not the kernel.
        errno: i32,
        /// In words.
        why: String,
    },
}

/// A running program in `app`; killed when dropped.
pub struct Program {
    child: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Program {
    /// Starts it in `app`.
    pub fn start(ns: &Namespaces, persona: Persona) -> Self {
        Self::start_in(ns, "app", persona)
    }

    /// Starts it in this namespace.
    pub fn start_in(ns: &Namespaces, namespace: &str, persona: Persona) -> Self {
        let mut command = Command::new(PROGRAM);
        Self::started(command.arg(persona.name()), |command| {
            ns.start(namespace, command)
        })
    }

    /// Starts it by a command line that leads to it.
    pub fn started(command: &mut Command, start: impl FnOnce(&mut Command) -> Child) -> Self {
        let mut child = start(command.stdin(Stdio::piped()).stdout(Stdio::piped()));
        let orders = child.stdin.take().unwrap();
        let answers = BufReader::new(child.stdout.take().unwrap());
        Self {
            child,
            orders,
            answers,
        }
    }

    /// Tries one probe.
    pub fn fire(&mut self, name: &str, token: &Canary) -> Answer {
        let token = u128::from_be_bytes(*token);
        let said = self.order(&format!("fire {name} {token:032x}"));
        parse(&said).unwrap_or_else(|| panic!("{name}: the program said `{said}`"))
    }

    /// From now on tries these, each once a millisecond, besides what else it is told.
    pub fn flood(&mut self, names: &[&str]) {
        let said = self.order(&format!("flood {}", names.join(" ")));
        assert_eq!(said, "flooding");
    }

    /// How often the flood has tried.
    pub fn flooded(&mut self) -> u64 {
        let said = self.order("count");
        let counts = said.split_whitespace().skip(1);
        counts.map(|n| n.parse::<u64>().unwrap()).sum()
    }

    fn order(&mut self, line: &str) -> String {
        let sent = writeln!(self.orders, "{line}").and_then(|()| self.orders.flush());
        let mut said = String::new();
        let read = sent.and_then(|()| self.answers.read_line(&mut said));
        assert!(
            read.is_ok() && !said.is_empty(),
            "the probe program has ended (its reason is above): as root, or inside `unshare -Urnm` where \
             the user namespace has the identities it needs"
        );
        said.trim_end().to_owned()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn parse(said: &str) -> Option<Answer> {
    let mut words = said.split_whitespace();
    match words.next()? {
        "sent" => {
            let Some(protocol) = words.next() else {
                return Some(Answer::Sent(None));
            };
            let number = |word: Option<&str>| word?.parse::<u16>().ok();
            let source = number(words.next())?;
            let to = words.next()?.parse().ok()?;
            let flow = (protocol.parse().ok()?, source, to, number(words.next())?);
            Some(Answer::Sent(Some(flow)))
        }
        "refused" => Some(Answer::Refused {
            errno: words.next()?.parse().ok()?,
            why: words.collect::<Vec<_>>().join(" "),
        }),
        _ => None,
    }
}

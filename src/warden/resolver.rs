//! `/etc/resolv.conf` names the tunnel's resolvers, whoever writes others there.
//!
//! Joined programs share the file, and one that holds it can make whoever opens it wait (a lease, fcntl(2)). So a
//! thread of its own opens it, and the warden never waits for that thread: a thread that is silent is a finding.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::mpsc as jobs;
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::time;
use tracing::warn;

use super::record::Record;
use crate::link::ResolverFact;
use crate::sys::resolv;

/// How long a look at the file may take before it counts as held by another program.
const PATIENCE: Duration = Duration::from_secs(1);

/// The file, and who looks after it.
pub(super) struct Resolver {
    path: PathBuf,
    /// What it is to name; `None` while no engine has said which tunnel this is.
    wanted: Option<Vec<Ipv4Addr>>,
    fact: ResolverFact,
    jobs: jobs::Sender<Option<Vec<Ipv4Addr>>>,
    done: mpsc::UnboundedReceiver<Outcome>,
    /// Since when the thread has been at it.
    since: Option<Instant>,
}

/// What a look at the file came to.
pub(super) struct Outcome {
    /// What it was to name; `None` when it was only read.
    nameservers: Option<Vec<Ipv4Addr>>,
    /// Whether it named something else, or had another form.
    differed: bool,
    /// Why it does not name that now.
    failed: Option<String>,
    /// The first resolver that it named before the gateway came, of another host than this one.
    former: Option<Ipv4Addr>,
}

impl Resolver {
    /// Starts the thread. Nothing is looked at yet.
    ///
    /// # Errors
    /// Where no thread can be had.
    pub(super) fn start(path: PathBuf) -> std::io::Result<Self> {
        let (jobs, todo) = jobs::channel::<Option<Vec<Ipv4Addr>>>();
        let (tell, done) = mpsc::unbounded_channel();
        let file = path.clone();
        thread::Builder::new()
            .name("resolv.conf".to_owned())
            .spawn(move || {
                for nameservers in todo {
                    if tell.send(look(&file, nameservers)).is_err() {
                        return;
                    }
                }
            })?;
        Ok(Self {
            path,
            wanted: None,
            fact: ResolverFact::default(),
            jobs,
            done,
            since: None,
        })
    }

    /// What is known of the file.
    pub(super) fn fact(&self) -> &ResolverFact {
        &self.fact
    }

    /// The resolver that the file names before anything is written, awaited for so long and no longer.
    pub(super) async fn first(&mut self, patience: Duration) -> Option<Ipv4Addr> {
        let asked = self.jobs.send(None).is_ok();
        let first = time::timeout(patience, self.done.recv());
        match first.await {
            Ok(Some(outcome)) if asked => outcome.former,
            Ok(_) | Err(_) => None,
        }
    }

    /// The file shall name these and nothing else.
    pub(super) fn name(&mut self, nameservers: &[Ipv4Addr], now: Instant) {
        if self.wanted.as_deref() != Some(nameservers) {
            self.wanted = Some(nameservers.to_vec());
            self.fact = ResolverFact::default();
        }
        self.look(now);
    }

    /// Has the file looked at, unless that is under way. To be called once a second.
    pub(super) fn look(&mut self, now: Instant) {
        if let Some(since) = self.since {
            if now.saturating_duration_since(since) >= PATIENCE {
                let path = self.path.display();
                self.fail(format!(
                    "{path}: another program keeps it from being opened; it is tried again when that lets go"
                ));
            }
            return;
        }
        let Some(nameservers) = self.wanted.clone() else {
            return;
        };
        match self.jobs.send(Some(nameservers)) {
            Ok(()) => self.since = Some(now),
            Err(_) => self.fail("the thread that looks after it has ended".to_owned()),
        }
    }

    /// What the last look came to. Pending while none is under way.
    pub(super) async fn looked(&mut self) -> Outcome {
        match self.done.recv().await {
            Some(outcome) => outcome,
            None => std::future::pending().await,
        }
    }

    /// Takes in what a look came to. Returns the resolver of the uplink, if the file names one.
    pub(super) fn take(&mut self, outcome: Outcome, record: &mut Record) -> Option<Ipv4Addr> {
        let Some(nameservers) = outcome.nameservers else {
            return outcome.former;
        };
        self.since = None;
        // It may have been asked for something else meanwhile.
        if self.wanted.as_ref() != Some(&nameservers) {
            return outcome.former;
        }
        match outcome.failed {
            Some(why) => self.fail(why),
            None => {
                if outcome.differed && matches!(self.fact, ResolverFact::Written(_)) {
                    let path = self.path.display().to_string();
                    warn!(
                        path,
                        "another program named other resolvers; they are replaced"
                    );
                    record.undone("resolver", &format!("{path} named other resolvers"));
                }
                self.fact = ResolverFact::Written(nameservers);
            }
        }
        outcome.former
    }

    /// Says what went wrong unless it is what went wrong before.
    fn fail(&mut self, why: String) {
        let fact = ResolverFact::Failed(why.clone());
        if self.fact != fact {
            let error = why;
            warn!(%error, "DNS to anything but the tunnel's resolvers is refused all the same");
        }
        self.fact = fact;
    }
}

/// Reads the file, and writes it where it is not as it shall be. On the thread.
fn look(path: &Path, nameservers: Option<Vec<Ipv4Addr>>) -> Outcome {
    let text = resolv::read(path);
    let former = text.as_deref().ok().and_then(former);
    let (mut differed, mut failed) = (false, None);
    if let Some(nameservers) = &nameservers {
        match resolv::rewrite(path, nameservers) {
            Ok(written) => differed = written,
            Err(error) => failed = Some(error.to_string()),
        }
    }
    Outcome {
        nameservers,
        differed,
        failed,
        former,
    }
}

/// The resolver of the uplink. One inside the namespace, such as Docker's at 127.0.0.11, is none.
fn former(text: &str) -> Option<Ipv4Addr> {
    let mut named = resolv::former_nameservers(text).into_iter();
    named.find(|ip| !ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tunnel() -> Vec<Ipv4Addr> {
        vec![[10, 64, 0, 1].into()]
    }

    #[tokio::test]
    async fn a_file_that_names_others_is_written_again_and_that_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("resolv.conf");
        std::fs::write(&path, "nameserver 192.168.1.1\n").unwrap();
        let (mut record, now) = (Record::default(), Instant::now());
        let mut resolver = Resolver::start(path.clone()).unwrap();
        resolver.name(&tunnel(), now);
        let outcome = resolver.looked().await;
        let former = resolver.take(outcome, &mut record);
        assert_eq!(former, Some([192, 168, 1, 1].into()));
        assert_eq!(resolver.fact(), &ResolverFact::Written(tunnel()));
        assert!(record.counts().is_empty());
        std::fs::write(&path, "nameserver 9.9.9.9\n").unwrap();
        resolver.look(now);
        let outcome = resolver.looked().await;
        resolver.take(outcome, &mut record);
        assert_eq!(resolver.fact(), &ResolverFact::Written(tunnel()));
        assert_eq!(record.counts().len(), 1);
    }

    #[tokio::test]
    async fn a_thread_that_is_silent_is_a_finding_and_nobody_waits_for_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("resolv.conf");
        let mut resolver = Resolver::start(path).unwrap();
        let now = Instant::now();
        resolver.name(&tunnel(), now);
        // Its answer is not taken: as if it still waited for the file.
        resolver.look(now + PATIENCE);
        let ResolverFact::Failed(why) = resolver.fact() else {
            panic!("{:?}", resolver.fact());
        };
        assert!(why.contains("another program"), "{why}");
        let outcome = resolver.looked().await;
        resolver.take(outcome, &mut Record::default());
        assert_eq!(resolver.fact(), &ResolverFact::Written(tunnel()));
    }
}

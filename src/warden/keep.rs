//! Gives back what other programs took: the tunnel device as it was, and the resolvers' names.

use tracing::warn;

use super::namespace::Namespace;
use crate::link::ResolverFact;
use crate::plan::Address;
use crate::sys::{link, resolv};

impl Namespace {
    /// Whether the tunnel device is lost: removed, or taken to another namespace. Nothing can give it back
    /// to the engine, so the gateway has to be started anew.
    pub(super) fn tunnel_is_lost(&self) -> bool {
        match self.tun.name() {
            Ok(name) => link::index(&name).is_err_and(|error| error.errno() == Some(libc::ENODEV)),
            Err(error) => error.raw_os_error() == Some(libc::EBADFD),
        }
    }

    /// Gives the tunnel device back what somebody took from it: under another name, down, or without its
    /// address, it carries nothing.
    pub(super) fn keep_tunnel(&mut self) {
        let wanted = self.plan().tunnel;
        if let Ok(name) = self.tun.name()
            && name != wanted.device
        {
            warn!(%name, "another program renamed the tunnel device; it gets its name back");
            self.undone("tunnel", &format!("the tunnel device was called {name}"));
            if let Err(error) = link::rename(&name, &wanted.device) {
                warn!(%error, "the tunnel device keeps the wrong name and carries nothing");
                return;
            }
        }
        let whole = |found: &[Address]| {
            wanted.addresses.iter().all(|network| {
                let same = |it: &Address| it.device == wanted.device && it.network == *network;
                found.iter().any(same)
            })
        };
        let kept = match link::addresses() {
            Ok(found) if whole(&found) => Ok(()),
            Ok(_) => {
                let what = format!("{} was down or without its address", wanted.device);
                self.undone("tunnel", &what);
                link::configure(&wanted)
            }
            Err(error) => Err(error),
        };
        if let Err(error) = kept {
            warn!(%error, "the tunnel device is not as it should be");
        }
    }

    /// Names the tunnel's resolvers again where another program named others. Where the file cannot be
    /// written it is tried again, and said once.
    pub(super) fn keep_resolver(&mut self) {
        if self.names_are_unknown() {
            return;
        }
        let before = self.facts.resolver.clone();
        if self.is_resolver_written() {
            self.facts.resolver = ResolverFact::Written(self.config.tunnel.dns.clone());
            return;
        }
        let was_written = matches!(before, ResolverFact::Written(_));
        self.rewrite_resolver(before);
        // A file that cannot be written but names the same, as Docker's may, stays as it is.
        if was_written && self.is_resolver_written() {
            let path = self.resolv_conf.display().to_string();
            warn!(
                path,
                "another program named other resolvers; they are replaced"
            );
            self.undone("resolver", &format!("{path} named other resolvers"));
        }
    }

    fn is_resolver_written(&self) -> bool {
        let nameservers = &self.config.tunnel.dns;
        matches!(resolv::is_written(&self.resolv_conf, nameservers), Ok(true))
    }

    pub(super) fn write_resolver(&mut self) {
        if self.names_are_unknown() {
            return;
        }
        self.rewrite_resolver(ResolverFact::default());
    }

    /// Whether no engine has said yet which tunnel this is, resolvers included.
    fn names_are_unknown(&self) -> bool {
        self.sealed.is_some() && self.config.tunnel.addresses.is_empty()
    }

    /// Says what went wrong unless it is what went wrong before.
    fn rewrite_resolver(&mut self, before: ResolverFact) {
        let nameservers = &self.config.tunnel.dns;
        self.facts.resolver = match resolv::rewrite(&self.resolv_conf, nameservers) {
            Ok(()) => ResolverFact::Written(nameservers.clone()),
            Err(error) => ResolverFact::Failed(error.to_string()),
        };
        if let ResolverFact::Failed(error) = &self.facts.resolver
            && self.facts.resolver != before
        {
            warn!(%error, "DNS to anything but the tunnel's resolvers is refused all the same");
        }
    }
}

//! Reads our tables back as seldom as is safe. One socket for it, since closing one waits (see [`super::Armed`]).

use std::io;

use super::known::Known;
use super::readback::{CheckError, check_rules, check_tables};
use super::{NETFILTER, drain, generation_by};
use crate::ruleset::Ruleset;
use crate::sys::netlink::Netlink;

/// What our tables are known to hold.
#[derive(Debug)]
pub(super) struct Reading {
    known: Known,
    socket: Netlink,
}

impl Reading {
    pub(super) fn open() -> io::Result<Self> {
        Ok(Self {
            known: Known::default(),
            socket: Netlink::open(NETFILTER)?,
        })
    }

    /// Commits `ruleset`, and notes that it is there.
    pub(super) fn load<E>(
        &mut self,
        ruleset: &Ruleset,
        commit: impl FnOnce() -> Result<(), E>,
    ) -> Result<(), E> {
        self.known = Known::default();
        let before = self.generation();
        commit()?;
        self.known = Known::loaded(ruleset, before, self.generation());
        Ok(())
    }

    /// See [`super::Armed::check`]; `owner` is who alone may change the tables, if they are owned.
    pub(super) fn check(
        &mut self,
        ruleset: &Ruleset,
        owner: Option<u32>,
    ) -> Result<(), CheckError> {
        let before = self.generation();
        let checked = check_tables(&mut self.socket, ruleset, owner).and_then(|()| {
            if self.known.is(ruleset, owner, before) {
                return Ok(());
            }
            self.known = Known::default();
            check_rules(&mut self.socket, ruleset)?;
            self.known = Known::read(ruleset, before, self.generation());
            Ok(())
        });
        if checked.is_err() {
            // What is left of a list that was not read to its end would be taken for the next one.
            self.known = Known::default();
            drain(&mut self.socket);
        }
        checked
    }

    /// `None` where it cannot be told.
    fn generation(&mut self) -> Option<u32> {
        generation_by(&mut self.socket).ok()
    }
}

//! The servers that a configuration's choice leaves, for an operator who looks for the right words.

use std::path::PathBuf;

use serde::Serialize;

use super::Read;
use super::diagnostic::{Diagnostic, Errors, Notes, Problem};
use super::load::{Sources, layers};
use super::place::{Place, Source};
use super::provider::{Choice, Provider, Server, choose};

/// What a choice leaves.
#[derive(Clone, Debug, Serialize)]
pub struct Servers {
    /// Whose servers they are.
    pub provider: Provider,
    /// Where they stand.
    pub list: PathBuf,
    /// The age of the list in days, if it is known.
    pub days_old: Option<u64>,
    /// WireGuard servers of this provider in the list.
    pub total: usize,
    /// Those that fit, in the order in which they would be tried.
    pub servers: Vec<Server>,
    /// What was noticed besides.
    #[serde(skip)]
    pub warnings: Vec<Diagnostic>,
}

/// The servers that fit what the sources ask for. Nothing else of the configuration has to be there, or right.
///
/// # Errors
///
/// What is wrong with the choice or with the list.
pub fn servers(sources: &Sources, read: Read<'_>) -> Result<Servers, Errors> {
    let mut others = Notes::default();
    let (environment, file) = layers(sources, read, &mut others);
    let wanted = environment.wanted.over(file.unwrap_or_default().wanted);
    let mut notes = Notes::default();
    let nowhere = Place::whole(Source::Default, "");
    let Some(provider) = &wanted.provider else {
        let right = "set VPN_SERVICE_PROVIDER or VPNGW_PROVIDER_NAME, or write `name` below [provider] in vpngw.toml";
        notes.error(&nowhere, Problem::new("no provider is named", right));
        // What kept the name from being read is said in its place.
        return Err(others.finish().err().unwrap_or_else(|| Errors::of(notes)));
    };
    let choice = choose(provider, &wanted, &sources.surroundings, &mut notes);
    let Choice::Servers(chosen) = choice else {
        if matches!(choice, Choice::NoList) {
            let wrong = "there is no list of its servers";
            let right =
                "name one by `list` below [provider], or mount the folder of gluetun at /gluetun";
            notes.error(&provider.place, Problem::new(wrong, right));
        }
        return Err(Errors::of(notes));
    };
    let (warnings, _) = notes.finish()?;
    Ok(Servers {
        provider: provider.value,
        list: chosen.list,
        days_old: chosen.age,
        total: chosen.total,
        servers: chosen.servers,
        warnings,
    })
}

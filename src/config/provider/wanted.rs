//! What is wanted of a provider, as one source says it, each value with its place.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use super::super::PublicKey;
use super::super::place::{At, Place};
use super::attribute::{Attribute, Only};
use super::order::Order;
use super::table::Provider;

/// `[provider]`, as written; what is wrong is left out.
#[derive(Clone, Debug, Default)]
pub(in crate::config) struct Wanted {
    pub(in crate::config) provider: Option<At<Provider>>,
    /// Whether a provider was named, rightly or not, and where.
    pub(in crate::config) named: Option<Place>,
    pub(in crate::config) values: BTreeMap<Attribute, At<Vec<At<String>>>>,
    pub(in crate::config) only: BTreeMap<Only, At<bool>>,
    pub(in crate::config) list: Option<At<PathBuf>>,
    pub(in crate::config) order: Option<At<Order>>,
    pub(in crate::config) port: Option<At<u16>>,
    /// The one server that is meant, of those that match.
    pub(in crate::config) address: Option<At<Ipv4Addr>>,
    /// Its key, for a provider without a list: gluetun's variables for a server of one's own choice.
    pub(in crate::config) key: Option<At<PublicKey>>,
}

impl Wanted {
    /// The values of this one, and where it has none those of `below`.
    pub(in crate::config) fn over(self, below: Self) -> Self {
        let (mut values, mut only) = (below.values, below.only);
        values.extend(self.values);
        only.extend(self.only);
        Self {
            provider: self.provider.or(below.provider),
            named: self.named.or(below.named),
            values,
            only,
            list: self.list.or(below.list),
            order: self.order.or(below.order),
            port: self.port.or(below.port),
            address: self.address.or(below.address),
            key: self.key.or(below.key),
        }
    }

    /// The places of what chooses a server, in a fixed order.
    pub(in crate::config) fn choosers(&self) -> impl Iterator<Item = &Place> {
        let values = self.values.values().filter(|at| !at.value.is_empty());
        let only = self.only.values().filter(|at| at.value);
        let address = self.address.as_ref();
        values
            .map(|at| &at.place)
            .chain(only.map(|at| &at.place))
            .chain(address.map(|at| &at.place))
            .chain(self.port.as_ref().map(|at| &at.place))
            .chain(self.key.as_ref().map(|at| &at.place))
    }
}

//! The resolvers of a tunnel: at least one, since a tunnel in which no name resolves is of no use, and looks like one that is.

use std::net::Ipv4Addr;
use std::ops::Deref;

use serde::{Deserialize, Serialize};

/// Resolvers in the order in which they are asked. Never empty, whoever sent them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<Ipv4Addr>", into = "Vec<Ipv4Addr>")]
pub struct Resolvers(Vec<Ipv4Addr>);

impl Resolvers {
    /// These; `None` if there is none.
    pub fn new(addresses: Vec<Ipv4Addr>) -> Option<Self> {
        (!addresses.is_empty()).then_some(Self(addresses))
    }
}

impl Deref for Resolvers {
    type Target = [Ipv4Addr];

    fn deref(&self) -> &[Ipv4Addr] {
        &self.0
    }
}

impl TryFrom<Vec<Ipv4Addr>> for Resolvers {
    type Error = &'static str;

    fn try_from(addresses: Vec<Ipv4Addr>) -> Result<Self, Self::Error> {
        Self::new(addresses).ok_or("a tunnel has at least one resolver")
    }
}

impl From<Resolvers> for Vec<Ipv4Addr> {
    fn from(resolvers: Resolvers) -> Self {
        resolvers.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn none_is_no_list_of_resolvers() {
        assert_eq!(Resolvers::new(vec![]), None);
        let error = serde_json::from_str::<Resolvers>("[]").unwrap_err();
        assert!(
            error.to_string().contains("at least one resolver"),
            "{error}"
        );
        let one: Resolvers = serde_json::from_str("[\"10.64.0.1\"]").unwrap();
        assert_eq!(serde_json::to_string(&one).unwrap(), "[\"10.64.0.1\"]");
    }
}

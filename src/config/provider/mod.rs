//! VPN providers that are known by name: what their servers have in common, and which of a list of servers are meant.
//!
//! The list is the one that gluetun left in the operator's own folder; vpngw ships none and fetches none. A provider's own
//! wg-quick files are as good: `files` chooses among them by their names.

mod attribute;
mod choices;
mod choose;
mod complete;
mod country;
pub(super) mod files;
mod filter;
mod list;
mod order;
mod surroundings;
mod table;
mod wanted;
pub(super) mod written;

pub(super) use attribute::{Attribute, Only};
pub(super) use choose::{Choice, choose};
pub use complete::MOST_ALTERNATIVES;
pub(super) use complete::complete;
pub use list::Server;
pub use order::Order;
pub use surroundings::{LARGEST_LIST, NoList, ReadList, Surroundings};
pub use table::Provider;
pub(super) use table::named;
pub(super) use wanted::Wanted;

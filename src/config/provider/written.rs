//! Single values of `[provider]`: from text to what it means, or what is wrong with it and what would be right.

use std::path::PathBuf;

use super::super::diagnostic::Problem;
use super::super::place::quiet;
use super::super::value::{Parsed, choice};
use super::order::Order;
use super::table::{Provider, named};

/// A provider whose servers are known.
pub(in crate::config) fn provider(text: &str) -> Parsed<Provider> {
    named(text).ok_or_else(|| {
        let names = Provider::ALL.map(|it| format!("`{it}`")).join(" or ");
        let wrong = format!(
            "`{}` is not a provider whose servers are known here",
            quiet(text)
        );
        let right = format!("write {names}; of any other, use its WireGuard file alone");
        Problem::new(wrong, right)
    })
}

/// A word to choose servers by, without quotes around it.
pub(in crate::config) fn word(text: &str) -> Parsed<String> {
    let text = text.trim().trim_matches(['"', '\'']).trim();
    if text.is_empty() {
        return Err(Problem::new(
            "there is nothing between the commas",
            "write one name, or several with commas between them",
        ));
    }
    Ok(text.to_owned())
}

/// `random` or `ordered`.
pub(in crate::config) fn order(text: &str) -> Parsed<Order> {
    choice(
        text,
        &[("random", Order::Random), ("ordered", Order::Ordered)],
    )
}

/// A path of a list of servers, or of the folder with one for each provider.
pub(in crate::config) fn list(text: &str) -> Parsed<PathBuf> {
    if text.is_empty() || text.contains('\0') {
        return Err(Problem::new(
            "the path is empty",
            "write the path of a list that gluetun wrote",
        ));
    }
    Ok(PathBuf::from(text))
}

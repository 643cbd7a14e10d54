//! Which release the kernel is of, for what cannot be asked of it.

use std::fs;

/// As `uname -r` says it.
pub(super) fn release() -> String {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease");
    release.map_or_else(
        |_| "of an unknown release".to_owned(),
        |text| text.trim().to_owned(),
    )
}

/// Whether `release` is this one, major and minor, or a later one; `None` if that cannot be read.
pub(super) fn is_at_least(release: &str, wanted: (u32, u32)) -> Option<bool> {
    let mut parts = release.split(|c: char| !c.is_ascii_digit());
    let major: u32 = parts.next()?.parse().ok()?;
    let minor: u32 = parts.next()?.parse().ok()?;
    Some((major, minor) >= wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_of_distributions_are_compared_by_their_numbers() {
        assert_eq!(is_at_least("5.15.0-91-generic", (5, 16)), Some(false));
        assert_eq!(is_at_least("5.16.0", (5, 16)), Some(true));
        assert_eq!(is_at_least("6.1.176-cloud-amd64", (5, 16)), Some(true));
        assert_eq!(is_at_least("of an unknown release", (5, 16)), None);
    }
}

//! A folder of a provider's own wg-quick files, one a server. Their names say which server that is:
//! `nl-ams-wg-001.conf`, `wg-CH-FREE-12.conf`, `AirVPN_NL-Alblasserdam_Alchiba.conf`.

use std::path::{Path, PathBuf};

use super::super::diagnostic::{Notes, Problem};
use super::super::place::{At, Place, quiet};
use super::attribute::Attribute;
use super::country;
use super::order::{Order, shuffle};
use super::wanted::Wanted;

/// Files of this name say nothing of the server.
const NAMELESS: &str = "wg0.conf";

/// Whether a file's name says which server it is for.
pub(in crate::config) fn is_named(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name != NAMELESS)
}

/// The files that are meant, in the order in which they are tried; none where that is noted as an error.
pub(in crate::config) fn among<'a>(
    files: &'a [PathBuf],
    wanted: &Wanted,
    seed: u64,
    notes: &mut Notes,
) -> Vec<&'a Path> {
    let mut meant: Vec<&Path> = files.iter().map(PathBuf::as_path).collect();
    for (attribute, values) in &wanted.values {
        let fits = |path: &&Path| {
            values
                .value
                .iter()
                .any(|at| says(path, *attribute, &at.value))
        };
        if values.value.is_empty() {
            continue;
        }
        meant.retain(fits);
        if meant.is_empty() {
            notes.error(&values.place, none(files, &values.value));
            return Vec::new();
        }
    }
    if let Some(place) = only(wanted) {
        let wrong = "the names of the provider's files do not say which server has this";
        let right = "unset it, and keep only those files in the folder that are meant";
        notes.error(place, Problem::new(wrong, right));
        return Vec::new();
    }
    if wanted
        .order
        .as_ref()
        .is_none_or(|at| at.value == Order::Random)
    {
        shuffle(&mut meant, seed);
    }
    meant
}

fn only(wanted: &Wanted) -> Option<&Place> {
    let mut all = wanted.only.values();
    all.find(|at| at.value).map(|at| &at.place)
}

fn none(files: &[PathBuf], values: &[At<String>]) -> Problem {
    let values: Vec<_> = values
        .iter()
        .map(|at| format!("`{}`", quiet(&at.value)))
        .collect();
    let names = files.iter().take(20).filter_map(|path| path.file_name());
    let mut names: Vec<_> = names.map(|name| quiet(&name.to_string_lossy())).collect();
    if files.len() > names.len() {
        names.push(format!("and {} more", files.len() - names.len()));
    }
    Problem::new(
        format!("no file is named for {}", values.join(" or ")),
        format!(
            "write a part of a file's name; there are {}",
            names.join(", ")
        ),
    )
}

/// Whether the name of a file has all words of a value one after the other, or begins with the code of a country.
fn says(path: &Path, attribute: Attribute, value: &str) -> bool {
    let stem = path
        .file_stem()
        .map(|stem| stem.to_string_lossy().into_owned());
    let name = words(&stem.unwrap_or_default());
    let follows = |wanted: &[String]| {
        !wanted.is_empty() && name.windows(wanted.len()).any(|part| part == wanted)
    };
    let mut codes = country::codes(value);
    let coded = attribute == Attribute::Country
        && codes.any(|code| name.iter().take(2).any(|word| word == code));
    follows(&words(value)) || coded
}

/// The words of a text: what stands between characters that are neither letters nor digits.
fn words(text: &str) -> Vec<String> {
    let parts = text.split(|c: char| !c.is_alphanumeric());
    parts
        .filter(|part| !part.is_empty())
        .map(str::to_lowercase)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_says_country_city_or_host_name() {
        let said = [
            ("nl-ams-wg-001.conf", Attribute::Hostname, "nl-ams-wg-001"),
            ("nl-ams-wg-001.conf", Attribute::Country, "Netherlands"),
            ("wg-CH-FREE-12.conf", Attribute::Country, "switzerland"),
            ("wg-CH-FREE-12.conf", Attribute::Name, "CH-FREE#12"),
            (
                "AirVPN_NL-Alblasserdam_Alchiba_UDP-1637.conf",
                Attribute::City,
                "Alblasserdam",
            ),
            (
                "AirVPN_NL-Alblasserdam_Alchiba_UDP-1637.conf",
                Attribute::Name,
                "alchiba",
            ),
            (
                "Windscribe-New_York-Empire.conf",
                Attribute::City,
                "New York",
            ),
            (
                "uk-lon.prod.surfshark.com.conf",
                Attribute::Country,
                "United Kingdom",
            ),
        ];
        for (file, attribute, value) in said {
            assert!(says(Path::new(file), attribute, value), "{file} {value}");
        }
        let unsaid = [
            ("nl-ams-wg-001.conf", Attribute::Hostname, "nl-ams-wg-00"),
            ("nl-ams-wg-001.conf", Attribute::City, "Netherlands"),
            ("se-sto-wg-001.conf", Attribute::Country, "Netherlands"),
            (
                "uk-lon.prod.surfshark.com.conf",
                Attribute::Country,
                "Comoros",
            ),
            ("nl-ams-wg-001.conf", Attribute::Country, ""),
        ];
        for (file, attribute, value) in unsaid {
            assert!(!says(Path::new(file), attribute, value), "{file} {value}");
        }
    }
}

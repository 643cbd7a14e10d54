//! Numbers and errors as people read them.

use std::io;

/// `48 s`, `12 min`, `2 h 14 min`, `3 d 4 h`; rounded down.
pub(super) fn duration(seconds: f64) -> String {
    let seconds = seconds.max(0.0) as u64;
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match seconds {
        0..60 => format!("{seconds} s"),
        60..600 => format!("{minutes} min {} s", seconds % 60),
        600..3600 => format!("{minutes} min"),
        3600..86_400 => format!("{hours} h {} min", minutes % 60),
        _ => format!("{days} d {} h", hours % 24),
    }
}

/// `0 B`, `812 KiB`, `12.4 GiB`: three digits at least once there is a prefix.
pub(super) fn bytes(bytes: u64) -> String {
    scaled(
        bytes as f64,
        1024.0,
        &["B", "KiB", "MiB", "GiB", "TiB", "PiB"],
    )
}

/// `0 bit/s`, `94.1 Mbit/s`.
pub(super) fn rate(bits_per_second: f64) -> String {
    let units = ["bit/s", "kbit/s", "Mbit/s", "Gbit/s", "Tbit/s"];
    scaled(bits_per_second.max(0.0), 1000.0, &units)
}

/// `1,284,007`
pub(super) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn scaled(mut value: f64, step: f64, units: &[&str]) -> String {
    let mut unit = 0;
    // 999.5 would print as 1000.
    while value >= step - 0.5 && unit + 1 < units.len() {
        value /= step;
        unit += 1;
    }
    let digits = match value {
        _ if unit == 0 => 0,
        v if v < 9.995 => 2,
        v if v < 99.95 => 1,
        _ => 0,
    };
    format!("{value:.digits$} {}", units[unit])
}

/// An error as a person would look it up.
pub(super) fn errno(error: &io::Error) -> String {
    let name = match error.raw_os_error() {
        Some(libc::EPERM) => "EPERM",
        Some(libc::EACCES) => "EACCES",
        Some(libc::ENOBUFS) => "ENOBUFS",
        Some(libc::ENETUNREACH) => "ENETUNREACH",
        Some(libc::EHOSTUNREACH) => "EHOSTUNREACH",
        Some(libc::EADDRNOTAVAIL) => "EADDRNOTAVAIL",
        Some(libc::EAFNOSUPPORT) => "EAFNOSUPPORT",
        Some(libc::ENODEV) => "ENODEV",
        Some(libc::ENETDOWN) => "ENETDOWN",
        Some(libc::ECONNREFUSED) => "ECONNREFUSED",
        Some(_) | None => return error.to_string(),
    };
    name.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_has_two_units_at_most() {
        let cases = [
            (-1.0, "0 s"),
            (59.9, "59 s"),
            (61.0, "1 min 1 s"),
            (3599.0, "59 min"),
            (8042.3, "2 h 14 min"),
            (273_600.0, "3 d 4 h"),
        ];
        for (seconds, text) in cases {
            assert_eq!(duration(seconds), text);
        }
    }

    #[test]
    fn bytes_and_rates_keep_three_digits() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1024), "1.00 KiB");
        assert_eq!(bytes(13_314_398_617), "12.4 GiB");
        assert_eq!(bytes(u64::MAX), "16384 PiB");
        assert_eq!(rate(0.0), "0 bit/s");
        assert_eq!(rate(f64::NAN), "0 bit/s");
        assert_eq!(rate(999_499.0), "999 kbit/s");
        assert_eq!(rate(999_999.0), "1.00 Mbit/s");
        assert_eq!(rate(94_120_000.0), "94.1 Mbit/s");
    }

    #[test]
    fn a_count_has_commas() {
        let cases = [
            (0, "0"),
            (999, "999"),
            (1284, "1,284"),
            (1_284_007, "1,284,007"),
        ];
        for (number, text) in cases {
            assert_eq!(count(number), text);
        }
    }
}

//! Moments and numbers as people write and read them.
//!
//! Not here: what time it is (`clock`).

use time::format_description::well_known::Rfc3339;
use time::{OffsetDateTime, PrimitiveDateTime, UtcOffset};

/// Words for spans of time and how long they are, milliseconds.
const UNITS: [(&[&str], i64); 6] = [
    (&["ms"], 1),
    (&["s", "sec", "second", "seconds"], 1_000),
    (&["m", "min", "minute", "minutes"], 60_000),
    (&["h", "hour", "hours"], 3_600_000),
    (&["d", "day", "days"], 86_400_000),
    (&["w", "week", "weeks"], 7 * 86_400_000),
];

/// Reads a moment: `2026-02-13T18:04:05Z`, `2026-02-13 18:04` and `2026-02-13` (in the zone given), `2h`, `2h ago`,
/// `3 days ago`, `yesterday` (this time of day). Milliseconds since 1970.
///
/// Errors: a sentence that says what was expected.
pub fn parse(text: &str, now_ms: i64, zone: UtcOffset) -> Result<i64, String> {
    let text = text.trim();
    if let Some(ago) = ago(text) {
        return now_ms.checked_sub(ago).ok_or_else(|| format!("{text:?} is too long ago"));
    }
    if let Ok(t) = OffsetDateTime::parse(text, &Rfc3339) {
        return Ok((t.unix_timestamp_nanos() / 1_000_000) as i64);
    }
    let full = match text.len() {
        10 => format!("{text} 00:00:00"),
        16 => format!("{text}:00"),
        _ => text.to_owned(),
    };
    let local = time::format_description::parse_borrowed::<2>("[year]-[month]-[day] [hour]:[minute]:[second]")
        .ok()
        .and_then(|f| PrimitiveDateTime::parse(&full.replace('T', " "), &f).ok());
    match local {
        Some(t) => Ok((t.assume_offset(zone).unix_timestamp_nanos() / 1_000_000) as i64),
        None => Err(format!("expected a time such as 2026-02-13T18:04:05Z, \"2026-02-13 18:04\" or 2h (ago), found {text:?}")),
    }
}

/// `1.5 GiB`; whole below 1 KiB.
pub fn size(bytes: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    match unit {
        0 => format!("{bytes} B"),
        _ if value < 10.0 => format!("{value:.1} {}", units[unit]),
        _ => format!("{value:.0} {}", units[unit]),
    }
}

/// `2 min`, `3 h`, `5 d`.
pub fn span(ms: i64) -> String {
    let s = ms.max(0) / 1000;
    match s {
        0..=119 => format!("{s} s"),
        120..=7199 => format!("{} min", s / 60),
        7200..=172_799 => format!("{} h", s / 3600),
        _ => format!("{} d", s / 86_400),
    }
}

/// `2026-02-13 18:04:05` in the given zone.
pub fn time(ms: i64, zone: UtcOffset) -> String {
    let at = OffsetDateTime::from_unix_timestamp_nanos(i128::from(ms) * 1_000_000).map(|t| t.to_offset(zone));
    match at {
        Ok(t) => format!("{:04}-{:02}-{:02} {:02}:{:02}:{:02}", t.year(), u8::from(t.month()), t.day(), t.hour(), t.minute(), t.second()),
        Err(_) => format!("{ms} ms"),
    }
}

/// Whether a moment is told by how long ago it is: then it is another one each time it is asked for.
pub fn is_relative(text: &str) -> bool {
    ago(text.trim()).is_some()
}

/// How long ago `text` says, milliseconds.
fn ago(text: &str) -> Option<i64> {
    if text == "yesterday" {
        return Some(86_400_000);
    }
    let t = text.strip_suffix("ago").unwrap_or(text).trim();
    let at = t.find(|c: char| !c.is_ascii_digit())?;
    let n: i64 = t[..at].parse().ok()?;
    let unit = t[at..].trim();
    UNITS.iter().find(|(words, _)| words.contains(&unit)).and_then(|(_, ms)| n.checked_mul(*ms))
}

/// The offset of this machine's zone at a moment, its summer time included.
pub fn zone_at(ms: i64) -> UtcOffset {
    UtcOffset::from_whole_seconds(crate::sys::zone_offset(ms.div_euclid(1000))).unwrap_or(UtcOffset::UTC)
}

/// `2026-02-13T18-04-05.000Z`: a moment as a part of a file name, in UTC, on every system and in the order of time.
pub fn stamp(ms: i64) -> String {
    let whole = rfc3339(ms.div_euclid(1000) * 1000).replace(':', "-");
    format!("{}.{:03}Z", whole.trim_end_matches('Z'), ms.rem_euclid(1000))
}

/// `2026-02-13T18:04:05Z`, with a fraction where there is one.
pub fn rfc3339(ms: i64) -> String {
    let t = OffsetDateTime::from_unix_timestamp_nanos(i128::from(ms) * 1_000_000);
    t.ok().and_then(|t| t.format(&Rfc3339).ok()).unwrap_or_else(|| format!("{ms} ms"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_read_as_people_write_them() {
        let zone = UtcOffset::from_hms(2, 0, 0).unwrap();
        assert_eq!(parse("2026-02-13 18:04", 0, zone), parse("2026-02-13T16:04:00Z", 0, zone));
        assert_eq!(parse("2026-02-13", 0, UtcOffset::UTC).map(|t| t % 86_400_000), Ok(0));
        let now = 1_000_000_000_000;
        for (text, ago) in
            [("2h", 7_200_000), ("2h ago", 7_200_000), ("3 days ago", 259_200_000), ("yesterday", 86_400_000), ("90s", 90_000)]
        {
            assert_eq!(parse(text, now, zone), Ok(now - ago), "{text}");
            assert!(is_relative(text));
        }
        assert!(!is_relative("2026-02-13"));
        for bad in ["", "tomorrow", "2026-13-01", "2026-02-13 25:00", "h", "5", "99999999999999999999h", "9223372036854775807w"] {
            assert!(parse(bad, 0, zone).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn stamps_sort_by_time_and_fit_a_file_name() {
        assert_eq!(stamp(1_770_000_000_023), "2026-02-02T02-40-00.023Z");
        assert_eq!(rfc3339(1_770_000_000_000), "2026-02-02T02:40:00Z");
    }
}

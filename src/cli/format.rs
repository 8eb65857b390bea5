//! Numbers, times and modes as people read them.

pub use crate::human::{size, span, time};
use time::UtcOffset;

/// `1 file`, `2 files`, `12,345 files`.
pub fn count(n: u64, one: &str, many: &str) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(c);
    }
    format!("{out} {}", if n == 1 { one } else { many })
}

/// Reads a moment as [`crate::human::parse`] does. Milliseconds since 1970.
pub fn parse_time(text: &str, now_ms: i64, zone: UtcOffset) -> Result<i64, String> {
    crate::human::parse(text, now_ms, zone)
}

/// `drwxr-xr-x`.
pub fn mode(mode: u32) -> String {
    let kind = match mode & 0o170_000 {
        0o040_000 => 'd',
        0o120_000 => 'l',
        0o010_000 => 'p',
        0o140_000 => 's',
        0o060_000 => 'b',
        0o020_000 => 'c',
        _ => '-',
    };
    let mut out = String::from(kind);
    for (shift, special, letter) in [(6, 0o4000, 's'), (3, 0o2000, 's'), (0, 0o1000, 't')] {
        let bits = mode >> shift;
        out.push(if bits & 4 != 0 { 'r' } else { '-' });
        out.push(if bits & 2 != 0 { 'w' } else { '-' });
        out.push(match (bits & 1 != 0, mode & special != 0) {
            (true, true) => letter,
            (false, true) => letter.to_ascii_uppercase(),
            (true, false) => 'x',
            (false, false) => '-',
        });
    }
    out
}

/// A word for a POSIX shell, in quotes where it needs them.
pub fn shell(word: &str) -> String {
    if !word.is_empty() && word.chars().all(|c| c.is_ascii_alphanumeric() || "/._-+:,=@%".contains(c)) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_counts_spans() {
        assert_eq!([size(0), size(1023), size(1536), size(50 << 30), size(u64::MAX)], ["0 B", "1023 B", "1.5 KiB", "50 GiB", "16 EiB"]);
        assert_eq!([count(1, "file", "files"), count(1234567, "file", "files")], ["1 file", "1,234,567 files"]);
        assert_eq!([span(-5), span(90_000), span(3_600_000), span(86_400_000 * 3)], ["0 s", "90 s", "60 min", "3 d"]);
    }

    #[test]
    fn times_go_both_ways_in_the_local_zone() {
        let zone = UtcOffset::from_hms(2, 0, 0).unwrap();
        let ms = parse_time("2026-02-13 18:04", 0, zone).unwrap();
        assert_eq!(time(ms, zone), "2026-02-13 18:04:00");
    }

    #[test]
    fn modes_read_like_those_of_ls() {
        assert_eq!([mode(0o100644), mode(0o040755), mode(0o120777)], ["-rw-r--r--", "drwxr-xr-x", "lrwxrwxrwx"]);
        assert_eq!([mode(0o104755), mode(0o041777), mode(0o102644)], ["-rwsr-xr-x", "drwxrwxrwt", "-rw-r-Sr--"]);
    }

    #[test]
    fn words_survive_a_shell() {
        assert_eq!([shell("/a/b"), shell("a b"), shell("it's"), shell("")], ["/a/b", "'a b'", r"'it'\''s'", "''"]);
    }
}

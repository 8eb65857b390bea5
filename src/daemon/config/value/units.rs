//! Sizes and durations, with the units that people write.

use super::{Base, Raw, Value, quoted};
use std::str::FromStr;
use std::time::Duration;

/// A number of bytes: `50GiB`, `512 MB`, `1048576`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

const BINARY: [(&str, u64); 4] = [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];

impl FromStr for Size {
    type Err = String;
    /// `K`, `KiB` are 1024, `KB` is 1000, and so on; upper or lower case; a fraction is allowed before a unit.
    fn from_str(s: &str) -> Result<Size, String> {
        let bad = || format!("expected a size such as 50GiB, 512MB or 1048576, found {s:?}");
        let t = s.trim();
        let at = t.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(t.len());
        let (number, unit) = (t[..at].trim(), t[at..].to_ascii_lowercase());
        let factor: u64 = match unit.as_str() {
            "" | "b" => 1,
            "k" | "kib" => 1 << 10,
            "m" | "mib" => 1 << 20,
            "g" | "gib" => 1 << 30,
            "t" | "tib" => 1 << 40,
            "kb" => 1_000,
            "mb" => 1_000_000,
            "gb" => 1_000_000_000,
            "tb" => 1_000_000_000_000,
            _ => return Err(bad()),
        };
        if let Ok(n) = number.parse::<u64>() {
            return n.checked_mul(factor).map(Size).ok_or_else(|| format!("the size {s:?} is too large"));
        }
        if !number.chars().all(|c| c.is_ascii_digit() || c == '.') || factor == 1 {
            return Err(bad());
        }
        let bytes = number.parse::<f64>().map_err(|_| bad())? * factor as f64;
        // Up to 2^53 every whole number of bytes is exact in an f64; nobody writes fractions beyond that.
        if bytes < (1u64 << 53) as f64 { Ok(Size(bytes as u64)) } else { Err(format!("the size {s:?} is too large")) }
    }
}

impl std::fmt::Display for Size {
    /// The largest unit that gives a whole number, so that it reads back the same.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match BINARY.iter().find(|(_, n)| self.0 >= *n && self.0.is_multiple_of(*n)) {
            Some((unit, n)) => write!(f, "{}{unit}", self.0 / n),
            None => write!(f, "{}", self.0),
        }
    }
}

impl Value for Size {
    fn read(raw: &Raw, base: &Base) -> Result<Self, String> {
        match raw {
            Raw::Int(_) => u64::read(raw, base).map(Size),
            _ => raw.text("a size such as \"50GiB\"")?.parse(),
        }
    }
    fn show(&self) -> Option<String> {
        Some(quoted(&self.to_string()))
    }
}

/// A span of time: `500ms`, `5s`, `2m`, `1h`, `1d`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub Duration);

impl FromStr for Span {
    type Err = String;
    fn from_str(s: &str) -> Result<Span, String> {
        let bad = || format!("expected a duration such as 500ms, 5s, 2m or 1h, found {s:?}");
        let t = s.trim();
        let at = t.find(|c: char| c.is_ascii_alphabetic()).ok_or_else(|| format!("{} (the unit is missing)", bad()))?;
        let n: u64 = t[..at].trim().parse().map_err(|_| bad())?;
        let ms = match t[at..].to_ascii_lowercase().as_str() {
            "ms" => 1,
            "s" | "sec" => 1_000,
            "m" | "min" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return Err(bad()),
        };
        n.checked_mul(ms).map(|ms| Span(Duration::from_millis(ms))).ok_or_else(|| format!("the duration {s:?} is too long"))
    }
}

impl std::fmt::Display for Span {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ms = self.0.as_millis() as u64;
        let units = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s"), (1, "ms")];
        let (n, unit) = units.iter().find(|(n, _)| ms >= *n && ms.is_multiple_of(*n)).unwrap_or(&(1, "ms"));
        write!(f, "{}{unit}", ms / n)
    }
}

impl Value for Span {
    fn read(raw: &Raw, _: &Base) -> Result<Self, String> {
        raw.text("a duration such as \"5s\"")?.parse()
    }
    fn show(&self) -> Option<String> {
        Some(quoted(&self.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        let n = |s: &str| s.parse::<Size>().map(|s| s.0);
        assert_eq!(n("50GiB"), Ok(50 << 30));
        assert_eq!(n("50 g"), Ok(50 << 30));
        assert_eq!(n("1.5MiB"), Ok(3 << 19));
        assert_eq!(n("10MB"), Ok(10_000_000));
        assert_eq!(n("0"), Ok(0));
        for bad in ["", "GiB", "5 giga", "-1", "1e3", "1.5", "99999999999TiB", "999999999.5TiB", "5GiB!"] {
            assert!(n(bad).is_err(), "{bad:?}");
        }
        assert!(n("5 giga").unwrap_err().contains("such as 50GiB"));
    }

    #[test]
    fn spans_need_a_unit() {
        assert_eq!("5s".parse(), Ok(Span(Duration::from_secs(5))));
        assert_eq!("2 m".parse(), Ok(Span(Duration::from_secs(120))));
        assert!("5".parse::<Span>().unwrap_err().contains("unit"));
        for bad in ["", "s", "5 parsecs", "-5s", "1.5s"] {
            assert!(bad.parse::<Span>().is_err(), "{bad:?}");
        }
    }
}

//! Values of configuration keys: how each is written, read and shown.
//!
//! Must: what `show` prints, reading gives back. Errors are phrases that say what was expected.

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

/// A value as it stands in its source, before it is understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Raw {
    /// A string: from the file, the environment or a flag.
    Text(String),
    /// A whole number of the file.
    Int(i64),
    /// A truth value of the file.
    Bool(bool),
    /// A list of strings of the file.
    List(Vec<String>),
}

impl Raw {
    fn text(&self, what: &str) -> Result<&str, String> {
        match self {
            Raw::Text(t) => Ok(t),
            Raw::Int(n) => Err(format!("expected {what}, found the number {n}")),
            Raw::Bool(b) => Err(format!("expected {what}, found {b}")),
            Raw::List(_) => Err(format!("expected {what}, found a list")),
        }
    }
}

/// What relative paths and `~` are relative to.
#[derive(Clone, Debug, Default)]
pub struct Base {
    /// Home directory.
    pub home: Option<PathBuf>,
    /// Directory of the config file, or the working directory for environment and flags.
    pub dir: PathBuf,
}

impl Base {
    /// Makes a path absolute; `~` and `~/…` are the home directory.
    pub fn absolute(&self, text: &str) -> Result<PathBuf, String> {
        if text.is_empty() {
            return Err("expected a path, found nothing".to_owned());
        }
        if text == "~" || text.starts_with("~/") {
            let home = self.home.as_ref().ok_or("`~` cannot be resolved because HOME is not set")?;
            return Ok(super::super::paths::normalize(&home.join(text[1..].trim_start_matches('/'))));
        }
        Ok(super::super::paths::normalize(&self.dir.join(text)))
    }
}

/// A type that a key can have.
pub trait Value: Sized {
    /// Understands `raw`.
    fn read(raw: &Raw, base: &Base) -> Result<Self, String>;
    /// As it would stand in the config file (TOML); none for "not set".
    fn show(&self) -> Option<String>;
}

/// A string in TOML's quotes.
pub fn quoted(s: &str) -> String {
    toml::Value::String(s.to_owned()).to_string()
}

impl Value for String {
    fn read(raw: &Raw, _: &Base) -> Result<Self, String> {
        match raw.text("a text")? {
            "" => Err("expected a text, found nothing".to_owned()),
            t => Ok(t.to_owned()),
        }
    }
    fn show(&self) -> Option<String> {
        Some(quoted(self))
    }
}

impl Value for bool {
    fn read(raw: &Raw, _: &Base) -> Result<Self, String> {
        match raw {
            Raw::Bool(b) => Ok(*b),
            Raw::Text(t) => match t.to_ascii_lowercase().as_str() {
                "true" | "yes" | "on" | "1" => Ok(true),
                "false" | "no" | "off" | "0" => Ok(false),
                _ => Err(format!("expected true or false, found {t:?}")),
            },
            _ => Err("expected true or false".to_owned()),
        }
    }
    fn show(&self) -> Option<String> {
        Some(self.to_string())
    }
}

impl Value for u64 {
    fn read(raw: &Raw, _: &Base) -> Result<Self, String> {
        let bad = || "expected a whole number from 0".to_owned();
        match raw {
            Raw::Int(n) => u64::try_from(*n).map_err(|_| bad()),
            Raw::Text(t) => t.trim().parse().map_err(|_| bad()),
            _ => Err(bad()),
        }
    }
    fn show(&self) -> Option<String> {
        Some(self.to_string())
    }
}

impl Value for u16 {
    fn read(raw: &Raw, base: &Base) -> Result<Self, String> {
        u64::read(raw, base).ok().and_then(|n| u16::try_from(n).ok()).ok_or_else(|| "expected a number from 0 to 65535".to_owned())
    }
    fn show(&self) -> Option<String> {
        Some(self.to_string())
    }
}

impl Value for PathBuf {
    fn read(raw: &Raw, base: &Base) -> Result<Self, String> {
        base.absolute(raw.text("a path")?)
    }
    fn show(&self) -> Option<String> {
        Some(quoted(&self.to_string_lossy()))
    }
}

impl Value for Vec<String> {
    /// A list, or a text with commas.
    fn read(raw: &Raw, _: &Base) -> Result<Self, String> {
        match raw {
            Raw::List(l) => Ok(l.clone()),
            Raw::Text(t) => Ok(t.split(',').map(str::trim).filter(|s| !s.is_empty()).map(str::to_owned).collect()),
            _ => Err("expected a list of texts such as [\"*.swp\", \"*.swo\"]".to_owned()),
        }
    }
    fn show(&self) -> Option<String> {
        Some(format!("[{}]", self.iter().map(|s| quoted(s)).collect::<Vec<_>>().join(", ")))
    }
}

impl<T: Value> Value for Option<T> {
    fn read(raw: &Raw, base: &Base) -> Result<Self, String> {
        T::read(raw, base).map(Some)
    }
    fn show(&self) -> Option<String> {
        self.as_ref().and_then(T::show)
    }
}

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

/// Where the store is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreUrl {
    /// A directory on this machine or on a shared disk.
    Dir(PathBuf),
    /// A bucket and the prefix in it.
    S3 {
        /// Bucket.
        bucket: String,
        /// Prefix without slashes at its ends; never empty.
        prefix: String,
    },
}

/// Prefix where the URL names none, and inside a directory store.
pub const DEFAULT_PREFIX: &str = "default";

impl StoreUrl {
    /// Reads `file:///srv/tcfs`, `/srv/tcfs` or `s3://bucket/prefix` (no prefix: `default`).
    pub fn parse(text: &str, base: &Base) -> Result<StoreUrl, String> {
        if let Some(rest) = text.strip_prefix("s3://") {
            let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
            let prefix = prefix.trim_matches('/');
            let tame = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
            if bucket.is_empty() || !bucket.chars().all(tame) {
                return Err(format!("expected s3://BUCKET/PREFIX, found {text:?}"));
            }
            if !prefix.split('/').all(|c| c.chars().all(tame) && c != "." && c != ".." && (prefix.is_empty() || !c.is_empty())) {
                return Err(format!("a prefix may have letters, digits, `.`, `_`, `-` and `/` in it, found {prefix:?}"));
            }
            let prefix = if prefix.is_empty() { DEFAULT_PREFIX } else { prefix };
            return Ok(StoreUrl::S3 { bucket: bucket.to_owned(), prefix: prefix.to_owned() });
        }
        let path = match text.strip_prefix("file://") {
            Some(p) if p.starts_with('/') || p.starts_with('~') => p,
            Some(_) => return Err(format!("expected an absolute path after file://, as in file:///srv/tcfs, found {text:?}")),
            None => match text.split_once("://") {
                Some((scheme, _)) => return Err(format!("unknown kind of store {scheme:?}; known are file:///DIR and s3://BUCKET/PREFIX")),
                None => text,
            },
        };
        base.absolute(path).map(StoreUrl::Dir)
    }

    /// Bucket and prefix as people write them in front of a path; the same words on a directory store.
    pub fn words(&self) -> (&str, &str) {
        match self {
            StoreUrl::Dir(_) => ("tcfs", DEFAULT_PREFIX),
            StoreUrl::S3 { bucket, prefix } => (bucket, prefix),
        }
    }

    /// The prefix of the keys ([`crate::store::keys::Keys::new`]).
    pub fn prefix(&self) -> &str {
        self.words().1
    }

    /// The directory, of a directory store.
    pub fn dir(&self) -> Option<&Path> {
        match self {
            StoreUrl::Dir(d) => Some(d),
            StoreUrl::S3 { .. } => None,
        }
    }
}

impl std::fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            StoreUrl::Dir(d) => write!(f, "file://{}", d.display()),
            StoreUrl::S3 { bucket, prefix } => write!(f, "s3://{bucket}/{prefix}"),
        }
    }
}

impl Value for StoreUrl {
    fn read(raw: &Raw, base: &Base) -> Result<Self, String> {
        StoreUrl::parse(raw.text("a store such as \"s3://tcfs/default\"")?, base)
    }
    fn show(&self) -> Option<String> {
        Some(quoted(&self.to_string()))
    }
}

/// Declares an enum whose values are words.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $word:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $($(#[$vdoc])* $variant),+ }
        impl $name {
            /// The word in the configuration.
            pub fn as_str(self) -> &'static str {
                match self { $($name::$variant => $word),+ }
            }
        }
        impl FromStr for $name {
            type Err = String;
            fn from_str(s: &str) -> Result<Self, String> {
                match s {
                    $($word => Ok($name::$variant),)+
                    _ => Err(format!("expected one of {}, found {s:?}", [$($word),+].join(", "))),
                }
            }
        }
        impl Value for $name {
            fn read(raw: &Raw, _: &Base) -> Result<Self, String> {
                raw.text(&format!("one of {}", [$($word),+].join(", ")))?.parse()
            }
            fn show(&self) -> Option<String> {
                Some(quoted(self.as_str()))
            }
        }
    };
}

words!(
    /// What a path in conflict shows on this machine.
    ConflictMode {
        /// The winner, the same on every device; losers are siblings.
        Auto = "auto",
        /// This device's own head, else the winner; the person is told.
        Interactive = "interactive",
        /// This device's own head, else the winner; siblings are hidden until asked for.
        Defer = "defer",
    }
);
words!(
    /// How git repositories travel.
    GitSyncMode {
        /// Each repository as one unit.
        Bundle = "bundle",
        /// The files of `.git` as files.
        Raw = "raw",
    }
);
words!(
    /// When a write counts as done.
    WriteMode {
        /// `close` returns when the bytes are safe on this machine; publishing follows in the background.
        Back = "back",
    }
);
words!(
    /// How much the log tells.
    LogLevel {
        /// Only what failed.
        Error = "error",
        /// And what somebody should look at.
        Warn = "warn",
        /// And what happens in the large.
        Info = "info",
        /// And each step.
        Debug = "debug",
        /// Everything.
        Trace = "trace",
    }
);

/// A name of a device: `[a-z0-9-]{1,32}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceName(pub String);

impl FromStr for DeviceName {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        let tame = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if (1..=32).contains(&s.len()) && s.chars().all(tame) && !s.starts_with('-') && !s.ends_with('-') {
            return Ok(DeviceName(s.to_owned()));
        }
        let near = DeviceName::from_host(s);
        Err(format!("a device name has 1 to 32 lower-case letters, digits and `-` inside; {s:?} is none, {:?} would be", near.0))
    }
}

impl DeviceName {
    /// The nearest name to a host name: its first label, lower case, other characters as `-`.
    pub fn from_host(host: &str) -> DeviceName {
        let label = host.split('.').next().unwrap_or("").to_lowercase();
        let mut out = String::new();
        for c in label.chars() {
            let c = if c.is_ascii_lowercase() || c.is_ascii_digit() { c } else { '-' };
            if out.len() < 32 && !(c == '-' && (out.is_empty() || out.ends_with('-'))) {
                out.push(c);
            }
        }
        let out = out.trim_end_matches('-');
        DeviceName(if out.is_empty() { "machine".to_owned() } else { out.to_owned() })
    }
}

impl Value for DeviceName {
    fn read(raw: &Raw, _: &Base) -> Result<Self, String> {
        raw.text("a name")?.parse()
    }
    fn show(&self) -> Option<String> {
        Some(quoted(&self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn base() -> Base {
        Base { home: Some("/home/u".into()), dir: "/etc/tcfs".into() }
    }

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

    proptest! {
        #[test]
        fn sizes_and_spans_come_back_from_what_is_shown(n in any::<u64>(), ms in any::<u32>()) {
            prop_assert_eq!(Size(n).to_string().parse(), Ok(Size(n)));
            let span = Span(Duration::from_millis(ms.into()));
            prop_assert_eq!(span.to_string().parse(), Ok(span));
        }

        #[test]
        fn any_text_is_a_value_or_an_error(s in ".{0,40}") {
            let _ = s.parse::<Size>();
            let _ = s.parse::<Span>();
            let _ = StoreUrl::parse(&s, &base());
            prop_assert!(DeviceName::from_host(&s).0.parse::<DeviceName>().is_ok());
        }
    }

    #[test]
    fn stores_of_both_kinds_are_read() {
        let p = |s: &str| StoreUrl::parse(s, &base());
        assert_eq!(p("file:///srv/tcfs"), Ok(StoreUrl::Dir("/srv/tcfs".into())));
        assert_eq!(p("~/store"), Ok(StoreUrl::Dir("/home/u/store".into())));
        assert_eq!(p("store"), Ok(StoreUrl::Dir("/etc/tcfs/store".into())));
        assert_eq!(p("s3://tcfs"), Ok(StoreUrl::S3 { bucket: "tcfs".into(), prefix: "default".into() }));
        assert_eq!(p("s3://b/x/y/"), Ok(StoreUrl::S3 { bucket: "b".into(), prefix: "x/y".into() }));
        for bad in ["file://srv/tcfs", "s3://", "s3:///x", "s3://b/a//b", "s3://b/../x", "http://x", "ftp://y", ""] {
            assert!(p(bad).is_err(), "{bad:?}");
        }
        assert_eq!(p("/srv/x").unwrap().words(), ("tcfs", "default"));
    }

    #[test]
    fn host_names_become_device_names() {
        assert_eq!(DeviceName::from_host("Petting_Zoo--Mini.local").0, "petting-zoo-mini");
        assert_eq!(DeviceName::from_host("-.x").0, "machine");
        assert!("Yoga".parse::<DeviceName>().unwrap_err().contains("\"yoga\" would be"));
    }

    #[test]
    fn lists_come_from_commas_too() {
        assert_eq!(Vec::<String>::read(&Raw::Text("*.swp, x,,".into()), &base()), Ok(vec!["*.swp".to_owned(), "x".to_owned()]));
    }
}

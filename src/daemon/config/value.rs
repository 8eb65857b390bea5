//! Values of configuration keys: how each is written, read and shown.
//!
//! Must: what `show` prints, reading gives back. Errors are phrases that say what was expected.

mod device_name;
mod store_url;
mod units;
mod words;

pub use device_name::DeviceName;
pub use store_url::{StoreUrl, parse as parse_store};
pub use units::{Size, Span};
pub use words::{ConflictMode, GitSyncMode, LogLevel, WriteMode};

use std::path::PathBuf;

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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn base() -> Base {
        Base { home: Some("/home/u".into()), dir: "/etc/tcfs".into() }
    }

    proptest! {
        #[test]
        fn sizes_and_spans_come_back_from_what_is_shown(n in any::<u64>(), ms in any::<u32>()) {
            prop_assert_eq!(Size(n).to_string().parse(), Ok(Size(n)));
            let span = Span(std::time::Duration::from_millis(ms.into()));
            prop_assert_eq!(span.to_string().parse(), Ok(span));
        }

        #[test]
        fn any_text_is_a_value_or_an_error(s in ".{0,40}") {
            let _ = s.parse::<Size>();
            let _ = s.parse::<Span>();
            let _ = store_url::parse(&s, &base());
            prop_assert!(DeviceName::from_host(&s).0.parse::<DeviceName>().is_ok());
        }
    }

    #[test]
    fn lists_come_from_commas_too() {
        assert_eq!(Vec::<String>::read(&Raw::Text("*.swp, x,,".into()), &base()), Ok(vec!["*.swp".to_owned(), "x".to_owned()]));
    }
}

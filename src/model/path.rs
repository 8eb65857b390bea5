//! Names and paths of the namespace.
//!
//! A component is UTF-8, 1–255 bytes, stored NFC, without `/`, NUL, and is not `.` or `..`; all else that Linux
//! and macOS allow is allowed. A path is its components joined by `/`; the empty path is the root.

use serde::{Deserialize, Deserializer, Serialize};
use std::fmt;
use unicode_normalization::{UnicodeNormalization, is_nfc};

/// Longest component in bytes, as on every disk a file may be copied to.
pub const NAME_MAX: usize = 255;
/// Longest path in bytes that a record may carry (Linux `PATH_MAX`).
pub const PATH_MAX: usize = 4096;

/// Why a name or path is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NameError {
    /// Not UTF-8.
    NotUtf8,
    /// Over [`NAME_MAX`] bytes (after normalisation), or the path over [`PATH_MAX`].
    TooLong,
    /// Empty, `.`, `..`, or with `/` or NUL in it.
    Invalid,
}

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            NameError::NotUtf8 => "the name is not UTF-8",
            NameError::TooLong => "the name is longer than 255 bytes (or the path than 4096)",
            NameError::Invalid => "a name may not be empty, `.`, `..`, or contain `/` or NUL",
        })
    }
}

impl std::error::Error for NameError {}

/// Whether a name is spelled as it is stored (NFC); another spelling of it is found by comparing.
pub fn is_stored_spelling(name: &str) -> bool {
    is_nfc(name)
}

/// Checks one component and returns it in NFC.
pub fn name(bytes: &[u8]) -> Result<String, NameError> {
    let s = std::str::from_utf8(bytes).map_err(|_| NameError::NotUtf8)?;
    if s.is_empty() || s == "." || s == ".." || s.contains(['/', '\0']) {
        return Err(NameError::Invalid);
    }
    let s = if is_nfc(s) { s.to_owned() } else { s.nfc().collect() };
    if s.len() > NAME_MAX { Err(NameError::TooLong) } else { Ok(s) }
}

/// A path from the namespace root: NFC components joined by `/`; the empty string is the root.
#[derive(Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct RelPath(String);

impl RelPath {
    /// The root.
    pub fn root() -> Self {
        RelPath(String::new())
    }

    /// Parses and normalises. Leading, trailing and doubled slashes are refused, so that no two texts of a record mean one path.
    pub fn parse(s: &str) -> Result<Self, NameError> {
        if s.is_empty() {
            return Ok(Self::root());
        }
        let mut out = String::with_capacity(s.len());
        for part in s.split('/') {
            let n = name(part.as_bytes())?;
            if !out.is_empty() {
                out.push('/');
            }
            out.push_str(&n);
        }
        if out.len() > PATH_MAX { Err(NameError::TooLong) } else { Ok(RelPath(out)) }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this is the root.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The last component; empty for the root.
    pub fn file_name(&self) -> &str {
        self.0.rsplit_once('/').map_or(self.0.as_str(), |(_, n)| n)
    }

    /// The directory it is in; none for the root.
    pub fn parent(&self) -> Option<RelPath> {
        if self.is_root() {
            return None;
        }
        Some(RelPath(self.0.rsplit_once('/').map_or(String::new(), |(p, _)| p.to_owned())))
    }

    /// Parents from the nearest to (not including) the root.
    pub fn ancestors(&self) -> impl Iterator<Item = RelPath> {
        std::iter::successors(self.parent(), RelPath::parent).take_while(|p| !p.is_root())
    }

    /// `self/name`; the name must have passed [`name`].
    pub fn join(&self, name: &str) -> RelPath {
        RelPath(if self.is_root() { name.to_owned() } else { format!("{}/{name}", self.0) })
    }

    /// Components from the root.
    pub fn components(&self) -> impl Iterator<Item = &str> {
        self.0.split('/').filter(|c| !c.is_empty())
    }

    /// Whether `self` lies below `dir` (not equal to it).
    pub fn is_below(&self, dir: &RelPath) -> bool {
        dir.is_root() && !self.is_root()
            || self.0.len() > dir.0.len() && self.0.starts_with(&dir.0) && self.0.as_bytes()[dir.0.len()] == b'/'
    }

    /// `self` with the prefix `from` replaced by `to`; none if it is neither `from` nor below it.
    pub fn rebase(&self, from: &RelPath, to: &RelPath) -> Option<RelPath> {
        if self == from {
            return Some(to.clone());
        }
        if !self.is_below(from) {
            return None;
        }
        let rest = if from.is_root() { self.0.as_str() } else { &self.0[from.0.len() + 1..] };
        Some(to.join(rest))
    }
}

impl fmt::Display for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

impl<'de> Deserialize<'de> for RelPath {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<RelPath, D::Error> {
        let s = String::deserialize(d)?;
        RelPath::parse(&s).map_err(|e| serde::de::Error::custom(format!("path {s:?}: {e}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_paths_are_refused() {
        for bad in ["/etc/passwd", "a//b", "a/", "../x", "a/../b", "a/./b", "a\0b", &"x".repeat(256)] {
            assert!(RelPath::parse(bad).is_err(), "{bad:?}");
        }
        assert_eq!(name(b"\xff\xfe"), Err(NameError::NotUtf8));
    }

    #[test]
    fn decomposed_and_composed_are_one_path() {
        assert_eq!(RelPath::parse("e\u{301}").unwrap(), RelPath::parse("\u{e9}").unwrap());
    }

    #[test]
    fn rebase_moves_only_what_is_below() {
        let p = |s| RelPath::parse(s).unwrap();
        assert_eq!(p("d/x").rebase(&p("d"), &p("e")), Some(p("e/x")));
        assert_eq!(p("d").rebase(&p("d"), &p("e/f")), Some(p("e/f")));
        assert_eq!(p("dd/x").rebase(&p("d"), &p("e")), None);
    }
}

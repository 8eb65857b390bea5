//! From a URL to a store: `file:///srv/tcfs` (prefix `default`; the directory stands for the bucket) and
//! `s3://bucket/prefix` (without a prefix: `default`).
//!
//! Nothing is touched or contacted here; the first call does that.

use super::StoreRef;
use super::deadline::DeadlineStore;
use super::dir::DirStore;
use super::fault::FaultStore;
use super::keys::{self, Keys};
use super::s3::{S3Options, S3Store};
use crate::clock::{Clock, SystemClock};
use crate::error::{Error, Kind, Result};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

/// Prefix of the namespace where the URL names none.
pub const DEFAULT_PREFIX: &str = "default";

/// Names the file of faults to inject (see `fault`); a testing aid.
pub const FAULT_VARIABLE: &str = "TCFS_FAULT";

/// What a store URL says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// A directory.
    Dir(PathBuf),
    /// A bucket on an S3 server, and the prefix in it.
    S3 {
        /// Bucket.
        bucket: String,
        /// Prefix without slashes at its ends.
        prefix: String,
    },
}

impl Location {
    /// Bucket and prefix as people write them in front of a path; the same words on a directory store.
    pub fn words(&self) -> (&str, &str) {
        match self {
            Location::Dir(_) => ("tcfs", DEFAULT_PREFIX),
            Location::S3 { bucket, prefix } => (bucket, prefix),
        }
    }

    /// The prefix of the keys ([`Keys::new`]).
    pub fn prefix(&self) -> &str {
        self.words().1
    }

    /// The directory, of a directory store.
    pub fn dir(&self) -> Option<&Path> {
        match self {
            Location::Dir(d) => Some(d),
            Location::S3 { .. } => None,
        }
    }
}

/// The URL that [`parse`] reads as the same store.
impl std::fmt::Display for Location {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Location::Dir(d) => write!(f, "file://{}", d.display().to_string().replace('%', "%25")),
            Location::S3 { bucket, prefix } => write!(f, "s3://{bucket}/{prefix}"),
        }
    }
}

/// Reads a store URL.
pub fn parse(url: &str) -> Result<Location> {
    let bad = |why: String, hint: &str| Err(Error::new(Kind::Usage, format!("store URL {url:?}: {why}")).hint(hint));
    if let Some(rest) = url.strip_prefix("file://") {
        let path = PathBuf::from(unescape(rest));
        if !path.is_absolute() {
            return bad("the path is not absolute".into(), "write three slashes: file:///srv/tcfs");
        }
        if rest.contains('\0') || path.components().any(|c| c == Component::ParentDir) || path == Path::new("/") {
            return bad("this is no directory for a store".into(), "name a directory of its own: file:///srv/tcfs");
        }
        return Ok(Location::Dir(path.components().collect()));
    }
    if let Some(rest) = url.strip_prefix("s3://") {
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let prefix = prefix.trim_matches('/');
        let prefix = if prefix.is_empty() { DEFAULT_PREFIX } else { prefix };
        let tame = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '.');
        if !(3..=63).contains(&bucket.len()) || !bucket.chars().all(tame) || bucket.starts_with(['-', '.']) || bucket.contains("..") {
            return bad(format!("{bucket:?} is no bucket name"), "3 to 63 lower-case letters, digits and `-`: s3://tcfs/default");
        }
        if keys::check_put(prefix).is_err() || prefix.split('/').next() == Some("tcfs-meta") {
            return bad(format!("{prefix:?} cannot be a prefix"), "letters, digits, `.`, `_` and `-`: s3://tcfs/default");
        }
        return Ok(Location::S3 { bucket: bucket.into(), prefix: prefix.into() });
    }
    match url.split_once("://") {
        Some((scheme, _)) => bad(
            format!("there is no kind of store called `{scheme}`"),
            "use file:///directory or s3://bucket/prefix (the server's address goes into `s3.endpoint`)",
        ),
        None if url.starts_with('/') => bad("it has no scheme".into(), &format!("did you mean file://{url}?")),
        None => bad("it has no scheme".into(), "use file:///directory or s3://bucket/prefix"),
    }
}

/// Opens a store. With `TCFS_FAULT` in the environment, faults are injected (see `fault`).
pub fn open(url: &str, s3: &S3Options) -> Result<(StoreRef, Keys)> {
    let (store, keys): (StoreRef, Keys) = match parse(url)? {
        Location::Dir(path) => (Arc::new(DirStore::new(&path, SystemClock.random())), Keys::new(DEFAULT_PREFIX)),
        Location::S3 { bucket, prefix } => (Arc::new(S3Store::new(&bucket, s3)?), Keys::new(&prefix)),
    };
    let store = match std::env::var_os(FAULT_VARIABLE) {
        Some(file) if !file.is_empty() => FaultStore::from_file(store, SystemClock.random(), file.into()) as StoreRef,
        _ => store,
    };
    Ok((DeadlineStore::new(store), keys))
}

/// Undoes `%20` and the like. What is no escape stays as it is.
pub(crate) fn unescape(s: &str) -> String {
    let mut out = Vec::with_capacity(s.len());
    let mut rest = s.as_bytes();
    while let [first, tail @ ..] = rest {
        let hex = |b: &u8| (*b as char).to_digit(16);
        match (first, tail) {
            (b'%', [h, l, after @ ..]) if let (Some(h), Some(l)) = (hex(h), hex(l)) => {
                out.push((h * 16 + l) as u8);
                rest = after;
            }
            _ => {
                out.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8(out).unwrap_or_else(|_| s.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn urls_of_both_kinds_are_read() {
        assert_eq!(parse("file:///srv/tcfs/").unwrap(), Location::Dir("/srv/tcfs".into()));
        assert_eq!(parse("file:///srv/my%20store/100%").unwrap(), Location::Dir("/srv/my store/100%".into()));
        let s3 = |bucket: &str, prefix: &str| Location::S3 { bucket: bucket.into(), prefix: prefix.into() };
        assert_eq!(parse("s3://tcfs/default").unwrap(), s3("tcfs", "default"));
        assert_eq!(parse("s3://tcfs/").unwrap(), s3("tcfs", "default"));
        assert_eq!(parse("s3://tcfs/team/a/").unwrap(), s3("tcfs", "team/a"));
    }

    #[test]
    fn everything_else_gets_a_sentence_that_helps() {
        for (url, says) in [
            ("file://srv/tcfs", "three slashes"),
            ("file://~/x", "three slashes"),
            ("/srv/tcfs", "file:///srv/tcfs"),
            ("file:///a/../b", "directory of its own"),
            ("file:///", "directory of its own"),
            ("gs://bucket/x", "s3://bucket/prefix"),
            ("http://host:8333/tcfs", "s3.endpoint"),
            ("s3://T/default", "lower-case"),
            ("s3://tcfs/a b", "letters"),
            ("s3://tcfs/../x", "letters"),
            ("s3://tcfs/tcfs-meta", "letters"),
            ("", "file:///directory"),
        ] {
            let e = parse(url).unwrap_err();
            assert_eq!(e.kind(), Kind::Usage, "{url}");
            assert!(e.hint_text().unwrap().contains(says), "{url}: {e:?}");
        }
    }

    proptest! {
        #[test]
        fn what_a_location_is_written_as_reads_as_the_same(dir in "(/[a-z%0-9 ]{1,8}){1,3}") {
            let at = Location::Dir(dir.into());
            prop_assert_eq!(parse(&at.to_string()).unwrap(), at);
        }

        #[test]
        fn any_url_is_parsed_without_panic(url in "(file://|s3://|)(\\PC|[/%.\0]){0,30}") {
            let _ = parse(&url);
        }
    }
}

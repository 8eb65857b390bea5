//! Where the store is: `file:///srv/tcfs`, `s3://bucket/prefix`.

use super::{Base, Raw, Value, quoted};
use crate::store::open::DEFAULT_PREFIX;
use std::path::{Path, PathBuf};

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stores_of_both_kinds_are_read() {
        let base = Base { home: Some("/home/u".into()), dir: "/etc/tcfs".into() };
        let p = |s: &str| StoreUrl::parse(s, &base);
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
}

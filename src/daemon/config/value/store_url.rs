//! Where the store is, as people write it: a store's URL, or a directory relative to the file that names it.
//!
//! Not here: what a URL may say (`store::open`).

use super::{Base, Raw, Value, quoted};
use crate::store::open;

/// Where the store is.
pub type StoreUrl = open::Location;

/// Reads `file:///srv/tcfs`, `file://~/tcfs`, `/srv/tcfs`, `tcfs` or `s3://bucket/prefix` (no prefix: `default`).
///
/// Errors: a sentence that says what is wrong with it, and what would be right.
pub fn parse(text: &str, base: &Base) -> Result<StoreUrl, String> {
    let plain = match text.strip_prefix("file://") {
        Some(rest) if rest.starts_with('~') => Some(open::unescape(rest)),
        None if !text.contains("://") => Some(text.to_owned()),
        _ => None,
    };
    let url = match plain {
        Some(path) => StoreUrl::Dir(base.absolute(&path)?).to_string(),
        None => text.to_owned(),
    };
    open::parse(&url).map_err(|e| match e.hint_text() {
        Some(hint) => format!("{e}; {hint}"),
        None => e.to_string(),
    })
}

impl Value for StoreUrl {
    fn read(raw: &Raw, base: &Base) -> Result<Self, String> {
        parse(raw.text("a store such as \"s3://tcfs/default\"")?, base)
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
        let p = |s: &str| parse(s, &base);
        assert_eq!(p("file:///srv/tcfs"), Ok(StoreUrl::Dir("/srv/tcfs".into())));
        assert_eq!(p("file:///srv/my%20store"), Ok(StoreUrl::Dir("/srv/my store".into())));
        assert_eq!(p("/srv/100%20"), Ok(StoreUrl::Dir("/srv/100%20".into())));
        assert_eq!(p("~/store"), Ok(StoreUrl::Dir("/home/u/store".into())));
        assert_eq!(p("file://~/my%20store"), Ok(StoreUrl::Dir("/home/u/my store".into())));
        assert_eq!(p("store"), Ok(StoreUrl::Dir("/etc/tcfs/store".into())));
        assert_eq!(p("s3://tcfs"), Ok(StoreUrl::S3 { bucket: "tcfs".into(), prefix: "default".into() }));
        assert_eq!(p("s3://tcfs/x/y/"), Ok(StoreUrl::S3 { bucket: "tcfs".into(), prefix: "x/y".into() }));
        for bad in ["file://srv/tcfs", "s3://", "s3:///x", "s3://tcfs/a//b", "s3://tcfs/../x", "http://x", "ftp://y", "", "/"] {
            assert!(p(bad).is_err(), "{bad:?}");
        }
        assert_eq!(p("/srv/x").unwrap().words(), ("tcfs", "default"));
    }
}

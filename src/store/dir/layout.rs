//! Key → file: the key is the path below the root, except that a last component of 64 hex digits (chunks, manifests)
//! lies in a sub-directory named after its first two digits.
//!
//! ```text
//! default/chunks/ab12…ef  →  default/chunks/ab/ab12…ef
//! default/store.json      →  default/store.json
//! ```
//!
//! (Not below an `index/`: the older layout has people's own paths there.)
//!
//! The fan-out is for listing: a page then sorts one 256th of the chunks, not all of them. It is undone by dropping
//! the component before a 64-digit name that begins with it, so keys come back. A 64-digit name that lies flat (a
//! directory filled by another program from an S3 bucket) is found too.

use crate::error::Result;
use crate::store::keys;
use std::path::PathBuf;

/// Below `index/` of the older layout names are people's, and keep their place whatever they look like.
fn is_peoples<'a>(mut above: impl Iterator<Item = &'a str>) -> bool {
    above.any(|c| c == "index")
}

fn is_hash(name: &str) -> bool {
    name.len() == 64 && name.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// Relative path of a key; checked, so that it stays below the root.
pub(super) fn path_of(key: &str) -> Result<PathBuf> {
    keys::check(key)?;
    let name = key.rsplit('/').next().unwrap_or(key);
    if !is_hash(name) || is_peoples(key.split('/').rev().skip(1)) {
        return Ok(PathBuf::from(key));
    }
    let parent = &key[..key.len() - name.len()];
    Ok(PathBuf::from(format!("{parent}{}/{name}", &name[..2])))
}

/// Where a key of 64 hex digits lies if another program put it there without the fan-out.
pub(super) fn flat_path_of(key: &str) -> Option<PathBuf> {
    is_hash(key.rsplit('/').next()?).then(|| PathBuf::from(key))
}

/// The key of a file, from its components below the root.
pub(super) fn key_of(components: &[String]) -> String {
    if let [front @ .., fan, name] = components
        && is_hash(name)
        && fan.len() == 2
        && name.starts_with(fan.as_str())
        && !is_peoples(front.iter().map(String::as_str))
    {
        let mut key = front.join("/");
        if !key.is_empty() {
            key.push('/');
        }
        return key + name;
    }
    components.join("/")
}

/// Whether a directory can hold keys that start with `prefix`: asked before it is read.
pub(super) fn may_hold(components: &[String], prefix: &str) -> bool {
    let dir = components.join("/") + "/";
    let fits = |d: &str| d.starts_with(prefix) || prefix.starts_with(d);
    // A fan-out directory adds its two digits to the key only as part of the name.
    fits(&dir) || components.last().is_some_and(|c| c.len() == 2) && fits(&dir[..dir.len() - 1])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn components(p: &std::path::Path) -> Vec<String> {
        p.components().map(|c| c.as_os_str().to_str().unwrap().to_owned()).collect()
    }

    proptest! {
        #[test]
        fn any_text_stays_below_the_root(key in "(\\PC|[./\\\\\0]){0,40}") {
            if let Ok(p) = path_of(&key) {
                prop_assert!(p.components().all(|c| matches!(c, std::path::Component::Normal(_))), "{p:?}");
            }
        }

        #[test]
        fn keys_come_back(key in "([a-z]{1,3}|index|[0-9a-f]{64}|[0-9a-f]{2}|[A-Z._-]{3}x)(/([a-z]{1,3}|index|[0-9a-f]{64}|[0-9a-f]{2})){0,4}") {
            let path = path_of(&key).unwrap();
            let parts = components(&path);
            prop_assert_eq!(key_of(&parts), key.clone());
            for cut in 0..=key.len() {
                for depth in 1..parts.len() {
                    prop_assert!(may_hold(&parts[..depth], &key[..cut]), "{:?} {:?}", &parts[..depth], &key[..cut]);
                }
            }
        }
    }

    #[test]
    fn names_of_people_below_the_older_index_keep_their_place() {
        let h = "ab".repeat(32);
        for key in [format!("default/index/cache/ab/{h}"), format!("index/ab/{h}"), format!("data/index/{h}")] {
            assert_eq!(path_of(&key).unwrap(), PathBuf::from(&key));
            assert_eq!(key_of(&components(&PathBuf::from(&key))), key);
        }
    }

    #[test]
    fn two_keys_never_share_a_file() {
        let h = "ab".repeat(32);
        let keys = [format!("c/{h}"), format!("c/ab/{h}"), format!("c/ab/ab/{h}")];
        let paths: std::collections::BTreeSet<_> = keys.iter().map(|k| path_of(k).unwrap()).collect();
        assert_eq!(paths.len(), 3);
    }
}

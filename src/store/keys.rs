//! Where each kind of object lies. Keys are hex, digits and device ids, never a user's file name.
//!
//! Must: no key that a hostile record or registry names can leave the store ([`check`]), and none that a
//! server's own rules could bend is ever written ([`check_put`]).

use crate::error::{Error, Kind, Result};
use crate::model::Hash;

/// Longest key in bytes; S3 takes 1024.
pub const KEY_MAX: usize = 1024;

/// Refuses keys that could mean something else to a disk or a server: empty, absolute, with `.` or `..`, an empty
/// component, a control character, a backslash, or a component over 255 bytes. What is left is safe to read.
pub fn check(key: &str) -> Result<()> {
    let bad = |why: &str| Err(Error::new(Kind::BadName, format!("store key {:?}: {why}", shorten(key))));
    if key.is_empty() || key.len() > KEY_MAX {
        return bad("it is empty or longer than 1024 bytes");
    }
    if key.chars().any(|c| c.is_control() || c == '\\') {
        return bad("it has a control character or a backslash");
    }
    for part in key.split('/') {
        match part {
            "" => return bad("it has an empty component"),
            "." | ".." => return bad("it has a component `.` or `..`"),
            p if p.len() > 255 => return bad("a component is longer than 255 bytes"),
            _ => {}
        }
    }
    Ok(())
}

/// [`check`], and only what every disk and server keeps as it is: `[a-zA-Z0-9._-]`, no component with a leading dot.
pub fn check_put(key: &str) -> Result<()> {
    check(key)?;
    let tame = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if key.split('/').all(|part| !part.starts_with('.') && part.chars().all(tame)) {
        Ok(())
    } else {
        Err(Error::new(Kind::BadName, format!("store key {:?}: only letters, digits, `.`, `_` and `-` are written", shorten(key))))
    }
}

/// Whether a put of this key may be sent again after a time-out: nobody else writes other bytes there, so a first
/// attempt that lands late does no harm. True for content-addressed objects and for a device's own log,
/// lease and list of condemned objects.
pub fn may_retry_put(key: &str) -> bool {
    let mut up = key.rsplit('/').skip(1);
    let (parent, above) = (up.next().unwrap_or(""), up.next().unwrap_or(""));
    matches!(parent, "chunks" | "manifests" | "snapshots" | "leases" | "gc" | "canary") || above == "log"
}

/// A key for a message: a hostile one may be long.
fn shorten(key: &str) -> String {
    if key.chars().count() <= 200 { key.to_owned() } else { key.chars().take(200).chain(['…']).collect() }
}

/// Keys below one prefix `P` (for example `default`), and the fleet's registry beside it at the bucket root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keys {
    prefix: String,
}

impl Keys {
    /// Keys below `prefix`, given without slashes at its ends.
    pub fn new(prefix: &str) -> Self {
        Keys { prefix: prefix.trim_matches('/').to_owned() }
    }
    /// The prefix.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }
    fn under(&self, rest: &str) -> String {
        if self.prefix.is_empty() { rest.to_owned() } else { format!("{}/{rest}", self.prefix) }
    }
    /// Identity of the store.
    pub fn store_json(&self) -> String {
        self.under("store.json")
    }
    /// A chunk.
    pub fn chunk(&self, hash: &Hash) -> String {
        self.under(&format!("chunks/{hash}"))
    }
    /// A manifest.
    pub fn manifest(&self, id: &Hash) -> String {
        self.under(&format!("manifests/{id}"))
    }
    /// All logs.
    pub fn logs(&self) -> String {
        self.under("log/")
    }
    /// One device's log.
    pub fn log_of(&self, device_id: &str) -> String {
        self.under(&format!("log/{device_id}/"))
    }
    /// One batch of a device's log.
    pub fn batch(&self, device_id: &str, seq: u64) -> String {
        self.under(&format!("log/{device_id}/{seq:020}"))
    }
    /// Device id and sequence number of a batch key.
    pub fn parse_batch(&self, key: &str) -> Option<(String, u64)> {
        let (device, seq) = key.strip_prefix(&self.logs())?.split_once('/')?;
        (seq.len() == 20).then_some(())?;
        Some((device.to_owned(), seq.parse().ok()?))
    }
    /// Snapshots.
    pub fn snapshots(&self) -> String {
        self.under("snapshots/")
    }
    /// One snapshot.
    pub fn snapshot(&self, id: &str) -> String {
        self.under(&format!("snapshots/{id}"))
    }
    /// Chunks.
    pub fn chunks(&self) -> String {
        self.under("chunks/")
    }
    /// Manifests.
    pub fn manifests(&self) -> String {
        self.under("manifests/")
    }
    /// Leases.
    pub fn leases(&self) -> String {
        self.under("leases/")
    }
    /// Lists of condemned objects.
    pub fn condemned(&self) -> String {
        self.under("gc/")
    }
    /// A device's list of condemned objects.
    pub fn condemned_by(&self, device_id: &str) -> String {
        self.under(&format!("gc/{device_id}"))
    }
    /// A device's lease.
    pub fn lease(&self, device_id: &str) -> String {
        self.under(&format!("leases/{device_id}"))
    }
    /// The older layout's index.
    pub fn old_index(&self) -> String {
        self.under("index/")
    }
    /// Where `doctor` writes its canary.
    pub fn canary(&self, nonce: u64) -> String {
        self.under(&format!("canary/{nonce:016x}"))
    }
    /// Registry objects of all devices (bucket root, not below the prefix).
    pub fn devices() -> String {
        "tcfs-meta/devices/".to_owned()
    }
    /// One device's registry object.
    pub fn device(device_id: &str) -> String {
        format!("tcfs-meta/devices/{device_id}.json")
    }
    /// The mark that a device is revoked.
    pub fn revoked(device_id: &str) -> String {
        format!("tcfs-meta/devices/{device_id}.revoked")
    }
    /// The merged view of the registry.
    pub fn registry() -> String {
        "tcfs-meta/devices.json".to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_could_leave_the_store_are_refused() {
        for bad in [
            "",
            "/",
            "/etc/passwd",
            "a//b",
            "a/",
            "..",
            "a/../b",
            "default/log/../../x",
            ".",
            "a/./b",
            "a\0b",
            "a\nb",
            "a\\b",
            &"x".repeat(256),
        ] {
            assert_eq!(check(bad).map_err(|e| e.kind()), Err(Kind::BadName), "{bad:?}");
        }
        check("default/index/a b/ü.txt").unwrap();
        for bad in ["default/log/a b/1", "default/.x/1", "é", "a:b"] {
            assert!(check_put(bad).is_err(), "{bad:?}");
        }
        check_put("default/log/yoga-1f3a9c20/00000000000000000007").unwrap();
    }

    #[test]
    fn only_keys_with_one_possible_content_are_put_again() {
        let k = Keys::new("team/default");
        let h = Hash::of(b"x");
        for yes in [k.chunk(&h), k.manifest(&h), k.batch("a-1", 1), k.snapshot("s"), k.lease("a-1"), k.condemned_by("a-1"), k.canary(1)] {
            assert!(may_retry_put(&yes), "{yes}");
        }
        for no in [k.store_json(), Keys::registry(), Keys::device("a-1"), Keys::revoked("a-1")] {
            assert!(!may_retry_put(&no), "{no}");
        }
    }

    #[test]
    fn batch_keys_come_back() {
        let k = Keys::new("/default/");
        assert_eq!(k.batch("yoga-1f3a9c20", 7), "default/log/yoga-1f3a9c20/00000000000000000007");
        assert_eq!(k.parse_batch(&k.batch("yoga-1f3a9c20", 7)), Some(("yoga-1f3a9c20".into(), 7)));
        assert_eq!(k.parse_batch("default/log/x/7"), None);
        assert_eq!(Keys::new("").store_json(), "store.json");
    }
}

//! Where each kind of object lies. Keys are hex, digits and device ids, never a user's file name.

use crate::model::Hash;

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
    fn batch_keys_come_back() {
        let k = Keys::new("/default/");
        assert_eq!(k.batch("yoga-1f3a9c20", 7), "default/log/yoga-1f3a9c20/00000000000000000007");
        assert_eq!(k.parse_batch(&k.batch("yoga-1f3a9c20", 7)), Some(("yoga-1f3a9c20".into(), 7)));
        assert_eq!(k.parse_batch("default/log/x/7"), None);
        assert_eq!(Keys::new("").store_json(), "store.json");
    }
}

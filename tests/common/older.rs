//! Buckets in the layout of older versions of tcfs, written as their format description says.

use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;

/// A bucket being made up: keys and bodies.
pub struct Older {
    /// Without slashes at its ends; may be empty.
    pub prefix: String,
    /// Everything in it.
    pub objects: BTreeMap<String, Vec<u8>>,
}

/// BLAKE3 as hex.
pub fn hash(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex().to_string()
}

impl Older {
    /// An empty one.
    pub fn new(prefix: &str) -> Older {
        Older { prefix: prefix.to_owned(), objects: BTreeMap::new() }
    }

    /// Puts an object below the prefix.
    pub fn put(&mut self, rest: &str, body: impl Into<Vec<u8>>) {
        let key = if self.prefix.is_empty() { rest.to_owned() } else { format!("{}/{rest}", self.prefix) };
        self.objects.insert(key, body.into());
    }

    /// Puts chunks; their hashes.
    pub fn chunks(&mut self, pieces: &[&[u8]]) -> Vec<String> {
        pieces.iter().map(|p| (self.put(&format!("chunks/{}", hash(p)), *p), hash(p)).1).collect()
    }

    /// The text index of a file.
    pub fn index_text(&mut self, path: &str, id: &str, size: usize, chunks: usize) {
        self.put(&format!("index/{path}"), format!("manifest_hash={id}\nsize={size}\nchunks={chunks}\n"));
    }

    /// An index of JSON.
    pub fn index_json(&mut self, path: &str, entry: &Value) {
        self.put(&format!("index/{path}"), entry.to_string());
    }

    /// A committed file as JSON of version 2.
    pub fn index_v2(&mut self, path: &str, id: &str, size: usize, chunks: usize) {
        let current = json!({ "manifest_hash": id, "size": size, "chunks": chunks });
        self.index_json(path, &json!({ "version": 2, "state": "committed", "current": current, "pending": null }));
    }

    /// A manifest of JSON, under the id that later writers gave; that id.
    pub fn manifest(&mut self, body: &Value) -> String {
        let body = serde_json::to_vec_pretty(body).unwrap();
        let id = hash(&[b"tcfs-sync-manifest-object-v1\0", &body[..]].concat());
        self.put(&format!("manifests/{id}"), body);
        id
    }

    /// A file with a text manifest and a text index, as the first writers made it.
    pub fn v1(&mut self, path: &str, pieces: &[&[u8]]) {
        let (chunks, whole) = (self.chunks(pieces), pieces.concat());
        let id = hash(&whole);
        self.put(&format!("manifests/{id}"), format!("{}\n\n", chunks.join("\n")));
        self.index_text(path, &id, whole.len(), pieces.len());
    }

    /// The manifest of a file, version 2.
    pub fn v2_manifest(&mut self, path: &str, pieces: &[&[u8]], mode: u32, mtime: (i64, u32)) -> Value {
        let (chunks, whole) = (self.chunks(pieces), pieces.concat());
        json!({
            "version": 2, "file_hash": hash(&whole), "file_size": whole.len(), "chunks": chunks,
            "vclock": { "clocks": { "7c9e6679-7425-40de-944b-e07fc1f90ae7": 3, "cli": 1 } },
            "written_by": "7c9e6679-7425-40de-944b-e07fc1f90ae7", "written_at": 1_700_000_000, "rel_path": path,
            "mode": 0o100_000 | mode, "mtime": [mtime.0, mtime.1],
        })
    }

    /// A file with a manifest and an index of version 2.
    pub fn v2(&mut self, path: &str, pieces: &[&[u8]], mode: u32, mtime: (i64, u32)) {
        let manifest = self.v2_manifest(path, pieces, mode, mtime);
        let id = self.manifest(&manifest);
        self.index_v2(path, &id, pieces.concat().len(), pieces.len());
    }

    /// A link, version 3.
    pub fn link(&mut self, path: &str, target: &str) {
        let id = hash(&[b"tcfs-symlink-v1\0", target.as_bytes()].concat());
        let manifest = json!({ "version": 3, "kind": "symlink", "symlink_target": target, "vclock": { "clocks": {} }, "written_by": "honey",
            "written_at": 0, "rel_path": path });
        self.put(&format!("manifests/{id}"), manifest.to_string());
        let current = json!({ "manifest_hash": id, "size": target.len(), "chunks": 0, "kind": "symlink", "symlink_target": target });
        self.index_json(path, &json!({ "version": 3, "state": "committed", "current": current, "pending": null }));
    }

    /// An empty directory.
    pub fn dir(&mut self, path: &str) {
        self.put(&format!("index/{path}/.tcfs_dir"), "type=directory\n");
    }

    /// A path that was deleted.
    pub fn deleted(&mut self, path: &str) {
        self.index_json(
            path,
            &json!({ "version": 4, "state": "deleted", "current": null, "pending": null, "deletion_evidence": { "by": "honey" } }),
        );
    }

    /// The registry, at the bucket root.
    pub fn registry(&mut self) {
        let device = |name: &str, revoked: bool| {
            json!({ "name": name, "device_id": format!("{}-0000-4000-8000-000000000000", &hash(name.as_bytes())[..8]), "public_key": "age1x",
                "signing_key_hash": "x", "description": "", "enrolled_at": 1_690_000_000, "revoked": revoked, "last_nats_seq": 7 })
        };
        let body = json!({ "devices": [device("honey", false), device("neo", true)], "registry_signature": "c2ln" });
        self.objects.insert("tcfs-meta/devices.json".into(), body.to_string().into());
    }

    /// Writes everything as plain files below a directory, as a copy of the bucket would have it.
    pub fn write_to(&self, dir: &Path) {
        for (key, body) in &self.objects {
            let path = dir.join(key);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, body).unwrap();
        }
    }

    /// Everything but the registry, which both layouts write, is there as it was.
    pub fn assert_untouched_in(&self, dir: &Path) {
        for (key, body) in self.objects.iter().filter(|(k, _)| !k.ends_with("devices.json")) {
            let now = std::fs::read(dir.join(key)).unwrap_or_else(|e| panic!("{key}: {e}"));
            assert!(now == *body, "{key} has changed");
        }
    }
}

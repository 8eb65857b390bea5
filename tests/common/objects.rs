//! A directory store seen from outside: which chunks come and go, and a writer of batches that plays another device.
//!
//! The records are written here as text, not through the program's own types: what they look like is the format.

use rustix::fs::inotify;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// The prefix below the store directory.
pub const PREFIX: &str = "default";

/// The chunk objects of a store, found by their key, however the store lays its directories out.
pub fn chunk_files(store: &Path) -> Vec<PathBuf> {
    below(store, "chunks")
}

/// All objects whose key has `part` as its second component.
pub fn below(store: &Path, part: &str) -> Vec<PathBuf> {
    super::mounted::walk_files(&store.join(PREFIX).join(part)).into_iter().filter(|p| !is_temporary(p)).collect()
}

fn is_temporary(p: &Path) -> bool {
    p.file_name().is_none_or(|n| n.to_string_lossy().starts_with('.') || n.to_string_lossy().contains("tmp"))
}

/// Counts which chunk objects are read from and put into a store while it lives: reads by watching the directories, puts by
/// comparing listings.
pub struct Watch {
    fd: OwnedFd,
    store: PathBuf,
    known: BTreeSet<String>,
}

impl Watch {
    /// Watches from now on.
    pub fn chunks(store: &Path) -> Watch {
        let fd = inotify::init(inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC).unwrap();
        let mut w = Watch { fd, store: store.to_owned(), known: BTreeSet::new() };
        w.add_directories();
        w.known = w.list();
        w
    }

    fn list(&self) -> BTreeSet<String> {
        chunk_files(&self.store).iter().map(|p| p.file_name().unwrap().to_string_lossy().into_owned()).collect()
    }

    fn add_directories(&self) {
        let mut todo = vec![self.store.join(PREFIX).join("chunks")];
        while let Some(d) = todo.pop() {
            // Watching a directory again changes nothing.
            inotify::add_watch(&self.fd, &d, inotify::WatchFlags::OPEN).unwrap_or_else(|e| panic!("watching {}: {e}", d.display()));
            todo.extend(std::fs::read_dir(d).unwrap().flatten().filter(|e| e.file_type().unwrap().is_dir()).map(|e| e.path()));
        }
    }

    fn opened(&self) -> BTreeSet<String> {
        let mut buf = [MaybeUninit::<u8>::uninit(); 65536];
        let mut reader = inotify::Reader::new(&self.fd, &mut buf);
        let mut names = BTreeSet::new();
        loop {
            let event = match reader.next() {
                Ok(e) => e,
                Err(rustix::io::Errno::AGAIN) => return names,
                Err(e) => panic!("reading inotify events: {e}"),
            };
            assert!(!event.events().contains(inotify::ReadFlags::QUEUE_OVERFLOW), "too many events between two looks");
            let name = event.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
            if name.len() == 64 && name.bytes().all(|b| b.is_ascii_hexdigit()) {
                names.insert(name);
            }
        }
    }

    /// (fetched, put): names of distinct chunks since the last call. A chunk just put is not also counted as fetched
    /// when its writer opens it again.
    pub fn take(&mut self) -> (BTreeSet<String>, BTreeSet<String>) {
        let read = self.opened();
        let now = self.list();
        let put: BTreeSet<String> = now.difference(&self.known).cloned().collect();
        let read = read.difference(&put).cloned().collect();
        self.known = now;
        self.add_directories();
        // Directories were listed, which opens no chunk; what came meanwhile counts next time.
        (read, put)
    }
}

/// Writes batches of records straight into a directory store, as a device of that id would.
pub struct Author {
    store: PathBuf,
    /// Device id.
    pub id: String,
    /// Device name.
    pub name: String,
    seq: u64,
}

impl Author {
    /// A device that is enrolled and has published nothing yet. The store must have been made by a mount before.
    pub fn new(store: &Path, name: &str) -> Author {
        let id = format!("{name}-00c0ffee");
        let author = Author { store: store.to_owned(), id, name: name.to_owned(), seq: 0 };
        // Enrolled, as every device is before it has a log: others look for new ones there.
        let public_key = format!("{}=", "A".repeat(43));
        let device = json!({ "id": author.id, "name": name, "public_key": public_key, "enrolled_at": 1_771_800_000 });
        author.put(&format!("tcfs-meta/devices/{}.json", author.id), device.to_string().as_bytes());
        author
    }

    /// Where an object lies: a name of 64 digits has a directory of its first two.
    fn path(&self, key: &str) -> PathBuf {
        match key.rsplit_once('/') {
            Some((dir, name)) if name.len() == 64 => self.store.join(dir).join(&name[..2]).join(name),
            _ => self.store.join(key),
        }
    }

    /// Puts an object.
    pub fn put(&self, key: &str, body: &[u8]) {
        let path = self.path(key);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let new = path.with_file_name(".new-from-test");
        std::fs::write(&new, body).unwrap();
        std::fs::rename(&new, &path).unwrap();
    }

    /// Removes an object.
    pub fn remove(&self, key: &str) {
        std::fs::remove_file(self.path(key)).unwrap();
    }

    /// Leaves numbers out of the log.
    pub fn skip(&mut self, numbers: u64) {
        self.seq += numbers;
    }

    /// Puts one chunk with these bytes and a manifest for `rel`; returns the `kind` of a file record.
    pub fn file(&self, rel: &str, bytes: &[u8]) -> Value {
        let chunk = blake3::hash(bytes);
        let chunks: Vec<(String, usize)> = if bytes.is_empty() { vec![] } else { vec![(chunk.to_hex().to_string(), bytes.len())] };
        if !bytes.is_empty() {
            self.put(&format!("{PREFIX}/chunks/{}", chunk.to_hex()), bytes);
        }
        let root = root_of(&chunks);
        let manifest = json!({
            "version": 2, "file_hash": chunk.to_hex().to_string(), "file_size": bytes.len(),
            "chunks": chunks.iter().map(|c| &c.0).collect::<Vec<_>>(), "vclock": { "clocks": { &self.id: 1 } },
            "written_by": self.id, "written_at": 1_771_800_000, "rel_path": rel, "mode": 0o100644, "mtime": [1_771_799_990, 0],
            "chunk_sizes": chunks.iter().map(|c| c.1).collect::<Vec<_>>(), "root": root, "base": null,
        });
        let id = self.manifest(&manifest.to_string());
        json!({ "file": { "manifest": id, "size": bytes.len(), "root": root, "chunks": chunks, "hash": chunk.to_hex().to_string() } })
    }

    /// Puts a manifest body as it is and returns its id.
    pub fn manifest(&self, body: &str) -> String {
        let id = blake3::hash(body.as_bytes()).to_hex().to_string();
        self.put(&format!("{PREFIX}/manifests/{id}"), body.as_bytes());
        id
    }

    /// The record of a first version of `path`.
    pub fn record(&self, path: &str, kind: Value) -> Value {
        let dir = kind == json!("dir");
        json!({
            "v": 1, "path": path, "actor": self.id, "vclock": { "clocks": { &self.id: 1 } }, "wrote": { "clocks": { &self.id: 1 } },
            "place": null, "device_name": self.name, "device_id": self.id, "written_at": 1_771_800_000_000_u64, "kind": kind,
            "mode": if dir { 0o040755 } else { 0o100644 }, "mtime": [1_771_799_990, 123_456_789], "xattrs": {}, "base": null,
            "moved_to": null, "healed_from": [],
        })
    }

    /// Appends a batch of these lines to the device's log.
    pub fn batch<L: AsRef<str>>(&mut self, lines: impl IntoIterator<Item = L>) {
        let mut text = String::new();
        for l in lines {
            text += l.as_ref();
            text.push('\n');
        }
        self.raw_batch(&zstd::encode_all(text.as_bytes(), 1).unwrap());
    }

    /// Appends a batch object with exactly this body.
    pub fn raw_batch(&mut self, body: &[u8]) {
        self.seq += 1;
        self.put(&format!("{PREFIX}/log/{}/{:020}", self.id, self.seq), body);
    }
}

/// Hash over a chunk list: BLAKE3 of `tcfs-root-v1`, then length (u64 LE) and raw hash of each chunk.
pub fn root_of(chunks: &[(String, usize)]) -> String {
    let mut h = blake3::Hasher::new();
    h.update(b"tcfs-root-v1");
    for (hash, len) in chunks {
        h.update(&(*len as u64).to_le_bytes());
        h.update(blake3::Hash::from_hex(hash).unwrap().as_bytes());
    }
    h.finalize().to_hex().to_string()
}

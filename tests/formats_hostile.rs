//! Every reader of bytes that somebody else may have written, or a disk may have damaged: on arbitrary bytes, and on good
//! bytes with some of them changed, cut off, doubled or put elsewhere. Each ends in a value or an error, never in a panic,
//! and what is accepted keeps the promises that the rest of the program builds on.

#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::path::Path;
use tcfs::ErrorKind;
use tcfs::clock::ManualClock;
use tcfs::content::codec;
use tcfs::daemon::config::{Config, Sources};
use tcfs::daemon::paths::Platform;
use tcfs::fleet::identity::check_name;
use tcfs::fleet::{Identity, Registry};
use tcfs::model::manifest::Manifest;
use tcfs::model::old_index::{OldEntry, OldManifest};
use tcfs::model::record::{self, Line};
use tcfs::model::snapshot;
use tcfs::model::{Entry, Hash, Version};
use tcfs::state::journal::Journal;
use tcfs::state::rows::{Batch, Inode, Local, Sealed, Slot};
use tcfs::state::{Db, Tree};
use tcfs::store::keys::Keys;
use tcfs::store::memory::MemoryStore;
use tcfs::store::{PutMode, Store, identity as store_identity};

fn golden(name: &str) -> Vec<u8> {
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)).unwrap()
}

/// One change of some bytes.
#[derive(Clone, Debug)]
enum Damage {
    Set(prop::sample::Index, u8),
    Cut(prop::sample::Index),
    Insert(prop::sample::Index, Vec<u8>),
    Remove(prop::sample::Index, usize),
    Double(prop::sample::Index, usize),
}

fn damage() -> impl Strategy<Value = Vec<Damage>> {
    let at = any::<prop::sample::Index>;
    // Numbers at their ends, paths and endings are what hostile text is made of.
    let text = prop::sample::select(vec![
        "18446744073709551615",
        "-1",
        "1e999",
        "../../",
        "/",
        "\0",
        "\u{202e}",
        "null",
        "[[[[[[[[",
        "{\"",
        "}",
        "\"",
        "\n",
        "\\ud800",
        "0x",
    ]);
    let inserted = prop_oneof![text.prop_map(|t| t.as_bytes().to_vec()), prop::collection::vec(any::<u8>(), 1..20)];
    prop::collection::vec(
        prop_oneof![
            4 => (at(), any::<u8>()).prop_map(|(i, b)| Damage::Set(i, b)),
            1 => at().prop_map(Damage::Cut),
            2 => (at(), inserted).prop_map(|(i, b)| Damage::Insert(i, b)),
            1 => (at(), 1..50usize).prop_map(|(i, n)| Damage::Remove(i, n)),
            1 => (at(), 1..50usize).prop_map(|(i, n)| Damage::Double(i, n)),
        ],
        1..5,
    )
}

fn damaged(mut b: Vec<u8>, all: &[Damage]) -> Vec<u8> {
    for d in all {
        let len = b.len();
        if len == 0 {
            return b;
        }
        match d {
            Damage::Set(i, x) => b[i.index(len)] = *x,
            Damage::Cut(i) => b.truncate(i.index(len)),
            Damage::Insert(i, x) => {
                b.splice(i.index(len)..i.index(len), x.iter().copied());
            }
            Damage::Remove(i, n) => {
                b.drain(i.index(len)..(i.index(len) + n).min(len));
            }
            Damage::Double(i, n) => {
                let part = b[i.index(len)..(i.index(len) + n).min(len)].to_vec();
                b.splice(i.index(len)..i.index(len), part);
            }
        }
    }
    b
}

/// Some bytes: anything, or a good body with damage.
fn body(good: &'static [&'static str]) -> impl Strategy<Value = Vec<u8>> {
    let near = (prop::sample::select(good.to_vec()), damage()).prop_map(|(name, d)| damaged(golden(name), &d));
    prop_oneof![1 => prop::collection::vec(any::<u8>(), 0..300), 4 => near]
}

/// What the rest of the program takes for granted of a version that a reader let through.
fn check_version(v: &Version) {
    let path = v.path.as_str();
    assert!(
        !path.starts_with('/') && !path.split('/').any(|c| matches!(c, "" | "." | "..") || c.len() > 255 || c.contains('\0')),
        "{path:?}"
    );
    assert!(record::check(v).is_ok());
    if let Some(c) = v.file() {
        let sum = c.chunks.as_ref().map(|l| l.iter().map(|c| u64::from(c.1)).sum::<u64>());
        assert!(sum.is_none_or(|s| s == c.size) && !c.manifest.is_zero());
    }
    assert!(v.vclock.iter().all(|(_, n)| n > 0 && n < u64::MAX));
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

fn sources() -> Sources {
    let env = [("HOME", "/home/ann")].map(|(k, v)| (k.to_owned(), v.to_owned()));
    Sources {
        platform: Platform::Linux,
        env: env.into_iter().collect(),
        cwd: "/".into(),
        host: "ann".into(),
        config_file: None,
        flags: vec![],
    }
}

const CONFIG: &str = r#"
store = "s3://tcfs/default"
device_name = "ann"
conflict_mode = "interactive"
exclude_patterns = ["*.swp", "target"]
poll_interval = "5s"
[s3]
endpoint = "http://127.0.0.1:9000"
allow_http = true
[cache]
max_bytes = "10GiB"
"#;

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn manifest(bytes in body(&["manifest-v2.json", "manifest-v2-unhashed.json", "manifest-v1.txt"])) {
        if let Ok(Manifest::V2(m)) = Manifest::parse(&bytes) {
            if let Some(list) = m.chunk_refs() {
                prop_assert_eq!(list.iter().map(|c| u64::from(c.1)).sum::<u64>(), m.file_size);
            }
            prop_assert!(m.file_size == 0 || !m.chunks.is_empty());
        }
        // What begins as JSON is never taken for the older text.
        if bytes.iter().find(|b| !b.is_ascii_whitespace()) == Some(&b'{') {
            prop_assert!(!matches!(Manifest::parse(&bytes), Ok(Manifest::V1(_))));
        }
    }

    #[test]
    fn records(bytes in body(&["batch.jsonl"])) {
        for line in record::decode(&bytes) {
            if let Line::Version(v) = line {
                check_version(&v);
                prop_assert!(record::encode([&*v]).is_ok());
            }
        }
    }

    #[test]
    fn batches(bytes in prop::collection::vec(any::<u8>(), 0..300), d in damage()) {
        const CAP: usize = 1 << 16;
        for b in [bytes, damaged(codec::encode_lines(&golden("batch.jsonl")).unwrap().to_vec(), &d)] {
            if let Ok(lines) = codec::decode_lines("a batch", &b, CAP) {
                prop_assert!(lines.len() <= CAP);
                for line in record::decode(&lines) {
                    if let Line::Version(v) = line {
                        check_version(&v);
                    }
                }
            }
        }
    }

    #[test]
    fn snapshots(bytes in body(&["snapshot.jsonl"]), d in damage()) {
        for (n, line) in bytes.split(|b| *b == b'\n').enumerate() {
            if let Ok(h) = snapshot::Header::parse(line) {
                prop_assert!(h.snapshot == snapshot::FORMAT && h.cursors.keys().all(|id| !id.contains('/') && !id.contains('.')));
            }
            match snapshot::Line::parse(n + 1, line) {
                Ok(snapshot::Line::Head(v)) => {
                    check_version(&v);
                    prop_assert!(!v.path.is_root());
                }
                Ok(snapshot::Line::Past(v)) => check_version(&v),
                Ok(snapshot::Line::Unknown(text)) => prop_assert_eq!(text.as_bytes(), line),
                Ok(l) => prop_assert!(l.encode().is_ok()),
                Err(e) => prop_assert_eq!(e.kind(), ErrorKind::Corrupt),
            }
        }
        let whole = golden("snapshot.jsonl");
        let mut w = codec::LinesWriter::new().unwrap();
        w.write(&whole).unwrap();
        let body = damaged(w.finish().unwrap().to_vec(), &d);
        let Ok(mut reader) = codec::LinesReader::new("a snapshot", &body, snapshot::LINE_MAX, 1 << 20) else { return Ok(()) };
        let (mut line, mut read) = (Vec::new(), Vec::new());
        loop {
            match reader.read(&mut line) {
                Ok(true) => read.extend_from_slice(&line),
                // The checksum of the frame is behind the last line.
                Ok(false) => {
                    prop_assert!(read == whole || read.is_empty());
                    break;
                }
                Err(_) => break,
            }
        }
    }

    #[test]
    fn chunks(content in prop::collection::vec(0u8..4, 0..5000), d in damage(), claimed: Option<u32>) {
        let key = Hash::of(&content);
        let good = codec::encode(Bytes::from(content.clone()));
        prop_assert_eq!(&codec::decode(&key, Some(content.len() as u32), good.clone()).unwrap()[..], &content[..]);
        for expected in [None, Some(content.len() as u32), claimed] {
            // Whatever was done to the body, either it is still the chunk or there is an error.
            if let Ok(got) = codec::decode(&key, expected, damaged(good.to_vec(), &d).into()) {
                prop_assert_eq!(&got[..], &content[..]);
            }
        }
    }

    #[test]
    fn older_layout(bytes in body(&[
        "old/index.txt", "old/index-v2.json", "old/tcfs_dir.txt", "old/index-v3-symlink.json", "old/index-v4-deleted.json",
        "old/index-preparing.json", "old/manifest-v2.json", "old/manifest-v2-encrypted.json", "old/manifest-v3-wrapped.json",
        "old/manifest-v3-symlink.json",
    ])) {
        if let Ok(OldEntry::File { manifest, .. }) = OldEntry::parse(&bytes) {
            prop_assert!(!manifest.is_empty() && !manifest.contains('/'), "{}", manifest);
        }
        let _ = OldManifest::parse(&bytes);
    }

    #[test]
    fn identity_file(bytes in prop::collection::vec(any::<u8>(), 0..200), d in damage()) {
        let me = Identity::create("ann", &*ManualClock::new(0, 1)).unwrap();
        for b in [bytes, damaged(me.to_json().unwrap().into_bytes(), &d)] {
            if let Ok(text) = std::str::from_utf8(&b) {
                match Identity::from_json(text, "the identity") {
                    Ok(i) => prop_assert!(check_name(&i.name).is_ok() && !i.id.contains('/') && !i.id.is_empty()),
                    Err(e) => prop_assert!(matches!(e.kind(), ErrorKind::Corrupt | ErrorKind::Unsupported)),
                }
            }
        }
    }

    #[test]
    fn identity_of_a_store(bytes in prop::collection::vec(any::<u8>(), 0..200), d in damage()) {
        runtime().block_on(async {
            let (store, keys) = (MemoryStore::new(), Keys::new("default"));
            let made = store_identity::ensure(&*store, &keys, &*ManualClock::new(0, 1)).await.unwrap();
            let good = store.get(&keys.store_json()).await.unwrap().to_vec();
            for b in [bytes, damaged(good, &d)] {
                store.put(&keys.store_json(), b.into(), PutMode::Overwrite).await.unwrap();
                // A state opens on its own store or not at all.
                if let Ok(found) = store_identity::expect(&*store, &keys, &made.id).await {
                    assert_eq!(found.id, made.id);
                }
            }
        });
    }

    #[test]
    fn registry(bytes in prop::collection::vec(any::<u8>(), 0..200), d in damage(), n in 0usize..3) {
        runtime().block_on(async {
            let store = MemoryStore::new();
            let registry = Registry::new(store.clone());
            let clock = ManualClock::new(0, 1);
            let honest = registry.enroll("honest", false, &|_| 0, &*clock).await.unwrap().identity;
            let other = registry.enroll("other", false, &|_| 0, &*clock).await.unwrap().identity;
            let key = format!("tcfs-meta/devices/{}.json", other.id);
            let good = store.get(&key).await.unwrap().to_vec();
            let key = [key, format!("tcfs-meta/devices/{}.revoked", other.id), "tcfs-meta/devices.json".into()][n].clone();
            for b in [bytes, damaged(good, &d)] {
                store.put(&key, b.into(), PutMode::Overwrite).await.unwrap();
                let listing = registry.list().await.unwrap();
                // Whatever became of the other one.
                assert!(listing.devices.iter().any(|l| l.record.id == honest.id && l.revoked.is_none()), "{listing:?}");
                for l in &listing.devices {
                    assert!(check_name(&l.record.name).is_ok() && !l.record.id.contains(['/', '.']), "{l:?}");
                }
                let later = registry.enroll("later", true, &|_| 0, &*clock).await.unwrap().identity;
                assert_ne!(later.id, honest.id);
            }
        });
    }

    #[test]
    fn config_file(bytes in prop::collection::vec(any::<u8>(), 0..200), d in damage()) {
        for b in [bytes, damaged(CONFIG.as_bytes().to_vec(), &d)] {
            if let Ok(text) = std::str::from_utf8(&b)
                && let Err(e) = Config::from_text(&sources(), Some("/home/ann/config.toml".into()), Some(text))
            {
                prop_assert!(!e.to_string().is_empty());
            }
        }
    }

    #[test]
    fn rows_of_the_database(bytes in prop::collection::vec(any::<u8>(), 0..300), d in damage()) {
        for b in [bytes, damaged(golden("entry.postcard"), &d)] {
            let _ = postcard::from_bytes::<Entry>(&b);
            let _ = postcard::from_bytes::<Slot>(&b);
            let _ = postcard::from_bytes::<Inode>(&b);
            let _ = postcard::from_bytes::<Local>(&b);
            let _ = postcard::from_bytes::<Sealed>(&b);
            let _ = postcard::from_bytes::<Batch>(&b);
        }
    }
}

proptest! {
    // Each of these opens files.
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    /// A journal gives back the records it was given, in order, up to a damaged one; never another.
    #[test]
    fn journal(d in damage(), noise in prop::collection::vec(any::<u8>(), 0..100), lens in prop::collection::vec(0usize..60, 1..6)) {
        let records: Vec<Vec<u8>> = lens.iter().enumerate().map(|(i, n)| vec![i as u8 + 1; *n]).collect();
        for whole in [true, false] {
            let dir = tempfile::tempdir().unwrap();
            let mut j = Journal::open(dir.path(), 0, |_, _| Ok(())).unwrap();
            for r in &records {
                j.append(&[r]).unwrap();
            }
            drop(j);
            let segment = dir.path().join(format!("{:020}", 1));
            let bytes = if whole { noise.clone() } else { damaged(std::fs::read(&segment).unwrap(), &d) };
            std::fs::write(&segment, bytes).unwrap();
            let mut got = Vec::new();
            let opened = Journal::open(dir.path(), 0, |lsn, p| { got.push((lsn, p.to_vec())); Ok(()) });
            for (i, (lsn, p)) in got.iter().enumerate() {
                prop_assert_eq!((*lsn, p), (i as u64 + 1, &records[i]));
            }
            // What was kept can be gone on from.
            if let Ok(mut j) = opened {
                let lsn = j.append(&[b"more"]).unwrap();
                drop(j);
                let mut last = 0;
                Journal::open(dir.path(), 0, |l, _| { last = l; Ok(()) }).unwrap();
                prop_assert_eq!(last, lsn);
            }
        }
    }

    /// The whole local database with a damaged journal: it opens on a state it was in, or says what is wrong.
    #[test]
    fn database_with_a_damaged_journal(d in damage()) {
        let dir = tempfile::tempdir().unwrap();
        let db = Db::open(dir.path()).unwrap();
        for i in 1..=5u64 {
            db.write(|t| { t.put(Tree::Pin, "count", &i)?; t.put(Tree::Orphan, i, &()) }).unwrap();
        }
        drop(db);
        for e in std::fs::read_dir(dir.path().join("journal")).unwrap() {
            let p = e.unwrap().path();
            std::fs::write(&p, damaged(std::fs::read(&p).unwrap(), &d)).unwrap();
        }
        match Db::open(dir.path()) {
            Ok(db) => {
                let count: Option<u64> = db.read(|r| r.get(Tree::Pin, "count")).unwrap();
                let rows: Vec<(u64, ())> = db.read(|r| r.scan_int(Tree::Orphan, 0, u64::MAX, 100)).unwrap();
                prop_assert_eq!(rows.len() as u64, count.unwrap_or(0), "a part of a transaction");
            }
            Err(e) => prop_assert!(matches!(e.kind(), ErrorKind::Corrupt), "{}", e),
        }
    }
}

#[test]
fn sources_of_this_test_load() {
    let c = Config::from_text(&sources(), Some("/home/ann/config.toml".into()), Some(CONFIG)).unwrap();
    assert_eq!(c.device_name.0, "ann");
    let _: BTreeMap<String, String> = sources().env.into_iter().collect();
}

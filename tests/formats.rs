//! Golden files of every format in `tests/golden/`: what is written stays byte for byte what it was, and what earlier
//! programs wrote is still read. `BLESS=1 cargo test --test formats` rewrites those that this program writes; a
//! difference there is a new format and needs a new version number.

#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use std::collections::BTreeMap;
use std::path::PathBuf;
use tcfs::ErrorKind;
use tcfs::content::codec;
use tcfs::model::gc;
use tcfs::model::lease::Lease;
use tcfs::model::manifest::{About, Manifest, SyncManifest, root_of};
use tcfs::model::old_index::{OldEntry, OldManifest};
use tcfs::model::record::{self, Line};
use tcfs::model::snapshot;
use tcfs::model::{ChunkRef, Entry, FileContent, Hash, Kind, Place, RelPath, VClock, Version};

fn path_of(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

fn read(name: &str) -> Vec<u8> {
    std::fs::read(path_of(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
}

/// Compares with (or, blessed, writes) a golden file.
fn golden(name: &str, bytes: &[u8]) {
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(path_of(name), bytes).unwrap();
    }
    assert_eq!(String::from_utf8_lossy(bytes), String::from_utf8_lossy(&read(name)), "{name}");
    assert_eq!(bytes, read(name), "{name}");
}

fn clock(pairs: &[(&str, u64)]) -> VClock {
    pairs.iter().map(|(a, n)| (*a, *n)).collect()
}

fn chunks() -> Vec<ChunkRef> {
    vec![ChunkRef(Hash::of(b"hello"), 5), ChunkRef(Hash::of(b", world"), 7)]
}

fn manifest() -> SyncManifest {
    let about = About {
        vclock: clock(&[("yoga-1f3a9c20", 3)]),
        written_by: "yoga-1f3a9c20".into(),
        written_at: 1_771_800_000,
        mode: 0o100_644,
        mtime: (1_771_799_990, 123_456_789),
        base: None,
    };
    SyncManifest::new(&RelPath::parse("notes/plan.md").unwrap(), &chunks(), Some(Hash::of(b"hello, world")), about)
}

/// One version of each kind, with every field in use somewhere.
fn versions() -> Vec<Version> {
    let (id, body) = manifest().encode().unwrap();
    assert_eq!(id, Hash::of(&body));
    let content = manifest().content(id).unwrap();
    let file = Version {
        v: 1,
        path: RelPath::parse("notes/plan.md").unwrap(),
        actor: "yoga-1f3a9c20.2".into(),
        vclock: clock(&[("honey-00000001", 7), ("yoga-1f3a9c20", 3), ("yoga-1f3a9c20.2", 1)]),
        wrote: clock(&[("honey-00000001", 7), ("yoga-1f3a9c20", 3), ("yoga-1f3a9c20.2", 1)]),
        place: Some(Place { name: "honey".into(), id: "honey-00000001".into() }),
        device_name: "yoga".into(),
        device_id: "yoga-1f3a9c20".into(),
        written_at: 1_771_800_000_123,
        kind: Kind::File(content.clone()),
        mode: 0o100_644,
        mtime: (1_771_799_990, 123_456_789),
        xattrs: BTreeMap::from([("user.colour".into(), "cmVk".into())]),
        base: Some(root_of(&[])),
        moved_to: None,
        healed_from: vec![RelPath::parse("old/plan.md").unwrap()],
    };
    let other = |path: &str, kind: Kind| Version {
        path: RelPath::parse(path).unwrap(),
        actor: "yoga-1f3a9c20".into(),
        vclock: clock(&[("yoga-1f3a9c20", 1)]),
        wrote: clock(&[("yoga-1f3a9c20", 1)]),
        place: None,
        mode: kind.type_bits() | 0o755,
        kind,
        xattrs: BTreeMap::new(),
        base: None,
        healed_from: vec![],
        ..file.clone()
    };
    let tombstone = Version {
        vclock: clock(&[("yoga-1f3a9c20", 2)]),
        moved_to: Some(RelPath::parse("notes/plan.md").unwrap()),
        mode: 0,
        mtime: (0, 0),
        base: Some(content.root),
        ..other("old/plan.md", Kind::Tombstone)
    };
    let big = FileContent { chunks: None, hash: None, ..content.clone() };
    vec![
        file.clone(),
        tombstone,
        other("notes", Kind::Dir),
        other("bin/\u{e9}", Kind::Symlink { target: "../lib/x".into() }),
        other("repo/.git", Kind::Bundle { content: big.clone(), meta: BTreeMap::from([("head".into(), "refs/heads/main".into())]) }),
        other("big.iso", Kind::File(big)),
    ]
}

#[test]
fn manifest_v2_is_written_as_it_always_was() {
    let (id, body) = manifest().encode().unwrap();
    golden("manifest-v2.json", &body);
    assert_eq!(id, Hash::of(&read("manifest-v2.json")));
    let Manifest::V2(m) = Manifest::parse(&body).unwrap() else { panic!("not v2") };
    assert_eq!(*m, manifest());
    assert_eq!(m.chunk_refs().unwrap(), chunks());
}

#[test]
fn manifest_v2_of_a_file_never_held_whole_says_so() {
    let m = SyncManifest { file_hash: None, base: Some(root_of(&[])), ..manifest() };
    let (_, body) = m.encode().unwrap();
    golden("manifest-v2-unhashed.json", &body);
    assert_eq!(Manifest::parse(&body).unwrap(), Manifest::V2(Box::new(m)));
}

#[test]
fn unknown_fields_of_a_manifest_are_ignored() {
    let text = String::from_utf8(manifest().encode().unwrap().1).unwrap();
    let more = text.replacen("{", "{\"colour\":{\"a\":[1]},", 1);
    assert_eq!(Manifest::parse(more.as_bytes()).unwrap(), Manifest::V2(Box::new(manifest())));
}

#[test]
fn root_is_what_the_document_says() {
    let mut h = blake3::Hasher::new();
    h.update(b"tcfs-root-v1");
    for ChunkRef(hash, len) in chunks() {
        h.update(&u64::from(len).to_le_bytes());
        h.update(&hash.0);
    }
    assert_eq!(root_of(&chunks()).0, *h.finalize().as_bytes());
    assert_eq!(root_of(&[]), Hash::of(b"tcfs-root-v1"));
}

#[test]
fn manifest_v1_is_read() {
    let m = Manifest::parse(&read("manifest-v1.txt")).unwrap();
    assert_eq!(m.chunks().len(), 2);
    assert_eq!(m.chunks()[0], Hash::of(b"hello"));
    assert!(matches!(m, Manifest::V1(_)));
    let e = Manifest::parse(b"\nabc\n").unwrap_err();
    assert!(e.kind() == ErrorKind::Corrupt && e.to_string().contains("line 2"), "{e}");
}

#[test]
fn records_are_written_as_they_always_were() {
    let body = record::encode(&versions()).unwrap();
    golden("batch.jsonl", &body);
    let read: Vec<Version> = record::decode(&body)
        .into_iter()
        .map(|l| match l {
            Line::Version(v) => *v,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(read, versions());
}

/// Rows of the local database: fields have no names there, so adding one in the middle would misread old rows.
#[test]
fn entries_in_the_database_are_written_as_they_always_were() {
    let entry = Entry { heads: versions() };
    let row = postcard::to_stdvec(&entry).unwrap();
    golden("entry.postcard", &row);
    assert_eq!(postcard::from_bytes::<Entry>(&row).unwrap(), entry);
}

#[test]
fn one_damaged_record_spoils_no_other() {
    let body = record::encode(&versions()).unwrap();
    let mut lines: Vec<Vec<u8>> = body.split(|b| *b == b'\n').map(<[u8]>::to_vec).collect();
    lines[1].truncate(40);
    lines[3] = b"\xff\xfe".to_vec();
    let read = record::decode(&lines.join(&b'\n'));
    let damaged: Vec<usize> = read.iter().enumerate().filter(|(_, l)| matches!(l, Line::Damaged(_))).map(|(i, _)| i).collect();
    assert_eq!((read.len(), damaged), (6, vec![1, 3]));
    let Line::Damaged(e) = &read[1] else { unreachable!() };
    assert!(e.to_string().starts_with("reading record 2 of a batch: "), "{e}");
}

#[test]
fn leases_and_condemned_objects_are_written_as_they_always_were() {
    let who = || "yoga-1f3a9c20".to_owned();
    let edition = gc::Edition { series: 0xfedc_ba98_7654_3210, number: 2 };
    let lease = Lease {
        lease: 1,
        device_id: who(),
        at: 1_771_800_000_123,
        cursors: [("honey-00000001".to_owned(), 3), (who(), 9)].into(),
        lists: [("honey-00000001".to_owned(), edition)].into(),
        manifests: [Hash::of(b"manifest")].into(),
        chunks: [Hash::of(b"chunk"), Hash::of(b"another")].into(),
        everything: false,
    };
    let body = lease.encode().unwrap();
    golden("lease.json", &body);
    assert_eq!(Lease::parse(&who(), &body).unwrap(), lease);
    let header =
        gc::Header { condemned: 1, device_id: who(), at: 1_771_800_000_123, edition, since: [("honey-00000001".to_owned(), 3)].into() };
    let objects = vec![
        gc::Condemned(gc::Sort::Chunk, Hash::of(b"chunk"), 1, 1_771_700_000),
        gc::Condemned(gc::Sort::Manifest, Hash::of(b"manifest"), 2, 0),
        gc::Condemned(gc::Sort::Snapshot, Hash::of(b"snapshot"), 2, 0),
    ];
    let list = gc::List { header, objects };
    let lines = list.encode().unwrap();
    golden("condemned.jsonl", &lines);
    assert_eq!(gc::List::parse(&who(), &lines).unwrap(), list);
}

#[test]
fn snapshots_are_written_as_they_always_were() {
    let header = snapshot::Header {
        snapshot: 1,
        device_id: "yoga-1f3a9c20".into(),
        written_at: 1_771_800_000_123,
        cursors: BTreeMap::from([("honey-00000001".into(), 7), ("yoga-1f3a9c20".into(), 12)]),
    };
    let parked = snapshot::Parked { device: "honey-00000001".into(), seq: 3, line: 1, text: "{\"v\":2,\"é\":\"\\\"\"}".into() };
    let mut lines = vec![header.encode().unwrap()];
    lines.extend(versions().into_iter().map(|v| snapshot::Line::Head(Box::new(v)).encode().unwrap()));
    lines.push(snapshot::Line::Parked(parked.clone()).encode().unwrap());
    lines.push(snapshot::Line::Past(Box::new(versions().remove(0))).encode().unwrap());
    let mut tally = snapshot::Tally::default();
    lines.iter().for_each(|l| tally.add(l));
    assert_eq!(tally.end(), snapshot::End { lines: lines.len() as u64, hash: Hash::of(&lines.concat()) });
    lines.push(snapshot::Line::End(tally.end()).encode().unwrap());
    golden("snapshot.jsonl", &lines.concat());
    let body = read("snapshot.jsonl");
    let read: Vec<&[u8]> = body.split(|b| *b == b'\n').collect();
    assert_eq!(snapshot::Header::parse(read[0]).unwrap(), header);
    let heads: Vec<Version> = (1..7)
        .map(|i| match snapshot::Line::parse(i, read[i]).unwrap() {
            snapshot::Line::Head(v) => *v,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(heads, versions());
    assert!(matches!(snapshot::Line::parse(7, read[7]).unwrap(), snapshot::Line::Parked(p) if p == parked));
    assert!(matches!(snapshot::Line::parse(8, read[8]).unwrap(), snapshot::Line::Past(v) if *v == versions()[0]));
    assert!(matches!(snapshot::Line::parse(9, read[9]).unwrap(), snapshot::Line::End(e) if e == tally.end()));
    // The compressed form may change with the library; what it holds may not.
    let mut w = codec::LinesWriter::new().unwrap();
    w.write(&body).unwrap();
    assert!(codec::decode_lines("snapshot", &w.finish().unwrap(), 1 << 20).unwrap() == body);
}

fn changed(f: impl Fn(&mut serde_json::Value)) -> Line {
    let mut record = serde_json::to_value(&versions()[0]).unwrap();
    f(&mut record);
    record::decode(record.to_string().as_bytes()).remove(0)
}

#[test]
fn records_of_a_later_tcfs_are_parked_as_they_stand() {
    for f in [
        (|r: &mut serde_json::Value| r["v"] = 2.into()) as fn(&mut serde_json::Value),
        |r| r["kind"] = serde_json::json!({"hologram": {"depth": 3}}),
        |r| r["kind"] = "door".into(),
        |r| *r = serde_json::json!({"v": 3, "what": "ever"}),
    ] {
        let line = changed(f);
        let Line::Parked(raw) = &line else { panic!("{line:?}") };
        assert!(matches!(record::decode(raw.as_bytes()).as_slice(), [Line::Parked(again)] if again == raw));
    }
    // What this format has, but broken, is not the future.
    assert!(matches!(changed(|r| r["kind"] = serde_json::json!({"file": {}})), Line::Damaged(_)));
    assert!(matches!(changed(|r| r["v"] = 0.into()), Line::Damaged(_)));
}

#[test]
fn a_delete_under_the_brake_reads_as_it_is_written() {
    let was = serde_json::to_value(&versions()[0]).unwrap()["kind"].clone();
    let held = |was: serde_json::Value, now: serde_json::Value| {
        changed(move |r| r["kind"] = serde_json::json!({"held_back": {"was": was, "now": now}}))
    };
    let Line::Version(v) = held(was.clone(), "tombstone".into()) else { panic!("not read") };
    let line = String::from_utf8(record::encode([&*v]).unwrap()).unwrap();
    assert!(line.contains(r#""kind":{"held_back":{"was":{"file":{"manifest":"#) && line.contains(r#""now":"tombstone"}"#), "{line}");
    assert!(matches!(record::decode(line.as_bytes()).as_slice(), [Line::Version(again)] if *again == v));
    assert!(v.is_held_back() && !v.is_tombstone() && v.file() == versions()[0].file());
    // Nothing else can be held back, and what lies inside is checked as any content is.
    let mut lies = was.clone();
    lies["file"]["size"] = 13.into();
    for (was, now) in [
        (was.clone(), was.clone()),
        (was.clone(), "dir".into()),
        ("tombstone".into(), "tombstone".into()),
        (serde_json::json!({"held_back": {"was": "dir", "now": "tombstone"}}), "tombstone".into()),
        (lies, "tombstone".into()),
    ] {
        let text = format!("{was} {now}");
        assert!(matches!(held(was, now), Line::Damaged(_)), "{text}");
    }
}

#[test]
fn unknown_fields_of_a_record_are_ignored() {
    assert!(matches!(changed(|r| r["colour"] = "red".into()), Line::Version(v) if *v == versions()[0]));
}

#[test]
fn records_that_say_impossible_things_are_refused() {
    type Change = fn(&mut serde_json::Value);
    let cases: Vec<(&str, Change)> = vec![
        ("absolute path", |r| r["path"] = "/etc/passwd".into()),
        ("path upwards", |r| r["path"] = "a/../../b".into()),
        ("long name", |r| r["path"] = "x".repeat(256).into()),
        ("root as a file", |r| r["path"] = "".into()),
        ("counter near the end", |r| r["vclock"]["clocks"]["honey-00000001"] = u64::MAX.into()),
        ("counter zero", |r| r["vclock"]["clocks"]["bob-1"] = 0.into()),
        ("counter beyond u64", |r| r["vclock"]["clocks"]["bob-1"] = serde_json::json!(1e30)),
        ("own actor not counted", |r| r["vclock"]["clocks"] = serde_json::json!({"honey-00000001": 7})),
        ("actor of another", |r| r["actor"] = "honey-00000001".into()),
        ("first actor with a number", |r| r["vclock"]["clocks"]["yoga-1f3a9c20.1"] = 1.into()),
        ("actor with a strange number", |r| r["vclock"]["clocks"]["yoga-1f3a9c20.02"] = 1.into()),
        ("bytes of an unseen version", |r| r["wrote"]["clocks"]["honey-00000001"] = 8.into()),
        ("device name with a slash", |r| r["device_name"] = "a/b".into()),
        ("device name with capitals", |r| r["device_name"] = "Yoga".into()),
        ("place with a dot", |r| r["place"]["name"] = "..".into()),
        ("a file that moved", |r| r["moved_to"] = "x".into()),
        ("sizes that do not add up", |r| r["kind"]["file"]["size"] = 13.into()),
        ("sizes that overflow", |r| r["kind"]["file"]["chunks"][0][1] = u64::MAX.into()),
        ("a chunk of nothing", |r| r["kind"]["file"]["chunks"][0][1] = 0.into()),
        ("another root", |r| r["kind"]["file"]["root"] = Hash::of(b"x").to_hex().into()),
        ("no manifest", |r| r["kind"]["file"]["manifest"] = Hash::ZERO.to_hex().into()),
        ("capital hex", |r| r["kind"]["file"]["manifest"] = Hash::of(b"x").to_hex().to_uppercase().into()),
        ("nanoseconds", |r| r["mtime"] = serde_json::json!([1, 1_000_000_000])),
        ("mode", |r| r["mode"] = 0x10000.into()),
        ("attribute of the system", |r| r["xattrs"] = serde_json::json!({"security.capability": "AA=="})),
        ("link to nothing", |r| r["kind"] = serde_json::json!({"symlink": {"target": ""}})),
    ];
    for (what, f) in cases {
        assert!(matches!(changed(f), Line::Damaged(_)), "{what}: {:?}", changed(f));
    }
}

#[test]
fn what_no_reader_would_accept_is_not_written() {
    let mut v = versions().remove(0);
    v.kind = Kind::File(FileContent { manifest: Hash::ZERO, size: 1, root: Hash::of(b"token"), chunks: None, hash: None });
    assert!(v.is_uncut());
    let e = record::encode([&v]).unwrap_err();
    assert!(e.kind() == ErrorKind::Invalid && e.to_string().contains("notes/plan.md"), "{e}");
}

#[test]
fn old_index_entries_are_read() {
    let parse = |name: &str| OldEntry::parse(&read(&format!("old/{name}"))).unwrap();
    let id = Hash::of(b"hello").to_hex();
    let big = OldEntry::File { manifest: id.clone(), size: 1_048_576, chunks: 2 };
    assert_eq!(parse("index.txt"), big);
    assert_eq!(parse("index-v2.json"), big);
    assert_eq!(parse("tcfs_dir.txt"), OldEntry::Directory);
    assert_eq!(parse("index-v3-symlink.json"), OldEntry::Symlink { target: "../lib/x".into(), manifest: Some(id.clone()) });
    assert_eq!(parse("index-v4-deleted.json"), OldEntry::Deleted);
    assert_eq!(parse("index-preparing.json"), OldEntry::File { manifest: id, size: 5, chunks: 1 });
    assert_eq!(parse("index-preparing-first.json"), OldEntry::Nothing);
    assert_eq!(
        OldEntry::parse(b"chunks=1\nsize=2\nmanifest_hash=ab\n").unwrap(),
        OldEntry::File { manifest: "ab".into(), size: 2, chunks: 1 }
    );
}

#[test]
fn old_index_entries_that_cannot_be_understood_are_errors() {
    for body in [
        "",
        "size=1\nchunks=1",
        "manifest_hash=../../x\nsize=1\nchunks=1",
        "manifest_hash=ab\nsize=-1\nchunks=1",
        "no equals sign",
        "{",
        "{\"version\":2,\"state\":\"committed\",\"current\":null}",
        "{\"version\":2,\"state\":\"gone\",\"current\":null}",
        "{\"version\":4,\"state\":\"deleted\",\"current\":{\"manifest_hash\":\"ab\",\"size\":1,\"chunks\":1}}",
        "{\"version\":3,\"state\":\"committed\",\"current\":{\"kind\":\"symlink\",\"size\":1,\"chunks\":0}}",
        "{\"version\":5,\"state\":\"committed\",\"current\":{\"manifest_hash\":\"ab\",\"size\":1,\"chunks\":1}}",
    ] {
        assert!(OldEntry::parse(body.as_bytes()).is_err(), "{body}");
    }
}

#[test]
fn old_manifests_are_read() {
    let parse = |name: &str| OldManifest::parse(&read(&format!("old/{name}"))).unwrap();
    let encrypted_of = |m: OldManifest| match m {
        OldManifest::File { manifest: Manifest::V2(m), encrypted } => {
            assert_eq!((m.file_size, m.chunks.len(), m.chunk_refs()), (5, 1, None), "sizes are not known before reading");
            encrypted
        }
        other => panic!("{other:?}"),
    };
    assert!(!encrypted_of(parse("manifest-v2.json")));
    assert!(encrypted_of(parse("manifest-v2-encrypted.json")));
    assert!(encrypted_of(parse("manifest-v3-wrapped.json")));
    assert_eq!(parse("manifest-v3-symlink.json"), OldManifest::Symlink { target: "../lib/x".into(), vclock: clock(&[("honey", 1)]) });
    let v1 = OldManifest::parse(&read("manifest-v1.txt")).unwrap();
    assert_eq!(v1.file_hash(&Hash::of(b"whole").to_hex()), Some(Hash::of(b"whole")));
    assert_eq!(v1.file_hash("opaque"), None);
    assert!(OldManifest::parse(b"{\"version\":2}").is_err());
    assert!(OldManifest::parse(b"{\"version\":3,\"kind\":\"symlink\"}").is_err());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    /// No bytes make a reader panic, and whatever is accepted can be written again.
    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Manifest::parse(&bytes);
        let _ = OldEntry::parse(&bytes);
        let _ = OldManifest::parse(&bytes);
        let _ = record::decode(&bytes);
        let _ = snapshot::Header::parse(&bytes);
        let _ = snapshot::Line::parse(1, &bytes);
    }

    /// A flipped byte anywhere in a batch spoils at most the two lines it touches.
    #[test]
    fn a_flipped_byte_spoils_its_line_only(at in any::<prop::sample::Index>(), byte: u8) {
        let mut body = record::encode(&versions()).unwrap();
        let at = at.index(body.len());
        body[at] = byte;
        let good: Vec<Version> = record::decode(&body).into_iter().filter_map(|l| match l { Line::Version(v) => Some(*v), _ => None }).collect();
        prop_assert!(good.iter().filter(|v| versions().contains(v)).count() >= versions().len() - 2);
        prop_assert!(record::encode(&good).is_ok());
    }
}

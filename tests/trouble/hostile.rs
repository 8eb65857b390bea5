//! Objects that lie: sizes, hashes, paths, clocks, compression, formats.
//!
//! Must: each ends in a clear error on its own entry; the rest of the tree, and the machine, do not notice.

use crate::DEADLINE;
use crate::common::objects::{Author, PREFIX, root_of};
use crate::common::{World, cli, sys, until, within};
use crate::drive_only;
use serde_json::{Value, json};
use std::fs;
use std::io::Write;
use std::time::Duration;

/// A case: what a hostile device publishes, and the paths that may only give errors.
struct Hostile {
    name: &'static str,
    publish: fn(&mut Author),
    /// Reading these must fail. They may also not exist.
    bad: &'static [&'static str],
}

fn line(a: &Author, path: &str, kind: Value, change: impl FnOnce(&mut Value)) -> String {
    let mut r = a.record(path, kind);
    change(&mut r);
    r.to_string()
}

fn lie(a: &mut Author, path: &str, bytes: &[u8], change: impl FnOnce(&mut Value)) {
    let mut kind = a.file(path, bytes);
    change(&mut kind["file"]);
    let l = line(a, path, kind, |_| {});
    a.batch([l]);
}

fn changed(a: &mut Author, path: &str, change: impl FnOnce(&mut Value)) {
    let kind = a.file(path, b"content");
    let l = line(a, path, kind, change);
    a.batch([l]);
}

/// A file of one chunk whose object is `object` instead of `bytes`.
fn chunk_object(a: &mut Author, path: &str, bytes: &[u8], object: Option<&[u8]>) {
    lie(a, path, bytes, |_| {});
    let key = format!("{PREFIX}/chunks/{}", blake3::hash(bytes).to_hex());
    match object {
        Some(o) => a.put(&key, o),
        None => a.remove(&key),
    }
}

fn bomb() -> Vec<u8> {
    // 1 GiB of zeros in some 30 KiB.
    let mut e = zstd::stream::Encoder::new(Vec::new(), 19).unwrap();
    let zeros = vec![0u8; 1 << 20];
    for _ in 0..1024 {
        e.write_all(&zeros).unwrap();
    }
    e.finish().unwrap()
}

const HOSTILE: &[Hostile] = &[
    Hostile {
        name: "size larger than its chunks",
        publish: |a| lie(a, "evil/size", b"12345", |k| k["size"] = json!(10_u64 << 30)),
        bad: &["evil/size"],
    },
    Hostile {
        name: "size smaller than its chunks",
        publish: |a| lie(a, "evil/less", b"12345", |k| k["size"] = json!(2)),
        bad: &["evil/less"],
    },
    Hostile {
        name: "size near the end of the range",
        publish: |a| lie(a, "evil/huge", b"12345", |k| k["size"] = json!(u64::MAX)),
        bad: &["evil/huge"],
    },
    Hostile {
        name: "chunk length of 4 GiB",
        publish: |a| {
            lie(a, "evil/len", b"abcde", |k| {
                k["chunks"][0][1] = json!(u32::MAX);
                k["size"] = json!(u32::MAX)
            })
        },
        bad: &["evil/len"],
    },
    Hostile { name: "root of something else", publish: |a| lie(a, "evil/root", b"abcd1", |k| k["root"] = json!(root_of(&[]))), bad: &[] },
    Hostile {
        name: "no manifest",
        publish: |a| {
            lie(a, "evil/nomanifest", b"abcd2", |k| {
                k["chunks"] = json!(null);
                k["manifest"] = json!("ab".repeat(32))
            })
        },
        bad: &["evil/nomanifest"],
    },
    Hostile {
        name: "manifest that is no JSON",
        publish: |a| {
            let id = a.manifest("{\"version\": 2, \"file_si");
            lie(a, "evil/json", b"abcd3", |k| {
                k["chunks"] = json!(null);
                k["manifest"] = json!(id)
            })
        },
        bad: &["evil/json"],
    },
    Hostile {
        name: "manifest of another size",
        publish: |a| {
            let id = a.manifest(&json!({ "version": 2, "file_hash": "", "file_size": 10_u64 << 30, "chunks": [], "vclock": { "clocks": {} }, "written_by": "x", "written_at": 0, "rel_path": "../../etc/passwd", "mode": 33188, "mtime": [0, 0], "chunk_sizes": [], "root": root_of(&[]), "base": null }).to_string());
            lie(a, "evil/othersize", b"abcd4", |k| {
                k["chunks"] = json!(null);
                k["manifest"] = json!(id)
            })
        },
        bad: &["evil/othersize"],
    },
    Hostile {
        name: "manifest with hashes that are paths",
        publish: |a| {
            let id = a.manifest(&json!({ "version": 2, "file_hash": "", "file_size": 5, "chunks": ["../../../../etc/passwd"], "vclock": { "clocks": {} }, "written_by": "x", "written_at": 0, "rel_path": "x", "mode": 33188, "mtime": [0, 0], "chunk_sizes": [5], "root": root_of(&[]), "base": null }).to_string());
            lie(a, "evil/pathhash", b"abcd5", |k| {
                k["chunks"] = json!(null);
                k["manifest"] = json!(id)
            })
        },
        bad: &["evil/pathhash"],
    },
    Hostile {
        name: "chunk missing",
        publish: |a| chunk_object(a, "evil/missing", b"chunk that is not there", None),
        bad: &["evil/missing"],
    },
    Hostile {
        name: "chunk with other bytes",
        publish: |a| chunk_object(a, "evil/other", b"chunk with other bytes", Some(b"surprise, surprise!!!!")),
        bad: &["evil/other"],
    },
    Hostile {
        name: "chunk cut short",
        publish: |a| chunk_object(a, "evil/short", b"chunk that was cut short", Some(b"chunk that")),
        bad: &["evil/short"],
    },
    Hostile {
        name: "chunk that is empty",
        publish: |a| chunk_object(a, "evil/empty", b"chunk that is empty", Some(b"")),
        bad: &["evil/empty"],
    },
    Hostile {
        name: "chunk that is a zstd bomb",
        publish: |a| chunk_object(a, "evil/bomb", b"chunk that is a bomb", Some(&bomb())),
        bad: &["evil/bomb"],
    },
    Hostile { name: "log batch that is a zstd bomb", publish: |a| a.raw_batch(&bomb()), bad: &[] },
    Hostile { name: "log batch that is no zstd", publish: |a| a.raw_batch(b"this is not a batch"), bad: &[] },
    Hostile { name: "log batch that is empty", publish: |a| a.raw_batch(b""), bad: &[] },
    Hostile {
        name: "log batch cut short",
        publish: |a| {
            let k = a.file("evil/cut", b"x");
            let l = a.record("evil/cut", k).to_string();
            let z = zstd::encode_all(l.as_bytes(), 1).unwrap();
            a.raw_batch(&z[..z.len() / 2])
        },
        bad: &[],
    },
    Hostile { name: "record that is no JSON", publish: |a| a.batch(["{\"v\":1,\"path\":\"evil/half"]), bad: &["evil/half"] },
    Hostile {
        name: "record that is no UTF-8",
        publish: |a| a.raw_batch(&zstd::encode_all(&b"{\"v\":1,\"path\":\"\xff\xfe\"}\n"[..], 1).unwrap()),
        bad: &[],
    },
    Hostile { name: "record of JSON nested deeply", publish: |a| a.batch(["[".repeat(200_000)]), bad: &[] },
    Hostile { name: "parent directory in a path", publish: |a| changed(a, "x", |r| r["path"] = json!("../escaped-from-drive")), bad: &[] },
    Hostile {
        name: "parent directory inside a path",
        publish: |a| changed(a, "x", |r| r["path"] = json!("evil/../../escaped-from-drive")),
        bad: &[],
    },
    Hostile { name: "absolute path", publish: |a| changed(a, "x", |r| r["path"] = json!("/tmp/escaped-from-drive")), bad: &[] },
    Hostile { name: "empty path as a file", publish: |a| changed(a, "x", |r| r["path"] = json!("")), bad: &[] },
    Hostile { name: "path with an empty component", publish: |a| changed(a, "x", |r| r["path"] = json!("evil//x")), bad: &[] },
    Hostile { name: "path with NUL", publish: |a| changed(a, "x", |r| r["path"] = json!("evil/a\0b")), bad: &[] },
    Hostile { name: "name of 300 bytes", publish: |a| changed(a, "x", |r| r["path"] = json!("e".repeat(300))), bad: &[] },
    Hostile {
        name: "path of 100,000 components",
        publish: |a| changed(a, "x", |r| r["path"] = json!(vec!["d"; 100_000].join("/"))),
        bad: &[],
    },
    Hostile {
        name: "move to outside",
        publish: |a| {
            let l = line(a, "evil/moved", json!("tombstone"), |r| r["moved_to"] = json!("../../escaped-from-drive"));
            a.batch([l])
        },
        bad: &["evil/moved"],
    },
    Hostile {
        name: "clock at its end",
        publish: |a| {
            let id = a.id.clone();
            changed(a, "evil/clock", |r| {
                r["vclock"]["clocks"][&id] = json!(u64::MAX);
                r["wrote"]["clocks"][&id] = json!(u64::MAX)
            })
        },
        bad: &["evil/clock"],
    },
    Hostile {
        name: "clock of zero",
        publish: |a| {
            let id = a.id.clone();
            changed(a, "evil/zero", |r| r["vclock"]["clocks"][&id] = json!(0))
        },
        bad: &[],
    },
    Hostile {
        name: "clock with negative counters",
        publish: |a| {
            let id = a.id.clone();
            changed(a, "evil/negative", |r| r["vclock"]["clocks"][&id] = json!(-1))
        },
        bad: &["evil/negative"],
    },
    Hostile {
        name: "format of the future",
        publish: |a| {
            changed(a, "evil/future", |r| {
                r["v"] = json!(99);
                r["kind"] = json!({ "hologram": {} })
            })
        },
        bad: &["evil/future"],
    },
    Hostile {
        name: "kind nobody knows",
        publish: |a| changed(a, "evil/kind", |r| r["kind"] = json!({ "hologram": {} })),
        bad: &["evil/kind"],
    },
    Hostile { name: "mode of a device", publish: |a| changed(a, "evil/device", |r| r["mode"] = json!(0o020666)), bad: &[] },
    Hostile {
        name: "times out of range",
        publish: |a| {
            changed(a, "evil/time", |r| {
                r["mtime"] = json!([i64::MAX, 4_000_000_000_u32]);
                r["written_at"] = json!(i64::MIN)
            })
        },
        bad: &[],
    },
    Hostile {
        name: "link target of 1 MiB",
        publish: |a| {
            let l = line(a, "evil/link", json!({ "symlink": { "target": "x".repeat(1 << 20) } }), |_| {});
            a.batch([l])
        },
        bad: &["evil/link"],
    },
    Hostile {
        name: "link target with NUL",
        publish: |a| {
            let l = line(a, "evil/nul", json!({ "symlink": { "target": "a\0b" } }), |_| {});
            a.batch([l])
        },
        bad: &["evil/nul"],
    },
    Hostile {
        name: "attributes that are no base64",
        publish: |a| changed(a, "evil/attr", |r| r["xattrs"] = json!({ "user.x": "***", "security.capability": "AAAA", "": "" })),
        bad: &[],
    },
    Hostile {
        name: "file below a file",
        publish: |a| {
            let (k, l) = (a.file("evil/f", b"f"), a.file("evil/f/g", b"g"));
            let lines = [a.record("evil/f", k).to_string(), a.record("evil/f/g", l).to_string()];
            a.batch(lines)
        },
        bad: &[],
    },
    Hostile {
        name: "record of another device",
        publish: |a| {
            changed(a, "evil/forged", |r| {
                r["device_id"] = json!("ann-00000000");
                r["actor"] = json!("ann-00000000")
            })
        },
        bad: &[],
    },
    Hostile {
        name: "sequence with a hole",
        publish: |a| {
            a.skip(5);
            changed(a, "evil/hole", |_| {})
        },
        bad: &["evil/hole"],
    },
    Hostile { name: "registry that is garbage", publish: |a| a.put("tcfs-meta/devices.json", b"{\"devices\": [[[["), bad: &[] },
    Hostile { name: "device object that is garbage", publish: |a| a.put("tcfs-meta/devices/evil-00000000.json", b"\xff\xfe{{{"), bad: &[] },
    Hostile {
        name: "device object with a path as id",
        publish: |a| a.put("tcfs-meta/devices/evil-00000001.json", br#"{"id":"../../x","name":"../..","device_id":"../.."}"#),
        bad: &[],
    },
    Hostile { name: "snapshot that is garbage", publish: |a| a.put(&format!("{PREFIX}/snapshots/evil"), b"not a snapshot"), bad: &[] },
    Hostile {
        name: "snapshot without a trailer",
        publish: |a| {
            let z = zstd::encode_all(&b"{\"cursors\":{}}\n"[..], 1).unwrap();
            a.put(&format!("{PREFIX}/snapshots/evil2"), &z)
        },
        bad: &[],
    },
    Hostile { name: "lease that is garbage", publish: |a| a.put(&format!("{PREFIX}/leases/evil-00000000"), b"\0\0\0"), bad: &[] },
];

#[test]
fn hostile_objects_spoil_only_their_own_entries() {
    let w = World::new();
    let a = w.mount("ann");
    fs::write(a.path("good"), "good").unwrap();
    a.wait();
    for (i, h) in HOSTILE.iter().enumerate() {
        // Each its own device: a batch that cannot be read stops only its author.
        (h.publish)(&mut Author::new(&w.store(), &format!("evil{i}")));
    }
    drive_only!();
    let mut last = Author::new(&w.store(), "zoe");
    let kind = last.file("good-of-zoe", b"good too");
    let l = last.record("good-of-zoe", kind).to_string();
    last.batch([l]);
    let b = w.device("bob").env("TCFS_TEST_READ_DEADLINE_MS", "5000").mount();
    for m in [&a, &b] {
        until("an honest device's file arrives", Duration::from_secs(60), || {
            (fs::read(m.path("good-of-zoe")).ok()? == b"good too").then_some(())
        });
        assert_eq!(fs::read(m.path("good")).unwrap(), b"good");
        for h in HOSTILE {
            for p in h.bad {
                let path = m.path(p);
                let r = within(h.name, DEADLINE, move || fs::read_link(&path).map(drop).or_else(|_| fs::read(&path).map(drop)));
                assert!(r.is_err(), "{}: {p} could be read", h.name);
            }
        }
        // The whole tree can be walked, and every file in it gives its bytes or an error.
        cli::sh(m.root(), "find . >/dev/null; find . -type f -size -1000k -exec cat {} + >/dev/null 2>&1 || true", &[]).ok();
        fs::write(m.path(format!("written-by-{}", m.status()["device"]["name"].as_str().unwrap())), "x").unwrap();
        m.wait();
        let doctor = m.cli(&["doctor", "--json"]);
        assert!([0, 1, 3].contains(&doctor.code), "doctor exited with {}\n{}", doctor.code, doctor.text());
        assert!(!m.log().contains("panicked"), "something panicked:\n{}", m.log());
        let (_, peak) = sys::memory(m.pid());
        assert!(peak < 400 << 20, "peak memory {} MiB", peak >> 20);
    }
    until("they still hear each other", Duration::from_secs(30), || {
        (a.path("written-by-bob").exists() && b.path("written-by-ann").exists()).then_some(())
    });
    for escaped in [
        "/tmp/escaped-from-drive".into(),
        w.dir().join("escaped-from-drive"),
        w.dir().join("ann/escaped-from-drive"),
        w.dir().join("bob/escaped-from-drive"),
    ] {
        assert!(!escaped.exists(), "{} was made", escaped.display());
    }
    // And once more from a cold start.
    a.remount();
    assert_eq!(fs::read(a.path("good-of-zoe")).unwrap(), b"good too");
}

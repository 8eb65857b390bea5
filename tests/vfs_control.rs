//! The control directory and what else the drive tells of itself, in the process: no kernel, no daemon.
#![allow(clippy::unwrap_used)] // a failed call is a failed test

#[path = "common/vfs.rs"]
mod common;

use common::{Rig, path};
use std::collections::BTreeMap;
use std::sync::Arc;
use tcfs::ErrorKind;
use tcfs::error::Result;
use tcfs::model::{Entry, Version};
use tcfs::state::rows::{FileType, ROOT};
use tcfs::vfs::{CONTROL, Fact, Facts, Reader, ReaderRules, SetAttr, Told, is_control};

fn kind<T: std::fmt::Debug>(r: Result<T>) -> ErrorKind {
    r.unwrap_err().kind()
}

/// Everything below a directory of the drive or of its control directory: kinds, modes, contents.
fn tree<'a>(rig: &'a Rig, at: &'a str) -> std::pin::Pin<Box<dyn Future<Output = BTreeMap<String, String>> + 'a>> {
    Box::pin(async move {
        let mut out = BTreeMap::new();
        let dir = rig.resolve(at).unwrap();
        let mut cookie = 0;
        loop {
            let page = rig.readdir(dir.ino, cookie, 3, true).unwrap();
            let Some(last) = page.last() else { break };
            cookie = last.cookie;
            for e in page {
                let p = format!("{at}/{}", e.name);
                let a = e.attr.unwrap();
                assert_eq!(a, rig.resolve(&p).unwrap(), "a listing and a look tell the same of {p}");
                let what = match a.kind {
                    FileType::Dir => "dir".to_owned(),
                    FileType::Symlink => rig.readlink(a.ino).unwrap(),
                    _ => format!("{:o} {}", a.mode, rig.text(&p).await),
                };
                out.insert(e.name.clone(), what);
                if a.kind == FileType::Dir {
                    out.extend(tree(rig, &p).await.into_iter().map(|(n, w)| (format!("{}/{n}", e.name), w)));
                }
            }
        }
        out
    })
}

/// The control directory's name for now.
fn now(rig: &Rig) -> String {
    use tcfs::clock::Clock;
    tcfs::human::rfc3339(rig.clock.now_ms())
}

/// The clock by more than a millisecond, so that what comes is later.
fn later(rig: &Rig) {
    rig.tick();
}

/// The past is shown as it was, with conflicts of then, whatever was renamed, removed or written since.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_past_is_what_was_there_whatever_came_since() {
    let rig = Rig::new();
    let mut then: Vec<(String, BTreeMap<String, String>)> = Vec::new();
    let note = async |then: &mut Vec<(String, BTreeMap<String, String>)>| {
        then.push((now(&rig), tree(&rig, "").await));
        later(&rig);
    };
    note(&mut then).await;
    rig.remote("bob", "a", b"one").await;
    rig.mkdirp("d");
    rig.mkdirp("d/e");
    rig.remote("bob", "d/e/f", b"deep").await;
    rig.ln_s("a", "link").unwrap();
    note(&mut then).await;
    rig.write_over("bob", "a", b"two").await;
    rig.chmod("d/e/f", 0o600);
    rig.remote("bob", "from/bob", b"his").await;
    note(&mut then).await;
    // A conflict, its siblings included.
    let v = rig.version_of("cat", "a", &Entry::default(), b"other").await;
    rig.arrive(&v);
    note(&mut then).await;
    rig.mv("d", "moved").unwrap();
    rig.rm("link").unwrap();
    note(&mut then).await;
    rig.rm("a.conflict-cat").unwrap();
    rig.rm("moved/e/f").unwrap();
    rig.rmd("moved/e").unwrap();
    rig.rmd("moved").unwrap();
    rig.remote("bob", "from/more", b"x").await;
    note(&mut then).await;
    rig.rm("a").unwrap();
    for (at, was) in &then {
        assert_eq!(&tree(&rig, &format!("{CONTROL}/at/{at}")).await, was, "at {at}");
    }
    assert!(then[3].1.contains_key("a.conflict-cat"), "{:?}", then[3].1);
    assert!(!then[4].1.contains_key("d/e/f") && then[4].1.contains_key("moved/e/f"));
}

/// A moment that is told by how long ago it is stands still while it is used.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_moment_that_is_told_by_how_long_ago_it_is_stands_still_while_it_is_used() {
    let rig = Rig::new();
    rig.remote("bob", "a", b"one").await;
    rig.clock.advance(3_600_000_000_000);
    rig.write_over("bob", "a", b"two").await;
    let at = format!("{CONTROL}/at/30m ago");
    assert_eq!(rig.text(&format!("{at}/a")).await, "one");
    let ino = rig.ino(&at);
    rig.clock.advance(3_600_000_000_000);
    assert_eq!((rig.ino(&at), rig.text(&format!("{at}/a")).await.as_str()), (ino, "one"));
    // The same moment by another name is the same directory.
    let offered = rig.ls(&format!("{CONTROL}/at"));
    assert!(offered.contains(&"1h ago".to_owned()) && offered.contains(&"yesterday".to_owned()), "{offered:?}");
    assert!(!rig.has(&format!("{CONTROL}/at/tomorrow")) && !rig.has(&format!("{CONTROL}/at/yesterday/a")));
}

/// History has a file for each version of a path, also of one that is gone, in the order of time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn history_has_a_file_for_each_version_also_of_what_is_gone() {
    let rig = Rig::new();
    rig.mkdirp("d");
    rig.remote("bob", "d/notes.tar.gz", b"one").await;
    later(&rig);
    rig.write_over("bob", "d/notes.tar.gz", b"two!").await;
    later(&rig);
    rig.rm("d/notes.tar.gz").unwrap();
    rig.rmd("d").unwrap();
    let dir = format!("{CONTROL}/history/d");
    assert_eq!((rig.ls(&format!("{CONTROL}/history")), rig.ls(&dir)), (vec!["d".to_owned()], vec!["notes.tar.gz".to_owned()]));
    let names = rig.ls(&format!("{dir}/notes.tar.gz"));
    assert!(names.len() == 2 && names.iter().all(|n| n.contains(".bob.") && n.ends_with(".gz")), "{names:?}");
    // In the order of time.
    let mut texts = Vec::new();
    for n in &names {
        texts.push(rig.text(&format!("{dir}/notes.tar.gz/{n}")).await);
    }
    assert_eq!(texts, ["one", "two!"]);
    assert!(!rig.has(&format!("{CONTROL}/history/nothing")));
}

/// Old versions whose bytes are nowhere here come from the store, chunk by chunk, wherever a program begins to read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_old_version_is_read_from_the_store() {
    let rig = Rig::new();
    let big: Vec<u8> = (0..3_000_000u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).take(5_000_000).collect();
    let v = rig.remote("bob", "big", &big).await;
    later(&rig);
    let gone = rig.tombstone_of("bob", "big", &Entry { heads: vec![v] });
    rig.arrive(&gone);
    assert!(!rig.has("big"));
    let name = rig.ls(&format!("{CONTROL}/history/big")).remove(0);
    let ino = rig.ino(&format!("{CONTROL}/history/big/{name}"));
    assert_eq!(rig.getattr(ino).unwrap().size, big.len() as u64);
    let fh = rig.open_file(ino, false, false).unwrap().fh;
    for (off, len) in [(0, 10), (4_999_990, 100), (1_234_567, 1 << 20), (big.len() as u64, 10), (u64::MAX - 5, 10)] {
        let from = (off as usize).min(big.len());
        let want = &big[from..big.len().min(from + len)];
        assert!(rig.read_fh(fh, off, len).await.unwrap() == want, "{len} bytes at {off}");
    }
    assert_eq!((rig.seek(fh, 5, libc::SEEK_DATA).unwrap(), rig.seek(fh, 5, libc::SEEK_HOLE).unwrap()), (5, big.len() as i64));
    rig.release(fh).unwrap();
    assert_eq!(kind(rig.read_fh(fh, 0, 1).await), ErrorKind::Stale);
    assert_eq!(rig.cache_use().bytes, 0, "nothing of it is kept");
}

/// Nothing in the control directory can be changed, no file can have its name, and no listing shows it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_in_it_can_be_changed_and_no_file_has_its_name() {
    let rig = Rig::new();
    rig.put("a", b"x");
    later(&rig);
    assert!(!rig.ls("").contains(&CONTROL.to_owned()), "it is not listed");
    let top = rig.ino(CONTROL);
    assert_eq!(rig.getattr(top).unwrap().mode, 0o500, "nobody else enters it: it shows what lies in private directories");
    let old = rig.ino(&format!("{CONTROL}/at/{}/a", now(&rig)));
    assert!(is_control(top) && is_control(old));
    for (what, r) in [
        ("create", rig.create(top, b"x", 0o644, 0, 0).map(drop)),
        ("mkdir", rig.mkdir(top, b"x", 0o755, 0, 0).map(drop)),
        ("symlink", rig.symlink(top, b"x", b"y", 0, 0).map(drop)),
        ("mknod", rig.mknod(top, b"x", 0o10644, 0, 0, 0).map(drop)),
        ("unlink", rig.unlink(top, b"metrics")),
        ("rmdir", rig.rmdir(top, b"at")),
        ("rename in", rig.rename(ROOT, b"a", top, b"a", false)),
        ("rename out", rig.rename(top, b"at", ROOT, b"b", false)),
        ("exchange", rig.exchange(ROOT, b"a", top, b"at")),
        ("link", rig.link(rig.ino("a"), top, b"l").map(drop)),
        ("setattr", rig.setattr(old, &SetAttr { mode: Some(0o777), ..SetAttr::default() }).map(drop)),
        ("truncate", rig.setattr(old, &SetAttr { size: Some(0), ..SetAttr::default() }).map(drop)),
        ("write", rig.open_file(old, true, false).map(drop)),
        ("setxattr", rig.setxattr(old, "user.x", Some(b"y"), false, false)),
        ("rmdir of itself", rig.rmdir(ROOT, CONTROL.as_bytes())),
        ("rename of itself", rig.rename(ROOT, CONTROL.as_bytes(), ROOT, b"b", false)),
    ] {
        assert!(matches!(kind(r), ErrorKind::ReadOnly | ErrorKind::Exists), "{what}");
    }
    assert_eq!(kind(rig.mkdir(ROOT, CONTROL.as_bytes(), 0o755, 0, 0)), ErrorKind::Exists);
    assert_eq!(kind(rig.rename(ROOT, b"a", ROOT, CONTROL.as_bytes(), false)), ErrorKind::Exists);
    assert_eq!(rig.text("a").await, "x");
}

/// What was found after a power cut can be read, and removed, through the drive.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_found_after_a_crash_is_read_and_removed() {
    let rig = Rig::new();
    let dir = rig.recovered_dir();
    assert_eq!(rig.ls(&format!("{CONTROL}/recovered")), Vec::<String>::new());
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::write(dir.join("plan.md.5"), "saved").unwrap();
    let at = format!("{CONTROL}/recovered");
    assert_eq!((rig.ls(&at), rig.text(&format!("{at}/plan.md.5")).await), (vec!["plan.md.5".to_owned()], "saved".to_owned()));
    rig.unlink(rig.ino(&at), b"plan.md.5").unwrap();
    assert!(!dir.join("plan.md.5").exists() && rig.ls(&at).is_empty());
    assert_eq!(kind(rig.unlink(rig.ino(&at), b"../identity.json")), ErrorKind::BadName);
}

struct Says;

impl Facts for Says {
    fn tell(&self, of: Fact) -> Result<Option<Told>> {
        Ok((of == Fact::Status).then(|| Told::Text(b"{}\n".to_vec())))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn state_files_say_what_the_layer_above_says_and_are_not_there_without_it() {
    let rig = Rig::new();
    assert!(!rig.has(&format!("{CONTROL}/status.json")));
    rig.tells(Arc::new(Says));
    let a = rig.resolve(&format!("{CONTROL}/status.json")).unwrap();
    assert_eq!((a.size, rig.text(&format!("{CONTROL}/status.json")).await.as_str()), (3, "{}\n"));
    assert!(!rig.has(&format!("{CONTROL}/metrics")));
    // Its number is the same after many others were looked at.
    for i in 0..40_000u32 {
        let _ = rig.resolve(&format!("{CONTROL}/at/2026-01-01T00:00:{:02}.{i:06}Z", i % 60));
    }
    assert_eq!(rig.ino(&format!("{CONTROL}/status.json")), a.ino);
    assert_eq!(rig.getattr(a.ino).unwrap().size, 3);
}

/// Extended attributes `user.tcfs.*` tell where a file stands; only `pinned` can be set, and none is listed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attributes_tell_where_a_file_stands() {
    let rig = Rig::new();
    let get = |p: &str, what: &str| rig.getxattr(rig.ino(p), &format!("user.tcfs.{what}")).map(|v| String::from_utf8(v).unwrap());
    let of = |p: &str, what: &str| get(p, what).unwrap();
    rig.put("mine", b"here");
    let v: Version = rig.remote("bob", "his", b"there").await;
    rig.put("x.swp", b"never leaves");
    assert_eq!((of("mine", "state"), of("his", "state"), of("x.swp", "state")), ("dirty".into(), "stub".into(), "local-only".into()));
    assert_eq!((of("mine", "pending"), of("his", "pending")), ("yes".into(), "no".into()));
    assert_eq!((of("his", "device"), of("his", "version"), of("mine", "device")), ("bob".into(), v.id(), "ann".into()));
    assert_eq!(of("his", "hash"), v.file().unwrap().hash.unwrap().to_string());
    assert_eq!(rig.text("his").await, "there");
    assert_eq!(of("his", "state"), "hydrated");
    assert_eq!((kind(get("his", "conflict")), kind(get("his", "nonsense"))), (ErrorKind::NoAttr, ErrorKind::NoAttr));
    let other = rig.version_of("cat", "his", &Entry::default(), b"another").await;
    rig.arrive(&other);
    let (shown, sibling) = (of("his", "conflict"), rig.ls("").into_iter().find(|n| n.contains(".conflict-")).unwrap());
    assert_eq!((shown, of(&sibling, "conflict"), of(&sibling, "state")), (sibling.clone(), "his".into(), of(&sibling, "state")));
    // Pinned by setting it; nothing else can be set, and none is listed.
    let ino = rig.ino("mine");
    let set = |what: &str, v: &[u8]| rig.setxattr(ino, &format!("user.tcfs.{what}"), Some(v), false, false);
    set("pinned", b"yes").unwrap();
    assert_eq!((of("mine", "pinned"), rig.pins().unwrap()), ("yes".into(), vec!["mine".to_owned()]));
    set("pinned", b"0\n").unwrap();
    assert_eq!(
        (of("mine", "pinned"), kind(set("pinned", b"maybe")), kind(set("state", b"x"))),
        ("no".into(), ErrorKind::Invalid, ErrorKind::NotPermitted)
    );
    assert!(rig.listxattr(ino).unwrap().is_empty());
}

/// The index of names is made by the first search and follows what comes and goes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_are_found_anywhere_also_those_that_came_since_the_first_search() {
    let rig = Rig::new();
    rig.mkdirp("a");
    rig.mkdirp("b");
    rig.mkdirp("b/c");
    rig.put("a/plan.md", b"1");
    rig.put("b/c/plan.md", b"2");
    rig.put("b/other", b"3");
    let find = |name: &str| {
        let mut out = Vec::new();
        rig.find_names(&|n| n == name, &mut |f| {
            out.push(f.path.as_str().to_owned());
            Ok(true)
        })
        .unwrap();
        out
    };
    // Before there is an index each directory is asked.
    let mut asked = Vec::new();
    let mut note = |f: tcfs::vfs::Found| {
        asked.push(f.path.as_str().to_owned());
        Ok(true)
    };
    rig.find_name("plan.md", &mut note).unwrap();
    rig.find_name("nothing", &mut note).unwrap();
    rig.find_name("c", &mut note).unwrap();
    assert_eq!(asked, ["a/plan.md", "b/c/plan.md", "b/c"]);
    assert_eq!(find("plan.md"), ["a/plan.md", "b/c/plan.md"]);
    rig.rm("a/plan.md").unwrap();
    rig.mv("b/c", "d").unwrap();
    rig.remote("bob", "plan.md", b"his").await;
    assert_eq!(find("plan.md"), ["d/plan.md", "plan.md"]);
    assert_eq!((find("c"), find("other")), (Vec::<String>::new(), vec!["b/other".to_owned()]));
}

/// Programs that the rules name bring nothing here, or only what they read; what is here everybody reads, and opening for
/// writing is never refused.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn programs_that_look_at_everything_bring_nothing_here() {
    let rules = ReaderRules { deny: vec!["miner*".into()], cached_only: vec!["peek".into()], range_only: vec!["player".into()] };
    let rig = Rig::with(|o| {
        o.readers = rules;
        o.hydrate_whole_below = 1 << 30;
    });
    let mut big = vec![0; 12 << 20];
    blake3::Hasher::new().finalize_xof().fill(&mut big);
    rig.remote("bob", "big", &big).await;
    rig.remote("bob", "other", &big[1..]).await;
    let ino = rig.ino("big");
    let who = |n: &str| Reader { names: vec![n.to_owned()] };
    let here = || rig.look(&rig.find(&path("big")).unwrap()).unwrap().here;
    assert_eq!(kind(rig.open_for(ino, false, false, &who("miner-fs")).map(|o| o.fh)), ErrorKind::Denied);
    let peek = rig.open_for(ino, false, false, &who("peek")).unwrap().fh;
    assert_eq!(kind(rig.read_fh(peek, 0, 10).await), ErrorKind::Denied);
    assert_eq!(here(), 0);
    let player = rig.open_for(ino, false, false, &who("player")).unwrap().fh;
    assert_eq!(rig.read_fh(player, 0, 1000).await.unwrap(), big[..1000]);
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    assert!(here() > 0 && here() < big.len() as u64, "{} bytes are here", here());
    // What is here everybody reads, and who is on no list brings all of it.
    assert_eq!(rig.read_fh(peek, 0, 1000).await.unwrap(), big[..1000]);
    let cat = rig.open_for(ino, false, false, &who("cat")).unwrap().fh;
    assert_eq!(rig.read_fh(cat, 12_582_000, 1000).await.unwrap(), big[12_582_000..]);
    common::until_async(|| here() == big.len() as u64).await;
    for fh in [peek, player, cat] {
        rig.release(fh).unwrap();
    }
    let fh = rig.open_for(ino, false, false, &who("miner-fs")).unwrap().fh;
    rig.release(fh).unwrap();
    let n = rig.refusals();
    assert_eq!((n.denied, n.cached_only, n.range_only), (1, 1, 1));
    let t = rig.trace(ino);
    assert_eq!((t.read.unwrap().1, t.refused.unwrap().1), ("miner-fs".to_owned(), "player".to_owned()));
    // To write is never refused.
    let fh = rig.open_for(rig.ino("other"), true, false, &who("miner-fs")).unwrap().fh;
    rig.release(fh).unwrap();
}

//! Files whose bytes are elsewhere: stubs, partial hydration, remote versions under open handles, conflicts, eviction.

#![allow(clippy::unwrap_used)]

#[path = "common/vfs.rs"]
mod common;
#[path = "common/copy.rs"]
mod copy;

use common::{ME, Rig, check_rows};
use std::sync::Arc;
use std::time::Duration;
use tcfs::ErrorKind;
use tcfs::clock::{Clock, ManualClock};
use tcfs::model::{ConflictMode, Entry};
use tcfs::state::Tree;
use tcfs::state::rows::{Local, ROOT};
use tcfs::store::fault::{Mode, Rule};
use tcfs::vfs::Dropped;

/// Bytes that compress badly and are cut into several chunks.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let c = ManualClock::new(0, seed);
    (0..len.div_ceil(8)).flat_map(|_| c.random().to_le_bytes()).take(len).collect()
}

macro_rules! stub_tests {
    ($($(#[doc = $doc:literal])* $name:ident($rig:ident) $body:block)*) => {
        $($(#[doc = $doc])*
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            #[allow(unused_mut)]
            let mut $rig = Rig::new();
            $body
            check_rows(&$rig, None);
        })*
    };
}

const BIG: usize = 20 << 20;

/// Adds to what a published file's seal covers: none of its uploads is left.
fn local(rig: &Rig, ino: u64) -> Option<Local> {
    rig.replica().read(|r| r.get(Tree::Local, ino)).unwrap()
}

stub_tests! {
    /// A file of another machine is listed with its size at once; its bytes come when they are read, checked.
    stubs_are_listed_at_once_and_read_on_demand(rig) {
        let data = noise(1, BIG);
        rig.remote("bob", "d/f", &data).await;
        let a = rig.resolve("d/f").unwrap();
        assert_eq!((a.size, a.nlink, a.uid, a.mode), (BIG as u64, 1, 1000, 0o644));
        assert_eq!(a.blocks, (BIG as u64).div_ceil(512), "as if hydrated");
        let fh = rig.open_ro("d/f");
        assert!(rig.read_local(fh, 5 << 20, 100).unwrap().is_none());
        assert_eq!(rig.read_fh(fh, 5 << 20, 100).await.unwrap(), &data[5 << 20..(5 << 20) + 100]);
        assert!(rig.read_local(fh, 5 << 20, 100).unwrap().is_some());
        assert_eq!(rig.read_fh(fh, BIG as u64 - 10, 100).await.unwrap(), &data[BIG - 10..]);
        assert_eq!(rig.read_fh(fh, BIG as u64, 100).await.unwrap(), b"");
        assert_eq!(rig.seek(fh, 0, libc::SEEK_HOLE).unwrap(), BIG as i64);
        rig.release(fh).unwrap();
        assert!(rig.cat("d/f").await == data);
        assert!(rig.outbox().is_empty(), "reading publishes nothing");
        rig.crash();
        let fh = rig.open_ro("d/f");
        assert!(rig.read_local(fh, 0, BIG).unwrap().is_some_and(|b| b == data), "what was hydrated is here after a kill");
        rig.release(fh).unwrap();
    }

    /// Writing into a stub needs none of its bytes.
    a_stub_is_written_without_being_fetched(rig) {
        let mut data = noise(2, BIG);
        rig.remote("bob", "f", &data).await;
        rig.store.set(vec![Rule::new(Mode::Down)]);
        let fh = rig.open_rw("f");
        rig.write(fh, 7 << 20, b"middle", false).unwrap();
        rig.write(fh, 0, b"end", true).unwrap();
        rig.flush(fh).unwrap();
        rig.release(fh).unwrap();
        data[7 << 20..(7 << 20) + 6].copy_from_slice(b"middle");
        data.extend(b"end");
        rig.store.clear();
        assert!(rig.cat("f").await == data);
        let l = local(&rig, rig.ino("f")).unwrap();
        assert!(l.overlay && l.dirty.total() == 9 && l.token.is_some());
        rig.crash();
        assert!(rig.cat("f").await == data);
    }

    /// A stub that was cut shorter and made longer reads zeros behind the cut, also where it was once published.
    regression_bytes_behind_a_truncation_never_come_back(rig) {
        let data = noise(3, BIG);
        rig.remote("bob", "f", &data).await;
        let ino = rig.ino("f");
        let fh = rig.open_rw("f");
        rig.truncate(ino, 100).unwrap();
        rig.write(fh, 200, b"x", false).unwrap();
        rig.crash();
        let mut want = data[..100].to_vec();
        want.resize(200, 0);
        want.push(b'x');
        assert!(rig.cat("f").await == want);
        let l = local(&rig, ino).unwrap();
        assert!(l.dirty.covers(100..201), "the gap is newer than what was published: {:?}", l.dirty);
    }

    /// A read without the store ends at its deadline with an error, and works when the store is back.
    a_read_without_the_store_ends_at_its_deadline(rig) {
        let data = noise(4, 3 << 20);
        rig.crash_with(|o| o.read_deadline = Duration::from_millis(300));
        rig.remote("bob", "f", &data).await;
        rig.store.set(vec![Rule::new(Mode::Down)]);
        let fh = rig.open_ro("f");
        let e = rig.read_fh(fh, 0, 10).await.unwrap_err();
        assert!(matches!(e.kind(), ErrorKind::Timeout | ErrorKind::Unavailable), "{e}");
        // Who asks again at once does not wait again; a second later the store is asked.
        assert_eq!(rig.read_fh(fh, 0, 10).await.unwrap_err().kind(), ErrorKind::Timeout);
        rig.clock.advance(1_000_000_000);
        rig.store.set(vec![Rule::new(Mode::Garble)]);
        assert!(rig.read_fh(fh, 0, 10).await.is_err(), "wrong bytes are never shown");
        rig.store.clear();
        rig.clock.advance(1_000_000_000);
        assert_eq!(rig.read_fh(fh, 0, 10).await.unwrap(), &data[..10]);
        rig.release(fh).unwrap();
    }

    /// Bytes that another local file has are copied from there, not fetched.
    equal_bytes_are_fetched_once(rig) {
        let data = noise(5, 3 << 20);
        rig.remote("bob", "f", &data).await;
        rig.remote("bob", "g", &data).await;
        assert!(rig.cat("f").await == data);
        rig.store.set(vec![Rule::new(Mode::Down)]);
        assert!(rig.cat("g").await == data);
        rig.store.clear();
    }

    /// Somebody who empties the cache directory makes stubs, not zeros.
    an_emptied_cache_means_stubs_not_zeros(rig) {
        let data = noise(6, 3 << 20);
        rig.remote("bob", "f", &data).await;
        rig.remote("bob", "g", &data).await;
        assert!(rig.cat("f").await == data);
        assert!(rig.cat("g").await == data);
        for d in std::fs::read_dir(rig.options.cache_dir.join("data")).unwrap() {
            for f in std::fs::read_dir(d.unwrap().path()).unwrap() {
                std::fs::remove_file(f.unwrap().path()).unwrap();
            }
        }
        assert!(rig.cat("f").await == data);
        let fh = rig.open_rw("g");
        rig.write(fh, 0, b"x", false).unwrap();
        rig.release(fh).unwrap();
        assert!(rig.cat("g").await[1..] == data[1..]);
    }

    /// A state that was set aside and is back finds what another one put into the cache, under the same numbers.
    what_another_state_put_into_the_cache_is_not_served(rig) {
        let (ours, theirs) = (noise(61, 3 << 20), noise(62, 3 << 20));
        rig.remote("bob", "f", &ours).await;
        assert!(rig.cat("f").await == ours);
        let (ino, mine) = (rig.ino("f"), rig.options.state_dir.clone());
        let other = mine.with_file_name("other");
        // Its own it keeps: nothing is fetched.
        rig.crash();
        rig.store.set(vec![Rule::new(Mode::Down)]);
        assert!(rig.cat("f").await == ours);
        rig.store.clear();
        rig.crash_with(|o| o.state_dir = other.clone());
        rig.remote("bob", "g", &theirs).await;
        assert!(rig.cat("g").await == theirs);
        assert_eq!(rig.ino("g"), ino, "they have one number");
        rig.crash_with(|o| o.state_dir = mine.clone());
        assert!(rig.cat("f").await == ours);
        // A state that was rolled back, too: the cache is that of a later one.
        let copy = mine.with_file_name("copy");
        rig.crash_with(|_| copy::copy(&mine, &copy));
        rig.store.set(vec![Rule::new(Mode::Down)]);
        assert!(rig.cat("f").await == ours);
        rig.store.clear();
        rig.crash_with(|o| o.state_dir = copy.clone());
        assert!(rig.cat("f").await == ours);
    }

    /// A state that is new takes nothing from a cache of before there were marks, and lets be what lies where unpublished bytes do.
    a_new_state_empties_an_old_cache_and_no_overlay(rig) {
        rig.remote("bob", "f", &noise(63, 3 << 20)).await;
        rig.cat("f").await;
        let (cache, fresh) = (rig.options.cache_dir.clone(), rig.options.state_dir.with_file_name("fresh"));
        let (cached, left) = (cache.join("data/00/7700"), fresh.join("overlay/00/8800"));
        rig.crash_with(|o| {
            std::fs::remove_file(cache.join("mark")).unwrap();
            std::fs::write(&cached, "of nobody").unwrap();
            std::fs::create_dir_all(left.parent().unwrap()).unwrap();
            std::fs::write(&left, "somebody's").unwrap();
            o.state_dir = fresh.clone();
        });
        assert!(!cached.exists() && left.exists());
    }

    /// A kill between the move of a local file to the overlay and its row in the database shows no zeros.
    a_kill_while_a_file_moves_to_the_overlay_shows_no_zeros(rig) {
        let data = noise(7, 3 << 20);
        rig.remote("bob", "f", &data).await;
        assert!(rig.cat("f").await == data);
        let ino = rig.ino("f");
        let at = |top: &std::path::Path| top.join(format!("{:02x}", ino & 0xff)).join(format!("{ino:x}"));
        std::fs::rename(at(&rig.options.cache_dir.join("data")), at(&rig.options.state_dir.join("overlay"))).unwrap();
        rig.crash();
        rig.store.set(vec![Rule::new(Mode::Down)]);
        assert!(rig.cat("f").await == data);
        rig.store.clear();
    }

    /// A remote version arrives like a rename over the name: who has the old one open for reading keeps its bytes.
    a_remote_version_leaves_open_readers_their_bytes(rig) {
        let old = noise(8, 3 << 20);
        rig.remote("bob", "f", &old).await;
        let ino = rig.ino("f");
        let fh = rig.open_ro("f");
        rig.remote("bob", "f", b"new").await;
        assert_ne!(rig.ino("f"), ino);
        assert_eq!(rig.text("f").await, "new");
        assert!(rig.read_fh(fh, 0, old.len()).await.unwrap() == old);
        assert_eq!(rig.getattr(ino).unwrap().nlink, 0);
        rig.release(fh).unwrap();
        assert_eq!(rig.getattr(ino).unwrap_err().kind(), ErrorKind::Stale);
    }

    /// A file that is open for writing keeps its name; what was written becomes a sibling, the remote version shows.
    a_remote_version_under_a_writer_makes_a_conflict(rig) {
        let v1 = rig.remote("bob", "f.md", b"one").await;
        let ino = rig.ino("f.md");
        let fh = rig.open_rw("f.md");
        rig.write(fh, 0, b"mine", false).unwrap();
        rig.remote("bob", "f.md", b"two").await;
        assert_eq!((rig.ino("f.md"), rig.text("f.md").await), (ino, "mine".into()));
        check_rows(&rig, None);
        rig.release(fh).unwrap();
        // `ann` < `bob`: ours has the name, and keeps its number.
        assert_eq!(rig.ls(""), ["f.conflict-bob.md", "f.md"]);
        assert_eq!((rig.ino("f.md"), rig.text("f.md").await), (ino, "mine".into()));
        assert_eq!(rig.text("f.conflict-bob.md").await, "two");
        let sib = rig.ino("f.conflict-bob.md");
        rig.crash();
        assert_eq!((rig.ino("f.conflict-bob.md"), rig.ino("f.md")), (sib, ino));
        assert!(rig.entry("f.md").heads.iter().all(|h| h.vclock.covers(&v1.vclock)));
        // `rm sibling` ends the conflict.
        rig.rm("f.conflict-bob.md").unwrap();
        assert_eq!(rig.ls(""), ["f.md"]);
        assert_eq!((rig.ino("f.md"), rig.entry("f.md").live().count()), (ino, 1));
    }

    /// `mv sibling path` takes the sibling's content as the path's, and the conflict is over.
    moving_a_sibling_onto_its_path_resolves(rig) {
        rig.put("f", b"mine");
        rig.remote_blind("bob", "f", b"theirs").await;
        let sib = rig.ino("f.conflict-bob");
        rig.mv("f.conflict-bob", "f").unwrap();
        assert_eq!((rig.ls(""), rig.text("f").await, rig.ino("f")), (vec!["f".into()], "theirs".into(), sib));
        assert_eq!(rig.entry("f").heads.len(), 1);
    }

    /// Removing the path while siblings are shown gives the name to the next; its old name still works for a while.
    removing_the_path_promotes_the_sibling(rig) {
        rig.put("f", b"mine");
        rig.remote_blind("bob", "f", b"theirs").await;
        rig.remote_blind("cat", "f", b"hers").await;
        assert_eq!(rig.ls(""), ["f", "f.conflict-bob", "f.conflict-cat"]);
        let bob = rig.ino("f.conflict-bob");
        rig.rm("f").unwrap();
        assert_eq!(rig.ls(""), ["f", "f.conflict-cat"]);
        assert_eq!((rig.ino("f"), rig.ino("f.conflict-bob")), (bob, bob));
        rig.mv("f.conflict-bob", "f").unwrap();
        rig.rm("f.conflict-bob").unwrap();
        assert_eq!(rig.ls(""), ["f"]);
        assert_eq!(rig.text("f").await, "hers");
        rig.rm("f").unwrap();
        assert!(rig.ls("").is_empty());
    }

    /// A sibling moved elsewhere, also onto another sibling's name, is an ordinary file there.
    a_sibling_moved_away_is_an_ordinary_file(rig) {
        rig.put("f", b"mine");
        rig.remote_blind("bob", "f", b"theirs").await;
        rig.remote_blind("cat", "f", b"hers").await;
        rig.mv("f.conflict-cat", "f.conflict-bob").unwrap();
        assert_eq!(rig.ls(""), ["f", "f.conflict-bob"]);
        assert_eq!(rig.text("f.conflict-bob").await, "hers");
        assert_eq!((rig.entry("f").live().count(), rig.entry("f.conflict-bob").live().count()), (1, 1));
        check_rows(&rig, None);
        // A real file has the sibling's name now: the next one takes another.
        rig.remote_blind("bob", "f", b"again").await;
        rig.remote("bob", "g", b"").await;
        assert_eq!(rig.ls(""), ["f", "f.conflict-bob", "g"]);
    }

    /// A real file that arrives under a sibling's name keeps that name; the sibling takes another, also while it is open.
    regression_a_real_file_takes_a_siblings_name(rig) {
        rig.put("f", b"mine");
        rig.remote_blind("bob", "f", b"theirs").await;
        let sib = rig.ino("f.conflict-bob");
        let fh = rig.open_rw("f.conflict-bob");
        rig.write(fh, 0, b"edited", false).unwrap();
        rig.remote("cat", "f.conflict-bob", b"real").await;
        assert_eq!(rig.text("f.conflict-bob").await, "real");
        assert_eq!((rig.ino("f.conflict-bob-2"), rig.text("f.conflict-bob-2").await), (sib, "edited".into()));
        check_rows(&rig, None);
        rig.release(fh).unwrap();
        assert_eq!(rig.ino("f.conflict-bob-2"), sib);
        assert_eq!(rig.ls(""), ["f", "f.conflict-bob", "f.conflict-bob-2"]);
    }

    /// A sibling does not take a name under which tombstones lie: they would be forgotten.
    regression_a_sibling_leaves_tombstones_their_name(rig) {
        rig.put("f.conflict-bob", b"real");
        rig.rm("f.conflict-bob").unwrap();
        rig.put("f", b"mine");
        rig.remote_blind("bob", "f", b"theirs").await;
        assert_eq!(rig.ls(""), ["f", "f.conflict-bob-2"]);
        assert!(rig.entry("f.conflict-bob").heads[0].is_tombstone());
    }

    /// Writing a sibling writes a new version of that head; a conflict of a conflict does not exist.
    writing_a_sibling_replaces_that_head(rig) {
        rig.put("f", b"mine");
        rig.remote_blind("bob", "f", b"theirs").await;
        let fh = rig.open_file(rig.ino("f.conflict-bob"), true, true).unwrap().fh;
        rig.write(fh, 0, b"better", false).unwrap();
        rig.release(fh).unwrap();
        assert_eq!(rig.ls(""), ["f", "f.conflict-bob"]);
        assert_eq!((rig.text("f").await, rig.text("f.conflict-bob").await), ("mine".into(), "better".into()));
        rig.put("f", b"newer");
        assert_eq!((rig.text("f").await, rig.text("f.conflict-bob").await), ("newer".into(), "better".into()));
    }

    /// What was written into a sibling is kept when another machine resolved it away meanwhile.
    regression_an_open_sibling_that_was_resolved_is_sealed(rig) {
        rig.put("f", b"mine");
        rig.remote_blind("bob", "f", b"theirs").await;
        let seen = rig.entry("f");
        let fh = rig.open_rw("f.conflict-bob");
        rig.write(fh, 0, b"edited", false).unwrap();
        let all = rig.version_of("cat", "f", &seen, b"x").await;
        // `cat` accepts both and keeps its own.
        let mut both = all.clone();
        seen.heads.iter().for_each(|h| both.vclock.merge(&h.vclock));
        both.wrote = both.vclock.clone();
        rig.arrive(&both);
        rig.release(fh).unwrap();
        let mut texts = Vec::new();
        for n in rig.ls("") {
            texts.push(rig.text(&n).await);
        }
        texts.sort();
        assert_eq!(texts, ["edited", "x"]);
    }

    /// `rm` and `mv` of a file that is open for writing leave alone what arrived under its name and was not shown.
    regression_what_was_not_shown_is_not_removed(rig) {
        for op in ["rm", "mv", "over", "chmod"] {
            let p = format!("f-{op}");
            rig.remote("bob", &p, b"one").await;
            let fh = rig.open_rw(&p);
            rig.remote("bob", &p, b"two").await;
            match op {
                "rm" => rig.rm(&p).unwrap(),
                "mv" => rig.mv(&p, "elsewhere").unwrap(),
                "over" => {
                    rig.put("t", b"three");
                    rig.mv("t", &p).unwrap();
                }
                _ => {
                    rig.chmod(&p, 0o600);
                }
            }
            rig.release(fh).unwrap();
            check_rows(&rig, None);
            let mut all = Vec::new();
            for n in rig.ls("").into_iter().filter(|n| n.starts_with(&p)) {
                all.push(rig.text(&n).await);
            }
            assert!(all.contains(&"two".to_owned()), "{op}: {all:?}");
            if op == "mv" {
                assert_eq!(rig.text("elsewhere").await, "one");
            }
        }
    }

    /// A new file that is not closed yet keeps what another machine made under its name, whatever is done with it.
    regression_an_unsealed_new_file_moves_without_taking_another_along(rig) {
        let (_, fh) = rig.create_open("new").unwrap();
        rig.write(fh, 0, b"mine", false).unwrap();
        rig.remote_blind("bob", "new", b"theirs").await;
        rig.mv("new", "target").unwrap();
        rig.release(fh).unwrap();
        assert_eq!((rig.text("new").await, rig.text("target").await), ("theirs".into(), "mine".into()));
        assert_eq!((rig.entry("new").heads.len(), rig.entry("target").heads.len()), (1, 1));
    }

    /// A remote delete under an open writer does not take the file away: an edit beside a delete stays.
    a_remote_delete_under_a_writer_keeps_the_edit(rig) {
        rig.remote("bob", "d/f", b"one").await;
        let fh = rig.open_rw("d/f");
        rig.write(fh, 0, b"edit", false).unwrap();
        rig.arrive(&rig.tombstone_of("bob", "d/f", &rig.entry("d/f")));
        assert!(rig.has("d/f"));
        rig.release(fh).unwrap();
        assert_eq!(rig.text("d/f").await, "edit");
        // And a delete of what nobody has open takes it and its directory away.
        rig.remote("bob", "e/g", b"one").await;
        rig.arrive(&rig.tombstone_of("bob", "e/g", &rig.entry("e/g")));
        assert!(!rig.has("e"));
    }

    /// Removing the last file of a directory that no version makes exist keeps the directory, without it blinking.
    regression_a_directory_keeps_existing_without_its_last_child(rig) {
        rig.remote("bob", "p/d/f", b"1").await;
        rig.remote("bob", "p/e/sub/g", b"1").await;
        let (d, e) = (rig.resolve("p/d").unwrap(), rig.resolve("p/e").unwrap());
        rig.rm("p/d/f").unwrap();
        rig.mv("p/e/sub", "moved").unwrap();
        let (d2, e2) = (rig.resolve("p/d").unwrap(), rig.resolve("p/e").unwrap());
        assert_eq!((d.ino, d.generation, e.ino, e.generation), (d2.ino, d2.generation, e2.ino, e2.generation));
        assert!(rig.entry("p/d").heads[0].is_dir() && rig.entry("p/e").heads[0].is_dir());
        rig.rmd("p/d").unwrap();
        rig.rmd("p/e").unwrap();
        assert!(rig.has("p"));
        rig.rmd("p").unwrap();
        assert_eq!(rig.ls(""), ["moved"]);
    }

    /// A directory keeps its name against a file, which stands beside it and goes along when the directory moves.
    a_directory_keeps_its_name_against_a_file(rig) {
        rig.mkdirp("c");
        rig.put("c/x", b"x");
        rig.remote_blind("bob", "c", b"file").await;
        assert_eq!(rig.ls(""), ["c", "c.conflict-bob"]);
        let (dir, file) = (rig.ino("c"), rig.ino("c.conflict-bob"));
        rig.mv("c", "e").unwrap();
        check_rows(&rig, None);
        assert_eq!(rig.ls(""), ["e", "e.conflict-bob"]);
        assert_eq!((rig.ino("e"), rig.ino("e.conflict-bob")), (dir, file));
        assert_eq!((rig.text("e/x").await, rig.text("e.conflict-bob").await), ("x".into(), "file".into()));
        rig.put("f", b"f");
        rig.mkdirp("empty");
        assert_eq!(rig.mv("empty", "e").unwrap_err().kind(), ErrorKind::NotEmpty);
        rig.rm("e/x").unwrap();
        assert_eq!(rig.mv("empty", "e").unwrap_err().kind(), ErrorKind::NotEmpty);
        assert_eq!(rig.ls(""), ["e", "e.conflict-bob", "empty", "f"]);
    }

    /// A conflict inside a directory that moves is a conflict at its new place, with the same files.
    a_conflict_moves_with_its_directory(rig) {
        rig.mkdirp("d");
        rig.put("d/f", b"mine");
        rig.remote_blind("bob", "d/f", b"theirs").await;
        let (a, b) = (rig.ino("d/f"), rig.ino("d/f.conflict-bob"));
        rig.mv("d", "e").unwrap();
        assert_eq!((rig.ino("e/f"), rig.ino("e/f.conflict-bob")), (a, b));
        assert_eq!(rig.text("e/f.conflict-bob").await, "theirs");
        assert_eq!((rig.entry("e/f").live().count(), rig.entry("d/f").live().count()), (2, 0));
    }

    /// An emptied file that moves in conflict is shown as every other device shows it.
    regression_an_emptied_file_in_conflict_moves_as_others_see_it(rig) {
        rig.mkdirp("d");
        rig.put("d/f", b"mine");
        rig.remote_blind("bob", "d/f", b"theirs").await;
        rig.truncate(rig.ino("d/f"), 0).unwrap();
        assert_eq!(rig.ls("d"), ["f", "f.conflict-bob"]);
        rig.mv("d", "e").unwrap();
        check_rows(&rig, None);
        assert_eq!((rig.ls("e"), rig.text("e/f").await), (vec!["f".to_owned()], "theirs".into()));
    }

    /// While a sibling is open for writing, a rename of the path takes along what the path shows, not what arrived.
    regression_a_rename_beside_an_open_sibling_moves_what_is_shown(rig) {
        rig.remote("bob", "f", b"one").await;
        rig.remote_blind("cat", "f", b"two").await;
        let fh = rig.open_rw("f.conflict-cat");
        let seen = rig.version_of("bob", "f", &rig.entry("f"), b"three").await;
        rig.arrive(&seen);
        rig.mv("f", "g").unwrap();
        rig.release(fh).unwrap();
        check_rows(&rig, None);
        assert_eq!((rig.text("g").await, rig.text("f").await), ("one".into(), "three".into()));
    }

    /// A file of the fleet takes the name of a local-only file, which goes on under another one; a delete does not.
    local_only_files_make_room_only_for_what_is_shown(rig) {
        rig.put("x.swp", b"junk");
        let seen = rig.version_of("bob", "x.swp", &Entry::default(), b"real").await;
        let gone = rig.tombstone_of("bob", "x.swp", &Entry::of([seen]));
        rig.arrive(&gone);
        assert_eq!((rig.ls(""), rig.text("x.swp").await), (vec!["x.swp".into()], "junk".into()));
        rig.remote("bob", "x.swp", b"real").await;
        assert_eq!(rig.ls(""), ["x.swp", "x.swp.local-only"]);
        assert_eq!((rig.text("x.swp").await, rig.text("x.swp.local-only").await), ("real".into(), "junk".into()));
        rig.mkdirp(".git");
        rig.put(".git/HEAD", b"ref");
        rig.remote("bob", ".git/config", b"c").await;
        assert_eq!((rig.text(".git/config").await, rig.text(".git.local-only/HEAD").await), ("c".into(), "ref".into()));
        assert_eq!(rig.getattr(ROOT).unwrap().nlink, 4);
    }

    /// Hard links: a remote version of one name takes only that name away; the others stay one file.
    a_remote_version_splits_a_hard_link(rig) {
        let f = rig.put("f", b"1");
        rig.ln("f", "g").unwrap();
        rig.remote("bob", "g", b"2").await;
        assert_eq!((rig.ino("f"), rig.text("f").await, rig.text("g").await), (f, "1".into(), "2".into()));
        assert_eq!(rig.resolve("f").unwrap().nlink, 1);
        rig.put("f", b"3");
        assert_eq!((rig.text("f").await, rig.text("g").await), ("3".into(), "2".into()));
    }

    /// A remote change of mode or time is shown on the same file, also while it is open and being hydrated.
    a_remote_change_of_metadata_keeps_the_file(rig) {
        let data = noise(9, 3 << 20);
        let v = rig.remote("bob", "f", &data).await;
        let ino = rig.ino("f");
        let fh = rig.open_ro("f");
        rig.read_fh(fh, 0, 10).await.unwrap();
        let mut touched = v.clone();
        touched.vclock.set("bob-00000002", v.vclock.get("bob-00000002") + 1);
        (touched.mode, touched.mtime) = (0o100755, (77, 0));
        rig.arrive(&touched);
        rig.read_fh(fh, 2 << 20, 10).await.unwrap();
        rig.release(fh).unwrap();
        let a = rig.resolve("f").unwrap();
        assert_eq!((a.ino, a.mode, a.mtime.sec), (ino, 0o755, 77));
    }

    /// Bytes are dropped only of what is published, clean, not open and not pinned.
    only_clean_closed_and_unpinned_files_are_dropped(rig) {
        let data = noise(10, 3 << 20);
        rig.remote("bob", "d/f", &data).await;
        let ino = rig.ino("d/f");
        assert_eq!(rig.drop_bytes(ino).unwrap(), Dropped::WasStub);
        assert!(rig.cat("d/f").await == data);
        assert_eq!(rig.cache_use().bytes, data.len() as u64);
        let fh = rig.open_ro("d/f");
        assert!(matches!(rig.drop_bytes(ino).unwrap(), Dropped::Kept("open")));
        rig.release(fh).unwrap();
        rig.pin(&common::path("d"), true).unwrap();
        assert!(matches!(rig.drop_bytes(ino).unwrap(), Dropped::Kept("pinned")));
        rig.pin(&common::path("d"), false).unwrap();
        assert_eq!(rig.drop_bytes(ino).unwrap(), Dropped::Freed(data.len() as u64));
        assert_eq!((rig.cache_use().bytes, rig.resolve("d/f").unwrap().size), (0, data.len() as u64));
        assert!(rig.cat("d/f").await == data);
        let fh = rig.open_rw("d/f");
        rig.write(fh, 0, b"x", false).unwrap();
        rig.release(fh).unwrap();
        assert!(matches!(rig.drop_bytes(ino).unwrap(), Dropped::Kept(_)));
        let own = rig.put("own", b"x");
        rig.put(".x.swp", b"y");
        assert!(matches!(rig.drop_bytes(own).unwrap(), Dropped::Kept(_)));
        assert!(matches!(rig.drop_bytes(rig.ino(".x.swp")).unwrap(), Dropped::Kept(_)));
    }

    /// The cache stays under its cap by dropping what was used longest ago.
    a_full_cache_drops_the_least_recently_used(rig) {
        rig.crash_with(|o| o.cache_max = 7 << 20);
        for i in 0..4 {
            rig.remote("bob", &format!("f{i}"), &noise(20 + i, 3 << 20)).await;
        }
        for i in [0, 1, 0, 2] {
            assert!(rig.cat(&format!("f{i}")).await == noise(20 + i, 3 << 20));
        }
        rig.crash();
        assert!(rig.cat("f3").await == noise(23, 3 << 20));
        rig.evict().await;
        assert!(rig.cache_use().bytes <= 7 << 20, "{:?}", rig.cache_use());
        assert!(local(&rig, rig.ino("f3")).is_some());
    }
}

/// In `interactive` mode a device keeps its own head under the name; in `defer` siblings are not listed until asked for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conflict_modes_show_what_they_promise() {
    for mode in [ConflictMode::Interactive, ConflictMode::Defer] {
        let rig = Rig::with(|o| o.conflict_mode = mode);
        rig.put("f", b"mine");
        // `abe` would have the name in `auto`.
        rig.remote_blind("abe", "f", b"theirs").await;
        check_rows(&rig, None);
        assert_eq!(rig.text("f").await, "mine");
        if mode == ConflictMode::Interactive {
            assert_eq!(rig.ls(""), ["f", "f.conflict-abe"]);
            rig.rm("f.conflict-abe").unwrap();
            assert_eq!((rig.ls(""), rig.entry("f").live().count()), (vec!["f".to_owned()], 1));
        } else {
            assert_eq!(rig.ls(""), ["f"]);
            rig.put("f", b"newer");
            assert_eq!(rig.entry("f").live().count(), 2);
            rig.rm("f").unwrap();
            assert_eq!((rig.ls("").len(), rig.entry("f").live().count()), (0, 0));
        }
        check_rows(&rig, None);
    }
    let rig = Rig::new();
    rig.put("f", b"mine");
    rig.remote_blind("abe", "f", b"theirs").await;
    assert_eq!((rig.text("f").await, rig.ls("")), ("theirs".into(), vec!["f".into(), "f.conflict-ann".into()]));
    assert_eq!(rig.entry("f").live().map(|h| h.device_id.clone()).collect::<Vec<_>>()[1], ME);
}

/// Any mix of writes, truncations, holes, reads and kills over a file that is elsewhere reads as one byte vector.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_writes_over_a_stub_read_as_one_vector() {
    for seed in 0..6 {
        let mut rig = Rig::new();
        let random: Arc<ManualClock> = ManualClock::new(0, 100 + seed);
        let pick = |n: u64| random.random() % n;
        let mut want = noise(seed, 9 << 20);
        rig.remote("bob", "f", &want).await;
        let ino = rig.ino("f");
        let mut fh = rig.open_rw("f");
        let mut log = Vec::new();
        for step in 0..60 {
            let off = pick(want.len() as u64 + (1 << 18));
            let len = [1, 100, 70_000, 1 << 20, 3 << 20][pick(5) as usize];
            let what = pick(9);
            log.push((what, off, len));
            match what {
                0..3 => {
                    let data = noise(1000 * seed + step, len);
                    rig.write(fh, off, &data, false).unwrap();
                    want.resize(want.len().max(off as usize + len), 0);
                    want[off as usize..off as usize + len].copy_from_slice(&data);
                }
                3 => {
                    rig.truncate(ino, off).unwrap();
                    want.resize(off as usize, 0);
                }
                4 if (off as usize) < want.len() => {
                    let keep = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
                    rig.fallocate(fh, off, len as u64, keep).unwrap();
                    let end = want.len().min(off as usize + len);
                    want[off as usize..end].fill(0);
                }
                5 | 6 => {
                    let end = want.len().min(off as usize + len);
                    let part = &want[(off as usize).min(end)..end];
                    assert!(rig.read_fh(fh, off, len).await.unwrap() == part, "seed {seed}: {log:?}");
                }
                7 => {
                    rig.flush(fh).unwrap();
                    rig.release(fh).unwrap();
                    fh = rig.open_rw("f");
                }
                8 if pick(2) == 0 => {
                    rig.crash();
                    fh = rig.open_rw("f");
                }
                _ => {}
            }
            assert_eq!(rig.getattr(ino).unwrap().size, want.len() as u64, "seed {seed}: {log:?}");
        }
        rig.release(fh).unwrap();
        // What is not dirty is what was published there.
        let l = local(&rig, ino).unwrap();
        let old = noise(seed, 9 << 20);
        for gap in l.dirty.gaps(0..want.len() as u64) {
            let r = gap.start as usize..gap.end as usize;
            assert!(old.get(r.clone()) == Some(&want[r.clone()]), "seed {seed}: {r:?} is not dirty: {log:?}");
        }
        assert!(rig.cat("f").await == want, "seed {seed}: {log:?}");
        check_rows(&rig, None);
    }
}

//! Operations one by one: what they accept, what they write, what they refuse. Rows of the table of conflicts are in
//! `conflicts.rs`; here is what a table of two devices does not show.

#![allow(clippy::unwrap_used)]

#[path = "common/fleet.rs"]
mod fleet;

use fleet::{Device, World, describe, file, path, settle};
use std::collections::BTreeMap;
use tcfs::ErrorKind;
use tcfs::model::coalesce::coalesce;
use tcfs::model::ops::{self, At, AttrChange, Attrs, stamp};
use tcfs::model::reissue::Reissue;
use tcfs::model::resolve::{Keep, resolve};
use tcfs::model::sibling::sibling_names;
use tcfs::model::vclock::COUNTER_MAX;
use tcfs::model::{Accepted, Author, ConflictMode, Entry, FileContent, Hash, Kind, Target, VClock, Version, View, view};

fn by(name: &str) -> Author {
    Author { device_id: format!("{name}-1"), device_name: name.into(), now_ms: 0 }
}

fn create(p: &str, kind: Kind, who: &str) -> Version {
    ops::write(&path(p), &Entry::new(), &Accepted::nothing(), kind, Attrs { mode: 0o644, ..Attrs::default() }, &by(who)).unwrap()
}

fn show(e: &Entry) -> View<'_> {
    view(e, false, ConflictMode::Auto, "x-1").unwrap()
}

/// `f` in conflict: `a` by ann has the name, `b` by bob is the sibling.
fn conflict() -> Entry {
    Entry::of([create("f", file("a"), "ann"), create("f", file("b"), "bob")])
}

fn texts<'a>(versions: impl IntoIterator<Item = &'a Version>) -> Vec<String> {
    versions.into_iter().map(describe).collect()
}

#[test]
fn stamp_starts_a_new_actor_for_each_own_head_that_was_not_accepted() {
    let mut e = Entry::new();
    for expected in ["ann-1", "ann-1.2", "ann-1.3"] {
        let v = ops::write(&path("f"), &e, &Accepted::nothing(), file(expected), Attrs::default(), &by("ann")).unwrap();
        assert_eq!(v.actor, expected);
        e.merge(v);
    }
    assert_eq!(e.heads.len(), 3);
    let over_second = e.heads.iter().find(|v| v.actor == "ann-1.2").unwrap().vclock.clone();
    assert_eq!(stamp(&e, &over_second, &by("ann")).unwrap().0, "ann-1.2");
    let (actor, clock) = stamp(&e, &e.clock(), &by("ann")).unwrap();
    assert_eq!((actor.as_str(), clock.get("ann-1"), clock.get("ann-1.3")), ("ann-1", 2, 1));
}

#[test]
fn stamp_refuses_a_counter_at_its_end_instead_of_wrapping() {
    let full: VClock = [("ann-1", COUNTER_MAX)].into_iter().collect();
    let e = stamp(&Entry::new(), &full, &by("ann")).unwrap_err();
    assert!(e.kind() == ErrorKind::Invalid && e.hint_text().is_some(), "{e}");
    let last: VClock = [("ann-1", COUNTER_MAX - 1)].into_iter().collect();
    assert!(stamp(&Entry::new(), &last, &by("ann")).unwrap().1.check().is_ok());
}

#[test]
fn seal_covers_what_was_there_at_open_and_not_what_came_since() {
    let mut e = Entry::of([create("f", file("old"), "xen")]);
    let opened = Accepted::to_write(&show(&e), Target::Path);
    let theirs = ops::write(&path("f"), &e, &opened, file("theirs"), Attrs::default(), &by("bob")).unwrap();
    e.merge(theirs);
    let ours = ops::write(&path("f"), &e, &opened, file("ours"), Attrs::default(), &by("ann")).unwrap();
    assert_eq!(ours.base, Some(create("f", file("old"), "xen").content_id()));
    e.merge(ours.clone());
    assert_eq!(texts(show(&e).visible()), ["F:ours", "F:theirs"]);

    // The same handle goes on and is sealed again: it replaces its own version, still not theirs.
    let again = ops::write(&path("f"), &e, &opened.after(&ours), file("ours2"), Attrs::default(), &by("ann")).unwrap();
    assert_eq!((again.actor.as_str(), again.base), ("ann-1", Some(ours.content_id())));
    e.merge(again);
    assert_eq!(texts(show(&e).visible()), ["F:ours2", "F:theirs"]);
}

#[test]
fn accepted_survives_the_database() {
    let accepted = Accepted::to_write(&show(&conflict()), Target::Sibling(0));
    let row = postcard::to_stdvec(&accepted).unwrap();
    assert_eq!(postcard::from_bytes::<Accepted>(&row).unwrap(), accepted);
}

#[test]
fn late_close_of_a_file_moved_away_meanwhile_follows_it() {
    let mut w = World::default();
    let mut devices: Vec<Device> = ["ann", "bob"].iter().map(|n| w.device(n, ConflictMode::Auto)).collect();
    devices[0].write(&mut w, "f", file("old"));
    settle(&mut w, &mut devices);
    let bob = &devices[1];
    let opened = bob.with_view("f", |v| Accepted::to_write(v, Target::Path)).unwrap();
    devices[0].mv(&mut w, "f", "g");
    settle(&mut w, &mut devices);

    let bob = &mut devices[1];
    let author = Author { device_id: bob.id.clone(), device_name: "bob".into(), now_ms: 99 };
    let late = ops::write(&path("f"), &bob.entry(&path("f")), &opened, file("late"), Attrs::default(), &author).unwrap();
    // What applying does for tombstones that arrive, sealing does for those that are there.
    let moves: Vec<Version> = bob.entry(&path("f")).tombstones().filter(|t| t.moved_to.is_some()).cloned().collect();
    bob.entries.get_mut(&path("f")).unwrap().merge(late);
    assert_eq!(moves.len(), 1);
    struct At<'a>(&'a Device);
    impl tcfs::model::heal::Lookup for At<'_> {
        fn entry(&self, p: &tcfs::model::RelPath) -> Option<Entry> {
            self.0.entries.get(p).cloned()
        }
        fn below(&self, _: &tcfs::model::RelPath) -> Vec<tcfs::model::RelPath> {
            vec![]
        }
    }
    let healed = tcfs::model::heal::heal(&moves[0], &At(bob), &author).unwrap();
    assert_eq!(healed.len(), 2);
    for v in healed {
        bob.entries.entry(v.path.clone()).or_default().merge(v);
    }
    assert_eq!(bob.files(), BTreeMap::from([("g".to_owned(), "late".to_owned())]));
}

#[test]
fn rename_over_a_sibling_is_a_write_of_that_sibling() {
    let e = conflict();
    let temporary = Entry::of([create("t", file("b2"), "cat")]);
    let over = Accepted::to_write(&show(&e), Target::Sibling(0));
    let (t, f) = (path("t"), path("f"));
    let out = ops::rename(At { path: &t, entry: &temporary }, &show(&temporary), At { path: &f, entry: &e }, &over, &by("cat")).unwrap();
    assert_eq!(out.iter().map(|v| v.path.as_str()).collect::<Vec<_>>(), ["f", "t"]);
    let mut after = e;
    after.merge(out[0].clone());
    assert_eq!(texts(show(&after).visible()), ["F:a", "F:b2"]);
    assert_eq!(out[0].place().0, "bob");
}

#[test]
fn rename_takes_mode_time_and_attributes_along() {
    let attrs = Attrs { mode: 0o750, mtime: (5, 6), xattrs: BTreeMap::from([("user.a".into(), "eA==".into())]) };
    let v = ops::write(&path("f"), &Entry::new(), &Accepted::nothing(), file("x"), attrs, &by("ann")).unwrap();
    let e = Entry::of([v.clone()]);
    let (f, g) = (path("f"), path("g"));
    let nothing = Entry::new();
    let to = At { path: &g, entry: &nothing };
    let out = ops::rename(At { path: &f, entry: &e }, &show(&e), to, &Accepted::of_entry(&nothing), &by("bob")).unwrap();
    assert_eq!((out[0].mode, out[0].mtime, &out[0].xattrs), (0o100_750, (5, 6), &v.xattrs));
    assert_eq!(out[0].vclock.iter().collect::<Vec<_>>(), [("bob-1", 1)], "a clock never leaves its path");
    assert_eq!((out[1].moved_to.as_ref(), &out[1].wrote), (Some(&g), &v.vclock));
}

#[test]
fn chmod_of_one_head_is_exact_and_keeps_its_bytes() {
    let mut e = Entry::of([create("f", file("x"), "ann")]);
    let change = AttrChange { mode: Some(0o700), ..AttrChange::default() };
    let v = ops::set_attrs(&path("f"), &e, &show(&e), Target::Path, change, &by("bob")).unwrap();
    assert!(v.is_metadata_only() && v.base == Some(v.content_id()));
    e.merge(v);
    assert_eq!(show(&e).mode, 0o100_700);
}

#[test]
fn chmod_of_a_sibling_leaves_it_a_sibling() {
    let mut e = conflict();
    let change = AttrChange { mode: Some(0o600), ..AttrChange::default() };
    let v = ops::set_attrs(&path("f"), &e, &show(&e), Target::Sibling(0), change, &by("ann")).unwrap();
    e.merge(v);
    assert_eq!(texts(show(&e).visible()), ["F:a", "F:b"]);
    assert_eq!(show(&e).siblings[0].head.mode, 0o100_600);
    assert_eq!(show(&e).mode, 0o100_644);
}

#[test]
fn attributes_of_a_directory_without_a_version_give_it_one() {
    let e = Entry::new();
    let shown = view(&e, true, ConflictMode::Auto, "x-1").unwrap();
    assert_eq!((shown.mode, shown.is_dir, shown.shown), (0o040_755, true, None));
    let change = AttrChange { mode: Some(0o700), ..AttrChange::default() };
    let v = ops::set_attrs(&path("d"), &e, &shown, Target::Path, change, &by("ann")).unwrap();
    assert!(v.is_dir() && v.mode == 0o040_700);
}

#[test]
fn remove_where_siblings_are_not_shown_takes_every_head() {
    let mut e = conflict();
    let v = ops::remove_all(&path("f"), &e, &show(&e), &by("bob")).unwrap();
    e.merge(v);
    assert!(!e.is_live());
}

#[test]
fn operations_on_a_sibling_accept_the_empty_create_that_hides_beside_it() {
    let mut e = Entry::of([create("c", file("text"), "bob"), create("c", file(""), "cat"), create("c", Kind::Dir, "ann")]);
    assert_eq!(texts(show(&e).visible()), ["D", "F:text"]);
    let v = ops::remove(&path("c"), &e, &show(&e), Target::Sibling(0), &by("ann")).unwrap();
    e.merge(v);
    assert_eq!(texts(show(&e).visible()), ["D"], "the empty file does not come out from behind it");
}

#[test]
fn a_sibling_that_is_gone_is_not_found() {
    let e = Entry::of([create("f", file("x"), "ann")]);
    let gone = ops::remove(&path("f"), &e, &show(&e), Target::Sibling(0), &by("ann")).unwrap_err();
    assert_eq!(gone.kind(), ErrorKind::NotFound);
}

#[test]
fn bundles_are_one_unit_and_never_siblings() {
    let bundle = |text: &str| match file(text) {
        Kind::File(content) => Kind::Bundle { content, meta: BTreeMap::new() },
        _ => unreachable!(),
    };
    let mut e = Entry::of([create("r/.git", bundle("1"), "ann"), create("r/.git", bundle("2"), "bob")]);
    assert!(!show(&e).is_conflict());
    assert_eq!(show(&e).accepted.len(), 2, "the next bundle accepts every head");
    e.merge(create("r/.git", file("gitdir: ../x"), "cat"));
    assert_eq!(texts(show(&e).visible()), ["F:gitdir: ../x"]);
    assert_eq!(show(&e).accepted.len(), 1, "a file of that name swallows no repository");
}

fn content(root: &[u8], hash: Option<&[u8]>) -> Kind {
    Kind::File(FileContent { manifest: Hash::of(root), size: 9, root: Hash::of(root), chunks: None, hash: hash.map(Hash::of) })
}

#[test]
fn equal_by_root_here_and_by_hash_there_is_one_group() {
    // Cut differently but the same bytes; the third ties the two others together.
    let [a, b] = [create("f", content(b"r1", None), "ann"), create("f", content(b"r2", Some(b"h")), "bob")];
    assert_eq!(show(&Entry::of([a.clone(), b.clone()])).siblings.len(), 1);
    let tie = create("f", content(b"r1", Some(b"h")), "cat");
    let e = Entry::of([a, b, tie]);
    assert!(!show(&e).is_conflict());
    assert_eq!(show(&e).accepted.len(), 3);
}

type Count = (&'static str, u64);

/// Metadata-only heads with these bytes, clocks, and clocks of the bytes.
fn metadata_heads(heads: &[(&str, &[Count], Count)]) -> Entry {
    Entry::of(heads.iter().map(|(text, clock, wrote)| {
        let (vclock, wrote) = (clock.iter().copied().collect(), [*wrote].into_iter().collect());
        Version { vclock, wrote, ..create("f", file(text), clock[0].0.trim_end_matches("-1")) }
    }))
}

#[test]
fn heads_that_have_seen_each_others_bytes_hide_neither() {
    let one_way = metadata_heads(&[("a", &[("ann-1", 2)], ("ann-1", 1)), ("b", &[("bob-1", 2), ("ann-1", 1)], ("bob-1", 1))]);
    assert_eq!(texts(show(&one_way).visible()), ["F:b"], "b was written with a in view, a without b");
    let both = metadata_heads(&[
        ("a", &[("ann-1", 2), ("bob-1", 1)], ("ann-1", 1)),
        ("b", &[("bob-1", 2), ("ann-1", 1)], ("bob-1", 1)),
        ("c", &[("cat-1", 2)], ("cat-1", 1)),
    ]);
    assert_eq!(texts(show(&both).visible()), ["F:a", "F:b", "F:c"]);
    let ring = metadata_heads(&[
        ("a", &[("ann-1", 2), ("bob-1", 1)], ("ann-1", 1)),
        ("b", &[("bob-1", 2), ("cat-1", 1)], ("bob-1", 1)),
        ("c", &[("cat-1", 2), ("ann-1", 1)], ("cat-1", 1)),
    ]);
    assert_eq!(texts(show(&ring).visible()), ["F:a", "F:b", "F:c"]);
}

#[test]
fn cutting_fills_in_the_version_and_all_that_name_it_as_base() {
    let uncut = FileContent { manifest: Hash::ZERO, size: 1, root: Hash::of(b"token"), chunks: None, hash: None };
    let v = create("f", Kind::File(uncut), "ann");
    let mut e = Entry::of([v.clone()]);
    let mut tombstone = ops::remove(&path("f"), &e, &show(&e), Target::Path, &by("ann")).unwrap();
    let Kind::File(cut) = file("x") else { unreachable!() };
    let mut new = v.clone();
    assert!(new.is_uncut() && new.recut(&Hash::of(b"token"), &cut) && !new.is_uncut());
    assert!(tombstone.recut(&Hash::of(b"token"), &cut));
    assert_eq!(tombstone.base, Some(cut.root));
    assert!(!new.recut(&Hash::of(b"token"), &cut), "once");
    assert!(e.replace(&v, new.clone()) && e.heads == [new]);
}

#[test]
fn coalescing_joins_only_what_depends_on_each_other() {
    let mut w = World::default();
    let mut d = w.device("ann", ConflictMode::Auto);
    for (name, text) in [("x", "1"), ("f", "1"), ("g", "1"), ("f", "2"), ("y", "1")] {
        d.write(&mut w, name, file(text));
    }
    let out = coalesce(&d.outbox, &|_| false);
    let joins: Vec<_> = out.batches.iter().map(|b| b.joins.clone()).collect();
    assert_eq!(joins, [0..1, 1..4, 4..5]);
    assert_eq!(texts(&out.batches[1].versions), ["F:1", "F:2"], "g between the two writes of f, in order");
    assert_eq!(out.batches[1].versions[0].path, path("g"));
}

#[test]
fn coalescing_repoints_a_move_through_a_forgotten_name() {
    let mut w = World::default();
    let mut d = w.device("ann", ConflictMode::Auto);
    d.write(&mut w, "f", file("1"));
    d.publish(&mut w, 9, None);
    for (from, to) in [("f", "t"), ("t", "u"), ("u", "g")] {
        d.mv(&mut w, from, to);
    }
    d.publish(&mut w, 9, None);
    let published = w.published();
    let [_, moved, gone] = published.as_slice() else { panic!("{published:?}") };
    let (moved, gone) = if moved.is_tombstone() { (gone, moved) } else { (moved, gone) };
    assert_eq!((moved.path.as_str(), gone.path.as_str()), ("g", "f"));
    assert_eq!(gone.moved_to, Some(path("g")));
    assert_eq!(&d.entry(&path("f")).heads[..], std::slice::from_ref(gone), "the replica says the same");
    assert!(d.entry(&path("t")).is_empty() && d.entry(&path("u")).is_empty());
}

#[test]
fn reissue_moves_only_the_unpublished_part_of_own_counters() {
    let published: VClock = [("ann-1", 3), ("bob-1", 5)].into_iter().collect();
    let of = |_: &tcfs::model::RelPath, actor: &str| published.get(actor);
    let change = Reissue { old_id: "ann-1", new_id: "ann-9", published: &of, raised: &|_| 0 };
    let clock: VClock = [("ann-1", 5), ("ann-1.2", 1), ("ann-10", 4), ("bob-1", 7)].into_iter().collect();
    let moved = change.clock(&path("f"), &clock);
    let expected = [("ann-1", 3), ("ann-10", 4), ("ann-9", 2), ("ann-9.2", 1), ("bob-1", 7)];
    assert_eq!(moved.iter().collect::<Vec<_>>(), expected);

    let mut v = create("f", file("x"), "ann");
    (v.vclock, v.wrote, v.actor) = (clock.clone(), clock.clone(), "ann-1".into());
    let new = change.version(&v);
    assert_eq!((new.device_id.as_str(), new.actor.as_str(), &new.vclock, &new.wrote), ("ann-9", "ann-9", &moved, &moved));
    v.vclock = published.clone();
    assert_eq!(change.version(&v), v, "a published version is what it is");
    let accepted = Accepted { clock, ..Accepted::nothing() };
    assert_eq!(change.accepted(&path("f"), &accepted).clock, moved);
}

#[test]
fn resolve_refuses_what_makes_no_sense() {
    let (f, e) = (path("f"), conflict());
    let keep = |e: &Entry, implied, keep| {
        let shown = view(e, implied, ConflictMode::Auto, "ann-1").unwrap();
        let names = sibling_names("f", &shown, &|_| false);
        resolve(At { path: &f, entry: e }, &shown, &keep, &names, &|_| None, &by("ann"))
    };
    let e1 = keep(&e, false, Keep::Device("zoe".into())).unwrap_err();
    assert!(e1.kind() == ErrorKind::NotFound && e1.hint_text().unwrap().contains("ann, bob"), "{e1:?}");
    assert_eq!(keep(&Entry::of([create("f", file("x"), "ann")]), false, Keep::Local).unwrap(), [], "no conflict");
    // A directory has the name: a file cannot be kept in its place, but it can be dropped, or stay as a file.
    assert_eq!(keep(&e, true, Keep::Device("bob".into())).unwrap_err().kind(), ErrorKind::IsDir);
    let both = keep(&e, true, Keep::Both).unwrap();
    let paths: Vec<(&str, bool)> = both.iter().map(|v| (v.path.as_str(), v.is_tombstone())).collect();
    assert_eq!(paths, [("f.conflict-ann", false), ("f.conflict-bob", false), ("f", true), ("f", true)]);
    let mut after = e.clone();
    both.into_iter().filter(|v| v.path == f).for_each(|v| assert!(after.merge(v)));
    assert!(!after.is_live());
}

#[test]
fn sibling_names_avoid_real_files_and_each_other() {
    let mut e = conflict();
    let bob2 = ops::write(&path("f"), &e, &Accepted::nothing(), file("b2"), Attrs::default(), &by("bob")).unwrap();
    e.merge(bob2);
    assert_eq!(sibling_names("f.md", &show(&e), &|_| false), ["f.conflict-bob.md", "f.conflict-bob-2.md"]);
    assert_eq!(sibling_names("f.md", &show(&e), &|n| n == "f.conflict-bob.md"), ["f.conflict-bob-2.md", "f.conflict-bob-3.md"]);
}

#[test]
fn conflict_modes_have_the_names_people_write() {
    for (mode, name) in [(ConflictMode::Auto, "auto"), (ConflictMode::Interactive, "interactive"), (ConflictMode::Defer, "defer")] {
        assert_eq!(name.parse::<ConflictMode>().unwrap(), mode);
        assert_eq!(serde_json::to_string(&mode).unwrap(), format!("{name:?}"));
    }
    assert!("ask".parse::<ConflictMode>().is_err());
}

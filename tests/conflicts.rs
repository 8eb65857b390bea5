//! The table of what two devices see after both have changed something: one test a row, on the in-memory fleet.
//!
//! Each row runs both ways round (who publishes first), with every operation published at once and after an offline
//! spell, with the common tree made by each device, and in random orders of delivery. After each: all devices have the
//! same heads and show the same tree, nothing published is lost, applying everything twice changes nothing, and a
//! restart (writing the state and reading it back) changes nothing.

#![allow(clippy::unwrap_used)]

#[path = "common/fleet.rs"]
mod fleet;

use fleet::{Device, World, check_rest, describe, file, link, path, settle, uid};
use std::collections::BTreeMap;
use tcfs::model::resolve::Keep;
use tcfs::model::{ConflictMode, Entry};

const ANN: usize = 0;
const BOB: usize = 1;
const CAT: usize = 2;
const XEN: usize = 3;

/// Each device's operations while they cannot hear each other, and what everybody shows afterwards.
struct Act {
    does: Vec<(usize, &'static str)>,
    shows: Shows,
}

/// `name=content` of all files and links; the check has the last word on what a table cannot say.
struct Shows {
    files: Option<&'static str>,
    check: fn(&Rig),
}

struct Rig {
    world: World,
    devices: Vec<Device>,
}

fn act(does: &[(usize, &'static str)], files: &'static str) -> Act {
    Act { does: does.to_vec(), shows: Shows { files: Some(files), check: |_| {} } }
}

fn act_and(does: &[(usize, &'static str)], files: &'static str, check: fn(&Rig)) -> Act {
    Act { does: does.to_vec(), shows: Shows { files: Some(files), check } }
}

fn act_checked(does: &[(usize, &'static str)], check: fn(&Rig)) -> Act {
    Act { does: does.to_vec(), shows: Shows { files: None, check } }
}

/// `write f text; rm f; mv a b; …` by one device. `online`: published after each.
fn run(w: &mut World, d: &mut Device, script: &str, online: bool) {
    for op in script.split(';').map(str::trim).filter(|s| !s.is_empty()) {
        let words: Vec<&str> = op.split(' ').collect();
        let word = |i: usize| words.get(i).copied().unwrap_or("");
        match word(0) {
            "write" => d.write(w, word(1), file(word(2))),
            "save" => d.save(w, word(1), file(word(2))),
            "link" => d.write(w, word(1), link(word(2))),
            "mkdir" => d.mkdir(w, word(1)),
            "rm" => d.rm(w, word(1)),
            "rmr" => d.rmr(w, word(1)),
            "mv" => d.mv(w, word(1), word(2)),
            "chmod" => d.chmod(w, word(1), Some(u32::from_str_radix(word(2), 8).unwrap()), None),
            "touch" => d.chmod(w, word(1), None, Some(word(2).parse().unwrap())),
            "keep-both" => d.keep(w, word(1), &Keep::Both),
            "keep-local" => d.keep(w, word(1), &Keep::Local),
            "keep-remote" => d.keep(w, word(1), &Keep::Remote),
            "keep" => d.keep(w, word(1), &Keep::Device(word(2).into())),
            other => panic!("unknown operation {other}"),
        }
        if online {
            d.publish(w, 99, None);
        }
    }
}

/// How the devices hear of each other.
#[derive(Clone, Copy, Debug)]
struct Way {
    bob_first: bool,
    online: bool,
    random: Option<u64>,
}

fn ways() -> Vec<Way> {
    let mut out = vec![];
    for bob_first in [false, true] {
        for online in [false, true] {
            out.extend([None, Some(1), Some(2), Some(3)].map(|random| Way { bob_first, online, random }));
        }
    }
    out
}

impl Rig {
    fn new() -> Rig {
        let mut world = World::default();
        let devices = ["ann", "bob", "cat", "xen"].map(|n| world.device(n, ConflictMode::Auto)).into();
        Rig { world, devices }
    }

    fn act(&mut self, act: &Act, way: Way) {
        let Rig { world, devices } = self;
        let order = if way.bob_first { [BOB, ANN, CAT, XEN] } else { [ANN, BOB, CAT, XEN] };
        for d in order {
            for (_, script) in act.does.iter().filter(|(who, _)| *who == d) {
                run(world, &mut devices[d], script, way.online);
            }
        }
        if let Some(seed) = way.random {
            let mut rng = fastrand::Rng::with_seed(seed);
            for _ in 0..30 {
                let d = rng.usize(0..devices.len());
                if rng.bool() {
                    devices[d].publish(world, 1, None);
                } else if let Some(o) = rng.choice(world.writers.clone()) {
                    let upto = devices[d].cursors.get(&o).copied().unwrap_or(0) + 1;
                    devices[d].apply_from(world, &o, Some(upto));
                }
            }
        } else {
            for d in order {
                devices[d].publish(world, 99, None);
                let id = devices[d].id.clone();
                devices.iter_mut().for_each(|e| e.apply_from(world, &id, None));
            }
        }
        self.rest();
    }

    /// Everybody has heard everything; what must always hold then, before and after a restart.
    fn rest(&mut self) {
        settle(&mut self.world, &mut self.devices);
        check_rest(&mut self.world, &mut self.devices);
        self.check_nothing_written_is_gone();
        let before = self.devices[ANN].tree();
        for d in &mut self.devices {
            let rows = postcard::to_stdvec(&d.entries.iter().collect::<Vec<_>>()).unwrap();
            let rows: Vec<(tcfs::model::RelPath, Entry)> = postcard::from_bytes(&rows).unwrap();
            assert_eq!(rows.iter().cloned().collect::<BTreeMap<_, _>>(), d.entries);
            d.entries = rows.into_iter().collect();
        }
        assert_eq!(self.devices[ANN].tree(), before);
    }

    /// What was never published was replaced or removed by the device that wrote it.
    fn check_nothing_written_is_gone(&self) {
        let published = self.world.published();
        for (u, v) in self.world.written.iter().filter(|(_, v)| !v.is_tombstone()) {
            let by_itself = || {
                let later = |(w, x): (&fleet::Uid, &tcfs::model::Version)| x.device_name == v.device_name && self.world.past(w).contains(u);
                self.world.written.iter().any(later)
            };
            assert!(published.iter().any(|p| uid(p) == *u) || by_itself(), "gone: {v:?}");
        }
    }

    fn attrs(&self, d: usize, p: &str) -> (u32, i64) {
        self.devices[d].with_view(p, |v| (v.mode & 0o7777, v.mtime.0)).unwrap()
    }

    /// Mode and seconds of `p`, the same on all devices.
    fn one_attrs(&self, p: &str) -> (u32, i64) {
        let one = self.attrs(ANN, p);
        assert!((0..4).all(|d| self.attrs(d, p) == one));
        one
    }

    fn dirs(&self) -> Vec<String> {
        self.devices[ANN].tree().into_iter().filter(|(_, t)| t == "D").map(|(n, _)| n).collect()
    }

    fn conflicts(&self) -> usize {
        let names = self.devices[ANN].names_as(ConflictMode::Auto);
        names.values().filter(|n| n.target != tcfs::model::Target::Path).count()
    }
}

fn text(files: &BTreeMap<String, String>) -> String {
    files.iter().map(|(n, c)| format!("{n}={c}")).collect::<Vec<_>>().join(" ")
}

/// Runs a row in every way; `setup` is the tree all start from.
fn row(setup: &str, acts: &[Act]) {
    for way in ways() {
        for maker in [XEN, ANN, BOB] {
            let mut rig = Rig::new();
            run(&mut rig.world, &mut rig.devices[maker], setup, false);
            rig.rest();
            for (n, a) in acts.iter().enumerate() {
                rig.act(a, way);
                let shown = text(&rig.devices[ANN].files());
                if let Some(files) = a.shows.files {
                    assert_eq!(shown, files, "act {n}, common tree by {maker}, {way:?}");
                }
                (a.shows.check)(&rig);
            }
        }
    }
}

fn both_wrote_f() -> Act {
    act(&[(ANN, "write f a"), (BOB, "write f b")], "f=a f.conflict-bob=b")
}

/// Rows 29 to 35: also with a third device doing what `who` does.
fn after_3(does: &[(usize, &'static str)], files: &'static str) {
    row("write f old", &[both_wrote_f(), act(does, files)]);
    for i in 0..does.len() {
        let mut third = does.to_vec();
        third[i].0 = CAT;
        row("write f old", &[both_wrote_f(), act(&third, files)]);
    }
}

#[test]
fn row_01_two_files_in_one_directory_are_no_conflict() {
    row("mkdir d", &[act(&[(ANN, "write d/c 1"), (BOB, "write d/e 2")], "d/c=1 d/e=2")]);
}

#[test]
fn row_02_the_same_directory_made_twice_merges() {
    row("", &[act(&[(ANN, "mkdir n; write n/a 1"), (BOB, "mkdir n; write n/b 2")], "n/a=1 n/b=2")]);
}

#[test]
fn row_03_both_write_shows_both() {
    row("write f old", &[both_wrote_f()]);
}

#[test]
fn row_04_both_create_shows_both() {
    row("", &[both_wrote_f()]);
}

#[test]
fn row_05_an_empty_create_hides() {
    row("", &[act(&[(ANN, "write f x"), (BOB, "write f")], "f=x"), act(&[(ANN, "rm f")], "")]);
    row("", &[act(&[(ANN, "write f"), (BOB, "write f x")], "f=x")]);
}

#[test]
fn row_06_equal_contents_are_one() {
    row("write f old", &[act(&[(ANN, "write f same"), (BOB, "write f same")], "f=same"), act(&[(ANN, "write f next")], "f=next")]);
}

#[test]
fn row_07_truncated_to_different_lengths() {
    row("write f old12", &[act(&[(ANN, "write f old1"), (BOB, "write f old")], "f=old1 f.conflict-bob=old")]);
}

#[test]
fn row_08_delete_beside_edit_keeps_the_edit() {
    row(
        "write f old",
        &[act_and(&[(ANN, "rm f"), (BOB, "write f b")], "f=b", |r| {
            let heads = r.devices[ANN].entry(&path("f")).heads;
            assert!(heads.iter().any(|v| v.is_tombstone() && v.device_name == "ann"), "history shows the delete");
        })],
    );
}

#[test]
fn row_09_write_and_delete_beside_edit() {
    row("write f old", &[act(&[(ANN, "write f a; rm f"), (BOB, "write f b")], "f=b")]);
}

#[test]
fn row_10_both_delete() {
    row("write f old", &[act(&[(ANN, "rm f"), (BOB, "rm f")], "")]);
}

#[test]
fn row_11_a_child_made_meanwhile_revives_its_parents_only() {
    row(
        "mkdir d; write d/x dx; write d/y dy",
        &[act_and(&[(ANN, "rmr d"), (BOB, "mkdir d/deep; write d/deep/n n")], "d/deep/n=n", |r| assert_eq!(r.dirs(), ["d", "d/deep"]))],
    );
}

#[test]
fn row_12_removed_whole_and_in_part() {
    row("mkdir d; write d/x dx; write d/y dy", &[act_and(&[(ANN, "rmr d"), (BOB, "rm d/x")], "", |r| assert!(r.dirs().is_empty()))]);
    row("mkdir d; write d/x dx", &[act_and(&[(ANN, "rmr d"), (BOB, "rm d/x")], "", |r| assert!(r.dirs().is_empty()))]);
}

#[test]
fn row_13_an_edit_follows_the_rename() {
    row("write f old", &[act(&[(ANN, "mv f g"), (BOB, "write f b")], "g=b")]);
    row("write f old", &[act(&[(ANN, "mv f g"), (BOB, "save f b")], "g=b")]);
    row("write f old", &[act(&[(ANN, "mv f g; mv g h"), (BOB, "write f b")], "h=b")]);
    row("write f old", &[act(&[(ANN, "mv f g; write g a2"), (BOB, "write f b")], "g=a2 g.conflict-bob=b")]);
    row(
        "write f old",
        &[act_checked(&[(ANN, "mv f g; write f new"), (BOB, "write f b")], |r| {
            // Bob's edit follows to `g` if he hears of the move by itself; else it is a conflict at `f`.
            let shown = text(&r.devices[ANN].files());
            assert!(["f=new g=b", "f=new f.conflict-bob=b g=old"].contains(&shown.as_str()), "{shown}");
        })],
    );
}

#[test]
fn row_14_a_new_file_follows_the_directory() {
    let no_d = |r: &Rig| assert!(r.dirs().iter().all(|n| n != "d"));
    let setup = "mkdir d; write d/x dx; write d/y dy";
    row(setup, &[act_and(&[(ANN, "mv d e"), (BOB, "write d/n n")], "e/n=n e/x=dx e/y=dy", no_d)]);
    row(setup, &[act_and(&[(ANN, "mv d e"), (BOB, "mkdir d/s; write d/s/n n")], "e/s/n=n e/x=dx e/y=dy", no_d)]);
    row(setup, &[act_and(&[(ANN, "mv d e"), (BOB, "write d/x n")], "e/x=n e/y=dy", no_d)]);
    // A directory that exists only through its children.
    row("write d/x dx", &[act_and(&[(ANN, "mv d e"), (BOB, "write d/n n")], "e/n=n e/x=dx", no_d)]);
    row("write d/x dx", &[act_and(&[(ANN, "write d/x 2; mv d e"), (BOB, "write d/n n")], "e/n=n e/x=2", no_d)]);
}

#[test]
fn row_15_renamed_to_two_names() {
    row("write f old", &[act(&[(ANN, "mv f g"), (BOB, "mv f h")], "g=old h=old")]);
}

#[test]
fn row_16_directory_renamed_to_two_names() {
    let no_d = |r: &Rig| assert_eq!(r.dirs(), ["e", "h"]);
    row("mkdir d; write d/x dx; write d/y dy", &[act_and(&[(ANN, "mv d e"), (BOB, "mv d h")], "e/x=dx e/y=dy h/x=dx h/y=dy", no_d)]);
}

#[test]
fn row_17_directories_moved_into_each_other() {
    row(
        "mkdir a; write a/1 a1; mkdir b; write b/1 b1",
        &[act_checked(&[(ANN, "mv b a/b"), (BOB, "mv a b/a")], |r| {
            let files = r.devices[ANN].files();
            for content in ["a1", "b1"] {
                let at = files.values().filter(|c| *c == content).count();
                assert!((1..=2).contains(&at), "{content} is at {at} paths: {files:?}");
            }
        })],
    );
}

#[test]
fn row_18_19_a_directory_keeps_the_name_against_a_file() {
    row(
        "",
        &[act(&[(ANN, "mkdir c; write c/x x"), (BOB, "write c F")], "c.conflict-bob=F c/x=x"), act(&[(BOB, "rm c.conflict-bob")], "c/x=x")],
    );
    row("", &[act(&[(ANN, "write c F"), (BOB, "mkdir c; write c/x x")], "c.conflict-ann=F c/x=x")]);
}

#[test]
fn row_20_links_with_two_targets() {
    row("", &[act(&[(ANN, "link s p"), (BOB, "link s q")], "s=L:p s.conflict-bob=L:q")]);
}

#[test]
fn row_21_22_saving_as_editors_do_is_a_write_of_the_target() {
    row("write f old", &[act(&[(ANN, "write f a"), (BOB, "save f b")], "f=a f.conflict-bob=b")]);
    row("write f old", &[act(&[(ANN, "save f a"), (BOB, "write f b")], "f=a f.conflict-bob=b")]);
}

#[test]
fn row_23_written_and_renamed_away() {
    row("write f old", &[act(&[(ANN, "write f a"), (BOB, "write f b; mv f g")], "f=a g=b")]);
}

#[test]
fn row_24_chmod_joins_an_edit() {
    let executable = |r: &Rig| assert_eq!(r.one_attrs("f").0, 0o755);
    row("write f old", &[act_and(&[(ANN, "chmod f 755"), (BOB, "write f b")], "f=b", executable)]);
    row("write f old", &[act_and(&[(ANN, "chmod f 755"), (BOB, "write f b1; write f b")], "f=b", executable)]);
    row("write f old", &[act_and(&[(ANN, "chmod f 600"), (BOB, "write f b")], "f=b", |r| assert_eq!(r.one_attrs("f").0, 0o600))]);
}

#[test]
fn row_25_two_modes_become_one() {
    row("write f old", &[act_and(&[(ANN, "chmod f 600"), (BOB, "chmod f 755")], "f=old", |r| assert_eq!(r.one_attrs("f").0, 0o711))]);
}

#[test]
fn row_26_the_newer_time_counts() {
    row("write f old", &[act_and(&[(ANN, "touch f 1"), (BOB, "touch f 2")], "f=old", |r| assert_eq!(r.one_attrs("f").1, 2))]);
    row("write f old", &[act_and(&[(ANN, "touch f 2"), (BOB, "touch f 1")], "f=old", |r| assert_eq!(r.one_attrs("f").1, 2))]);
}

#[test]
fn row_27_chmod_joins_a_file_made_anew() {
    row("write f old", &[act_and(&[(ANN, "chmod f 755"), (BOB, "rm f; write f b")], "f=b", |r| assert_eq!(r.one_attrs("f").0, 0o755))]);
}

#[test]
fn row_28_three_heads() {
    let does = [(ANN, "write f a"), (BOB, "write f b"), (CAT, "write f c")];
    row("write f old", &[act(&does, "f=a f.conflict-bob=b f.conflict-cat=c")]);
}

#[test]
fn row_29_removing_the_sibling_ends_the_conflict() {
    after_3(&[(ANN, "rm f.conflict-bob")], "f=a");
    after_3(&[(BOB, "rm f.conflict-bob")], "f=a");
}

#[test]
fn row_30_moving_the_sibling_onto_the_file_takes_it() {
    after_3(&[(BOB, "mv f.conflict-bob f")], "f=b");
    after_3(&[(ANN, "mv f.conflict-bob f")], "f=b");
}

#[test]
fn row_31_removing_the_file_leaves_the_other() {
    after_3(&[(ANN, "rm f")], "f=b");
    after_3(&[(BOB, "rm f")], "f=b");
}

#[test]
fn row_32_writing_the_file_leaves_the_sibling() {
    after_3(&[(ANN, "write f a2")], "f=a2 f.conflict-bob=b");
}

#[test]
fn row_33_writing_the_sibling_is_no_conflict_of_a_conflict() {
    after_3(&[(BOB, "write f.conflict-bob b2")], "f=a f.conflict-bob=b2");
    after_3(&[(ANN, "write f.conflict-bob b2")], "f=a f.conflict-bob=b2");
}

#[test]
fn row_34_removed_here_and_taken_there() {
    after_3(&[(ANN, "rm f.conflict-bob"), (BOB, "mv f.conflict-bob f")], "f=b");
}

#[test]
fn row_35_removed_here_and_file_written_there() {
    after_3(&[(ANN, "rm f.conflict-bob"), (BOB, "write f b2")], "f=b2");
}

#[test]
fn row_36_a_temporary_is_never_published() {
    let script: &'static str = "write t 0; write t 1; write t 2; write t 3; rm t";
    for bob_first in [false, true] {
        let mut rig = Rig::new();
        rig.act(&act(&[(ANN, script)], ""), Way { bob_first, online: false, random: None });
        assert!(rig.world.published().is_empty(), "nothing of it is uploaded");
        assert!(rig.devices[ANN].entries.is_empty(), "and nothing of it stays");
    }
}

#[test]
fn row_37_twenty_writes_offline_publish_one_version() {
    let mut rig = Rig::new();
    for n in 0..20 {
        rig.devices[ANN].write(&mut rig.world, "f", file(&n.to_string()));
    }
    rig.rest();
    assert_eq!(text(&rig.devices[BOB].files()), "f=19");
    assert_eq!(rig.world.published().len(), 1);
}

#[test]
fn row_38_no_clock_decides_anything() {
    for ahead in [ANN, BOB] {
        let mut rig = Rig::new();
        for d in [ANN, BOB] {
            rig.world.now += if d == ahead { 1 << 40 } else { 1 };
            let text = ["a", "b"][d];
            rig.devices[d].write(&mut rig.world, "f", file(text));
        }
        rig.rest();
        assert_eq!(text(&rig.devices[CAT].files()), "f=a f.conflict-bob=b");
    }
}

#[test]
fn row_39_lost_state_and_enrolled_again() {
    let mut rig = Rig::new();
    run(&mut rig.world, &mut rig.devices[ANN], "write f a1", true);
    rig.rest();
    rig.devices[ANN] = rig.world.device("ann", ConflictMode::Auto);
    settle(&mut rig.world, &mut rig.devices);
    run(&mut rig.world, &mut rig.devices[ANN], "write f a2", true);
    rig.rest();
    assert_eq!(text(&rig.devices[BOB].files()), "f=a2");
}

#[test]
fn row_40_restored_from_an_old_image() {
    let mut rig = Rig::new();
    run(&mut rig.world, &mut rig.devices[ANN], "write f 1", true);
    rig.rest();
    let image = rig.devices[ANN].clone();
    run(&mut rig.world, &mut rig.devices[ANN], "write f 2; write g 1", true);
    settle(&mut rig.world, &mut rig.devices);
    let old_id = image.id.clone();
    rig.devices[ANN] = image;
    // Both write before ann hears anything.
    run(&mut rig.world, &mut rig.devices[ANN], "write f a", false);
    run(&mut rig.world, &mut rig.devices[BOB], "write f b", false);
    settle(&mut rig.world, &mut rig.devices);
    check_rest(&mut rig.world, &mut rig.devices);
    assert_eq!(rig.devices[ANN].former_ids, [old_id]);
    assert_eq!(text(&rig.devices[BOB].files()), "f=a f.conflict-bob=b g=1");
}

#[test]
fn row_41_interactive_shows_its_own_and_one_resolution_ends_it_everywhere() {
    for (resolver, script, expected) in
        [(BOB, "rm f.conflict-ann", "f=b"), (ANN, "rm f.conflict-bob", "f=a"), (BOB, "keep-local f", "f=b"), (BOB, "keep-remote f", "f=a")]
    {
        let mut rig = Rig::new();
        rig.devices[BOB].mode = ConflictMode::Interactive;
        run(&mut rig.world, &mut rig.devices[ANN], "write f a", false);
        run(&mut rig.world, &mut rig.devices[BOB], "write f b", false);
        settle(&mut rig.world, &mut rig.devices);
        let shown = |d: &Device| d.tree().iter().map(|(n, t)| format!("{n}={t}")).collect::<Vec<_>>().join(" ");
        assert_eq!(shown(&rig.devices[ANN]), "f=F:a|644 f.conflict-bob=F:b");
        assert_eq!(shown(&rig.devices[BOB]), "f=F:b|644 f.conflict-ann=F:a");
        run(&mut rig.world, &mut rig.devices[resolver], script, false);
        settle(&mut rig.world, &mut rig.devices);
        for d in [ANN, BOB, CAT] {
            assert_eq!(text(&rig.devices[d].files()), expected);
            assert_eq!(rig.devices[d].tree().len(), 1);
        }
    }
}

#[test]
fn row_42_names_that_differ_in_case_are_two() {
    row("", &[act(&[(ANN, "write f a"), (BOB, "write F b")], "F=b f=a")]);
}

#[test]
fn row_43_composed_and_decomposed_names_are_one() {
    let one = |r: &Rig| assert_eq!(r.conflicts(), 0);
    row("", &[act_and(&[(ANN, "write \u{e9} same"), (BOB, "write e\u{301} same")], "\u{e9}=same", one)]);
    row("", &[act(&[(ANN, "write \u{e9} a"), (BOB, "write e\u{301} b")], "\u{e9}=a \u{e9}.conflict-bob=b")]);
}

#[test]
fn row_44_one_device_can_have_two_heads() {
    row("write f old", &[both_wrote_f(), act(&[(BOB, "write f b2")], "f=b2 f.conflict-bob=b")]);
}

#[test]
fn row_45_a_third_save_keeps_the_name() {
    row("write f old", &[both_wrote_f(), act(&[(CAT, "write f c")], "f=c f.conflict-bob=b")]);
}

#[test]
fn row_46_two_files_moved_over_each_other() {
    row("write a ca; write b cb", &[act(&[(ANN, "mv a b"), (BOB, "mv b a")], "a=cb b=ca")]);
}

#[test]
fn row_47_a_move_onto_a_name_made_meanwhile() {
    let mut rig = Rig::new();
    run(&mut rig.world, &mut rig.devices[BOB], "write f F", false);
    rig.rest();
    rig.act(&act(&[(ANN, "mv f g"), (BOB, "write g G")], ""), Way { bob_first: true, online: true, random: None });
    assert_eq!(text(&rig.devices[CAT].files()), "g=F g.conflict-bob=G");
    row("write f F", &[act(&[(ANN, "mv f g"), (BOB, "write g G")], "g=F g.conflict-bob=G")]);
}

#[test]
fn row_48_an_equal_hidden_head_does_not_come_back() {
    row("write f old", &[act(&[(ANN, "write f same"), (BOB, "write f same")], "f=same"), act(&[(ANN, "rm f")], "")]);
    row("write f old", &[act(&[(ANN, "write f same"), (BOB, "write f same")], "f=same"), act(&[(BOB, "rm f")], "")]);
}

#[test]
fn row_49_a_conflict_moves_with_its_directory() {
    let conflict = || act(&[(ANN, "write d/f a"), (BOB, "write d/f b")], "d/f=a d/f.conflict-bob=b");
    for who in [ANN, BOB, CAT] {
        row("mkdir d; write d/f old", &[conflict(), act(&[(who, "mv d e")], "e/f=a e/f.conflict-bob=b")]);
    }
}

#[test]
fn row_50_rm_r_takes_the_conflict_along() {
    let conflict = || act(&[(ANN, "write d/f a"), (BOB, "write d/f b")], "d/f=a d/f.conflict-bob=b");
    let both_in_history = |r: &Rig| {
        let history: Vec<String> = r.world.published().iter().map(describe).collect();
        assert!(history.contains(&"F:a".into()) && history.contains(&"F:b".into()) && r.dirs().is_empty());
    };
    for who in [ANN, BOB, CAT] {
        row("mkdir d; write d/f old", &[conflict(), act_and(&[(who, "rmr d")], "", both_in_history)]);
    }
}

/// Row 51: whatever step of publishing a crash hits, the peer sees only states this device was in, in order.
#[test]
fn row_51_a_peer_sees_only_states_the_device_was_in() {
    let script = ["write f 1", "write g 1", "write f 2", "write h 1", "mv g i", "rm f", "write k 1", "mkdir d", "mv k d/k"];
    for crash in ["before_put", "after_put"] {
        for every in 1..=script.len() {
            let mut rig = Rig::new();
            let (mut states, mut seen) = (vec![BTreeMap::new()], 0);
            for (n, op) in script.iter().enumerate() {
                run(&mut rig.world, &mut rig.devices[ANN], op, false);
                states.push(rig.devices[ANN].files());
                if (n + 1) % every == 0 || n + 1 == script.len() {
                    rig.devices[ANN].publish(&mut rig.world, 1, Some(crash));
                    // It comes back with the body it had fixed.
                    for _ in 0..9 {
                        rig.devices[ANN].publish(&mut rig.world, 1, None);
                        let id = rig.devices[ANN].id.clone();
                        rig.devices[BOB].apply_from(&mut rig.world, &id, None);
                        let now = rig.devices[BOB].files();
                        let at = states.iter().skip(seen).position(|s| *s == now);
                        seen += at.unwrap_or_else(|| panic!("bob saw {now:?} after state {seen}, ann was in {states:?}"));
                    }
                }
            }
            assert_eq!(rig.devices[BOB].files(), rig.devices[ANN].files());
        }
    }
}

#[test]
fn keep_both_makes_ordinary_files_even_when_two_devices_say_so() {
    let no_conflict = |r: &Rig| assert_eq!(r.conflicts(), 0);
    for does in [vec![(ANN, "keep-both f")], vec![(ANN, "keep-both f"), (BOB, "keep-both f")]] {
        row("write f old", &[both_wrote_f(), act_and(&does, "f=a f.conflict-bob=b", no_conflict)]);
    }
}

#[test]
fn keep_of_a_device_takes_its_head() {
    row("write f old", &[both_wrote_f(), act(&[(CAT, "keep f bob")], "f=b")]);
    row("write f old", &[both_wrote_f(), act(&[(BOB, "keep f ann")], "f=a")]);
}

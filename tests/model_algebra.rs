//! The algebra of the merge, on random histories of one path: three devices that write over any of the heads they
//! know, or hear of each other, in any order.

#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use tcfs::model::brake::{self, Verdict, in_effect};
use tcfs::model::entry::merged;
use tcfs::model::ops::{self, AttrChange, Attrs};
use tcfs::model::{Accepted, Author, ConflictMode, Entry, FileContent, Hash, Kind, RelPath, Target, Version, view};

/// One step of a history.
#[derive(Clone, Debug)]
enum Step {
    /// Device writes content, accepting the heads whose bit is set.
    Write { device: usize, accept: u8, content: u8 },
    /// Device removes what it accepts.
    Remove { device: usize, accept: u8 },
    /// Device changes the mode of what it shows, or of a sibling.
    Chmod { device: usize, target: u8, mode: u32 },
    /// Device hears everything another one knows.
    Hear { device: usize, from: usize },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..3usize, any::<u8>(), 0..6u8).prop_map(|(device, accept, content)| Step::Write { device, accept, content }),
        1 => (0..3usize, any::<u8>()).prop_map(|(device, accept)| Step::Remove { device, accept }),
        2 => (0..3usize, 0..3u8, prop::sample::select(vec![0o600, 0o755])).prop_map(|(device, target, mode)| Step::Chmod { device, target, mode }),
        3 => (0..3usize, 0..3usize).prop_map(|(device, from)| Step::Hear { device, from }),
    ]
}

/// 0 = empty file, 1 = directory, 2 = link, else files.
fn kind(content: u8) -> Kind {
    let root = Hash::of(&[content]);
    match content {
        1 => Kind::Dir,
        2 => Kind::Symlink { target: "t".into() },
        n => Kind::File(FileContent { manifest: root, size: n.into(), root, chunks: None, hash: None }),
    }
}

const IDS: [&str; 3] = ["ann-01", "bob-02", "cat-03"];

/// All versions of a history, who accepted what, and what each device knows.
struct History {
    versions: Vec<Version>,
    accepted: Vec<BTreeSet<usize>>,
    known: [Entry; 3],
}

impl History {
    fn of(steps: &[Step]) -> History {
        let mut h = History { versions: vec![], accepted: vec![], known: Default::default() };
        steps.iter().for_each(|s| h.step(s));
        h
    }

    fn index(&self, v: &Version) -> usize {
        self.versions.iter().position(|w| w == v).unwrap()
    }

    fn write(&mut self, device: usize, v: Version, accepted: Vec<Version>) {
        let accepted = accepted.iter().map(|a| self.index(a)).collect();
        assert!(self.known[device].merge(v.clone()));
        self.versions.push(v);
        self.accepted.push(accepted);
    }

    fn step(&mut self, step: &Step) {
        let path = RelPath::parse("d/f").unwrap();
        let author =
            |device: usize, n: usize| Author { device_id: IDS[device].into(), device_name: IDS[device][..3].into(), now_ms: n as i64 };
        let chosen = |e: &Entry, mask: u8| -> Vec<Version> {
            e.heads.iter().enumerate().filter(|(i, _)| mask >> (i % 8) & 1 == 1).map(|(_, v)| v.clone()).collect()
        };
        match *step {
            Step::Write { device, accept, content } => {
                let entry = self.known[device].clone();
                let heads = chosen(&entry, accept);
                let accepted = Accepted { clock: merged(&heads), base: heads.first().map(Version::content_id), place: None };
                let a = author(device, self.versions.len());
                let v = ops::write(&path, &entry, &accepted, kind(content), Attrs { mode: 0o644, ..Attrs::default() }, &a).unwrap();
                self.write(device, v, heads);
            }
            Step::Remove { device, accept } => {
                let entry = self.known[device].clone();
                let heads = chosen(&entry, accept);
                let accepted = Accepted { clock: merged(&heads), base: None, place: None };
                let a = author(device, self.versions.len());
                let mut v = ops::write(&path, &entry, &accepted, Kind::Tombstone, Attrs::default(), &a).unwrap();
                v.wrote = heads.first().map_or(v.vclock.clone(), |h| h.vclock.clone());
                self.write(device, v, heads);
            }
            Step::Chmod { device, target, mode } => {
                let entry = in_effect(&self.known[device], IDS[device]).into_owned();
                let Some(view) = view(&entry, false, ConflictMode::Auto, IDS[device]) else { return };
                let (target, heads) = match usize::from(target) {
                    0 => (Target::Path, view.accepted.clone()),
                    n if n <= view.siblings.len() => (Target::Sibling(n - 1), view.siblings[n - 1].accepted().collect()),
                    _ => return,
                };
                let a = author(device, self.versions.len());
                let change = AttrChange { mode: Some(mode), ..AttrChange::default() };
                let v = ops::set_attrs(&path, &entry, &view, target, change, &a).unwrap();
                let known =
                    |h: &Version| self.known[device].heads.iter().find(|k| k.vclock == h.vclock && k.actor == h.actor).unwrap().clone();
                let heads = heads.into_iter().map(known).collect();
                self.write(device, v, heads);
            }
            Step::Hear { device, from } => {
                let other = self.known[from].clone();
                self.known[device].merge_entry(&other);
            }
        }
    }

    /// A delete under the brake of what the device sees under the name or as a sibling. A device hears of others' before.
    fn hold_back(&mut self, device: usize, target: u8) {
        let path = RelPath::parse("d/f").unwrap();
        let entry = in_effect(&self.known[device], IDS[device]).into_owned();
        let Some(v) = view(&entry, false, ConflictMode::Auto, IDS[device]) else { return };
        let (target, heads): (_, Vec<&Version>) = match usize::from(target) {
            n if (1..=v.siblings.len()).contains(&n) => (Target::Sibling(n - 1), v.siblings[n - 1].accepted().collect()),
            _ => (Target::Path, v.accepted.clone()),
        };
        let a = Author { device_id: IDS[device].into(), device_name: IDS[device][..3].into(), now_ms: self.versions.len() as i64 };
        let Some(held) = brake::remove(&path, &entry, &v, target, &a).unwrap() else { return };
        // In effect a head may be of another kind; it is the same version.
        let heads: Vec<Version> = heads
            .iter()
            .map(|h| self.known[device].heads.iter().find(|k| k.vclock == h.vclock && k.actor == h.actor).unwrap().clone())
            .collect();
        self.write(device, held, heads);
    }

    fn past(&self, v: usize) -> BTreeSet<usize> {
        let (mut seen, mut todo) = (BTreeSet::new(), vec![v]);
        while let Some(x) = todo.pop() {
            todo.extend(self.accepted[x].iter().filter(|a| seen.insert(**a)));
        }
        seen
    }
}

fn shuffled<T: Clone>(items: &[T], seed: u64) -> Vec<T> {
    let mut out = items.to_vec();
    fastrand::Rng::with_seed(seed).shuffle(&mut out);
    out
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    /// A clock covers another exactly when its version was written on top of it, directly or not.
    #[test]
    fn clocks_tell_who_accepted_what(steps in prop::collection::vec(step(), 1..30)) {
        let h = History::of(&steps);
        for (i, a) in h.versions.iter().enumerate() {
            let past = h.past(i);
            for (j, b) in h.versions.iter().enumerate() {
                prop_assert_eq!(a.vclock.covers(&b.vclock), past.contains(&j), "{:?} and {:?}", a, b);
            }
        }
    }

    /// The heads are the versions nobody wrote over, whatever order they arrive in, how often, and in which groups.
    #[test]
    fn merge_is_commutative_associative_idempotent(steps in prop::collection::vec(step(), 1..30), seed: u64) {
        let h = History::of(&steps);
        let all = Entry::of(h.versions.iter().cloned());
        let overwritten: BTreeSet<usize> = h.accepted.iter().flatten().copied().collect();
        let untouched: BTreeSet<usize> = (0..h.versions.len()).filter(|i| !overwritten.contains(i)).collect();
        prop_assert_eq!(all.heads.iter().map(|v| h.index(v)).collect::<BTreeSet<_>>(), untouched);

        let twice: Vec<Version> = h.versions.iter().chain(&h.versions).cloned().collect();
        prop_assert_eq!(&Entry::of(shuffled(&twice, seed)), &all);
        let [a, b, c] = &h.known;
        let join = |x: &Entry, y: &Entry| { let mut e = x.clone(); e.merge_entry(y); e };
        prop_assert_eq!(join(a, b), join(b, a));
        prop_assert_eq!(join(&join(a, b), c), join(a, &join(b, c)));
        let mut again = join(a, b);
        prop_assert!(!again.merge_entry(a) && !again.merge_entry(b));
    }

    /// Equal clocks with other content, as a rolled-back machine writes them, are never merged into one.
    #[test]
    fn forged_equal_clocks_stay_apart_and_still_commute(steps in prop::collection::vec(step(), 1..12), content in 3..6u8, seed: u64) {
        let h = History::of(&steps);
        let Some(v) = h.versions.first() else { return Ok(()) };
        let forged = Version { kind: kind(content + 50), written_at: -1, ..v.clone() };
        let all: Vec<Version> = h.versions.iter().cloned().chain([forged.clone()]).collect();
        let e = Entry::of(all.iter().cloned());
        prop_assert_eq!(&Entry::of(shuffled(&all, seed)), &e);
        prop_assert_eq!(e.heads.contains(v), e.heads.contains(&forged));
    }

    /// Every live head is shown, is equal to one that is, or has nothing to say: older bytes, or an empty create.
    #[test]
    fn nothing_visible_is_lost(steps in prop::collection::vec(step(), 1..30), implied_dir: bool) {
        let h = History::of(&steps);
        let entry = Entry::of(h.versions.iter().cloned());
        let shown = view(&entry, implied_dir, ConflictMode::Auto, "x-9");
        prop_assert_eq!(shown.is_some(), implied_dir || entry.is_live());
        let Some(v) = shown else { return Ok(()) };
        prop_assert_eq!(v.is_dir, implied_dir || entry.live().any(Version::is_dir));
        let visible: Vec<&Version> = v.visible().collect();
        for head in entry.live() {
            let equal = visible.iter().any(|s| s.same_content(head));
            let replaced = entry.live().any(|o| o.wrote != head.wrote && o.vclock.ge(&head.wrote));
            let empty = head.base.is_none() && head.file().is_some_and(|c| c.size == 0) && visible.iter().any(|s| s.file().is_some_and(|c| c.size > 0));
            prop_assert!(equal || replaced || empty, "{:?} is not in {:?}", head, v);
        }
        // Each head is accepted by an operation on the path or on exactly one sibling, empty creates by both.
        for head in &entry.heads {
            let by_path = v.accepted.contains(&head);
            let by = v.siblings.iter().filter(|s| s.accepted().any(|a| a == head)).count();
            let hides = head.base.is_none() && head.file().is_some_and(|c| c.size == 0);
            prop_assert!(by_path != (by > 0) && by <= 1 || hides, "{:?} in {:?}", head, v);
        }
        // The order of siblings is that of precedence, and all of them differ.
        for pair in v.siblings.windows(2) {
            prop_assert!(pair[0].head.precedence(pair[1].head).is_lt());
        }
        let differ = (0..visible.len()).all(|i| (0..i).all(|j| !visible[i].same_content(visible[j])));
        prop_assert!(differ, "{:?}", visible);
    }

    /// The brake changes nothing of the algebra; until a verdict, its author sees a delete and nobody else does, unless
    /// somebody else took the same bytes away; after one, all see the same.
    #[test]
    fn deletes_under_the_brake_wait_for_a_verdict(steps in prop::collection::vec((step(), any::<bool>()), 1..30), approve: bool, seed: u64) {
        let mut h = History::of(&[]);
        for (s, held) in &steps {
            match s {
                Step::Remove { device, accept } if *held => h.hold_back(*device, accept % 3),
                s => h.step(s),
            }
        }
        let mut entry = Entry::of(h.versions.iter().cloned());
        prop_assert_eq!(&Entry::of(shuffled(&h.versions, seed)), &entry);
        let held: Vec<Version> = entry.heads.iter().filter(|v| v.is_held_back()).cloned().collect();
        for v in &held {
            let as_seen_by = |id: &str| in_effect(&entry, id).heads.iter().find(|e| e.vclock == v.vclock && e.actor == v.actor).unwrap().clone();
            prop_assert!(as_seen_by(&v.device_id).is_tombstone());
            let taken_elsewhere = entry.heads.iter().any(|t| t.is_tombstone() && t.vclock.ge(&v.wrote));
            prop_assert_eq!(as_seen_by("x-9").is_tombstone(), taken_elsewhere);
            prop_assert!(taken_elsewhere || as_seen_by("x-9").same_content(v));
        }
        let verdict = if approve { Verdict::Approve } else { Verdict::TakeBack };
        for v in &held {
            let by = Author { device_id: "x-9".into(), device_name: "x".into(), now_ms: 1000 };
            let passed = brake::pass(&v.path, &entry, v, verdict, &by).unwrap().unwrap();
            prop_assert!(tcfs::model::record::check(&passed).is_ok());
            let before = entry.heads.len();
            prop_assert!(entry.merge(passed.clone()));
            prop_assert_eq!(entry.heads.len(), before, "it covers that delete alone");
            prop_assert!(approve == passed.is_tombstone() && (approve || passed.same_content(v)));
        }
        for id in IDS {
            prop_assert_eq!(&in_effect(&entry, id).into_owned(), &entry);
        }
    }

    /// `auto` shows the same to everybody; the other modes show the same heads, the own one first.
    #[test]
    fn modes_differ_in_who_has_the_name_only(steps in prop::collection::vec(step(), 1..30)) {
        let h = History::of(&steps);
        let entry = Entry::of(h.versions.iter().cloned());
        let Some(auto) = view(&entry, false, ConflictMode::Auto, IDS[0]) else { return Ok(()) };
        for id in IDS {
            prop_assert_eq!(&view(&entry, false, ConflictMode::Auto, id).unwrap(), &auto);
            let own = view(&entry, false, ConflictMode::Interactive, id).unwrap();
            prop_assert_eq!(&view(&entry, false, ConflictMode::Defer, id).unwrap(), &own);
            let set = |v: &tcfs::model::View| v.visible().map(|x| (x.vclock.clone(), x.content_id())).collect::<BTreeMap<_, _>>();
            prop_assert_eq!(set(&own), set(&auto));
            if !own.is_dir && auto.visible().any(|v| v.place().1 == id) {
                let groups_own = own.shown.unwrap();
                let mine = entry.live().any(|v| v.place().1 == id && v.same_content(groups_own));
                prop_assert!(mine, "{:?}", own);
            }
        }
    }
}

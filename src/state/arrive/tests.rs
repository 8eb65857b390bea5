//! What is brought in at once stands as if it had been merged and reconciled.

use super::super::read::Scan;
use super::super::replica::{Ctx, Replica};
use super::super::schema::Tree;
use super::super::tree::{names, register_at};
use super::*;
use crate::clock::{Clock, ManualClock};
use crate::model::view::ConflictMode;
use crate::model::{FileContent, Hash, VClock};

/// Numbers that follow from a seed.
struct Rng(std::sync::Arc<ManualClock>);

impl Rng {
    fn below(&self, n: u64) -> u64 {
        self.0.random() % n
    }
    fn bool(&self) -> bool {
        self.below(2) == 0
    }
    fn one<T: Copy>(&self, of: &[T]) -> T {
        of[self.below(of.len() as u64) as usize]
    }
}

fn version(rng: &Rng, path: &str, actor: &str, vclock: VClock) -> Version {
    let kind = match rng.below(8) as u8 {
        0..3 => Kind::Dir,
        3 => Kind::Tombstone,
        4 => Kind::Symlink { target: "to".into() },
        n => {
            let root = Hash::of(&[n]);
            Kind::File(FileContent { manifest: root, size: u64::from(n), root, chunks: None, hash: None })
        }
    };
    let xattrs = if rng.bool() { BTreeMap::new() } else { [("user.a".to_owned(), "AA==".to_owned())].into() };
    Version {
        v: 1,
        path: RelPath::parse(path).unwrap(),
        actor: actor.into(),
        wrote: vclock.clone(),
        vclock,
        place: None,
        device_name: actor.into(),
        device_id: actor.into(),
        written_at: rng.below(9000) as i64,
        mode: if kind == Kind::Dir { 0o40_700 } else { 0o100_640 },
        kind,
        mtime: (rng.below(9) as i64, rng.below(9) as u32),
        xattrs,
        base: None,
        moved_to: None,
        healed_from: vec![],
    }
}

/// One batch, as `fleet::apply` does it; `at_once` lets what can be brought in at once.
fn apply(replica: &Replica, versions: &[Version], at_once: bool) -> usize {
    let idle = |_| false;
    let now = Time { sec: 7, nsec: 0 };
    let ctx = Ctx { mode: ConflictMode::Auto, show_siblings: true, me: "me", now, uid: 5, gid: 6, busy: &idle };
    let at = |v: &Version| Time::from_ms(v.written_at).min(now);
    let body = |ns: &mut Ns<'_, '_>| {
        let (mut arrivals, mut brought) = (Arrivals::of(versions), 0);
        let mut touched: BTreeMap<(usize, u64, String), Time> = BTreeMap::new();
        for v in versions {
            if at_once && arrivals.bring(ns, v, at(v))? {
                brought += 1;
                continue;
            }
            let (dir, changed) = ns.merge(v)?;
            if changed {
                arrivals.forget(&v.path);
                let t = touched.entry((v.path.components().count(), dir, v.path.file_name().to_owned())).or_default();
                *t = at(v).max(*t);
            }
        }
        for ((_, dir, name), at) in touched {
            ns.made_at = Some(at);
            ns.reconcile(dir, &name)?;
        }
        arrivals.finish(ns)?;
        Ok(brought)
    };
    replica.write(&ctx, body).unwrap().0
}

/// Everything that is shown below `dir`, with what `stat` tells of it, and every register; without the numbers, which may
/// differ.
fn tree(replica: &Replica, dir: u64, path: &RelPath, out: &mut Vec<String>) {
    let mut rows = Vec::new();
    replica
        .read(|r| {
            r.scan(Tree::Entry, Scan::From(&slot_after(dir, 0), &slot_end(dir)), usize::MAX, |k, s: Slot| {
                rows.push((slot_name(k).to_owned(), s));
                Ok(())
            })
        })
        .unwrap();
    for (name, slot) in rows {
        let path = path.join(&name);
        let mut inode = replica.read(|r| r.get::<Inode>(Tree::Inode, slot.ino())).unwrap();
        if let Some(i) = &mut inode {
            i.links.iter_mut().for_each(|l| l.0 = 0);
            // Which directories went and came back on the way to where they are differs.
            i.generation = 0;
        }
        match slot {
            Slot::Register(r) => {
                let sibs: Vec<_> = r.sibs.iter().map(|s| (&s.name, &s.clock)).collect();
                out.push(format!("{path} {inode:?} {:?} {sibs:?}", r.entry));
                if r.dir != 0 {
                    tree(replica, r.dir, &path, out);
                }
            }
            Slot::Sibling { of, .. } => out.push(format!("{path} {inode:?} beside {of}")),
            Slot::LocalOnly { .. } => out.push(format!("{path} {inode:?}")),
        }
    }
}

#[test]
fn what_arrives_stands_as_if_it_had_been_merged_and_reconciled() {
    let (mut at_once, mut in_all) = (0, 0);
    for seed in 0..200 {
        let rng = Rng(ManualClock::new(0, seed));
        let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let [quick, general] = [0, 1].map(|i: usize| Replica::open(dirs[i].path()).unwrap());
        let mut known: BTreeMap<String, VClock> = BTreeMap::new();
        for _ in 0..1 + rng.below(5) {
            let mut batch: Vec<Version> = Vec::new();
            for _ in 0..1 + rng.below(24) {
                let path = (0..1 + rng.below(3)).map(|_| rng.one(&["a", "b", "c", "d", "e", "f", "g"])).collect::<Vec<_>>().join("/");
                let actor = rng.one(&["x", "y"]);
                let all = known.entry(path.clone()).or_default();
                let mut clock = if rng.bool() { all.clone() } else { VClock::new() };
                clock.set(actor, all.get(actor) + 1);
                all.merge(&clock);
                batch.push(version(&rng, &path, actor, clock));
            }
            if rng.bool() {
                batch.sort_by_key(|v| v.path.components().count());
            }
            at_once += apply(&quick, &batch, true);
            in_all += batch.len();
            assert_eq!(apply(&general, &batch, false), 0);
            let trees = [&quick, &general].map(|r| {
                let mut out = Vec::new();
                tree(r, ROOT, &RelPath::root(), &mut out);
                let mut root = r.read(|r| r.get::<Inode>(Tree::Inode, ROOT)).unwrap().unwrap();
                root.btime = Time::default();
                out.push(format!("{root:?} {}", r.read(names).unwrap()));
                out
            });
            for (a, b) in trees[0].iter().zip(&trees[1]) {
                assert_eq!(a, b, "seed {seed}, after {batch:#?}");
            }
            assert_eq!(trees[0].len(), trees[1].len(), "seed {seed}");
            for v in &batch {
                let of = |r: &Replica| r.read(|r| register_at(r, &v.path)).unwrap().map(|r| r.entry);
                assert_eq!(of(&quick), of(&general), "seed {seed}");
            }
        }
    }
    assert!(at_once > in_all / 20, "{at_once} of {in_all} came at once");
}

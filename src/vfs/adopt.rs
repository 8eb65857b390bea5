//! Versions of an older layout put into the tree: `tcfs adopt`.
//!
//! Must: each becomes an ordinary version in the outbox, or is left out for a reason that is told; a version no reader
//! would accept is never queued. Must: nothing of it leaves this machine that would not if a program here wrote it.
//! Not here: which version becomes what (`model::adopt`), where its bytes come from (`fleet::older`).

use super::{Rule, Touches, Vfs};
use crate::error::{Error, Kind, Result};
use crate::model::adopt::{self, Old, OldPlace, Step};
use crate::model::ops::{At, Attrs};
use crate::model::{self, RelPath, VClock, record};
use crate::state::rows::*;
use crate::state::tree::{dir_of, register_at};
use crate::state::{Ns, Read, Tree};

/// An old version that is ready to be shown: its bytes are in the store.
#[derive(Clone, Debug)]
pub struct Adopt {
    /// Where it goes.
    pub path: RelPath,
    /// What it holds.
    pub kind: model::Kind,
    /// Permission bits.
    pub mode: u32,
    /// Seconds and nanoseconds.
    pub mtime: (i64, u32),
    /// Its marker.
    pub marker: String,
    /// The old layout has this path only once.
    pub once: bool,
}

/// What became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Adopted {
    /// It is in the tree.
    Written {
        /// In the place of an older version of it.
        replaced: bool,
        /// Beside something else.
        conflict: bool,
    },
    /// The path has the same.
    Same,
    /// It was adopted before.
    Before {
        /// The path has changed since, or is gone.
        gone_on: bool,
    },
    /// It is left out; why.
    Left(String),
}

impl Vfs {
    /// Whether a path has had the old version of that marker: then whether it stands there untouched. Blocking.
    pub fn has_adopted(&self, path: &RelPath, marker: &str) -> Result<Option<bool>> {
        self.replica.read(|r| {
            let entry = register_at(r, path)?.unwrap_or_default().entry;
            Ok(adopt::had(&entry, marker).then(|| adopt::untouched(&entry, marker)))
        })
    }

    /// Why something at `path` would never leave this machine, if so. Blocking.
    pub fn local_only_at(&self, path: &RelPath, is_dir: bool) -> Result<Option<String>> {
        let inside = self.replica.read(|r| match path.parent() {
            Some(p) => match dir_of(r, &p)? {
                Some(d) => Ok(r.get::<Inode>(Tree::Inode, d)?.is_some_and(|i| i.local_only)),
                None => Ok(false),
            },
            None => Ok(false),
        })?;
        for p in path.ancestors() {
            if self.rules.is_local_path(&p, true)? {
                return Ok(Some(format!("local-only here, as {p}")));
            }
        }
        if let Some(Rule::Ignored { file, .. }) = self.ignored_path(path, is_dir)? {
            return Ok(Some(format!("local-only here, by {file}")));
        }
        let local = inside || self.rules.is_local_path(path, is_dir)?;
        Ok(local.then(|| "local-only here".to_owned()))
    }

    /// Takes old versions in, in one transaction; a `dry` run only says what would become of them. Blocking.
    pub fn adopt(&self, place: &OldPlace, items: &[Adopt], dry: bool) -> Result<Vec<Adopted>> {
        if dry {
            return self.replica.read(|r| items.iter().map(|i| Ok(would(self.judge(r, place, i)?))).collect());
        }
        let done = self.change_settled(&[], Touches::Anything, |ns| items.iter().map(|i| self.adopt_one(ns, place, i)).collect())?;
        self.sealed.notify_one();
        Ok(done)
    }

    fn judge(&self, r: &Read<'_>, place: &OldPlace, item: &Adopt) -> Result<(Step, bool)> {
        let reg = register_at(r, &item.path)?.unwrap_or_default();
        let old = Old { place, marker: &item.marker, kind: &item.kind, replaces: item.once };
        let noted = noted(r, &item.path)?;
        let seen = self.with_view(r, &reg, |v, e| (adopt::step(e, Some(v), &noted, &old), true))?;
        Ok(seen.unwrap_or_else(|| (adopt::step(&self.entry(&reg), None, &noted, &old), false)))
    }

    fn adopt_one(&self, ns: &mut Ns<'_, '_>, place: &OldPlace, item: &Adopt) -> Result<Adopted> {
        let (step, _) = self.judge(ns.t, place, item)?;
        let Step::Write { accepted, replaces } = step else {
            if step == Step::Same {
                let mut now = noted(ns.t, &item.path)?;
                now.set(&item.marker, 1);
                ns.t.put(Tree::Seen, item.path.as_str(), &now)?;
            }
            return Ok(would((step, true)));
        };
        let parent = item.path.parent().ok_or_else(|| Error::new(Kind::Invalid, "adopting the root"))?;
        let old = Old { place, marker: &item.marker, kind: &item.kind, replaces: item.once };
        let attrs = Attrs { mode: item.mode, mtime: item.mtime, ..Attrs::default() };
        let entry = register_at(ns.t, &item.path)?.unwrap_or_default().entry;
        let v = match adopt::adopt(At { path: &item.path, entry: &entry }, &old, &accepted, attrs, &self.author()) {
            Ok(v) => v,
            // Its counter is at its end.
            Err(e) if e.kind() == Kind::Invalid => return Ok(Adopted::Left(e.to_string())),
            Err(e) => return Err(e),
        };
        if let Err(why) = record::check(&v) {
            return Ok(Adopted::Left(why));
        }
        let dir = ns.ensure_dir(&parent)?;
        let name = item.path.file_name();
        let mut reg = ns.register(dir, name)?;
        ns.merge_into(&mut reg, &v)?;
        ns.put_slot(dir, name, &Slot::Register(Box::new(reg)))?;
        ns.reconcile(dir, name)?;
        self.enqueue(ns, Sealed { versions: vec![v], ..self.sealed_row() })?;
        let reg = ns.register(dir, name)?;
        let conflict = self.with_view(ns.t, &reg, |v, _| v.is_conflict())?.unwrap_or(false);
        Ok(Adopted::Written { replaced: replaces, conflict })
    }
}

/// What a step comes to, as far as can be told without taking it.
fn would((step, shown): (Step, bool)) -> Adopted {
    match step {
        Step::Before { stands } => Adopted::Before { gone_on: !stands },
        Step::Same => Adopted::Same,
        Step::Write { replaces, .. } => Adopted::Written { replaced: replaces, conflict: shown && !replaces },
    }
}

/// What was noted of a path on this device: markers of old versions that were there already.
fn noted(r: &Read<'_>, path: &RelPath) -> Result<VClock> {
    Ok(r.get(Tree::Seen, path.as_str())?.unwrap_or_default())
}

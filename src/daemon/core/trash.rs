//! `trash`: paths that were removed and not moved, and can be brought back.
//!
//! Emptying it takes them off the list of this machine. Nothing is destroyed by that: what the store keeps of removed files,
//! and for how long, is garbage collection's (`fleet::gc`), the same for the whole fleet.

use super::paths::{kind_of_version, size_of_version};
use super::{Core, blocking};
use crate::daemon::protocol::{DeviceRef, Item, Removed, Response, Trash, TrashAct, TrashSum};
use crate::daemon::service::Progress;
use crate::error::Result;
use crate::model::{Entry, RelPath, Version};
use crate::state::Tree;
use std::collections::BTreeMap;

/// Since when removed paths are listed, milliseconds since 1970.
const EMPTIED: &str = "trash_emptied";

impl Core {
    pub(super) async fn trash(&self, request: Trash, progress: &Progress) -> Result<Response> {
        let below = request.path.as_deref().map_or(Ok(RelPath::root()), |p| self.path(p))?;
        let (this, progress) = (self.shared()?, progress.clone());
        blocking(move || {
            let all = this.removed(&below)?;
            let mut sum = TrashSum { act: request.act, paths: all.len() as u64, bytes: all.iter().map(|r| r.size).sum() };
            match request.act {
                TrashAct::List => {
                    for r in all {
                        progress.blocking_item(Item::Removed(r))?;
                    }
                }
                TrashAct::Empty => {
                    let now = this.clock.now_ms();
                    this.replica.db().write(|t| {
                        let key = emptied_key(&below);
                        t.put(Tree::Meta, key.as_str(), &now)
                    })?;
                    sum.paths = all.len() as u64;
                }
            }
            Ok(Response::Trash(sum))
        })
        .await
    }

    /// What was removed at and below a path, the latest first.
    fn removed(&self, below: &RelPath) -> Result<Vec<Removed>> {
        let mut gone: BTreeMap<RelPath, Version> = BTreeMap::new();
        let mut emptied = Emptied::default();
        let me = self.fleet.me().id.clone();
        self.vfs.each_head(below, &mut |v| {
            // One under the brake that is this machine's own is removed here.
            let removed = v.is_tombstone() || crate::model::brake::seen_by(v, &me).is_tombstone();
            if removed && v.moved_to.is_none() {
                gone.entry(v.path.clone())
                    .and_modify(|w| {
                        if w.written_at < v.written_at {
                            *w = v.clone()
                        }
                    })
                    .or_insert_with(|| v.clone());
            }
        })?;
        let mut out = Vec::new();
        for (path, tombstone) in gone {
            if tombstone.written_at <= emptied.of(self, &path)? || self.vfs.exists(&path) {
                continue;
            }
            let (entry, past) = self.vfs.versions(&path)?;
            let Some(was) = last_content(&entry, &past, &tombstone) else { continue };
            out.push(Removed {
                path: path.as_str().to_owned(),
                kind: kind_of_version(&was),
                size: size_of_version(&was),
                removed_at: tombstone.written_at,
                device: DeviceRef { id: tombstone.device_id.clone(), name: tombstone.device_name.clone() },
                version: was.id(),
            });
        }
        out.sort_by(|a, b| (b.removed_at, &a.path).cmp(&(a.removed_at, &b.path)));
        Ok(out)
    }
}

/// What a removed path held last.
fn last_content(entry: &Entry, past: &[Version], tombstone: &Version) -> Option<Version> {
    let held = |v: &&Version| !v.is_tombstone() && !v.is_held_back() && !v.is_bundle();
    let removed = past.iter().filter(held).find(|v| v.vclock == tombstone.wrote);
    let newest = || past.iter().chain(&entry.heads).filter(held).max_by_key(|v| v.written_at);
    removed.or_else(newest).cloned()
}

fn emptied_key(path: &RelPath) -> String {
    format!("{EMPTIED}/{path}")
}

/// Since when paths are listed, by directory.
#[derive(Default)]
struct Emptied(BTreeMap<RelPath, i64>);

impl Emptied {
    fn of(&mut self, core: &Core, path: &RelPath) -> Result<i64> {
        if let Some(at) = self.0.get(path) {
            return Ok(*at);
        }
        let own = core.replica.read(|r| r.get::<i64>(Tree::Meta, emptied_key(path).as_str()))?.unwrap_or(i64::MIN);
        let at = match path.parent() {
            Some(up) => own.max(self.of(core, &up)?),
            None => own,
        };
        self.0.insert(path.clone(), at);
        Ok(at)
    }
}

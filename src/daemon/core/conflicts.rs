//! `conflicts` and `resolve_conflict`.
//!
//! Must: the list is read from an index of paths in conflict, never by looking through the drive.

use super::paths::{kind_of_version, size_of_version};
use super::{Core, blocking};
use crate::daemon::protocol::{
    self, Conflict, Conflicts, DeviceRef, Head, Item, ListConflicts, Parted, ResolveConflict, Resolved, Response,
};
use crate::daemon::service::Progress;
use crate::error::{Error, Kind, Result};
use crate::model::resolve::Keep;
use crate::model::{RelPath, Version};
use crate::vfs::{InConflict, Vfs};

fn below(vfs: &Vfs, path: &RelPath) -> Result<Vec<InConflict>> {
    Ok(vfs.conflicts()?.into_iter().filter(|c| path.is_root() || c.path == *path || c.path.is_below(path)).collect())
}

/// The conflict at a path, be it that of the entry or of a sibling. Blocking.
///
/// Errors: `NotFound` if there is none.
pub(super) fn in_conflict_at(vfs: &Vfs, typed: &RelPath) -> Result<InConflict> {
    let path = vfs.entry_of(typed)?;
    let all = vfs.conflicts()?;
    // Where siblings are not shown their names are no entries.
    let named = |c: &InConflict| c.path == path || c.heads.iter().any(|(p, _)| p == typed);
    let found = all.into_iter().find(named);
    found.ok_or_else(|| Error::new(Kind::NotFound, format!("{path} is not in conflict")).hint("`tcfs conflicts` lists what is"))
}

impl Core {
    pub(super) async fn conflicts(&self, request: ListConflicts, progress: &Progress) -> Result<Response> {
        let path = request.path.as_deref().map_or(Ok(RelPath::root()), |p| self.path(p))?;
        let (vfs, me, progress) = (self.vfs.clone(), self.fleet.me().id.clone(), progress.clone());
        let mode = self.config.conflict_mode.as_str().to_owned();
        blocking(move || {
            if let Some(on) = request.show_siblings {
                vfs.set_show_siblings(on)?;
            }
            let path = vfs.entry_of(&path)?;
            let all = below(&vfs, &path)?;
            let (conflicts, shown) = (all.len() as u64, vfs.siblings_shown());
            for c in all {
                progress.blocking_item(Item::Conflict(conflict(&c, &me, shown)))?;
            }
            let mut parted = 0;
            for (path, t) in vfs.parted()?.into_iter().filter(|(p, _)| path.is_root() || *p == path || p.is_below(&path)) {
                parted += 1;
                progress.blocking_item(Item::Parted(Parted {
                    path: path.as_str().to_owned(),
                    moved_to: t.moved_to.map_or(String::new(), |p| p.as_str().to_owned()),
                    device: DeviceRef { id: t.device_id, name: t.device_name },
                    written_at: t.written_at,
                }))?;
            }
            Ok(Response::Conflicts(Conflicts { conflicts, mode, siblings_shown: shown, parted }))
        })
        .await
    }

    pub(super) async fn resolve_conflict(&self, request: ResolveConflict, progress: &Progress) -> Result<Response> {
        let typed = self.path(&request.path)?;
        let vfs = self.vfs.clone();
        let path = blocking(move || {
            vfs.seal_closed()?;
            Ok(in_conflict_at(&vfs, &typed)?.path)
        })
        .await?;
        let keep = match &request.keep {
            protocol::Keep::Local => Keep::Local,
            protocol::Keep::Remote => Keep::Remote,
            protocol::Keep::Both => Keep::Both,
            protocol::Keep::Device(d) => Keep::Device(d.clone()),
        };
        if keep != Keep::Both {
            self.keep_in_history(&path).await?;
        }
        let (vfs, at) = (self.vfs.clone(), path.clone());
        let (paths, left) = blocking(move || {
            let paths = vfs.resolve_conflict(&at, &keep)?;
            Ok((paths, below(&vfs, &at)?.len() as u64))
        })
        .await?;
        self.send_off(progress).await?;
        Ok(Response::Resolved(Resolved {
            path: path.as_str().to_owned(),
            kept: request.keep,
            paths: paths.into_iter().map(|p| p.as_str().to_owned()).collect(),
            conflicts_left: left,
        }))
    }
}

/// A conflict for lists. `me`: this device; `shown`: siblings are in the mount.
pub(super) fn conflict(c: &InConflict, me: &str, shown: bool) -> Conflict {
    let heads = c.heads.iter().map(|(path, v)| Head { shown: *path == c.path, own: v.place().1 == me, ..head_of(path, v) });
    Conflict { path: c.path.as_str().to_owned(), heads: heads.collect(), resolve: ways(c, shown) }
}

/// A version as the head of a path, neither shown nor this device's own: that is the caller's to say.
pub(super) fn head_of(path: &RelPath, v: &Version) -> Head {
    let (name, id) = v.place();
    Head {
        path: path.as_str().to_owned(),
        shown: false,
        own: false,
        place: DeviceRef { id: id.to_owned(), name: name.to_owned() },
        device: DeviceRef { id: v.device_id.clone(), name: v.device_name.clone() },
        written_at: v.written_at,
        kind: kind_of_version(v),
        size: size_of_version(v),
        version: v.id(),
    }
}

/// Commands that end a conflict.
fn ways(c: &InConflict, shown: bool) -> Vec<String> {
    let path = quoted(c.path.as_str());
    let names: Vec<&str> = c.heads.iter().map(|(_, v)| v.place().0).collect();
    let mut out: Vec<String> = c.heads.iter().skip(1).filter(|_| shown).map(|(p, _)| format!("rm {}", quoted(p.as_str()))).collect();
    let is_dir = c.heads.first().is_some_and(|(_, v)| v.is_dir());
    if let [_, (sibling, _)] = c.heads.as_slice()
        && !is_dir
        && shown
    {
        out.push(format!("mv {} {path}", quoted(sibling.as_str())));
    }
    out.extend(["--keep-local", "--keep-remote", "--keep-both"].map(|how| format!("tcfs resolve-conflict {path} {how}")));
    let distinct = names.iter().collect::<std::collections::BTreeSet<_>>().len() == names.len();
    out.extend(names.iter().filter(|_| distinct).map(|n| format!("tcfs resolve-conflict {path} --keep {n}")));
    out
}

/// A path as a shell wants it.
fn quoted(path: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || matches!(c, '/' | '.' | '_' | '-' | '+' | ',' | '@' | '%' | ':' | '=');
    if !path.is_empty() && !path.starts_with('-') && path.chars().all(plain) {
        path.to_owned()
    } else {
        format!("'{}'", path.replace('\'', "'\\''"))
    }
}

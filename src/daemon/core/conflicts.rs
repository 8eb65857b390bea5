//! `conflicts` and `resolve_conflict`.
//!
//! Must: the list is read from an index of paths in conflict, never by looking through the drive.

use super::history::id_of;
use super::paths::{kind_of_version, size_of_version};
use super::{Core, blocking};
use crate::daemon::protocol::{self, Conflict, Conflicts, DeviceRef, Head, Item, ListConflicts, ResolveConflict, Resolved, Response};
use crate::daemon::service::Progress;
use crate::error::{Error, Kind, Result};
use crate::model::RelPath;
use crate::model::resolve::Keep;
use crate::vfs::{InConflict, Vfs};

fn below(vfs: &Vfs, path: &RelPath) -> Result<Vec<InConflict>> {
    Ok(vfs.conflicts()?.into_iter().filter(|c| path.is_root() || c.path == *path || c.path.is_below(path)).collect())
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
            let conflicts = all.len() as u64;
            for c in all {
                progress.blocking_item(Item::Conflict(conflict(&c, &me)))?;
            }
            Ok(Response::Conflicts(Conflicts { conflicts, mode, siblings_shown: vfs.siblings_shown() }))
        })
        .await
    }

    pub(super) async fn resolve_conflict(&self, request: ResolveConflict) -> Result<Response> {
        let typed = self.path(&request.path)?;
        let (vfs, fleet) = (self.vfs.clone(), self.fleet.clone());
        let path = blocking(move || {
            vfs.seal_closed()?;
            vfs.entry_of(&typed)
        })
        .await?;
        let keep = match &request.keep {
            protocol::Keep::Local => Keep::Local,
            protocol::Keep::Remote => Keep::Remote,
            protocol::Keep::Both => Keep::Both,
            protocol::Keep::Device(d) => Keep::Device(d.clone()),
        };
        let vfs = self.vfs.clone();
        let at = path.clone();
        if !blocking(move || Ok(vfs.conflicts()?.iter().any(|c| c.path == at))).await? {
            return Err(Error::new(Kind::NotFound, format!("{path} is not in conflict")).hint("`tcfs conflicts` lists what is"));
        }
        if keep != Keep::Both {
            self.keep_in_history(&path).await?;
        }
        let (vfs, at) = (self.vfs.clone(), path.clone());
        let (paths, left) = blocking(move || {
            let paths = vfs.resolve_conflict(&at, &keep)?;
            Ok((paths, below(&vfs, &at)?.len() as u64))
        })
        .await?;
        fleet.wake();
        Ok(Response::Resolved(Resolved {
            path: path.as_str().to_owned(),
            kept: request.keep,
            paths: paths.into_iter().map(|p| p.as_str().to_owned()).collect(),
            conflicts_left: left,
        }))
    }
}

fn conflict(c: &InConflict, me: &str) -> Conflict {
    let heads = c.heads.iter().map(|(path, v)| {
        let (name, id) = v.place();
        Head {
            path: path.as_str().to_owned(),
            shown: *path == c.path,
            own: id == me,
            place: DeviceRef { id: id.to_owned(), name: name.to_owned() },
            device: DeviceRef { id: v.device_id.clone(), name: v.device_name.clone() },
            written_at: v.written_at,
            kind: kind_of_version(v),
            size: size_of_version(v),
            version: id_of(v),
        }
    });
    Conflict { path: c.path.as_str().to_owned(), heads: heads.collect() }
}

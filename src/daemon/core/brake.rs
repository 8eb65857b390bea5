//! `approve`: deletes that are held back because they were many at once.

use super::paths::{kind_of_version, size_of_version};
use super::{Core, blocking};
use crate::daemon::protocol::{Approve, Approved, BrakeAct, DeviceRef, HeldBack, Item, Response};
use crate::daemon::service::Progress;
use crate::error::{Error, Kind, Result};
use crate::model::{RelPath, Version, brake};

impl Core {
    pub(super) async fn approve(&self, request: Approve, progress: &Progress) -> Result<Response> {
        let below = request.path.as_deref().map_or(Ok(RelPath::root()), |p| self.path(p))?;
        let (vfs, me, bar) = (self.vfs.clone(), self.fleet.me().id.clone(), progress.clone());
        let verdict = match request.act {
            BrakeAct::List => None,
            BrakeAct::Approve => Some(brake::Verdict::Approve),
            BrakeAct::TakeBack => Some(brake::Verdict::TakeBack),
        };
        let device = request.device;
        let (paths, left) = blocking(move || {
            let by = |v: &Version| device.as_ref().is_none_or(|d| *d == v.device_id || *d == v.device_name);
            let named = |p: &RelPath, v: &Version| (below.is_root() || *p == below || p.is_below(&below)) && by(v);
            let all = vfs.under_brake()?;
            let chosen: Vec<_> = all.iter().filter(|(p, v)| named(p, v)).collect();
            if let (true, Some(d)) = (chosen.is_empty(), device.as_ref().filter(|_| !all.is_empty())) {
                let whose: std::collections::BTreeSet<&str> = all.iter().map(|(_, v)| v.device_name.as_str()).collect();
                let what = format!("no deletes of {d} are held back there");
                let hint = format!("there are some of: {}", whose.into_iter().collect::<Vec<_>>().join(", "));
                return Err(Error::new(Kind::NotFound, what).hint(hint));
            }
            let Some(verdict) = verdict else {
                for (path, v) in &chosen {
                    bar.blocking_item(Item::HeldBack(held_back(path, v, &me)))?;
                }
                return Ok((chosen.len() as u64, all.len() as u64));
            };
            let total = chosen.len() as u64;
            let mut tell = |done: u64| bar.files("deciding", done, Some(total), None);
            let passed = vfs.pass_verdict(verdict, &named, &mut tell)?;
            Ok((passed, vfs.under_brake_count()?))
        })
        .await?;
        if request.act != BrakeAct::List {
            self.send_off(progress).await?;
        }
        Ok(Response::Approved(Approved { act: request.act, paths, left }))
    }
}

/// A version under the brake for lists, as what was there before.
fn held_back(path: &RelPath, v: &Version, me: &str) -> HeldBack {
    let was = brake::seen_by(v, "");
    let emptied = !brake::seen_by(v, &v.device_id).is_tombstone();
    HeldBack {
        path: path.as_str().to_owned(),
        kind: kind_of_version(&was),
        size: size_of_version(&was),
        emptied,
        device: DeviceRef { id: v.device_id.clone(), name: v.device_name.clone() },
        written_at: v.written_at,
        own: v.device_id == me,
    }
}

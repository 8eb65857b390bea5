//! `log`: what changed where, the whole fleet, newest first.
//!
//! Memory: the lines that are asked for. Cost: one look at every version that is known at and below the path.

use super::{Core, blocking};
use crate::daemon::protocol::{Change, Item, LogLine, LogQuery, LogSum, Response};
use crate::daemon::service::Progress;
use crate::error::Result;
use crate::model::{RelPath, Version};
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// A version in the order of time; of equal times by path, so that the order is always the same.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Line {
    at: i64,
    path: RelPath,
    version: Version,
    head: bool,
}

impl Core {
    pub(super) async fn log(&self, request: LogQuery, progress: &Progress) -> Result<Response> {
        let below = request.path.as_deref().map_or(Ok(RelPath::root()), |p| self.path(p))?;
        let (vfs, progress) = (self.vfs.clone(), progress.clone());
        blocking(move || {
            let limit = request.limit.map_or(usize::MAX, |n| usize::try_from(n).unwrap_or(usize::MAX));
            let mut kept: BinaryHeap<Reverse<Line>> = BinaryHeap::new();
            let (mut limited, mut seen) = (false, 0u64);
            vfs.each_version(&below, &mut |v, head| {
                seen += 1;
                if seen.is_multiple_of(8192) {
                    progress.files("reading", seen, None, None);
                }
                let by = |d: &String| *d == v.device_name || *d == v.device_id;
                let at = v.written_at;
                if request.since.is_some_and(|t| at < t) || request.until.is_some_and(|t| at >= t) || !request.device.iter().all(by) {
                    return;
                }
                if kept.len() >= limit {
                    limited = true;
                    if kept.peek().is_none_or(|Reverse(oldest)| oldest.at >= at) {
                        return;
                    }
                    kept.pop();
                }
                kept.push(Reverse(Line { at, path: v.path.clone(), version: v.clone(), head }));
            })?;
            let lines = kept.into_sorted_vec();
            let sum = LogSum { lines: lines.len() as u64, limited };
            for Reverse(l) in lines {
                let line = LogLine { change: Change::of(&l.version), device_id: l.version.device_id.clone(), head: l.head };
                progress.blocking_item(Item::Change(line))?;
            }
            Ok(Response::Logged(sum))
        })
        .await
    }
}

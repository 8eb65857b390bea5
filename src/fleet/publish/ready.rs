//! Which groups of a plan can go out, by how far their uploads are.
//!
//! Must: nothing goes out before something it depends on; what cannot for a reason of its own holds up only what names its
//! paths.

use super::super::core::Fleet;
use super::super::cuts::Progress;
use super::super::plan::{Plan, token};
use crate::error::Error;
use crate::model::{Hash, RelPath, Version};
use std::collections::HashSet;
use std::time::Duration;

/// What can be done with a plan.
pub(super) enum Verdict {
    /// Not before something happens, or that much time has passed.
    Wait(Option<Duration>),
    /// A version's bytes are gone; whether a later row replaces it is not known yet.
    Search(Hash, Box<Version>, u64),
    /// These groups can go out; with why the rest cannot, if that is an error.
    Go(Vec<usize>, Option<Error>),
}

/// A file of a plan, as a round sees it.
pub(super) enum See {
    Done,
    /// So long yet until it counts as slow.
    Running(Duration),
    /// In the bulk lane, by size or by time.
    Slow,
    Gone,
    Failed(Error),
}

impl See {
    pub(super) fn of(progress: Option<&Progress>, bulk_after: Duration) -> See {
        match progress {
            Some(Progress::Done(_)) => See::Done,
            Some(Progress::Running { bulk: true, .. }) => See::Slow,
            Some(Progress::Running { since, .. }) => match bulk_after.checked_sub(since.elapsed()).filter(|left| !left.is_zero()) {
                Some(left) => See::Running(left),
                None => See::Slow,
            },
            Some(Progress::Gone { .. }) => See::Gone,
            Some(Progress::Failed(kind, why)) => See::Failed(Error::new(*kind, why.clone())),
            None => See::Running(bulk_after),
        }
    }
}

impl Fleet {
    /// Waits until something can be done with a plan.
    pub(super) async fn wait_for(&self, plan: &Plan, searched: &HashSet<(Hash, RelPath)>) -> Verdict {
        loop {
            let progress = self.cuts.progress.notified();
            tokio::pin!(progress);
            progress.as_mut().enable();
            match self.judge(plan, searched) {
                Verdict::Wait(None) => progress.await,
                Verdict::Wait(Some(time)) => {
                    let _ = tokio::time::timeout(time, progress).await;
                }
                other => return other,
            }
        }
    }

    fn judge(&self, plan: &Plan, searched: &HashSet<(Hash, RelPath)>) -> Verdict {
        let mut ready = Vec::new();
        let mut wait: Option<Duration> = None;
        let mut failed = None;
        // Paths of what cannot go out for a reason of its own, and of all that depends on it.
        let mut stuck: HashSet<&RelPath> = HashSet::new();
        for (i, g) in plan.groups.iter().enumerate() {
            let paths = || g.versions.iter().flat_map(|v| std::iter::once(&v.path).chain(&v.moved_to));
            let mut held = paths().any(|p| stuck.contains(p));
            if held {
                stuck.extend(paths());
                continue;
            }
            for v in &g.versions {
                let Some(t) = token(v) else { continue };
                match self.cuts.see(&t, |p| See::of(p, self.options.bulk_after)) {
                    See::Done => {}
                    See::Slow if g.passable => held = true,
                    See::Slow if wait.is_some() => {}
                    See::Slow if ready.is_empty() => return Verdict::Wait(None),
                    See::Slow => return Verdict::Go(ready, failed),
                    See::Running(left) => wait = Some(wait.map_or(left, |w| w.min(left))),
                    See::Gone if !plan.whole && !searched.contains(&(t, v.path.clone())) => {
                        let from = self.cuts.searched_upto(&t, &v.path);
                        let last = plan.rows.last().map_or(0, |r| r.seq);
                        return Verdict::Search(t, Box::new(v.clone()), from.max(last + 1));
                    }
                    See::Gone if g.passable => held = true,
                    See::Gone => {
                        if let Some((ino, _)) = plan.sources.get(&t) {
                            self.files.wanted(*ino);
                        }
                        return Verdict::Go(ready, failed);
                    }
                    See::Failed(e) if !e.kind().is_transient() => {
                        // Its bytes are damaged here, say: that may not heal, and the others must not wait for it.
                        failed = Some(e);
                        held = true;
                        stuck.extend(paths());
                    }
                    See::Failed(e) => return Verdict::Go(ready, Some(e)),
                }
            }
            // What comes after something that is waited for is looked at again then.
            if !held && wait.is_none() {
                ready.push(i);
            }
        }
        if wait.is_some() { Verdict::Wait(wait) } else { Verdict::Go(ready, failed) }
    }
}

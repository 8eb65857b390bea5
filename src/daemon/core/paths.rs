//! PATH fields of requests, and walks below them.

use super::{Core, blocking};
use crate::daemon::pathargs::strip_store_words;
use crate::daemon::protocol::EntryKind;
use crate::error::{Error, Kind, Result};
use crate::model::path::NameError;
use crate::model::{self, RelPath};
use crate::state::rows::FileType;
use crate::vfs::{Found, Vfs};
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

/// How long a store that does not answer is waited for before a request goes on with what is known here.
pub(super) const FRESH: Duration = Duration::from_secs(10);
/// How long catching up may take with a store that does answer.
const CATCH_UP: Duration = Duration::from_secs(600);

impl Core {
    /// The path that a PATH field means. Not checked for existence.
    pub(super) fn path(&self, text: &str) -> Result<RelPath> {
        let plain = text.trim_end_matches('/');
        if let Some(exact) = plain.strip_prefix('/') {
            return parse(exact);
        }
        let whole = parse(plain);
        match strip_store_words(plain, &self.config.store) {
            Some(rest) if !whole.as_ref().is_ok_and(|p| self.vfs.exists(p)) => parse(rest),
            _ => whole,
        }
    }

    /// [`Core::path`] of an entry that is there.
    pub(super) async fn found(&self, text: &str) -> Result<Found> {
        let path = self.path(text)?;
        let vfs = self.vfs.clone();
        blocking(move || vfs.find(&path)).await
    }

    /// Applies what others have published, if the store answers within a bounded time. True: it did not.
    ///
    /// Errors: those that waiting does not mend, such as another store than the one this state belongs to.
    pub(super) async fn catch_up(&self) -> Result<bool> {
        let looking = self.fleet.catch_up();
        tokio::pin!(looking);
        let done = match tokio::time::timeout(FRESH, &mut looking).await {
            Err(_) if self.fleet.is_online() => tokio::time::timeout(CATCH_UP, looking).await,
            other => other,
        };
        offline(done)
    }

    /// Whether the store does not answer within `patience` (at most [`FRESH`]). Asks it only if it was not seen
    /// answering just before.
    ///
    /// Errors: those that waiting does not mend, such as another store than the one this state belongs to: what would be
    /// written could never go out.
    pub(super) async fn is_offline(&self, patience: Duration) -> Result<bool> {
        offline(tokio::time::timeout(patience.min(FRESH), self.fleet.connect()).await)
    }
}

/// What the answer of a store means, if it came in time.
fn offline<T, E>(answer: std::result::Result<Result<T>, E>) -> Result<bool> {
    match answer {
        Ok(Ok(_)) => Ok(false),
        Ok(Err(e)) if !e.kind().is_transient() && e.kind() != Kind::Unauthorized => Err(e),
        _ => Ok(true),
    }
}

fn parse(text: &str) -> Result<RelPath> {
    RelPath::parse(text).map_err(|e| {
        let kind = match e {
            NameError::NotUtf8 => Kind::NotUtf8,
            NameError::TooLong => Kind::NameTooLong,
            NameError::Invalid => Kind::BadName,
        };
        Error::new(kind, format!("{text:?}: {e}"))
    })
}

/// Everything below `top`, `top` itself first, parents before children, in order of names. `each` says whether to go
/// below. Blocking.
pub(super) fn walk(vfs: &Vfs, top: Found, each: &mut dyn FnMut(&Found) -> Result<bool>) -> Result<()> {
    let mut todo = vec![top];
    while let Some(f) = todo.pop() {
        if each(&f)? && f.attr.kind == FileType::Dir {
            match vfs.list(&f) {
                Ok(below) => todo.extend(below.into_iter().rev()),
                // Gone meanwhile.
                Err(e) if matches!(e.kind(), Kind::Stale | Kind::NotFound) => {}
                Err(e) => return Err(e),
            }
        }
    }
    Ok(())
}

/// The regular files at and below `top`. Blocking.
pub(super) fn files(vfs: &Vfs, top: Found) -> Result<Vec<Found>> {
    let mut out = Vec::new();
    walk(vfs, top, &mut |f| {
        if f.attr.kind == FileType::File {
            out.push(f.clone());
        }
        Ok(true)
    })?;
    Ok(out)
}

/// The pinned paths.
pub(super) struct Pins(pub HashSet<String>);

impl Pins {
    /// Whether a path, or a directory above it, is pinned.
    pub(super) fn cover(&self, path: &RelPath) -> bool {
        if self.0.is_empty() {
            return false;
        }
        let above = std::iter::successors(Some(path.clone()), RelPath::parent);
        above.into_iter().any(|p| self.0.contains(p.as_str()))
    }
}

/// Reads them. Blocking.
pub(super) fn pins(vfs: &Arc<Vfs>) -> Result<Pins> {
    Ok(Pins(vfs.pins()?.into_iter().collect()))
}

/// What an inode is, for lists.
pub(super) fn kind_of(kind: FileType) -> EntryKind {
    match kind {
        FileType::File => EntryKind::File,
        FileType::Dir => EntryKind::Dir,
        FileType::Symlink => EntryKind::Symlink,
        FileType::Fifo | FileType::Socket | FileType::Char | FileType::Block => EntryKind::Special,
    }
}

/// What a version makes of its path, for lists.
pub(super) fn kind_of_version(v: &model::Version) -> EntryKind {
    match &v.kind {
        model::Kind::File(_) => EntryKind::File,
        model::Kind::Dir => EntryKind::Dir,
        model::Kind::Symlink { .. } => EntryKind::Symlink,
        model::Kind::Bundle { .. } => EntryKind::Bundle,
        // Under the brake: whoever lists it says who looks (`model::brake::seen_by`).
        model::Kind::Tombstone | model::Kind::HeldBack { .. } => EntryKind::Removed,
    }
}

/// Bytes of what a version holds.
pub(super) fn size_of_version(v: &model::Version) -> u64 {
    match &v.kind {
        model::Kind::File(c) | model::Kind::Bundle { content: c, .. } => c.size,
        model::Kind::Symlink { target } => target.len() as u64,
        model::Kind::Dir | model::Kind::Tombstone | model::Kind::HeldBack { .. } => 0,
    }
}

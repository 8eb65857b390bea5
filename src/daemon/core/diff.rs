//! `conflict_diff` and `diff`: how two versions differ.
//!
//! Must: memory is bounded whatever the files are: texts are compared line by line up to a size, everything else as
//! bytes, from the first chunk that differs on.

use super::conflicts::{conflict, head_of, in_conflict_at};
use super::{Core, blocking};
use crate::daemon::protocol::{self, Diff, DiffForm, DiffQuery, DiffSide, Head, Response, Restore};
use crate::daemon::service::Progress;
use crate::error::{Error, Kind, Result};
use crate::model::{self, RelPath, Version};
use crate::vfs::{InConflict, Peek, Vfs};
use bytes::Bytes;
use similar::{Algorithm, ChangeTag, TextDiff};
use std::sync::Arc;
use std::time::Duration;

/// Larger files are compared as bytes.
const TEXT_MAX: u64 = 8 << 20;
/// Lines around a difference.
const CONTEXT: usize = 3;
/// After this time a comparison of texts goes on with a rougher one.
const EXACT_FOR: Duration = Duration::from_secs(3);

impl Core {
    pub(super) async fn conflict_diff(&self, request: protocol::ConflictDiff, progress: &Progress) -> Result<Response> {
        let typed = self.path(&request.path)?;
        let (vfs, me, given) = (self.vfs.clone(), self.fleet.me().id.clone(), typed.clone());
        let found = blocking(move || {
            vfs.seal_closed()?;
            in_conflict_at(&vfs, &given)
        })
        .await?;
        let listed = conflict(&found, &me, true);
        let at = chosen(&found, &typed, request.with.as_deref())?;
        let (shown, other) = (&found.heads[0], &found.heads[at]);
        let side = |i: usize, v: &Version| side(listed.heads[i].clone(), v);
        let mut diff = Diff { path: listed.path.clone(), shown: side(0, &shown.1), other: side(at, &other.1), ..Diff::default() };
        progress.bytes("comparing", 0, None, Some(&diff.path));
        let ends = [(&found.path, &shown.1), (&found.path, &other.1)];
        compare(&self.vfs, ends, (shown.0.as_str(), other.0.as_str()), &mut diff).await?;
        Ok(Response::Diff(diff))
    }
}

impl Core {
    /// How a path differs from an older version of it, from what it was at a time, or from another path.
    pub(super) async fn diff(&self, request: DiffQuery, progress: &Progress) -> Result<Response> {
        let path = self.path(&request.path)?;
        let other = request.other.as_deref().map(|p| self.path(p)).transpose()?;
        let (vfs, me) = (self.vfs.clone(), self.fleet.me().id.clone());
        let (new, old) = blocking(move || {
            vfs.seal_closed()?;
            let new = present(&vfs, &path)?;
            let old = match &other {
                Some(o) => present(&vfs, o)?,
                None => {
                    let entry = vfs.entry_of(&path)?;
                    let query = Restore { path: String::new(), version: request.version.clone(), at: request.at, to: None };
                    let v = super::history::one_version(&vfs, &entry, &query)?;
                    (entry, v)
                }
            };
            Ok((new, old))
        })
        .await?;
        let side = |(at, v): &(RelPath, Version), shown| side(Head { shown, own: v.device_id == me, ..head_of(at, v) }, v);
        // The older one first, so that what was added since shows as added.
        let (was, is) = (side(&old, request.other.is_some()), side(&new, true));
        let mut diff = Diff { path: is.head.path.clone(), shown: was, other: is, ..Diff::default() };
        progress.bytes("comparing", 0, None, Some(&diff.path));
        let name = |at: &RelPath, v: &Version| format!("{at} {}", crate::human::rfc3339(v.written_at));
        let names = (name(&old.0, &old.1), name(&new.0, &new.1));
        let ends = [(&old.0, &old.1), (&new.0, &new.1)];
        compare(&self.vfs, ends, (&names.0, &names.1), &mut diff).await?;
        Ok(Response::Diff(diff))
    }
}

/// The version that a path shows. Blocking.
fn present(vfs: &Vfs, path: &RelPath) -> Result<(RelPath, Version)> {
    let found = vfs.find(path)?;
    match vfs.shown_at(&found)? {
        Some(v) if v.is_dir() => Err(Error::new(Kind::IsDir, format!("{path} is a directory"))
            .hint("compare its files; `diff -r` compares it with what it was: .tcfs/at/TIME/PATH in the mount")),
        Some(v) => Ok((path.clone(), v)),
        None => Err(Error::new(Kind::Invalid, format!("{path} has no versions: it is a directory, or never leaves this machine"))),
    }
}

fn side(head: Head, v: &Version) -> DiffSide {
    let target = match &v.kind {
        model::Kind::Symlink { target } => Some(target.clone()),
        _ => None,
    };
    DiffSide { head, hash: v.file().and_then(|c| c.hash).map(|h| h.to_string()), target }
}

/// Which head is compared with the shown one.
fn chosen(found: &InConflict, typed: &RelPath, with: Option<&str>) -> Result<usize> {
    let label = |i: usize| found.heads[i].1.place().0.to_owned();
    let others = || (1..found.heads.len()).map(label).collect::<Vec<_>>();
    let hint = || format!("--with {}", others().join(" | --with "));
    if let Some(device) = with {
        let place = |v: &Version| v.place().0 == device || v.place().1 == device;
        let author = |v: &Version| v.device_name == device || v.device_id == device;
        let all = || found.heads.iter().enumerate();
        // One device can have two heads: the sibling is meant then.
        let by =
            |is: &dyn Fn(&Version) -> bool| all().skip(1).find(|(_, h)| is(&h.1)).or_else(|| all().find(|(_, h)| is(&h.1))).map(|(i, _)| i);
        return match by(&place).or_else(|| by(&author)) {
            Some(0) => {
                Err(Error::new(Kind::Usage, format!("{device} has the version that is shown: compare it with another")).hint(hint()))
            }
            Some(i) => Ok(i),
            None => Err(Error::new(Kind::NotFound, format!("{device:?} has no version of {} in conflict", found.path)).hint(hint())),
        };
    }
    match found.heads.iter().skip(1).position(|(p, _)| p == typed) {
        Some(i) => Ok(i + 1),
        None if found.heads.len() == 2 => Ok(1),
        None if found.heads.len() < 2 => Err(Error::new(Kind::NotFound, format!("{} has one version only", found.path))),
        None => {
            let what = format!("{} has {} versions: which one is to be compared with the shown one?", found.path, found.heads.len());
            Err(Error::new(Kind::Usage, what).hint(hint()))
        }
    }
}

async fn compare(vfs: &Arc<Vfs>, ends: [(&RelPath, &Version); 2], names: (&str, &str), diff: &mut Diff) -> Result<()> {
    let [(path_a, was), (path_b, is)] = ends;
    let (Some(a), Some(b)) = (was.file(), is.file()) else {
        diff.form = DiffForm::Kind;
        return Ok(());
    };
    let small = a.size.max(b.size) <= TEXT_MAX;
    let (mut x, mut y) = (vfs.peek(path_a, was).await?, vfs.peek(path_b, is).await?);
    if small {
        let (x, y) = (whole(&mut x).await?, whole(&mut y).await?);
        diff.shown.hash.get_or_insert_with(|| model::Hash::of(&x).to_string());
        diff.other.hash.get_or_insert_with(|| model::Hash::of(&y).to_string());
        diff.first = first_difference(&x, &y).map(|n| n as u64);
        if let (Some(x), Some(y)) = (text(&x), text(&y)) {
            let names =
                (format!("{}\t({})", names.0, diff.shown.head.device.name), format!("{}\t({})", names.1, diff.other.head.device.name));
            (diff.text, diff.added, diff.removed) = blocking(move || Ok(lines(&x, &y, &names))).await?;
            diff.form = DiffForm::Text;
            return Ok(());
        }
        diff.form = DiffForm::Bytes;
        return Ok(());
    }
    diff.form = DiffForm::Bytes;
    diff.first = first_in_streams(&mut x, &mut y).await?;
    Ok(())
}

async fn whole(from: &mut Peek) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    loop {
        let next = from.next().await?;
        if next.is_empty() {
            return Ok(out);
        }
        out.extend_from_slice(&next);
        if out.len() as u64 > 2 * TEXT_MAX {
            return Err(Error::new(Kind::Busy, "comparing versions: one of them is being written").hint("try again when it is closed"));
        }
    }
}

/// UTF-8 without NUL.
fn text(bytes: &[u8]) -> Option<String> {
    std::str::from_utf8(bytes).ok().filter(|t| !t.contains('\0')).map(str::to_owned)
}

fn first_difference(a: &[u8], b: &[u8]) -> Option<usize> {
    let common = a.iter().zip(b).take_while(|(x, y)| x == y).count();
    (common < a.len().max(b.len())).then_some(common)
}

async fn first_in_streams(a: &mut Peek, b: &mut Peek) -> Result<Option<u64>> {
    let mut at = a.skip_common(b);
    let (mut x, mut y) = (Bytes::new(), Bytes::new());
    loop {
        if x.is_empty() {
            x = a.next().await?;
        }
        if y.is_empty() {
            y = b.next().await?;
        }
        let n = x.len().min(y.len());
        if n == 0 {
            return Ok((x.len() != y.len()).then_some(at));
        }
        if let Some(d) = first_difference(&x[..n], &y[..n]) {
            return Ok(Some(at + d as u64));
        }
        at += n as u64;
        x = x.slice(n..);
        y = y.slice(n..);
    }
}

/// The difference as `diff -u` writes it, and how many lines came and went.
fn lines(a: &str, b: &str, names: &(String, String)) -> (Option<String>, u64, u64) {
    let diff = TextDiff::configure().algorithm(Algorithm::Patience).timeout(EXACT_FOR).diff_lines(a, b);
    let count = |tag| diff.iter_all_changes().filter(|c| c.tag() == tag).count() as u64;
    let (added, removed) = (count(ChangeTag::Insert), count(ChangeTag::Delete));
    (Some(diff.unified_diff().context_radius(CONTEXT).header(&names.0, &names.1).to_string()), added, removed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_told_from_bytes() {
        assert!(text("é\n".as_bytes()).is_some() && text(b"").is_some());
        assert!(text(b"a\0b").is_none() && text(&[0xff]).is_none());
    }

    #[test]
    fn lines_are_shown_as_diff_does() {
        let names = ("f\t(ann)".to_owned(), "f.conflict-bob\t(bob)".to_owned());
        let (text, added, removed) = lines("a\nb\nc\n", "a\nB\nc\nd\n", &names);
        assert_eq!((added, removed), (2, 1));
        let want = "--- f\t(ann)\n+++ f.conflict-bob\t(bob)\n@@ -1,3 +1,4 @@\n a\n-b\n+B\n c\n+d\n";
        assert_eq!(text.as_deref(), Some(want));
        // A last line without an end is one that differs.
        assert_eq!(lines("a", "a\n", &names).1, 1);
    }

    #[test]
    fn the_first_difference_may_be_the_length() {
        assert_eq!(first_difference(b"abc", b"abd"), Some(2));
        assert_eq!((first_difference(b"ab", b"abc"), first_difference(b"", b"")), (Some(2), None));
    }
}

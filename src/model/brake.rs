//! The brake: many deletes at once are seen on the machine that made them and nowhere else, until they are approved.
//!
//! Such a delete is a version like any other, of kind [`Kind::HeldBack`]: it carries what it removed, covers what its
//! author had accepted, and merges by the same rules, so that the entries of all devices stay equal. Only what is seen
//! of it differs: its author sees what it makes of the path, everybody else what was there before. Approving and taking
//! back are versions on top of it, a removal or the old content once more, by any device. A device that does not know
//! of the brake parks the record and goes on showing what was there.
//!
//! Must: no function of a path's view, and no operation on what is seen, reads heads that did not go through
//! [`in_effect`]. Must: a version here accepts the delete alone: what others wrote meanwhile stands.
//! Not here: when the brake is on (`vfs::brake`).

use super::entry::Entry;
use super::ops::{self, Accepted, Attrs, Author, Draft, Target, place_of};
use super::path::RelPath;
use super::version::{Kind, Version};
use super::view::View;
use crate::error::Result;
use std::borrow::Cow;

/// The entry as device `me` sees it: each version under the brake stands as what it is there, and a repository's bundle is
/// nothing to see. The clocks, and so what an operation accepts, are the same.
///
/// A delete under the brake counts everywhere once somebody else's delete, or move, has taken the same bytes away.
pub fn in_effect<'a>(entry: &'a Entry, me: &str) -> Cow<'a, Entry> {
    if entry.heads.iter().any(Version::is_bundle) {
        let rest = Entry { heads: entry.heads.iter().filter(|v| !v.is_bundle()).cloned().collect() };
        return Cow::Owned(in_effect(&rest, me).into_owned());
    }
    if !entry.heads.iter().any(Version::is_held_back) {
        return Cow::Borrowed(entry);
    }
    let removed_here = |h: &Version| h.is_tombstone() || h.device_id == me && is_delete(h);
    let removed = |v: &Version| entry.heads.iter().any(|h| !std::ptr::eq(h, v) && removed_here(h) && h.vclock.ge(&v.wrote));
    let seen = |v: &Version| match &v.kind {
        Kind::HeldBack { .. } if v.device_id != me && removed(v) => Version { kind: Kind::Tombstone, ..v.clone() },
        _ => seen_by(v, me).into_owned(),
    };
    let mut heads: Vec<Version> = entry.heads.iter().map(seen).collect();
    heads.sort_by(Version::precedence);
    Cow::Owned(Entry { heads })
}

/// A version under the brake as what it is to device `me` while nothing stands beside it; any other as it is.
pub fn seen_by<'a>(v: &'a Version, me: &str) -> Cow<'a, Version> {
    match &v.kind {
        Kind::HeldBack { was, now } => {
            let kind = if v.device_id == me { now } else { was };
            Cow::Owned(Version { kind: (**kind).clone(), ..v.clone() })
        }
        _ => Cow::Borrowed(v),
    }
}

fn is_delete(v: &Version) -> bool {
    matches!(&v.kind, Kind::HeldBack { now, .. } if **now == Kind::Tombstone)
}

/// The delete of what `target` shows, under the brake: like [`super::ops::remove`] for its author. None where the bytes
/// are on this machine only, so that nobody else has them to lose.
///
/// `entry` and `view` are in effect ([`in_effect`]).
pub fn remove(path: &RelPath, entry: &Entry, view: &View, target: Target, author: &Author) -> Result<Option<Version>> {
    let Some(head) = ops::head(view, target).filter(|h| !h.is_uncut() && !h.is_tombstone()) else { return Ok(None) };
    let kind = Kind::HeldBack { was: Box::new(head.kind.clone()), now: Box::new(Kind::Tombstone) };
    let attrs = if target == Target::Path { Attrs::of_view(view) } else { Attrs::of(head) };
    let draft = Draft::of(kind, attrs, Accepted::to_write(view, target)).inheriting(head);
    draft.stamped(path, entry, author).map(Some)
}

/// Puts under the brake what this device did a moment ago: `done` (a head of `entry`: a removal, or a file without
/// bytes) stood in the place of `was`. None if it is no such thing.
pub fn hold_back(path: &RelPath, entry: &Entry, was: &Version, done: &Version, author: &Author) -> Result<Option<Version>> {
    let emptied = |v: &Version| v.file().is_some_and(|c| c.size == 0) && !v.is_uncut();
    let held = done.is_tombstone() && done.moved_to.is_none() || emptied(done) && !done.is_held_back();
    if !held || was.is_uncut() || was.is_tombstone() || was.is_held_back() {
        return Ok(None);
    }
    let kind = Kind::HeldBack { was: Box::new(was.kind.clone()), now: Box::new(done.kind.clone()) };
    let attrs = if done.is_tombstone() { Attrs::of(was) } else { Attrs::of(done) };
    let accepted = Accepted { clock: done.vclock.clone(), base: Some(was.content_id()), place: was.place.clone() };
    Draft::of(kind, attrs, accepted).inheriting(was).stamped(path, entry, author).map(Some)
}

/// What becomes of deletes under the brake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// They count everywhere.
    Approve,
    /// They count nowhere: what was removed is there again, on its author's machine too.
    TakeBack,
}

/// The version that passes a verdict on `held`, a head of `entry`. None if it is not under the brake.
pub fn pass(path: &RelPath, entry: &Entry, held: &Version, verdict: Verdict, author: &Author) -> Result<Option<Version>> {
    let Kind::HeldBack { was, now } = &held.kind else { return Ok(None) };
    let accepted = Accepted { clock: held.vclock.clone(), base: Some(held.content_id()), place: Some(place_of(held)) };
    let draft = match (verdict, &**now) {
        (Verdict::Approve, Kind::Tombstone) => Draft::tombstone([held], Some(held)),
        (Verdict::Approve, now) => Draft::of(now.clone(), Attrs::of(held), accepted),
        (Verdict::TakeBack, _) => Draft::of((**was).clone(), Attrs::of(held), accepted).inheriting(held),
    };
    draft.stamped(path, entry, author).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::view::{ConflictMode, view};
    use crate::model::{FileContent, Hash, record};

    fn by(id: &str) -> Author {
        Author { device_id: id.into(), device_name: id.into(), now_ms: 0 }
    }

    fn file(text: &str) -> Kind {
        let hash = Hash::of(text.as_bytes());
        Kind::File(FileContent { manifest: hash, size: text.len() as u64, root: hash, chunks: None, hash: Some(hash) })
    }

    fn path() -> RelPath {
        RelPath::parse("f").unwrap()
    }

    fn write(entry: &Entry, text: &str, id: &str) -> Version {
        let seen = in_effect(entry, id);
        let accepted = match view(&seen, false, ConflictMode::Auto, id) {
            Some(v) => Accepted::to_write(&v, Target::Path),
            None => Accepted::of_entry(&seen),
        };
        ops::write(&path(), &seen, &accepted, file(text), Attrs::default(), &by(id)).unwrap()
    }

    fn delete(entry: &Entry, id: &str) -> Version {
        let seen = in_effect(entry, id);
        let v = view(&seen, false, ConflictMode::Auto, id).unwrap();
        remove(&path(), &seen, &v, Target::Path, &by(id)).unwrap().unwrap()
    }

    fn shows(entry: &Entry, id: &str) -> Option<u64> {
        let seen = in_effect(entry, id);
        view(&seen, false, ConflictMode::Auto, id).and_then(|v| v.shown.and_then(Version::file).map(|c| c.size))
    }

    fn with(entry: &Entry, v: &Version) -> Entry {
        let mut e = entry.clone();
        e.merge(v.clone());
        e
    }

    #[test]
    fn a_delete_under_the_brake_is_seen_by_its_author_only() {
        let e = Entry::of([write(&Entry::new(), "old", "a")]);
        let held = with(&e, &delete(&e, "a"));
        assert_eq!((shows(&held, "a"), shows(&held, "b")), (None, Some(3)));
        assert_eq!(held.heads.len(), 1, "it covers what it removed");
        assert!(
            matches!(record::decode(&record::encode(&held.heads).unwrap()).as_slice(), [record::Line::Version(v)] if **v == held.heads[0])
        );
    }

    #[test]
    fn a_verdict_counts_on_both_sides() {
        let e = Entry::of([write(&Entry::new(), "old", "a")]);
        let held = with(&e, &delete(&e, "a"));
        for by_whom in ["a", "b"] {
            let yes = pass(&path(), &held, &held.heads[0], Verdict::Approve, &by(by_whom)).unwrap().unwrap();
            let no = pass(&path(), &held, &held.heads[0], Verdict::TakeBack, &by(by_whom)).unwrap().unwrap();
            let (yes, no) = (with(&held, &yes), with(&held, &no));
            assert_eq!((shows(&yes, "a"), shows(&yes, "b")), (None, None));
            assert_eq!((shows(&no, "a"), shows(&no, "b")), (Some(3), Some(3)));
            assert!(pass(&path(), &yes, &yes.heads[0], Verdict::Approve, &by("a")).unwrap().is_none());
        }
    }

    #[test]
    fn what_another_wrote_meanwhile_stands_alone_and_outlives_the_approval() {
        let e = Entry::of([write(&Entry::new(), "old", "a")]);
        let (held, edit) = (delete(&e, "a"), write(&e, "newer", "b"));
        let both = with(&with(&e, &held), &edit);
        for id in ["a", "b", "c"] {
            let seen = in_effect(&both, id);
            let v = view(&seen, false, ConflictMode::Auto, id).unwrap();
            assert!(!v.is_conflict(), "{id}: {v:?}");
            assert_eq!(shows(&both, id), Some(5));
        }
        let approved = with(&both, &pass(&path(), &both, &held, Verdict::Approve, &by("c")).unwrap().unwrap());
        assert_eq!(shows(&approved, "a"), Some(5));
    }

    #[test]
    fn an_edit_of_what_is_still_seen_takes_the_delete_back() {
        let e = Entry::of([write(&Entry::new(), "old", "a")]);
        let held = with(&e, &delete(&e, "a"));
        let edited = with(&held, &write(&held, "newer", "b"));
        assert_eq!((edited.heads.len(), shows(&edited, "a"), shows(&edited, "b")), (1, Some(5), Some(5)));
    }

    #[test]
    fn a_delete_under_the_brake_counts_where_another_delete_knew_the_bytes() {
        let e = Entry::of([write(&Entry::new(), "old", "a")]);
        let seen = view(&e, false, ConflictMode::Auto, "b").unwrap();
        let gone = ops::remove(&path(), &e, &seen, Target::Path, &by("b")).unwrap();
        let both = with(&with(&e, &delete(&e, "a")), &gone);
        let twice = with(&with(&e, &delete(&e, "a")), &delete(&e, "b"));
        for id in ["a", "b", "c"] {
            assert_eq!(shows(&both, id), None, "{id}");
        }
        assert_eq!((shows(&twice, "a"), shows(&twice, "b"), shows(&twice, "c")), (None, None, Some(3)));
    }

    #[test]
    fn what_was_done_before_the_brake_came_on_goes_under_it() {
        let e = Entry::of([write(&Entry::new(), "old", "a")]);
        let was = e.heads[0].clone();
        let seen = view(&e, false, ConflictMode::Auto, "a").unwrap();
        let gone = ops::remove(&path(), &e, &seen, Target::Path, &by("a")).unwrap();
        let emptied = write(&e, "", "a");
        for done in [gone, emptied] {
            let now = with(&e, &done);
            let held = with(&now, &hold_back(&path(), &now, &was, &done, &by("a")).unwrap().unwrap());
            assert_eq!((shows(&held, "a"), shows(&held, "b")), (done.file().map(|_| 0), Some(3)));
            record::check(&held.heads[0]).unwrap();
            let yes = with(&held, &pass(&path(), &held, &held.heads[0], Verdict::Approve, &by("b")).unwrap().unwrap());
            assert_eq!((shows(&yes, "a"), shows(&yes, "b")), (done.file().map(|_| 0), done.file().map(|_| 0)));
        }
        assert!(hold_back(&path(), &e, &was, &was, &by("a")).unwrap().is_none(), "a save is no delete");
    }
}

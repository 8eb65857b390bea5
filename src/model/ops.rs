//! What each operation writes: new versions from an entry, what the author accepted, and the operation's arguments.
//!
//! Must: an operation covers exactly what its author accepted (what was shown, and what is not a visible sibling);
//! everything else stays a head. Must: a path's clock never crosses to another path. Must: a version that leaves
//! visible siblings keeps the place of the head it replaces, so that no later save takes the name away.
//! Functions of one entry return versions for the caller to merge, in order, and to put into one batch.
//! Not here: directories as a whole, batches, the outbox (`fleet`), healing of moves (`heal`).

use super::entry::{Entry, merged};
use super::hash::Hash;
use super::path::RelPath;
use super::vclock::{COUNTER_MAX, VClock};
use super::version::{Kind, Place, RECORD_FORMAT, Version};
use super::view::{IMPLIED_DIR_MODE, View};
use crate::error::{Error, Kind as ErrorKind, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Who writes, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Author {
    /// The device.
    pub device_id: String,
    /// Its name at this moment.
    pub device_name: String,
    /// Milliseconds since 1970; for people only.
    pub now_ms: i64,
}

/// Metadata of a new version.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attrs {
    /// Permission bits; the file type bits follow from the kind.
    pub mode: u32,
    /// Seconds and nanoseconds.
    pub mtime: (i64, u32),
    /// `user.*` attributes, values base64.
    pub xattrs: BTreeMap<String, String>,
}

impl Attrs {
    /// As the view shows them.
    pub fn of_view(view: &View) -> Attrs {
        Attrs { mode: view.mode, mtime: view.mtime, xattrs: view.xattrs().cloned().unwrap_or_default() }
    }

    /// Those of one version.
    pub fn of(v: &Version) -> Attrs {
        Attrs { mode: v.mode, mtime: v.mtime, xattrs: v.xattrs.clone() }
    }
}

/// Which metadata an operation changes; None keeps what is shown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AttrChange {
    /// New permission bits.
    pub mode: Option<u32>,
    /// New time.
    pub mtime: Option<(i64, u32)>,
    /// All attributes anew.
    pub xattrs: Option<BTreeMap<String, String>>,
}

/// What of a view an operation is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Target {
    /// The path itself.
    Path,
    /// The sibling of that index in [`View::siblings`].
    Sibling(usize),
}

/// What the author of a version had accepted, captured when the operation began: a file is sealed long after it was
/// opened, and heads that arrived in between were not seen.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accepted {
    /// Merge of the clocks of the heads accepted.
    pub clock: VClock,
    /// Content of the version replaced; none for a create.
    pub base: Option<Hash>,
    /// The place the new version keeps; none = its author's own.
    pub place: Option<Place>,
}

impl Accepted {
    /// Accepts nothing: content from outside the drive that replaces no version its author has seen.
    pub fn nothing() -> Self {
        Self::default()
    }

    /// For a create where nothing is shown: every head, which are tombstones.
    pub fn of_entry(entry: &Entry) -> Self {
        Accepted { clock: entry.clock(), base: None, place: None }
    }

    /// What an operation on `target` accepts. `leaves_siblings`: other visible heads stay when it is done, so the
    /// place of the replaced head is kept (a version of a sibling always keeps its place).
    pub fn of_view(view: &View, target: Target, leaves_siblings: bool) -> Self {
        match target {
            Target::Path => Accepted {
                clock: merged(view.accepted.iter().copied()),
                base: view.shown.map(Version::content_id),
                place: view.shown.filter(|_| leaves_siblings).map(place_of),
            },
            Target::Sibling(i) => match view.siblings.get(i) {
                Some(s) => Accepted { clock: merged(s.accepted()), base: Some(s.head.content_id()), place: Some(place_of(s.head)) },
                None => Accepted::nothing(),
            },
        }
    }

    /// For opening `target` for writing, or replacing it: [`Accepted::of_view`] with siblings left as they are.
    pub fn to_write(view: &View, target: Target) -> Self {
        Self::of_view(view, target, view.is_conflict())
    }

    /// For the next seal of a handle that has just sealed `v`.
    pub fn after(&self, v: &Version) -> Self {
        let mut clock = self.clock.clone();
        clock.merge(&v.vclock);
        Accepted { clock, base: Some(v.content_id()), place: v.place.clone() }
    }
}

pub(super) fn place_of(v: &Version) -> Place {
    let (name, id) = v.place();
    Place { name: name.to_owned(), id: id.to_owned() }
}

/// The actor and clock of a new version of `entry` whose author accepted `accepted`: the first of the author's actors
/// (`id`, `id.2`, `id.3` …) whose latest version of this path is accepted, else a new one; its counter + 1.
///
/// Errors: `Invalid` when the counter is at its end.
pub fn stamp(entry: &Entry, accepted: &VClock, author: &Author) -> Result<(String, VClock)> {
    let mut clock = accepted.clone();
    let mut actor = author.device_id.clone();
    for n in 2u64.. {
        let latest = entry.heads.iter().map(|h| h.vclock.get(&actor)).max().unwrap_or(0);
        if latest <= clock.get(&actor) {
            break;
        }
        actor = format!("{}.{n}", author.device_id);
    }
    let last = clock.get(&actor);
    if last >= COUNTER_MAX {
        let what = format!("writing a version by {actor}: its counter for this path is at its end ({last})");
        return Err(Error::new(ErrorKind::Invalid, what).hint("enrol this machine anew: tcfs device enroll --replace"));
    }
    clock.set(&actor, last + 1);
    Ok((actor, clock))
}

/// What a version says besides its clock.
pub(super) struct Draft {
    kind: Kind,
    attrs: Attrs,
    accepted: Accepted,
    wrote: Option<VClock>,
    moved_to: Option<RelPath>,
}

impl Draft {
    pub(super) fn of(kind: Kind, attrs: Attrs, accepted: Accepted) -> Draft {
        Draft { kind, attrs, accepted, wrote: None, moved_to: None }
    }

    /// The path goes; `removed` is the version that had the name.
    pub(super) fn tombstone<'a>(accepted: impl IntoIterator<Item = &'a Version>, removed: Option<&Version>) -> Draft {
        let accepted = Accepted { clock: merged(accepted), base: removed.map(Version::content_id), place: None };
        Draft { wrote: removed.map(|v| v.vclock.clone()), ..Draft::of(Kind::Tombstone, Attrs::default(), accepted) }
    }

    /// The bytes stay those that `v` tells of.
    pub(super) fn inheriting(self, v: &Version) -> Draft {
        Draft { wrote: Some(v.wrote.clone()), ..self }
    }

    pub(super) fn moved_to(self, path: &RelPath) -> Draft {
        Draft { moved_to: Some(path.clone()), ..self }
    }

    pub(super) fn stamped(self, path: &RelPath, entry: &Entry, author: &Author) -> Result<Version> {
        let (actor, vclock) = stamp(entry, &self.accepted.clock, author).map_err(|e| e.context(format!("{path:?}")))?;
        Ok(Version {
            v: RECORD_FORMAT,
            path: path.clone(),
            actor,
            wrote: self.wrote.unwrap_or_else(|| vclock.clone()),
            vclock,
            // A place that is the author's own goes without saying.
            place: self.accepted.place.filter(|p| (&p.name, &p.id) != (&author.device_name, &author.device_id)),
            device_name: author.device_name.clone(),
            device_id: author.device_id.clone(),
            written_at: author.now_ms,
            mode: self.kind.type_bits() | self.attrs.mode & 0o7777,
            kind: self.kind,
            mtime: self.attrs.mtime,
            xattrs: self.attrs.xattrs,
            base: self.accepted.base,
            moved_to: self.moved_to,
            healed_from: Vec::new(),
        })
    }
}

/// Writes several versions of one path one after the other, each stamped with the ones before in place.
struct Pen<'a> {
    path: &'a RelPath,
    entry: Entry,
    author: &'a Author,
}

impl<'a> Pen<'a> {
    fn new(path: &'a RelPath, entry: &Entry, author: &'a Author) -> Self {
        Pen { path, entry: entry.clone(), author }
    }

    fn write(&mut self, draft: Draft, out: &mut Vec<Version>) -> Result<()> {
        let v = draft.stamped(self.path, &self.entry, self.author)?;
        self.entry.merge(v.clone());
        out.push(v);
        Ok(())
    }
}

/// New content (or a new symlink) at `path`: a create, a save over what `accepted` says, or a write to a sibling.
pub fn write(path: &RelPath, entry: &Entry, accepted: &Accepted, kind: Kind, attrs: Attrs, author: &Author) -> Result<Version> {
    Draft::of(kind, attrs, accepted.clone()).stamped(path, entry, author)
}

/// A new symlink where nothing is shown.
pub fn symlink(path: &RelPath, entry: &Entry, target: &str, mtime: (i64, u32), author: &Author) -> Result<Version> {
    let attrs = Attrs { mode: 0o777, mtime, ..Attrs::default() };
    write(path, entry, &Accepted::of_entry(entry), Kind::Symlink { target: target.to_owned() }, attrs, author)
}

/// A new directory where nothing is shown.
pub fn mkdir(path: &RelPath, entry: &Entry, mode: u32, mtime: (i64, u32), author: &Author) -> Result<Version> {
    write(path, entry, &Accepted::of_entry(entry), Kind::Dir, Attrs { mode, mtime, ..Attrs::default() }, author)
}

/// The Dir version that keeps a directory whose last child has just gone, where it had none; goes into the batch of
/// that removal.
pub fn keep_parent(path: &RelPath, entry: &Entry, mtime: (i64, u32), author: &Author) -> Result<Version> {
    mkdir(path, entry, IMPLIED_DIR_MODE, mtime, author)
}

/// chmod, touch, setxattr: the bytes stay those of the version that wrote them. A directory without a version of its
/// own gets one.
pub fn set_attrs(path: &RelPath, entry: &Entry, view: &View, target: Target, change: AttrChange, author: &Author) -> Result<Version> {
    let (head, now) = match target {
        Target::Path => (view.shown, Attrs::of_view(view)),
        Target::Sibling(i) => {
            let head = sibling(path, view, i)?.head;
            (Some(head), Attrs::of(head))
        }
    };
    let attrs = Attrs {
        mode: change.mode.unwrap_or(now.mode),
        mtime: change.mtime.unwrap_or(now.mtime),
        xattrs: change.xattrs.unwrap_or(now.xattrs),
    };
    let accepted = Accepted::to_write(view, target);
    let kind = head.map_or(Kind::Dir, |v| v.kind.clone());
    Draft { wrote: head.map(|v| v.wrote.clone()), ..Draft::of(kind, attrs, accepted) }.stamped(path, entry, author)
}

/// Removes what `target` shows: the next head takes the name, or the conflict ends, or the path is gone.
pub fn remove(path: &RelPath, entry: &Entry, view: &View, target: Target, author: &Author) -> Result<Version> {
    let draft = match target {
        Target::Path => Draft::tombstone(view.accepted.iter().copied(), view.shown),
        Target::Sibling(i) => {
            let s = sibling(path, view, i)?;
            Draft::tombstone(s.accepted(), Some(s.head))
        }
    };
    draft.stamped(path, entry, author)
}

/// Removes every head: `rm` where siblings are not shown.
pub fn remove_all(path: &RelPath, entry: &Entry, view: &View, author: &Author) -> Result<Version> {
    Draft::tombstone(&entry.heads, view.shown).stamped(path, entry, author)
}

/// A path as an operation on two paths finds it.
#[derive(Clone, Copy, Debug)]
pub struct At<'a> {
    /// The path.
    pub path: &'a RelPath,
    /// Its entry (empty if nobody ever wrote it).
    pub entry: &'a Entry,
}

/// Moves the shown file or symlink of `from` to `to`: a version of the target that replaces what `over` accepts there
/// ([`Accepted::of_entry`] if nothing is shown, [`Accepted::to_write`] for a rename over a file or a sibling), and a
/// tombstone with `moved_to`. Siblings of `from` stay.
pub fn rename(from: At, view: &View, to: At, over: &Accepted, author: &Author) -> Result<Vec<Version>> {
    let shown = view.shown.filter(|_| !view.is_dir);
    let shown = shown.ok_or_else(|| Error::new(ErrorKind::IsDir, format!("renaming {:?} as a file: it is a directory", from.path)))?;
    let moved = write(to.path, to.entry, over, shown.kind.clone(), Attrs::of_view(view), author)?;
    let gone = Draft::tombstone(view.accepted.iter().copied(), Some(shown)).moved_to(to.path);
    Ok(vec![moved, gone.stamped(from.path, from.entry, author)?])
}

/// One entry's part in the move of a directory: all heads go, each as a head of its own, so a conflict stays one.
/// Also for the directory itself. Nothing live may be at `to`.
pub fn move_entry(from: At, view: &View, to: At, author: &Author) -> Result<Vec<Version>> {
    let mut out = Vec::with_capacity(2 + 2 * view.siblings.len());
    let mut there = Pen::new(to.path, to.entry, author);
    let mut here = Pen::new(from.path, from.entry, author);
    if view.is_dir {
        there.write(Draft::of(Kind::Dir, Attrs::of_view(view), Accepted::of_entry(to.entry)), &mut out)?;
        let mut gone = Draft::tombstone(view.accepted.iter().copied(), view.shown).moved_to(to.path);
        // No base: this is how a receiver knows that a directory moved and that what it made inside must follow.
        gone.accepted.base = None;
        gone.wrote = Some(view.shown.map_or(VClock::new(), |v| v.vclock.clone()));
        here.write(gone, &mut out)?;
    } else if let Some(shown) = view.shown {
        // In a conflict the head keeps its place as its siblings do, or the name would change hands by a move.
        let place = view.is_conflict().then(|| place_of(shown));
        let accepted = Accepted { place, ..Accepted::of_entry(to.entry) };
        there.write(Draft::of(shown.kind.clone(), Attrs::of_view(view), accepted), &mut out)?;
        here.write(Draft::tombstone(view.accepted.iter().copied(), Some(shown)).moved_to(to.path), &mut out)?;
    }
    for s in &view.siblings {
        let accepted = Accepted { clock: merged(there.entry.tombstones()), base: s.head.base, place: Some(place_of(s.head)) };
        there.write(Draft::of(s.head.kind.clone(), Attrs::of(s.head), accepted), &mut out)?;
        here.write(Draft::tombstone(s.accepted(), Some(s.head)).moved_to(to.path), &mut out)?;
    }
    Ok(out)
}

/// The part of a repository in the move of its directory: each bundle goes, as a head of its own. Nothing if there is none.
pub fn move_bundles(from: At, to: At, author: &Author) -> Result<Vec<Version>> {
    let bundles: Vec<&Version> = from.entry.live().filter(|v| v.is_bundle()).collect();
    let mut out = Vec::with_capacity(bundles.len() + 1);
    let mut there = Pen::new(to.path, to.entry, author);
    for v in &bundles {
        let accepted = Accepted { clock: merged(there.entry.tombstones()), base: v.base, place: Some(place_of(v)) };
        there.write(Draft::of(v.kind.clone(), Attrs::of(v), accepted), &mut out)?;
    }
    if let Some(first) = bundles.first() {
        let gone = Draft::tombstone(bundles.iter().copied(), Some(first)).moved_to(to.path);
        Pen::new(from.path, from.entry, author).write(gone, &mut out)?;
    }
    Ok(out)
}

/// `mv sibling path`: the sibling's content becomes the path's, both accepted.
pub fn rename_sibling_onto_path(path: &RelPath, entry: &Entry, view: &View, i: usize, author: &Author) -> Result<Version> {
    let s = sibling(path, view, i)?;
    if view.is_dir {
        return Err(Error::new(ErrorKind::IsDir, format!("moving a sibling of {path:?} onto it: {path:?} is a directory")));
    }
    let mut accepted = Accepted::of_view(view, Target::Path, view.siblings.len() > 1);
    accepted.clock.merge(&merged(s.accepted()));
    write(path, entry, &accepted, s.head.kind.clone(), Attrs::of(s.head), author)
}

/// `mv sibling elsewhere`: its content at `to` (over what `over` accepts), and the sibling gone.
pub fn rename_sibling_away(from: At, view: &View, i: usize, to: At, over: &Accepted, author: &Author) -> Result<Vec<Version>> {
    let head = sibling(from.path, view, i)?.head;
    let moved = write(to.path, to.entry, over, head.kind.clone(), Attrs::of(head), author)?;
    Ok(vec![moved, remove(from.path, from.entry, view, Target::Sibling(i), author)?])
}

/// The head that `target` shows.
pub fn head<'a>(view: &View<'a>, target: Target) -> Option<&'a Version> {
    match target {
        Target::Path => view.shown,
        Target::Sibling(i) => view.siblings.get(i).map(|s| s.head),
    }
}

fn sibling<'v, 'a>(path: &RelPath, view: &'v View<'a>, i: usize) -> Result<&'v super::view::SiblingView<'a>> {
    let missing = || Error::new(ErrorKind::NotFound, format!("{path:?}: it has no {}. sibling (any more)", i + 1));
    view.siblings.get(i).ok_or_else(missing)
}

//! What a version of an older layout becomes in the namespace: the rules of `tcfs adopt`.
//!
//! Clocks of the older layout stay there: its device ids were no identities (one machine had several), so they prove
//! nothing here. Instead each old version has a *marker*, an actor that no device ever is, made of the place and of the
//! version's id. What is adopted carries the marker in its clock, with the adopting device's own counter, and names the
//! marker alone as what `wrote` its bytes. From that follows, by the ordinary rules: two devices that adopt the same
//! place at once make heads of equal content; an edit of one hides the untouched copy of the other; a path whose clock
//! has the marker, be it edited, moved away or removed since, has had this old version and is left as it is.
//!
//! Must: nothing that stands at a path is replaced, but an older version of the same place that nobody touched.
//! Not here: reading the older layout (`old_index`), its bytes (`fleet::older`).

use super::entry::{Entry, merged};
use super::hash::Hash;
use super::ops::{Accepted, At, Attrs, Author, write};
use super::vclock::VClock;
use super::version::{Kind, Place, Version};
use super::view::View;
use crate::error::Result;

/// A place in the older layout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OldPlace {
    /// What all markers of the place begin with.
    tag: String,
}

impl OldPlace {
    /// The place of this name: the same name on every device that means the same place.
    pub fn new(name: &str) -> OldPlace {
        let hash = Hash::of(&[b"tcfs-old-place-v1\0", name.as_bytes()].concat()).to_string();
        OldPlace { tag: format!("old-{}-", &hash[..8]) }
    }

    /// The marker of an old version of this place; `id` tells it from others of its path. It has the shape of an actor.
    pub fn marker(&self, id: &str) -> String {
        let hash = Hash::of(&[b"tcfs-old-version-v1\0", id.as_bytes()].concat()).to_string();
        format!("{}{}", self.tag, &hash[..24])
    }

    /// Whether a version holds the bytes of an old version of this place, and nobody wrote others since.
    fn wrote(&self, v: &Version) -> bool {
        !v.is_tombstone() && !v.wrote.is_empty() && v.wrote.iter().all(|(a, _)| a.starts_with(&self.tag))
    }
}

/// An old version, about to be adopted.
#[derive(Clone, Debug)]
pub struct Old<'a> {
    /// Its place.
    pub place: &'a OldPlace,
    /// Its marker.
    pub marker: &'a str,
    /// What it holds.
    pub kind: &'a Kind,
    /// It may replace an untouched older version of the same place. Not if the old layout has the path twice.
    pub replaces: bool,
}

/// What is to be done with an old version.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// It was adopted before, here or elsewhere.
    Before {
        /// A head holds it still.
        stands: bool,
    },
    /// A head of the path holds the same.
    Same,
    /// It becomes a version that accepts this.
    Write {
        /// What it accepts.
        accepted: Accepted,
        /// It replaces an older version of the same place.
        replaces: bool,
    },
}

/// Whether the old version of that marker was adopted at a path, here or elsewhere.
pub fn had(entry: &Entry, marker: &str) -> bool {
    entry.heads.iter().any(|h| h.vclock.get(marker) > 0)
}

/// Of a path whose clock has the marker: whether a head still holds what that old version wrote. Later versions have
/// the marker in their clocks as well, but not alone.
pub fn untouched(entry: &Entry, marker: &str) -> bool {
    let wrote: VClock = [(marker, 1)].into_iter().collect();
    entry.live().any(|h| h.wrote == wrote)
}

/// What becomes of an old version at a path with `entry`, shown as `view`. `noted`: markers of what was found to be the
/// same, noted on this device only.
pub fn step(entry: &Entry, view: Option<&View>, noted: &VClock, old: &Old) -> Step {
    let is_dir = matches!(old.kind, Kind::Dir);
    let stands = is_dir && view.is_some_and(|v| v.is_dir) || entry.live().any(|h| holds(old.kind, h));
    if noted.get(old.marker) > 0 || had(entry, old.marker) {
        return Step::Before { stands };
    }
    if stands {
        return Step::Same;
    }
    let older = |h: &Version| old.replaces && old.place.wrote(h) && (is_dir || !h.is_dir());
    let accepts = |h: &Version| h.is_tombstone() || older(h);
    let mut clock = merged(entry.heads.iter().filter(|h| accepts(h)));
    clock.set(old.marker, 1);
    let visible = || view.into_iter().flat_map(View::visible);
    let replaced = visible().find(|h| older(h));
    let leaves = visible().any(|h| !accepts(h));
    // Beside siblings the place of what is replaced is kept, as a save does.
    let place = replaced.filter(|_| leaves).map(|h| {
        let (name, id) = h.place();
        Place { name: name.to_owned(), id: id.to_owned() }
    });
    let replaces = entry.live().any(older);
    Step::Write { accepted: Accepted { clock, base: replaced.map(Version::content_id), place }, replaces }
}

/// The version that an old one becomes, by what [`step`] said.
pub fn adopt(at: At, old: &Old, accepted: &Accepted, attrs: Attrs, author: &Author) -> Result<Version> {
    let mut v = write(at.path, at.entry, accepted, old.kind.clone(), attrs, author)?;
    v.wrote = [(old.marker, 1)].into_iter().collect();
    Ok(v)
}

/// Whether a head holds that content.
fn holds(kind: &Kind, head: &Version) -> bool {
    match (kind, &head.kind) {
        (Kind::File(a), Kind::File(b)) => a.same_bytes(b),
        (Kind::Symlink { target: a }, Kind::Symlink { target: b }) => a == b,
        (Kind::Dir, Kind::Dir) => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ops::{self, Target};
    use crate::model::{ConflictMode, FileContent, RelPath, record, view};

    fn author(id: &str) -> Author {
        Author { device_id: id.into(), device_name: id.split('-').next().unwrap().into(), now_ms: 0 }
    }

    fn file(text: &str) -> Kind {
        let root = Hash::of(text.as_bytes());
        Kind::File(FileContent { manifest: Hash::of(b"m"), size: text.len() as u64, root, chunks: None, hash: Some(root) })
    }

    fn path() -> RelPath {
        RelPath::parse("f").unwrap()
    }

    /// One device adopts; what it did.
    fn take(entry: &mut Entry, by: &str, place: &OldPlace, id: &str, text: &str) -> &'static str {
        let (kind, marker) = (file(text), place.marker(id));
        let old = Old { place, marker: &marker, kind: &kind, replaces: true };
        let seen = entry.clone();
        match step(&seen, view(&seen, false, ConflictMode::Auto, by).as_ref(), &VClock::new(), &old) {
            Step::Before { stands: true } => "before",
            Step::Before { stands: false } => "gone on",
            Step::Same => "same",
            Step::Write { accepted, replaces } => {
                let v = adopt(At { path: &path(), entry: &seen }, &old, &accepted, Attrs::default(), &author(by)).unwrap();
                record::check(&v).unwrap();
                entry.merge(v);
                if replaces { "replaced" } else { "new" }
            }
        }
    }

    fn save(entry: &mut Entry, by: &str, text: &str) {
        let seen = entry.clone();
        let accepted = match view(&seen, false, ConflictMode::Auto, by) {
            Some(v) => Accepted::to_write(&v, Target::Path),
            None => Accepted::of_entry(&seen),
        };
        entry.merge(ops::write(&path(), &seen, &accepted, file(text), Attrs::default(), &author(by)).unwrap());
    }

    fn remove(entry: &mut Entry, by: &str) {
        let seen = entry.clone();
        let v = view(&seen, false, ConflictMode::Auto, by).unwrap();
        entry.merge(ops::remove(&path(), &seen, &v, Target::Path, &author(by)).unwrap());
    }

    /// Sizes of what is to be seen.
    fn seen(entry: &Entry) -> Vec<u64> {
        view(entry, false, ConflictMode::Auto, "x-1").map_or(vec![], |v| v.visible().map(|h| h.file().unwrap().size).collect())
    }

    #[test]
    fn an_old_version_is_taken_once_whatever_became_of_it() {
        let p = OldPlace::new("s3://tcfs/default");
        let mut e = Entry::new();
        assert_eq!((take(&mut e, "a-1", &p, "1", "one"), take(&mut e, "b-1", &p, "1", "one")), ("new", "before"));
        assert!(untouched(&e, &p.marker("1")));
        save(&mut e, "b-1", "edited");
        assert!(had(&e, &p.marker("1")) && !untouched(&e, &p.marker("1")));
        assert_eq!((take(&mut e, "a-1", &p, "1", "one"), seen(&e)), ("gone on", vec![6]));
        remove(&mut e, "a-1");
        assert_eq!((take(&mut e, "c-1", &p, "1", "one"), seen(&e)), ("gone on", vec![]));
    }

    #[test]
    fn two_devices_at_once_make_no_conflict_and_an_edit_hides_the_other_copy() {
        let p = OldPlace::new("s3://tcfs/default");
        let (mut a, mut b) = (Entry::new(), Entry::new());
        take(&mut a, "a-1", &p, "1", "one");
        take(&mut b, "b-1", &p, "1", "one");
        save(&mut a, "a-1", "edited");
        a.merge_entry(&b);
        b.merge_entry(&a);
        assert_eq!((a.heads.len(), seen(&a), a == b), (2, vec![6], true));
        save(&mut b, "c-1", "once more");
        assert_eq!((b.heads.len(), seen(&b)), (1, vec![9]));
    }

    #[test]
    fn a_later_version_of_the_place_replaces_what_nobody_touched_and_stands_beside_what_somebody_did() {
        let (p, other) = (OldPlace::new("s3://tcfs/default"), OldPlace::new("file:///old"));
        let mut e = Entry::new();
        take(&mut e, "a-1", &p, "1", "one");
        assert_eq!((take(&mut e, "b-1", &p, "2", "second"), seen(&e)), ("replaced", vec![6]));
        // Of another place, or edited since: beside it.
        let mut there = e.clone();
        assert_eq!((take(&mut there, "a-1", &other, "1", "else"), seen(&there).len()), ("new", 2));
        save(&mut e, "a-1", "an edit");
        assert_eq!((take(&mut e, "b-1", &p, "3", "the third"), seen(&e)), ("new", vec![7, 9]));
        assert_eq!(take(&mut e, "a-1", &p, "3", "the third"), "before");
    }

    #[test]
    fn what_was_written_here_is_never_replaced_and_equal_content_is_left() {
        let p = OldPlace::new("s3://tcfs/default");
        let mut e = Entry::new();
        save(&mut e, "a-1", "mine");
        assert_eq!((take(&mut e, "a-1", &p, "1", "mine"), e.heads.len()), ("same", 1));
        assert_eq!((take(&mut e, "a-1", &p, "2", "old one"), seen(&e)), ("new", vec![4, 7]));
        // Both are ended by one resolution, and nothing comes back.
        let now = e.clone();
        let v = view(&now, false, ConflictMode::Auto, "a-1").unwrap();
        e.merge(ops::remove(&path(), &now, &v, Target::Sibling(0), &author("a-1")).unwrap());
        assert_eq!((take(&mut e, "b-1", &p, "2", "old one"), seen(&e)), ("gone on", vec![4]));
    }

    #[test]
    fn markers_are_actors_and_no_device_id() {
        let p = OldPlace::new("x");
        let m = p.marker("id");
        assert!(m.len() <= record::DEVICE_MAX && m.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-'), "{m}");
        assert!(m != p.marker("other") && m != OldPlace::new("y").marker("id"));
        // A device id is a name, a dash and 8 digits.
        assert_eq!(m.rsplit('-').next().map(str::len), Some(24));
    }
}

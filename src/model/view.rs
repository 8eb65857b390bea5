//! What an entry looks like in the tree of one device: which head has the name, which are siblings beside it, what an
//! operation on the path accepts.
//!
//! Must: a pure function of entry, mode and device; nothing is ever written, renamed or uploaded to show a conflict.
//! Must: in `auto` mode the answer is the same on every device. Must: no visible byte disappears unless another
//! visible head holds it or it was an empty create.
//! The order of the rules matters: each is there because random fleets lost a file or diverged without it.
//! Not here: the names of siblings (`sibling`), what operations write (`ops`).

use super::entry::Entry;
use super::version::Version;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What a path in conflict shows on this device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ConflictMode {
    /// The winner, the same on every device; the others are siblings.
    #[default]
    Auto,
    /// This device's own head if it has one; the person is told.
    Interactive,
    /// As `Interactive`, but siblings stay out of the mount until they are asked for.
    Defer,
}

impl std::str::FromStr for ConflictMode {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        match s {
            "auto" => Ok(ConflictMode::Auto),
            "interactive" => Ok(ConflictMode::Interactive),
            "defer" => Ok(ConflictMode::Defer),
            _ => Err(format!("{s:?} is no conflict mode (auto, interactive, defer)")),
        }
    }
}

/// A visible head beside the one that has the name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SiblingView<'a> {
    /// What reading the sibling shows.
    pub head: &'a Version,
    /// What else an operation on the sibling accepts: heads of the same content, and empty creates that hide beside
    /// it. Without `head` itself.
    pub equals: Vec<&'a Version>,
}

impl<'a> SiblingView<'a> {
    /// Everything that an operation on the sibling accepts.
    pub fn accepted(&self) -> impl Iterator<Item = &'a Version> + '_ {
        std::iter::once(self.head).chain(self.equals.iter().copied())
    }
}

/// One path as this device shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View<'a> {
    /// Whether it is a directory: by a Dir version or by having children.
    pub is_dir: bool,
    /// The head that has the name; none for a directory that exists only through its children.
    pub shown: Option<&'a Version>,
    /// What an operation on the path accepts: every head that is not in a visible sibling's group, tombstones too.
    pub accepted: Vec<&'a Version>,
    /// The other visible heads, in order of precedence. Not empty = the path is in conflict.
    pub siblings: Vec<SiblingView<'a>>,
    /// `st_mode` with file type bits.
    pub mode: u32,
    /// Newest among the heads that are one with the shown one.
    pub mtime: (i64, u32),
}

impl<'a> View<'a> {
    /// Whether more than one head is visible.
    pub fn is_conflict(&self) -> bool {
        !self.siblings.is_empty()
    }

    /// Shown head first, then the siblings.
    pub fn visible(&self) -> impl Iterator<Item = &'a Version> + '_ {
        self.shown.into_iter().chain(self.siblings.iter().map(|s| s.head))
    }

    /// Extended attributes as shown.
    pub fn xattrs(&self) -> Option<&'a BTreeMap<String, String>> {
        self.shown.map(|v| &v.xattrs)
    }
}

/// Mode of a directory that nobody gave one.
pub const IMPLIED_DIR_MODE: u32 = 0o040_755;

/// The view of `entry`; `implied_dir` says that a live entry lies below the path. None if there is nothing to show.
pub fn view<'a>(entry: &'a Entry, implied_dir: bool, mode: ConflictMode, my_device_id: &str) -> Option<View<'a>> {
    if let [only] = entry.heads.as_slice()
        && !only.is_tombstone()
        && (!implied_dir || only.is_dir())
    {
        // Nearly every path of a tree.
        let mode = only.kind.type_bits() | only.mode & 0o7777;
        return Some(View {
            is_dir: only.is_dir(),
            shown: Some(only),
            accepted: vec![only],
            siblings: Vec::new(),
            mode,
            mtime: only.mtime,
        });
    }
    let is_dir = implied_dir || entry.live().any(Version::is_dir);
    if !is_dir && !entry.is_live() {
        return None;
    }
    let groups = groups(entry);
    let visible = visible(&groups);
    let shown_group = if is_dir {
        groups.iter().position(|g| g[0].is_dir())
    } else {
        let own = |g: &usize| groups[*g].iter().any(|v| v.place().1 == my_device_id);
        let own = visible.iter().copied().find(|g| mode != ConflictMode::Auto && own(g));
        own.or(visible.first().copied())
    };
    // With no group left all live heads are bundles: one unit, whose receiver fetches each of them.
    let bundle = if is_dir || shown_group.is_some() { None } else { entry.live().next() };
    let shown = shown_group.map(|g| groups[g][0]).or(bundle);

    let mut siblings: Vec<SiblingView<'a>> = Vec::new();
    for &g in visible.iter().filter(|g| Some(**g) != shown_group) {
        let mut equals = groups[g][1..].to_vec();
        if is_nonempty_file(groups[g][0]) {
            equals.extend(groups.iter().enumerate().filter(|(i, e)| !visible.contains(i) && is_empty_create(e)).flat_map(|(_, e)| e));
        }
        siblings.push(SiblingView { head: groups[g][0], equals });
    }
    let in_sibling = |v: &Version| visible.iter().any(|g| Some(*g) != shown_group && groups[*g].iter().any(|s| std::ptr::eq(*s, v)));
    let foreign_bundle = |v: &Version| bundle.is_none() && v.is_bundle();
    let accepted: Vec<&Version> = entry.heads.iter().filter(|v| !in_sibling(v) && !foreign_bundle(v)).collect();
    let (mode, mtime) = attributes(shown, is_dir, &accepted);
    Some(View { is_dir, shown, accepted, siblings, mode, mtime })
}

/// Mode and mtime of the shown head as the heads that are one with it make them.
fn attributes(shown: Option<&Version>, is_dir: bool, accepted: &[&Version]) -> (u32, (i64, u32)) {
    let Some(shown) = shown else { return (IMPLIED_DIR_MODE, (0, 0)) };
    // `accepted` is in order of precedence, so the first is the one that counts.
    let one = || accepted.iter().filter(|v| !v.is_tombstone() && v.is_dir() == is_dir);
    let perms = one().find(|v| v.is_metadata_only()).map_or(shown.mode, |v| v.mode) & 0o7777;
    let exec = one().fold(0, |bits, v| bits | v.mode & 0o111);
    let mtime = one().map(|v| v.mtime).max().unwrap_or(shown.mtime);
    (shown.kind.type_bits() | perms | exec, mtime)
}

fn is_nonempty_file(v: &Version) -> bool {
    v.file().is_some_and(|c| c.size > 0)
}

/// Files that were made and never filled: they hide beside a file with content.
fn is_empty_create(group: &[&Version]) -> bool {
    group.iter().all(|v| v.base.is_none() && v.file().is_some_and(|c| c.size == 0))
}

/// Live heads other than bundles, equal contents together; groups and their members in order of precedence.
fn groups(entry: &Entry) -> Vec<Vec<&Version>> {
    let mut groups: Vec<Vec<&Version>> = Vec::new();
    for v in entry.live().filter(|v| !v.is_bundle()) {
        // A head may tie groups together that had no hash in common before (root here, whole-file hash there).
        let mut same = (0..groups.len()).filter(|g| groups[*g].iter().any(|h| h.same_content(v))).collect::<Vec<_>>().into_iter();
        match same.next() {
            None => groups.push(vec![v]),
            Some(first) => {
                for other in same.rev() {
                    let tied = groups.remove(other);
                    groups[first].extend(tied);
                }
                groups[first].push(v);
                groups[first].sort_by(|a, b| a.precedence(b));
            }
        }
    }
    groups
}

/// Whether `over` holds all that `under` has to say but metadata: each head of `under` has bytes that a head of `over`
/// has replaced.
fn outdates(over: &[&Version], under: &[&Version]) -> bool {
    if over[0].is_dir() || under[0].is_dir() {
        return false;
    }
    under.iter().all(|u| over.iter().any(|o| u.wrote != o.wrote && o.vclock.ge(&u.wrote)))
}

/// Indexes of the visible groups, in order.
fn visible(groups: &[Vec<&Version>]) -> Vec<usize> {
    let all = || 0..groups.len();
    let hidden = |g: usize| all().any(|o| o != g && outdates(&groups[o], &groups[g]) && !outdates(&groups[g], &groups[o]));
    let mut fresh: Vec<usize> = all().filter(|g| !hidden(*g)).collect();
    if fresh.is_empty() {
        // Only forged clocks can outdate each other in a ring; then nothing is hidden.
        fresh = all().collect();
    }
    let beside_content = fresh.iter().any(|g| is_nonempty_file(groups[*g][0]));
    fresh.into_iter().filter(|g| !(beside_content && is_empty_create(&groups[*g]))).collect()
}

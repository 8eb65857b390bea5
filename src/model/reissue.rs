//! Re-issue: a machine that finds another object at its own next log key was cloned or rolled back. It takes a new
//! device id and moves what it has not published over to it.
//!
//! Must: a published counter is never given up and never used for other content: counters above the last published one
//! move to the new id, the published part stays with the old. Must: the same for outbox, replica and open handles, or
//! the device would not recognise its own heads.
//! Not here: noticing it, taking the new id, reading the old log like any other's (`fleet`).

use super::entry::Entry;
use super::ops::Accepted;
use super::path::RelPath;
use super::vclock::VClock;
use super::version::{Place, Version};

/// The change of one device's id.
pub struct Reissue<'a> {
    /// The id until now.
    pub old_id: &'a str,
    /// The id from now on.
    pub new_id: &'a str,
    /// The last counter of an own actor at a path that is *published*: in the own log up to the last sequence that this
    /// device knows it put.
    pub published: &'a dyn Fn(&RelPath, &str) -> u64,
    /// By how much the own counters of a path are raised besides: its first versions were forgotten here and are said
    /// again all the same, so later ones have counters of theirs.
    pub raised: &'a dyn Fn(&RelPath) -> u64,
}

impl Reissue<'_> {
    /// The same actor of the new id: `old` → `new`, `old.2` → `new.2`; none for actors of others.
    fn actor(&self, actor: &str) -> Option<String> {
        let rest = actor.strip_prefix(self.old_id)?;
        (rest.is_empty() || rest.starts_with('.')).then(|| format!("{}{rest}", self.new_id))
    }

    /// A clock of this path with the unpublished part of own counters moved.
    pub fn clock(&self, path: &RelPath, clock: &VClock) -> VClock {
        let mut out = VClock::new();
        for (actor, n) in clock.iter() {
            match self.actor(actor).map(|new| (new, (self.published)(path, actor))) {
                Some((new, last)) if n > last => {
                    out.set(actor, last);
                    out.set(&new, (n - last).saturating_add((self.raised)(path)));
                }
                _ => out.set(actor, n),
            }
        }
        out
    }

    /// Whether `v` is this device's and not published.
    pub fn concerns(&self, v: &Version) -> bool {
        v.device_id == self.old_id && v.vclock.get(&v.actor) > (self.published)(&v.path, &v.actor)
    }

    /// The version under the new id; others and published ones as they are.
    pub fn version(&self, v: &Version) -> Version {
        if !self.concerns(v) {
            return v.clone();
        }
        Version {
            actor: self.actor(&v.actor).unwrap_or_else(|| v.actor.clone()),
            vclock: self.clock(&v.path, &v.vclock),
            wrote: self.clock(&v.path, &v.wrote),
            place: self.place(v.place.as_ref()),
            device_id: self.new_id.to_owned(),
            ..v.clone()
        }
    }

    /// The entry with this device's unpublished heads under the new id.
    pub fn entry(&self, entry: &Entry) -> Entry {
        Entry::of(entry.heads.iter().map(|v| self.version(v)))
    }

    /// What an open handle of `path` had accepted.
    pub fn accepted(&self, path: &RelPath, accepted: &Accepted) -> Accepted {
        Accepted { clock: self.clock(path, &accepted.clock), base: accepted.base, place: self.place(accepted.place.as_ref()) }
    }

    fn place(&self, place: Option<&Place>) -> Option<Place> {
        place.map(|p| Place { id: if p.id == self.old_id { self.new_id.to_owned() } else { p.id.clone() }, name: p.name.clone() })
    }
}

//! Who reads, and what that may bring here: indexers and thumbnailers must not fetch a whole drive. And what happened to a
//! file's bytes on this machine lately, for `tcfs why`.
//!
//! A program is known by the name of its executable, and by the name that it gave its thread; front ends that cannot tell
//! who asks leave it out.
//!
//! Must: bytes that are here are read by everybody; opening for writing is never refused.
//! Memory: what is remembered of the files that were used last, [`REMEMBERED`] of them, since the daemon started.

use super::{Opened, Vfs};
use crate::error::{Error, Kind, Result};
use globset::{Glob, GlobSet, GlobSetBuilder};
use lru::LruCache;
use parking_lot::Mutex;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

/// Files of which it is remembered what happened to them.
const REMEMBERED: NonZeroUsize = NonZeroUsize::new(1 << 15).expect("not zero");

/// Patterns of program names, and what their reads may bring here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReaderRules {
    /// A file that is not all here cannot be opened.
    pub deny: Vec<String>,
    /// What is here can be read, nothing comes.
    pub cached_only: Vec<String>,
    /// What is read comes, and nothing around it.
    pub range_only: Vec<String>,
}

impl ReaderRules {
    /// For a drive of people: programs that look at every file on their own account are refused, indexers and what makes
    /// previews.
    pub fn usual() -> ReaderRules {
        let deny = ["tracker-miner*", "tracker-extract*", "localsearch*", "baloo*", "*thumbnailer*", "updatedb*", "plocate*", "mlocate*"];
        ReaderRules { deny: deny.map(str::to_owned).to_vec(), ..ReaderRules::default() }
    }
}

/// What the reads of an open file may bring here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Brings {
    /// What is read, what follows it, and all of a small file.
    All = 0,
    /// What is read.
    Ranges = 1,
    /// Nothing.
    Nothing = 2,
}

/// [`Brings`] of an open file.
pub(super) struct Allowance(AtomicU8);

impl Allowance {
    pub(super) fn all() -> Allowance {
        Allowance(AtomicU8::new(Brings::All as u8))
    }
    pub(super) fn get(&self) -> Brings {
        match self.0.load(Ordering::Relaxed) {
            0 => Brings::All,
            1 => Brings::Ranges,
            _ => Brings::Nothing,
        }
    }
    fn set(&self, b: Brings) {
        self.0.store(b as u8, Ordering::Relaxed);
    }
}

/// A program that opens a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reader {
    /// Names that it goes by, the one that is shown first. Empty: not known.
    pub names: Vec<String>,
}

/// How often rules kept bytes from coming, since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Refusals {
    /// Opens refused.
    pub denied: u64,
    /// Opens that read only what is here.
    pub cached_only: u64,
    /// Opens that bring only what they read.
    pub range_only: u64,
}

/// What happened to a file's bytes lately.
#[derive(Clone, Debug, Default)]
pub struct Trace {
    /// Last opened to be read: when, by which program; milliseconds since 1970.
    pub read: Option<(i64, String)>,
    /// Last made a stub again: when, why.
    pub dropped: Option<(i64, &'static str)>,
    /// Last kept from coming: when, for which program, by which pattern of which list.
    pub refused: Option<(i64, String, String)>,
}

/// The rules, compiled, with what is counted and remembered.
pub(super) struct Readers {
    lists: [(Brings, &'static str, GlobSet, Vec<String>); 3],
    any: bool,
    counts: [AtomicU64; 3],
    traces: Mutex<LruCache<u64, Trace>>,
}

impl Readers {
    pub(super) fn new(rules: &ReaderRules) -> Result<Readers> {
        let compile = |key: &str, patterns: &[String]| {
            let mut b = GlobSetBuilder::new();
            for p in patterns {
                let g = Glob::new(p).map_err(|e| Error::new(Kind::Usage, format!("{key}: pattern {p:?}")).source(e))?;
                b.add(g);
            }
            b.build().map_err(|e| Error::new(Kind::Usage, key.to_owned()).source(e))
        };
        let list = |b, key, p: &Vec<String>| Ok::<_, Error>((b, key, compile(key, p)?, p.clone()));
        Ok(Readers {
            any: [&rules.deny, &rules.cached_only, &rules.range_only].iter().any(|l| !l.is_empty()),
            lists: [
                list(Brings::Nothing, "hydration.deny", &rules.deny)?,
                list(Brings::Nothing, "hydration.cached_only", &rules.cached_only)?,
                list(Brings::Ranges, "hydration.range_only", &rules.range_only)?,
            ],
            counts: Default::default(),
            traces: Mutex::new(LruCache::new(REMEMBERED)),
        })
    }

    /// Which list, and which pattern of it, a program is on; the strictest.
    fn judge(&self, who: &Reader) -> Option<(usize, String)> {
        if !self.any {
            return None;
        }
        self.lists.iter().enumerate().find_map(|(i, (_, key, set, patterns))| {
            let hit = who.names.iter().find_map(|n| set.matches(n).first().copied())?;
            Some((i, format!("{key} {:?}", patterns[hit])))
        })
    }

    fn remember(&self, ino: u64, note: impl FnOnce(&mut Trace)) {
        note(self.traces.lock().get_or_insert_mut(ino, Trace::default));
    }
}

impl Vfs {
    /// [`Vfs::open_file`] for a program: what it may bring here goes by the rules.
    ///
    /// Errors: `Denied` where the file is not all here and the rules say so.
    pub fn open_for(self: &Arc<Self>, ino: u64, write: bool, truncate: bool, who: &Reader) -> Result<Opened> {
        if super::is_control(ino) || write || truncate {
            return self.open_file(ino, write, truncate);
        }
        let opened = self.open_sparing(ino, false, false)?;
        let now = self.clock.now_ms();
        let shown = who.names.first().cloned().unwrap_or_default();
        let rule = if opened.whole { None } else { self.readers.judge(who) };
        let Some((list, pattern)) = rule else {
            if !opened.whole {
                self.hydrate_opened(opened.fh)?;
            }
            self.readers.remember(ino, |t| t.read = Some((now, shown)));
            return Ok(opened);
        };
        self.readers.counts[list].fetch_add(1, Ordering::Relaxed);
        self.readers.remember(ino, |t| t.refused = Some((now, shown.clone(), pattern.clone())));
        if list == 0 {
            self.release(opened.fh)?;
            return Err(Error::new(Kind::Denied, format!("{shown} may not bring files here ({pattern}), and this one is not all here")));
        }
        self.handle(opened.fh)?.allowance.set(self.readers.lists[list].0);
        Ok(opened)
    }

    /// How often the rules kept bytes from coming.
    pub fn refusals(&self) -> Refusals {
        let [denied, cached_only, range_only] = self.readers.counts.each_ref().map(|c| c.load(Ordering::Relaxed));
        Refusals { denied, cached_only, range_only }
    }

    /// What happened to a file's bytes lately.
    pub fn trace(&self, ino: u64) -> Trace {
        self.readers.traces.lock().peek(&ino).cloned().unwrap_or_default()
    }

    /// Notes that a file was made a stub again.
    pub(super) fn note_dropped(&self, ino: u64, why: &'static str) {
        let now = self.clock.now_ms();
        self.readers.remember(ino, |t| t.dropped = Some((now, why)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn who(names: &[&str]) -> Reader {
        Reader { names: names.iter().map(|n| (*n).to_owned()).collect() }
    }

    #[test]
    fn the_strictest_list_counts_and_any_of_its_names_is_enough() {
        let rules = ReaderRules {
            deny: vec!["tracker-miner*".into(), "*thumbnailer*".into()],
            cached_only: vec!["grep".into()],
            range_only: vec!["mpv".into(), "grep".into()],
        };
        let r = Readers::new(&rules).unwrap();
        assert_eq!(r.judge(&who(&["x", "tracker-miner-fs-3"])).unwrap(), (0, "hydration.deny \"tracker-miner*\"".to_owned()));
        assert_eq!(r.judge(&who(&["ffmpegthumbnailer"])).unwrap().0, 0);
        assert_eq!(r.judge(&who(&["grep"])).unwrap().0, 1);
        assert_eq!(r.judge(&who(&["mpv"])).unwrap().0, 2);
        assert!(r.judge(&who(&["cat"])).is_none() && r.judge(&who(&[])).is_none());
        let bad = ReaderRules { deny: vec!["[".into()], ..ReaderRules::default() };
        assert_eq!(Readers::new(&bad).err().unwrap().kind(), Kind::Usage);
    }
}

//! Finding names anywhere in the drive, at once: an index of all names in memory, made when somebody first searches.
//!
//! The index says where a name may be; what it finds is looked up before it counts, so it may be behind. Names that come
//! while it is kept are noted beside it.
//!
//! Memory: about 16 bytes and the name itself for each entry, and nothing once nobody has searched for a while.

use super::{Found, Vfs};
use crate::error::{Kind, Result};
use crate::state::rows::{Slot, slot_end, slot_key};
use crate::state::tree::path_of_dir;
use crate::state::{Scan, Tree, prefix_end};
use parking_lot::Mutex;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long the index is kept after the last search.
const KEPT: Duration = Duration::from_secs(300);
/// Directories that are asked one by one, at most and at a time.
const PROBES: usize = 4096;
const PROBED: usize = 256;
/// Names noted beside the index; with more it is made anew.
const BESIDE: usize = 100_000;

/// Directories and names in them.
type Places = HashSet<(u64, String)>;

/// All names as of when it was made.
#[derive(Default)]
struct Names {
    text: String,
    /// Directory, and where in `text` the name ends.
    places: Vec<(u64, u32)>,
}

impl Names {
    fn push(&mut self, dir: u64, name: &str) -> bool {
        let end = self.text.len() + name.len();
        let Ok(end) = u32::try_from(end) else { return false };
        self.text.push_str(name);
        self.places.push((dir, end));
        true
    }

    fn each(&self, mut each: impl FnMut(u64, &str)) {
        let mut from = 0;
        for (dir, end) in &self.places {
            each(*dir, &self.text[from..*end as usize]);
            from = *end as usize;
        }
    }
}

/// The index, if there is one.
#[derive(Default)]
pub(super) struct Index {
    now: Mutex<State>,
}

#[derive(Default)]
struct State {
    names: Option<Arc<Names>>,
    used: Option<Instant>,
    /// Names that came since, while there is an index or one is being made.
    fresh: Places,
    noting: bool,
}

impl Index {
    /// Notes that a name came or went.
    pub(super) fn note(&self, dir: u64, name: &str) {
        let mut s = self.now.lock();
        if !s.noting {
            return;
        }
        s.fresh.insert((dir, name.to_owned()));
        if s.fresh.len() > BESIDE {
            *s = State::default();
        }
    }

    /// Lets go of it if nobody has searched for a while.
    pub(super) fn let_go(&self) {
        let mut s = self.now.lock();
        if s.used.is_some_and(|at| at.elapsed() > KEPT) {
            *s = State::default();
        }
    }
}

impl Vfs {
    /// Everything whose name `matches` says yes to, in order of paths as far as `each` wants to go on. Blocking; the first
    /// search reads all names.
    pub fn find_names(&self, matches: &dyn Fn(&str) -> bool, each: &mut dyn FnMut(Found) -> Result<bool>) -> Result<()> {
        let (names, fresh) = self.name_index()?;
        let mut hits: Places = fresh.into_iter().filter(|(_, n)| matches(n)).collect();
        names.each(|dir, name| {
            if matches(name) {
                hits.insert((dir, name.to_owned()));
            }
        });
        self.look_up(hits, each)
    }

    /// The same for one name, letter by letter. Where the drive has few directories each is asked for it, which needs no index.
    pub fn find_name(&self, name: &str, each: &mut dyn FnMut(Found) -> Result<bool>) -> Result<()> {
        let known = self.names.now.lock().names.is_some();
        match if known { None } else { self.probe(name)? } {
            Some(hits) => self.look_up(hits, each),
            None => self.find_names(&|n| n == name, each),
        }
    }

    /// Asks every directory for a name; none where there are too many.
    fn probe(&self, name: &str) -> Result<Option<Places>> {
        let (mut hits, mut from, mut asked) = (Places::new(), Vec::new(), 0);
        let end = prefix_end(&[]);
        loop {
            // The database is let go of between pages.
            let over = self.replica.read(|r| {
                for _ in 0..PROBED {
                    let mut dir = None;
                    r.scan(Tree::Entry, Scan::From(&from, &end), 1, |k, _: ()| {
                        dir = k.get(..8).and_then(|b| b.try_into().ok()).map(u64::from_be_bytes);
                        Ok(())
                    })?;
                    let Some(dir) = dir else { return Ok(true) };
                    if r.get::<()>(Tree::Entry, slot_key(dir, name))?.is_some() {
                        hits.insert((dir, name.to_owned()));
                    }
                    from = slot_end(dir);
                }
                Ok(false)
            })?;
            asked += PROBED;
            match over {
                true => return Ok(Some(hits)),
                false if asked >= PROBES => return Ok(None),
                false => {}
            }
        }
    }

    /// Looks up what may be there, in order of paths.
    fn look_up(&self, hits: Places, each: &mut dyn FnMut(Found) -> Result<bool>) -> Result<()> {
        let mut dirs: HashMap<u64, Option<crate::model::RelPath>> = HashMap::new();
        let mut found: Vec<(crate::model::RelPath, u64, String)> = Vec::with_capacity(hits.len());
        for (dir, name) in hits {
            let at = dirs.entry(dir).or_insert_with(|| self.replica.read(|r| path_of_dir(r, dir)).ok());
            found.extend(at.as_ref().map(|at| (at.join(&name), dir, name)));
        }
        found.sort();
        for (path, dir, name) in found {
            let slot: Option<Slot> = self.replica.read(|r| r.get(Tree::Entry, slot_key(dir, &name)))?;
            let Some(ino) = slot.map(|s| s.ino()).filter(|i| *i != 0) else { continue };
            let attr = match self.getattr(ino) {
                Ok(a) => a,
                Err(e) if matches!(e.kind(), Kind::Stale | Kind::NotFound) => continue,
                Err(e) => return Err(e),
            };
            if !each(Found { dir, name, path, attr })? {
                break;
            }
        }
        Ok(())
    }

    fn name_index(&self) -> Result<(Arc<Names>, Places)> {
        {
            let mut s = self.names.now.lock();
            s.used = Some(Instant::now());
            s.noting = true;
            if let Some(names) = &s.names {
                return Ok((names.clone(), s.fresh.clone()));
            }
        }
        let mut names = Names::default();
        let mut whole = true;
        self.each_name(&mut |dir, name| whole &= names.push(dir, name))?;
        names.text.shrink_to_fit();
        names.places.shrink_to_fit();
        let names = Arc::new(names);
        let mut s = self.names.now.lock();
        // Over 4 GiB of names are searched anew each time; one that got too many changes meanwhile as well.
        if whole && s.noting {
            s.names = Some(names.clone());
        }
        Ok((names, s.fresh.clone()))
    }

    /// Frees what nobody used for a while. Called now and then.
    pub fn tidy(&self) {
        self.names.let_go();
    }
}

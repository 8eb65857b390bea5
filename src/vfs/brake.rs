//! The brake: deletes on this machine are counted, and many of them at once are kept from the others until somebody
//! approves them.
//!
//! Only where the registry, as it was read last, has more than one device.
//!
//! Must: what the brake does is a version as any other, in the transaction of the delete or right after it; a program
//! here never notices it. Must: what was deleted before it was clear that there were many goes under the brake, too.
//! Not here: what such a version says and who sees what of it (`model::brake`), asking the person (`daemon::core::brake`).

use super::{Touches, Vfs};
use crate::error::Result;
use crate::model::brake::{self, Verdict};
use crate::model::{RelPath, VClock, Version};
use crate::state::rows::*;
use crate::state::tree::{locate, names, path_of_dir};
use crate::state::{BRAKED, Ns, Read, Tree, decode, encode};
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Deletes within this time count together; as long after the last one, the next is one of few again.
const WINDOW: Duration = Duration::from_secs(60);
/// Paths per transaction.
const PAGE: usize = 200;

/// When deletes are many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BrakeOptions {
    /// Whether there is a brake at all.
    pub enabled: bool,
    /// So many files within a minute are still few…
    pub files: u64,
    /// …and so is this share of the names in the drive, in percent. The greater of the two counts.
    pub percent: u64,
}

impl Default for BrakeOptions {
    fn default() -> Self {
        BrakeOptions { enabled: true, files: 200, percent: 20 }
    }
}

/// What was deleted or emptied here lately.
pub(super) struct Brake {
    options: BrakeOptions,
    st: Mutex<St>,
}

#[derive(Default)]
struct St {
    /// While the brake is off: the last minute's, oldest first.
    recent: VecDeque<Taken>,
    /// How many of them count.
    counted: u64,
    /// To be put under the brake.
    pending: VecDeque<Taken>,
    /// The last delete that came when the brake was on.
    last: Option<Instant>,
}

impl St {
    fn is_on(&self) -> bool {
        self.last.is_some_and(|l| l.elapsed() < WINDOW)
    }
}

/// A delete, or a file emptied, that went its ordinary way.
struct Taken {
    at: Instant,
    counts: bool,
    /// What was there before, and the clock of the version that took it away. Packed: there may be very many.
    row: Box<[u8]>,
}

impl Taken {
    fn new(was: &Version, by: &Version) -> Result<Taken> {
        // Directories go with their files, and what nobody else ever had is nobody else's loss.
        let counts = !was.is_dir() && (!was.is_uncut() || was.base.is_some());
        Ok(Taken { at: Instant::now(), counts, row: encode(&(was, &by.vclock))?.into() })
    }

    fn unpack(&self) -> Result<(Version, VClock)> {
        decode(Tree::History, &self.row)
    }
}

impl Brake {
    pub(super) fn new(options: BrakeOptions) -> Brake {
        Brake { options, st: Mutex::default() }
    }

    /// Whether the next delete is one of many.
    pub(super) fn is_on(&self) -> bool {
        self.st.lock().is_on()
    }

    /// One more delete went under the brake as it was made.
    pub(super) fn holds(&self) {
        self.st.lock().last = Some(Instant::now());
    }

    /// A version took `was` away in the ordinary way.
    pub(super) fn note(&self, r: &Read<'_>, was: &Version, by: &Version) -> Result<()> {
        if !self.options.enabled {
            return Ok(());
        }
        let taken = Taken::new(was, by)?;
        let now = taken.at;
        let mut st = self.st.lock();
        if st.is_on() {
            st.pending.push_back(taken);
            st.last = Some(now);
            return Ok(());
        }
        while let Some(old) = st.recent.pop_front_if(|t| now.duration_since(t.at) > WINDOW) {
            st.counted -= u64::from(old.counts);
        }
        st.counted += u64::from(taken.counts);
        st.recent.push_back(taken);
        if st.counted > self.options.files && self.is_a_share(st.counted, names(r)?) {
            let all = std::mem::take(&mut st.recent);
            let counted = std::mem::take(&mut st.counted);
            // Nobody else has the files: nothing to be held back from anybody.
            if r.count(Tree::Device)? < 2 {
                return Ok(());
            }
            tracing::warn!(deletes = counted, "many files are being deleted here: other machines keep them until `tcfs approve`");
            st.pending.extend(all);
            st.last = Some(now);
        }
        Ok(())
    }

    /// Whether so many files are more than the share of all that are, or were a minute ago.
    fn is_a_share(&self, counted: u64, left: u64) -> bool {
        counted > left.saturating_add(counted).saturating_mul(self.options.percent) / 100
    }

    /// What is to be put under the brake, at most a page.
    fn page(&self) -> Vec<Taken> {
        let mut st = self.st.lock();
        let n = st.pending.len().min(PAGE);
        st.pending.drain(..n).collect()
    }

    fn put_back(&self, taken: Vec<Taken>) {
        self.st.lock().pending.extend(taken);
    }
}

/// What became of a delete that was to go under the brake.
enum Outcome {
    Held(Box<Version>),
    /// It is no head any more: something else is there by now.
    Passed,
    /// Its bytes are not cut yet.
    Later,
}

impl Vfs {
    /// Puts under the brake what was deleted before it came on, and what was emptied since. Called now and then.
    pub fn brake_earlier(&self) -> Result<()> {
        loop {
            let page = self.brake.page();
            if page.is_empty() {
                return Ok(());
            }
            let whole = page.len() == PAGE;
            let mut done = Vec::with_capacity(page.len());
            let put = self.change_settled(&[], Touches::Anything, |ns| {
                let mut versions = Vec::new();
                for t in &page {
                    let outcome = self.hold_back(ns, t)?;
                    done.push(matches!(outcome, Outcome::Later));
                    if let Outcome::Held(v) = outcome {
                        versions.push(*v);
                    }
                }
                if versions.is_empty() {
                    return Ok(false);
                }
                self.enqueue(ns, Sealed { versions, ..self.sealed_row() })?;
                Ok(true)
            });
            let held = match put {
                Ok(held) => held,
                Err(e) => {
                    self.brake.put_back(page);
                    return Err(e);
                }
            };
            let later: Vec<Taken> = page.into_iter().zip(done).filter_map(|(t, later)| later.then_some(t)).collect();
            let waits = !later.is_empty();
            self.brake.put_back(later);
            if held {
                self.sealed.notify_one();
            }
            // What waits comes at the next call: this one would find it as it is.
            if !whole || waits && !held {
                return Ok(());
            }
        }
    }

    fn hold_back(&self, ns: &mut Ns<'_, '_>, t: &Taken) -> Result<Outcome> {
        let (was, clock) = t.unpack()?;
        let Some((dir, mut reg)) = locate(ns.t, &was.path)? else { return Ok(Outcome::Passed) };
        let author = self.author();
        let ours = |h: &&Version| h.vclock == clock && h.device_id == author.device_id;
        let Some(by) = reg.entry.heads.iter().find(ours).cloned() else { return Ok(Outcome::Passed) };
        if by.is_uncut() {
            return Ok(Outcome::Later);
        }
        let Some(v) = brake::hold_back(&was.path, &reg.entry, &was, &by, &author)? else { return Ok(Outcome::Passed) };
        let name = was.path.file_name();
        ns.merge_into(&mut reg, &v)?;
        ns.put_slot(dir, name, &Slot::Register(reg))?;
        ns.reconcile(dir, name)?;
        Ok(Outcome::Held(Box::new(v)))
    }

    /// Every version under the brake with its path, in order of paths; read from an index of them.
    pub fn under_brake(&self) -> Result<Vec<(RelPath, Version)>> {
        let mut out = self.replica.read(|r| {
            let mut out = Vec::new();
            for (dir, name) in super::resolve::indexed(r, Tree::Meta, BRAKED)? {
                let Some(Slot::Register(reg)) = r.get::<Slot>(Tree::Entry, slot_key(dir, &name))? else { continue };
                let path = path_of_dir(r, dir)?.join(&name);
                out.extend(reg.entry.heads.into_iter().filter(Version::is_held_back).map(|h| (path.clone(), h)));
            }
            Ok(out)
        })?;
        out.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(out)
    }

    /// How many paths have a version under the brake.
    pub fn under_brake_count(&self) -> Result<u64> {
        self.replica.read(|r| Ok(super::resolve::indexed(r, Tree::Meta, BRAKED)?.len() as u64))
    }

    /// Passes a verdict on the versions under the brake that `which` names, in pages. Returns on how many; `progress`
    /// hears of each page. What arrives meanwhile is left.
    pub fn pass_verdict(&self, verdict: Verdict, which: &dyn Fn(&RelPath, &Version) -> bool, progress: &mut dyn FnMut(u64)) -> Result<u64> {
        self.brake_earlier()?;
        let all = self.replica.read(|r| super::resolve::indexed(r, Tree::Meta, BRAKED))?;
        let mut passed = 0;
        for page in all.chunks(PAGE) {
            passed += self.change_settled(&[], Touches::Anything, |ns| {
                let mut versions = Vec::new();
                for (dir, name) in page {
                    self.pass_on(ns, verdict, (*dir, name), which, &mut versions)?;
                }
                let n = versions.len() as u64;
                if n > 0 {
                    self.enqueue(ns, Sealed { versions, ..self.sealed_row() })?;
                }
                Ok(n)
            })?;
            self.sealed.notify_one();
            progress(passed);
        }
        Ok(passed)
    }

    fn pass_on(
        &self,
        ns: &mut Ns<'_, '_>,
        verdict: Verdict,
        (dir, name): (u64, &str),
        which: &dyn Fn(&RelPath, &Version) -> bool,
        out: &mut Vec<Version>,
    ) -> Result<()> {
        let Some(Slot::Register(mut reg)) = ns.slot(dir, name)? else { return Ok(()) };
        let path = ns.path_of_dir(dir)?.join(name);
        let held: Vec<Version> = reg.entry.heads.iter().filter(|h| h.is_held_back() && which(&path, h)).cloned().collect();
        let before = out.len();
        for h in held {
            if let Some(v) = brake::pass(&path, &reg.entry, &h, verdict, &self.author())? {
                ns.merge_into(&mut reg, &v)?;
                out.push(v);
            }
        }
        if out.len() == before {
            return Ok(());
        }
        ns.put_slot(dir, name, &Slot::Register(reg))?;
        ns.reconcile(dir, name)
    }
}

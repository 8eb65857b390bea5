//! A writer that knows at every moment what must be on the drive if the daemon dies now.
//!
//! Each operation says beforehand which states of which paths it may leave when it is cut short (`flight`), and after it
//! returned what is true (`now`). Whatever a path held at a close is remembered (`seen`): another machine may show nothing else.
//! Not here: power cuts, where only what was synced counts (`tests/power.rs`).

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A file's bytes; `None`: no such file.
pub type State = Option<Arc<Vec<u8>>>;

/// What a path may be after an operation was cut short.
#[derive(Clone)]
enum Allowed {
    Is(State),
    /// The first bytes of this.
    PrefixOf(Arc<Vec<u8>>),
    /// At least the first, at most the second, which continues it.
    Between(Arc<Vec<u8>>, Arc<Vec<u8>>),
    /// As long as both, each byte from one of them.
    Mixed(Arc<Vec<u8>>, Arc<Vec<u8>>),
}

impl Allowed {
    fn matches(&self, have: &State) -> bool {
        match (self, have) {
            (Allowed::Is(want), have) => want == have,
            (Allowed::PrefixOf(all), Some(b)) => all.starts_with(b),
            (Allowed::Between(least, most), Some(b)) => b.starts_with(least) && most.starts_with(b),
            (Allowed::Mixed(old, new), Some(b)) => {
                b.len() == old.len() && b.len() == new.len() && b.iter().zip(old.iter().zip(new.iter())).all(|(b, (o, n))| b == o || b == n)
            }
            (Allowed::PrefixOf(_) | Allowed::Between(..) | Allowed::Mixed(..), None) => false,
        }
    }
}

type Alternative = BTreeMap<String, Allowed>;

/// The writer and what it knows.
pub struct Writer {
    root: PathBuf,
    rng: fastrand::Rng,
    now: BTreeMap<String, Arc<Vec<u8>>>,
    flight: Vec<Alternative>,
    seen: HashMap<String, HashSet<blake3::Hash>>,
    log: Option<File>,
    /// What was written through the open log handle, synced or not.
    log_written: Vec<u8>,
    dir: u32,
    /// Operations that returned.
    pub done: u64,
}

const LOG: &str = "log";
const BIG: &str = "big";

impl Writer {
    /// Makes the first files below `root` (a path on the drive).
    pub fn new(root: &Path, rng: fastrand::Rng) -> io::Result<Writer> {
        let now = BTreeMap::new();
        let mut w = Writer {
            root: root.to_owned(),
            rng,
            now,
            flight: vec![],
            seen: HashMap::new(),
            log: None,
            log_written: vec![],
            dir: 0,
            done: 0,
        };
        for d in ["small", "doc", "large", "d0"] {
            fs::create_dir_all(root.join(d))?;
        }
        for i in 0..5 {
            w.write(&format!("d0/f{i}"), 2000)?;
        }
        w.write(BIG, 6 << 20)?;
        Ok(w)
    }

    /// One random operation. An error is returned as it came; what the operation may have left is known then.
    pub fn step(&mut self) -> io::Result<()> {
        let (i, j) = (self.rng.u32(..60), self.rng.u32(..60));
        match self.rng.u32(..100) {
            0..35 => self.write(&format!("small/{i}"), 40_000)?,
            35..50 => self.save(&format!("doc/{}", i % 10))?,
            50..65 => self.append()?,
            65..78 => self.edit()?,
            78..86 => self.delete(&format!("small/{i}"))?,
            86..92 => self.rename(&format!("small/{i}"), &format!("small/{j}"))?,
            92..95 => self.rename_dir()?,
            95..97 => self.close_log(),
            _ => self.write(&format!("large/{}", i % 4), 3 << 20)?,
        }
        self.flight.clear();
        self.done += 1;
        Ok(())
    }

    fn bytes(&mut self, most: usize) -> Arc<Vec<u8>> {
        let mut b = vec![0u8; self.rng.usize(..=most)];
        self.rng.fill(&mut b);
        // No zeros: a zero found later came from a hole.
        b.iter_mut().for_each(|b| *b |= 1);
        Arc::new(b)
    }

    fn at(&self, rel: &str) -> PathBuf {
        self.root.join(rel)
    }

    fn may(&mut self, alternative: impl IntoIterator<Item = (String, Allowed)>) {
        self.flight.push(alternative.into_iter().collect());
    }

    fn is(&mut self, rel: &str, state: State) {
        match state {
            Some(b) => {
                self.seen.entry(rel.to_owned()).or_default().insert(blake3::hash(&b));
                self.now.insert(rel.to_owned(), b);
            }
            None => drop(self.now.remove(rel)),
        }
    }

    fn write(&mut self, rel: &str, most: usize) -> io::Result<()> {
        let new = self.bytes(most);
        self.may([(rel.to_owned(), Allowed::PrefixOf(new.clone()))]);
        let mut f = File::create(self.at(rel))?;
        for part in new.chunks(1 << 17) {
            f.write_all(part)?;
        }
        close(f)?;
        self.is(rel, Some(new));
        self.flight.clear();
        Ok(())
    }

    fn save(&mut self, rel: &str) -> io::Result<()> {
        let temp = format!("{rel}.tmp-save");
        self.write(&temp, 30_000)?;
        self.rename(&temp, rel)
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        let Some(b) = self.now.get(from).cloned().filter(|_| from != to) else { return Ok(()) };
        self.may([(from.to_owned(), Allowed::Is(None)), (to.to_owned(), Allowed::Is(Some(b.clone())))]);
        fs::rename(self.at(from), self.at(to))?;
        self.is(from, None);
        self.is(to, Some(b));
        self.flight.clear();
        Ok(())
    }

    fn delete(&mut self, rel: &str) -> io::Result<()> {
        if self.now.contains_key(rel) {
            self.may([(rel.to_owned(), Allowed::Is(None))]);
            fs::remove_file(self.at(rel))?;
            self.is(rel, None);
        }
        Ok(())
    }

    fn rename_dir(&mut self) -> io::Result<()> {
        let (from, to) = (format!("d{}", self.dir), format!("d{}", self.dir + 1));
        let inside: Vec<(String, Arc<Vec<u8>>)> =
            self.now.iter().filter_map(|(p, b)| Some((p.strip_prefix(&format!("{from}/"))?.to_owned(), b.clone()))).collect();
        let moved = inside
            .iter()
            .flat_map(|(n, b)| [(format!("{from}/{n}"), Allowed::Is(None)), (format!("{to}/{n}"), Allowed::Is(Some(b.clone())))])
            .collect::<Vec<_>>();
        self.may(moved);
        fs::rename(self.at(&from), self.at(&to))?;
        for (n, b) in inside {
            self.is(&format!("{from}/{n}"), None);
            self.is(&format!("{to}/{n}"), Some(b));
        }
        self.dir += 1;
        Ok(())
    }

    fn append(&mut self) -> io::Result<()> {
        let synced = self.now.get(LOG).cloned().unwrap_or_default();
        let line = self.bytes(3000);
        if self.log_written.len() < synced.len() {
            self.log_written = synced.to_vec();
        }
        self.log_written.extend(line.iter());
        let all = Arc::new(self.log_written.clone());
        self.may([(
            LOG.to_owned(),
            if self.now.contains_key(LOG) { Allowed::Between(synced, all.clone()) } else { Allowed::PrefixOf(all.clone()) },
        )]);
        if self.log.is_none() {
            self.log = Some(OpenOptions::new().append(true).create(true).open(self.at(LOG))?);
        }
        let mut f = self.log.as_ref().expect("just opened");
        f.write_all(&line)?;
        f.sync_all()?;
        // Synced, so it must be there; but not closed, so nobody else need have seen exactly this.
        self.now.insert(LOG.to_owned(), all);
        Ok(())
    }

    /// Closing makes what the log holds a content that others may see. Afterwards the next append opens it again.
    fn close_log(&mut self) {
        if self.log.take().is_some() {
            let b = self.now.get(LOG).cloned();
            self.is(LOG, b);
        }
    }

    fn edit(&mut self) -> io::Result<()> {
        let old = self.now[BIG].clone();
        let mut new = old.to_vec();
        let mut writes = vec![];
        for _ in 0..3 {
            let bytes = self.bytes(20_000);
            let at = self.rng.usize(..new.len().saturating_sub(bytes.len()).max(1));
            let bytes = bytes[..bytes.len().min(new.len() - at)].to_vec();
            new[at..at + bytes.len()].copy_from_slice(&bytes);
            writes.push((at, bytes));
        }
        let new = Arc::new(new);
        // Two of the ranges may overlap, so a byte of the earlier one may also be what was cut short.
        let mut middle = old.to_vec();
        let mut middles = vec![];
        for (at, bytes) in &writes {
            middle[*at..at + bytes.len()].copy_from_slice(bytes);
            middles.push(Arc::new(middle.clone()));
        }
        let mut before = old;
        for m in middles {
            self.may([(BIG.to_owned(), Allowed::Mixed(before, m.clone()))]);
            before = m;
        }
        let f = OpenOptions::new().write(true).open(self.at(BIG))?;
        for (at, bytes) in &writes {
            f.write_all_at(bytes, *at as u64)?;
        }
        close(f)?;
        self.is(BIG, Some(new));
        Ok(())
    }

    /// After a crash and a new mount: everything is as promised. What is there now becomes the truth for the next round.
    #[track_caller]
    pub fn check_after_crash(&mut self, what: &str) {
        self.log = None;
        let have = read_tree(&self.root);
        let state = |p: &str| have.get(p).cloned();
        let nothing = Alternative::new();
        let mut reasons = vec![];
        let fits = std::iter::once(&nothing).chain(self.flight.iter()).any(|alternative| {
            let paths: BTreeSet<&String> = self.now.keys().chain(have.keys()).chain(alternative.keys()).collect();
            let wrong = paths.into_iter().find(|p| {
                let allowed = alternative.get(*p).cloned().unwrap_or_else(|| Allowed::Is(self.now.get(*p).cloned()));
                !allowed.matches(&state(p))
            });
            reasons.extend(wrong.map(|p| format!("{p}: {}", describe(self.now.get(p), state(p).as_ref()))));
            wrong.is_none()
        });
        assert!(
            fits,
            "{what}: not what was written, {} possibilities of the interrupted operation included:\n{}",
            self.flight.len(),
            reasons.join("\n")
        );
        self.flight.clear();
        if !have.keys().any(|p| p.starts_with(&format!("d{}/", self.dir))) {
            self.dir += 1;
        }
        for (p, b) in &have {
            self.seen.entry(p.clone()).or_default().insert(blake3::hash(b));
        }
        self.log_written = have.get(LOG).map(|b| b.to_vec()).unwrap_or_default();
        self.now = have;
    }

    /// Asserts that another machine's copy of the tree holds only contents that the path had at some close or crash.
    #[track_caller]
    pub fn check_elsewhere(&self, root: &Path) {
        for (p, b) in read_tree(root) {
            let known = self.seen.get(&p).is_some_and(|s| s.contains(&blake3::hash(&b)));
            assert!(known, "the other machine shows {p} with {} bytes that it never had at a close or a crash", b.len());
        }
    }

    /// Ends the round: nothing is open any more.
    pub fn rest(&mut self) {
        self.close_log();
    }
}

fn describe(want: Option<&Arc<Vec<u8>>>, have: Option<&Arc<Vec<u8>>>) -> String {
    match (want, have) {
        (Some(w), Some(h)) => {
            let at = w.iter().zip(h.iter()).position(|(a, b)| a != b);
            format!(
                "{} bytes instead of {}, first difference at {at:?}, {} zero bytes",
                h.len(),
                w.len(),
                h.iter().filter(|b| **b == 0).count()
            )
        }
        (Some(w), None) => format!("missing, had {} bytes", w.len()),
        (None, Some(h)) => format!("there with {} bytes, but was deleted or never made", h.len()),
        (None, None) => "missing as it should be".into(),
    }
}

/// close(2) with its error, which dropping a File swallows.
fn close(f: File) -> io::Result<()> {
    use std::os::fd::IntoRawFd;
    // SAFETY: the descriptor was just taken out of its owner.
    super::sys::check(unsafe { libc::close(f.into_raw_fd()) }).map(drop)
}

/// Every regular file below `root` with its bytes. A file that vanishes while it is read is not there.
#[track_caller]
pub fn read_tree(root: &Path) -> BTreeMap<String, Arc<Vec<u8>>> {
    let mut out = BTreeMap::new();
    for p in super::mounted::walk_files(root) {
        match fs::read(&p) {
            Ok(b) => drop(out.insert(p.strip_prefix(root).unwrap().to_str().unwrap().to_owned(), Arc::new(b))),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => panic!("reading {}: {e}", p.display()),
        }
    }
    out
}

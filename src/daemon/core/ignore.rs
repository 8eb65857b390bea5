//! `ignore`: lines for a `.tcfsignore`, and by which rule a path stays here.
//!
//! Not here: how rules are read and matched (`vfs`).

use super::paths::walk;
use super::{Core, blocking};
use crate::daemon::protocol::{Ignore, IgnoredPath, Ignoring, Item, Response, RuleOf};
use crate::daemon::service::Progress;
use crate::error::{Error, Kind, Result};
use crate::model::RelPath;
use crate::state::rows::FileType;
use crate::vfs::{Found, Held, IGNORE_FILE, OpenFile, Rule, Vfs};
use std::sync::Arc;

/// So many paths that are carried all the same are named.
const NAMED: usize = 20;
/// Longest file that lines are added to.
const LONGEST: u64 = 1 << 20;

impl Core {
    pub(super) async fn ignore(&self, request: Ignore, progress: &Progress) -> Result<Response> {
        self.rules_are_here().await;
        let mut sum = Ignoring::default();
        for typed in &request.check {
            let path = self.path(typed)?;
            let (vfs, is_dir) = (self.vfs.clone(), typed.ends_with('/'));
            let line = blocking(move || why(&vfs, &path, is_dir)).await?;
            sum.not_ignored += u64::from(line.by == RuleOf::Nobody);
            progress.item(Item::Ignored(line)).await?;
        }
        if !request.check.is_empty() {
            return Ok(Response::Ignoring(sum));
        }
        for line in &request.add {
            if line.contains(['\n', '\r', '\0']) || line.trim().is_empty() {
                return Err(Error::new(Kind::Usage, format!("{line:?} is no line of a {IGNORE_FILE}")));
            }
        }
        let dir = self.found(&request.dir).await?;
        if dir.attr.kind != FileType::Dir {
            return Err(Error::new(Kind::NotDir, format!("{} is not a directory", dir.path)));
        }
        let at = dir.path.join(IGNORE_FILE);
        let text = self.text_of(&at).await?.unwrap_or_default();
        let known: Vec<&str> = text.lines().map(str::trim_end).collect();
        let mut new: Vec<String> = Vec::new();
        for line in &request.add {
            if !known.contains(&line.trim_end()) && !new.contains(line) {
                new.push(line.clone());
            }
        }
        sum.file = at.as_str().to_owned();
        sum.lines = text.lines().chain(new.iter().map(String::as_str)).map(str::to_owned).collect();
        if !new.is_empty() {
            let vfs = self.vfs.clone();
            let mut more = if text.is_empty() || text.ends_with('\n') { String::new() } else { "\n".to_owned() };
            new.iter().for_each(|l| more += &format!("{l}\n"));
            let (carried, count) = blocking(move || {
                append(&vfs, &dir, text.len() as u64, more.as_bytes())?;
                carried(&vfs, dir)
            })
            .await?;
            (sum.carried, sum.carried_count) = (carried, count);
        }
        sum.added = new;
        Ok(Response::Ignoring(sum))
    }

    /// Brings the rules here that were asked for and are not. Best effort.
    pub(super) async fn rules_are_here(&self) {
        for ino in self.vfs.wanted_rules() {
            if let Err(e) = self.vfs.hydrate(ino, &|_, _| {}).await {
                tracing::warn!(ino, error = %e, "a {IGNORE_FILE} is not here, and does not count until it is");
            }
            self.vfs.rules_changed();
        }
    }

    async fn text_of(&self, at: &RelPath) -> Result<Option<String>> {
        let (vfs, path) = (self.vfs.clone(), at.clone());
        let f = match blocking(move || vfs.find(&path)).await {
            Ok(f) => f,
            Err(e) if e.kind() == Kind::NotFound => return Ok(None),
            Err(e) => return Err(e),
        };
        if f.attr.kind != FileType::File || f.attr.size > LONGEST {
            return Err(Error::new(Kind::Invalid, format!("{at} is no file of patterns"))
                .hint(format!("it has to be a file of at most {LONGEST} bytes")));
        }
        let open = OpenFile::of(&self.vfs, self.vfs.open_file(f.attr.ino, false, false)?.fh);
        let now = self.vfs.hydrate_read(open.fh, 0, f.attr.size as usize).await?;
        let bytes = blocking(move || {
            let mut bytes = vec![0; now.len];
            now.read_into(&mut bytes, 0)?;
            drop(open);
            Ok(bytes)
        })
        .await?;
        String::from_utf8(bytes).map(Some).map_err(|_| Error::new(Kind::NotUtf8, format!("{at} is not UTF-8")))
    }
}

/// Writes behind the end of a directory's file, making it if need be. Blocking.
fn append(vfs: &Arc<Vfs>, dir: &Found, at: u64, bytes: &[u8]) -> Result<()> {
    let o = vfs.options();
    let fh = match vfs.lookup(dir.attr.ino, IGNORE_FILE.as_bytes()) {
        Ok(a) => vfs.open_file(a.ino, true, false)?.fh,
        Err(e) if e.kind() == Kind::NotFound => vfs.create(dir.attr.ino, IGNORE_FILE.as_bytes(), 0o644, o.uid, o.gid)?.1.fh,
        Err(e) => return Err(e),
    };
    let open = OpenFile::of(vfs, fh);
    vfs.write(open.fh, at, bytes, false)?;
    vfs.fsync(open.fh)?;
    vfs.flush(open.fh)
}

/// Topmost paths below a directory that rules keep here and the fleet has all the same: some, and how many. Blocking.
fn carried(vfs: &Vfs, dir: Found) -> Result<(Vec<String>, u64)> {
    let (mut named, mut count, top) = (Vec::new(), 0, dir.attr.ino);
    walk(vfs, dir, &mut |f| {
        if f.attr.ino == top {
            return Ok(true);
        }
        if vfs.look(f)?.held == Held::LocalOnly {
            return Ok(false);
        }
        let is_dir = f.attr.kind == FileType::Dir;
        if vfs.why_local(&f.path, is_dir)?.is_none() {
            return Ok(true);
        }
        count += 1;
        if named.len() < NAMED {
            named.push(format!("{}{}", f.path, if is_dir { "/" } else { "" }));
        }
        Ok(false)
    })?;
    Ok((named, count))
}

/// By which rule a path stays here. Blocking.
pub(super) fn why(vfs: &Vfs, path: &RelPath, is_dir: bool) -> Result<IgnoredPath> {
    let found = match vfs.find(path) {
        Ok(f) => Some(f),
        Err(e) if matches!(e.kind(), Kind::NotFound | Kind::NotDir) => None,
        Err(e) => return Err(e),
    };
    let is_dir = found.as_ref().map_or(is_dir, |f| f.attr.kind == FileType::Dir);
    let here = found.as_ref().map(|f| vfs.look(f)).transpose()?;
    let local = here.as_ref().is_some_and(|l| l.held == Held::LocalOnly);
    let rule = if path.is_root() { None } else { vfs.why_local(path, is_dir)? };
    let mut line =
        IgnoredPath { path: path.as_str().to_owned(), carried: rule.is_some() && here.is_some() && !local, ..Default::default() };
    let mut say = |by, pattern: Option<String>, file: Option<RelPath>, n: usize| {
        (line.by, line.pattern, line.file) = (by, pattern, file.map(|f| f.as_str().to_owned()));
        line.line = (n > 0).then_some(n as u64);
    };
    match rule {
        Some(Rule::BuiltIn { pattern }) => say(RuleOf::BuiltIn, Some(pattern), None, 0),
        Some(Rule::Git) => say(RuleOf::Git, Some(".git".to_owned()), None, 0),
        Some(Rule::Configured { pattern }) => say(RuleOf::Configuration, Some(pattern), None, 0),
        Some(Rule::Ignored { file, line, pattern }) => say(RuleOf::IgnoreFile, Some(pattern), Some(file), line),
        Some(Rule::Inside { dir }) => say(RuleOf::Directory, None, Some(dir), 0),
        None if local => say(RuleOf::Kind, None, None, 0),
        None => {}
    }
    Ok(line)
}

//! `why`: where a path stands and how it came to that, in sentences and as facts.
//!
//! Must: nothing is fetched, nothing is changed by looking.

use super::conflicts::conflict;
use super::ignore;
use super::paths::{kind_of_version, size_of_version};
use super::{Core, blocking};
use crate::daemon::protocol::{By, Change, DeviceRef, EntryKind, OnPath, Residence, Response, RuleOf, Why};
use crate::error::{Error, Kind, Result};
use crate::human::rfc3339;
use crate::model::{RelPath, Version};
use crate::vfs::{FileType, Held};

impl Core {
    pub(super) async fn why(&self, request: OnPath) -> Result<Response> {
        let path = self.path(&request.path)?;
        let this = self.shared()?;
        blocking(move || Ok(Response::Why(this.why_now(&path)?))).await
    }

    fn why_now(&self, path: &RelPath) -> Result<Why> {
        let vfs = &self.vfs;
        let mut w = Why { path: path.as_str().to_owned(), ..Why::default() };
        if path.is_root() {
            w.kind = EntryKind::Dir;
            w.residence = Residence::Hydrated;
            w.sentences.push("it is the root of the drive".to_owned());
            return Ok(w);
        }
        let found = match vfs.find(path) {
            Ok(f) => f,
            Err(e) if matches!(e.kind(), Kind::NotFound | Kind::NotDir) => return self.why_gone(path, w),
            Err(e) => return Err(e),
        };
        let look = vfs.look(&found)?;
        let attr = &found.attr;
        w.kind = super::paths::kind_of(attr.kind);
        w.size = if attr.kind == FileType::File { attr.size } else { 0 };
        w.here = look.here;
        w.residence = super::ls::residence(look.held);
        let shown = if look.held == Held::LocalOnly { None } else { vfs.shown_at(&found)? };
        self.tell_version(&mut w, shown.as_ref());
        if look.held == Held::LocalOnly {
            self.tell_rule(&mut w, path)?;
        } else if attr.kind == FileType::File {
            self.tell_bytes(&mut w, path, attr.ino, look.held)?;
        }
        w.pinned_by = self.pin_over(path)?;
        if let Some(p) = &w.pinned_by {
            let what = if *p == w.path { "it is pinned".to_owned() } else { format!("{p:?} is pinned, and it lies below") };
            w.sentences.push(format!("{what}: it is kept here whole, and comes here by itself"));
        }
        self.tell_conflict(&mut w, path)?;
        Ok(w)
    }

    fn why_gone(&self, path: &RelPath, mut w: Why) -> Result<Why> {
        w.kind = EntryKind::Removed;
        let path = self.vfs.entry_of(path)?;
        let (entry, past) = self.vfs.versions(&path)?;
        let last = entry.heads.iter().max_by_key(|v| v.written_at);
        let Some(last) = last else {
            if past.is_empty() && self.vfs.ever_below(&path)?.is_empty() {
                return Err(Error::new(Kind::NotFound, format!("{path}: nothing of that name is, or ever was, in the drive")));
            }
            w.sentences.push("it is not there any more; `tcfs history` has its versions".to_owned());
            return Ok(w);
        };
        w.version = Some(Change::of(last));
        w.device = Some(DeviceRef { id: last.device_id.clone(), name: last.device_name.clone() });
        let when = rfc3339(last.written_at);
        w.sentences.push(match &last.moved_to {
            Some(to) => format!("{} moved it to {to} at {when}", last.device_name),
            None => format!("{} removed it at {when}", last.device_name),
        });
        if last.is_held_back() {
            w.sentences.push("that is one of many deletes at once: other machines see it only after `tcfs approve`".to_owned());
        }
        if let Some(was) = past.iter().rev().find(|v| !v.is_tombstone() && !v.is_held_back()) {
            w.size = size_of_version(was);
            let what = format!("`tcfs restore {path}` brings back the version {} of {}", &was.id()[..8], rfc3339(was.written_at));
            w.sentences.push(what);
        }
        Ok(w)
    }

    fn tell_version(&self, w: &mut Why, shown: Option<&Version>) {
        let Some(v) = shown else {
            if w.kind == EntryKind::Dir {
                w.sentences.push("it is a directory because something lies in it; no machine made it by itself".to_owned());
            }
            return;
        };
        let (me, when) = (self.fleet.me().id.clone(), rfc3339(v.written_at));
        let who = if v.device_id == me { "this machine".to_owned() } else { v.device_name.clone() };
        let id = v.id();
        let what = match kind_of_version(v) {
            EntryKind::File => format!("{} bytes", size_of_version(v)),
            EntryKind::Dir => "a directory".to_owned(),
            EntryKind::Symlink => "a symbolic link".to_owned(),
            EntryKind::Bundle => "a git repository".to_owned(),
            EntryKind::Removed | EntryKind::Special => "an entry".to_owned(),
        };
        w.sentences.push(format!("it shows {what} that {who} wrote at {when} (version {})", &id[..8]));
        if !v.healed_from.is_empty() {
            let from: Vec<&str> = v.healed_from.iter().map(RelPath::as_str).collect();
            w.sentences.push(format!("it was written at {} and followed that name when another machine moved it", from.join(", ")));
        }
        w.version = Some(Change::of(v));
        w.device = Some(DeviceRef { id: v.device_id.clone(), name: v.device_name.clone() });
    }

    fn tell_rule(&self, w: &mut Why, path: &RelPath) -> Result<()> {
        let rule = ignore::why(&self.vfs, path, w.kind == EntryKind::Dir)?;
        let pattern = rule.pattern.clone().unwrap_or_default();
        let by = match rule.by {
            RuleOf::BuiltIn => format!("{pattern:?} is a pattern of what systems and editors leave"),
            RuleOf::Git => ".git stays on each machine (sync_git_dirs, git_sync_mode)".to_owned(),
            RuleOf::Configuration => format!("{pattern:?} is in exclude_patterns"),
            RuleOf::IgnoreFile => {
                let file = rule.file.clone().unwrap_or_default();
                format!("{file}, line {}, says {pattern:?}", rule.line.unwrap_or(0))
            }
            RuleOf::Directory => format!("{:?}, which it lies in, does", rule.file.clone().unwrap_or_default()),
            RuleOf::Kind => "fifos, sockets and device nodes do".to_owned(),
            RuleOf::Nobody => "that was so when it was made".to_owned(),
        };
        w.sentences.push(format!("it never leaves this machine: {by}"));
        w.rule = Some(rule);
        Ok(())
    }

    fn tell_bytes(&self, w: &mut Why, path: &RelPath, ino: u64, held: Held) -> Result<()> {
        let trace = self.vfs.trace(ino);
        let pending = self.pending_now()?;
        let waits = pending.iter().find(|p| p.path == path.as_str());
        (w.pending, w.open_for_writing) = (waits.is_some() || held == Held::Pending, waits.is_some_and(|p| p.open));
        match held {
            Held::Pending if w.open_for_writing => {
                w.sentences.push("a program has it open for writing; it goes out when that closes it".to_owned())
            }
            Held::Pending => w.sentences.push("it is saved here and not in the store yet".to_owned()),
            _ if w.pending => w.sentences.push("a change of it is not in the store yet".to_owned()),
            _ => {}
        }
        if w.pending && !self.fleet.is_online() {
            w.sentences.push("the store does not answer: it goes out when it does".to_owned());
        }
        match held {
            Held::Stub if w.size == 0 => {}
            Held::Stub => w.sentences.push("none of its bytes are here; they come when it is read".to_owned()),
            Held::Partial => w.sentences.push(format!("{} of its {} bytes are here; the others come when they are read", w.here, w.size)),
            Held::Hydrated => w.sentences.push("all of it is here".to_owned()),
            Held::Pending | Held::LocalOnly => {}
        }
        if let Some((at, why)) = trace.dropped {
            if matches!(held, Held::Stub | Held::Partial) {
                w.sentences.push(format!("its bytes were let go at {}: {why}", rfc3339(at)));
            }
            w.evicted = Some(By { at, by: why.to_owned(), rule: None });
        }
        if let Some((at, by)) = trace.read {
            let who = if by.is_empty() { "a program" } else { &by };
            w.sentences.push(format!("{who} opened it last, at {}", rfc3339(at)));
            w.last_read = Some(By { at, by, rule: None });
        }
        if let Some((at, by, rule)) = trace.refused {
            w.sentences.push(format!("{by} was kept from bringing it here at {} ({rule})", rfc3339(at)));
            w.refused = Some(By { at, by, rule: Some(rule) });
        }
        Ok(())
    }

    fn tell_conflict(&self, w: &mut Why, path: &RelPath) -> Result<()> {
        let entry = self.vfs.entry_of(path)?;
        let found = self.vfs.conflicts()?.into_iter().find(|c| c.path == entry);
        let Some(found) = found else { return Ok(()) };
        let me = self.fleet.me().id.clone();
        w.conflict = conflict(&found, &me, self.vfs.siblings_shown()).heads;
        let others: Vec<&str> = w.conflict.iter().map(|h| h.path.as_str()).filter(|p| *p != w.path).collect();
        let (n, others) = (w.conflict.len(), others.join(", "));
        w.sentences.push(format!("it is in conflict: {n} versions stand side by side ({others}); `tcfs resolve-conflict` ends that"));
        Ok(())
    }

    /// The pinned path at or above a path, the nearest.
    fn pin_over(&self, path: &RelPath) -> Result<Option<String>> {
        let pins = super::paths::pins(&self.vfs)?;
        let mut above = std::iter::successors(Some(path.clone()), RelPath::parent);
        Ok(above.find(|p| pins.0.contains(p.as_str())).map(|p| p.as_str().to_owned()))
    }
}

//! What Finder leaves in every directory that somebody looked at, when another machine removes the directory.
//!
//! Local-only files keep a directory that was removed elsewhere: they may be somebody's work. Of these nobody ever knew.
//!
//! Must: nothing is removed but files of these names that never left this machine, and only where nothing else is.
//! Not here: which names are local-only (`rules`).

use super::Vfs;
use crate::error::{Kind, Result};
use crate::state::Tree;
use crate::state::rows::{FileType, Inode};

/// Entries that are looked at, at a time.
const PAGE: usize = 256;

/// Whether Finder made it, and makes it again when it is missed.
fn is_leaving(name: &str) -> bool {
    name == ".DS_Store" || name.starts_with("._")
}

impl Vfs {
    /// Lets directories go that another machine removed and that only such files keep. Called now and then.
    pub fn clear_leavings(&self) -> Result<()> {
        let dirs = std::mem::take(&mut *self.kept.lock());
        for dir in dirs {
            match self.clear(dir) {
                // It went meanwhile.
                Err(e) if matches!(e.kind(), Kind::NotFound | Kind::Stale | Kind::NotDir) => {}
                Err(e) => {
                    self.kept.lock().insert(dir);
                    return Err(e);
                }
                Ok(()) => {}
            }
        }
        Ok(())
    }

    fn clear(&self, dir: u64) -> Result<()> {
        let (mut cookie, mut names) = (0, Vec::new());
        loop {
            let page = self.readdir(dir, cookie, PAGE, false)?;
            let Some(last) = page.last() else { break };
            cookie = last.cookie;
            for e in page {
                let local = |i: Option<Inode>| i.is_some_and(|i| i.local_only && i.kind == FileType::File);
                if !is_leaving(&e.name) || !self.replica.read(|r| Ok(local(r.get(Tree::Inode, e.ino)?)))? {
                    return Ok(());
                }
                names.push(e.name);
            }
        }
        for name in names {
            self.unlink(dir, name.as_bytes())?;
        }
        Ok(())
    }
}

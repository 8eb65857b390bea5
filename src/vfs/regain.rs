//! Writing on in a file whose name another machine's version has taken, for clients of a protocol without `open`: they have
//! the file open for as long as they like, and nobody here knows.
//!
//! A file that is open for writing keeps its name when a version arrives ([`super::open`]), and what is written becomes a
//! sibling. Such a client's file did not look open then. When it is written after all, the same comes of it: the file is
//! listed again, beside what took its name, and its next version replaces only what it was.
//!
//! Must: nobody is told that bytes were written which no version will have.
//! Not here: for how long such a file is kept (whoever has it open, the server of that protocol).

use super::open::Opened;
use super::{Touches, Vfs};
use crate::error::Result;
use crate::model::ops::Accepted;
use crate::state::rows::{Sib, Slot};
use crate::state::tree::{path_of_dir, stale};
use crate::state::{Change, Ns};
use std::sync::Arc;
use std::sync::atomic::Ordering;

impl Vfs {
    /// Opens a file for writing whose name another machine's version, or its delete, has taken, and lists it again.
    ///
    /// Errors: `Stale` if that is not what became of it, or if its directory is gone as well.
    pub fn open_lost(self: &Arc<Self>, ino: u64) -> Result<Opened> {
        let node = self.loaded(ino).ok_or_else(|| stale(ino))?;
        let node = self.hold(node.ino)?;
        let done = (|| {
            let mut st = node.st.lock();
            let (dir, name) = node.lost.lock().clone().filter(|_| !st.local_only).ok_or_else(|| stale(ino))?;
            // In use from before the names change: whatever arrives then leaves this one alone.
            node.writers.fetch_add(1, Ordering::AcqRel);
            let accept = self.change_settled(&[], Touches::Only(&[dir]), |ns| {
                let i = ns.inode(ino)?;
                if i.links.is_empty() {
                    self.list_again(ns, dir, &name, ino)?;
                }
                let path = path_of_dir(ns.t, dir)?.join(&name);
                Ok((path, Accepted { clock: i.shows, ..Accepted::default() }))
            });
            match accept {
                Ok(a) => {
                    st.accept.get_or_insert(a);
                    node.gone.store(false, Ordering::Release);
                    node.replaced.store(false, Ordering::Release);
                    *node.lost.lock() = None;
                    Ok((st.is_whole(), st.size))
                }
                Err(e) => {
                    node.writers.fetch_sub(1, Ordering::AcqRel);
                    Err(e)
                }
            }
        })();
        let (whole, size) = match done {
            Ok(d) => d,
            Err(e) => {
                self.unhold(&node);
                return Err(e);
            }
        };
        Ok(self.handle_on(node, true, whole, size))
    }

    /// Under its name if nothing is shown there, else as a sibling of what is.
    fn list_again(&self, ns: &mut Ns<'_, '_>, dir: u64, name: &str, ino: u64) -> Result<()> {
        if ns.inode(dir)?.dead {
            return Err(stale(ino));
        }
        let Some(Slot::Register(mut r)) = ns.slot(dir, name)? else { return Err(stale(ino)) };
        let mut listed = name.to_owned();
        if r.ino == 0 {
            r.ino = ino;
        } else {
            listed = ns.free_sibling(dir, name, &self.device().1)?;
            r.sibs.push(Sib { name: listed.clone(), ino, clock: ns.inode(ino)?.shows });
            ns.put_slot(dir, &listed, &Slot::Sibling { ino, of: name.to_owned() })?;
        }
        ns.put_slot(dir, name, &Slot::Register(r))?;
        ns.add_link(ino, dir, &listed)?;
        ns.changes.push(Change::Name { dir, name: listed, was: 0 });
        ns.touch_dir(dir, 0)
    }
}

//! Every version that is known, for lists over the whole drive: what changed when, what was removed.
//!
//! Must: the database is let go of between pages, so that programs on the mount never wait for a list. What changes meanwhile
//! may be seen or not. Must: what is called for each row does not read the database, which is held for a page.

use super::Vfs;
use crate::error::Result;
use crate::model::{RelPath, Version};
use crate::state::rows::{Slot, history_prefix, slot_after, slot_end, slot_name};
use crate::state::tree::{dir_of, register_at};
use crate::state::{Scan, Tree, prefix_end};

/// Rows read at a time.
const PAGE: usize = 2048;

impl Vfs {
    /// Calls `each` with every head (true) and every covered version (false) at and below a path, in no particular order.
    pub fn each_version(&self, below: &RelPath, each: &mut dyn FnMut(&Version, bool)) -> Result<()> {
        self.each_head(below, &mut |v| each(v, true))?;
        let mut past = |from: Vec<u8>, end: Vec<u8>| self.pages(Tree::History, from, &end, &mut |_, v: Version| each(&v, false));
        if below.is_root() {
            return past(Vec::new(), prefix_end(&[]));
        }
        let own = history_prefix(below);
        past(own.clone(), prefix_end(&own))?;
        let inside = format!("{below}/").into_bytes();
        past(inside.clone(), prefix_end(&inside))
    }

    /// Every head at and below a path.
    pub fn each_head(&self, below: &RelPath, each: &mut dyn FnMut(&Version)) -> Result<()> {
        if below.is_root() {
            return self.pages(Tree::Entry, Vec::new(), &prefix_end(&[]), &mut |_, s: Slot| {
                if let Slot::Register(reg) = s {
                    reg.entry.heads.iter().for_each(&mut *each);
                }
            });
        }
        let (own, number) = self.replica.read(|r| Ok((register_at(r, below)?, dir_of(r, below)?)))?;
        own.iter().flat_map(|reg| &reg.entry.heads).for_each(&mut *each);
        let mut todo: Vec<u64> = number.into_iter().collect();
        while let Some(dir) = todo.pop() {
            self.pages(Tree::Entry, slot_after(dir, 0), &slot_end(dir), &mut |_, s: Slot| {
                if let Slot::Register(reg) = s {
                    todo.extend((reg.dir != 0).then_some(reg.dir));
                    reg.entry.heads.iter().for_each(&mut *each);
                }
            })?;
        }
        Ok(())
    }

    /// Calls `each` with the directory and the name of every slot, also of those that show nothing.
    pub(super) fn each_name(&self, each: &mut dyn FnMut(u64, &str)) -> Result<()> {
        // What a slot holds is not even looked at.
        self.pages(Tree::Entry, Vec::new(), &prefix_end(&[]), &mut |k, _: ()| {
            if let Some(dir) = k.get(..8).and_then(|b| b.try_into().ok()).map(u64::from_be_bytes) {
                each(dir, slot_name(k));
            }
        })
    }

    fn pages<T: serde::de::DeserializeOwned>(
        &self,
        tree: Tree,
        mut from: Vec<u8>,
        end: &[u8],
        each: &mut dyn FnMut(&[u8], T),
    ) -> Result<()> {
        loop {
            let (mut n, mut last) = (0, Vec::new());
            self.replica.read(|r| {
                r.scan(tree, Scan::From(&from, end), PAGE, |k, v: T| {
                    each(k, v);
                    n += 1;
                    if n == PAGE {
                        last = k.to_vec();
                    }
                    Ok(())
                })
            })?;
            if n < PAGE {
                return Ok(());
            }
            last.push(0);
            from = last;
        }
    }
}

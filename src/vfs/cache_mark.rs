//! Whether what lies in the cache was put there by this state.
//!
//! Rows say which bytes of a local file are there, and files are found by the numbers of inodes. Where a state was set aside
//! for another one, restored from a backup, or rolled back with its disk, the cache may hold other bytes under the same
//! numbers. So state and cache carry a mark, which is another one after each opening.
//!
//! Must: bytes that another state, or a later one of this state, put into the cache are never served; it is emptied instead,
//! and they are fetched again. Must: a power cut between the two halves of a change empties nothing.
//! Not here: two processes that use one cache at once (`state::lock`).

use super::Vfs;
use crate::error::{IoContext, Result};
use crate::state::{Tree, Txn};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

/// Meta key: the mark of now, and the one before it.
const MARK: &str = "cache_mark";

impl Vfs {
    fn mark_file(&self) -> PathBuf {
        self.options.cache_dir.join("mark")
    }

    /// Empties a cache that is not this state's; of a state that was never open before (`new`) none is. The mark that it gets
    /// next, and the one that it has.
    pub(super) fn claim_cache(&self, new: bool) -> Result<(u64, u64)> {
        let file = self.mark_file();
        let found = std::fs::read_to_string(&file).ok().and_then(|t| u64::from_str_radix(t.trim(), 16).ok());
        let known: Option<(u64, u64)> = self.replica.read(|r| r.get(Tree::Meta, MARK))?;
        let ours = match (known, found) {
            (Some((now, before)), Some(found)) => found == now || found == before,
            // Of a program that knew no marks.
            (None, None) => !new,
            _ => false,
        };
        if !ours {
            let removed = self.empty_cache()?;
            if removed > 0 {
                tracing::warn!(
                    removed,
                    "the cache is that of another state, or of a later one: it was emptied, files come again when they are read"
                );
            }
        }
        Ok((self.clock.random(), found.unwrap_or_default()))
    }

    /// The first half of the change.
    pub(super) fn mark_state(t: &mut Txn<'_>, mark: (u64, u64)) -> Result<()> {
        t.put(Tree::Meta, MARK, &mark)
    }

    /// The second half, when the first is durable. In place: after a power cut the file has the old mark or the new one.
    pub(super) fn mark_cache(&self, mark: (u64, u64)) -> Result<()> {
        let file = self.mark_file();
        let doing = || format!("writing {}", file.display());
        let f = File::options().write(true).create(true).truncate(false).open(&file).doing(doing)?;
        f.write_all_at(format!("{:016x}\n", mark.0).as_bytes(), 0).doing(doing)
    }

    /// Removes all local files of published bytes; how many.
    fn empty_cache(&self) -> Result<u64> {
        let mut removed = 0;
        for i in 0..=255u8 {
            let dir = self.options.cache_dir.join("data").join(format!("{i:02x}"));
            let doing = || format!("emptying {}", dir.display());
            for e in std::fs::read_dir(&dir).doing(doing)? {
                std::fs::remove_file(e.doing(doing)?.path()).doing(doing)?;
                removed += 1;
            }
        }
        Ok(removed)
    }
}

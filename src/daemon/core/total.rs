//! How much there is to do, counted beside the work, so that a bar can tell how long it will take.
//!
//! Best effort: what cannot be looked at is not counted, and until all is counted there is no total.

use super::paths::walk;
use crate::vfs::{FileType, Found, Vfs};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Bytes to be read. Counting ends when this is dropped.
pub(super) struct Total(Arc<Count>);

#[derive(Default)]
struct Count {
    bytes: AtomicU64,
    whole: AtomicBool,
    over: AtomicBool,
}

impl Drop for Total {
    fn drop(&mut self) {
        self.0.over.store(true, Ordering::Relaxed);
    }
}

impl Total {
    /// Of the files at and below a path of this machine.
    pub(super) fn of_disk(path: PathBuf) -> Total {
        Total::counted(move |c| {
            let mut todo = vec![path];
            while let Some(p) = todo.pop() {
                let Ok(m) = p.symlink_metadata() else { continue };
                if m.is_dir() {
                    todo.extend(std::fs::read_dir(&p).into_iter().flatten().flatten().map(|e| e.path()));
                } else if m.is_file() {
                    c.bytes.fetch_add(m.len(), Ordering::Relaxed);
                }
                if c.over.load(Ordering::Relaxed) {
                    return false;
                }
            }
            true
        })
    }

    /// Of the files at and below an entry of the drive.
    pub(super) fn of_drive(vfs: Arc<Vfs>, top: Found) -> Total {
        Total::counted(move |c| {
            walk(&vfs, top, &mut |f| {
                if f.attr.kind == FileType::File {
                    c.bytes.fetch_add(f.attr.size, Ordering::Relaxed);
                }
                Ok(!c.over.load(Ordering::Relaxed))
            })
            .is_ok()
        })
    }

    fn counted(count: impl FnOnce(&Count) -> bool + Send + 'static) -> Total {
        let all = Arc::new(Count::default());
        let c = all.clone();
        tokio::task::spawn_blocking(move || c.whole.store(count(&c), Ordering::Release));
        Total(all)
    }

    /// All of it, once it is known; never less than what is `done`.
    pub(super) fn get(&self, done: u64) -> Option<u64> {
        self.0.whole.load(Ordering::Acquire).then(|| self.0.bytes.load(Ordering::Relaxed).max(done))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_is_told_when_all_is_counted_and_is_never_less_than_what_is_done() {
        let tmp = tempfile::tempdir().unwrap();
        std::fs::create_dir(tmp.path().join("d")).unwrap();
        std::fs::write(tmp.path().join("d/a"), vec![0; 1000]).unwrap();
        std::fs::write(tmp.path().join("b"), vec![0; 500]).unwrap();
        std::os::unix::fs::symlink("b", tmp.path().join("l")).unwrap();
        let total = Total::of_disk(tmp.path().to_owned());
        while total.get(0).is_none() {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
        assert_eq!((total.get(0), total.get(2000)), (Some(1500), Some(2000)));
    }
}

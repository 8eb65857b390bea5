//! Telling the kernel what changed without it.
//!
//! Must: notifications go out on a thread of their own, holding no lock: they can block on the inode that a handler
//! is serving.

use super::retell::News;
use crate::vfs::Invalidate;
use fuser::{INodeNo, Notifier};
use std::ffi::OsStr;
use std::sync::mpsc;

pub(super) enum Told {
    Name(u64, String, u64),
    Attr(u64),
    Data(u64),
    Stop,
}

pub(super) struct Teller(pub(super) mpsc::Sender<Told>);

/// Tells the kernel, then `next`, which makes programs notice.
pub(super) fn tell(notifier: &Notifier, rx: &mpsc::Receiver<Told>, next: &mpsc::Sender<News>) {
    while let Ok(what) = rx.recv() {
        // ENOENT: the kernel does not know it, which is as good.
        let _ = match what {
            Told::Name(dir, name, was) => {
                let _ = notifier.inval_entry(INodeNo(dir), OsStr::new(&name));
                next.send(News::Name { dir, name, was }).is_ok()
            }
            Told::Attr(ino) => {
                let _ = notifier.inval_inode(INodeNo(ino), -1, 0);
                next.send(News::Attr(ino)).is_ok()
            }
            Told::Data(ino) => notifier.inval_inode(INodeNo(ino), 0, 0).is_ok(),
            Told::Stop => {
                let _ = next.send(News::Stop);
                return;
            }
        };
    }
}

impl Invalidate for Teller {
    fn name(&self, dir: u64, name: &str, was: u64) {
        let _ = self.0.send(Told::Name(dir, name.to_owned(), was));
    }
    fn attr(&self, ino: u64) {
        let _ = self.0.send(Told::Attr(ino));
    }
    fn data(&self, ino: u64) {
        let _ = self.0.send(Told::Data(ino));
    }
}

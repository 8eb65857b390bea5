//! Telling the kernel what changed without it.
//!
//! Must: notifications go out on a thread of their own, holding no lock: they can block on the inode that a handler
//! is serving.

use crate::vfs::{Heard, Invalidate};
use fuser::{INodeNo, Notifier};
use std::ffi::OsStr;
use std::sync::mpsc;

/// What changed without the kernel.
pub(super) enum Told {
    /// A name leads elsewhere; to what it led before, 0 if to nothing.
    Name { dir: u64, name: String, was: u64 },
    /// Attributes of an inode.
    Attr(u64),
    /// Bytes of an inode, or what a listing of it shows.
    Data(u64),
    /// Dropped once the kernel was told of everything before it.
    Mark(Heard),
    /// No more.
    Stop,
}

pub(super) struct Teller(pub(super) mpsc::Sender<Told>);

/// Tells the kernel, then `next`, which makes programs notice.
pub(super) fn tell(notifier: &Notifier, rx: &mpsc::Receiver<Told>, next: &mpsc::Sender<Told>) {
    while let Ok(what) = rx.recv() {
        // ENOENT: the kernel does not know it, which is as good.
        let _ = match &what {
            Told::Name { dir, name, .. } => notifier.inval_entry(INodeNo(*dir), OsStr::new(name)),
            Told::Attr(ino) => notifier.inval_inode(INodeNo(*ino), -1, 0),
            Told::Data(ino) => notifier.inval_inode(INodeNo(*ino), 0, 0),
            Told::Mark(_) | Told::Stop => Ok(()),
        };
        match what {
            // A listing changes with its names, bytes with the inode that a name leads to: programs are told of those.
            Told::Data(_) => {}
            Told::Mark(heard) => drop(heard),
            told => {
                let last = matches!(told, Told::Stop);
                // Without that thread, too, the kernel has to be told.
                let _ = next.send(told);
                if last {
                    return;
                }
            }
        }
    }
}

impl Invalidate for Teller {
    fn name(&self, dir: u64, name: &str, was: u64) {
        let _ = self.0.send(Told::Name { dir, name: name.to_owned(), was });
    }
    fn attr(&self, ino: u64) {
        let _ = self.0.send(Told::Attr(ino));
    }
    fn data(&self, ino: u64) {
        let _ = self.0.send(Told::Data(ino));
    }
    fn mark(&self, heard: Heard) {
        let _ = self.0.send(Told::Mark(heard));
    }
}

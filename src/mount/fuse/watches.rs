//! What programs watch with inotify in a mount, as the kernel tells in `/proc/<pid>/fdinfo`.
//!
//! Must: looking takes a small share of the time, however much comes from elsewhere.
//! Not here: what a watcher is told (`retell`).

use std::collections::HashSet;
use std::fs;
use std::time::{Duration, Instant};

/// Between two looks lie so many times what a look takes, but no more than [`REST`].
const SHARE: u32 = 20;
/// Longest time that news wait for a look.
const REST: Duration = Duration::from_millis(500);

/// The inodes of one mount that are watched.
pub(super) struct Watches {
    device: u64,
    seen: HashSet<u64>,
    looked: Option<Instant>,
    took: Duration,
}

impl Watches {
    /// Of the file system whose `st_dev` is this.
    pub(super) fn of(st_dev: u64) -> Watches {
        // As the kernel counts them inside, twelve bits and twenty.
        let device = (u64::from(libc::major(st_dev)) << 20) | u64::from(libc::minor(st_dev));
        Watches { device, seen: HashSet::new(), looked: None, took: Duration::ZERO }
    }

    /// Looks for watches, after a rest if the last look was a moment ago. As a user, only that user's programs are seen.
    pub(super) fn look(&mut self) {
        if let Some(at) = self.looked {
            std::thread::sleep((self.took * SHARE).min(REST).saturating_sub(at.elapsed()));
        }
        let start = Instant::now();
        self.seen = look(self.device);
        (self.took, self.looked) = (start.elapsed(), Some(Instant::now()));
    }

    /// Whether nobody watched anything at the last look.
    pub(super) fn is_empty(&self) -> bool {
        self.seen.is_empty()
    }

    /// Whether an inode was watched at the last look.
    pub(super) fn has(&self, ino: u64) -> bool {
        self.seen.contains(&ino)
    }
}

fn look(device: u64) -> HashSet<u64> {
    let mut seen = HashSet::new();
    let numbers = |dir: &str| fs::read_dir(dir).into_iter().flatten().flatten().filter_map(|e| e.file_name().to_str()?.parse::<u32>().ok());
    for pid in numbers("/proc") {
        for fd in numbers(&format!("/proc/{pid}/fd")) {
            let is_inotify = fs::read_link(format!("/proc/{pid}/fd/{fd}")).is_ok_and(|l| l.as_os_str() == "anon_inode:inotify");
            if let Some(text) = is_inotify.then(|| fs::read_to_string(format!("/proc/{pid}/fdinfo/{fd}")).ok()).flatten() {
                seen.extend(text.lines().filter_map(|l| watched(l, device)));
            }
        }
    }
    seen
}

/// The inode of a line such as `inotify wd:1 ino:2f sdev:39 mask:fce …`, if it is of this file system.
fn watched(line: &str, device: u64) -> Option<u64> {
    let fields = line.strip_prefix("inotify ")?;
    let hex = |name: &str| fields.split(' ').find_map(|f| u64::from_str_radix(f.strip_prefix(name)?, 16).ok());
    (hex("sdev:")? == device).then(|| hex("ino:")).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watch_is_read_from_its_line() {
        let line = "inotify wd:1 ino:2f sdev:39 mask:fce ignored_mask:0 fhandle-bytes:8 fhandle-type:1 f_handle:2f";
        assert_eq!((watched(line, 0x39), watched(line, 0x3a)), (Some(0x2f), None));
        assert_eq!((watched("pos:\t0", 0x39), watched("inotify wd:1", 0x39)), (None, None));
    }
}

//! `tcfs doctor`: what is checked and what each finding means. Each check is a function of facts, so that every
//! verdict can be tested.
//!
//! Here are the checks of the system around the drive and those that need only a [`Store`]. Not here: printing
//! (`cli`), the state's own integrity (its owner).

use super::mounts::{self, within};
use super::paths::Env;
use super::protocol::{Check, Verdict};
use crate::clock::Clock;
use crate::store::keys::Keys;
use crate::store::{PutMode, Store, identity};
use bytes::Bytes;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Deadline of one check on the store.
const STORE: Duration = Duration::from_secs(15);
/// Deadline of the canary through a mount.
const MOUNT: Duration = Duration::from_secs(10);
/// Seconds by which this machine's clock and the store's may differ without a word. Nothing depends on clocks but
/// what people read.
const SKEW: i64 = 60;
/// Least free part of the cache's disk.
const FREE: f64 = 0.05;
/// First kernel with FUSE passthrough.
const PASSTHROUGH: (u32, u32) = (6, 9);

/// Facts about this system.
#[derive(Clone, Debug)]
pub struct System {
    /// `uname -s`.
    pub name: String,
    /// `uname -r`.
    pub release: String,
    /// This process may mount by itself: it is root, or was given the capability.
    pub mounts_itself: bool,
    /// `/dev/fuse` is there.
    pub dev_fuse: bool,
    /// This user may open it.
    pub fuse_access: bool,
    /// `fusermount3`.
    pub helper: Option<PathBuf>,
}

impl System {
    /// This one.
    pub fn here(env: &Env) -> System {
        let uname = rustix::system::uname();
        System {
            name: uname.sysname().to_string_lossy().into_owned(),
            release: uname.release().to_string_lossy().into_owned(),
            mounts_itself: crate::sys::may_mount(),
            dev_fuse: Path::new("/dev/fuse").exists(),
            fuse_access: mounts::may_open_fuse(),
            helper: mounts::helper(env),
        }
    }
}

/// Kernel and helper.
pub fn system(s: &System) -> Vec<Check> {
    if s.name != "Linux" {
        return vec![Check::ok("kernel", format!("{} {}; the drive is mounted with the system's NFS client", s.name, s.release))];
    }
    let version = kernel_version(&s.release);
    let kernel = if !s.dev_fuse {
        Check::fail(
            "kernel",
            format!("Linux {} without FUSE: /dev/fuse does not exist", s.release),
            "as root: modprobe fuse; in a container: --device /dev/fuse --cap-add SYS_ADMIN",
        )
    } else {
        let passthrough = match (version, s.mounts_itself) {
            (Some(v), true) if v >= PASSTHROUGH => "large files are passed through to the disk",
            (Some(v), _) if v >= PASSTHROUGH => "no passthrough of large files: that needs root, or CAP_SYS_ADMIN",
            _ => "no passthrough of large files: that needs Linux 6.9",
        };
        Check::ok("kernel", format!("Linux {} with FUSE; {passthrough}", s.release))
    };
    let helper = match (&s.helper, s.mounts_itself) {
        (Some(_), _) if s.dev_fuse && !s.fuse_access => {
            let e = mounts::no_access();
            Check::fail("helper", e.to_string(), e.hint_text().unwrap_or_default())
        }
        (Some(h), _) => Check::ok("helper", h.display().to_string()),
        (None, true) => Check::ok("helper", "fusermount3 is not installed; root does not need it"),
        (None, _) => {
            let e = mounts::no_helper();
            Check::fail("helper", e.to_string(), e.hint_text().unwrap_or_default())
        }
    };
    vec![kernel, helper]
}

/// Major and minor number of a kernel release such as `6.18.5-arch1`.
fn kernel_version(release: &str) -> Option<(u32, u32)> {
    let mut parts = release.split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// The store: it is the known one (id, and place where it was last seen), a canary is written, read and deleted; and the clock, compared with the time the
/// store gave it. Nothing is written to a place that is not the known store.
pub async fn store(store: &dyn Store, keys: &Keys, known: Option<(&str, Option<&str>)>, clock: &dyn Clock) -> Vec<Check> {
    let key = keys.canary(clock.random());
    let body = Bytes::from(format!("tcfs doctor {:016x}", clock.random()));
    let began = Instant::now();
    let before = clock.now_ms();
    let round = async {
        if let Some((id, last)) = known {
            identity::expect_where(store, keys, id, last).await?;
        }
        store.put(&key, body.clone(), PutMode::Overwrite).await.map_err(|e| e.context("writing a canary"))?;
        let back = store.get(&key).await.map_err(|e| e.context("reading the canary back"))?;
        let meta = store.head(&key).await.map_err(|e| e.context("looking at the canary"))?;
        store.delete(&key).await.map_err(|e| e.context("deleting the canary"))?;
        let gone = store.head(&key).await.map_err(|e| e.context("looking for the deleted canary"))?.is_none();
        Ok::<_, crate::Error>((back == body, meta, gone))
    };
    let url = store.describe();
    match tokio::time::timeout(STORE, round).await {
        Err(_) => vec![Check::fail(
            "store",
            format!("{url} did not answer within {} s", STORE.as_secs()),
            "is it running, and is the network there? Work goes on without it; everything is published when it returns",
        )],
        Ok(Err(e)) => vec![Check::fail(
            "store",
            if e.to_string().contains(&url) { e.to_string() } else { format!("{url}: {e}") },
            e.hint_text().unwrap_or("`tcfs config show` says where the store and its credentials are taken from"),
        )],
        Ok(Ok((false, _, _))) => {
            vec![Check::fail("store", format!("{url} gave other bytes back than were written"), "this store is not fit to keep anything")]
        }
        Ok(Ok((true, meta, gone))) => {
            let took = began.elapsed().as_millis();
            let mut out = vec![if gone {
                Check::ok("store", format!("{url}: canary written, read and deleted in {took} ms"))
            } else {
                Check::warn("store", format!("{url}: a deleted object is still there"), "may this key delete? Garbage would pile up")
            }];
            out.extend(meta.filter(|m| m.modified > 0).map(|m| skew(before / 1000, clock.now_ms() / 1000, m.modified)));
            out
        }
    }
}

/// Compares the store's time of an object with the moments around its writing, in seconds.
fn skew(before: i64, after: i64, stored: i64) -> Check {
    let off = if stored < before { stored - before } else { (stored - after).max(0) };
    if off.abs() <= SKEW {
        return Check::ok("clock", "this machine's clock agrees with the store's");
    }
    let (n, which) = (off.abs(), if off < 0 { "ahead of" } else { "behind" });
    Check::warn(
        "clock",
        format!("this machine's clock is {n} s {which} the store's"),
        "times in history and conflicts will look odd; S3 refuses requests that are 15 minutes off. Is time synchronisation (NTP) on?",
    )
}

/// The cache: what it holds, and whether its disk has room.
pub fn cache(dir: &Path, used: u64, cap: u64, disk_free: u64, disk_total: u64) -> Check {
    let size = |n: u64| format!("{:.1} GiB", n as f64 / (1u64 << 30) as f64);
    let detail = format!("{} of {} used; {} free on the disk of {}", size(used), size(cap), size(disk_free), dir.display());
    if disk_total > 0 && (disk_free as f64) < disk_total as f64 * FREE {
        return Check::warn(
            "cache",
            detail,
            "the disk is nearly full: `tcfs unsync PATH` frees hydrated files, cache.max_bytes lowers the cap",
        );
    }
    if used > cap {
        return Check::warn("cache", detail, "more is pinned or unpublished than the cap allows");
    }
    Check::ok("cache", detail)
}

/// A canary through a mount: a file that never leaves this machine is written, read back and removed.
pub fn mount(mountpoint: &Path, read_only: bool) -> Check {
    let at = mountpoint.display().to_string();
    if read_only {
        let path = mountpoint.to_owned();
        return match within(MOUNT, move || std::fs::read_dir(path).map(|d| d.count())) {
            Some(Ok(n)) => Check::ok("mount", format!("{at}: read only, {n} entries")),
            Some(Err(e)) => Check::fail("mount", format!("{at}: {e}"), "`tcfs daemon restart` mounts it anew"),
            None => hangs(&at),
        };
    }
    // The suffix of an editor's swap file keeps it on this machine.
    let file = mountpoint.join(format!(".tcfs-doctor-{}.swp", std::process::id()));
    let began = Instant::now();
    let round = move || -> std::io::Result<bool> {
        let body = format!("canary of {}", file.display());
        let result = std::fs::write(&file, &body).and_then(|()| std::fs::read_to_string(&file));
        let removed = std::fs::remove_file(&file);
        Ok(result? == body && removed.map(|()| !file.exists())?)
    };
    match within(MOUNT, round) {
        Some(Ok(true)) => Check::ok("mount", format!("{at}: canary written, read and removed in {} ms", began.elapsed().as_millis())),
        Some(Ok(false)) => {
            Check::fail("mount", format!("{at} gave other bytes back than were written"), "please report this, with the log")
        }
        Some(Err(e)) => Check::fail("mount", format!("{at}: {e}"), "`tcfs daemon restart` mounts it anew"),
        None => hangs(&at),
    }
}

fn hangs(at: &str) -> Check {
    Check::fail("mount", format!("{at} does not answer"), format!("tcfs unmount --force {at}, then tcfs mount {at}"))
}

/// The worst of several verdicts.
pub fn worst(checks: &[Check]) -> Verdict {
    checks.iter().map(|c| c.verdict).max().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;
    use crate::error::{Error, Kind, Result};
    use crate::store::{ObjectMeta, Page, PutOutcome};
    use async_trait::async_trait;
    use parking_lot::Mutex;
    use std::collections::BTreeMap;

    fn here(mounts_itself: bool, release: &str, dev_fuse: bool, helper: bool) -> Vec<Check> {
        system(&System {
            name: "Linux".into(),
            release: release.into(),
            mounts_itself,
            dev_fuse,
            fuse_access: true,
            helper: helper.then(|| "/bin/fusermount3".into()),
        })
    }

    #[test]
    fn kernel_and_helper_are_judged_for_the_user_who_asks() {
        let detail = |c: &[Check]| c[0].detail.clone();
        assert!(detail(&here(true, "6.18.5-x", true, false)).contains("are passed through"));
        assert!(detail(&here(false, "6.18.5-x", true, true)).contains("needs root"));
        assert!(detail(&here(true, "6.8.0", true, false)).contains("needs Linux 6.9"));
        assert_eq!(worst(&here(true, "6.1.0", true, false)), Verdict::Ok);
        let c = here(false, "6.18.5", true, false);
        assert!(c[1].verdict == Verdict::Fail && c[1].hint.as_deref().unwrap().contains("fuse3"), "{c:?}");
        assert_eq!(here(true, "6.18.5", false, true)[0].verdict, Verdict::Fail);
        assert_eq!(kernel_version("5.10.0-28-amd64"), Some((5, 10)));
        assert_eq!(kernel_version("odd"), None);
    }

    #[derive(Default)]
    struct Fake {
        objects: Mutex<BTreeMap<String, Bytes>>,
        modified: i64,
        lies: bool,
        keeps: bool,
        fails: bool,
    }

    #[async_trait]
    impl Store for Fake {
        async fn get(&self, key: &str) -> Result<Bytes> {
            let o = self.objects.lock();
            let b = o.get(key).ok_or_else(|| Error::new(Kind::NotFound, key))?;
            Ok(if self.lies { Bytes::from_static(b"zeros") } else { b.clone() })
        }
        async fn put(&self, key: &str, body: Bytes, _: PutMode) -> Result<PutOutcome> {
            if self.fails {
                return Err(Error::new(Kind::Unauthorized, "403").hint("the keys are wrong"));
            }
            self.objects.lock().insert(key.to_owned(), body);
            Ok(PutOutcome::Written)
        }
        async fn list(&self, _: &str, _: Option<&str>) -> Result<Page> {
            Ok(Page::default())
        }
        async fn delete(&self, key: &str) -> Result<()> {
            if !self.keeps {
                self.objects.lock().remove(key);
            }
            Ok(())
        }
        async fn head(&self, key: &str) -> Result<Option<ObjectMeta>> {
            let meta = |b: &Bytes| ObjectMeta { key: key.to_owned(), size: b.len() as u64, modified: self.modified };
            Ok(self.objects.lock().get(key).map(meta))
        }
        fn describe(&self) -> String {
            "fake://".into()
        }
    }

    async fn check(s: Fake) -> Vec<Check> {
        let clock = ManualClock::new(1_000_000_000_000_000_000, 7);
        let checks = store(&s, &Keys::new("default"), None, &*clock).await;
        assert!(s.keeps || s.lies || s.objects.lock().is_empty(), "the canary was left behind");
        checks
    }

    #[tokio::test]
    async fn a_good_store_gets_two_good_marks() {
        let c = check(Fake { modified: 1_000_000_030, ..Fake::default() }).await;
        assert_eq!(c.iter().map(|c| (c.name.as_str(), c.verdict)).collect::<Vec<_>>(), [("store", Verdict::Ok), ("clock", Verdict::Ok)]);
    }

    #[tokio::test]
    async fn a_bad_store_is_told_by_its_fault() {
        let c = check(Fake { lies: true, ..Fake::default() }).await;
        assert!(c[0].verdict == Verdict::Fail && c[0].detail.contains("other bytes"), "{c:?}");
        let c = check(Fake { fails: true, ..Fake::default() }).await;
        assert!(c[0].detail.contains("writing a canary: 403") && c[0].hint.as_deref() == Some("the keys are wrong"), "{c:?}");
        let c = check(Fake { keeps: true, ..Fake::default() }).await;
        assert_eq!((c[0].verdict, c.len()), (Verdict::Warn, 1));
    }

    #[test]
    fn clocks_that_differ_are_told_in_the_right_direction() {
        assert_eq!(skew(100, 110, 105).verdict, Verdict::Ok);
        assert_eq!(skew(100, 110, 50).verdict, Verdict::Ok);
        let c = skew(1000, 1001, 100);
        assert!(c.verdict == Verdict::Warn && c.detail.contains("900 s ahead"), "{c:?}");
        assert!(skew(1000, 1001, 2001).detail.contains("1000 s behind"));
    }

    #[test]
    fn a_full_disk_and_a_full_cache_are_told() {
        let d = Path::new("/c");
        assert_eq!(cache(d, 1, 10, 50, 100).verdict, Verdict::Ok);
        assert!(cache(d, 1, 10, 4, 100).hint.unwrap().contains("unsync"));
        assert!(cache(d, 11, 10, 50, 100).hint.unwrap().contains("pinned"));
    }

    #[test]
    fn the_canary_through_a_mount_leaves_nothing_behind() {
        let tmp = tempfile::tempdir().unwrap();
        assert_eq!(mount(tmp.path(), false).verdict, Verdict::Ok);
        assert_eq!(mount(tmp.path(), true).verdict, Verdict::Ok);
        assert_eq!(std::fs::read_dir(tmp.path()).unwrap().count(), 0);
        assert_eq!(mount(&tmp.path().join("none"), false).verdict, Verdict::Fail);
    }
}

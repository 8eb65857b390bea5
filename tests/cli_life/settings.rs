//! Each setting has an effect, set by its environment variable.

use super::{answer, s};
use crate::common::{Mounted, World, image::Image, mounted::walk_files, until};
use crate::drive_only;
use std::fs;
use std::sync::Arc;
use std::time::Duration;

fn with(w: &Arc<World>, name: &str, env: &[(&str, &str)]) -> Mounted {
    env.iter().fold(w.device(name), |d, (k, v)| d.env(k, *v)).off()
}

#[test]
fn where_things_lie_is_as_it_was_set() {
    drive_only!();
    let w = World::new();
    let (cache, mnt, store) = (w.dir().join("c"), w.dir().join("m"), w.dir().join("st"));
    let url = format!("file://{}", store.display());
    let m = with(
        &w,
        "ann",
        &[
            ("TCFS_CACHE_DIR", s(&cache)),
            ("TCFS_MOUNTPOINT", s(&mnt)),
            ("TCFS_STORE", &url),
            ("TCFS_STATE_DIR", s(&w.dir().join("own state"))),
            ("TCFS_DEVICE_NAME", "yoga"),
            ("TCFS_CACHE_MAX_BYTES", "3MiB"),
        ],
    );
    let d = m.cli(&["mount"]).ok();
    assert!(d.stdout.contains("enrolled as yoga (yoga-"), "{}", d.stdout);
    fs::write(mnt.join("f"), "text").unwrap();
    m.cli(&["wait"]).ok();
    let status = m.status();
    assert_eq!(status["mounts"][0]["mountpoint"].as_str(), Some(s(&mnt)));
    assert_eq!((status["store"].as_str(), status["cache"]["max_bytes"].as_u64()), (Some(url.as_str()), Some(3 << 20)));
    assert_eq!(status["cache"]["dir"].as_str(), Some(s(&cache)));
    assert!(store.join("default/store.json").exists() && cache.join("data").is_dir() && w.dir().join("own state/lock").exists());
    // Three files of 2 MiB do not fit into a cache of 3.
    for n in 0..3 {
        fs::write(mnt.join(format!("big{n}")), vec![n; 2 << 20]).unwrap();
    }
    m.cli(&["wait"]).ok();
    until("the cache is below its cap", Duration::from_secs(60), || {
        let here: u64 =
            walk_files(&cache.join("data")).iter().filter_map(|p| std::os::unix::fs::MetadataExt::blocks(&p.metadata().ok()?).into()).sum();
        (here * 512 <= 3 << 20).then_some(())
    });
    m.cli(&["unmount"]).ok();
}

#[test]
fn excluded_names_stay_on_this_machine() {
    drive_only!();
    let w = World::new();
    let m = with(&w, "ann", &[("TCFS_EXCLUDE_PATTERNS", "*.o,/build/")]);
    m.mount();
    fs::create_dir(m.path("build")).unwrap();
    for name in ["a.o", "a.c", "build/x"] {
        fs::write(m.path(name), name).unwrap();
    }
    m.wait();
    let b = w.device("bob").off();
    b.cli(&["device", "list"]).ok();
    assert_eq!(b.cli(&["ls", "-R"]).ok().stdout, "a.c\n");
    let local = answer(&m.cli(&["--json", "ls", "a.o"]).ok());
    assert_eq!(local["entries"].as_u64(), Some(1));
    assert!(m.cli(&["ls", "-l", "a.o"]).ok().stdout.contains("local_only"));
}

#[test]
fn a_small_file_comes_whole_when_it_is_opened_and_a_large_one_by_pieces() {
    drive_only!();
    let w = World::new();
    let a = w.mount("ann");
    let noise: Vec<u8> = (0..24u32 << 20).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    fs::write(a.path("f"), &noise).unwrap();
    a.wait();
    for (below, whole) in [("1MiB", false), ("64MiB", true)] {
        let b = with(&w, if whole { "bob" } else { "cora" }, &[("TCFS_CACHE_HYDRATE_WHOLE_BELOW", below)]);
        b.mount();
        let f = fs::File::open(b.path("f")).unwrap();
        let mut byte = [0u8; 1];
        std::os::unix::fs::FileExt::read_exact_at(&f, &mut byte, 0).unwrap();
        let residence = || b.cli(&["--json", "ls", "f"]).ok().json()[0]["residence"].as_str().unwrap().to_owned();
        if whole {
            until("the whole file is here", Duration::from_secs(60), || (residence() == "hydrated").then_some(()));
        } else {
            std::thread::sleep(Duration::from_secs(1));
            assert_eq!(residence(), "partial");
        }
    }
}

/// A program by its name: what it cannot open, what it reads only if it is here, and what it brings.
#[test]
fn programs_bring_here_what_the_settings_let_them() {
    drive_only!();
    let w = World::new();
    let b = w.mount("bob");
    let noise: Vec<u8> = (0..24u32 << 20).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    for name in ["f", "g", "h"] {
        // Three files that have no chunk in common.
        let bytes: Vec<u8> = noise.iter().map(|x| x ^ name.as_bytes()[0]).collect();
        fs::write(b.path(name), bytes).unwrap();
    }
    b.wait();
    let a = with(
        &w,
        "ann",
        &[("TCFS_HYDRATION_DENY", "miner*,updatedb"), ("TCFS_HYDRATION_CACHED_ONLY", "peek"), ("TCFS_HYDRATION_RANGE_ONLY", "player")],
    );
    a.mount();
    let bin = w.dir().join("bin");
    fs::create_dir(&bin).unwrap();
    // Programs that read the first kilobyte.
    let head = |name: &str, file: &str| {
        let exe = bin.join(name);
        if !exe.exists() {
            fs::copy("/usr/bin/head", &exe).unwrap();
        }
        std::process::Command::new(exe).args(["-c", "1000"]).arg(a.path(file)).output().unwrap()
    };
    let here = |file: &str| {
        let e = a.cli(&["--json", "ls", file]).ok().json().remove(0);
        e["residence"].as_str().unwrap().to_owned()
    };
    for name in ["miner-fs", "peek"] {
        let out = head(name, "f");
        assert!(!out.status.success() && String::from_utf8_lossy(&out.stderr).contains("Permission denied"), "{name}: {out:?}");
    }
    assert_eq!(here("f"), "stub");
    assert_eq!(head("player", "f").stdout.len(), 1000);
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(here("f"), "partial");
    // What is here, it may read.
    assert_eq!(head("peek", "f").stdout.len(), 1000);
    // Who is on no list brings all of a small file.
    assert_eq!(head("any", "g").stdout.len(), 1000);
    until("all of it is here", Duration::from_secs(60), || (here("g") == "hydrated").then_some(()));
    assert_eq!(head("miner-fs", "g").stdout.len(), 1000);
    let kept = &a.status()["cache"]["kept_from"];
    assert_eq!((kept["denied"].as_u64(), kept["cached_only"].as_u64(), kept["range_only"].as_u64()), (Some(1), Some(2), Some(1)));
}

/// The cache leaves so much free on its disk, whatever its cap is.
#[test]
fn the_cache_leaves_free_what_was_set() {
    drive_only!();
    let w = World::new();
    let b = w.mount("bob");
    for n in 1..=12u8 {
        fs::write(b.path(format!("f{n}")), vec![n; 7 << 20]).unwrap();
    }
    b.wait();
    for (min, name) in [("1MiB", "ann"), ("1GiB", "cora")] {
        let mnt = w.dir().join(format!("disk-{name}"));
        fs::create_dir(&mnt).unwrap();
        // At most a tenth of the disk counts.
        let disk = Image::create("ext4", &w.dir().join(format!("{name}.img")), 100 << 20, &mnt);
        let cache = mnt.join("cache");
        let m = with(&w, name, &[("TCFS_CACHE_DIR", s(&cache)), ("TCFS_CACHE_MAX_BYTES", "1GiB"), ("TCFS_CACHE_MIN_FREE", min)]);
        m.mount();
        for n in 1..=12 {
            assert_eq!(fs::read(m.path(format!("f{n}"))).unwrap().len(), 7 << 20);
        }
        let free = || {
            let c = m.cli(&["--json", "cache"]).ok().json().remove(0);
            (c["disk_free"].as_u64().unwrap(), c["disk"].as_u64().unwrap())
        };
        if min == "1GiB" {
            until("a tenth of the disk is free", Duration::from_secs(60), || (free().0 >= free().1 / 10).then_some(()));
        } else {
            std::thread::sleep(Duration::from_secs(5));
            assert!(free().0 < free().1 / 10, "it keeps what it has: {:?}", free());
        }
        m.unmount();
        drop(disk);
    }
}

#[test]
fn the_log_has_the_level_the_size_and_the_number_of_files_that_were_set() {
    drive_only!();
    let w = World::new();
    let quiet = with(&w, "ann", &[("TCFS_LOG_LEVEL", "error")]);
    quiet.mount();
    quiet.unmount();
    assert_eq!(quiet.log(), "");
    let loud = with(&w, "bob", &[("TCFS_LOG_LEVEL", "trace"), ("TCFS_LOG_MAX_BYTES", "1KiB"), ("TCFS_LOG_KEEP", "2")]);
    for _ in 0..8 {
        loud.mount();
        loud.unmount();
    }
    let files: Vec<_> = walk_files(&loud.state().join("log")).into_iter().filter(|p| s(p).contains("tcfs.log")).collect();
    assert_eq!(files.len(), 3, "{files:?}");
    assert!(files.iter().all(|f| f.metadata().unwrap().len() < 8 << 10), "{files:?}");
    assert!(loud.log().contains("the daemon ends"));
}

#[test]
fn settings_that_are_odd_are_told() {
    let w = World::new();
    let m = with(
        &w,
        "ann",
        &[
            ("TCFS_SYNC_GIT_DIRS", "true"),
            ("TCFS_GIT_SYNC_MODE", "raw"),
            ("TCFS_NATS_URL", "nats://secret:hush77@127.0.0.1:1"),
            ("TCFS_STROE", "x"),
        ],
    );
    let d = m.cli(&["config", "check"]).ok();
    assert!(d.text().contains("git_sync_mode") && d.text().contains("TCFS_STROE") && d.text().contains("TCFS_STORE?"), "{}", d.text());
    assert!(!m.cli(&["config", "show"]).ok().text().contains("hush77"));
}

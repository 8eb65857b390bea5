//! The suites that run on the FUSE mount, through a real kernel's NFS client: our own file operations, pjdfstest, fsx.
//!
//! What NFS version 3 cannot say is left out by name, each with its reason; the counts are exact, so that a suite which
//! silently stopped running is seen.

use super::common::{World, count, tools};
use super::kernel::{LONG, run};
use super::served::Served;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// Our own file operations, of `tests/fuse`, that NFS version 3 has no way to ask for or to answer.
const OPS_LEFT_OUT: [(&str, &str); 18] = [
    ("alloc::allocation_grows_the_file", "no allocation in the protocol"),
    ("alloc::holes_and_data_are_found", "no SEEK_HOLE in the protocol"),
    ("alloc::punched_holes_and_zeroed_ranges", "no holes in the protocol"),
    ("alloc::punching_gives_space_back", "no holes in the protocol"),
    ("alloc::sparse_file_stays_sparse", "a gigabyte of zeros through a slow line: in `kernel`"),
    ("attrs::changes_move_the_times", "uses extended attributes"),
    ("attrs::attribute_buffer_too_small", "no extended attributes in the protocol"),
    ("attrs::user_attributes_of_files", "no extended attributes in the protocol"),
    ("attrs::times_are_set_to_the_nanosecond", "times before 1970 cannot be said: 32 bits without a sign"),
    ("data::data_of_an_unlinked_open_file", "the client keeps an open file under another name: its link count stays 1"),
    ("dirs::removed_working_directory", "a directory that is gone is a stale handle, not a missing name"),
    ("dirs::remount_keeps_everything", "uses extended attributes"),
    ("dirs::second_machine_on_the_same_store", "uses extended attributes; another machine is looked at in `kernel`"),
    ("names::odd_names_work", "uses extended attributes"),
    ("renames::exchange_of_a_file", "no exchange in the protocol"),
    ("renames::noreplace_refuses", "no rename flags in the protocol"),
    ("dirs::large_directory_lists", "ten thousand names one by one through a slow line: in `kernel`, made at the server"),
    ("data::small_edits_in_a_large_published_file", "many MiB through a slow line: fsx does the same"),
];

/// Cases of `tests/fuse` that run.
const OPS: usize = 54;

/// The test program of `tests/fuse`, which runs on any directory.
fn operations() -> PathBuf {
    let here = std::env::current_exe().unwrap();
    let all = std::fs::read_dir(here.parent().unwrap()).unwrap().flatten().map(|e| e.path());
    let is = |p: &PathBuf| {
        let name = p.file_name().unwrap().to_string_lossy();
        name.strip_prefix("fuse-").is_some_and(|rest| !rest.contains('.'))
    };
    let built = |p: &PathBuf| p.metadata().and_then(|m| m.modified()).unwrap_or(SystemTime::UNIX_EPOCH);
    all.filter(is).max_by_key(built).unwrap_or_else(|| panic!("the tests of FUSE are not built: cargo test --no-run --test fuse"))
}

/// What a program may expect of any disk, with what the protocol cannot do left out.
#[test]
fn the_file_operations_of_the_fuse_mount_work_through_the_kernels_client() {
    let w = World::new();
    let s = Served::new(&w, "ann");
    let skip: String = OPS_LEFT_OUT.iter().map(|(n, _)| format!(" --skip {n}")).collect();
    let script = format!(
        "mount --bind /mnt/nfs /var/tmp; export TCFS_TEST_NATIVE=1\n{} --test-threads=4 {skip} 2>&1 || true\numount /var/tmp\n",
        operations().display()
    );
    let out = run(&s, &script, 3 * LONG, |_| {});
    let sum = out.lines().find(|l| l.contains("test result:")).unwrap_or_default();
    assert!(sum.contains(&format!("{OPS} passed; 0 failed")), "{out}");
}

/// pjdfstest 0.2.2 has this many cases in all; on the FUSE mount 384 pass and 14 are skipped.
const PJD_TOTAL: usize = 398;
/// The 13 that remount, and one for which the C library does not know how many links there may be.
const PJD_SKIPPED: usize = 14;
/// Cases that fail, each with its reason.
const PJD_EXCLUDED: [(&str, &str); 2] = [
    ("utimensat::y2038", "a time after 2106 cannot be said: 32 bits"),
    ("unlink::open_file_not_freed", "the client keeps an open file under another name: its link count stays 1"),
];

#[test]
fn pjdfstest_passes_but_for_what_the_protocol_cannot_say() {
    let suite = tools::find("pjdfstest");
    let w = World::new();
    // Its cases change to other users.
    let s = Served::of(w.device("ann").mount_args(&["--allow-other"]).off());
    let script = format!(
        r#"
cat > /mnt/config <<'END'
[features]
posix_fallocate = {{}}
utime_now = {{}}
utimensat = {{}}
rename_ctime = {{}}
[settings]
naptime = 0.1
[dummy_auth]
entries = [["nobody", "nogroup"], ["daemon", "daemon"]]
END
mkdir pjd /mnt/other; chmod 777 pjd; cd pjd
NO_COLOR=1 {} -c /mnt/config -p /mnt/nfs/pjd -s /mnt/other 2>&1 || true
"#,
        suite.display()
    );
    let out = run(&s, &script, 3 * LONG, |_| {});
    let named = |state: &str| -> Vec<String> {
        let cases = out.lines().filter(|l| l.contains("::") && l.split_whitespace().nth(1) == Some(state));
        cases.map(|l| l.split_whitespace().next().unwrap().to_owned()).collect()
    };
    let (passed, mut failed, skipped) = (named("ok"), named("FAILED"), named("skipped"));
    println!("{} passed, {} failed, {} skipped", passed.len(), failed.len(), skipped.len());
    failed.sort();
    let mut excluded = PJD_EXCLUDED.map(|(n, _)| n).to_vec();
    excluded.sort_unstable();
    assert_eq!(failed, excluded, "{out}");
    assert_eq!((passed.len(), skipped.len()), (PJD_TOTAL - PJD_SKIPPED - PJD_EXCLUDED.len(), PJD_SKIPPED), "{out}");
}

/// Reads, writes, mappings, truncations in any order, each read compared with what was written.
#[test]
fn fsx_finds_no_difference() {
    let fsx = tools::find("fsx");
    let w = World::new();
    let s = Served::new(&w, "ann");
    let (ops, seed) = (count(2_000, 20_000), super::common::rng().u32(..));
    let script = format!(
        r#"
cat > /mnt/config <<'END'
flen = 1048576
[opsize]
max = 131072
min = 1
[weights]
close_open = 1.0
read = 10.0
write = 10.0
mapread = 10.0
mapwrite = 10.0
truncate = 2.0
fsync = 0.2
fdatasync = 0.2
invalidate = 0.5
sendfile = 2.0
END
{} -f /mnt/config -N {ops} -S {seed} -P /mnt /mnt/nfs/fsx.bin && echo "FSX DONE"
md5sum < /mnt/nfs/fsx.bin
"#,
        fsx.display()
    );
    let out = run(&s, &script, Duration::from_secs(1200), |_| {});
    assert!(out.contains("FSX DONE"), "seed {seed}\n{out}");
    // And what is here is what arrives elsewhere.
    s.m.wait();
    let bob = w.mount("bob");
    let sum = md5(&bob.path("fsx.bin"));
    assert!(out.contains(&sum), "seed {seed}: another content elsewhere\n{out}");
}

fn md5(path: &Path) -> String {
    let out = std::process::Command::new("md5sum").arg(path).output().unwrap();
    String::from_utf8(out.stdout).unwrap().split_whitespace().next().unwrap().to_owned()
}

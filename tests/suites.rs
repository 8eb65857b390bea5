//! Suites that others wrote, run on the mount: pjdfstest, fsx, stress-ng, fio.
//!
//! What is expected of each is what the local disk does here; exact counts stand in the tests, so that a test that
//! silently stopped running is seen too.
#![allow(clippy::unwrap_used)] // a failed call is a failed test

mod common;

use common::{Mounted, World, cli, count, slow, tools};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::Duration;

const LONG: Duration = Duration::from_secs(3600);

/// pjdfstest 0.2.2 has this many cases in all.
const PJD_TOTAL: usize = 398;
/// Cases that pass; on ext4 as root with every feature this system has switched on it is one more, 385 (376 with the
/// suite's own settings).
const PJD_PASS: usize = 384;
/// Cases that the suite skips: the 13 that remount the file system read-only, and `link::link_count_max`, which asks the C
/// library how many links there may be and gets no answer for any FUSE file system.
const PJD_SKIPPED: usize = 14;
/// Cases that may fail on the mount, each with its reason; at most one.
const PJD_EXCLUDED: [(&str, &str); 0] = [];

#[test]
fn pjdfstest_passes_as_on_the_local_disk() {
    tools::need_root("pjdfstest");
    let suite = tools::find("pjdfstest");
    let w = World::new();
    // Its cases change to other users, who must reach the files.
    let m = w.device("ann").mount_args(&["--allow-other"]).mount();
    let config = w.dir().join("pjdfstest.toml");
    let text = "[features]\nposix_fallocate = {}\nutime_now = {}\nutimensat = {}\nrename_ctime = {}\n[settings]\nnaptime = 0.02\n\
        [dummy_auth]\nentries = [[\"nobody\", \"nogroup\"], [\"daemon\", \"daemon\"]]\n";
    fs::write(&config, text).unwrap();
    let other = tempfile::Builder::new().prefix("tcfs-t").tempdir_in("/dev/shm").unwrap();
    for d in [w.dir(), m.path("").parent().unwrap()] {
        fs::set_permissions(d, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let dir = m.path("pjd");
    fs::create_dir(&dir).unwrap();
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o777)).unwrap();
    let mut cmd = Command::new(suite);
    cmd.arg("-c").arg(&config).arg("-p").arg(&dir).arg("-s").arg(other.path()).current_dir(&dir).env("NO_COLOR", "1");
    let done = cli::run(&mut cmd, LONG);
    let named = |state: &str| -> Vec<String> {
        let cases = done.stdout.lines().filter(|l| l.contains("::") && l.split_whitespace().nth(1) == Some(state));
        cases.map(|l| l.split_whitespace().next().unwrap().to_owned()).collect()
    };
    let (passed, failed, skipped) = (named("ok"), named("FAILED"), named("skipped"));
    println!("{} passed, {} failed, {} skipped", passed.len(), failed.len(), skipped.len());
    let unexpected: Vec<_> = failed.iter().filter(|f| !PJD_EXCLUDED.iter().any(|(n, _)| n == f)).collect();
    assert!(unexpected.is_empty(), "failed: {unexpected:?}\n{}", done.text());
    assert_eq!(passed.len() + failed.len() + skipped.len(), PJD_TOTAL, "cases were lost\n{}", done.text());
    assert_eq!((passed.len(), skipped.len()), (PJD_PASS - failed.len(), PJD_SKIPPED), "{}", done.text());
}

/// Runs fsx with `ops` operations and a config; it compares every read with what it wrote itself.
fn fsx(ops: usize, config: &str) {
    let fsx = tools::find("fsx");
    let w = World::new();
    let m = w.mount("ann");
    let file = w.dir().join("fsx.toml");
    fs::write(&file, config).unwrap();
    let seed = common::rng().u32(..);
    let mut cmd = Command::new(fsx);
    cmd.arg("-f").arg(&file).args(["-N", &ops.to_string(), "-S", &seed.to_string()]).arg("-P").arg(w.dir()).arg(m.path("fsx.bin"));
    let done = cli::run(&mut cmd, LONG);
    assert!(done.code == 0, "fsx found a difference\n{}", done.text());
    m.wait();
    let before = fs::read(m.path("fsx.bin")).unwrap();
    m.remount();
    assert!(fs::read(m.path("fsx.bin")).unwrap() == before, "another content after a remount");
}

#[test]
fn fsx_with_mappings_finds_no_difference() {
    let weights = "close_open = 1.0\nread = 10.0\nwrite = 10.0\nmapread = 10.0\nmapwrite = 10.0\ntruncate = 2.0\nfsync = 0.2\nfdatasync = 0.2\n\
        invalidate = 0.5\npunch_hole = 2.0\nposix_fallocate = 1.0\ncopy_file_range = 5.0\nsendfile = 2.0\nposix_fadvise = 0.5\n";
    fsx(count(5_000, 50_000), &format!("flen = 4194304\n[opsize]\nmax = 262144\nmin = 1\n[weights]\n{weights}"));
}

#[test]
fn fsx_with_a_close_after_every_operation_finds_no_difference() {
    // The suite draws operations by weight: with nine closes for one other, nine of ten operations are followed by a close
    // at once. So ten times as many are drawn.
    let weights = "close_open = 180.0\nread = 5.0\nwrite = 8.0\nmapread = 2.0\nmapwrite = 3.0\ntruncate = 1.0\npunch_hole = 1.0\n";
    fsx(10 * count(2_000, 50_000), &format!("flen = 2097152\n[opsize]\nmax = 131072\nmin = 1\n[weights]\n{weights}"));
}

/// Stressors of the class that this test leaves out: two fail on the local disk as well, two mount file systems of their own.
const STRESSORS_LEFT_OUT: [&str; 4] = ["metamix", "truncate", "bind-mount", "binderfs"];

#[test]
fn stress_ng_stressors_that_pass_on_the_disk_pass_here() {
    let stress = tools::find("stress-ng");
    let m = Mounted::new();
    // The tool lists the members of a class as "class 'filesystem' stressors: access chattr …".
    let list = cli::run(Command::new(&stress).args(["--class", "filesystem?"]), LONG);
    let text = format!("{}{}", list.stdout, list.stderr);
    let members = text.split_once("stressors:").unwrap_or_else(|| panic!("no list of stressors: {text}")).1;
    let stressors: Vec<&str> = members.split_whitespace().filter(|s| !STRESSORS_LEFT_OUT.contains(s)).collect();
    assert!(stressors.len() >= 40, "only {} stressors: {text}", stressors.len());
    let seconds = if slow() { "10" } else { "1" };
    let mut failed = vec![];
    let mut ran = 0;
    let dir = m.path("stress");
    fs::create_dir(&dir).unwrap();
    for s in &stressors {
        let mut cmd = Command::new(&stress);
        cmd.args([&format!("--{s}"), "2", "--timeout", seconds, "--verify", "--temp-path"]).arg(&dir);
        let done = cli::run(
            cmd.args(["--hdd-bytes", "64m", "--iomix-bytes", "64m", "--fallocate-bytes", "64m"]).current_dir(m.root()),
            Duration::from_secs(120),
        );
        match done.code {
            0 => ran += 1,
            // It says itself that it cannot run on this system at all.
            3 | 4 => println!("{s} was skipped: {}", done.stderr.lines().next().unwrap_or_default()),
            code => failed.push(format!("{s} exited with {code}\n{}", done.text())),
        }
    }
    let stressors = stressors.len();
    println!("{ran} of {stressors} ran");
    assert!(ran + failed.len() >= 40, "only {ran} stressors ran");
    assert!(failed.is_empty(), "{} of {} stressors failed:\n{}", failed.len(), stressors, failed.join("\n"));
    // The drive still works and nothing of the stress is left.
    fs::write(m.path("after"), "x").unwrap();
    m.wait();
    m.remount();
    assert_eq!(fs::read(m.path("after")).unwrap(), b"x");
}

#[test]
fn fio_verifies_what_it_wrote() {
    let fio = tools::find("fio");
    let m = Mounted::new();
    let size = if slow() { "256m" } else { "32m" };
    for (name, extra) in [
        ("random-write", vec!["--rw=randwrite", "--bs=4k"]),
        ("mixed-sizes", vec!["--rw=randrw", "--bsrange=512-256k"]),
        ("sequential", vec!["--rw=write", "--bs=1m"]),
        ("mmap", vec!["--rw=randwrite", "--bs=4k", "--ioengine=mmap"]),
        ("direct", vec!["--rw=randwrite", "--bs=4k", "--direct=1", "--ioengine=libaio", "--iodepth=16"]),
        ("fsync", vec!["--rw=randwrite", "--bs=16k", "--fsync=32"]),
    ] {
        let mut cmd = Command::new(&fio);
        cmd.args([
            "--directory",
            m.root().to_str().unwrap(),
            "--size",
            size,
            "--verify=crc32c",
            "--verify_fatal=1",
            "--do_verify=1",
            "--numjobs=2",
            "--group_reporting",
        ]);
        cmd.arg(format!("--name={name}")).args(extra);
        cli::run(cmd.current_dir(m.root()), LONG).ok();
    }
    m.wait();
    m.remount();
    // What was written before still carries its checksums after a remount.
    let mut cmd = Command::new(&fio);
    cmd.args([
        "--directory",
        m.root().to_str().unwrap(),
        "--size",
        size,
        "--verify=crc32c",
        "--verify_fatal=1",
        "--verify_only=1",
        "--numjobs=2",
    ]);
    cmd.args(["--name=sequential", "--rw=write", "--bs=1m"]);
    cli::run(cmd.current_dir(m.root()), LONG).ok();
}

//! What is measured: the files, and the loops over them.

use crate::common::{cli, until};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// More than anything that is run here takes.
pub const HOUR: Duration = Duration::from_secs(3600);

/// Sizes of one run.
pub struct Plan {
    /// Files in the tree that git looks at.
    pub files: usize,
    /// Bytes of the large file.
    pub big: u64,
    /// Small files opened or created in one turn.
    pub small: usize,
    /// Random reads in one turn.
    pub reads: usize,
    /// Counted rounds.
    pub rounds: usize,
}

impl Plan {
    /// Full or quick.
    pub fn new(quick: bool) -> Plan {
        if quick {
            Plan { files: 2_000, big: 128 << 20, small: 1_000, reads: 2_000, rounds: 3 }
        } else {
            Plan { files: 20_000, big: 1 << 30, small: 4_000, reads: 10_000, rounds: 5 }
        }
    }

    /// One line for above the table.
    pub fn describe(&self) -> String {
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        // What else goes on decides how long a wake-up takes, and with it every figure of small files.
        let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
        let load = load.split(' ').nth(2).unwrap_or("?");
        format!(
            "{cpus} cores, kernel {}, load {load}, {} files in the tree, large file {} MiB, medians of {} interleaved rounds.",
            kernel.trim(),
            self.files,
            self.big >> 20,
            self.rounds
        )
    }
}

/// The tree (a git repository of small text files) and the large file.
pub fn prepare(to: &Path, plan: &Plan) {
    let tree = to.join("tree");
    let mut rng = fastrand::Rng::with_seed(1);
    for i in 0..plan.files {
        let dir = tree.join(format!("dir{:02}/sub{:02}", i % 40, (i / 40) % 25));
        fs::create_dir_all(&dir).unwrap();
        let line = format!("line of file {i}, nothing special about it\n");
        fs::write(dir.join(format!("file{i}.rs")), line.repeat(rng.usize(10..200))).unwrap();
    }
    let script = "git init -q . && git config user.name b && git config user.email b@example.org && git config core.fileMode false \
        && git config gc.auto 0 && git config core.untrackedCache false && git add -A && git commit -q -m all && git gc -q";
    cli::run(Command::new("sh").arg("-ec").arg(script).current_dir(&tree), Duration::from_secs(600)).ok();
    random_file(&to.join("big"), plan.big);
}

/// A file of random bytes, still open.
pub fn random_file(path: &Path, size: u64) -> File {
    let mut f = File::create(path).unwrap();
    let mut part = vec![0u8; 4 << 20];
    for _ in 0..size.div_ceil(part.len() as u64) {
        fastrand::fill(&mut part);
        f.write_all(&part).unwrap();
    }
    f.set_len(size).unwrap();
    f.sync_all().unwrap();
    f
}

/// A file of program sources, told apart from others by a number in each of them, still open.
pub fn text_file(path: &Path, size: u64, number: u64) -> File {
    let mut f = std::io::BufWriter::new(File::create(path).unwrap());
    let mut written = 0;
    let sources = rust_sources();
    assert!(!sources.is_empty(), "no sources in the cargo registry");
    for (i, s) in sources.iter().cycle().enumerate() {
        if written >= size {
            break;
        }
        let text = fs::read(s).unwrap();
        let head = format!("// {number}.{i}\n");
        f.write_all(head.as_bytes()).unwrap();
        f.write_all(&text).unwrap();
        written += (head.len() + text.len()) as u64;
    }
    let f = f.into_inner().unwrap();
    f.sync_all().unwrap();
    f
}

fn rust_sources() -> Vec<PathBuf> {
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from).or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo")));
    let mut all = crate::common::mounted::walk_files(&home.expect("HOME is set").join("registry/src"));
    all.retain(|p| p.extension().is_some_and(|e| e == "rs"));
    all.sort();
    all
}

fn tree_files(root: &Path, most: usize) -> Vec<PathBuf> {
    let mut files = crate::common::mounted::walk_files(&root.join("tree"));
    files.retain(|p| !p.components().any(|c| c.as_os_str() == ".git"));
    files.sort();
    files.truncate(most);
    files
}

/// Repeats a sweep over `n` things for at least half a second, after one that is not counted; things per second.
fn sweeps(n: usize, mut sweep: impl FnMut()) -> f64 {
    sweep();
    let start = Instant::now();
    let mut done = 0;
    while done == 0 || start.elapsed() < Duration::from_millis(500) {
        sweep();
        done += n;
    }
    rate(done, start)
}

fn rate(n: usize, start: Instant) -> f64 {
    n as f64 / start.elapsed().as_secs_f64()
}

/// lstat of every file, per second; the sweep is made once before.
pub fn stat_sweep(root: &Path, _: &Plan) -> f64 {
    let files = tree_files(root, usize::MAX);
    sweeps(files.len(), || assert!(files.iter().all(|f| fs::symlink_metadata(f).is_ok())))
}

/// `git status` in milliseconds.
pub fn git_status(root: &Path, _: &Plan) -> f64 {
    let mut cmd = Command::new("git");
    let done =
        cli::run(cmd.args(["--no-optional-locks", "status", "--porcelain"]).current_dir(root.join("tree")), Duration::from_secs(600)).ok();
    assert_eq!(done.stdout, "", "{} has changes", root.display());
    done.took.as_secs_f64() * 1e3
}

/// open, read to the end, close of small files, per second; all have been read once before.
pub fn open_read_close(root: &Path, plan: &Plan) -> f64 {
    let files = tree_files(root, plan.small);
    let mut buf = vec![0u8; 64 << 10];
    sweeps(files.len(), || {
        for f in &files {
            let mut f = File::open(f).unwrap();
            while f.read(&mut buf).unwrap() > 0 {}
        }
    })
}

/// The large file once more, where the disk has room now.
pub fn write_anew(source: &Path, root: &Path) {
    let to = root.join("anew");
    let _ = fs::remove_file(&to);
    cli::run(Command::new("cp").arg("--reflink=never").arg(source.join("big")).arg(&to), HOUR).ok();
}

/// The large file from front to back in MB/s.
pub fn read_sequential(root: &Path, plan: &Plan) -> f64 {
    let mut buf = vec![0u8; 1 << 20];
    let mut total = 0u64;
    let start = Instant::now();
    let mut f = File::open(root.join("anew")).unwrap();
    loop {
        match f.read(&mut buf).unwrap() {
            0 => break,
            n => total += n as u64,
        }
    }
    assert_eq!(total, plan.big);
    total as f64 / 1e6 / start.elapsed().as_secs_f64()
}

/// 4 KiB at random places of the large file, per second.
pub fn read_random(root: &Path, plan: &Plan) -> f64 {
    let f = File::open(root.join("big")).unwrap();
    let mut buf = [0u8; 4096];
    let mut rng = fastrand::Rng::with_seed(9);
    let start = Instant::now();
    for _ in 0..plan.reads {
        f.read_exact_at(&mut buf, rng.u64(..plan.big / 4096) * 4096).unwrap();
    }
    rate(plan.reads, start)
}

/// create, write 1 KiB, close; per second.
pub fn create_small(root: &Path, plan: &Plan) -> f64 {
    let dir = root.join("new");
    fs::create_dir(&dir).unwrap();
    let mut bytes = [0u8; 1024];
    fastrand::fill(&mut bytes);
    let start = Instant::now();
    for i in 0..plan.small {
        bytes[..8].copy_from_slice(&(i as u64).to_le_bytes());
        File::create(dir.join(format!("f{i}"))).unwrap().write_all(&bytes).unwrap();
    }
    let figure = rate(plan.small, start);
    // Not measured. rclone answers EIO while it still copies some of them to its source.
    until(&format!("{} is removed", dir.display()), Duration::from_secs(600), || fs::remove_dir_all(&dir).ok());
    figure
}

/// A new file as large as the large one, written in pieces of 1 MiB and closed, in MB/s.
pub fn write_sequential(root: &Path, plan: &Plan) -> f64 {
    let path = root.join("written");
    let mut part = vec![0u8; 1 << 20];
    fastrand::fill(&mut part);
    let start = Instant::now();
    let mut f = File::create(&path).unwrap();
    for i in 0..plan.big >> 20 {
        part[..8].copy_from_slice(&i.to_le_bytes());
        f.write_all(&part).unwrap();
    }
    drop(f);
    let figure = plan.big as f64 / 1e6 / start.elapsed().as_secs_f64();
    fs::remove_file(path).unwrap();
    figure
}

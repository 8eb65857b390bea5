//! What the black-box tests share: machines with a mounted drive, tools of other people, trees and their comparison.
//!
//! Must: every process started here is ended by its own id, every mount made here is undone, also when a test panics.
//! Not here: anything that looks inside the program; these tests only know its command line, its mount and its store's objects.
//!
//! `TCFS_TEST_NATIVE=1` makes every "mount" a plain directory, which shows that a test asks nothing of the drive that
//! the disk below does not do either. `TCFS_TEST_BIN` names another program to test (a release build), `TCFS_TEST_DIR`
//! another place for scratch directories, `TCFS_SLOW=1` asks for the full numbers, `TCFS_TEST_KEEP=1` keeps what a failed test left.
#![allow(dead_code, unused_imports)] // each test program uses another part of this

pub mod cli;
pub mod copy;
pub mod image;
pub mod mounted;
pub mod nix;
pub mod objects;
pub mod older;
pub mod sys;
pub mod tools;
pub mod tree;
pub mod until;
pub mod writer;

pub use mounted::{Mounted, World};
pub use until::{until, within};

/// The program under test.
pub fn program() -> std::path::PathBuf {
    std::env::var_os("TCFS_TEST_BIN").unwrap_or_else(|| env!("CARGO_BIN_EXE_tcfs").into()).into()
}

/// Whether mounts are plain directories in this run.
pub fn native() -> bool {
    std::env::var_os("TCFS_TEST_NATIVE").is_some_and(|v| v == "1")
}

/// Whether the full numbers were asked for.
pub fn slow() -> bool {
    std::env::var_os("TCFS_SLOW").is_some_and(|v| v == "1")
}

/// `full` in a slow run, else `quick`; `TCFS_TEST_N` replaces both.
pub fn count(quick: usize, full: usize) -> usize {
    match std::env::var("TCFS_TEST_N").ok().and_then(|v| v.parse().ok()) {
        Some(n) => n,
        None if slow() => full,
        None => quick,
    }
}

/// Seed of this run's random choices, printed so that a failure can be repeated with `TCFS_TEST_SEED`.
pub fn rng() -> fastrand::Rng {
    let seed = std::env::var("TCFS_TEST_SEED").ok().and_then(|v| v.parse().ok()).unwrap_or_else(|| fastrand::u64(..));
    println!("TCFS_TEST_SEED={seed}");
    fastrand::Rng::with_seed(seed)
}

/// Leaves a test that makes no sense on a plain directory.
#[macro_export]
macro_rules! drive_only {
    () => {
        if $crate::common::native() {
            println!("nothing to check on a plain directory");
            return;
        }
    };
}

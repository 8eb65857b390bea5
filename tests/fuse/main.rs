//! File operations on a real mount, judged by what a program on any disk may expect.
//!
//! Each test has its own daemon, state and store. With `TCFS_TEST_NATIVE=1` the same bodies run on a plain directory: what
//! fails there is a wrong test.
//! Not here: trees (`trees`), suites of other people (`suites`), two machines (`two`).
#![allow(clippy::unwrap_used)] // a failed call is a failed test

#[path = "../common/mod.rs"]
mod common;

mod alloc;
mod attrs;
mod data;
mod dirs;
mod links;
mod locks;
mod maps;
mod names;
mod renames;
mod special;

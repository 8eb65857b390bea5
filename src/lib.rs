//! tcfs: one drive for a fleet of machines. This page is the map of the code.
//!
//! | layer | what it is | may use |
//! |---|---|---|
//! | [`cli`] | the command line, one file a command | `tui`, `mcp`, `daemon` but not `daemon::core`, `model` |
//! | [`tui`] | the same facts full-screen, live; state, drawing and the way to the daemon apart | `daemon` but not `daemon::core`, `model` |
//! | [`mcp`] | the same for programs that speak the Model Context Protocol | `daemon` but not `daemon::core`, `model` |
//! | [`daemon`] | the process: configuration, socket, life, and (`daemon::core`) everything put together | all below |
//! | [`mount`] | front ends of the drive (FUSE, NFS): they convert and decide nothing | `vfs`, `model` |
//! | [`vfs`] | the drive by inode: names, attributes, bytes, sealing, hydration | `fleet`, `content`, `state`, `model` |
//! | [`fleet`] | the outbox into this device's log, everybody else's logs into the tree; the event bus; who the devices are | `content`, `state`, `store`, `model` |
//! | [`content`] | files as chunks: cutting, encoding, upload, fetching | `store`, `model` |
//! | [`state`] | the local database behind an append journal, and the replica of the namespace in it | `model` |
//! | [`store`] | five calls over keys and bytes: a directory, S3, and what tests need | `model` |
//! | [`model`] | the rules, pure: clocks, versions, merging, views, formats | nothing |
//!
//! An arrow may only point down. `error`, `clock`, [`human`] and [`sys`] (what one system can and another cannot) are used everywhere. Where to begin: how versions merge and what
//! lies in the store is told in [`model`], what a program on the mount can rely on in [`vfs`], the order of writes in
//! [`fleet`].
//!
//! The way of a save, file by file, below `src/`:
//! - `mount/fuse/filesystem.rs` takes the kernel's request; `vfs/open.rs`, `create.rs`, `write.rs`, `rename.rs`, `remove.rs` do it;
//!   by NFS it is `mount/nfs/server.rs` and `procedures.rs`, `files.rs` says when a file counts as closed, and `vfs/aside.rs`
//!   and `regain.rs` what becomes of one that is removed or replaced while a client has it open;
//! - `vfs/seal.rs` makes a version of what was written (`model/ops.rs`), `vfs/heads.rs` says what it replaces;
//! - `vfs/brake.rs` counts deletes: of many at once the others see nothing before somebody approves (`model/brake.rs`);
//! - `state/namespace.rs` merges it into its register, `state/reconcile.rs` brings the names to what that shows
//!   (`state/arrive.rs` does both for what is simply new), `state/txn.rs` and `state/journal.rs` keep it;
//! - `fleet/publish.rs` takes it from the outbox through `fleet/plan.rs`, `cuts.rs` and `batch.rs` into the store
//!   (`content/upload.rs`, `store/`).
//!
//! What nothing needs any more leaves the store by `fleet/gc/`: condemned in a list that every device reads
//! (`content/condemned.rs`), then removed.
//!
//! What stays on its machine is decided when a name is made: `vfs/rules.rs` and `vfs/ignores.rs` (`.tcfsignore`). A git
//! repository travels as one version: `fleet/git/` makes and joins bundles, `vfs/bundles.rs` has them among the versions,
//! `daemon/core/git.rs` says when, and `daemon/helper.rs` is the process in which it is done. A database and its journals are
//! sealed together by `vfs/companions.rs`.
//!
//! What the drive tells of itself is in `vfs/control/` (the directory `.tcfs`: state, and the past as read-only trees),
//! `vfs/state_attrs.rs` (`user.tcfs.*`), `vfs/find.rs` and `survey.rs` (names and versions of the whole drive) and
//! `vfs/readers.rs` (who reads, and what that may bring here); the state files are written by `daemon/core/facts.rs`, and what
//! happens by `fleet/feed.rs` and `daemon/core/activity.rs`.
//!
//! The way of a version from elsewhere: `fleet/follow.rs` reads the logs, `fleet/apply.rs` merges what is in them,
//! `fleet/healing.rs` lets own work follow moves, `mount/fuse/invalidate.rs` tells the kernel and `retell.rs` the programs
//! that watch; its bytes come when they are read (`vfs/read.rs`, `vfs/hydrate.rs`, `content/fetch.rs`), and lie in a cache that
//! is this state's alone (`vfs/cache_mark.rs`).
//!
//! Around the crate: `nix/` (package, modules, the lab's hosts, a VM test) and `.ci/deb` (a Debian package). `tests/nix` evaluates
//! the former with a real Nix; `tests/lab` runs the units and packages that come out, and the README's operations, on whole
//! machines with a systemd of their own.

pub mod cli;
pub mod clock;
pub mod content;
pub mod daemon;
pub mod error;
pub mod fleet;
pub mod human;
pub mod mcp;
pub mod model;
pub mod mount;
pub mod state;
pub mod store;
pub mod sys;
pub mod tui;
pub mod vfs;

pub use error::{Error, Kind as ErrorKind, Result};

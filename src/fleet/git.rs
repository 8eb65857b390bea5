//! Git repositories as one unit: made into a bundle on one machine, taken in on another.
//!
//! A `.git` directory copied file by file arrives as a heap of parts of different moments. So it stays on its machine, and
//! what is in it travels as a git bundle with everything that a clone leaves out: HEAD, the index, stashes, remotes.
//!
//! Must: nothing here overwrites a ref, a staged index, a stash or a worktree file that this machine changed; what cannot be
//! joined is kept under `refs/tcfs/<device>/`. Must: every commit that a published ref ever named stays reachable on each
//! machine that had it. Must: the user's repository is only read to make a bundle.
//! Blocking: each call runs git.
//! Not here: when a repository is looked at, and how bundles get into the store and out (`daemon`).

mod files;
mod fingerprint;
mod index;
mod job;
mod kept;
mod memory;
mod pack;
mod process;
mod repo;
mod take;
mod working;

pub use files::settle;
pub use job::{Did, Job, work};
pub use pack::{Packed, Packing, pack};
pub use repo::{Busy, Looked, Past, Refused, Repo, State, Told, look};
pub use take::{From, has_taken, published, take};
pub use working::recover;

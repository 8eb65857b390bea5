//! The fleet: this device's outbox into the store's log, everybody else's logs into the tree here.
//!
//! Write order, must: every chunk of a version is in the store → its manifest → the batch's bytes are fixed in the
//! local database, durably → the batch is in this device's log → the others are told on the event bus, if it answers → the
//! outbox rows go. A record that a reader finds is therefore complete. Must: on start and after every loss of the store, the
//! own next log key is read before anything is applied or published. Must: one batch of a log is applied in one transaction
//! together with its cursor; a snapshot is applied before its cursors are set.
//! Not here: names and inodes (`state`), where bytes lie (`vfs`), chunks (`content`).

mod apply;
mod backoff;
mod batch;
mod burst;
pub mod bus;
mod core;
mod cuts;
pub mod facts;
mod feed;
pub mod files;
mod follow;
pub mod gc;
pub mod git;
pub mod healing;
mod hear;
pub mod identity;
mod link;
pub mod moves;
pub mod nats;
mod newid;
pub mod older;
mod plan;
mod publish;
pub mod registry;
mod snapshot;
pub(crate) mod tokens;

pub(crate) use self::core::blocking;
pub use self::core::{Fleet, Options, Parts};
pub use apply::CaughtUp;
pub use files::{CutSource, Files, Outcome, Resolved, Settings};
pub use follow::FollowStatus;
pub use gc::{Amount, Collected, GcOptions, Holder};
pub use hear::{Ear, Presence};
pub use identity::{Identity, Me};
pub use publish::{PublishStatus, Round};
pub use registry::Registry;

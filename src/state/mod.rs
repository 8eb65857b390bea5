//! Local state: the replica of the namespace, the outbox and what lies on this disk, in one database that one
//! process owns.

pub mod db;
pub mod journal;
mod layer;
pub mod lock;
pub mod reserve;
pub mod rows;
pub mod tree;

pub use db::{Db, Read, Scan, Tree, Txn};
pub use rows::ROOT;
pub use tree::{Change, Ctx, Ns, Replica};

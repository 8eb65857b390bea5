//! Local state: the replica of the namespace, the outbox and what lies on this disk, in one database that one
//! process owns.

pub mod db;
pub mod journal;
mod layer;
pub mod lock;
mod read;
pub mod reserve;
pub mod rows;
mod schema;
mod sqlite;
pub mod tree;
mod txn;

pub use db::Db;
pub use read::{Read, Scan};
pub use rows::ROOT;
pub use schema::{Key, Tree, prefix_end};
pub use tree::{Change, Ctx, Ns, Replica};
pub use txn::Txn;

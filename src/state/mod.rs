//! Local state: the replica of the namespace, the outbox and what lies on this disk, in one database that one
//! process owns.

mod arrive;
pub mod db;
mod inode;
pub mod journal;
mod layer;
pub mod lock;
mod namespace;
mod read;
mod reconcile;
mod replica;
pub mod reserve;
pub mod rows;
mod schema;
mod sqlite;
pub mod tree;
mod txn;

pub use arrive::Arrivals;
pub use db::Db;
pub use inode::{holds, uncut_token};
pub use namespace::{BRAKED, Ns, PARTED};
pub use read::{Read, Scan};
pub use replica::{Change, Ctx, Replica};
pub use rows::ROOT;
pub use schema::{Key, Tree, prefix_end};
pub(crate) use schema::{decode, encode};
pub use txn::Txn;

//! A transaction: rows changed in memory, with what takes the changes back and what the journal gets of them.
//!
//! Must: what is recorded by hand has the form that a replay reads.
//! Not here: appending the record and taking back a failed transaction (`db`).

use super::layer::Value;
use super::read::Read;
use super::schema::{Key, Tree, encode};
use super::sqlite::put_row;
use crate::error::{Error, Kind, Result};
use rusqlite::Connection;
use serde::{Deserialize, Serialize};

/// A change as the journal has it; written by [`Txn`] byte by byte.
#[derive(Serialize, Deserialize)]
pub(super) struct Op {
    pub(super) tree: u8,
    pub(super) key: Key,
    pub(super) value: Option<Vec<u8>>,
}

/// Does to SQLite what the journal has.
pub(super) fn apply(conn: &Connection, op: &Op) -> Result<()> {
    let tree = Tree::of(op.tree).ok_or_else(|| Error::new(Kind::Corrupt, format!("the journal names an unknown tree {}", op.tree)))?;
    put_row(conn, tree, &op.key, op.value.as_deref())
}

/// Reading and changing rows inside one transaction.
pub struct Txn<'a> {
    pub(super) read: Read<'a>,
    /// What the changed rows were before, in order.
    pub(super) undo: Vec<(Tree, Key, Option<Value>)>,
    /// The changes as the journal has them ([`Op`] in postcard's form), without their number.
    pub(super) record: Vec<u8>,
    /// What else is taken back if it fails.
    pub(super) taken_back: Vec<Box<dyn FnOnce()>>,
}

impl<'a> std::ops::Deref for Txn<'a> {
    type Target = Read<'a>;
    fn deref(&self) -> &Read<'a> {
        &self.read
    }
}

impl Txn<'_> {
    /// Has `undo` run if the transaction fails, before anybody else sees the rows: for what is kept in memory beside them.
    pub fn on_failure(&mut self, undo: impl FnOnce() + 'static) {
        self.taken_back.push(Box::new(undo));
    }

    /// Writes a row.
    pub fn put<T: Serialize>(&mut self, tree: Tree, key: impl Into<Key>, row: &T) -> Result<()> {
        self.change(tree, key.into(), Some(encode(row)?.into_boxed_slice()));
        Ok(())
    }

    /// Removes a row; no error if it is not there.
    pub fn del(&mut self, tree: Tree, key: impl Into<Key>) -> Result<()> {
        self.change(tree, key.into(), None);
        Ok(())
    }

    pub(super) fn change(&mut self, tree: Tree, key: Key, value: Value) {
        let r = &mut self.record;
        r.push(tree as u8);
        match &key {
            Key::Int(k) => {
                r.push(0);
                varint(r, *k);
            }
            Key::Bytes(k) => {
                r.push(1);
                varint(r, k.len() as u64);
                r.extend_from_slice(k);
            }
        }
        r.push(u8::from(value.is_some()));
        if let Some(v) = &value {
            varint(r, v.len() as u64);
            r.extend_from_slice(v);
        }
        let old = self.read.fresh.borrow_mut().put(tree, key.clone(), value);
        self.undo.push((tree, key, old));
    }
}

/// A number as postcard writes it: seven bits a byte, lowest first.
pub(super) fn varint(out: &mut Vec<u8>, mut n: u64) {
    while n > 0x7f {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

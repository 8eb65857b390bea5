//! Rows in memory: what was changed since SQLite last committed.
//!
//! A row in here hides the one below; a removed row is one without a value.
//! Not here: when they go to SQLite (`db`).

use super::schema::{Key, TREES, Tree};
use std::collections::BTreeMap;
use std::collections::btree_map::Range;
use std::ops::Bound;

/// What a row is worth here: bytes, or none where it was removed.
pub(super) type Value = Option<Box<[u8]>>;

/// Changed rows, by tree.
#[derive(Default)]
pub(super) struct Layer {
    trees: [BTreeMap<Key, Value>; TREES.len()],
    bytes: usize,
}

/// What a row takes besides its bytes, about.
const ROW: usize = 96;

fn size(value: &Value) -> usize {
    ROW + value.as_ref().map_or(0, |v| v.len())
}

impl Layer {
    /// The row, if it is in here.
    pub(super) fn get(&self, tree: Tree, key: &Key) -> Option<&Value> {
        self.trees[tree as usize].get(key)
    }

    /// Puts a row in; what was in here in its place.
    pub(super) fn put(&mut self, tree: Tree, key: Key, value: Value) -> Option<Value> {
        self.bytes += size(&value);
        let old = self.trees[tree as usize].insert(key, value);
        self.bytes -= old.as_ref().map_or(0, size);
        old
    }

    /// Takes a [`Layer::put`] back.
    pub(super) fn restore(&mut self, tree: Tree, key: Key, old: Option<Value>) {
        let rows = &mut self.trees[tree as usize];
        self.bytes += old.as_ref().map_or(0, size);
        let now = match old {
            Some(v) => rows.insert(key, v),
            None => rows.remove(&key),
        };
        self.bytes -= now.as_ref().map_or(0, size);
    }

    /// Rows of a tree within bounds, in order.
    pub(super) fn range<'a>(&'a self, tree: Tree, from: Bound<&Key>, to: Bound<&Key>) -> Range<'a, Key, Value> {
        self.trees[tree as usize].range((from, to))
    }

    /// All rows.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Tree, &Key, &Value)> {
        TREES.iter().zip(&self.trees).flat_map(|(t, rows)| rows.iter().map(move |(k, v)| (*t, k, v)))
    }

    /// Whether nothing is in here.
    pub(super) fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Memory that the rows take, about.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

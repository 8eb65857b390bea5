//! Reading rows: those in memory first, then those in SQLite, as one ordered tree.
//!
//! Must: a row in memory hides the one below, a removed one too; the newer of two layers hides the older.
//! Not here: how rows change (`txn`) and move from one layer to the next (`db`).

use super::layer::{Layer, Value};
use super::schema::{Key, Tree, decode};
use super::sqlite::{COUNT, GET, SCAN, SCAN_DOWN, SCAN_INCL, sql};
use crate::error::{Error, Kind, Result};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, params};
use serde::de::DeserializeOwned;
use std::cell::RefCell;
use std::cmp::Ordering;
use std::iter::Peekable;
use std::ops::Bound;

/// Reading rows.
pub struct Read<'a> {
    pub(super) conn: &'a Connection,
    pub(super) fresh: &'a RefCell<Layer>,
    pub(super) frozen: Option<&'a Layer>,
}

impl Read<'_> {
    /// One row.
    pub fn get<T: DeserializeOwned>(&self, tree: Tree, key: impl Into<Key>) -> Result<Option<T>> {
        let key = key.into();
        let fresh = self.fresh.borrow();
        if let Some(row) = fresh.get(tree, &key).or_else(|| self.frozen.and_then(|f| f.get(tree, &key))) {
            return row.as_deref().map(|v| decode(tree, v)).transpose();
        }
        self.lower(tree, &key, |v| decode(tree, v))
    }

    /// One row as SQLite has it.
    fn lower<T>(&self, tree: Tree, key: &Key, read: impl FnOnce(&[u8]) -> Result<T>) -> Result<Option<T>> {
        let mut st = self.conn.prepare_cached(GET[tree as usize]).map_err(|e| sql("preparing", e))?;
        let mut rows = match key {
            Key::Int(k) => st.query(params![*k as i64]),
            Key::Bytes(k) => st.query(params![k]),
        }
        .map_err(|e| sql("reading", e))?;
        match rows.next().map_err(|e| sql("reading", e))? {
            Some(r) => {
                let v = r.get_ref(0).and_then(|v| Ok(v.as_blob()?)).map_err(|e| sql("reading", e))?;
                read(v).map(Some)
            }
            None => Ok(None),
        }
    }

    /// Rows with byte keys in `from..to` (or `from` excluded), in order (or the reverse), at most `limit`.
    pub fn scan<T: DeserializeOwned>(
        &self,
        tree: Tree,
        range: Scan<'_>,
        limit: usize,
        mut each: impl FnMut(&[u8], T) -> Result<()>,
    ) -> Result<()> {
        let (text, from, to, down) = match range {
            Scan::After(from, to) => (SCAN[tree as usize], Bound::Excluded(from), to, false),
            Scan::From(from, to) => (SCAN_INCL[tree as usize], Bound::Included(from), to, false),
            Scan::Down(from, to) => (SCAN_DOWN[tree as usize], Bound::Included(from), to, true),
        };
        let span = (from.map(|k| Key::from(k.to_vec())), Key::from(to.to_vec()));
        self.merged(tree, text, &span, down, limit, |k, v| match k {
            ValueRef::Blob(k) => each(k, decode(tree, v)?),
            _ => Err(Error::new(Kind::Corrupt, format!("a key of the local database ({}) is not of bytes", tree.name()))),
        })
    }

    /// Rows with integer keys in `from..to`, in order, at most `limit`.
    pub fn scan_int<T: DeserializeOwned>(&self, tree: Tree, from: u64, to: u64, limit: usize) -> Result<Vec<(u64, T)>> {
        let mut out = Vec::new();
        let span = (Bound::Included(Key::from(from)), Key::from(to));
        self.merged(tree, SCAN_INCL[tree as usize], &span, false, limit, |k, v| match k {
            ValueRef::Integer(k) => {
                out.push((k as u64, decode(tree, v)?));
                Ok(())
            }
            _ => Err(Error::new(Kind::Corrupt, format!("a key of the local database ({}) is not a number", tree.name()))),
        })?;
        Ok(out)
    }

    /// Rows of SQLite within `span` under those in memory, in order (or the reverse), at most `limit`.
    fn merged(
        &self,
        tree: Tree,
        text: &str,
        span: &(Bound<Key>, Key),
        down: bool,
        limit: usize,
        mut each: impl FnMut(ValueRef<'_>, &[u8]) -> Result<()>,
    ) -> Result<()> {
        let (from, to) = (span.0.as_ref(), &span.1);
        let (Bound::Included(first) | Bound::Excluded(first)) = from else { return Ok(()) };
        if first >= to || limit == 0 {
            return Ok(());
        }
        let fresh = self.fresh.borrow();
        let memory = Memory::new(&fresh, self.frozen, tree, from, Bound::Excluded(to), down);
        let mut memory = memory.peekable();
        // With nothing in memory SQLite knows where to stop.
        let asked = if memory.peek().is_some() { -1 } else { limit as i64 };
        let mut st = self.conn.prepare_cached(text).map_err(|e| sql("preparing", e))?;
        let mut rows = match (first, to) {
            (Key::Int(a), Key::Int(b)) => st.query(params![*a as i64, i64::try_from(*b).unwrap_or(i64::MAX), asked]),
            (Key::Bytes(a), Key::Bytes(b)) => st.query(params![a, b, asked]),
            _ => return Err(Error::new(Kind::Internal, "a scan between keys of two kinds")),
        }
        .map_err(|e| sql("scanning", e))?;
        let mut left = limit;
        let mut row = rows.next().map_err(|e| sql("scanning", e))?;
        while left > 0 {
            let key = row.map(|r| r.get_ref(0)).transpose().map_err(|e| sql("scanning", e))?;
            let order = match (&key, memory.peek()) {
                (None, None) => return Ok(()),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(k), Some((m, _))) if down => compare(*k, m).reverse(),
                (Some(k), Some((m, _))) => compare(*k, m),
            };
            if order != Ordering::Less {
                if let Some((k, Some(v))) = memory.next() {
                    left -= 1;
                    match k {
                        Key::Int(k) => each(ValueRef::Integer(*k as i64), v)?,
                        Key::Bytes(k) => each(ValueRef::Blob(k), v)?,
                    }
                }
            } else if let (Some(r), Some(k)) = (row, key) {
                left -= 1;
                each(k, r.get_ref(1).and_then(|v| Ok(v.as_blob()?)).map_err(|e| sql("scanning", e))?)?;
            }
            if order != Ordering::Greater && left > 0 {
                row = rows.next().map_err(|e| sql("scanning", e))?;
            }
        }
        Ok(())
    }

    /// Number of rows (a full scan: not for hot paths).
    pub fn count(&self, tree: Tree) -> Result<u64> {
        let mut st = self.conn.prepare_cached(COUNT[tree as usize]).map_err(|e| sql("preparing", e))?;
        let mut n = st.query_row([], |r| r.get::<_, i64>(0)).map_err(|e| sql("counting", e))?;
        let fresh = self.fresh.borrow();
        for (key, value) in Memory::new(&fresh, self.frozen, tree, Bound::Unbounded, Bound::Unbounded, false) {
            let below = self.lower(tree, key, |_| Ok(()))?.is_some();
            n += i64::from(value.is_some()) - i64::from(below);
        }
        Ok(n as u64)
    }
}

/// How a key in SQLite stands to one in memory.
fn compare(a: ValueRef<'_>, b: &Key) -> Ordering {
    match (a, b) {
        (ValueRef::Integer(a), Key::Int(b)) => (a as u64).cmp(b),
        (ValueRef::Blob(a), Key::Bytes(b)) => a.cmp(b),
        // Cannot be: a tree has keys of one kind.
        _ => Ordering::Less,
    }
}

/// Rows in memory, in order (or the reverse), removed ones included.
struct Memory<'a> {
    fresh: Peekable<Box<dyn Iterator<Item = (&'a Key, &'a Value)> + 'a>>,
    frozen: Peekable<Box<dyn Iterator<Item = (&'a Key, &'a Value)> + 'a>>,
    down: bool,
}

impl<'a> Memory<'a> {
    fn new(fresh: &'a Layer, frozen: Option<&'a Layer>, tree: Tree, from: Bound<&Key>, to: Bound<&Key>, down: bool) -> Memory<'a> {
        let rows = |layer: &'a Layer| -> Box<dyn Iterator<Item = (&'a Key, &'a Value)> + 'a> {
            let range = layer.range(tree, from, to);
            if down { Box::new(range.rev()) } else { Box::new(range) }
        };
        let frozen = frozen.map_or_else(|| Box::new(std::iter::empty()) as Box<dyn Iterator<Item = _>>, rows);
        Memory { fresh: rows(fresh).peekable(), frozen: frozen.peekable(), down }
    }
}

impl<'a> Iterator for Memory<'a> {
    type Item = (&'a Key, &'a Value);

    fn next(&mut self) -> Option<Self::Item> {
        let order = match (self.fresh.peek(), self.frozen.peek()) {
            (Some((a, _)), Some((b, _))) if self.down => b.cmp(a),
            (Some((a, _)), Some((b, _))) => a.cmp(b),
            (Some(_), None) => Ordering::Less,
            (None, _) => Ordering::Greater,
        };
        match order {
            Ordering::Greater => self.frozen.next(),
            Ordering::Less => self.fresh.next(),
            Ordering::Equal => {
                self.frozen.next();
                self.fresh.next()
            }
        }
    }
}

/// Which byte keys a scan visits.
#[derive(Clone, Copy, Debug)]
pub enum Scan<'a> {
    /// `from < k < to`.
    After(&'a [u8], &'a [u8]),
    /// `from <= k < to`.
    From(&'a [u8], &'a [u8]),
    /// `from <= k < to`, highest first.
    Down(&'a [u8], &'a [u8]),
}

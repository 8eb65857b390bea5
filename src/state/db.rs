//! The local database: ordered trees of rows in SQLite behind the append journal.
//!
//! A transaction here changes rows in memory and appends one journal record; it costs some microseconds. Every now and
//! then the changed rows go to SQLite in one transaction (not synced), together with the lsn they stand for; what it had
//! not committed at a crash is replayed from the journal. `sync` makes everything before it durable by syncing the journal
//! alone. A read looks into the rows in memory first, then into SQLite.
//!
//! Must: rows and their journal record change together or not at all, also when the disk is full.
//! Must: nothing is told to anybody as durable before `sync` returned.
//! Must: rows leave the memory only when SQLite has committed them.
//! Lock order: `committing` → `inner`. The second is a leaf; no callback runs under it except `Db::write`/`read` bodies,
//! which must not block on anything but this database. A commit takes it for some rows at a time.
//! Not here: the file itself (`sqlite`), reading (`read`), the body of a transaction (`txn`), what the rows mean (`rows`).

pub use super::schema::prefix_end;

use super::journal::Journal;
use super::layer::{Layer, Value};
use super::read::Read;
use super::reserve::Reserve;
use super::schema::{Key, SCHEMA, TREES, Tree, decode};
use super::sqlite::{GET, LSN, commit_at, end, open_connection, put_row, rest, sql};
use super::txn::{Op, Txn, apply, varint};
use crate::error::{Error, Kind, Result};
use parking_lot::Mutex;
use rusqlite::{Connection, OptionalExtension, params};
use std::cell::RefCell;
use std::iter::Peekable;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Name of the database in the state directory.
pub const FILE: &str = "state.db";

/// Changed rows on their way to SQLite, and the lsn up to which they stand for the journal.
struct Frozen {
    rows: Layer,
    lsn: u64,
}

struct Inner {
    conn: Connection,
    journal: Journal,
    /// lsn that the last SQLite commit covers.
    committed: u64,
    /// Rows changed since `frozen`. Borrowed by the one body that runs.
    fresh: RefCell<Layer>,
    frozen: Option<Arc<Frozen>>,
    /// Memory for journal records.
    record: Vec<u8>,
}

/// The open database. One process owns it (`state::lock`); others may read through SQLite what was committed.
pub struct Db {
    inner: Mutex<Inner>,
    /// Held by whoever moves rows to SQLite.
    committing: Mutex<()>,
    path: PathBuf,
    reserve: Reserve,
    /// A sync of the journal failed: the kernel takes its pages for written, and a second try that succeeds says nothing.
    unsure: AtomicBool,
    /// How a file is synced (tests have disks that fail).
    sync_data: fn(&std::fs::File) -> std::io::Result<()>,
}

/// Attempts to bring everything into SQLite while others write on.
const CATCHING_UP: usize = 10;

/// Memory for journal records that is kept from one transaction to the next.
const RECORD_KEPT: usize = 256 << 10;
/// Rows that a commit moves before it lets others read and write.
const SLICE: usize = 128;
/// Changed rows beyond this many bytes are committed by whoever changed the last one.
const FRESH_MAX: usize = 48 << 20;

impl Db {
    /// Opens or creates the database `<dir>/state.db` with its journal `<dir>/journal`, replaying what a crash left.
    pub fn open(dir: &Path) -> Result<Db> {
        std::fs::create_dir_all(dir).map_err(|e| Error::io(format!("creating the state directory {}", dir.display()), e))?;
        let reserve = Reserve::found(dir);
        loop {
            match Db::open_in(dir) {
                Err(e) if e.kind() == Kind::NoSpace && reserve.give_up() => {}
                Err(e) => return Err(e),
                Ok((inner, path)) => {
                    return Ok(Db {
                        inner: Mutex::new(inner),
                        committing: Mutex::new(()),
                        path,
                        reserve,
                        unsure: AtomicBool::new(false),
                        sync_data: std::fs::File::sync_data,
                    });
                }
            }
        }
    }

    fn open_in(dir: &Path) -> Result<(Inner, PathBuf)> {
        let path = dir.join(FILE);
        let conn = open_connection(&path)?;
        let found: u32 = conn.query_row("PRAGMA user_version", [], |r| r.get(0)).map_err(|e| sql("reading its version", e))?;
        if found > SCHEMA {
            return Err(Error::new(
                Kind::Unsupported,
                format!("the state in {} has layout {found}, this tcfs knows up to {SCHEMA}", dir.display()),
            )
            .hint("it was written by a newer tcfs: use that one, or another --state-dir"));
        }
        // A tree that is only added does not make another layout.
        let mut text = String::from("BEGIN;");
        for t in TREES {
            let (ty, without) = if t.by_int() { ("INTEGER", "") } else { ("BLOB", " WITHOUT ROWID") };
            text += &format!("CREATE TABLE IF NOT EXISTS \"{}\" (k {ty} PRIMARY KEY, v BLOB NOT NULL){without};", t.name());
        }
        text += &format!("PRAGMA user_version={SCHEMA}; COMMIT;");
        conn.execute_batch(&text).map_err(|e| sql("creating its tables", e))?;
        let journal = replay(&conn, dir)?;
        rest(&conn)?;
        let committed = journal.last();
        let inner = Inner { conn, journal, committed, fresh: RefCell::default(), frozen: None, record: Vec::new() };
        // After a power cut SQLite may have come further than the journal: what it has is acted on from here, and what
        // the journal gets from here goes on from there.
        sync_wal(&path, std::fs::File::sync_data)?;
        Ok((inner, path))
    }

    /// Space is kept back for this database from now on (`Reserve`).
    pub fn keep_reserve(&self, bytes: u64) -> Result<()> {
        self.reserve.keep(bytes)
    }

    /// Whether the disk is so full that the reserve is in use: nothing new should be taken. Cheap.
    pub fn is_low(&self) -> bool {
        self.reserve.is_low()
    }

    /// Runs `body` with the rows as they are now. Must not block on anything else.
    pub fn read<T>(&self, body: impl FnOnce(&Read<'_>) -> Result<T>) -> Result<T> {
        let inner = self.inner.lock();
        body(&inner.reading())
    }

    /// Runs `body` with the rows as they are now, on a connection of its own: it may take its time, nobody waits for it,
    /// and it sees nothing of what changes meanwhile. The write-ahead file grows until it ends.
    pub fn read_beside<T>(&self, body: impl FnOnce(&Read<'_>) -> Result<T>) -> Result<T> {
        // What SQLite has is at all times the state after some transaction.
        self.commit()?;
        let conn = open_connection(&self.path)?;
        rest(&conn)?;
        body(&Read { conn: &conn, fresh: &RefCell::default(), frozen: None })
    }

    /// Runs `body` as one transaction: all of its changes happen, or (on error) none.
    pub fn write<T>(&self, body: impl FnOnce(&mut Txn<'_>) -> Result<T>) -> Result<T> {
        let mut inner = self.inner.lock();
        let mut record = std::mem::take(&mut inner.record);
        record.clear();
        let mut txn = Txn { read: inner.reading(), undo: Vec::new(), record, taken_back: Vec::new() };
        let out = body(&mut txn);
        let Txn { undo, mut record, taken_back, .. } = txn;
        let Inner { journal, fresh, .. } = &mut *inner;
        let done = out.and_then(|v| {
            if !undo.is_empty() {
                let mut count = Vec::with_capacity(5);
                varint(&mut count, undo.len() as u64);
                self.with_reserve(|| journal.append(&[&count, &record]).map(drop))?;
            }
            Ok(v)
        });
        if done.is_err() {
            for (tree, key, old) in undo.into_iter().rev() {
                fresh.get_mut().restore(tree, key, old);
            }
            taken_back.into_iter().rev().for_each(|f| f());
        }
        let full = fresh.get_mut().bytes() > FRESH_MAX;
        record.shrink_to(RECORD_KEPT);
        inner.record = record;
        drop(inner);
        if full && done.is_ok() {
            // The rows are in the journal whatever becomes of this.
            self.commit().unwrap_or_else(|e| tracing::error!(error = %e, "committing the local state; it is tried again"));
        }
        done
    }

    /// Makes every transaction that has returned durable. Blocking; holds no lock while syncing.
    pub fn sync(&self) -> Result<()> {
        if self.unsure.load(Ordering::SeqCst) {
            return self.sync_by_sqlite();
        }
        let (path, handle) = {
            let inner = self.inner.lock();
            (inner.journal.path(), inner.journal.handle())
        };
        // A descriptor of our own: the kernel tells each one once that a write failed.
        let own = std::fs::File::open(path);
        if let Err(e) = (self.sync_data)(own.as_ref().unwrap_or(&handle)) {
            self.unsure.store(true, Ordering::SeqCst);
            return Err(Error::io("syncing the journal of the local state", e));
        }
        if self.unsure.load(Ordering::SeqCst) { self.sync_by_sqlite() } else { Ok(()) }
    }

    /// After a sync of the journal that failed: makes SQLite durable beyond the journal's last record, and begins the
    /// journal anew. Until that was done nothing counts as durable.
    fn sync_by_sqlite(&self) -> Result<()> {
        for _ in 0..CATCHING_UP {
            self.commit()?;
            let mut inner = self.inner.lock();
            if !self.unsure.load(Ordering::SeqCst) {
                return Ok(());
            }
            if inner.committed == inner.journal.last() {
                sync_wal(&self.path, self.sync_data)?;
                self.with_reserve(|| inner.journal.abandon())?;
                self.unsure.store(false, Ordering::SeqCst);
                tracing::warn!("the disk failed to take the journal of the local state; it goes on in a new one");
                return Ok(());
            }
        }
        Err(Error::new(Kind::Busy, "syncing the local state after the disk failed: too much is being written"))
    }

    /// Commits to SQLite so that other processes see it and the next start replays little. Does not sync.
    pub fn commit(&self) -> Result<()> {
        let _one = self.committing.lock();
        // What an earlier commit could not finish goes first.
        let left = self.inner.lock().frozen.clone();
        if let Some(f) = left {
            self.with_reserve(|| self.move_to_sqlite(&f))?;
        }
        let next = self.inner.lock().freeze();
        if let Some(f) = next {
            self.with_reserve(|| self.move_to_sqlite(&f))?;
        }
        let full = {
            let inner = self.inner.lock();
            // One that the disk may not have taken is not closed as if it were whole.
            (inner.journal.is_full() && !self.unsure.load(Ordering::SeqCst)).then(|| inner.journal.handle())
        };
        if let Some(segment) = full {
            // Most of it here, where nobody waits; what comes meanwhile under the lock.
            let synced = (self.sync_data)(&segment).map_err(|e| Error::io("syncing the journal of the local state", e));
            let mut inner = self.inner.lock();
            let done = synced.and_then(|()| self.with_reserve(|| inner.journal.rotate()));
            if done.as_ref().is_err_and(|e| e.kind() != Kind::NoSpace) {
                self.unsure.store(true, Ordering::SeqCst);
            }
            done?;
        }
        Ok(())
    }

    /// Puts rows into SQLite as one transaction; they hide what SQLite has until it has committed. A failure leaves
    /// SQLite as it was and the rows where they are.
    fn move_to_sqlite(&self, frozen: &Frozen) -> Result<()> {
        let mut rows = frozen.rows.iter().peekable();
        {
            let inner = self.inner.lock();
            end(&inner.conn)?;
            if let Err(e) = inner.conn.execute_batch("BEGIN IMMEDIATE") {
                rest(&inner.conn)?;
                return Err(sql("beginning", e));
            }
        }
        loop {
            let mut inner = self.inner.lock();
            let done = inner.move_some(&mut rows, frozen.lsn);
            match done {
                Ok(false) => {}
                Ok(true) => {
                    inner.frozen = None;
                    inner.committed = frozen.lsn;
                    return rest(&inner.conn);
                }
                Err(e) => {
                    end(&inner.conn)?;
                    rest(&inner.conn)?;
                    return Err(e);
                }
            }
            parking_lot::MutexGuard::unlock_fair(inner);
        }
    }

    /// Does something that writes; on a full disk again, each time with a piece of the reserve.
    fn with_reserve(&self, mut write: impl FnMut() -> Result<()>) -> Result<()> {
        loop {
            match write() {
                Err(e) if e.kind() == Kind::NoSpace && self.reserve.give_up() => {}
                done => return done,
            }
        }
    }

    /// Moves committed rows from the write-ahead file into the database file and drops journal segments that are
    /// no longer needed. Blocking, on a connection of its own, without the lock while it syncs.
    pub fn checkpoint(&self) -> Result<()> {
        let reached = self.inner.lock().committed;
        let conn = open_connection(&self.path)?;
        let (mut busy, mut log, mut done) = (0i64, 0i64, 0i64);
        self.with_reserve(|| {
            (busy, log, done) = conn
                .query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?)))
                .map_err(|e| sql("checkpointing", e))?;
            Ok(())
        })?;
        if busy == 0 && log == done {
            self.inner.lock().journal.prune(reached);
        }
        self.reserve.refill()
    }

    /// Bytes of the write-ahead file.
    pub fn wal_bytes(&self) -> u64 {
        std::fs::metadata(wal_of(&self.path)).map_or(0, |m| m.len())
    }

    /// SQLite's own check of its file; the problems found.
    pub fn integrity(&self) -> Result<Vec<String>> {
        let conn = open_connection(&self.path)?;
        let mut st = conn.prepare("PRAGMA integrity_check(20)").map_err(|e| sql("checking", e))?;
        let rows = st.query_map([], |r| r.get::<_, String>(0)).map_err(|e| sql("checking", e))?;
        let all: Vec<String> = rows.collect::<std::result::Result<_, _>>().map_err(|e| sql("checking", e))?;
        Ok(all.into_iter().filter(|r| r != "ok").collect())
    }

    /// Commits, syncs and checkpoints, for a graceful stop.
    pub fn close(&self) -> Result<()> {
        self.commit()?;
        self.sync()?;
        self.checkpoint()
    }
}

/// The write-ahead file of a database.
fn wal_of(path: &Path) -> PathBuf {
    let mut p = path.to_owned().into_os_string();
    p.push("-wal");
    p.into()
}

/// Makes the write-ahead file of a database durable, if it is there.
fn sync_wal(path: &Path, sync_data: fn(&std::fs::File) -> std::io::Result<()>) -> Result<()> {
    let p = wal_of(path);
    match std::fs::File::open(&p) {
        Ok(f) => sync_data(&f).map_err(|e| Error::io(format!("syncing {}", p.display()), e)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(Error::io(format!("opening {}", p.display()), e)),
    }
}

/// Puts into SQLite what the journal has beyond its last commit.
fn replay(conn: &Connection, dir: &Path) -> Result<Journal> {
    let applied: Option<Vec<u8>> = conn
        .query_row(GET[Tree::Meta as usize], params![LSN.as_bytes()], |r| r.get(0))
        .optional()
        .map_err(|e| sql("reading the lsn", e))?;
    let applied: u64 = applied.map(|b| decode(Tree::Meta, &b)).transpose()?.unwrap_or(0);
    conn.execute_batch("BEGIN IMMEDIATE").map_err(|e| sql("beginning", e))?;
    let opened = Journal::open(&dir.join("journal"), applied, |_, payload| {
        let ops: Vec<Op> = decode(Tree::Meta, payload)?;
        ops.iter().try_for_each(|op| apply(conn, op))
    });
    let done = opened.and_then(|j| commit_at(conn, j.last()).map(|()| j));
    if done.is_err() {
        let _ = end(conn);
    }
    done
}

impl Inner {
    fn reading(&self) -> Read<'_> {
        Read { conn: &self.conn, fresh: &self.fresh, frozen: self.frozen.as_ref().map(|f| &f.rows) }
    }

    /// Sets the changed rows aside for SQLite; none if there are none.
    fn freeze(&mut self) -> Option<Arc<Frozen>> {
        if self.fresh.get_mut().is_empty() {
            return None;
        }
        let frozen = Arc::new(Frozen { rows: self.fresh.take(), lsn: self.journal.last() });
        self.frozen = Some(frozen.clone());
        Some(frozen)
    }

    /// Moves some rows within SQLite's open transaction; true once all are there and committed.
    fn move_some<'a>(&mut self, rows: &mut Peekable<impl Iterator<Item = (Tree, &'a Key, &'a Value)>>, lsn: u64) -> Result<bool> {
        if self.conn.is_autocommit() {
            // The mark would be written on its own, and what it speaks for never replayed.
            return Err(Error::new(Kind::Io, "the local database: committing: SQLite had given the transaction up"));
        }
        for (tree, key, value) in rows.by_ref().take(SLICE) {
            put_row(&self.conn, tree, key, value.as_deref())?;
        }
        if rows.peek().is_some() {
            return Ok(false);
        }
        commit_at(&self.conn, lsn)?;
        Ok(true)
    }
}

#[cfg(test)]
mod tests;

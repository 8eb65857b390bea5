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
//! Not here: what the rows mean (`rows`).

use super::journal::Journal;
use super::layer::{Layer, Value};
use super::reserve::Reserve;
use crate::error::{Error, Kind, Result};
use parking_lot::Mutex;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OpenFlags, OptionalExtension, params};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::cell::RefCell;
use std::cmp::Ordering;
use std::iter::Peekable;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Layout number of the database; an older one is migrated, a newer one refused.
pub const SCHEMA: u32 = 1;

/// Name of the database in the state directory.
pub const FILE: &str = "state.db";

/// The trees. Integer keys are stored as SQLite row ids, the others as order-preserving bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Tree {
    /// Text key → small facts (counters, identities).
    Meta = 0,
    /// Inode number → `rows::Inode`.
    Inode = 1,
    /// (directory, name hash, name) → `rows::Entry`.
    Entry = 2,
    /// Inode number → `rows::Local`: bytes on this disk.
    Local = 3,
    /// (chunk hash, inode, offset) → length: which local file has a chunk.
    Chunk = 4,
    /// Inode number → chunk list of the version it shows, where that is too long for the version itself.
    ChunkList = 5,
    /// Sequence → `rows::Sealed`: versions not yet published.
    Outbox = 6,
    /// Sequence → `rows::Batch`: log batches whose bytes are fixed.
    Batch = 7,
    /// Device id → `rows::Cursor`.
    Cursor = 8,
    /// (path, 0, counter) → a version that others have covered.
    History = 9,
    /// Path → pinned.
    Pin = 10,
    /// (device id, sequence, line) → a record of a format this program does not know.
    Parked = 11,
    /// Move id → `rows::DirMove` still to be expanded.
    Move = 12,
    /// Device id → what is known of it.
    Device = 13,
    /// Inode number: lost its last name, bytes still to be removed.
    Orphan = 14,
    /// Inode number: changed since its last seal; what is here after a crash is sealed as it lies.
    Unsealed = 15,
    /// (directory, name hash, name), as in `Entry` → a register with more than one visible head.
    Conflict = 16,
    /// Path → clock of what `push` or `pull` last had of it.
    Seen = 17,
}

pub(super) const TREES: [Tree; 18] = [
    Tree::Meta,
    Tree::Inode,
    Tree::Entry,
    Tree::Local,
    Tree::Chunk,
    Tree::ChunkList,
    Tree::Outbox,
    Tree::Batch,
    Tree::Cursor,
    Tree::History,
    Tree::Pin,
    Tree::Parked,
    Tree::Move,
    Tree::Device,
    Tree::Orphan,
    Tree::Unsealed,
    Tree::Conflict,
    Tree::Seen,
];

impl Tree {
    fn name(self) -> &'static str {
        match self {
            Tree::Meta => "meta",
            Tree::Inode => "inode",
            Tree::Entry => "entry",
            Tree::Local => "local",
            Tree::Chunk => "chunk",
            Tree::ChunkList => "chunk_list",
            Tree::Outbox => "outbox",
            Tree::Batch => "batch",
            Tree::Cursor => "cursor",
            Tree::History => "history",
            Tree::Pin => "pin",
            Tree::Parked => "parked",
            Tree::Move => "move",
            Tree::Device => "device",
            Tree::Orphan => "orphan",
            Tree::Unsealed => "unsealed",
            Tree::Conflict => "conflict",
            Tree::Seen => "seen",
        }
    }
    fn by_int(self) -> bool {
        use Tree::*;
        matches!(self, Inode | Local | ChunkList | Outbox | Batch | Move | Orphan | Unsealed)
    }
    fn of(n: u8) -> Option<Tree> {
        TREES.get(n as usize).copied()
    }
}

/// A row key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Key {
    /// For trees keyed by integer.
    Int(u64),
    /// For the others.
    Bytes(Vec<u8>),
}

impl From<u64> for Key {
    fn from(n: u64) -> Key {
        Key::Int(n)
    }
}
impl From<Vec<u8>> for Key {
    fn from(b: Vec<u8>) -> Key {
        Key::Bytes(b)
    }
}
impl From<&str> for Key {
    fn from(s: &str) -> Key {
        Key::Bytes(s.as_bytes().to_vec())
    }
}

/// A change as the journal has it; written by [`Txn`] byte by byte.
#[derive(Serialize, Deserialize)]
struct Op {
    tree: u8,
    key: Key,
    value: Option<Vec<u8>>,
}

fn sql(doing: &str, e: rusqlite::Error) -> Error {
    let kind = match e.sqlite_error_code() {
        Some(rusqlite::ErrorCode::DiskFull) => Kind::NoSpace,
        // The index of the write-ahead file could not grow.
        _ if e.sqlite_error().is_some_and(|e| e.extended_code == rusqlite::ffi::SQLITE_IOERR_SHMSIZE) => Kind::NoSpace,
        Some(rusqlite::ErrorCode::DatabaseCorrupt) | Some(rusqlite::ErrorCode::NotADatabase) => Kind::Corrupt,
        Some(rusqlite::ErrorCode::ReadOnly) => Kind::ReadOnly,
        _ => Kind::Io,
    };
    Error::new(kind, format!("the local database: {doing}")).source(e)
}

/// Encodes a row.
pub fn encode<T: Serialize>(row: &T) -> Result<Vec<u8>> {
    postcard::to_stdvec(row).map_err(|e| Error::new(Kind::Internal, "encoding a row of the local database").source(e))
}

/// Decodes a row.
pub fn decode<T: DeserializeOwned>(tree: Tree, bytes: &[u8]) -> Result<T> {
    postcard::from_bytes(bytes).map_err(|e| {
        Error::new(Kind::Corrupt, format!("a row of the local database ({}) cannot be read", tree.name()))
            .hint("`tcfs doctor` checks the state; the store has everything that was published")
            .source(e)
    })
}

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
}

/// Rows that a commit moves before it lets others read and write.
const SLICE: usize = 128;
/// Changed rows beyond this many bytes are committed by whoever changed the last one.
const FRESH_MAX: usize = 48 << 20;

const LSN: &str = "lsn";

fn open_connection(path: &Path) -> Result<Connection> {
    let conn = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )
    .map_err(|e| sql(&format!("opening {}", path.display()), e))?;
    // NORMAL: a commit is atomic but not synced; the journal is what durability rests on. Nothing is spilled before a
    // commit, so that a full disk can only fail the commit, which is tried again, never the body of a transaction.
    conn.execute_batch(
        "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; PRAGMA wal_autocheckpoint=0; PRAGMA cache_size=-32768; PRAGMA cache_spill=OFF;
         PRAGMA temp_store=MEMORY; PRAGMA mmap_size=0;",
    )
    .map_err(|e| sql("setting up", e))?;
    conn.set_prepared_statement_cache_capacity(128);
    Ok(conn)
}

fn apply(conn: &Connection, op: &Op) -> Result<()> {
    let tree = Tree::of(op.tree).ok_or_else(|| Error::new(Kind::Corrupt, format!("the journal names an unknown tree {}", op.tree)))?;
    put_row(conn, tree, &op.key, op.value.as_deref())
}

fn put_row(conn: &Connection, tree: Tree, key: &Key, value: Option<&[u8]>) -> Result<()> {
    let text = match value {
        Some(_) => UPSERT[tree as usize],
        None => DELETE[tree as usize],
    };
    let mut st = conn.prepare_cached(text).map_err(|e| sql("preparing", e))?;
    let done = match (key, value) {
        (Key::Int(k), Some(v)) => st.execute(params![*k as i64, v]),
        (Key::Bytes(k), Some(v)) => st.execute(params![k, v]),
        (Key::Int(k), None) => st.execute(params![*k as i64]),
        (Key::Bytes(k), None) => st.execute(params![k]),
    };
    done.map(|_| ()).map_err(|e| sql(&format!("writing a row of {}", tree.name()), e))
}

macro_rules! statements {
    ($name:ident, $before:literal, $after:literal) => {
        const $name: [&str; 18] = [
            concat!($before, "meta", $after),
            concat!($before, "inode", $after),
            concat!($before, "entry", $after),
            concat!($before, "local", $after),
            concat!($before, "chunk", $after),
            concat!($before, "chunk_list", $after),
            concat!($before, "outbox", $after),
            concat!($before, "batch", $after),
            concat!($before, "cursor", $after),
            concat!($before, "history", $after),
            concat!($before, "pin", $after),
            concat!($before, "parked", $after),
            concat!($before, "move", $after),
            concat!($before, "device", $after),
            concat!($before, "orphan", $after),
            concat!($before, "unsealed", $after),
            concat!($before, "conflict", $after),
            concat!($before, "seen", $after),
        ];
    };
}
statements!(UPSERT, "INSERT INTO \"", "\" (k, v) VALUES (?1, ?2) ON CONFLICT (k) DO UPDATE SET v = excluded.v");
statements!(DELETE, "DELETE FROM \"", "\" WHERE k = ?1");
statements!(GET, "SELECT v FROM \"", "\" WHERE k = ?1");
statements!(SCAN, "SELECT k, v FROM \"", "\" WHERE k > ?1 AND k < ?2 ORDER BY k LIMIT ?3");
statements!(SCAN_INCL, "SELECT k, v FROM \"", "\" WHERE k >= ?1 AND k < ?2 ORDER BY k LIMIT ?3");
statements!(SCAN_DOWN, "SELECT k, v FROM \"", "\" WHERE k >= ?1 AND k < ?2 ORDER BY k DESC LIMIT ?3");
statements!(COUNT, "SELECT count(*) FROM \"", "\"");

impl Db {
    /// Opens or creates the database `<dir>/state.db` with its journal `<dir>/journal`, replaying what a crash left.
    pub fn open(dir: &Path) -> Result<Db> {
        std::fs::create_dir_all(dir).map_err(|e| Error::io(format!("creating the state directory {}", dir.display()), e))?;
        let reserve = Reserve::found(dir);
        loop {
            match Db::open_in(dir) {
                Err(e) if e.kind() == Kind::NoSpace && reserve.give_up() => {}
                Err(e) => return Err(e),
                Ok((inner, path)) => return Ok(Db { inner: Mutex::new(inner), committing: Mutex::new(()), path, reserve }),
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
        sync_beside(&path, "-wal")?;
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

    /// Runs `body` as one transaction: all of its changes happen, or (on error) none.
    pub fn write<T>(&self, body: impl FnOnce(&mut Txn<'_>) -> Result<T>) -> Result<T> {
        let mut inner = self.inner.lock();
        let mut record = std::mem::take(&mut inner.record);
        record.clear();
        let mut txn = Txn { read: inner.reading(), undo: Vec::new(), record };
        let out = body(&mut txn);
        let Txn { undo, mut record, .. } = txn;
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
        let file = self.inner.lock().journal.handle();
        file.sync_data().map_err(|e| Error::io("syncing the journal of the local state", e))
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
            inner.journal.is_full().then(|| inner.journal.handle())
        };
        if let Some(segment) = full {
            // Most of it here, where nobody waits; what comes meanwhile under the lock.
            segment.sync_data().map_err(|e| Error::io("syncing the journal of the local state", e))?;
            let mut inner = self.inner.lock();
            self.with_reserve(|| inner.journal.rotate())?;
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
        let mut p = self.path.clone().into_os_string();
        p.push("-wal");
        std::fs::metadata(PathBuf::from(p)).map_or(0, |m| m.len())
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

/// Makes the file `<path><suffix>` durable, if it is there.
fn sync_beside(path: &Path, suffix: &str) -> Result<()> {
    let mut p = path.to_owned().into_os_string();
    p.push(suffix);
    match std::fs::File::open(&p) {
        Ok(f) => f.sync_data().map_err(|e| Error::io(format!("syncing {}", Path::new(&p).display()), e)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(Error::io(format!("opening {}", Path::new(&p).display()), e)),
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

/// Commits SQLite's open transaction together with the lsn it reaches.
fn commit_at(conn: &Connection, lsn: u64) -> Result<()> {
    put_row(conn, Tree::Meta, &Key::from(LSN), Some(&encode(&lsn)?))?;
    conn.execute_batch("COMMIT").map_err(|e| sql("committing", e))
}

/// Opens a read transaction for all reads until the next commit: without one each would lock and unlock the file.
fn rest(conn: &Connection) -> Result<()> {
    conn.execute_batch("BEGIN; SELECT v FROM meta WHERE k = x'';").map_err(|e| sql("beginning to read", e))
}

/// Ends what transaction there is without keeping anything. A full disk may have made SQLite give it up by itself.
fn end(conn: &Connection) -> Result<()> {
    if conn.is_autocommit() {
        return Ok(());
    }
    conn.execute_batch("ROLLBACK").map_err(|e| sql("rolling back", e))
}

/// Reading rows.
pub struct Read<'a> {
    conn: &'a Connection,
    fresh: &'a RefCell<Layer>,
    frozen: Option<&'a Layer>,
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

/// Memory for journal records that is kept from one transaction to the next.
const RECORD_KEPT: usize = 256 << 10;

/// Reading and changing rows inside one transaction.
pub struct Txn<'a> {
    read: Read<'a>,
    /// What the changed rows were before, in order.
    undo: Vec<(Tree, Key, Option<Value>)>,
    /// The changes as the journal has them ([`Op`] in postcard's form), without their number.
    record: Vec<u8>,
}

impl<'a> std::ops::Deref for Txn<'a> {
    type Target = Read<'a>;
    fn deref(&self) -> &Read<'a> {
        &self.read
    }
}

impl Txn<'_> {
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

    fn change(&mut self, tree: Tree, key: Key, value: Value) {
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
fn varint(out: &mut Vec<u8>, mut n: u64) {
    while n > 0x7f {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

/// The smallest byte string above every one that starts with `prefix`; for the upper end of a prefix scan.
pub fn prefix_end(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.last_mut() {
        if *last < 0xff {
            *last += 1;
            return end;
        }
        end.pop();
    }
    vec![0xff; prefix.len() + 1]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(db: &Db, k: u64, v: &str) {
        db.write(|t| t.put(Tree::Inode, k, &v.to_owned())).unwrap();
    }
    fn get(db: &Db, k: u64) -> Option<String> {
        db.read(|r| r.get(Tree::Inode, k)).unwrap()
    }

    #[test]
    fn rows_survive_a_kill_before_sqlite_committed() {
        let t = tempfile::tempdir().unwrap();
        let db = Db::open(t.path()).unwrap();
        put(&db, 1, "committed");
        db.commit().unwrap();
        put(&db, 2, "only in the journal");
        db.write(|t| t.del(Tree::Inode, 1)).unwrap();
        // No close: as after kill -9, SQLite's open transaction is lost.
        let db2 = {
            drop(db);
            Db::open(t.path()).unwrap()
        };
        assert_eq!(get(&db2, 1), None);
        assert_eq!(get(&db2, 2).as_deref(), Some("only in the journal"));
    }

    #[test]
    fn a_failed_transaction_changes_nothing_now_or_after_reopening() {
        let t = tempfile::tempdir().unwrap();
        let db = Db::open(t.path()).unwrap();
        put(&db, 1, "kept");
        let r: Result<()> = db.write(|t| {
            t.put(Tree::Inode, 1, &"changed".to_owned())?;
            t.put(Tree::Inode, 2, &"new".to_owned())?;
            Err(Error::new(Kind::Busy, "on purpose"))
        });
        assert!(r.is_err());
        assert_eq!((get(&db, 1).as_deref(), get(&db, 2)), (Some("kept"), None));
        put(&db, 3, "later");
        drop(db);
        let db = Db::open(t.path()).unwrap();
        assert_eq!((get(&db, 1).as_deref(), get(&db, 2), get(&db, 3).as_deref()), (Some("kept"), None, Some("later")));
    }

    #[test]
    fn checkpoint_drops_journal_segments_and_nothing_else() {
        let t = tempfile::tempdir().unwrap();
        let db = Db::open(t.path()).unwrap();
        let big = "x".repeat(1 << 20);
        for i in 0..40 {
            put(&db, i, &big);
            db.commit().unwrap();
        }
        let before = std::fs::read_dir(t.path().join("journal")).unwrap().count();
        db.checkpoint().unwrap();
        let after = std::fs::read_dir(t.path().join("journal")).unwrap().count();
        assert!(before > 2 && after == 1, "{before} {after}");
        drop(db);
        let db = Db::open(t.path()).unwrap();
        assert_eq!(get(&db, 39).map(|s| s.len()), Some(1 << 20));
    }

    /// SQLite gives a transaction up when the disk is full. Everything that was told as done stays, in memory and for
    /// the next start.
    #[test]
    fn a_commit_that_sqlite_gives_up_loses_nothing() {
        let t = tempfile::tempdir().unwrap();
        let db = Db::open(t.path()).unwrap();
        put(&db, 1, "committed");
        db.commit().unwrap();
        put(&db, 2, "in the journal");
        {
            let mut inner = db.inner.lock();
            let frozen = inner.freeze().unwrap();
            inner.conn.execute_batch("ROLLBACK").unwrap();
            let e = inner.move_some(&mut frozen.rows.iter().peekable(), frozen.lsn).unwrap_err();
            assert!(e.to_string().contains("committing"), "{e}");
        }
        assert_eq!(get(&db, 2).as_deref(), Some("in the journal"));
        put(&db, 3, "later");
        let copy = tempfile::tempdir().unwrap();
        copy_all(t.path(), copy.path());
        db.commit().unwrap();
        drop(db);
        for dir in [t.path(), copy.path()] {
            let db = Db::open(dir).unwrap();
            assert_eq!((get(&db, 2).as_deref(), get(&db, 3).as_deref()), (Some("in the journal"), Some("later")));
        }
    }

    fn copy_all(from: &Path, to: &Path) {
        for e in std::fs::read_dir(from).unwrap() {
            let (e, to) = (e.unwrap(), to.to_owned());
            let to = to.join(e.file_name());
            if e.file_type().unwrap().is_dir() {
                std::fs::create_dir(&to).unwrap();
                copy_all(&e.path(), &to);
            } else {
                std::fs::copy(e.path(), to).unwrap();
            }
        }
    }

    /// Rows are the same wherever they lie: in memory, set aside for a commit, in SQLite, and after a start.
    #[test]
    fn reads_and_scans_see_one_tree_through_all_layers() {
        use std::collections::BTreeMap;
        let t = tempfile::tempdir().unwrap();
        let mut db = Db::open(t.path()).unwrap();
        let mut model: BTreeMap<u64, u32> = BTreeMap::new();
        let mut random = 7u64;
        let mut next = |n: u64| {
            random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (random >> 33) % n
        };
        for step in 0..3000u32 {
            let k = next(40);
            let fails = next(20) == 0;
            let (gone, second) = (next(3) == 0, next(40));
            let done: Result<()> = db.write(|t| {
                for k in [k, second] {
                    if gone {
                        t.del(Tree::Outbox, k)?;
                        t.del(Tree::Entry, k.to_be_bytes().to_vec())?;
                    } else {
                        t.put(Tree::Outbox, k, &step)?;
                        t.put(Tree::Entry, k.to_be_bytes().to_vec(), &step)?;
                    }
                }
                if fails { Err(Error::new(Kind::Busy, "on purpose")) } else { Ok(()) }
            });
            if done.is_ok() {
                for k in [k, second] {
                    if gone {
                        model.remove(&k)
                    } else {
                        model.insert(k, step)
                    };
                }
            }
            match next(180) {
                0..3 => db.commit().unwrap(),
                // As in the middle of a commit.
                3..6 => {
                    let mut inner = db.inner.lock();
                    if inner.frozen.is_none() {
                        inner.freeze();
                    }
                }
                6 => {
                    drop(db);
                    db = Db::open(t.path()).unwrap();
                }
                _ => {}
            }
            let (a, b) = (next(42), next(42));
            let limit = next(12) as usize;
            let want: Vec<(u64, u32)> = model.iter().filter(|(k, _)| (a..b).contains(k)).map(|(k, v)| (*k, *v)).collect();
            let first = |list: &[(u64, u32)]| list.iter().take(limit).copied().collect::<Vec<_>>();
            db.read(|r| {
                assert_eq!(r.get::<u32>(Tree::Outbox, a)?, model.get(&a).copied());
                assert_eq!(r.scan_int::<u32>(Tree::Outbox, a, b, limit)?, first(&want));
                assert_eq!(r.count(Tree::Outbox)?, model.len() as u64);
                let (from, to) = (a.to_be_bytes(), b.to_be_bytes());
                let scan = |range| {
                    let mut got = Vec::new();
                    r.scan(Tree::Entry, range, limit, |k, v: u32| {
                        got.push((u64::from_be_bytes(k.try_into().unwrap()), v));
                        Ok(())
                    })
                    .map(|()| got)
                };
                assert_eq!(scan(Scan::From(&from, &to))?, first(&want));
                let after: Vec<_> = want.iter().filter(|(k, _)| *k != a).copied().collect();
                assert_eq!(scan(Scan::After(&from, &to))?, first(&after));
                let down: Vec<_> = want.iter().rev().copied().collect();
                assert_eq!(scan(Scan::Down(&from, &to))?, first(&down));
                Ok(())
            })
            .unwrap();
        }
    }

    /// What a transaction writes by hand is what the journal is read as.
    #[test]
    fn journal_records_have_the_form_they_are_read_in() {
        let t = tempfile::tempdir().unwrap();
        let db = Db::open(t.path()).unwrap();
        let ops = [
            Op { tree: Tree::Inode as u8, key: Key::Int(u64::MAX >> 1), value: Some(encode(&"x".repeat(300)).unwrap()) },
            Op { tree: Tree::Entry as u8, key: Key::Bytes(vec![0, 200, 255]), value: None },
            Op { tree: Tree::Seen as u8, key: Key::Bytes(vec![]), value: Some(vec![]) },
        ];
        db.write(|t| {
            for op in &ops {
                let tree = Tree::of(op.tree).unwrap();
                t.change(tree, op.key.clone(), op.value.clone().map(Vec::into_boxed_slice));
            }
            let mut whole = vec![ops.len() as u8];
            whole.extend_from_slice(&t.record);
            assert_eq!(whole, encode(&ops.iter().collect::<Vec<_>>()).unwrap());
            Ok(())
        })
        .unwrap();
    }

    #[test]
    fn newer_state_is_refused_with_a_sentence() {
        let t = tempfile::tempdir().unwrap();
        drop(Db::open(t.path()).unwrap());
        let c = Connection::open(t.path().join("state.db")).unwrap();
        c.execute_batch("PRAGMA user_version=99").unwrap();
        drop(c);
        let e = Db::open(t.path()).err().unwrap();
        assert_eq!(e.kind(), Kind::Unsupported);
        assert!(e.to_string().contains("layout 99"), "{e}");
    }

    #[test]
    fn prefix_end_is_above_all_extensions() {
        assert_eq!(prefix_end(b"ab"), b"ac".to_vec());
        assert_eq!(prefix_end(&[1, 0xff]), vec![2]);
        assert!(prefix_end(&[0xff]).as_slice() > &[0xff, 0xff][..] || prefix_end(&[0xff]).len() == 2);
    }
}

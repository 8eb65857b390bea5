//! The local database: ordered trees of rows in SQLite behind the append journal.
//!
//! A transaction here changes rows inside one long SQLite transaction and appends one journal record; it costs
//! some microseconds. SQLite commits (without syncing) every now and then, together with the lsn it has reached;
//! what it had not committed at a crash is replayed from the journal. `sync` makes everything before it durable by
//! syncing the journal alone.
//!
//! Must: rows and their journal record change together or not at all, also when the disk is full.
//! Must: nothing is told to anybody as durable before `sync` returned.
//! Lock order: the one lock in here is a leaf; no callback runs under it except `Db::write`/`read` bodies, which
//! must not block on anything but this database.
//! Not here: what the rows mean (`rows`).

use super::journal::Journal;
use super::reserve::Reserve;
use crate::error::{Error, Kind, Result};
use parking_lot::Mutex;
use rusqlite::{Connection, OpenFlags, OptionalExtension, params};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

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

const TREES: [Tree; 18] = [
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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

struct Inner {
    conn: Connection,
    journal: Journal,
    /// lsn that the last SQLite commit covers.
    committed: u64,
    in_txn: bool,
}

/// The open database. One process owns it (`state::lock`); others may read it through SQLite.
pub struct Db {
    inner: Mutex<Inner>,
    path: PathBuf,
    reserve: Reserve,
}

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
                Ok((inner, path)) => return Ok(Db { inner: Mutex::new(inner), path, reserve }),
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
        let mut inner = Inner { conn, journal, committed: 0, in_txn: true };
        inner.commit_once()?;
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
        body(&Read { conn: &inner.conn })
    }

    /// Runs `body` as one transaction: all of its changes happen, or (on error) none.
    pub fn write<T>(&self, body: impl FnOnce(&mut Txn<'_>) -> Result<T>) -> Result<T> {
        let mut inner = self.inner.lock();
        inner.begin()?;
        let Inner { conn, journal, .. } = &mut *inner;
        conn.prepare_cached("SAVEPOINT t").and_then(|mut s| s.execute([])).map_err(|e| sql("opening a savepoint", e))?;
        let mut txn = Txn { read: Read { conn }, ops: Vec::new() };
        let out = body(&mut txn);
        let ops = std::mem::take(&mut txn.ops);
        let done = out.and_then(|v| {
            if !ops.is_empty() {
                let record = encode(&ops)?;
                self.with_reserve(|| journal.append(&record).map(drop))?;
            }
            Ok(v)
        });
        let end = if done.is_ok() { "RELEASE t" } else { "ROLLBACK TO t" };
        let ended = conn.prepare_cached(end).and_then(|mut s| s.execute([]));
        if done.is_err() && ended.is_ok() {
            // ROLLBACK TO leaves the savepoint on the stack.
            let _ = conn.prepare_cached("RELEASE t").and_then(|mut s| s.execute([]));
        }
        if conn.is_autocommit() {
            // SQLite gave the whole transaction up (disk full): what the journal has is put back.
            inner.reload(&self.path)?;
        } else if let Err(e) = ended {
            return Err(sql("closing a savepoint", e));
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
        let mut inner = self.inner.lock();
        self.with_reserve(|| inner.commit(&self.path))?;
        if inner.journal.is_full() {
            self.with_reserve(|| inner.journal.rotate())?;
        }
        Ok(())
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

/// Begins a transaction and puts into it what the journal has beyond SQLite's last commit. Needs no space on the disk.
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
    if opened.is_err() {
        let _ = conn.execute_batch("ROLLBACK");
    }
    opened
}

impl Inner {
    fn begin(&mut self) -> Result<()> {
        if !self.in_txn {
            self.conn.execute_batch("BEGIN IMMEDIATE").map_err(|e| sql("beginning", e))?;
            self.in_txn = true;
        }
        Ok(())
    }

    fn commit(&mut self, path: &Path) -> Result<()> {
        let done = self.commit_once();
        if done.is_err() && self.conn.is_autocommit() {
            // SQLite gave the transaction up: what the journal has is put back, uncommitted as before.
            self.reload(path)?;
        }
        done
    }

    fn commit_once(&mut self) -> Result<()> {
        if !self.in_txn {
            return Ok(());
        }
        if self.conn.is_autocommit() {
            // The mark would be written on its own, and what it speaks for never replayed.
            return Err(Error::new(Kind::Io, "the local database: committing: SQLite had given the transaction up"));
        }
        let lsn = self.journal.last();
        put_row(&self.conn, Tree::Meta, &Key::from(LSN), Some(&encode(&lsn)?))?;
        self.conn.execute_batch("COMMIT").map_err(|e| sql("committing", e))?;
        self.in_txn = false;
        self.committed = lsn;
        Ok(())
    }

    fn reload(&mut self, path: &Path) -> Result<()> {
        self.in_txn = false;
        let dir = path.parent().unwrap_or(Path::new("."));
        self.journal = replay(&self.conn, dir)?;
        self.in_txn = true;
        Ok(())
    }
}

/// Reading rows.
pub struct Read<'a> {
    conn: &'a Connection,
}

impl Read<'_> {
    /// One row.
    pub fn get<T: DeserializeOwned>(&self, tree: Tree, key: impl Into<Key>) -> Result<Option<T>> {
        let mut st = self.conn.prepare_cached(GET[tree as usize]).map_err(|e| sql("preparing", e))?;
        let mut rows = match key.into() {
            Key::Int(k) => st.query(params![k as i64]),
            Key::Bytes(k) => st.query(params![k]),
        }
        .map_err(|e| sql("reading", e))?;
        match rows.next().map_err(|e| sql("reading", e))? {
            Some(r) => {
                let v = r.get_ref(0).and_then(|v| Ok(v.as_blob()?)).map_err(|e| sql("reading", e))?;
                decode(tree, v).map(Some)
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
        let (text, from, to) = match range {
            Scan::After(from, to) => (SCAN[tree as usize], from, to),
            Scan::From(from, to) => (SCAN_INCL[tree as usize], from, to),
            Scan::Down(from, to) => (SCAN_DOWN[tree as usize], from, to),
        };
        let mut st = self.conn.prepare_cached(text).map_err(|e| sql("preparing", e))?;
        let mut rows = st.query(params![from, to, limit as i64]).map_err(|e| sql("scanning", e))?;
        while let Some(r) = rows.next().map_err(|e| sql("scanning", e))? {
            let k = r.get_ref(0).and_then(|v| Ok(v.as_blob()?)).map_err(|e| sql("scanning", e))?;
            let v = r.get_ref(1).and_then(|v| Ok(v.as_blob()?)).map_err(|e| sql("scanning", e))?;
            each(k, decode(tree, v)?)?;
        }
        Ok(())
    }

    /// Rows with integer keys in `from..to`, in order, at most `limit`.
    pub fn scan_int<T: DeserializeOwned>(&self, tree: Tree, from: u64, to: u64, limit: usize) -> Result<Vec<(u64, T)>> {
        let mut st = self.conn.prepare_cached(SCAN_INCL[tree as usize]).map_err(|e| sql("preparing", e))?;
        let to = i64::try_from(to).unwrap_or(i64::MAX);
        let mut rows = st.query(params![from as i64, to, limit as i64]).map_err(|e| sql("scanning", e))?;
        let mut out = Vec::new();
        while let Some(r) = rows.next().map_err(|e| sql("scanning", e))? {
            let k: i64 = r.get(0).map_err(|e| sql("scanning", e))?;
            let v = r.get_ref(1).and_then(|v| Ok(v.as_blob()?)).map_err(|e| sql("scanning", e))?;
            out.push((k as u64, decode(tree, v)?));
        }
        Ok(out)
    }

    /// Number of rows (a full scan: not for hot paths).
    pub fn count(&self, tree: Tree) -> Result<u64> {
        let mut st = self.conn.prepare_cached(COUNT[tree as usize]).map_err(|e| sql("preparing", e))?;
        st.query_row([], |r| r.get::<_, i64>(0)).map(|n| n as u64).map_err(|e| sql("counting", e))
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

/// Reading and changing rows inside one transaction.
pub struct Txn<'a> {
    read: Read<'a>,
    ops: Vec<Op>,
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
        let (key, value) = (key.into(), encode(row)?);
        put_row(self.read.conn, tree, &key, Some(&value))?;
        self.ops.push(Op { tree: tree as u8, key, value: Some(value) });
        Ok(())
    }

    /// Removes a row; no error if it is not there.
    pub fn del(&mut self, tree: Tree, key: impl Into<Key>) -> Result<()> {
        let key = key.into();
        put_row(self.read.conn, tree, &key, None)?;
        self.ops.push(Op { tree: tree as u8, key, value: None });
        Ok(())
    }
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
            inner.conn.execute_batch("ROLLBACK").unwrap();
            let e = inner.commit(&db.path).unwrap_err();
            assert!(e.to_string().contains("committing"), "{e}");
        }
        assert_eq!(get(&db, 2).as_deref(), Some("in the journal"));
        put(&db, 3, "later");
        db.commit().unwrap();
        drop(db);
        let db = Db::open(t.path()).unwrap();
        assert_eq!((get(&db, 2).as_deref(), get(&db, 3).as_deref()), (Some("in the journal"), Some("later")));
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

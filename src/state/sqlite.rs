//! The database file: its tables, the statements on them, and the transactions that rows go through.
//!
//! Not here: which rows are changed and when they come here (`db`), reading them together with those in memory (`read`).

use super::schema::{Key, Tree, encode};
use crate::error::{Error, Kind, Result};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, params};
use std::path::Path;

/// The error for one of SQLite's.
pub(super) fn sql(doing: &str, e: rusqlite::Error) -> Error {
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

/// Meta key: up to where the journal is in here.
pub(super) const LSN: &str = "lsn";

/// Opens the database file, creating it if it is not there.
pub(super) fn open_connection(path: &Path) -> Result<Connection> {
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
    // Or SQLite, as it is built here, prepares each scan again for each pair of bounds.
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true).map_err(|e| sql("setting up", e))?;
    Ok(conn)
}

/// Writes a row, or removes it where there is no value.
pub(super) fn put_row(conn: &Connection, tree: Tree, key: &Key, value: Option<&[u8]>) -> Result<()> {
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

/// One statement for every tree, in their order.
macro_rules! statements {
    ($name:ident, $before:literal, $after:literal) => {
        pub(super) const $name: [&str; 18] = [
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

/// Commits SQLite's open transaction together with the lsn it reaches.
pub(super) fn commit_at(conn: &Connection, lsn: u64) -> Result<()> {
    put_row(conn, Tree::Meta, &Key::from(LSN), Some(&encode(&lsn)?))?;
    conn.execute_batch("COMMIT").map_err(|e| sql("committing", e))
}

/// Opens a read transaction for all reads until the next commit: without one each would lock and unlock the file.
pub(super) fn rest(conn: &Connection) -> Result<()> {
    conn.execute_batch("BEGIN; SELECT v FROM meta WHERE k = x'';").map_err(|e| sql("beginning to read", e))
}

/// Ends what transaction there is without keeping anything. A full disk may have made SQLite give it up by itself.
pub(super) fn end(conn: &Connection) -> Result<()> {
    if conn.is_autocommit() {
        return Ok(());
    }
    conn.execute_batch("ROLLBACK").map_err(|e| sql("rolling back", e))
}

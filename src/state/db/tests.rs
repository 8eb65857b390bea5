//! Rows survive, whole transactions or nothing, in whatever layer they lie.

use super::super::read::Scan;
use super::super::schema::{encode, prefix_end};
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

/// What is kept in memory beside the rows goes back with them, before anybody else sees either.
#[test]
fn what_a_failed_transaction_did_besides_is_taken_back_under_its_lock() {
    use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
    let t = tempfile::tempdir().unwrap();
    let db = Db::open(t.path()).unwrap();
    let busy = std::sync::Arc::new(AtomicBool::new(true));
    let settle = |row: Vec<u8>, fails: bool| {
        db.write(|t| {
            busy.store(false, SeqCst);
            let again = busy.clone();
            t.on_failure(move || again.store(true, SeqCst));
            t.put(Tree::Inode, 1, &row)?;
            if fails { Err(Error::new(Kind::Busy, "on purpose")) } else { Ok(()) }
        })
    };
    let look = |want: bool| {
        db.write(|_| {
            assert_eq!(busy.load(SeqCst), want);
            Ok(())
        })
    };
    settle(vec![1], true).unwrap_err();
    look(true).unwrap();
    // The body is done, and the journal refuses the record: the next one to get the lock sees neither.
    let done = AtomicBool::new(false);
    std::thread::scope(|s| {
        s.spawn(|| {
            while !done.load(SeqCst) {
                look(true).unwrap();
            }
        });
        for _ in 0..3 {
            assert_eq!(settle(vec![7; 257 << 20], false).unwrap_err().kind(), Kind::TooBig);
        }
        done.store(true, SeqCst);
    });
    settle(vec![2], false).unwrap();
    look(false).unwrap();
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

thread_local! {
    static FAILING: std::cell::Cell<u32> = const { std::cell::Cell::new(0) };
}

/// A disk that fails some syncs, and then says that all is well, as Linux does.
fn sync_that_fails(file: &std::fs::File) -> std::io::Result<()> {
    match FAILING.get() {
        0 => file.sync_data(),
        n => {
            FAILING.set(n - 1);
            Err(std::io::Error::from_raw_os_error(libc::EIO))
        }
    }
}

#[test]
fn after_a_sync_that_failed_the_journal_is_not_trusted_and_nothing_counts_as_durable_until_sqlite_has_it() {
    let t = tempfile::tempdir().unwrap();
    let mut db = Db::open(t.path()).unwrap();
    db.sync_data = sync_that_fails;
    put(&db, 1, "one");
    FAILING.set(2);
    assert_eq!(db.sync().unwrap_err().kind(), Kind::Io);
    put(&db, 2, "two");
    // The write-ahead file does not get there either.
    assert_eq!(db.sync().unwrap_err().kind(), Kind::Io);
    let lost = db.inner.lock().journal.path();
    db.sync().unwrap();
    // What the disk may have lost is not needed any more.
    assert!(!lost.exists());
    put(&db, 3, "three");
    db.sync().unwrap();
    drop(db);
    let db = Db::open(t.path()).unwrap();
    for (k, v) in [(1, "one"), (2, "two"), (3, "three")] {
        assert_eq!(get(&db, k).as_deref(), Some(v));
    }
}

#[test]
fn reading_beside_sees_one_moment_and_holds_nobody_up() {
    let t = tempfile::tempdir().unwrap();
    let db = Db::open(t.path()).unwrap();
    put(&db, 1, "before");
    let seen = db.read_beside(|r| {
        put(&db, 1, "after");
        put(&db, 2, "new");
        db.commit()?;
        db.checkpoint()?;
        Ok((r.get::<String>(Tree::Inode, 1)?, r.get::<String>(Tree::Inode, 2)?, r.count(Tree::Inode)?))
    });
    assert_eq!(seen.unwrap(), (Some("before".to_owned()), None, 1));
    assert_eq!((get(&db, 1).as_deref(), get(&db, 2).as_deref()), (Some("after"), Some("new")));
    assert_eq!(db.read_beside(|r| r.count(Tree::Inode)).unwrap(), 2);
}

//! Kills and power cuts, on the drive in the process: what a start finds, what it keeps and what it takes back. A power
//! cut is a start in another boot; what the disk lost is taken away by hand. No kernel: where it would write a local
//! file by itself (passthrough) the test does.

#![allow(clippy::unwrap_used)]

#[path = "common/vfs.rs"]
mod common;

use common::Rig;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use tcfs::fleet::{Files, Outcome};
use tcfs::state::Tree;
use tcfs::state::rows::Sealed;

/// A start after a power cut.
fn power_cut(rig: &mut Rig) {
    rig.crash_with(|o| o.boot += 1);
}

fn local(rig: &Rig, overlay: bool, ino: u64) -> PathBuf {
    let base = if overlay { rig.options.state_dir.join("overlay") } else { rig.options.cache_dir.join("data") };
    base.join(format!("{:02x}", ino & 0xff)).join(format!("{ino:x}"))
}

/// Sizes of the versions of a path that wait to be published.
fn waiting(rig: &Rig, p: &str) -> Vec<u64> {
    let versions = rig.outbox().into_iter().flat_map(|r| r.versions);
    versions.filter(|v| v.path.as_str() == p).filter_map(|v| v.file().map(|c| c.size)).collect()
}

fn recovered(rig: &Rig) -> Vec<Vec<u8>> {
    let dir = std::fs::read_dir(rig.recovered_dir()).into_iter().flatten();
    dir.map(|e| std::fs::read(e.unwrap().path()).unwrap()).collect()
}

/// Opens for writing as a kernel does that writes the local file by itself.
fn open_lent(rig: &Rig, ino: u64, truncate: bool) -> (u64, std::sync::Arc<std::fs::File>) {
    let fh = rig.open_file(ino, true, truncate).unwrap().fh;
    let file = rig.lend(fh).unwrap().expect("the file can be lent");
    (fh, file)
}

/// The same with the answer sent, and the kernel's own descriptor (or a mapping, which can write just as well): it stays
/// when ours is gone.
fn open_kernel(rig: &Rig, p: &str) -> (u64, std::fs::File) {
    let ino = rig.ino(p);
    let (fh, _) = open_lent(rig, ino, false);
    rig.count_open(fh, true).unwrap();
    (fh, std::fs::File::options().write(true).open(local(rig, true, ino)).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_power_cut_what_was_never_synced_goes_back_to_what_was_published() {
    let mut rig = Rig::new();
    rig.remote("bob", "f", b"published").await;
    rig.remote("bob", "open", b"published too").await;
    rig.put("f", b"closed and never synced");
    rig.put("new", b"never synced either");
    let fh = rig.open_rw("open");
    rig.write(fh, 0, b"PUB", false).unwrap();
    let (_, fh) = rig.create_open("half").unwrap();
    rig.write(fh, 0, b"half", false).unwrap();
    power_cut(&mut rig);
    assert_eq!(rig.text("f").await, "published");
    assert_eq!(rig.text("open").await, "published too");
    assert_eq!(rig.ls(""), ["f", "open"]);
    assert!(rig.outbox().is_empty(), "{:?}", rig.outbox());
    let found = recovered(&rig);
    assert!(found.contains(&b"closed and never synced".to_vec()), "{found:?}");
    assert!(found.contains(&b"half".to_vec()), "{found:?}");
    // And it goes on from there.
    rig.put("f", b"again");
    assert_eq!(rig.text("f").await, "again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_power_cut_what_was_synced_is_there_with_or_without_a_close() {
    let mut rig = Rig::new();
    rig.remote("bob", "f", b"published").await;
    let (_, log) = rig.create_open("log").unwrap();
    rig.write(log, 0, b"synced, ", false).unwrap();
    rig.fsync(log).unwrap();
    rig.write(log, 0, b"not synced", true).unwrap();
    let fh = rig.open_rw("f");
    rig.write(fh, 0, b"PUB", false).unwrap();
    rig.fsync(fh).unwrap();
    rig.release(fh).unwrap();
    let (_, doc) = rig.create_open("doc").unwrap();
    rig.write(doc, 0, b"saved and ", false).unwrap();
    rig.fsync(doc).unwrap();
    rig.release(doc).unwrap();
    // Closed again with more, which was not synced and which the disk lost.
    let doc = rig.open_rw("doc");
    rig.write(doc, 0, b"lost", true).unwrap();
    rig.release(doc).unwrap();
    let file = std::fs::File::options().write(true).open(local(&rig, true, rig.ino("doc"))).unwrap();
    power_cut(&mut rig);
    assert_eq!(rig.text("log").await, "synced, not synced");
    assert_eq!(rig.text("f").await, "PUBlished");
    assert_eq!(rig.text("doc").await, "saved and lost");
    file.set_len(10).unwrap();
    power_cut(&mut rig);
    assert_eq!(rig.text("doc").await, "saved and ");
    assert_eq!(waiting(&rig, "doc").last(), Some(&10), "what is to be published is not what is there");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_keeps_everything_that_was_written() {
    let mut rig = Rig::new();
    rig.remote("bob", "f", b"published").await;
    rig.put("closed", b"closed");
    let fh = rig.open_rw("f");
    rig.write(fh, 0, b" and more", true).unwrap();
    rig.crash();
    assert_eq!(rig.text("closed").await, "closed");
    assert_eq!(rig.text("f").await, "published and more");
    assert_eq!(waiting(&rig, "f"), [18]);
    assert!(recovered(&rig).is_empty());
}

/// The row of a file emptied by its open knew nothing of what the kernel wrote after that; the next read filled the
/// published bytes in over it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn regression_file_emptied_and_written_by_the_kernel_itself_survives_a_kill() {
    let mut rig = Rig::new();
    let old = vec![b'o'; 7207];
    rig.remote("bob", "f", &old).await;
    assert_eq!(rig.cat("f").await, old);
    let (fh, file) = open_lent(&rig, rig.ino("f"), true);
    rig.count_open(fh, true).unwrap();
    file.write_all_at(&[b'n'; 1159], 0).unwrap();
    drop(file);
    rig.crash();
    assert_eq!(rig.cat("f").await, vec![b'n'; 1159]);
}

/// A second open for writing arrives while the first is being released: what it writes must belong to a version.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn regression_open_that_is_being_lent_keeps_the_file_unsealed() {
    let rig = Rig::new();
    rig.put("f", b"one");
    let ino = rig.ino("f");
    let (first, file) = open_lent(&rig, ino, false);
    rig.count_open(first, true).unwrap();
    file.write_all_at(b" two", 3).unwrap();
    drop(file);
    let (second, file) = open_lent(&rig, ino, false);
    drop(file);
    rig.release(first).unwrap();
    rig.count_open(second, true).unwrap();
    std::fs::File::options().write(true).open(local(&rig, true, ino)).unwrap().write_all_at(b" three", 7).unwrap();
    rig.release(second).unwrap();
    assert_eq!(rig.text("f").await, "one two three");
    assert_eq!(waiting(&rig, "f").last(), Some(&13));
    assert_eq!((rig.unsealed_files().closed, rig.unsealed_files().open), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn file_that_is_still_mapped_after_its_close_is_sealed_when_the_mapping_is_gone() {
    let rig = Rig::new();
    rig.put("f", b"12345");
    let before = waiting(&rig, "f").len();
    let (fh, mapped) = open_kernel(&rig, "f");
    rig.release(fh).unwrap();
    rig.seal_quiet().unwrap();
    assert_eq!(rig.unsealed_files().closed, 1);
    assert_eq!(waiting(&rig, "f").len(), before);
    mapped.write_all_at(b"abcdefg", 0).unwrap();
    drop(mapped);
    rig.seal_quiet().unwrap();
    assert_eq!(rig.unsealed_files().closed, 0);
    assert_eq!(waiting(&rig, "f").last(), Some(&7));
    assert_eq!(rig.text("f").await, "abcdefg");
}

/// Until the loss of the name is durable a power cut brings it back, and then the bytes must be there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn synced_bytes_of_a_removed_file_stay_until_its_removal_is_durable() {
    let rig = Rig::new();
    let (attr, fh) = rig.create_open("f").unwrap();
    rig.write(fh, 0, b"synced", false).unwrap();
    rig.fsync(fh).unwrap();
    rig.release(fh).unwrap();
    let loose = rig.put("loose", b"never synced");
    rig.rm("f").unwrap();
    rig.rm("loose").unwrap();
    assert!(local(&rig, true, attr.ino).exists());
    assert!(!local(&rig, true, loose).exists(), "what nobody synced is freed at once");
    rig.free_orphans().unwrap();
    assert!(!local(&rig, true, attr.ino).exists());
}

/// After a power cut numbers are used again: a new file must not find the bytes of a lost one under its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn local_bytes_that_no_row_knows_are_removed_after_a_crash() {
    let mut rig = Rig::new();
    rig.put("f", b"known");
    let stray = local(&rig, true, 0x10_0000_0001);
    std::fs::write(&stray, "of a file whose name was lost").unwrap();
    rig.crash();
    assert!(!stray.exists());
    assert_eq!(rig.text("f").await, "known");
}

/// A published file can be written over with nothing of it but the bytes on the disk: what is only a copy is verified.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn regression_cached_bytes_are_verified_before_they_are_used_after_a_power_cut() {
    let mut rig = Rig::new();
    rig.remote("bob", "f", b"published").await;
    assert_eq!(rig.text("f").await, "published");
    let ino = rig.ino("f");
    std::fs::write(local(&rig, false, ino), "overwrite").unwrap();
    power_cut(&mut rig);
    assert_eq!(rig.text("f").await, "published");
    // Without a fault on the disk nothing is fetched again.
    power_cut(&mut rig);
    rig.store.set(vec![tcfs::store::fault::Rule::new(tcfs::store::fault::Mode::Down)]);
    assert_eq!(rig.text("f").await, "published");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_for_the_store_is_synced_after_a_while_by_itself() {
    let mut rig = Rig::new();
    rig.put("f", b"closed, never synced by its program");
    rig.sync_waiting().unwrap();
    rig.put("g", b"too late");
    power_cut(&mut rig);
    assert_eq!(rig.text("f").await, "closed, never synced by its program");
    assert!(!rig.has("g"));
}

/// A kill between the move of a local file and its row.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn local_file_in_the_wrong_place_is_found_and_a_missing_one_never_reads_as_zeros() {
    let mut rig = Rig::new();
    rig.remote("bob", "f", b"published").await;
    assert_eq!(rig.text("f").await, "published");
    let ino = rig.ino("f");
    rig.put("mine", b"unpublished");
    let mine = rig.ino("mine");
    std::fs::rename(local(&rig, true, mine), local(&rig, false, mine)).unwrap();
    std::fs::remove_file(local(&rig, false, ino)).unwrap();
    rig.crash();
    assert_eq!(rig.text("mine").await, "unpublished");
    assert_eq!(rig.text("f").await, "published");
}

/// Bytes that the publisher would cut for the last seal of a path.
fn cut(rig: &Rig, p: &str) -> Option<Vec<u8>> {
    let files = tcfs::vfs::VfsFiles(std::sync::Arc::clone(rig));
    let row = rig.outbox().into_iter().rfind(|r| r.versions.iter().any(|v| v.path.as_str() == p && v.is_uncut()))?;
    let (_, ino, wgen) = row.files[0];
    let source = files.cut_source(ino, wgen).unwrap()?;
    let mut bytes = vec![0; source.size as usize];
    source.reader.read_exact_at(0, &mut bytes).ok()?;
    files.unchanged(ino, wgen).then_some(bytes)
}

/// Written, synced and closed; not published.
fn put_synced(rig: &Rig, p: &str, bytes: &[u8]) {
    let (_, fh) = rig.create_open(p).unwrap();
    rig.write(fh, 0, bytes, false).unwrap();
    rig.fsync(fh).unwrap();
    rig.flush(fh).unwrap();
    rig.release(fh).unwrap();
}

/// The synced bytes were freed when the file was renamed over, and the new ones were given up as never synced.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn regression_a_save_by_rename_without_a_sync_never_loses_both_in_a_power_cut() {
    let mut rig = Rig::new();
    put_synced(&rig, "f", b"old, synced");
    rig.put("t", b"new");
    rig.mv("t", "f").unwrap();
    rig.free_orphans().unwrap();
    power_cut(&mut rig);
    assert_eq!(rig.text("f").await, "new");
    assert_eq!(waiting(&rig, "f").last(), Some(&3));
    // The promise goes along, however often.
    for n in 0..3 {
        rig.put("t", format!("newer {n}").as_bytes());
        rig.mv("t", "f").unwrap();
        rig.free_orphans().unwrap();
    }
    power_cut(&mut rig);
    assert_eq!(rig.text("f").await, "newer 2");
    assert!(!rig.has("t"));
}

/// What had been renamed over was put back without its bytes: the path gave an error, and its row waited for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn regression_saves_by_rename_that_were_never_synced_go_back_together() {
    let mut rig = Rig::new();
    rig.remote("bob", "f", b"published").await;
    rig.put("new", b"first");
    for p in ["f", "new"] {
        for n in 0..3 {
            rig.put("t", format!("save {n}").as_bytes());
            rig.mv("t", p).unwrap();
        }
    }
    power_cut(&mut rig);
    assert_eq!(rig.text("f").await, "published");
    assert_eq!(rig.ls(""), ["f"]);
    let left: Vec<_> = rig.outbox().into_iter().flat_map(|r| r.versions).filter(|v| v.is_uncut()).collect();
    assert!(left.is_empty(), "{left:?}");
    common::check_rows(&rig, None);
}

/// `fsync` found the bytes on the disk already and forgot that it had promised them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn regression_a_sync_of_bytes_that_are_on_the_disk_already_is_a_promise_too() {
    let mut rig = Rig::new();
    rig.put("f", b"synced ");
    rig.sync_waiting().unwrap();
    let fh = rig.open_rw("f");
    rig.fsync(fh).unwrap();
    rig.write(fh, 0, b"and more", true).unwrap();
    rig.release(fh).unwrap();
    power_cut(&mut rig);
    assert_eq!(rig.text("f").await, "synced and more");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_open_for_writing_by_the_kernel_that_writes_nothing_makes_no_version() {
    let mut rig = Rig::new();
    rig.put("own", b"12345");
    rig.remote("bob", "f", b"published").await;
    assert_eq!(rig.text("f").await, "published");
    let before = rig.outbox().len();
    let open = |rig: &Rig, p: &str| {
        let (fh, file) = open_lent(rig, rig.ino(p), false);
        rig.count_open(fh, true).unwrap();
        drop(file);
        fh
    };
    for p in ["own", "f"] {
        let fh = open(&rig, p);
        // What was sealed before can be cut meanwhile.
        assert_eq!(cut(&rig, "own").as_deref(), Some(&b"12345"[..]));
        rig.flush(fh).unwrap();
        rig.release(fh).unwrap();
        assert_eq!((rig.unsealed_files().closed, rig.unsealed_files().open), (0, 0));
    }
    assert_eq!(rig.outbox().len(), before);
    assert!(local(&rig, false, rig.ino("f")).exists(), "published bytes are in the cache again");
    // Nor does it keep away what arrives meanwhile.
    let fh = open(&rig, "f");
    rig.remote("bob", "f", b"from bob").await;
    assert_eq!(rig.resolve("f").unwrap().size, 9);
    rig.release(fh).unwrap();
    assert_eq!(rig.text("f").await, "from bob");
    // Nor after a kill.
    open(&rig, "f");
    open(&rig, "own");
    rig.crash();
    assert_eq!(rig.outbox().len(), before);
    assert_eq!((rig.text("f").await, rig.text("own").await), ("from bob".to_owned(), "12345".to_owned()));
    assert_eq!(cut(&rig, "own").as_deref(), Some(&b"12345"[..]));
    common::check_rows(&rig, None);
    // One byte is a version, be it of the same length.
    let (fh, file) = open_lent(&rig, rig.ino("f"), false);
    rig.count_open(fh, true).unwrap();
    file.write_all_at(b"F", 0).unwrap();
    drop(file);
    rig.release(fh).unwrap();
    assert_eq!(rig.outbox().len(), before + 1);
    assert_eq!(rig.text("f").await, "From bob");
}

/// The second name of a file whose first one is published, with bytes that are in the store: a power cut while the file is
/// written again takes neither away.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn second_name_of_a_published_file_outlasts_a_power_cut_while_it_is_written() {
    let mut rig = Rig::new();
    rig.put("f", b"1");
    let sealed = rig.cut_last("f", b"1").await;
    let (ino, Outcome::Cut { content, .. }) = (sealed.ino, &sealed.outcome) else { panic!("{sealed:?}") };
    rig.ln("f", "g").unwrap();
    let fh = rig.open_rw("f");
    rig.write(fh, 0, b"2", false).unwrap();
    rig.tell(&sealed);
    // The row of the first name has gone, and what its token stands for is kept for the other.
    let gone = rig.replica().db().write(|t| {
        let rows: Vec<(u64, Sealed)> = t.scan_int(Tree::Outbox, 0, u64::MAX, usize::MAX)?;
        t.del(Tree::Outbox, rows[0].0)?;
        t.put(Tree::Meta, [b"token/", &sealed.token.0[..]].concat(), &Stands::Content(content.clone()))
    });
    gone.unwrap();
    power_cut(&mut rig);
    assert_eq!((rig.ls(""), rig.ino("f"), rig.ino("g")), (vec!["f".to_owned(), "g".to_owned()], ino, ino));
    assert_eq!((rig.text("f").await, rig.text("g").await), ("1".to_owned(), "1".to_owned()));
    assert_eq!(waiting(&rig, "g"), [1]);
    assert_eq!(rig.entry("g").heads[0].file().unwrap().root, content.root);
    common::check_rows(&rig, None);
}

/// What the fleet layer keeps of a token.
#[derive(serde::Serialize)]
enum Stands {
    Content(tcfs::model::FileContent),
}

/// A copy marks the file before it is made: a kill before it was sealed, or after it could not be made, took what had been
/// written before for what was published.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn regression_what_a_kernel_wrote_before_a_copy_that_failed_is_found_after_a_kill() {
    let mut rig = Rig::new();
    rig.remote("bob", "f", b"published").await;
    rig.put("own", b"12345");
    assert_eq!(rig.text("f").await, "published");
    let copies = rig.options.state_dir.join("copies");
    // Once where no copy was made before, and once where one was.
    for round in 0..2 {
        let text = format!("PUBLISHE{round}");
        let before = rig.outbox().len();
        let all = ["f", "own"].map(|p| open_kernel(&rig, p));
        if round == 1 {
            for (n, (fh, kernel)) in all.iter().enumerate() {
                kernel.write_all_at(b"first", 0).unwrap();
                rig.flush(*fh).unwrap();
                rig.seal_closed().unwrap();
                assert_eq!(rig.outbox().len(), before + n + 1);
            }
        }
        for (_, kernel) in &all {
            kernel.write_all_at(&text.as_bytes()[..5], 0).unwrap();
        }
        all[0].1.write_all_at(text.as_bytes(), 0).unwrap();
        let _ = std::fs::rename(&copies, rig.options.state_dir.join("away"));
        std::fs::write(&copies, "no directory").unwrap();
        for (fh, _) in &all {
            rig.flush(*fh).unwrap();
        }
        assert!(rig.seal_closed().is_err());
        drop(all);
        std::fs::remove_file(&copies).unwrap();
        let _ = std::fs::rename(rig.options.state_dir.join("away"), &copies);
        rig.crash();
        assert_eq!((rig.text("f").await, rig.text("own").await), (text.clone(), text[..5].to_owned()));
        assert_eq!(cut(&rig, "f").as_deref(), Some(text.as_bytes()));
        assert_eq!(cut(&rig, "own").as_deref(), Some(&text.as_bytes()[..5]));
        common::check_rows(&rig, None);
    }
}

/// RELEASE follows `close`, at some time: `tcfs wait` covers what `close` answered.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_close_answered_is_sealed_before_its_release() {
    let rig = Rig::new();
    let (_, fh) = rig.create_open("f").unwrap();
    rig.write(fh, 0, b"one", false).unwrap();
    rig.seal_closed().unwrap();
    assert_eq!(waiting(&rig, "f"), [] as [u64; 0], "it is open");
    rig.flush(fh).unwrap();
    rig.seal_closed().unwrap();
    assert_eq!(waiting(&rig, "f"), [3]);
    // Another descriptor of the same open goes on: it is open again.
    rig.write(fh, 3, b" two", false).unwrap();
    rig.seal_closed().unwrap();
    assert_eq!(waiting(&rig, "f"), [3]);
    rig.flush(fh).unwrap();
    rig.flush(fh).unwrap();
    rig.seal_closed().unwrap();
    assert_eq!(waiting(&rig, "f"), [3, 7]);
    rig.release(fh).unwrap();
    assert_eq!(waiting(&rig, "f"), [3, 7]);
    // With a second writer that has not closed it is not closed.
    let (a, b) = (rig.open_rw("f"), rig.open_rw("f"));
    rig.write(a, 0, b"ONE", false).unwrap();
    rig.flush(a).unwrap();
    rig.seal_closed().unwrap();
    assert_eq!(waiting(&rig, "f").len(), 2);
    rig.release(a).unwrap();
    rig.release(b).unwrap();
    assert_eq!(waiting(&rig, "f").len(), 3);
}

/// The same where the kernel writes by itself and holds its descriptor until the release.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_close_answered_is_sealed_from_a_copy_while_the_kernel_holds_the_file() {
    let mut rig = Rig::new();
    rig.put("f", b"12345");
    let (fh, kernel) = open_kernel(&rig, "f");
    kernel.write_all_at(b"abcdefg", 0).unwrap();
    rig.flush(fh).unwrap();
    rig.seal_closed().unwrap();
    assert_eq!(waiting(&rig, "f"), [5, 7]);
    assert_eq!(cut(&rig, "f").as_deref(), Some(&b"abcdefg"[..]));
    // It goes on changing; what was sealed does not.
    kernel.write_all_at(b"ABC", 0).unwrap();
    assert_eq!(cut(&rig, "f").as_deref(), Some(&b"abcdefg"[..]));
    assert_eq!(rig.text("f").await, "ABCdefg");
    // A power cut now leaves what `close` had answered and `wait` had sealed.
    drop(kernel);
    power_cut(&mut rig);
    assert_eq!(rig.text("f").await, "abcdefg");
    assert_eq!(cut(&rig, "f").as_deref(), Some(&b"abcdefg"[..]));
    common::check_rows(&rig, None);
}

/// A mapping can live for days: what it holds goes out all the same, and again when it has changed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn file_that_stays_mapped_is_sealed_as_it_lies() {
    let mut rig = Rig::new();
    rig.put("f", b"12345");
    let (fh, mapped) = open_kernel(&rig, "f");
    mapped.write_all_at(b"abcde", 0).unwrap();
    rig.release(fh).unwrap();
    rig.seal_closed().unwrap();
    assert_eq!(waiting(&rig, "f"), [5, 5]);
    assert_eq!(cut(&rig, "f").as_deref(), Some(&b"abcde"[..]));
    assert_eq!(rig.unsealed_files().closed, 1);
    // Nothing new, nothing to seal.
    rig.seal_closed().unwrap();
    assert_eq!(waiting(&rig, "f").len(), 2);
    mapped.write_all_at(b"x", 5).unwrap();
    rig.seal_closed().unwrap();
    assert_eq!(waiting(&rig, "f"), [5, 5, 6]);
    drop(mapped);
    rig.seal_quiet().unwrap();
    assert_eq!((waiting(&rig, "f").len(), rig.unsealed_files().closed), (3, 0));
    assert_eq!(cut(&rig, "f").as_deref(), Some(&b"abcdex"[..]));
    // Copies that nothing speaks of any more go at the next start.
    let copies = rig.options.state_dir.join("copies");
    std::fs::write(copies.join("77.1"), "stray").unwrap();
    rig.crash();
    assert!(!copies.join("77.1").exists());
    assert_eq!(cut(&rig, "f").as_deref(), Some(&b"abcdex"[..]));
}

/// A log that is written all the time was sealed, written over before it was cut, sealed again, for ever; whatever was
/// sealed after its rename waited for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn file_that_is_written_all_the_time_is_published_from_a_copy() {
    let rig = Rig::new();
    let (attr, fh) = rig.create_open("log").unwrap();
    rig.write(fh, 0, b"one ", true).unwrap();
    let node = rig.handle(fh).unwrap().node.clone();
    rig.seal_open(&node).unwrap();
    rig.write(fh, 0, b"two ", true).unwrap();
    assert_eq!(cut(&rig, "log").as_deref(), Some(&b"one "[..]));
    rig.mv("log", "log.1").unwrap();
    rig.write(fh, 0, b"three", true).unwrap();
    assert_eq!(cut(&rig, "log.1").as_deref(), Some(&b"one "[..]));
    rig.release(fh).unwrap();
    assert_eq!(cut(&rig, "log.1").as_deref(), Some(&b"one two three"[..]));
    assert_eq!(rig.ino("log.1"), attr.ino);
    common::check_rows(&rig, None);
}

/// One file with trouble of its own kept every other one from being sealed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn regression_file_that_cannot_be_sealed_keeps_no_other_from_it() {
    let rig = Rig::new();
    for p in ["a", "b", "c"] {
        rig.put(p, b"12345");
    }
    let (fh, file) = open_lent(&rig, rig.ino("b"), true);
    rig.count_open(fh, true).unwrap();
    file.write_all_at(b"lost", 0).unwrap();
    drop(file);
    rig.flush(fh).unwrap();
    std::fs::remove_file(local(&rig, true, rig.ino("b"))).unwrap();
    for p in ["a", "c"] {
        let fh = rig.open_rw(p);
        rig.write(fh, 5, b"6", false).unwrap();
        rig.flush(fh).unwrap();
    }
    rig.seal_closed().unwrap_err();
    assert_eq!((waiting(&rig, "a").last(), waiting(&rig, "c").last()), (Some(&6), Some(&6)));
}

/// The cache lets go only of what the store was just asked for: an object that a store lost may be here alone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_what_the_store_still_has_is_evicted() {
    use tcfs::store::Store;
    let mut rig = Rig::new();
    let bytes = |i: u8| vec![i; 300_000];
    for i in 0..3 {
        rig.remote("bob", &format!("f{i}"), &bytes(i)).await;
        assert!(rig.cat(&format!("f{i}")).await == bytes(i));
    }
    rig.restart();
    rig.crash_with(|o| o.cache_max = 1);
    let lost = rig.keys.chunk(&common::hash(&bytes(1)));
    rig.store.delete(&lost).await.unwrap();
    rig.store.set(vec![tcfs::store::fault::Rule::new(tcfs::store::fault::Mode::Down)]);
    rig.evict().await;
    assert_eq!(rig.cache_use().files, 3, "without the store nothing can come back");
    rig.store.clear();
    rig.evict().await;
    assert_eq!(rig.cache_use().files, 1);
    rig.store.set(vec![tcfs::store::fault::Rule::new(tcfs::store::fault::Mode::Down)]);
    assert!(rig.cat("f1").await == bytes(1));
}

/// A write that fails in its middle has changed bytes all the same: they belong to the next version, and what was
/// sealed before is no longer to be had.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn regression_write_that_fails_in_its_middle_counts_as_far_as_it_came() {
    const LIMIT: usize = 4 << 20;
    let rig = Rig::new();
    let old = vec![b'o'; LIMIT];
    rig.put("f", &old);
    // SAFETY: plain calls; this process runs this test only. Beyond the limit a write gives EFBIG.
    unsafe {
        libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
        libc::setrlimit(libc::RLIMIT_FSIZE, &libc::rlimit { rlim_cur: LIMIT as u64, rlim_max: LIMIT as u64 });
    }
    let fh = rig.open_rw("f");
    assert_eq!(rig.write(fh, LIMIT as u64 - 4, b"newer...", false).unwrap(), 4);
    assert_eq!(rig.write(fh, LIMIT as u64, b"...", false).unwrap_err().errno(), libc::EFBIG);
    rig.flush(fh).unwrap();
    rig.release(fh).unwrap();
    let want = [&old[4..], b"newe"].concat();
    assert!(rig.cat("f").await == want);
    assert!(cut(&rig, "f").unwrap() == want);
    let rows = rig.outbox();
    let (_, ino, first) = rows[0].files[0];
    assert!(tcfs::vfs::VfsFiles(std::sync::Arc::clone(&rig)).cut_source(ino, first).unwrap().is_none());
}

/// A file that `tcfs push` puts over one that was synced.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn file_that_is_pushed_over_synced_bytes_is_synced_first() {
    use tcfs::model::ops::Attrs;
    let mut rig = Rig::new();
    put_synced(&rig, "f", b"old, synced");
    let outside = rig.dir.path().join("outside");
    std::fs::write(&outside, "pushed").unwrap();
    let bytes = rig.copy_in(&std::fs::File::open(&outside).unwrap()).unwrap().unwrap();
    let attrs = Attrs { mode: 0o644, mtime: (1, 0), ..Attrs::default() };
    rig.place(1, "f", &mut tcfs::vfs::New::File(bytes), &attrs, &[], true).unwrap();
    rig.free_orphans().unwrap();
    power_cut(&mut rig);
    assert_eq!(rig.text("f").await, "pushed");
}

/// A file that was half written when what waits was synced counted as synced, and was sealed half written.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn regression_file_being_written_is_not_kept_half_after_a_power_cut() {
    let mut rig = Rig::new();
    rig.put("f", b"one");
    rig.put("g", b"one");
    for p in ["f", "g"] {
        let fh = rig.open_file(rig.ino(p), true, true).unwrap().fh;
        rig.write(fh, 0, b"half", false).unwrap();
        if p == "g" {
            rig.fsync(fh).unwrap();
        }
    }
    rig.sync_waiting().unwrap();
    power_cut(&mut rig);
    assert!(!rig.has("f"));
    assert_eq!(rig.text("g").await, "half", "its program asked for it");
}

/// A kernel that was told of an error asks again, for a page: the program waited for the deadline twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn regression_a_read_that_found_no_store_does_not_wait_for_it_again_at_once() {
    use tcfs::store::fault::{Mode, Rule};
    let rig = Rig::with(|o| o.read_deadline = std::time::Duration::from_millis(300));
    rig.remote("bob", "f", b"published").await;
    let fh = rig.open_ro("f");
    rig.store.set(vec![Rule::new(Mode::Down)]);
    assert!(rig.read_fh(fh, 0, 9).await.unwrap_err().kind().is_transient());
    rig.store.clear();
    // The clock is turned by hand: it stands still.
    assert!(rig.read_fh(fh, 0, 9).await.unwrap_err().kind().is_transient());
    rig.clock.advance(2_000_000_000);
    assert_eq!(rig.read_fh(fh, 0, 9).await.unwrap(), b"published");
}

/// A version that was in a batch already (and in the store, with its bytes) was taken back with what was written on top
/// of it: others had it, this machine did not, and its number would have been used again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn regression_what_is_in_a_fixed_batch_is_not_taken_back_after_a_power_cut() {
    use tcfs::state::rows::{Batch, Sealed};
    use tcfs::state::{Replica, Tree};
    let mut rig = Rig::new();
    rig.put("f", b"one");
    let replica: &Replica = rig.replica();
    let rows: Vec<(u64, Sealed)> = replica.read(|r| r.scan_int(Tree::Outbox, 0, u64::MAX, 10)).unwrap();
    let (seq, mut v) = (rows[0].0, rows[0].1.versions[0].clone());
    v.kind = tcfs::model::Kind::File(rig.upload("f", b"one").await);
    let batch = Batch { body: Vec::new(), rows: vec![seq], versions: vec![v.clone()] };
    rig.replica().db().write(|t| t.put(Tree::Batch, 1, &batch)).unwrap();
    // Written again, in the same inode, and not closed when the power went.
    let fh = rig.open_file(rig.ino("f"), true, true).unwrap().fh;
    rig.write(fh, 0, b"half", false).unwrap();
    power_cut(&mut rig);
    assert_eq!(rig.text("f").await, "one");
    assert_eq!(rig.entry("f").heads, [v]);
    common::check_rows(&rig, None);
}

/// What is done to a file by name while the kernel holds it for a writer that writes nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attributes_and_moves_of_a_file_that_is_lent_and_not_written_are_kept() {
    let rig = Rig::new();
    for p in ["mode", "attr", "moved", "behind"] {
        rig.remote("bob", p, b"published").await;
        assert_eq!(rig.text(p).await, "published");
        let (fh, file) = open_lent(&rig, rig.ino(p), false);
        rig.count_open(fh, true).unwrap();
        drop(file);
        match p {
            "mode" => drop(rig.chmod(p, 0o600)),
            "attr" => rig.setxattr(rig.ino(p), "user.x", Some(b"y"), false, false).unwrap(),
            "moved" => rig.mv(p, "elsewhere").unwrap(),
            _ => {
                // Something newer came that is not shown yet: what is moved is what was shown.
                rig.remote("bob", p, b"from bob").await;
                rig.mv(p, "ahead").unwrap();
            }
        }
        rig.flush(fh).unwrap();
        rig.release(fh).unwrap();
        common::check_rows(&rig, None);
    }
    let last = |p: &str| rig.outbox().into_iter().flat_map(|r| r.versions).rfind(|v| v.path.as_str() == p).unwrap();
    assert_eq!(last("mode").mode & 0o777, 0o600);
    assert!(last("attr").xattrs.contains_key("user.x"));
    assert_eq!(rig.text("elsewhere").await, "published");
    assert_eq!((rig.text("ahead").await, rig.text("behind").await), ("published".to_owned(), "from bob".to_owned()));
    assert!(!rig.has("moved"));
    // Also if the daemon is killed before the release.
    let mut rig = rig;
    let (fh, file) = open_lent(&rig, rig.ino("mode"), false);
    rig.count_open(fh, true).unwrap();
    drop(file);
    rig.chmod("mode", 0o640);
    rig.crash();
    let last = rig.outbox().into_iter().flat_map(|r| r.versions).rfind(|v| v.path.as_str() == "mode").unwrap();
    assert_eq!(last.mode & 0o777, 0o640);
}

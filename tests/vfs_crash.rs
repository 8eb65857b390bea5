//! Kills and power cuts, on the drive in the process: what a start finds, what it keeps and what it takes back. A power
//! cut is a start in another boot; what the disk lost is taken away by hand. No kernel: where it would write a local
//! file by itself (passthrough) the test does.

#![allow(clippy::unwrap_used)]

#[path = "common/vfs.rs"]
mod common;

use common::Rig;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

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
    let (fh, file) = open_lent(&rig, rig.ino("f"), false);
    rig.count_open(fh, true).unwrap();
    // Stands for the mapping: something that can write and that nobody closed.
    let mapped = std::fs::File::options().write(true).open(local(&rig, true, rig.ino("f"))).unwrap();
    drop(file);
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

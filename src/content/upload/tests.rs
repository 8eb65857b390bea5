use super::super::chunker::zeros;
use super::*;
use crate::clock::ManualClock;
use crate::content::testing::{MemStore, chunks_of, noise, text};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

struct Bench {
    store: Arc<MemStore>,
    clock: Arc<ManualClock>,
    up: Uploader,
}

fn bench(options: UploadOptions) -> Bench {
    let (store, clock) = (MemStore::new(), ManualClock::new(1_000_000_000_000, 1));
    let up = Uploader::new(store.clone(), Keys::new("p"), clock.clone(), options);
    Bench { store, clock, up }
}

impl Bench {
    /// The file as a reader of the store would get it.
    fn read_back(&self, cut: &Cut) -> Vec<u8> {
        let keys = Keys::new("p");
        let objects = self.store.objects.lock();
        let mut out = Vec::new();
        for c in &cut.chunks {
            out.extend_from_slice(&codec::decode(&c.0, Some(c.1), objects[&keys.chunk(&c.0)].clone()).unwrap());
        }
        out
    }
    async fn whole(&self, data: &[u8]) -> Result<Cut> {
        self.up.publish(Box::new(Bytes::copy_from_slice(data)), None, &RangeSet::new(), data.len() as u64).await
    }
    async fn edit(&self, data: &[u8], base: &[ChunkRef], dirty: std::ops::Range<u64>) -> Result<Cut> {
        self.up.publish(Box::new(Bytes::copy_from_slice(data)), Some(base), &RangeSet::of(dirty), data.len() as u64).await
    }
}

fn mixed(len: usize) -> Vec<u8> {
    [noise(11, len / 2), text(12, len - len / 2)].concat()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_whole_file_is_in_the_store_with_its_hashes() {
    let b = bench(UploadOptions::default());
    let data = mixed(11 << 20);
    let cut = b.whole(&data).await.unwrap();
    assert_eq!(cut.chunks, chunks_of(&data));
    assert_eq!(cut.file_hash, Some(Hash::of(&data)));
    assert_eq!(cut.root, root_of(&cut.chunks));
    assert!(b.read_back(&cut) == data);
    let n = cut.chunks.len() as u64;
    assert_eq!(cut.stats, CutStats { cut: n, read: data.len() as u64, sent: n, headed: n, kept: 0, sent_bytes: cut.stats.sent_bytes });
    assert!(cut.stats.sent_bytes < data.len() as u64 * 3 / 4, "text was compressed");
}

#[tokio::test]
async fn known_chunks_are_not_sent_and_old_knowledge_is_asked_again() {
    let b = bench(UploadOptions::default());
    let data = noise(1, 5 << 20);
    let first = b.whole(&data).await.unwrap();
    let again = b.whole(&data).await.unwrap();
    assert_eq!((again.chunks.clone(), again.stats.sent, again.stats.headed), (first.chunks, 0, 0));
    b.clock.advance(7 * 3600 * 1_000_000_000);
    let later = b.whole(&data).await.unwrap();
    assert_eq!((later.stats.sent, later.stats.headed), (0, again.chunks.len() as u64));
    // Swept by garbage collection meanwhile: sent again.
    b.clock.advance(7 * 3600 * 1_000_000_000);
    b.store.objects.lock().clear();
    assert_eq!(b.whole(&data).await.unwrap().stats.sent, again.chunks.len() as u64);
}

#[tokio::test]
async fn an_edit_sends_what_changed_and_a_lost_base_chunk_goes_out_again() {
    let b = bench(UploadOptions::default());
    let mut data = noise(2, 12 << 20);
    let base = b.whole(&data).await.unwrap().chunks;
    data[6_000_000] ^= 1;
    let cut = b.edit(&data, &base, 6_000_000..6_000_001).await.unwrap();
    assert_eq!((cut.stats.sent, cut.file_hash), (1, None));
    assert_eq!(cut.stats.kept + 1, cut.chunks.len() as u64);
    assert!(b.read_back(&cut) == data);

    // Another day, the store lost two of the kept chunks.
    b.clock.advance(24 * 3600 * 1_000_000_000);
    for c in [&base[0], &base[1]] {
        b.store.objects.lock().remove(&Keys::new("p").chunk(&c.0)).unwrap();
    }
    let base = cut.chunks;
    data[11_000_000] ^= 1;
    let cut = b.edit(&data, &base, 11_000_000..11_000_001).await.unwrap();
    assert_eq!(cut.stats.sent, 3);
    assert!(b.read_back(&cut) == data);

    // The same with other bytes here than the base has: refused, not published.
    b.clock.advance(24 * 3600 * 1_000_000_000);
    b.store.objects.lock().remove(&Keys::new("p").chunk(&cut.chunks[0].0)).unwrap();
    data[5] ^= 1;
    let e = b.edit(&data, &cut.chunks, 11_000_000..11_000_001).await.unwrap_err();
    assert_eq!(e.kind(), Kind::Corrupt);
}

#[tokio::test]
async fn small_files_cost_one_put_and_equal_ones_none() {
    let b = bench(UploadOptions::default());
    for len in [1, 100, 5000, MIN] {
        let data = text(3, len);
        let cut = b.up.publish_small(data.clone().into()).await.unwrap();
        assert_eq!(cut.chunks, vec![ChunkRef(Hash::of(&data), len as u32)]);
        assert_eq!(cut.file_hash, Some(Hash::of(&data)));
        assert!(b.read_back(&cut) == data);
        assert_eq!(cut, Cut { stats: cut.stats, ..b.whole(&data).await.unwrap() });
    }
    assert_eq!((b.store.puts.load(SeqCst), b.store.heads.load(SeqCst)), (4, 1));
    let big = noise(4, MIN + 1);
    assert_eq!(b.up.publish_small(big.clone().into()).await.unwrap().chunks, chunks_of(&big));
}

#[tokio::test]
async fn the_empty_file_has_no_chunks_and_the_root_of_the_empty_list() {
    let b = bench(UploadOptions::default());
    let small = b.up.publish_small(Bytes::new()).await.unwrap();
    assert_eq!(small, b.whole(b"").await.unwrap());
    // Truncated to nothing over a base.
    assert_eq!(small, b.edit(b"", &[ChunkRef(Hash::of(b"x"), 1)], 0..0).await.unwrap());
    assert_eq!((small.chunks.len(), small.file_hash), (0, Some(Hash::of(b""))));
    assert_eq!(small.root, Hash::of(b"tcfs-root-v1"));
    assert!(b.store.objects.lock().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hole_of_gigabytes_is_one_object() {
    let b = bench(UploadOptions::default());
    let f = tempfile::tempfile().unwrap();
    f.set_len(300 << 20).unwrap();
    let cut = b.up.publish(Box::new(f), None, &RangeSet::new(), 300 << 20).await.unwrap();
    assert_eq!((cut.chunks.len(), cut.stats.sent), (75, 1));
    assert!(cut.stats.read <= 8 << 20 && cut.stats.sent_bytes < 1000, "{:?}", cut.stats);
    let mut h = blake3::Hasher::new();
    for _ in 0..75 {
        h.update(zeros());
    }
    assert_eq!(cut.file_hash, Some(Hash(*h.finalize().as_bytes())));
}

#[tokio::test]
async fn an_error_of_the_store_is_handed_on_and_the_retry_sends_the_rest() {
    let b = bench(UploadOptions { puts: 1, ..UploadOptions::default() });
    let data = noise(6, 10 << 20);
    let n = chunks_of(&data).len() as u64;
    b.store.put_faults.store(1, SeqCst);
    let e = b.whole(&data).await.unwrap_err();
    assert!(e.kind().is_transient());
    let before = b.store.puts.load(SeqCst);
    let cut = b.whole(&data).await.unwrap();
    assert_eq!(before + cut.stats.sent, n);
    assert!(b.read_back(&cut) == data);
}

#[tokio::test]
async fn an_object_that_cannot_be_the_chunk_is_written_over() {
    let b = bench(UploadOptions::default());
    // One that is headed first and one that is put at once.
    for data in [noise(8, 200 << 10), noise(8, 5000)] {
        let key = Keys::new("p").chunk(&Hash::of(&data));
        for wrong in [Bytes::new(), Bytes::from(noise(9, 300 << 10))] {
            b.store.insert(key.clone(), wrong);
            b.up.known().forget(&Hash::of(&data));
            let cut = b.up.publish_small(data.clone().into()).await.unwrap();
            assert!(b.read_back(&cut) == data);
            b.up.known().forget(&Hash::of(&data));
            assert_eq!(b.up.publish_small(data.clone().into()).await.unwrap().stats.sent, 0);
        }
    }
}

/// Counts what is read, and tells when it is dropped.
struct Counted {
    data: Bytes,
    read: Arc<AtomicU64>,
}

impl ReadAt for Counted {
    fn read_exact_at(&self, off: u64, buf: &mut [u8]) -> Result<()> {
        self.read.fetch_add(buf.len() as u64, SeqCst);
        self.data.read_exact_at(off, buf)
    }
}

async fn until(what: &str, mut done: impl FnMut() -> bool) {
    for _ in 0..20_000 {
        if done() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    panic!("never happened: {what}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_store_holds_the_reader_back_and_a_dropped_call_stops_it() {
    let b = bench(UploadOptions { memory: 8 << 20, puts: 4, ..UploadOptions::default() });
    let gate = b.store.hold();
    let read = Arc::new(AtomicU64::new(0));
    let data = Bytes::from(noise(10, 60 << 20));
    let source = Counted { data: data.clone(), read: read.clone() };
    let up = b.up.clone();
    let size = data.len() as u64;
    let call = tokio::spawn(async move { up.publish(Box::new(source), None, &RangeSet::new(), size).await });
    until("the puts are taken and memory is short", || {
        b.store.most_busy.load(SeqCst) == 3 && b.up.inner.memory.free() < chunker::MAX >> 10
    })
    .await;
    // What is in memory, a window, and a chunk in the hands of the reader.
    assert!(read.load(SeqCst) <= (8 + 8 + 4) << 20, "{}", read.load(SeqCst));
    // Bulk has taken all it may; a small save goes by.
    let small = noise(77, 5000);
    let key = Keys::new("p").chunk(&Hash::of(&small));
    let (up, body) = (b.up.clone(), Bytes::from(small));
    let save = tokio::spawn(async move { up.publish_small(body).await });
    until("the small save is at the store", || b.store.began.lock().contains(&key)).await;
    call.abort();
    until("the reader stops and lets go of the source", || Arc::strong_count(&read) == 1).await;
    assert!(read.load(SeqCst) < size);
    until("the memory comes back", || b.up.inner.memory.free() >= (8 << 10) - 5).await;
    gate.add_permits(1000);
    save.await.unwrap().unwrap();
    let cut = b.whole(&data).await.unwrap();
    assert!(b.store.most_busy.load(SeqCst) <= 4);
    assert!(b.read_back(&cut) == data);
}

#[tokio::test]
async fn an_error_of_the_source_is_handed_on() {
    let b = bench(UploadOptions::default());
    let short = Bytes::from(noise(1, 3 << 20));
    let e = b.up.publish(Box::new(short), None, &RangeSet::new(), 9 << 20).await.unwrap_err();
    assert_eq!(e.kind(), Kind::Busy);
}

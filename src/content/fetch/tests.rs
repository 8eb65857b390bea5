use super::*;
use crate::clock::ManualClock;
use crate::content::testing::{MemStore, noise, text};
use std::collections::VecDeque;
use std::sync::atomic::Ordering::SeqCst;

fn keys() -> Keys {
    Keys::new("p")
}

fn fetcher(store: &Arc<MemStore>, options: FetchOptions) -> Fetcher {
    Fetcher::new(store.clone(), keys(), ManualClock::new(0, 7), options)
}

/// Puts a chunk into the store as an uploader would; returns it.
fn put(store: &MemStore, data: Vec<u8>) -> ChunkRef {
    let chunk = ChunkRef(Hash::of(&data), data.len() as u32);
    store.insert(keys().chunk(&chunk.0), codec::encode(data.into()));
    chunk
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

const FG: Priority = Priority::Foreground;
const BG: Priority = Priority::Background;

/// Lets every task that can run do so.
async fn settle() {
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
}

fn spawn(f: &Fetcher, chunk: ChunkRef, p: Priority) -> tokio::task::JoinHandle<Result<Bytes>> {
    let f = f.clone();
    tokio::spawn(async move { f.chunk(chunk, p, soon()).await })
}

#[tokio::test]
async fn raw_and_compressed_chunks_and_manifests_come_checked() {
    let store = MemStore::new();
    let f = fetcher(&store, FetchOptions::default());
    for data in [noise(1, 100), noise(2, 900_000), text(3, 100), text(4, 900_000)] {
        let c = put(&store, data.clone());
        assert!(f.chunk(c, FG, soon()).await.unwrap() == data);
        assert!(f.chunk_of_unknown_length(c.0, BG, soon()).await.unwrap() == data);
    }
    let body = Bytes::from_static(b"{\"version\":2}");
    let id = Hash::of(&body);
    store.insert(keys().manifest(&id), body.clone());
    assert_eq!(f.manifest(id, FG, soon()).await.unwrap(), body);
    let s = f.stats();
    assert_eq!((s.requests, s.hits, s.retries, s.corrupt), (9, 0, 0, 0));
    assert!(s.bytes > 1_800_000 && s.bytes < 3_000_000);
}

#[tokio::test]
async fn callers_of_one_chunk_share_one_request_even_if_the_first_goes_away() {
    let store = MemStore::new();
    let f = fetcher(&store, FetchOptions::default());
    let c = put(&store, text(1, 5000));
    let gate = store.hold();
    let calls: Vec<_> = (0..10).map(|_| spawn(&f, c, BG)).collect();
    settle().await;
    calls[0].abort();
    settle().await;
    gate.add_permits(1);
    let mut results = Vec::new();
    for call in calls {
        results.push(call.await);
    }
    assert!(results[0].is_err());
    assert!(results[1..].iter().all(|r| r.as_ref().unwrap().as_ref().unwrap()[..] == text(1, 5000)));
    assert_eq!((f.stats().requests, f.stats().hits), (1, 9));
}

#[tokio::test]
async fn a_request_that_nobody_waits_for_is_stopped_and_gives_its_place_back() {
    let store = MemStore::new();
    let f = fetcher(&store, FetchOptions { requests: 1, ..FetchOptions::default() });
    let (a, b) = (put(&store, noise(1, 50)), put(&store, noise(2, 50)));
    let gate = store.hold();
    // One under way, one in the queue: both dropped.
    let calls = [spawn(&f, a, FG), spawn(&f, b, FG)];
    settle().await;
    assert_eq!(store.busy.load(SeqCst), 1);
    calls.iter().for_each(|c| c.abort());
    settle().await;
    assert_eq!(store.busy.load(SeqCst), 0);
    gate.add_permits(1);
    assert!(f.chunk(a, FG, soon()).await.unwrap() == noise(1, 50));
    assert_eq!(f.stats().requests, 2);
}

#[tokio::test]
async fn what_a_program_waits_for_overtakes_read_ahead() {
    let store = MemStore::new();
    let f = fetcher(&store, FetchOptions { requests: 2, background: 1, ..FetchOptions::default() });
    let c: Vec<ChunkRef> = (0..7).map(|i| put(&store, noise(i, 50))).collect();
    let gate = store.hold();
    let mut calls: Vec<_> = c[..4].iter().map(|&c| spawn(&f, c, BG)).collect();
    settle().await;
    assert_eq!(store.gets.lock().len(), 1, "one place stays free for the foreground");
    calls.push(spawn(&f, c[4], FG));
    settle().await;
    assert_eq!(store.gets.lock().len(), 2);
    calls.push(spawn(&f, c[5], FG));
    // A program now wants what read-ahead has queued last.
    calls.push(spawn(&f, c[3], FG));
    settle().await;
    assert_eq!(store.gets.lock().len(), 2);
    for _ in 0..6 {
        gate.add_permits(1);
        settle().await;
    }
    let order: Vec<usize> = store.gets.lock().iter().map(|k| c.iter().position(|c| keys().chunk(&c.0) == *k).unwrap()).collect();
    assert_eq!(order[..2], [0, 4]);
    let at = |i| order.iter().position(|&o| o == i).unwrap();
    assert!(at(5) < at(1) && at(3) < at(1) && at(1) < at(2), "{order:?}");
    for call in calls {
        call.await.unwrap().unwrap();
    }
    assert_eq!(store.most_busy.load(SeqCst), 2);
}

#[tokio::test]
async fn memory_bounds_big_requests_and_one_beyond_it_still_goes_alone() {
    let store = MemStore::new();
    let f = fetcher(&store, FetchOptions { memory: 1 << 20, ..FetchOptions::default() });
    let mut chunks: Vec<ChunkRef> = (0..8).map(|i| put(&store, noise(i, 400 << 10))).collect();
    chunks.push(put(&store, noise(9, 3 << 20)));
    let calls: Vec<_> = chunks.iter().map(|&c| spawn(&f, c, FG)).collect();
    for call in calls {
        call.await.unwrap().unwrap();
    }
    assert_eq!(store.most_busy.load(SeqCst), 2);
}

/// Waits a hundredth as long as in earnest.
fn impatient() -> FetchOptions {
    FetchOptions {
        first_wait: Duration::from_millis(1),
        longest_wait: Duration::from_millis(50),
        request: Duration::from_millis(300),
        ..FetchOptions::default()
    }
}

fn fail(store: &MemStore, key: String, kinds: impl IntoIterator<Item = Kind>) {
    store.get_faults.lock().insert(key, kinds.into_iter().collect::<VecDeque<_>>());
}

#[tokio::test]
async fn passing_faults_are_retried_and_the_deadline_ends_it() {
    let store = MemStore::new();
    let f = fetcher(&store, impatient());
    let c = put(&store, noise(1, 50));
    let key = keys().chunk(&c.0);
    fail(&store, key.clone(), [Kind::Unavailable, Kind::Timeout, Kind::Unavailable]);
    assert!(f.chunk(c, FG, soon()).await.is_ok());
    assert_eq!((f.stats().requests, f.stats().retries), (4, 3));

    fail(&store, key.clone(), std::iter::repeat_n(Kind::Unavailable, 1000));
    let (began, until) = (Instant::now(), Instant::now() + Duration::from_millis(200));
    let e = f.chunk(c, FG, until).await.unwrap_err();
    assert_eq!(e.kind(), Kind::Unavailable);
    assert!(e.to_string().contains("told to fail"), "{e}");
    assert!(began.elapsed() >= Duration::from_millis(200) && began.elapsed() < Duration::from_secs(5));
    let tried = f.stats().requests - 4;
    assert!((4..=20).contains(&tried), "waits grow: {tried}");

    fail(&store, key, []);
    let gate = store.hold();
    let e = f.chunk(c, FG, Instant::now() + Duration::from_millis(200)).await.unwrap_err();
    assert_eq!(e.kind(), Kind::Timeout);
    // One that hangs is given up and asked again.
    let call = spawn(&f, c, FG);
    while f.stats().retries < 4 + tried {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    gate.add_permits(1);
    assert!(call.await.unwrap().is_ok());
}

#[tokio::test]
async fn what_will_not_pass_fails_at_once() {
    let store = MemStore::new();
    let f = fetcher(&store, impatient());
    let missing = ChunkRef(Hash::of(b"?"), 1);
    assert_eq!(f.chunk(missing, FG, soon()).await.unwrap_err().kind(), Kind::NotFound);
    let c = put(&store, noise(1, 50));
    fail(&store, keys().chunk(&c.0), [Kind::Unauthorized]);
    assert_eq!(f.chunk(c, FG, soon()).await.unwrap_err().kind(), Kind::Unauthorized);
    assert_eq!(f.stats().requests, 2);
}

#[tokio::test]
async fn a_wrong_body_is_asked_for_again_and_then_corrupt() {
    let store = MemStore::new();
    let f = fetcher(&store, impatient());
    let c = put(&store, text(1, 5000));
    let key = keys().chunk(&c.0);
    let lie = |n| VecDeque::from(vec![Bytes::from(noise(2, 5000)); n]);
    store.lies.lock().insert(key.clone(), lie(2));
    assert!(f.chunk(c, FG, soon()).await.unwrap() == text(1, 5000));
    store.lies.lock().insert(key, lie(9));
    let e = f.chunk(c, FG, soon()).await.unwrap_err();
    assert_eq!(e.kind(), Kind::Corrupt);
    assert!(e.to_string().contains(&c.0.to_hex()) && e.hint_text().is_some(), "{e:?}");
    assert_eq!((f.stats().requests, f.stats().corrupt), (6, 5));

    let id = Hash::of(b"manifest");
    store.insert(keys().manifest(&id), "another");
    assert_eq!(f.manifest(id, FG, soon()).await.unwrap_err().kind(), Kind::Corrupt);
}

#[tokio::test]
async fn a_lie_about_the_length_spoils_only_its_own_call() {
    let store = MemStore::new();
    let f = fetcher(&store, impatient());
    let c = put(&store, text(1, 5000));
    let (lied, fine) = tokio::join!(f.chunk(ChunkRef(c.0, 4000), FG, soon()), f.chunk(c, FG, soon()));
    assert_eq!(lied.unwrap_err().kind(), Kind::Corrupt);
    assert!(fine.is_ok());
}

#[tokio::test]
async fn a_flight_that_panics_is_an_error_to_its_waiters() {
    let flights: Arc<Flights<u8>> = Flights::new();
    let waiter = flights.join(1, true, |_| async { panic!("on purpose") });
    let e = waiter.wait(|| "fetching".into(), soon()).await.unwrap_err();
    assert_eq!(e.kind(), Kind::Internal);
    let again = flights.join(1, true, |_| async { Ok(Bytes::from_static(b"x")) });
    assert!(!again.joined);
    assert_eq!(again.wait(|| "fetching".into(), soon()).await.unwrap(), "x");
}

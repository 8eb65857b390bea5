//! Cutting and uploading what is to be published: one task for each file, remembered until its batch is out.
//!
//! Must: what is called done is in the store, chunks first, manifest last, put or headed recently. Must: bytes count
//! only if the file did not change from the seal to the last read.
//! A round that fails later finds here what it need not upload again.
//! Not here: which files (`plan`), in what order they go out (`publish`).

use super::core::{Fleet, blocking};
use super::plan::content;

use crate::content::condemned::Doom;
use crate::content::{Uploader, chunker, codec};
use crate::error::{Error, Kind, Result};
use crate::model::manifest::{About, Manifest, SyncManifest};
use crate::model::{ChunkRef, FileContent, Hash, RelPath, Version};
use crate::store::{PutMode, get_if_there};
use bytes::Bytes;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use parking_lot::Mutex;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, Semaphore};
use tokio::task::AbortHandle;
use tokio::time::Instant;

/// Small files under way: enough to keep a store with some milliseconds of delay busy; each has at most 256 KiB in
/// memory.
const SMALL: usize = 64;
/// Files of the bulk lane under way.
const BULK: usize = 4;
/// How long a finished upload may be used: far below a quarter of the grace of garbage collection.
const FRESH: Duration = Duration::from_secs(3600);
/// After an error that is not the store's, a file is tried again no sooner.
const RETRY: Duration = Duration::from_secs(5);

/// A file that is in the store.
#[derive(Debug)]
pub(super) struct CutFile {
    pub(super) content: FileContent,
    pub(super) chunks: Vec<ChunkRef>,
}

impl CutFile {
    fn names(&self, condemned: &dyn Fn(&Hash) -> bool) -> bool {
        condemned(&self.content.manifest) || self.chunks.iter().any(|c| condemned(&c.0))
    }
}

/// How far a file is.
pub(super) enum Progress {
    /// A task is at it.
    Running {
        /// In the bulk lane.
        bulk: bool,
        /// Since when.
        since: Instant,
    },
    /// In the store.
    Done(Arc<CutFile>),
    /// The sealed bytes were written over, or removed; the outbox was searched for what replaced the version.
    Gone {
        /// For each path that had them (a file that was moved had several), the last row that was looked at.
        searched: HashMap<RelPath, u64>,
    },
    /// It did not work; tried again in the next round.
    Failed(Kind, String),
}

struct Entry {
    progress: Progress,
    task: Option<AbortHandle>,
    /// Tells a task that was replaced from its successor.
    number: u64,
    at: Instant,
}

/// All files being published.
pub(super) struct Cuts {
    entries: Mutex<HashMap<Hash, Entry>>,
    small: Arc<Semaphore>,
    bulk: Arc<Semaphore>,
    /// A file became done, gone or failed.
    pub(super) progress: Notify,
}

impl Cuts {
    pub(super) fn new() -> Cuts {
        Cuts {
            entries: Mutex::default(),
            small: Arc::new(Semaphore::new(SMALL)),
            bulk: Arc::new(Semaphore::new(BULK)),
            progress: Notify::new(),
        }
    }

    /// How far a file is.
    pub(super) fn see<T>(&self, token: &Hash, look: impl FnOnce(Option<&Progress>) -> T) -> T {
        look(self.entries.lock().get(token).map(|e| &e.progress))
    }

    /// The file, once it is in the store.
    pub(super) fn done(&self, token: &Hash) -> Option<Arc<CutFile>> {
        self.see(token, |p| match p {
            Some(Progress::Done(f)) => Some(f.clone()),
            _ => None,
        })
    }

    /// How far that was.
    pub(super) fn searched_upto(&self, token: &Hash, path: &RelPath) -> u64 {
        self.see(token, |p| match p {
            Some(Progress::Gone { searched }) => searched.get(path).copied().unwrap_or(0),
            _ => 0,
        })
    }

    /// How many files are worked on.
    pub(super) fn running(&self) -> u64 {
        self.entries.lock().values().filter(|e| matches!(e.progress, Progress::Running { .. })).count() as u64
    }

    /// Notes how far the outbox was searched for what replaces these bytes at `path`.
    pub(super) fn searched(&self, token: &Hash, path: &RelPath, upto: u64) {
        if let Some(Entry { progress: Progress::Gone { searched }, .. }) = self.entries.lock().get_mut(token) {
            searched.insert(path.clone(), upto);
        }
    }

    /// Forgets files, and stops their tasks, unless `keep` says otherwise.
    pub(super) fn retain(&self, keep: impl Fn(&Hash) -> bool) {
        self.entries.lock().retain(|token, e| {
            let stays = keep(token);
            if !stays && let Some(task) = &e.task {
                task.abort();
            }
            stays
        });
    }

    /// `condemned`: whether garbage collection is going to remove an object; asked when nothing else can become done, so
    /// that who learns of new ones meets either this file ([`Cuts::drop_condemned`]) or its own news here.
    fn finish(&self, token: Hash, number: u64, mut progress: Progress, condemned: &dyn Fn(&Hash) -> bool) {
        let mut entries = self.entries.lock();
        if let Some(e) = entries.get_mut(&token)
            && e.number == number
        {
            if let Progress::Done(f) = &progress
                && f.names(condemned)
            {
                progress = Progress::Failed(Kind::Unavailable, "what it needs was about to be removed as garbage".to_owned());
            }
            (e.progress, e.task, e.at) = (progress, None, Instant::now());
        }
        drop(entries);
        self.progress.notify_waiters();
    }

    /// Forgets files that are done and need something condemned: they are brought into the store anew.
    fn drop_condemned(&self, condemned: &dyn Fn(&Hash) -> bool) {
        self.entries.lock().retain(|_, e| !matches!(&e.progress, Progress::Done(f) if f.names(condemned)));
    }
}

impl Fleet {
    /// Sees to it that the file is in the store or on its way. `version`: the one it is published for.
    pub(super) fn start_cut(self: &Arc<Self>, token: Hash, source: Option<(u64, u64)>, version: &Version, bulk: bool) {
        let mut entries = self.cuts.entries.lock();
        if let Some(e) = entries.get(&token) {
            match &e.progress {
                Progress::Running { .. } | Progress::Gone { .. } => return,
                Progress::Done(_) if e.at.elapsed() < FRESH => return,
                Progress::Failed(kind, _) if !kind.is_transient() && e.at.elapsed() < RETRY => return,
                Progress::Done(_) | Progress::Failed(..) => {}
            }
        }
        let number = self.clock.random();
        let Some((ino, wgen)) = source else {
            let why = format!("publishing {:?}: no row of the outbox says where its bytes are", version.path);
            entries.insert(token, Entry { progress: Progress::Failed(Kind::Internal, why), task: None, number, at: Instant::now() });
            return;
        };
        let (this, version) = (self.clone(), version.clone());
        let task = tokio::spawn(async move {
            let progress = match this.cut(ino, wgen, &version, bulk).await {
                Ok(Some(file)) => Progress::Done(Arc::new(file)),
                Ok(None) => Progress::Gone { searched: HashMap::new() },
                Err(e) => Progress::Failed(e.kind(), e.to_string()),
            };
            this.cuts.finish(token, number, progress, &|h| this.is_condemned(h));
        });
        let entry = Entry {
            progress: Progress::Running { bulk, since: Instant::now() },
            task: Some(task.abort_handle()),
            number,
            at: Instant::now(),
        };
        entries.insert(token, entry);
    }

    /// Whether garbage collection somewhere is going to remove an object.
    pub(super) fn is_condemned(&self, hash: &Hash) -> bool {
        self.options.upload.condemned.of(hash).is_some()
    }

    /// New objects are condemned: what is done and needs one of them is not done.
    pub(super) fn drop_condemned_cuts(&self) {
        self.cuts.drop_condemned(&|h| self.is_condemned(h));
    }

    /// Forgets all files but these, and stops their uploads.
    pub(super) fn keep_cuts(&self, wanted: &HashSet<Hash>) {
        self.cuts.retain(|t| wanted.contains(t));
    }

    /// Brings one file into the store. None if its sealed bytes are gone.
    async fn cut(self: &Arc<Self>, ino: u64, wgen: u64, version: &Version, bulk: bool) -> Result<Option<CutFile>> {
        let lane = if bulk { &self.cuts.bulk } else { &self.cuts.small };
        let closed = |e| Error::new(Kind::Internal, "publishing a file").source(e);
        let _permit = lane.clone().acquire_owned().await.map_err(closed)?;
        let uploader = if bulk { &self.bulk } else { &self.uploader };
        let doing = |e: Error| e.context(format!("publishing {:?}", version.path));
        let size = content(version).map_or(0, |c| c.size);
        // No bytes: nothing to read, and nothing that could be gone.
        let empty = size == 0;
        let bytes = async {
            match empty {
                true => uploader.publish_small(Bytes::new()).await.map(Some),
                false => self.cut_bytes(uploader, ino, wgen).await,
            }
        };
        let cut = match bytes.await {
            Ok(Some(cut)) => cut,
            Ok(None) => return Ok(None),
            // A file that became shorter under the reader is not an error of the disk.
            Err(_) if !empty && !self.files.unchanged(ino, wgen) => return Ok(None),
            Err(e) => return Err(doing(e)),
        };
        if !empty && !self.files.unchanged(ino, wgen) {
            return Ok(None);
        }
        let about = About {
            vclock: version.vclock.clone(),
            written_by: version.device_id.clone(),
            written_at: version.written_at.div_euclid(1000),
            mode: version.mode,
            mtime: version.mtime,
            base: version.base,
        };
        let manifest = SyncManifest::new(&version.path, &cut.chunks, cut.file_hash, about);
        if manifest.file_size != size {
            let what = format!("{} bytes were cut of a file sealed with {size}", manifest.file_size);
            return Err(doing(Error::new(Kind::Internal, what)));
        }
        let (id, body) = manifest.encode().map_err(doing)?;
        self.uploader.put_manifest(&id, body.into()).await.map_err(doing)?;
        let content = manifest.content(id).ok_or_else(|| doing(Error::new(Kind::Internal, "a manifest without sizes")))?;
        Ok(Some(CutFile { content, chunks: cut.chunks }))
    }

    async fn cut_bytes(self: &Arc<Self>, uploader: &Uploader, ino: u64, wgen: u64) -> Result<Option<crate::content::Cut>> {
        let this = self.clone();
        let opened = blocking(move || {
            let Some(source) = this.files.cut_source(ino, wgen)? else { return Ok(None) };
            if source.size > chunker::MIN as u64 {
                return Ok(Some((source, None)));
            }
            let mut bytes = vec![0; source.size as usize];
            source.reader.read_exact_at(0, &mut bytes)?;
            Ok(Some((source, Some(Bytes::from(bytes)))))
        })
        .await?;
        Ok(match opened {
            None => None,
            Some((_, Some(bytes))) => Some(uploader.publish_small(bytes).await?),
            Some((s, None)) => Some(uploader.publish(s.reader, s.base.as_deref(), &s.dirty, s.size).await?),
        })
    }

    /// Makes sure that manifests of versions whose bytes were published before are still there, and stay: their chunks are
    /// live as long as they are. One that is gone is said so; the version goes out in any case, since other devices and the
    /// tree here name it already.
    pub(super) async fn confirm_manifests(&self, versions: &[Version]) -> Result<()> {
        let mut once = HashSet::new();
        let old = versions.iter().flat_map(|v| v.kind.contents().map(move |c| (c, v)));
        let old: Vec<_> = old.filter(|(c, _)| !self.uploader.is_known(&c.manifest) && once.insert(c.manifest)).collect();
        let confirms: Vec<_> = old.into_iter().map(|(c, v)| self.confirm(c, v)).collect();
        stream::iter(confirms).buffer_unordered(SMALL).try_collect::<Vec<()>>().await.map(|_| ())
    }

    async fn confirm(&self, c: &FileContent, v: &Version) -> Result<()> {
        if !self.keep(c).await? {
            tracing::error!(path = %v.path, manifest = %c.manifest, "the store has lost the manifest of a version that goes on to be used");
        }
        Ok(())
    }

    /// Sees to it that content which was published before is in the store and stays there, although garbage collection may
    /// be about to remove it. False if its manifest is gone.
    ///
    /// Errors: of the store; `NotFound` if a chunk is gone.
    pub(super) async fn keep(&self, c: &FileContent) -> Result<bool> {
        let (id, key) = (c.manifest, self.keys.manifest(&c.manifest));
        if !self.is_condemned(&id) {
            let there = self.store.head(&key).await?.is_some();
            if there {
                self.uploader.known().add(id);
            }
            return Ok(there);
        }
        let Some(body) = get_if_there(&*self.store, &key).await? else { return Ok(false) };
        // Chunks first: a manifest that is there has all of them. Those that are not condemned something else needs.
        let chunks: HashSet<Hash> = Manifest::parse(&body)?.chunks().iter().filter(|h| self.is_condemned(h)).copied().collect();
        let again: Vec<_> = chunks.into_iter().map(|h| self.put_chunk_again(h)).collect();
        let put: Vec<(Hash, Doom)> =
            stream::iter(again).buffer_unordered(BULK).try_filter_map(|d| async move { Ok(d) }).try_collect().await?;
        // Waiting goes on for all of them at once.
        let condemned = &self.options.upload.condemned;
        let outlasting =
            put.into_iter().map(|(h, doom)| async move { condemned.outlast(&*self.store, &self.keys.chunk(&h), &h, doom).await });
        futures_util::future::try_join_all(outlasting).await?;
        self.uploader.put_manifest(&id, body).await?;
        Ok(true)
    }

    async fn put_chunk_again(&self, hash: Hash) -> Result<Option<(Hash, Doom)>> {
        let key = self.keys.chunk(&hash);
        let body = self.store.get(&key).await?;
        codec::decode(&hash, None, body.clone())?;
        let Some(doom) = self.options.upload.condemned.of(&hash) else { return Ok(None) };
        self.store.put(&key, body, PutMode::Overwrite).await?;
        Ok(Some((hash, doom)))
    }
}

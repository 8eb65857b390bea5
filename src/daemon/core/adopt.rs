//! `adopt`: takes over a bucket in the older layout.
//!
//! Must: below the older prefix nothing is written but what this fleet writes anyway (chunks and manifests under names
//! that say what they hold). Must: an entry that cannot be read is told and stops no other; an error of a store ends the
//! run, which can be begun again: what was taken is passed over.
//! Not here: what becomes of each (`model::adopt`), reading (`fleet::older`), the tree (`vfs::adopt`).

use super::{Core, blocking, s3_options};
use crate::daemon::protocol::{self, AdoptOutcome, AdoptSum, AdoptedPath, Doubled, IgnoredKeys, Item, Response};
use crate::daemon::service::Progress;
use crate::error::{Error, Kind, Result};
use crate::fleet::facts;
use crate::fleet::older::{self, OldBucket, OldFile, OldPath};
use crate::model::adopt::OldPlace;
use crate::model::old_index::{OldEntry, OldManifest};
use crate::model::{self, RelPath};
use crate::store::{ObjectMeta, identity, open};
use crate::vfs::{Adopt, Adopted};
use futures_util::FutureExt;
use futures_util::stream::{self, StreamExt};
use std::collections::HashSet;

/// Entries read at a time; the memory for their chunks has a bound of its own.
const PARALLEL: usize = 32;
/// Old versions taken into the tree in one transaction: programs on the mount do not wait long for it.
const PAGE: usize = 64;
/// Permission bits of a directory, of which the older layout told none.
const DIR_MODE: u32 = 0o755;

/// How many index objects there are: for whoever looks on.
async fn count(bucket: &OldBucket, progress: &Progress) -> Result<u64> {
    let (mut n, mut mark) = (0, None);
    loop {
        let (objects, next) = bucket.page(mark.as_deref()).await?;
        n += objects.len() as u64;
        progress.files("counting", n, None, None);
        match next {
            Some(m) => mark = Some(m),
            None => return Ok(n),
        }
    }
}

/// What an index object turned out to be.
enum Found {
    /// It can be taken; so many bytes.
    Ready(Box<Adopt>, u64),
    /// Not; the line that tells it.
    Not(AdoptedPath),
}

impl Core {
    pub(super) async fn adopt(&self, request: protocol::Adopt, progress: &Progress) -> Result<Response> {
        // Everything that can be taken is compared with what the fleet has now, and published at once.
        if self.catch_up().await? {
            return Err(Error::new(Kind::Unavailable, "adopting: the store of this drive does not answer").hint("see `tcfs doctor`"));
        }
        let vfs = self.vfs.clone();
        blocking(move || vfs.seal_closed()).await?;
        // What is not cut yet cannot be compared with anything.
        self.all_out(progress).await?;
        let (bucket, place, mut sum) = self.older(&request).await?;
        let work = Work { core: self, bucket: &bucket, place: &place, doubled: request.doubled, dry: request.dry_run };
        let mut seen: HashSet<RelPath> = HashSet::new();
        let total = count(&bucket, progress).await?;
        let mut mark = None;
        let sealing = self.fleet.hold_lease().await;
        loop {
            progress.files("reading", sum.entries, Some(total), None);
            let (objects, next) = bucket.page(mark.as_deref()).await?;
            let mut reading = stream::iter(objects).map(|o| work.read(o).boxed()).buffered(PARALLEL);
            let mut ready: Vec<(Adopt, u64)> = Vec::new();
            while let Some(found) = reading.next().await {
                sum.entries += 1;
                match found? {
                    Found::Not(line) => {
                        seen.extend(RelPath::parse(&line.path));
                        progress.files("reading", sum.entries, Some(total), Some(&line.path));
                        tell(&mut sum, line, progress).await?;
                    }
                    Found::Ready(mut item, size) => {
                        item.once = seen.insert(item.path.clone());
                        progress.files("reading", sum.entries, Some(total), Some(item.path.as_str()));
                        ready.push((*item, size));
                    }
                }
                if ready.len() >= PAGE {
                    work.take(std::mem::take(&mut ready), &mut sum, progress).await?;
                }
            }
            work.take(ready, &mut sum, progress).await?;
            match next {
                Some(n) => mark = Some(n),
                None => break,
            }
        }
        drop(sealing);
        if sum.entries == 0 {
            let what =
                format!("there is no older layout at {} below {:?}: no object begins with {:?}", sum.from, sum.prefix, bucket.index());
            let e = Error::new(Kind::NotFound, what);
            return Err(e.hint("--from URL and --prefix P say where it is; --prefix '' where it has none"));
        }
        sum.ignored = bucket.ignored().await?.into_iter().map(|(prefix, objects)| IgnoredKeys { prefix, objects }).collect();
        let (devices, damaged) = bucket.devices().await?;
        sum.devices = devices.into_iter().map(|d| protocol::OldDevice { name: d.name, id: d.id, revoked: d.revoked }).collect();
        sum.notes.extend(damaged.into_iter().map(|d| format!("the older registry {d}")));
        if sum.adopted > 0 && !request.dry_run {
            sum.queued = !self.all_out(progress).await?;
        }
        Ok(Response::Adopted(sum))
    }

    /// The bucket that is meant, and the name of its place: the same whoever asks.
    async fn older(&self, request: &protocol::Adopt) -> Result<(OldBucket, OldPlace, AdoptSum)> {
        let own_id = self.replica.read(facts::store_id)?.unwrap_or_default();
        let own = |prefix: &str| (self.store.clone(), prefix.to_owned(), own_id.clone());
        let (store, url_prefix, id) = match &request.from {
            None => own(self.keys.prefix()),
            Some(url) => {
                let s3 = s3_options(&self.config, url.starts_with("s3://"))?;
                let (store, keys) = open::open(url, &s3)?;
                let id = identity::read(&*store, &keys).await?.map(|i| i.id);
                match id {
                    // Another way to write the URL of this drive's own store.
                    Some(id) if id == own_id => own(keys.prefix()),
                    Some(id) => (store, keys.prefix().to_owned(), id),
                    None => {
                        let name = match open::parse(url)? {
                            open::Location::Dir(d) => format!("file://{}", d.display()),
                            open::Location::S3 { bucket, .. } => format!("s3://{bucket}"),
                        };
                        (store, keys.prefix().to_owned(), name)
                    }
                }
            }
        };
        let prefix = request.prefix.as_deref().map_or(url_prefix.as_str(), |p| p.trim_matches('/')).to_owned();
        let in_place = id == own_id && prefix == self.keys.prefix();
        let place = OldPlace::new(&format!("{id}/{prefix}"));
        let sum = AdoptSum { from: store.describe(), prefix: prefix.clone(), dry_run: request.dry_run, ..AdoptSum::default() };
        Ok((OldBucket::new(store, &prefix, in_place), place, sum))
    }
}

struct Work<'a> {
    core: &'a Core,
    bucket: &'a OldBucket,
    place: &'a OldPlace,
    doubled: Option<Doubled>,
    dry: bool,
}

impl Work<'_> {
    /// What an index object is, with its bytes in the store if it can be taken.
    async fn read(&self, object: ObjectMeta) -> Result<Found> {
        let rest = self.bucket.rest(&object.key).to_owned();
        let not = |path: &str, outcome, size, why: Option<String>| Found::Not(AdoptedPath { path: path.to_owned(), outcome, size, why });
        let doubled = |whole: String, inner: String| match self.doubled {
            Some(Doubled::Keep) => older::named(&whole),
            Some(Doubled::Strip) => older::named(&inner),
            None => OldPath::Doubled { whole, inner },
        };
        let what = match self.bucket.path_of(&object.key) {
            OldPath::Doubled { whole, inner } => doubled(whole, inner),
            other => other,
        };
        let (path, is_dir) = match what {
            OldPath::Entry(p) => (p, false),
            // The root needs no mark.
            OldPath::Dir(p) if p.is_root() => return Ok(not("", AdoptOutcome::Same, 0, None)),
            OldPath::Dir(p) => (p, true),
            OldPath::Doubled { whole, inner } => {
                return Ok(not(
                    &whole,
                    AdoptOutcome::Doubled,
                    0,
                    Some(format!("it begins with the prefix once more: {inner}, or a directory of that name?")),
                ));
            }
            OldPath::Bad(why) => return Ok(not(&rest, AdoptOutcome::Unreadable, 0, Some(why))),
        };
        let (vfs, at) = (self.core.vfs.clone(), path.clone());
        if let Some(why) = blocking(move || vfs.local_only_at(&at, is_dir)).await? {
            return Ok(not(path.as_str(), AdoptOutcome::LocalOnly, 0, Some(why)));
        }
        match self.content(&object, &path, is_dir).await {
            Ok(found) => Ok(found),
            Err(e) if older::is_of_entry(&e) => Ok(not(path.as_str(), AdoptOutcome::Unreadable, 0, Some(e.to_string()))),
            Err(e) => Err(e.context(format!("adopting {path}"))),
        }
    }

    async fn content(&self, object: &ObjectMeta, path: &RelPath, is_dir: bool) -> Result<Found> {
        let not = |outcome, size| Ok(Found::Not(AdoptedPath { path: path.as_str().to_owned(), outcome, size, why: None }));
        let ready = |kind, mode, mtime, id: &str, size| {
            let marker = self.place.marker(id);
            Ok(Found::Ready(Box::new(Adopt { path: path.clone(), kind, mode, mtime, marker, once: true }), size))
        };
        let written = (object.modified, 0);
        let link = |target: String| {
            let (size, id) = (target.len() as u64, format!("link\0{target}"));
            ready(model::Kind::Symlink { target }, 0o777, written, &id, size)
        };
        let entry = self.bucket.entry(object).await?;
        if is_dir != (entry == OldEntry::Directory) && !matches!(entry, OldEntry::Deleted | OldEntry::Nothing) {
            return Err(Error::new(Kind::Corrupt, "the mark of a directory belongs to the name .tcfs_dir, and nothing else does"));
        }
        let (id, size, chunks) = match entry {
            OldEntry::Deleted => return not(AdoptOutcome::Deleted, 0),
            OldEntry::Nothing => return not(AdoptOutcome::Unfinished, 0),
            OldEntry::Directory => return ready(model::Kind::Dir, DIR_MODE, written, "dir", 0),
            OldEntry::Symlink { target, .. } => return link(target),
            OldEntry::File { manifest, size, chunks } => (manifest, size, chunks),
        };
        let marker = format!("file\0{id}");
        // What was taken before needs no second reading.
        let (vfs, at, known) = (self.core.vfs.clone(), path.clone(), self.place.marker(&marker));
        if let Some(stands) = blocking(move || vfs.has_adopted(&at, &known)).await? {
            let outcome = if stands { AdoptOutcome::Same } else { AdoptOutcome::GoneOn };
            return not(outcome, size);
        }
        let manifest = match self.bucket.manifest(&id).await? {
            OldManifest::Symlink { target, .. } => return link(target),
            OldManifest::File { encrypted: true, .. } => return not(AdoptOutcome::Encrypted, size),
            OldManifest::File { manifest, .. } => manifest,
        };
        let file = OldFile { size, chunks, manifest, modified: object.modified };
        let taken = self.core.fleet.take_old(self.bucket, &file, path, self.dry).await?;
        ready(model::Kind::File(taken.content), taken.mode, taken.mtime, &marker, size)
    }

    /// Takes what was read into the tree.
    async fn take(&self, ready: Vec<(Adopt, u64)>, sum: &mut AdoptSum, progress: &Progress) -> Result<()> {
        let sizes: Vec<(String, u64)> = ready.iter().map(|(i, n)| (i.path.as_str().to_owned(), *n)).collect();
        let items: Vec<Adopt> = ready.into_iter().map(|(i, _)| i).collect();
        let (vfs, place, dry) = (self.core.vfs.clone(), self.place.clone(), self.dry);
        let done = blocking(move || vfs.adopt(&place, &items, dry)).await?;
        for ((path, size), done) in sizes.into_iter().zip(done) {
            let (outcome, why) = match done {
                Adopted::Written { conflict: true, .. } => (AdoptOutcome::Conflict, None),
                Adopted::Written { replaced: true, .. } => (AdoptOutcome::Updated, None),
                Adopted::Written { .. } => (AdoptOutcome::Adopted, None),
                Adopted::Same | Adopted::Before { gone_on: false } => (AdoptOutcome::Same, None),
                Adopted::Before { gone_on: true } => (AdoptOutcome::GoneOn, None),
                Adopted::Left(why) => (AdoptOutcome::Unreadable, Some(why)),
            };
            tell(sum, AdoptedPath { path, outcome, size, why }, progress).await?;
        }
        Ok(())
    }
}

async fn tell(sum: &mut AdoptSum, line: AdoptedPath, progress: &Progress) -> Result<()> {
    sum.add(&line);
    progress.item(Item::Adopted(line)).await
}

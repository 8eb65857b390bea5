//! `store show`, `store copy` and `store move`.
//!
//! Must: `store.json` is copied last, so that a copy that was interrupted is no store; every object is read back and
//! compared. Must: after a move this machine never works on the old place again: it is noted in its state, and opening
//! with the old URL is refused with a sentence.

use super::{Core, blocking, s3_options};
use crate::daemon::config::{Config, StoreUrl};
use crate::daemon::protocol::{Response, StoreInfo, StoreMove, StoreMoved};
use crate::daemon::service::Progress;
use crate::error::{Error, Kind, Result};
use crate::state::{Replica, Tree};
use crate::store::keys::Keys;
use crate::store::{ObjectMeta, PutMode, StoreRef, identity, list_all, open};
use futures_util::FutureExt;
use futures_util::stream::{self, StreamExt};
use std::collections::HashMap;
use std::time::Duration;

/// How long the store is asked for its identity.
const SHOW: Duration = Duration::from_secs(10);
/// Objects copied at a time.
const PARALLEL: usize = 16;
/// The registry beside the prefix.
const META: &str = "tcfs-meta/";
/// Meta key: where the store was, and where it is.
const MOVED: &str = "store_moved";

/// Refuses to open a state with the URL from which its store was moved away. Blocking.
pub(super) fn check_moved(replica: &Replica, config: &Config) -> Result<()> {
    let moved: Option<(String, String)> = replica.read(|r| r.get(Tree::Meta, MOVED))?;
    match moved {
        Some((from, to)) if config.store.to_string() == from => {
            Err(Error::new(Kind::Usage, format!("the store of this machine was moved from {from} to {to}"))
                .hint(format!("set store = \"{to}\" where {from} is set; `tcfs config show store` says where that is")))
        }
        _ => Ok(()),
    }
}

#[derive(Default)]
struct Copied {
    objects: u64,
    bytes: u64,
    present: u64,
}

impl Copied {
    fn told(&self, from: String, to: String) -> StoreMoved {
        // `store.json` besides.
        StoreMoved { from, to, objects: self.objects + 1, bytes: self.bytes, present: self.present }
    }
}

/// This store and another place for it.
struct Place {
    from_url: String,
    /// Of the store.
    id: String,
    old: StoreRef,
    new: StoreRef,
    keys: Keys,
}

impl Core {
    pub(super) async fn store_show(&self) -> Result<Response> {
        let found = tokio::time::timeout(SHOW, identity::read(&*self.store, &self.keys)).await;
        let known = self.replica.read(crate::fleet::facts::store_id)?;
        let (found, reachable) = match found {
            Ok(Ok(f)) => (f, true),
            Ok(Err(e)) if !e.kind().is_transient() => return Err(e),
            _ => (None, false),
        };
        Ok(Response::Store(StoreInfo {
            url: self.switch.now().describe(),
            id: found.as_ref().map(|f| f.id.clone()).or(known),
            format: found.as_ref().map(|f| f.format),
            created_at: found.as_ref().map(|f| f.created.saturating_mul(1000)),
            reachable,
        }))
    }

    /// The other place, which is empty or has a copy of this store already.
    async fn other_place(&self, request: &StoreMove) -> Result<Place> {
        let from_url = self.config.store.to_string();
        if request.url == from_url {
            return Err(Error::new(Kind::Usage, format!("the store is at {from_url} already")));
        }
        if let (Some(a), Ok(open::Location::Dir(b))) = (self.config.store.dir(), open::parse(&request.url))
            && (b.starts_with(a) || a.starts_with(&b))
        {
            return Err(Error::new(Kind::Usage, format!("{} and {} lie in each other", a.display(), b.display())));
        }
        self.fleet.connect().await?;
        let id = self.replica.read(crate::fleet::facts::store_id)?.unwrap_or_default();
        let s3 = s3_options(&self.config, request.url.starts_with("s3://"))?;
        let (new, keys) = open::open(&request.url, &s3)?;
        match identity::read(&*new, &keys).await? {
            Some(there) if there.id != id => {
                return Err(Error::new(Kind::Exists, format!("there is another store at {} ({})", request.url, there.id))
                    .hint("name an empty place"));
            }
            _ => {}
        }
        Ok(Place { from_url, id, old: self.switch.now(), new, keys })
    }

    /// Copies all that is there, for as long as more comes: what a log names is copied with it.
    async fn copy_all(&self, p: &Place, sum: &mut Copied, progress: &Progress) -> Result<()> {
        while self.copy(&p.old, &p.new, &p.keys, sum, progress).await? > 0 {}
        Ok(())
    }

    /// The end of a copy: from now on it is a store.
    async fn seal_copy(&self, p: &Place) -> Result<()> {
        let body = p.old.get(&self.keys.store_json()).await?;
        p.new.put(&p.keys.store_json(), body, PutMode::Overwrite).await?;
        identity::expect(&*p.new, &p.keys, &p.id).await.map(drop)
    }

    pub(super) async fn store_copy(&self, request: StoreMove, progress: &Progress) -> Result<Response> {
        let place = self.other_place(&request).await?;
        let mut sum = Copied::default();
        self.copy_all(&place, &mut sum, progress).await?;
        self.seal_copy(&place).await?;
        tracing::info!(from = place.from_url, to = request.url, objects = sum.objects, "the store was copied");
        Ok(Response::StoreCopied(sum.told(place.from_url, request.url)))
    }

    pub(super) async fn store_move(&self, request: StoreMove, progress: &Progress) -> Result<Response> {
        let place = self.other_place(&request).await?;
        let mut sum = Copied::default();
        self.copy_all(&place, &mut sum, progress).await?;
        let paused = self.switch.pause().await;
        // Once: others may go on writing, and this machine waits.
        self.copy(&place.old, &place.new, &place.keys, &mut sum, progress).await?;
        self.seal_copy(&place).await?;
        let Place { from_url, new, keys, .. } = place;
        let (replica, moved) = (self.replica.clone(), (from_url.clone(), request.url.clone()));
        blocking(move || {
            replica.db().write(|t| t.put(Tree::Meta, MOVED, &moved))?;
            replica.db().sync()
        })
        .await?;
        self.switch.switch(new, &self.keys, &keys);
        drop(paused);
        tracing::info!(from = from_url, to = request.url, objects = sum.objects, "the store was moved");
        Ok(Response::StoreMoved(sum.told(from_url, request.url)))
    }

    /// Copies what the new store does not have, all but `store.json`. How many objects it copied.
    async fn copy(&self, old: &StoreRef, new: &StoreRef, keys: &Keys, sum: &mut Copied, progress: &Progress) -> Result<u64> {
        let (from, to) = (format!("{}/", self.keys.prefix()), format!("{}/", keys.prefix()));
        let new_key = |key: &str| key.strip_prefix(from.as_str()).map_or_else(|| key.to_owned(), |rest| format!("{to}{rest}"));
        let mut objects = list_all(&**old, &from).await?;
        objects.extend(list_all(&**old, META).await?);
        let canary = self.keys.canary(0);
        let canaries = canary.rsplit_once('/').map_or("", |(d, _)| d);
        objects.retain(|o| o.key != self.keys.store_json() && !o.key.starts_with(canaries));
        let mut there: HashMap<String, u64> = HashMap::new();
        for prefix in [to.as_str(), META] {
            there.extend(list_all(&**new, prefix).await?.into_iter().map(|o| (o.key, o.size)));
        }
        // What never changes under its key needs no second look; the rest is compared by its bytes.
        let fixed = |o: &ObjectMeta| {
            let kind = o.key.strip_prefix(from.as_str()).and_then(|k| k.split('/').next());
            matches!(kind, Some("chunks" | "manifests" | "log" | "snapshots"))
        };
        let total = objects.len() as u64;
        let (mut present, mut copied, mut n) = (0, 0, 0);
        let mut work = stream::iter(objects)
            .map(|o| {
                let key = new_key(&o.key);
                let skip = fixed(&o) && there.get(&key) == Some(&o.size);
                async move {
                    if skip {
                        return Ok((o.key, None));
                    }
                    let body = match old.get(&o.key).await {
                        Ok(b) => b,
                        // Removed meanwhile.
                        Err(e) if e.kind() == Kind::NotFound => return Ok((o.key, None)),
                        Err(e) => return Err(e.context(format!("copying {}", o.key))),
                    };
                    let same = |there: &Result<bytes::Bytes>| there.as_ref().is_ok_and(|b| *b == body);
                    if !fixed(&o) && same(&new.get(&key).await) {
                        return Ok((o.key, None));
                    }
                    new.put(&key, body.clone(), PutMode::Overwrite).await.map_err(|e| e.context(format!("copying {}", o.key)))?;
                    if !same(&new.get(&key).await) {
                        return Err(Error::new(Kind::Corrupt, format!("{}: {key} came back with other bytes", new.describe())));
                    }
                    Ok::<_, Error>((o.key, Some(body.len() as u64)))
                }
                .boxed()
            })
            .buffer_unordered(PARALLEL);
        while let Some(done) = work.next().await {
            let (key, bytes) = done?;
            n += 1;
            progress.files("copying", n, Some(total), Some(&key));
            match bytes {
                Some(b) => {
                    copied += 1;
                    sum.bytes += b;
                }
                None => present += 1,
            }
        }
        if sum.objects == 0 {
            sum.present = present;
        }
        sum.objects += copied;
        Ok(copied)
    }
}

/// Whether a URL names a store on S3.
pub(super) fn is_s3(url: &StoreUrl) -> bool {
    matches!(url, StoreUrl::S3 { .. })
}

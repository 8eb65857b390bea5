//! Which snapshot a new device starts from, and whether one can be what it says.
//!
//! Must: nothing of a snapshot is used before all of it was read, and found to hold the last batch of every log that it
//! speaks for: who leaves something out, or is of a fleet that went another way, is noticed there. Must: one that is
//! damaged or wrong is told of and passed over; so is one that cannot be fetched.
//! Not here: applying it (`load`).

use super::super::apply::{LINES_MAX, is_id, version_of};
use super::super::core::{Fleet, blocking};
use super::super::facts;
use crate::content::codec::{self, LinesReader};
use crate::error::{Error, Kind, Result};
use crate::model::record;
use crate::model::snapshot::{Header, LINE_MAX, Line, Tally};
use crate::model::{RelPath, Version};
use crate::store::keys::Keys;
use crate::store::{ObjectMeta, list_all};
use bytes::Bytes;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use std::collections::HashMap;
use std::sync::Arc;

/// Bytes of snapshots fetched to see which has the most; the newest is looked at whatever its size.
const COMPARED: u64 = 64 << 20;
/// At most so many are compared.
const COMPARED_MANY: usize = 8;
/// Most bytes that the lines of one may have: more than an object that is read can hold.
const UNPACKED_MAX: u64 = 64 << 30;
/// Batches fetched at a time.
const BATCHES: usize = 16;

/// A snapshot that was examined.
pub(super) struct Chosen {
    pub(super) key: String,
    pub(super) header: Header,
    pub(super) body: Bytes,
    /// Lines between the first and the last.
    pub(super) lines: u64,
}

/// One that was fetched.
struct Candidate {
    key: String,
    header: Header,
    body: Bytes,
}

impl Candidate {
    /// Batches that are in it. One whose cursors dominate another's has more.
    fn batches(&self) -> u128 {
        self.header.cursors.values().map(|n| u128::from(*n)).sum()
    }
}

impl Fleet {
    /// The best snapshot that can be used; what is wrong with others goes to `problems`.
    ///
    /// Errors: of the store.
    pub(super) async fn choose_snapshot(self: &Arc<Self>, problems: &mut Vec<String>) -> Result<Option<Chosen>> {
        let mut objects = self.list_snapshots().await?;
        // By the store's own clock, and no more than a guess: the newest mostly has the most.
        objects.sort_by_key(|o| std::cmp::Reverse((o.modified, o.size)));
        let mut objects = objects.into_iter().peekable();
        while objects.peek().is_some() {
            let mut fetched = self.fetch_some(&mut objects, problems).await?;
            fetched.sort_by_key(Candidate::batches);
            while let Some(c) = fetched.pop() {
                match self.examine(&c.key, &c.header, c.body.clone()).await {
                    Ok(lines) => return Ok(Some(Chosen { key: c.key, header: c.header, body: c.body, lines })),
                    Err(e) => self.pass_over(&c.key, e, problems)?,
                }
            }
        }
        Ok(None)
    }

    /// Fetches snapshots to be compared, at least one if there is a readable one left.
    async fn fetch_some(
        &self,
        objects: &mut std::iter::Peekable<impl Iterator<Item = ObjectMeta>>,
        problems: &mut Vec<String>,
    ) -> Result<Vec<Candidate>> {
        let (mut out, mut bytes): (Vec<Candidate>, u64) = (Vec::new(), 0);
        while let Some(o) = objects.next_if(|o| out.is_empty() || out.len() < COMPARED_MANY && bytes + o.size <= COMPARED) {
            let found = async {
                let body = self.store.get(&o.key).await?;
                let header = header_of(&o.key, &body)?;
                Ok::<_, Error>((header, body))
            };
            match found.await {
                Ok((header, body)) => match self.unusable(&header).await? {
                    Some(why) => tracing::info!(key = o.key, "a snapshot is not used: {why}"),
                    None => {
                        bytes += o.size;
                        out.push(Candidate { key: o.key, header, body });
                    }
                },
                Err(e) => self.pass_over(&o.key, e, problems)?,
            }
        }
        Ok(out)
    }

    /// Notes that a snapshot is of no use; an error if it may be the store's.
    fn pass_over(&self, key: &str, e: Error, problems: &mut Vec<String>) -> Result<()> {
        match e.kind() {
            Kind::NotFound => return Ok(()),
            Kind::Corrupt => self.snapshots.condemn(key),
            // A later tcfs wrote it: there is nothing wrong with it. Or it is too large for this line.
            Kind::Unsupported | Kind::Timeout => {}
            _ => return Err(e),
        }
        let text = format!("the snapshot {key} is not used: {e}");
        tracing::error!("{text}");
        problems.push(text);
        Ok(())
    }

    /// Why a snapshot, as good as it may be, is not for this device.
    ///
    /// Errors: of the store.
    pub(in crate::fleet) async fn unusable(&self, header: &Header) -> Result<Option<String>> {
        let me = self.me();
        let published = self.replica.read(|r| facts::published(r, &me.id))?;
        if header.cursors.get(&me.id).is_some_and(|seq| *seq > published) {
            return Ok(Some("it has more of this device's log than this device".to_owned()));
        }
        let prefix = Keys::devices();
        for object in list_all(&*self.store, &prefix).await? {
            let revoked = object.key.strip_prefix(&prefix).and_then(|name| name.strip_suffix(".revoked"));
            let Some((id, seq)) = revoked.and_then(|id| header.cursors.get_key_value(id)) else { continue };
            match self.registry().revoked(id).await {
                Ok(Some(mark)) if *seq > mark.revoked_after => {
                    let what = format!("it has batch {seq} of {id}, whose log counts up to {} only", mark.revoked_after);
                    return Ok(Some(what));
                }
                Ok(_) => {}
                Err(e) if e.kind() == Kind::Corrupt => tracing::error!("{e}"),
                Err(e) => return Err(e),
            }
        }
        Ok(None)
    }

    /// Reads a snapshot from beginning to end. The number of lines between its first and its last.
    ///
    /// Errors: `Corrupt` if it is damaged, incomplete, or lacks something of the last batch of a log that it has; of the
    /// store.
    pub(in crate::fleet) async fn examine(self: &Arc<Self>, key: &str, header: &Header, body: Bytes) -> Result<u64> {
        let fetches = header.cursors.iter().map(|(device, seq)| self.clone().last_batch(device.clone(), *seq));
        let fetches: Vec<_> = fetches.collect();
        let batches: Vec<Vec<Version>> = stream::iter(fetches).buffer_unordered(BATCHES).try_collect().await?;
        let key = key.to_owned();
        blocking(move || examine(&key, &body, batches.into_iter().flatten())).await
    }

    /// The versions of a batch that a snapshot must have.
    async fn last_batch(self: Arc<Self>, device: String, seq: u64) -> Result<Vec<Version>> {
        if !is_id(&device) {
            return Err(Error::new(Kind::Corrupt, format!("{device:?} is no device")));
        }
        let key = self.keys.batch(&device, seq);
        let body = match self.store.get(&key).await {
            Ok(body) => body,
            Err(e) if e.kind() == Kind::NotFound => {
                return Err(Error::new(Kind::Corrupt, format!("it has {key}, which is not in the store")));
            }
            Err(e) => return Err(e),
        };
        blocking(move || {
            let lines = record::decode(&codec::decode_lines(&key, &body, LINES_MAX)?);
            Ok(lines.into_iter().filter_map(version_of).collect())
        })
        .await
    }
}

/// The first line of a snapshot.
pub(in crate::fleet) fn header_of(key: &str, body: &[u8]) -> Result<Header> {
    Header::parse(&Lines::new(key, body)?.line)
}

/// The lines of a snapshot after the first.
pub(in crate::fleet) struct Lines<'b> {
    reader: LinesReader<'b>,
    line: Vec<u8>,
    number: usize,
    tally: Tally,
}

impl<'b> Lines<'b> {
    pub(in crate::fleet) fn new(key: &str, body: &'b [u8]) -> Result<Lines<'b>> {
        let mut lines =
            Lines { reader: LinesReader::new(key, body, LINE_MAX, UNPACKED_MAX)?, line: Vec::new(), number: 1, tally: Tally::default() };
        if !lines.reader.read(&mut lines.line)? {
            return Err(Error::new(Kind::Corrupt, "it is empty"));
        }
        lines.tally.add(&lines.line);
        Ok(lines)
    }

    /// The next line; none after the last one, which must be what it must be.
    pub(in crate::fleet) fn next(&mut self) -> Result<Option<Line>> {
        let bad = |why: &str| Err(Error::new(Kind::Corrupt, format!("reading a snapshot: {why}")));
        if !self.reader.read(&mut self.line)? {
            return bad("its end is missing: it is not complete");
        }
        self.number += 1;
        let text = self.line.strip_suffix(b"\n").unwrap_or(&self.line);
        match Line::parse(self.number, text)? {
            Line::End(end) if end != self.tally.end() => bad("its lines are not those that were written"),
            Line::End(_) if self.reader.read(&mut self.line)? => bad("it goes on after its end"),
            Line::End(_) => Ok(None),
            line => {
                self.tally.add(&self.line);
                Ok(Some(line))
            }
        }
    }
}

/// Reads all of it; every version of `wanted` must be in it, or something that covers it. Blocking.
fn examine(key: &str, body: &[u8], wanted: impl Iterator<Item = Version>) -> Result<u64> {
    let mut missing: HashMap<RelPath, Vec<Version>> = HashMap::new();
    for v in wanted {
        missing.entry(v.path.clone()).or_default().push(v);
    }
    let mut lines = Lines::new(key, body)?;
    let mut n = 0;
    while let Some(line) = lines.next()? {
        n += 1;
        if let Line::Head(head) = line
            && let Some(of_path) = missing.get_mut(&head.path)
        {
            of_path.retain(|v| *v != *head && !head.vclock.covers(&v.vclock));
        }
    }
    match missing.into_values().flatten().next() {
        Some(v) => Err(Error::new(Kind::Corrupt, format!("it has {}'s log without its last version of {:?}", v.device_id, v.path))),
        None => Ok(n),
    }
}

//! Small facts about this device in its local database: who it is, which store it belongs to, how far its log goes.
//!
//! Must: the published sequence moves in the transaction that removes the published rows. Must: the identity in the
//! database wins over the file: it changes together with the rows that carry the id.

use super::identity::Identity;
use crate::error::Result;
use crate::state::rows::Cursor;
use crate::state::{Read, Scan, Tree, Txn, prefix_end};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Last sequence of a device's own log that is known to be in the store.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Published {
    /// Device id.
    pub device: String,
    /// 0 before the first batch.
    pub seq: u64,
}

/// How far the logs have grown since the newest snapshot that this device knows of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Growth {
    /// Records applied or published since.
    pub records: u64,
    /// Batches they came in.
    pub batches: u64,
    /// Bytes of that snapshot; 0 if there is none.
    pub size: u64,
}

const GROWTH: &str = "snapshot_growth";
const PUBLISHED: &str = "published";
const STORE: &str = "store";
const STORE_PLACE: &str = "store_place";
const IDENTITY: &str = "identity";

/// Last published sequence under this id.
pub fn published(r: &Read<'_>, id: &str) -> Result<u64> {
    let p: Option<Published> = r.get(Tree::Meta, PUBLISHED)?;
    Ok(p.filter(|p| p.device == id).map_or(0, |p| p.seq))
}

/// Sets it.
pub fn set_published(t: &mut Txn<'_>, id: &str, seq: u64) -> Result<()> {
    t.put(Tree::Meta, PUBLISHED, &Published { device: id.to_owned(), seq })
}

/// How far the logs have grown since the newest known snapshot.
pub fn growth(r: &Read<'_>) -> Result<Growth> {
    if let Some(g) = r.get(Tree::Meta, GROWTH)? {
        return Ok(g);
    }
    // A state from before there were snapshots: everything in it is not in one.
    Ok(Growth { records: crate::state::tree::names(r)?, ..Growth::default() })
}

/// Sets it.
pub fn set_growth(t: &mut Txn<'_>, growth: &Growth) -> Result<()> {
    t.put(Tree::Meta, GROWTH, growth)
}

/// One more batch, of so many records.
pub fn grow(t: &mut Txn<'_>, records: usize) -> Result<()> {
    let g = growth(t)?;
    set_growth(t, &Growth { records: g.records.saturating_add(records as u64), batches: g.batches.saturating_add(1), ..g })
}

/// Last batch applied of each other device.
pub fn cursors(r: &Read<'_>) -> Result<BTreeMap<String, u64>> {
    let mut out = BTreeMap::new();
    r.scan(Tree::Cursor, Scan::From(&[], &prefix_end(&[])), usize::MAX >> 1, |k, c: Cursor| {
        out.insert(String::from_utf8_lossy(k).into_owned(), c.seq);
        Ok(())
    })?;
    Ok(out)
}

/// What this state has of every log, the own one under `me` included: device → last batch, none where it has nothing.
pub fn applied(r: &Read<'_>, me: &str) -> Result<BTreeMap<String, u64>> {
    let mut out = cursors(r)?;
    out.insert(me.to_owned(), published(r, me)?);
    out.retain(|_, seq| *seq > 0);
    Ok(out)
}

/// Id of the store this state belongs to; none before it was first reached.
pub fn store_id(r: &Read<'_>) -> Result<Option<String>> {
    r.get(Tree::Meta, STORE)
}

/// Sets it (first contact, or a move to another store).
pub fn set_store_id(t: &mut Txn<'_>, id: &str) -> Result<()> {
    t.put(Tree::Meta, STORE, &id.to_owned())
}

/// Where that store was last seen (`store::identity::place`).
pub fn store_place(r: &Read<'_>) -> Result<Option<String>> {
    r.get(Tree::Meta, STORE_PLACE)
}

/// Sets it.
pub fn set_store_place(t: &mut Txn<'_>, place: &str) -> Result<()> {
    t.put(Tree::Meta, STORE_PLACE, &place.to_owned())
}

/// The identity this state belongs to.
pub fn identity(r: &Read<'_>) -> Result<Option<Identity>> {
    let text: Option<String> = r.get(Tree::Meta, IDENTITY)?;
    text.map(|t| Identity::from_json(&t, "the identity in the local database")).transpose()
}

/// Sets it.
pub fn set_identity(t: &mut Txn<'_>, identity: &Identity) -> Result<()> {
    t.put(Tree::Meta, IDENTITY, &identity.to_json()?)
}

//! The fleet's devices: one object for each, and the merged view of all.
//!
//! Must: the truth is the per-device objects; only a device itself writes its own, whoever revokes writes a separate one.
//! Must: fields and devices that this program does not know survive in everything it rewrites.
//! Must: `devices.json` is a view that anybody may rebuild at any time; nothing here trusts it.
//! Not here: this machine's own key and id (`identity`).

use super::identity::{Identity, PublicKey, check_name, numbered};
use crate::clock::Clock;
use crate::error::{Error, Kind, Result};
use crate::store::keys::Keys;
use crate::store::{PutMode, StoreRef, list_all};
use bytes::Bytes;
use futures_util::stream::{self, StreamExt};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};

/// A registry object that is larger is not one.
const OBJECT_MAX: usize = 1 << 20;
/// Requests under way when all devices are read.
const PARALLEL: usize = 16;

/// One device's object.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Device id.
    pub id: String,
    /// Its name now.
    pub name: String,
    /// Ed25519, base64.
    pub public_key: String,
    /// Seconds since 1970.
    pub enrolled_at: i64,
    /// Seconds since 1970, when it last told; at most an hour behind while it runs.
    #[serde(default)]
    pub last_seen: i64,
    /// Of the tcfs that wrote this.
    #[serde(default)]
    pub version: String,
    /// Id of the store that it works with: a bucket may have several, below prefixes of their own, and has one registry.
    /// Empty where an earlier tcfs wrote this.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub store: String,
    /// What later versions add.
    #[serde(flatten)]
    pub more: Map<String, Value>,
}

/// The mark that a device is revoked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Revoked {
    /// Last sequence of its log that counts.
    pub revoked_after: u64,
    /// Seconds since 1970.
    pub at: i64,
    /// Id of the device that did it.
    pub by: String,
    /// What later versions add.
    #[serde(flatten)]
    pub more: Map<String, Value>,
}

/// A device as lists show it.
#[derive(Clone, Debug, PartialEq)]
pub struct Listed {
    /// Its object.
    pub record: Record,
    /// Its name, with a number where a smaller id that is not revoked has the same.
    pub shown_name: String,
    /// Whether and from where on it counts no more.
    pub revoked: Option<Revoked>,
}

/// Devices and what could not be read.
#[derive(Clone, Debug, Default)]
pub struct Listing {
    /// In order of name, then id.
    pub devices: Vec<Listed>,
    /// Damaged objects, as sentences.
    pub damaged: Vec<String>,
}

/// What enrolling did.
#[derive(Clone, Debug)]
pub struct Enrolled {
    /// Who this machine is now.
    pub identity: Identity,
    /// Ids revoked because `--replace` took their name.
    pub replaced: Vec<String>,
}

/// The registry in a store.
#[derive(Clone)]
pub struct Registry {
    store: StoreRef,
    home: Option<String>,
}

impl Registry {
    /// The registry of `store`.
    pub fn new(store: StoreRef) -> Registry {
        Registry { store, home: None }
    }

    /// The same, which tells in this device's own object that it works with the store of this id.
    pub fn of(self, home: Option<String>) -> Registry {
        Registry { home, ..self }
    }

    /// Reads all devices. A damaged object is reported and hides no other.
    ///
    /// Errors: of the store.
    pub async fn list(&self) -> Result<Listing> {
        let prefix = Keys::devices();
        let keys: Vec<String> = list_all(&*self.store, &prefix).await?.into_iter().map(|o| o.key).collect();
        let fetches: Vec<_> = keys.into_iter().map(|key| self.fetch(key)).collect();
        let bodies: Vec<(String, Result<Bytes>)> = stream::iter(fetches).buffer_unordered(PARALLEL).collect().await;
        let mut listing = Listing::default();
        let mut records: BTreeMap<String, Record> = BTreeMap::new();
        let mut revoked: BTreeMap<String, Revoked> = BTreeMap::new();
        for (key, body) in bodies {
            let body = match body {
                Ok(b) => b,
                Err(e) if e.kind() == Kind::NotFound => continue,
                Err(e) => return Err(e),
            };
            let name = key.strip_prefix(&prefix).unwrap_or(&key);
            if let Some(id) = name.strip_suffix(".json") {
                match parse::<Record>(&body).and_then(|r| checked(r, id)) {
                    Ok(r) => drop(records.insert(id.to_owned(), r)),
                    Err(why) => listing.damaged.push(format!("the registry object {key}: {why}")),
                }
            } else if let Some(id) = name.strip_suffix(".revoked") {
                match parse::<Revoked>(&body) {
                    Ok(r) => drop(revoked.insert(id.to_owned(), r)),
                    Err(why) => listing.damaged.push(format!("the registry object {key}: {why}")),
                }
            }
        }
        let mut names: BTreeMap<String, usize> = BTreeMap::new();
        let mut taken: BTreeSet<String> =
            records.iter().filter(|(id, _)| !revoked.contains_key(*id)).map(|(_, r)| r.name.clone()).collect();
        // In order of id, so that every device shows the same names.
        for (id, record) in records {
            let revoked = revoked.remove(&id);
            let mut shown_name = record.name.clone();
            if revoked.is_none() {
                let n = names.entry(record.name.clone()).or_insert(0);
                *n += 1;
                while *n > 1 {
                    shown_name = numbered(&record.name, *n);
                    if taken.insert(shown_name.clone()) {
                        break;
                    }
                    *n += 1;
                }
            }
            listing.devices.push(Listed { record, shown_name, revoked });
        }
        listing.devices.sort_by(|a, b| (&a.shown_name, &a.record.id).cmp(&(&b.shown_name, &b.record.id)));
        Ok(listing)
    }

    /// The key by which a device's signatures are known; none for a device or a key that is none.
    ///
    /// Errors: of the store.
    pub async fn public_key(&self, id: &str) -> Result<Option<PublicKey>> {
        match self.store.get(&Keys::device(id)).await {
            Ok(body) => Ok(parse::<Record>(&body).and_then(|r| checked(r, id)).ok().and_then(|r| PublicKey::parse(&r.public_key))),
            Err(e) if e.kind() == Kind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    async fn fetch(&self, key: String) -> (String, Result<Bytes>) {
        let body = self.store.get(&key).await;
        (key, body)
    }

    /// Enrols this machine under `name` (`<name>-2` and so on if an unrevoked device has it; with `replace` that one is
    /// revoked and the name taken). `old` is who this machine was. `last` tells the last sequence of a log that counts,
    /// asked for devices that are replaced. The caller saves the identity.
    ///
    /// Errors: `Usage` for a bad name; of the store.
    pub async fn enroll(&self, name: &str, replace: bool, last: &(dyn Fn(&str) -> u64 + Sync), clock: &dyn Clock) -> Result<Enrolled> {
        check_name(name)?;
        let devices = self.list().await?.devices;
        let active = || devices.iter().filter(|d| d.revoked.is_none());
        let mut replaced = Vec::new();
        let mut name = name.to_owned();
        if replace {
            replaced = active().filter(|d| d.record.name == name).map(|d| d.record.id.clone()).collect();
        } else {
            let taken: BTreeSet<&str> = active().flat_map(|d| [d.record.name.as_str(), d.shown_name.as_str()]).collect();
            let free = (1..).map(|n| numbered(&name, n)).find(|n| !taken.contains(n.as_str()));
            name = free.unwrap_or(name);
        }
        let identity = Identity::create(&name, clock)?;
        self.put_own(&identity, clock).await?;
        for id in &replaced {
            self.revoke(id, last(id), &identity.id, clock).await?;
        }
        self.rebuild_view().await?;
        Ok(Enrolled { identity, replaced })
    }

    /// Writes this device's own object: its name, key and when it was last seen. Unknown fields survive.
    pub async fn put_own(&self, me: &Identity, clock: &dyn Clock) -> Result<()> {
        let key = Keys::device(&me.id);
        let (more, was) = match self.store.get(&key).await {
            Ok(body) => parse::<Record>(&body).map(|r| (r.more, r.store)).unwrap_or_default(),
            Err(e) if e.kind() == Kind::NotFound => Default::default(),
            Err(e) => return Err(e),
        };
        let record = Record {
            id: me.id.clone(),
            name: me.name.clone(),
            public_key: me.public_key(),
            enrolled_at: me.enrolled_at,
            last_seen: clock.now_ns().div_euclid(1_000_000_000),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            store: self.home.clone().unwrap_or(was),
            more,
        };
        self.put(&key, &record).await
    }

    /// Revokes a device: what its log holds after `revoked_after` counts no more.
    ///
    /// Errors: `NotFound` if there is no such device; of the store.
    pub async fn revoke(&self, id: &str, revoked_after: u64, by: &str, clock: &dyn Clock) -> Result<()> {
        if self.store.head(&Keys::device(id)).await?.is_none() {
            return Err(
                Error::new(Kind::NotFound, format!("revoking {id}: the registry has no such device")).hint("see `tcfs device list`")
            );
        }
        // The first revocation stands: a later one may not move the line.
        if self.revoked(id).await?.is_some() {
            return Ok(());
        }
        let mark = Revoked { revoked_after, at: clock.now_ns().div_euclid(1_000_000_000), by: by.to_owned(), more: Map::new() };
        let body = json(&mark)?;
        self.store.put(&Keys::revoked(id), body, PutMode::IfAbsent).await?;
        Ok(())
    }

    /// Takes back an enrolment that was never used: its object and its line in the view.
    ///
    /// Errors: of the store.
    pub async fn withdraw(&self, id: &str) -> Result<()> {
        self.store.delete(&Keys::device(id)).await?;
        self.store.delete(&Keys::revoked(id)).await?;
        let key = Keys::registry();
        let mut view = match self.store.get(&key).await {
            Ok(body) => serde_json::from_slice::<Map<String, Value>>(&body).unwrap_or_default(),
            Err(e) if e.kind() == Kind::NotFound => Map::new(),
            Err(e) => return Err(e),
        };
        if let Some(Value::Array(devices)) = view.get_mut("devices") {
            devices.retain(|d| d.get("id").and_then(Value::as_str) != Some(id));
            self.store.put(&key, json(&view)?, PutMode::Overwrite).await?;
        }
        self.rebuild_view().await
    }

    /// The mark of a device, if it is revoked.
    pub async fn revoked(&self, id: &str) -> Result<Option<Revoked>> {
        match self.store.get(&Keys::revoked(id)).await {
            Ok(body) => parse(&body).map(Some).map_err(|why| Error::new(Kind::Corrupt, format!("reading {}: {why}", Keys::revoked(id)))),
            Err(e) if e.kind() == Kind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// The id of the device that `text` means: an id, or a name as lists show it.
    ///
    /// Errors: `NotFound`; of the store.
    pub async fn find(&self, text: &str) -> Result<Listed> {
        let devices = self.list().await?.devices;
        let by_id = devices.iter().find(|d| d.record.id == text);
        let by_name = || devices.iter().filter(|d| d.revoked.is_none()).find(|d| d.shown_name == text);
        by_id.or_else(by_name).cloned().ok_or_else(|| {
            let known: Vec<&str> = devices.iter().map(|d| d.shown_name.as_str()).collect();
            Error::new(Kind::NotFound, format!("there is no device {text:?}")).hint(format!("known: {}", known.join(", ")))
        })
    }

    /// Rebuilds `devices.json` from the objects. Its own unknown fields, and devices that only it knows (of the older
    /// tcfs), survive. Concurrent rebuilds are harmless: the next one repairs.
    pub async fn rebuild_view(&self) -> Result<()> {
        let key = Keys::registry();
        let mut view = match self.store.get(&key).await {
            Ok(body) if body.len() <= 16 * OBJECT_MAX => serde_json::from_slice::<Map<String, Value>>(&body).unwrap_or_default(),
            Ok(_) => Map::new(),
            Err(e) if e.kind() == Kind::NotFound => Map::new(),
            Err(e) => return Err(e),
        };
        let before = view.clone();
        let listing = self.list().await?;
        let mut known: BTreeMap<String, Map<String, Value>> = BTreeMap::new();
        let mut others = Vec::new();
        for old in view.remove("devices").and_then(|d| if let Value::Array(a) = d { Some(a) } else { None }).unwrap_or_default() {
            match old {
                Value::Object(o) => match o.get("id").and_then(Value::as_str).map(str::to_owned) {
                    Some(id) => drop(known.insert(id, o)),
                    None => others.push(Value::Object(o)),
                },
                other => others.push(other),
            }
        }
        for d in listing.devices {
            let entry = known.entry(d.record.id.clone()).or_default();
            if let Value::Object(now) = value(&d.record)? {
                entry.extend(now);
            }
            entry.insert("revoked".into(), Value::Bool(d.revoked.is_some()));
            if let Some(r) = d.revoked {
                entry.insert("revoked_at".into(), r.at.into());
                entry.insert("revoked_after".into(), r.revoked_after.into());
            }
        }
        others.extend(known.into_values().map(Value::Object));
        view.insert("devices".into(), Value::Array(others));
        if view == before {
            return Ok(());
        }
        self.store.put(&key, json(&view)?, PutMode::Overwrite).await.map(|_| ())
    }

    async fn put<T: Serialize>(&self, key: &str, object: &T) -> Result<()> {
        self.store.put(key, json(object)?, PutMode::Overwrite).await.map(|_| ())
    }
}

/// Anybody may have written it: its name is shown on terminals and becomes part of others' file names.
fn checked(r: Record, id: &str) -> std::result::Result<Record, String> {
    if r.id != id {
        return Err("it names another device".into());
    }
    check_name(&r.name).map_err(|e| e.to_string())?;
    Ok(r)
}

fn parse<T: serde::de::DeserializeOwned>(body: &[u8]) -> std::result::Result<T, String> {
    if body.len() > OBJECT_MAX {
        return Err(format!("{} bytes are too many", body.len()));
    }
    serde_json::from_slice(body).map_err(|e| e.to_string())
}

fn value<T: Serialize>(object: &T) -> Result<Value> {
    serde_json::to_value(object).map_err(|e| Error::new(Kind::Internal, "writing a registry object").source(e))
}

fn json<T: Serialize>(object: &T) -> Result<Bytes> {
    let text = serde_json::to_vec_pretty(object).map_err(|e| Error::new(Kind::Internal, "writing a registry object").source(e))?;
    Ok(text.into())
}
